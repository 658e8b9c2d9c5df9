//! The composition root: from a checked config file to what the engine works with. It puts rooms together and decides
//! nothing; it must never drive two engines over one store, nor begin anew beside a custody whose journals are lost.

mod doing;
mod driver;
mod filled;
mod history;
pub mod keeping;
mod keyrings;
mod life;
mod notice;
mod reload;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock::SystemClock;
use crate::config::{Account, Config};
use crate::custody::{self, Custodian};
use crate::engine::{Accounts, NoProvider, Observer, Surroundings, Tools};
use crate::files::Disk;
use crate::hook::Programs;
use crate::model::{AccountName, Mark, Region};
use crate::net::{Network, NetworkError};
use crate::provider::{self, Deaf, Keyring, Provider, Witness};
use crate::rotation::{Author, Place};
use crate::ssh::{RsaKeyMaker, SshProbe};
use crate::store::{self, Journal};

use keyrings::Keyrings;

use driver::fresh_mark;
pub use driver::{Driver, StartError};
pub use filled::{cloud, fleet, fleets, place};
pub use keeping::KeepingError;
pub use life::{Daemon, DaemonError};
pub use reload::{Reload, ReloadError};

/// How environment variables are looked up, kept for as long as clouds may have to be opened.
pub type SharedEnv = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// Makes who hears the calls to an account in a region.
pub type MakeWitness = dyn Fn(&AccountName, &Region) -> Arc<dyn Witness> + Send + Sync;

/// Opens the clouds of a config file: one provider an account and region, so that all its fleets share its rates.
pub struct Clouds {
    config: Mutex<Arc<Config>>,
    env: SharedEnv,
    network: Arc<Network>,
    metadata: Arc<Network>,
    opened: Mutex<BTreeMap<(AccountName, Region), Opened>>,
    keyrings: Keyrings,
    witness: Box<MakeWitness>,
    surroundings: Surroundings,
}

/// A provider, and what it was opened for and with.
struct Opened {
    place: Place,
    settings: provider::Settings,
    provider: Arc<dyn Provider>,
}

/// The caps that the accounts of a file have.
fn caps(config: &Config) -> BTreeMap<AccountName, u32> {
    let caps = config.accounts.iter().filter_map(|(name, account)| Some((name.clone(), account.unavailable_max?)));
    caps.collect()
}

/// An account that has no credentials now.
fn not_now(account: &AccountName) -> impl Fn(String) -> NoProvider {
    move |problem| NoProvider::NotNow(format!("account {account}: {problem}"))
}

impl Clouds {
    /// The clouds of this file. Opens none yet.
    pub fn new(config: Arc<Config>, env: SharedEnv) -> Result<Self, NetworkError> {
        Self::heard(config, env, Box::new(|_, _| Arc::new(Deaf)))
    }

    /// The same; `witness` makes who hears the calls.
    pub fn heard(config: Arc<Config>, env: SharedEnv, witness: Box<MakeWitness>) -> Result<Self, NetworkError> {
        let surroundings = Surroundings {
            accounts: Arc::new(Accounts::new(caps(&config))),
            hooks: Arc::new(Programs::new((*env)("PATH"), Arc::new(SystemClock))),
            files: Arc::new(Disk),
            credentials: (*env)("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        };
        let (network, metadata) = (Arc::new(Network::new()?), Arc::new(Network::beside()?));
        let (config, opened, keyrings) = (Mutex::new(config), Mutex::default(), Keyrings::default());
        Ok(Self { config, env, network, metadata, opened, keyrings, witness, surroundings })
    }

    /// The provider of a place, or why there is none: the account is gone from the file, is another cloud or endpoint there,
    /// or has no credentials now (they cannot be read, its role's have expired and there are no others yet).
    pub fn open(&self, place: &Place) -> Result<Arc<dyn Provider>, NoProvider> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (place.account.clone(), place.region.clone());
        if let Some(known) = opened.get(&key).filter(|known| known.place == *place) {
            known.settings.credentials.ready().map_err(not_now(&place.account))?;
            return Ok(Arc::clone(&known.provider));
        }
        let settings = self.settings(place)?;
        settings.credentials.ready().map_err(not_now(&place.account))?;
        let witness = (self.witness)(&place.account, &place.region);
        let clock = Arc::new(SystemClock);
        let provider = provider::open_heard(&settings, self.network.clone(), clock, rand::random(), witness)
            .map_err(|error| not_now(&place.account)(error.to_string()))?;
        opened.insert(key, Opened { place: place.clone(), settings, provider: Arc::clone(&provider) });
        Ok(provider)
    }

    /// Goes by this file from now on. A provider whose account, API, endpoint, rates and places of secrets are as they were
    /// stays, so that its request rates are kept (what lies in those places is read at each signing anyway); any other is
    /// opened anew when it is needed next.
    pub fn reload(&self, config: Arc<Config>) {
        self.surroundings.accounts.set_caps(caps(&config));
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        // After that: whoever opened one by the old file meanwhile has put it in here.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|_, one| self.settings(&one.place).is_ok_and(|settings| settings.is_same(&one.settings)));
    }

    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a provider of this place is opened with. Sends nothing.
    pub fn settings(&self, place: &Place) -> Result<provider::Settings, NoProvider> {
        let (name, config) = (&place.account, self.config());
        let Some(account) = config.accounts.get(name) else {
            return Err(NoProvider::Gone(format!("account {name} is no longer in the config file")));
        };
        if account.provider != place.provider {
            return Err(NoProvider::Gone(format!(
                "account {name} is {} in the config file, the plan has {}",
                account.provider, place.provider
            )));
        }
        let endpoint = account.endpoint(&place.region);
        if endpoint != place.endpoint {
            let show = |endpoint: &Option<String>| endpoint.clone().unwrap_or_else(|| "the cloud's own".to_string());
            let (file, plan) = (show(&endpoint), show(&place.endpoint));
            let problem = format!("account {name} has the endpoint {file} in the config file, the plan has {plan}");
            return Err(NoProvider::Gone(problem));
        }
        Ok(provider::Settings {
            provider: account.provider,
            api: account.api,
            endpoint,
            region: place.region.clone(),
            credentials: self.keyring(name, account),
            rates: account.rates.clone(),
        })
    }

    fn keyring(&self, name: &AccountName, account: &Account) -> Keyring {
        self.keyrings.of(name, account, &self.env, self.metadata.clone())
    }

    /// Whether the credentials of an account can be read here; an account that is gone has none to be missed.
    pub fn can_read_credentials(&self, account: &AccountName) -> Result<(), String> {
        match self.config().accounts.get(account) {
            Some(found) => self.keyring(account, found).ready(),
            None => Ok(()),
        }
    }

    /// Tools that can look and plan, and keep nothing: their journal and custody are memory.
    pub fn tools_to_plan(self: &Arc<Self>) -> Tools {
        let (journal, custody) = (Arc::new(store::Memory::new()), Arc::new(custody::Memory::new()));
        let mark = self.config().installation.clone().unwrap_or_else(fresh_mark);
        self.tools(journal, custody, mark, Author::Engine("plan".to_string()), Vec::new())
    }

    /// Tools that can survey these journals and this custody. Without a mark nothing of ours was ever made.
    pub fn tools_to_look(
        self: &Arc<Self>,
        journal: Arc<dyn Journal>,
        custody: Arc<dyn Custodian>,
        mark: Option<Mark>,
    ) -> Tools {
        let mark = mark.unwrap_or_else(fresh_mark);
        self.tools(journal, custody, mark, Author::Engine("survey".to_string()), Vec::new())
    }

    fn tools(
        self: &Arc<Self>,
        journal: Arc<dyn Journal>,
        custody: Arc<dyn Custodian>,
        mark: Mark,
        author: Author,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Tools {
        let clouds = Arc::clone(self);
        Tools {
            journal,
            custody,
            providers: Box::new(move |place| clouds.open(place)),
            keys: Arc::new(RsaKeyMaker),
            probe: Arc::new(SshProbe::new(Arc::new(SystemClock))),
            clock: Arc::new(SystemClock),
            chance: Mutex::new(StdRng::seed_from_u64(rand::random())),
            mark,
            author,
            observers,
            surroundings: self.surroundings.clone(),
        }
    }
}
