//! The composition root: from a checked config file to what the engine works with. It puts rooms together and decides
//! nothing; it must never drive two engines over one store, nor begin anew beside a custody whose journals are lost.

mod doing;
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

use crate::clock::{Clock, SystemClock};
use crate::config::{Account, Config};
use crate::custody::{self, Custodian, CustodyError};
use crate::engine::{Accounts, NoProvider, Observer, Surroundings, Tools};
use crate::files::Disk;
use crate::hook::Programs;
use crate::model::{AccountName, Duration, Mark, Region};
use crate::net::{Network, NetworkError};
use crate::provider::{self, Deaf, Keyring, Provider, Witness};
use crate::rotation::policy::later;
use crate::rotation::{Author, Place};
use crate::scheduler::work::MakeTools;
use crate::ssh::{RsaKeyMaker, SshProbe};
use crate::store::{self, Agenda, DriverLock, Journal, Sqlite, StoreError};

use keyrings::Keyrings;

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
        };
        let network = Arc::new(Network::new()?);
        let (config, opened, keyrings) = (Mutex::new(config), Mutex::default(), Keyrings::default());
        Ok(Self { config, env, network, opened, keyrings, witness, surroundings })
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
        self.keyrings.of(name, account, &self.env, self.network.clone())
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

/// Why the driver does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process drives.
    #[error(
        "another rekeyd is driving this store (it holds {lock}): one process drives at a time; wait until it is done, \
         `rekeyd status` shows how far it is"
    )]
    Busy {
        /// The lock's file.
        lock: PathBuf,
    },
    /// The lock cannot be taken.
    #[error("the driver's lock {lock}")]
    Lock {
        /// The lock's file.
        lock: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store will not do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Custody will not do.
    #[error("custody")]
    Custody(#[from] CustodyError),
    /// Custody cannot be opened.
    #[error(transparent)]
    Keeping(#[from] KeepingError),
    /// The file and custody disagree about who we are.
    #[error(
        "the config file says installation: {config}, but custody was begun with {custody}: names of key pairs bear the \
         mark for good; write installation: {custody}, or leave the line out"
    )]
    Mark {
        /// The file's.
        config: String,
        /// Custody's.
        custody: String,
    },
    /// Custody has lost its mark.
    #[error(
        "custody holds private keys, but not the installation's mark (named `installation`): restore that, or write \
         installation: MARK into the config file, as the names of the keys have it (rkMARK_…)"
    )]
    NoMark,
    /// No HTTP client.
    #[error("the network")]
    Network(#[from] NetworkError),
}

/// The one process that drives: it holds the lock for as long as it lives.
pub struct Driver {
    clouds: Arc<Clouds>,
    store: Sqlite,
    custody: Arc<dyn Custodian>,
    mark: Mark,
    author: Author,
    _lock: DriverLock,
}

impl Driver {
    /// Takes the lock, opens store and custody, and refuses what does not belong together.
    pub async fn start(config: Arc<Config>, env: SharedEnv) -> Result<Self, StartError> {
        Self::start_heard(config, env, Box::new(|_, _| Arc::new(Deaf))).await
    }

    /// The same; `witness` makes who hears the calls to the clouds.
    pub async fn start_heard(
        config: Arc<Config>,
        env: SharedEnv,
        witness: Box<MakeWitness>,
    ) -> Result<Self, StartError> {
        Self::open(config, env, witness, false).await
    }

    /// The same, where the journals are lost and custody holds private halves: for who records them anew.
    pub async fn start_to_adopt(config: Arc<Config>, env: SharedEnv) -> Result<Self, StartError> {
        Self::open(config, env, Box::new(|_, _| Arc::new(Deaf)), true).await
    }

    async fn open(
        config: Arc<Config>,
        env: SharedEnv,
        witness: Box<MakeWitness>,
        adopts: bool,
    ) -> Result<Self, StartError> {
        let mut lock = DriverLock::try_acquire(&config.store);
        if matches!(lock, Ok(None)) {
            // Who only looks whether somebody drives has it for a moment.
            SystemClock.sleep_until(later(SystemClock.now(), Duration::from_millis(50))).await;
            lock = DriverLock::try_acquire(&config.store);
        }
        let lock = match lock {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(StartError::Busy { lock: DriverLock::path(&config.store) }),
            Err(source) => return Err(StartError::Lock { lock: DriverLock::path(&config.store), source }),
        };
        let store = Sqlite::open(&config.store).await?;
        let custody = keeping::custodian(&config, &env).await?;
        let has_mark = config.installation.is_some() || custody.kept_mark().await?.is_some();
        if adopts && !has_mark && !custody.list().await?.is_empty() {
            return Err(StartError::NoMark);
        }
        if !adopts {
            store::refuse_lost(store.is_empty().await?, &custody.list().await?)?;
        }
        let mark = custody.mark(config.installation.clone().unwrap_or_else(fresh_mark)).await?;
        if let Some(named) = config.installation.as_ref().filter(|named| **named != mark) {
            let (config, custody) = (named.as_str().to_string(), mark.as_str().to_string());
            return Err(StartError::Mark { config, custody });
        }
        let clouds = Arc::new(Clouds::heard(config, env, witness)?);
        let author = Author::Engine(format!("{}-{}-{:08x}", host_name(), std::process::id(), rand::random::<u32>()));
        Ok(Self { clouds, store, custody, mark, author, _lock: lock })
    }

    /// What one engine works with. Engines of one driver share everything but their chance.
    pub fn tools(&self, observers: Vec<Arc<dyn Observer>>) -> Tools {
        let (journal, custody) = (Arc::new(self.store.clone()), self.custody.clone());
        self.clouds.tools(journal, custody, self.mark.clone(), self.author.clone(), observers)
    }

    /// Makes what one engine works with, as often as it is asked.
    pub fn make_tools(&self, observers: Vec<Arc<dyn Observer>>) -> Arc<MakeTools> {
        let (clouds, journal, custody) = (self.clouds.clone(), self.store.clone(), self.custody.clone());
        let (mark, author) = (self.mark.clone(), self.author.clone());
        Arc::new(move || {
            let journal = Arc::new(journal.clone());
            clouds.tools(journal, custody.clone(), mark.clone(), author.clone(), observers.clone())
        })
    }

    /// What is asked of fleets, and when they are due.
    pub fn agenda(&self) -> Arc<dyn Agenda> {
        Arc::new(self.store.clone())
    }
    /// This installation's mark.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }
    /// The clouds.
    pub fn clouds(&self) -> &Clouds {
        &self.clouds
    }
    /// The journals.
    pub fn journal(&self) -> &dyn Journal {
        &self.store
    }
    /// Closes the store, so that nothing is left in its write-ahead log.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Four characters by chance: enough to tell two installations in one account apart.
fn fresh_mark() -> Mark {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    loop {
        let text: String = (0..4).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
        if let Ok(mark) = Mark::try_from(text) {
            return mark;
        }
    }
}

/// This machine's name, for the authors of entries.
fn host_name() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.ok().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}
