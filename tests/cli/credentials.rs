//! Where credentials come from, and `check --online`: the real program over simulated clouds on real sockets, and a
//! metadata service on loopback that answers as the vendors' SDKs expect.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::stage::{Clouds, Said, Stage, said};

const QUICK: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "500ms"];
const SESSION: &str = "c2Vzc2lvbg==";

/// A metadata service of a cloud.
struct Metadata {
    address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    provider: String,
    /// Id, secret and token.
    keys: [String; 3],
    /// How long what it gives is valid, in seconds.
    life: u64,
    /// Whether a question without a session is refused.
    hardened: bool,
    /// How often credentials were given.
    given: usize,
}

impl Metadata {
    fn open(clouds: &Clouds, provider: &str, token: &str, life: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let [id, secret] = keys(clouds, provider);
        let keys = [id, secret, token.to_string()];
        let state = State { provider: provider.to_string(), keys, life, hardened: false, given: 0 };
        let state = Arc::new(Mutex::new(state));
        let of = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&mut stream.unwrap(), &of);
            }
        });
        Self { address, state }
    }

    fn given(&self) -> usize {
        self.state.lock().unwrap().given
    }
}

fn answer(stream: &mut TcpStream, state: &Mutex<State>) {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    while !text.contains("\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    let (status, body) = state.lock().unwrap().answer(&text.to_ascii_lowercase(), &text);
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}

impl State {
    fn answer(&mut self, head: &str, text: &str) -> (u16, String) {
        let line = text.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
        let is_alibaba = self.provider == "alibaba-ecs";
        // Nothing of ours goes over plain http.
        assert!(!head.contains("authorization") && !head.contains("secret") && !head.contains("x-tc-"), "{text}");
        if is_alibaba && line == "PUT /latest/api/token" {
            let told = head.contains("x-aliyun-ecs-metadata-token-ttl-seconds: 21600");
            return if told { (200, SESSION.to_string()) } else { (400, String::new()) };
        }
        let session = format!("x-aliyun-ecs-metadata-token: {}", SESSION.to_ascii_lowercase());
        if self.hardened && !head.contains(&session) {
            return (403, String::new());
        }
        let folder = if is_alibaba { "ram" } else { "cam" };
        let path = format!("GET /latest/meta-data/{folder}/security-credentials/");
        let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + self.life;
        let [id, secret, token] = &self.keys;
        match line.strip_prefix(&path) {
            Some("") => (200, "rekeyd-role\n".to_string()),
            Some("rekeyd-role") => {
                self.given += 1;
                let time = jiff::Timestamp::from_second(expires as i64).unwrap().to_string();
                let body = match is_alibaba {
                    true => json!({
                        "AccessKeyId": id, "AccessKeySecret": secret, "SecurityToken": token, "Expiration": time,
                        "LastUpdated": "2026-11-22T00:00:00Z", "Code": "Success",
                    }),
                    false => json!({
                        "TmpSecretId": id, "TmpSecretKey": secret, "Token": token, "ExpiredTime": expires,
                        "Expiration": time, "Code": "Success",
                    }),
                };
                (200, body.to_string())
            }
            _ => (404, "<html>".to_string()),
        }
    }
}

fn keys(clouds: &Clouds, provider: &str) -> [String; 2] {
    let all = clouds.ready["clouds"].as_array().unwrap();
    let cloud = all.iter().find(|one| one["provider"] == provider).unwrap();
    ["access_key_id", "access_key_secret"].map(|name| cloud[name].as_str().unwrap().to_string())
}

/// A stage whose account has these credentials; nothing for none.
fn stage(clouds: &Clouds, provider: &str, credentials: &str) -> Stage {
    let stage = Stage::of(clouds, provider, "");
    let written =
        "    credentials:\n      access_key_id: { env: THE_ID }\n      access_key_secret: { env: THE_SECRET }\n";
    stage.edit(|text| {
        assert!(text.contains(written));
        text.replace(written, credentials)
    });
    stage
}

fn online(stage: &Stage, code: i32) -> Value {
    let said = stage.run(&["check", "--online", "--json"]);
    assert_eq!(said.code, code, "{}: {said:?}", stage.provider);
    serde_json::from_str(&said.out).unwrap()
}

/// The findings of a rule about the first account: level and text.
fn of_rule(answer: &Value, rule: &str) -> Vec<(String, String)> {
    let findings = answer["online"][0]["findings"].as_array().unwrap().iter().filter(|one| one["rule"] == rule);
    let text =
        |one: &Value| format!("{} / {}", one["says"].as_str().unwrap(), one["way_on"].as_str().unwrap_or_default());
    findings.map(|one| (one["level"].as_str().unwrap().to_string(), text(one))).collect()
}

#[track_caller]
fn finds(answer: &Value, rule: &str, level: &str, words: &str) {
    let found = of_rule(answer, rule);
    assert!(found.iter().any(|(is, text)| is == level && text.contains(words)), "{rule}: {answer:#}");
    assert_eq!(answer["online"][0]["ok"], answer["ok"], "{answer:#}");
}

#[test]
fn a_machines_role_rotates_its_fleet_and_is_asked_again_before_its_credentials_expire() {
    let clouds = Clouds::open(&QUICK);
    std::thread::scope(|scope| {
        for provider in ["tencent-lighthouse", "tencent-cvm", "alibaba-ecs"] {
            let clouds = &clouds;
            scope.spawn(move || {
                clouds.meddle(&format!("session-token={provider}:of-the-role"));
                // Nothing is signed with what is valid for less than ten seconds: these are good for two.
                let service = Metadata::open(clouds, provider, "of-the-role", 13);
                service.state.lock().unwrap().hardened = provider == "alibaba-ecs";
                let role = format!("    credentials: {{ role: auto, metadata_endpoint: '{}' }}\n", service.address);
                let stage = stage(clouds, provider, &role);
                let said = stage.run(&["check"]);
                assert_eq!((said.code, service.given()), (0, 0), "check sends nothing: {said:?}");
                finds(&online(&stage, 0), "credentials", "ok", "the cloud takes them");
                let (planned, before) = (stage.planned(), stage.picture(clouds));
                let given = service.given();
                let Said { code, out, err } = stage.run(&["rotate", "web"]);
                assert_eq!(code, 0, "{provider}: {out} {err}");
                stage.assert_rotated(clouds, &planned, &before);
                let asked = service.given() - given;
                assert!((2..30).contains(&asked), "{provider}: {asked} times");
                for text in [out, err, stage.run(&["show", "web"]).out] {
                    assert!(!text.contains("of-the-role") && !text.contains(&keys(clouds, provider)[1]), "{text}");
                }
                // Another role than the machine has.
                stage.edit(|text| text.replace("role: auto", "role: another"));
                finds(&online(&stage, 1), "credentials", "refusal", "does not have the role another");
            });
        }
    });
}

#[test]
fn a_session_token_that_an_agent_rewrites_is_taken_up_by_who_runs() {
    let clouds = Clouds::open(&["--instances", "8", "--latency", "5ms", "--operation-time", "1s"]);
    std::thread::scope(|scope| {
        for provider in clouds.providers() {
            let clouds = &clouds;
            scope.spawn(move || {
                clouds.meddle(&format!("session-token={provider}:the-first"));
                let room = tempfile::tempdir().unwrap();
                let file = room.path().join("token");
                std::fs::write(&file, "the-first\n").unwrap();
                let credentials = format!(
                    "    credentials: {{ access_key_id: {{ env: THE_ID }}, access_key_secret: {{ env: THE_SECRET }}, \
                     session_token: {{ file: {} }} }}\n",
                    file.display()
                );
                let stage = stage(clouds, &provider, &credentials);
                let (planned, before) = (stage.planned(), stage.picture(clouds));
                let mut rotate = stage.start(&["rotate", "web"]);
                assert_eq!(rotate.code_within(Duration::from_millis(1500)), None, "{}", stage.log());
                // It stands still for as long as the agent needs; what it sent before is answered meanwhile.
                rotate.signal("STOP");
                std::thread::sleep(Duration::from_millis(300));
                clouds.meddle(&format!("session-token={provider}:the-second"));
                std::fs::remove_file(&file).unwrap();
                std::fs::write(&file, "the-second\n").unwrap();
                rotate.signal("CONT");
                assert_eq!(rotate.code_within(Duration::from_secs(60)), Some(0), "{provider}: {}", stage.log());
                assert!(!stage.log().contains("the-second"), "{}", stage.log());
                stage.assert_rotated(clouds, &planned, &before);
            });
        }
    });
}

#[test]
fn an_account_that_says_nothing_takes_the_vendors_own_variables() {
    let clouds = Clouds::open(&QUICK);
    for (provider, id, secret, token) in [
        ("tencent-cvm", "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"),
        (
            "alibaba-ecs",
            "ALIBABA_CLOUD_ACCESS_KEY_ID",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "ALIBABA_CLOUD_SECURITY_TOKEN",
        ),
        ("baidu-bcc", "BCE_ACCESS_KEY_ID", "BCE_SECRET_ACCESS_KEY", "BCE_SESSION_TOKEN"),
    ] {
        let stage = stage(&clouds, provider, "");
        let Said { code, err, .. } = stage.run(&["check"]);
        assert!(code == 1 && err.contains(&format!("${id} is not set")), "{err}");
        let [own_id, own_secret] = keys(&clouds, provider);
        let mut command = stage.command(&["check", "--online"]);
        command.env(id, &own_id).env(secret, &own_secret);
        let found = said(command.output().unwrap());
        assert_eq!(found.code, 0, "{provider}: {found:?}");
        // A token is sent where one is set; this cloud knows none.
        let found = said(command.env(token, "x").output().unwrap());
        assert!(found.code == 1 && found.out.contains("  refusal  ") && found.out.contains(" token "), "{found:?}");
    }
}

#[test]
fn check_online_tells_of_every_account_what_a_plan_would_find_and_changes_nothing() {
    let clouds = Clouds::open(&QUICK);
    for provider in clouds.providers() {
        let stage = Stage::of(&clouds, &provider, "");
        let before = stage.picture(&clouds);
        let answer = online(&stage, 0);
        assert_eq!(
            (&answer["online"][0]["account"], &answer["online"][0]["provider"]),
            (&json!("main"), &json!(provider))
        );
        finds(&answer, "clock", "ok", "our clock is ");
        finds(&answer, "key_pairs", "ok", "2 ");
        finds(&answer, "permissions", "ok", "looks are allowed");
        finds(&answer, "tags", "ok", "fleet web: ");
        for rule in ["canary", "passwords", "hazards"] {
            assert_eq!(of_rule(&answer, rule), [], "that is the plan's");
        }
        let Said { code, out, err } = stage.run(&["check", "--online"]);
        assert!(code == 0 && out.contains(&format!("account main, {provider} ")), "{out} {err}");
        assert!(out.contains("  ok       credentials: the cloud takes them\n"), "{out}");
        assert_eq!((stage.picture(&clouds), clouds.violations()), (before, json!([])), "{provider}");
        assert_eq!(std::fs::read_dir(stage.path("lib")).unwrap().count(), 0, "it made something");
        // Nobody bears these tags; and another fleet there is looked at too.
        stage.edit(|text| {
            let other = "  other:\n    account: main\n    region: REGION\n    tags: { no: body }\n    verify: none\n";
            let region = text.lines().find_map(|line| line.strip_prefix("    region: ")).unwrap().to_string();
            format!("{text}{}", other.replace("REGION", &region))
        });
        let answer = online(&stage, 1);
        finds(&answer, "tags", "ok", "fleet web: ");
        finds(&answer, "tags", "refusal", "fleet other: no instance matches its selection / see that account");
    }
}

#[test]
fn check_online_refuses_a_wrong_secret_a_denied_action_and_a_clock_that_is_off() {
    let clouds = Clouds::open(&QUICK);
    for provider in clouds.providers() {
        let stage = Stage::of(&clouds, &provider, "");
        let mut command = stage.command(&["check", "--online", "--json"]);
        let found = said(command.env("THE_SECRET", "wrong").output().unwrap());
        assert_eq!(found.code, 1, "{provider}: {found:?}");
        let answer: Value = serde_json::from_str(&found.out).unwrap();
        finds(&answer, "credentials", "refusal", "id, secret and token belong together");
        assert_eq!(of_rule(&answer, "permissions"), [], "a wrong secret says nothing of them");
    }
    clouds.meddle(
        "denies=tencent-cvm:DescribeKeyPairs&denies=baidu-bcc:ListInstances&denies=alibaba-ecs:RebootInstances",
    );
    for (provider, words) in [
        ("tencent-cvm", "allow cvm:DescribeKeyPairs in the access key's CAM policy"),
        ("baidu-bcc", "permission READ (for ListInstances)"),
        ("alibaba-ecs", "allow ecs:RebootInstances in the access key's RAM policy"),
    ] {
        let stage = Stage::of(&clouds, provider, "");
        finds(&online(&stage, 1), "permissions", "refusal", words);
        let Said { code, out, err } = stage.run(&["check", "--online"]);
        assert!(
            code == 1 && out.contains("  refusal  permissions: ") && err.contains("1 account will not do"),
            "{out} {err}"
        );
    }
    // Ninety seconds are borne by the signatures; twenty minutes by none that looks at the time.
    for skew in ["90s", "20m", "-20m"] {
        let clouds = Clouds::open(&["--instances", "5", "--faults", &format!("skew={skew}")]);
        for provider in clouds.providers() {
            finds(&online(&Stage::of(&clouds, &provider, ""), 1), "clock", "refusal", "set this machine's clock");
        }
    }
}

#[test]
fn check_online_says_that_no_place_is_left_for_a_key_pair_how_many_there_are_and_how_many_a_fleet_takes() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let before = stage.picture(&clouds);
    let places = |max: u32, code: i32, level: &str, words: &str| {
        clouds.meddle(&format!("key-pairs-max=tencent-lighthouse:{max}"));
        let answer = online(&stage, code);
        let taken = format!("2 of {max} places in the account and region are taken (by the account's quota)");
        finds(&answer, "key_pairs", level, &format!("{taken}{words}"));
        assert_eq!(of_rule(&answer, "key_pairs").len(), 1, "{answer:#}");
        let said = stage.run(&["check", "--online"]);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.out.contains(&format!("  {level:<9}key_pairs: {taken}")), "{said:?}");
        assert_eq!(said.err.contains("1 account will not do"), code == 1, "{said:?}");
    };
    let way_on = "delete one that nobody hangs on, or have the quota raised";
    places(2, 1, "refusal", &format!(", and a rotation imports one / {way_on}"));
    places(1, 1, "refusal", ", and a rotation imports one");
    places(3, 0, "warning", "; the 1 fleets of the config file there take up to 4 with 2 of others");
    places(4, 0, "ok", "");
    assert_eq!((stage.picture(&clouds), clouds.violations()), (before, json!([])));
}

/// The words of a JSON list, sorted.
fn words(list: &Value) -> Vec<String> {
    sorted(list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_string()))
}

fn sorted(words: impl Iterator<Item = String>) -> Vec<String> {
    words.collect::<std::collections::BTreeSet<String>>().into_iter().collect()
}

/// What an access key is to be allowed at this cloud, in the words of its policies. Baidu's name permissions, each of which
/// allows calls.
fn to_be_allowed(kind: rekeyd::model::ProviderKind) -> Vec<String> {
    sorted(rekeyd::provider::needs(kind).map(|action| match kind.as_str() {
        "tencent-lighthouse" => format!("lighthouse:{action}"),
        "tencent-cvm" => format!("cvm:{action}"),
        "alibaba-ecs" => format!("ecs:{action}"),
        _ => {
            let grant = rekeyd::provider::grant(kind, action);
            grant.split("permission ").nth(1).unwrap().split(' ').next().unwrap().to_string()
        }
    }))
}

#[test]
fn each_clouds_policy_and_the_readme_allow_exactly_what_is_called() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policies");
    let readme = include_str!("../../README.md").split("## Permissions").nth(1).unwrap().split("\n## ").next().unwrap();
    for kind in rekeyd::model::ProviderKind::ALL {
        let text = std::fs::read_to_string(folder.join(format!("{kind}.json"))).unwrap();
        let policy: Value = serde_json::from_str(&text).unwrap();
        let allowed = match kind.as_str() {
            "alibaba-ecs" => words(&policy["Statement"][0]["Action"]),
            "baidu-bcc" => words(&policy["accessControlList"][0]["permission"]),
            _ => words(&policy["statement"][0]["action"]),
        };
        let expect = to_be_allowed(kind);
        assert_eq!(allowed, expect, "{kind}");
        let statements =
            ["statement", "Statement", "accessControlList"].map(|name| policy[name].as_array().map(Vec::len));
        assert_eq!(statements.iter().flatten().sum::<usize>(), 1, "{kind}: one statement, read above");
        let row = readme.lines().find(|line| line.contains(&format!("| `{kind}` |"))).unwrap();
        let told = row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2).map(str::to_string);
        assert_eq!(sorted(told), expect, "{kind} in the README");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), rekeyd::model::ProviderKind::ALL.len());
}

#[test]
fn nothing_that_is_done_asks_for_an_action_that_no_policy_allows() {
    let clouds = Clouds::open(&QUICK);
    std::thread::scope(|scope| {
        for kind in rekeyd::model::ProviderKind::ALL {
            let clouds = &clouds;
            scope.spawn(move || {
                let needs: Vec<&str> = rekeyd::provider::needs(kind).collect();
                let others: Vec<&str> =
                    rekeyd::provider::actions(kind).iter().copied().filter(|action| !needs.contains(action)).collect();
                assert!(!others.is_empty(), "{kind}: one takes keys off");
                others.iter().for_each(|action| clouds.meddle(&format!("denies={kind}:{action}")));
                let stage = Stage::of(clouds, kind.as_str(), "");
                let well = |arguments: &[&str], codes: &[i32]| {
                    let said = stage.run(arguments);
                    assert!(codes.contains(&said.code), "{kind} {arguments:?}: {said:?}");
                    said
                };
                well(&["check", "--online"], &[0]);
                let (planned, before) = (stage.planned(), stage.picture(clouds));
                well(&["rotate", "web"], &[0]);
                stage.assert_rotated(clouds, &planned, &before);
                let status = stage.read(&["status", "web"]);
                well(&["rollback", status["fleets"][0]["last"]["rotation"].as_str().unwrap()], &[0, 3]);
                well(&["catch-up", "web"], &[0]);
                well(&["drift"], &[0, 2]);
                let state = clouds.state(kind.as_str());
                let calls = state["calls"].as_object().unwrap();
                let called: Vec<&&str> = others.iter().filter(|action| calls.contains_key(**action)).collect();
                assert_eq!(called, Vec::<&&str>::new(), "{kind}: {calls:?}");
                // Its names are ours: what must be called was. BCC's machines reboot by themselves.
                for action in rekeyd::provider::changes(kind).filter(|action| !action.starts_with("Batch")) {
                    assert!(calls.contains_key(action), "{kind} {action}: {calls:?}");
                }
            });
        }
    });
}

#[test]
fn a_token_that_is_gone_when_the_cloud_denies_the_last_one_is_waited_for_and_holds_nobody() {
    let clouds = Clouds::open(&["--instances", "8", "--latency", "5ms", "--operation-time", "1s"]);
    std::thread::scope(|scope| {
        // One says that it is the token, the other only that access is denied.
        for provider in ["tencent-cvm", "baidu-bcc"] {
            let clouds = &clouds;
            scope.spawn(move || {
                clouds.meddle(&format!("session-token={provider}:the-first"));
                let room = tempfile::tempdir().unwrap();
                let file = room.path().join("token");
                std::fs::write(&file, "the-first\n").unwrap();
                let credentials = format!(
                    "    credentials: {{ access_key_id: {{ env: THE_ID }}, access_key_secret: {{ env: THE_SECRET }}, \
                     session_token: {{ file: {} }} }}\n",
                    file.display()
                );
                let stage = stage(clouds, provider, &credentials);
                let (planned, before) = (stage.planned(), stage.picture(clouds));
                let mut rotate = stage.start(&["rotate", "web"]);
                assert_eq!(rotate.code_within(Duration::from_millis(1500)), None, "{}", stage.log());
                // The agent is dead, its file gone; the token runs out.
                std::fs::remove_file(&file).unwrap();
                clouds.meddle(&format!("session-token={provider}:the-second"));
                let began = std::time::Instant::now();
                let waits = |log: &str| {
                    log.contains("waiting for the account's credentials")
                        && log.contains(&format!("session_token: file {} cannot be read", file.display()))
                        && log.contains("those from before are denied by the cloud")
                };
                while !waits(&stage.log()) {
                    assert_eq!(rotate.code_within(Duration::from_millis(100)), None, "{provider}: {}", stage.log());
                    assert!(began.elapsed() < Duration::from_secs(40), "{provider}: {}", stage.log());
                }
                let open = &stage.read(&["status", "web"])["fleets"][0]["open"];
                assert!(open.is_object() && open["held"].is_null(), "{provider}: {open:#}");
                // The next one is there, and whoever waits finds it.
                std::fs::write(&file, "the-second\n").unwrap();
                assert_eq!(rotate.code_within(Duration::from_secs(120)), Some(0), "{provider}: {}", stage.log());
                let fleet = &stage.read(&["status", "web"])["fleets"][0];
                assert!(fleet["open"].is_null() && fleet["last"]["outcome"] == "completed", "{fleet:#}");
                for (id, (power, keys)) in stage.picture(clouds) {
                    let (power_before, keys_before) = &before[&id];
                    assert_eq!(
                        (&power, keys != *keys_before),
                        (power_before, planned.contains(&id)),
                        "{provider}: {id}"
                    );
                }
            });
        }
    });
    // Calls with the token that had run out, and nothing else; from then on nobody sent one.
    let violations = clouds.violations();
    let violations = violations.as_array().unwrap();
    assert!(violations.iter().all(|one| one["rule"] == "Signature"), "{violations:#?}");
    assert!((2..20).contains(&violations.len()), "{violations:#?}");
}

#[test]
fn a_metadata_service_that_hangs_is_given_up_within_seconds() {
    let clouds = Clouds::open(&QUICK);
    // It takes every connection, and says nothing.
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    for provider in ["tencent-cvm", "alibaba-ecs"] {
        let address = service.local_addr().unwrap();
        let role = format!("    credentials: {{ role: auto, metadata_endpoint: 'http://{address}' }}\n");
        let stage = stage(&clouds, provider, &role);
        let began = std::time::Instant::now();
        finds(&online(&stage, 1), "credentials", "refusal", "the metadata service: no answer");
        // Two seconds a question, and the machine may be busy.
        assert!(began.elapsed() < Duration::from_secs(15), "{provider}: {:?}", began.elapsed());
    }
}

/// The `systemd-run` line that a verb shows, and its properties.
fn systemd_run(stage: &Stage, verb: &[&str]) -> (Said, Vec<String>) {
    let said = stage.run(verb);
    assert_eq!(said.code, 1, "{verb:?}: {said:?}");
    let line = said.err.lines().map(str::trim).find(|line| line.starts_with("sudo systemd-run "));
    let words: Vec<&str> = line.unwrap_or_else(|| panic!("{verb:?}: {said:?}")).split(' ').collect();
    assert!(words.ends_with(verb), "{verb:?}: {said:?}");
    let properties = words.windows(2).filter(|pair| pair[0] == "-p").map(|pair| pair[1].to_string()).collect();
    (said, properties)
}

/// Shown by these verbs, with the cause and no other remedy.
#[track_caller]
fn all_show(stage: &Stage, verbs: &[&[&str]], names: &[&str]) {
    for verb in verbs {
        let (said, properties) = systemd_run(stage, verb);
        let expect: Vec<String> =
            names.iter().map(|name| format!("LoadCredential={name}:/etc/credstore/{name}")).collect();
        assert_eq!(properties, expect, "{verb:?}: {said:?}");
        assert!(said.err.contains("$CREDENTIALS_DIRECTORY is not set"), "{verb:?}: {said:?}");
        // `check` names each fault of the file besides.
        if verb != &["check"] {
            assert!(!said.err.contains("as the account") && !said.err.contains("{ env"), "{verb:?}: {said:?}");
        }
    }
}

/// A verb with what systemd would hand over.
fn with_credentials(stage: &Stage, room: &std::path::Path, verb: &[&str]) -> Said {
    said(stage.command(verb).env("CREDENTIALS_DIRECTORY", room).output().unwrap())
}

#[test]
fn what_opens_custody_is_missed_by_a_shell_too_and_the_command_that_gives_it_is_shown() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    stage
        .edit(|text| text.replace("/copy] }", "/copy], encrypt: { passphrase: { credential: custody-passphrase } } }"));
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("custody-passphrase"), "correct horse battery staple").unwrap();
    // Where nothing is kept yet nothing is opened.
    assert_eq!(stage.run(&["drift"]).code, 0);
    let names = ["custody-passphrase"];
    all_show(&stage, &[&["rotate", "web"], &["check"]], &names);
    let rotated = with_credentials(&stage, room.path(), &["rotate", "web"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let rotation = stage.read(&["status", "web"])["fleets"][0]["last"]["rotation"].as_str().unwrap().to_string();
    let verbs: [&[&str]; 8] = [
        &["drift"],
        &["drift", "web"],
        &["adopt", "--dry-run"],
        &["adopt"],
        &["rotate", "web"],
        &["rollback", &rotation],
        &["catch-up", "web"],
        &["check"],
    ];
    all_show(&stage, &verbs, &names);
    // A plan opens no custody; and with the passphrase all is well.
    assert_eq!(stage.run(&["plan", "web"]).code, 2);
    for verb in [&["drift"][..], &["check"], &["catch-up", "web"]] {
        let said = with_credentials(&stage, room.path(), verb);
        assert_eq!((said.code, said.err.contains("systemd-run")), (0, false), "{verb:?}: {said:?}");
    }
    // A Vault's token, or what it is had for.
    let custody = |text: &str, login: &str| {
        let line = text.lines().find(|line| line.starts_with("custody:")).unwrap();
        let vault = format!("address: 'https://127.0.0.1:1', mount: secret, path: rekeyd, {login}");
        text.replace(line, &format!("custody: {{ vault: {{ {vault} }} }}"))
    };
    let verbs = &verbs[..5];
    stage.edit(|text| custody(text, "token: { credential: vault-token }"));
    all_show(&stage, verbs, &["vault-token"]);
    stage.edit(|text| custody(text, "role_id: { env: THE_ID }, secret_id: { credential: vault-secret }"));
    all_show(&stage, verbs, &["vault-secret"]);
}

#[test]
fn the_jump_hosts_key_may_be_a_credential_and_a_rotation_finds_it_wherever_it_is_gone_on_with() {
    use std::os::unix::fs::PermissionsExt;
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let key = rekeyd::ssh::generate(2048, "jump").unwrap();
    let ssh = format!(
        "verify: {{ ssh: {{ user: root, address: private, connect_timeout: 1s, jump: {{ host: 127.0.0.1, port: 1, user: jump, \
         key_file: {{ credential: bastion-key }}, host_key: \"{}\" }} }} }}",
        rekeyd::ssh::generate(2048, "host").unwrap().public().to_openssh()
    );
    stage.edit(|config| config.replace("verify: none", &ssh));
    let verbs: [&[&str]; 5] =
        [&["plan", "web"], &["rotate", "web"], &["drift", "web"], &["adopt", "--dry-run"], &["check"]];
    all_show(&stage, &verbs, &["bastion-key"]);

    // As systemd makes it: the service is let in by an access list, which shows as the group's right.
    let room = tempfile::tempdir().unwrap();
    let put = |room: &std::path::Path, mode: u32| {
        let file = room.join("bastion-key");
        std::fs::write(&file, key.expose()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = |words: &str| {
        let said = with_credentials(&stage, room.path(), &["check"]);
        assert!(said.code == 1 && !said.err.contains("systemd-run"), "{said:?}");
        assert!(said.err.contains("fleets.web.verify.ssh.jump.key_file: ") && said.err.contains(words), "{said:?}");
        let said = with_credentials(&stage, room.path(), &["rotate", "web"]);
        assert!(said.code == 1 && said.err.contains(words), "{said:?}");
    };
    refused("the unit needs LoadCredential=bastion-key:/PATH");
    put(room.path(), 0o444);
    refused("mode 0444");
    std::fs::remove_file(room.path().join("bastion-key")).unwrap();
    put(room.path(), 0o440);
    let said = with_credentials(&stage, room.path(), &["check"]);
    assert_eq!(said.code, 0, "{said:?}");

    // A rotation that was begun with one directory is gone on with where there is another, as the daemon's is not that of
    // a command beside it.
    let log = std::fs::File::create(stage.path("log")).unwrap();
    let mut command = stage.command(&["rotate", "web"]);
    command.env("CREDENTIALS_DIRECTORY", room.path()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut rotate = super::stage::Running(command.spawn().unwrap());
    while !stage.log().contains("rotation begun") {
        assert_eq!(rotate.code_within(Duration::from_millis(20)), None, "{}", stage.log());
    }
    rotate.kill();
    drop(room);
    all_show(&stage, &[&["rotate", "web"]], &["bastion-key"]);
    let other = tempfile::tempdir().unwrap();
    put(other.path(), 0o400);
    let log = std::fs::File::create(stage.path("log")).unwrap();
    let mut command = stage.command(&["rotate", "web"]);
    command.env("CREDENTIALS_DIRECTORY", other.path()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut rotate = super::stage::Running(command.spawn().unwrap());
    let began = std::time::Instant::now();
    while !stage.log().contains("the cloud took the bind") {
        assert_eq!(rotate.code_within(Duration::from_millis(20)), None, "{}", stage.log());
        assert!(began.elapsed() < Duration::from_secs(60), "{}", stage.log());
    }
    assert!(
        stage.log().contains("going on with rotation ") && !stage.log().contains("jump host's key"),
        "{}",
        stage.log()
    );
    rotate.kill();
}
