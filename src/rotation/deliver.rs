//! Where the private half of a fleet's key goes besides custody, and when: once the key is proven, before the one that it
//! replaces is retired. Pure. A delivery that was cut off by a crash is made again: at least once, never exactly once; each is
//! such that a second one does no harm, and a program must be.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::InstanceId;

use super::hook::HookCommand;
use super::member::Member;
use super::plan::{KeySource, Verify};
use super::state::Rotation;

/// One delivery of a fleet's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// A program reads the private half on its standard input.
    Exec(HookCommand),
    /// The private half, in a file of its own.
    Copy(File),
    /// Part of an `ssh_config`: a host for each machine.
    SshConfig(SshConfig),
}

/// A file that is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Where. Its folder is there already.
    pub to: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Its user and group, `user` or `user:group`, by name or number; `None`: whoever rekeyd runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Part of an `ssh_config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshConfig {
    /// The file.
    pub file: File,
    /// The file of the private half, as its readers find it.
    pub identity_file: PathBuf,
}

impl Delivery {
    /// Where to, in a few words.
    pub fn to(&self) -> String {
        match self {
            Self::Exec(HookCommand { command, .. }) => command.first().cloned().unwrap_or_default(),
            Self::Copy(File { to, .. }) | Self::SshConfig(SshConfig { file: File { to, .. }, .. }) => {
                to.display().to_string()
            }
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Exec(_) => "exec",
            Self::Copy(_) => "copy",
            Self::SshConfig(_) => "ssh_config",
        };
        write!(f, "{what} {}", self.to())
    }
}

/// A machine as an `ssh_config` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub instance: InstanceId,
    /// Its name in the cloud; may be empty, or anything.
    pub name: String,
    /// Where it is logged in to.
    pub address: String,
}

/// The text of an `ssh_config` of these machines, which log in as the plan's `verify` says.
pub fn ssh_config(fleet: &str, hosts: &[Host], verify: &Verify, identity_file: &std::path::Path) -> String {
    let mut text = format!("# The machines of fleet {fleet}. Written by rekeyd at each rotation: changes are lost.\n");
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    let is_single = |name: &str| names.iter().filter(|other| **other == name).count() == 1;
    for Host { instance, name, address } in hosts {
        let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if address.is_empty() || address.starts_with('-') || !address.chars().all(legal) {
            text += &format!("\n# {instance} is left out: its address is neither a name nor a number\n");
            continue;
        }
        // A pattern, or a name that two machines have, would speak of others too.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let known = !name.is_empty() && name.chars().all(plain) && !name.starts_with('-') && is_single(name);
        let name = if known { format!(" {name}") } else { String::new() };
        text += &format!("\nHost {instance}{name}\n    HostName {address}\n    IdentitiesOnly yes\n");
        text += &format!("    IdentityFile \"{}\"\n", identity_file.display());
        if let Verify::Ssh(login) = verify {
            text += &format!("    User {}\n    Port {}\n", login.user, login.port);
            if let Some(jump) = &login.jump {
                let host = if jump.host.contains(':') { format!("[{}]", jump.host) } else { jump.host.clone() };
                text += &format!("    ProxyJump {}@{host}:{}\n", jump.user, jump.port);
            }
        }
    }
    text
}

impl Rotation {
    /// The number of the delivery that is to be made now: everybody is done, somebody accepts the key, and the private half is
    /// ours.
    pub fn to_deliver(&self) -> Option<u32> {
        let ours = match &self.plan.key {
            KeySource::Generate | KeySource::Existing { .. } => true,
            // Nobody here has it, or it was recorded and not changed.
            KeySource::Stranger { .. } | KeySource::Adopted { .. } => false,
        };
        let first = (0..self.plan.policy.deliver.len() as u32).find(|number| !self.delivered.contains(number))?;
        (ours && self.current >= self.batches.len() && self.members.values().any(|member| self.accepts(member)))
            .then_some(first)
    }

    /// Whether a machine accepts the key, as far as the plan wants that proven. A key that nobody takes would only replace one
    /// that somebody does.
    fn accepts(&self, member: &Member) -> bool {
        let proven = member.proof.is_some() || !self.plan.can_prove() && member.active;
        proven && !member.gone && member.excluded.is_none()
    }

    /// What was delivered.
    pub fn delivered(&self) -> &BTreeSet<u32> {
        &self.delivered
    }
}
