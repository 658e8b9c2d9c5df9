//! Signature v1, of CVM's legacy endpoint. Pure: time, nonce and credentials come in with the parameters.
//! It must never keep the secret, and never sign other bytes than those that are sent.
//! Source: FACTS 3, "Signature v1, step by step"; the vectors are of qcloudapi-sdk-python 2.0.15 and, for API 3.0 hosts,
//! of tencentcloud-sdk-python-common 3.1.195.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::provider::http::digest::{hmac_sha1, hmac_sha256};

/// Everything but `A-Z a-z 0-9 - _ . ~` and the blank is written `%XX`, as Python's `quote_plus` does.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// What `SignatureMethod` can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mac {
    /// `HmacSHA1`: what the endpoint assumes if nothing is announced.
    Sha1,
    /// `HmacSHA256`.
    Sha256,
}

impl Mac {
    /// The word that announces it. It is a parameter like the others, and signed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "HmacSHA1",
            Self::Sha256 => "HmacSHA256",
        }
    }
}

/// Parameters in the order of the wire, without `Signature`.
pub(super) type Parameters = Vec<(String, String)>;

/// What is signed of a request that is sent by `method` to `host` (with its port, if the request names one) and `path`.
/// A session token stands in it: it must not be shown.
fn string_to_sign(method: &str, host: &str, path: &str, parameters: &[(String, String)]) -> String {
    let mut signed: Vec<(String, &str)> = parameters
        .iter()
        .filter(|(_, value)| !is_unsigned(method, value))
        // The name is signed with dots; the wire keeps what it has.
        .map(|(name, value)| (name.replace('_', "."), value.as_str()))
        .collect();
    signed.sort_unstable();
    let list: Vec<String> = signed.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{method}{host}{path}?{}", list.join("&"))
}

/// The value of the parameter `Signature` of such a request, in base 64.
pub(super) fn sign(
    method: &str,
    host: &str,
    path: &str,
    parameters: &[(String, String)],
    mac: Mac,
    secret: &str,
) -> String {
    let text = Zeroizing::new(string_to_sign(method, host, path, parameters));
    match mac {
        Mac::Sha1 => STANDARD.encode(hmac_sha1(secret.as_bytes(), text.as_bytes())),
        Mac::Sha256 => STANDARD.encode(hmac_sha256(secret.as_bytes(), text.as_bytes())),
    }
}

/// Whether a value is sent and not signed: in a POST, one that begins with `@` (legacy SDK only: the page and the 3.0 SDK
/// disagree on it).
pub(super) fn is_unsigned(method: &str, value: &str) -> bool {
    method == "POST" && value.starts_with('@')
}

/// The parameters as a query or a form's body has them.
pub(super) fn form(parameters: &[(String, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string().replace(' ', "+");
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use serde_json::Value;

    use super::*;

    /// A form's parameters, read.
    fn read(form: &str) -> Parameters {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
        let pairs = form.split('&').map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (decode(name), decode(value))).collect()
    }

    #[test]
    fn every_tencent_v1_vector_is_reproduced_from_its_parameters_to_its_wire() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tencent_v1.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let name = &case["name"];
            let text = |key: &str| case[key].as_str().unwrap();
            // What is sent is the body of a POST and the query of a GET; the signature comes last.
            let wire = if text("method") == "POST" { text("body") } else { text("query") };
            let mut parameters = read(wire);
            let (last, sent) = parameters.pop().unwrap();
            assert_eq!(last, "Signature", "{name}");
            let decoded: Value = parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            assert_eq!(decoded, case["params"], "{name}");
            let mac = [Mac::Sha1, Mac::Sha256].into_iter().find(|mac| mac.name() == text("signature_method")).unwrap();
            let secret = case["credentials"]["secret_key"].as_str().unwrap();
            let (method, host, path) = (text("method"), text("host"), text("path"));
            let signed = string_to_sign(method, host, path, &parameters);
            assert_eq!(signed, case["expected"]["string_to_sign"], "{name}");
            let signature = sign(method, host, path, &parameters, mac, secret);
            assert_eq!(signature, case["expected"]["signature"], "{name}");
            assert_eq!(signature, sent, "{name}");
            parameters.push(("Signature".to_string(), signature));
            assert_eq!(form(&parameters), wire, "{name}");
        }
    }

    #[test]
    fn lists_are_signed_in_byte_order_and_not_by_number() {
        let parameters: Parameters =
            [1, 2, 10, 11].map(|n| (format!("InstanceIds.{n}"), format!("i{n}"))).into_iter().collect();
        let got = string_to_sign("POST", "h", "/p", &parameters);
        assert_eq!(got, "POSTh/p?InstanceIds.1=i1&InstanceIds.10=i10&InstanceIds.11=i11&InstanceIds.2=i2");
    }
}
