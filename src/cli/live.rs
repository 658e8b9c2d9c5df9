//! Live progress on the last lines of a terminal: a bar for each open rotation, above it the lines that matter. It hears and
//! draws; it cannot steer, must not fail, and draws nothing where stderr is no terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::Env;
use crate::model::{JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Event, Plan, Rotation, Step};

use super::output::{is_dumb, moment, some};
use super::story::{batch_name, doing};

/// So many machines that are down are named.
const NAMED: usize = 3;
/// How often the time of a bar moves on by itself.
const TICK: Duration = Duration::from_millis(500);
/// Without a new entry a bar is reckoned anew no more often than this.
const ANEW: Duration = Duration::from_secs(1);

/// The terminal's last lines. A process has one terminal.
static SCREEN: OnceLock<MultiProgress> = OnceLock::new();

/// Writes to the terminal with the bars out of the way.
pub(super) fn beside<R>(write: impl FnOnce() -> R) -> R {
    match SCREEN.get() {
        Some(screen) => screen.suspend(write),
        None => write(),
    }
}

/// Bars on stderr.
pub(super) struct Live {
    screen: &'static MultiProgress,
    bars: Mutex<BTreeMap<JournalId, Bar>>,
}

struct Bar {
    bar: ProgressBar,
    /// Its rotation's newest entry when it was drawn, and when that was.
    drawn: (u64, Timestamp),
}

impl Live {
    /// On stderr, if that is a terminal that can move its cursor.
    pub(super) fn on_stderr(env: Env<'_>) -> Option<Self> {
        if !std::io::stderr().is_terminal() || is_dumb(env) {
            return None;
        }
        let screen = SCREEN.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Some(Self { screen, bars: Mutex::default() })
    }

    /// A journal has ended.
    pub(super) fn forget(&self, id: JournalId) {
        let gone = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        gone.into_iter().for_each(|gone| self.take_away(&gone));
    }

    /// Draws a rotation as it stands. `room`: what keeps it in its account.
    pub(super) fn show(&self, rotation: &Rotation, room: Option<&str>, now: Timestamp) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        if rotation.ended.is_some() {
            return;
        }
        let (seq, at) = bars.get(&rotation.id).map_or((0, Timestamp::MIN), |bar| bar.drawn);
        if seq == rotation.seq && now < later(at, ANEW) {
            return;
        }
        let bar = bars.entry(rotation.id).or_insert_with(|| self.bar(rotation));
        bar.drawn = (rotation.seq, now);
        bar.bar.set_position(done(rotation) as u64);
        bar.bar.set_message(words(rotation, room, now));
    }

    fn bar(&self, rotation: &Rotation) -> Bar {
        let bar = self.screen.add(ProgressBar::new(rotation.members().count() as u64));
        // The template is our own; were it not understood, the plain bar would do. Without colours: `NO_COLOR` asks for none.
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} [{bar:12}] {pos}/{len} {elapsed} {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(rotation.plan.fleet.to_string());
        bar.enable_steady_tick(TICK);
        Bar { bar, drawn: (0, Timestamp::MIN) }
    }

    fn take_away(&self, bar: &Bar) {
        bar.bar.finish_and_clear();
        self.screen.remove(&bar.bar);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let bars = std::mem::take(self.bars.get_mut().unwrap_or_else(PoisonError::into_inner));
        bars.values().for_each(|bar| self.take_away(bar));
    }
}

/// Whether an entry is worth a line above the bar: the bar tells the small steps itself.
pub(super) fn matters(plan: &Plan, event: &Event) -> bool {
    match event {
        Event::Started { .. } | Event::Accepted { .. } | Event::Down { .. } | Event::Bound { .. } => false,
        Event::Pinned { hosts } => hosts.iter().any(|host| host.reimaged),
        Event::Running { .. } | Event::HookStarted { .. } | Event::HookEnded { failure: None, .. } => false,
        // A login tells more, and comes next.
        Event::Activated { .. } => !matches!(plan, Plan::Rotate(plan) if plan.can_prove()),
        _ => true,
    }
}

fn done(rotation: &Rotation) -> usize {
    rotation.members().filter(|(_, member)| member.is_done()).count()
}

/// What a rotation is about, or waits for, and who is down because of it.
fn words(rotation: &Rotation, room: Option<&str>, now: Timestamp) -> String {
    let mut words = match &rotation.held {
        Some(reason) => format!("HELD: {reason}"),
        None if rotation.abandoned => "being given up".to_string(),
        None => about(rotation, room, now),
    };
    let failed = rotation.members().filter(|(_, member)| member.excluded.is_some()).count();
    if failed > 0 {
        let _ = write!(words, "; {failed} excluded");
    }
    let down: Vec<_> = rotation.members().filter(|(_, member)| member.owed.is_some()).map(|(id, _)| id).collect();
    if !down.is_empty() {
        let _ = write!(words, "; {} down: {}", down.len(), some(&down, NAMED));
    }
    words
}

/// What is waited for, by the calls whose effect was not seen yet.
fn awaited(rotation: &Rotation) -> String {
    let calls: BTreeSet<_> =
        rotation.members().filter_map(|(_, member)| Some(member.pending.as_ref()?.call.name())).collect();
    match calls.is_empty() {
        true => "waiting for machines to be back".to_string(),
        false => format!("waiting for the {}", some(calls, NAMED)),
    }
}

fn about(rotation: &Rotation, room: Option<&str>, now: Timestamp) -> String {
    let next = rotation.next(now);
    // What is done comes before the looks at what was done.
    let acts = next.run.iter().find(|step| !matches!(step, Step::Settle(_)));
    if let Some(step) = acts.or(next.run.first()) {
        let batch = step.batch().map(|batch| match (batch, rotation.batch_count()) {
            (0, _) => format!("{}: ", batch_name(0)),
            (_, count) => format!("{} of {}: ", batch_name(batch), count - 1),
        });
        // Few words: who is down is to be seen on a terminal of 80 columns too.
        let what = match step {
            Step::Settle(_) => awaited(rotation),
            Step::Prepare(_) => "stopping".to_string(),
            Step::Bind(_) => "binding".to_string(),
            Step::Activate(_) => "restarting".to_string(),
            Step::Verify(_) => "logging in".to_string(),
            step => doing(*step).to_string(),
        };
        return format!("{}{what}", batch.unwrap_or_default());
    }
    match (room, next.wake) {
        (Some(room), _) => format!("waits: {room}"),
        (None, Some(wake)) if wake == Timestamp::MAX => "waits for a window that never comes".to_string(),
        (None, Some(wake)) if rotation.waits_for_window(now).is_some() => {
            format!("waits for its maintenance window, which opens {}", moment(wake))
        }
        (None, Some(wake)) => format!("waits until {}", moment(wake)),
        (None, None) => "ending".to_string(),
    }
}
