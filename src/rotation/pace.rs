//! How a rotation paces itself: how its batches grow, how many failures in a row it bears, when it may go and who is asked
//! before. Frozen with the plan. Journals of releases that knew nothing of this fold with the defaults.

use serde::{Deserialize, Serialize};

use crate::model::{Duration, Timestamp};

use super::hook::{Hook, Hooks};
use super::member::Member;
use super::policy::later;
use super::state::Rotation;
use super::window::Windows;

/// How a rotation paces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The first so many batches are each larger than all before: each is soaked. The canary is the first.
    #[serde(default = "canary_only")]
    pub growing: u32,
    /// So many failures in a row, with nobody active (or proven, where that is wanted) between them, hold the rotation;
    /// `None` in journals that are older than this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_in_a_row: Option<u32>,
    /// When batches may begin.
    #[serde(default, skip_serializing_if = "Windows::are_none")]
    pub windows: Windows,
    /// From a batch's first call until all of it is back, when all goes well, without its hooks.
    #[serde(default)]
    pub batch_time: Duration,
    /// What is run around each batch.
    #[serde(default, skip_serializing_if = "Hooks::are_none")]
    pub hooks: Hooks,
}

fn canary_only() -> u32 {
    1
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            growing: canary_only(),
            failures_in_a_row: None,
            windows: Windows::default(),
            batch_time: Duration::ZERO,
            hooks: Hooks::default(),
        }
    }
}

impl Pace {
    /// From the beginning of a batch, its `before_batch` included, to the end of its `after_batch`.
    pub fn takes(&self) -> Duration {
        self.batch_time + self.hooks.takes()
    }
    /// Whether a whole batch that begins now ends inside a window.
    pub fn fits(&self, now: Timestamp) -> bool {
        self.windows.fits(now, self.takes())
    }
}

impl Rotation {
    /// How many batches are done: all before the current one.
    pub fn batches_done(&self) -> usize {
        self.current
    }
    /// Since when the current batch may go on: the key's import, or the end of the batch before it and, after the canary and
    /// each step of growth, the soak.
    pub fn current_from(&self) -> Option<Timestamp> {
        // Back is where they were before: the canary shows that the way holds, and nobody waits to see whether the key does.
        let soaks = self.plan.undoes.is_none() && (1..=self.plan.policy.pace.growing as usize).contains(&self.current);
        let soak = if soaks { self.plan.policy.soak } else { Default::default() };
        self.current_since.map(|since| later(since, soak))
    }

    /// Whether what is disturbed now, and its `after_batch`, end inside a window.
    pub(super) fn window_fits(&self, now: Timestamp) -> bool {
        let pace = &self.plan.policy.pace;
        let after = pace.hooks.get(Hook::AfterBatch).map_or(Duration::ZERO, |hook| hook.timeout);
        pace.windows.fits(now, pace.batch_time + after)
    }

    /// Until when no batch begins though one could: the beginning of the next window in which a whole batch ends;
    /// [`Timestamp::MAX`] if none comes.
    pub fn waits_for_window(&self, now: Timestamp) -> Option<Timestamp> {
        let pace = &self.plan.policy.pace;
        let batch = self.current as u32;
        let may_begin = pace.fits(now) || (self.is_ready(batch) && self.window_fits(now));
        let is_open = self.ended.is_none() && !self.is_halted() && self.current < self.batches.len();
        (is_open && !may_begin && !self.batch_is_under_way(batch))
            .then(|| pace.windows.next(now, pace.takes()).unwrap_or(Timestamp::MAX))
    }

    /// Whether a start is owed to somebody of a batch, or a call for somebody is unanswered or not seen yet: it goes on
    /// whatever the window.
    pub(super) fn batch_is_under_way(&self, batch: u32) -> bool {
        self.batch(batch).iter().any(|id| is_under_way(&self.members[id]))
    }

    /// Whether an instance may be disturbed now, as far as windows and `before_batch` are concerned. What is under way with
    /// it goes on.
    pub(super) fn may_begin(&self, member: &Member, now: Timestamp) -> bool {
        is_under_way(member) || self.is_ready(member.batch) && self.window_fits(now)
    }

    /// No deadline counts the time before this: the process was away, a window was closed, a hook was run.
    pub(super) fn counted_from(&self, now: Timestamp) -> Timestamp {
        let opened = self.plan.policy.pace.windows.open(now).map_or(Timestamp::MIN, |(since, _)| since);
        opened.max(self.resumed.unwrap_or(Timestamp::MIN))
    }
}

fn is_under_way(member: &Member) -> bool {
    !member.gone && (member.owed.is_some() || member.pending.is_some())
}
