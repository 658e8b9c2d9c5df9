//! What is allowed of each machine: holds, deadlines, repetitions, drift, absence. The tables are those of `judge`.

use super::judge::begun;

#[test]
fn holds_stop_stops_binds_and_reboots_and_start_machines_as_they_are() {
    let stopped = "5 >stop a=r\n6 ok stop a\n9 down a\n10 held";
    begun("cvm", "r", stopped, "11 activate: s old => start\n20 settle: r old => running");
    let started = format!("{stopped}\n11 >start a=s\n12 ok start a");
    begun(
        "cvm",
        "r",
        &started,
        "13 activate: s old => wait\n20 settle: r old => running\n20 settle: r old op=t busy => -",
    );
    // Stopping still: not before the stop is seen.
    begun(
        "cvm",
        "r",
        "5 >stop a=r\n6 ok stop a\n7 held",
        "8 activate: r old => nothing\n9 activate: s old => wait\n9 settle: s old => stopped\n9 settle: r old => -",
    );
    // Bound, and waiting for its boot: no reboot while held, and no deadline runs against it.
    let bound = "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1\n8 held";
    begun("ecs", "r", bound, "9 activate: r new @1 => nothing\n9 settle: r new @1 => running");
    let paid = format!("{bound}\n9 running a");
    begun("ecs", "r", &paid, "5000 settle: r new @1 => -\n5000 settle: r new @2 => active");
    let released = format!("{paid}\n5000 release");
    begun("ecs", "r", &released, "5001 settle: r new @1 => -\n5001 activate: r new @1 => reboot");
    begun("bcc", "r", &bound.replace("@1", ""), "100 activate: r new => nothing");
    // Active all the same, where the world made it so.
    begun("lighthouse", "r", "5 >bind a=r\n6 ok bind a #q\n7 held", "9 settle: s new op=q => bound s");
    begun(
        "lighthouse",
        "r",
        "5 >bind a=r\n6 ok bind a\n9 bound a=s\n10 held",
        "11 activate: s new => start\n30 settle: r new => active",
    );
}

#[test]
fn no_deadline_counts_the_time_in_which_nobody_drove() {
    let stopping = "5 >stop a=r\n6 ok stop a";
    begun("cvm", "r", stopping, "184 settle: r old => -\n186 settle: r old => out stop missed");
    let away = format!("{stopping}\n4000 resumed");
    begun("cvm", "r", &away, "4001 settle: r old => -\n4001 settle: s old => stopped\n4179 settle: r old => -");
    begun("cvm", "r", &away, "4181 settle: r old => out stop missed");
    // A stop that was never answered, a hold of four minutes, a release: it is asked for again.
    let released = "5 >stop a=r\n6 held\n246 release";
    begun("cvm", "r", released, "246 settle: r old => -\n246 prepare: r old => stop");
    let bound = "5 >stop a=r\n6 ok stop a\n9 down a\n10 >bind a=s\n11 ok bind a\n12 bound a=s";
    begun("cvm", "r", bound, "2000 settle: s new => out settle missed");
    let away = format!("{bound}\n4000 resumed");
    begun("cvm", "r", &away, "4001 settle: s new => -\n4001 activate: s new => start");
    begun("cvm", "r", &away, "4901 settle: s new => out settle missed");
    let waiting = "";
    begun("lighthouse", "r", waiting, "4000 bind: c old => record out not ready");
    begun("lighthouse", "r", "3000 resumed", "3899 bind: c old => wait");
}

#[test]
fn who_was_away_is_asked_of_what_is_under_way_only() {
    let check = |journal: &str, turned: u64, now: u64, expect: bool| {
        let rotation = super::Story::begun("cvm", "r").tell(journal).rotation();
        assert_eq!(rotation.was_away(super::at(turned), super::at(now)), expect, "{journal}");
    };
    check("5 >stop a=r", 5, 100, false);
    check("5 >stop a=r", 5, 186, true);
    check("5 >stop a=r", 100, 186, false);
    check("5 >stop a=r\n100 ok stop a", 5, 186, false);
    check("", 5, 5000, false);
    check("5 >stop a=r\n6 gone a\n7 end", 5, 5000, false);
}

#[test]
fn what_was_started_as_it_is_during_a_hold_is_prepared_again_after_the_release() {
    let stopped = "5 >stop a=r\n6 ok stop a\n9 down a\n10 held\n11 >start a=s\n12 ok start a";
    begun("cvm", "r", &format!("{stopped}\n20 running a\n30 release"), "31 prepare: r old => stop");
    // Released before the start was seen to have worked: it is seen now, and does not wait for a deadline.
    let early = format!("{stopped}\n13 release");
    begun("cvm", "r", &early, "20 settle: r old => running");
}

#[test]
fn excluded_and_abandoned_machines_are_started_and_left_alone() {
    for end in ["10 out a", "10 abandon"] {
        let journal = format!("5 >stop a=r\n6 ok stop a\n9 down a\n{end}");
        begun(
            "cvm",
            "r",
            &journal,
            "11 activate: s old => start\n11 prepare: s old => nothing\n20 settle: r old => running",
        );
    }
    begun("cvm", "r", "5 out a", "6 prepare: r old => nothing\n6 bind: s old => nothing\n6 activate: s old => nothing");
    begun(
        "ecs",
        "r",
        "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1\n8 out a",
        "9 activate: r new @1 => nothing\n9 settle: r new @1 => running",
    );
}

#[test]
fn a_stop_has_three_minutes_and_settling_a_quarter_of_an_hour_from_the_last_accepted_call() {
    begun(
        "cvm",
        "r",
        "5 >stop a=r\n6 ok stop a",
        "184 settle: r old => -\n185 settle: r old => out stop missed\n185 settle: c old => out stop missed\n185 settle: s old => stopped",
    );
    begun(
        "lighthouse",
        "r",
        "5 >bind a=r\n6 ok bind a #q",
        "905 settle: s old op=q busy => -\n906 settle: s old op=q busy => out settle missed",
    );
    let started = "5 >bind a=r\n6 ok bind a\n10 bound a=s\n100 >start a=s\n101 ok start a";
    begun(
        "lighthouse",
        "r",
        started,
        "1000 settle: s new => -\n1001 settle: s new => out settle missed\n1001 settle: r new => active",
    );
    begun("ecs", "r", "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1", "907 settle: r new @1 => out settle missed");
}

#[test]
fn a_reboot_or_a_start_that_shows_nothing_is_repeated_but_does_not_put_off_the_deadline() {
    let mut reboots = "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1".to_string();
    for n in 0..5 {
        reboots += &format!("\n{0} >reboot a=r/new@1\n{0} ok reboot a", 10 + 180 * n);
    }
    begun("ecs", "r", &reboots, "909 settle: r new @1 => -\n910 settle: r new @1 => out settle missed");
    let mut starts = "5 >bind a=r\n6 ok bind a\n9 bound a=s".to_string();
    for n in 0..14 {
        starts += &format!("\n{0} >start a=s/new\n{0} ok start a", 10 + 60 * n);
    }
    begun(
        "lighthouse",
        "r",
        &starts,
        "909 settle: s new => -\n910 settle: s new => out settle missed\n910 activate: s new => start",
    );
    // Refused in between, it is the same start.
    let mut mixed = "5 >bind a=r\n6 ok bind a\n9 bound a=s".to_string();
    for n in 0..7 {
        mixed += &format!(
            "\n{0} >start a=s/new\n{0} ok start a\n{1} >start a=s/new\n{1} refused start a",
            10 + 120 * n,
            70 + 120 * n
        );
    }
    begun("lighthouse", "r", &mixed, "910 settle: s new => out settle missed");
}

#[test]
fn who_missed_a_deadline_is_watched_on_and_started_when_the_late_stop_lands() {
    let missed = "5 >stop a=r\n6 ok stop a\n185 out a";
    begun(
        "cvm",
        "r",
        missed,
        "186 settle: r old => -\n900 settle: s old => stopped\n1084 settle: r old => -\n1085 settle: r old => running",
    );
    begun("cvm", "r", &format!("{missed}\n900 down a"), "901 activate: s old => start\n950 settle: r old => running");
}

#[test]
fn a_call_without_an_answer_is_looked_up_and_not_repeated_for_ten_seconds() {
    begun(
        "lighthouse",
        "r",
        "5 >bind a=r",
        "14 bind: r old => wait\n15 bind: r old => bind\n15 bind: s old op=- busy => wait",
    );
    begun("lighthouse", "r", "5 >bind a=r\n6 lost bind a +2", "14 bind: r old => wait\n15 bind: r old => bind");
    begun(
        "cvm",
        "r",
        "5 >stop a=r",
        "14 prepare: r old => wait\n15 prepare: r old => stop\n15 prepare: s old => nothing\n15 settle: s old => stopped",
    );
    begun(
        "lighthouse",
        "r",
        "5 >bind a=r\n6 ok bind a\n7 bound a=s\n8 >start a=s",
        "17 activate: s new => wait\n18 activate: s new => start",
    );
    begun(
        "ecs",
        "r",
        "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1\n8 >reboot a=r/new@1",
        "17 activate: r new @1 => wait\n18 activate: r new @1 => reboot\n18 activate: c new @1 => wait\n18 settle: r new @2 => active",
    );
    // Known not done: it may be repeated as soon as the wait is over.
    begun("lighthouse", "r", "5 >bind a=r\n6 refused bind a +2", "7 bind: r old => wait\n8 bind: r old => bind");
}

#[test]
fn an_operation_that_failed_is_said_so_and_tried_again_five_times_at_most() {
    let accepted = "5 >bind a=r\n6 ok bind a #q";
    begun("lighthouse", "r", accepted, "9 settle: s old op=q failed => bind failed\n9 settle: r old op=p failed => -");
    begun(
        "lighthouse",
        "r",
        "5 >bind a=r\n6 ok bind a\n7 bound a=s\n8 >start a=s\n9 ok start a #t",
        "12 settle: s new op=t failed => start failed",
    );
    begun("cvm", "r", "5 >stop a=r\n6 ok stop a #p", "12 settle: r old op=p failed => stop failed");
    let failed: String = (0..5)
        .map(|n| format!("{0} >bind a=r\n{0} ok bind a #q\n{1} refused bind a\n", 10 + 10 * n, 15 + 10 * n))
        .collect();
    begun("lighthouse", "r", &failed, "60 bind: s old => record out refused\n60 activate: s old => nothing");
    begun("lighthouse", "r", &format!("{failed}61 out a"), "62 activate: s old => start\n80 settle: r old => running");
    let four: String = failed.lines().take(12).map(|line| format!("{line}\n")).collect();
    begun("lighthouse", "r", &four, "60 bind: s old => bind");
}

#[test]
fn a_key_that_nobody_expected_is_never_bound_over() {
    begun("ecs", "r", "", "5 bind: r stranger => bind");
    let tried = "5 >bind a=r/old\n6 refused bind a";
    begun(
        "ecs",
        "r",
        tried,
        "10 bind: r old => bind\n10 bind: r => bind\n10 bind: r alien => record out drifted\n10 bind: r old+ => record out drifted",
    );
    begun(
        "ecs",
        "r",
        "5 >bind a=r/old+more\n6 refused bind a",
        "10 bind: r old more => bind\n10 bind: r more => bind\n10 bind: r old more alien => record out drifted",
    );
    begun("cvm", "r", "5 >stop a=r/old\n6 ok stop a\n9 down a", "10 bind: s alien => record out drifted");
    // The first found counts, later ones never replace it.
    begun(
        "ecs",
        "r",
        "5 >bind a=r/old\n6 refused bind a\n10 >bind a=r/alien\n11 refused bind a",
        "20 bind: r alien => record out drifted",
    );
}

#[test]
fn what_the_cloud_has_no_more_is_gone_and_no_failure() {
    for (cloud, step) in [("lighthouse", "bind"), ("cvm", "prepare"), ("cvm", "bind"), ("ecs", "bind"), ("bcc", "bind")]
    {
        begun(cloud, "r", "", &format!("5 {step}: - => record gone\n5 {step}: g old => record gone"));
    }
    begun("cvm", "r", "5 >stop a=r\n6 ok stop a", "9 settle: - => gone\n9 settle: g => gone");
    begun("cvm", "r", "5 gone a", "9 settle: - => -\n9 bind: - => nothing\n9 activate: - => nothing");
    begun(
        "ecs",
        "r",
        "5 >bind a=r@1\n6 ok bind a\n7 bound a=r@1\n9 active a",
        "9 settle: - => -\n10 bind: - => nothing\n10 activate: - => nothing",
    );
}

#[test]
fn a_machine_that_is_never_ready_is_excluded_after_a_quarter_of_an_hour() {
    begun("ecs", "r", "", "901 bind: o old => wait\n902 bind: o old => record out not ready\n902 bind: r old => bind");
    begun("cvm", "r", "", "902 prepare: c old => record out not ready\n902 prepare: r old => stop");
    begun("ecs", "r", "5 held\n900 release", "1799 bind: o old => wait\n1800 bind: o old => record out not ready");
}
