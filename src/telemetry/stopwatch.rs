//! How long steps take, by the journal's own times: from the first call for a batch until what it was for is seen, or
//! given up, for all of it. What was known not done does not count. Pure; it knows only what it heard, so that a step
//! begun before a restart is not measured.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::error::Effect;
use crate::model::{Duration, InstanceId, JournalId, Timestamp};
use crate::rotation::{Allow, Call, Entry, Event, Step};

/// The steps under way.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    laps: BTreeMap<(JournalId, Step), Lap>,
}

/// A step under way.
#[derive(Debug)]
struct Lap {
    since: Timestamp,
    call: Call,
    /// Those whose outcome is not seen yet; empty from the start where a call has no instances.
    awaited: BTreeSet<InstanceId>,
    /// Whether anything was seen to come of it.
    seen: bool,
}

impl Stopwatch {
    /// Takes in an entry, and tells which steps it ends, and how long they took.
    pub fn hear(&mut self, journal: JournalId, entry: &Entry) -> Vec<(Step, Duration)> {
        let whole = |step| (journal, step);
        match &entry.event {
            Event::Started { step, call, found } => {
                let fresh = || Lap { since: entry.at, call: *call, awaited: BTreeSet::new(), seen: false };
                let lap = self.laps.entry((journal, *step)).or_insert_with(fresh);
                lap.call = *call;
                lap.awaited.extend(found.iter().map(|found| found.instance.clone()));
                Vec::new()
            }
            Event::Failed { step, instances, error, .. } => {
                if error.effect == Effect::Unknown {
                    // It may have been done: the next looks say.
                    return Vec::new();
                }
                match self.laps.get(&(journal, *step)) {
                    Some(lap) if lap.awaited.is_empty() || instances.is_empty() => {
                        self.laps.remove(&(journal, *step));
                        Vec::new()
                    }
                    Some(_) => self.end(journal, entry.at, instances, |of, _| of == *step, false),
                    None => Vec::new(),
                }
            }
            Event::HookStarted { hook, batch } => {
                // It awaits no instance: nothing but its own end ends it.
                let lap = Lap { since: entry.at, call: Call::Put, awaited: BTreeSet::new(), seen: false };
                self.laps.entry(whole(hook.step(*batch))).or_insert(lap);
                Vec::new()
            }
            Event::HookEnded { hook, batch, .. } => self.end_whole(whole(hook.step(*batch)), entry.at),
            Event::KeyStored { .. } => self.end_whole(whole(Step::StoreKey), entry.at),
            Event::KeyImported { .. } => self.end_whole(whole(Step::ImportKey), entry.at),
            Event::Delivered { .. } => self.end_whole(whole(Step::Deliver), entry.at),
            Event::KeyPairDeleted => self.end_whole(whole(Step::RetireKeyPair), entry.at),
            Event::PrivateKeyDestroyed => self.end_whole(whole(Step::DestroyPrivateKey), entry.at),
            Event::Down { stopped, .. } => self.end(journal, entry.at, stopped, |_, call| call == Call::Stop, true),
            Event::Bound { instances } => {
                let ids = instances.iter().map(|bound| &bound.instance);
                self.end(journal, entry.at, ids, |_, call| matches!(call, Call::Stop | Call::Bind), true)
            }
            Event::Activated { instances } | Event::Running { instances } | Event::Gone { instances } => {
                self.end(journal, entry.at, instances, |_, _| true, true)
            }
            Event::Excluded { instances } => {
                let ids = instances.iter().map(|excluded| &excluded.instance);
                self.end(journal, entry.at, ids, |_, _| true, true)
            }
            Event::Released { allow: Some(Allow::LeaveOff(id)), .. } => {
                self.end(journal, entry.at, [id], |_, _| true, true)
            }
            Event::Ended { .. } => {
                self.laps.retain(|(of, _), _| *of != journal);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn end_whole(&mut self, of: (JournalId, Step), at: Timestamp) -> Vec<(Step, Duration)> {
        self.laps.remove(&of).map(|lap| (of.1, since(lap.since, at))).into_iter().collect()
    }

    /// These are awaited no more in the steps that `ends` picks; `seen`: their outcome was.
    fn end<'a>(
        &mut self,
        journal: JournalId,
        at: Timestamp,
        ids: impl IntoIterator<Item = &'a InstanceId> + Clone,
        ends: impl Fn(Step, Call) -> bool,
        seen: bool,
    ) -> Vec<(Step, Duration)> {
        let mut over = Vec::new();
        let all = (journal, Step::StoreKey)..=(journal, Step::DestroyPrivateKey);
        for ((_, step), lap) in self.laps.range_mut(all).filter(|((_, step), lap)| ends(*step, lap.call)) {
            let mut any = false;
            for id in ids.clone() {
                any |= lap.awaited.remove(id);
            }
            lap.seen |= any && seen;
            if any && lap.awaited.is_empty() {
                over.push(*step);
            }
        }
        let over = over.into_iter().filter_map(|step| Some((step, self.laps.remove(&(journal, step))?)));
        over.filter(|(_, lap)| lap.seen).map(|(step, lap)| (step, since(lap.since, at))).collect()
    }
}

/// From one moment to a later one; nothing if it is not later.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Power;
    use crate::model::error::{Blame, Error, Kind};
    use crate::rotation::{Author, BoundInstance, ExcludedInstance, Exclusion, Found};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }
    fn ids(ids: &str) -> Vec<InstanceId> {
        ids.split_whitespace().map(InstanceId::from).collect()
    }
    fn started(step: Step, call: Call, of: &str) -> Event {
        let found = |instance| Found { instance, power: Power::Running, keys: Vec::new(), boot: None };
        Event::Started { step, call, found: ids(of).into_iter().map(found).collect() }
    }
    fn bound(of: &str) -> Event {
        let bound = |instance| BoundInstance { instance, power: Power::Running, boot: None };
        Event::Bound { instances: ids(of).into_iter().map(bound).collect() }
    }
    fn excluded(of: &str) -> Event {
        let excluded = |instance| ExcludedInstance { instance, reason: Exclusion::SettleMissed };
        Event::Excluded { instances: ids(of).into_iter().map(excluded).collect() }
    }
    fn failed(step: Step, of: &str, effect: Effect) -> Event {
        let error = Error {
            kind: Kind::Busy,
            effect,
            blame: Blame::Request,
            action: String::new(),
            code: String::new(),
            message: String::new(),
            request_id: None,
            retry_after: None,
        };
        Event::Failed { step, instances: ids(of), error, retry_at: at(0) }
    }
    fn down(of: &str) -> Event {
        Event::Down { stopped: ids(of), changing: Vec::new() }
    }
    fn activated(of: &str) -> Event {
        Event::Activated { instances: ids(of) }
    }
    fn running(of: &str) -> Event {
        Event::Running { instances: ids(of) }
    }

    /// The events come at these seconds; expected are steps and seconds.
    #[track_caller]
    fn check(events: &[(i64, Event)], expect: &[(Step, u64)]) {
        let mut stopwatch = Stopwatch::default();
        let (one, other) = (JournalId::derive(at(0), [1; 10]), JournalId::derive(at(0), [2; 10]));
        let mut heard = Vec::new();
        for (seq, (second, event)) in (1..).zip(events) {
            let by = Author::Engine("e".to_string());
            let entry = Entry { seq, at: at(*second), by, event: event.clone() };
            heard.extend(stopwatch.hear(one, &entry));
            // What happens elsewhere ends nothing here.
            if !matches!(event, Event::Started { .. }) {
                assert_eq!(stopwatch.hear(other, &entry), []);
            }
        }
        let expect: Vec<_> = expect.iter().map(|(step, seconds)| (*step, Duration::from_secs(*seconds))).collect();
        assert_eq!(heard, expect);
    }

    #[test]
    fn a_step_of_a_batch_lasts_until_the_last_of_it_is_seen() {
        let bind = Step::Bind(2);
        check(&[(0, started(bind, Call::Bind, "a b")), (3, bound("a")), (7, bound("b"))], &[(bind, 7)]);
        check(&[(0, started(bind, Call::Bind, "a b")), (3, bound("a b")), (7, bound("b"))], &[(bind, 3)]);
        check(&[(0, started(bind, Call::Bind, "a b")), (3, bound("a")), (900, excluded("b"))], &[(bind, 900)]);
        check(&[(0, started(bind, Call::Bind, "a b")), (3, bound("a"))], &[]);
        let (prepare, activate) = (Step::Prepare(2), Step::Activate(2));
        let cvm = [
            (0, started(prepare, Call::Stop, "a")),
            (10, down("a")),
            (11, started(bind, Call::Bind, "a")),
            (13, bound("a")),
            (14, started(activate, Call::Start, "a")),
            (20, activated("a")),
        ];
        check(&cvm, &[(prepare, 10), (bind, 2), (activate, 6)]);
        check(&[(0, started(activate, Call::Stop, "a")), (4, down("a"))], &[(activate, 4)]);
        check(&[(0, started(activate, Call::Start, "a")), (4, down("a")), (6, running("a"))], &[(activate, 6)]);
    }

    #[test]
    fn what_was_not_done_is_not_measured_and_what_is_unknown_goes_on() {
        let bind = Step::Bind(0);
        let start = || (0, started(bind, Call::Bind, "a b"));
        check(&[start(), (1, failed(bind, "a b", Effect::NotDone)), (9, bound("a b"))], &[]);
        check(&[start(), (1, failed(bind, "", Effect::NotDone)), (9, bound("a b"))], &[]);
        check(&[start(), (1, failed(bind, "a", Effect::NotDone)), (9, bound("b"))], &[(bind, 9)]);
        check(&[start(), (1, bound("b")), (9, failed(bind, "a", Effect::NotDone))], &[(bind, 9)]);
        check(&[start(), (1, failed(bind, "a b", Effect::Unknown)), (9, bound("a b"))], &[(bind, 9)]);
        let again = (5, started(bind, Call::Bind, "a b"));
        check(&[start(), (1, failed(bind, "a b", Effect::NotDone)), again.clone(), (9, bound("a b"))], &[(bind, 4)]);
        check(&[start(), (1, failed(bind, "a b", Effect::Unknown)), again, (9, bound("a b"))], &[(bind, 9)]);
    }

    #[test]
    fn steps_without_instances_end_with_their_own_event() {
        let import = Step::ImportKey;
        let imported = || Event::KeyImported { key_pair: "k".into() };
        check(&[(0, started(import, Call::Import, "")), (2, imported())], &[(import, 2)]);
        check(&[(2, imported())], &[]);
        let refused = failed(import, "", Effect::NotDone);
        check(&[(0, started(import, Call::Import, "")), (1, refused), (2, imported())], &[]);
        let retire = Step::RetireKeyPair;
        let asked = |second| (second, started(retire, Call::Delete, ""));
        check(&[asked(0), asked(10), (12, Event::KeyPairDeleted)], &[(retire, 12)]);
        let destroy = Step::DestroyPrivateKey;
        check(&[(0, started(destroy, Call::Destroy, "")), (1, Event::PrivateKeyDestroyed)], &[(destroy, 1)]);
        let ended = Event::Ended { outcome: crate::rotation::Outcome::Abandoned };
        check(&[(0, started(import, Call::Import, "")), (1, ended), (2, imported())], &[]);
    }
}
