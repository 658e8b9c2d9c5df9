//! When a fleet may be disturbed: weekly windows in its own time zone, less the days on which nothing is touched. Pure; it
//! must never ask a clock, and never say *open* for a moment of which it is not sure (a zone that is not known is closed).
//!
//! On days on which clocks are changed: a time that the clock leaves out is the end of the gap, one that it shows twice is
//! the first of the two, at both ends of a window.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::model::{Duration, Timestamp};

use super::policy::later;

/// So many days ahead a window is looked for.
const SEARCH_DAYS: i32 = 740;
/// Windows are reckoned so many days at once …
const CHUNK_DAYS: i32 = 10;
/// … and these before them, so that none is cut where two such stretches meet.
const MARGIN_DAYS: i32 = 9;

/// When a fleet may be disturbed. None: always, but for freezes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// The zone in which they are meant, by its IANA name.
    pub zone: String,
    /// The windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Days on which nothing begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Freeze>,
}

/// A window: on some days of the week, from one time to another; over midnight if the end is not after the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The days on which it begins: 1 is Monday, 7 Sunday.
    pub days: Vec<i8>,
    /// It opens.
    pub from: Time,
    /// It closes.
    pub to: Time,
}

/// Days on which nothing begins, the first and the last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The first day.
    pub first: Date,
    /// The last day.
    pub last: Date,
}

/// From one moment to another.
type Span = (Timestamp, Timestamp);

impl Windows {
    /// Whether there is nothing to keep to.
    pub fn are_none(&self) -> bool {
        self.windows.is_empty() && self.freeze.is_empty()
    }

    /// Whether what begins now and takes so long ends inside an open window.
    pub fn fits(&self, now: Timestamp, takes: Duration) -> bool {
        self.are_none() || self.open(now).is_some_and(|(_, until)| later(now, takes) <= until)
    }

    /// The open window: since when, and until when at least; `None`: it is closed.
    pub fn open(&self, now: Timestamp) -> Option<Span> {
        if self.are_none() {
            return Some((Timestamp::MIN, Timestamp::MAX));
        }
        let zone = TimeZone::get(&self.zone).ok()?;
        let spans = self.spans(&zone, zone.to_datetime(now).date(), CHUNK_DAYS);
        spans.into_iter().find(|(from, until)| *from <= now && now < *until)
    }

    /// The first moment, now or later, at which something may begin that takes so long; `None`: none within two years.
    pub fn next(&self, now: Timestamp, takes: Duration) -> Option<Timestamp> {
        if self.are_none() {
            return Some(now);
        }
        let zone = TimeZone::get(&self.zone).ok()?;
        let today = zone.to_datetime(now).date();
        for ahead in (0..SEARCH_DAYS).step_by(CHUNK_DAYS as usize) {
            let day = today.checked_add(ahead.days()).ok()?;
            let spans = self.spans(&zone, day, CHUNK_DAYS + 1);
            let fitting =
                spans.into_iter().filter(|(_, until)| *until > now).map(|(from, until)| (from.max(now), until));
            if let Some((from, _)) = fitting.into_iter().find(|(from, until)| later(*from, takes) <= *until) {
                return Some(from);
            }
        }
        None
    }

    /// The longest window of a common week; `None`: always open but for freezes.
    pub fn longest(&self) -> Option<Duration> {
        let minutes = |window: &Window| {
            let (from, to) = (window.from.hour() as u64 * 60 + window.from.minute() as u64, window.to);
            let to = to.hour() as u64 * 60 + to.minute() as u64;
            if to > from { to - from } else { to + 24 * 60 - from }
        };
        self.windows.iter().map(minutes).max().map(|minutes| Duration::from_secs(minutes * 60))
    }

    /// The open spans of some days and those before them, in order, those that touch each other as one, without the freezes.
    fn spans(&self, zone: &TimeZone, first: Date, days: i32) -> Vec<Span> {
        let mut open: Vec<Span> = Vec::new();
        for offset in -MARGIN_DAYS..days + MARGIN_DAYS {
            let Ok(day) = first.checked_add(offset.days()) else { continue };
            let all_day = Window { days: vec![day.weekday().to_monday_one_offset()], from: Time::MIN, to: Time::MIN };
            let windows = if self.windows.is_empty() { std::slice::from_ref(&all_day) } else { &self.windows };
            open.extend(windows.iter().filter_map(|window| window.on(day, zone)));
        }
        open.sort();
        let mut merged: Vec<Span> = Vec::new();
        for (from, until) in open {
            match merged.last_mut() {
                Some((_, last)) if from <= *last => *last = until.max(*last),
                _ => merged.push((from, until)),
            }
        }
        self.freeze
            .iter()
            .filter_map(|freeze| freeze.span(zone))
            .fold(merged, |open, freeze| open.into_iter().flat_map(|span| without(span, freeze)).collect())
    }
}

impl Window {
    /// The window that begins on this day, if one does.
    fn on(&self, day: Date, zone: &TimeZone) -> Option<Span> {
        if !self.days.contains(&day.weekday().to_monday_one_offset()) {
            return None;
        }
        let end = if self.to > self.from { day } else { day.tomorrow().ok()? };
        let span = (moment(zone, day.to_datetime(self.from))?, moment(zone, end.to_datetime(self.to))?);
        // In the gap of a change of clocks there may be nothing left of it.
        (span.0 < span.1).then_some(span)
    }
}

impl Freeze {
    fn span(&self, zone: &TimeZone) -> Option<Span> {
        let end = self.last.tomorrow().unwrap_or(Date::MAX);
        Some((moment(zone, self.first.to_datetime(Time::MIN))?, moment(zone, end.to_datetime(Time::MIN))?))
    }
}

/// What is left of a span.
fn without((from, until): Span, (begin, end): Span) -> impl Iterator<Item = Span> {
    let parts = [(from, until.min(begin)), (from.max(end), until)];
    parts.into_iter().filter(|(from, until)| from < until)
}

/// The moment that a local time means: the first, if the clock shows it twice; the end of the gap, if never.
fn moment(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let after_it = before.to_timestamp(local).ok()?;
            Some(zone.preceding(after_it.checked_add(Duration::from_nanos(1)).ok()?).next()?.timestamp())
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = self.days.iter().filter_map(|day| day_name(*day)).collect();
        let clock = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        write!(f, "{} {}-{}", days.join(","), clock(self.from), clock(self.to))
    }
}

/// A day's name, as the config file has it.
fn day_name(day: i8) -> Option<&'static str> {
    Some(match Weekday::from_monday_one_offset(day).ok()? {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DAYS FROM-TO`, days as digits; `DATE..DATE` freezes.
    fn windows(zone: &str, words: &str) -> Windows {
        let mut windows = Windows { zone: zone.to_string(), ..Windows::default() };
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if let Some((first, last)) = word.split_once("..") {
                windows.freeze.push(Freeze { first: first.parse().unwrap(), last: last.parse().unwrap() });
                continue;
            }
            let (from, to) = words.next().unwrap().split_once('-').unwrap();
            let days = word.bytes().map(|digit| (digit - b'0') as i8).collect();
            windows.windows.push(Window { days, from: from.parse().unwrap(), to: to.parse().unwrap() });
        }
        windows
    }

    /// Local times of the zone without an offset, or UTC with a Z.
    fn moment_of(zone: &str, text: &str) -> Timestamp {
        if text.ends_with('Z') {
            return text.parse().unwrap();
        }
        text.parse::<DateTime>().unwrap().to_zoned(TimeZone::get(zone).unwrap()).unwrap().timestamp()
    }

    const ALL: &str = "1234567";

    #[test]
    fn a_window_is_open_from_its_beginning_until_what_begins_could_no_longer_end() {
        let check = |words: &str, now: &str, minutes: u64, expect: bool| {
            let zone = "Asia/Shanghai";
            let fits = windows(zone, words).fits(moment_of(zone, now), Duration::from_secs(minutes * 60));
            assert_eq!(fits, expect, "{words} {now} {minutes}");
        };
        // 2026-11-23 is a Monday.
        check("12345 01:00-05:00", "2026-11-23T01:00", 10, true);
        check("12345 01:00-05:00", "2026-11-23T00:59:59", 0, false);
        check("12345 01:00-05:00", "2026-11-23T04:50", 10, true);
        check("12345 01:00-05:00", "2026-11-23T04:50:01", 10, false);
        check("12345 01:00-05:00", "2026-11-22T02:00", 0, false);
        // Over midnight it belongs to the day on which it begins.
        check("5 22:00-04:00", "2026-11-28T03:00", 60, true);
        check("5 22:00-04:00", "2026-11-27T03:00", 0, false);
        check("5 22:00-04:00", "2026-11-28T03:00:01", 60, false);
        // From and to alike: a whole day.
        check("1 06:00-06:00", "2026-11-24T05:00", 60, true);
        // Those that touch are one.
        check("1 22:00-00:00 2 00:00-02:00", "2026-11-23T23:30", 60, true);
        // None: always, but for freezes.
        check("", "2026-11-23T12:00", 1_000_000, true);
        check("2026-11-27..2026-11-27", "2026-11-27T00:00", 0, false);
        check("2026-11-27..2026-11-27", "2026-11-26T23:50", 10, true);
        check("2026-11-27..2026-11-27", "2026-11-26T23:50:01", 10, false);
        check("2026-11-27..2026-11-27", "2026-11-28T00:00", 10, true);
        // A freeze cuts a window that reaches into it.
        check("4 22:00-04:00 2026-11-27..2026-11-27", "2026-11-26T23:30", 60, false);
        check("4 22:00-04:00 2026-11-27..2026-11-27", "2026-11-26T23:00", 60, true);
    }

    #[test]
    fn the_next_moment_is_the_first_at_which_it_ends_inside() {
        let check = |zone: &str, words: &str, now: &str, minutes: u64, expect: &str| {
            let next = windows(zone, words).next(moment_of(zone, now), Duration::from_secs(minutes * 60));
            let expect = (expect != "never").then(|| moment_of(zone, expect));
            assert_eq!(next, expect, "{words} {now} {minutes}");
        };
        let shanghai = "Asia/Shanghai";
        check(shanghai, "12345 01:00-05:00", "2026-11-23T02:00", 10, "2026-11-23T02:00");
        check(shanghai, "12345 01:00-05:00", "2026-11-23T04:55", 10, "2026-11-24T01:00");
        check(shanghai, "12345 01:00-05:00", "2026-11-27T06:00", 10, "2026-11-30T01:00");
        check(shanghai, "12345 01:00-05:00", "2026-11-23T02:00", 241, "never");
        check(shanghai, "12345 01:00-05:00 2026-12-20..2027-01-05", "2026-12-19T10:00", 10, "2027-01-06T01:00");
        check(shanghai, "2026-12-20..2027-01-05", "2026-12-25T10:00", 10, "2027-01-06T00:00");
        check(shanghai, "7 01:00-02:00 2026-01-01..2026-12-31", "2026-01-01T00:00", 10, "2027-01-03T01:00");
        check(shanghai, "7 01:00-02:00 2026-01-01..2030-12-31", "2026-01-01T00:00", 10, "never");
        check("Nowhere/Nothing", "", "2026-01-01T00:00:00Z", 10, "2026-01-01T00:00:00Z");
    }

    #[test]
    fn changed_clocks_neither_lose_a_window_nor_stretch_it() {
        let zone = "Europe/Berlin";
        let check = |words: &str, now: &str, expect: &str| {
            let open = windows(zone, words).open(moment_of(zone, now));
            let shown = open.map_or("closed".to_string(), |(from, until)| format!("{from} {until}"));
            assert_eq!(shown, expect, "{words} {now}");
        };
        // 2026-03-29: 02:00 is 03:00. 2026-10-25: 03:00 is 02:00.
        check(&format!("{ALL} 01:00-05:00"), "2026-03-29T00:30:00Z", "2026-03-29T00:00:00Z 2026-03-29T03:00:00Z");
        check(&format!("{ALL} 02:30-05:00"), "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z 2026-03-29T03:00:00Z");
        check(&format!("{ALL} 01:00-02:30"), "2026-03-29T00:30:00Z", "2026-03-29T00:00:00Z 2026-03-29T01:00:00Z");
        check(&format!("{ALL} 02:15-02:45"), "2026-03-29T01:00:00Z", "closed");
        check(&format!("{ALL} 01:00-02:30"), "2026-10-25T00:15:00Z", "2026-10-24T23:00:00Z 2026-10-25T00:30:00Z");
        check(&format!("{ALL} 02:15-02:45"), "2026-10-25T01:30:00Z", "closed");
        check(&format!("{ALL} 01:00-05:00"), "2026-10-25T01:30:00Z", "2026-10-24T23:00:00Z 2026-10-25T04:00:00Z");
    }

    #[test]
    fn a_zone_that_is_not_known_is_closed_and_says_when_it_never_opens() {
        let windows = windows("Nowhere/Nothing", "1234567 00:00-00:00");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(!windows.fits(now, Duration::ZERO));
        assert_eq!((windows.open(now), windows.next(now, Duration::ZERO)), (None, None));
    }

    #[test]
    fn windows_are_written_into_plans_as_every_release_will_read_them() {
        let windows = windows("Asia/Tokyo", "15 22:00-04:30 2026-12-20..2027-01-05");
        let text = r#"{"zone":"Asia/Tokyo","windows":[{"days":[1,5],"from":"22:00:00","to":"04:30:00"}],"freeze":[{"first":"2026-12-20","last":"2027-01-05"}]}"#;
        assert_eq!(serde_json::to_string(&windows).unwrap(), text);
        assert_eq!(serde_json::from_str::<Windows>(text).unwrap(), windows);
        assert_eq!(windows.windows[0].to_string(), "mon,fri 22:00-04:30");
        assert_eq!(windows.longest(), Some(Duration::from_secs(6 * 3600 + 1800)));
    }
}
