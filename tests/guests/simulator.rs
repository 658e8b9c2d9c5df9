//! `rekeyd sim --sshd` in a process of its own, and the programs `ssh` and `ssh-keyscan` as its visitors. It must never
//! leave the process, or anything in its directory, behind.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long anything may take that takes a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Simulator {
    child: Child,
    pub ready: Value,
    pub room: tempfile::TempDir,
}

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// It was let in, and was told this.
    In(String),
    /// The key was refused.
    Refused,
    /// There was no talking to it.
    Away(String),
}

impl Simulator {
    pub fn command(room: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekeyd"));
        command.args(["sim", "--instances", "8", "--latency", "2ms", "--operation-time", "400ms"]);
        command.arg("--sshd").args(options).env("TMPDIR", room).stdout(Stdio::null()).kill_on_drop(true);
        command
    }

    pub async fn open(options: &[&str]) -> Self {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("ready.json");
        let child = Self::command(room.path(), options).arg("--ready-file").arg(&file).spawn().unwrap();
        let read = async || std::fs::read_to_string(&file).ok();
        let text = eventually("the ready file", read).await;
        Self { child, ready: serde_json::from_str(&text).unwrap(), room }
    }

    /// The port of the guests, and the user who may log in.
    pub fn ssh(&self) -> (u64, String) {
        let ssh = &self.ready["clouds"][0]["ssh"];
        for cloud in self.ready["clouds"].as_array().unwrap() {
            assert_eq!(&cloud["ssh"], ssh);
        }
        (ssh["port"].as_u64().unwrap(), ssh["user"].as_str().unwrap().to_string())
    }

    /// Asks the control port: the status, and the body.
    pub async fn control(&self, request: &str) -> (u16, String) {
        let address = self.ready["control"].as_str().unwrap().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }

    /// Meddles, and is obeyed.
    pub async fn post(&self, path: &str) {
        let answer = self.control(&format!("POST {path}")).await;
        assert_eq!(answer, (204, String::new()), "{path}");
    }

    /// An instance as the control port tells it.
    pub async fn truth(&self, instance: &str) -> Value {
        let (_, body) = self.control("GET /state").await;
        let state: Value = serde_json::from_str(&body).unwrap();
        let clouds = state["clouds"].as_array().unwrap().iter();
        let mut instances = clouds.flat_map(|cloud| cloud["instances"].as_array().unwrap().clone());
        instances.find(|one| one["id"] == instance).unwrap()
    }

    /// Waits until an instance is in this state.
    pub async fn comes_to(&self, instance: &str, state: &str) {
        let there = async || (self.truth(instance).await["state"] == state).then_some(());
        eventually(&format!("{instance} {state}"), there).await;
    }

    pub fn ssh_command(&self, address: &str, key: &Path) -> Command {
        let (port, user) = self.ssh();
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &port.to_string(), "-i"]).arg(key);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=20",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.arg(format!("{user}@{address}")).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub async fn login(&self, address: &str, key: &Path) -> Login {
        let said = self.ssh_command(address, key).arg("exit 7").output().await.unwrap();
        let (out, err) = texts(&said);
        match said.status.code() {
            Some(0) => Login::In(out.trim().to_string()),
            _ if err.contains("Permission denied (publickey)") => Login::Refused,
            _ => Login::Away(err),
        }
    }

    /// The host keys that it shows.
    pub async fn host_keys(&self, address: &str) -> Vec<String> {
        let port = self.ssh().0.to_string();
        let mut command = Command::new("ssh-keyscan");
        command.args(["-T", "20", "-p", &port, "-t", "ed25519,ecdsa", address]).kill_on_drop(true);
        let said = command.output().await.unwrap();
        let (out, err) = texts(&said);
        let mut keys: Vec<String> = out.lines().filter(|line| !line.starts_with('#')).map(str::to_string).collect();
        keys.sort();
        assert_eq!(keys.len(), 2, "{address}: {out}{err}");
        keys
    }

    /// Sends a signal to the simulator, and waits for its end.
    pub async fn end(&mut self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().await.unwrap().success());
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
    }

    /// Processes whose command line names the simulator's directory: its sshd.
    pub fn processes(&self) -> Vec<String> {
        let room = self.room.path().to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains("sshd") && line.contains(room)).collect()
    }

    /// What lies in the simulator's directory beside its ready file.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.room.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| !path.ends_with("ready.json")).collect()
    }
}

/// Asks until something comes of it.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn texts(said: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&said.stdout), text(&said.stderr))
}

/// A key of one's own, in a file as `ssh -i` takes it; its public line.
pub async fn new_key(path: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "", "-f"]).arg(path);
    assert!(command.status().await.unwrap().success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}
