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
