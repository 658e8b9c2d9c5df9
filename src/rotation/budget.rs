//! What a rotation bears before it asks a person: failures in all, failures in a row, a canary that proved nothing. Each
//! trips by itself, to a hold; a release raises what tripped and nothing else.

use super::event::Event;
use super::plan::Policy;
use super::reason::HoldReason;
use super::state::Rotation;

/// What is spent of a budget, and what it bears: one failure more holds the rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Spent since the newest release that was for this budget.
    pub spent: u32,
    /// As many are borne; `None`: the plan knows no such budget.
    pub bears: Option<u32>,
}

impl Rotation {
    /// Failures in all.
    pub fn failures(&self) -> Spending {
        let spent = self.budget.failed.saturating_sub(self.budget.failed_at_release);
        Spending { spent, bears: Some(self.plan.policy.failures_max) }
    }
    /// Failures one after another.
    pub fn failures_in_a_row(&self) -> Spending {
        let limit = self.plan.policy.pace.failures_in_a_row;
        Spending { spent: self.budget.in_a_row, bears: limit.map(|limit| limit.saturating_sub(1)) }
    }
}

/// What was counted, and what a person has forgiven.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    /// Failed in all.
    pub(super) failed: u32,
    failed_at_release: u32,
    /// Failed since somebody became active, or was proven.
    in_a_row: u32,
    pub(super) canary_released: bool,
    /// What held since the last release.
    tripped: Tripped,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tripped {
    failures: bool,
    in_a_row: bool,
    canary: bool,
}

impl Budget {
    /// One failed, unless it had already.
    pub(super) fn fail(&mut self, is_new: bool) {
        self.failed += u32::from(is_new);
        self.in_a_row += u32::from(is_new);
    }

    /// Somebody came through, by this entry: active where that is proof enough, else proven.
    pub(super) fn hear(&mut self, event: &Event, must_prove: bool) {
        let came_through = match event {
            Event::Activated { instances } => !must_prove && !instances.is_empty(),
            Event::Verified { proofs } => !proofs.is_empty(),
            _ => false,
        };
        if came_through {
            self.in_a_row = 0;
        }
        if let Event::Held { reason } = event {
            self.tripped.failures |= matches!(reason, HoldReason::Failures { .. });
            self.tripped.in_a_row |= matches!(reason, HoldReason::FailuresInARow { .. });
            self.tripped.canary |= matches!(reason, HoldReason::Canary);
        }
    }

    /// A person lets it go on.
    pub(super) fn release(&mut self) {
        let tripped = std::mem::take(&mut self.tripped);
        if tripped.failures {
            self.failed_at_release = self.failed;
        }
        if tripped.in_a_row {
            self.in_a_row = 0;
        }
        self.canary_released |= tripped.canary;
    }

    /// What has tripped now.
    pub(super) fn reason_to_hold(&self, policy: &Policy) -> Option<HoldReason> {
        let (failed, allowed) = (self.failed - self.failed_at_release, policy.failures_max);
        if failed > allowed {
            return Some(HoldReason::Failures { failed, allowed });
        }
        let limit = policy.pace.failures_in_a_row.filter(|limit| self.in_a_row >= *limit)?;
        Some(HoldReason::FailuresInARow { failed: self.in_a_row, limit })
    }
}
