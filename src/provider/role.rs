//! The role that a cloud lends to a machine: temporary credentials, asked of the cloud's metadata service, which only the
//! machine itself reaches. It must never send anything of ours there, nor quote an answer: secrets stand in it.
//! Sources: PY-TC CVMRoleCredential (tencentcloud-sdk-python-common 3.1.195); ALI-CRED provider/ecs_ram_role.py
//! (alibabacloud-credentials 1.0.12).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::Credentials;
use super::http::redact::Redactor;
use crate::model::ProviderKind;
use crate::net::{Request, Response, Transport, TransportError};

/// How long a session with Alibaba's metadata service is asked for, in seconds: its most.
const SESSION_SECONDS: &str = "21600";

/// A role of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    dialect: Dialect,
    name: Option<String>,
    endpoint: Option<String>,
}

/// Temporary credentials.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) credentials: Credentials,
    pub(super) expires: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Tencent,
    Alibaba,
}

/// The answer of either cloud. Names that the other has stay empty.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Answer {
    code: String,
    #[serde(alias = "TmpSecretId")]
    access_key_id: String,
    #[serde(alias = "TmpSecretKey")]
    access_key_secret: String,
    #[serde(alias = "Token")]
    security_token: String,
    expired_time: Option<i64>,
    expiration: Option<String>,
}

impl Role {
    /// A role of a machine of this cloud: `name`, or the one that the machine has. `endpoint`: where metadata is asked for
    /// instead of the cloud's own addresses, a proxy on this machine. The error says why there is none.
    pub fn new(kind: ProviderKind, name: Option<String>, endpoint: Option<String>) -> Result<Self, String> {
        let dialect = match kind {
            ProviderKind::TencentLighthouse | ProviderKind::TencentCvm => Dialect::Tencent,
            ProviderKind::AlibabaEcs => Dialect::Alibaba,
            ProviderKind::BaiduBcc => {
                return Err(
                    "Baidu documents no way for a machine to get credentials by a role: give access_key_id and \
                            access_key_secret, with a session_token if an agent renews them"
                        .to_string(),
                );
            }
        };
        if let Some(bad) = name.as_ref().filter(|name| !is_name(name)) {
            return Err(format!("{bad:?} is no name of a role: letters, digits and +=,.@_- (at most 128), or auto"));
        }
        Ok(Self { dialect, name, endpoint })
    }

    /// So long before they expire others are fetched: as the vendors' SDKs have it.
    pub(super) fn renewed_before(&self) -> Duration {
        match self.dialect {
            Dialect::Tencent => Duration::from_secs(300),
            Dialect::Alibaba => Duration::from_secs(900),
        }
    }

    /// Asks the metadata service. The error says what it did not answer, and the way on.
    pub(super) async fn fetch(&self, transport: &dyn Transport) -> Result<Fetched, String> {
        let mut unsent = String::new();
        for origin in self.origins() {
            match self.fetch_at(transport, origin).await {
                // The name does not resolve everywhere; nothing was asked yet.
                Err(Trouble::NotSent(problem)) if unsent.is_empty() => unsent = problem,
                Err(Trouble::NotSent(_)) => {}
                Err(Trouble::Said(problem)) => return Err(problem),
                Ok(fetched) => return Ok(fetched),
            }
        }
        Err(format!(
            "the metadata service cannot be reached ({unsent}): `credentials: {{ role }}` works on a machine of the cloud \
             only, that has a role"
        ))
    }

    fn origins(&self) -> Vec<&str> {
        match (&self.endpoint, self.dialect) {
            (Some(endpoint), _) => vec![endpoint],
            (None, Dialect::Tencent) => vec!["http://metadata.tencentyun.com", "http://169.254.0.23"],
            (None, Dialect::Alibaba) => vec!["http://100.100.100.200"],
        }
    }

    async fn fetch_at(&self, transport: &dyn Transport, origin: &str) -> Result<Fetched, Trouble> {
        let (folder, mut headers) = match self.dialect {
            Dialect::Tencent => ("/latest/meta-data/cam/security-credentials/", Vec::new()),
            Dialect::Alibaba => ("/latest/meta-data/ram/security-credentials/", Vec::new()),
        };
        if self.dialect == Dialect::Alibaba {
            headers.extend(session(transport, origin).await?.map(|token| ("x-aliyun-ecs-metadata-token", token)));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let answer = ask(transport, "GET", origin, folder, &headers).await?;
                let name = text(&answer, "the name of this machine's role")?;
                if answer.status == 404 || (answer.status == 200 && name.is_empty()) {
                    return Err(Trouble::Said("this machine has no role: give it one in the console".to_string()));
                }
                is_well(&answer, "the name of this machine's role")?;
                match is_name(&name) {
                    true => name,
                    false => return Err(Trouble::Said("the metadata service gave no name of a role".to_string())),
                }
            }
        };
        let answer = ask(transport, "GET", origin, &format!("{folder}{name}"), &headers).await?;
        if answer.status == 404 {
            return Err(Trouble::Said(format!(
                "this machine does not have the role {name}: give it that in the console"
            )));
        }
        is_well(&answer, "the role's credentials")?;
        Ok(read(&answer.body)?)
    }
}

/// Why there is nothing.
enum Trouble {
    /// Nobody heard the question.
    NotSent(String),
    /// What came of it.
    Said(String),
}

impl From<String> for Trouble {
    fn from(said: String) -> Self {
        Self::Said(said)
    }
}

/// The token of a session, without which a hardened machine's service answers nothing; `None` where it gives none, whatever
/// the reason: as ALI-CRED does, it is then asked without.
async fn session(transport: &dyn Transport, origin: &str) -> Result<Option<String>, Trouble> {
    let ttl = [("x-aliyun-ecs-metadata-token-ttl-seconds", SESSION_SECONDS.to_string())];
    let answer = match ask(transport, "PUT", origin, "/latest/api/token", &ttl).await {
        Err(Trouble::Said(_)) => return Ok(None),
        other => other?,
    };
    let token = text(&answer, "a session's token").unwrap_or_default();
    let is_one = answer.status == 200 && !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(is_one.then_some(token))
}

async fn ask(
    transport: &dyn Transport,
    method: &'static str,
    origin: &str,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<Response, Trouble> {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let own = [("host", host.to_string())];
    let request = Request {
        method,
        origin: origin.to_string(),
        path: path.to_string(),
        query: String::new(),
        headers: own.iter().chain(headers).map(|(name, value)| (name.to_string(), value.clone())).collect(),
        body: Vec::new(),
    };
    transport.send(&request).await.map_err(|error| match error {
        TransportError::NotSent(problem) => Trouble::NotSent(problem),
        other => Trouble::Said(format!("the metadata service: {other}")),
    })
}

fn is_well(answer: &Response, what: &str) -> Result<(), Trouble> {
    match answer.status {
        200 => Ok(()),
        status => Err(Trouble::Said(format!("the metadata service did not give {what}: HTTP {status}"))),
    }
}

fn text(answer: &Response, what: &str) -> Result<String, Trouble> {
    let text = std::str::from_utf8(&answer.body).map(|text| text.trim().to_string());
    text.map_err(|_| Trouble::Said(format!("the metadata service gave {what} as something that is no text")))
}

/// What stands in a path as it is.
fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    (1..=128).contains(&name.len()) && name.chars().all(legal) && name.chars().any(|c| c != '.')
}

fn read(body: &[u8]) -> Result<Fetched, String> {
    // The reader's own words are not repeated: they may quote.
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| "the metadata service gave something else than a role's credentials".to_string())?;
    if answer.code != "Success" {
        let code = Redactor::default().word(&answer.code);
        return Err(format!("the metadata service gave no credentials of the role: code {code:?} in place of Success"));
    }
    let expires = match (answer.expired_time, &answer.expiration) {
        (Some(seconds), _) => Timestamp::from_second(seconds).ok(),
        (None, Some(text)) => text.parse().ok(),
        (None, None) => None,
    };
    let expires = expires.ok_or("the metadata service does not say when the role's credentials expire")?;
    let credentials = Credentials {
        access_key_id: answer.access_key_id,
        access_key_secret: answer.access_key_secret.into(),
        session_token: Some(answer.security_token.into()),
    };
    credentials.check().map_err(|problem| format!("of the role's credentials {problem}"))?;
    Ok(Fetched { credentials, expires })
}

#[cfg(test)]
#[path = "role_tests.rs"]
mod tests;
