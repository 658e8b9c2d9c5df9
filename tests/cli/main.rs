//! The real program against simulated clouds on real sockets, with SQLite and custody on disk: what an operator types,
//! and what comes of it.

#![allow(clippy::unwrap_used)]

mod credentials;
mod custody;
mod demo;
mod legacy;
mod people;
mod preflight;
mod rollout;
#[path = "../stage/mod.rs"]
mod stage;
mod version;
mod words;

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::Value;

use stage::{Clouds, Stage, rekeyd, said};

/// Long enough for looks a quarter of a second apart to see a machine on its way.
const QUICK: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "500ms"];

/// Runs the same for every cloud at once, each with a store of its own.
fn each_cloud(clouds: &Clouds, work: impl Fn(&Stage) + Sync) {
    std::thread::scope(|scope| {
        for provider in clouds.providers() {
            let (stage, work) = (Stage::of(clouds, &provider, ""), &work);
            scope.spawn(move || work(&stage));
        }
    });
}

#[test]
fn a_rollback_on_every_cloud_brings_the_older_pair_back_and_refuses_what_it_cannot_undo() {
    let clouds = Clouds::open(&QUICK);
    each_cloud(&clouds, |stage| {
        let refused = |arguments: &[&str], words: &str| {
            let said = stage.run(arguments);
            assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
            assert!(said.err.contains(words), "{arguments:?}: {said:?}");
        };
        refused(&["rollback", "web"], "there is no database");
        for _ in 1..=2 {
            assert_eq!(stage.run(&["rotate", "web"]).code, 0);
        }
        let rotations = || -> Vec<Value> {
            let journals = stage.read(&["history", "web"])["journals"].as_array().unwrap().clone();
            journals.into_iter().filter(|one| one["kind"] != "retirement").collect()
        };
        let id = |journal: &Value| journal["journal"].as_str().unwrap().to_string();
        let (newest, first) = (rotations()[0].clone(), rotations()[1].clone());
        refused(&["rollback", &id(&first)], &format!("rekeyd rollback {}", id(&newest)));
        refused(&["rollback", "web"], &format!("rekeyd rollback {}", id(&newest)));
        refused(&["rollback", "ffffffff"], "no journal begins with");
        let retirement = stage.read(&["history", "web"])["journals"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["kind"] == "retirement")
            .cloned();
        refused(&["rollback", &id(&retirement.unwrap())], "is a retire journal");
        let said = stage.run(&["rollback", &id(&newest)]);
        assert_eq!(said.code, 0, "{}: {said:?}", stage.provider);
        assert!(said.out.contains("rollback completed"), "{said:?}");
        let back = &rotations()[0];
        assert_eq!((&back["kind"], &back["undoes"]), (&Value::from("rollback"), &newest["journal"]));
        assert_eq!((&back["key_pair"], &back["outcome"]), (&first["key_pair"], &Value::from("completed")));
        let story = stage.run(&["show", &id(back)]);
        assert!(story.out.contains(&format!("rollback of rotation {} begun", id(&newest))), "{story:?}");
        assert!(story.out.contains("its private key is in custody already, SHA256:"), "{story:?}");
        // Said again, nothing is left; and nobody is late.
        refused(&["rollback", &id(&newest)], "nothing is left to be undone");
        let said = stage.run(&["catch-up", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("nobody is to be caught up with"), "{said:?}");
        let status = stage.read(&["status", "web"]);
        assert_eq!(status["fleets"][0]["last"]["kind"], "rollback", "{status:#}");
    });
}

#[test]
fn two_rotations_on_every_cloud_end_well_and_can_be_read_afterwards() {
    let clouds = Clouds::open(&QUICK);
    assert_eq!(clouds.providers().len(), 4);
    each_cloud(&clouds, |stage| {
        let planned = stage.planned();
        assert_eq!(std::fs::read_dir(stage.path("lib")).unwrap().count(), 0, "plan made something");
        let before = stage.picture(&clouds);
        for round in 1..=2 {
            let said = stage.run(&["rotate", "web"]);
            assert_eq!(said.code, 0, "{} round {round}: {said:?}", stage.provider);
            assert!(said.out.contains("canary: active: "), "{said:?}");
            assert_eq!(said.err, "", "{}", stage.provider);
            stage.assert_rotated(&clouds, &planned, &before);
        }
        let history = stage.read(&["history", "web"]);
        let journals = history["journals"].as_array().unwrap();
        let kinds: Vec<_> = journals.iter().map(|one| (one["kind"].clone(), one["outcome"].clone())).collect();
        let expect = [("retirement", "kept"), ("rotation", "completed"), ("rotation", "completed")];
        assert_eq!(kinds, expect.map(|(kind, outcome)| (Value::from(kind), Value::from(outcome))));
        assert_eq!(journals[1]["rotation"]["counts"]["excluded"], 0);
        for journal in journals {
            let id = journal["journal"].as_str().unwrap();
            let story = stage.read(&["show", id]);
            assert_eq!(story["chain"]["whole"], true, "{story:#}");
            assert_eq!(story["entries"].as_array().unwrap().len() as u64, journal["entries"].as_u64().unwrap());
        }
        let story = stage.run(&["show", "web"]);
        assert_eq!(story.code, 0, "{story:?}");
        assert!(story.out.contains("rotation completed") && story.out.contains("entries, whole"), "{story:?}");
        let kept = &stage.read(&["status"])["fleets"][0]["kept"];
        assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
        for table in [&["status"][..], &["history", "web"]] {
            let said = stage.run(table);
            assert_eq!(said.code, 0, "{said:?}");
            assert!(!said.out.contains('\u{1b}'), "colours in a pipe: {said:?}");
        }
    });
}

#[test]
fn killed_at_any_moment_and_started_again_it_ends_the_same() {
    let clouds = Clouds::open(&QUICK);
    let seed: u64 = rand::random();
    each_cloud(&clouds, |stage| {
        let provider = &stage.provider;
        let mut chance = rand::rngs::StdRng::seed_from_u64(seed ^ provider.len() as u64);
        let (planned, before) = (stage.planned(), stage.picture(&clouds));
        let began = Instant::now();
        let mut kills = 0;
        for round in 0.. {
            assert!(began.elapsed() < Duration::from_secs(150), "{provider}, seed {seed}: {}", stage.log());
            let mut rotate = stage.start(&["rotate", "web"]);
            let patience = if kills < 5 { chance.random_range(50..2500) } else { 120_000 };
            match rotate.code_within(Duration::from_millis(patience)) {
                Some(0) => break,
                Some(code) => panic!("{provider}, seed {seed}, round {round}: {code}: {}", stage.log()),
                None => {
                    rotate.kill();
                    kills += 1;
                }
            }
        }
        assert!(kills > 0, "nothing was killed");
        stage.assert_rotated(&clouds, &planned, &before);
        let history = stage.read(&["history", "web"]);
        let journals = history["journals"].as_array().unwrap();
        assert!(journals.iter().all(|one| !one["outcome"].is_null()), "{history:#}");
        // Killed before the first entry or after the last, the next command rotates anew: each pair but one is retired.
        let rotations = journals.iter().filter(|one| one["kind"] == "rotation").count();
        assert_eq!(journals.len(), 2 * rotations - 1, "{history:#}");
    });
}

#[test]
fn one_drives_at_a_time_and_an_interrupted_one_says_how_it_goes_on() {
    let clouds = Clouds::open(&["--instances", "8", "--operation-time", "2s"]);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let mut first = stage.start(&["rotate", "web"]);
    wait_for(&stage, "canary: binding");

    // A second one follows the first, and would take over from it.
    let mut second = stage.start(&["rotate", "web"]);
    wait_for(&stage, "another rekeyd drives this store; handed over, following it");

    // Reading goes on beside it, without secrets.
    let status = stage.read(&["status", "web"]);
    assert!(status["fleets"][0]["open"]["rotation"].is_string(), "{status:#}");
    let plan = stage.run(&["plan", "web"]);
    assert_eq!(plan.code, 2, "{plan:?}");
    assert!(plan.out.contains("is open") && plan.out.contains("next: "), "{plan:?}");

    first.signal("INT");
    assert_eq!(first.code_within(Duration::from_secs(9)), Some(1), "{}", stage.log());
    let log = stage.log();
    assert!(log.contains("stopping after the call that is under way"), "{log}");
    assert!(log.contains("stopped as asked; owed a start") && log.contains("`rekeyd rotate web` goes on"), "{log}");

    wait_for(&stage, "going on with rotation");
    second.kill();
    let mut last = stage.start(&["rotate", "web"]);
    wait_for(&stage, "going on with rotation");
    last.signal("TERM");
    assert_eq!(last.code_within(Duration::from_secs(9)), Some(1), "{}", stage.log());
}

fn wait_for(stage: &Stage, words: &str) {
    let began = Instant::now();
    while !stage.log().contains(words) {
        assert!(began.elapsed() < Duration::from_secs(20), "no {words:?} in: {}", stage.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_cannot_be_rotated_is_refused_with_the_reason_before_a_key_is_made() {
    let clouds = Clouds::open(&["--instances", "5"]);
    let nobody = "  none: { account: main, region: REGION, tags: { role: nobody }, verify: none }\n";
    let region = clouds.ready["clouds"][0]["region"].as_str().unwrap();
    let stage = Stage::of(&clouds, "tencent-lighthouse", &nobody.replace("REGION", region));
    let refused = |arguments: &[&str], words: &str| {
        let said = stage.run(arguments);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(words), "{said:?} lacks {words:?}");
    };
    refused(&["plan", "none"], "no instance matches its selection");
    refused(&["rotate", "none"], "no instance matches its selection");
    refused(&["rotate", "nought"], "there is no fleet \"nought\"");
    refused(&["plan", "nought"], "there is no fleet \"nought\"");
    refused(&["show", "nought"], "no journal begins with");
    refused(&["status", "nought"], "there is no fleet \"nought\"");
    refused(&["rotate"], "Usage");
    let names = |place: &str| -> Vec<String> {
        let files = std::fs::read_dir(stage.path("lib").join(place)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("keys"), ["installation"], "a key was made");

    // A secret that is missing here is an error here; nothing is held for it.
    let without = said(rekeyd(&stage.path("rekeyd.yaml"), &["rotate", "web"]).output().unwrap());
    assert_eq!(without.code, 1, "{without:?}");
    assert!(without.err.contains("$THE_ID is not set"), "{without:?}");
    assert_eq!(stage.read(&["history", "web"])["journals"], serde_json::json!([]));
}

#[test]
fn a_database_that_was_lost_beside_its_keys_and_a_strange_mark_are_refused() {
    let clouds = Clouds::open(&["--instances", "3", "--latency", "5ms", "--operation-time", "100ms"]);
    let stage = Stage::of(&clouds, "alibaba-ecs", "");
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let text = std::fs::read_to_string(stage.path("rekeyd.yaml")).unwrap();
    std::fs::write(stage.path("rekeyd.yaml"), format!("installation: zz\n{text}")).unwrap();
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("installation: zz") && said.err.contains("leave the line out"), "{said:?}");
    std::fs::write(stage.path("rekeyd.yaml"), text).unwrap();
    for file in std::fs::read_dir(stage.path("lib")).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().unwrap().starts_with("rekeyd.db") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("the database holds no journal, but custody holds private keys"), "{said:?}");
}

#[test]
fn check_names_every_problem_with_its_line_and_a_good_file_passes() {
    let clouds = Clouds::open(&["--instances", "1"]);
    let stage = Stage::of(&clouds, "baidu-bcc", "");
    let good = stage.run(&["check"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{good:?}");
    assert!(good.out.contains("good: 1 account, 1 fleet"), "{good:?}");

    let unset = said(rekeyd(&stage.path("rekeyd.yaml"), &["check"]).output().unwrap());
    assert_eq!(unset.code, 1, "{unset:?}");
    for words in ["rekeyd.yaml:8: ", "$THE_ID is not set", "rekeyd.yaml:9: ", "$THE_SECRET is not set", "2 problems"] {
        assert!(unset.err.contains(words), "{unset:?} lacks {words:?}");
    }

    let text = std::fs::read_to_string(stage.path("rekeyd.yaml")).unwrap();
    let bad = text
        .replace("batch_max: 4", "batch_max: 0")
        .replace("account: main", "account: mian")
        .replace("http://127.0.0.1", "http://bcc.example.com")
        .replace(
            "    verify: none\n",
            "    verify: none\n    schedule: \"* * *\"\n    timezone: Mars/Olympus\n    soak: 1s\n",
        );
    std::fs::write(stage.path("rekeyd.yaml"), bad).unwrap();
    let said = stage.run(&["check"]);
    assert_eq!(said.code, 1, "{said:?}");
    let problems = ["batch_max", "mian", "endpoint", "schedule", "timezone", "soak"];
    for (words, line) in problems.iter().zip([16, 12, 6, 18, 19, 20]) {
        let at = format!("rekeyd.yaml:{line}: ");
        assert!(said.err.lines().any(|text| text.contains(&at) && text.contains(words)), "{said:?} lacks {at} {words}");
    }
    let json = stage.run(&["check", "--json"]);
    let told: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &told["ok"]), (1, &Value::from(false)));
    assert_eq!(told["problems"].as_array().unwrap().len(), said.err.lines().count() - 1, "{told:#}");
    assert!(told["problems"].as_array().unwrap().iter().all(|problem| problem["line"].as_u64() > Some(0)), "{told:#}");

    // What cannot be checked cannot be used either, and what is not there is said to be so.
    let said = stage.run(&["rotate", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("the config file cannot be used") && said.err.contains("batch_max"), "{said:?}");
    std::fs::remove_file(stage.path("rekeyd.yaml")).unwrap();
    let said = stage.run(&["check"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("cannot be read") && said.err.contains("--config"), "{said:?}");
}
