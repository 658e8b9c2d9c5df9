//! A real Prometheus on loopback, and its HTTP API. It is ended when it is dropped, and leaves nothing behind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::path;

pub struct Prometheus {
    child: Child,
    address: String,
    room: tempfile::TempDir,
}

/// An address of this machine's that nobody else uses (`last` tells those of one process apart), with a port from the system.
pub fn address(last: u8) -> String {
    let pid = std::process::id();
    let host = format!("127.{}.{}.{last}", 1 + (pid >> 8) % 250, pid % 256);
    TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().to_string()
}

impl Prometheus {
    /// One that scrapes these targets, each a job and an address, each second, with our rules.
    pub fn open(targets: &[(&str, &str)]) -> Self {
        let room = tempfile::tempdir().unwrap();
        let jobs = targets
            .iter()
            .map(|(job, target)| format!("  - job_name: {job}\n    static_configs:\n      - targets: ['{target}']\n"));
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
             scrape_configs:\n{}",
            path("dashboards/alerts.yaml").display(),
            jobs.collect::<String>()
        );
        let file = room.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = address(251);
        let log = std::fs::File::create(room.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", room.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus (of Debian's package prometheus; tests/run installs it)");
        let mut server = Self { child, address, room };
        let began = Instant::now();
        while !matches!(server.get("/-/ready"), Ok((200, _))) {
            assert!(server.child.try_wait().unwrap().is_none(), "Prometheus ended: {}", server.log());
            assert!(began.elapsed() < Duration::from_secs(60), "Prometheus is not ready: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.room.path().join("log")).unwrap_or_default()
    }

    /// A page. HTTP/1.0: no answer in chunks.
    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Ok((status, body.to_string()))
    }

    /// The data of an answer of its API.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = self.get(&format!("/api/v1/{path}")).unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {path}: {body}"));
        assert!(status == 200 && answer["status"] == "success", "{path}: {status}: {body}: {}", self.log());
        answer["data"].clone()
    }

    /// The series that an expression has now.
    pub fn query(&self, expr: &str) -> Vec<Value> {
        let answer = self.api(&format!("query?query={}", utf8_percent_encode(expr, NON_ALPHANUMERIC)));
        assert_eq!(answer["resultType"], "vector", "{expr}");
        answer["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
