//! CVM's legacy endpoint: how a call is put as a form and signed, and how its two shapes of answers are read. What is
//! asked and what an answer means is API 2017-03-12's, as on the current endpoint: `Version` is always sent.
//! It must never send a signature or a nonce twice, and never take an answer that it cannot read for a good one.
//!
//! Source: FACTS 3 (qcloudapi-sdk-python 2.0.15 of 2018; DOC 213/11650, 213/6982, 214/11594; SEED-001). The pages call
//! the endpoint legacy; whether it still answers is unconfirmed. Decision 0022 says what was read out of their gaps.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::client::{self, Answer};
use super::error::judge;
use super::sign_v1::{Mac, Parameters, form, is_unsigned, sign};
use crate::net::{Request, Response};
use crate::provider::http::door::unreadable;
use crate::provider::open::Parts;
use crate::provider::{Credentials, Error, Result};

/// Where it answers, in every region.
pub(in crate::provider) const ENDPOINT: &str = "https://cvm.api.qcloud.com";
/// Its one path; an endpoint in the config names the host only.
const PATH: &str = "/v2/index.php";

/// How the legacy endpoint is spoken to, by one client.
pub(super) struct Legacy {
    mac: Mac,
    first: OnceLock<u64>,
    attempts: AtomicU64,
}

impl Legacy {
    pub(super) fn new(mac: Mac) -> Self {
        Self { mac, first: OnceLock::new(), attempts: AtomicU64::new(0) }
    }

    /// A request, for one attempt. `chance` decides where this client's nonces begin.
    pub(super) fn request(
        &self,
        parts: &Parts,
        keys: &Credentials,
        (action, version): (&str, &str),
        parameters: &Parameters,
        at: Timestamp,
        chance: u128,
    ) -> Request {
        let common = [
            ("Action", action.to_string()),
            ("Version", version.to_string()),
            // With `Version` the long names (ap-guangzhou); the short ones (gz) belong to the oldest requests.
            ("Region", parts.region.to_string()),
            ("Timestamp", at.as_second().to_string()),
            ("Nonce", self.nonce(chance).to_string()),
            ("SecretId", keys.access_key_id.clone()),
            ("SignatureMethod", self.mac.name().to_string()),
        ];
        let mut sent = parameters.clone();
        sent.extend(common.map(|(name, value)| (name.to_string(), value)));
        if let Some(token) = &keys.session_token {
            sent.push(("Token".to_string(), token.expose_secret().to_string()));
        }
        // A POST keeps credentials out of logs of addresses. But whether one signs a value that begins with `@` (a tag's,
        // in a filter) the sources do not agree; a GET signs all of them by each.
        let method = if sent.iter().any(|(_, value)| is_unsigned("POST", value)) { "GET" } else { "POST" };
        let host = parts.origin.authority();
        let secret = keys.access_key_secret.expose_secret();
        let signature = sign(method, host, PATH, &sent, self.mac, secret);
        sent.push(("Signature".to_string(), signature));
        let mut headers = vec![("host".to_string(), host.to_string())];
        let (query, body) = match method {
            "GET" => (form(&sent), String::new()),
            _ => {
                headers.push(("content-type".to_string(), "application/x-www-form-urlencoded".to_string()));
                (String::new(), form(&sent))
            }
        };
        let origin = parts.origin.to_string();
        Request { method, origin, path: PATH.to_string(), query, headers, body: body.into_bytes() }
    }

    /// A positive number of 63 bits, as the vendor's SDK sends them, that no attempt of this client had before: from a
    /// random beginning it counts. Clients of the same key id (another region or process) begin elsewhere.
    fn nonce(&self, chance: u128) -> u64 {
        let first = *self.first.get_or_init(|| (chance >> 66) as u64 + 1);
        first + self.attempts.fetch_add(1, Ordering::Relaxed)
    }
}

/// A body of the current API as parameters: `InstanceIds.1`, `Filters.1.Values.1`. Lists are counted from 1, as SEED-001
/// and the legacy pages do (the 3.0 SDK's forms count from 0). Truths are `TRUE` and `FALSE`; `null` is not sent.
pub(super) fn flatten(body: &Value) -> Parameters {
    fn walk(name: String, value: &Value, out: &mut Parameters) {
        let under =
            |key: &dyn std::fmt::Display| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
        match value {
            Value::Null => {}
            Value::Bool(truth) => out.push((name, if *truth { "TRUE" } else { "FALSE" }.to_string())),
            Value::Number(number) => out.push((name, number.to_string())),
            Value::String(text) => out.push((name, text.clone())),
            Value::Array(items) => (1..).zip(items).for_each(|(n, item)| walk(under(&n), item, out)),
            Value::Object(fields) => fields.iter().for_each(|(key, field)| walk(under(key), field, out)),
        }
    }
    let mut out = Parameters::new();
    walk(String::new(), body, &mut out);
    out
}

/// Judges an answer of either shape: `{"Response": …}`, which `Version` asks for, or `{"code": 0, "message": …}`, in which
/// the gateway may speak all the same (unconfirmed). A listing in the flat shape must have the names of `Version`: those
/// of the oldest requests (`totalCount`, `sshSet`) are read as no answer at all.
pub(super) fn read<T: DeserializeOwned>(action: &str, answer: &Response) -> Result<Answer<T>> {
    let body: Map<String, Value> = client::body(action, answer)?;
    match (body.get("Response"), body.get("code")) {
        (Some(response), None) => client::well(action, response, true),
        (None, Some(code)) => {
            // Vendor's samples show both `0` and `"0"`.
            let code = match code {
                Value::Number(number) => number.to_string(),
                Value::String(text) if !text.is_empty() => text.clone(),
                _ => return Err(unreadable(action, "a code that is neither number nor text")),
            };
            if code == "0" {
                // No page says that this shape names its request.
                return client::well(action, &Value::Object(body), false);
            }
            let (kind, effect, blame) = judge(action, &code);
            let message = body.get("message").and_then(Value::as_str).unwrap_or_default().to_string();
            Err(Error { kind, effect, blame, code, message, ..unreadable(action, "") })
        }
        _ => Err(unreadable(action, "neither Response nor code, or both")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_becomes_parameters_counted_from_one() {
        let check = |body: Value, expect: &[(&str, &str)]| {
            let expect: Vec<_> = expect.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(flatten(&body), expect, "{body}");
        };
        check(json!({}), &[]);
        check(json!({"KeyIds": [], "Limit": null}), &[]);
        check(json!({"ForceStop": true, "Other": false}), &[("ForceStop", "TRUE"), ("Other", "FALSE")]);
        check(json!({"Limit": 100, "Name": "a b"}), &[("Limit", "100"), ("Name", "a b")]);
        check(json!({"InstanceIds": ["a", "b"]}), &[("InstanceIds.1", "a"), ("InstanceIds.2", "b")]);
        check(
            json!({"Filters": [{"Name": "tag:env", "Values": ["p", "q"]}, {"Name": "zone", "Values": [""]}]}),
            &[
                ("Filters.1.Name", "tag:env"),
                ("Filters.1.Values.1", "p"),
                ("Filters.1.Values.2", "q"),
                ("Filters.2.Name", "zone"),
                ("Filters.2.Values.1", ""),
            ],
        );
    }

    #[test]
    fn no_nonce_comes_twice_whatever_chance_says_and_all_are_positive_in_63_bits() {
        for chance in [0, 1, 1 << 66, u128::MAX] {
            let legacy = Legacy::new(Mac::Sha256);
            let nonces: std::collections::BTreeSet<u64> = (0..1000).map(|_| legacy.nonce(chance)).collect();
            assert_eq!(nonces.len(), 1000);
            assert!(nonces.iter().all(|nonce| *nonce > 0 && i64::try_from(*nonce).is_ok()));
        }
        let begins = |chance| Legacy::new(Mac::Sha1).nonce(chance);
        assert_ne!(begins(1 << 70), begins(1 << 90), "clients begin by chance");
    }
}
