//! Journals in memory, for simulations: the same contract and the same hash chain as the database's, without a disk.
//! It must never be what a daemon keeps its journals in. Clones are one store: it outlives the engine that crashed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::chain::{self, Line, NOTHING_BEFORE, Tip};
use super::{Head, Journal, StoreError};
use crate::model::{JournalId, Timestamp};
use crate::rotation::{Author, Entry, Event, Part, Plan, PlannedInstance};

/// Journals in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Vec<Kept>>>);

#[derive(Debug)]
struct Kept {
    head: Head,
    hash: String,
    at: Timestamp,
    instances: Vec<PlannedInstance>,
    lines: Vec<Line>,
}

impl Kept {
    fn tip(&self) -> Tip {
        Tip {
            journal: self.head.id,
            is_retire: matches!(self.head.plan, Plan::Retire(_)),
            seq: self.head.seq,
            at: self.at,
            hash: self.hash.clone(),
            ended: self.head.ended.map(|(_, outcome)| outcome),
        }
    }

    fn is_open_rotation(&self) -> bool {
        matches!(self.head.plan, Plan::Rotate(_)) && self.head.ended.is_none()
    }

    fn keep(&mut self, written: Vec<(Line, Entry)>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(written.len());
        for (line, entry) in written {
            self.head.seq = entry.seq;
            self.head.ended = match &entry.event {
                Event::Ended { outcome } => Some((entry.at, *outcome)),
                _ => None,
            };
            self.at = entry.at;
            self.hash = line.hash.clone();
            self.lines.push(line);
            entries.push(entry);
        }
        entries
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it holds no journal.
    pub fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    #[cfg(test)]
    pub(super) fn lines(&self, id: JournalId) -> Vec<Line> {
        find(&self.kept(), id).map(|one| one.lines.clone()).unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        // A panic of another thread leaves nothing half done here: each change is made after all that can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(kept: &[Kept], id: JournalId) -> Result<&Kept, StoreError> {
    kept.iter().find(|one| one.head.id == id).ok_or(StoreError::Missing(id))
}

/// The hash that a new journal of this plan begins from, if it may begin.
fn begins_from(kept: &[Kept], plan: &Plan) -> Result<String, StoreError> {
    let open = |one: &Kept| StoreError::Open { fleet: plan.fleet().clone(), journal: one.head.id };
    match plan {
        Plan::Rotate(_) => {
            let of_fleet = |one: &&Kept| matches!(&one.head.plan, Plan::Rotate(other) if other.fleet == *plan.fleet());
            if let Some(one) = kept.iter().filter(of_fleet).find(|one| one.is_open_rotation()) {
                return Err(open(one));
            }
            Ok(kept.iter().rfind(of_fleet).map_or_else(|| NOTHING_BEFORE.to_string(), |one| one.hash.clone()))
        }
        Plan::Retire(retire) => {
            let is_same =
                |one: &&Kept| matches!(&one.head.plan, Plan::Retire(other) if other.key_name == retire.key_name);
            if let Some(one) = kept.iter().find(is_same) {
                return Err(open(one));
            }
            match find(kept, retire.rotation)? {
                Kept { head: Head { plan: Plan::Rotate(_), .. }, hash, .. } => Ok(hash.clone()),
                _ => Err(StoreError::Missing(retire.rotation)),
            }
        }
    }
}

#[async_trait]
impl Journal for Memory {
    async fn begin(
        &self,
        id: JournalId,
        plan: &Plan,
        instances: &[PlannedInstance],
        by: &Author,
        at: Timestamp,
    ) -> Result<Head, StoreError> {
        let mut kept = self.kept();
        if find(&kept, id).is_ok() {
            return Err(StoreError::Conflict { journal: id, after: 0 });
        }
        let prev = begins_from(&kept, plan)?;
        let instances = match plan {
            Plan::Retire(_) => instances.to_vec(),
            Plan::Rotate(_) => {
                let place = plan.place();
                let mut taken = BTreeMap::new();
                for other in kept.iter().filter(|other| other.is_open_rotation()) {
                    let there = other.head.plan.place();
                    if there.provider == place.provider && there.region == place.region {
                        let batched = other.instances.iter().filter(|one| matches!(one.part, Part::Batch(_)));
                        taken.extend(batched.map(|one| (one.id.clone(), other.head.plan.fleet().clone())));
                    }
                }
                chain::left_to_bind(instances, &taken)?
            }
        };
        let texts = instances.iter().map(chain::json).collect::<Result<Vec<_>, _>>()?;
        let planned = Event::Planned { digest: chain::digest(&chain::json(plan)?, &texts) };
        let written = Tip::fresh(id, plan, prev).extend(0, &[planned], by, at)?;
        let begun = written.first().map_or(at, |(_, entry)| entry.at);
        let head = Head { id, plan: plan.clone(), begun, ended: None, seq: 0 };
        let mut one = Kept { head, hash: String::new(), at: begun, instances, lines: Vec::new() };
        one.keep(written);
        let head = one.head.clone();
        kept.push(one);
        Ok(head)
    }

    async fn head(&self, id: JournalId) -> Result<Head, StoreError> {
        find(&self.kept(), id).map(|one| one.head.clone())
    }

    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        Ok(self.kept().iter().map(|one| one.head.clone()).collect())
    }

    async fn instances(&self, id: JournalId) -> Result<Vec<PlannedInstance>, StoreError> {
        find(&self.kept(), id).map(|one| one.instances.clone())
    }

    async fn read(&self, id: JournalId, after: u64) -> Result<Vec<Entry>, StoreError> {
        let kept = self.kept();
        let lines = &find(&kept, id)?.lines;
        let known = usize::try_from(after).unwrap_or(usize::MAX);
        let prev = match known.checked_sub(1) {
            None => lines.first().map(|line| &line.prev),
            Some(last) => lines.get(last).map(|line| &line.hash),
        };
        let missing = || StoreError::Damaged { journal: id, problem: format!("entry {after} is missing") };
        chain::read(id, after, prev.ok_or_else(missing)?, &lines[known..])
    }

    async fn append(
        &self,
        id: JournalId,
        after: u64,
        events: &[Event],
        by: &Author,
        at: Timestamp,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut kept = self.kept();
        let one = kept.iter_mut().find(|one| one.head.id == id).ok_or(StoreError::Missing(id))?;
        let written = one.tip().extend(after, events, by, at)?;
        Ok(one.keep(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        assert_eq!(conformance::hold(async || ((), Memory::new())).await, 17);
    }

    #[tokio::test]
    async fn clones_are_one_store() {
        let memory = Memory::new();
        assert!(memory.is_empty());
        conformance::rotated(&memory.clone(), 1, "web").await;
        assert!(!memory.is_empty());
        assert_eq!(memory.heads().await.unwrap().len(), 1);
    }
}
