//! From the accounts of the config file to the credentials that their clouds are asked with: one keyring an account, so
//! that its regions share what a role gave. It decides nothing, and keeps no secret but in a keyring.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::ExposeSecret;

use crate::clock::SystemClock;
use crate::config::Account;
use crate::model::AccountName;
use crate::net::Transport;
use crate::provider::{Credentials, Keyring};

use super::SharedEnv;

/// The keyrings of the accounts that were asked for.
#[derive(Default)]
pub(super) struct Keyrings(Mutex<BTreeMap<AccountName, Keyring>>);

impl Keyrings {
    /// The keyring of an account: the one that was made before, as long as its credentials come from the same place.
    pub(super) fn of(
        &self,
        name: &AccountName,
        account: &Account,
        env: &SharedEnv,
        metadata: Arc<dyn Transport>,
    ) -> Keyring {
        let made = match account.role() {
            Some(role) => Keyring::role(role.clone(), metadata, Arc::new(SystemClock)),
            None => {
                let (sources, account, env) = (account.sources(), account.clone(), Arc::clone(env));
                Keyring::read(sources, Arc::new(move || read(&account, &env)))
            }
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name).filter(|known| known.is_same(&made)) {
            Some(known) => known.clone(),
            None => {
                known.insert(name.clone(), made.clone());
                made
            }
        }
    }
}

fn read(account: &Account, env: &SharedEnv) -> Result<Credentials, String> {
    let read = account.credentials(&**env).map_err(|error| error.to_string())?;
    let read = read.ok_or_else(|| "the account names no secrets".to_string())?;
    Ok(Credentials {
        access_key_id: read.access_key_id.expose_secret().to_string(),
        access_key_secret: read.access_key_secret,
        session_token: read.session_token,
    })
}
