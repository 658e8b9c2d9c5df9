//! When a fleet is due, pure: a schedule, what was kept of it and the time in, a judgement out. It must never ask a
//! clock, and never answer twice for one tick.
//!
//! A *tick* is a moment that the expression names in the schedule's zone. A *due moment* is a tick and the fleet's own
//! offset. On days on which clocks are changed:
//!
//! - An expression that names its hours means the local time. A tick that the clock leaves out comes at the end of the
//!   gap; several there are one. A tick that the clock shows twice comes the first time only.
//! - An expression of every hour (`*`) means the time that passes. It comes whenever the clock shows it: what is left
//!   out does not come, what is shown twice comes twice, so that an hourly tick comes each hour.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use sha2::{Digest, Sha256};

use crate::model::{Duration, FleetName, Mark, Timestamp, show_duration};

/// The smallest step of time.
const NANOSECOND: Duration = Duration::from_nanos(1);

/// When a fleet is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Which schedule this is: expression, zone and jitter as text. What was kept under another text belongs to another
    /// schedule. The slack is no part of it: it says what becomes of a missed tick, not when there is one.
    pub text: String,
    /// The expression: second, minute, hour, day, month, weekday.
    pub cron: croner::Cron,
    /// The zone in which it is meant.
    pub timezone: TimeZone,
    /// A tick is caught up until it is so old, that age included; at least a second.
    pub slack: Duration,
    /// By how much this fleet comes after the tick; see [`offset`]. Not more than the slack.
    pub offset: Duration,
}

/// By how much this fleet is put off: the same at every tick and after every restart, below `jitter`, in whole
/// milliseconds, spread evenly over the fleets of an installation.
pub fn offset(fleet: &FleetName, mark: &Mark, jitter: Duration) -> Duration {
    let digest: [u8; 32] = Sha256::digest(format!("jitter\n{}\n{fleet}", mark.as_str())).into();
    let share = digest.iter().take(8).fold(0_u128, |share, byte| share << 8 | u128::from(*byte));
    let millis = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(((share * u128::from(millis)) >> 64) as u64) // the share is below 2^64: so is this
}

/// What is to be done about a fleet now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is to be kept as the next due time; `None`: there is none. Beside [`Tick::Start`] it is the tick that is
    /// served, and stays so until a rotation has begun: a crash in between must not lose it.
    pub due: Option<Timestamp>,
    /// What has come.
    pub tick: Tick,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing.
    None,
    /// A rotation is to be begun.
    Start {
        /// The newest due moment: the one that is served.
        due: Timestamp,
        /// How long ago that was.
        late: Duration,
    },
    /// A tick is let go by. To be said once: the judgement's due time is later.
    Skipped {
        /// The due moment.
        due: Timestamp,
        /// Why.
        why: Skip,
    },
}

/// Why a tick is let go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is older than the slack.
    Missed {
        /// The slack.
        slack: Duration,
    },
    /// A rotation of the fleet is open: there are never two.
    Open,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed { slack } => {
                write!(f, "it was missed by more than schedule_slack ({})", show_duration(*slack))
            }
            Self::Open => f.write_str("a rotation of the fleet was open"),
        }
    }
}

impl Schedule {
    /// The schedule of a fleet. `jitter` is the most by which fleets are put off.
    pub fn new(
        cron: croner::Cron,
        timezone: TimeZone,
        slack: Duration,
        jitter: Duration,
        fleet: &FleetName,
        mark: &Mark,
    ) -> Self {
        let zone = timezone.iana_name().unwrap_or("UTC");
        let text = format!("{} {zone} {}", cron.as_str(), show_duration(jitter));
        Self { text, cron, timezone, slack, offset: offset(fleet, mark, jitter) }
    }

    /// The first due moment after `after`; `None` if none comes before the year 5000.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let tick = self.tick(earlier(after, self.offset))?;
        tick.checked_add(self.offset).ok()
    }

    /// What is to be done now.
    ///
    /// `kept` is what was kept as the next due time, and the text of the schedule that it was kept for. `begun` is when
    /// the fleet's newest rotation began, by whomever; `is_open`, whether it has not ended. However many ticks were
    /// missed, the newest alone counts.
    pub fn judge(
        &self,
        kept: Option<(&str, Timestamp)>,
        begun: Option<Timestamp>,
        is_open: bool,
        now: Timestamp,
    ) -> Judgement {
        let next = self.next(now);
        let wait = Judgement { due: next, tick: Tick::None };
        // A fleet seen first, or whose schedule was changed, is due at its next tick, never at once.
        let Some((_, mut due)) = kept.filter(|(text, _)| *text == self.text) else { return wait };
        if now < due {
            // What was kept may have been reckoned while the clock was wrong, or by another time zone database.
            return Judgement { due: Some(next.map_or(due, |next| next.min(due))), tick: Tick::None };
        }
        // Whatever was due when a rotation began is served: by hand, or we crashed before the next due time was kept,
        // or the clock was set back since.
        if let Some(begun) = begun.filter(|begun| *begun >= due) {
            match self.next(begun).filter(|due| *due <= now) {
                Some(unserved) => due = unserved,
                None => return wait,
            }
        }
        due = self.newest(now).map_or(due, |newest| newest.max(due));
        let late = Duration::try_from(now.duration_since(due)).unwrap_or_default();
        if is_open {
            return Judgement { due: next, tick: Tick::Skipped { due, why: Skip::Open } };
        }
        if late > self.slack {
            return Judgement { due: next, tick: Tick::Skipped { due, why: Skip::Missed { slack: self.slack } } };
        }
        Judgement { due: Some(due), tick: Tick::Start { due, late } }
    }

    /// The newest due moment that is within the slack. Each question halves what is left, so that an expression of
    /// every second costs no more than one of every month.
    fn newest(&self, now: Timestamp) -> Option<Timestamp> {
        let due = |after| self.next(after).filter(|due| *due <= now);
        let mut newest = due(earlier(earlier(now, self.slack), NANOSECOND))?;
        let mut none_after = now;
        while newest < none_after {
            let half = Duration::try_from(none_after.duration_since(newest)).unwrap_or_default() / 2;
            let middle = newest.checked_add(half).unwrap_or(newest);
            match due(middle) {
                Some(later) => newest = later,
                None => none_after = middle,
            }
        }
        Some(newest)
    }

    /// The first tick after `after`.
    fn tick(&self, after: Timestamp) -> Option<Timestamp> {
        if (0..24).all(|hour| self.cron.pattern.hour_match(hour).unwrap_or(false)) {
            // Ticks are whole seconds: the part of a second says nothing, and croner need not see it.
            let after = Timestamp::from_second(after.as_nanosecond().div_euclid(1_000_000_000) as i64).ok()?;
            let tick = self.cron.find_next_occurrence(&after.to_zoned(self.timezone.clone()), false).ok()?;
            return Some(tick.timestamp()).filter(|tick| *tick > after);
        }
        // By the local clock, whatever its changes: each local time is one moment, and later ones are no earlier.
        let mut local = self.timezone.to_datetime(after);
        if let AmbiguousOffset::Fold { before, .. } = self.timezone.to_ambiguous_timestamp(local).offset()
            && before.to_timestamp(local).is_ok_and(|first| first < after)
        {
            // The clock shows these times again: go on where it shows new ones, rather than trying each.
            let new = before.to_datetime(self.change(after)?);
            local = new.checked_sub(jiff::SignedDuration::from_secs(1)).ok()?;
        }
        loop {
            local = self.cron.find_next_occurrence(&local, false).ok()?;
            if let Some(tick) = self.moment(local).filter(|tick| *tick > after) {
                return Some(tick);
            }
        }
    }

    /// The moment that a local time means: the first, if the clock shows it twice; the end of the gap, if never.
    fn moment(&self, local: DateTime) -> Option<Timestamp> {
        match self.timezone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
            AmbiguousOffset::Gap { before, .. } => {
                // By the old offset it lies after the change.
                self.change(before.to_timestamp(local).ok()?)
            }
        }
    }

    /// The last change of the zone's clock up to this moment.
    fn change(&self, until: Timestamp) -> Option<Timestamp> {
        let change = self.timezone.preceding(until.checked_add(NANOSECOND).ok()?).next()?;
        Some(change.timestamp())
    }
}

/// So much earlier, as far as there is time.
fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
