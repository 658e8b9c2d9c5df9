//! A stage for the real program: simulated clouds in a process of their own, a config file, store and custody in a
//! temporary directory. What a test looks at is what an operator would: exit codes, output, files, the clouds.

// Each test program needs its own part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `rekeyd sim` in a process of its own, ended when it is dropped.
pub struct Clouds {
    child: Child,
    pub ready: Value,
    _room: tempfile::TempDir,
}

impl Clouds {
    pub fn open(options: &[&str]) -> Self {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_rekeyd"))
            .arg("sim")
            .arg("--ready-file")
            .arg(&file)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let text = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "the simulator is not ready: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, ready: serde_json::from_str(&text).unwrap(), _room: room }
    }

    /// Names of the clouds that it serves.
    pub fn providers(&self) -> Vec<String> {
        let clouds = self.ready["clouds"].as_array().unwrap();
        clouds.iter().map(|cloud| cloud["provider"].as_str().unwrap().to_string()).collect()
    }

    fn control(&self, path: &str) -> Value {
        let address = self.ready["control"].as_str().unwrap().strip_prefix("http://").unwrap();
        serde_json::from_str(&fetch(address, path).unwrap().1).unwrap()
    }

    /// The truth about one cloud.
    pub fn state(&self, provider: &str) -> Value {
        let state = self.control("/state");
        state["clouds"].as_array().unwrap().iter().find(|cloud| cloud["provider"] == provider).unwrap().clone()
    }

    /// How a cloud's instances stand.
    pub fn picture(&self, provider: &str) -> Picture {
        let state = self.state(provider);
        let instances = state["instances"].as_array().unwrap().iter();
        let one = |instance: &Value| {
            let pairs = instance["key_pairs"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_string());
            let state = instance["state"].as_str().unwrap().to_string();
            (instance["id"].as_str().unwrap().to_string(), (state, pairs.collect()))
        };
        instances.map(one).collect()
    }

    /// One instance as the control port tells it.
    pub fn instance(&self, provider: &str, id: &str) -> Value {
        let state = self.state(provider);
        state["instances"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone()
    }

    /// Meddles with a machine, and is obeyed.
    pub fn post(&self, path: &str) {
        let address = self.ready["control"].as_str().unwrap().strip_prefix("http://").unwrap();
        assert_eq!(ask(address, "POST", path).unwrap(), (204, String::new()), "{path}");
    }

    /// Meddles over the control port.
    pub fn meddle(&self, query: &str) {
        self.post(&format!("/meddle?{query}"));
    }

    pub fn violations(&self) -> Value {
        self.control("/violations")["violations"].clone()
    }
}

impl Drop for Clouds {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One fleet, `web`, of one cloud.
pub struct Stage {
    pub room: tempfile::TempDir,
    pub provider: String,
    secrets: BTreeMap<&'static str, String>,
}

/// How a fleet's instances stood, by id: state and key pairs.
pub type Picture = BTreeMap<String, (String, BTreeSet<String>)>;

impl Stage {
    pub fn of(clouds: &Clouds, provider: &str, more: &str) -> Self {
        Self::with_verify(clouds, provider, "none", more)
    }

    /// The same, with logins into the simulator's guests as proof.
    pub fn proving(clouds: &Clouds, provider: &str, more: &str) -> Self {
        let ssh = &clouds.ready["clouds"][0]["ssh"];
        let (user, port) = (ssh["user"].as_str().unwrap(), &ssh["port"]);
        let login = format!("{{ ssh: {{ user: {user}, port: {port}, address: private, deadline: 6s }} }}");
        Self::with_verify(clouds, provider, &login, more)
    }

    fn with_verify(clouds: &Clouds, provider: &str, verify: &str, more: &str) -> Self {
        let room = tempfile::tempdir().unwrap();
        let cloud = clouds.ready["clouds"].as_array().unwrap().iter().find(|one| one["provider"] == provider).unwrap();
        let text = |name: &str| cloud[name].as_str().unwrap().to_string();
        let secrets = BTreeMap::from([("THE_ID", text("access_key_id")), ("THE_SECRET", text("access_key_secret"))]);
        let dir = room.path().join("lib");
        std::fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let config = format!(
            "store: sqlite://{dir}/rekeyd.db\n\
             custody: {{ directory: {dir}/keys, copies: [{dir}/copy] }}\n\
             accounts:\n  main:\n    provider: {provider}\n    endpoint: {endpoint}\n    credentials:\n      \
             access_key_id: {{ env: THE_ID }}\n      access_key_secret: {{ env: THE_SECRET }}\n\
             fleets:\n  web:\n    account: main\n    region: {region}\n    tags: {tags}\n    key: {{ bits: 2048 }}\n    \
             rollout: {{ canary: 1, batch_max: 4, unavailable_max: 60%, failures_max: 20%, soak: 0s }}\n    \
             verify: {verify}\n    retire: {{ grace: 0s }}\n{more}",
            dir = dir.display(),
            endpoint = text("endpoint"),
            region = text("region"),
            tags = cloud["tags"],
        );
        std::fs::write(room.path().join("rekeyd.yaml"), config).unwrap();
        Self { room, provider: provider.to_string(), secrets }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rekeyd(&self.path("rekeyd.yaml"), arguments);
        command.envs(&self.secrets);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    /// Without the credentials: what the read verbs must do with.
    pub fn read(&self, arguments: &[&str]) -> Value {
        let said = said(rekeyd(&self.path("rekeyd.yaml"), arguments).arg("--json").output().unwrap());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// The same of what may not be there yet: null then.
    pub fn read_or_null(&self, arguments: &[&str]) -> Value {
        let said = said(rekeyd(&self.path("rekeyd.yaml"), arguments).arg("--json").output().unwrap());
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// Changes the config file.
    pub fn edit(&self, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(self.path("rekeyd.yaml")).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed);
        std::fs::write(self.path("rekeyd.yaml"), changed).unwrap();
    }

    /// Starts a verb and lets it run.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with("rekeyd.yaml", arguments, "log")
    }

    /// The same with another config file, and its words in another place.
    pub fn start_with(&self, config: &str, arguments: &[&str], log: &str) -> Running {
        let log = std::fs::File::create(self.path(log)).unwrap();
        let errors = log.try_clone().unwrap();
        let mut command = rekeyd(&self.path(config), arguments);
        Running(command.envs(&self.secrets).stdout(log).stderr(errors).spawn().unwrap())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// The ids that a plan has in batches.
    pub fn planned(&self) -> BTreeSet<String> {
        let said = self.run(&["plan", "web", "--json"]);
        assert_eq!(said.code, 2, "{said:?}");
        let plan: Value = serde_json::from_str(&said.out).unwrap();
        let batches = plan["batches"].as_array().unwrap().iter();
        let ids = batches.flat_map(|batch| batch["instances"].as_array().unwrap().clone());
        ids.map(|instance| instance["id"].as_str().unwrap().to_string()).collect()
    }

    pub fn picture(&self, clouds: &Clouds) -> Picture {
        clouds.picture(&self.provider)
    }

    /// [`assert_rotated`] of this fleet.
    pub fn assert_rotated(&self, clouds: &Clouds, planned: &BTreeSet<String>, before: &Picture) {
        let status = self.read(&["status", "web"]);
        assert_rotated(clouds, &self.provider, &self.path("lib"), &status["fleets"][0], planned, before);
    }
}

/// Holds the cloud of a fleet, the only one there, against what was promised: who was planned hangs on exactly the newest
/// pair, its power as before; nobody else was touched; of ours that pair alone is left, and custody has its private half.
pub fn assert_rotated(
    clouds: &Clouds,
    provider: &str,
    lib: &Path,
    fleet: &Value,
    planned: &BTreeSet<String>,
    before: &Picture,
) {
    assert!(fleet["open"].is_null(), "{fleet:#}");
    let name = fleet["last"]["key_pair"].as_str().unwrap();
    let state = clouds.state(provider);
    let prefix = name.split_once('_').unwrap().0.to_string() + "_";
    let pairs = state["key_pairs"].as_array().unwrap();
    let ours: Vec<&Value> = pairs.iter().filter(|pair| pair["name"].as_str().unwrap().starts_with(&prefix)).collect();
    assert_eq!(ours.len(), 1, "{provider}: {ours:#?}");
    assert_eq!(ours[0]["name"], name);
    let id = ours[0]["id"].as_str().unwrap().to_string();
    assert!(!planned.is_empty());
    for (instance, (power, keys)) in clouds.picture(provider) {
        let (power_before, keys_before) = &before[&instance];
        assert_eq!(&power, power_before, "{provider}: power of {instance}");
        let expected = if planned.contains(&instance) { &BTreeSet::from([id.clone()]) } else { keys_before };
        assert_eq!(&keys, expected, "{provider}: keys of {instance}");
    }
    for place in ["keys", "copy"] {
        let text = std::fs::read_to_string(lib.join(place).join(name)).unwrap();
        let key = rekeyd::model::PrivateKey::parse(text.into()).unwrap();
        let shown = rekeyd::model::PublicKey::parse(ours[0]["public_key"].as_str().unwrap()).unwrap();
        assert_eq!(*key.public(), shown);
        assert_eq!(fleet["last"]["fingerprint"], key.public().fingerprint().to_string());
    }
    assert_eq!(clouds.violations(), serde_json::json!([]), "{provider}");
}

/// A verb that runs, killed when it is dropped.
pub struct Running(pub Child);

impl Running {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    /// Its exit code, if it ends within this time. `None` also where a signal ended it.
    pub fn code_within(&mut self, time: Duration) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < time {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status and the body of a page.
pub fn fetch(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    ask(address, "GET", path)
}

pub fn ask(address: &str, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut_off = || std::io::Error::other(format!("cut off: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut_off)?;
    Ok((status, body.to_string()))
}

/// What a verb said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn rekeyd(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekeyd"));
    command.arg("--config").arg(config).args(arguments).stdin(Stdio::null()).env_remove("REKEYD_CONFIG");
    command
}
