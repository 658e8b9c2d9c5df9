//! Answers of the clouds that tell good from bad by their HTTP status, and write an error as JSON with a code in it.
//! It must never take a gateway's page for the cloud's word: what has no code is rubbish, whatever its status.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::door;
use crate::model::InstanceId;
use crate::net::Response;
use crate::provider::error::{Blame, Effect, Error, Kind};

/// The three answers about one error: may it help to try again, may it have happened, who is to blame.
pub type Verdict = (Kind, Effect, Blame);

/// Why a body cannot be read: one line, without the body.
pub type Unreadable = String;

/// How one of these clouds writes.
pub struct Dialect {
    /// The header that names the request where the body does not.
    pub request_id: &'static str,
    /// What a code means as the answer to an action with an HTTP status.
    pub verdict: fn(&str, &str, u16) -> Verdict,
}

/// An error body. The clouds write the same three names in two manners.
#[derive(Deserialize)]
struct Fault {
    #[serde(alias = "Code")]
    code: String,
    #[serde(default, alias = "Message")]
    message: Value,
    #[serde(default, alias = "RequestId", rename = "requestId")]
    request_id: Value,
}

impl Dialect {
    /// The request id in the headers, if there is one.
    pub fn request_id_of(&self, response: &Response) -> Option<String> {
        response.header(self.request_id).map(str::to_string)
    }

    /// Reads an answer: the value, or the cloud's error, or the finding that it is unreadable.
    pub fn judge<T>(
        &self,
        action: &str,
        response: &Response,
        read: impl FnOnce(&Response) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        if (200..300).contains(&response.status) {
            return read(response).map_err(|problem| door::unreadable(action, problem));
        }
        let status = response.status;
        let Ok(fault) = serde_json::from_slice::<Fault>(&response.body) else {
            // No word of the cloud, but of something in between. A gateway's 404 must not look like a missing instance.
            let unreadable = door::unreadable(action, format!("HTTP {status} without a readable error"));
            return Err(match status {
                429 => Error { kind: Kind::Throttled, effect: Effect::NotDone, ..unreadable },
                500.. => Error { kind: Kind::Unavailable, ..unreadable },
                _ => unreadable,
            });
        };
        let (kind, effect, blame) = (self.verdict)(action, &fault.code, status);
        Err(Error {
            kind,
            effect,
            blame,
            action: action.to_string(),
            code: if fault.code.is_empty() { format!("http_{status}") } else { fault.code },
            message: text(fault.message).unwrap_or_default(),
            request_id: text(fault.request_id).or_else(|| self.request_id_of(response)),
            retry_after: None,
        })
    }
}

/// What a code that nobody has written down means, by the HTTP status alone. Every documented 409 of these clouds speaks
/// of the state or the business of one instance; where the action changes instances (`on_instances`) an unknown one is
/// taken for that: looked at again a bounded number of times, the batch halved. Elsewhere it is waited for.
pub fn by_status(status: u16, on_instances: bool) -> Verdict {
    match status {
        429 => (Kind::Throttled, Effect::NotDone, Blame::Request),
        401 | 403 => (Kind::Denied, Effect::NotDone, Blame::Account),
        404 => (Kind::NotFound, Effect::NotDone, Blame::Instance),
        409 if on_instances => (Kind::InvalidState, Effect::NotDone, Blame::Instance),
        409 => (Kind::Busy, Effect::NotDone, Blame::Request),
        400..500 => (Kind::Invalid, Effect::NotDone, Blame::Request),
        500.. => (Kind::Unavailable, Effect::Unknown, Blame::Request),
        _ => (Kind::Protocol, Effect::Unknown, Blame::Request),
    }
}

/// A body as JSON of this form.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// A text that says something.
pub fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A value that is read by people only, as text; nothing for one that says nothing.
pub fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => filled(Some(text)),
        other => Some(other.to_string()),
    }
}

/// The first address among these values, each a text or a list of texts. What is no address is passed over: an instance
/// stays readable without one.
pub fn first_address(values: &[&Value]) -> Option<IpAddr> {
    let read = |value: &Value| value.as_str().and_then(|text| text.trim().parse().ok());
    values.iter().find_map(|value| value.as_array().map_or_else(|| read(value), |list| list.iter().find_map(read)))
}

/// A count: a whole number, or one that is written as text. Nothing for all else.
pub fn count(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => usize::try_from(other.as_u64()?).ok(),
    }
}

/// `null` is as good as absent.
pub fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A batch must hold somebody, and no more than the cloud takes at once.
pub fn batch(action: &str, instances: &[InstanceId], max: usize) -> Result<(), Error> {
    if instances.is_empty() || instances.len() > max {
        return Err(door::refused_here(action, format!("{} instances in a batch of 1 to {max}", instances.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        use Blame::{Account, Instance, Request};
        use Effect::{NotDone, Unknown};
        let check = |status: u16, on_instances: bool, expect: Verdict| {
            assert_eq!(by_status(status, on_instances), expect, "{status} {on_instances}");
        };
        for on_instances in [true, false] {
            check(429, on_instances, (Kind::Throttled, NotDone, Request));
            check(401, on_instances, (Kind::Denied, NotDone, Account));
            check(403, on_instances, (Kind::Denied, NotDone, Account));
            check(404, on_instances, (Kind::NotFound, NotDone, Instance));
            check(400, on_instances, (Kind::Invalid, NotDone, Request));
            check(413, on_instances, (Kind::Invalid, NotDone, Request));
            check(500, on_instances, (Kind::Unavailable, Unknown, Request));
            check(599, on_instances, (Kind::Unavailable, Unknown, Request));
            check(301, on_instances, (Kind::Protocol, Unknown, Request));
        }
        check(409, true, (Kind::InvalidState, NotDone, Instance));
        check(409, false, (Kind::Busy, NotDone, Request));
    }

    #[test]
    fn an_error_body_is_read_in_both_manners_and_only_its_code_is_needed() {
        let dialect = Dialect { request_id: "x-id", verdict: |_, _, status| by_status(status, false) };
        let check = |status: u16, body: &str, expect: (Kind, &str)| {
            let headers = vec![("x-id".to_string(), "H".to_string())];
            let response = Response { status, headers, body: body.as_bytes().to_vec() };
            let error = dialect.judge("Act", &response, |_| Ok(())).unwrap_err();
            assert_eq!((error.kind, error.to_string().as_str()), expect, "{body}");
        };
        let known = "Act: A.B: no (request R)";
        check(400, r#"{"Code":"A.B","Message":"no","RequestId":"R","HostId":"x"}"#, (Kind::Invalid, known));
        check(400, r#"{"code":"A.B","message":"no","requestId":"R"}"#, (Kind::Invalid, known));
        check(403, r#"{"code":"A.B","message":null}"#, (Kind::Denied, "Act: A.B:  (request H)"));
        check(403, r#"{"code":"","message":7}"#, (Kind::Denied, "Act: http_403: 7 (request H)"));
        check(404, r#"{"message":"no"}"#, (Kind::Protocol, "Act: unreadable: HTTP 404 without a readable error"));
        check(429, "<html>", (Kind::Throttled, "Act: unreadable: HTTP 429 without a readable error"));
        check(502, r#"{"code":7}"#, (Kind::Unavailable, "Act: unreadable: HTTP 502 without a readable error"));
    }

    #[test]
    fn a_count_may_be_written_as_text() {
        for (value, expect) in [
            (serde_json::json!(3), Some(3)),
            (serde_json::json!("3"), Some(3)),
            (serde_json::json!(-3), None),
            (serde_json::json!(2.5), None),
            (serde_json::json!("many"), None),
            (serde_json::json!([3]), None),
            (Value::Null, None),
        ] {
            assert_eq!(count(&value), expect, "{value}");
        }
    }
}
