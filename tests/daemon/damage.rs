//! Rows that somebody spoilt, and files that are edited while a rotation is open.

use std::time::Duration;

use serde_json::{Value, json};

use crate::house::{House, stop, wait};
use crate::stage::Clouds;

const SLOW: [&str; 6] = ["--instances", "12", "--latency", "5ms", "--operation-time", "600ms"];
const LH: &str = "tencent-lighthouse";
const BCC: &str = "baidu-bcc";

/// Spoils something of Lighthouse's fleet, open or ended, and looks at both fleets.
fn assert_holds_its_fleet(open: bool, statement: &str) {
    let clouds = Clouds::open(&SLOW);
    let mut house = House::of(&clouds, &[LH, BCC]);
    let (planned, before) = house.before(BCC);
    let mut daemon = house.daemon();
    if open {
        let rotate = house.start(&["rotate", LH], "rotate");
        assert!(wait(30, || (house.disturbing_calls(LH) > 0).then_some(())).is_some(), "{}", house.log());
        house.done(&["hold", house.rotations(LH)[0]["journal"].as_str().unwrap()]);
        drop(rotate);
        assert!(wait(20, || house.status(LH)["open"]["owed_starts"].as_array()?.is_empty().then_some(())).is_some());
    } else {
        house.done(&["rotate", LH]);
        house.settled(LH, 30);
    }
    stop(&house, &mut daemon);
    let id = house.rotations(LH)[0]["journal"].as_str().unwrap().to_string();
    house.spoil(&statement.replace("ID", &id));
    let disturbed = house.disturbing_calls(LH);
    house.schedule(Some("*/5 * * * * *"));
    let mut daemon = house.daemon();
    assert!(wait(60, || (house.completed(BCC) >= 2).then_some(())).is_some(), "{}", house.log());
    assert_eq!(house.disturbing_calls(LH), disturbed, "the spoilt fleet was worked at: {}", house.log());
    assert!(house.log_has(&["\"level\":\"ERROR\"", LH, &id, "journal"]), "{}", house.log());
    assert_eq!(house.metric("rekeyd_journals_unreadable", &[&format!("fleet=\"{LH}\"")]), Some(1.0));
    assert_eq!(house.metric("rekeyd_journals_unreadable", &[&format!("fleet=\"{BCC}\"")]), Some(0.0));
    let said = house.run(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("cannot be read") && said.out.contains(&id), "{said:?}");
    let problems = house.status(LH)["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 1, "{problems}");
    assert_eq!(house.status(BCC)["problems"], json!([]));
    house.refused(&["rotate", LH], &[&id[..8]]);
    assert_eq!(house.disturbing_calls(LH), disturbed);
    stop(&house, &mut daemon);
    house.schedule(None);
    let mut daemon = house.daemon();
    assert!(wait(60, || house.status(BCC)["open"].is_null().then_some(())).is_some(), "{}", house.log());
    let now = clouds.picture(BCC);
    for (id, (power, keys)) in &before {
        assert_eq!(now[id].0, *power, "{id}");
        assert_eq!(now[id].1 != *keys, planned.contains(id), "{id}");
    }
    stop(&house, &mut daemon);
}

#[test]
fn a_journal_that_cannot_be_read_holds_its_fleet_and_no_other() {
    std::thread::scope(|scope| {
        for (open, statement) in [
            (true, r#"UPDATE entries SET event = '{"event":"from_the_future"}' WHERE journal = 'ID' AND seq = 3"#),
            (true, "UPDATE entries SET event = 'spilt coffee' WHERE journal = 'ID' AND seq = 4"),
            (false, "UPDATE journals SET plan = json_remove(plan, '$.policy', '$.key') WHERE id = 'ID'"),
        ] {
            scope.spawn(move || assert_holds_its_fleet(open, statement));
        }
    });
}

/// The batches that a rotation bound, as its story tells them.
fn batches(house: &House<'_>, id: &str) -> Vec<usize> {
    let story: Value = serde_json::from_str(&house.done(&["show", id, "--json"])).unwrap();
    let entries = story["entries"].as_array().unwrap().iter().map(|entry| &entry["event"]);
    let binds = entries.filter(|event| event["event"] == "started" && event.to_string().contains("\"bind\""));
    binds.map(|event| event["found"].as_array().unwrap().len()).collect()
}

#[test]
fn an_open_rotation_follows_its_plan_and_not_the_edited_file() {
    let clouds = Clouds::open(&SLOW);
    let mut house = House::of(&clouds, &[LH, BCC]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    let rotate = house.start(&["rotate", LH], "rotate");
    assert!(wait(30, || (house.disturbing_calls(LH) > 0).then_some(())).is_some(), "{}", house.log());
    house.done(&["hold", LH]);
    drop(rotate);
    stop(&house, &mut daemon);
    let fleet = house.fleets.get_mut(LH).unwrap();
    (fleet.batch_max, fleet.tags) = (1, json!({ "role": "db" }));
    house.write();
    let mut daemon = house.daemon();
    house.done(&["release", LH]);
    house.settled(LH, 60);
    house.assert_rotated(LH, &planned, &before);
    let id = house.rotations(LH)[0]["journal"].as_str().unwrap().to_string();
    let batches = batches(&house, &id);
    assert_eq!(batches[0], 1, "{batches:?}");
    assert!(batches[1..].contains(&4), "batches of the plan's size: {batches:?}");
    stop(&house, &mut daemon);
}

#[test]
fn a_fleet_that_left_the_file_is_carried_to_its_end() {
    let clouds = Clouds::open(&SLOW);
    let mut house = House::of(&clouds, &[LH, BCC]);
    let (planned, before) = house.before(LH);
    let mut daemon = house.daemon();
    house.done(&["rotate", LH]);
    let rotate = house.start(&["rotate", LH], "rotate");
    let begun = house.disturbing_calls(LH);
    assert!(wait(30, || (house.disturbing_calls(LH) > begun).then_some(())).is_some(), "{}", house.log());
    drop(rotate);
    daemon.kill();
    let fleet = house.fleets.remove(LH).unwrap();
    house.write();
    let mut daemon = house.daemon();
    assert_eq!(house.status(LH)["configured"], false);
    let page = house.metrics();
    assert!(page.contains(&format!("rekeyd_rotation_open{{fleet=\"{LH}\"}} 1")), "{page}");
    // It can be held and released still.
    house.done(&["hold", LH, "--note", "still there"]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!house.status(LH)["open"]["held"].is_null(), "{:#}", house.status(LH));
    house.done(&["release", LH]);
    house.settled(LH, 60);
    house.fleets.insert(LH.to_string(), fleet);
    house.assert_rotated(LH, &planned, &before);
    assert_eq!(house.completed(LH), 2);
    stop(&house, &mut daemon);
}
