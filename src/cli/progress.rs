//! What happens, as each entry becomes durable: a line an entry, or, on a terminal, a bar a rotation and the lines that matter.
//! It hears and prints; it cannot steer, and must not fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, SystemClock};
use crate::config::Env;
use crate::engine::{Observer, View};
use crate::model::{FleetName, JournalId, Timestamp};
use crate::rotation::{Entry, Event, Plan};

use super::live::{Live, matters};
use super::output::{Output, Tone, moment};
use super::story::Teller;

/// Tells each entry.
pub(super) struct Progress {
    out: Output,
    live: Option<Live>,
    tellers: Mutex<BTreeMap<JournalId, Teller>>,
    spoke: Mutex<Timestamp>,
}

impl Progress {
    pub(super) fn new(out: Output, env: Env<'_>) -> Self {
        let live = Live::on_stderr(env);
        Self { out, live, tellers: Mutex::default(), spoke: Mutex::new(SystemClock.now()) }
    }

    /// When it last said something.
    pub(super) fn spoke(&self) -> Timestamp {
        *self.spoke.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a bar tells what is waited for.
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
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
        *self.spoke.lock().unwrap_or_else(PoisonError::into_inner) = entry.at;
        if let (Some(live), Event::Ended { .. }) = (&self.live, &entry.event) {
            live.forget(id);
        }
        // A file gets everything, whatever the terminal shows beside it.
        if self.live.is_some() && self.out.terminal && !matters(plan, &entry.event) {
            return;
        }
        let told = match plan {
            Plan::Rotate(_) => told,
            Plan::Retire(plan) => format!("old key pair {}: {told}", plan.key_name),
        };
        let tone = match &entry.event {
            Event::Held { .. } => Some(Tone::Bad),
            Event::Excluded { .. } | Event::Failed { .. } => Some(Tone::Careful),
            Event::Activated { .. } | Event::Ended { .. } => Some(Tone::Good),
            _ => None,
        };
        let told = tone.map_or(told.clone(), |tone| self.out.tone(tone, told));
        self.out.line(format!("{}  {}  {told}", self.out.tone(Tone::Faint, moment(entry.at)), plan.fleet()));
    }

    fn turned(&self, _: JournalId, view: View<'_>, now: Timestamp) {
        if let (Some(live), View::Rotation { rotation, waiting }) = (&self.live, view) {
            live.show(rotation, waiting, now);
        }
    }
}
