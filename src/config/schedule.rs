//! When a fleet is due, as the file says it. Only the expression is judged here; what is due *now* the scheduler
//! decides. No clock is asked.

use jiff::tz::TimeZone;

use super::fields::Group;
use super::fleet::bounded_duration;
use super::report::Report;
use crate::model::{Duration, show_duration};

/// When a fleet is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The expression as written: second, minute, hour, day, month, weekday.
    pub expression: String,
    /// The expression, read.
    pub cron: croner::Cron,
    /// The zone in which it is meant. Default UTC.
    pub timezone: TimeZone,
    /// A missed tick is caught up within it, else reported and skipped. Default one hour, at least a second.
    pub slack: Duration,
    /// The most by which a fleet is put off, the same for a fleet every time. Default none, at most the slack.
    pub jitter: Duration,
}

/// Reads `schedule` and what belongs to it; each is checked even where there is no schedule.
pub(super) fn read(report: &mut Report, group: &Group<'_>) -> Option<Schedule> {
    let cron = group.parse(report, "schedule", parse_cron);
    let timezone = group.parse(report, "timezone", parse_zone).unwrap_or(TimeZone::UTC);
    let slack = group.parse(report, "schedule_slack", |text| match bounded_duration(text)? {
        slack if slack < Duration::from_secs(1) => {
            Err("is less than a second: every tick is seen a moment late, so all would be skipped".to_string())
        }
        slack => Ok(slack),
    });
    let slack = slack.unwrap_or(Duration::from_secs(3600));
    let jitter = group.parse(report, "schedule_jitter", bounded_duration).unwrap_or_default();
    if let Some(field) = group.get("schedule_jitter").filter(|_| jitter > slack) {
        let (jitter, slack) = (show_duration(jitter), show_duration(slack));
        report.problem(
            &field.at,
            format!("{jitter} is more than schedule_slack ({slack}): a tick put off so far would count as missed"),
        );
    }
    if group.get("schedule").is_none() {
        let has_windows = group.get("windows").is_some() || group.get("freeze").is_some();
        for key in ["schedule_slack", "schedule_jitter", "timezone"] {
            if let Some(field) = group.own(key).filter(|_| key != "timezone" || !has_windows) {
                report.note(&field.at, "has no effect without a schedule: this fleet is rotated by hand only");
            }
        }
    }
    let cron = cron?;
    if let (Some(often), Some(field)) = (often(&cron), group.get("schedule")) {
        report.note(
            &field.at,
            format!("is due every {}: a tick that comes while a rotation is open is skipped", show_duration(often)),
        );
    }
    Some(Schedule { expression: cron.as_str().to_string(), cron, timezone, slack, jitter })
}

/// Six fields. Five, as crontab has them, would be read with the minute as the second.
fn parse_cron(text: &str) -> Result<croner::Cron, String> {
    const FIELDS: &str = "six fields: second minute hour day month weekday";
    let fields = text.split_whitespace().count();
    match fields {
        6 => {}
        5 => {
            return Err(format!(
                "{text:?} has five fields, as crontab has; this takes six, the second first: write \"0 {text}\""
            ));
        }
        _ => return Err(format!("{text:?} is no schedule of {FIELDS}, as in \"0 0 3 1 * *\"")),
    }
    let parser = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Required)
        .year(croner::parser::Year::Disallowed)
        .build();
    let cron = parser.parse(text).map_err(|error| format!("{text:?} is no schedule of {FIELDS}: {error}"))?;
    match cron.find_next_occurrence(&origin(), true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!("{text:?} never comes: no such day is in any month")),
    }
}

/// How often a schedule is due, if that is so often that it is likely a slip (`* 0 3 * * *` is every second of a minute).
fn often(cron: &croner::Cron) -> Option<Duration> {
    let ticks: Vec<jiff::civil::DateTime> = cron.iter_after(origin()).take(10).collect();
    let gaps = ticks.windows(2).filter_map(|pair| Duration::try_from(pair[0].duration_until(pair[1])).ok());
    gaps.min().filter(|gap| *gap < Duration::from_secs(600))
}

/// Some day: whether a schedule ever comes, and how often, does not depend on it.
pub(super) fn origin() -> jiff::civil::DateTime {
    jiff::civil::date(2026, 1, 1).at(0, 0, 0, 0)
}

pub(super) fn parse_zone(text: &str) -> Result<TimeZone, String> {
    if text == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(text).map_err(|_| {
        format!("{text:?} is no zone of this machine's time zone database; write it like Asia/Shanghai or UTC")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_six_fields_and_comes_some_day() {
        let check = |text: &str, expect: Result<(), &str>| match (parse_cron(text), expect) {
            (Ok(_), Ok(())) => {}
            (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
            (answer, _) => panic!("{text}: {answer:?}"),
        };
        check("0 0 3 1 * *", Ok(()));
        check("0 30 2 * * SUN", Ok(()));
        check("0 0 0 L * *", Ok(()));
        check("0 0 0 29 2 *", Ok(()));
        check("*/5 * * * * *", Ok(()));
        check("0 3 1 * *", Err("write \"0 0 3 1 * *\""));
        check("0 0 3 1 * * 2027", Err("six fields"));
        check("@monthly", Err("six fields"));
        check("", Err("six fields"));
        check("0 0 25 1 * *", Err("six fields"));
        check("0 0 3 31 2 *", Err("never comes"));
        check("a b c d e f", Err("six fields"));
    }

    #[test]
    fn a_schedule_that_comes_very_often_is_noticed() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(often(&parse_cron(text).unwrap()), seconds.map(Duration::from_secs), "{text}");
        };
        check("0 0 3 1 * *", None);
        check("0 0 * * * *", None);
        check("* 0 3 * * *", Some(1));
        check("0 */5 * * * *", Some(300));
    }
}
