//! The daemon as systemd's service: what it tells the service manager and the journal, the unit's own correctness, and verbs
//! in a shell that has none of the unit's credentials.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor};

use crate::house::{House, stop, wait};
use crate::stage::{Clouds, Running, said};

const LH: &str = "tencent-lighthouse";
const SLOW: [&str; 6] = ["--instances", "8", "--latency", "5ms", "--operation-time", "700ms"];

/// A service manager: a datagram socket, and all that was said into it.
struct Manager {
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
    path: std::path::PathBuf,
}

impl Manager {
    fn of(house: &House<'_>) -> Self {
        let (path, heard) = (house.path("notify"), Arc::new(Mutex::new(Vec::new())));
        let (socket, hears) = (UnixDatagram::bind(&path).unwrap(), heard.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                hears.lock().unwrap().push((Instant::now(), text));
            }
        });
        Self { heard, path }
    }

    fn start(&self, house: &House<'_>) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(house.path("log")).unwrap();
        let mut command = house.command(&["run"]);
        Running(command.env("NOTIFY_SOCKET", &self.path).stderr(log).spawn().unwrap())
    }

    /// What was said since this moment, datagram by datagram.
    fn since(&self, moment: Instant) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(at, _)| *at >= moment).map(|(_, text)| text.clone()).collect()
    }

    fn pings(&self, moment: Instant) -> usize {
        self.since(moment).iter().filter(|text| text.lines().any(|line| line == "WATCHDOG=1")).count()
    }

    /// Waits until a line is said that has all these words; the line.
    fn hears(&self, house: &House<'_>, since: Instant, words: &[&str]) -> String {
        let heard = wait(40, || {
            let lines = self.since(since).join("\n");
            lines.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_string)
        });
        heard.unwrap_or_else(|| panic!("{words:?} not in {:#?}\n{}", self.since(since), house.log()))
    }
}

#[test]
fn the_service_manager_hears_when_it_is_ready_what_it_does_that_it_lives_that_it_reloads_and_that_it_stops() {
    let clouds = Clouds::open(&SLOW);
    let house = House::of(&clouds, &[LH]);
    let (manager, start) = (Manager::of(&house), Instant::now());
    let mut daemon = manager.start(&house);
    manager.hears(&house, start, &["READY=1"]);
    assert!(manager.pings(start) <= 1, "it lives before it is ready: {:#?}", manager.since(start));
    assert_eq!(house.metric("rekeyd_driver", &[]), Some(1.0), "the port does not answer yet");
    manager.hears(&house, start, &["STATUS=driving 1 fleet; no rotation is open"]);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    assert!((3..=9).contains(&manager.pings(began)), "{:#?}", manager.since(began));

    // What it does: who is at which step, how far; then that it is held, and since when.
    let rotate = house.start(&["rotate", LH], "rotate");
    manager.hears(&house, start, &["STATUS=driving 1 fleet; tencent-lighthouse: ", "canary", " done"]);
    manager.hears(&house, start, &["STATUS=driving 1 fleet; tencent-lighthouse: ", "batch 1 of "]);
    house.done(&["hold", LH]);
    let today = jiff::Timestamp::now().strftime("%Y-%m-%dT").to_string();
    let held = format!("tencent-lighthouse: held since {today}");
    manager.hears(&house, start, &[held.as_str(), "Z (operator), "]);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    assert!(manager.pings(began) >= 3, "a held rotation is no reason to be killed: {:#?}", manager.since(began));

    // After a start it knows since when.
    stop(&house, &mut daemon);
    let again = Instant::now();
    let mut daemon = manager.start(&house);
    manager.hears(&house, again, &[held.as_str()]);

    let reload = Instant::now();
    daemon.signal("HUP");
    let ready = || {
        let heard = manager.since(reload);
        let begun = heard.iter().position(|text| text.lines().any(|line| line == "RELOADING=1"))?;
        let usec = heard[begun].lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="))?.parse::<u64>().ok()?;
        let up: f64 = std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((up - usec as f64 / 1e6).abs() < 60.0, "{usec} is not the time since the boot, {up} s");
        heard[begun..].iter().any(|text| text.lines().any(|line| line == "READY=1")).then_some(())
    };
    assert!(wait(20, ready).is_some(), "{:#?}\n{}", manager.since(reload), house.log());

    drop(rotate);
    let end = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.code_within(Duration::from_secs(10)), Some(0), "{}", house.log());
    manager.hears(&house, end, &["STOPPING=1"]);
}

#[test]
fn the_watchdog_hears_nothing_while_the_loop_cannot_finish_a_turn_and_hears_it_again_when_it_can() {
    let clouds = Clouds::open(&["--instances", "2", "--latency", "5ms", "--operation-time", "50ms"]);
    let mut house = House::of(&clouds, &[LH]);
    house.done(&["rotate", LH]);
    // Each turn has a due time to keep, and nothing begins.
    house.done(&["hold", LH]);
    house.schedule(Some("* * * * * *"));
    let (manager, start) = (Manager::of(&house), Instant::now());
    let mut daemon = manager.start(&house);
    manager.hears(&house, start, &["READY=1"]);
    manager.hears(&house, start, &["WATCHDOG=1"]);

    // Somebody else writes to the database, and does not come to an end.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.path("lib/rekeyd.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut connection = runtime.block_on(sqlx::SqliteConnection::connect_with(&options)).unwrap();
    runtime.block_on(connection.execute("BEGIN IMMEDIATE")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let stuck = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(manager.pings(stuck), 0, "a stuck loop says that it lives: {:#?}", manager.since(stuck));
    assert_eq!(daemon.0.try_wait().unwrap(), None);
    let freed = Instant::now();
    runtime.block_on(connection.execute("ROLLBACK")).unwrap();
    manager.hears(&house, freed, &["WATCHDOG=1"]);
    drop((connection, runtime));
    stop(&house, &mut daemon);
}

/// The unit with our program in the place of the installed one, in a folder of its own.
pub fn unit(room: &std::path::Path) -> std::path::PathBuf {
    let text = include_str!("../../systemd/rekeyd.service");
    assert!(text.contains("ExecStart=/usr/bin/rekeyd run\n"));
    let unit = room.join("rekeyd.service");
    std::fs::write(&unit, text.replace("/usr/bin/rekeyd", env!("CARGO_BIN_EXE_rekeyd"))).unwrap();
    unit
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit_and_its_exposure_is_1_1_or_less() {
    let room = tempfile::tempdir().unwrap();
    let unit = unit(room.path());
    let verify = || said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap());
    let verified = verify();
    assert_eq!((verified.code, verified.out.as_str(), verified.err.as_str()), (0, "", ""));
    let secure = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=11"])
        .arg(&unit)
        .output()
        .unwrap();
    assert!(secure.status.success(), "{}", said(secure).out);
    // What it would say of a key that there is not, it says in no other way than by words.
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("ProtectProc=", "ProtectProk=")).unwrap();
    let misspelt = verify();
    assert!(misspelt.err.contains("ProtectProk"), "{misspelt:?}");
}

#[test]
fn the_account_and_its_places_are_made_as_the_unit_needs_them() {
    let room = tempfile::tempdir().unwrap();
    let root = room.path().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    let file = |name: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    let mut sysusers = Command::new("systemd-sysusers");
    sysusers.arg(format!("--root={}", root.display())).arg(file("rekeyd.sysusers"));
    let made = said(sysusers.output().unwrap());
    assert_eq!(made.code, 0, "{made:?}");
    let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    let words: Vec<&str> = users.lines().find(|line| line.starts_with("rekeyd:")).unwrap().split(':').collect();
    assert_eq!((words[5], words[6]), ("/var/lib/rekeyd", "/usr/sbin/nologin"), "{users}");
    if std::fs::metadata(room.path()).unwrap().uid() != 0 {
        println!("skipped: only root can give directories to another account");
        return;
    }
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    tmpfiles.arg("--create").arg(format!("--root={}", root.display())).arg(file("rekeyd.tmpfiles"));
    let made = said(tmpfiles.output().unwrap());
    assert_eq!((made.code, made.err.as_str()), (0, ""), "{made:?}");
    let state = std::fs::metadata(root.join("var/lib/rekeyd")).unwrap();
    assert_eq!((state.mode() & 0o777, state.uid().to_string().as_str()), (0o700, words[2]));
    assert_eq!(std::fs::metadata(root.join("etc/rekeyd")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn the_journal_gets_priorities_where_stderr_is_its_stream_and_nobody_else_does() {
    let clouds = Clouds::open(&["--instances", "3", "--latency", "5ms", "--operation-time", "100ms"]);
    let house = House::of(&clouds, &[LH]);
    let run = |format: &str, stream: &dyn Fn(&std::fs::Metadata) -> String| {
        let name = format!("log-{format}-{}", house.rotations(LH).len());
        let log = std::fs::File::create(house.path(&name)).unwrap();
        let mut command = house.command(&["run", "--log-format", format]);
        command.env("JOURNAL_STREAM", stream(&log.metadata().unwrap()));
        let mut daemon = Running(command.stderr(log).spawn().unwrap());
        let drives = wait(20, || house.words(&name).contains("driving").then_some(()));
        assert!(drives.is_some(), "{}", house.words(&name));
        house.done(&["rotate", LH]);
        stop(&house, &mut daemon);
        house.words(&name)
    };
    house.done(&["rotate", LH]);
    let ours = |about: &std::fs::Metadata| format!("{}:{}", about.dev(), about.ino());
    let fields = ["fleet", "rotation", "instance", "step", "action", "request_id"];
    let text = run("auto", &ours);
    for line in text.lines() {
        assert!(line.starts_with("<6>rekeyd") || line.starts_with("<4>") || line.starts_with("<3>"), "{line}");
    }
    for field in fields {
        let has = |line: &str| line.starts_with("<6>rekeyd::journal: ") && line.contains(&format!(" {field}="));
        assert!(text.lines().any(has), "{field}: {text}");
    }
    let json = run("json", &ours);
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line.split_once('>').unwrap().1).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
    for field in fields {
        assert!(json.lines().any(|line| line.starts_with("<6>{") && line.contains(&format!("\"{field}\":"))), "{json}");
    }
    // A daemon that was started by a unit, and whose stderr goes to a file.
    let file = run("auto", &|about| format!("{}:{}", about.dev(), about.ino() + 1));
    assert!(file.lines().all(|line| line.starts_with("20")), "{file}");
}

#[test]
fn a_verb_that_misses_the_units_credentials_shows_the_command_that_gives_them_and_systemd_takes_it() {
    let clouds = Clouds::open(&["--instances", "2", "--latency", "5ms", "--operation-time", "50ms"]);
    let house = House::of(&clouds, &[LH, "baidu-bcc"]);
    // Lighthouse's, the first account of the file, are systemd's; Baidu's stay in the environment.
    let text = std::fs::read_to_string(house.config()).unwrap();
    let text = text
        .replace("{ env: ID_0 }", "{ credential: lh-id }")
        .replace("{ env: SECRET_0 }", "{ credential: lh-secret }");
    std::fs::write(house.config(), text).unwrap();
    let room = tempfile::tempdir().unwrap();
    for verb in [
        &["plan", LH][..],
        &["drift"],
        &["drift", LH],
        &["adopt", "--dry-run"],
        &["rotate", LH],
        &["adopt"],
        &["check"],
    ] {
        let said = house.run(verb);
        assert_eq!(said.code, 1, "{verb:?}: {said:?}");
        let line = said.err.lines().map(str::trim).find(|line| line.starts_with("sudo systemd-run "));
        let line = line.unwrap_or_else(|| panic!("{verb:?}: {said:?}"));
        let end = format!(" {} --config {} {}", env!("CARGO_BIN_EXE_rekeyd"), house.config().display(), verb.join(" "));
        assert!(line.ends_with(&end), "{line} does not end with {end}");
        assert!(line.contains(" --pty ") && line.contains(" --uid="), "{line}");
        // Its properties, as a unit's lines.
        let words: Vec<&str> = line.split(' ').collect();
        let properties: Vec<&str> = words.windows(2).filter(|pair| pair[0] == "-p").map(|pair| pair[1]).collect();
        assert_eq!(
            properties,
            ["LoadCredential=lh-id:/etc/credstore/lh-id", "LoadCredential=lh-secret:/etc/credstore/lh-secret"]
        );
        let unit = room.path().join("run.service");
        std::fs::write(&unit, format!("[Service]\nExecStart=/bin/true\n{}\n", properties.join("\n"))).unwrap();
        let verified = crate::stage::said(
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap(),
        );
        assert_eq!((verified.code, verified.err.as_str()), (0, ""), "{properties:?}");
    }
    // Whoever needs them not goes on; and with them all is well, through a daemon too, which alone needs to have them.
    assert_eq!(house.run(&["plan", "baidu-bcc"]).code, 2);
    let cloud = &house.clouds.ready["clouds"][0];
    for (name, value) in [("lh-id", "access_key_id"), ("lh-secret", "access_key_secret")] {
        std::fs::write(room.path().join(name), cloud[value].as_str().unwrap()).unwrap();
    }
    let log = std::fs::File::create(house.path("log")).unwrap();
    let mut command = house.command(&["run"]);
    let mut daemon = Running(command.env("CREDENTIALS_DIRECTORY", room.path()).stderr(log).spawn().unwrap());
    assert!(wait(20, || house.log_has(&["driving"]).then_some(())).is_some(), "{}", house.log());
    house.done(&["rotate", LH]);
    stop(&house, &mut daemon);
}
