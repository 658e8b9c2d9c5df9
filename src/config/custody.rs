//! `custody` of the file: who keeps the private halves, and where the secrets that this takes come from. Reading it needs no
//! secret; [`Custody::secrets`] fetches them.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::fields::{Field, Group, Quote};
use super::report::{At, Remark, Report};
use super::secret::{Env, Kind, Secret};
use super::{ConfigError, parse_directory};
use crate::custody::{ExecSettings, Keeper, Login, Settings, VaultSettings};
use crate::model::{Duration, parse_duration, show_duration};
use crate::net::Origin;

/// Where private halves are kept.
#[derive(Clone, Debug)]
pub struct Custody {
    /// By whom, and where.
    pub keeper: Keeper,
    /// The certificates (PEM) that a Vault's own must be signed by; `None`: the system's.
    pub ca: Option<PathBuf>,
    key: Key,
    file: PathBuf,
}

/// What opens it.
#[derive(Clone, Debug)]
enum Key {
    None,
    Passphrase(Secret),
    Token(Secret),
    AppRole { role_id: Secret, secret_id: Secret },
}

/// The secrets of custody, read.
#[derive(Default)]
pub struct CustodySecrets {
    /// What key files are encrypted with.
    pub passphrase: Option<SecretString>,
    /// As whom to come to Vault.
    pub login: Option<Login>,
    /// What their keeper should know: a file that others can read.
    pub warnings: Vec<Remark>,
}

/// The same keeper, opened with secrets of the same origin; on which line of the file that stands is nothing to it.
impl PartialEq for Custody {
    fn eq(&self, other: &Self) -> bool {
        let kind = |key: &Key| std::mem::discriminant(key);
        let sources =
            |custody: &Self| custody.key.secrets().iter().map(|secret| secret.source.clone()).collect::<Vec<_>>();
        self.keeper == other.keeper
            && self.ca == other.ca
            && kind(&self.key) == kind(&other.key)
            && sources(self) == sources(other)
    }
}

impl Key {
    fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::None => Vec::new(),
            Self::Passphrase(secret) | Self::Token(secret) => vec![secret],
            Self::AppRole { role_id, secret_id } => vec![role_id, secret_id],
        }
    }
}

impl Custody {
    /// The names of the systemd credentials that open it.
    pub fn systemd_credentials(&self) -> Vec<&str> {
        self.key.secrets().into_iter().filter_map(Secret::credential).collect()
    }

    /// Fetches the secrets. The error names every one that cannot be read, with its line.
    pub fn secrets(&self, env: Env<'_>) -> Result<CustodySecrets, ConfigError> {
        let mut report = Report::new(&self.file);
        let mut fetch = |secret: &Secret, kind: Kind| match secret.fetch_as(kind, env) {
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
        let mut read = CustodySecrets::default();
        match &self.key {
            Key::None => {}
            Key::Passphrase(secret) => read.passphrase = fetch(secret, Kind::Phrase),
            Key::Token(secret) => read.login = fetch(secret, Kind::Word).map(Login::Token),
            Key::AppRole { role_id, secret_id } => {
                let ids = (fetch(role_id, Kind::Word), fetch(secret_id, Kind::Word));
                if let (Some(role_id), Some(secret_id)) = ids {
                    read.login = Some(Login::AppRole { role_id, secret_id });
                }
            }
        }
        let (problems, warnings) = report.into_parts();
        if problems.is_empty() { Ok(CustodySecrets { warnings, ..read }) } else { Err(ConfigError { problems }) }
    }

    /// Reads `custody`.
    pub(super) fn read(report: &mut Report, root: &Group<'_>, store: Option<&Path>, file: &Path) -> Option<Self> {
        let why = "private keys need a place: write custody: { directory: /var/lib/rekeyd/keys }";
        let field = root.need(report, "custody", why)?;
        let custody = Group::open(report, &field, &["directory", "copies", "encrypt", "vault", "exec"], Quote::Keys);
        let ways: Vec<(&str, Field<'_>)> =
            ["directory", "vault", "exec"].into_iter().filter_map(|way| Some((way, custody.get(way)?))).collect();
        if let [(first, _), rest @ ..] = ways.as_slice() {
            for (other, field) in rest {
                let why = format!("there is one custody: {first} or {other}; take one of them away");
                report.problem(&field.at, why);
            }
        }
        let way = ways.first().map(|(way, field)| (*way, field));
        if let Some((way @ ("vault" | "exec"), _)) = way {
            for key in ["copies", "encrypt"] {
                if let Some(field) = custody.get(key) {
                    report.problem(&field.at, format!("goes with custody.directory, and here is custody.{way}"));
                }
            }
        }
        let made = |keeper, ca, key| Some(Self { keeper, ca, key, file: file.to_path_buf() });
        match way {
            Some(("vault", field)) => {
                let (vault, ca, key) = read_vault(report, field)?;
                made(Keeper::Vault(vault), ca, key)
            }
            Some(("exec", field)) => made(Keeper::Exec(read_exec(report, field)?), None, Key::None),
            _ => {
                let places = read_places(report, &custody, store, why);
                let key = match custody.get("encrypt") {
                    Some(field) => Key::Passphrase(read_passphrase(report, &field)?),
                    None => Key::None,
                };
                let encrypts = matches!(key, Key::Passphrase(_));
                made(Keeper::Directory { places: places?, encrypts }, None, key)
            }
        }
    }
}

fn read_places(report: &mut Report, custody: &Group<'_>, store: Option<&Path>, why: &str) -> Option<Settings> {
    let directory = custody.need(report, "directory", why);
    let directory_at = directory.as_ref().map(|field| field.at.clone());
    let directory = directory.and_then(|field| field.parse(report, parse_directory));
    let mut places: Vec<(At, PathBuf)> = directory_at.zip(directory.clone()).into_iter().collect();
    for field in custody.get("copies").map(|field| field.list(report)).unwrap_or_default() {
        let Some(copy) = field.parse(report, parse_directory) else { continue };
        if let Some((at, _)) = places.iter().find(|(_, place)| copy.starts_with(place) || place.starts_with(&copy)) {
            report.problem(
                &field.at,
                format!("is the same place as {}, or one lies within the other; a copy needs its own", at.path),
            );
        }
        places.push((field.at.clone(), copy));
    }
    if let Some(store) = store {
        for (at, _) in places.iter().filter(|(_, place)| store.starts_with(place)) {
            report.problem(at, "holds the store too; private keys need a directory of their own");
        }
    }
    let copies = places.into_iter().map(|(_, place)| place).skip(1).collect();
    Some(Settings { directory: directory?, copies })
}

fn read_passphrase(report: &mut Report, field: &Field<'_>) -> Option<Secret> {
    let encrypt = Group::open(report, field, &["passphrase"], Quote::Nothing);
    let passphrase =
        encrypt.need(report, "passphrase", "write { credential: NAME }, { file: /PATH } or { env: NAME }")?;
    Secret::read(report, &passphrase)
}

fn read_vault(report: &mut Report, field: &Field<'_>) -> Option<(VaultSettings, Option<PathBuf>, Key)> {
    let keys = ["address", "mount", "path", "namespace", "token", "role_id", "secret_id", "ca"];
    let vault = Group::open(report, field, &keys, Quote::Nothing);
    let mut need = |key, why: &str, read: fn(&str) -> Result<String, String>| {
        vault.need(report, key, why).and_then(|field| field.parse(report, read))
    };
    let address = need("address", "write https://HOST:8200", parse_address);
    let mount = need("mount", "write where the KV engine of version 2 is mounted, as in secret", parse_path);
    let path = need("path", "write a folder of rekeyd's own in it, as in rekeyd", parse_path);
    let namespace = vault.get("namespace").map(|field| field.parse(report, parse_path));
    let ca = vault.get("ca").map(|field| field.parse(report, parse_directory));
    let mut secret = |key: &str| vault.get(key).map(|field| Secret::read(report, &field));
    let (token, role_id, secret_id) = (secret("token"), secret("role_id"), secret("secret_id"));
    let key = match (token, role_id, secret_id) {
        (Some(token), None, None) => Key::Token(token?),
        (None, Some(role_id), Some(secret_id)) => Key::AppRole { role_id: role_id?, secret_id: secret_id? },
        _ => {
            report.problem(&vault.at, "takes either token, or role_id and secret_id (AppRole)");
            return None;
        }
    };
    // What is there and wrong was reported.
    let namespace = match namespace {
        Some(namespace) => Some(namespace?),
        None => None,
    };
    let ca = match ca {
        Some(ca) => Some(ca?),
        None => None,
    };
    Some((VaultSettings { address: address?, mount: mount?, path: path?, namespace }, ca, key))
}

/// Scheme, host and port. A refused one is shown without its user.
fn parse_address(text: &str) -> Result<String, String> {
    Origin::parse(text).map(|origin| origin.to_string()).map_err(|error| error.to_string())
}

/// A path within Vault: its parts go into URLs as they are.
fn parse_path(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let bare = text.trim_matches('/');
    match bare.split('/').all(|part| !part.is_empty() && part.chars().all(legal) && part.chars().any(|c| c != '.')) {
        true => Ok(bare.to_string()),
        false => Err("is no path in Vault: words of letters, digits, _ - and ., with / between them".to_string()),
    }
}

/// The longest that a keeper may take: a turn of the engine waits for it.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

fn read_exec(report: &mut Report, field: &Field<'_>) -> Option<ExecSettings> {
    let exec = Group::open(report, field, &["command", "timeout"], Quote::Keys);
    let why = "write the program and its first arguments as a list: [/usr/local/bin/keep-key]";
    let command = exec.need(report, "command", why)?;
    let mut words = Vec::new();
    for word in command.list(report) {
        words.push(word.text(report)?.to_string());
    }
    match words.first() {
        Some(program) if program.starts_with('/') && !program.contains('\0') => {}
        Some(_) => report.problem(&command.at, "begins with no absolute path to a program"),
        None => report.problem(&command.at, "names no program"),
    }
    let timeout = exec.parse(report, "timeout", |text| {
        let timeout = parse_duration(text)?;
        match (Duration::from_secs(1)..=TIMEOUT_MAX).contains(&timeout) {
            true => Ok(timeout),
            false => Err(format!("{text} is no time for a keeper: 1s to {}", show_duration(TIMEOUT_MAX))),
        }
    });
    Some(ExecSettings { command: words, timeout: timeout.unwrap_or(Duration::from_secs(30)) })
}
