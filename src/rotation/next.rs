//! `next`: from a rotation's state to the steps that may run now. It decides; it must never look, call or remember.

use crate::model::Disruption;
use crate::model::{InstanceId, Timestamp};

use super::event::{Event, OldKeyFound, Step};
use super::member::Member;
use super::policy::{BACK_OFF_MAX, LATE_CALL, SETTLE_DEADLINE, TRIES_MAX, later};
use super::reason::{HoldReason, Outcome};
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
        if self.is_halted() {
            // An import that still lands would leave a pair that no retire journal saw.
            let import_lands = self.importing.map(|since| later(since, LATE_CALL)).filter(|until| now < *until);
            if let (true, Some(until)) = (self.abandoned, import_lands) {
                next.wake_at(until);
            } else if self.abandoned && open.is_empty() {
                next.record.push(Event::Ended { outcome: Outcome::Abandoned });
            } else if self.held.is_none() {
                // Given up, but somebody is still down: for a person to see and to decide.
                next.record.extend(self.starts_refused(&open, now).map(|reason| Event::Held { reason }));
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
        } else if self.current < self.batches.len() {
            self.next_batch(&mut next, now);
        } else if open.is_empty() {
            next.record.push(Event::Ended { outcome: Outcome::Completed });
        }
        next
    }

    fn next_batch(&self, next: &mut Next, now: Timestamp) {
        match self.current_from() {
            Some(from) if now < from => next.wake_at(from),
            _ => {
                let batch = self.current as u32;
                if self.plan.disruption == Disruption::NeedsStopped {
                    self.offer(next, Step::Prepare(batch), now);
                }
                self.offer(next, Step::Bind(batch), now);
            }
        }
    }

    fn offer(&self, next: &mut Next, step: Step, now: Timestamp) {
        match self.retries.get(&step) {
            // Never further off than the longest back-off: beyond that the clock has stepped back.
            Some(retry) if now < retry.at && retry.at <= later(now, BACK_OFF_MAX) => next.wake_at(retry.at),
            _ => next.run.push(step),
        }
    }

    /// Whether something is under way. Given up means: what is bound need not become active any more.
    fn counts(&self, member: &Member, now: Timestamp) -> bool {
        member.is_in_flight(now) || (!self.abandoned && member.is_open(now))
    }

    /// Batches in which something is under way.
    fn open_batches(&self, now: Timestamp) -> Vec<u32> {
        let is_open = |batch: &u32| self.any(*batch, |member| self.counts(member, now));
        self.busy.iter().copied().filter(is_open).collect()
    }

    fn any(&self, batch: u32, is: impl Fn(&Member) -> bool) -> bool {
        self.batch(batch).iter().any(|id| is(&self.members[id]))
    }

    fn reason_to_hold(&self, open: &[u32], now: Timestamp) -> Option<HoldReason> {
        let failed = self.failed - self.failed_at_release;
        let allowed = self.plan.policy.failures_max;
        if failed > allowed {
            return Some(HoldReason::Failures { failed, allowed });
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
        let hopeless = self.retries.iter().find(|(_, retry)| retry.is_hopeless());
        if let Some((step, retry)) = hopeless {
            return Some(HoldReason::Step { step: *step, error: retry.error.clone() });
        }
        self.starts_refused(open, now)
    }

    /// Starts that the cloud refuses again and again, or that do not come true, when nothing else can be done.
    fn starts_refused(&self, open: &[u32], now: Timestamp) -> Option<HoldReason> {
        let mut refused = Vec::new();
        for id in open.iter().flat_map(|batch| self.batch(*batch)) {
            let member = &self.members[id];
            if self.counts(member, now) {
                if !self.cannot_start(member, now) {
                    return None;
                }
                refused.push(id.clone());
            }
        }
        let stuck = self.abandoned || self.current >= self.batches.len() || self.room() == 0;
        (stuck && !refused.is_empty()).then_some(HoldReason::StartRefused { instances: refused })
    }

    /// Who must still be waited for: something is in flight, or a start is owed that the cloud does not refuse.
    pub fn in_flight(&self, now: Timestamp) -> Vec<InstanceId> {
        let ids = self.busy.iter().flat_map(|batch| self.batch(*batch));
        let waits = |member: &Member| member.is_in_flight(now) && !self.cannot_start(member, now);
        ids.filter(|id| waits(&self.members[*id])).cloned().collect()
    }

    /// Nothing is left to be done with it but to start it, and that was refused again and again since, or one deadline
    /// later it still does not run (it is in a state in which nothing may be done to it, the account is in arrears).
    fn cannot_start(&self, member: &Member, now: Timestamp) -> bool {
        let refused = member.retry.as_ref().is_some_and(|retry| retry.tries >= TRIES_MAX);
        // Held with a call unanswered that was never seen: it is not made again, so only the start is left.
        let given_up = self.is_halted() && member.watch_until().is_some_and(|until| now >= until);
        let done = match &member.excluded {
            Some((since, _)) => Some(*since),
            None => member.owed.filter(|_| member.active).max(member.watch_until()),
        };
        let since = done.max(self.current_since).max(self.resumed);
        let late = since.is_some_and(|since| now >= later(since, SETTLE_DEADLINE));
        member.owed.is_some() && (member.is_done() || given_up) && (refused || late)
    }

    /// When an instance may be tried again, if not yet.
    pub fn retry_at(&self, id: &InstanceId, now: Timestamp) -> Option<Timestamp> {
        self.members.get(id)?.retry.as_ref().map(|retry| retry.at).filter(|at| now < *at)
    }
}
