//! TC3-HMAC-SHA256, the signature of Tencent's API 3.0. Pure: the time and the credentials come in by argument.
//! It must never change what it signs except to add the `authorization` header.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::net::Request;
use crate::provider::Credentials;
use crate::provider::http::digest::{hmac_sha256, sha256_hex};

const ALGORITHM: &str = "TC3-HMAC-SHA256";

/// The headers that are signed: the two that must be, as the vendor's SDKs do (FACTS 2.3, step 2).
pub const SIGNED: [&str; 2] = ["content-type", "host"];

/// A signature and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Method, path, query, signed headers, payload digest.
    pub canonical_request: String,
    /// Algorithm, time, scope, digest of the canonical request.
    pub string_to_sign: String,
    /// The signature in hex.
    pub signature: String,
    /// The value of the `authorization` header.
    pub authorization: String,
}

/// Signs the request for `service` (`lighthouse`, `cvm`: the API's name, not the host's) at `at`, whole seconds.
/// `signed` are the lower-case names of the headers to sign; those that the request lacks count as empty.
pub fn sign(request: &Request, service: &str, signed: &[&str], at: Timestamp, credentials: &Credentials) -> Signature {
    let mut names = signed.to_vec();
    names.sort_unstable();
    let names_list = names.join(";");
    let headers: String = names.iter().map(|name| format!("{name}:{}\n", canonical_value(request, name))).collect();
    // Only a GET has a query to sign: a POST carries everything in its body.
    let query = if request.method == "GET" { request.query.as_str() } else { "" };
    let payload = match header(request, "x-tc-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => sha256_hex(b"UNSIGNED-PAYLOAD"),
        _ => sha256_hex(&request.body),
    };
    let canonical_request =
        format!("{}\n{}\n{query}\n{headers}\n{names_list}\n{payload}", request.method, request.path);

    let seconds = at.as_second();
    let date = at.to_zoned(TimeZone::UTC).date().to_string();
    let scope = format!("{date}/{service}/tc3_request");
    let digest = sha256_hex(canonical_request.as_bytes());
    let string_to_sign = format!("{ALGORITHM}\n{seconds}\n{scope}\n{digest}");

    let root = Zeroizing::new(format!("TC3{}", credentials.access_key_secret.expose_secret()));
    let mut key = Zeroizing::new(hmac_sha256(root.as_bytes(), date.as_bytes()));
    for part in [service, "tc3_request"] {
        key = Zeroizing::new(hmac_sha256(key.as_ref(), part.as_bytes()));
    }
    let signature = hex::encode(hmac_sha256(key.as_ref(), string_to_sign.as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names_list}, Signature={signature}",
        credentials.access_key_id
    );
    Signature { canonical_request, string_to_sign, signature, authorization }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Content type and host are signed as they are sent, others trimmed and in lower case (FACTS 2.3, step 2).
fn canonical_value(request: &Request, name: &str) -> String {
    let value = header(request, name).unwrap_or_default();
    if SIGNED.contains(&name) { value.to_string() } else { value.trim().to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Reads a case of the vector file as a request, whatever headers, query and body it has.
    fn request_of(case: &Value) -> Request {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_string();
        let method = ["GET", "POST", "PUT", "DELETE"].into_iter().find(|name| *name == case["method"]).unwrap();
        let mut headers: Vec<(String, String)> = case["headers_in"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_string()))
            .collect();
        if !headers.iter().any(|(name, _)| name == "host") {
            headers.push(("host".to_string(), text("host")));
        }
        Request {
            method,
            origin: format!("https://{}", text("host")),
            path: text("path"),
            query: text("query"),
            headers,
            body: text("body").into_bytes(),
        }
    }

    #[test]
    fn every_tencent_tc3_vector_is_reproduced() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tencent_tc3.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = &case["name"];
            let expected = &case["expected"];
            let authorization = expected["authorization"].as_str().unwrap();
            let signed = authorization.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
            let signed: Vec<&str> = signed.split(';').collect();
            let credentials = Credentials {
                access_key_id: case["credentials"]["secret_id"].as_str().unwrap().to_string(),
                access_key_secret: case["credentials"]["secret_key"].as_str().unwrap().into(),
                session_token: case["credentials"]["token"].as_str().map(Into::into),
            };
            // The service stands in the credential's scope too: `…/DATE/SERVICE/tc3_request`.
            let service = case["service"].as_str().or(authorization.split('/').nth(2)).unwrap();
            let at = Timestamp::from_second(case["timestamp"].as_i64().unwrap()).unwrap();
            let got = sign(&request_of(case), service, &signed, at, &credentials);
            assert_eq!(got.canonical_request, expected["canonical_request"], "{name}");
            assert_eq!(got.string_to_sign, expected["string_to_sign"], "{name}");
            assert_eq!(got.signature, expected["signature"], "{name}");
            assert_eq!(got.authorization, authorization, "{name}");
        }
    }
}
