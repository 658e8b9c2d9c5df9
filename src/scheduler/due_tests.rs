//! Tables for [`super`]: what is judged, and which moments an expression names on the days on which clocks are changed.
//! Each moment is worked out by hand from the zone's rule, and said in UTC.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn mark() -> Mark {
    Mark::try_from("a7f3".to_string()).unwrap()
}

/// A schedule without jitter.
fn schedule(expression: &str, zone: &str, slack: Duration) -> Schedule {
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Required).build();
    let cron = parser.parse(expression).unwrap();
    Schedule::new(cron, TimeZone::get(zone).unwrap(), slack, Duration::ZERO, &FleetName::from("web"), &mark())
}

/// The first due moments after `after`.
fn moments(schedule: &Schedule, after: &str, count: usize) -> Vec<Timestamp> {
    std::iter::successors(schedule.next(at(after)), |due| schedule.next(*due)).take(count).collect()
}

#[test]
fn a_tick_starts_one_rotation_or_is_skipped_and_never_comes_twice() {
    // Each day at 03:00 UTC; a tick is caught up for an hour.
    let daily = schedule("0 0 3 * * *", "UTC", HOUR);
    let hourly = schedule("0 0 * * * *", "UTC", HOUR);
    let secondly = schedule("* * * * * *", "UTC", HOUR);
    struct Row<'a> {
        kept: Option<(&'a str, &'a str)>,
        begun: Option<&'a str>,
        is_open: bool,
        now: &'a str,
    }
    let kept = |schedule: &'static str, due: &'static str| Row {
        kept: Some((schedule, due)),
        begun: None,
        is_open: false,
        now: "",
    };
    let check = |what: &str, schedule: &Schedule, row: Row<'_>, due: &str, tick: Tick| {
        let kept = row.kept.map(|(text, due)| (if text.is_empty() { schedule.text.as_str() } else { text }, at(due)));
        let judgement = schedule.judge(kept, row.begun.map(at), row.is_open, at(row.now));
        assert_eq!(judgement, Judgement { due: Some(at(due)), tick }, "{what}");
    };
    let start = |due: &str, late: u64| Tick::Start { due: at(due), late: Duration::from_secs(late) };
    let skipped = |due: &str, why: Skip| Tick::Skipped { due: at(due), why };
    let missed = Skip::Missed { slack: HOUR };

    let seen_first = Row { kept: None, begun: None, is_open: false, now: "2027-01-10T03:00:00Z" };
    check("a fleet seen first waits for its next tick", &daily, seen_first, "2027-01-11T03:00:00Z", Tick::None);
    let row = Row { now: "2027-01-10T03:00:05Z", ..kept("0 0 3 * * * UTC 1h", "2027-01-10T03:00:00Z") };
    check("a changed schedule waits for its next tick", &daily, row, "2027-01-11T03:00:00Z", Tick::None);

    let row = Row { now: "2027-01-10T02:59:59.999Z", ..kept("", "2027-01-10T03:00:00Z") };
    check("before it is due nothing is done", &daily, row, "2027-01-10T03:00:00Z", Tick::None);
    let row = Row { now: "2027-01-10T02:00:00Z", ..kept("", "2039-06-01T03:00:00Z") };
    check("a due time from a clock that was wrong is brought forward", &daily, row, "2027-01-10T03:00:00Z", Tick::None);
    let row = Row { now: "2027-01-10T02:00:00Z", ..kept("", "2027-01-10T02:30:00Z") };
    check("a due time earlier than the next tick is waited for", &daily, row, "2027-01-10T02:30:00Z", Tick::None);

    let due = "2027-01-10T03:00:00Z";
    let row = Row { now: due, ..kept("", due) };
    check("at the due time it starts", &daily, row, due, start(due, 0));
    let row = Row { now: "2027-01-10T04:00:00Z", ..kept("", due) };
    check("so late is not too late", &daily, row, due, start(due, 3600));
    let row = Row { now: "2027-01-10T04:00:00.000000001Z", ..kept("", due) };
    check("any later is", &daily, row, "2027-01-11T03:00:00Z", skipped(due, missed));
    let row = Row { now: "2027-01-10T02:59:59Z", ..kept("", "2027-01-03T03:00:00Z") };
    check("a week away, and no tick within the slack", &daily, row, due, skipped("2027-01-03T03:00:00Z", missed));
    let row = Row { now: "2027-01-10T03:20:00Z", ..kept("", "2027-01-03T03:00:00Z") };
    check("a week away, and the newest tick counts", &daily, row, due, start(due, 1200));
    let row = Row { now: "2027-01-10T03:20:00Z", ..kept("", "2027-01-03T03:00:00Z") };
    check("of many missed ticks one is caught up", &hourly, row, due, start(due, 1200));
    let row = Row { now: "2027-01-10T03:20:00.5Z", ..kept("", "2027-01-03T03:00:00Z") };
    let newest = "2027-01-10T03:20:00Z";
    let half = Tick::Start { due: at(newest), late: Duration::from_millis(500) };
    check("of a week of seconds the last", &secondly, row, newest, half);

    let row = Row { is_open: true, now: "2027-01-10T03:00:01Z", ..kept("", due) };
    check("never two at once", &daily, row, "2027-01-11T03:00:00Z", skipped(due, Skip::Open));
    let row = Row { is_open: true, begun: Some("2027-01-09T23:00:00Z"), now: "2027-01-10T09:30:00Z", ..kept("", due) };
    let newest = "2027-01-10T09:00:00Z";
    check("nor after a while away", &hourly, row, "2027-01-10T10:00:00Z", skipped(newest, Skip::Open));

    let begun = Some("2027-01-10T03:00:01Z");
    let row = Row { begun, is_open: true, now: "2027-01-10T03:00:02Z", ..kept("", due) };
    check("a tick is served by the rotation that began", &daily, row, "2027-01-11T03:00:00Z", Tick::None);
    let row = Row { begun: Some(due), now: "2027-01-10T03:00:02Z", ..kept("", due) };
    check("at that very moment too", &daily, row, "2027-01-11T03:00:00Z", Tick::None);
    let row = Row { begun: Some("2027-01-10T02:59:59Z"), now: "2027-01-10T03:00:02Z", ..kept("", due) };
    check("but not by one before it", &daily, row, due, start(due, 2));
    let row = Row { begun, now: "2027-01-11T03:10:00Z", ..kept("", due) };
    let next = "2027-01-11T03:00:00Z";
    check("what was due after it began is not served", &daily, row, next, start(next, 600));
    let row = Row { begun, now: "2027-01-11T05:00:00Z", ..kept("", due) };
    check("and is missed like any other", &daily, row, "2027-01-12T03:00:00Z", skipped(next, missed));
    // 03:00 is served; the clock goes back an hour; 03:00 comes again.
    let row = Row { begun, now: "2027-01-10T02:00:02Z", ..kept("", next) };
    check("a clock set back sees the tick again", &daily, row, due, Tick::None);
    let row = Row { begun, now: due, ..kept("", due) };
    check("and does not start again", &daily, row, next, Tick::None);
}

#[test]
fn a_start_waits_until_it_has_begun_or_is_too_old() {
    // Whatever the loop does in between, the tick is kept: a rotation that cannot be begun is not forgotten.
    let schedule = schedule("0 0 3 * * *", "UTC", Duration::from_secs(60));
    let (due, mut kept) = (at("2027-01-10T03:00:00Z"), at("2027-01-10T03:00:00Z"));
    for second in 0..=60 {
        let now = due + Duration::from_secs(second);
        let judgement = schedule.judge(Some((&schedule.text, kept)), None, false, now);
        assert_eq!(judgement.tick, Tick::Start { due, late: Duration::from_secs(second) });
        kept = judgement.due.unwrap();
    }
    let judgement = schedule.judge(Some((&schedule.text, kept)), None, false, due + Duration::from_secs(61));
    assert_eq!(judgement.tick, Tick::Skipped { due, why: Skip::Missed { slack: Duration::from_secs(60) } });
    assert_eq!(judgement.due, Some(at("2027-01-11T03:00:00Z")));
    assert_eq!(
        Skip::Missed { slack: HOUR }.to_string(),
        "it was missed by more than schedule_slack (1h)",
        "and says why"
    );
}

#[test]
fn ticks_that_come_while_no_daemon_runs_are_caught_up_once_or_reported() {
    // tokio-cron-scheduler keeps nothing: what was due while it was not running never comes. Here what was kept is all
    // that a restart finds.
    let schedule = schedule("0 0 */6 * * *", "UTC", HOUR);
    let check = |back: &str, expect: &[Tick]| {
        let mut kept = schedule.judge(None, None, false, at("2027-01-10T05:00:00Z")).due;
        let (mut begun, mut seen) = (None, Vec::new());
        for second in 0..10 {
            let now = at(back) + Duration::from_secs(second);
            let judgement = schedule.judge(kept.map(|due| (schedule.text.as_str(), due)), begun, false, now);
            kept = judgement.due;
            begun = begun.or(matches!(judgement.tick, Tick::Start { .. }).then_some(now));
            seen.push(judgement.tick);
        }
        seen.retain(|tick| *tick != Tick::None);
        assert_eq!(seen, expect, "back at {back}");
    };
    let missed = Skip::Missed { slack: HOUR };
    let (first, later) = (at("2027-01-10T06:00:00Z"), at("2027-01-13T12:00:00Z"));
    check("2027-01-10T05:59:00Z", &[]);
    check("2027-01-10T06:30:00Z", &[Tick::Start { due: first, late: HOUR / 2 }]);
    check("2027-01-10T08:00:00Z", &[Tick::Skipped { due: first, why: missed }]);
    check("2027-01-13T12:30:00Z", &[Tick::Start { due: later, late: HOUR / 2 }]);
}

/// Lets `judge` be asked each minute from `from`, and gives the ticks that were started.
fn simulate(schedule: &Schedule, from: &str, until: &str) -> Vec<Timestamp> {
    let (mut now, mut kept, mut begun) = (at(from), None, None);
    let mut started = Vec::new();
    while now < at(until) {
        let judgement = schedule.judge(kept.map(|due| (schedule.text.as_str(), due)), begun, false, now);
        match judgement.tick {
            Tick::None => {}
            Tick::Start { due, late } => {
                assert!(late < Duration::from_secs(60), "{due} at {now}");
                started.push(due);
                begun = Some(now);
            }
            Tick::Skipped { .. } => panic!("{judgement:?} at {now}"),
        }
        kept = judgement.due;
        now += Duration::from_secs(60);
    }
    started
}

#[test]
fn on_the_days_on_which_clocks_change_a_fleet_is_rotated_at_the_right_local_time_once() {
    let check = |zone: &str, expression: &str, from: &str, until: &str, expect: &[&str]| {
        let schedule = schedule(expression, zone, Duration::from_secs(600));
        let expect: Vec<Timestamp> = expect.iter().map(|text| at(text)).collect();
        assert_eq!(moments(&schedule, from, expect.len()), expect, "{expression} in {zone}");
        assert_eq!(simulate(&schedule, from, until), expect, "{expression} in {zone}, minute by minute");
    };
    // Berlin, spring: on Sunday 2027-03-28 at 01:00 UTC the clock goes from 02:00 (CET, +1) to 03:00 (CEST, +2).
    let (from, until) = ("2027-03-26T12:00:30.5Z", "2027-03-29T12:00:00Z");
    // 02:30 CET; never shown, so 03:00 CEST; 02:30 CEST.
    let expect = ["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"];
    check("Europe/Berlin", "0 30 2 * * *", from, until, &expect);
    // 03:30 CET; 03:30 CEST; 03:30 CEST.
    let expect = ["2027-03-27T02:30:00Z", "2027-03-28T01:30:00Z", "2027-03-29T01:30:00Z"];
    check("Europe/Berlin", "0 30 3 * * *", from, until, &expect);
    // The last Sunday of a month is that day.
    check("Europe/Berlin", "0 30 2 * * SUNL", from, until, &["2027-03-28T01:00:00Z"]);
    // Several ticks that are never shown are one; those beside them come as ever.
    let expect = ["2027-03-27T23:00:00Z", "2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z"];
    check(
        "Europe/Berlin",
        "0 0,30 0,2,4 28 3 *",
        from,
        until,
        &[expect[0], "2027-03-27T23:30:00Z", expect[1], expect[2], "2027-03-28T02:30:00Z"],
    );

    // Berlin, autumn: on Sunday 2027-10-31 at 01:00 UTC the clock goes from 03:00 (CEST) to 02:00 (CET).
    let (from, until) = ("2027-10-29T12:00:30.5Z", "2027-11-01T12:00:00Z");
    // 02:30 CEST; the first 02:30, CEST; 02:30 CET.
    let expect = ["2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"];
    check("Europe/Berlin", "0 30 2 * * *", from, until, &expect);
    // 03:30 CEST; 03:30 CET; 03:30 CET.
    let expect = ["2027-10-30T01:30:00Z", "2027-10-31T02:30:00Z", "2027-11-01T02:30:00Z"];
    check("Europe/Berlin", "0 30 3 * * *", from, until, &expect);
    // Twice a day stays twice a day: 02:00 CEST once, 14:00 CET.
    check("Europe/Berlin", "0 0 2,14 31 10 *", from, until, &["2027-10-31T00:00:00Z", "2027-10-31T13:00:00Z"]);

    // New York, spring: on Sunday 2027-03-14 at 07:00 UTC the clock goes from 02:00 (EST, -5) to 03:00 (EDT, -4).
    let (from, until) = ("2027-03-12T17:00:30.5Z", "2027-03-15T17:00:00Z");
    // 02:30 EST; never shown, so 03:00 EDT; 02:30 EDT.
    let expect = ["2027-03-13T07:30:00Z", "2027-03-14T07:00:00Z", "2027-03-15T06:30:00Z"];
    check("America/New_York", "0 30 2 * * *", from, until, &expect);
    // 03:30 EST; 03:30 EDT; 03:30 EDT.
    let expect = ["2027-03-13T08:30:00Z", "2027-03-14T07:30:00Z", "2027-03-15T07:30:00Z"];
    check("America/New_York", "0 30 3 * * *", from, until, &expect);

    // New York, autumn: on Sunday 2027-11-07 at 06:00 UTC the clock goes from 02:00 (EDT) to 01:00 (EST).
    let (from, until) = ("2027-11-05T17:00:30.5Z", "2027-11-08T17:00:00Z");
    // 01:30 EDT; the first 01:30, EDT; 01:30 EST.
    let expect = ["2027-11-06T05:30:00Z", "2027-11-07T05:30:00Z", "2027-11-08T06:30:00Z"];
    check("America/New_York", "0 30 1 * * *", from, until, &expect);
    // 02:30 is not shown twice there: 02:30 EDT; 02:30 EST; 02:30 EST.
    let expect = ["2027-11-06T06:30:00Z", "2027-11-07T07:30:00Z", "2027-11-08T07:30:00Z"];
    check("America/New_York", "0 30 2 * * *", from, until, &expect);
    // 03:30 EDT; 03:30 EST; 03:30 EST.
    let expect = ["2027-11-06T07:30:00Z", "2027-11-07T08:30:00Z", "2027-11-08T08:30:00Z"];
    check("America/New_York", "0 30 3 * * *", from, until, &expect);

    // Lord Howe changes by half an hour. On 2027-10-03 at 02:00 (+10:30) it is 02:30 (+11): 02:15 is never shown.
    let expect = ["2027-10-01T15:45:00Z", "2027-10-02T15:30:00Z", "2027-10-03T15:15:00Z"];
    check("Australia/Lord_Howe", "0 15 2 * * *", "2027-10-01T12:00:30.5Z", "2027-10-04T12:00:00Z", &expect);
    // On 2027-04-04 at 02:00 (+11) it is 01:30 (+10:30): 01:45 is shown twice, the first is +11.
    let expect = ["2027-04-02T14:45:00Z", "2027-04-03T14:45:00Z", "2027-04-04T15:15:00Z"];
    check("Australia/Lord_Howe", "0 45 1 * * *", "2027-04-02T12:00:30.5Z", "2027-04-05T12:00:00Z", &expect);

    // Nuuk: on Saturday 2027-03-27 at 23:00 (-2) it is Sunday 00:00 (-1): Saturday's 23:30 comes at the gap's end.
    let expect = ["2027-03-28T01:00:00Z"];
    check("America/Nuuk", "0 30 23 * * SAT", "2027-03-26T12:00:30.5Z", "2027-03-29T12:00:00Z", &expect);
    // Samoa had no 2011-12-30 (-10, then +14): the tick of noon comes at the gap's end, and the next at its time.
    let expect = ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"];
    check("Pacific/Apia", "0 0 12 * * *", "2011-12-29T12:00:30.5Z", "2011-12-31T12:00:00Z", &expect);
}

#[test]
fn an_hourly_fleet_is_rotated_each_hour_that_passes_whatever_the_clock_shows() {
    // Zones that are whole hours from UTC: the ticks are UTC's own hours. Berlin's 2027-03-28 has 23 of them
    // (from 23:00 UTC to 22:00), its 2027-10-31 25 (from 22:00 to 23:00); so have New York's days.
    let check = |zone: &str, midnight: &str, next_midnight: &str, hours: usize| {
        let hourly = schedule("0 0 * * * *", zone, Duration::from_secs(600));
        let first = at(midnight);
        let expect: Vec<Timestamp> = (0..hours).map(|hour| first + HOUR * hour as u32).collect();
        assert_eq!(at(next_midnight), first + HOUR * hours as u32, "{zone}");
        let from = (first - Duration::from_secs(30)).to_string();
        assert_eq!(moments(&hourly, &from, hours), expect, "{zone}");
        assert_eq!(simulate(&hourly, &from, next_midnight), expect, "{zone}, minute by minute");
        // Asked at any moment, the answer is the next hour.
        for minute in 0..hours as u32 * 60 {
            let now = first + Duration::from_millis(60_000 * u64::from(minute) + 20_500);
            assert_eq!(hourly.next(now), Some(first + HOUR * (minute / 60 + 1)), "{zone} at {now}");
        }
    };
    check("Europe/Berlin", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z", 23);
    check("Europe/Berlin", "2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z", 25);
    check("America/New_York", "2027-03-14T05:00:00Z", "2027-03-15T04:00:00Z", 23);
    check("America/New_York", "2027-11-07T04:00:00Z", "2027-11-08T05:00:00Z", 25);
    check("Asia/Shanghai", "2027-03-27T16:00:00Z", "2027-03-28T16:00:00Z", 24);
}

#[test]
fn months_and_years_are_as_the_calendar_has_them() {
    let check = |zone: &str, expression: &str, expect: &[&str]| {
        let expect: Vec<Timestamp> = expect.iter().map(|text| at(text)).collect();
        let schedule = schedule(expression, zone, HOUR);
        assert_eq!(moments(&schedule, "2027-01-20T00:00:00Z", expect.len()), expect, "{expression} in {zone}");
    };
    // 03:00 in Shanghai (+8, no summer time) is 19:00 UTC of the day before.
    check("Asia/Shanghai", "0 0 3 1 * *", &["2027-01-31T19:00:00Z", "2027-02-28T19:00:00Z", "2027-03-31T19:00:00Z"]);
    check("UTC", "0 0 0 29 2 *", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    check("UTC", "0 0 0 L * *", &["2027-01-31T00:00:00Z", "2027-02-28T00:00:00Z", "2027-03-31T00:00:00Z"]);
    check("UTC", "0 0 0 L 2 *", &["2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"]);
    // The last Sundays: January 31st, February 28th, in CET at 02:30; March 28th at 03:00 CEST; April 25th in CEST.
    let sundays = ["2027-01-31T01:30:00Z", "2027-02-28T01:30:00Z", "2027-03-28T01:00:00Z", "2027-04-25T00:30:00Z"];
    check("Europe/Berlin", "0 30 2 * * SUNL", &sundays);
}

#[test]
fn whatever_the_moment_the_next_one_is_the_first_after_it() {
    // Two years of fold, gap and everything between, against a walk through all due moments from the beginning.
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Cairo"] {
        for expression in
            ["0 30 2 * * *", "0 */20 0-3 * * SUN", "30 15 1 * * *", "0 30 23 * * FRI,SAT", "0 45 * * * SUN"]
        {
            let schedule = schedule(expression, zone, HOUR);
            let all = moments(&schedule, "2026-12-31T00:00:00Z", 1500);
            assert!(all.is_sorted_by(|a, b| a < b), "{expression} in {zone}");
            for pair in all.windows(2) {
                for now in [pair[0], pair[0] + NANOSECOND, pair[0] + HOUR / 2, pair[1] - NANOSECOND] {
                    if now < pair[1] {
                        assert_eq!(schedule.next(now), Some(pair[1]), "{expression} in {zone} at {now}");
                    }
                }
            }
        }
    }
}

#[test]
fn where_one_time_is_named_croner_means_the_same_moments() {
    for zone in ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"] {
        for expression in ["0 30 2 * * *", "0 0 0 * * *", "59 59 1 * * SUN", "0 15 2 L * *"] {
            let schedule = schedule(expression, zone, HOUR);
            let mut now = at("2027-01-01T00:00:00Z").to_zoned(TimeZone::get(zone).unwrap());
            for due in moments(&schedule, "2027-01-01T00:00:00Z", 400) {
                now = schedule.cron.find_next_occurrence(&now, false).unwrap();
                assert_eq!(due, now.timestamp(), "{expression} in {zone}");
            }
        }
    }
}

#[test]
fn a_time_that_is_shown_twice_is_looked_up_in_a_few_questions() {
    // 3,600 ticks a day, and all of them behind us while Berlin shows 02:00 to 03:00 again: asked 10,000 times. One
    // question a tick would be 36 million.
    let schedule = schedule("* * 2 * * *", "Europe/Berlin", HOUR);
    for step in 0..10_000 {
        let now = at("2027-10-31T01:00:00Z") + Duration::from_millis(step * 359);
        assert_eq!(schedule.next(now), Some(at("2027-11-01T01:00:00Z")), "{now}");
    }
}

#[test]
fn the_offset_is_a_fleets_own_and_spreads_evenly() {
    let of = |fleet: &str, mark: &str, jitter: Duration| {
        offset(&FleetName::from(fleet), &Mark::try_from(mark.to_string()).unwrap(), jitter)
    };
    // A literal: it must not change from release to release, or every fleet's hour would.
    assert_eq!(of("web", "a7f3", HOUR), Duration::from_millis(2_019_665));
    assert_ne!(of("web", "a7f3", HOUR), of("web", "b7f3", HOUR));
    assert_ne!(of("web", "a7f3", HOUR), of("wed", "a7f3", HOUR));
    assert_eq!(of("web", "a7f3", Duration::ZERO), Duration::ZERO);
    assert_eq!(of("web", "a7f3", Duration::from_micros(999)), Duration::ZERO);
    assert_eq!(of("web", "a7f3", Duration::from_millis(1)), Duration::ZERO);
    assert!(of("web", "a7f3", Duration::MAX) < Duration::MAX);
    let mut tenths = [0; 10];
    for fleet in 0..10_000 {
        let offset = of(&format!("fleet-{fleet}"), "a7f3", HOUR);
        assert!(offset < HOUR && offset.subsec_nanos() % 1_000_000 == 0, "{offset:?}");
        tenths[(offset.as_secs() / 360) as usize] += 1;
    }
    // 1,000 each but for chance, whose deviation is 30.
    assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
}

#[test]
fn a_fleet_with_jitter_comes_its_own_time_after_each_tick() {
    let (web, jitter) = (FleetName::from("web"), Duration::from_secs(1800));
    let plain = schedule("0 0 3 * * *", "Europe/Berlin", HOUR);
    let late = Schedule::new(plain.cron.clone(), plain.timezone.clone(), HOUR, jitter, &web, &mark());
    assert_ne!(late.text, plain.text, "a change of the jitter is a changed schedule");
    assert_eq!(late.text, "0 0 3 * * * Europe/Berlin 30m");
    let own = offset(&web, &mark(), jitter);
    assert!(own > Duration::ZERO);
    let ticks = moments(&plain, "2027-03-26T12:00:00Z", 4);
    let expect: Vec<Timestamp> = ticks.iter().map(|tick| *tick + own).collect();
    assert_eq!(moments(&late, "2027-03-26T12:00:00Z", 4), expect);
    // Between the tick and the due moment it waits for this one, not for tomorrow's.
    assert_eq!(late.next(ticks[0]), Some(expect[0]));
    assert_eq!(late.next(expect[0] - NANOSECOND), Some(expect[0]));
    let judgement = late.judge(Some((&late.text, expect[0])), None, false, expect[0]);
    assert_eq!(judgement.tick, Tick::Start { due: expect[0], late: Duration::ZERO });
}

#[test]
fn two_hundred_fleets_due_at_one_second_all_start() {
    // tokio-cron-scheduler lost jobs when thousands were due at once: here a fleet is no job.
    let now = at("2027-01-10T03:00:00.4Z");
    let schedule = schedule("0 0 3 * * *", "UTC", Duration::from_secs(1));
    let due = at("2027-01-10T03:00:00Z");
    let starts = (0..200).filter(|_| {
        let judgement = schedule.judge(Some((&schedule.text, due)), None, false, now);
        judgement.tick == Tick::Start { due, late: Duration::from_millis(400) }
    });
    assert_eq!(starts.count(), 200);
}

#[test]
fn no_moment_that_there_is_makes_it_panic() {
    let moments = [
        Timestamp::MIN,
        Timestamp::MIN + NANOSECOND,
        at("-000001-12-31T23:59:59Z"),
        at("0001-01-01T00:00:00Z"),
        at("1883-11-18T17:00:00Z"),
        Timestamp::UNIX_EPOCH - NANOSECOND,
        Timestamp::UNIX_EPOCH,
        at("4999-12-31T23:59:59Z"),
        at("5000-12-31T23:59:59.5Z"),
        Timestamp::MAX - Duration::from_secs(86_400),
        Timestamp::MAX,
    ];
    for zone in ["America/New_York", "Pacific/Kiritimati"] {
        for expression in ["* * * * * *", "0 30 2 * * *", "0 0 0 29 2 *"] {
            let mut schedule = schedule(expression, zone, HOUR);
            for (slack, offset) in [(HOUR, Duration::ZERO), (Duration::MAX, Duration::MAX), (HOUR, HOUR)] {
                (schedule.slack, schedule.offset) = (slack, offset);
                assert_eq!(schedule.next(Timestamp::MAX), None, "{expression} in {zone}");
                for now in moments {
                    assert!(schedule.next(now).is_none_or(|due| due > now));
                    for kept in moments {
                        for begun in [None, Some(now), Some(Timestamp::MAX)] {
                            let judgement = schedule.judge(Some((&schedule.text, kept)), begun, false, now);
                            assert!(judgement.tick == Tick::None || kept <= now, "{judgement:?}");
                        }
                    }
                }
            }
        }
    }
}
