//! A Vault in memory for tests, behind the transport: as strict about tokens, check-and-set and deleted versions as the real
//! one (whose answers it gives word by word, tried on OpenBao 2.7.2), and it can lose answers and let writes land late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Login, Vault, VaultSettings};
use crate::clock::SystemClock;
use crate::custody::conformance::Mischief;
use crate::custody::slots::Remote;
use crate::net::{Request, Response, Transport, TransportError};

/// What is to go wrong with the next change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    Lose,
    Delay,
}

#[derive(Default)]
struct State {
    secrets: BTreeMap<String, Vec<Value>>,
    tokens: BTreeSet<String>,
    trick: Option<Trick>,
    late: Vec<Request>,
    away: bool,
}

/// The fake.
#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

impl Fake {
    /// A Vault, and a custodian that came to it with a token.
    pub(crate) async fn with_custodian() -> (Arc<Self>, Remote<Vault>) {
        let fake = Arc::new(Self::default());
        fake.0.lock().unwrap().tokens.insert("s.good".to_string());
        let settings = VaultSettings {
            address: "http://127.0.0.1:1".to_string(),
            mount: "secret".to_string(),
            path: "ssh/rekeyd".to_string(),
            namespace: None,
        };
        let login = Arc::new(|| Ok(Login::Token("s.good".into())));
        let custodian = Vault::custodian(settings, login, fake.clone(), Arc::new(SystemClock)).await.unwrap();
        (fake, custodian)
    }
}

fn answer(status: u16, body: Value) -> Response {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Response { status, headers: Vec::new(), body }
}

impl State {
    fn handle(&mut self, request: &Request) -> Response {
        let header = |name: &str| request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let errors = |status, text: &str| answer(status, json!({ "errors": [text] }));
        if header("x-vault-request").as_deref() != Some("true") {
            return errors(400, "missing required header");
        }
        if !header("x-vault-token").is_some_and(|token| self.tokens.contains(&token)) {
            return errors(403, "permission denied");
        }
        let path = request.path.strip_prefix("/v1/").unwrap();
        let none = || answer(404, json!({ "errors": [] }));
        match (request.method, path, request.query.as_str()) {
            ("GET", "auth/token/lookup-self", "") => answer(200, json!({ "data": { "ttl": 0, "renewable": false } })),
            ("GET", "sys/internal/ui/mounts/secret", "") => {
                answer(200, json!({ "data": { "type": "kv", "options": { "version": "2" } } }))
            }
            ("GET", "secret/metadata/ssh/rekeyd", "list=true") if self.secrets.is_empty() => none(),
            ("GET", "secret/metadata/ssh/rekeyd", "list=true") => {
                let keys: Vec<&String> = self.secrets.keys().collect();
                answer(200, json!({ "data": { "keys": keys } }))
            }
            ("GET", path, "") => match path.strip_prefix("secret/data/ssh/rekeyd/") {
                Some(name) => {
                    match self.secrets.get(name).and_then(|versions| Some((versions.len(), versions.last()?))) {
                        Some((version, data)) => {
                            let metadata = json!({ "deletion_time": "", "destroyed": false, "version": version });
                            answer(200, json!({ "data": { "data": data, "metadata": metadata } }))
                        }
                        None => none(),
                    }
                }
                None => errors(404, "no handler for route"),
            },
            ("POST", path, "") => {
                let name = path.strip_prefix("secret/data/ssh/rekeyd/").unwrap().to_string();
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let versions = self.secrets.entry(name).or_default();
                if body["options"]["cas"] != versions.len() {
                    return errors(400, "check-and-set parameter did not match the current version");
                }
                versions.push(body["data"].clone());
                answer(200, json!({ "data": { "version": versions.len(), "deletion_time": "", "destroyed": false } }))
            }
            ("DELETE", path, "") => {
                self.secrets.remove(path.strip_prefix("secret/metadata/ssh/rekeyd/").unwrap());
                answer(204, Value::Null)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[async_trait]
impl Transport for Fake {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let mut state = self.0.lock().unwrap();
        if state.away {
            return Err(TransportError::NotSent("connection refused".to_string()));
        }
        let trick = if request.method == "GET" { None } else { state.trick.take() };
        if trick == Some(Trick::Delay) {
            state.late.push(request.clone());
        } else {
            let answer = state.handle(request);
            if trick.is_none() {
                return Ok(answer);
            }
        }
        Err(TransportError::NoAnswer("the connection was lost".to_string()))
    }
}

impl Mischief for Arc<Fake> {
    fn lose(&self) {
        self.0.lock().unwrap().trick = Some(Trick::Lose);
    }

    fn delay(&self) {
        self.0.lock().unwrap().trick = Some(Trick::Delay);
    }

    fn land(&self) {
        let mut state = self.0.lock().unwrap();
        for request in std::mem::take(&mut state.late) {
            state.handle(&request);
        }
    }

    fn away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }
}
