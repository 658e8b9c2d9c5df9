//! When a fleet may be disturbed, and what is run around each batch, as the file says it: `windows`, `freeze`, `hooks`. A
//! window in which no batch could ever end is a mistake, not a wait. It must never run a hook, nor look whether one is there:
//! the file may be checked on another machine.

use jiff::civil::{Date, Time};

use super::fields::{Field, Group, Quote};
use super::fleet::bounded_duration;
use super::report::Report;
use super::schedule::{Schedule, parse_zone};
use crate::model::{Duration, show_duration};
use crate::rotation::policy::later;
use crate::rotation::{Freeze, HookCommand, Hooks, Window, Windows};

/// A hook may take so long unless the file says otherwise …
const HOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// … and this at most: machines may be drained meanwhile.
const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The days of the week, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// So many ticks of a schedule are looked at to see whether one ever falls into a window.
const TICKS: usize = 400;

/// Reads `windows` and `freeze`. `takes`: a whole batch with its hooks, where the cloud is known.
pub(super) fn read_windows(
    report: &mut Report,
    group: &Group<'_>,
    takes: Option<Duration>,
    schedule: Option<&Schedule>,
) -> Windows {
    let zone = group.get("timezone").and_then(|field| match &field.node.value {
        super::tree::Value::Text(text) => parse_zone(text).ok(),
        _ => None,
    });
    let zone = zone.as_ref().and_then(|zone| zone.iana_name()).unwrap_or("UTC").to_string();
    let mut windows = Windows { zone, ..Windows::default() };
    let field = group.get("windows");
    for one in field.as_ref().map(|field| field.list(report)).unwrap_or_default() {
        windows.windows.extend(read_window(report, &one, takes));
    }
    for one in group.get("freeze").map(|field| field.list(report)).unwrap_or_default() {
        windows.freeze.extend(one.parse(report, parse_freeze));
    }
    if let (Some(field), Some(schedule), Some(takes)) = (group.get("schedule"), schedule, takes)
        && !windows.are_none()
        && !ever_falls_inside(schedule, &windows, takes)
    {
        let slack = show_duration(schedule.slack);
        // Freezes end: there are ticks after the last one.
        let frozen = windows.freeze.iter().map(|freeze| freeze.last).max().filter(|_| windows.windows.is_empty());
        let note = match frozen {
            Some(last) => format!(
                "falls on days of the fleet's freeze again and again: those ticks are skipped, and `rekeyd rotate` is refused \
                 without --force=window; after {last} nothing is frozen"
            ),
            None => format!(
                "never falls into one of the fleet's windows, nor does one open within schedule_slack ({slack}): every \
                 tick would be skipped"
            ),
        };
        report.note(&field.at, note);
    }
    windows
}

fn read_window(report: &mut Report, field: &Field<'_>, takes: Option<Duration>) -> Option<Window> {
    let group = Group::open(report, field, &["days", "from", "to"], Quote::Keys);
    let days = match group.get("days") {
        Some(field) => field.parse(report, parse_days),
        None => Some((1..=7).collect()),
    };
    let why = "write a time of day, as from: \"01:00\"";
    let from = group.need(report, "from", why).and_then(|field| field.parse(report, parse_time));
    let to = group.need(report, "to", why).and_then(|field| field.parse(report, parse_time));
    let window = Window { days: days?, from: from?, to: to? };
    let alone = Windows { windows: vec![window.clone()], ..Windows::default() };
    if let (Some(length), Some(takes)) = (alone.longest(), takes)
        && length < takes
    {
        let (length, takes) = (show_duration(length), show_duration(takes));
        report.problem(
            &field.at,
            format!("{window} is {length} long: too short for one batch, which takes {takes} with its hooks"),
        );
    }
    Some(window)
}

/// Whether one of the next ticks finds a window open, or one that opens within the slack.
fn ever_falls_inside(schedule: &Schedule, windows: &Windows, takes: Duration) -> bool {
    let Ok(origin) = super::schedule::origin().to_zoned(schedule.timezone.clone()) else { return true };
    let mut ticks = schedule.cron.iter_after(origin).take(TICKS);
    ticks.any(|tick| {
        let tick = tick.timestamp();
        windows.next(tick, takes).is_some_and(|open| open <= later(tick, schedule.slack))
    })
}

/// `mon-fri`, `sat,sun`, `mon,wed-fri`, `all`; a range may go over the end of the week.
fn parse_days(text: &str) -> Result<Vec<i8>, String> {
    let bad = || format!("{text:?} is no list of days: write mon-fri, sat,sun or all");
    let day = |name: &str| DAYS.iter().position(|day| *day == name.trim().to_lowercase()).ok_or_else(bad);
    let mut found = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None if part.trim() == "all" => (0, 6),
            None => (day(part)?, day(part)?),
        };
        (0..=(last + 7 - first) % 7).for_each(|offset| found[(first + offset) % 7] = true);
    }
    Ok((1..=7).filter(|day| found[*day as usize - 1]).collect())
}

fn parse_time(text: &str) -> Result<Time, String> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let two = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
        let (hour, minute) = (two(hour)?, two(minute)?);
        // The end of a day is the beginning of the next one.
        let hour = if (hour, minute) == (24, 0) { 0 } else { hour };
        Time::new(hour, minute, 0, 0).ok()
    });
    parsed.ok_or_else(|| format!("{text:?} is no time of day: write it like \"01:00\" or \"24:00\", in quotes"))
}

/// `2026-12-20..2027-01-05`, or one day.
fn parse_freeze(text: &str) -> Result<Freeze, String> {
    let bad = || format!("{text:?} is neither a day (2026-11-27) nor days (2026-12-20..2027-01-05)");
    let day = |text: &str| text.trim().parse::<Date>().map_err(|_| bad());
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    if last < first {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok(Freeze { first, last })
}

/// Reads `hooks`.
pub(super) fn read_hooks(report: &mut Report, group: &Group<'_>) -> Hooks {
    let hooks = group.group(report, "hooks", &["before_batch", "after_batch"]);
    let mut read = |key: &str| {
        hooks.get(key)?;
        let hook = hooks.group(report, key, &["command", "timeout"]);
        read_command(report, &hook)
    };
    Hooks { before_batch: read("before_batch"), after_batch: read("after_batch") }
}

/// Reads `command` and `timeout` of a program that the operator names.
pub(super) fn read_command(report: &mut Report, group: &Group<'_>) -> Option<HookCommand> {
    let timeout = group.parse(report, "timeout", |text| match bounded_duration(text)? {
        timeout if timeout < Duration::from_secs(1) || timeout > HOOK_TIMEOUT_MAX => {
            Err(format!("{text} is no time for a hook: 1s to {}", show_duration(HOOK_TIMEOUT_MAX)))
        }
        timeout => Ok(timeout),
    });
    let why = "write the program and its arguments, as command: [/usr/local/bin/drain, web]; no shell reads it";
    let field = group.need(report, "command", why)?;
    let words = field.list(report);
    let command: Vec<String> = words.iter().filter_map(|word| word.parse(report, parse_word)).collect();
    if command.first().is_none_or(String::is_empty) {
        report.problem(&field.at, format!("names no program; {why}"));
        return None;
    }
    Some(HookCommand { command, timeout: timeout.unwrap_or(HOOK_TIMEOUT) })
}

fn parse_word(text: &str) -> Result<String, String> {
    match text.contains('\0') {
        true => Err("holds a zero byte, which no program can be given".to_string()),
        false => Ok(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_names_ranges_and_lists_of_them() {
        let check = |text: &str, expect: Option<&[i8]>| {
            assert_eq!(parse_days(text).ok().as_deref(), expect, "{text}");
        };
        check("mon-fri", Some(&[1, 2, 3, 4, 5]));
        check("sat,sun", Some(&[6, 7]));
        check("Mon, wed-fri", Some(&[1, 3, 4, 5]));
        check("fri-mon", Some(&[1, 5, 6, 7]));
        check("all", Some(&[1, 2, 3, 4, 5, 6, 7]));
        check("", None);
        check("monday", None);
        check("mon-", None);
        check("1-5", None);
    }

    #[test]
    fn times_and_freezes_are_read_or_refused_with_the_form() {
        let check = |text: &str, expect: Option<&str>| {
            let expect = expect.map(|time| time.parse::<Time>().unwrap());
            assert_eq!(parse_time(text).ok(), expect, "{text}");
        };
        check("01:00", Some("01:00"));
        check("23:59", Some("23:59"));
        check("24:00", Some("00:00"));
        check("24:01", None);
        check("1:00", None);
        check("01:00:00", None);
        check("60", None);
        let freeze = |text: &str, expect: Option<(&str, &str)>| {
            let read = parse_freeze(text).ok().map(|freeze| (freeze.first.to_string(), freeze.last.to_string()));
            assert_eq!(read, expect.map(|(first, last)| (first.to_string(), last.to_string())), "{text}");
        };
        freeze("2026-12-20..2027-01-05", Some(("2026-12-20", "2027-01-05")));
        freeze("2026-11-27", Some(("2026-11-27", "2026-11-27")));
        freeze("2027-01-05..2026-12-20", None);
        freeze("2026-02-30", None);
        freeze("christmas", None);
    }
}
