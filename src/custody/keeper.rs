//! Which keeper there is and where each key is with it, in words: what a person is told who asked for no secret. It opens
//! nothing, and holds nothing that is secret.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{ExecSettings, Settings, VaultSettings};
use crate::model::KeyPairName;

/// Who keeps the private halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A directory and its copies.
    Directory {
        /// Where.
        places: Settings,
        /// Whether new keys are encrypted with a passphrase.
        encrypts: bool,
    },
    /// A Vault or OpenBao server.
    Vault(VaultSettings),
    /// A program.
    Exec(ExecSettings),
}

impl Keeper {
    /// The directory, where there is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory { places, .. } => Some(&places.directory),
            Self::Vault(_) | Self::Exec(_) => None,
        }
    }

    /// All directories, copies too, where there are any.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let places = match self {
            Self::Directory { places, .. } => Some(places),
            Self::Vault(_) | Self::Exec(_) => None,
        };
        places
            .into_iter()
            .flat_map(|places| std::iter::once(&places.directory).chain(&places.copies))
            .map(PathBuf::as_path)
    }

    /// Where the private half of this name is: a path, if it is a file.
    pub fn whereabouts(&self, name: &KeyPairName) -> String {
        match self {
            Self::Directory { places, .. } => places.directory.join(name.as_str()).display().to_string(),
            Self::Vault(vault) => format!("{} {}/{}/{name}", vault.address, vault.mount, vault.path),
            Self::Exec(exec) => format!("{} get {name}", exec.command.join(" ")),
        }
    }

    /// How to get in with it, where `ssh -i` does not simply take the file.
    pub fn way_in(&self, name: &KeyPairName) -> Option<String> {
        match self {
            Self::Directory { encrypts: false, .. } => None,
            Self::Directory { encrypts: true, .. } => {
                Some("`ssh -i` asks for the passphrase of custody.encrypt".to_string())
            }
            Self::Vault(vault) => {
                let namespace = vault.namespace.as_ref().map(|name| format!(" -namespace={name}")).unwrap_or_default();
                Some(format!(
                    "`vault kv get -address={}{namespace} -mount={} -field=private_key {}/{name}` prints it",
                    vault.address, vault.mount, vault.path
                ))
            }
            Self::Exec(_) => Some("that command prints it".to_string()),
        }
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { places, .. } => write!(f, "{}", places.directory.display()),
            Self::Vault(vault) => write!(f, "{} {}/{}", vault.address, vault.mount, vault.path),
            Self::Exec(exec) => f.write_str(exec.command.first().map_or("", String::as_str)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Duration;

    #[test]
    fn each_keeper_says_where_a_key_is_and_how_to_get_in() {
        let check = |keeper: Keeper, at: &str, way_in: Option<&str>| {
            let name = KeyPairName::new("rk_1");
            assert_eq!((keeper.whereabouts(&name).as_str(), keeper.way_in(&name).as_deref()), (at, way_in));
        };
        let places = Settings { directory: "/k".into(), copies: vec!["/c".into()] };
        check(Keeper::Directory { places: places.clone(), encrypts: false }, "/k/rk_1", None);
        let asks = Some("`ssh -i` asks for the passphrase of custody.encrypt");
        check(Keeper::Directory { places, encrypts: true }, "/k/rk_1", asks);
        let vault = VaultSettings {
            address: "https://v:8200".to_string(),
            mount: "secret".to_string(),
            path: "ssh/rekeyd".to_string(),
            namespace: Some("ops".to_string()),
        };
        check(
            Keeper::Vault(vault),
            "https://v:8200 secret/ssh/rekeyd/rk_1",
            Some(
                "`vault kv get -address=https://v:8200 -namespace=ops -mount=secret -field=private_key ssh/rekeyd/rk_1` \
                 prints it",
            ),
        );
        let exec = ExecSettings { command: vec!["/bin/keep".to_string(), "-q".to_string()], timeout: Duration::ZERO };
        check(Keeper::Exec(exec), "/bin/keep -q get rk_1", Some("that command prints it"));
    }
}
