//! The one process that drives: its lock, its store and its custody, opened only if they belong together. It must never
//! begin anew beside a custody whose journals are lost, nor wait for custody with what needs none.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::custody::{Custodian, CustodyError, Later};
use crate::engine::{Observer, Tools};
use crate::model::{Duration, FleetName, Mark};
use crate::net::NetworkError;
use crate::provider::Deaf;
use crate::rotation::policy::later;
use crate::rotation::{Author, Plan};
use crate::scheduler::work::MakeTools;
use crate::store::{self, Agenda, DriverLock, Journal, Sqlite, StoreError};

use super::{Clouds, KeepingError, MakeWitness, SharedEnv, keeping};

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
    /// Takes the lock, opens store and custody, and refuses what does not belong together. `goes_on`: the fleet whose open
    /// rotation is gone on with, if it has one, though custody is away.
    pub async fn start(config: Arc<Config>, env: SharedEnv, goes_on: Option<FleetName>) -> Result<Self, StartError> {
        Self::open(config, env, Box::new(|_, _| Arc::new(Deaf)), Start::Verb(goes_on)).await
    }

    /// The same for a daemon, which starts beside a custody that is away for now; `witness` makes who hears the calls to
    /// the clouds.
    pub async fn start_heard(
        config: Arc<Config>,
        env: SharedEnv,
        witness: Box<MakeWitness>,
    ) -> Result<Self, StartError> {
        Self::open(config, env, witness, Start::Daemon).await
    }

    /// The same, where the journals are lost and custody holds private halves: for who records them anew.
    pub async fn start_to_adopt(config: Arc<Config>, env: SharedEnv) -> Result<Self, StartError> {
        Self::open(config, env, Box::new(|_, _| Arc::new(Deaf)), Start::Adopt).await
    }

    async fn open(
        config: Arc<Config>,
        env: SharedEnv,
        witness: Box<MakeWitness>,
        start: Start,
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
        let (custody, mark) = match opened(&config, &env, &store, matches!(start, Start::Adopt)).await {
            Err(error) => away(&config, &env, &store, start, error).await?,
            opened => opened?,
        };
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

/// What a driver is started for.
enum Start {
    /// To drive whatever comes.
    Daemon,
    /// For one verb, with somebody who reads what is wrong; to go on with this fleet's open rotation, if it has one.
    Verb(Option<FleetName>),
    /// To record lost journals anew.
    Adopt,
}

/// Custody and its mark, if they belong to this store.
async fn opened(
    config: &Arc<Config>,
    env: &SharedEnv,
    store: &Sqlite,
    adopts: bool,
) -> Result<(Arc<dyn Custodian>, Mark), StartError> {
    let custody = keeping::custodian(config, env).await?;
    let has_mark = config.installation.is_some() || custody.kept_mark().await?.is_some();
    if adopts && !has_mark && !custody.list().await?.is_empty() {
        return Err(StartError::NoMark);
    }
    if !adopts {
        store::refuse_lost(store.is_empty().await?, &custody.list().await?)?;
    }
    let mark = custody.mark(config.installation.clone().unwrap_or_else(fresh_mark)).await?;
    of_file(config, &mark)?;
    Ok((custody, mark))
}

/// The mark is the one that the file names, if it names one.
fn of_file(config: &Config, mark: &Mark) -> Result<(), StartError> {
    match &config.installation {
        Some(named) if named != mark => {
            let (config, custody) = (named.as_str().to_string(), mark.as_str().to_string());
            Err(StartError::Mark { config, custody })
        }
        _ => Ok(()),
    }
}

/// A custody elsewhere that is away for now, where the journals tell its mark. Its machine may be the very one that we
/// switched off: who waited for custody before paying starts would wait for ever.
async fn away(
    config: &Arc<Config>,
    env: &SharedEnv,
    store: &Sqlite,
    start: Start,
    error: StartError,
) -> Result<(Arc<dyn Custodian>, Mark), StartError> {
    let problem = match &error {
        StartError::Custody(error) | StartError::Keeping(KeepingError::Custody(error)) if error.is_passing() => {
            error.to_string()
        }
        _ => return Err(error),
    };
    let heads = store.heads().await?;
    // Nothing but an open rotation owes anybody anything: else it is told at once, as is whoever begins something new.
    let may = heads.readable.iter().filter(|head| head.ended.is_none()).any(|head| match (&head.plan, &start) {
        (Plan::Rotate(_), Start::Daemon) => true,
        (Plan::Rotate(plan), Start::Verb(goes_on)) => goes_on.as_ref() == Some(&plan.fleet),
        (Plan::Retire(_), _) | (_, Start::Adopt) => false,
    });
    // A directory does not come back by itself.
    let (true, Some(mark), None) = (may, heads.mark(), config.custody.keeper.directory()) else { return Err(error) };
    of_file(config, &mark)?;
    tracing::warn!(problem, "custody is away: started without it; what needs a key waits, owed starts do not");
    let (config, env) = (Arc::clone(config), Arc::clone(env));
    let custody = Later::new(mark.clone(), move || {
        let (config, env) = (Arc::clone(&config), Arc::clone(&env));
        Box::pin(async move { keeping::custodian(&config, &env).await.map_err(KeepingError::into_custody) })
    });
    Ok((Arc::new(custody), mark))
}

/// Four characters by chance: enough to tell two installations in one account apart.
pub(super) fn fresh_mark() -> Mark {
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
