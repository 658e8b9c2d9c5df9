//! What is still under way in a rotation, and who cannot be brought back: what a hold and an end wait for. It decides
//! nothing; it must never call done what a lost call could still undo.

use crate::model::{InstanceId, Timestamp};

use super::member::Member;
use super::policy::{SETTLE_DEADLINE, TRIES_MAX, later};
use super::reason::HoldReason;
use super::state::Rotation;

impl Rotation {
    /// Whether something is under way. Given up means: what is bound need not become active any more.
    pub(super) fn counts(&self, member: &Member, now: Timestamp) -> bool {
        member.is_in_flight(now) || (!self.abandoned && member.is_open(now))
    }

    /// Batches in which something is under way.
    pub(super) fn open_batches(&self, now: Timestamp) -> Vec<u32> {
        let is_open = |batch: &u32| self.any(*batch, |member| self.counts(member, now));
        self.busy.iter().copied().filter(is_open).collect()
    }

    /// Starts that the cloud refuses again and again, or that do not come true, when nothing else can be done.
    pub(super) fn starts_refused(&self, open: &[u32], now: Timestamp) -> Option<HoldReason> {
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
