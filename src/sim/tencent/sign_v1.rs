//! Signature v1, checked from the receiving end (FACTS §3): HMAC over the parameters in the order of their names, raw. It
//! computes what the signature should have been; it must never be shared with the client that signs.

use aws_lc_rs::hmac::{self, Algorithm, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// What `SignatureMethod` says; without it HmacSHA1. `None` for a method that there is not.
pub(super) fn algorithm(method: Option<&str>) -> Option<Algorithm> {
    match method {
        None | Some("HmacSHA1") => Some(HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Some("HmacSHA256") => Some(HMAC_SHA256),
        Some(_) => None,
    }
}

/// What a request signs: its method, host and path, and all its parameters but the signature, decoded. In a name `_`
/// stands as `.`; a POST leaves out the values that begin with `@`, as the vendor's SDK of this endpoint does.
pub(super) fn string_to_sign(method: &str, host: &str, path: &str, params: &[(String, String)]) -> String {
    let signed = params.iter().filter(|(name, _)| name != "Signature");
    let signed = signed.filter(|(_, value)| method != "POST" || !value.starts_with('@'));
    let mut pairs: Vec<(String, &str)> = signed.map(|(name, value)| (name.replace('_', "."), value.as_str())).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{method}{host}{path}?{}", pairs.join("&"))
}

/// The signature of that text, as the parameter bears it.
pub(super) fn signature(algorithm: Algorithm, secret: &str, text: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::canon;

    #[test]
    fn every_golden_vector_verifies_and_no_altered_one_does() {
        let text = include_str!("../../../tests/vectors/tencent_v1.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() >= 12);
        let (mut sha1, mut sha256) = (0, 0);
        for case in cases {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
            let (name, method) = (text(&case["name"]), text(&case["method"]));
            // What came over the wire, read as the endpoint reads it.
            let wire = if method == "GET" { &case["query"] } else { &case["body"] };
            let params = canon::pairs(&text(wire)).unwrap();
            let given = |wanted: &str| params.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            let algorithm = algorithm(given("SignatureMethod")).unwrap();
            *if algorithm == HMAC_SHA256 { &mut sha256 } else { &mut sha1 } += 1;
            let (host, path) = (text(&case["host"]), text(&case["path"]));
            let to_sign = string_to_sign(&method, &host, &path, &params);
            assert_eq!(to_sign, text(&case["expected"]["string_to_sign"]), "{name}");
            let secret = text(&case["credentials"]["secret_key"]);
            let good = signature(algorithm, &secret, &to_sign);
            assert_eq!(
                (good.as_str(), Some(good.as_str())),
                (&*text(&case["expected"]["signature"]), given("Signature"))
            );

            let other = if method == "GET" { "POST" } else { "GET" };
            for altered in [
                string_to_sign(other, &host, &path, &params),
                string_to_sign(&method, "127.0.0.1:1", &path, &params),
                string_to_sign(&method, &host, "/v2", &params),
                string_to_sign(&method, &host, &path, &params[1..]),
            ] {
                assert_ne!(signature(algorithm, &secret, &altered), good, "{name}: {altered}");
            }
            assert_ne!(signature(algorithm, "another", &to_sign), good, "{name}");
        }
        assert!(sha1 > 0 && sha256 > 0);
    }

    #[test]
    fn names_stand_in_the_order_of_their_bytes_and_values_as_they_are() {
        let check = |method: &str, params: &[(&str, &str)], expect: &str| {
            let params: Vec<_> = params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(string_to_sign(method, "h", "/p", &params), format!("{method}h/p?{expect}"));
        };
        check("GET", &[("I.2", "b"), ("I.10", "j"), ("I.1", "a")], "I.1=a&I.10=j&I.2=b");
        check("GET", &[("b", "x y+z/=&"), ("Signature", "s"), ("B", "")], "B=&b=x y+z/=&");
        check("GET", &[("a", "@home")], "a=@home");
        check("POST", &[("a", "@home"), ("b", "x@y")], "b=x@y");
        assert!(algorithm(Some("HmacMD5")).is_none() && algorithm(Some("hmacsha1")).is_none());
    }
}
