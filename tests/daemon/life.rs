//! The life of the process: signals, a second daemon beside the first, who may change things.

use std::os::unix::fs::{MetadataExt, chown};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};

use crate::house::{House, stop, wait};
use crate::stage::{Clouds, fetch};

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
    // It reads its file anew meanwhile, as one that drives.
    let read = || {
        let page = fetch(&listen, "/metrics").unwrap().1;
        crate::house::value(&page, "rekeyd_config_last_reload_success_timestamp_seconds", &[])
    };
    let before = read();
    second.signal("HUP");
    assert!(wait(10, || (read() > before).then_some(())).is_some(), "{before:?}: {}", house.words("second"));
    second.signal("TERM");
    assert_eq!(second.code_within(Duration::from_secs(3)), Some(0), "{}", house.words("second"));
    stop(&house, &mut first);
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
