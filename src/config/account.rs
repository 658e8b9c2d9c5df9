//! The `accounts` of the file: which cloud, where it is reached, where its secrets come from, how fast it may be asked.
//! Reading an account needs no secret; [`Account::credentials`] fetches them. It must never quote what may be one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use secrecy::SecretString;

use super::access::Access;
use super::fields::{Field, Group, Quote, nearest};
use super::report::{Remark, Report};
use super::secret::{Env, Secret};
use super::{Cloud, ConfigError};
use crate::model::{ProviderKind, Region};
use crate::provider::{Api, Role};

/// A cloud account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Which cloud.
    pub provider: ProviderKind,
    /// By which of its APIs. Like the rates, always the file's: both lead to the same machines.
    pub api: Api,
    /// Requests a second, by the name of the cloud's action; what is not named keeps the provider's own rate.
    pub rates: BTreeMap<String, u32>,
    /// So many machines of all its fleets, in all regions, may be down at once because of us. Default: no cap of its own.
    pub unavailable_max: Option<u32>,
    /// Scheme and authority, perhaps with `{region}`.
    endpoint: Option<String>,
    access: Access,
    file: PathBuf,
}

/// The secrets of an account, read.
#[derive(Debug)]
pub struct Credentials {
    /// The access key's id (Tencent: SecretId).
    pub access_key_id: SecretString,
    /// The access key's secret (Tencent: SecretKey).
    pub access_key_secret: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
    /// What their keeper should know: a file that others can read.
    pub warnings: Vec<Remark>,
}

impl Account {
    /// Where this account's cloud is reached in `region`: scheme and authority, without a path, as
    /// [`crate::net::Request::origin`] wants it. `None`: the provider's own default.
    pub fn endpoint(&self, region: &Region) -> Option<String> {
        self.endpoint.as_ref().map(|template| template.replace("{region}", region.as_str()))
    }

    /// The names of the systemd credentials that its secrets are.
    pub fn systemd_credentials(&self) -> impl Iterator<Item = &str> {
        self.access.secrets().into_iter().filter_map(Secret::credential)
    }

    /// The role of this machine whose credentials are used, if there are no secrets to be read.
    pub fn role(&self) -> Option<&Role> {
        match &self.access {
            Access::Role(role) => Some(role),
            Access::Secrets { .. } => None,
        }
    }

    /// Where its secrets come from, to be compared and never shown.
    pub fn sources(&self) -> String {
        self.access.secrets().into_iter().map(Secret::key).collect::<Vec<_>>().join("\n")
    }

    /// Fetches the secrets; `None` where a role is used. The error names every one that cannot be read, with its line.
    pub fn credentials(&self, env: Env<'_>) -> Result<Option<Credentials>, ConfigError> {
        let Access::Secrets { id, secret, token, by_name } = &self.access else { return Ok(None) };
        let mut report = Report::new(&self.file);
        let mut fetch = |secret: &Secret| match secret.fetch(env) {
            Ok(fetched) => {
                if let Some(warning) = fetched.warning {
                    report.note(&secret.at, warning);
                }
                Some(fetched.value)
            }
            Err(why) => {
                report.problem(&secret.at, why);
                None
            }
        };
        let (id, secret) = (fetch(id), fetch(secret));
        // Where nobody named it, permanent credentials have none.
        let token = token.as_ref().filter(|token| !by_name || token.is_set(env));
        let session_token = token.and_then(&mut fetch);
        let (problems, warnings) = report.into_parts();
        match (id, secret) {
            (Some(access_key_id), Some(access_key_secret)) if problems.is_empty() => {
                Ok(Some(Credentials { access_key_id, access_key_secret, session_token, warnings }))
            }
            _ => Err(ConfigError { problems }),
        }
    }

    /// Whether both are the same account of the same cloud under two names, as far as the file tells.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.provider == other.provider && self.endpoint == other.endpoint && self.access.is_same(&other.access)
    }

    /// Reads one account.
    pub(super) fn read(
        report: &mut Report,
        field: &Field<'_>,
        file: &std::path::Path,
        clouds: &dyn Fn(ProviderKind) -> Cloud,
    ) -> Option<Self> {
        let group = Group::open(
            report,
            field,
            &["provider", "api", "endpoint", "credentials", "rates", "unavailable_max"],
            Quote::Keys,
        );
        let unavailable_max = group.parse(report, "unavailable_max", |text| match text.parse::<u32>() {
            Ok(0) => Err("at 0 nothing could ever be bound: a bind takes a machine down for a moment; write 1".into()),
            Ok(count) => Ok(count),
            Err(_) => {
                Err(format!("{text:?} is no number of machines; a share is of a fleet, and this is of an account"))
            }
        });
        let provider = group
            .need(report, "provider", &format!("write one of {}", providers()))
            .and_then(|field| field.parse(report, parse_provider));
        let api = group.get("api").and_then(|field| field.parse(report, |text| parse_api(text, provider)));
        let endpoint = group.parse(report, "endpoint", |text| {
            let endpoint = parse_endpoint(text)?;
            match api.filter(|api| *api != Api::V3 && speaks_v3_only(&endpoint)) {
                None => Ok(endpoint),
                Some(api) => Err(format!(
                    "is a host of API 3.0 (tencentcloudapi.com), and api: {} asks for /v2/index.php, which it does not have: \
                     leave endpoint out for {}, or write api: v3",
                    api.word(),
                    api.endpoint().unwrap_or_default(),
                )),
            }
        });
        let rates = match (group.get("rates"), provider) {
            (Some(field), Some(provider)) => read_rates(report, &field, provider, clouds(provider).actions),
            _ => BTreeMap::new(),
        };
        let access = match (group.get("credentials"), provider) {
            (Some(field), provider) => Access::read(report, &field, provider),
            (None, Some(provider)) => Some(Access::usual(provider, &group.at)),
            (None, None) => None,
        };
        Some(Self {
            provider: provider?,
            api: api.unwrap_or_default(),
            rates,
            unavailable_max,
            endpoint,
            access: access?,
            file: file.to_path_buf(),
        })
    }
}

fn providers() -> String {
    ProviderKind::ALL.map(ProviderKind::as_str).join(", ")
}

fn parse_provider(text: &str) -> Result<ProviderKind, String> {
    ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let names = ProviderKind::ALL.map(ProviderKind::as_str);
        let hint = nearest(text, &names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("unknown provider {text:?}{hint} (known: {})", providers())
    })
}

/// An API of this cloud; of one that could not be read nothing is said.
fn parse_api(text: &str, provider: Option<ProviderKind>) -> Result<Api, String> {
    if let Some(other) = provider.filter(|kind| *kind != ProviderKind::TencentCvm) {
        return Err(format!("{other} has one API only, and this key is for tencent-cvm; leave it out"));
    }
    let found = Api::WORDS.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, api)| api).ok_or_else(|| {
        let words = Api::WORDS.map(|(word, _)| word);
        let hint = nearest(text, &words).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("unknown API {text:?}{hint} (known: {})", words.join(", "))
    })
}

/// An origin: `https://HOST[:PORT]`, or `http://` on loopback. It is not repeated in a message: a password may stand in it.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let (plain, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("is no endpoint: write https://HOST (plain http:// only to loopback)".into()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("holds a user or password; credentials stand under `credentials`".into());
    }
    if rest.contains(['/', '?', '#', '\\']) {
        return Err("holds a path or a query; write scheme, host and port only".into());
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("has no port between 1 and 65535 after its colon".into());
    }
    let host = host.to_ascii_lowercase();
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let loopback = match ipv6 {
        Some(address) => {
            address.parse::<Ipv6Addr>().map_err(|_| "holds no IPv6 address between [ and ]")?.is_loopback()
        }
        None => host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
    };
    let bare = host.replacen("{region}", "region", 1);
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if ipv6.is_none() && !bare.split('.').all(|label| !label.is_empty() && label.chars().all(legal)) {
        return Err("holds no host name; {region} may stand in it once".into());
    }
    if plain && !loopback {
        return Err(
            "is plain http off this machine: requests and answers could be read and changed; write https://".into()
        );
    }
    let scheme = if plain { "http" } else { "https" };
    Ok(port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}")))
}

/// Whether nothing but API 3.0 is answered there, as far as a host's name tells: a proxy of one's own may have both.
fn speaks_v3_only(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = host.split(':').next().unwrap_or(host);
    host == "tencentcloudapi.com" || host.ends_with(".tencentcloudapi.com")
}

fn read_rates(
    report: &mut Report,
    field: &Field<'_>,
    provider: ProviderKind,
    actions: &'static [&'static str],
) -> BTreeMap<String, u32> {
    let mut rates = BTreeMap::new();
    for (action, rate) in field.entries(report) {
        if !actions.is_empty() && !actions.contains(&action) {
            let hint = nearest(action, actions).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let known = actions.join(", ");
            report.problem(&rate.at, format!("{provider} is never asked for this action{hint} (known: {known})"));
            continue;
        }
        let value = rate.parse(report, |text| match text.parse::<u32>() {
            Ok(rate @ 1..=1000) => Ok(rate),
            _ => Err(format!("{text:?} is no rate: 1 to 1000 requests a second; leave it out for the cloud's own")),
        });
        if let Some(value) = value {
            rates.insert(action.to_string(), value);
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_origin_by_https_or_on_loopback() {
        let check = |text: &str, expect: Result<&str, &str>| match (parse_endpoint(text), expect) {
            (Ok(origin), Ok(expect)) => assert_eq!(origin, expect, "{text}"),
            (Err(why), Err(part)) => {
                assert!(why.contains(part), "{text}: {why}");
                assert!(!why.contains("hunter"), "{why}");
            }
            (answer, _) => panic!("{text}: {answer:?}"),
        };
        check("https://cvm.tencentcloudapi.com", Ok("https://cvm.tencentcloudapi.com"));
        check("https://ECS.{region}.aliyuncs.com/", Ok("https://ecs.{region}.aliyuncs.com"));
        check("https://proxy:8443", Ok("https://proxy:8443"));
        check("http://127.0.0.1:1", Ok("http://127.0.0.1:1"));
        check("http://localhost:80", Ok("http://localhost:80"));
        check("http://[::1]:80", Ok("http://[::1]:80"));
        check("https://[2001:db8::1]", Ok("https://[2001:db8::1]"));
        check("http://[2001:db8::1]", Err("plain http"));
        check("http://127.0.0.1.example.com", Err("plain http"));
        check("http://bcc.bj.baidubce.com", Err("plain http"));
        check("bcc.bj.baidubce.com", Err("is no endpoint"));
        check("ftp://hunter", Err("is no endpoint"));
        check("https://", Err("no host name"));
        check("https://a..b", Err("no host name"));
        check("https://{region}.{region}.com", Err("no host name"));
        check("https://a b", Err("no host name"));
        check("https://a:0", Err("port"));
        check("https://a:hunter", Err("port"));
        check("https://a:99999", Err("port"));
        check("https://[hunter]", Err("IPv6"));
        check("https://me:hunter2@host", Err("password"));
        check("https://host/hunter", Err("path"));
        check("https://host?hunter", Err("path"));
    }
}
