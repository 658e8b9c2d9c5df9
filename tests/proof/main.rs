//! The real program, real OpenSSH servers as the guests: a rotation that the cloud calls successful is only done once each
//! machine was logged in to, and stops by itself where a login says otherwise.

#![allow(clippy::unwrap_used)]

#[path = "../stage/mod.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::Value;

use stage::{Clouds, Stage};

/// A fleet in each cloud, with sshd in each machine.
const GUESTS: [&str; 7] = ["--instances", "8", "--latency", "3ms", "--operation-time", "400ms", "--sshd"];

/// The ids of a plan's running machines, those of the canary first.
fn running(stage: &Stage) -> Vec<String> {
    let said = stage.run(&["plan", "web", "--json"]);
    let plan: Value = serde_json::from_str(&said.out).unwrap();
    let all = plan["batches"].as_array().unwrap().iter().flat_map(|batch| batch["instances"].as_array().unwrap());
    let running = all.filter(|one| one["power"] == "running");
    running.map(|one| one["id"].as_str().unwrap().to_string()).collect()
}

/// Whether `ssh` gets in with a key of custody.
fn gets_in(clouds: &Clouds, stage: &Stage, instance: &str, key: &Path) -> bool {
    let ssh = &clouds.ready["clouds"][0]["ssh"];
    let address = clouds.instance(&stage.provider, instance)["address"].as_str().unwrap().to_string();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-p", &ssh["port"].to_string(), "-i"]).arg(key);
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ConnectTimeout=20",
    ] {
        command.args(["-o", option]);
    }
    let said = command.arg(format!("{}@{address}", ssh["user"].as_str().unwrap())).arg("true").output().unwrap();
    said.status.success()
}

/// The file of a pair's private half.
fn half(stage: &Stage, key_pair: &str) -> PathBuf {
    stage.path("lib").join("keys").join(key_pair)
}

/// The newest rotation's key pair.
fn newest(stage: &Stage) -> String {
    let history = stage.read(&["history", "web"]);
    let journals = history["journals"].as_array().unwrap().iter();
    let newest = journals.clone().find(|one| one["kind"] == "rotation").unwrap();
    newest["key_pair"].as_str().unwrap().to_string()
}

/// The events of this name in the newest rotation, or the open one.
fn events(stage: &Stage, name: &str) -> Vec<Value> {
    let story = stage.read(&["show", "web"]);
    let entries = story["entries"].as_array().unwrap().iter().map(|entry| entry["event"].clone());
    entries.filter(|event| event["event"] == name).collect()
}

fn proven(stage: &Stage) -> Vec<Value> {
    events(stage, "verified").iter().flat_map(|event| event["proofs"].as_array().unwrap().clone()).collect()
}

/// Runs the same for every cloud at once, each with a store of its own.
fn each_cloud(clouds: &Clouds, work: impl Fn(&Stage) + Sync) {
    std::thread::scope(|scope| {
        for provider in clouds.providers() {
            let (stage, work) = (Stage::proving(clouds, &provider, ""), &work);
            scope.spawn(move || work(&stage));
        }
    });
}

/// Who ran before and does not now.
fn switched_off(stage: &Stage, clouds: &Clouds, before: &stage::Picture) -> Vec<String> {
    let now = stage.picture(clouds);
    let off = before.iter().filter(|(id, (state, _))| state == "running" && now[*id].0 != "running");
    off.map(|(id, _)| id.clone()).collect()
}

#[test]
fn two_rotations_on_every_cloud_are_proven_by_logins_and_the_old_key_is_refused() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (planned, before, running) = (stage.planned(), stage.picture(&clouds), running(stage));
        for round in 1..=2 {
            let said = stage.run(&["rotate", "web"]);
            assert_eq!(said.code, 0, "{} round {round}: {said:?}", stage.provider);
            let proofs = proven(stage);
            let ids: BTreeSet<&str> = proofs.iter().map(|proof| proof["instance"].as_str().unwrap()).collect();
            assert_eq!(ids, running.iter().map(String::as_str).collect(), "{}", stage.provider);
            for proof in &proofs {
                // Tencent shows the public halves of strangers' pairs; who had none, had none to be refused.
                let (_, had) = &before[proof["instance"].as_str().unwrap()];
                let known = round == 2 || (stage.provider.starts_with("tencent") && !had.is_empty());
                assert_eq!(proof["old_key"], if known { "refused" } else { "not_known" }, "{proof}");
                assert!(proof["server"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH_"), "{proof}");
            }
            let key = half(stage, &newest(stage));
            for instance in &running {
                assert!(gets_in(&clouds, stage, instance, &key), "{} {instance}", stage.provider);
            }
            stage.assert_rotated(&clouds, &planned, &before);
        }
    });
}

#[test]
fn a_canary_that_refuses_the_new_key_holds_and_nobody_else_is_touched() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (before, running) = (stage.picture(&clouds), running(stage));
        clouds.post(&format!("/meddle?never-accepts={}", running[0]));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 3, "{}: {said:?}", stage.provider);
        assert!(said.out.contains("it refuses the new key"), "{said:?}");
        assert!(said.out.contains("nobody in the canary batch"), "{said:?}");
        let now = stage.picture(&clouds);
        for (id, (state, keys)) in &before {
            let (state_now, keys_now) = &now[id];
            assert_eq!(state_now, state, "{}: power of {id}", stage.provider);
            assert_eq!(keys_now == keys, *id != running[0], "{}: keys of {id}", stage.provider);
        }
    });
}

#[test]
fn a_budget_of_two_holds_at_the_third_bad_machine_and_nobody_is_left_switched_off() {
    let clouds = Clouds::open(&["--instances", "16", "--latency", "3ms", "--operation-time", "400ms", "--sshd"]);
    each_cloud(&clouds, |stage| {
        stage.edit(|config| {
            config.replace("batch_max: 4", "batch_max: 1").replace("failures_max: 20%", "failures_max: 2")
        });
        let (before, running) = (stage.picture(&clouds), running(stage));
        let bad = &running[1..5];
        clouds.post(&format!(
            "/meddle?{}",
            bad.iter().map(|id| format!("never-accepts={id}")).collect::<Vec<_>>().join("&")
        ));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 3, "{}: {said:?}", stage.provider);
        assert!(said.out.contains("3 instances failed, failures_max allows 2"), "{said:?}");
        assert_eq!(switched_off(stage, &clouds, &before), Vec::<String>::new(), "{}", stage.provider);
        let touched: Vec<String> = {
            let now = stage.picture(&clouds);
            running.iter().filter(|id| now[*id].1 != before[*id].1).cloned().collect()
        };
        assert_eq!(
            touched,
            running[..4],
            "{}: one batch after another, and none after the third failure",
            stage.provider
        );
    });
}

#[test]
fn another_host_key_holds_until_it_is_trusted() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let running = running(stage);
        let mut rotate = stage.start(&["rotate", "web"]);
        wait_for(stage, "a pin of the canary", || {
            !stage.read_or_null(&["show", "web"])["entries"].is_null() && !events(stage, "pinned").is_empty()
        });
        clouds.post(&format!("/hostkey?instance={}", running[0]));
        assert_eq!(rotate.code_within(Duration::from_secs(60)), Some(3), "{}: {}", stage.provider, stage.log());
        assert!(stage.log().contains(&format!("rekeyd trust {}", running[0])), "{}", stage.log());
        // It is no failure: nobody is excluded.
        assert_eq!(events(stage, "excluded"), Vec::<Value>::new());
        let said = stage.run(&["trust", &running[1]]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(&format!("held for: {}", running[0])), "{said:?}");
        let said = stage.run(&["trust", &running[0], "--note", "re-installed by hand"]);
        assert_eq!(said.code, 0, "{said:?}");
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{}: {said:?}", stage.provider);
        assert_eq!(proven(stage).len(), running.len());
    });
}

#[test]
fn a_machine_made_anew_from_its_image_is_pinned_anew_with_an_entry() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        assert_eq!(stage.run(&["rotate", "web"]).code, 0);
        let running = running(stage);
        clouds.post(&format!("/reimage?instance={}", running[1]));
        let said = stage.run(&["rotate", "web"]);
        assert_eq!(said.code, 0, "{}: {said:?}", stage.provider);
        let hosts: Vec<Value> =
            events(stage, "pinned").iter().flat_map(|event| event["hosts"].as_array().unwrap().clone()).collect();
        let anew: Vec<&Value> =
            hosts.iter().filter(|host| host["reimaged"] == true).map(|host| &host["instance"]).collect();
        assert_eq!(anew, [&Value::from(running[1].as_str())], "{}", stage.provider);
        assert_eq!(proven(stage).len(), running.len());
    });
}

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

#[test]
fn a_compromised_key_is_replaced_with_three_times_and_who_is_out_of_reach_is_listed() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let provider = &stage.provider;
        // An ordinary rotation would keep the old private key for a week.
        stage.edit(|config| config.replace("grace: 0s", "grace: 7d"));
        let planned = stage.planned();
        let picture = stage.picture(&clouds);
        for (id, _) in picture.iter().filter(|(id, (state, _))| planned.contains(*id) && state != "running") {
            clouds.meddle(&format!("running={id}"));
        }
        wait_for(stage, "a fleet that runs", || running(stage).len() == planned.len());
        assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{provider}");
        stage.edit(|config| config.replace("soak: 0s", "soak: 10m"));

        let old = newest(stage);
        let said = stage.run(&["rotate", "web", "--compromised", "--unavailable-max", "100%"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        let hosts = planned.len();
        assert!(
            said.out.contains(&format!("{hosts} of {hosts} hosts proven to refuse the old key: 50 % after ")),
            "{said:?}"
        );
        assert!(said.out.contains(", 99 % after ") && said.out.contains(", 100 % after "), "{said:?}");
        assert!(!half(stage, &old).exists(), "{provider}: the old private key waits out its grace: {said:?}");
        let story = stage.read(&["show", "web"]);
        let (plan, exposure) = (&story["plan"], &story["exposure"]);
        assert_eq!(plan["compromised"], true);
        assert_eq!(exposure["refuse_old_key"], hosts, "{exposure:#}");
        let seconds = |share: &str| exposure["seconds_until_percent"][share].as_f64().unwrap();
        assert!(
            0.0 < seconds("50") && seconds("50") <= seconds("99") && seconds("99") <= seconds("100"),
            "{exposure:#}"
        );

        if provider == "alibaba-ecs" {
            // It tells boots by the minute: each further rotation of the same machines waits for the next one.
            return;
        }
        let away = &running(stage)[hosts - 1];
        clouds.meddle(&format!("unreachable={away}"));
        let said = stage.run(&["rotate", "web", "--compromised", "--unavailable-max", "100%"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        let less = hosts - 1;
        assert!(
            said.out.contains(&format!("{less} of {hosts} hosts proven to refuse the old key: 50 % after ")),
            "{said:?}"
        );
        assert!(said.out.contains(", 99 % not yet, 100 % not yet"), "{said:?}");
        assert!(said.out.contains(&format!("not proven: {away}: bound and running, and out of reach")), "{said:?}");
        let told = stage.run(&["show", "web"]).out;
        assert!(told.contains(&format!("not proven: {away}: ")), "{told}");
    });
}

fn wait_for(stage: &Stage, what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{}: no {what}: {}", stage.provider, stage.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}
