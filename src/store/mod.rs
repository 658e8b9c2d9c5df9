//! The store: journals, and what is asked of their fleets from outside ([`Agenda`]). The only room with SQL. It keeps what
//! it is given and must never change or drop an entry: journals are append-only and hash-chained.

mod agenda;
mod chain;
#[cfg(test)]
mod conformance;
mod lock;
mod memory;
mod sqlite;

use async_trait::async_trait;

use crate::model::{FleetName, JournalId, KeyPairName, RequestId, Timestamp};
use crate::rotation::{Author, Entry, Event, Outcome, Plan, PlannedInstance};

pub use agenda::{Agenda, Answer, Ask, DueTime, LateLook, Request};
pub use lock::DriverLock;
pub use memory::Memory;
pub use sqlite::{Sqlite, database_path};

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody appended first: read on, decide anew.
    #[error("journal {journal} has entries after {after}")]
    Conflict {
        /// Which journal.
        journal: JournalId,
        /// The newest entry that the writer knew.
        after: u64,
    },
    /// A rotation of this fleet is open already.
    #[error("fleet {fleet} has an open rotation, {journal}: go on with that one, or abandon it first")]
    Open {
        /// The fleet.
        fleet: FleetName,
        /// Its open rotation.
        journal: JournalId,
    },
    /// Every instance of the selection is excluded.
    #[error("nobody is left to bind: every instance of the selection is excluded")]
    NobodyToBind,
    /// The journal has ended: nothing is appended to it any more. Only the release of a kept retire journal is.
    #[error("journal {0} has ended")]
    Ended(JournalId),
    /// No such journal.
    #[error("no journal {0}")]
    Missing(JournalId),
    /// The journal cannot be believed: a broken hash chain, a gap, an entry that cannot be read.
    #[error("journal {journal} is damaged: {problem}")]
    Damaged {
        /// Which.
        journal: JournalId,
        /// How.
        problem: String,
    },
    /// A person holds the fleet: no rotation of it begins until it is released.
    #[error("fleet {fleet} was paused by {by} at {at}{}: `rekeyd release {fleet}` lets it rotate again", told(.note))]
    Paused {
        /// The fleet.
        fleet: FleetName,
        /// Who asked for it.
        by: Author,
        /// When.
        at: Timestamp,
        /// What they said; may be empty.
        note: String,
    },
    /// No such request.
    #[error("no request {0}")]
    NoRequest(RequestId),
    /// The database as a whole cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(String),
}

/// The journal that keeps a retire journal of a pair from beginning, by the tips of those that name the pair, oldest first.
fn stands_in_the_way(named: &[chain::Tip]) -> Option<JournalId> {
    let newest = named.last().filter(|tip| tip.is_retire || tip.ended.is_none());
    newest.or_else(|| named.iter().find(|tip| tip.is_retire && tip.ended.is_none())).map(|tip| tip.journal)
}

fn told(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({note})") }
}

/// Refuses an empty store beside a custody that holds private keys: the journals that say what those keys open are
/// lost, and a rotation begun without them would bind over pairs that it does not know.
pub fn refuse_lost(store_is_empty: bool, in_custody: &[KeyPairName]) -> Result<(), StoreError> {
    if !store_is_empty || in_custody.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 10;
    let mut names: Vec<&str> = in_custody.iter().take(SHOWN).map(KeyPairName::as_str).collect();
    let more = format!("and {} more", in_custody.len().saturating_sub(SHOWN));
    if in_custody.len() > SHOWN {
        names.push(&more);
    }
    Err(StoreError::Unusable(format!(
        "the database holds no journal, but custody holds private keys ({}): restore the database from its backup, or if it is \
         lost, `rekeyd adopt --dry-run` shows what can be recorded anew from clouds and custody, and `rekeyd adopt` does so",
        names.join(", ")
    )))
}

/// A journal's head, without its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its id.
    pub id: JournalId,
    /// Its plan.
    pub plan: Plan,
    /// When it began.
    pub begun: Timestamp,
    /// When and how it ended, once it has. A later release may open a kept retire journal again; then `None`.
    pub ended: Option<(Timestamp, Outcome)>,
    /// Its newest entry's number.
    pub seq: u64,
}

/// The journals of a store: those that can be read, and those that hold their fleet because they cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Oldest first.
    pub readable: Vec<Head>,
    /// Oldest first. No rotation and no retire journal begins in a fleet that one of them may belong to.
    pub unreadable: Vec<Unreadable>,
}

impl Heads {
    /// The readable ones of a fleet, oldest first.
    pub fn of(&self, fleet: &FleetName) -> impl DoubleEndedIterator<Item = &Head> {
        self.readable.iter().filter(move |head| head.plan.fleet() == fleet)
    }
}

/// A journal whose head cannot be read: its plan is not JSON or a newer release's, how it ended cannot be read, or it has no entries.
/// What is spoilt behind a readable head is found by [`Journal::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id; [`JournalId::NIL`] if even that cannot be read (the problem tells what stands there).
    pub journal: JournalId,
    /// Its fleet: the plan's, or that of the journal which it begins from or which begins from it. `None`: it may be
    /// any fleet's.
    pub fleet: Option<FleetName>,
    /// What is wrong with it.
    pub problem: String,
}

/// Keeps journals. Contract, held by one conformance suite for every implementation:
///
/// - [`begin`](Journal::begin) and [`append`](Journal::append) return only when what they wrote is durable, and write all or nothing.
/// - Times are kept to the millisecond, and answered as they are kept.
/// - Entries number 1, 2, 3 …; an entry's time is never earlier than that of the entry before it (a clock that
///   stepped back is lifted to it).
/// - Each entry carries the SHA-256 of the entry before it; the first one of a rotation the hash of the fleet's previous
///   rotation's last entry, the first one of a retire journal that of the last entry of the rotation it names. `read`
///   checks the chain and answers `Damaged` where it is broken.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Begins a journal: writes the plan, its instances and the `Planned` entry in one transaction.
    ///
    /// A rotation begins only if its fleet has none open. An instance that is in a batch of *another* fleet's open
    /// rotation of the same provider, region and instance id is excluded with a reason that names the fleet; if nobody is left in any batch: `NobodyToBind`.
    /// A retire journal of a key pair is `Open`, with the journal that stands in its way, while a rotation that names the
    /// pair is open, while another retire journal of it is, and where one has begun since the newest rotation that names
    /// it, ended or not; one that names no rotation is `Missing`. An id that has begun before is a `Conflict` after 0.
    ///
    /// Nothing begins in a fleet that has an unreadable journal, or that one of an unknown fleet may belong to: `Damaged`
    /// with that journal's id. (An unreadable journal of an unknown fleet that begins from nothing was its fleet's first: it
    /// is no other fleet's whose own first rotation can be read.) While such a journal may be open, the instances of its
    /// batches are excluded from other fleets' rotations, wherever it ran.
    ///
    /// A rotation of a paused fleet ([`Agenda::paused`]) is refused with `Paused`, in the transaction that would begin it: a
    /// hold that was written before always wins. Retire journals begin all the same.
    async fn begin(
        &self,
        id: JournalId,
        plan: &Plan,
        instances: &[PlannedInstance],
        by: &Author,
        at: Timestamp,
    ) -> Result<Head, StoreError>;

    /// The head of one journal.
    async fn head(&self, id: JournalId) -> Result<Head, StoreError>;

    /// The heads of all journals. A journal that cannot be read is listed as such and hides no other; an error means
    /// that the store as a whole did not answer.
    async fn heads(&self) -> Result<Heads, StoreError>;

    /// The heads of the readable journals that name this key pair, of either kind, oldest first.
    async fn named(&self, key_name: &KeyPairName) -> Result<Vec<Head>, StoreError> {
        Ok(self.heads().await?.readable.into_iter().filter(|head| head.plan.key_name() == key_name).collect())
    }

    /// The planned instances of a rotation, in the order in which they were given to `begin`.
    async fn instances(&self, id: JournalId) -> Result<Vec<PlannedInstance>, StoreError>;

    /// The entries after `after`, in order. `Damaged` if entry `after` itself is not there: who knows it read it once.
    async fn read(&self, id: JournalId, after: u64) -> Result<Vec<Entry>, StoreError>;

    /// Appends events, if `after` is the newest entry's number; else `Conflict`, and nothing is written. After `Ended`
    /// everything is refused as `Ended`, but for the `Released` of a kept retire journal, which opens it again.
    async fn append(
        &self,
        id: JournalId,
        after: u64,
        events: &[Event],
        by: &Author,
        at: Timestamp,
    ) -> Result<Vec<Entry>, StoreError>;
}
