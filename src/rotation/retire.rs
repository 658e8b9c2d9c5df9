//! Retiring a superseded key pair: when one is due, and what its journal adds up to. The pair dies before the
//! private half, and the half only after grace. Pure, like all of the brain.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::error::{Error, Kind};
use crate::model::{JournalId, KeyPairName, Timestamp};

use super::event::{Call, Entry, Event, Step};
use super::next::{Next, Standing};
use super::plan::{Plan, RetirePlan};
use super::policy::{Retry, TELL_AGAIN, later};
use super::reason::{Allow, HoldReason, Outcome, STRANGE};
use super::state::IllegalEvent;

/// A retire journal's state.
#[derive(Clone, Debug)]
pub struct Retirement {
    /// The journal.
    pub id: JournalId,
    /// The frozen plan.
    pub plan: RetirePlan,
    /// The newest entry.
    pub seq: u64,
    /// When it was written.
    pub last_at: Timestamp,
    /// When it began.
    pub begun: Timestamp,
    /// When the pair was seen gone, and nobody on it.
    pub deleted: Option<Timestamp>,
    /// When the deletion was asked for last, and how often.
    pub asked: Option<(Timestamp, u32)>,
    /// The private half is destroyed.
    pub destroyed: bool,
    /// An operator allows to destroy the half without a login proof.
    pub destroy_allowed: bool,
    /// When a person last allowed to take what is not shown for gone.
    pub gone_allowed: Option<Timestamp>,
    /// A rotation of a compromised key superseded it: soak and grace are over.
    pub grace_waived: bool,
    /// Why it is held.
    pub held: Option<HoldReason>,
    /// How and when it ended.
    pub ended: Option<(Timestamp, Outcome)>,
    retries: BTreeMap<Step, Retry>,
}

/// How far a retire journal is that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The soak before the pair's deletion.
    Soak,
    /// What is due was tried in vain, and is tried again: who still hangs on the pair, or the cloud, is waited for.
    Waiting,
    /// The deletion of the pair, or the end of its private half, is due.
    Due,
    /// The pair is deleted; its private half waits out grace.
    Grace,
    /// Held: a person is waited for.
    Held,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Soak, Self::Waiting, Self::Due, Self::Grace, Self::Held];

    /// Its name, as `status` and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soak => "soak",
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Grace => "grace",
            Self::Held => "held",
        }
    }
}

impl Retirement {
    /// The state of a retire journal by its plan and entries.
    pub fn fold(id: JournalId, plan: RetirePlan, entries: &[Entry]) -> Result<Self, IllegalEvent> {
        let mut retirement = Self {
            id,
            plan,
            seq: 0,
            last_at: Timestamp::MIN,
            begun: Timestamp::MIN,
            deleted: None,
            asked: None,
            destroyed: false,
            destroy_allowed: false,
            gone_allowed: None,
            grace_waived: false,
            held: None,
            ended: None,
            retries: BTreeMap::new(),
        };
        for entry in entries {
            retirement.apply(entry)?;
        }
        Ok(retirement)
    }

    /// Takes one more entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        let illegal = |problem: &str| Err(IllegalEvent { seq: entry.seq, problem: problem.to_string() });
        if entry.seq != self.seq + 1 {
            return illegal("it does not follow the entry before it");
        }
        if entry.at < self.last_at {
            return illegal("its time runs back");
        }
        if (entry.seq == 1) != matches!(entry.event, Event::Planned { .. }) {
            return illegal("the plan stands first, and only there");
        }
        let kept = matches!(self.ended, Some((_, Outcome::Kept)));
        let allows = matches!(&entry.event, Event::Released { allow: Some(Allow::Destroy), .. });
        if self.ended.is_some() && !(kept && allows) {
            return illegal("the journal has ended");
        }
        match &entry.event {
            Event::Planned { .. } => self.begun = entry.at,
            Event::Started { call: Call::Delete, .. } => {
                self.asked = Some((entry.at, self.asked.map_or(1, |(_, times)| times + 1)));
            }
            Event::Started { .. } => {}
            Event::Failed { step, error, retry_at, .. } => {
                Retry::count(&mut self.retries, *step, entry.at, *retry_at, error);
            }
            Event::KeyPairDeleted => {
                self.deleted = Some(entry.at);
                self.retries.clear();
            }
            Event::PrivateKeyDestroyed => self.destroyed = true,
            Event::Held { reason } => self.held = Some(reason.clone()),
            Event::Released { allow, .. } => {
                // A word on who is gone releases no hold: here none is for that.
                self.held = self.held.take().filter(|_| *allow == Some(Allow::Gone));
                self.retries.clear();
                self.ended = None;
                self.destroy_allowed |= matches!(allow, Some(Allow::Destroy));
                self.gone_allowed = matches!(allow, Some(Allow::Gone)).then_some(entry.at).or(self.gone_allowed);
            }
            Event::GraceWaived { .. } => self.grace_waived = true,
            Event::Ended { outcome } => self.ended = Some((entry.at, *outcome)),
            other => return illegal(&format!("{} is no entry of a retire journal", other.name())),
        }
        self.seq = entry.seq;
        self.last_at = entry.at;
        Ok(())
    }

    /// Failures in a row of a step.
    pub fn retry(&self, step: Step) -> Option<&Retry> {
        self.retries.get(&step)
    }

    /// What was said of the account in the last hour: nothing of ours was shown.
    pub fn strange(&self, now: Timestamp) -> Option<&Error> {
        let is_strange = |retry: &&Retry| retry.error.code == STRANGE && now < later(retry.last, TELL_AGAIN);
        self.retries.values().find(is_strange).map(|retry| &retry.error)
    }

    /// The failure that it waits after, if it is still worth telling: repaired credentials leave no entry, so of an account that
    /// showed nothing it is spoken no longer than that counts.
    pub fn told(&self, now: Timestamp) -> Option<&Retry> {
        let told = |retry: &&Retry| retry.error.code != STRANGE || self.strange(now).is_some();
        [Step::DestroyPrivateKey, Step::RetireKeyPair].iter().find_map(|step| self.retries.get(step)).filter(told)
    }

    /// From when on the pair may be deleted.
    pub fn soaked(&self) -> Timestamp {
        if self.grace_waived { self.begun } else { later(self.begun, self.plan.soak) }
    }

    /// From when on the private half of a pair that was deleted then may be destroyed.
    pub fn grace_over(&self, deleted: Timestamp) -> Timestamp {
        if self.grace_waived { deleted } else { later(deleted, self.plan.grace) }
    }

    /// How far it is; `None` once it has ended.
    pub fn stage(&self, now: Timestamp) -> Option<Stage> {
        let tried = |step| if self.retries.contains_key(&step) { Stage::Waiting } else { Stage::Due };
        match (self.ended, &self.held, self.deleted) {
            (Some(_), ..) => None,
            (None, Some(_), _) => Some(Stage::Held),
            (None, None, None) if now < self.soaked() => Some(Stage::Soak),
            (None, None, None) => Some(tried(Step::RetireKeyPair)),
            (None, None, Some(deleted)) if now < self.grace_over(deleted) => Some(Stage::Grace),
            (None, None, Some(_)) => Some(tried(Step::DestroyPrivateKey)),
        }
    }

    /// The steps that may run now: delete the pair, wait out grace, destroy the half. Without a login proof the half is
    /// kept, unless an operator allowed its destruction.
    pub fn next(&self, now: Timestamp) -> Next {
        if self.ended.is_some() {
            return Next::new(Standing::Ended);
        }
        if self.held.is_some() {
            return Next::new(Standing::Held);
        }
        let mut next = Next::new(Standing::Open);
        // A pair that is still bound, or a cloud that is away, is waited for, not held for.
        let waits = |kind| matches!(kind, Kind::InUse | Kind::Unavailable | Kind::Busy);
        let hopeless = |retry: &Retry| retry.is_hopeless() && !waits(retry.error.kind);
        if let Some((step, retry)) = self.retries.iter().find(|(_, retry)| hopeless(retry)) {
            next.record.push(Event::Held { reason: HoldReason::Step { step: *step, error: retry.error.clone() } });
            return next;
        }
        let Some(deleted) = self.deleted else {
            self.offer(&mut next, Step::RetireKeyPair, self.soaked(), now);
            return next;
        };
        let over = self.grace_over(deleted);
        if self.destroyed {
            next.record.push(Event::Ended { outcome: Outcome::Retired });
        } else if now < over {
            next.wake_at(over);
        } else if self.destroy_allowed || self.plan.proven {
            self.offer(&mut next, Step::DestroyPrivateKey, over, now);
        } else {
            next.record.push(Event::Ended { outcome: Outcome::Kept });
        }
        next
    }

    fn offer(&self, next: &mut Next, step: Step, from: Timestamp, now: Timestamp) {
        let from = self.retries.get(&step).map_or(from, |retry| retry.at.max(from));
        if now < from { next.wake_at(from) } else { next.run.push(step) }
    }
}

/// What is known of one rotation of a fleet and its key pair, for [`due`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The rotation.
    pub rotation: JournalId,
    /// The pair's name.
    pub key_name: KeyPairName,
    /// Whether the pair is a stranger's.
    pub strangers: bool,
    /// The rotation that this one undoes.
    pub undoes: Option<JournalId>,
    /// How this rotation ended; `None` while it is open.
    pub ended: Option<Outcome>,
    /// Whether a retire journal of the pair began after it, ended or not.
    pub retired: bool,
}

/// Which pairs of one fleet are due to be retired: once no rotation is open, each pair of ours that is not the fleet's
/// current one and has no retire journal since its newest rotation (a rollback binds an old pair again, and what is
/// superseded again is retired again). `pairs` come oldest first; a pair is answered by its newest rotation. (The pair of
/// an abandoned rotation is due too: its journal waits while anybody is bound.)
pub fn due(pairs: &[Pair]) -> Vec<&Pair> {
    if pairs.iter().any(|pair| pair.ended.is_none()) {
        return Vec::new();
    }
    let current = current(pairs);
    let is_newest = |index: usize| pairs[index + 1..].iter().all(|later| later.key_name != pairs[index].key_name);
    let due = |index: &usize| {
        let pair = &pairs[*index];
        !pair.strangers && !pair.retired && Some(&pair.key_name) != current && is_newest(*index)
    };
    (0..pairs.len()).filter(due).map(|index| &pairs[index]).collect()
}

/// The pair that a fleet is meant to hang on: that of its newest completed rotation, unless that was rolled back since. A
/// stranger's is none that we could care for.
pub fn current(pairs: &[Pair]) -> Option<&KeyPairName> {
    let mut left: BTreeSet<&KeyPairName> = BTreeSet::new();
    for pair in pairs.iter().rev().filter(|pair| pair.ended == Some(Outcome::Completed)) {
        let undone = pair.undoes.and_then(|undone| pairs.iter().position(|pair| pair.rotation == undone));
        // A catch-up that was undone takes nothing from its fleet but its own few: the pair was there before it.
        let is_new = |index: &usize| {
            let name = &pairs[*index].key_name;
            pairs[..*index].iter().all(|pair| pair.key_name != *name || pair.ended != Some(Outcome::Completed))
        };
        // Nor does the way back from it say where the fleet is to hang.
        let of_few = undone.is_some_and(|index| !is_new(&index) && pairs[index].undoes.is_none());
        if !pair.strangers && !of_few && !left.contains(&pair.key_name) {
            return Some(&pair.key_name);
        }
        left.extend(undone.filter(is_new).map(|index| &pairs[index].key_name));
    }
    None
}

/// ▲ Whether the pair of a retire journal is in use again: a rotation that names it began after that journal. `named`: the
/// journals that name the pair, oldest first. Then nothing is deleted or destroyed by it any more.
pub fn is_recalled<'a>(id: JournalId, named: impl IntoIterator<Item = (JournalId, &'a Plan)>) -> bool {
    let mut later = named.into_iter().skip_while(|(other, _)| *other != id).skip(1);
    later.any(|(_, plan)| matches!(plan, Plan::Rotate(_)))
}
