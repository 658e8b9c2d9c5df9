//! TC3-HMAC-SHA256, checked from the receiving end (FACTS §2.3). It takes the request as it came over the wire and
//! computes what the signature should have been; it must never be shared with the client that signs.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// An Authorization header, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorization<'a> {
    pub(super) secret_id: &'a str,
    pub(super) date: &'a str,
    pub(super) service: &'a str,
    pub(super) signed: Vec<&'a str>,
    pub(super) signature: &'a str,
}

/// Reads `TC3-HMAC-SHA256 Credential=<id>/<date>/<service>/tc3_request, SignedHeaders=<a;b>, Signature=<hex>`.
pub(super) fn authorization(header: &str) -> Option<Authorization<'_>> {
    let rest = header.strip_prefix("TC3-HMAC-SHA256 Credential=")?;
    let (credential, rest) = rest.split_once(", SignedHeaders=")?;
    let (signed, signature) = rest.split_once(", Signature=")?;
    let mut scope = credential.split('/');
    let (secret_id, date, service) = (scope.next()?, scope.next()?, scope.next()?);
    if scope.next() != Some("tc3_request") || scope.next().is_some() || signature.len() != 64 {
        return None;
    }
    Some(Authorization { secret_id, date, service, signed: signed.split(';').collect(), signature })
}

/// A request's parts, exactly as received.
pub(super) struct Parts<'a> {
    pub(super) method: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a [u8],
}

/// Which headers were signed, if they are a legal list: lower case, sorted, none twice, content-type and host in it.
fn legal(signed: &[&str]) -> bool {
    signed.is_sorted_by(|a, b| a < b)
        && signed.iter().all(|name| !name.is_empty() && !name.contains(|c: char| c.is_ascii_uppercase()))
        && ["content-type", "host"].iter().all(|needed| signed.contains(needed))
}

/// The signature that the request should bear. `None` when the list of signed headers is not legal or names a header
/// that did not come.
pub(super) fn signature(parts: &Parts<'_>, who: &Authorization<'_>, secret: &str, timestamp: i64) -> Option<String> {
    if !legal(&who.signed) {
        return None;
    }
    let header = |wanted: &str| {
        parts.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
    };
    let mut block = String::new();
    for name in &who.signed {
        let value = header(name)?.trim();
        // All signed values but the action's are taken as they are; the action's is lower-cased.
        let value = if *name == "x-tc-action" { value.to_ascii_lowercase() } else { value.to_string() };
        block.push_str(&format!("{name}:{value}\n"));
    }
    let payload: &[u8] = match header("x-tc-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => b"UNSIGNED-PAYLOAD",
        _ if parts.method == "GET" => b"",
        _ => parts.body,
    };
    let canonical = format!(
        "{}\n/\n{}\n{block}\n{}\n{}",
        parts.method,
        parts.query,
        who.signed.join(";"),
        hex::encode(Sha256::digest(payload))
    );
    let scope = format!("{}/{}/tc3_request", who.date, who.service);
    let hashed = hex::encode(Sha256::digest(canonical.as_bytes()));
    let to_sign = format!("TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashed}");
    let mut key = format!("TC3{secret}").into_bytes();
    for part in [who.date, who.service, "tc3_request", &to_sign] {
        key = mac(&key, part.as_bytes());
    }
    Some(hex::encode(key))
}

/// The UTC date of a Unix time, as the scope has it.
pub(super) fn date(timestamp: i64) -> Option<String> {
    Some(Timestamp::from_second(timestamp).ok()?.strftime("%Y-%m-%d").to_string())
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes keys of every length.
    Hmac::<Sha256>::new_from_slice(key)
        .map_or_else(|_| Vec::new(), |mac| mac.chain_update(message).finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_golden_vector_verifies_and_no_altered_one_does() {
        let text = include_str!("../../../tests/vectors/tencent_tc3.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
            let headers: Vec<_> = case["headers_in"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.to_ascii_lowercase(), text(v)))
                .collect();
            let (method, query, body) = (text(&case["method"]), text(&case["query"]), text(&case["body"]));
            let parts = Parts { method: &method, query: &query, headers: &headers, body: body.as_bytes() };
            let given = text(&case["expected"]["authorization"]);
            let who = authorization(&given).unwrap();
            let (secret, timestamp) = (text(&case["credentials"]["secret_key"]), case["timestamp"].as_i64().unwrap());
            assert_eq!(who.secret_id, text(&case["credentials"]["secret_id"]), "{name}");
            assert_eq!(Some(who.date.to_string()), date(timestamp), "{name}");
            let good = signature(&parts, &who, &secret, timestamp).unwrap();
            assert_eq!(good, who.signature, "{name}");
            assert_eq!(good, text(&case["expected"]["signature"]), "{name}");

            assert_ne!(signature(&parts, &who, &secret, timestamp + 1).unwrap(), good, "{name}: another time");
            assert_ne!(signature(&parts, &who, "other", timestamp).unwrap(), good, "{name}: another secret");
            let other = Parts { query: "a=b", ..parts };
            assert_ne!(signature(&other, &who, &secret, timestamp).unwrap(), good, "{name}: another query");
        }
    }

    #[test]
    fn a_malformed_header_is_no_authorization() {
        let sig = "0".repeat(64);
        let good = format!(
            "TC3-HMAC-SHA256 Credential=a/2026-11-22/cvm/tc3_request, SignedHeaders=content-type;host, Signature={sig}"
        );
        assert!(authorization(&good).is_some());
        for bad in [
            "",
            "Bearer x",
            &good.replace(", ", ","),
            &good.replace("tc3_request", "aws4_request"),
            &good.replace("/cvm", ""),
            &good[..good.len() - 1],
        ] {
            assert_eq!(authorization(bad), None, "{bad}");
        }
        for (list, fine) in [
            ("content-type;host", true),
            ("content-type;host;x-tc-action", true),
            ("host;content-type", false),
            ("host", false),
            ("content-type;host;host", false),
            ("Content-Type;Host", false),
        ] {
            assert_eq!(legal(&list.split(';').collect::<Vec<_>>()), fine, "{list}");
        }
    }
}
