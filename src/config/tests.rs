//! Every rule of the config file, by one table each.

use std::ffi::OsString;

use secrecy::ExposeSecret;

use super::*;
use crate::custody::{ExecSettings, Keeper, Login, VaultSettings};
use crate::model::{Amount, Duration, Region};
use crate::provider::{Api, Hazard, Select};

/// A file with every key, line by line as the tests count them.
const FULL: &str = r#"store: sqlite:///var/lib/rekeyd/rekeyd.db
listen: 127.0.0.1:9797
installation: a7f3
custody:
  directory: /var/lib/rekeyd/keys
  copies: [/mnt/backup/rekeyd]
accounts:
  lh:
    provider: tencent-lighthouse
    endpoint: https://lighthouse.intl.tencentcloudapi.com
    credentials:
      access_key_id: { env: TENCENTCLOUD_SECRET_ID }
      access_key_secret: { credential: lighthouse-secret }
      session_token: { file: /run/token }
    rates: { AssociateInstancesKeyPairs: 5 }
defaults: { timezone: Asia/Shanghai, key: { bits: 3072 }, rollout: { soak: 5m } }
fleets:
  web:
    account: lh
    region: ap-singapore
    tags: { role: web, env: prod }
    schedule: "0 0 3 1 * *"
    schedule_slack: 2h
    schedule_jitter: 30m
    key: { bits: 2048 }
    rollout: { canary: 5%, batch_max: 20, unavailable_max: 3, failures_max: 0 }
    power: { force_stop: true }
    verify: none
    retire: { grace: 1d }
"#;

/// The least that is a file.
const LEAST: &str = "store: sqlite:///s/db
custody: { directory: /k }
accounts: { a: { provider: alibaba-ecs, credentials: { access_key_id: { env: I }, access_key_secret: { env: S } } } }
fleets:
  f: { account: a, region: cn-hangzhou, all_instances: true, verify: none }
";

fn cloud(provider: ProviderKind) -> Cloud {
    let batch_time = Duration::from_secs(240);
    match provider {
        ProviderKind::TencentLighthouse => {
            let actions = &["AssociateInstancesKeyPairs", "DescribeInstances"];
            Cloud { bind_max: 100, batch_time, key_pairs_max: Some(10), endangers: false, actions }
        }
        ProviderKind::AlibabaEcs => {
            Cloud { bind_max: 50, batch_time, key_pairs_max: Some(500), endangers: false, actions: &[] }
        }
        _ => Cloud { bind_max: 100, batch_time, key_pairs_max: None, endangers: true, actions: &[] },
    }
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    load(text, Path::new("rekeyd.yaml"), &cloud)
}

/// `FULL` with its first `from` replaced. The text must be there, or the test tests nothing.
fn edit(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from:?} is not in the example");
    FULL.replacen(from, to, 1)
}

/// The problems of a file: so many, in this order, each with this text in it.
#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let problems = match load_text(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_string).collect(),
    };
    assert_eq!(problems.len(), expect.len(), "{text}\n{}", problems.join("\n"));
    for (problem, expect) in problems.iter().zip(expect) {
        assert!(problem.contains(expect), "expected {expect:?} in\n{problem}");
    }
}

/// The notes of a file that is well, other than `verify: none`'s.
#[track_caller]
fn check_notes(text: &str, expect: &[&str]) {
    let config = load_text(text).unwrap_or_else(|error| panic!("{error}"));
    let notes: Vec<String> =
        config.notes.iter().filter(|note| !note.path.ends_with("verify")).map(Remark::to_string).collect();
    assert_eq!(notes.len(), expect.len(), "{}", notes.join("\n"));
    for (note, expect) in notes.iter().zip(expect) {
        assert!(note.contains(expect), "expected {expect:?} in\n{note}");
    }
}

#[test]
fn every_key_is_read() {
    let config = load_text(FULL).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.store, Path::new("/var/lib/rekeyd/rekeyd.db"));
    assert_eq!(config.listen, "127.0.0.1:9797".parse().unwrap());
    assert_eq!(config.installation.as_ref().map(Mark::as_str), Some("a7f3"));
    let Keeper::Directory { places, encrypts: false } = &config.custody.keeper else { panic!("{:?}", config.custody) };
    assert_eq!(places.directory, Path::new("/var/lib/rekeyd/keys"));
    assert_eq!(places.copies, [Path::new("/mnt/backup/rekeyd")]);
    let account = &config.accounts[&AccountName::from("lh")];
    assert_eq!(account.provider, ProviderKind::TencentLighthouse);
    assert_eq!(account.endpoint(&Region::from("x")).as_deref(), Some("https://lighthouse.intl.tencentcloudapi.com"));
    assert_eq!(account.rates, BTreeMap::from([("AssociateInstancesKeyPairs".to_string(), 5)]));
    let fleet = &config.fleets[&FleetName::from("web")];
    assert_eq!(fleet.account, AccountName::from("lh"));
    assert_eq!(fleet.region, Region::from("ap-singapore"));
    let tags = [("env", "prod"), ("role", "web")].map(|(key, value)| (key.to_string(), value.to_string()));
    assert_eq!(fleet.select, Select::Tags(BTreeMap::from(tags)));
    let schedule = fleet.schedule.as_ref().unwrap();
    assert_eq!(schedule.expression, "0 0 3 1 * *");
    assert_eq!(schedule.timezone.iana_name(), Some("Asia/Shanghai"));
    assert_eq!((schedule.slack.as_secs(), schedule.jitter.as_secs()), (7200, 1800));
    assert_eq!(fleet.key_bits, 2048);
    let rollout = Rollout {
        canary: Amount::Percent(5),
        batch_max: 20,
        unavailable_max: Amount::Count(3),
        failures_max: Amount::Count(0),
        growth: 4,
        failures_in_a_row: 3,
        soak: Duration::from_secs(300),
    };
    assert_eq!(fleet.rollout, rollout);
    assert!(fleet.force_stop);
    assert_eq!(fleet.verify, crate::rotation::Verify::None);
    assert_eq!(fleet.grace, Duration::from_secs(86_400));
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = load_text(LEAST).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listen, "127.0.0.1:9797".parse().unwrap());
    assert_eq!(config.installation, None);
    assert!(matches!(&config.custody.keeper, Keeper::Directory { places, .. } if places.copies.is_empty()));
    let account = &config.accounts[&AccountName::from("a")];
    assert_eq!(account.endpoint(&Region::from("x")), None);
    assert!(account.rates.is_empty());
    assert_eq!(account.api, Api::V3);
    let fleet = &config.fleets[&FleetName::from("f")];
    assert_eq!(fleet.select, Select::All);
    assert!(fleet.schedule.is_none());
    assert_eq!(fleet.key_bits, 4096);
    let rollout = Rollout {
        canary: Amount::Count(1),
        batch_max: 50,
        unavailable_max: Amount::Percent(10),
        failures_max: Amount::Percent(5),
        growth: 4,
        failures_in_a_row: 3,
        soak: Duration::from_secs(600),
    };
    assert_eq!(fleet.rollout, rollout);
    assert!(!fleet.force_stop);
    assert_eq!(fleet.grace, Duration::from_secs(7 * 86_400));
}

#[test]
fn defaults_fill_what_a_fleet_leaves_out_key_by_key() {
    let text = LEAST.replace(
        "fleets:",
        "defaults: { region: bj, schedule: '0 0 3 * * *', timezone: Asia/Tokyo, verify: none, power: { force_stop: true },
            rollout: { canary: 2, soak: 1m }, retire: { grace: 1d } }\nfleets:",
    );
    let text = text.replace(", verify: none }\n", ", rollout: { canary: 3 }, timezone: UTC }\n");
    let config = load_text(&text).unwrap_or_else(|error| panic!("{error}"));
    let fleet = &config.fleets[&FleetName::from("f")];
    assert_eq!(fleet.region, Region::from("cn-hangzhou"), "the fleet's own word wins");
    assert_eq!((fleet.rollout.canary, fleet.rollout.soak), (Amount::Count(3), Duration::from_secs(60)));
    assert_eq!(fleet.schedule.as_ref().unwrap().timezone, jiff::tz::TimeZone::UTC);
    assert!(fleet.force_stop);
    assert_eq!(fleet.grace, Duration::from_secs(86_400));
}

#[test]
fn all_that_is_wrong_is_said_at_once_in_the_files_order() {
    let text = FULL
        .replace("/var/lib/rekeyd/keys", "keys")
        .replace("account: lh", "account: lx")
        .replace("2h", "2 moons")
        .replace("batch_max: 20", "batch_max: 0, banana: 1")
        .replace("    verify: none\n", "");
    check(
        &text,
        &[
            "rekeyd.yaml:5: custody.directory: \"keys\" is no absolute path",
            "rekeyd.yaml:18: fleets.web.verify: is missing: it has no default; write verify: { ssh: { user: root, address: private } }",
            "rekeyd.yaml:19: fleets.web.account: unknown account \"lx\" (accounts in this file: lh)",
            "rekeyd.yaml:23: fleets.web.schedule_slack: \"2 moons\" is no duration",
            "rekeyd.yaml:26: fleets.web.rollout.banana: unknown key (known here: canary, growth, batch_max",
            "rekeyd.yaml:26: fleets.web.rollout.batch_max: a batch of 0",
        ],
    );
}

#[test]
fn the_file_itself_is_checked() {
    check(FULL, &[]);
    check(LEAST, &[]);
    check("", &["rekeyd.yaml:1: the file is empty"]);
    check("just text\n", &["expected a mapping", "store: is missing", "custody: is", "accounts: is", "fleets: is"]);
    check("a: [\n", &["rekeyd.yaml:1:4: unclosed bracket"]);
    check(&edit("store:", "stroe:"), &["stroe: unknown key; did you mean store?", "store: is missing"]);
    check(&edit("sqlite://", "postgres://me:hunter2@h"), &["yaml:1: store: is no SQLite store"]);
    check(&edit("sqlite:///var", "sqlite://var"), &["store: takes an absolute path"]);
    check(&edit("rekeyd.db", "rekeyd.db?mode=ro"), &["store: takes a path and nothing behind it"]);
    check(&edit("127.0.0.1:9797", "localhost"), &["yaml:2: listen: \"localhost\" is no address and port"]);
    check(&edit("a7f3", "A7F3"), &["yaml:3: installation: \"A7F3\" is no installation mark"]);
    check(&edit("a7f3", "1e5"), &[]);
    check(&edit("installation: a7f3", "installation:"), &["installation: is empty; write a single value"]);
    check(&edit("installation: a7f3", "store: x"), &["yaml:3: store: the same key stands here and on line 1"]);
    check(&edit("a7f3", "[a7f3]"), &["installation: expected a single value, found a list"]);
}

#[test]
fn custody_is_checked() {
    check(&edit("/var/lib/rekeyd/keys", "/"), &["custody.directory: \"/\" is no absolute path to a place of its own"]);
    check(&edit("lib/rekeyd/keys", "../keys"), &["custody.directory: \"/var/../keys\" holds \"..\""]);
    check(&edit("directory", "dir"), &["directory: is missing", "custody.dir: unknown key"]);
    check(&edit("[/mnt/backup/rekeyd]", "/mnt"), &["custody.copies: expected a list"]);
    check(&edit("/mnt/backup/rekeyd", "mnt"), &["yaml:6: custody.copies[0]: \"mnt\" is no absolute path"]);
    check(
        &edit("/mnt/backup/rekeyd", "/var/lib//rekeyd/keys/"),
        &["copies[0]: is the same place as custody.directory"],
    );
    check(&edit("/mnt/backup/rekeyd", "/m, /m/n"), &["copies[1]: is the same place as custody.copies[0]"]);
    check(&edit("/var/lib/rekeyd/keys", "/var/lib/rekeyd"), &["custody.directory: holds the store too"]);
}

/// The least file with this custody.
fn kept_by(custody: &str) -> String {
    LEAST.replace("custody: { directory: /k }", &format!("custody: {custody}"))
}

#[test]
fn there_are_three_ways_to_keep_keys_and_one_is_taken() {
    let custody = |text: &str| load_text(&kept_by(text)).unwrap_or_else(|error| panic!("{error}")).custody;
    let sealed = custody("{ directory: /k, copies: [/c], encrypt: { passphrase: { env: PHRASE } } }");
    assert!(matches!(sealed.keeper, Keeper::Directory { encrypts: true, .. }));
    let token =
        custody("{ vault: { address: 'https://v:8200/', mount: /kv/, path: ops/rekeyd, token: { env: TOKEN } } }");
    let place = VaultSettings {
        address: "https://v:8200".to_string(),
        mount: "kv".to_string(),
        path: "ops/rekeyd".to_string(),
        namespace: None,
    };
    assert_eq!((&token.keeper, &token.ca), (&Keeper::Vault(place.clone()), &None));
    let vault = "vault: { address: 'https://v:8200', mount: kv, path: ops/rekeyd, namespace: team/a, ca: /etc/ca.pem, ";
    let role = custody(&format!("{{ {vault} role_id: {{ env: ROLE }}, secret_id: {{ env: ID }} }} }}"));
    assert_eq!(role.keeper, Keeper::Vault(VaultSettings { namespace: Some("team/a".to_string()), ..place }));
    assert_eq!(role.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    let exec = custody("{ exec: { command: [/usr/bin/keep, -q], timeout: 10s } }");
    let command = vec!["/usr/bin/keep".to_string(), "-q".to_string()];
    assert_eq!(exec.keeper, Keeper::Exec(ExecSettings { command, timeout: Duration::from_secs(10) }));
    let exec = custody("{ exec: { command: [/usr/bin/keep] } }");
    assert!(matches!(exec.keeper, Keeper::Exec(ExecSettings { timeout, .. }) if timeout == Duration::from_secs(30)));

    let env = |name: &str| match name {
        "PHRASE" => Some("correct horse".into()),
        "TOKEN" => Some("s.token".into()),
        "ROLE" => Some("role".into()),
        _ => None,
    };
    let phrase = sealed.secrets(&env).unwrap().passphrase.unwrap();
    assert_eq!(phrase.expose_secret(), "correct horse", "a phrase may have blanks");
    assert!(matches!(token.secrets(&env).unwrap().login, Some(Login::Token(_))));
    assert!(exec.secrets(&env).unwrap().login.is_none());
    let problems = role.secrets(&env).err().unwrap().problems;
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.to_string().contains("custody.vault.secret_id: $ID is not set"), "{problem}");
    let two_lines = |_: &str| Some("correct\nhorse".into());
    let problem = sealed.secrets(&two_lines).err().unwrap().to_string();
    assert!(problem.contains("more than one line") && !problem.contains("horse"), "{problem}");
    assert!(!format!("{sealed:?} {role:?}").contains("horse"));
}

#[test]
fn what_is_wrong_with_a_keeper_is_said_with_its_place() {
    let vault = |more: &str| kept_by(&format!("{{ vault: {{ mount: kv, path: p, {more} }} }}"));
    let token = "token: { env: T }";
    let at = "address: 'https://v'";
    check(&kept_by("{ }"), &["custody.directory: is missing: private keys need a place"]);
    check(
        &kept_by("{ directory: /k, exec: { command: [/x] } }"),
        &["custody.exec: there is one custody: directory or exec"],
    );
    check(
        &kept_by("{ exec: { command: [/x] }, copies: [/c] }"),
        &["custody.copies: goes with custody.directory, and here is custody.exec"],
    );
    check(
        &kept_by(&format!(
            "{{ vault: {{ {at}, mount: m, path: p, {token} }}, encrypt: {{ passphrase: {{ env: P }} }} }}"
        )),
        &["custody.encrypt: goes with custody.directory, and here is custody.vault"],
    );
    check(&kept_by("{ directory: /k, encrypt: { } }"), &["encrypt.passphrase: is missing"]);
    check(
        &kept_by("{ directory: /k, encrypt: { passphrase: hunter2 } }"),
        &["encrypt.passphrase: a secret does not stand in this file (what stands there is not shown"],
    );
    check(&vault(at), &["custody.vault: takes either token, or role_id and secret_id"]);
    check(&vault(&format!("{at}, {token}, role_id: {{ env: R }}")), &["custody.vault: takes either token, or role_id"]);
    check(&vault(&format!("{at}, role_id: {{ env: R }}")), &["custody.vault: takes either token, or role_id"]);
    check(&vault(token), &["custody.vault.address: is missing"]);
    check(&vault(&format!("address: 'http://v', {token}")), &["address: \"http://v\": plain http is allowed to this"]);
    check(&vault(&format!("address: 'https://me:hunter2@v', {token}")), &["address: \"…@v\" is no endpoint"]);
    check(&vault(&format!("{at}, {token}, namespace: a//b")), &["vault.namespace: is no path in Vault"]);
    check(&vault(&format!("{at}, {token}, ca: ca.pem")), &["vault.ca: \"ca.pem\" is no absolute path"]);
    check(&vault(&format!("{at}, {token}, tokn: x")), &["custody.vault: holds an unknown key, not shown here"]);
    let path = |path: &str| kept_by(&format!("{{ vault: {{ {at}, mount: kv, path: '{path}', {token} }} }}"));
    for wrong in ["", "/", "a/../b", "..", "a b", "a?b", "a%2fb"] {
        check(&path(wrong), &["custody.vault.path: is no path in Vault"]);
    }
    check(&kept_by("{ exec: { timeout: 5s } }"), &["exec.command: is missing"]);
    check(&kept_by("{ exec: { command: [] } }"), &["exec.command: names no program"]);
    check(&kept_by("{ exec: { command: [keep] } }"), &["exec.command: begins with no absolute path"]);
    check(
        &kept_by("{ exec: { command: [/x], timeout: 5m } }"),
        &["exec.timeout: 5m is no time for a keeper: 1s to 2m"],
    );
}

#[test]
fn the_api_is_cvms_to_choose_and_nobody_elses() {
    let with = |provider: &str, api: &str| {
        edit("tencent-lighthouse", &format!("{provider}\n    api: {api}"))
            .replace("rates: { AssociateInstances", "rates: { A")
            .replace("lighthouse.intl.tencentcloudapi.com", "a-proxy")
    };
    for (word, expect) in [("v3", Api::V3), ("legacy", Api::Legacy), ("legacy-sha1", Api::LegacySha1)] {
        let config = load_text(&with("tencent-cvm", word)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.accounts[&AccountName::from("lh")].api, expect);
    }
    check(
        &with("tencent-cvm", "legasy"),
        &["yaml:10: accounts.lh.api: unknown API \"legasy\"; did you mean legacy? (known: v3, legacy, legacy-sha1)"],
    );
    check(&with("tencent-cvm", "v2"), &["unknown API \"v2\" (known: v3, legacy, legacy-sha1)"]);
    check(&with("tencent-cvm", ""), &["yaml:10: accounts.lh.api: is empty"]);
    for other in ["alibaba-ecs", "baidu-bcc"] {
        for word in ["v3", "legacy"] {
            let expect =
                format!("accounts.lh.api: {other} has one API only, and this key is for tencent-cvm; leave it out");
            check(&with(other, word), &[&expect]);
        }
    }
    check(
        &edit("tencent-lighthouse", "tencent-lighthouse\n    api: legacy"),
        &["accounts.lh.api: tencent-lighthouse has one API"],
    );
}

#[test]
fn the_legacy_api_is_not_asked_of_a_host_of_api_3() {
    let with = |api: &str, endpoint: &str| {
        edit("tencent-lighthouse", &format!("tencent-cvm\n    api: {api}"))
            .replace("rates: { AssociateInstances", "rates: { A")
            .replace("https://lighthouse.intl.tencentcloudapi.com", endpoint)
    };
    let hosts = [
        "https://cvm.tencentcloudapi.com",
        "https://CVM.{region}.TencentCloudAPI.com:443",
        "https://cvm.intl.tencentcloudapi.com/",
        "https://tencentcloudapi.com",
    ];
    for host in hosts {
        check(&with("v3", host), &[]);
        for api in ["legacy", "legacy-sha1"] {
            let expect = format!(
                "yaml:11: accounts.lh.endpoint: is a host of API 3.0 (tencentcloudapi.com), and api: {api} asks for \
                 /v2/index.php, which it does not have: leave endpoint out for https://cvm.api.qcloud.com, or write api: v3"
            );
            check(&with(api, host), &[&expect]);
        }
    }
    for host in
        ["https://cvm.api.qcloud.com", "http://127.0.0.1:8080", "https://nottencentcloudapi.com", "https://proxy"]
    {
        check(&with("legacy", host), &[]);
    }
}

#[test]
fn accounts_are_checked() {
    check(
        &edit("tencent-lighthouse", "tencent-lighthose"),
        &[
            "yaml:9: accounts.lh.provider: unknown provider \"tencent-lighthose\"; did you mean tencent-lighthouse? (known: tencent-lighthouse, tencent-cvm, alibaba-ecs, baidu-bcc)",
        ],
    );
    check(&edit("    provider: tencent-lighthouse\n", ""), &["yaml:8: accounts.lh.provider: is missing: write one of"]);
    check(&edit("https://light", "http://light"), &["yaml:10: accounts.lh.endpoint: is plain http off this machine"]);
    check(&edit("rates: { Associate", "rates: { Asociate"), &["did you mean AssociateInstancesKeyPairs?"]);
    check(&edit("KeyPairs: 5", "KeyPairs: 0"), &["rates.AssociateInstancesKeyPairs: \"0\" is no rate"]);
    check(&edit("  lh:", "  LH:").replace("account: lh", "account: LH"), &["yaml:8: accounts.LH: a name has 1 to 40"]);
    check(
        &FULL.replace(&FULL[FULL.find("  lh:").unwrap()..FULL.find("defaults:").unwrap()], ""),
        &["yaml:7: accounts: is empty", "fleets.web.account: unknown account \"lh\" (accounts in this file: none)"],
    );
    check(
        &edit("      access_key_id: { env: TENCENTCLOUD_SECRET_ID }\n", ""),
        &["yaml:11: accounts.lh.credentials.access_key_id: is missing: write { env: NAME }"],
    );
    check(&edit("{ env: TENCENTCLOUD_SECRET_ID }", "{ }"), &["access_key_id: takes exactly one source"]);
    check(&edit("{ env: TEN", "{ file: /x, env: TEN"), &["access_key_id: takes exactly one source"]);
    check(&edit("{ env: TENCENTCLOUD_SECRET_ID }", ""), &["access_key_id: is empty; write a mapping"]);
    check(
        &edit("/run/token", "run/token"),
        &["yaml:14: accounts.lh.credentials.session_token.file: is no absolute path"],
    );
    check(&edit("lighthouse-secret", "../passwd"), &["credential: is no name of a systemd credential"]);
    check(&edit("{ env: TENCENTCLOUD_SECRET_ID }", "{ env: '' }"), &["env: is no name of an environment variable"]);
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_repeated() {
    let secret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY";
    for source in [
        secret.to_string(),
        format!("'{secret}'"),
        format!("[{secret}]"),
        format!("{{ {secret} }}"),
        format!("{{ {secret}: {secret}, {secret}: x }}"),
        format!("{{ value: {secret} }}"),
        format!("{{ env: [{secret}] }}"),
        format!("{{ env: {secret}= }}"),
        format!("{{ file: {secret} }}"),
        format!("{{ credential: {secret}/x }}"),
        format!("{{ env: {secret} "),
        format!("\"{secret}"),
        format!("*{secret}"),
        format!("&{secret}"),
        format!("!{secret} x"),
        format!("{secret}: {secret}"),
        format!("|\n{secret}"),
    ] {
        let text = edit("{ credential: lighthouse-secret }", &source);
        let error = load_text(&text).map(|_| ()).expect_err(&source);
        assert!(!format!("{error} {error:?}").contains("wJalr"), "{source}:\n{error}");
        assert!(error.problems.iter().any(|problem| (12..=30).contains(&problem.line)), "{source}:\n{error}");
    }
    check(&edit("{ env: TENCENTCLOUD_SECRET_ID }", "abc"), &["access_key_id: a secret does not stand in this file"]);
}

#[test]
fn fleets_are_checked() {
    let fleet = |line: &str, to: &str| edit(&format!("    {line}\n"), to);
    check(&fleet("account: lh", ""), &["yaml:18: fleets.web.account: is missing: write one of the accounts"]);
    check(&fleet("region: ap-singapore", ""), &["fleets.web.region: is missing"]);
    check(&edit("ap-singapore", "AP Singapore"), &["yaml:20: fleets.web.region: \"AP Singapore\" is no region"]);
    check(&edit("  web:", "  Web 1:"), &["yaml:18: fleets.Web 1: a name has 1 to 40 characters"]);
    check(&edit("  web:", &format!("  {}:", "w".repeat(41))), &["a name has 1 to 40 characters"]);
    check(&edit("    account:", "    acount: lh\n    account:"), &["web.acount: unknown key; did you mean account?"]);
    check(&fleet("tags: { role: web, env: prod }", ""), &["yaml:18: fleets.web: selects no machine: write tags"]);
    check(&fleet("tags: { role: web, env: prod }", "    all_instances: false\n"), &["web: selects no machine"]);
    check(&edit("{ role: web, env: prod }", "{}"), &["yaml:21: fleets.web.tags: is empty"]);
    check(&edit("{ role: web, env: prod }", ""), &["fleets.web.tags: is empty"]);
    check(&edit("{ role: web, env: prod }", "[web]"), &["fleets.web.tags: expected a mapping"]);
    check(&edit("role: web", "role: [web]"), &["fleets.web.tags.role: expected a single value, found a list"]);
    check(&edit("    tags", "    all_instances: true\n    tags"), &["tags: stands beside all_instances: true"]);
    check(&edit("    tags", "    all_instances: yes\n    tags"), &["all_instances: \"yes\" is neither true nor false"]);
    check(&edit("timezone", "tags: {a: b}, timezone"), &["yaml:16: defaults.tags: says which machines a fleet has"]);
    check(&edit("timezone", "timezon"), &["yaml:16: defaults.timezon: unknown key; did you mean timezone?"]);
    check(&edit("bits: 2048", "bits: 1024"), &["yaml:25: fleets.web.key.bits: \"1024\" is no key size"]);
    check(&edit("force_stop: true", "force_stop: 1"), &["power.force_stop: \"1\" is neither true nor false"]);
    let allow = |list: &str| edit("force_stop: true", &format!("allow: {list}"));
    check(&allow("[sport]"), &["power.allow[0]: \"sport\" is nothing that a stop could hurt; did you mean spot?"]);
    check(&allow("spot"), &["fleets.web.power.allow: expected a list"]);
    check(&edit("grace: 1d", "grace: 1"), &["yaml:29: fleets.web.retire.grace: \"1\" is no duration"]);
    check(&edit("grace: 1d", "grace: 3years"), &["retire.grace: \"3years\" is longer than a year"]);
    let none = FULL.replace(&FULL[FULL.find("  web:").unwrap()..], "");
    check(&none, &["yaml:17: fleets: is empty; write at least one fleet"]);
    check(&none.replace("fleets:", "fleets: {}"), &["fleets: is empty; write at least one fleet"]);
}

#[test]
fn verify_is_chosen_and_never_assumed() {
    check(&edit("    verify: none\n", ""), &["yaml:18: fleets.web.verify: is missing: it has no default"]);
    let ssh = |text: &str| edit("verify: none", &format!("verify: {{ ssh: {{ {text} }} }}"));
    let good =
        load_text(&ssh("user: root, port: 2222, address: 'tag:ip', old_key: warn, connect_timeout: 3s")).unwrap();
    let crate::rotation::Verify::Ssh(login) = &good.fleets[&"web".into()].verify else { panic!("{good:?}") };
    assert_eq!((login.user.as_str(), login.port, login.connect_timeout.as_secs()), ("root", 2222, 3));
    check(&ssh("address: private"), &["fleets.web.verify.ssh.user: is missing"]);
    check(&ssh("user: root"), &["fleets.web.verify.ssh.address: is missing"]);
    check(&ssh("user: root, address: 10.0.0.1"), &["fleets.web.verify.ssh.address: \"10.0.0.1\" is no address"]);
    check(&ssh("user: root, address: private, key: x"), &["key"]);
    check(&edit("verify: none", "verify: ssh"), &["fleets.web.verify: takes none, or ssh"]);
    check(&edit("verify: none", "verify: ~"), &["fleets.web.verify: takes none, or ssh"]);
    let config = load_text(FULL).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        config.notes.iter().any(|note| note.to_string().contains("yaml:28: fleets.web.verify: none: the cloud's word"))
    );
}

#[test]
fn rollouts_are_checked() {
    check(&edit("canary: 5%", "canary: 0"), &["yaml:26: fleets.web.rollout.canary: a canary is at least 1"]);
    check(&edit("canary: 5%", "canary: 0%"), &["rollout.canary: a canary is at least 1"]);
    check(&edit("canary: 5%", "canary: 21"), &["rollout.canary: 21 is more than the largest batch (20)"]);
    check(&edit("canary: 5%", "canary: one"), &["rollout.canary: \"one\" is neither a number"]);
    check(&edit("batch_max: 20", "batch_max: 10%"), &["rollout.batch_max: \"10%\" is no number of machines"]);
    check(&edit("batch_max: 20", "batch_max: -1"), &["rollout.batch_max: \"-1\" is no number"]);
    check(&edit("unavailable_max: 3", "unavailable_max: 0"), &["rollout.unavailable_max: at 0 nothing could"]);
    check(&edit("unavailable_max: 3", "unavailable_max: 0%"), &["rollout.unavailable_max: at 0 nothing could"]);
    check(&edit("unavailable_max: 3", "unavailable_max: 120%"), &["unavailable_max: \"120%\" is more than all"]);
    check(&edit("failures_max: 0", "failures_max: 300%"), &["failures_max: \"300%\" is more than all"]);
    check(&edit("soak: 5m", "soak: 5"), &["yaml:16: defaults.rollout.soak: \"5\" is no duration"]);
    check(&edit("rollout: { soak: 5m }", "rollout: 5m"), &["yaml:16: defaults.rollout: expected a mapping"]);
}

#[test]
fn schedules_are_checked() {
    check(&edit("0 0 3 1 * *", "0 3 1 * *"), &["yaml:22: fleets.web.schedule: \"0 3 1 * *\" has five fields"]);
    check(&edit("\"0 0 3 1 * *\"", "* * * * * *"), &["yaml:22:15: while scanning an anchor or alias"]);
    check(&edit("Asia/Shanghai", "Mars/Olympus"), &["yaml:16: defaults.timezone: \"Mars/Olympus\" is no zone"]);
    check(
        &edit("schedule_jitter: 30m", "schedule_jitter: 3h"),
        &["yaml:24: fleets.web.schedule_jitter: 3h is more than schedule_slack (2h)"],
    );
    check(
        &edit("schedule_slack: 2h", "schedule_slack: 0s").replace("30m", "0s"),
        &["schedule_slack: is less than a second"],
    );
}

#[test]
fn two_fleets_never_claim_the_same_machines() {
    let two = |a: &str, b: &str, region: &str, account: &str| {
        let mut text = FULL.replace("tags: { role: web, env: prod }", a);
        let other = &FULL[FULL.find("  lh:").unwrap()..FULL.find("defaults:").unwrap()];
        text = text.replace("defaults:", &format!("{}defaults:", other.replace("  lh:", "  twin:")));
        text = text.replace(
            "defaults:",
            &format!("{}defaults:", other.replace("  lh:", "  cvm:").replace("SECRET_ID", "OTHER_ID")),
        );
        text + &format!("  db: {{ account: {account}, region: {region}, {b}, verify: none }}\n")
    };
    let same = "db and web (line 34) select the same machines";
    let check = |a: &str, b: &str, region: &str, account: &str, expect: &[&str]| {
        check(&two(a, b, region, account), expect);
    };
    check("tags: {r: w}", "tags: {r: w}", "ap-singapore", "lh", &[same]);
    check("tags: {r: w}", "tags: {r: w, e: p}", "ap-singapore", "lh", &[same]);
    check("tags: {r: w, e: p}", "tags: {r: w}", "ap-singapore", "lh", &[same]);
    check("all_instances: true", "tags: {r: w}", "ap-singapore", "lh", &[same]);
    check("tags: {r: w}", "all_instances: true", "ap-singapore", "lh", &[same]);
    check("tags: {r: w}", "tags: {r: w}", "ap-singapore", "twin", &[same]);
    check("tags: {r: w}", "tags: {r: w}", "ap-singapore", "cvm", &[]);
    check("tags: {r: w}", "tags: {r: w}", "ap-tokyo", "lh", &[]);
    check("tags: {r: w}", "tags: {r: d}", "ap-singapore", "lh", &[]);
    check("tags: {r: w, a: b}", "tags: {r: w, c: d}", "ap-singapore", "lh", &[]);
}

#[test]
fn what_is_worth_knowing_is_noted() {
    check_notes(FULL, &[]);
    check_notes(
        &edit("batch_max: 20", "batch_max: 200"),
        &["yaml:26: fleets.web.rollout.batch_max: 200 is capped at 100 by tencent-lighthouse"],
    );
    check_notes(&edit("127.0.0.1", "0.0.0.0"), &["yaml:2: listen: is not loopback"]);
    check_notes(&edit("0 0 3 1", "0 * 3 1"), &["yaml:22: fleets.web.schedule: is due every 1m"]);
    check_notes(
        &edit("    schedule: \"0 0 3 1 * *\"\n", ""),
        &["schedule_slack: has no effect without a schedule", "schedule_jitter: has no effect"],
    );
    check_notes(
        &edit(
            "  lh:",
            "  idle: { provider: baidu-bcc, credentials: { access_key_id: {env: A}, access_key_secret: {env: B} } }\n  lh:",
        ),
        &["yaml:8: accounts.idle: is not used by any fleet"],
    );
}

#[test]
fn fleets_that_want_more_key_pairs_than_there_are_places_are_noted() {
    let fleets = |number: usize, region: &str| -> String {
        let fleet = |n| format!("  f{n}: {{ account: lh, region: {region}, tags: {{ role: r{n} }}, verify: none }}\n");
        FULL.to_string() + &(0..number).map(fleet).collect::<String>()
    };
    // Ten places for the five fleets of two pairs each; the sixth is one too many, and another region has its own.
    check_notes(&fleets(4, "ap-singapore"), &[]);
    let expect = "yaml:34: fleets.f4: is one of 6 fleets of account lh in ap-singapore, which take up to 12 key pairs";
    check_notes(&fleets(5, "ap-singapore"), &[expect]);
    check_notes(&fleets(5, "ap-guangzhou"), &[]);
}

#[test]
fn what_may_be_stopped_is_read_and_noted_where_nothing_is() {
    let least = |power: &str, provider: &str| {
        LEAST
            .replace("alibaba-ecs", provider)
            .replace("cn-hangzhou", "bj")
            .replace(", verify", &format!(", power: {power}, verify"))
    };
    let config = load_text(&least("{ allow: [spot, local_disk, spot] }", "baidu-bcc")).unwrap();
    let fleet = &config.fleets[&"f".into()];
    assert_eq!((fleet.allow.clone(), fleet.force_stop), ([Hazard::Spot, Hazard::LocalDisk].into(), false));
    check_notes(&least("{ allow: [stop_charging] }", "tencent-cvm"), &[]);
    check_notes(&least("{ allow: [] }", "alibaba-ecs"), &[]);
    check_notes(
        &least("{ allow: [spot] }", "alibaba-ecs"),
        &["power.allow: has no effect: on alibaba-ecs no rotation"],
    );
    assert!(load_text(LEAST).unwrap().fleets[&"f".into()].allow.is_empty());
}

#[test]
fn secrets_are_fetched_apart_and_all_that_are_missing_are_named() {
    let config = load_text(LEAST).unwrap_or_else(|error| panic!("{error}"));
    let full = |name: &str| match name {
        "I" => Some(OsString::from("the-id")),
        "S" => Some(OsString::from("the-secret\n")),
        _ => None,
    };
    let credentials = config.credentials(&full).unwrap_or_else(|error| panic!("{error}"));
    let a = &credentials[&AccountName::from("a")];
    assert_eq!(a.access_key_id.expose_secret(), "the-id");
    assert_eq!(a.access_key_secret.expose_secret(), "the-secret");
    assert!(a.session_token.is_none());
    assert!(!format!("{config:?} {credentials:?}").contains("the-"), "a secret prints itself");
    let error = config.credentials(&|_| None).map(|_| ()).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].starts_with("rekeyd.yaml:3: accounts.a.credentials.access_key_id: $I is not set"), "{error}");
    assert!(lines[1].starts_with("rekeyd.yaml:3: accounts.a.credentials.access_key_secret: $S is not set"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rekeyd.yaml");
    let error = read(&path, &cloud).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("rekeyd.yaml: cannot be read") && error.contains("--config FILE"), "{error}");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(read(&path, &cloud).map(|_| ()).unwrap_err().to_string().contains("is not UTF-8"));
    std::fs::write(&path, FULL).unwrap();
    assert!(read(&path, &cloud).is_ok());
}

#[test]
fn every_example_is_a_file_without_problems() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut providers = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let config = read(&path, &cloud).unwrap_or_else(|error| panic!("{error}"));
        for note in &config.notes {
            // The demo is due more often than a real fleet, on purpose.
            let demo = path.ends_with("demo.yaml") && note.path.ends_with("schedule");
            assert!(note.path.ends_with("verify") || demo, "an example should need no note: {note}");
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        providers.extend(config.accounts.values().map(|account| (name.clone(), account.provider)));
    }
    for kind in ProviderKind::ALL {
        assert!(providers.contains(&(kind.to_string(), kind)), "{kind} has no example of its own");
        assert!(providers.contains(&("demo".to_string(), kind)), "{kind} is not in the demo");
    }
}

#[test]
fn the_reference_example_shows_every_key() {
    let text = include_str!("../../config/rekeyd.yaml");
    let others = [
        "store",
        "listen",
        "installation",
        "custody",
        "directory",
        "copies",
        "encrypt",
        "passphrase",
        "vault",
        "address",
        "mount",
        "path",
        "namespace",
        "ca",
        "token",
        "role_id",
        "secret_id",
        "exec",
        "accounts",
        "provider",
        "api",
        "endpoint",
        "credentials",
        "access_key_id",
        "access_key_secret",
        "session_token",
        "role",
        "metadata_endpoint",
        "env",
        "file",
        "credential",
        "rates",
        "defaults",
        "fleets",
        "bits",
        "canary",
        "batch_max",
        "unavailable_max",
        "failures_max",
        "failures_in_a_row",
        "growth",
        "days",
        "from",
        "to",
        "before_batch",
        "after_batch",
        "command",
        "timeout",
        "soak",
        "force_stop",
        "allow",
        "grace",
    ];
    for key in others.into_iter().chain(fleet::KEYS) {
        assert!(text.contains(&format!("{key}:")), "{key} is not shown");
    }
}

#[test]
fn windows_freezes_and_hooks_are_read_and_what_could_never_work_is_refused() {
    let with = |lines: &str| edit("    verify: none\n", &format!("    verify: none\n{lines}"));
    let text = with(
        "    windows: [{ days: sun-thu, from: \"22:00\", to: \"04:00\" }, { from: '03:00', to: '24:00' }]
    freeze: [2026-12-20..2027-01-05, 2026-11-27]
    hooks: { before_batch: { command: [/usr/local/bin/drain, '--all'], timeout: 90s }, after_batch: { command: [back] } }
",
    );
    let config = load_text(&text).unwrap_or_else(|error| panic!("{error}"));
    let fleet = &config.fleets[&FleetName::from("web")];
    assert_eq!(fleet.windows.zone, "Asia/Shanghai", "of the defaults");
    let windows: Vec<String> = fleet.windows.windows.iter().map(ToString::to_string).collect();
    assert_eq!(windows, ["mon,tue,wed,thu,sun 22:00-04:00", "mon,tue,wed,thu,fri,sat,sun 03:00-00:00"]);
    assert_eq!(fleet.windows.freeze.len(), 2);
    let before = fleet.hooks.before_batch.as_ref().unwrap();
    assert_eq!((before.command.join(" ").as_str(), before.timeout.as_secs()), ("/usr/local/bin/drain --all", 90));
    assert_eq!(fleet.hooks.after_batch.as_ref().unwrap().timeout.as_secs(), 300);
    check_notes(&text, &[]);

    check(
        &with("    windows: [{ days: monday, from: '01:00' }]\n"),
        &["windows[0].days: \"monday\" is no list", "windows[0].to: is missing"],
    );
    check(
        &with("    windows: [{ from: '01:00', to: '01:03' }]\n"),
        &[
            "windows[0]: mon,tue,wed,thu,fri,sat,sun 01:00-01:03 is 3m long: too short for one batch, which takes 4m with its hooks",
        ],
    );
    let hook =
        "    hooks: { before_batch: { command: [x], timeout: 20m } }\n    windows: [{ from: '01:00', to: '01:20' }]\n";
    check(&with(hook), &["too short for one batch, which takes 24m with its hooks"]);
    check(&with("    freeze: 2026-11-27\n"), &["freeze: expected a list"]);
    check(&with("    freeze: [2026-11-31]\n"), &["freeze[0]: \"2026-11-31\" is neither a day"]);
    check(
        &with("    hooks: { before_batch: { timeout: 5m } }\n"),
        &["hooks.before_batch.command: is missing: write the program"],
    );
    check(&with("    hooks: { before_batch: { command: [] } }\n"), &["hooks.before_batch.command: names no program"]);
    check(
        &with("    hooks: { before_batch: { command: drain } }\n"),
        &["command: expected a list", "command: names no program"],
    );
    check(&with("    hooks: { before: { command: [x] } }\n"), &["hooks.before: unknown key"]);
    check(&with("    hooks: { after_batch: { command: [x], timeout: 2h } }\n"), &["2h is no time for a hook"]);
    // Due at three on the first of the month; the window comes at eight.
    let never = with("    windows: [{ from: '08:00', to: '09:00' }]\n");
    check_notes(
        &never,
        &[
            "fleets.web.schedule: never falls into one of the fleet's windows, nor does one open within schedule_slack (2h)",
        ],
    );
    check_notes(&with("    windows: [{ from: '04:30', to: '09:00' }]\n"), &[]);
    // No window, and a freeze: it does not last for ever.
    let frozen = "again and again: those ticks are skipped, and `rekeyd rotate` is refused without --force=window; after \
                  2098-12-31 nothing is frozen";
    check_notes(&with("    freeze: [2020-01-01..2098-12-31]\n"), &[frozen]);
    check_notes(&with("    freeze: [2026-01-01..2026-03-31]\n"), &[]);
    // A zone is of use to windows as well.
    let text = LEAST.replace(
        ", verify: none }",
        ", verify: none, timezone: Asia/Tokyo, windows: [{ from: '01:00', to: '05:00' }] }",
    );
    check_notes(&text, &[]);
}

#[test]
fn growth_failures_in_a_row_and_an_accounts_cap_are_bounded() {
    let rollout = |key: &str| edit("failures_max: 0 }", &format!("failures_max: 0, {key} }}"));
    check(&rollout("growth: 1, failures_in_a_row: 1000"), &[]);
    check(&rollout("growth: 0"), &["rollout.growth: \"0\" is no factor from 1"]);
    check(&rollout("growth: 101"), &["rollout.growth: \"101\" is no factor"]);
    check(&rollout("failures_in_a_row: 0"), &["rollout.failures_in_a_row: 0 would hold before anything has failed"]);
    check(&rollout("failures_in_a_row: 5%"), &["\"5%\" is no number of failures"]);
    let account = |value: &str| edit("    rates: {", &format!("    unavailable_max: {value}\n    rates: {{"));
    let config = load_text(&account("7")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.accounts[&AccountName::from("lh")].unavailable_max, Some(7));
    check(&account("0"), &["accounts.lh.unavailable_max: at 0 nothing could ever be bound"]);
    check(&account("10%"), &["accounts.lh.unavailable_max: \"10%\" is no number of machines"]);
}

#[test]
fn what_is_delivered_has_a_file_of_its_own_that_is_not_ours() {
    let with = |deliver: &str| edit("    verify: none\n", &format!("    verify: none\n    deliver: {deliver}\n"));
    check(&with("[{ copy: { to: /srv/web.key } }]"), &[]);
    check(&with("[{ copy: { to: /srv/web.key } }, { copy: { to: /srv/web.key } }]"), &["is written twice"]);
    check(
        &with("[{ copy: { to: /var/lib/rekeyd/keys/web } }]"),
        &["in rekeyd's own /var/lib/rekeyd/keys: name another"],
    );
    check(&with("[{ copy: { to: /mnt/backup/rekeyd/web } }]"), &["in rekeyd's own /mnt/backup/rekeyd:"]);
    check(
        &with("[{ ssh_config: { to: /var/lib/rekeyd/rekeyd.db, identity_file: /k } }]"),
        &["in rekeyd's own /var/lib/rekeyd/rekeyd.db:"],
    );
    check(&with("[{ copy: { to: /var/lib/rekeyd/web.key } }]"), &[]);
    let two = format!(
        "{LEAST}  g: {{ account: a, region: cn-beijing, all_instances: true, verify: none, deliver: [{{ copy: {{ to: /k/x }} }}] }}\n"
    );
    check(&two, &["g is delivered to /k/x, in rekeyd's own /k"]);
    let both = "verify: none, deliver: [{ copy: { to: /srv/x } }] }";
    let shared = two.replace("/k/x", "/srv/x").replacen("verify: none }", both, 1);
    check(&shared, &["both delivered to /srv/x"]);
}
