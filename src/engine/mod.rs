//! THE HANDS. `fold(journal) → next(now) → look → do → append`, until the journal says *ended*. The engine never sleeps,
//! and remembers nothing that matters and is not in the journal: what it keeps in memory (when to look next) may be lost
//! at any moment. It knows traits only, no cloud, no file, no SQL.

mod accounts;
pub mod act;
pub mod adopt;
pub mod back;
mod case;
mod compromised;
pub mod drive;
pub mod guard;
pub mod late;
mod look;
pub mod operate;
mod past;
pub mod planner;
mod preflight;
mod record;
pub mod rules;
pub mod survey;
pub mod unseen;
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::custody::Custodian;
use crate::files::Files;
use crate::hook::Runner;
use crate::model::{Duration, JournalId, Mark, Timestamp};
use crate::provider::Provider;
use crate::rotation::policy::later;
use crate::rotation::{Author, Entry, Event, IllegalEvent, Outcome, Place, Plan, Retirement, Rotation, Standing};
use crate::ssh::{KeyMaker, LoginProbe};
use crate::store::{Heads, Journal, StoreError};

pub use accounts::{Accounts, full};
use case::Case;

/// Hears each entry once it is durable, and how a journal stands after each turn. It must not fail, and cannot steer.
pub trait Observer: Send + Sync {
    /// An entry was appended to this journal.
    fn recorded(&self, id: JournalId, plan: &Plan, entry: &Entry);
    /// A turn is over, and this is how the journal stands.
    fn turned(&self, _id: JournalId, _view: View<'_>, _now: Timestamp) {}
}

/// A journal's state, to look at.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// A rotation.
    Rotation {
        /// Its state.
        rotation: &'a Rotation,
        /// Why it has no room or no way to its cloud, where that is neither time nor a person: its account's cap is reached,
        /// its account's credentials cannot be read.
        waiting: Option<&'a str>,
    },
    /// A retire journal.
    Retirement {
        /// Its state.
        retirement: &'a Retirement,
        /// Who or what it waits for, where that is not time alone.
        waiting: Option<&'a str>,
    },
}

/// Opens the provider of a place, or says why not.
pub type OpenProvider = dyn Fn(&Place) -> Result<Arc<dyn Provider>, NoProvider> + Send + Sync;

/// Why the provider of a place cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProvider {
    /// The config file no longer has this account, or has another cloud or endpoint under its name.
    #[error("{0}")]
    Gone(String),
    /// Its credentials cannot be read now.
    #[error("{0}")]
    NotNow(String),
}

/// What the engine works with. All of it comes in from outside.
pub struct Tools {
    /// The journals.
    pub journal: Arc<dyn Journal>,
    /// The private halves.
    pub custody: Arc<dyn Custodian>,
    /// The clouds.
    pub providers: Box<OpenProvider>,
    /// Makes keys.
    pub keys: Arc<dyn KeyMaker>,
    /// Logs in to machines.
    pub probe: Arc<dyn LoginProbe>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance: key-pair names, journal ids, jitter. Never keys.
    pub chance: Mutex<StdRng>,
    /// This installation's mark.
    pub mark: Mark,
    /// Who signs this engine's entries.
    pub author: Author,
    /// Who hears each entry.
    pub observers: Vec<Arc<dyn Observer>>,
    /// What is around the journals of this process.
    pub surroundings: Surroundings,
}

/// What is around the journals of a process: what all fleets of an account share, and the operator's programs. The default
/// has no caps, runs no program and writes no file: a hook fails, and holds.
#[derive(Clone)]
pub struct Surroundings {
    /// How many machines of each account may be down at once.
    pub accounts: Arc<Accounts>,
    /// Runs hooks.
    pub hooks: Arc<dyn Runner>,
    /// Writes what is delivered.
    pub files: Arc<dyn Files>,
    /// Where systemd hands this process its credentials; the key of a jump host may be one.
    pub credentials: Option<PathBuf>,
}

impl Default for Surroundings {
    fn default() -> Self {
        let (hooks, files) = (Arc::new(crate::hook::Nobody), Arc::new(crate::files::Nowhere));
        Self { accounts: Arc::default(), hooks, files, credentials: None }
    }
}

/// Why the engine stops. Whatever a cloud or custody says is no such reason: that is journalled.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be believed.
    #[error("journal {journal}: {source}")]
    Illegal {
        /// Which.
        journal: JournalId,
        /// Why.
        source: IllegalEvent,
    },
    /// Another engine wrote to the journal: only one may drive.
    #[error("journal {journal}: {other} is writing to it as well; this engine stops")]
    AnotherEngine {
        /// Which.
        journal: JournalId,
        /// Who.
        other: Author,
    },
    /// It was asked to stop, and did so between two calls. The journal goes on where it stands.
    #[error("stopped as asked")]
    Stopped,
}

/// What one turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How the journal stands.
    pub standing: Standing,
    /// Ask again then, or earlier.
    pub wake: Timestamp,
    /// What it waits for, where it is not time or the cloud alone: who still hangs on a pair.
    pub waiting: Option<String>,
    /// Steps may run now: it needs its cloud. Else only time or a person moves it.
    pub busy: bool,
}

/// Operators' entries are noticed within this.
pub const ATTENTION: Duration = Duration::from_secs(1);

/// Drives journals, one turn at a time.
pub struct Engine {
    tools: Tools,
    cases: BTreeMap<JournalId, Case>,
    attention: Duration,
    stop: Option<watch::Receiver<bool>>,
}

impl Engine {
    /// An engine with these tools.
    pub fn new(tools: Tools) -> Self {
        Self { tools, cases: BTreeMap::new(), attention: ATTENTION, stop: None }
    }

    /// The same, stopping with [`EngineError::Stopped`] before its next act once `stop` says `true`. A call that is under
    /// way is finished first.
    pub fn with_stop(mut self, stop: watch::Receiver<bool>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// The same, noticing operators' entries only this often (simulations wait through quarters of an hour).
    pub fn with_attention(mut self, attention: Duration) -> Self {
        self.attention = attention;
        self
    }

    /// What it works with.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Does everything that can be done now for a journal, and says when to ask again.
    pub async fn turn(&mut self, id: JournalId) -> Result<Turn, EngineError> {
        let mut case = match self.cases.remove(&id) {
            Some(case) => case,
            None => Case::load(&self.tools, id).await?,
        };
        let turn = self.turn_case(&mut case).await;
        for observer in self.tools.observers.iter().filter(|_| turn.is_ok()) {
            observer.turned(id, case.view(), self.tools.clock.now());
        }
        // A case that failed is folded anew: the journal is right, what is in memory may not be.
        if turn.is_ok() {
            self.cases.insert(id, case);
        }
        turn
    }

    async fn turn_case(&self, case: &mut Case) -> Result<Turn, EngineError> {
        record::catch_up(&self.tools, case).await?;
        let now = self.tools.clock.now();
        if let Some(away_since) = case.away_since(now) {
            record::append(&self.tools, case, &[Event::Resumed { away_since }]).await?;
        }
        loop {
            record::catch_up(&self.tools, case).await?;
            let now = self.tools.clock.now();
            case.turned = Some(now);
            act::recall(&self.tools, case).await?;
            let next = case.course.next(now);
            if !next.record.is_empty() {
                record::append(&self.tools, case, &next.record).await?;
                continue;
            }
            if next.standing == Standing::Ended {
                return Ok(Turn { standing: next.standing, wake: now, waiting: None, busy: false });
            }
            case.forget_steps_except(&next.run);
            let mut recorded = false;
            look::share(&self.tools, case, &next.run).await;
            for step in &next.run {
                let now = self.tools.clock.now();
                if case.look_at(*step, now).is_some_and(|at| now < at) {
                    continue;
                }
                self.go_on()?;
                let done = act::act(&self.tools, case, *step).await?;
                // A long act is no absence.
                case.turned = Some(self.tools.clock.now());
                match done {
                    act::Done::Recorded => {
                        recorded = true;
                        break;
                    }
                    act::Done::Wait(wait) => case.look_again(*step, later(self.tools.clock.now(), wait)),
                }
            }
            if recorded {
                continue;
            }
            let now = self.tools.clock.now();
            let looks = next.run.iter().filter_map(|step| case.look_at(*step, now)).min();
            let wake = looks.into_iter().chain(next.wake).min().unwrap_or(Timestamp::MAX);
            let wake = wake.min(later(now, self.attention));
            let busy = !next.run.is_empty() && next.standing == Standing::Open;
            return Ok(Turn { standing: next.standing, wake, waiting: case.waiting.clone(), busy });
        }
    }

    fn go_on(&self) -> Result<(), EngineError> {
        match &self.stop {
            Some(stop) if *stop.borrow() => Err(EngineError::Stopped),
            _ => Ok(()),
        }
    }

    /// Waits until `wake`, or until it is asked to stop.
    async fn wait(&self, wake: Timestamp) -> Result<(), EngineError> {
        let Some(mut stop) = self.stop.clone() else {
            self.tools.clock.sleep_until(wake).await;
            return Ok(());
        };
        tokio::select! {
            () = self.tools.clock.sleep_until(wake) => Ok(()),
            Ok(_) = stop.wait_for(|stop| *stop) => Err(EngineError::Stopped),
        }
    }

    /// A journal's state as of its last turn.
    pub fn rotation(&self, id: JournalId) -> Option<&Rotation> {
        match &self.cases.get(&id)?.course {
            case::Course::Rotate(rotation) => Some(rotation),
            case::Course::Retire(_) => None,
        }
    }

    /// When and how a journal ended, as of its last turn.
    pub fn ended(&self, id: JournalId) -> Option<(Timestamp, Outcome)> {
        match &self.cases.get(&id)?.course {
            case::Course::Rotate(rotation) => rotation.ended,
            case::Course::Retire(retirement) => retirement.ended,
        }
    }

    /// Heads of all journals.
    pub async fn heads(&self) -> Result<Heads, EngineError> {
        Ok(self.tools.journal.heads().await?)
    }
}
