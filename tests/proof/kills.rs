//! Killed without a warning: whoever starts next goes on, pays the starts that are owed, and proves every machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::guests::{GUESTS, daemons_page, each_cloud, proven, running, settled, stop, switched_off};
use crate::stage::{Clouds, Stage};

#[test]
fn killed_at_any_moment_it_goes_on_and_every_machine_is_proven() {
    let clouds = Clouds::open(&GUESTS);
    let seed: u64 = rand::random();
    each_cloud(&clouds, |stage| {
        let provider = &stage.provider;
        let mut chance = rand::rngs::StdRng::seed_from_u64(seed ^ provider.len() as u64);
        let (planned, before, running) = (stage.planned(), stage.picture(&clouds), running(stage));
        let began = Instant::now();
        let mut kills = 0;
        loop {
            assert!(began.elapsed() < Duration::from_secs(150), "{provider}, seed {seed}: {}", stage.log());
            let mut rotate = stage.start(&["rotate", "web"]);
            let patience = if kills < 8 { chance.random_range(50..2000) } else { 120_000 };
            match rotate.code_within(Duration::from_millis(patience)) {
                Some(0) => break,
                Some(code) => panic!("{provider}, seed {seed}: {code}: {}", stage.log()),
                None => rotate.kill(),
            }
            kills += 1;
        }
        stage.assert_rotated(&clouds, &planned, &before);
        assert_eq!(proven(stage).len(), running.len(), "{provider}, seed {seed}");
        assert_eq!(switched_off(stage, &clouds, &before), Vec::<String>::new(), "{provider}, seed {seed}");
    });
}

/// Waits for a moment to die in that was not seen before: the journal says that a call on machines begins, or machines
/// run again and are still to be proven. `None`: the rotation has ended.
fn moment(stage: &Stage, seen: &BTreeSet<String>) -> Option<String> {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(90), "{}: {}", stage.provider, stage.log());
        let story = stage.read_or_null(&["show", "web"]);
        if !story["ended"].is_null() {
            return None;
        }
        let entries = story["entries"].as_array().into_iter().flatten();
        let events: Vec<&Value> = entries.map(|entry| &entry["event"]).collect();
        let number = |name: &str, list: &str| -> usize {
            let of = events.iter().filter(|event| event["event"] == name);
            of.map(|event| event[list].as_array().unwrap().len()).sum()
        };
        let calls = events.iter().filter(|event| event["event"] == "started" && event["found"].is_array());
        let mut moments: Vec<String> = calls.map(|event| event["call"].as_str().unwrap().to_string()).collect();
        if number("activated", "instances") > number("verified", "proofs") {
            moments.push("verify".to_string());
        }
        if let Some(new) = moments.into_iter().find(|moment| !seen.contains(moment)) {
            return Some(new);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn killed_at_each_power_step_and_during_proof_the_next_daemon_pays_the_starts_and_proves_everybody() {
    let machines = ["--instances", "6", "--latency", "3ms", "--operation-time", "1200ms"];
    let clouds = Clouds::open(&[&machines[..], &["--sshd", "--ssh-delay", "700ms"]].concat());
    each_cloud(&clouds, |stage| {
        let provider = stage.provider.as_str();
        let (planned, before, running) = (stage.planned(), stage.picture(&clouds), running(stage));
        daemons_page(stage);
        let (mut seen, mut were_off) = (BTreeSet::new(), BTreeSet::new());
        let mut driver = stage.start(&["rotate", "web"]);
        while let Some(moment) = moment(stage, &seen) {
            driver.kill();
            // What the last call began comes to its end; nobody starts whom it switched off.
            std::thread::sleep(Duration::from_millis(2600));
            let off = switched_off(stage, &clouds, &before);
            let open = &stage.read(&["status", "web"])["fleets"][0]["open"];
            let owed: Vec<&str> = open["owed_starts"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
            assert!(off.iter().all(|id| owed.contains(&id.as_str())), "{provider} {moment}: {off:?} {open:#}");
            were_off.extend(off);
            seen.insert(moment);
            driver = stage.start(&["run"]);
        }
        let expect = match provider {
            "tencent-lighthouse" => &["bind", "start", "verify"][..],
            "tencent-cvm" => &["bind", "start", "stop", "verify"],
            "alibaba-ecs" => &["bind", "reboot", "verify"],
            _ => &["bind", "verify"],
        };
        assert!(expect.iter().all(|moment| seen.contains(*moment)), "{provider}: {seen:?}");
        if provider.starts_with("tencent") {
            assert!(!were_off.is_empty(), "{provider}: nobody was off in any of {seen:?}");
        }
        settled(stage);
        stop(stage, driver);
        stage.assert_rotated(&clouds, &planned, &before);
        assert_eq!(proven(stage).len(), running.len(), "{provider}");
    });
}
