//! Custody that is elsewhere, and away while the daemon starts: what is owed is paid all the same, for the machine that keeps
//! the keys may be the one that is off.

use std::fs;

use crate::house::{House, stop, wait};
use crate::stage::Clouds;

const ECS: &str = "alibaba-ecs";

/// Keys are kept by a program that fails while the file `away` is there.
fn kept_by_a_program(house: &House<'_>) {
    let lib = house.path("lib");
    let script = format!(
        "#!/bin/sh\nset -u\numask 077\nd={0}/keys\nmkdir -p $d {0}/copy\n[ ! -e {0}/away ] || {{ echo connection refused >&2; exit 1; }}\n\
         case $1 in\nput) cat >$d/.new.$2; ln $d/.new.$2 $d/$2 2>/dev/null || exit 2; rm $d/.new.$2; cp $d/$2 {0}/copy/;;\n\
         get) [ -e $d/$2 ] || exit 3; cat $d/$2;;\nlist) ls $d;;\ndestroy) rm -f $d/$2;;\nesac\n",
        lib.display()
    );
    fs::write(house.path("keeper"), script).unwrap();
    let text = fs::read_to_string(house.config()).unwrap();
    let line = text.lines().find(|line| line.starts_with("custody:")).unwrap();
    let keeper = house.path("keeper");
    let own = format!("custody: {{ exec: {{ command: [/bin/sh, {}], timeout: 20s }} }}", keeper.display());
    fs::write(house.config(), text.replace(line, &own)).unwrap();
}

#[test]
fn a_daemon_that_starts_while_custody_is_away_pays_what_it_owes_and_goes_on_when_custody_is_back() {
    let clouds = Clouds::open(&["--instances", "6", "--latency", "5ms", "--operation-time", "800ms"]);
    let house = House::of(&clouds, &[ECS]);
    kept_by_a_program(&house);
    let (planned, before) = house.before(ECS);

    // Nothing was ever kept: a daemon that cannot ask custody then does not know who it is.
    fs::write(house.path("lib/away"), "").unwrap();
    house.refused(&["run"], &["connection refused"]);
    fs::remove_file(house.path("lib/away")).unwrap();

    let mut daemon = house.daemon();
    let mut rotate = house.start(&["rotate", ECS], "rotate");
    let down = wait(60, || Some(house.down(ECS, &before)).filter(|down| !down.is_empty()));
    assert!(down.is_some(), "nobody was stopped: {}", house.log());
    daemon.kill();
    rotate.kill();
    fs::write(house.path("lib/away"), "").unwrap();

    // What would give the rotation up is refused before it does.
    let id = house.rotations(ECS)[0]["journal"].as_str().unwrap().to_string();
    house.refused(&["rollback", &id], &["connection refused"]);
    house.refused(&["rotate", ECS, "--compromised"], &["connection refused"]);
    assert!(!house.done(&["show", &id]).contains("given up"));

    let mut daemon = house.daemon();
    assert!(house.log_has(&["custody is away", "connection refused"]), "{}", house.log());
    house.done(&["hold", ECS]);
    let paid = wait(60, || house.down(ECS, &before).is_empty().then_some(()));
    assert!(paid.is_some(), "still down: {:?}\n{}", house.down(ECS, &before), house.log());
    assert!(house.rotations(ECS)[0]["outcome"].is_null(), "{:#?}", house.rotations(ECS));

    fs::remove_file(house.path("lib/away")).unwrap();
    house.done(&["release", ECS]);
    house.settled(ECS, 120);
    assert_eq!(house.completed(ECS), 1, "{:#?}", house.rotations(ECS));
    house.assert_rotated(ECS, &planned, &before);
    stop(&house, &mut daemon);
}
