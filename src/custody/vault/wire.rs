//! Vault's requests and answers. Pure. It must never take an answer that it does not wholly understand for an absence.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::{CustodyError, quiet};
use crate::net::{Request, Response};

/// A request before it has a token.
pub(super) struct Letter {
    pub(super) method: &'static str,
    /// Under `/v1/`.
    pub(super) path: String,
    pub(super) query: &'static str,
    /// May hold a key.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Letter {
    fn new(method: &'static str, path: String) -> Self {
        Self { method, path, query: "", body: Zeroizing::default() }
    }

    pub(super) fn get(path: String) -> Self {
        Self::new("GET", path)
    }

    /// Vault's LIST; a GET with this query is the same (API page "HTTP API", 2025).
    pub(super) fn list(path: String) -> Self {
        Self { query: "list=true", ..Self::new("GET", path) }
    }

    pub(super) fn delete(path: String) -> Self {
        Self::new("DELETE", path)
    }

    pub(super) fn post(path: String, body: Zeroizing<Vec<u8>>) -> Self {
        Self { body, ..Self::new("POST", path) }
    }

    /// The request, with this token if it takes one. `host` is the origin's authority.
    pub(super) fn request(
        &self,
        origin: &str,
        host: &str,
        namespace: Option<&str>,
        token: Option<&str>,
    ) -> Zeroizing<Request> {
        // An agent in between may demand x-vault-request: it tells a program's request from a browser's.
        let mut headers =
            vec![("host".to_string(), host.to_string()), ("x-vault-request".to_string(), "true".to_string())];
        headers.extend(namespace.map(|name| ("x-vault-namespace".to_string(), name.to_string())));
        headers.extend(token.map(|token| ("x-vault-token".to_string(), token.to_string())));
        Zeroizing::new(Request {
            method: self.method,
            origin: origin.to_string(),
            path: format!("/v1/{}", self.path),
            query: self.query.to_string(),
            headers,
            body: self.body.to_vec(),
        })
    }
}

/// The body that creates a secret with this field, and never writes over one.
pub(super) fn create(field: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    #[derive(serde::Serialize)]
    struct Options {
        cas: u32,
    }
    #[derive(serde::Serialize)]
    struct Create<'a> {
        options: Options,
        data: BTreeMap<&'a str, &'a str>,
    }
    json(&Create { options: Options { cas: 0 }, data: BTreeMap::from([(field, text)]) })
}

/// The body of a login by AppRole.
pub(super) fn approle(role_id: &str, secret_id: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    json(&BTreeMap::from([("role_id", role_id), ("secret_id", secret_id)]))
}

/// Larger than any body of ours: a buffer that grows would leave its first half unwiped.
const BODY_ROOM: usize = 128 * 1024;

fn json(value: &impl serde::Serialize) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    serde_json::to_writer(&mut *body, value)
        .map_err(|error| CustodyError::Failed { place: "custody".to_string(), problem: format!("no JSON: {error}") })?;
    Ok(body)
}

/// What stands under a name.
pub(super) enum Found {
    /// This text.
    Text(Zeroizing<String>),
    /// Vault says that there is nothing, and never was.
    Nothing,
    /// There is something, and it is not what was put there. The problem names the way on.
    Spoilt(String),
    /// Vault said neither.
    Unclear,
}

#[derive(Deserialize)]
struct Envelope {
    data: Option<Secret>,
    errors: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Secret {
    data: Option<BTreeMap<String, serde_json::Value>>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// What the answer to reading a secret says of this field.
pub(super) fn found(answer: &Response, field: &str) -> Found {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&answer.body) else { return Found::Unclear };
    match (answer.status, envelope) {
        (200, Envelope { data: Some(Secret { data: Some(mut fields), metadata: Some(metadata) }), .. }) => {
            if !metadata.deletion_time.is_empty() {
                return Found::Spoilt(format!(
                    "Vault deletes it at {}: set delete_version_after=0s on the mount and the secret, then `vault kv undelete \
                     -versions={}`",
                    quiet::last_line(metadata.deletion_time.as_bytes(), &[]),
                    metadata.version
                ));
            }
            match fields.remove(field) {
                Some(serde_json::Value::String(text)) => Found::Text(Zeroizing::new(text)),
                _ => Found::Spoilt(format!(
                    "it has no field {field:?}: somebody wrote version {}; `vault kv rollback` brings an earlier one back",
                    metadata.version
                )),
            }
        }
        (404, Envelope { data: Some(Secret { metadata: Some(metadata), .. }), .. }) if metadata.destroyed => {
            Found::Spoilt(format!(
                "somebody destroyed its version {} in Vault: `vault kv rollback` brings an earlier one back if there is one; \
                 `vault kv metadata delete` gives the name up",
                metadata.version
            ))
        }
        (404, Envelope { data: Some(Secret { metadata: Some(metadata), .. }), .. }) => Found::Spoilt(format!(
            "somebody deleted its version {0} in Vault: `vault kv undelete -versions={0}` brings it back",
            metadata.version
        )),
        (404, Envelope { data: None, errors: Some(errors) }) if errors.is_empty() => Found::Nothing,
        _ => Found::Unclear,
    }
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

/// The names in a folder; none where Vault says that there is nothing. `None`: it said neither.
pub(super) fn names(answer: &Response) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Listing {
        data: Option<Keys>,
        errors: Option<Vec<String>>,
    }
    match (answer.status, serde_json::from_slice(&answer.body).ok()?) {
        // A folder within ends with a slash, which is in no name of ours.
        (200, Listing { data: Some(Keys { keys }), .. }) => Some(keys),
        (404, Listing { data: None, errors: Some(errors) }) if errors.is_empty() => Some(Vec::new()),
        _ => None,
    }
}

/// Whether the answer about a mount shows a KV engine of version 2, and what it shows else.
pub(super) fn is_kv2(answer: &Response) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Mount {
        data: Engine,
    }
    #[derive(Deserialize)]
    struct Engine {
        r#type: String,
        options: Option<BTreeMap<String, String>>,
    }
    if answer.status != 200 {
        return Err(complaint(answer));
    }
    let Ok(Mount { data }) = serde_json::from_slice(&answer.body) else { return Err(complaint(answer)) };
    let version = data.options.as_ref().and_then(|options| options.get("version")).map_or("1", String::as_str);
    match (data.r#type.as_str(), version) {
        ("kv", "2") => Ok(()),
        ("kv", _) => {
            Err("is a KV engine of version 1, which writes over what is there: `vault kv enable-versioning` makes it \
                          one of version 2"
                .to_string())
        }
        (other, _) => Err(format!("is a {} engine; it must be KV version 2", quiet::last_line(other.as_bytes(), &[]))),
    }
}

/// A token as Vault lends it.
pub(super) struct Lent {
    /// The token; `None` in an answer about the token that asked.
    pub(super) token: Option<Zeroizing<String>>,
    /// Seconds; 0 is for ever.
    pub(super) seconds: u64,
    pub(super) renewable: bool,
}

/// What a login or a renewal answered.
pub(super) fn lent(answer: &Response) -> Option<Lent> {
    #[derive(Deserialize)]
    struct Auth {
        client_token: String,
        lease_duration: u64,
        renewable: bool,
    }
    #[derive(Deserialize)]
    struct Login {
        auth: Auth,
    }
    let Login { auth } = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)?;
    Some(Lent {
        token: Some(Zeroizing::new(auth.client_token)),
        seconds: auth.lease_duration,
        renewable: auth.renewable,
    })
}

/// What `lookup-self` answered.
pub(super) fn looked_up(answer: &Response) -> Option<Lent> {
    #[derive(Deserialize)]
    struct Token {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }
    #[derive(Deserialize)]
    struct Lookup {
        data: Token,
    }
    let Lookup { data } = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)?;
    Some(Lent { token: None, seconds: data.ttl, renewable: data.renewable })
}

/// What an answer complains of, in a line.
pub(super) fn complaint(answer: &Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let said = serde_json::from_slice(&answer.body).map(|Errors { errors }| errors.join("; ")).unwrap_or_default();
    let said = quiet::last_line(said.replace('\n', " ").as_bytes(), &[]);
    let hint = match answer.status {
        403 => " (the token is not valid, or its policy does not allow this: see README, custody)",
        307 | 308 => " (a standby that does not forward: name the active server, or a balancer that finds it)",
        503 => " (sealed, or not yet unsealed)",
        404 => " (is mount and namespace right?)",
        _ => "",
    };
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("HTTP {}{said}{hint}", answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn only_vaults_own_word_is_an_absence() {
        let check = |status: u16, body: &str, expect: &str| {
            let said = match found(&answer(status, body), "private_key") {
                Found::Text(text) => format!("text {}", *text),
                Found::Nothing => "nothing".to_string(),
                Found::Spoilt(problem) => problem,
                Found::Unclear => "unclear".to_string(),
            };
            assert!(said.starts_with(expect), "{status} {body}: {said}");
        };
        let metadata = |deleted: &str, destroyed: bool| {
            format!(r#""metadata":{{"deletion_time":"{deleted}","destroyed":{destroyed},"version":2}}"#)
        };
        let well = metadata("", false);
        check(200, &format!(r#"{{"data":{{"data":{{"private_key":"a\nb"}},{well}}}}}"#), "text a\nb");
        check(404, r#"{"errors":[]}"#, "nothing");
        check(404, r#"{"errors":["no handler for route \"x/data/y\". route entry not found."]}"#, "unclear");
        check(404, r#"{"errors":["namespace not found"]}"#, "unclear");
        check(404, "{}", "unclear");
        check(404, "<html>nothing here</html>", "unclear");
        check(404, "", "unclear");
        check(403, r#"{"errors":["permission denied"]}"#, "unclear");
        check(403, r#"{"errors":[]}"#, "unclear");
        check(503, r#"{"errors":["Vault is sealed"]}"#, "unclear");
        check(200, r#"{"data":{"data":{"private_key":"a"},"options":{"cas":0}}}"#, "unclear");
        check(200, &format!(r#"{{"data":{{"data":{{"other":"a"}},{well}}}}}"#), "it has no field \"private_key\"");
        check(200, &format!(r#"{{"data":{{"data":{{"private_key":7}},{well}}}}}"#), "it has no field");
        let gone = metadata("2026-11-23T05:58:37Z", false);
        check(404, &format!(r#"{{"data":{{"data":null,{gone}}}}}"#), "somebody deleted its version 2");
        check(
            404,
            &format!(r#"{{"data":{{"data":null,{}}}}}"#, metadata("", true)),
            "somebody destroyed its version 2",
        );
        check(
            200,
            &format!(r#"{{"data":{{"data":{{"private_key":"a"}},{gone}}}}}"#),
            "Vault deletes it at 2026-11-23T",
        );
    }

    #[test]
    fn an_empty_folder_is_no_error_and_a_missing_mount_is() {
        let check = |status: u16, body: &str, expect: Option<&[&str]>| {
            let expect = expect.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(names(&answer(status, body)), expect, "{body}");
        };
        check(200, r#"{"data":{"keys":["a","b/"]}}"#, Some(&["a", "b/"]));
        check(404, r#"{"errors":[]}"#, Some(&[]));
        check(404, r#"{"errors":["no handler for route"]}"#, None);
        check(404, "", None);
        check(403, r#"{"errors":["permission denied"]}"#, None);
    }

    #[test]
    fn only_kv_version_2_will_do() {
        let check = |body: &str, expect: &str| {
            let said = is_kv2(&answer(200, body)).err().unwrap_or_default();
            assert!(said.contains(expect) && said.is_empty() == expect.is_empty(), "{body}: {said}");
        };
        check(r#"{"data":{"type":"kv","options":{"version":"2"}}}"#, "");
        check(r#"{"data":{"type":"kv","options":{"version":"1"}}}"#, "enable-versioning");
        check(r#"{"data":{"type":"kv","options":null}}"#, "enable-versioning");
        check(r#"{"data":{"type":"transit","options":null}}"#, "is a transit engine");
        check("{}", "HTTP 200");
        assert!(is_kv2(&answer(403, r#"{"errors":["permission denied"]}"#)).unwrap_err().contains("its policy"));
    }

    #[test]
    fn a_request_shows_neither_its_token_nor_its_body() {
        let body = create("private_key", "SECRET\nTEXT\n").unwrap();
        assert_eq!(body.as_slice(), br#"{"options":{"cas":0},"data":{"private_key":"SECRET\nTEXT\n"}}"#);
        let letter = Letter::post("secret/data/rekeyd/a".to_string(), body);
        let request = letter.request("https://v", "v", Some("ops"), Some("TOKEN"));
        assert!(request.headers.contains(&("x-vault-token".to_string(), "TOKEN".to_string())));
        assert!(request.headers.contains(&("x-vault-namespace".to_string(), "ops".to_string())));
        let printed = format!("{:?}", *request);
        assert!(!printed.contains("TOKEN") && !printed.contains("SECRET"), "{printed}");
    }
}
