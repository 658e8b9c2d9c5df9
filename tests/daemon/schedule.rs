//! Fleets rotate by themselves when they are due, and what was missed is caught up or skipped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::house::{House, soon, stop, until, wait};
use crate::stage::Clouds;

const QUICK: [&str; 6] = ["--instances", "6", "--latency", "5ms", "--operation-time", "400ms"];
/// Not ECS: its start times are told in minutes, so that it waits for the next one before a second reboot.
const FAST: [&str; 2] = ["tencent-lighthouse", "baidu-bcc"];

/// After at least three rotations of each fleet: takes the schedules away, lets what is open end, and looks.
fn assert_three_rotations(house: &mut House<'_>, work: impl FnOnce(&House<'_>)) {
    let before: BTreeMap<_, _> = FAST.iter().map(|fleet| (*fleet, house.before(fleet))).collect();
    house.schedule(Some("*/5 * * * * *"));
    work(house);
    house.schedule(None);
    let mut daemon = house.daemon();
    for fleet in FAST {
        // A retire journal that found somebody on its pair looks again after a minute.
        house.settled(fleet, 100);
        let (planned, before) = &before[fleet];
        house.assert_rotated(fleet, planned, before);
        let rotations = house.rotations(fleet);
        assert!(rotations.len() >= 3 && rotations.iter().all(|one| one["outcome"] == "completed"), "{rotations:#?}");
        // Each began at a tick, and never two at once.
        for pair in rotations.windows(2) {
            assert!(pair[1]["ended"].as_str() <= pair[0]["begun"].as_str(), "{rotations:#?}");
        }
    }
    stop(house, &mut daemon);
}

#[test]
fn fleets_scheduled_every_five_seconds_rotate_three_times_by_themselves() {
    let clouds = Clouds::open(&QUICK);
    let mut house = House::of(&clouds, &FAST);
    assert_three_rotations(&mut house, |house| {
        let mut daemon = house.daemon();
        let done = wait(100, || FAST.iter().all(|fleet| house.completed(fleet) >= 3).then_some(()));
        assert!(done.is_some(), "{}", house.log());
        for fleet in FAST {
            let label = format!("fleet=\"{fleet}\"");
            let rotations = house.metric("rekeyd_rotations_total", &[&label, "completed"]);
            assert!(rotations >= Some(3.0), "{rotations:?}");
            let ticks = house.metric("rekeyd_scheduler_ticks_total", &[&label, "started"]);
            assert!(ticks >= Some(3.0), "{ticks:?}");
        }
        stop(house, &mut daemon);
    });
}

#[test]
fn a_daemon_killed_twenty_times_at_random_moments_comes_to_the_same_end() {
    let clouds = Clouds::open(&QUICK);
    let mut house = House::of(&clouds, &FAST);
    let seed: u64 = rand::random();
    let mut chance = rand::rngs::StdRng::seed_from_u64(seed);
    assert_three_rotations(&mut house, |house| {
        eprintln!("seed {seed}");
        for _ in 0..20 {
            let mut daemon = house.daemon_at_once();
            std::thread::sleep(Duration::from_millis(chance.random_range(30..2400)));
            assert!(daemon.0.try_wait().unwrap().is_none(), "seed {seed}: it ended by itself: {}", house.log());
            daemon.kill();
        }
        let mut daemon = house.daemon();
        let done = wait(100, || FAST.iter().all(|fleet| house.completed(fleet) >= 3).then_some(()));
        assert!(done.is_some(), "seed {seed}: {}", house.log());
        stop(house, &mut daemon);
    });
}

#[test]
fn ticks_that_were_missed_are_caught_up_once_within_the_slack_and_skipped_and_told_beyond_it() {
    let clouds = Clouds::open(&QUICK);
    let mut house = House::of(&clouds, &["tencent-lighthouse", "baidu-bcc"]);
    let (due, schedule) = soon(5, 3);
    house.fleets.get_mut("baidu-bcc").unwrap().slack = "5s";
    house.schedule(Some(&schedule));
    let mut daemon = house.daemon();
    stop(&house, &mut daemon);
    assert!(jiff::Timestamp::now() < due, "the machine is too slow for this test");

    // The last of three ticks is 12 s old.
    until(due + Duration::from_secs(16));
    let mut daemon = house.daemon();
    let begun = wait(5, || house.rotations("tencent-lighthouse").first().cloned());
    assert!(begun.is_some(), "nothing was caught up: {}", house.log());
    house.settled("tencent-lighthouse", 30);
    assert_eq!(house.completed("tencent-lighthouse"), 1, "{}", house.log());
    assert_eq!(house.rotations("tencent-lighthouse").len(), 1);
    assert!(house.rotations("baidu-bcc").is_empty(), "{}", house.log());
    let ticks = |fleet: &str, outcome: &str| {
        let labels = [format!("fleet=\"{fleet}\""), format!("outcome=\"{outcome}\"")];
        house.metric("rekeyd_scheduler_ticks_total", &[&labels[0], &labels[1]])
    };
    assert_eq!(ticks("tencent-lighthouse", "caught_up"), Some(1.0));
    assert_eq!(ticks("tencent-lighthouse", "started"), Some(0.0));
    assert!(ticks("baidu-bcc", "missed") >= Some(1.0), "{:?}", ticks("baidu-bcc", "missed"));
    for outcome in ["started", "caught_up"] {
        assert_eq!(ticks("baidu-bcc", outcome), Some(0.0));
    }
    assert!(house.log_has(&["\"fleet\":\"baidu-bcc\"", "skipped"]), "{}", house.log());
    // Next time is tomorrow, for both.
    for fleet in ["tencent-lighthouse", "baidu-bcc"] {
        let next: jiff::Timestamp = house.status(fleet)["next_due"].as_str().unwrap().parse().unwrap();
        assert_eq!(next, due + Duration::from_secs(24 * 3600), "{fleet}");
    }
    stop(&house, &mut daemon);
}

#[test]
fn a_scheduled_rotation_that_is_refused_says_why_and_begins_once_it_may() {
    let clouds = Clouds::open(&QUICK);
    let fleet = "tencent-lighthouse";
    let mut house = House::of(&clouds, &[fleet]);
    clouds.meddle("key-pairs-max=tencent-lighthouse:2");
    house.schedule(Some("*/5 * * * * *"));
    let mut daemon = house.daemon();
    let refused = wait(20, || {
        let refused = house.status(fleet)["refused"].clone();
        refused["why"].as_str().is_some_and(|why| why.contains("2 of 2 places")).then_some(refused)
    });
    assert!(refused.is_some(), "{}", house.log());
    assert!(house.done(&["status", fleet]).contains("the last start was refused"));
    assert!(house.log_has(&["due, and not begun", "2 of 2 places"]), "{}", house.log());
    assert!(house.rotations(fleet).is_empty() && house.disturbing_calls(fleet) == 0);
    clouds.meddle("key-pairs-max=tencent-lighthouse:10");
    assert!(wait(60, || (house.completed(fleet) > 0).then_some(())).is_some(), "{}", house.log());
    assert_eq!(house.status(fleet)["refused"], json!(null));
    stop(&house, &mut daemon);
}

/// Lighthouse has ten key pairs a region, and two of the simulator's are strangers'.
fn fleets_of(provider: &str) -> usize {
    if provider == "tencent-lighthouse" { 8 } else { 64 }
}

#[test]
fn two_hundred_fleets_due_at_one_second_all_rotate() {
    let clouds =
        Clouds::open(&["--instances", "66", "--fleets", "66", "--latency", "5ms", "--operation-time", "300ms"]);
    let mut house = House::of(&clouds, &[]);
    let providers = clouds.providers();
    for provider in &providers {
        let one = House::of(&clouds, &[provider]).fleets.remove(provider).unwrap();
        // The machines of the fleets 4 and 5 are a Windows box and, at two of the clouds, a scaling group's.
        for number in (0..66).filter(|number| ![4, 5].contains(number)).take(fleets_of(provider)) {
            let tags = json!({ "role": "web", "fleet": format!("fleet-{number}") });
            house.fleets.insert(format!("{provider}-{number}"), crate::house::Fleet { tags, ..one.clone() });
        }
    }
    assert_eq!(house.fleets.len(), 200);
    let before: Vec<_> = providers.iter().map(|provider| clouds.picture(provider)).collect();
    let (due, schedule) = soon(8, 1);
    house.schedule(Some(&schedule));
    let mut daemon = house.daemon();
    until(due);
    let began = Instant::now();
    let all = || {
        let page = house.metrics();
        let done =
            page.lines().filter(|line| line.starts_with("rekeyd_rotations_total{") && line.contains("\"completed\""));
        done.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum::<f64>()
    };
    let done = wait(150, || (all() >= 200.0).then_some(()));
    let took = began.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_string();
    println!("200 fleets of one machine each: {:.1} s; {peak}", took.as_secs_f64());
    assert!(done.is_some(), "{} of 200 in {took:?}: {}", all(), house.log());
    assert_eq!(all(), 200.0);
    for (provider, before) in providers.iter().zip(&before) {
        let after = clouds.picture(provider);
        let changed = before.iter().filter(|(id, (_, keys))| after[*id].1 != *keys).count();
        assert_eq!(changed, fleets_of(provider), "{provider}");
        assert!(before.iter().all(|(id, (power, _))| after[id].0 == *power), "{provider}");
    }
    assert_eq!(clouds.violations(), json!([]));
    stop(&house, &mut daemon);
}
