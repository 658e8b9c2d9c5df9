//! Secrets that only systemd hands over. A verb that would miss one in a shell is refused with the command that gives it the
//! same credentials as the unit has. It must never read a secret, nor show what stands in a unit but where one lies.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::config::{Config, Env, looks_like_a_name};
use crate::engine::planner::Fleet;
use crate::model::AccountName;
use crate::rotation::{SshLogin, Verify};
use crate::ssh::credential_name;

use super::{CONFIG, Scene, owner};

/// Where systemd looks for units, the first one first (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What a verb is about to read, as far as it is systemd's.
pub(super) struct Wanted<'a> {
    config: &'a Config,
    names: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Nothing yet of this file.
    pub(super) fn of(config: &'a Config) -> Self {
        Self { config, names: BTreeSet::new() }
    }

    /// And the secrets of an account; one that is gone from the file has none.
    pub(super) fn account(mut self, name: &AccountName) -> Self {
        let account = self.config.accounts.get(name);
        self.names.extend(account.into_iter().flat_map(|account| account.systemd_credentials()));
        self
    }

    /// And the key of the jump host, where these logins go through one.
    pub(super) fn logins(mut self, verify: &'a Verify) -> Self {
        if let Verify::Ssh(SshLogin { jump: Some(jump), .. }) = verify {
            self.names.extend(credential_name(&jump.key_file).filter(|name| looks_like_a_name(name)));
        }
        self
    }

    /// And what the machines of these fleets are reached with, by the cloud and by logins.
    pub(super) fn fleets(self, fleets: impl IntoIterator<Item = &'a Fleet>) -> Self {
        fleets.into_iter().fold(self, |wanted, fleet| wanted.account(&fleet.place.account).logins(&fleet.verify))
    }

    /// And what opens custody.
    pub(super) fn custody(mut self) -> Self {
        self.names.extend(self.config.custody.systemd_credentials());
        self
    }
}

/// Where systemd hands this process its credentials.
pub(super) fn directory(env: Env<'_>) -> Option<PathBuf> {
    env("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Refuses a verb that would miss a credential.
pub(super) fn at_hand(scene: &Scene, wanted: Wanted<'_>) -> Result<()> {
    match way(scene, wanted) {
        Some(way) => bail!(
            "what is needed here are credentials that systemd hands to its units, and $CREDENTIALS_DIRECTORY is not set; this \
             gives them to the command, too:\n\n  {way}\n"
        ),
        None => Ok(()),
    }
}

/// The command that gives this verb the credentials that it wants; `None` where none is missed.
pub(super) fn way(scene: &Scene, wanted: Wanted<'_>) -> Option<String> {
    if directory(&*scene.env).is_some() || wanted.names.is_empty() {
        return None;
    }
    // Most verbs open custody, too, and to the others it does no harm.
    let Wanted { config, names } = wanted.custody();
    let unit = UNITS.map(|folder| unit_in(Path::new(folder))).concat();
    let user = owner::account(config.custody.keeper.directory().unwrap_or(&config.store));
    Some(command(scene, &user, &properties(&unit, &names)))
}

/// The text of our unit and its drop-ins, as far as they lie in this folder and can be read.
fn unit_in(folder: &Path) -> String {
    let drop_ins = std::fs::read_dir(folder.join("rekeyd.service.d")).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        drop_ins.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    paths.sort();
    paths.insert(0, folder.join("rekeyd.service"));
    paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).map(|text| text + "\n").collect()
}

/// What a unit must have to be handed these credentials, as ours has it; what it does not tell lies where systemd keeps
/// credentials. Its environment files are taken along: the other half of a pair may come from there.
fn properties(unit: &str, names: &BTreeSet<&str>) -> Vec<String> {
    let lines: Vec<&str> = unit.lines().map(str::trim).collect();
    let loads = |line: &&&str, name: &str| {
        let source = ["LoadCredential=", "LoadCredentialEncrypted="].iter().find_map(|key| line.strip_prefix(key));
        source.is_some_and(|source| source.split(':').next() == Some(name))
    };
    let load = |name: &&str| {
        let line = lines.iter().find(|line| loads(line, name)).map(ToString::to_string);
        line.unwrap_or_else(|| format!("LoadCredential={name}:/etc/credstore/{name}"))
    };
    let files = lines.iter().filter(|line| line.strip_prefix("EnvironmentFile=").is_some_and(|file| !file.is_empty()));
    names.iter().map(load).chain(files.map(ToString::to_string)).collect()
}

fn command(scene: &Scene, user: &str, properties: &[String]) -> String {
    let mut words = vec!["sudo".to_string(), "systemd-run".into(), "--pty".into(), "--collect".into()];
    words.push(format!("--uid={user}"));
    words.extend(properties.iter().flat_map(|property| ["-p".to_string(), property.clone()]));
    // A unit's working directory is another one.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string();
    let program = if scene.program.contains('/') { absolute(Path::new(&scene.program)) } else { scene.program.clone() };
    words.push(program);
    if scene.config != Path::new(CONFIG) {
        words.extend(["--config".to_string(), absolute(&scene.config)]);
    }
    let mut arguments = scene.arguments.iter();
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--config" => drop(arguments.next()),
            word if word.starts_with("--config=") => {}
            word => words.push(word.to_string()),
        }
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::output::Output;

    #[test]
    fn credentials_come_from_where_the_unit_has_them_or_from_where_systemd_keeps_them() {
        let check = |unit: &str, expect: &[&str]| assert_eq!(properties(unit, &["id", "key"].into()), expect);
        let (id, key) = ("LoadCredential=id:/etc/credstore/id", "LoadCredential=key:/etc/credstore/key");
        check("", &[id, key]);
        check("LoadCredential=other:/x\n#LoadCredential=id:/x\nSetCredential=id:topsecret", &[id, key]);
        check("[Service]\n  LoadCredentialEncrypted=key:/a/key \n", &[id, "LoadCredentialEncrypted=key:/a/key"]);
        check(
            "LoadCredential=id\nEnvironmentFile=-/e\nEnvironmentFile=\n",
            &["LoadCredential=id", key, "EnvironmentFile=-/e"],
        );
    }

    #[test]
    fn the_command_runs_as_typed_from_anywhere() {
        let check = |program: &str, config: &str, arguments: &[&str], expect: &str| {
            let scene = Scene {
                program: program.into(),
                arguments: arguments.iter().map(ToString::to_string).collect(),
                config: config.into(),
                env: Arc::new(|_| None),
                out: Output::to_stdout(&|_| None),
            };
            assert_eq!(command(&scene, "rekeyd", &["LoadCredential=id:/a b".into()]), expect);
        };
        let head = "sudo systemd-run --pty --collect --uid=rekeyd -p 'LoadCredential=id:/a b'";
        check("rekeyd", CONFIG, &["plan", "web"], &format!("{head} rekeyd plan web"));
        check("/opt/rekeyd", CONFIG, &["--config", CONFIG, "drift"], &format!("{head} /opt/rekeyd drift"));
        check(
            "rekeyd",
            "/x.yaml",
            &["plan", "--config=/x.yaml", "it's"],
            &format!("{head} rekeyd --config /x.yaml plan 'it'\\''s'"),
        );
        let here = std::path::absolute("x.yaml").unwrap().display().to_string();
        check("rekeyd", "x.yaml", &["check"], &format!("{head} rekeyd --config {} check", quoted(&here)));
    }
}
