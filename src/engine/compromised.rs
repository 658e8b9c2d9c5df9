//! A key that may be in wrong hands: the fleet's settings for its replacement, and the end of what retire journals wait for.
//! It must never spare what keeps the promise: the canary, the budgets, the guards.

use crate::model::{Amount, Duration};
use crate::rotation::preflight::{Level, Rule};
use crate::rotation::{Author, OldKey, Order, Plan, Verify, Windows};
use crate::store::{Head, StoreError};

use super::operate::{OrderError, operate};
use super::planner::{Fleet, Proposal};
use super::{EngineError, Tools};

impl Fleet {
    /// The same for a key that may be in wrong hands: it waits for no window, no soak and no grace, grows from the canary to
    /// the largest batch at once, and goes as wide as `unavailable_max` says, if it says so. A machine that still takes its
    /// old key is listed, and stops nobody else's rescue. Budgets, hooks and the canary stay.
    pub(super) fn compromised(&self, unavailable_max: Option<Amount>) -> Self {
        let mut fleet = self.clone();
        fleet.windows = Windows::default();
        fleet.grace = Duration::ZERO;
        fleet.rollout.soak = Duration::ZERO;
        fleet.rollout.growth = u32::MAX;
        if let Some(max) = unavailable_max {
            fleet.rollout.unavailable_max = max;
            fleet.rollout.batch_max = None;
        }
        if let Verify::Ssh(login) = &mut fleet.verify {
            login.old_key = OldKey::Warn;
        }
        fleet
    }
}

impl Proposal {
    /// The same as one for a key that may be in wrong hands. That is replaced before anything is delivered: a file that could
    /// not be written now refuses nothing.
    pub(super) fn compromised(mut self) -> Self {
        self.plan.compromised = true;
        let deliveries = self.findings.iter_mut().filter(|finding| finding.rule == Rule::Deliver);
        deliveries.for_each(|finding| finding.level = finding.level.min(Level::Warning));
        self
    }
}

/// Writes into each open retire journal of a fleet whose newest rotation is for a compromised key that its soak and its
/// grace are over. Derived from the journals, so that no crash forgets it.
pub(super) async fn waive_grace(tools: &Tools, heads: &[&Head]) -> Result<(), EngineError> {
    let newest = heads.iter().rev().find_map(|head| match &head.plan {
        Plan::Rotate(plan) => Some((head.id, plan.compromised)),
        Plan::Retire(_) => None,
    });
    let Some((rotation, true)) = newest else { return Ok(()) };
    let by = Author::Operator("rotate --compromised".to_string());
    let waits = |head: &&&Head| {
        head.ended.is_none()
            && matches!(&head.plan, Plan::Retire(plan) if !plan.soak.is_zero() || !plan.grace.is_zero())
    };
    for head in heads.iter().filter(waits) {
        let order = Order::WaiveGrace { rotation };
        match operate(tools.journal.as_ref(), tools.clock.as_ref(), head.id, &order, &by).await {
            // Refused: it has ended since.
            Ok(_) | Err(OrderError::Refused(_)) => {}
            // Not done: whoever asked tries again.
            Err(OrderError::Engine(error @ EngineError::Store(StoreError::Database(_)))) => return Err(error),
            // One that cannot be read ends nothing, and must not keep the others from their end.
            Err(OrderError::Engine(error)) => tracing::error!(journal = %head.id, %error, "its grace is not waived"),
        }
    }
    Ok(())
}
