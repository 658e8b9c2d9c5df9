//! What a person orders from another terminal: hold, release, abandon, rotate.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::house::{House, soon, stop, wait};
use crate::stage::Clouds;

const SLOW: [&str; 6] = ["--instances", "12", "--latency", "5ms", "--operation-time", "800ms"];
const LH: &str = "tencent-lighthouse";

fn bound_some(house: &House<'_>, fleet: &str) {
    let provider = &house.fleets[fleet].provider;
    let begun = house.disturbing_calls(provider);
    let bound = wait(30, || (house.disturbing_calls(provider) > begun).then_some(()));
    assert!(bound.is_some(), "nothing was bound: {}", house.log());
}

#[test]
fn hold_all_stops_what_disturbs_on_every_cloud_within_two_seconds_and_nobody_stays_switched_off() {
    let clouds = Clouds::open(&["--instances", "20", "--latency", "5ms", "--operation-time", "1s"]);
    let providers = clouds.providers();
    let mut house = House::of(&clouds, &providers.iter().map(String::as_str).collect::<Vec<_>>());
    let before: BTreeMap<_, _> = providers.iter().map(|fleet| (fleet, house.before(fleet))).collect();
    let (_, schedule) = soon(4, 1);
    house.schedule(Some(&schedule));
    let mut daemon = house.daemon();
    let calls = || -> Vec<u64> { providers.iter().map(|provider| house.disturbing_calls(provider)).collect() };
    assert!(wait(30, || calls().iter().all(|calls| *calls > 0).then_some(())).is_some(), "{}", house.log());

    let said = house.done(&["hold", "--all", "--note", "the lights flicker"]);
    std::thread::sleep(Duration::from_secs(2));
    let at_two_seconds = calls();
    for fleet in &providers {
        assert!(said.contains(&format!("rekeyd release {fleet}")), "{said}");
        let status = house.status(fleet);
        let open = &status["open"];
        assert!(!open.is_null(), "{fleet} was too quick for this test: {status:#}");
        assert!(open["held_because"].as_str().unwrap().contains("the lights flicker"), "{status:#}");
        assert_eq!(status["hold"]["note"], "the lights flicker", "{status:#}");
        assert!(status["hold"]["by"].as_str().unwrap().starts_with("operator "), "{status:#}");
        let told = house.run(&["status", fleet]).out;
        assert!(told.contains("HELD") && told.contains("the lights flicker") && told.contains("by operator"), "{told}");
        let down = wait(20, || house.down(fleet, &before[fleet].1).is_empty().then_some(()));
        assert!(
            down.is_some(),
            "{fleet}: {:?} stay switched off: {}",
            house.down(fleet, &before[fleet].1),
            house.log()
        );
        let held = house.metric("rekeyd_rotation_held", &[&format!("fleet=\"{fleet}\""), "reason=\"operator\""]);
        assert_eq!(held, Some(1.0));
        assert_eq!(house.metric("rekeyd_fleet_paused", &[&format!("fleet=\"{fleet}\"")]), Some(1.0));
    }
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(calls(), at_two_seconds, "{}", house.log());

    house.done(&["release", "--all", "--note", "it was the bulb"]);
    for fleet in &providers {
        house.settled(fleet, 120);
        assert_eq!(house.completed(fleet), 1, "{:#?}", house.rotations(fleet));
        let (planned, before) = &before[fleet];
        house.assert_rotated(fleet, planned, before);
        assert!(house.status(fleet)["hold"].is_null());
    }
    stop(&house, &mut daemon);
}

#[test]
fn a_held_fleet_does_not_begin_at_its_tick_nor_by_hand_and_does_once_released() {
    let clouds = Clouds::open(&["--instances", "5", "--latency", "5ms", "--operation-time", "200ms"]);
    let mut house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    house.schedule(Some("*/5 * * * * *"));
    // Written beside a daemon: without one there is no database yet, which is said.
    house.refused(&["hold", LH], &["there is no database"]);
    let mut daemon = house.daemon();
    house.done(&["hold", LH]);
    // It may have begun just before.
    house.settled_or_held(LH);
    let begun = house.rotations(LH).len();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(house.rotations(LH).len(), begun, "{}", house.log());
    house.refused(&["rotate", LH], &[&format!("rekeyd release {LH}")]);
    stop(&house, &mut daemon);
    house.refused(&["rotate", LH], &[&format!("rekeyd release {LH}")]);
    let mut daemon = house.daemon();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(house.rotations(LH).len(), begun, "a restart forgot the hold: {}", house.log());
    house.done(&["release", LH]);
    assert!(wait(12, || (house.rotations(LH).len() > begun).then_some(())).is_some(), "{}", house.log());
    stop(&house, &mut daemon);
    house.schedule(None);
    let mut daemon = house.daemon();
    house.settled(LH, 40);
    house.assert_rotated(LH, &planned, &before);
    stop(&house, &mut daemon);
}

#[test]
fn an_abandoned_rotation_ends_and_the_next_one_takes_over() {
    let clouds = Clouds::open(&SLOW);
    for provider in [LH, "tencent-cvm"] {
        let house = House::of(&clouds, &[provider]);
        let (planned, before) = house.before(provider);
        let mut daemon = house.daemon();
        let mut rotate = house.start(&["rotate", provider], "rotate");
        bound_some(&house, provider);
        house.done(&["abandon", provider, "--note", "wrong fleet"]);
        let ended = wait(30, || house.rotations(provider).first().filter(|one| !one["outcome"].is_null()).cloned());
        assert_eq!(ended.unwrap_or_else(|| panic!("{}", house.log()))["outcome"], "abandoned");
        let told = wait(5, || house.words("rotate").contains("rotation abandoned").then_some(()));
        assert!(told.is_some(), "{}", house.words("rotate"));
        // It goes on to follow the retirement of the abandoned pair, on which somebody hangs until the next rotation.
        rotate.kill();
        assert_eq!(house.down(provider, &before), Vec::<String>::new(), "{}", house.log());
        house.refused(&["abandon", provider], &["no open rotation"]);
        house.done(&["rotate", provider]);
        house.settled(provider, 90);
        house.assert_rotated(provider, &planned, &before);
        let outcomes: Vec<_> = house.rotations(provider).iter().map(|one| one["outcome"].clone()).collect();
        assert_eq!(outcomes, ["completed", "abandoned"]);
        stop(&house, &mut daemon);
    }
}

#[test]
fn what_is_not_there_or_not_held_is_refused_with_the_reason() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH, "baidu-bcc"]);
    let mut daemon = house.daemon();
    for verb in ["hold", "release", "abandon"] {
        house.refused(&[verb, "nought"], &["nought", LH, "baidu-bcc"]);
    }
    house.refused(&["rotate", "nought"], &["nought", LH, "baidu-bcc"]);
    house.refused(&["release", LH], &["not held"]);
    house.refused(&["release", LH, "--allow=leave-off:ins-none"], &["no held rotation"]);
    house.refused(&["release", LH, "--allow=destroy"], &["rekeyd release JOURNAL --allow=destroy"]);
    let mut rotate = house.start(&["rotate", LH], "rotate");
    bound_some(&house, LH);
    let id = house.rotations(LH)[0]["journal"].as_str().unwrap().to_string();
    house.refused(&["release", &id], &["not held"]);
    house.done(&["hold", &id]);
    house.refused(&["release", &id, "--allow=leave-off:ins-none"], &["ins-none"]);
    house.refused(&["release", LH, "--allow=leave-off:ins-none"], &["ins-none"]);
    house.refused(&["release", &id, "--allow=destroy"], &[]);
    assert!(!house.status(LH)["open"]["held"].is_null(), "a refused release released: {:#}", house.status(LH));
    assert_eq!(rotate.code_within(Duration::from_secs(20)), Some(3), "{}", house.words("rotate"));
    house.done(&["release", &id]);
    house.settled(LH, 60);
    assert_eq!(house.completed(LH), 1);
    stop(&house, &mut daemon);
}

#[test]
fn rotate_beside_a_daemon_hands_over_follows_and_ends_with_the_same_codes() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    let said = house.done(&["rotate", LH]);
    assert!(said.contains("handed over") && said.contains("canary: active: ") && said.contains("completed"), "{said}");
    house.assert_rotated(LH, &planned, &before);

    // Held meanwhile: 3, with the reason.
    let mut rotate = house.start(&["rotate", LH], "held");
    bound_some(&house, LH);
    house.done(&["hold", LH, "--note", "not now"]);
    assert_eq!(rotate.code_within(Duration::from_secs(20)), Some(3), "{}", house.words("held"));
    assert!(house.words("held").contains("not now"), "{}", house.words("held"));
    house.done(&["release", LH]);
    house.settled(LH, 60);
    house.assert_rotated(LH, &planned, &before);

    // Ctrl-C: the rotation is the daemon's.
    let mut rotate = house.start(&["rotate", LH], "left");
    bound_some(&house, LH);
    rotate.signal("INT");
    assert_eq!(rotate.code_within(Duration::from_secs(5)), Some(1), "{}", house.words("left"));
    let left = house.words("left");
    assert!(left.contains("stopped following") && left.contains(&format!("rekeyd hold {LH}")), "{left}");
    house.settled(LH, 60);
    assert_eq!(house.completed(LH), 3);
    house.assert_rotated(LH, &planned, &before);
    stop(&house, &mut daemon);
}

#[test]
fn a_driver_that_dies_leaves_the_rotation_to_the_rotate_that_follows() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    let mut rotate = house.start(&["rotate", LH], "rotate");
    bound_some(&house, LH);
    daemon.kill();
    assert_eq!(rotate.code_within(Duration::from_secs(60)), Some(0), "{}", house.words("rotate"));
    house.assert_rotated(LH, &planned, &before);
}

#[test]
fn two_rotates_of_two_fleets_from_two_terminals_without_a_daemon_both_end_well() {
    let clouds = Clouds::open(&SLOW);
    let fleets = [LH, "baidu-bcc"];
    let house = House::of(&clouds, &fleets);
    let before = fleets.map(|fleet| house.before(fleet));
    let mut both = fleets.map(|fleet| house.start(&["rotate", fleet], fleet));
    for ((fleet, rotate), (planned, before)) in fleets.iter().zip(&mut both).zip(&before) {
        assert_eq!(rotate.code_within(Duration::from_secs(100)), Some(0), "{fleet}: {}", house.words(fleet));
        house.assert_rotated(fleet, planned, before);
    }
}

#[test]
fn a_compromised_key_does_not_wait_for_the_open_rotation_but_for_the_release_of_a_held_fleet() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    let mut rotate = house.start(&["rotate", LH], "rotate");
    bound_some(&house, LH);
    house.done(&["hold", LH]);
    let urgent = ["rotate", LH, "--compromised", "--unavailable-max", "100%"];
    house.refused(&urgent, &[&format!("rekeyd release {LH}")]);
    assert!(house.status(LH)["open"].is_object(), "it was given up for what was refused: {}", house.log());
    house.done(&["release", LH]);
    let said = house.done(&urgent);
    rotate.kill();
    assert!(said.contains("is given up; it ends once nothing is in flight"), "{said}");
    assert!(said.contains("nothing is proven of") && said.contains("verify: ssh"), "{said}");
    let rotations = house.rotations(LH);
    let outcomes: Vec<&str> = rotations.iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["completed", "abandoned"], "{rotations:#?}");
    house.settled(LH, 60);
    house.assert_rotated(LH, &planned, &before);
    assert_eq!(house.down(LH, &before), Vec::<String>::new(), "{}", house.log());
    stop(&house, &mut daemon);
}

#[test]
fn a_compromised_key_takes_over_from_a_rotate_that_takes_no_requests() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    let mut rotate = house.start(&["rotate", LH], "rotate");
    bound_some(&house, LH);
    let said = house.done(&["rotate", LH, "--compromised"]);
    assert!(said.contains("is given up"), "{said}");
    assert_eq!(rotate.code_within(Duration::from_secs(5)), Some(0), "{}", house.words("rotate"));
    assert!(house.words("rotate").contains("abandoned"), "{}", house.words("rotate"));
    house.assert_rotated(LH, &planned, &before);
}
