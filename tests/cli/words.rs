//! What an operator is told: why nothing goes on and what to type, the same words with and without a daemon, and nothing that
//! is not so. The real program over simulated clouds on real sockets.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::{Clouds, Running, Stage, fetch};

const QUICK: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "100ms"];

/// A daemon beside the stage, once it drives.
fn daemon(stage: &Stage) -> Running {
    // Of 127.0.0.0/8: outgoing connections come from 127.0.0.1, so this one's ports stay free.
    let page = std::net::TcpListener::bind("127.89.0.1:0").unwrap().local_addr().unwrap().to_string();
    stage.edit(|config| format!("listen: {page}\n{config}"));
    let daemon = stage.start(&["run"]);
    let began = Instant::now();
    while !matches!(fetch(&page, "/readyz"), Ok((200, _))) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", stage.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon
}

fn journals(stage: &Stage, kind: &str) -> Vec<Value> {
    let history = stage.read(&["history", "web"]);
    history["journals"].as_array().unwrap().iter().filter(|one| one["kind"] == kind).cloned().collect()
}

#[test]
fn a_plan_of_what_is_held_says_that_why_and_the_command_to_go_on() {
    let clouds = Clouds::open(&QUICK);
    let hook = "    hooks: { before_batch: { command: [sh, -c, 'echo the pool is not healthy; exit 9'] } }\n";
    let stage = Stage::of(&clouds, "alibaba-ecs", hook);
    assert_eq!(stage.run(&["rotate", "web"]).code, 3);
    let plan = stage.run(&["plan", "web"]);
    assert_eq!(plan.code, 2, "{plan:?}");
    let words = "held: canary: the before_batch hook failed: exit code 9: the pool is not healthy";
    assert!(plan.out.contains(words) && !plan.out.contains("nothing left to do"), "{plan:?}");
    assert!(
        plan.out.contains("nothing is done until it is released: ") && plan.out.contains("`rekeyd release "),
        "{plan:?}"
    );
    let plan: Value = serde_json::from_str(&stage.run(&["plan", "web", "--json"]).out).unwrap();
    assert!(plan["held_because"].as_str().unwrap().contains("before_batch"), "{plan:#}");
    assert!(plan["way_on"].as_str().unwrap().contains("`rekeyd release "), "{plan:#}");

    // The key of what is open is there already, and is told; a host key is nobody's to trust yet.
    let open = &stage.read(&["status", "web"])["fleets"][0]["open"];
    let told = stage.run(&["status", "web"]).out;
    assert!(told.contains(&format!("    key {}", open["fingerprint"].as_str().unwrap())), "{told}");
    assert!(told.contains(open["private_key"].as_str().unwrap()), "{told}");
    let trust = stage.run(&["trust", "i-1"]);
    assert!(trust.code == 1 && trust.err.contains("`rekeyd rotate FLEET`"), "{trust:?}");

    // What a compromised key does not wait for is named, and what is held does not hide the plan.
    stage.edit(|config| config.replace("soak: 0s", "soak: 10m"));
    let ordinary = stage.run(&["plan", "web"]);
    assert!(ordinary.out.contains("is open"), "{ordinary:?}");
    let said = stage.run(&["plan", "web", "--compromised", "--unavailable-max", "100%", "--json"]);
    assert_eq!(said.code, 2, "{said:?}");
    let plan: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&plan["compromised"], &plan["gives_up"]), (&json!(true), &open["rotation"]), "{plan:#}");
    let told = stage.run(&["plan", "web", "--compromised"]);
    assert!(told.code == 2 && told.out.contains("is given up") && told.out.contains("key in wrong hands"), "{told:?}");
    let alone = stage.run(&["plan", "web", "--unavailable-max", "100%"]);
    assert!(alone.code == 1 && alone.err.contains("--compromised"), "{alone:?}");
}

#[test]
fn a_plan_for_a_compromised_key_is_what_rotate_compromised_does() {
    let clouds = Clouds::open(&["--instances", "20", "--latency", "5ms", "--operation-time", "100ms"]);
    let stage = Stage::of(&clouds, "tencent-cvm", "    freeze: [2020-01-01..2098-12-31]\n");
    stage.edit(|config| config.replace("soak: 0s", "soak: 10m"));
    let plan = |arguments: &[&str]| -> Value {
        let said = stage.run(&[&["plan", "web", "--json"][..], arguments].concat());
        assert_eq!(said.code, 2, "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    };
    let sizes = |plan: &Value| -> Vec<u64> {
        plan["batches"].as_array().unwrap().iter().map(|batch| batch["size"].as_u64().unwrap()).collect()
    };
    let (ordinary, urgent) = (plan(&[]), plan(&["--compromised", "--unavailable-max", "100%"]));
    assert_eq!((&ordinary["soak_seconds"], &urgent["soak_seconds"]), (&json!(600), &json!(0)));
    assert_eq!((&ordinary["compromised"], &urgent["compromised"]), (&json!(false), &json!(true)));
    assert_eq!(urgent["gives_up"], Value::Null);
    let force = |plan: &Value| plan["notes"].to_string().contains("--force=window");
    assert!(force(&ordinary) && !force(&urgent), "{ordinary:#}\n{urgent:#}");
    assert!(sizes(&urgent).len() < sizes(&ordinary).len() && sizes(&urgent)[0] == 1, "{urgent:#}");
    let said = stage.run(&["rotate", "web", "--compromised", "--unavailable-max", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    let sizes: Vec<String> = sizes(&urgent).iter().map(ToString::to_string).collect();
    assert!(said.out.contains(&format!("in batches of {}", sizes.join(", "))), "{sizes:?}: {said:?}");
}

#[test]
fn nobody_to_catch_up_with_and_a_way_back_to_several_pairs_end_alike_with_and_without_a_daemon() {
    // All of them hang on a pair, so that nobody stays on the one that is rolled back.
    let clouds = Clouds::open(&["--instances", "4", "--latency", "5ms", "--operation-time", "100ms"]);
    let mut sentences = std::collections::BTreeSet::new();
    for beside in [false, true] {
        let stage = Stage::of(&clouds, "tencent-lighthouse", "");
        let before = stage.picture(&clouds);
        let _daemon = beside.then(|| daemon(&stage));
        assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{}", if beside { stage.log() } else { String::new() });
        let said = stage.run(&["catch-up", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        // (Whoever was off was bound, and is still off.)
        let words = said.out.lines().find(|line| line.starts_with("web: nobody is to be caught up with now"));
        sentences.insert(words.unwrap_or_else(|| panic!("beside a daemon: {beside}: {said:?}")).to_string());

        // Its machines hung on two strangers' pairs.
        let id = journals(&stage, "rotation")[0]["journal"].as_str().unwrap().to_string();
        let said = stage.run(&["rollback", &id]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(
            said.out.matches("rollback completed").count(),
            said.out.matches(" completed: ").count(),
            "{said:?}"
        );
        let ended: Vec<&str> = said
            .out
            .lines()
            .filter(|line| line.starts_with("web: rollback ") && line.contains(" completed: "))
            .collect();
        assert_eq!((ended.len(), journals(&stage, "rollback").len()), (2, 2), "beside a daemon: {beside}: {said:?}");
        // (Who had both has one of them.)
        for (id, (_, keys)) in stage.picture(&clouds) {
            let had = &before[&id].1;
            assert!(keys.is_subset(had) && keys.is_empty() == had.is_empty(), "{id} is on {keys:?}, was on {had:?}");
        }
        let status = &stage.read(&["status", "web"])["fleets"][0];
        assert_eq!((&status["last"]["kind"], &status["last_whole"]["kind"]), (&json!("rollback"), &json!("rotation")));
        assert_eq!(status["last_whole"]["rotation"], id.as_str());
        let told = stage.run(&["status", "web"]).out;
        assert!(told.contains("last rotation of the whole fleet completed"), "{told}");
        let again = stage.run(&["rollback", &id]);
        assert!(again.code == 1 && again.err.contains("nothing is left to be undone"), "{again:?}");
    }
    assert_eq!(sentences.len(), 1, "{sentences:?}");
}

#[test]
fn status_names_who_is_left_out_and_for_whom_a_retired_pair_waits() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-cvm", "");
    let planned = stage.planned();
    let (one, other) = (planned.first().unwrap(), planned.last().unwrap());
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    // Left out by the plan, it stays on the old pair.
    clouds.meddle(&format!("spot={one}&spot={other}"));
    let said = stage.run(&["rotate", "web", "--force=size-change"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("left out by the plan"), "{said:?}");
    let status = &stage.read(&["status", "web"])["fleets"][0];
    let excluded = status["last"]["excluded"].as_array().unwrap();
    assert_eq!(excluded.len() as u64, status["last"]["counts"]["excluded_in_plan"].as_u64().unwrap(), "{status:#}");
    let spot = excluded.iter().find(|one_of| one_of["instance"] == one.as_str()).unwrap();
    assert!(spot["reason"].as_str().unwrap().contains("spot: "), "{spot}");
    let [retiring] = &status["retiring"].as_array().unwrap()[..] else { panic!("{status:#}") };
    assert_eq!(retiring["waits_for"], json!([one, other]), "{retiring:#}");
    let told = stage.run(&["status", "web"]).out;
    assert!(told.contains(&format!("  excluded: {one}: ")), "{told}");
    assert!(told.contains(&format!("it waits for {one}, {other}")), "{told}");
}
