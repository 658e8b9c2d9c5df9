//! What an operator of the daemon has: a config file of several fleets, a store, custody, and a terminal. Each house has
//! a loopback address of its own, so that no other test's sockets take its port while the daemon is down.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Clouds, Picture, Running, Said, assert_rotated, fetch, rekeyd, said};

/// A fleet of the file.
#[derive(Clone)]
pub struct Fleet {
    pub provider: String,
    pub tags: Value,
    pub schedule: Option<String>,
    pub slack: &'static str,
    pub batch_max: usize,
}

/// The house.
pub struct House<'a> {
    pub room: tempfile::TempDir,
    pub clouds: &'a Clouds,
    pub fleets: BTreeMap<String, Fleet>,
    pub listen: String,
    pub copies: bool,
}

/// An address of this machine's that nobody else uses, with a port from the system.
fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // Of 127.0.0.0/8: outgoing connections come from 127.0.0.1, so this one's ports stay free.
    let host = format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 256, 1 + n % 250);
    std::net::TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().to_string()
}

impl<'a> House<'a> {
    /// A fleet named after each of these clouds, without a schedule.
    pub fn of(clouds: &'a Clouds, providers: &[&str]) -> Self {
        let room = tempfile::tempdir().unwrap();
        std::fs::DirBuilder::new().mode(0o700).create(room.path().join("lib")).unwrap();
        let mut house = Self { room, clouds, fleets: BTreeMap::new(), listen: address(), copies: true };
        for provider in providers {
            let fleet = Fleet {
                provider: provider.to_string(),
                tags: house.cloud(provider)["tags"].clone(),
                schedule: None,
                slack: "1h",
                batch_max: 4,
            };
            house.fleets.insert(provider.to_string(), fleet);
        }
        house.write();
        house
    }

    /// All fleets have this schedule.
    pub fn schedule(&mut self, schedule: Option<&str>) {
        self.fleets.values_mut().for_each(|fleet| fleet.schedule = schedule.map(str::to_string));
        self.write();
    }

    fn cloud(&self, provider: &str) -> &Value {
        let clouds = self.clouds.ready["clouds"].as_array().unwrap();
        clouds.iter().find(|cloud| cloud["provider"] == provider).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("rekeyd.yaml")
    }

    /// Writes the config file.
    pub fn write(&self) {
        self.write_as("rekeyd.yaml", &self.listen);
    }

    fn write_as(&self, name: &str, listen: &str) {
        let dir = self.path("lib");
        let copies = if self.copies { format!(", copies: [{}/copy]", dir.display()) } else { String::new() };
        let mut text = format!(
            "store: sqlite://{dir}/rekeyd.db\nlisten: {listen}\ncustody: {{ directory: {dir}/keys{copies} }}\naccounts:\n",
            dir = dir.display()
        );
        for (number, cloud) in self.clouds.ready["clouds"].as_array().unwrap().iter().enumerate() {
            let (provider, endpoint) = (cloud["provider"].as_str().unwrap(), cloud["endpoint"].as_str().unwrap());
            text += &format!(
                "  {provider}:\n    provider: {provider}\n    endpoint: {endpoint}\n    credentials: \
                 {{ access_key_id: {{ env: ID_{number} }}, access_key_secret: {{ env: SECRET_{number} }} }}\n"
            );
        }
        text += "fleets:\n";
        for (name, fleet) in &self.fleets {
            text += &format!(
                "  {name}:\n    account: {provider}\n    region: {region}\n    tags: {tags}\n    key: {{ bits: 2048 }}\n    \
                 rollout: {{ canary: 1, batch_max: {batch_max}, unavailable_max: 60%, failures_max: 20%, soak: 0s }}\n    \
                 verify: none\n    retire: {{ grace: 0s }}\n    schedule_slack: {slack}\n",
                provider = fleet.provider,
                region = self.cloud(&fleet.provider)["region"].as_str().unwrap(),
                tags = fleet.tags,
                batch_max = fleet.batch_max,
                slack = fleet.slack,
            );
            if let Some(schedule) = &fleet.schedule {
                text += &format!("    schedule: \"{schedule}\"\n");
            }
        }
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The same file with another place for the pages; its name and that place.
    pub fn second_file(&self) -> (PathBuf, String) {
        let listen = address();
        self.write_as("second.yaml", &listen);
        (self.path("second.yaml"), listen)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(self.config(), arguments)
    }

    fn command_of(&self, config: PathBuf, arguments: &[&str]) -> Command {
        let mut command = rekeyd(&config, arguments);
        for (number, cloud) in self.clouds.ready["clouds"].as_array().unwrap().iter().enumerate() {
            command.env(format!("ID_{number}"), cloud["access_key_id"].as_str().unwrap());
            command.env(format!("SECRET_{number}"), cloud["access_key_secret"].as_str().unwrap());
        }
        command.env_remove("RUST_LOG").env_remove("REKEYD_LOG_FORMAT").env_remove("NOTIFY_SOCKET");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    /// What is refused: exit 1, and the reason.
    pub fn refused(&self, arguments: &[&str], words: &[&str]) {
        let said = self.run(arguments);
        assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
        for word in words {
            assert!(said.err.contains(word), "{arguments:?}: {said:?} lacks {word:?}");
        }
    }

    /// What is done: exit 0.
    pub fn done(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}: {}", self.log());
        said.out
    }

    /// Starts a verb whose words go into a file.
    pub fn start(&self, arguments: &[&str], file: &str) -> Running {
        self.start_of(self.config(), arguments, file)
    }

    pub fn start_of(&self, config: PathBuf, arguments: &[&str], file: &str) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path(file)).unwrap();
        let errors = log.try_clone().unwrap();
        Running(self.command_of(config, arguments).stdout(log).stderr(errors).spawn().unwrap())
    }

    /// Starts the daemon, and waits until it drives.
    pub fn daemon(&self) -> Running {
        let mut daemon = self.daemon_at_once();
        wait(20, || {
            assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended: {}", self.log());
            matches!(fetch(&self.listen, "/readyz"), Ok((200, _))).then_some(())
        })
        .unwrap_or_else(|| panic!("the daemon is not ready: {}", self.log()));
        daemon
    }

    /// Starts the daemon.
    pub fn daemon_at_once(&self) -> Running {
        self.start(&["run", "--log-format", "json"], "log")
    }

    /// All that daemons of this house said.
    pub fn log(&self) -> String {
        self.words("log")
    }

    pub fn words(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    pub fn log_has(&self, words: &[&str]) -> bool {
        self.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// `status` of a fleet, as JSON, without a secret at hand.
    pub fn status(&self, fleet: &str) -> Value {
        let said = said(rekeyd(&self.config(), &["status", fleet, "--json"]).output().unwrap());
        let status: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        status["fleets"][0].clone()
    }

    /// The rotations of a fleet, newest first: its journals of that kind as `history` shows them.
    pub fn rotations(&self, fleet: &str) -> Vec<Value> {
        let said = said(rekeyd(&self.config(), &["history", fleet, "--json"]).output().unwrap());
        let history: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let journals = history["journals"].as_array().unwrap().iter();
        journals.filter(|journal| journal["kind"] == "rotation").cloned().collect()
    }

    pub fn completed(&self, fleet: &str) -> usize {
        self.rotations(fleet).iter().filter(|one| one["outcome"] == "completed").count()
    }

    /// Waits until nothing of a fleet is open, and nothing follows from what ended.
    pub fn settled(&self, fleet: &str, seconds: u64) {
        let mut calm = 0;
        let settled = wait(seconds, || {
            let status = self.status(fleet);
            calm = if status["open"].is_null() && status["retiring"] == serde_json::json!([]) { calm + 1 } else { 0 };
            // Between the end of a rotation and the beginning of its retire journal nothing is open.
            std::thread::sleep(Duration::from_millis(200));
            (calm > 4).then_some(())
        });
        assert!(settled.is_some(), "{fleet} is not at rest: {:#}\n{}", self.status(fleet), self.log());
    }

    /// Waits until nothing of a fleet that is held is under way.
    pub fn settled_or_held(&self, fleet: &str) {
        let still = wait(20, || {
            let open = &self.status(fleet)["open"];
            (open.is_null() || !open["held"].is_null()).then_some(())
        });
        assert!(still.is_some(), "{:#}\n{}", self.status(fleet), self.log());
    }

    /// Those that a rotation of a fleet would bind.
    pub fn planned(&self, fleet: &str) -> BTreeSet<String> {
        let said = self.run(&["plan", fleet, "--json"]);
        assert_eq!(said.code, 2, "{said:?}");
        let plan: Value = serde_json::from_str(&said.out).unwrap();
        let batches = plan["batches"].as_array().unwrap().iter();
        let ids = batches.flat_map(|batch| batch["instances"].as_array().unwrap().clone());
        ids.map(|instance| instance["id"].as_str().unwrap().to_string()).collect()
    }

    /// [`assert_rotated`] of a fleet that has its cloud for itself.
    pub fn assert_rotated(&self, fleet: &str, planned: &BTreeSet<String>, before: &Picture) {
        let provider = &self.fleets[fleet].provider;
        assert_rotated(self.clouds, provider, &self.path("lib"), &self.status(fleet), planned, before);
    }

    /// How a fleet stood before a test, for [`assert_rotated`](Self::assert_rotated).
    pub fn before(&self, fleet: &str) -> (BTreeSet<String>, Picture) {
        (self.planned(fleet), self.clouds.picture(&self.fleets[fleet].provider))
    }

    /// So many calls that bind, stop or reboot did a cloud get.
    pub fn disturbing_calls(&self, provider: &str) -> u64 {
        let state = self.clouds.state(provider);
        let calls = state["calls"].as_object().unwrap().iter();
        let disturbs = |action: &str| {
            let action = action.to_lowercase();
            let binds = ["associate", "attach", "bind"].iter().any(|word| action.contains(word));
            let takes_off = ["disassociate", "detach", "unbind"].iter().any(|word| action.contains(word));
            (binds && !takes_off) || action.contains("stop") || action.contains("reboot")
        };
        calls.filter(|(action, _)| disturbs(action)).map(|(_, number)| number.as_u64().unwrap()).sum()
    }

    /// Who ran before and does not now.
    pub fn down(&self, provider: &str, before: &Picture) -> Vec<String> {
        let now = self.clouds.picture(provider);
        let ran = |power: &str| power.eq_ignore_ascii_case("running");
        let down = before.iter().filter(|(id, (power, _))| ran(power) && !ran(&now[*id].0));
        down.map(|(id, _)| id.clone()).collect()
    }

    /// The live page of metrics.
    pub fn metrics(&self) -> String {
        let (status, page) = fetch(&self.listen, "/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        page
    }

    /// One value of it: a metric's name, and parts of its labels.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        value(&self.metrics(), name, labels)
    }

    /// Changes the database as no rekeyd would.
    pub fn spoil(&self, statement: &str) {
        use sqlx::{Connection, Executor};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path("lib/rekeyd.db"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            connection.execute("PRAGMA ignore_check_constraints = 1").await.unwrap();
            for table in ["journals", "entries", "planned_instances"] {
                for what in ["changed", "deleted"] {
                    let drop = format!("DROP TRIGGER {table}_are_not_{what}");
                    connection.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
                }
            }
            let statement = sqlx::AssertSqlSafe(statement.to_string());
            assert_eq!(connection.execute(statement).await.unwrap().rows_affected(), 1);
            connection.close().await.unwrap();
        });
    }
}

/// One value of a page of metrics.
pub fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let line = page.lines().filter(of).find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Asks again and again until there is an answer, or the time is up.
pub fn wait<T>(seconds: u64, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// Waits for a moment of the wall clock.
pub fn until(at: jiff::Timestamp) {
    let left = at.duration_since(jiff::Timestamp::now());
    std::thread::sleep(left.try_into().unwrap_or_default());
}

/// A schedule that is due some seconds from now, `times` times two seconds apart, and then not before tomorrow.
pub fn soon(seconds: i64, times: i8) -> (jiff::Timestamp, String) {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let mut at = now.checked_add(jiff::Span::new().seconds(seconds)).unwrap().round(jiff::Unit::Second).unwrap();
    if at.second() + 2 * (times - 1) > 59 {
        at = at.checked_add(jiff::Span::new().seconds(60 - i64::from(at.second()))).unwrap();
    }
    let each: Vec<String> = (0..times).map(|n| (at.second() + 2 * n).to_string()).collect();
    (at.timestamp(), format!("{} {} {} * * *", each.join(","), at.minute(), at.hour()))
}

/// Tells a process to end, and holds it against the promise: within 10 s, exit code 0.
pub fn stop(house: &House<'_>, daemon: &mut Running) {
    let began = Instant::now();
    daemon.signal("TERM");
    let code = daemon.code_within(Duration::from_secs(12));
    assert_eq!(code, Some(0), "{:?}: {}", daemon.0.try_wait().unwrap().map(|status| status.signal()), house.log());
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}: {}", began.elapsed(), house.log());
}
