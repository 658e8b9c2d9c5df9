//! An account's `credentials`: secrets, each named by its place; a role of this machine; or, where nothing is said, the
//! environment variables that the vendor's own tools read. It must never quote what may be a secret.

use super::fields::{Field, Group, Quote};
use super::report::{At, Report};
use super::secret::{Secret, Source};
use super::tree::Value;
use crate::model::ProviderKind;
use crate::net::Origin;
use crate::provider::Role;

/// How an account gets its credentials.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// Read from where the file says.
    Secrets {
        id: Secret,
        secret: Secret,
        token: Option<Secret>,
        /// The file says nothing, and these are the vendor's own names.
        by_name: bool,
    },
    /// Asked of the machine's metadata service.
    Role(Role),
}

/// Id, secret and token in the environment, as the vendor's tools have them. Tencent: PY-TC and TCCLI (the token); Alibaba:
/// ALI-CRED. Baidu's SDKs read none; these are the names that its tools' users give (decision 0021).
pub(super) fn usual_names(provider: ProviderKind) -> [&'static str; 3] {
    match provider {
        ProviderKind::TencentLighthouse | ProviderKind::TencentCvm => {
            ["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"]
        }
        ProviderKind::AlibabaEcs => {
            ["ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"]
        }
        ProviderKind::BaiduBcc => ["BCE_ACCESS_KEY_ID", "BCE_SECRET_ACCESS_KEY", "BCE_SESSION_TOKEN"],
    }
}

const SECRETS: [&str; 3] = ["access_key_id", "access_key_secret", "session_token"];
const WAYS: &str = "write { env: NAME }, { file: /PATH } or { credential: NAME }";

impl Access {
    /// The vendor's own variables, for the account that stands at this place.
    pub(super) fn usual(provider: ProviderKind, account: &At) -> Self {
        let credentials = account.under("credentials", account.line);
        let [id, secret, token] = [0, 1, 2].map(|at| Secret {
            source: Source::Env(usual_names(provider)[at].to_string()),
            at: credentials.under(SECRETS[at], account.line),
        });
        Self::Secrets { id, secret, token: Some(token), by_name: true }
    }

    /// Reads `credentials`.
    pub(super) fn read(report: &mut Report, field: &Field<'_>, provider: Option<ProviderKind>) -> Option<Self> {
        let keys = ["access_key_id", "access_key_secret", "session_token", "role", "metadata_endpoint"];
        let group = Group::open(report, field, &keys, Quote::Nothing);
        if let Some(role) = group.get("role") {
            return read_role(report, &group, &role, provider?).map(Self::Role);
        }
        if let Some(field) = group.get("metadata_endpoint") {
            report.problem(&field.at, "goes with role, and there is none");
        }
        let mut secret = |key: &str, needed: bool| {
            let field = if needed { group.need(report, key, WAYS) } else { group.get(key) };
            field.and_then(|field| Secret::read(report, &field))
        };
        let [id, key, token] = SECRETS.map(|key| secret(key, key != "session_token"));
        Some(Self::Secrets { id: id?, secret: key?, token, by_name: false })
    }

    /// Its secrets.
    pub(super) fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Role(_) => Vec::new(),
            Self::Secrets { id, secret, token, .. } => {
                [Some(id), Some(secret), token.as_ref()].into_iter().flatten().collect()
            }
        }
    }

    /// Whether both are the same access key, as far as the file tells.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secrets { id, .. }, Self::Secrets { id: other, .. }) => id.source == other.source,
            (Self::Role(role), Self::Role(other)) => role == other,
            _ => false,
        }
    }
}

fn read_role(report: &mut Report, group: &Group<'_>, field: &Field<'_>, provider: ProviderKind) -> Option<Role> {
    for key in SECRETS {
        if let Some(field) = group.get(key) {
            report.problem(&field.at, "is not read beside role: a role brings its own; take one of them away");
        }
    }
    let endpoint = match group.get("metadata_endpoint") {
        Some(field) => Some(field.parse(report, parse_metadata)?),
        None => None,
    };
    if !matches!(field.node.value, Value::Text(_)) {
        report.problem(&field.at, "is the name of a role, or auto: the one that this machine has");
        return None;
    }
    field.parse(report, |text| Role::new(provider, (text != "auto").then(|| text.to_string()), endpoint.clone()))
}

/// A proxy of the metadata service on this machine: others are reached by no way that nobody listens on.
fn parse_metadata(text: &str) -> Result<String, String> {
    match Origin::parse(text) {
        Ok(origin) if text.starts_with("http://") => Ok(origin.to_string()),
        _ => Err(
            "is no proxy of the metadata service on this machine: write http://127.0.0.1:PORT, or leave it out for \
                  the cloud's own"
                .to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::super::{Account, load};

    fn account(provider: &str, credentials: &str) -> Result<Account, String> {
        let text = format!(
            "store: sqlite:///x/r.db\ncustody: {{ directory: /x/keys }}\naccounts: {{ a: {{ provider: {provider}{credentials} }} }}\n\
             fleets: {{ f: {{ account: a, region: bj, all_instances: true, verify: none }} }}\n"
        );
        let mut config =
            load(&text, Path::new("rekeyd.yaml"), &crate::daemon::cloud).map_err(|error| error.to_string())?;
        Ok(config.accounts.remove(&"a".into()).unwrap())
    }

    #[test]
    fn a_role_is_a_name_or_auto_and_comes_alone() {
        let check = |provider: &str, credentials: &str, expect: Result<(), &str>| {
            let read = account(provider, &format!(", credentials: {credentials}"));
            match (&read, expect) {
                (Ok(account), Ok(())) => {
                    assert!(account.role().is_some() && account.systemd_credentials().next().is_none());
                    assert!(account.credentials(&|_| None).unwrap().is_none(), "{credentials}");
                }
                (Err(why), Err(part)) => assert!(why.contains(part) && !why.contains("hunter2"), "{why}"),
                _ => panic!("{provider} {credentials}: {read:?}"),
            }
        };
        check("tencent-cvm", "{ role: auto }", Ok(()));
        check("tencent-lighthouse", "{ role: RekeydRole }", Ok(()));
        check("alibaba-ecs", "{ role: rekeyd, metadata_endpoint: 'http://127.0.0.1:8080' }", Ok(()));
        check("baidu-bcc", "{ role: auto }", Err("Baidu documents no way"));
        check("tencent-cvm", "{ role: 'a/../b' }", Err("no name of a role"));
        check("tencent-cvm", "{ role: '..' }", Err("no name of a role"));
        check("tencent-cvm", "{ role: [a] }", Err("credentials.role: is the name of a role"));
        check("tencent-cvm", "{ role: auto, access_key_id: { env: hunter2 } }", Err("is not read beside role"));
        check(
            "tencent-cvm",
            "{ role: auto, metadata_endpoint: 'http://169.254.0.23' }",
            Err("metadata_endpoint: is no proxy"),
        );
        check(
            "tencent-cvm",
            "{ role: auto, metadata_endpoint: 'https://hunter2.net' }",
            Err("metadata_endpoint: is no proxy"),
        );
        check("tencent-cvm", "{ metadata_endpoint: 'http://127.0.0.1:1' }", Err("goes with role"));
    }

    #[test]
    fn an_account_that_says_nothing_has_the_vendors_own_variables_and_a_token_where_one_is_set() {
        let check = |provider: &str, id: &str, secret: &str, token: &str| {
            let account = account(provider, "").unwrap_or_else(|why| panic!("{why}"));
            let env = |with: bool| {
                move |name: &str| match name {
                    _ if name == id => Some(OsString::from("the-id")),
                    _ if name == secret => Some(OsString::from("the-secret")),
                    _ if name == token && with => Some(OsString::from("the-token")),
                    _ => None,
                }
            };
            for with in [false, true] {
                let read = account.credentials(&env(with)).unwrap().unwrap();
                assert_eq!(read.access_key_id.expose_secret(), "the-id");
                let token = read.session_token.map(|token| token.expose_secret().to_string());
                assert_eq!(token.as_deref(), with.then_some("the-token"));
            }
            // Set to nothing it is none.
            let empty = |name: &str| if name == token { Some(OsString::new()) } else { env(false)(name) };
            assert!(account.credentials(&empty).unwrap().unwrap().session_token.is_none());
            let why = account.credentials(&|_| None).unwrap_err().to_string();
            assert!(why.contains(&format!("accounts.a.credentials.access_key_id: ${id} is not set")), "{why}");
            assert!(why.contains(&format!("${secret} is not set")) && why.lines().count() == 2, "{why}");
        };
        let tencent = ["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"];
        check("tencent-cvm", tencent[0], tencent[1], tencent[2]);
        check("tencent-lighthouse", tencent[0], tencent[1], tencent[2]);
        let (id, secret) = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET");
        check("alibaba-ecs", id, secret, "ALIBABA_CLOUD_SECURITY_TOKEN");
        check("baidu-bcc", "BCE_ACCESS_KEY_ID", "BCE_SECRET_ACCESS_KEY", "BCE_SESSION_TOKEN");
    }
}
