//! Journals and the agenda in memory, for simulations: the same contracts and the same hash chain as the database's, without
//! a disk. It must never be what a daemon keeps its journals in. Clones are one store: it outlives the engine that crashed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::chain::{self, Line, NOTHING_BEFORE, Tip};
use super::{Agenda, Answer, Ask, DueTime, Head, Heads, Journal, LateLook, Request, StoreError, stands_in_the_way};
use crate::model::{FleetName, JournalId, RequestId, Timestamp};
use crate::rotation::{Author, Entry, Event, Part, Plan, PlannedInstance};

/// Journals and the agenda in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    journals: Vec<Kept>,
    /// Of each entry of all journals, in the order in which they were written: its journal, and whether a person wrote it.
    written: Vec<(JournalId, bool)>,
    requests: Vec<Request>,
    due: BTreeMap<FleetName, DueTime>,
    late: BTreeMap<FleetName, LateLook>,
}

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
        self.all().journals.is_empty()
    }

    #[cfg(test)]
    pub(super) fn lines(&self, id: JournalId) -> Vec<Line> {
        find(&self.all().journals, id).map(|one| one.lines.clone()).unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // A panic of another thread leaves nothing half done here: each change is made after all that can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// The fleets whose newest hold or release is a hold, each with it.
    fn paused(&self) -> BTreeMap<FleetName, Request> {
        let counting = self.requests.iter().filter(|request| request.counts_for_pause());
        let mut newest: BTreeMap<FleetName, Request> =
            counting.map(|request| (request.fleet.clone(), request.clone())).collect();
        newest.retain(|_, request| matches!(request.ask, Ask::Hold { .. }));
        newest
    }

    fn request(&mut self, id: RequestId) -> Result<&mut Request, StoreError> {
        self.requests.iter_mut().find(|request| request.id == id).ok_or(StoreError::NoRequest(id))
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
            let named = kept.iter().filter(|one| *one.head.plan.key_name() == retire.key_name);
            if let Some(journal) = stands_in_the_way(&named.map(Kept::tip).collect::<Vec<_>>()) {
                return Err(StoreError::Open { fleet: plan.fleet().clone(), journal });
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
        let mut all = self.all();
        if find(&all.journals, id).is_ok() {
            return Err(StoreError::Conflict { journal: id, after: 0 });
        }
        let paused = all.paused().remove(plan.fleet()).filter(|_| matches!(plan, Plan::Rotate(_)));
        if let Some(refusal) = paused.and_then(Request::refusal) {
            return Err(refusal);
        }
        let kept = &all.journals;
        let prev = begins_from(kept, plan)?;
        let instances = match plan {
            Plan::Retire(_) => instances.to_vec(),
            Plan::Rotate(_) => {
                let place = plan.place();
                let mut taken = BTreeMap::new();
                for other in kept.iter().filter(|other| other.is_open_rotation()) {
                    let there = other.head.plan.place();
                    if there.provider == place.provider && there.region == place.region {
                        let batched = other.instances.iter().filter(|one| matches!(one.part, Part::Batch(_)));
                        taken.extend(batched.map(|one| (one.id.clone(), Some(other.head.plan.fleet().clone()))));
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
        all.journals.push(one);
        all.written.push((id, is_operator(by)));
        Ok(head)
    }

    async fn head(&self, id: JournalId) -> Result<Head, StoreError> {
        find(&self.all().journals, id).map(|one| one.head.clone())
    }

    async fn heads(&self) -> Result<Heads, StoreError> {
        let readable = self.all().journals.iter().map(|one| one.head.clone()).collect();
        Ok(Heads { readable, unreadable: Vec::new() })
    }

    async fn instances(&self, id: JournalId) -> Result<Vec<PlannedInstance>, StoreError> {
        find(&self.all().journals, id).map(|one| one.instances.clone())
    }

    async fn read(&self, id: JournalId, after: u64) -> Result<Vec<Entry>, StoreError> {
        let all = self.all();
        let lines = &find(&all.journals, id)?.lines;
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
        let mut all = self.all();
        let one = all.journals.iter_mut().find(|one| one.head.id == id).ok_or(StoreError::Missing(id))?;
        let written = one.tip().extend(after, events, by, at)?;
        let entries = one.keep(written);
        all.written.extend(entries.iter().map(|_| (id, is_operator(by))));
        Ok(entries)
    }
}

fn is_operator(by: &Author) -> bool {
    matches!(by, Author::Operator(_))
}

#[async_trait]
impl Agenda for Memory {
    async fn ask(&self, fleet: &FleetName, ask: &Ask, by: &Author, at: Timestamp) -> Result<RequestId, StoreError> {
        let mut all = self.all();
        let id = RequestId::new(all.requests.len() as u64 + 1);
        let (fleet, ask, by, at) = (fleet.clone(), ask.clone(), by.clone(), chain::whole_milliseconds(at));
        all.requests.push(Request { id, fleet, ask, by, at, answer: None });
        Ok(id)
    }

    async fn asked(&self) -> Result<Vec<Request>, StoreError> {
        Ok(self.all().requests.iter().filter(|request| request.answer.is_none()).cloned().collect())
    }

    async fn request(&self, id: RequestId) -> Result<Request, StoreError> {
        self.all().request(id).cloned()
    }

    async fn answer(&self, id: RequestId, answer: &Answer, at: Timestamp) -> Result<bool, StoreError> {
        let mut all = self.all();
        let request = all.request(id)?;
        if request.answer.is_some() {
            return Ok(false);
        }
        request.answer = Some((chain::whole_milliseconds(at), answer.clone()));
        Ok(true)
    }

    async fn note_refused(&self, fleet: &FleetName, why: &str, by: &Author, at: Timestamp) -> Result<(), StoreError> {
        let mut all = self.all();
        let (id, at) = (RequestId::new(all.requests.len() as u64 + 1), chain::whole_milliseconds(at));
        let answer = Some((at, Answer::Refused(why.to_string())));
        all.requests.push(Request { id, fleet: fleet.clone(), ask: Ask::rotate(), by: by.clone(), at, answer });
        Ok(())
    }

    async fn refused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError> {
        let rotates = |request: &&Request| matches!(request.ask, Ask::Rotate { .. });
        let newest: BTreeMap<FleetName, Request> =
            self.all().requests.iter().filter(rotates).map(|one| (one.fleet.clone(), one.clone())).collect();
        let refused = |request: &Request| matches!(request.answer, Some((_, Answer::Refused(_))));
        Ok(newest.into_iter().filter(|(_, request)| refused(request)).collect())
    }

    async fn paused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError> {
        Ok(self.all().paused())
    }

    async fn due_times(&self) -> Result<BTreeMap<FleetName, DueTime>, StoreError> {
        Ok(self.all().due.clone())
    }

    async fn set_due(&self, fleet: &FleetName, due: Option<&DueTime>) -> Result<(), StoreError> {
        let mut all = self.all();
        match due {
            None => all.due.remove(fleet),
            Some(DueTime { schedule, at }) => {
                let due = DueTime { schedule: schedule.clone(), at: chain::whole_milliseconds(*at) };
                all.due.insert(fleet.clone(), due)
            }
        };
        Ok(())
    }

    async fn late_looks(&self) -> Result<BTreeMap<FleetName, LateLook>, StoreError> {
        Ok(self.all().late.clone())
    }

    async fn set_late(&self, fleet: &FleetName, look: &LateLook) -> Result<(), StoreError> {
        let look = LateLook { at: chain::whole_milliseconds(look.at), new: look.new.clone() };
        self.all().late.insert(fleet.clone(), look);
        Ok(())
    }

    async fn touched(&self, after: u64) -> Result<(u64, Vec<JournalId>), StoreError> {
        let all = self.all();
        let known = usize::try_from(after).unwrap_or(usize::MAX);
        let mut ids: Vec<JournalId> = Vec::new();
        for (id, is_operator) in all.written.iter().skip(known) {
            if *is_operator && !ids.contains(id) {
                ids.push(*id);
            }
        }
        Ok((all.written.len() as u64, ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        assert_eq!(conformance::hold(async || ((), Memory::new())).await, 17);
        assert_eq!(conformance::agenda::hold(async || ((), Memory::new())).await, 13);
    }

    #[tokio::test]
    async fn clones_are_one_store() {
        let memory = Memory::new();
        assert!(memory.is_empty());
        conformance::rotated(&memory.clone(), 1, "web").await;
        assert!(!memory.is_empty());
        assert_eq!(memory.heads().await.unwrap().readable.len(), 1);
        memory.clone().ask(&"web".into(), &Ask::rotate(), &conformance::operator(), conformance::at(0)).await.unwrap();
        assert_eq!(memory.asked().await.unwrap().len(), 1);
    }
}
