//! The commands that are run around each batch, and when one is due: before a batch is disturbed, and once it is over. Pure.
//!
//! `after_batch` follows whatever was begun: who was drained is brought back when the batch is done, and also when it must
//! stop in the midst (a hold, an abandon, a window that closed) as soon as nothing of it is under way. When such a batch goes
//! on, `before_batch` is run again. A hook that was cut off by a crash is run again: at least once, never exactly once.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Duration, Timestamp};

use super::event::Step;
use super::state::Rotation;

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before anything of a batch is disturbed: drain, silence, ask whether all is well.
    BeforeBatch,
    /// Once a batch is over.
    AfterBatch,
}

impl Hook {
    /// Its name, as the config file and `REKEYD_HOOK` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeBatch => "before_batch",
            Self::AfterBatch => "after_batch",
        }
    }
    /// The step that runs it for a batch.
    pub fn step(self, batch: u32) -> Step {
        match self {
            Self::BeforeBatch => Step::BeforeBatch(batch),
            Self::AfterBatch => Step::AfterBatch(batch),
        }
    }
}

/// A command, and how long it may take. No shell reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCommand {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Who is not done by then is killed, and has failed.
    pub timeout: Duration,
}

/// The hooks of a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_batch: Option<HookCommand>,
    /// After a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_batch: Option<HookCommand>,
}

impl Hooks {
    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
    /// The command of a hook.
    pub fn get(&self, hook: Hook) -> Option<&HookCommand> {
        match hook {
            Hook::BeforeBatch => self.before_batch.as_ref(),
            Hook::AfterBatch => self.after_batch.as_ref(),
        }
    }
    /// So long they take at most.
    pub fn takes(&self) -> Duration {
        self.before_batch.iter().chain(&self.after_batch).map(|hook| hook.timeout).sum()
    }
}

/// What went wrong with a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFailure {
    /// In a few words: its exit code, that it took too long, that it is not there.
    pub why: String,
    /// The last lines that it printed, bounded, without control characters but the ends of lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match self.output.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(last) => write!(f, ": {last}"),
            None => Ok(()),
        }
    }
}

/// How far the hooks of the journal are.
#[derive(Clone, Debug, Default)]
pub(super) struct Hooked {
    /// One was begun, and its end is not in the journal.
    running: Option<(Hook, u32)>,
    /// The batch for which something was begun since its `after_batch` ended well.
    begun: Option<u32>,
    /// Its `before_batch` ended well.
    ready: bool,
    /// It failed, and nobody has released the journal since.
    failed: Option<(Hook, u32, HookFailure)>,
}

impl Hooked {
    pub(super) fn start(&mut self, hook: Hook, batch: u32) {
        self.running = Some((hook, batch));
        if hook == Hook::BeforeBatch {
            (self.begun, self.ready) = (Some(batch), false);
        }
    }
    pub(super) fn end(&mut self, hook: Hook, batch: u32, failure: Option<&HookFailure>) {
        self.running = None;
        match (hook, failure) {
            (_, Some(failure)) => self.failed = Some((hook, batch, failure.clone())),
            (Hook::BeforeBatch, None) => self.ready = true,
            (Hook::AfterBatch, None) => (self.begun, self.ready) = (None, false),
        }
    }
    /// Something of a batch is disturbed.
    pub(super) fn touch(&mut self, batch: u32) {
        self.begun = Some(self.begun.map_or(batch, |begun| begun.max(batch)));
    }
    /// What failed is run again, and a batch that stood still is begun anew.
    pub(super) fn release(&mut self) {
        (self.failed, self.ready) = (None, false);
    }
    /// What failed since the last release.
    pub(super) fn failed(&self) -> Option<&(Hook, u32, HookFailure)> {
        self.failed.as_ref()
    }
}

impl Rotation {
    /// Whether a batch may be disturbed as far as its `before_batch` is concerned.
    pub(super) fn is_ready(&self, batch: u32) -> bool {
        let ready = self.hooked.ready && self.hooked.begun == Some(batch);
        self.plan.policy.pace.hooks.before_batch.is_none() || ready
    }

    /// The batch whose `after_batch` is to be run now: it is over, or stands still, and nothing of it is under way.
    fn after_due(&self, now: Timestamp) -> Option<u32> {
        self.plan.policy.pace.hooks.after_batch.as_ref()?;
        let failed = matches!(self.hooked.failed, Some((Hook::AfterBatch, ..)));
        let batch = self.hooked.begun.filter(|_| !failed)?;
        let over = self.current > batch as usize;
        let stands = self.is_halted() || !self.window_fits(now);
        let under_way = self.batch(batch).iter().any(|id| self.members[id].is_in_flight(now));
        (over || stands && !under_way).then_some(batch)
    }

    /// The hook that is being run, or the `after_batch` that is due. A `before_batch` is due when its batch is.
    pub fn hook_due(&self, now: Timestamp) -> Option<(Hook, u32)> {
        self.hooked.running.or_else(|| Some((Hook::AfterBatch, self.after_due(now)?)))
    }
}
