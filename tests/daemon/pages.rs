//! What the daemon tells: metrics, health, log lines. And what it must never tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::Value;

use crate::house::{House, stop, value};
use crate::stage::{Clouds, fetch, said};

const QUICK: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "300ms"];
const LH: &str = "tencent-lighthouse";

/// What `promtool check metrics` says to a page.
fn promtool(page: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (of Debian's package prometheus; tests/run installs it)");
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""), "{page}");
}

/// The series of a page, without their values.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_string()).collect()
}

/// Whether a series is of what only a cloud's answer tells.
fn asked(series: &str) -> bool {
    ["rekeyd_clock_difference_seconds", "rekeyd_key_pairs"].iter().any(|name| series.starts_with(name))
}

#[test]
fn every_series_is_there_from_the_start_counts_right_and_goes_with_its_fleet() {
    let clouds = Clouds::open(&QUICK);
    let mut house = House::of(&clouds, &[LH, "baidu-bcc"]);
    let mut daemon = house.daemon();
    let at_first = house.metrics();
    promtool(&at_first);
    assert!(value(&at_first, "rekeyd_build_info", &["version="]) == Some(1.0));
    assert!(value(&at_first, "rekeyd_driver", &[]) == Some(1.0));
    assert!(at_first.contains("process_resident_memory_bytes "), "{at_first}");
    let all = series(&at_first);
    let names: BTreeSet<&str> = all.iter().map(|one| one.split('{').next().unwrap()).collect();
    for line in at_first.lines().filter_map(|line| line.strip_prefix("# TYPE rekeyd_")) {
        let name = format!("rekeyd_{}", line.split(' ').next().unwrap());
        // What is known of a cloud's account is known once the cloud was asked.
        let there = names.iter().any(|one| **one == name || **one == format!("{name}_count"));
        assert!(there || asked(&name), "{name} has no series");
    }
    for line in at_first.lines().filter(|line| line.starts_with("rekeyd_") && line.contains("fleet=")) {
        assert!(line.ends_with(" 0"), "not at 0 from the start: {line}");
    }
    for (page, words) in [("/healthz", "ok"), ("/readyz", "ok")] {
        let (status, text) = fetch(&house.listen, page).unwrap();
        assert_eq!((status, text.trim()), (200, words), "{page}");
    }
    assert_eq!(fetch(&house.listen, "/nothing").unwrap().0, 404);

    let planned = house.planned(LH).len();
    let began = jiff::Timestamp::now().as_second() as f64 - 1.0;
    house.done(&["rotate", LH]);
    house.done(&["rotate", LH]);
    house.settled(LH, 30);
    let page = house.metrics();
    promtool(&page);
    // No counter begins to exist only when it first counts. What is known of an account does: it is asked then.
    let new: Vec<String> = series(&page).difference(&all).cloned().collect();
    assert!(new.iter().all(|one| asked(one)), "{new:#?}");
    assert_eq!(all.difference(&series(&page)).count(), 0, "series are gone");

    let fleet = format!("fleet=\"{LH}\"");
    let of_fleet = |name: &str, label: &str| value(&page, name, &[&fleet, label]).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(of_fleet("rekeyd_rotations_total", "outcome=\"completed\""), 2.0);
    assert_eq!(of_fleet("rekeyd_rotations_total", "outcome=\"abandoned\""), 0.0);
    assert_eq!(of_fleet("rekeyd_rotation_open", ""), 0.0);
    assert_eq!(of_fleet("rekeyd_retire_journals_ended_total", "outcome=\"kept\""), 1.0);
    assert_eq!(of_fleet("rekeyd_starts_owed", ""), 0.0);
    for name in ["rekeyd_fleet_last_success_timestamp_seconds", "rekeyd_fleet_key_created_timestamp_seconds"] {
        assert!(of_fleet(name, "") >= began, "{name}: {}", of_fleet(name, ""));
    }
    let provider = format!("provider=\"{LH}\"");
    let of_cloud =
        |name: &str, label: &str| value(&page, name, &[&provider, label]).unwrap_or_else(|| panic!("{name}"));
    assert!(of_cloud("rekeyd_batch_size_sum", "") >= 2.0 * planned as f64);
    let calls = clouds.state(LH)["calls"].as_object().unwrap().clone();
    // `plan` in a process of its own looked too: what only rotations call is counted exactly.
    for action in ["AssociateInstancesKeyPairs", "ImportKeyPair", "DeleteKeyPairs"] {
        let counted = of_cloud("rekeyd_provider_requests_total", &format!("action=\"{action}\",outcome=\"ok\""));
        assert_eq!(Some(counted), calls[action].as_f64(), "{action}");
        let timed = of_cloud("rekeyd_provider_request_duration_seconds_count", &format!("action=\"{action}\""));
        assert_eq!(timed, counted, "{action}");
    }
    assert!(value(&page, "rekeyd_step_duration_seconds_count", &["step=\"bind\""]) >= Some(2.0));
    let turned = value(&page, "rekeyd_scheduler_last_turn_timestamp_seconds", &[]).unwrap();
    assert!((jiff::Timestamp::now().as_second() as f64 - turned).abs() < 5.0);
    for (one, number) in [("instance", "ins-"), ("instance", "lhins-")] {
        assert!(!page.contains(&format!("{one}=\"")) && !page.contains(number), "instances are labels");
    }
    for label in ["region", "zone", "env", "cluster", "type", "service"] {
        assert!(!page.contains(&format!("{{{label}=\"")) && !page.contains(&format!(",{label}=\"")), "{label}");
    }

    // A restart knows what the journals know; a fleet that is gone has no series.
    stop(&house, &mut daemon);
    let mut daemon = house.daemon();
    let page = house.metrics();
    assert!(value(&page, "rekeyd_fleet_last_success_timestamp_seconds", &[&fleet]).unwrap() >= began);
    stop(&house, &mut daemon);
    house.fleets.remove(LH);
    house.write();
    let mut daemon = house.daemon();
    let page = house.metrics();
    promtool(&page);
    let left: Vec<_> = page.lines().filter(|line| line.contains(LH)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(page.contains("fleet=\"baidu-bcc\""), "{page}");
    stop(&house, &mut daemon);
}

/// What no output may hold: API secrets and the private parts of every key, as text and as bytes.
fn secrets(house: &House<'_>) -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for cloud in house.clouds.ready["clouds"].as_array().unwrap() {
        let secret = cloud["access_key_secret"].as_str().unwrap();
        needles.push(("an API secret".to_string(), secret.as_bytes().to_vec()));
    }
    let mut keys = 0;
    for file in std::fs::read_dir(house.path("lib/keys")).unwrap().map(Result::unwrap) {
        let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
        if !text.starts_with("-----BEGIN") {
            continue;
        }
        keys += 1;
        let body: Vec<&str> = text.lines().filter(|line| !line.starts_with("-----")).collect();
        // The first part is the public key's.
        for line in &body[body.len() / 2..body.len() - 1] {
            needles.push((format!("a line of {:?}", file.file_name()), line.as_bytes().to_vec()));
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(body.concat()).unwrap();
        for part in bytes[bytes.len() / 2..bytes.len() - 40].chunks_exact(24) {
            needles.push((format!("bytes of {:?}", file.file_name()), part.to_vec()));
            needles.push((format!("hex of {:?}", file.file_name()), hex::encode(part).into_bytes()));
        }
    }
    assert!(keys >= 2, "there are too few keys to look for");
    needles
}

#[test]
fn each_entry_is_one_line_with_its_fields_in_text_and_json_and_nothing_tells_a_secret() {
    let clouds =
        Clouds::open(&["--instances", "8", "--latency", "5ms", "--operation-time", "300ms", "--faults", "poison=1"]);
    let house = House::of(&clouds, &[LH]);
    let mut daemon = house.daemon();
    let mut said = house.run(&["rotate", LH]).out;
    stop(&house, &mut daemon);
    let as_json = house.log();
    // The same again as text, and with every word that it has.
    let mut talkative = house.command(&["run"]);
    talkative.env("RUST_LOG", "trace").stdout(std::fs::File::create(house.path("out")).unwrap());
    talkative.stderr(std::fs::File::create(house.path("text")).unwrap());
    let mut daemon = crate::stage::Running(talkative.spawn().unwrap());
    let ready = crate::house::wait(20, || (fetch(&house.listen, "/readyz").ok()?.0 == 200).then_some(()));
    assert!(ready.is_some(), "{}", house.words("text"));
    said += &house.run(&["rotate", LH]).out;
    house.settled(LH, 30);
    let metrics = house.metrics();
    stop(&house, &mut daemon);
    let as_text = house.words("text");

    // JSON: each line an object; of each entry exactly one line, in order.
    let lines: Vec<Value> = as_json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["target"] == "rekeyd::journal") {
        assert_eq!(line["fleet"], LH, "{line}");
        let name = line["message"].as_str().unwrap().split([':', ' ']).next().unwrap();
        entries.entry(line["rotation"].as_str().unwrap().to_string()).or_default().push(name.to_string());
    }
    let journals = house.rotations(LH);
    for journal in &journals {
        let id = journal["journal"].as_str().unwrap();
        let story: Value = serde_json::from_str(&house.done(&["show", id, "--json"])).unwrap();
        let names: Vec<&str> =
            story["entries"].as_array().unwrap().iter().map(|e| e["event"]["event"].as_str().unwrap()).collect();
        let short = id;
        match entries.get(short) {
            Some(logged) => assert_eq!(*logged, names, "{as_json}"),
            None => {
                let of_text = as_text.lines().filter(|line| line.contains("rekeyd::journal") && line.contains(short));
                assert_eq!(of_text.count(), names.len(), "{as_text}");
            }
        }
    }
    assert_eq!(entries.len(), 1);
    let with = |field: &str| lines.iter().filter(|line| line[field].is_string()).count();
    for field in ["fleet", "rotation", "instance", "step", "action", "request_id"] {
        assert!(with(field) > 0, "no line has {field}: {as_json}");
    }
    let bind = lines.iter().find(|line| line["step"] == "bind" && line["request_id"].is_string());
    assert!(bind.is_some(), "{as_json}");
    for field in ["fleet=", "rotation=", "instance=", "step=", "action=", "request_id="] {
        assert!(as_text.lines().any(|line| line.contains("rekeyd::journal") && line.contains(field)), "{field}");
    }
    assert!(!as_text.contains('\u{1b}'), "colours in a file");

    let mut told: Vec<(String, Vec<u8>)> = vec![
        ("the log as JSON".into(), as_json.into_bytes()),
        ("the log as text".into(), as_text.into_bytes()),
        ("standard output".into(), house.words("out").into_bytes()),
        ("the metrics".into(), metrics.into_bytes()),
        ("rotate".into(), said.into_bytes()),
    ];
    let id = journals[0]["journal"].as_str().unwrap();
    for verb in
        [&["status"][..], &["status", "--json"], &["history", LH], &["show", id], &["show", id, "--json"], &["check"]]
    {
        told.push((verb.join(" "), house.run(verb).out.into_bytes()));
    }
    for file in std::fs::read_dir(house.path("lib")).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            told.push((format!("{:?}", file.file_name()), std::fs::read(file.path()).unwrap()));
        }
    }
    assert!(told.iter().any(|(what, bytes)| what.contains("rekeyd.db") && bytes.starts_with(b"SQLite format 3")));
    for (what, needle) in secrets(&house) {
        for (place, bytes) in &told {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{place} holds {what}");
        }
    }
}
