//! From the config file's `custody` to a custodian: secrets fetched, the keeper opened. It decides nothing, and keeps no
//! secret but in what it opens.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::{Config, ConfigError};
use crate::custody::{Custodian, CustodyError, Directory, Exec, Fetch, Keeper, Settings, Vault};
use crate::net::{Network, NetworkError};
use crate::program::PATH;

use super::SharedEnv;

/// What a keeper's program finds in its environment, where this process has it; PATH it always has.
const HANDED_ON: [&str; 3] = ["HOME", "LANG", "CREDENTIALS_DIRECTORY"];

/// Why there is no custodian.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// Its secrets cannot be read.
    #[error(transparent)]
    Secrets(#[from] ConfigError),
    /// The certificates that are to be trusted cannot be read.
    #[error("custody.vault.ca {file}: {problem}")]
    Certificates {
        /// The file.
        file: PathBuf,
        /// Why not.
        problem: String,
    },
    /// No HTTP client.
    #[error("the network")]
    Network(#[from] NetworkError),
    /// The keeper will not do.
    #[error("custody")]
    Custody(#[from] CustodyError),
}

impl KeepingError {
    /// The same, of a custodian that was there to be opened later.
    pub(super) fn into_custody(self) -> CustodyError {
        match self {
            Self::Custody(error) => error,
            other => CustodyError::Failed { place: "custody".to_string(), problem: other.to_string() },
        }
    }
}

/// The network as this file's Vault is reached by. Sends nothing.
pub fn network(config: &Config) -> Result<Network, KeepingError> {
    let Some(file) = &config.custody.ca else { return Ok(Network::new()?) };
    let wrong = |problem: String| KeepingError::Certificates { file: file.clone(), problem };
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    Network::trusting(&pem).map_err(|error| wrong(error.to_string()))
}

/// Opens the custodian of a config file. A directory is made if it is not there; a Vault is logged in to.
pub async fn custodian(config: &Arc<Config>, env: &SharedEnv) -> Result<Arc<dyn Custodian>, KeepingError> {
    match &config.custody.keeper {
        Keeper::Directory { places, .. } => Ok(Arc::new(directory(config, places, env).await?)),
        Keeper::Vault(vault) => {
            // Read here once, so that what is wrong is said with its line.
            config.custody.secrets(&**env)?;
            let (config_of, env) = (Arc::clone(config), Arc::clone(env));
            let fetch: Fetch = Arc::new(move || {
                let read = config_of.custody.secrets(&*env).map_err(|error| error.to_string())?;
                read.login.ok_or_else(|| "the config file names no login".to_string())
            });
            let network = Arc::new(network(config)?);
            Ok(Arc::new(Vault::custodian(vault.clone(), fetch, network, Arc::new(SystemClock)).await?))
        }
        Keeper::Exec(exec) => {
            let handed_on = HANDED_ON.into_iter().filter_map(|name| Some((name, env(name)?)));
            let path: (&'static str, OsString) = ("PATH", env("PATH").unwrap_or_else(|| PATH.into()));
            let environment = std::iter::once(path).chain(handed_on).collect();
            Ok(Arc::new(Exec::custodian(exec.clone(), environment, Arc::new(SystemClock))))
        }
    }
}

/// Opens these directories as the file has them: with a passphrase, if it names one.
pub async fn directory(config: &Config, places: &Settings, env: &SharedEnv) -> Result<Directory, KeepingError> {
    Ok(match config.custody.secrets(&**env)?.passphrase {
        Some(passphrase) => Directory::sealed(places.clone(), passphrase).await?,
        None => Directory::open(places.clone()).await?,
    })
}
