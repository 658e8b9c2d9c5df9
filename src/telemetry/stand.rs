//! How an open rotation stands, in numbers, and what it waits for. Pure: a folded journal in, values out. It must never name
//! an instance.

use std::collections::BTreeMap;

use crate::model::Timestamp;
use crate::rotation::{Phase, Rotation, Spending};

use super::table::{BUDGETS, WAITS_FOR};

/// How a fleet's rotation stands, in numbers. The default: none is open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stand {
    pub begun: Option<Timestamp>,
    pub held: Option<&'static str>,
    pub phases: BTreeMap<Phase, u32>,
    pub owed: u32,
    pub owed_since: Option<Timestamp>,
    /// Done, and left.
    pub batches: (usize, usize),
    /// In the order of [`BUDGETS`].
    pub budgets: [Spending; BUDGETS.len()],
}

impl Stand {
    pub(super) fn of(rotation: &Rotation) -> Self {
        let mut phases = BTreeMap::new();
        for (_, member) in rotation.members() {
            *phases.entry(member.phase()).or_default() += 1;
        }
        let done = rotation.batches_done();
        let unavailable = Spending { spent: rotation.owed(), bears: Some(rotation.plan.policy.unavailable_max) };
        Self {
            begun: Some(rotation.begun),
            held: rotation.held.as_ref().map(|reason| reason.kind()),
            phases,
            owed: rotation.owed(),
            owed_since: rotation.members().filter_map(|(_, member)| member.owed).min(),
            batches: (done, rotation.batch_count().saturating_sub(done)),
            budgets: [rotation.failures(), rotation.failures_in_a_row(), unavailable],
        }
    }
}

/// For want of what an open rotation begins nothing new, where it is neither the cloud nor a person: one of [`WAITS_FOR`].
/// `account`: its account has no room, or no credentials.
pub(super) fn waits_for(rotation: &Rotation, account: bool, now: Timestamp) -> Option<&'static str> {
    let [window, hook, soak, room] = WAITS_FOR;
    if rotation.ended.is_some() {
        return None;
    }
    if rotation.hook_due(now).is_some() {
        return Some(hook);
    }
    if rotation.waits_for_window(now).is_some() {
        return Some(window);
    }
    if rotation.is_halted() {
        return None;
    }
    let is_left = rotation.batches_done() < rotation.batch_count();
    if is_left && rotation.current_from().is_some_and(|from| now < from) {
        return Some(soak);
    }
    account.then_some(*room)
}
