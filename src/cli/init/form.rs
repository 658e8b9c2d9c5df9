//! From answers to a config file: the example of the cloud, which is commented and tested, with the answers put in. Pure. No
//! secret may get in: only names of places that secrets are read from.

use std::collections::BTreeMap;

use crate::config::looks_like_a_name;
use crate::model::ProviderKind;

/// What a config file of one fleet is made of. The default is a good file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) provider: ProviderKind,
    /// `None`: the cloud's own.
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    pub(super) fleet: String,
    /// `None`: all of the account in the region.
    pub(super) tags: Option<BTreeMap<String, String>>,
    /// `None`: by hand only.
    pub(super) schedule: Option<String>,
    pub(super) timezone: String,
    /// Whose login proves the key; `None`: `verify: none`.
    pub(super) login: Option<String>,
    /// Where the machines' addresses come from.
    pub(super) address: String,
    /// The directory of the database and of the keys.
    pub(super) state: String,
    pub(super) access_key_id: Option<Source>,
    pub(super) access_key_secret: Option<Source>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            provider: ProviderKind::TencentLighthouse,
            endpoint: None,
            region: "ap-singapore".into(),
            fleet: "web".into(),
            tags: Some(BTreeMap::from([("role".into(), "web".into())])),
            schedule: Some("0 0 3 1 * *".into()),
            timezone: "UTC".into(),
            login: Some("root".into()),
            address: "private".into(),
            state: "/var/lib/rekeyd".into(),
            access_key_id: None,
            access_key_secret: None,
        }
    }
}

/// Where a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Env(String),
    File(String),
    Credential(String),
}

impl Source {
    /// `env:NAME`, `file:/PATH` or `credential:NAME`. Anything else may be the secret itself, and is not repeated.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write env:NAME, file:/PATH or credential:NAME";
        let bad = |why: &str| Err(format!("{why} (what was given is not shown: it may be a secret); {FORMS}"));
        match text.split_once(':') {
            Some(("env", name)) if is_name(name) => Ok(Self::Env(name.into())),
            Some(("credential", name)) if is_name(name) => Ok(Self::Credential(name.into())),
            Some(("env" | "credential", _)) => {
                bad("does not look like a name: letters of one case, few digits, _ - and .")
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(("file", _)) => bad("is no absolute path"),
            _ => bad("says no place that a secret is read from"),
        }
    }

    fn yaml(&self) -> String {
        let (kind, text) = match self {
            Self::Env(name) => ("env", name),
            Self::File(path) => ("file", path),
            Self::Credential(name) => ("credential", name),
        };
        format!("{{ {kind}: {} }}", scalar(text))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && looks_like_a_name(name)
}

/// `NAME=VALUE`, as a tag.
pub(super) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.trim().split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(format!("{text:?} is no tag: write NAME=VALUE, as in role=web")),
    }
}

/// The example of a cloud.
fn example(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::TencentLighthouse => include_str!("../../../config/tencent-lighthouse.yaml"),
        ProviderKind::TencentCvm => include_str!("../../../config/tencent-cvm.yaml"),
        ProviderKind::AlibabaEcs => include_str!("../../../config/alibaba-ecs.yaml"),
        ProviderKind::BaiduBcc => include_str!("../../../config/baidu-bcc.yaml"),
    }
}

/// The file.
pub(super) fn render(answers: &Answers) -> String {
    let lines =
        example(answers.provider).lines().map(|line| answered(line, answers).unwrap_or_else(|| line.to_string()));
    let mut text: Vec<String> = lines.collect();
    text.push(String::new());
    text.join("\n")
}

/// A line of the example with the answer in it; `None`: it stays.
fn answered(line: &str, answers: &Answers) -> Option<String> {
    let bare = line.trim_start();
    let indent = &line[..line.len() - bare.len()];
    let (key, _) = bare.split_once(':')?;
    let value = match (indent.len(), key) {
        (0, "store") => scalar(&format!("sqlite://{}/rekeyd.db", answers.state)),
        (0, "custody") => format!("{{ directory: {} }}", scalar(&format!("{}/keys", answers.state))),
        (2, "web") => return Some(format!("{indent}{}:", scalar(&answers.fleet))),
        (4, "provider") => {
            let endpoint = answers.endpoint.as_ref()?;
            format!("{}\n{indent}endpoint: {}", answers.provider, scalar(endpoint))
        }
        (4, "region") => scalar(&answers.region),
        (4, "tags") => match &answers.tags {
            Some(tags) => {
                let each: Vec<String> =
                    tags.iter().map(|(name, value)| format!("{}: {}", scalar(name), scalar(value))).collect();
                format!("{{ {} }}", each.join(", "))
            }
            None => return Some(format!("{indent}all_instances: true")),
        },
        (4, "schedule") => match &answers.schedule {
            Some(schedule) => format!("{} # second, minute, hour, day of month, month, day of week", quoted(schedule)),
            None => {
                return Some(format!("{indent}# schedule: \"0 0 3 1 * *\" # without one it is rotated by hand only"));
            }
        },
        // It would have no effect.
        (4, "timezone") if answers.schedule.is_none() => return Some(format!("{indent}# timezone: Asia/Shanghai")),
        (4, "timezone") => scalar(&answers.timezone),
        (4, "verify") => match &answers.login {
            Some(user) => {
                let login = format!("ssh: {{ user: {}, address: {} }}", scalar(user), scalar(&answers.address));
                format!("{{ {login} }} # a login proves each new key; or `none`: the cloud's word is taken")
            }
            None => "none # the cloud's word is taken that a machine accepts its new key".into(),
        },
        (6, "access_key_id") => answers.access_key_id.as_ref()?.yaml(),
        (6, "access_key_secret") => answers.access_key_secret.as_ref()?.yaml(),
        _ => return None,
    };
    Some(format!("{indent}{key}: {value}"))
}

/// A text as a YAML scalar: plain where nothing can read it as something else.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let url = text.strip_prefix("sqlite://").unwrap_or(text);
    match begins && url.chars().all(plain) && !words.contains(&text.to_ascii_lowercase().as_str()) {
        true => text.to_string(),
        false => quoted(text),
    }
}

/// A text in double quotes, in which YAML escapes as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Config};
    use crate::daemon;
    use crate::provider::Select;
    use crate::rotation::Verify;

    fn read(answers: &Answers) -> Config {
        let text = render(answers);
        config::load(&text, Path::new("new.yaml"), &daemon::cloud).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn whatever_is_answered_stands_in_the_file_of_every_cloud() {
        let tags = BTreeMap::from([("role".to_string(), "web".to_string()), ("环境".into(), "a: \"b\" # c".into())]);
        for provider in ProviderKind::ALL {
            let answers = Answers {
                provider,
                endpoint: Some("https://{region}.cloud.example".into()),
                region: "xx-nowhere-9".into(),
                fleet: "db".into(),
                tags: Some(tags.clone()),
                schedule: Some("0 30 2 * * 0".into()),
                timezone: "Europe/Paris".into(),
                login: Some("ops".into()),
                state: "/srv/re keyd".into(),
                access_key_id: Some(Source::Env("THE_ID".into())),
                access_key_secret: Some(Source::Credential("the-secret".into())),
                ..Answers::default()
            };
            let config = read(&answers);
            let (name, fleet) = config.fleets.first_key_value().unwrap();
            assert_eq!((config.fleets.len(), config.accounts.len(), name.as_str()), (1, 1, "db"));
            assert_eq!(config.accounts[&fleet.account].provider, provider);
            assert_eq!(fleet.region.as_str(), "xx-nowhere-9");
            let endpoint = config.accounts[&fleet.account].endpoint(&fleet.region);
            assert_eq!(endpoint.as_deref(), Some("https://xx-nowhere-9.cloud.example"));
            assert_eq!(fleet.select, Select::Tags(tags.clone()));
            let schedule = fleet.schedule.as_ref().unwrap();
            assert_eq!(
                (schedule.expression.as_str(), schedule.timezone.iana_name()),
                ("0 30 2 * * 0", Some("Europe/Paris"))
            );
            assert!(matches!(&fleet.verify, Verify::Ssh(login) if login.user == "ops"), "{:?}", fleet.verify);
            assert_eq!(config.store, Path::new("/srv/re keyd/rekeyd.db"));
            assert_eq!(config.custody.keeper.directory(), Some(Path::new("/srv/re keyd/keys")));
            let missing = config.credentials(&|_| None).unwrap_err().to_string();
            assert!(missing.contains("$THE_ID is not set") && missing.contains("credential the-secret"), "{missing}");
            assert!(config.notes.is_empty(), "{:?}", config.notes);
            let least = Answers { provider, tags: None, schedule: None, login: None, ..Answers::default() };
            let config = read(&least);
            let (account, fleet) = (config.accounts.values().next().unwrap(), config.fleets.values().next().unwrap());
            assert_eq!((&fleet.select, fleet.schedule.is_none(), &fleet.verify), (&Select::All, true, &Verify::None));
            assert_eq!(account.endpoint(&fleet.region), None);
        }
    }

    #[test]
    fn no_secret_is_taken_for_the_name_of_a_place_and_none_is_repeated() {
        let check = |text: &str, expect: Option<Source>| match (Source::parse(text), expect) {
            (Ok(source), Some(expect)) => assert_eq!(source, expect),
            (Err(why), None) => assert!(!why.contains("wJalr") && why.contains("env:NAME"), "{why}"),
            (read, _) => panic!("{text}: {read:?}"),
        };
        check("env:TENCENTCLOUD_SECRET_ID", Some(Source::Env("TENCENTCLOUD_SECRET_ID".into())));
        check("credential:lh-secret", Some(Source::Credential("lh-secret".into())));
        check("file:/run/secret", Some(Source::File("/run/secret".into())));
        check("file:secret", None);
        check("env:wJalrXUtnFEMI7K7MDENG", None);
        check("wJalrXUtnFEMI", None);
        check("env:", None);
        check("", None);
    }

    #[test]
    fn a_scalar_is_quoted_where_yaml_could_read_something_else() {
        let check = |text: &str, expect: &str| assert_eq!(scalar(text), expect);
        check("ap-singapore", "ap-singapore");
        check("/var/lib/rekeyd", "/var/lib/rekeyd");
        check("sqlite:///var/lib/rekeyd.db", "sqlite:///var/lib/rekeyd.db");
        check("null", "\"null\"");
        check("On", "\"On\"");
        check("1.10", "\"1.10\"");
        check("a: b", "\"a: b\"");
        check("", "\"\"");
        check("a\"b\n", "\"a\\\"b\\n\"");
    }
}
