//! A real daemon over simulated clouds that is made to hold, to drift and to fail, scraped by a real Prometheus: each alert
//! and each query of the dashboards is asked of it, and those answer that should.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekeyd::clock::{Clock, SystemClock};
use rekeyd::model::{InstanceId, KeyPairId, ProviderKind, Region};
use rekeyd::net::Network;
use rekeyd::provider::{Credentials, Settings, open};
use rekeyd::rotation::policy::later;
use serde_json::Value;

use crate::dashboards::{DASHBOARDS, dashboard, panels, queries, title};
use crate::metrics_of;
use crate::rules::{alerts, name, searches};
use crate::server::{Prometheus, address};
use crate::stage::{Clouds, Running, Said, fetch, rekeyd, said};

/// Alerts that nothing of the scenario makes fire: that they keep silent beside all the others is seen too.
const QUIET: [&str; 15] = [
    "RekeydNotDriving",
    "RekeydLoopStalled",
    "RekeydRestarting",
    "RekeydJournalUnreadable",
    "RekeydCustodyUnreadable",
    "RekeydKeyTooOld",
    "RekeydDueNotStarted",
    "RekeydTickSkipped",
    "RekeydStartOwed",
    "RekeydStragglers",
    "RekeydNewInstances",
    "RekeydRetireHeld",
    "RekeydProviderErrors",
    "RekeydThrottled",
    "RekeydClockDifference",
];
/// Panels of which nothing of the scenario makes a series.
const EMPTY: [&str; 1] = ["Throttled"];

/// Four fleets, each in a cloud of its own and named after it.
struct House<'a> {
    clouds: &'a Clouds,
    room: tempfile::TempDir,
    listen: String,
}

impl<'a> House<'a> {
    fn of(clouds: &'a Clouds) -> Self {
        let house = Self { clouds, room: tempfile::tempdir().unwrap(), listen: address(250) };
        let lib = house.room.path().join("lib");
        std::fs::DirBuilder::new().mode(0o700).create(&lib).unwrap();
        let lib = lib.display();
        let mut text = format!(
            "store: sqlite://{lib}/rekeyd.db\nlisten: {}\ncustody: {{ directory: {lib}/keys }}\naccounts:\n",
            house.listen
        );
        let mut fleets = "defaults: { key: { bits: 2048 }, retire: { grace: 7d } }\nfleets:\n".to_string();
        let ssh = &clouds.ready["clouds"][0]["ssh"];
        for cloud in clouds.ready["clouds"].as_array().unwrap() {
            let of = |name: &str| cloud[name].as_str().unwrap();
            let (provider, secret) = (of("provider"), house.secret(of("provider")));
            std::fs::write(&secret, of("access_key_secret")).unwrap();
            text += &format!(
                "  {provider}:\n    provider: {provider}\n    endpoint: {}\n    credentials: {{ access_key_id: {{ env: {} }}, \
                 access_key_secret: {{ file: {} }} }}\n",
                of("endpoint"),
                variable(provider),
                secret.display()
            );
            // One failure is borne, and the soak is long enough to be seen.
            let (verify, more) = match provider {
                "alibaba-ecs" => {
                    let ssh = format!("user: {}, port: {}", ssh["user"].as_str().unwrap(), ssh["port"]);
                    (format!("{{ ssh: {{ {ssh}, address: private, deadline: 6s }} }}"), "failures_max: 1, soak: 12s")
                }
                _ => ("none".to_string(), "soak: 0s"),
            };
            fleets += &format!(
                "  {provider}:\n    account: {provider}\n    region: {}\n    tags: {}\n    schedule: \"0 0 3 1 * *\"\n    \
                 rollout: {{ canary: 1, batch_max: 4, unavailable_max: 60%, {more} }}\n    verify: {verify}\n",
                of("region"),
                cloud["tags"]
            );
        }
        std::fs::write(house.room.path().join("rekeyd.yaml"), text + &fleets).unwrap();
        house
    }

    fn secret(&self, provider: &str) -> std::path::PathBuf {
        self.room.path().join(format!("secret-of-{provider}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rekeyd(&self.room.path().join("rekeyd.yaml"), arguments);
        for cloud in self.clouds.ready["clouds"].as_array().unwrap() {
            command.env(variable(cloud["provider"].as_str().unwrap()), cloud["access_key_id"].as_str().unwrap());
        }
        command.env_remove("RUST_LOG").env_remove("REKEYD_LOG_FORMAT").env_remove("NOTIFY_SOCKET");
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(self.room.path().join("log")).unwrap();
        let errors = log.try_clone().unwrap();
        Running(self.command(arguments).stdout(log).stderr(errors).spawn().unwrap())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.room.path().join("log")).unwrap_or_default()
    }

    /// The current pair of a fleet.
    fn key_pair(&self, fleet: &str) -> String {
        let status: Value = serde_json::from_str(&self.run(&["status", fleet, "--json"]).out).unwrap();
        status["fleets"][0]["last"]["key_pair"].as_str().unwrap().to_string()
    }

    /// The machines of the second batch of a fleet that run.
    fn second_batch(&self, fleet: &str) -> Vec<String> {
        let plan: Value = serde_json::from_str(&self.run(&["plan", fleet, "--json"]).out).unwrap();
        let batch = plan["batches"][1]["instances"].as_array().unwrap().iter();
        let running = batch.filter(|one| one["power"] == "running");
        running.map(|one| one["id"].as_str().unwrap().to_string()).collect()
    }
}

/// Takes the newest key pair off a machine that has it, behind the daemon's back.
fn take_off(clouds: &Clouds, provider: &str) {
    let cloud = clouds.ready["clouds"].as_array().unwrap().iter().find(|one| one["provider"] == provider).unwrap();
    let text = |name: &str| cloud[name].as_str().unwrap().to_string();
    let settings = Settings {
        provider: ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == provider).unwrap(),
        endpoint: Some(text("endpoint")),
        region: Region::new(text("region")),
        credentials: Credentials {
            access_key_id: text("access_key_id"),
            access_key_secret: text("access_key_secret").into(),
            session_token: None,
        }
        .into(),
        rates: Default::default(),
        api: Default::default(),
    };
    let newest = clouds.state(provider)["key_pairs"].as_array().unwrap().last().unwrap()["id"].clone();
    let newest = newest.as_str().unwrap();
    let picture = clouds.picture(provider);
    let (machine, _) = picture.iter().find(|(_, (_, pairs))| pairs.contains(newest)).unwrap();
    let client = open(&settings, Arc::new(Network::new().unwrap()), Arc::new(SystemClock), 1).unwrap();
    let before = later(SystemClock.now(), Duration::from_secs(30));
    let off = async { client.unbind(&KeyPairId::new(newest), &[InstanceId::new(machine.clone())], before).await };
    tokio::runtime::Runtime::new().unwrap().block_on(off).unwrap();
}

/// The environment variable of an account's key id.
fn variable(provider: &str) -> String {
    format!("ID_{}", provider.replace('-', "_").to_uppercase())
}

/// What is asked: of which alert or panel, and how Grafana would ask it with everything chosen.
fn questions() -> Vec<(String, String)> {
    let of_alerts = alerts();
    let of_alerts =
        of_alerts.iter().map(|alert| (name(alert).to_string(), alert["expr"].as_str().unwrap().to_string()));
    let mut questions: Vec<_> = of_alerts.collect();
    for dashboard in DASHBOARDS.map(dashboard) {
        for panel in panels(&dashboard) {
            for query in queries(panel) {
                let query = query.replace("$__rate_interval", "30s").replace("$__range", "10m");
                let query = ["$job", "$fleet", "$provider"].iter().fold(query, |query, one| query.replace(one, ".*"));
                assert!(!query.contains('$'), "{query}");
                questions.push((title(panel).to_string(), query));
            }
        }
    }
    questions
}

#[test]
fn a_real_prometheus_hears_of_each_trouble_and_every_query_of_the_dashboards_answers() {
    let clouds = Clouds::open(&["--instances", "8", "--latency", "3ms", "--operation-time", "1200ms", "--sshd"]);
    let house = House::of(&clouds);
    let (lighthouse, cvm, ecs, bcc) = ("tencent-lighthouse", "tencent-cvm", "alibaba-ecs", "baidu-bcc");

    // A fleet that was rotated; then its private key is no longer where it was, a machine has no key, all places are taken.
    let said = house.run(&["rotate", lighthouse]);
    assert_eq!(said.code, 0, "{said:?}");
    let current = house.key_pair(lighthouse);
    let keys = house.room.path().join("lib/keys");
    std::fs::rename(keys.join(&current), house.room.path().join("away")).unwrap();
    take_off(&clouds, lighthouse);
    // The daemon surveys once soon after its start, and not again in this test: a machine that is busy then is no evidence.
    let until = Instant::now() + Duration::from_secs(60);
    while !house.run(&["drift", lighthouse]).out.contains("no_key") {
        assert!(Instant::now() < until, "{:?}", house.run(&["drift", lighthouse]));
        std::thread::sleep(Duration::from_millis(300));
    }
    let taken = clouds.state(lighthouse)["key_pairs"].as_array().unwrap().len();
    clouds.meddle(&format!("key-pairs-max={lighthouse}:{taken}"));
    // One whose rotation will be held, as its key cannot be imported.
    clouds.meddle(&format!("denies={cvm}:ImportKeyPair"));
    // One of whose second batch a machine ignores what is bound to it.
    let second = house.second_batch(ecs);
    clouds.meddle(&format!("never-accepts={}", second[0]));
    // One that nobody has the credentials of.
    std::fs::remove_file(house.secret(bcc)).unwrap();

    let gone = address(252);
    let mut daemon = house.start(&["run"]);
    let server = Prometheus::open(&[("rekeyd", &house.listen), ("rekeyd-gone", &gone)]);
    let until = Instant::now() + Duration::from_secs(60);
    while server.query("rekeyd_driver == 1 and count_over_time(rekeyd_driver[1m]) > 2").is_empty() {
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended: {}", house.log());
        assert!(Instant::now() < until, "nothing is scraped: {}", house.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(house.run(&["hold", bcc, "--note", "no credentials"]).code, 0);
    // A reload is refused, as one secret is missing.
    daemon.signal("HUP");
    let mut rotations = [ecs, cvm].map(|fleet| house.start(&["rotate", fleet]));

    // What answers at some time: a machine is down for a moment only.
    let questions = questions();
    let silent = |of: &str| QUIET.contains(&of) || EMPTY.contains(&of);
    let mut left: BTreeSet<usize> = (0..questions.len()).filter(|one| !silent(&questions[*one].0)).collect();
    let until = Instant::now() + Duration::from_secs(150);
    while !left.is_empty() && Instant::now() < until {
        left.retain(|one| server.query(&questions[*one].1).is_empty());
        std::thread::sleep(Duration::from_millis(300));
    }
    let left: Vec<_> = left.iter().map(|one| &questions[*one]).collect();
    assert!(
        left.is_empty(),
        "no answer to {left:#?}\n{}\n{}",
        fetch(&house.listen, "/metrics").unwrap().1,
        house.log()
    );
    for (of, query) in questions.iter().filter(|(of, _)| silent(of)) {
        let answer = server.query(query);
        assert!(answer.is_empty(), "{of}: {query}: {answer:?}");
    }

    // The series are those of who is meant.
    let fleets = |expr: &str| -> Vec<String> {
        let series = server.query(expr);
        series.iter().map(|one| one["metric"]["fleet"].as_str().unwrap_or("?").to_string()).collect()
    };
    let rules: BTreeMap<String, String> = questions.iter().take(alerts().len()).cloned().collect();
    assert_eq!(fleets(&rules["RekeydRotationHeld"]), [cvm]);
    assert_eq!(fleets(&rules["RekeydProofFailed"]), [ecs]);
    assert_eq!(fleets(&rules["RekeydPrivateKeyMissing"]), [lighthouse]);
    assert_eq!(fleets(&rules["RekeydHoldForgotten"]), [bcc]);
    let unread: BTreeSet<String> = fleets(&rules["RekeydCredentialsUnreadable"]).into_iter().collect();
    assert_eq!(unread, BTreeSet::from(["?".to_string(), bcc.to_string()]), "its own survey, and that of all key pairs");
    let full = server.query(&rules["RekeydKeyPairsNearlyFull"]);
    assert_eq!((full.len(), &full[0]["metric"]["account"]), (1, &lighthouse.into()), "{full:?}");

    // The runbook finds in the log why.
    let (_, words) = searches().into_iter().find(|(section, _)| section == "RekeydReloadRefused").unwrap();
    let log = house.log();
    assert!(log.lines().any(|line| line.contains(&words) && line.contains("secret-of-baidu-bcc")), "{words}: {log}");

    // Each name is one that the daemon has.
    let page = fetch(&house.listen, "/metrics").unwrap().1;
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut known = BTreeSet::new();
    for (metric, kind) in types.filter_map(|line| line.split_once(' ')) {
        let parts = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        known.extend(parts.iter().map(|part| format!("{metric}{part}")));
    }
    for (of, query) in &questions {
        for metric in metrics_of(query) {
            assert!(known.contains(metric), "{of}: rekeyd has no metric {metric}");
        }
    }

    // Prometheus could evaluate every rule, and every text of an alert could be made.
    let groups = server.api("rules");
    let mut evaluated = 0;
    for rule in groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        evaluated += 1;
    }
    assert_eq!(evaluated, alerts().len());
    let active = server.api("alerts");
    let active = active["alerts"].as_array().unwrap();
    assert!(active.len() >= 9, "{active:#?}");
    for alert in active {
        let text = alert["annotations"].to_string();
        assert!(!text.contains("<error") && !text.contains("<no value>") && !text.contains("{{"), "{text}");
    }

    rotations.iter_mut().for_each(Running::kill);
    daemon.signal("TERM");
    assert_eq!(daemon.code_within(Duration::from_secs(12)), Some(0), "{}", house.log());
}
