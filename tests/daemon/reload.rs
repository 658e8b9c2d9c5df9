//! SIGHUP: a good file is in force without a restart, a bad one is refused as a whole, and what is open follows its plan.

use serde_json::Value;

use crate::house::{House, soon, stop, until, wait};
use crate::stage::{Clouds, Running};

const LH: &str = "tencent-lighthouse";
const CVM: &str = "tencent-cvm";
const SUCCESSFUL: &str = "rekeyd_config_last_reload_successful";
const SUCCESS: &str = "rekeyd_config_last_reload_success_timestamp_seconds";

/// Asks for a reload, and waits until the log has a line with these words that it had not.
fn reload(house: &House<'_>, daemon: &Running, words: &[&str]) {
    let count = || house.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    let before = count();
    daemon.signal("HUP");
    assert!(wait(20, || (count() > before).then_some(())).is_some(), "{words:?}: {}", house.log());
}

const TAKEN: [&str; 1] = ["the config file was read anew, and is in force"];

#[test]
fn a_bad_file_is_refused_with_its_reason_and_the_old_one_stays_in_force() {
    let clouds = Clouds::open(&["--instances", "2", "--latency", "5ms", "--operation-time", "50ms"]);
    let mut house = House::of(&clouds, &[LH]);
    house.schedule(Some("0 0 3 1 1 *"));
    let mut daemon = house.daemon();
    let began = house.metric(SUCCESS, &[]).unwrap();
    assert!((jiff::Timestamp::now().as_second() as f64 - began).abs() < 60.0, "{began}");
    assert_eq!(house.metric(SUCCESSFUL, &[]), Some(1.0));
    let due = house.metric("rekeyd_fleet_next_due_timestamp_seconds", &[LH]);
    let good = std::fs::read_to_string(house.config()).unwrap();
    let refused = |from: &str, to: &str, words: &[&str]| {
        assert!(good.contains(from), "{good}");
        std::fs::write(house.config(), good.replace(from, to)).unwrap();
        reload(&house, &daemon, &[&["is refused", "stays in force"], words].concat());
        assert_eq!(house.metric(SUCCESSFUL, &[]), Some(0.0));
        assert_eq!(house.metric(SUCCESS, &[]), Some(began));
        assert_eq!(house.metric("rekeyd_fleet_next_due_timestamp_seconds", &[LH]), due);
    };
    // Besides the fault there is a new fleet in it, which must not slip in.
    let more = format!(
        "fleets:\n  more:\n    account: {CVM}\n    region: bj\n    all_instances: true\n    verify: none\n    nonsense: 1\n"
    );
    refused("fleets:\n", &more, &["fleets.more.nonsense", "rekeyd.yaml:"]);
    assert!(!house.metrics().contains("fleet=\"more\""));
    refused(&house.listen, "127.0.0.1:1", &["listen: cannot be changed by a reload: restart"]);
    refused("rekeyd.db", "other.db", &["store: cannot be changed by a reload: restart"]);
    refused("/copy]", "/copie]", &["custody: cannot be changed by a reload: restart"]);
    refused("store:", "installation: zzzz\nstore:", &["installation: cannot be changed by a reload: restart"]);
    refused("{ env: SECRET_0 }", "{ env: NOBODY_SET_THIS }", &["$NOBODY_SET_THIS is not set"]);
    std::fs::remove_file(house.config()).unwrap();
    daemon.signal("HUP");
    assert!(wait(20, || house.log_has(&["is refused", "cannot be read"]).then_some(())).is_some(), "{}", house.log());
    assert!(!house.path("lib/other.db").exists());

    std::fs::write(house.config(), &good).unwrap();
    reload(&house, &daemon, &TAKEN);
    assert!(wait(5, || (house.metric(SUCCESSFUL, &[])? == 1.0).then_some(())).is_some());
    assert!(house.metric(SUCCESS, &[]) > Some(began));
    house.done(&["rotate", LH]);
    stop(&house, &mut daemon);
}

#[test]
fn fleets_come_go_and_change_their_schedule_and_are_due_at_their_next_tick_never_at_once() {
    let clouds = Clouds::open(&["--instances", "3", "--latency", "5ms", "--operation-time", "50ms"]);
    let mut house = House::of(&clouds, &[LH, CVM]);
    let cvm = house.fleets.remove(CVM).unwrap();
    // Due years ago by any reckoning, had it been known.
    house.schedule(Some("0 0 3 1 1 *"));
    let mut daemon = house.daemon();
    house.refused(&["rotate", CVM], &["there is no fleet"]);

    // A fleet that is new, and one whose schedule changed: a tick of a moment ago is none of theirs, the next one is.
    let (at, schedule) = soon(6, 1);
    let last = jiff::Timestamp::now() - jiff::Span::new().seconds(2);
    let past = last.to_zoned(jiff::tz::TimeZone::UTC);
    house.fleets.insert(CVM.into(), cvm);
    house.fleets.get_mut(CVM).unwrap().schedule = Some(schedule);
    let ago = format!("{} {} {} * * *", past.second(), past.minute(), past.hour());
    house.fleets.get_mut(LH).unwrap().schedule = Some(ago);
    house.write();
    reload(&house, &daemon, &TAKEN);
    let due = || house.metric("rekeyd_fleet_next_due_timestamp_seconds", &[CVM]);
    assert!(wait(5, || (due()? == at.as_second() as f64).then_some(())).is_some(), "{:?}", due());
    until(at - jiff::Span::new().seconds(1));
    assert_eq!((house.rotations(LH).len(), house.rotations(CVM).len()), (0, 0), "{}", house.log());
    assert!(wait(15, || (!house.rotations(CVM).is_empty()).then_some(())).is_some(), "{}", house.log());
    assert_eq!(house.rotations(LH).len(), 0, "{}", house.log());
    house.settled(CVM, 30);

    // One that is gone has no series, and none begins; back again, its numbers are its own.
    let cvm = house.fleets.remove(CVM).unwrap();
    house.fleets.get_mut(LH).unwrap().schedule = None;
    house.write();
    reload(&house, &daemon, &TAKEN);
    assert!(!house.metrics().contains(&format!("fleet=\"{CVM}\"")), "{}", house.metrics());
    let asked = house.run(&["rotate", CVM]);
    assert!(asked.code == 1 && asked.err.contains("no fleet"), "{asked:?}");
    assert!(
        wait(5, || (house.metric("rekeyd_fleet_next_due_timestamp_seconds", &[LH])? == 0.0).then_some(())).is_some()
    );
    house.fleets.insert(CVM.into(), cvm);
    house.write();
    reload(&house, &daemon, &TAKEN);
    assert!(house.metric("rekeyd_fleet_last_success_timestamp_seconds", &[CVM]) >= Some(at.as_second() as f64));
    house.done(&["rotate", LH]);
    stop(&house, &mut daemon);
}

/// How many instances each bind of the newest rotation was begun for.
fn binds(house: &House<'_>, fleet: &str) -> Vec<usize> {
    let id = house.rotations(fleet)[0]["journal"].as_str().unwrap().to_string();
    let story: Value = serde_json::from_str(&house.done(&["show", &id, "--json"])).unwrap();
    let entries = story["entries"].as_array().unwrap().iter().map(|entry| &entry["event"]);
    let begun = entries.filter(|event| event["event"] == "started" && event["call"] == "bind");
    begun.map(|event| event["found"].as_array().unwrap().len()).collect()
}

#[test]
fn an_open_rotation_follows_its_plan_and_waits_for_an_account_that_was_taken_away() {
    let clouds = Clouds::open(&["--instances", "12", "--latency", "5ms", "--operation-time", "500ms"]);
    let mut house = House::of(&clouds, &[LH, CVM]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    let rotate = house.start(&["rotate", LH], "rotate");
    assert!(wait(30, || (house.disturbing_calls(LH) > 0).then_some(())).is_some(), "{}", house.log());
    // From now on batches of one: of the next rotation, not of this one.
    house.fleets.get_mut(LH).unwrap().batch_max = 1;
    house.write();
    reload(&house, &daemon, &TAKEN);

    // The account and its fleet are gone: nothing more is done, and it is said why.
    let lh = house.fleets.remove(LH).unwrap();
    house.write();
    let text = std::fs::read_to_string(house.config()).unwrap();
    // It stands first among the accounts, four lines of the file.
    let (head, accounts) = text.split_once("accounts:\n").unwrap();
    assert!(accounts.starts_with(&format!("  {LH}:\n")), "{text}");
    let others: Vec<&str> = accounts.lines().skip(4).collect();
    std::fs::write(house.config(), format!("{head}accounts:\n{}\n", others.join("\n"))).unwrap();
    reload(&house, &daemon, &TAKEN);
    let gone = format!("account {LH} is no longer in the config file");
    let held = wait(30, || house.status(LH)["open"]["held_because"].as_str()?.contains(&gone).then_some(()));
    assert!(held.is_some(), "{:#}\n{}", house.status(LH), house.log());
    let disturbed = house.disturbing_calls(LH);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(house.disturbing_calls(LH), disturbed, "{}", house.log());
    house.done(&["rotate", CVM]);

    // Back again: whom it stopped is started first, and after the release it goes on to its end.
    house.fleets.insert(LH.into(), lh);
    house.write();
    reload(&house, &daemon, &TAKEN);
    let id = house.rotations(LH)[0]["journal"].as_str().unwrap().to_string();
    house.done(&["release", &id]);
    drop(rotate);
    house.settled(LH, 100);
    house.assert_rotated(LH, &planned, &before);
    assert_eq!(house.rotations(LH).len(), 1);
    assert!(binds(&house, LH).iter().any(|size| *size > 1), "its plan had larger batches: {:?}", binds(&house, LH));
    stop(&house, &mut daemon);
}
