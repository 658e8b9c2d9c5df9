//! `drift` and `adopt` with the real program: over real sockets, with OpenSSH servers as the machines' guests, exactly what was
//! seeded is found; and a fleet whose database was lost comes back.

#![allow(clippy::unwrap_used)]

#[path = "../stage/mod.rs"]
mod stage;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekeyd::clock::{Clock, SystemClock};
use rekeyd::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, Region, Timestamp};
use rekeyd::net::Network;
use rekeyd::provider::{Credentials, Provider, Settings, open};
use rekeyd::rotation::policy::later;
use rekeyd::ssh::{KeyMaker, RsaKeyMaker};
use serde_json::Value;

use stage::{Clouds, Stage, fetch};

const QUICK: [&str; 6] = ["--instances", "10", "--latency", "2ms", "--operation-time", "300ms"];
const GUESTS: [&str; 3] = ["--sshd", "--ssh-port", "0"];

/// Does mischief over the control port.
fn post(clouds: &Clouds, path: &str) {
    let address = clouds.ready["control"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{path}: {answer}");
}

/// Changes the stage's config file.
fn edit(stage: &Stage, change: impl Fn(String) -> String) {
    let path = stage.path("rekeyd.yaml");
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
}

/// Has logins prove the keys, whatever becomes of old ones.
fn by_login(clouds: &Clouds, stage: &Stage) {
    let ssh = &clouds.ready["clouds"][0]["ssh"];
    let (port, user) = (&ssh["port"], ssh["user"].as_str().unwrap());
    let verify = format!("verify: {{ ssh: {{ user: {user}, port: {port}, address: private, old_key: warn }} }}");
    edit(stage, |text| text.replace("verify: none", &verify));
}

fn provider(clouds: &Clouds, name: &str) -> Arc<dyn Provider> {
    let cloud = clouds.ready["clouds"].as_array().unwrap().iter().find(|one| one["provider"] == name).unwrap();
    let text = |name: &str| cloud[name].as_str().unwrap().to_string();
    let settings = Settings {
        provider: ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap(),
        endpoint: Some(text("endpoint")),
        region: Region::new(text("region")),
        credentials: Credentials {
            access_key_id: text("access_key_id"),
            access_key_secret: text("access_key_secret").into(),
            session_token: None,
        },
        rates: Default::default(),
    };
    open(&settings, Arc::new(Network::new().unwrap()), Arc::new(SystemClock), rand::random()).unwrap()
}

fn soon() -> Timestamp {
    later(SystemClock.now(), Duration::from_secs(30))
}

/// The plan's instances: those in batches, and of these the running ones.
fn planned(stage: &Stage) -> (BTreeSet<String>, Vec<String>) {
    let said = stage.run(&["plan", "web", "--json"]);
    assert_eq!(said.code, 2, "{said:?}");
    let plan: Value = serde_json::from_str(&said.out).unwrap();
    let batches = plan["batches"].as_array().unwrap();
    let all: Vec<Value> = batches.iter().flat_map(|batch| batch["instances"].as_array().unwrap().clone()).collect();
    let id = |one: &Value| one["id"].as_str().unwrap().to_string();
    let running = all.iter().filter(|one| one["power"] == "running").map(id).collect();
    (all.iter().map(id).collect(), running)
}

/// `KIND SUBJECT` of each deviation that `drift` prints, and its exit code.
fn drift(stage: &Stage) -> (i32, BTreeSet<String>) {
    let said = stage.run(&["drift", "--json"]);
    let found: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!(found["unseen"], serde_json::json!([]), "{said:?}");
    let one = |one: &Value| format!("{} {}", one["kind"].as_str().unwrap(), one["subject"].as_str().unwrap());
    (said.code, found["deviations"].as_array().unwrap().iter().map(one).collect())
}

#[test]
fn drift_finds_each_of_a_list_of_seeded_deviations_and_nothing_else() {
    let clouds = Clouds::open(&[&QUICK[..], &GUESTS[..]].concat());
    let stage = Stage::of(&clouds, "alibaba-ecs", "");
    by_login(&clouds, &stage);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    edit(&stage, |text| format!("listen: {free}\n{text}"));
    assert_eq!(drift(&stage), (0, BTreeSet::new()), "before anything was made");
    assert!(!stage.path("lib/rekeyd.db").exists() && !stage.path("lib/keys").exists(), "drift made something");
    let (of_fleet, running) = planned(&stage);
    let [keeper, other, bare, masked, ..] = &running[..] else { panic!("{running:?}") };

    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    assert_eq!(drift(&stage), (0, BTreeSet::new()), "after one rotation");
    let said = stage.run(&["drift"]);
    assert_eq!((said.code, said.out.as_str()), (0, "no drift in 1 fleet\n"));
    post(&clouds, &format!("/meddle?old-key-stays={keeper}"));
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let mut expect = BTreeSet::from([format!("retired_key_taken {keeper}")]);
    assert_eq!(drift(&stage), (2, expect.clone()));

    let status = stage.read(&["status", "web"]);
    let current = status["fleets"][0]["last"]["key_pair"].as_str().unwrap().to_string();
    let mark = current.split_once('_').unwrap().0;
    let cloud = provider(&clouds, "alibaba-ecs");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for name in ["theirs".to_string(), format!("{mark}_0000000000000000")] {
            let key = RsaKeyMaker.make(2048, "x").await.unwrap();
            cloud.import_key_pair(&KeyPairName::new(name), key.public(), soon()).await.unwrap();
        }
        let one = |id: &String| [InstanceId::new(id.clone())];
        cloud.bind(&KeyPairId::new("theirs"), &one(other), soon()).await.unwrap();
        cloud.unbind(&KeyPairId::new(current.clone()), &one(bare), soon()).await.unwrap();
    });
    expect.insert(format!("other_key {other}"));
    expect.insert(format!("no_key {bare}"));
    expect.insert(format!("unknown_pair {mark}_0000000000000000"));
    assert_eq!(drift(&stage), (2, expect.clone()));

    post(&clouds, &format!("/hostkey?instance={masked}"));
    expect.insert(format!("other_host_key {masked}"));
    // The private half is taken for another's: it is where nobody looks for it.
    let needless = format!("{mark}_zzzzzzzzzzzzzzzz");
    for place in ["lib/keys", "lib/copy"] {
        std::fs::rename(stage.path(place).join(&current), stage.path(place).join(&needless)).unwrap();
    }
    expect.insert(format!("needless_private_key {needless}"));
    expect.insert(format!("missing_private_key {current}"));
    assert_eq!(drift(&stage), (2, expect.clone()));

    // The fleet grows: whoever the tags left out.
    edit(&stage, |text| {
        let tags = text.lines().find(|line| line.trim_start().starts_with("tags:")).unwrap();
        text.replace(tags, "    all_instances: true")
    });
    let (all, _) = planned(&stage);
    let new: Vec<&String> = all.difference(&of_fleet).collect();
    assert!(!new.is_empty());
    expect.extend(new.into_iter().map(|id| format!("new_instance {id}")));
    assert_eq!(drift(&stage), (2, expect.clone()));

    let said = stage.run(&["drift", "web"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(!said.out.contains("unknown_pair") && !said.out.contains('\u{1b}'), "{said:?}");
    assert!(said.out.contains(&format!("  {other}  {current}")), "{said:?}");
    assert!(said.out.contains("way on: rekeyd rotate web"), "{said:?}");
    let said = stage.run(&["drift", "nowhere"]);
    assert!(said.code == 1 && said.err.contains("there is no fleet"), "{said:?}");

    // The daemon looks by itself, soon after its start, and tells.
    let _daemon = stage.start(&["run"]);
    let began = Instant::now();
    let page = loop {
        let page = fetch(&free.to_string(), "/metrics").map(|(_, page)| page).unwrap_or_default();
        let seen = |fleet: &str| {
            let name = format!("rekeyd_drift_last_survey_timestamp_seconds{{fleet=\"{fleet}\"}} ");
            page.lines().any(|line| line.strip_prefix(&name).is_some_and(|value| value != "0"))
        };
        if seen("web") && seen("") {
            break page;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{page}\n{}", stage.log());
        std::thread::sleep(Duration::from_millis(200));
    };
    for (fleet, kind) in [("web", "other_key"), ("web", "retired_key_taken"), ("web", "no_key"), ("", "unknown_pair")] {
        let line = format!("rekeyd_drift{{fleet=\"{fleet}\",kind=\"{kind}\"}} 1");
        assert!(page.lines().any(|one| one == line), "{line}: {page}");
    }
    assert!(stage.log().contains(&format!("kind=other_key subject=\"{other}\"")), "{}", stage.log());
    assert_eq!(drift(&stage), (2, expect), "beside the daemon");
}

#[test]
fn a_start_that_a_killed_rotation_owes_is_drift_until_somebody_pays_it() {
    let clouds = Clouds::open(&["--instances", "8", "--operation-time", "1500ms"]);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let mut rotate = stage.start(&["rotate", "web"]);
    let began = Instant::now();
    while !stage.log().contains("canary: the cloud took the bind") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", stage.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    rotate.kill();
    let began = Instant::now();
    let owed = loop {
        // On its way down it is no evidence yet.
        let (code, found) = drift(&stage);
        if code == 2 {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{}", stage.log());
    };
    assert!(owed.iter().all(|one| one.starts_with("owed_start ")), "{owed:?}");
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    assert_eq!(drift(&stage).0, 0);
}

#[test]
fn a_machine_with_another_host_key_is_drift_though_it_has_no_old_key_to_be_offered() {
    let clouds = Clouds::open(&[&QUICK[..], &GUESTS[..]].concat());
    let stage = Stage::of(&clouds, "baidu-bcc", "");
    by_login(&clouds, &stage);
    let (_, running) = planned(&stage);
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    assert_eq!(drift(&stage), (0, BTreeSet::new()));
    let masked = &running[1];
    post(&clouds, &format!("/hostkey?instance={masked}"));
    assert_eq!(drift(&stage), (2, BTreeSet::from([format!("other_host_key {masked}")])));
    assert_eq!(clouds.violations(), serde_json::json!([]));
}

/// Loses the database.
fn lose(stage: &Stage) {
    for file in std::fs::read_dir(stage.path("lib")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// A fleet is rotated, its database lost, adopted, and rotated again.
fn comes_back(clouds: &Clouds, stage: &Stage) {
    let name = &stage.provider;
    let (before, planned) = (stage.picture(clouds), stage.planned());
    assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{name}");
    let bound = stage.picture(clouds);
    lose(stage);
    // Of 127.0.0.0/8: outgoing connections come from 127.0.0.1, so this one's ports stay free.
    let listen = std::net::TcpListener::bind("127.88.0.1:0").unwrap().local_addr().unwrap();
    stage.edit(|config| format!("listen: {listen}\n{config}"));
    for refused in [&["rotate", "web"][..], &["run"][..], &["drift"][..], &["status"][..], &["status", "--json"][..]] {
        let said = stage.run(refused);
        let told = format!("{}{}", said.out, said.err);
        assert!(said.code == 1 && told.contains("`rekeyd adopt` does so"), "{name}: {refused:?}: {said:?}");
    }
    let dry = stage.run(&["adopt", "--dry-run"]);
    assert_eq!(dry.code, 2, "{name}: {dry:?}");
    assert!(dry.out.starts_with("1 key pair to adopt; nothing is bound or rebooted\n"), "{name}: {dry:?}");
    assert!(dry.out.contains("current"), "{name}: {dry:?}");

    // Killed at some moment, it goes on.
    let mut adopt = stage.start(&["adopt"]);
    if adopt.code_within(Duration::from_millis(rand::random_range(1..400))).is_none() {
        adopt.kill();
    }
    let said = stage.run(&["adopt"]);
    assert_eq!(said.code, 0, "{name}: {said:?}");
    assert_eq!(stage.picture(clouds), bound, "{name}: nobody was touched");
    let status = stage.read(&["status", "web"]);
    let last = &status["fleets"][0]["last"];
    assert_eq!(last["outcome"], "completed", "{name}: {status:#}");
    let (_, found) = drift(stage);
    assert!(found.is_empty(), "{name}: {found:?}");
    let again = stage.run(&["adopt"]);
    assert!(again.code == 0 && again.out.starts_with("0 key pairs to adopt"), "{name}: {again:?}");

    assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{name}");
    stage.assert_rotated(clouds, &planned, &before);
    let refused = stage.run(&["adopt"]);
    assert!(refused.code == 1 && refused.err.contains("lost database only"), "{name}: {refused:?}");
}

#[test]
fn a_lost_database_comes_back_on_every_cloud() {
    let clouds = Clouds::open(&QUICK);
    std::thread::scope(|scope| {
        for provider in clouds.providers() {
            let (stage, clouds) = (Stage::of(&clouds, &provider, ""), &clouds);
            scope.spawn(move || comes_back(clouds, &stage));
        }
    });
}

#[test]
fn a_lost_database_comes_back_with_logins_as_proof_and_says_who_is_left_out() {
    let clouds = Clouds::open(&[&QUICK[..], &GUESTS[..]].concat());
    let stage = Stage::of(&clouds, "tencent-cvm", "");
    by_login(&clouds, &stage);
    let empty = stage.run(&["adopt"]);
    assert!(empty.code == 1 && empty.err.contains("nothing to adopt"), "{empty:?}");
    lose(&stage);
    comes_back(&clouds, &stage);
    let story = stage.run(&["history", "web", "--json"]);
    assert!(story.out.contains("completed"), "{story:?}");

    // A half that nobody's pair belongs to is kept, and said.
    lose(&stage);
    let status: Vec<_> = std::fs::read_dir(stage.path("lib/keys")).unwrap().map(|one| one.unwrap().path()).collect();
    let key = status.iter().find(|path| path.file_name().unwrap() != "installation").unwrap();
    let stray = key.with_file_name("stray_key");
    for place in ["lib/keys", "lib/copy"] {
        let to = stage.path(place).join("stray_key");
        std::fs::copy(key, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let said = stage.run(&["adopt", "--dry-run"]);
    assert!(said.code == 2 && said.out.contains("kept: ") && said.out.contains("stray_key"), "{said:?}");
    assert!(stray.exists());
}
