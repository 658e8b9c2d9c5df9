//! The config file → checked settings. Unknown keys are refused, and whatever is wrong is said at once, each with its
//! line, its rule and the way on. [`load`] needs no secret; [`Account::credentials`] fetches them.
//!
//! This is the only room that asks the environment, and it does so through an argument. It must never print a secret,
//! nor a line of the file where one may have been pasted. No other room reads this one but the composition root.

mod access;
mod account;
mod care;
mod custody;
mod deliver;
mod fields;
mod fleet;
mod power;
mod report;
mod schedule;
mod secret;
mod tree;
mod verify;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

pub use account::{Account, Credentials};
pub use custody::{Custody, CustodySecrets};
pub use fleet::{CatchUp, Fleet, Rollout};
pub use report::Remark;
pub use schedule::Schedule;
pub use secret::{Env, Secret, looks_like_a_name, process_env};

use crate::model::{AccountName, Duration, FleetName, Mark, ProviderKind};
use fields::{Field, Group, Quote, parse_name};
use report::Report;
use tree::Value;

/// The largest config file that is read: ten thousand fleets fit in it several times.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// A file's settings, all of them checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The SQLite database, an absolute path.
    pub store: PathBuf,
    /// Where the daemon serves /metrics, /healthz and /readyz. Default 127.0.0.1:9797.
    pub listen: SocketAddr,
    /// The mark in key-pair names, where the file says it.
    pub installation: Option<Mark>,
    /// Where private halves are kept.
    pub custody: Custody,
    /// The accounts by name; never empty.
    pub accounts: BTreeMap<AccountName, Account>,
    /// The fleets by name; never empty. Each one's account is among `accounts`.
    pub fleets: BTreeMap<FleetName, Fleet>,
    /// What the file's writer should know, in the file's order; `check` prints it.
    pub notes: Vec<Remark>,
}

/// What this room must know of a cloud.
#[derive(Clone, Copy, Debug)]
pub struct Cloud {
    /// Instances a bind: caps `batch_max`.
    pub bind_max: usize,
    /// Key pairs that an account may have in a region by the cloud's pages, where they say so.
    pub key_pairs_max: Option<usize>,
    /// Whether a rotation stops machines there that a stop could hurt: else `power: allow` has no effect.
    pub endangers: bool,
    /// From a batch's first call until all of it is back, when all goes well: no window is shorter.
    pub batch_time: Duration,
    /// The actions whose rate can be set under `rates`. Empty: any name is taken.
    pub actions: &'static [&'static str],
}

/// Everything that is wrong with a file. It prints one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// In the file's order; never empty.
    pub problems: Vec<Remark>,
}

fn lines(problems: &[Remark]) -> String {
    problems.iter().map(Remark::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Fetches the secrets of every account that has some. The error names all that cannot be read.
    pub fn credentials(&self, env: Env<'_>) -> Result<BTreeMap<AccountName, Credentials>, ConfigError> {
        let (mut read, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, account) in &self.accounts {
            match account.credentials(env) {
                Ok(credentials) => read.extend(credentials.map(|credentials| (name.clone(), credentials))),
                Err(error) => problems.extend(error.problems),
            }
        }
        problems.sort_by_key(|remark| remark.line);
        if problems.is_empty() { Ok(read) } else { Err(ConfigError { problems }) }
    }
}

/// Reads a config file; see [`load`].
pub fn read(path: &Path, clouds: &dyn Fn(ProviderKind) -> Cloud) -> Result<Config, ConfigError> {
    use std::io::Read;
    let failed = |why: String| {
        let mut report = Report::new(path);
        report.broken(0, 0, why);
        ConfigError { problems: report.into_parts().0 }
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(format!("cannot be read: {error}; name the file with --config FILE")))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failed(format!("is larger than {FILE_MAX} bytes; that is no config file")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("is not UTF-8 text".into()))?;
    load(&text, path, clouds)
}

/// Reads and checks the text of a config file. `path` is only for messages; nothing on this machine is looked at
/// except the time zone database.
pub fn load(text: &str, path: &Path, clouds: &dyn Fn(ProviderKind) -> Cloud) -> Result<Config, ConfigError> {
    let mut report = Report::new(path);
    let config = match tree::parse(text) {
        Ok(root) => read_root(&mut report, &Field::root(&root), path, clouds),
        Err(broken) => {
            report.broken(broken.line, broken.column, broken.why);
            None
        }
    };
    let (problems, notes) = report.into_parts();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { notes, ..config }),
        _ => Err(ConfigError { problems }),
    }
}

fn read_root(
    report: &mut Report,
    root: &Field<'_>,
    path: &Path,
    clouds: &dyn Fn(ProviderKind) -> Cloud,
) -> Option<Config> {
    if matches!(root.node.value, Value::Null) {
        report.problem(&root.at, "the file is empty; it takes at least store, custody, accounts and fleets");
        return None;
    }
    let keys = ["store", "listen", "installation", "custody", "accounts", "defaults", "fleets"];
    let group = Group::open(report, root, &keys, Quote::Keys);
    let store = group
        .need(report, "store", "write sqlite:///var/lib/rekeyd/rekeyd.db")
        .and_then(|field| field.parse(report, parse_store));
    let listen = read_listen(report, &group);
    let installation = group.parse(report, "installation", |text| Mark::try_from(text.to_string()));
    let custody = Custody::read(report, &group, store.as_deref(), path);

    let accounts = named(report, &group, "accounts", "at least one account")
        .into_iter()
        .map(|(name, field)| (name, Account::read(report, &field, path, clouds)))
        .collect::<Vec<_>>();

    let defaults = group.get("defaults");
    if let Some(defaults) = &defaults {
        let base = Group::open(report, defaults, &fleet::KEYS, Quote::Keys);
        for key in ["tags", "all_instances"] {
            if let Some(field) = base.get(key) {
                report.problem(&field.at, "says which machines a fleet has; it stands in each fleet itself");
            }
        }
    }
    let mut fleets = Vec::new();
    for (name, field) in named(report, &group, "fleets", "at least one fleet") {
        if let Some(fleet) = Fleet::read(report, &field, defaults.as_ref(), &accounts, clouds) {
            fleets.push((name, fleet));
        }
    }
    fleet::check_overlap(report, &fleets, &accounts);
    fleet::note_key_pairs(report, &fleets, &accounts, clouds);
    deliver::check_shared(report, &fleets);
    let ours = custody.iter().flat_map(|custody| custody.keeper.directories());
    deliver::check_ours(report, &fleets, &ours.chain(store.as_deref()).collect::<Vec<_>>());
    for (name, _) in &accounts {
        if let Some(field) =
            group.get("accounts").filter(|_| fleets.iter().all(|(_, placed)| placed.fleet.account.as_str() != *name))
        {
            let entry = field.entries(report).into_iter().find(|(have, _)| have == name);
            if let Some((_, field)) = entry {
                report.note(&field.at, "is not used by any fleet");
            }
        }
    }
    Some(Config {
        store: store?,
        listen,
        installation,
        custody: custody?,
        accounts: accounts.into_iter().filter_map(|(name, account)| Some((AccountName::new(name), account?))).collect(),
        fleets: fleets.into_iter().map(|(name, placed)| (FleetName::new(name), placed.fleet)).collect(),
        notes: Vec::new(),
    })
}

/// The entries of `accounts` or `fleets`, their names checked.
fn named<'a>(report: &mut Report, group: &Group<'a>, key: &str, least: &str) -> Vec<(&'a str, Field<'a>)> {
    let Some(field) = group.need(report, key, &format!("write {least}")) else {
        return Vec::new();
    };
    if matches!(&field.node.value, Value::Map(entries) if entries.is_empty()) || matches!(field.node.value, Value::Null)
    {
        report.problem(&field.at, format!("is empty; write {least}"));
        return Vec::new();
    }
    let entries = field.entries(report);
    for (name, entry) in &entries {
        if let Err(why) = parse_name(name) {
            report.problem(&entry.at, why);
        }
    }
    entries
}

fn read_listen(report: &mut Report, group: &Group<'_>) -> SocketAddr {
    let listen = group.parse(report, "listen", |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| format!("{text:?} is no address and port, as in 127.0.0.1:9797 or [::1]:9797"))
    });
    if let (Some(listen), Some(field)) = (listen, group.get("listen"))
        && !listen.ip().is_loopback()
    {
        report.note(&field.at, "is not loopback: its pages ask for no password; let a firewall say who reaches them");
    }
    listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 9797)))
}

/// The store's path. The text is not repeated: other databases' URLs hold passwords.
fn parse_store(text: &str) -> Result<PathBuf, String> {
    let Some(path) = text.strip_prefix("sqlite://") else {
        return Err("is no SQLite store; write sqlite:///var/lib/rekeyd/rekeyd.db".into());
    };
    if path.contains(['?', '#', '%']) || path.ends_with('/') {
        return Err("takes a path and nothing behind it: sqlite:///var/lib/rekeyd/rekeyd.db".into());
    }
    parse_directory(path)
        .map_err(|_| "takes an absolute path: sqlite:///var/lib/rekeyd/rekeyd.db, three slashes".into())
}

/// An absolute path without `..`: what a service's working directory is nobody knows.
fn parse_directory(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || path.components().count() < 2 {
        return Err(format!("{text:?} is no absolute path to a place of its own, as in /var/lib/rekeyd/keys"));
    }
    if path.components().any(|part| part == Component::ParentDir) || text.contains('\0') {
        return Err(format!("{text:?} holds \"..\"; write where it leads"));
    }
    // Without doubled and trailing slashes, so that equal places are equal paths.
    Ok(path.components().collect())
}

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
