//! `next`: from a rotation's state to the steps that may run now. It decides; it must never look, call or remember.

use crate::model::error::Error;
use crate::model::{Disruption, Timestamp};

use super::event::{Event, OldKeyFound, Step};
use super::hook::Hook;
use super::member::Member;
use super::policy::{BACK_OFF_MAX, IN_A_ROW, LATE_CALL, Retry, later};
use super::reason::{HoldReason, Outcome, STRANGE};
use super::state::Rotation;

/// What may happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The steps that may run, those already begun too, in the order in which they are to be tried.
    pub run: Vec<Step>,
    /// What the brain itself has to say: holds and ends.
    pub record: Vec<Event>,
    /// When to ask again though nothing happens.
    pub wake: Option<Timestamp>,
    /// How the journal stands.
    pub standing: Standing,
}

/// How a journal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Open,
    /// Held or given up: only what is owed and under way goes on.
    Held,
    /// Nothing more will happen.
    Ended,
}

impl Next {
    /// Nothing yet.
    pub fn new(standing: Standing) -> Self {
        Self { run: Vec::new(), record: Vec::new(), wake: None, standing }
    }
    /// Ask again at this moment, or before.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Rotation {
    /// The steps that may run now.
    pub fn next(&self, now: Timestamp) -> Next {
        if self.ended.is_some() {
            return Next::new(Standing::Ended);
        }
        let mut next = Next::new(if self.is_halted() { Standing::Held } else { Standing::Open });
        // What is under way is looked at, and what is owed is paid, however the journal stands.
        let open = self.open_batches(now);
        for batch in &open {
            if self.any(*batch, |member| member.is_looked_at(now)) {
                self.offer(&mut next, Step::Settle(*batch), now);
                self.offer(&mut next, Step::Activate(*batch), now);
            }
            if self.any(*batch, Member::awaits_proof) {
                self.offer(&mut next, Step::Verify(*batch), now);
            }
        }
        let hook = self.hook_due(now);
        if let Some((hook, batch)) = hook {
            self.offer(&mut next, hook.step(batch), now);
        }
        if self.is_halted() {
            // An import that still lands would leave a pair that no retire journal saw.
            let import_lands = self.importing.map(|since| later(since, LATE_CALL)).filter(|until| now < *until);
            if let (true, Some(until)) = (self.abandoned, import_lands) {
                next.wake_at(until);
            } else if self.abandoned && open.is_empty() && hook.is_none() {
                next.record.push(Event::Ended { outcome: Outcome::Abandoned });
            } else if self.held.is_none() {
                next.record.extend(self.reason_to_tell(&open, now).map(|reason| Event::Held { reason }));
            }
            return next;
        }
        if let Some(reason) = self.reason_to_hold(&open, now) {
            next.record.push(Event::Held { reason });
            return next;
        }
        if self.key.is_none() && !self.plan.key.is_strangers() {
            self.offer(&mut next, Step::StoreKey, now);
        } else if self.key_pair.is_none() {
            self.offer(&mut next, Step::ImportKey, now);
        } else if matches!(hook, Some((Hook::AfterBatch, _))) {
            // The batch before is over once that is done.
        } else if self.current < self.batches.len() {
            self.next_batch(&mut next, hook.is_some(), now);
        } else if open.is_empty() {
            match self.to_deliver() {
                Some(_) => self.offer(&mut next, Step::Deliver, now),
                None => next.record.push(Event::Ended { outcome: Outcome::Completed }),
            }
        }
        next
    }

    /// Given up, but somebody is still down, or nothing of what is under way is shown: for a person to see and to decide.
    fn reason_to_tell(&self, open: &[u32], now: Timestamp) -> Option<HoldReason> {
        match self.strange_step(now) {
            Some((step, error)) => Some(HoldReason::Step { step, error: error.clone() }),
            None => self.starts_refused(open, now),
        }
    }

    /// What is said of the account as long as the cloud has shown nothing of what is under way for a quarter of an hour.
    pub fn strange(&self, now: Timestamp) -> Option<&Error> {
        self.strange_step(now).map(|(_, error)| error)
    }

    fn strange_step(&self, now: Timestamp) -> Option<(Step, &Error)> {
        let open = self.open_batches(now);
        let is_open = |step: &Step| step.batch().is_some_and(|batch| open.contains(&batch));
        // A look that went well leaves no entry: it is over when the next failure is overdue.
        let is_strange =
            |retry: &Retry| retry.error.code == STRANGE && retry.is_hopeless() && now < later(retry.at, IN_A_ROW);
        let strange = self.retries.iter().find(|(step, retry)| is_open(step) && is_strange(retry));
        strange.map(|(step, retry)| (*step, &retry.error))
    }

    fn next_batch(&self, next: &mut Next, hook_runs: bool, now: Timestamp) {
        if let Some(from) = self.current_from().filter(|from| now < *from) {
            return next.wake_at(from);
        }
        let batch = self.current as u32;
        if let Some(opens) = self.waits_for_window(now) {
            return next.wake_at(opens);
        }
        if !self.is_ready(batch) && !hook_runs && self.plan.policy.pace.fits(now) {
            self.offer(next, Step::BeforeBatch(batch), now);
        }
        // What is under way goes on; of the others none is begun (`judge`).
        if self.batch_is_under_way(batch) || self.is_ready(batch) {
            if self.plan.disruption == Disruption::NeedsStopped {
                self.offer(next, Step::Prepare(batch), now);
            }
            self.offer(next, Step::Bind(batch), now);
        }
    }

    pub(super) fn offer(&self, next: &mut Next, step: Step, now: Timestamp) {
        match self.retries.get(&step) {
            // Never further off than the longest back-off: beyond that the clock has stepped back.
            Some(retry) if now < retry.at && retry.at <= later(now, BACK_OFF_MAX) => next.wake_at(retry.at),
            _ => next.run.push(step),
        }
    }

    pub(super) fn any(&self, batch: u32, is: impl Fn(&Member) -> bool) -> bool {
        self.batch(batch).iter().any(|id| is(&self.members[id]))
    }

    fn reason_to_hold(&self, open: &[u32], now: Timestamp) -> Option<HoldReason> {
        let tripped = self.budget.reason_to_hold(&self.plan.policy);
        if tripped.is_some() {
            return tripped;
        }
        if self.canary_failed() {
            return Some(HoldReason::Canary);
        }
        if self.old_keys_taken > 0 {
            let taken = self
                .members()
                .filter(|(_, member)| member.proof.as_ref().is_some_and(|proof| proof.old_key == OldKeyFound::Taken));
            return Some(HoldReason::OldKeyTaken { instances: taken.map(|(id, _)| id.clone()).collect() });
        }
        if let Some((hook, batch, failure)) = self.hooked.failed() {
            return Some(HoldReason::Hook { hook: *hook, batch: *batch, problem: failure.to_string() });
        }
        let hopeless = self.retries.iter().find(|(_, retry)| retry.is_hopeless());
        if let Some((step, retry)) = hopeless {
            return Some(HoldReason::Step { step: *step, error: retry.error.clone() });
        }
        self.starts_refused(open, now)
    }
}
