//! The life of the process: signals, a second daemon beside the first, the service manager, who may change things.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};

use crate::house::{House, stop, wait};
use crate::stage::{Clouds, fetch, said};

const LH: &str = "tencent-lighthouse";

#[test]
fn told_to_stop_it_ends_within_ten_seconds_though_calls_take_five_and_told_twice_at_once() {
    let clouds = Clouds::open(&["--instances", "3", "--latency", "5s"]);
    let house = House::of(&clouds, &[LH, "baidu-bcc"]);
    {
        let mut daemon = house.daemon();
        let rotates = [LH, "baidu-bcc"].map(|fleet| house.start(&["rotate", fleet], &format!("rotate-{fleet}")));
        // Calls are under way: some of what was begun, and none is shorter.
        std::thread::sleep(Duration::from_millis(12500));
        stop(&house, &mut daemon);
        drop(rotates);
        assert!(house.log_has(&["told to stop"]), "{}", house.log());
    }
    let mut daemon = house.daemon();
    std::thread::sleep(Duration::from_millis(2500));
    daemon.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    daemon.signal("TERM");
    let code = daemon.code_within(Duration::from_secs(12));
    assert!(code.is_some() && began.elapsed() < Duration::from_secs(1), "{code:?} after {:?}", began.elapsed());
    stop(&house, &mut house.daemon());
}

#[test]
fn stopped_and_started_again_and_again_it_goes_on_and_nobody_stays_switched_off() {
    let clouds = Clouds::open(&["--instances", "8", "--operation-time", "600ms", "--faults", "delay=0.05:5s"]);
    let fleets = [LH, "tencent-cvm"];
    let mut house = House::of(&clouds, &fleets);
    let before = fleets.map(|fleet| house.before(fleet));
    let (_, schedule) = crate::house::soon(4, 1);
    house.schedule(Some(&schedule));
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut chance = rand::rngs::StdRng::seed_from_u64(seed);
    let mut daemon = house.daemon();
    assert!(wait(30, || (house.disturbing_calls(LH) > 0).then_some(())).is_some(), "{}", house.log());
    for _ in 0..3 {
        stop(&house, &mut daemon);
        daemon = house.daemon();
        std::thread::sleep(Duration::from_millis(chance.random_range(100..4000)));
    }
    for (fleet, (planned, before)) in fleets.iter().zip(&before) {
        house.settled(fleet, 100);
        assert_eq!(house.down(fleet, before), Vec::<String>::new(), "seed {seed}: {}", house.log());
        house.assert_rotated(fleet, planned, before);
        assert_eq!(house.rotations(fleet).len(), 1, "seed {seed}: {}", house.log());
    }
    stop(&house, &mut daemon);
}

#[test]
fn a_second_daemon_serves_its_pages_waits_and_takes_over_when_the_first_one_dies() {
    let clouds = Clouds::open(&["--instances", "8", "--latency", "5ms", "--operation-time", "600ms"]);
    let house = House::of(&clouds, &[LH]);
    let (planned, before) = house.before(LH);
    let mut first = house.daemon();
    let (file, listen) = house.second_file();
    let mut second = house.start_of(file, &["run"], "second");
    let unready = wait(10, || match fetch(&listen, "/readyz") {
        Ok((503, why)) if why.contains("another rekeyd drives") => Some(why),
        _ => None,
    });
    assert!(unready.is_some(), "{:?}: {}", fetch(&listen, "/readyz"), house.words("second"));
    assert_eq!(fetch(&listen, "/healthz").unwrap().0, 200);
    let driver = |listen: &str| crate::house::value(&fetch(listen, "/metrics").unwrap().1, "rekeyd_driver", &[]);
    assert_eq!((driver(&house.listen), driver(&listen)), (Some(1.0), Some(0.0)));
    assert_eq!(fetch(&house.listen, "/readyz").unwrap().0, 200);

    let rotate = house.start(&["rotate", LH], "rotate");
    assert!(wait(30, || (house.disturbing_calls(LH) > 0).then_some(())).is_some(), "{}", house.log());
    drop(rotate);
    first.kill();
    let took_over = wait(5, || (fetch(&listen, "/readyz").ok()?.0 == 200).then_some(()));
    assert!(took_over.is_some(), "{}", house.words("second"));
    assert_eq!(driver(&listen), Some(1.0));
    house.settled(LH, 60);
    assert_eq!(house.rotations(LH).len(), 1);
    house.assert_rotated(LH, &planned, &before);

    second.signal("INT");
    assert_eq!(second.code_within(Duration::from_secs(10)), Some(0), "{}", house.words("second"));
}

#[test]
fn a_daemon_that_waits_ends_when_told_to() {
    let clouds = Clouds::open(&["--instances", "2"]);
    let house = House::of(&clouds, &[LH]);
    let mut first = house.daemon();
    let (file, listen) = house.second_file();
    let mut second = house.start_of(file, &["run"], "second");
    assert!(wait(10, || fetch(&listen, "/readyz").ok()).is_some(), "{}", house.words("second"));
    second.signal("TERM");
    assert_eq!(second.code_within(Duration::from_secs(3)), Some(0), "{}", house.words("second"));
    stop(&house, &mut first);
}

#[test]
fn the_service_manager_hears_ready_the_watchdog_and_stopping() {
    let clouds = Clouds::open(&["--instances", "2"]);
    let house = House::of(&clouds, &[LH]);
    let path = house.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let log = std::fs::File::create(house.path("log")).unwrap();
    let child = house.command(&["run"]).env("NOTIFY_SOCKET", &path).stderr(log).spawn().unwrap();
    let mut daemon = crate::stage::Running(child);
    let hear = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("nothing heard: {error}: {}", house.log()));
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let says = |text: &str, word: &str| text.lines().any(|line| line == word);
    loop {
        let heard = hear();
        if says(&heard, "READY=1") {
            break;
        }
        assert!(!heard.contains("WATCHDOG"), "before it is ready: {heard}");
    }
    assert!(house.path("lib/rekeyd.db").exists());
    assert!(house.metric("rekeyd_driver", &[]) == Some(1.0), "the port does not answer yet");
    let began = Instant::now();
    let mut barks = 0;
    while began.elapsed() < Duration::from_secs(5) {
        barks += u32::from(says(&hear(), "WATCHDOG=1"));
    }
    assert!((4..=12).contains(&barks), "{barks} in 5 s");
    daemon.signal("TERM");
    let began = Instant::now();
    while !says(&hear(), "STOPPING=1") {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not say that it stops");
    }
    assert_eq!(daemon.code_within(Duration::from_secs(10)), Some(0));
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let room = tempfile::tempdir().unwrap();
    let text = include_str!("../../systemd/rekeyd.service");
    assert!(text.contains("ExecStart=/usr/bin/rekeyd run\n"));
    let unit = room.path().join("rekeyd.service");
    std::fs::write(&unit, text.replace("/usr/bin/rekeyd", env!("CARGO_BIN_EXE_rekeyd"))).unwrap();
    let said = said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap());
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
}

#[test]
fn only_the_owner_of_custody_changes_anything_and_the_refusal_names_sudo() {
    let clouds = Clouds::open(&["--instances", "2", "--latency", "5ms"]);
    let house = House::of(&clouds, &[LH]);
    house.done(&["rotate", LH]);
    let keys = house.path("lib/keys");
    if std::fs::metadata(&keys).unwrap().uid() != 0 {
        println!("skipped: only root can give custody to another account");
        return;
    }
    // Debian's nobody.
    chown(&keys, Some(65534), None).unwrap();
    let entries = || std::fs::read(house.path("lib/rekeyd.db")).unwrap();
    let before = entries();
    for verb in [&["run"][..], &["rotate", LH], &["hold", LH], &["hold", "--all"], &["release", LH], &["abandon", LH]] {
        let way_on = format!("sudo -u nobody rekeyd {}", verb.join(" "));
        house.refused(verb, &[&way_on]);
    }
    assert_eq!(entries(), before, "a refused verb wrote something");
    assert_eq!(house.run(&["status"]).code, 0, "reading is free");
}
