//! What a rotation may stake now: how many machines may be down, from when the current batch may go on, whether the
//! canary says that it may. It must never ask the clock.

use crate::model::{InstanceId, Power, Timestamp};

use super::member::Member;
use super::policy::{AWAY, later};
use super::state::Rotation;

impl Rotation {
    /// How many instances are owed a start: as many may be down because of us.
    pub fn owed(&self) -> u32 {
        self.owed
    }
    /// How many more running instances may be disturbed now.
    pub fn room(&self) -> u32 {
        self.plan.policy.unavailable_max.saturating_sub(self.owed)
    }
    /// Whether it is to be said that nobody drove it for a while: something is under way, and was not looked at for longer
    /// than a busy engine ever takes between two looks.
    pub fn was_away(&self, since: Timestamp, now: Timestamp) -> bool {
        self.ended.is_none() && !self.busy.is_empty() && now > later(since.max(self.last_at), AWAY)
    }
    /// Since when the current batch may go on: the key's import, or the end of the batch before it and, after the
    /// canary, the soak.
    pub fn current_from(&self) -> Option<Timestamp> {
        // Back is where they were before: the canary shows that the way holds, and nobody waits to see whether the key does.
        let soaks = self.current == 1 && self.plan.undoes.is_none();
        let soak = if soaks { self.plan.policy.soak } else { Default::default() };
        self.current_since.map(|since| later(since, soak))
    }

    /// The canary batch is done, and nobody became active. Stragglers prove nothing either: they hold back the batches
    /// that are left to be staked on the same path.
    pub(super) fn canary_failed(&self) -> bool {
        let ran = |id| {
            let member: &Member = &self.members[id];
            member.found.as_ref().map_or(member.planned, |found| found.power) == Power::Running
        };
        // Who was bound by an earlier journal is staked on nothing.
        let canary: Vec<&InstanceId> = self.batch(0).iter().filter(|id| !self.members[*id].known).collect();
        self.current > 0
            && !self.canary_released
            && !canary.is_empty()
            && (self.current < self.batches.len() || canary.iter().any(|id| ran(id)))
            && !canary.iter().any(|id| self.members[*id].is_proven())
    }
}
