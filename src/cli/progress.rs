//! Progress lines: time, fleet, what, as each entry becomes durable. It hears and prints; it cannot steer, and must not
//! fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, SystemClock};
use crate::engine::Observer;
use crate::model::{FleetName, JournalId, Timestamp};
use crate::rotation::{Entry, Event, Plan};

use super::output::{Output, Tone, moment};
use super::story::Teller;

/// Prints each entry as one line.
pub(super) struct Progress {
    out: Output,
    tellers: Mutex<BTreeMap<JournalId, Teller>>,
    spoke: Mutex<Timestamp>,
}

impl Progress {
    pub(super) fn new(out: Output) -> Self {
        Self { out, tellers: Mutex::default(), spoke: Mutex::new(SystemClock.now()) }
    }

    /// When it last said something.
    pub(super) fn spoke(&self) -> Timestamp {
        *self.spoke.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something of a fleet that is no entry.
    pub(super) fn say(&self, fleet: &FleetName, text: &str) {
        let now = SystemClock.now();
        *self.spoke.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.out.line(format!("{}  {fleet}  {text}", self.out.tone(Tone::Faint, moment(now))));
    }
}

impl Observer for Progress {
    fn recorded(&self, id: JournalId, plan: &Plan, entry: &Entry) {
        let mut tellers = self.tellers.lock().unwrap_or_else(PoisonError::into_inner);
        let told = tellers.entry(id).or_default().tell(plan, entry);
        let told = match plan {
            Plan::Rotate(_) => told,
            Plan::Retire(plan) => format!("old key pair {}: {told}", plan.key_name),
        };
        *self.spoke.lock().unwrap_or_else(PoisonError::into_inner) = entry.at;
        let tone = match &entry.event {
            Event::Held { .. } => Some(Tone::Bad),
            Event::Excluded { .. } | Event::Failed { .. } => Some(Tone::Careful),
            Event::Activated { .. } | Event::Ended { .. } => Some(Tone::Good),
            _ => None,
        };
        let told = tone.map_or(told.clone(), |tone| self.out.tone(tone, told));
        self.out.line(format!("{}  {}  {told}", self.out.tone(Tone::Faint, moment(entry.at)), plan.fleet()));
    }
}
