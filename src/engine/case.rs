//! A journal as the engine has it in hand: its folded state, and when to look next. Everything here but the state may be
//! lost without harm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::hook::Running;
use crate::model::{Duration, InstanceId, JournalId, KeyPairId, PublicKey, Timestamp};
use crate::provider::{Error, Provider};
use crate::rotation::policy::later;
use crate::rotation::{Entry, Event, IllegalEvent, Next, Order, Plan, Refusal, Retirement, Rotation, Step};
use crate::store::{Journal, StoreError};

use super::look::Snapshot;
use super::{EngineError, Tools, View};

/// No step waits longer for its next look.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// The state of either kind of journal.
#[derive(Debug)]
pub(super) enum Course {
    /// A rotation.
    Rotate(Box<Rotation>),
    /// A retire journal.
    Retire(Box<Retirement>),
}

impl Course {
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        match self {
            Self::Rotate(rotation) => rotation.apply(entry),
            Self::Retire(retirement) => retirement.apply(entry),
        }
    }
    pub(super) fn next(&self, now: Timestamp) -> Next {
        match self {
            Self::Rotate(rotation) => rotation.next(now),
            Self::Retire(retirement) => retirement.next(now),
        }
    }
    pub(super) fn seq(&self) -> u64 {
        match self {
            Self::Rotate(rotation) => rotation.seq,
            Self::Retire(retirement) => retirement.seq,
        }
    }
    /// The entries of a person's order.
    pub(super) fn order(&self, order: &Order) -> Result<Vec<Event>, Refusal> {
        match self {
            Self::Rotate(rotation) => rotation.order(order),
            Self::Retire(retirement) => retirement.order(order),
        }
    }
    /// How many tries of a step failed in a row.
    pub(super) fn tries(&self, step: Step) -> u32 {
        let retry = match self {
            Self::Rotate(rotation) => rotation.retry(step),
            Self::Retire(retirement) => retirement.retry(step),
        };
        retry.map_or(0, |retry| retry.tries)
    }
    /// Whether no new disturbance may begin.
    pub(super) fn is_halted(&self) -> bool {
        match self {
            Self::Rotate(rotation) => rotation.is_halted(),
            Self::Retire(retirement) => retirement.held.is_some(),
        }
    }
}

/// A journal's plan and its state.
pub(super) async fn fold(journal: &dyn Journal, id: JournalId) -> Result<(Plan, Course), EngineError> {
    let head = journal.head(id).await?;
    let entries = journal.read(id, 0).await?;
    let illegal = |source| EngineError::Illegal { journal: id, source };
    let course = match &head.plan {
        Plan::Rotate(plan) => {
            let instances = journal.instances(id).await?;
            Course::Rotate(Box::new(Rotation::fold(id, plan.clone(), &instances, &entries).map_err(illegal)?))
        }
        Plan::Retire(plan) => Course::Retire(Box::new(Retirement::fold(id, plan.clone(), &entries).map_err(illegal)?)),
    };
    Ok((head.plan, course))
}

/// A journal in hand.
pub(super) struct Case {
    pub(super) id: JournalId,
    pub(super) plan: Plan,
    pub(super) course: Course,
    pub(super) provider: Option<Arc<dyn Provider>>,
    /// What the newest looks showed.
    pub(super) seen: Snapshot,
    /// Since when an instance is missing from looks of which our account was seen to be the source: gone only when it is so
    /// twice.
    pub(super) missing: BTreeMap<InstanceId, Timestamp>,
    /// Since when nothing of ours is shown, and what is said of it.
    pub(super) strange: Option<(Timestamp, Error)>,
    /// Who hangs on the pair of a retire journal.
    pub(super) waiting: Option<String>,
    /// Public halves of pairs on which machines were found, and whether the journals were read for them.
    pub(super) publics: BTreeMap<KeyPairId, PublicKey>,
    pub(super) knows_publics: bool,
    /// Where a compromised key is replaced: the fleet's earlier keys whose private halves are not destroyed.
    pub(super) compromised: Vec<PublicKey>,
    /// The rotation that this one undoes, once it was read.
    pub(super) undone: Option<Box<Rotation>>,
    /// When a turn was taken last.
    pub(super) turned: Option<Timestamp>,
    /// The public half of what custody gave, and when: a keeper that takes long must not make every look old.
    pub(super) kept: Option<(Timestamp, PublicKey)>,
    /// How often machines were logged in to: another part of a batch comes first each time.
    pub(super) logins: usize,
    /// The hook that runs now: killed with this process, and run again by the next one.
    pub(super) hook: Option<(Step, Mutex<Running>)>,
    looks: BTreeMap<Step, Timestamp>,
}

impl Case {
    /// Reads a journal and folds it.
    pub(super) async fn load(tools: &Tools, id: JournalId) -> Result<Self, EngineError> {
        let (plan, course) = fold(tools.journal.as_ref(), id).await?;
        Ok(Self {
            id,
            plan,
            course,
            provider: None,
            seen: Snapshot::default(),
            missing: BTreeMap::new(),
            strange: None,
            waiting: None,
            publics: BTreeMap::new(),
            knows_publics: false,
            compromised: Vec::new(),
            undone: None,
            turned: None,
            kept: None,
            logins: 0,
            hook: None,
            looks: BTreeMap::new(),
        })
    }

    /// Since when nobody looked at what is under way, if that is long ago: this process was not there, or stood still.
    pub(super) fn away_since(&self, now: Timestamp) -> Option<Timestamp> {
        let Course::Rotate(rotation) = &self.course else { return None };
        let since = self.turned.unwrap_or(rotation.last_at).max(rotation.last_at);
        rotation.was_away(since, now).then_some(since)
    }

    /// Its state as a rotation's.
    pub(super) fn rotation(&self) -> Result<&Rotation, EngineError> {
        match &self.course {
            Course::Rotate(rotation) => Ok(rotation),
            Course::Retire(_) => Err(self.misplaced("a rotation's step in a retire journal")),
        }
    }
    /// Its state as a retire journal's.
    pub(super) fn retirement(&self) -> Result<&Retirement, EngineError> {
        match &self.course {
            Course::Retire(retirement) => Ok(retirement),
            Course::Rotate(_) => Err(self.misplaced("a retire step in a rotation's journal")),
        }
    }
    /// Its state, to look at.
    pub(super) fn view(&self) -> View<'_> {
        match &self.course {
            Course::Rotate(rotation) => View::Rotation { rotation, waiting: self.waiting.as_deref() },
            Course::Retire(retirement) => View::Retirement { retirement, waiting: self.waiting.as_deref() },
        }
    }
    fn misplaced(&self, problem: &str) -> EngineError {
        EngineError::Store(StoreError::Damaged { journal: self.id, problem: problem.to_string() })
    }

    /// When a step looks next, if it has looked. No act waits for more than a minute or so: a moment beyond that stems
    /// from before the clock stepped back.
    pub(super) fn look_at(&self, step: Step, now: Timestamp) -> Option<Timestamp> {
        self.looks.get(&step).copied().filter(|at| *at <= later(now, LOOK_MAX))
    }
    pub(super) fn look_again(&mut self, step: Step, at: Timestamp) {
        self.looks.insert(step, at);
    }
    /// Something was done: everything is looked at anew.
    pub(super) fn look_now(&mut self) {
        self.looks.clear();
    }
    pub(super) fn forget_steps_except(&mut self, run: &[Step]) {
        self.looks.retain(|step, _| run.contains(step));
    }
}
