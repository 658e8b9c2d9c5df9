//! The numbers that bound every rotation, and the arithmetic of budgets. Nothing here looks at a journal.

use std::collections::BTreeMap;

use crate::model::error::{Error, Kind};
use crate::model::{Amount, Duration, Timestamp};

use super::event::Step;

/// A look is evidence for a call for so long; afterwards the world is looked at again first.
pub const FRESH: Duration = Duration::from_secs(10);
/// An accepted stop is seen within this, or the instance is excluded.
pub const STOP_DEADLINE: Duration = Duration::from_secs(180);
/// What was bound is active within this from the last accepted call, or the instance is excluded.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(900);
/// A call whose answer was lost, and that was made again and then seen done, may still land within this: our own time-outs
/// end at 25 s, and what a cloud has not begun to serve by then is dead with its connection (our judgement, decision 0005).
pub const LATE_CALL: Duration = Duration::from_secs(60);
/// An accepted start or reboot that shows nothing is repeated after this.
pub const REPEAT_AFTER: Duration = Duration::from_secs(180);
/// Baidu's own reboot shows within this of the bind, or we stop and start the instance ourselves.
pub const OWN_REBOOT: Duration = Duration::from_secs(20);
/// The request id of an accepted bind is waited for in the latest operation for so long; then the shown state decides.
pub const REQUEST_ID_SHOWS: Duration = Duration::from_secs(60);
/// Something under way that nobody looked at for so long was not driven: no deadline counts that time. Longer than the
/// longest pause between two turns.
pub const AWAY: Duration = Duration::from_secs(180);
/// No failure is waited out longer than this.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Bounded means so many tries.
pub const TRIES_MAX: u32 = 5;
/// A failure this long after the moment of the next try does not belong to those before it: longer than a try takes, a program
/// that keeps keys included.
pub const IN_A_ROW: Duration = Duration::from_secs(240);
/// A person's word that what is not shown is gone counts for so long.
pub const GONE_ALLOWED: Duration = Duration::from_secs(3600);
/// What a retire journal says of an account that shows nothing of ours is said again after this.
pub const TELL_AGAIN: Duration = Duration::from_secs(3600);
/// Our clock may differ from the cloud's by so many seconds; else nothing that destroys or disturbs is done.
pub const CLOCK_DIFFERENCE_MAX: i64 = 60;

/// A moment later by a duration; at the end of time it stays there.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whether a person's word that what is not shown is gone, given then, counts now.
pub fn believes_gone(allowed: Option<Timestamp>, now: Timestamp) -> bool {
    allowed.is_some_and(|at| at <= now && now < later(at, GONE_ALLOWED))
}

/// How many tries have failed in a row, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// So many.
    pub tries: u32,
    /// The first of them.
    pub since: Timestamp,
    /// The newest of them.
    pub last: Timestamp,
    /// Not again before this.
    pub at: Timestamp,
    /// The newest error.
    pub error: Error,
}

impl Retry {
    /// Counts one more failure of a step. One that comes long after the step was to be tried again begins anew: what went
    /// well in between (a look that found nothing new) writes no entry.
    pub(super) fn count(
        retries: &mut BTreeMap<Step, Retry>,
        step: Step,
        now: Timestamp,
        retry_at: Timestamp,
        error: &Error,
    ) {
        let fresh = || Self { tries: 0, since: now, last: now, at: retry_at, error: error.clone() };
        let retry = retries.entry(step).or_insert_with(fresh);
        // What is delivered may take long itself, and an end of that is written down.
        if step != Step::Deliver && now > later(retry.at, IN_A_ROW) {
            *retry = fresh();
        }
        retry.tries += 1;
        retry.last = now;
        retry.at = retry_at;
        retry.error = error.clone();
    }

    /// Whether it is time to stop trying and ask a person. Throttling is never a reason to hold; an outage of the cloud
    /// is one once it has gone on for a quarter of an hour (that it was one does not become a reason by time passing); an
    /// answer that no repetition betters is one at once.
    pub fn is_hopeless(&self) -> bool {
        match self.error.kind {
            Kind::Throttled => false,
            Kind::Busy | Kind::Unavailable => {
                self.tries >= TRIES_MAX && self.last >= later(self.since, SETTLE_DEADLINE)
            }
            Kind::Already | Kind::InvalidState | Kind::InUse | Kind::Protocol => self.tries >= TRIES_MAX,
            Kind::NotFound | Kind::Conflict | Kind::Quota | Kind::Denied | Kind::Invalid | Kind::Unsupported => true,
        }
    }
}

/// How long to wait after so many failures in a row: 1, 2, 4, 8 … s, a minute at most, more where the cloud asks for it,
/// and a part of it by chance (`jitter`, 0 to 1) so that fleets do not march in step.
pub fn back_off(tries: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    let seconds = f64::from(1u32 << tries.min(6)).min(60.0);
    let wait = Duration::from_secs_f64(seconds * (0.75 + 0.25 * jitter.clamp(0.0, 1.0)));
    wait.max(asked.unwrap_or_default()).min(BACK_OFF_MAX)
}

/// How a fleet is rolled out, as the config file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The first batch's size.
    pub canary: Amount,
    /// No batch is larger; `None`: as large as the cloud takes.
    pub batch_max: Option<u32>,
    /// Down at once because of us; at least 1 whatever the percentage.
    pub unavailable_max: Amount,
    /// Failures before a hold.
    pub failures_max: Amount,
    /// Each batch is so many times as large as the one before, up to the largest; at least 1.
    pub growth: u32,
    /// So many failures one after another hold; at least 1.
    pub failures_in_a_row: u32,
    /// Waited after the canary, after each step of growth, and before retiring.
    pub soak: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::{Blame, Effect};

    #[test]
    fn back_off_doubles_to_a_minute_and_obeys_the_cloud() {
        let check = |tries, asked: u64, expect: u64| {
            assert_eq!(back_off(tries, Some(Duration::from_secs(asked)), 1.0).as_secs(), expect, "{tries} {asked}");
        };
        check(0, 0, 1);
        check(1, 0, 2);
        check(5, 0, 32);
        check(6, 0, 60);
        check(60, 0, 60);
        check(0, 20, 20);
        check(0, 9_999, 300);
        assert!(back_off(3, None, 0.0) < back_off(3, None, 1.0));
    }

    #[test]
    fn hopeless_depends_on_the_kind_the_tries_and_the_time() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |kind, tries, minutes: u64, expect| {
            let error = Error {
                kind,
                effect: Effect::NotDone,
                blame: Blame::Request,
                action: "A".into(),
                code: "C".into(),
                message: String::new(),
                request_id: None,
                retry_after: None,
            };
            let last = later(start, Duration::from_secs(60 * minutes));
            let retry = Retry { tries, since: start, last, at: last, error };
            assert_eq!(retry.is_hopeless(), expect, "{kind:?} {tries} {minutes}");
        };
        check(Kind::Throttled, 1000, 1000, false);
        check(Kind::Unavailable, 100, 14, false);
        check(Kind::Unavailable, 4, 1000, false);
        check(Kind::Unavailable, 5, 15, true);
        check(Kind::Protocol, 4, 0, false);
        check(Kind::Protocol, 5, 0, true);
        check(Kind::Denied, 1, 0, true);
        check(Kind::Quota, 1, 0, true);
        check(Kind::Invalid, 1, 0, true);
    }
}
