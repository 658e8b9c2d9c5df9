//! Times as people give them: a date, a moment, or so long ago. Pure: the present comes in by argument.

use jiff::Span;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::model::{Timestamp, parse_duration};

/// What a time may look like, for messages and help.
pub(super) const FORMS: &str =
    "2026-11-01, 2026-11-01T03:00, 2026-11-01T03:00:00+08:00, or 7d for so long ago; UTC unless it says";

/// Which end of a day is meant where no time of day is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    First,
    Last,
}

/// The moment that a text means.
pub(super) fn parse(text: &str, now: Timestamp, end: End) -> Result<Timestamp, String> {
    let text = text.trim();
    let bad = || format!("{text:?} is no time: write {FORMS}");
    if let Ok(ago) = parse_duration(text) {
        let ago = Span::try_from(ago).map_err(|_| bad())?;
        return now.checked_sub(ago).map_err(|_| format!("{text:?} ago is before all calendars"));
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| bad());
    if text.len() == "2026-11-01".len() {
        let day = text.parse::<Date>().map_err(|_| bad())?;
        return match end {
            End::First => utc(day.at(0, 0, 0, 0)),
            End::Last => utc(day.at(23, 59, 59, 999_999_999)),
        };
    }
    text.parse::<DateTime>().map_err(|_| bad()).and_then(utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_moment_or_so_long_ago() {
        let now: Timestamp = "2026-11-23T07:00:00Z".parse().unwrap();
        let check = |text: &str, end: End, expect: Option<&str>| {
            let read = parse(text, now, end).ok();
            assert_eq!(read, expect.map(|time| time.parse::<Timestamp>().unwrap()), "{text}");
        };
        check("2026-11-01", End::First, Some("2026-11-01T00:00:00Z"));
        check("2026-11-01", End::Last, Some("2026-11-01T23:59:59.999999999Z"));
        check("2026-11-01T03:00", End::Last, Some("2026-11-01T03:00:00Z"));
        check("2026-11-01 03:00:10", End::First, Some("2026-11-01T03:00:10Z"));
        check("2026-11-01T03:00:00+08:00", End::First, Some("2026-10-31T19:00:00Z"));
        check("2026-11-23T07:09:24Z", End::First, Some("2026-11-23T07:09:24Z"));
        check("7d", End::First, Some("2026-11-16T07:00:00Z"));
        check("1h 30m", End::Last, Some("2026-11-23T05:30:00Z"));
        check("2026-13-01", End::First, None);
        check("yesterday", End::First, None);
        check("", End::First, None);
        check("99999y", End::First, None);
        assert!(parse("soon", now, End::First).unwrap_err().contains("2026-11-01"));
    }
}
