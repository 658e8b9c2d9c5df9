//! What a rotation may stake now: how many machines may be down, and whether the canary says that it may go on. It must
//! never ask the clock.

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
            && !self.budget.canary_released
            && !canary.is_empty()
            && (self.current < self.batches.len() || canary.iter().any(|id| ran(id)))
            && !canary.iter().any(|id| self.members[*id].is_proven())
    }
}
