//! bce-auth-v1, Baidu AI Cloud's request signature, as a pure function: the time comes in by argument, there is no nonce.
//! It must never see the network, and never keeps the secret. Source: bce-python-sdk 0.9.79, whose own signatures are
//! the golden vectors in `tests/vectors/baidu_bce.json`; bce-sdk-go 6916310.

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::provider::http::digest::hmac_sha256;

/// Everything but `A-Z a-z 0-9 - _ . ~` is written `%XX`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What the signer made of a request; the middle steps are there for the vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The query in its one canonical spelling.
    pub canonical_query: String,
    /// The request in its one canonical spelling.
    pub canonical_request: String,
    /// The prefix of the authorization, from which the signing key is derived.
    pub string_to_sign: String,
    /// The signing key: a hex *text*, whose 64 letters are the next key.
    pub signing_key: String,
    /// The signature in hex.
    pub signature: String,
    /// The value of the `Authorization` header.
    pub authorization: String,
}

/// A request as the signer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// The path as it goes over the wire: percent-encoded already.
    pub path: &'a str,
    /// The query as it goes over the wire; a bare action may stand there with or without `=`.
    pub query: &'a str,
    /// The headers, names in any case.
    pub headers: &'a [(String, String)],
}

/// The moment as `x-bce-date` and the authorization spell it.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What is covered when the authorization names no headers, beside every `x-bce-*`. `content-length` must then really be
/// sent, even with a GET.
const DEFAULT: [&str; 4] = ["host", "content-length", "content-type", "content-md5"];

/// Signs a request that is valid for `valid_seconds` from `at`. `signed` names the headers to cover, in lower case and
/// in order; none means [`DEFAULT`]. Every `x-bce-*` is covered in any case, so if any are named, these must be too, or
/// the service covers others than we.
pub fn sign(
    key_id: &str,
    secret: &str,
    at: Timestamp,
    valid_seconds: u32,
    parts: Parts<'_>,
    signed: &[&str],
) -> Signature {
    let string_to_sign = format!("bce-auth-v1/{key_id}/{}/{valid_seconds}", date(at));
    let signing_key = hmac_hex(secret.as_bytes(), string_to_sign.as_bytes());
    let canonical_query = canonical_query(parts.query);
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let headers = canonical_headers(parts.headers, if signed.is_empty() { &DEFAULT } else { signed });
    let canonical_request = [parts.method, path, &canonical_query, &headers].join("\n");
    let signature = hmac_hex(signing_key.as_bytes(), canonical_request.as_bytes());
    let authorization = format!("{string_to_sign}/{}/{signature}", signed.join(";"));
    Signature { canonical_query, canonical_request, string_to_sign, signing_key, signature, authorization }
}

/// Each pair decoded and encoded anew, a bare name as `name=`, sorted as it is written; `authorization` is left out.
fn canonical_query(query: &str) -> String {
    let recode = |text: &str| encode(&percent_decode_str(text).collect::<Vec<u8>>());
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"))
        .map(|(name, value)| format!("{}={}", recode(name), recode(value)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// `name:value` of each covered header that has a value, both percent-encoded (`application%2Fjson`), sorted.
fn canonical_headers(headers: &[(String, String)], covered: &[&str]) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .filter(|(name, value)| !value.is_empty() && (name.starts_with("x-bce-") || covered.contains(&name.as_str())))
        .map(|(name, value)| format!("{}:{}", encode(name.as_bytes()), encode(value.as_bytes())))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Percent-encodes one segment of a path or one part of a query.
pub fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

fn hmac_hex(key: &[u8], message: &[u8]) -> String {
    hex::encode(hmac_sha256(key, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/baidu_bce.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        file["cases"].as_array().unwrap().clone()
    }

    /// A map, or a list of pairs, of names to a value or to several.
    fn pairs(value: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let one = |name: &str, value: &Value| -> Vec<(String, String)> {
            match value {
                Value::Array(several) => several.iter().map(|value| (name.to_string(), text(value))).collect(),
                Value::Null => vec![(name.to_string(), String::new())],
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
            let headers = pairs(&case["headers_in"]);
            let list = text(&expected["signed_headers"]);
            let list: Vec<&str> = list.split(';').filter(|name| !name.is_empty()).collect();
            let (method, path, query) = (text(&case["method"]), text(&case["path"]), text(&case["query"]));
            let credentials = &case["credentials"];
            let made = sign(
                &text(&credentials["access_key_id"]),
                &text(&credentials["secret_access_key"]),
                text(&case["timestamp"]).parse().unwrap(),
                u32::try_from(case["expiration_seconds"].as_u64().unwrap()).unwrap(),
                Parts { method: &method, path: &path, query: &query, headers: &headers },
                &list,
            );
            assert_eq!(made.canonical_query, text(&expected["canonical_query"]), "{name}: query");
            assert_eq!(made.canonical_request, text(&expected["canonical_request"]), "{name}: canonical request");
            assert_eq!(made.string_to_sign, text(&expected["string_to_sign"]), "{name}: string to sign");
            assert_eq!(made.signing_key, text(&expected["signing_key"]), "{name}: signing key");
            assert_eq!(made.signature, text(&expected["signature"]), "{name}: signature");
            assert_eq!(made.authorization, text(&expected["authorization"]), "{name}: authorization");
        }
    }

    #[test]
    fn every_vector_whose_parameters_are_given_decoded_writes_them_alike() {
        for case in vectors().iter().filter(|case| case["params"].is_object()) {
            let written = pairs(&case["params"]);
            let pair =
                |(name, value): &(String, String)| format!("{}={}", encode(name.as_bytes()), encode(value.as_bytes()));
            let written: Vec<_> = written.iter().map(pair).collect();
            assert_eq!(canonical_query(&written.join("&")), case["expected"]["canonical_query"].as_str().unwrap());
        }
    }

    #[test]
    fn a_query_is_written_one_way_only() {
        let check = |query: &str, expect: &str| assert_eq!(canonical_query(query), expect, "{query}");
        check("", "");
        check("attach", "attach=");
        check("attach=", "attach=");
        check("b=2&a=1", "a=1&b=2");
        check("a=x/y&&a=x,y", "a=x%2Cy&a=x%2Fy");
        check("Authorization=secret&name=%e5%af%86", "name=%E5%AF%86");
        check("a%ff=%fe", "a%FF=%FE");
    }

    #[test]
    fn headers_without_a_value_and_strangers_are_not_covered() {
        let header = |name: &str, value: &str| (name.to_string(), value.to_string());
        let headers = [
            header("Host", " bcc.bj.baidubce.com "),
            header("x-bce-empty", "  "),
            header("x-bce-extra", "a b"),
            header("accept", "*/*"),
            header("content-length", "0"),
        ];
        let named = "host:bcc.bj.baidubce.com\nx-bce-extra:a%20b";
        assert_eq!(canonical_headers(&headers, &["host"]), named);
        assert_eq!(canonical_headers(&headers, &DEFAULT), format!("content-length:0\n{named}"));
    }
}
