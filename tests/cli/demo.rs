//! `rekeyd demo --once`, README's first command, as a person gives it: what it says, with what it ends, and that nothing of it
//! runs on or lies about but what it says stays. Its clouds are meddled with from outside, as its guests are looked at.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stage::{Running, Said, ask, fetch, rekeyd, said};

/// What it says where all is well.
const WELL: &str = "every machine that was to be rotated accepts exactly the newest key, in its guest; power is as it was; no \
                    other key pair of rekeyd's is left; no rule of a cloud was broken";
/// The fleets of its file.
const FLEETS: [&str; 4] = ["bcc", "cvm", "ecs", "lighthouse"];

/// A demo, with a place for temporary files that is all its own.
struct Demo {
    room: tempfile::TempDir,
    running: Running,
}

impl Demo {
    fn start() -> Self {
        let room = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        std::fs::create_dir(room.path().join("tmp")).unwrap();
        let file = |name: &str| std::fs::File::create(room.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekeyd"));
        command.args(["demo", "--once"]).env("TMPDIR", room.path().join("tmp")).env_remove("REKEYD_CONFIG");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).process_group(0);
        Self { running: Running(command.spawn().unwrap()), room }
    }

    fn words(&self, name: &str) -> String {
        std::fs::read_to_string(self.room.path().join(name)).unwrap()
    }

    fn ends(mut self) -> (Said, Self) {
        // Half a minute by itself, and it runs beside others.
        let code = self.running.code_within(Duration::from_secs(400));
        let said = Said { code: code.unwrap_or(-1), out: self.words("out"), err: self.words("err") };
        (said, self)
    }

    /// Its own directory: the only thing that it leaves.
    fn directory(&self) -> PathBuf {
        let left: Vec<PathBuf> =
            std::fs::read_dir(self.room.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [directory] = left.as_slice() else { panic!("{left:?}") };
        assert!(directory.file_name().unwrap().to_str().unwrap().starts_with("rekeyd-demo-"), "{left:?}");
        directory.clone()
    }

    /// Nothing of it runs: neither in its process group nor with a file of its place in its command line (sshd's, say). The
    /// last session may take a moment to see that its line is closed.
    fn assert_gone(&self) {
        let began = Instant::now();
        while let Some(runs) = self.left_running() {
            assert!(began.elapsed() < Duration::from_secs(10), "{runs}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left_running(&self) -> Option<String> {
        let (group, place) = (self.running.0.id().to_string(), self.room.path().display().to_string());
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let read = |name: &str| {
                let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (stat, line) = (read("stat"), read("cmdline"));
            // Behind the name, in which anything may stand: state, parent, group.
            let of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(2));
            (of == Some(group.as_str()) || line.contains(&place)).then(|| format!("{stat}: {line}"))
        })
    }

    /// The control port of its clouds, by asking each port on which it listens.
    fn control(&self) -> String {
        let ports = || -> BTreeSet<u16> {
            let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{}/fd", self.running.0.id()))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| std::fs::read_link(entry.path()).ok()?.to_str().map(str::to_string))
                .collect();
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let ours = rows.filter(|row| row[3] == "0A" && sockets.contains(&format!("socket:[{}]", row[9])));
            ours.map(|row| u16::from_str_radix(row[1].split_once(':').unwrap().1, 16).unwrap()).collect()
        };
        let began = Instant::now();
        loop {
            for port in ports() {
                let address = format!("127.0.0.1:{port}");
                if fetch(&address, "/violations").is_ok_and(|(_, body)| body.starts_with("{\"violations\":")) {
                    return address;
                }
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{} {}", self.words("out"), self.words("err"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What reads its journals afterwards.
fn reads(directory: &Path, arguments: &[&str]) -> Said {
    said(rekeyd(&directory.join("rekeyd.yaml"), arguments).output().unwrap())
}

#[test]
fn readmes_first_command_rotates_every_fleet_twice_ends_with_0_and_leaves_nothing_but_what_it_says() {
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains("$ cargo run --release -- demo ")
            && readme.contains("`demo --once` ends after the first round")
    );
    let (said, demo) = Demo::start().ends();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains(WELL) && !said.out.contains("fell short"), "{said:?}");
    // A row for each fleet: both rotations, the older pair retired, the private key in custody.
    for fleet in FLEETS {
        let row = said.out.lines().rev().find(|line| line.trim_start().starts_with(&format!("{fleet} ")));
        let row: Vec<&str> = row.unwrap_or_else(|| panic!("{fleet}: {said:?}")).split_whitespace().collect();
        assert_eq!(row[1], "2", "{fleet}: {said:?}");
    }
    demo.assert_gone();
    let directory = demo.directory();
    assert!(said.out.contains(&format!("config    {}", directory.join("rekeyd.yaml").display())), "{said:?}");
    // Its database was closed, its lock let go.
    let left = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.ends_with("-wal") || name.ends_with("-shm")).count(), 0);
    // What it says of where to look works with the clouds gone.
    for verb in [&["status"][..], &["history"], &["show", FLEETS[0]]] {
        let line = format!("--config {} {}", directory.join("rekeyd.yaml").display(), verb[0]);
        assert!(said.out.contains(&line), "{line}: {said:?}");
        let read = reads(&directory, verb);
        assert_eq!(read.code, 0, "{verb:?}: {read:?}");
    }
    let journals = reads(&directory, &["history", "--json"]);
    let journals: serde_json::Value = serde_json::from_str(&journals.out).unwrap();
    let rotations = journals["journals"].as_array().unwrap().iter().filter(|one| one["kind"] == "rotation");
    assert!(rotations.filter(|one| one["outcome"] == "completed").count() >= 2 * FLEETS.len(), "{journals:#}");
}

#[test]
fn a_demo_that_falls_short_says_where_at_once_ends_with_1_and_leaves_nothing_either() {
    let demo = Demo::start();
    let control = demo.control();
    for kind in rekeyd::model::ProviderKind::ALL {
        // Nobody may be bound any more.
        for action in
            rekeyd::provider::changes(kind).filter(|action| action.contains("ttach") || action.starts_with("Assoc"))
        {
            let path = format!("/meddle?denies={kind}:{action}");
            assert_eq!(ask(&control, "POST", &path).unwrap(), (204, String::new()), "{path}");
        }
    }
    let began = Instant::now();
    let (said, demo) = demo.ends();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
    for fleet in FLEETS {
        assert!(said.out.contains(&format!("fell short: {fleet}: held: ")), "{fleet}: {said:?}");
        assert!(said.out.contains(&format!("fell short: {fleet}: no rotation completed")), "{fleet}: {said:?}");
    }
    assert!(!said.out.contains(WELL), "{said:?}");
    demo.assert_gone();
    assert_eq!(reads(&demo.directory(), &["status"]).code, 0);
}
