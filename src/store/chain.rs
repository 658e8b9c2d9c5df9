//! What every store holds to, pure: the hash chain, the numbering, the times, when nothing more may be appended, who is
//! left out of a plan. It works on the *written* texts: what is hashed is what is kept, so that a later release which
//! writes an event differently still believes the old ones. It must never ask the time or touch a database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::model::{FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::{Author, Entry, Event, Outcome, Part, Plan, PlannedInstance};

/// What stands before the first entry of all.
pub(super) const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) seq: u64,
    /// RFC 3339, UTC, three decimals.
    pub(super) at: String,
    /// JSON.
    pub(super) author: String,
    /// JSON.
    pub(super) event: String,
    /// The hash of the entry before.
    pub(super) prev: String,
    pub(super) hash: String,
}

/// Where a journal stands: all that the next entry depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) journal: JournalId,
    pub(super) is_retire: bool,
    /// 0: nothing is written yet.
    pub(super) seq: u64,
    /// The newest entry's time.
    pub(super) at: Timestamp,
    /// Its hash.
    pub(super) hash: String,
    pub(super) ended: Option<Outcome>,
}

impl Tip {
    /// A journal before its first entry; `prev` is the hash that it begins from.
    pub(super) fn fresh(journal: JournalId, plan: &Plan, prev: String) -> Self {
        let is_retire = matches!(plan, Plan::Retire(_));
        Self { journal, is_retire, seq: 0, at: Timestamp::MIN, hash: prev, ended: None }
    }

    /// Writes events behind what stands: what is kept, and what it reads as. `Conflict` unless `after` is the newest
    /// entry; `Ended` if one of them would follow the end. Only a release follows the end of a *kept* retire journal,
    /// and opens it again.
    pub(super) fn extend(
        mut self,
        after: u64,
        events: &[Event],
        by: &Author,
        at: Timestamp,
    ) -> Result<Vec<(Line, Entry)>, StoreError> {
        if after != self.seq {
            return Err(StoreError::Conflict { journal: self.journal, after });
        }
        let author = json(by)?;
        let mut written = Vec::with_capacity(events.len());
        for event in events {
            if let Some(outcome) = self.ended.take() {
                let reopens = self.is_retire && outcome == Outcome::Kept && matches!(event, Event::Released { .. });
                if !reopens {
                    return Err(StoreError::Ended(self.journal));
                }
            }
            if let Event::Ended { outcome } = event {
                self.ended = Some(*outcome);
            }
            self.seq += 1;
            self.at = whole_milliseconds(at).max(self.at);
            let mut line = Line {
                seq: self.seq,
                at: time(self.at),
                author: author.clone(),
                event: json(event)?,
                prev: self.hash,
                hash: String::new(),
            };
            line.hash = line.sum(self.journal);
            self.hash = line.hash.clone();
            written.push((line, Entry { seq: self.seq, at: self.at, by: by.clone(), event: event.clone() }));
        }
        Ok(written)
    }
}

impl Line {
    /// SHA-256 in hex of the texts, one a line: `printf '%s\n' PREV JOURNAL SEQ AT AUTHOR EVENT | sha256sum`.
    /// None of them holds a line feed (JSON escapes it), so no two entries are written alike.
    fn sum(&self, journal: JournalId) -> String {
        let mut sum = Sha256::new();
        for text in [&self.prev, &journal.to_string(), &self.seq.to_string(), &self.at, &self.author, &self.event] {
            sum.update(text.as_bytes());
            sum.update(b"\n");
        }
        hex::encode(sum.finalize())
    }

    fn entry(&self) -> Result<Entry, String> {
        let unreadable = |what: &str, error: &dyn Display| format!("entry {}: {what}: {error}", self.seq);
        Ok(Entry {
            seq: self.seq,
            at: self.at.parse().map_err(|error| unreadable("time", &error))?,
            by: serde_json::from_str(&self.author).map_err(|error| unreadable("author", &error))?,
            event: serde_json::from_str(&self.event).map_err(|error| unreadable("event", &error))?,
        })
    }
}

/// Reads lines that follow entry `after` of the hash `prev`. `Damaged` at the first that is missing, changed or
/// unreadable.
pub(super) fn read<'a>(
    journal: JournalId,
    after: u64,
    prev: &str,
    lines: impl IntoIterator<Item = &'a Line>,
) -> Result<Vec<Entry>, StoreError> {
    let damaged = |problem: String| StoreError::Damaged { journal, problem };
    let mut prev = prev;
    let mut entries: Vec<Entry> = Vec::new();
    for (line, seq) in lines.into_iter().zip(after + 1..) {
        if line.seq != seq {
            return Err(damaged(format!("entry {seq} is missing")));
        }
        if line.prev != prev {
            return Err(damaged(format!("entry {seq} does not follow the entry before it")));
        }
        if line.hash != line.sum(journal) {
            return Err(damaged(format!("entry {seq} was changed after it was written")));
        }
        let entry = line.entry().map_err(damaged)?;
        if entries.last().is_some_and(|last| entry.at < last.at) {
            return Err(damaged(format!("entry {seq} is earlier than the entry before it")));
        }
        entries.push(entry);
        prev = &line.hash;
    }
    Ok(entries)
}

/// The digest in `Planned`: SHA-256 in hex of the plan and its instances as they are written, one a line.
pub(super) fn digest(plan: &str, instances: &[String]) -> String {
    let mut sum = Sha256::new();
    for text in std::iter::once(plan).chain(instances.iter().map(String::as_str)) {
        sum.update(text.as_bytes());
        sum.update(b"\n");
    }
    hex::encode(sum.finalize())
}

/// Holds the plan that is kept against the digest of the journal's first entry.
pub(super) fn check_digest(
    journal: JournalId,
    first: Option<&Event>,
    plan: &str,
    instances: &[String],
) -> Result<(), StoreError> {
    let problem = match first {
        Some(Event::Planned { digest: planned }) if *planned == digest(plan, instances) => return Ok(()),
        Some(Event::Planned { .. }) => "the plan or its instances are not those that it began with",
        _ => "it does not begin with its plan",
    };
    Err(StoreError::Damaged { journal, problem: problem.to_string() })
}

/// The instances of a new rotation without those that another fleet's open rotation has in a batch (`taken`, by whom).
/// `NobodyToBind` if no batch has anybody left. A canary batch that is left empty gets the first of those that remain (they
/// stand in the plan's order, running ones first): nobody is staked on a path that no canary has gone.
pub(super) fn left_to_bind(
    instances: &[PlannedInstance],
    taken: &BTreeMap<InstanceId, Option<FleetName>>,
) -> Result<Vec<PlannedInstance>, StoreError> {
    let mut left = instances.to_vec();
    for instance in &mut left {
        if let (Part::Batch(_), Some(by)) = (&instance.part, taken.get(&instance.id)) {
            instance.part = Part::Excluded(match by {
                Some(fleet) => format!("fleet {fleet} has it in its open rotation"),
                None => "a rotation that cannot be read has it, and may be open".to_string(),
            });
        }
    }
    let batch = |instance: &PlannedInstance| match instance.part {
        Part::Batch(batch) => Some(batch),
        Part::Excluded(_) => None,
    };
    let Some(first) = left.iter().filter_map(batch).min() else { return Err(StoreError::NobodyToBind) };
    if first > 0
        && let Some(next) = left.iter_mut().find(|instance| batch(instance) == Some(first))
    {
        next.part = Part::Batch(0);
    }
    // Without gaps: the soak is waited before batch 1.
    let numbers: BTreeSet<u32> = left.iter().filter_map(batch).collect();
    let places: BTreeMap<u32, u32> = numbers.into_iter().zip(0..).collect();
    for instance in &mut left {
        if let Part::Batch(batch) = &mut instance.part {
            *batch = places[batch];
        }
    }
    Ok(left)
}

/// A value as it is written.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("cannot be written as JSON: {error}")))
}

/// A time as it is written: RFC 3339, UTC, three decimals.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// What is written of a time, so that an entry reads back as it was answered.
pub(super) fn whole_milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::HoldReason;

    #[test]
    fn a_canary_that_another_fleet_has_is_replaced_by_the_first_that_is_left() {
        let check = |batches: &[(&str, u32)], taken: &[&str], expect: &str| {
            let planned = |(id, batch): &(&str, u32)| PlannedInstance {
                id: InstanceId::new(*id),
                name: String::new(),
                power: crate::model::Power::Running,
                keys: Vec::new(),
                part: Part::Batch(*batch),
                pin: None,
                known: None,
            };
            let instances: Vec<PlannedInstance> = batches.iter().map(planned).collect();
            let taken = taken.iter().map(|id| (InstanceId::new(*id), Some(FleetName::new("db")))).collect();
            let shown = match left_to_bind(&instances, &taken) {
                Err(error) => error.to_string(),
                Ok(left) => {
                    let part = |instance: &PlannedInstance| match instance.part {
                        Part::Batch(batch) => format!("{}{batch}", instance.id),
                        Part::Excluded(_) => format!("{}-", instance.id),
                    };
                    left.iter().map(part).collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(shown, expect);
        };
        let all = [("a", 0), ("b", 1), ("c", 1), ("d", 2)];
        check(&all, &[], "a0 b1 c1 d2");
        check(&all, &["c"], "a0 b1 c- d2");
        check(&all, &["a"], "a- b0 c1 d2");
        check(&all, &["a", "b", "c"], "a- b- c- d0");
        check(&[("a", 0), ("b", 1), ("c", 2)], &["a"], "a- b0 c1");
        check(&all, &["b", "c"], "a0 b- c- d1");
        check(&all, &["a", "b", "c", "d"], &StoreError::NobodyToBind.to_string());
    }

    // Made with printf and sha256sum, apart from this program. Never to be changed: what a release has hashed, every
    // later one must still believe.
    const FIRST: &str = "30d83db4e97777c469ea9487f24bcc29a39dee2dfce821a33d9e00f8c72a2f93";
    const SECOND: &str = "76b722f4b3611541cc46db10a1196c51293614eb3ea99152c4c00a1a930ea603";
    const DIGEST: &str = "9142ffcd415d8ae05a7c1cece7d1e4025038ce82033ed3bd9109a792674ca6e9";

    #[test]
    fn hashes_are_those_that_sha256sum_makes() {
        let journal = "01940000-0000-7000-8000-000000000001".parse().unwrap();
        let at = "2026-11-22T01:02:03.004567Z".parse().unwrap();
        let tip = |seq, hash: &str| Tip {
            journal,
            is_retire: false,
            seq,
            at: Timestamp::MIN,
            hash: hash.to_string(),
            ended: None,
        };
        let check = |tip: Tip, by: Author, event: Event, expect: &str| {
            let prev = tip.hash.clone();
            let after = tip.seq;
            let (line, entry) = tip.extend(after, &[event], &by, at).unwrap().remove(0);
            assert_eq!(line.hash, expect, "{line:?}");
            assert_eq!(read(journal, after, &prev, [&line]).unwrap(), [entry]);
        };
        let planned = Event::Planned { digest: "00ff".into() };
        check(tip(0, NOTHING_BEFORE), Author::Engine("run-1".into()), planned, FIRST);
        let held = Event::Held { reason: HoldReason::Operator { note: "two\nlines".into() } };
        check(tip(1, FIRST), Author::Operator("wei".into()), held, SECOND);
        assert_eq!(digest(r#"{"plan":1}"#, &[r#"{"id":"i-1"}"#.to_string(), r#"{"id":"i-2"}"#.to_string()]), DIGEST);
    }

    #[test]
    fn an_event_that_this_release_cannot_read_is_damage_and_not_a_panic() {
        let journal = "01940000-0000-7000-8000-000000000001".parse().unwrap();
        let check = |at: &str, author: &str, event: &str, expect: &str| {
            let mut line = Line {
                seq: 1,
                at: at.into(),
                author: author.into(),
                event: event.into(),
                prev: NOTHING_BEFORE.into(),
                hash: String::new(),
            };
            line.hash = line.sum(journal);
            match read(journal, 0, NOTHING_BEFORE, [&line]) {
                Err(StoreError::Damaged { problem, .. }) => assert!(problem.contains(expect), "{problem}"),
                other => panic!("{other:?}"),
            }
        };
        let (at, author, event) = ("2026-11-22T01:02:03.004Z", r#"{"engine":"x"}"#, r#"{"event":"key_pair_deleted"}"#);
        check("yesterday", author, event, "entry 1: time");
        check(at, r#"{"cat":"x"}"#, event, "entry 1: author");
        check(at, author, r#"{"event":"from_the_future"}"#, "entry 1: event");
        check(at, author, "", "entry 1: event");
    }
}
