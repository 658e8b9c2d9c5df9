//! What every store holds to, pure: the hash chain, the numbering, the times, when nothing more may be appended, who is
//! left out of a plan. It works on the *written* texts: what is hashed is what is kept, so that a later release which
//! writes an event differently still believes the old ones. It must never ask the time or touch a database.

use std::collections::BTreeMap;
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

/// The instances of a new rotation without those that another fleet's open rotation has in a batch (`taken`).
/// `NobodyToBind` if no batch has anybody left.
pub(super) fn left_to_bind(
    instances: &[PlannedInstance],
    taken: &BTreeMap<InstanceId, FleetName>,
) -> Result<Vec<PlannedInstance>, StoreError> {
    let mut left = instances.to_vec();
    for instance in &mut left {
        if let (Part::Batch(_), Some(fleet)) = (&instance.part, taken.get(&instance.id)) {
            instance.part = Part::Excluded(format!("fleet {fleet} has it in its open rotation"));
        }
    }
    if left.iter().any(|instance| matches!(instance.part, Part::Batch(_))) {
        Ok(left)
    } else {
        Err(StoreError::NobodyToBind)
    }
}

/// A value as it is written.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(format!("cannot be written as JSON: {error}")))
}

/// A time as it is written: RFC 3339, UTC, three decimals.
fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// What is written of a time, so that an entry reads back as it was answered.
fn whole_milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
