//! One look in, a finding or a want out: the table of the design, "what a bind does to a machine, and what makes it
//! active", cloud by cloud.

use super::*;

/// A line is `SECOND STEP: LOOK => EXPECT`, about instance `a`; `settle` asks for the finding, the other steps for what
/// they want. The look `-` is an instance that the cloud does not know.
fn check(story: &Story, table: &str) {
    let rotation = story.rotation();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, expect) = line.split_once(" => ").unwrap_or_else(|| panic!("no row: {line}"));
        let (when, look) = asked.split_once(": ").unwrap();
        let (second, step) = when.split_once(' ').unwrap();
        let now = at(second.parse().unwrap());
        let instance = (look != "-").then(|| seen("a", look));
        let sight = instance.as_ref().map_or(Sight::Missing, Sight::Seen);
        let step = match step {
            "settle" => {
                let finding = rotation.finding(&"a".into(), sight, now);
                assert_eq!(finding.as_ref().map_or("-".into(), show_finding), expect, "{line}");
                continue;
            }
            "prepare" => Step::Prepare(0),
            "bind" => Step::Bind(0),
            "activate" => Step::Activate(0),
            other => panic!("{other}"),
        };
        assert_eq!(show_want(&rotation.want(step, &"a".into(), sight, now)), expect, "{line}");
    }
}

pub(super) fn begun(cloud: &str, fleet: &str, journal: &str, table: &str) {
    check(&Story::begun(cloud, fleet).tell(journal), table);
}

#[test]
fn each_step_asks_for_its_call_only_in_the_state_that_the_call_is_for() {
    begun(
        "lighthouse",
        "r",
        "",
        "5 bind: r old => bind\n5 bind: s old => bind\n5 bind: c old => wait\n5 bind: r => bind",
    );
    begun("lighthouse", "r", "", "5 bind: r old op=x busy => wait\n5 bind: r old op=x => bind\n5 bind: o old => wait");
    begun("cvm", "r", "", "5 prepare: r old => stop\n5 prepare: s old => nothing\n5 prepare: c old => wait");
    begun("cvm", "r", "", "5 bind: r old => wait\n5 bind: s old => bind");
    begun("ecs", "r", "", "5 bind: r old => bind\n5 bind: s old => bind\n5 bind: c old => wait");
    begun("bcc", "r", "", "5 bind: r old => bind\n5 bind: s old => bind\n5 bind: c old => wait");
    begun("ecs", "r", "", "5 activate: r old => nothing\n5 activate: s old => nothing");
}

#[test]
fn a_pair_that_is_shown_bound_is_written_down_and_not_bound_again() {
    for cloud in ["lighthouse", "cvm", "ecs", "bcc"] {
        begun(cloud, "r", "", "5 bind: r new @7 => record bound r@7\n5 bind: s new => record bound s");
        // Asked before a crash: seen done after it.
        begun(cloud, "r", "5 >bind a=s", "16 bind: s new => record bound s\n16 settle: s new => bound s");
    }
    begun("lighthouse", "r", "5 >bind a=r", "16 bind: s new op=- busy => wait\n16 settle: s new op=- busy => -");
}

#[test]
fn lighthouse_is_active_when_it_runs_with_the_pair_bound_and_our_operation_over() {
    let asked = "5 >bind a=r";
    let accepted = "5 >bind a=r\n6 ok bind a #q";
    // The first look after the call still shows the old state.
    begun(
        "lighthouse",
        "r",
        accepted,
        "7 settle: r old op=p => -\n7 bind: r old op=p => wait\n7 activate: r old op=p => nothing",
    );
    begun("lighthouse", "r", accepted, "9 settle: s old op=q busy => -\n9 activate: s old op=q busy => wait");
    // The pair shows before the operation is over, or another's operation shows.
    begun(
        "lighthouse",
        "r",
        accepted,
        "9 settle: s new op=q busy => -\n9 settle: r new op=p => -\n9 settle: s new op=q => bound s",
    );
    // Our request id is lost: not operating and the pair bound.
    begun(
        "lighthouse",
        "r",
        asked,
        "9 settle: s new op=p busy => -\n9 settle: s new op=p => bound s\n9 settle: r old op=p => -",
    );
    begun("lighthouse", "r", "5 >bind a=r\n6 ok bind a", "9 settle: s new op=z => bound s");
    // Never shown, although accepted: after a minute the shown state decides. Stopped, it cannot go down any more.
    begun("lighthouse", "r", accepted, "64 settle: r new op=p => -\n65 settle: r new op=p => bound r");
    begun("lighthouse", "r", accepted, "9 settle: s new op=p => bound s");
    let bound = format!("{accepted}\n10 bound a=s");
    begun("lighthouse", "r", &bound, "11 settle: s new op=q => -\n11 activate: s new op=q => start");
    begun(
        "lighthouse",
        "r",
        &bound,
        "11 settle: r new op=q => active\n11 settle: r new op=z busy => -\n11 settle: r old op=z => -",
    );
    let started = format!("{bound}\n11 >start a=s\n12 ok start a #t");
    begun("lighthouse", "r", &started, "13 settle: s new op=q => -\n13 activate: s new op=q => wait");
    begun("lighthouse", "r", &started, "20 settle: r new op=t busy => -\n30 settle: r new op=t => active");
}

#[test]
fn cvm_is_stopped_bound_started_and_active_when_it_runs() {
    let stop = "5 >stop a=r\n6 ok stop a #p";
    begun("cvm", "r", stop, "7 settle: r old op=o => -\n7 prepare: r old => wait\n7 bind: r old => wait");
    begun(
        "cvm",
        "r",
        stop,
        "9 settle: s old op=p busy => -\n9 settle: s old op=p => stopped\n9 activate: s old op=p => nothing",
    );
    let down = format!("{stop}\n10 down a");
    begun("cvm", "r", &down, "11 prepare: s old => nothing\n11 bind: s old => bind\n11 activate: s old => nothing");
    let bind = format!("{down}\n12 >bind a=s\n13 ok bind a #q");
    begun(
        "cvm",
        "r",
        &bind,
        "14 settle: s old op=p => -\n14 bind: s old op=p => wait\n14 activate: s old op=p => nothing",
    );
    begun("cvm", "r", &bind, "15 settle: s new op=q busy => -\n16 settle: s new op=q => bound s");
    let bound = format!("{bind}\n17 bound a=s");
    begun("cvm", "r", &bound, "18 activate: s new op=q => start\n18 settle: s new op=q => -");
    let started = format!("{bound}\n19 >start a=s\n20 ok start a #t");
    begun(
        "cvm",
        "r",
        &started,
        "21 activate: s new op=q => wait\n30 settle: r new op=t busy => -\n30 settle: r new op=t => active",
    );
}

#[test]
fn ecs_is_active_only_after_a_boot_since_the_look_that_first_showed_the_pair() {
    let bound = "5 >bind a=r@1\n6 ok bind a #q\n7 bound a=r@1";
    begun(
        "ecs",
        "r",
        "5 >bind a=r@1\n6 ok bind a #q",
        "7 settle: r old @1 => -\n7 bind: r old @1 => wait\n7 settle: r new @1 => bound r@1",
    );
    begun("ecs", "r", bound, "8 settle: r new @1 => -\n8 activate: r new @1 => reboot\n8 settle: r new @2 => active");
    let asked = format!("{bound}\n9 >reboot a=r/new@1\n10 ok reboot a");
    begun(
        "ecs",
        "r",
        &asked,
        "11 settle: r new @1 => -\n11 activate: r new @1 => wait\n188 activate: r new @1 => wait",
    );
    begun(
        "ecs",
        "r",
        &asked,
        "20 settle: c new @1 => changing\n20 settle: s new @1 => stopped\n30 settle: r new @2 => active",
    );
    // Unchanged: reboot again. Never take a boot for granted where no marker is shown.
    begun("ecs", "r", &asked, "189 activate: r new @1 => reboot\n30 settle: r new => -");
    begun("ecs", "r", "5 >bind a=r\n6 ok bind a\n7 bound a=r", "30 settle: r new @2 => -");
    // Stopped since it was bound: the next run is a boot. Whoever stopped it, we bound it while it ran and start it.
    let down = format!("{asked}\n12 down a");
    begun("ecs", "r", &down, "30 settle: r new @1 => active\n200 activate: s new @1 => start");
    // On its way already when it was first shown bound: that boot may be the one before. Otherwise it is the one since.
    let going = "5 >bind a=r@1\n6 ok bind a #q\n7 bound a=c@1";
    begun("ecs", "r", going, "8 settle: c new @1 => -\n9 settle: r new @1 => -");
    // The pair is taken off again meanwhile: never active.
    begun("ecs", "r", bound, "30 settle: r old @2 => -\n30 settle: r @2 => -");
}

#[test]
fn bcc_reboots_by_itself_or_is_stopped_and_started() {
    let accepted = "5 >bind a=r\n6 ok bind a";
    begun(
        "bcc",
        "r",
        accepted,
        "7 settle: r old => -\n7 bind: r old => wait\n7 settle: r new => bound r\n7 settle: c new => bound c",
    );
    let bound = format!("{accepted}\n7 bound a=r");
    begun(
        "bcc",
        "r",
        &bound,
        "8 settle: r new => -\n8 settle: c new => changing\n8 settle: s new => stopped\n8 activate: r new => wait",
    );
    begun(
        "bcc",
        "r",
        &format!("{bound}\n9 changing a"),
        "10 settle: c new => -\n20 settle: r new => active\n200 activate: r new => nothing",
    );
    // Seen on its way in the very look that first showed the pair: that was the reboot.
    begun("bcc", "r", &format!("{accepted}\n7 bound a=c"), "20 settle: r new => active");
    // None seen: stop, see it stopped, start, see it running.
    begun("bcc", "r", &bound, "26 activate: r new => wait\n27 activate: r new => stop\n27 settle: r new => -");
    let stop = format!("{bound}\n67 >stop a=r/new\n68 ok stop a");
    begun(
        "bcc",
        "r",
        &stop,
        "69 settle: r new => -\n69 activate: r new => wait\n80 settle: s new => stopped\n80 activate: s new => wait",
    );
    let down = format!("{stop}\n81 down a");
    begun("bcc", "r", &down, "82 activate: s new => start\n100 settle: r new => active");
    let started = format!("{down}\n82 >start a=s/new\n83 ok start a");
    begun(
        "bcc",
        "r",
        &started,
        "84 settle: s new => -\n84 activate: s new => wait\n100 settle: r new => active\n100 settle: c new => -",
    );
}

#[test]
fn a_machine_that_was_stopped_stays_stopped() {
    for cloud in ["lighthouse", "cvm", "ecs", "bcc"] {
        let bound = "5 >bind a=s\n6 ok bind a\n10 bound a=s";
        begun(cloud, "s", bound, "11 settle: s new => -\n11 activate: s new => nothing\n2000 settle: s new => -");
        let story = Story::begun(cloud, "s").tell(bound);
        let rotation = story.rotation();
        assert!(rotation.member(&"a".into()).is_some_and(Member::is_straggler), "{cloud}");
        assert_eq!(rotation.owed(), 0, "{cloud}");
    }
}

#[test]
fn a_machine_that_was_started_between_two_tries_is_bound_running_and_carried_to_its_boot() {
    let journal = "5 >bind a=s@1\n6 refused bind a\n20 >bind a=r@2\n21 ok bind a\n22 bound a=r@2";
    begun("ecs", "s", journal, "30 activate: r new @2 => reboot\n40 settle: r new @3 => active");
    begun("bcc", "s", journal, "90 activate: r new => stop");
}
