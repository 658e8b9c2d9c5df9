//! What `plan` finds out beforehand, and that no rotation begins where that is a refusal: the real program over simulated
//! clouds on real sockets.

use serde_json::{Value, json};

use super::stage::{Clouds, Said, Stage};

const QUICK: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "100ms"];

fn plan(stage: &Stage) -> Value {
    let said = stage.run(&["plan", "web", "--json"]);
    assert_eq!(said.code, 2, "{}: {said:?}", stage.provider);
    serde_json::from_str(&said.out).unwrap()
}

/// The findings of a rule: level and text.
fn of_rule(plan: &Value, rule: &str) -> Vec<(String, String)> {
    let findings = plan["findings"].as_array().unwrap().iter().filter(|one| one["rule"] == rule);
    let text =
        |one: &Value| format!("{} / {}", one["says"].as_str().unwrap(), one["way_on"].as_str().unwrap_or_default());
    findings.map(|one| (one["level"].as_str().unwrap().to_string(), text(one))).collect()
}

#[track_caller]
fn check(plan: &Value, rule: &str, expect: &[(&str, &str)]) {
    let found = of_rule(plan, rule);
    let well = found.len() == expect.len()
        && found.iter().zip(expect).all(|((level, text), (want, words))| level == want && text.contains(words));
    assert!(well, "{rule}: {found:#?} is not {expect:?}");
}

fn ids(of: &Value) -> Vec<&str> {
    of.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

fn excluded(plan: &Value, id: &str) -> Option<String> {
    let all = plan["excluded"].as_array().unwrap();
    all.iter().find(|one| one["id"] == id).map(|one| one["reason"].as_str().unwrap().to_string())
}

/// The first running machine in a batch after the canary.
fn somebody(plan: &Value) -> String {
    let batches = plan["batches"].as_array().unwrap();
    let mut all = batches[1..].iter().flat_map(|batch| batch["instances"].as_array().unwrap());
    all.find(|one| one["power"] == "running").unwrap()["id"].as_str().unwrap().to_string()
}

fn refused(stage: &Stage, rule: &str, words: &str) {
    let found = plan(stage);
    assert_eq!(found["refused"], true, "{found:#}");
    assert_eq!(found["findings"][0]["level"], "refusal", "the gravest comes first: {found:#}");
    assert!(of_rule(&found, rule).iter().any(|(level, text)| level == "refusal" && text.contains(words)), "{found:#}");
    let shown = stage.run(&["plan", "web"]);
    assert!(shown.out.contains("  refusal  ") && shown.out.contains("`rekeyd rotate web` is refused"), "{shown:?}");
    let Said { code, err, .. } = stage.run(&["rotate", "web"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("refused before it began") && err.contains(words), "{err}");
    assert_eq!(stage.read(&["history", "web"])["journals"], json!([]), "a journal was begun");
}

#[test]
fn a_plan_tells_on_every_cloud_what_was_found_out_and_what_could_not_be_tried() {
    // From ten machines on one is there that only a password opens.
    let clouds = Clouds::open(&["--instances", "12", "--latency", "5ms"]);
    for provider in clouds.providers() {
        let stage = Stage::of(&clouds, &provider, "");
        let before = stage.picture(&clouds);
        let found = plan(&stage);
        assert_eq!(found["refused"], false, "{found:#}");
        check(&found, "clock", &[("ok", "0 s")]);
        let places = match provider.as_str() {
            "tencent-lighthouse" => "2 of 10 places in the account and region are taken (by the account's quota)",
            "tencent-cvm" => "2 in the account and region; its cloud documents no quota",
            _ => "2 of 500 places in the account and region are taken (by the cloud's pages)",
        };
        check(&found, "key_pairs", &[("ok", places)]);
        let tried = match provider.as_str() {
            "alibaba-ecs" => {
                "RebootInstances, StartInstances would be taken (dry run); cannot be tried without being done: \
                              ImportKeyPair, DeleteKeyPairs, AttachKeyPair"
            }
            "tencent-lighthouse" => {
                "cannot be tried without being done: ImportKeyPair, DeleteKeyPairs, \
                                     AssociateInstancesKeyPairs, StartInstances"
            }
            _ => "cannot be tried without being done: Import",
        };
        check(&found, "permissions", &[("ok", tried)]);
        let losing = found["loses_password"].as_array().unwrap().len();
        assert!(losing > 0, "the fleet has machines that only a password opens");
        check(&found, "passwords", &[("warning", &format!("{losing} without a key pair now"))]);
        check(&found, "hazards", &[]);
        check(&found, "denials", &[]);
        check(&found, "canary", &[]);
        let shown = stage.run(&["plan", "web"]);
        assert!(shown.out.contains("preflight:\n") && shown.out.contains("  ok       clock: "), "{shown:?}");
        assert_eq!((stage.picture(&clouds), clouds.violations()), (before, json!([])), "{provider}");
    }
}

#[test]
fn who_could_be_hurt_by_a_stop_is_left_out_until_it_is_allowed() {
    let clouds = Clouds::open(&QUICK);
    for provider in ["tencent-cvm", "alibaba-ecs", "baidu-bcc"] {
        let stage = Stage::of(&clouds, provider, "");
        let id = somebody(&plan(&stage));
        clouds.meddle(&format!("spot={id}&local-disk={id}"));
        let found = plan(&stage);
        if provider == "alibaba-ecs" {
            // A reboot hurts neither.
            assert_eq!(excluded(&found, &id), None);
            check(&found, "hazards", &[]);
            continue;
        }
        let why = excluded(&found, &id).unwrap();
        assert!(why.contains("spot: ") && why.contains("local_disk: "), "{why}");
        check(&found, "hazards", &[("warning", "1 (spot, local_disk) / power: { allow: [spot, local_disk] }")]);
        let file = stage.path("rekeyd.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        for (allow, still) in [("[spot]", Some("local_disk: ")), ("[spot, local_disk]", None)] {
            std::fs::write(&file, text.replace("    verify", &format!("    power: {{ allow: {allow} }}\n    verify")))
                .unwrap();
            let found = plan(&stage);
            let why = excluded(&found, &id);
            assert_eq!(why.is_some(), still.is_some(), "{allow}: {why:?}");
            assert!(still.is_none_or(|still| why.unwrap().starts_with(still)));
        }
        check(&plan(&stage), "hazards", &[("warning", "as power: allow says: 1")]);
    }
}

#[test]
fn who_is_stopped_without_charging_is_told_and_on_cvm_left_out() {
    let clouds = Clouds::open(&QUICK);
    for provider in ["alibaba-ecs", "baidu-bcc"] {
        let stage = Stage::of(&clouds, provider, "");
        let id = somebody(&plan(&stage));
        clouds.meddle(&format!("unbilled={id}"));
        let found = plan(&stage);
        assert_eq!(excluded(&found, &id), None, "it is bound at rest");
        check(&found, "hazards", &[("warning", "stopped without charging: 1")]);
    }
}

#[test]
fn whom_lighthouse_says_that_it_would_refuse_is_left_out_with_its_word() {
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let first = plan(&stage);
    let id = somebody(&first);
    clouds.meddle(&format!("refuses={id}:StartInstances:UnsupportedOperation.InstanceExpired"));
    let found = plan(&stage);
    let why = excluded(&found, &id).unwrap();
    assert!(why.starts_with("the cloud would refuse StartInstances: ") && why.contains("InstanceExpired"), "{why}");
    check(&found, "denials", &[("warning", "would refuse a call: 1")]);
    // What only asks may be denied to the account: it is told, and nobody is refused for it.
    clouds.meddle("denies=tencent-lighthouse:DescribeInstancesDeniedActions&denies=tencent-lighthouse:DescribeGeneralResourceQuotas");
    let found = plan(&stage);
    assert_eq!((excluded(&found, &id), &found["refused"]), (None, &json!(false)));
    check(&found, "denials", &[("warning", "allow lighthouse:DescribeInstancesDeniedActions")]);
    check(&found, "key_pairs", &[("ok", "2 of 10 places in the account and region are taken (by the cloud's pages)")]);
    let batched: usize = found["batches"].as_array().unwrap().iter().map(|batch| ids(&batch["instances"]).len()).sum();
    assert!(batched > 0);
}

#[test]
fn no_rotation_begins_where_lighthouse_has_no_place_for_its_key_pair() {
    let clouds = Clouds::open(&QUICK);
    clouds.meddle("key-pairs-max=tencent-lighthouse:2");
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    refused(&stage, "key_pairs", "2 of 2 places");
    clouds.meddle("key-pairs-max=tencent-lighthouse:3");
    let found = plan(&stage);
    assert_eq!(found["refused"], false);
    check(&found, "key_pairs", &[("warning", "take up to 4 with 2 of others")]);
}

#[test]
fn no_rotation_begins_where_an_action_is_denied_and_what_to_allow_is_named() {
    let clouds = Clouds::open(&QUICK);
    clouds.meddle(
        "denies=alibaba-ecs:RebootInstances&denies=tencent-cvm:DescribeKeyPairs&denies=baidu-bcc:ListInstances",
    );
    refused(&Stage::of(&clouds, "alibaba-ecs", ""), "permissions", "allow ecs:RebootInstances in the access key's RAM");
    refused(
        &Stage::of(&clouds, "tencent-cvm", ""),
        "permissions",
        "allow cvm:DescribeKeyPairs in the access key's CAM",
    );
    for verb in ["plan", "rotate"] {
        let Said { code, err, .. } = Stage::of(&clouds, "baidu-bcc", "").run(&[verb, "web"]);
        assert!(code == 1 && err.contains("permission READ (for List"), "{verb}: {code} {err}");
    }
}

#[test]
fn no_rotation_begins_while_our_clock_and_the_clouds_differ_by_more_than_a_minute() {
    let clouds = Clouds::open(&["--instances", "5", "--faults", "skew=90s"]);
    for provider in clouds.providers() {
        refused(&Stage::of(&clouds, &provider, ""), "clock", "behind the cloud's: nothing is disturbed beyond 60 s");
    }
}

#[test]
fn a_canary_of_whom_nobody_answers_proves_nothing_and_that_is_said() {
    let clouds = Clouds::open(&QUICK);
    // Nobody listens there: the simulator was told of no sshd.
    let stage = Stage::of(&clouds, "baidu-bcc", "");
    let file = stage.path("rekeyd.yaml");
    let ssh = "verify: { ssh: { user: root, address: private, connect_timeout: 1s } }";
    let text = std::fs::read_to_string(&file).unwrap().replace("verify: none", ssh);
    std::fs::write(&file, text).unwrap();
    let found = plan(&stage);
    check(&found, "canary", &[("warning", "none of 4 running machines that were asked answers at sshd")]);
    let shown = stage.run(&["plan", "web"]);
    assert!(shown.out.contains("verify: ssh: a login as root") && !shown.out.contains("verify: none"), "{shown:?}");
}

#[test]
fn a_jump_hosts_key_that_cannot_be_used_is_refused_by_check_plan_and_rotate() {
    use std::os::unix::fs::PermissionsExt;
    let clouds = Clouds::open(&QUICK);
    let stage = Stage::of(&clouds, "tencent-lighthouse", "");
    let key = rekeyd::ssh::generate(2048, "jump").unwrap();
    let file = stage.path("jump-key");
    let ssh = format!(
        "verify: {{ ssh: {{ user: root, address: private, connect_timeout: 1s, jump: {{ host: 127.0.0.1, port: 1, user: jump, \
         key_file: {}, host_key: \"{}\" }} }} }}",
        file.display(),
        rekeyd::ssh::generate(2048, "host").unwrap().public().to_openssh()
    );
    stage.edit(|config| config.replace("verify: none", &ssh));
    let named = file.display().to_string();
    let refused_for = |words: &str| {
        let said = stage.run(&["check"]);
        assert_eq!(said.code, 1, "{said:?}");
        for words in ["fleets.web.verify.ssh.jump.key_file: ", &named, words] {
            assert!(said.err.contains(words), "{said:?} lacks {words}");
        }
        refused(&stage, "jump_key", words);
    };
    refused_for("put the private key there that the jump host takes");
    let put = |text: &str, mode: u32| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put(key.expose(), 0o644);
    refused_for("chmod 600 ");
    put("no key", 0o600);
    refused_for("without a passphrase");
    put(key.expose(), 0o600);
    let said = stage.run(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    let found = plan(&stage);
    check(&found, "jump_key", &[]);
    assert_eq!(found["refused"], false);
    check(&found, "canary", &[("warning", "none of 4 running machines that were asked answers at sshd")]);
}
