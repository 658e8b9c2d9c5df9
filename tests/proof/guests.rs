//! What the proofs share: fleets with real OpenSSH servers in their machines, and an operator's questions about them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Clouds, Picture, Running, Stage, fetch};

/// A fleet in each cloud, with sshd in each machine.
pub const GUESTS: [&str; 7] = ["--instances", "8", "--latency", "3ms", "--operation-time", "400ms", "--sshd"];

/// The ids of a plan's running machines, those of the canary first.
pub fn running(stage: &Stage) -> Vec<String> {
    let said = stage.run(&["plan", "web", "--json"]);
    let plan: Value = serde_json::from_str(&said.out).unwrap();
    let all = plan["batches"].as_array().unwrap().iter().flat_map(|batch| batch["instances"].as_array().unwrap());
    let running = all.filter(|one| one["power"] == "running");
    running.map(|one| one["id"].as_str().unwrap().to_string()).collect()
}

/// Whether `ssh` gets in with a key of custody.
pub fn gets_in(clouds: &Clouds, stage: &Stage, instance: &str, key: &Path) -> bool {
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
pub fn half(stage: &Stage, key_pair: &str) -> PathBuf {
    stage.path("lib").join("keys").join(key_pair)
}

/// The newest rotation's key pair.
pub fn newest(stage: &Stage) -> String {
    let history = stage.read(&["history", "web"]);
    let journals = history["journals"].as_array().unwrap().iter();
    let newest = journals.clone().find(|one| one["kind"] == "rotation").unwrap();
    newest["key_pair"].as_str().unwrap().to_string()
}

/// The events of this name in the newest rotation, or the open one.
pub fn events(stage: &Stage, name: &str) -> Vec<Value> {
    let story = stage.read(&["show", "web"]);
    let entries = story["entries"].as_array().unwrap().iter().map(|entry| entry["event"].clone());
    entries.filter(|event| event["event"] == name).collect()
}

pub fn proven(stage: &Stage) -> Vec<Value> {
    events(stage, "verified").iter().flat_map(|event| event["proofs"].as_array().unwrap().clone()).collect()
}

/// Runs the same for every cloud at once, each with a store of its own.
pub fn each_cloud(clouds: &Clouds, work: impl Fn(&Stage) + Sync) {
    std::thread::scope(|scope| {
        for provider in clouds.providers() {
            let (stage, work) = (Stage::proving(clouds, &provider, ""), &work);
            scope.spawn(move || work(&stage));
        }
    });
}

/// Who ran before and does not now.
pub fn switched_off(stage: &Stage, clouds: &Clouds, before: &Picture) -> Vec<String> {
    let now = stage.picture(clouds);
    let off = before.iter().filter(|(id, (state, _))| state == "running" && now[*id].0 != "running");
    off.map(|(id, _)| id.clone()).collect()
}

pub fn wait_for(stage: &Stage, what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        // ECS shows a boot by its minute alone: a second one waits for the next.
        assert!(began.elapsed() < Duration::from_secs(100), "{}: no {what}: {}", stage.provider, stage.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Gives a stage's daemon a place for its pages that no other has, and tells it.
pub fn daemons_page(stage: &Stage) -> String {
    let page = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    stage.edit(|config| format!("listen: {page}\n{config}"));
    page
}

/// Waits until nothing of the fleet is open and nothing follows from what ended.
pub fn settled(stage: &Stage) {
    let mut calm = 0;
    let began = Instant::now();
    while calm < 5 {
        let status = &stage.read(&["status", "web"])["fleets"][0];
        assert!(began.elapsed() < Duration::from_secs(90), "{}: {status:#}\n{}", stage.provider, stage.log());
        // Between the end of a rotation and the beginning of its retire journal nothing is open.
        let is_calm = status["open"].is_null() && status["retiring"] == serde_json::json!([]);
        calm = if is_calm { calm + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Tells a daemon to end, and holds it against its promise.
pub fn stop(stage: &Stage, mut daemon: Running) {
    daemon.signal("TERM");
    assert_eq!(daemon.code_within(Duration::from_secs(10)), Some(0), "{}: {}", stage.provider, stage.log());
}

/// Waits until a daemon drives.
pub fn ready(stage: &Stage, page: &str) {
    wait_for(stage, "daemon that drives", || matches!(fetch(page, "/readyz"), Ok((200, _))));
}
