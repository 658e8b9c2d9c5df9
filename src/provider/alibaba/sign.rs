//! ACS3-HMAC-SHA256, Alibaba Cloud's request signature, as a pure function: time and nonce come in with the headers.
//! It must never see the network, and never keeps the secret. Source: alibabacloud-tea-openapi 0.4.6, whose own
//! signatures are the golden vectors in `tests/vectors/aliyun_acs3.json`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::provider::http::digest::{hmac_sha256, sha256_hex};

/// RFC 3986: everything but `A-Z a-z 0-9 - _ . ~` is written `%XX`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What the signer made of a request; the middle steps are there for the vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The request in its one canonical spelling.
    pub canonical_request: String,
    /// `ACS3-HMAC-SHA256` and the digest of the canonical request.
    pub string_to_sign: String,
    /// The signature in hex.
    pub signature: String,
    /// The value of the `Authorization` header.
    pub authorization: String,
}

/// A request as the signer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `POST`.
    pub method: &'a str,
    /// The path as it goes over the wire; empty means `/`.
    pub path: &'a str,
    /// The query as [`canonical_query`] writes it, and so it goes over the wire.
    pub query: &'a str,
    /// The headers; a name may come more than once, in any case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// The query in canonical spelling: sorted by name, percent-encoded by RFC 3986, an empty value as `name=`.
pub fn canonical_query<K: AsRef<str>, V: AsRef<str>>(parameters: &[(K, V)]) -> String {
    let mut pairs: Vec<_> = parameters.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    pairs.sort_unstable();
    let written = pairs.into_iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    written.collect::<Vec<_>>().join("&")
}

/// The headers that the service demands to be signed: `host`, `content-type` when sent, and every `x-acs-*`.
pub fn must_be_signed(name: &str) -> bool {
    matches!(name, "host" | "content-type") || name.starts_with("x-acs-")
}

/// Signs a request. `signed` says of a lower-case header name whether it is covered: any superset of
/// [`must_be_signed`] is accepted by the service. The secret is used as it is: no key derivation.
pub fn sign(key_id: &str, secret: &str, parts: Parts<'_>, signed: impl Fn(&str) -> bool) -> Signature {
    // One entry a name; a name that is repeated has its trimmed values sorted and joined with commas.
    let mut headers = std::collections::BTreeMap::<String, Vec<&str>>::new();
    for (name, value) in parts.headers {
        let name = name.trim().to_ascii_lowercase();
        if signed(&name) {
            headers.entry(name).or_default().push(value.trim());
        }
    }
    let lines: String = headers
        .iter_mut()
        .map(|(name, values)| {
            values.sort_unstable();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    let names = headers.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let canonical_request = [parts.method, path, parts.query, &lines, &names, &sha256_hex(parts.body)].join("\n");
    let string_to_sign = format!("ACS3-HMAC-SHA256\n{}", sha256_hex(canonical_request.as_bytes()));
    let signature = hex::encode(hmac_sha256(secret.as_bytes(), string_to_sign.as_bytes()));
    let authorization = format!("ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}");
    Signature { canonical_request, string_to_sign, signature, authorization }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/aliyun_acs3.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        file["cases"].as_array().unwrap().clone()
    }

    /// A map, or a list of pairs, of names to a value or to several; what is null is not sent.
    fn pairs(value: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let one = |name: &str, value: &Value| -> Vec<(String, String)> {
            match value {
                Value::Array(several) => several.iter().map(|value| (name.to_string(), text(value))).collect(),
                Value::Null => Vec::new(),
                value => vec![(name.to_string(), text(value))],
            }
        };
        match value {
            Value::Object(map) => map.iter().flat_map(|(name, value)| one(name, value)).collect(),
            Value::Array(list) => list.iter().flat_map(|pair| one(pair[0].as_str().unwrap(), &pair[1])).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_vector_of_the_vendors_sdk_is_signed_alike() {
        let cases = vectors();
        assert!(!cases.is_empty());
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            let expected = &case["expected"];
            let query = canonical_query(&pairs(&case["query"]));
            let headers = pairs(&case["headers_in"]);
            let body = text(&case["body"]);
            let covered = text(&expected["signed_headers"]);
            let covered: Vec<&str> = covered.split(';').collect();
            let (method, path) = (text(&case["method"]), text(&case["path"]));
            let parts = Parts { method: &method, path: &path, query: &query, headers: &headers, body: body.as_bytes() };
            let credentials = &case["credentials"];
            let made =
                sign(&text(&credentials["access_key_id"]), &text(&credentials["access_key_secret"]), parts, |name| {
                    covered.contains(&name)
                });
            assert_eq!(query, text(&expected["canonical_query"]), "{name}: query");
            assert_eq!(sha256_hex(body.as_bytes()), text(&expected["hashed_payload"]), "{name}: body");
            assert_eq!(made.canonical_request, text(&expected["canonical_request"]), "{name}: canonical request");
            assert_eq!(made.string_to_sign, text(&expected["string_to_sign"]), "{name}: string to sign");
            assert_eq!(made.signature, text(&expected["signature"]), "{name}: signature");
            assert_eq!(made.authorization, text(&expected["authorization"]), "{name}: authorization");
        }
    }

    #[test]
    fn the_host_the_kind_of_body_and_all_of_the_vendors_headers_must_be_signed() {
        for name in ["host", "content-type", "x-acs-date", "x-acs-security-token"] {
            assert!(must_be_signed(name), "{name}");
        }
        for name in ["accept", "user-agent", "authorization", "x-ac"] {
            assert!(!must_be_signed(name), "{name}");
        }
    }

    #[test]
    fn a_repeated_header_is_one_line_of_trimmed_values_in_order() {
        let header = |name: &str, value: &str| (name.to_string(), value.to_string());
        let headers = [
            header("X-Acs-Meta", " b "),
            header("Host", "h"),
            header("x-acs-meta", "a"),
            header("accept", "application/json"),
        ];
        let parts = Parts { method: "GET", path: "", query: "", headers: &headers, body: b"" };
        let made = sign("id", "secret", parts, must_be_signed);
        assert_eq!(
            made.canonical_request,
            format!("GET\n/\n\nhost:h\nx-acs-meta:a,b\n\nhost;x-acs-meta\n{}", sha256_hex(b""))
        );
    }
}
