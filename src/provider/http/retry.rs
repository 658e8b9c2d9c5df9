//! What is repeated, when, and for how long. Pure: the door asks, this answers.
//! It must never allow a repetition of a call that may have been done already.

use std::time::Duration;

use jiff::Timestamp;

use crate::net::Response;
use crate::provider::error::{Effect, Error, Kind};

/// The longest that one call is repeated or waited for.
pub const REPEAT_MAX: Duration = Duration::from_secs(30);
/// The first pause, doubled with every attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// So often a read that was answered with rubbish is asked again.
const RUBBISH_MAX: u32 = 2;
/// The longest pause of our own making.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What a call is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It looks only: it may be repeated.
    Read,
    /// It changes the cloud: never sent at or after `before`, repeated only if known not done.
    Change {
        /// The end of the caller's leave.
        before: Timestamp,
    },
}

impl Intent {
    /// When a call begun at `start` is given up.
    pub fn deadline(self, start: Timestamp) -> Timestamp {
        let latest = start.saturating_add(REPEAT_MAX).unwrap_or(Timestamp::MAX);
        match self {
            Self::Read => latest,
            Self::Change { before } => before.min(latest),
        }
    }

    /// Whether it may help, and is safe, to send the call again after attempt number `attempt` (the first is 0). A read
    /// that was answered with rubbish is asked twice more: a proxy's page or a cut-off body may be gone then.
    pub fn may_repeat(self, error: &Error, attempt: u32) -> bool {
        match error.kind {
            Kind::Throttled | Kind::Unavailable => self == Self::Read || error.effect == Effect::NotDone,
            Kind::Protocol => self == Self::Read && attempt < RUBBISH_MAX,
            _ => false,
        }
    }
}

/// The pause after attempt number `attempt` (the first is 0): doubling, with a jitter of up to half of it away
/// (`chance` is of 0 to 1), and never shorter than the cloud asked for.
pub fn pause(attempt: u32, chance: f64, retry_after: Option<Duration>) -> Duration {
    let full = PAUSE_FIRST.saturating_mul(1u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    let own = full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
    own.max(retry_after.unwrap_or_default())
}

/// How long an answer asks us to wait: `x-acs-retry-after` in milliseconds (by the vendor's SDK tests, read 2026-11-22) or
/// `Retry-After` in seconds. Its other form, a date, is not read: our own pauses do.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let number = |name: &str| response.header(name)?.trim().parse::<u32>().ok();
    number("x-acs-retry-after")
        .map(|millis| Duration::from_millis(millis.into()))
        .or_else(|| number("retry-after").map(|seconds| Duration::from_secs(seconds.into())))
}

/// The time in an answer's `Date` header.
pub fn date(response: &Response) -> Option<Timestamp> {
    static PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(response.header("date")?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::error::Blame;

    fn error(kind: Kind, effect: Effect) -> Error {
        Error {
            kind,
            effect,
            blame: Blame::Request,
            action: String::new(),
            code: String::new(),
            message: String::new(),
            request_id: None,
            retry_after: None,
        }
    }

    fn answer(headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Response { status: 200, headers, body: Vec::new() }
    }

    #[test]
    fn a_change_is_repeated_only_when_known_not_done() {
        let change = Intent::Change { before: Timestamp::MAX };
        let check = |kind, effect, read: bool, changed: bool| {
            assert_eq!(Intent::Read.may_repeat(&error(kind, effect), 0), read, "read {kind:?} {effect:?}");
            assert_eq!(change.may_repeat(&error(kind, effect), 0), changed, "change {kind:?} {effect:?}");
        };
        check(Kind::Throttled, Effect::NotDone, true, true);
        check(Kind::Throttled, Effect::Unknown, true, false);
        check(Kind::Unavailable, Effect::NotDone, true, true);
        check(Kind::Unavailable, Effect::Unknown, true, false);
        for kind in [Kind::Busy, Kind::Already, Kind::InvalidState, Kind::NotFound, Kind::Conflict, Kind::InUse] {
            check(kind, Effect::NotDone, false, false);
        }
        check(Kind::Protocol, Effect::Unknown, true, false);
        check(Kind::Protocol, Effect::NotDone, true, false);
        assert!(!Intent::Read.may_repeat(&error(Kind::Protocol, Effect::Unknown), RUBBISH_MAX));
        for kind in [Kind::Quota, Kind::Denied, Kind::Invalid, Kind::Unsupported] {
            check(kind, Effect::NotDone, false, false);
            check(kind, Effect::Unknown, false, false);
        }
    }

    #[test]
    fn pauses_double_to_a_limit_and_yield_to_the_cloud() {
        let check = |attempt, chance, asked: Option<u64>, expect: u64| {
            let asked = asked.map(Duration::from_millis);
            assert_eq!(pause(attempt, chance, asked), Duration::from_millis(expect), "attempt {attempt}");
        };
        check(0, 0.0, None, 250);
        check(0, 1.0, None, 125);
        check(1, 0.0, None, 500);
        check(3, 0.5, None, 1500);
        check(5, 0.0, None, 8000);
        check(u32::MAX, 0.0, None, 8000);
        check(0, 0.0, Some(9000), 9000);
        check(5, 0.0, Some(10), 8000);
    }

    #[test]
    fn the_cloud_says_when_to_come_again_in_milliseconds_or_seconds() {
        let check = |headers: &[(&str, &str)], expect: Option<u64>| {
            assert_eq!(retry_after(&answer(headers)), expect.map(Duration::from_millis), "{headers:?}");
        };
        check(&[], None);
        check(&[("retry-after", "2")], Some(2000));
        check(&[("x-acs-retry-after", "1500")], Some(1500));
        check(&[("retry-after", "9"), ("x-acs-retry-after", "1500")], Some(1500));
        check(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None);
        check(&[("retry-after", "-5")], None);
        check(&[("retry-after", "99999999999999999999")], None);
    }

    #[test]
    fn the_date_header_is_read_and_rubbish_is_none() {
        let check = |text: &str, expect: Option<&str>| {
            let expect = expect.map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(date(&answer(&[("date", text)])), expect, "{text}");
        };
        check("Sun, 22 Nov 2026 19:30:00 GMT", Some("2026-11-22T19:30:00Z"));
        check("Sun, 22 Nov 2026 19:30:00 +0000", Some("2026-11-22T19:30:00Z"));
        check("yesterday", None);
        check("", None);
        assert_eq!(date(&answer(&[])), None);
    }

    #[test]
    fn a_call_is_given_up_after_thirty_seconds_or_at_its_before() {
        let start: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let after = |seconds: i64| start.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(Intent::Read.deadline(start), after(30));
        assert_eq!(Intent::Change { before: after(5) }.deadline(start), after(5));
        assert_eq!(Intent::Change { before: after(50) }.deadline(start), after(30));
        assert_eq!(Intent::Read.deadline(Timestamp::MAX), Timestamp::MAX);
    }
}
