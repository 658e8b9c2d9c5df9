//! Which BCC operation a request asks for, by method, path and query (FACTS 5.1).
//! It must never decide whether the operation is allowed: `keys`, `instances` and `power` do.

use serde_json::{Map, Value};

use super::error::{Refused, refused};
use super::sign::path_part;
use crate::net::Request;
use crate::sim::canon;

/// The three power operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Reboot,
}

/// An operation and the id in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ListInstances,
    ListInstancesById,
    GetInstance(String),
    BatchPower(Verb),
    Power(Verb, String),
    ImportKeyPair,
    ListKeyPairs,
    GetKeyPair(String),
    AttachKeyPair(String),
    DetachKeyPair(String),
    DeleteKeyPair(String),
}

impl Operation {
    /// The name under which calls are counted and faults are asked for. BCC's wire has no action names: these are the
    /// method names of the vendor's Go SDK (BCE-GO services/bcc).
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ListInstances => "ListInstances",
            Self::ListInstancesById => "ListInstanceByInstanceIds",
            Self::GetInstance(_) => "GetInstanceDetail",
            Self::BatchPower(Verb::Start) => "BatchStartInstance",
            Self::BatchPower(Verb::Stop) => "BatchStopInstance",
            Self::BatchPower(Verb::Reboot) => "BatchRebootInstance",
            Self::Power(Verb::Start, _) => "StartInstance",
            Self::Power(Verb::Stop, _) => "StopInstance",
            Self::Power(Verb::Reboot, _) => "RebootInstance",
            Self::ImportKeyPair => "ImportKeypair",
            Self::ListKeyPairs => "ListKeypairs",
            Self::GetKeyPair(_) => "GetKeypairDetail",
            Self::AttachKeyPair(_) => "AttachKeypair",
            Self::DetachKeyPair(_) => "DetachKeypair",
            Self::DeleteKeyPair(_) => "DeleteKeypair",
        }
    }
}

/// A request, read.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    query: Vec<(String, String)>,
    body: Map<String, Value>,
}

impl Call {
    /// Reads the operation, the query and the JSON body (an empty body is an empty object).
    pub(crate) fn read(request: &Request) -> Result<Self, Refused> {
        let operation = operation_of(request)?;
        let query = canon::pairs(&request.query).ok_or_else(broken)?;
        let body = match request.body.as_slice() {
            [] => Map::new(),
            bytes => match serde_json::from_slice(bytes) {
                Ok(Value::Object(map)) => map,
                Ok(_) => return Err(refused("InappropriateJSON", "The body is not a JSON object.")),
                Err(_) => return Err(refused("MalformedJSON", "The JSON you provided was not well-formed.")),
            },
        };
        Ok(Self { operation, query, body })
    }

    /// A query parameter that is not empty.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A comma list in the query, if given.
    pub(crate) fn comma_list(&self, name: &str) -> Option<Vec<&str>> {
        self.query(name).map(|text| text.split(',').collect())
    }

    /// `maxKeys`: 1000 if not given. The page names no code for more than 1000: refused here, never capped.
    pub(crate) fn max_keys(&self) -> Result<usize, Refused> {
        let Some(text) = self.query("maxKeys") else { return Ok(1000) };
        let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
        number.ok_or_else(|| refused("InvalidHTTPRequest", "maxKeys must be between 1 and 1000."))
    }

    /// A string field of the body; empty if absent.
    pub(crate) fn string(&self, name: &str) -> Result<&str, Refused> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(inappropriate(name)),
        }
    }

    /// A flag of the body; false if absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(inappropriate(name)),
        }
    }

    /// `instanceIds` of the body: at least one, each once.
    pub(crate) fn instance_ids(&self) -> Result<Vec<String>, Refused> {
        let list =
            self.body.get("instanceIds").and_then(Value::as_array).ok_or_else(|| inappropriate("instanceIds"))?;
        let ids: Option<Vec<String>> = list.iter().map(|id| id.as_str().map(String::from)).collect();
        let ids = ids.filter(|ids| !ids.is_empty()).ok_or_else(|| inappropriate("instanceIds"))?;
        if ids.iter().enumerate().any(|(index, id)| ids[..index].contains(id)) {
            return Err(refused("InappropriateJSON", "instanceIds holds an id twice."));
        }
        Ok(ids)
    }
}

fn inappropriate(name: &str) -> Refused {
    refused("InappropriateJSON", format!("The field {name} is missing or of the wrong type."))
}

fn broken() -> Refused {
    refused("InvalidURI", "Could not parse the specified URI.")
}

/// The operation that a request asks for.
pub(crate) fn operation_of(request: &Request) -> Result<Operation, Refused> {
    let segments: Option<Vec<String>> = request.path.split('/').map(path_part).collect();
    let segments = segments.ok_or_else(broken)?;
    let query = canon::pairs(&request.query).ok_or_else(broken)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["", "v2", rest @ ..] = segments.as_slice() else {
        return Err(refused("InvalidVersion", "The API version specified was invalid."));
    };
    operation(request.method, rest, &query)
}

/// The operation of a method, a path behind `/v2/` and the bare words of a query.
fn operation(method: &str, path: &[&str], query: &[(String, String)]) -> Result<Operation, Refused> {
    let asked = |word: &str| query.iter().any(|(name, _)| name == word);
    let verb = || {
        let verbs = [("start", Verb::Start), ("stop", Verb::Stop), ("reboot", Verb::Reboot)];
        let mut named = verbs.into_iter().filter(|(word, _)| asked(word));
        named.next().map(|(_, verb)| verb).filter(|_| named.next().is_none())
    };
    let operation = match (method, path) {
        ("GET", ["instance"]) => Some(Operation::ListInstances),
        ("POST", ["instance", "listByInstanceId"]) => Some(Operation::ListInstancesById),
        ("PUT", ["instance", "batchAction"]) => verb().map(Operation::BatchPower),
        ("GET", ["instance", id]) => Some(Operation::GetInstance(id.to_string())),
        ("PUT", ["instance", id]) => verb().map(|verb| Operation::Power(verb, id.to_string())),
        // The page's request line says PUT, its example POST; both SDKs send PUT (FACTS section 7).
        ("PUT" | "POST", ["keypair"]) if asked("import") => Some(Operation::ImportKeyPair),
        ("GET", ["keypair"]) => Some(Operation::ListKeyPairs),
        ("GET", ["keypair", id]) => Some(Operation::GetKeyPair(id.to_string())),
        ("PUT", ["keypair", id]) if asked("attach") => Some(Operation::AttachKeyPair(id.to_string())),
        ("PUT", ["keypair", id]) if asked("detach") => Some(Operation::DetachKeyPair(id.to_string())),
        ("DELETE", ["keypair", id]) => Some(Operation::DeleteKeyPair(id.to_string())),
        _ => None,
    };
    operation.ok_or_else(|| refused("InvalidHTTPRequest", "There was an error in the HTTP request: no such operation."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &'static str, path: &str, query: &str, body: &str) -> Result<Call, String> {
        let (origin, path) = ("http://127.0.0.1".to_string(), path.to_string());
        let request = Request { method, origin, path, query: query.into(), headers: vec![], body: body.into() };
        Call::read(&request).map_err(|refused| refused.code)
    }

    #[test]
    fn method_path_and_query_name_the_operation() {
        use Operation::*;
        for (method, path, query, expect) in [
            ("GET", "/v2/instance", "maxKeys=10", Ok(ListInstances)),
            ("POST", "/v2/instance/listByInstanceId", "clientToken=x", Ok(ListInstancesById)),
            ("GET", "/v2/instance/i-1", "", Ok(GetInstance("i-1".into()))),
            ("PUT", "/v2/instance/batchAction", "stop", Ok(BatchPower(Verb::Stop))),
            ("PUT", "/v2/instance/batchAction", "clientToken=x&start=", Ok(BatchPower(Verb::Start))),
            ("PUT", "/v2/instance/batchAction", "start&stop", Err("InvalidHTTPRequest")),
            ("PUT", "/v2/instance/i-1", "reboot", Ok(Power(Verb::Reboot, "i-1".into()))),
            ("PUT", "/v2/keypair", "import=", Ok(ImportKeyPair)),
            ("POST", "/v2/keypair", "import", Ok(ImportKeyPair)),
            ("POST", "/v2/keypair", "create", Err("InvalidHTTPRequest")),
            ("GET", "/v2/keypair", "", Ok(ListKeyPairs)),
            ("GET", "/v2/keypair/k-1", "", Ok(GetKeyPair("k-1".into()))),
            ("PUT", "/v2/keypair/k-1", "attach", Ok(AttachKeyPair("k-1".into()))),
            ("PUT", "/v2/keypair/k%2d1", "detach=", Ok(DetachKeyPair("k-1".into()))),
            ("DELETE", "/v2/keypair/k-1", "delete", Ok(DeleteKeyPair("k-1".into()))),
            ("DELETE", "/v2/instance/i-1", "", Err("InvalidHTTPRequest")),
            ("GET", "/v1/instance", "", Err("InvalidVersion")),
            ("GET", "/v2/%FF", "", Err("InvalidURI")),
        ] {
            assert_eq!(
                call(method, path, query, "").map(|call| call.operation),
                expect.map_err(str::to_string),
                "{method} {path}?{query}"
            );
        }
    }

    #[test]
    fn bodies_are_json_objects_of_the_right_types() {
        let ids = |body: &str| {
            let call = call("PUT", "/v2/keypair/k-1", "attach", body)?;
            call.instance_ids().map_err(|refused| refused.code)
        };
        assert_eq!(ids(r#"{"instanceIds":["i-1","i-2"]}"#), Ok(vec!["i-1".to_string(), "i-2".to_string()]));
        for (body, expect) in [
            ("{", "MalformedJSON"),
            ("[]", "InappropriateJSON"),
            ("", "InappropriateJSON"),
            (r#"{"instanceIds":"i-1"}"#, "InappropriateJSON"),
            (r#"{"instanceIds":[]}"#, "InappropriateJSON"),
            (r#"{"instanceIds":[1]}"#, "InappropriateJSON"),
            (r#"{"instanceIds":["i-1","i-1"]}"#, "InappropriateJSON"),
        ] {
            assert_eq!(ids(body), Err(expect.to_string()), "{body}");
        }
    }

    #[test]
    fn pages_hold_at_most_a_thousand() {
        for (query, expect) in [
            ("", Ok(1000)),
            ("maxKeys=1", Ok(1)),
            ("maxKeys=1001", Err("InvalidHTTPRequest")),
            ("maxKeys=0", Err("InvalidHTTPRequest")),
            ("maxKeys=all", Err("InvalidHTTPRequest")),
        ] {
            let call = call("GET", "/v2/instance", query, "").unwrap();
            assert_eq!(call.max_keys().map_err(|refused| refused.code), expect.map_err(str::to_string), "{query}");
        }
    }
}
