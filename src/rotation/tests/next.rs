//! What may run now: order, soak, budgets, holds, abandons, ends.

use super::super::policy::believes_gone;
use super::*;

/// `expect` has a line for each moment: `SECOND: what next says`.
fn check(story: &Story, expect: &str) {
    let rotation = story.rotation();
    for line in expect.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (second, said) = line.split_once(':').unwrap();
        let next = rotation.next(at(second.parse().unwrap()));
        assert_eq!(format!("{second}: {}", show_next(&next)), format!("{second}: {}", said.trim()));
        assert_eq!(next, rotation.next(at(second.parse().unwrap())), "next must not depend on luck");
    }
}

fn begun(cloud: &str, fleet: &str, journal: &str, expect: &str) {
    check(&Story::begun(cloud, fleet).tell(journal), expect);
}

#[test]
fn the_private_half_is_stored_before_the_pair_is_imported_before_anything_is_bound() {
    let story = |journal| Story::new("lighthouse", "r").tell(journal);
    check(&story("0 plan"), "0: store_key");
    check(&story("0 plan\n1 >store"), "1: store_key");
    check(&story("0 plan\n1 stored"), "1: import_key");
    check(&story("0 plan\n1 stored\n2 >import\n3 lost import"), "3: wake 4\n4: import_key");
    check(&story("0 plan\n1 stored\n2 imported"), "2: bind 0");
}

#[test]
fn only_where_the_cloud_demands_it_is_a_machine_stopped_before_it_is_bound() {
    for (cloud, expect) in
        [("lighthouse", "bind 0"), ("cvm", "prepare 0, bind 0"), ("ecs", "bind 0"), ("bcc", "bind 0")]
    {
        begun(cloud, "r", "", &format!("2: {expect}"));
    }
}

#[test]
fn one_batch_at_a_time_and_the_soak_after_the_canary_only() {
    let canary = "10 >bind a=r\n11 ok bind a #q\n20 bound a=s";
    begun("lighthouse", "r r r soak=600", canary, "21: settle 0, activate 0, bind 0");
    let canary_done = "10 >bind a=r\n11 ok bind a #q\n20 bound a=s\n30 active a";
    begun("lighthouse", "r r r soak=600", canary_done, "30: wake 630\n629: wake 630\n630: bind 1");
    let second = format!("{canary_done}\n700 >bind b=r\n701 ok bind b #p\n710 bound b=s\n720 active b");
    begun("lighthouse", "r r r soak=600", &second, "720: bind 2");
    begun("lighthouse", "r soak=600", canary_done, "30: ! ended completed");
}

#[test]
fn it_ends_when_each_is_active_straggler_excluded_or_gone_and_no_start_is_owed() {
    let ends = |fleet, journal, expect| begun("lighthouse", fleet, journal, expect);
    ends("r", "10 >bind a=r\n20 bound a=s", "20: settle 0, activate 0, bind 0");
    ends("r", "10 >bind a=r\n20 bound a=s\n30 active a", "30: ! ended completed");
    ends("rs failures=1", "5 >bind a=r b=s\n9 bound a=s b=s\n12 active a", "13: ! ended completed");
    ends("rr failures=1", "5 >bind a=r\n9 bound a=s\n12 active a\n13 out b", "13: ! ended completed");
    ends("rr", "5 >bind a=r\n9 bound a=s\n12 active a\n13 gone b", "13: ! ended completed");
    // Excluded with a start owed: not before it is seen running.
    let owed = "5 >bind a=r b=r\n9 bound a=s b=s\n12 active a\n13 out b";
    ends("rr failures=1", owed, "13: settle 0, activate 0");
    ends("rr failures=1", &format!("{owed}\n14 running b"), "14: ! ended completed");
    check(&Story::begun("ecs", "r").tell("5 gone a\n6 held:canary\n7 release\n8 end"), "9: ended");
}

#[test]
fn a_canary_batch_in_which_nobody_became_active_holds_whatever_the_budget() {
    let out = "10 >bind a=r\n11 ok bind a\n920 out a\n925 running a";
    begun("ecs", "r rr failures=9", out, "3000: ! held canary");
    begun("ecs", "r rr failures=9", "10 gone a", "10: ! held canary");
    begun("ecs", "r rr failures=9", &format!("{out}\n2000 held:canary\n2001 release"), "3000: bind 1");
    // A straggler proves no more than an excluded machine, whether it was stopped when the plan was made or later.
    begun("ecs", "s r failures=9", "10 >bind a=s\n20 bound a=s", "20: ! held canary");
    begun("ecs", "r r failures=9", "10 >bind a=s\n20 bound a=s", "20: ! held canary");
    // Nobody is staked on it any more: there is nothing to hold back.
    begun("ecs", "s", "10 >bind a=s\n20 bound a=s", "20: ! ended completed");
    // One of two is proof.
    begun("ecs", "rr r failures=9", "10 >bind a=r b=r\n20 bound a=r b=r\n30 active a\n31 gone b", "31: bind 1");
}

#[test]
fn a_release_of_another_hold_does_not_release_the_canary() {
    let canary = "10 >bind a=r\n11 ok bind a\n20 held\n920 out a\n925 running a\n926 release";
    begun("ecs", "r rr failures=9", canary, "3000: ! held canary");
    let later_held = "10 gone a\n11 held:canary\n12 held\n13 release";
    begun("ecs", "r rr", later_held, "13: bind 1");
}

#[test]
fn more_failures_than_allowed_hold_and_a_release_raises_only_the_budget_that_tripped() {
    let one = "5 >bind a=r\n6 bound a=r\n7 active a\n8 out b";
    begun("ecs", "r rrr failures=1", one, "8: bind 1");
    begun("ecs", "r rrr failures=0", one, "8: ! held failures");
    let released = format!("{one}\n9 held:failures\n10 release");
    begun("ecs", "r rrr failures=0", &released, "10: bind 1");
    begun("ecs", "r rrr failures=0", &format!("{released}\n11 out c"), "11: ! held failures");
    let other = format!("{one}\n9 held:step\n10 release\n11 out c");
    begun("ecs", "r rrr failures=1", &other, "11: ! held failures");
    // Gone is no failure, and nobody fails twice.
    begun("ecs", "r rrr failures=0", "5 >bind a=r\n6 bound a=r\n7 active a\n8 gone b", "8: bind 1");
    begun("ecs", "r rrr failures=1", &format!("{one}\n9 out b"), "9: bind 1");
}

#[test]
fn a_hold_stops_prepare_and_bind_but_neither_starts_nor_looks() {
    begun("cvm", "rr", "5 held", "6: held");
    let stopping = "5 >stop a=r b=r\n6 ok stop a b\n7 held";
    begun("cvm", "rr", stopping, "8: held · settle 0, activate 0");
    begun("cvm", "rr", &format!("{stopping}\n9 down a b"), "9: held · settle 0, activate 0");
    let paid = format!("{stopping}\n9 down a b\n10 >start a=s b=s\n11 ok start a b\n20 running a b");
    begun("cvm", "rr", &paid, "20: held");
    begun("cvm", "rr", &format!("{paid}\n30 release"), "30: prepare 0, bind 0");
}

#[test]
fn an_abandon_ends_once_nothing_is_in_flight_and_no_start_is_owed_whatever_is_bound() {
    begun("ecs", "rr", "5 abandon", "6: held · ! ended abandoned");
    let bound = "5 >bind a=r b=r\n6 ok bind a b\n9 bound a=r@1 b=r@1\n10 abandon";
    begun("ecs", "rr", bound, "10: held · settle 0, activate 0");
    begun("ecs", "rr", &format!("{bound}\n11 running a b"), "11: held · ! ended abandoned");
    let lost = "5 >bind a=s\n6 lost bind a\n7 abandon";
    begun("ecs", "s", lost, "7: held · settle 0, activate 0\n904: held · settle 0, activate 0");
    begun("cvm", "r", "5 >stop a=r\n6 ok stop a\n7 down a\n8 abandon", "8: held · settle 0, activate 0");
    begun("cvm", "r", "5 >stop a=r\n6 ok stop a\n7 down a\n8 abandon\n9 running a", "9: held · ! ended abandoned");
}

#[test]
fn an_unknown_stop_is_watched_until_the_settle_deadline_even_if_excluded_or_abandoned() {
    let unknown = "5 >stop a=s\n6 lost stop a";
    for end in ["7 abandon", "7 out a\n8 abandon"] {
        let story = format!("{unknown}\n{end}");
        begun("cvm", "r", &story, "10: held · settle 0, activate 0\n904: held · settle 0, activate 0");
    }
    let excluded = format!("{unknown}\n7 out a\n8 abandon");
    begun("cvm", "r", &excluded, "906: held · settle 0, activate 0\n907: held · ! ended abandoned");
    // The second stop is seen, the first may still land: even after the machine ran again.
    let twice =
        "5 >stop a=r\n6 lost stop a\n20 >stop a=r\n21 ok stop a\n25 down a\n30 abandon\n35 >start a=s\n36 ok start a";
    begun("cvm", "r", twice, "40: held · settle 0, activate 0\n904: held · settle 0, activate 0");
}

#[test]
fn a_bind_that_may_still_land_on_a_machine_that_is_active_is_watched_too() {
    let twice = "5 >bind a=r\n6 lost bind a\n20 >bind a=r\n21 ok bind a #q\n30 bound a=s\n31 >start a=s\n32 ok start a\n50 active a";
    begun("lighthouse", "r", twice, "50: settle 0, activate 0\n904: settle 0, activate 0");
    begun("lighthouse", "r", &format!("{twice}\n905 running a"), "905: ! ended completed");
    // Asked once, and seen: nothing is left that could land.
    let once = "5 >bind a=r\n6 lost bind a\n30 bound a=s\n31 >start a=s\n32 ok start a\n50 active a";
    begun("lighthouse", "r", once, "50: ! ended completed");
}

#[test]
fn errors_hold_at_once_or_wait_by_their_kind() {
    let step = |journal: &str, expect: &str| begun("ecs", "r", journal, expect);
    step("5 denied bind 0", "5: ! held bind 0");
    step("5 quota bind 0", "5: ! held bind 0");
    step("5 throttled bind 0 +30", "5: wake 35\n34: wake 35\n35: bind 0");
    let rubbish = |count: usize| (0..count).map(|n| format!("{} rubbish bind 0\n", 5 + 2 * n)).collect::<String>();
    step(&rubbish(4), "12: bind 0");
    step(&rubbish(5), "14: ! held bind 0");
    step(&format!("{}20 held:step\n21 release", rubbish(5)), "21: bind 0");
    let away = |count: u64| (0..count).map(|n| format!("{} away bind 0 +60\n", 5 + 60 * n)).collect::<String>();
    step(&away(15), "904: wake 905\n905: bind 0");
    step(&away(16), "905: ! held bind 0");
}

#[test]
fn an_outage_that_is_over_holds_nothing_later() {
    let outage: String = (0..5).map(|n| format!("{} away settle 0\n", 12 + 2 * n)).collect();
    let canary = format!("10 >bind a=r\n11 ok bind a\n{outage}30 bound a=r\n40 active a");
    begun("ecs", "r r soak=1200", &canary, "41: wake 1240\n1239: wake 1240\n1240: bind 1");
    // Failures far apart did not come in a row: what lay between went well.
    let apart: String = (0..9).map(|n| format!("{} away bind 0\n", 10 + 400 * n)).collect();
    begun("ecs", "r", &apart, "3300: bind 0");
}

#[test]
fn a_debt_outlives_hold_exclusion_and_abandon_until_the_machine_runs_or_a_person_leaves_it_off() {
    let owed = "5 >bind a=r b=r\n6 ok bind a b\n9 bound a=s b=s\n10 active b";
    for then in
        ["", "11 held", "11 out a", "11 abandon", "11 held\n12 out a\n13 abandon", "11 held\n12 release\n13 out a"]
    {
        let journal = format!("{owed}\n{then}");
        let story = Story::begun("lighthouse", "rr failures=1").tell(&journal);
        assert_eq!(story.rotation().owed(), 1, "{then}");
        let shown = show_next(&story.rotation().next(at(20)));
        assert!(shown.contains("settle 0, activate 0"), "{then}: {shown}");
        assert_eq!(story.clone().tell("20 running a").rotation().owed(), 0, "{then}");
        let left = story.tell("20 leave-off a");
        assert_eq!(left.rotation().owed(), 0, "{then}");
        let ended = if then.contains("abandon") { "held · ! ended abandoned" } else { "! ended completed" };
        assert_eq!(show_next(&left.rotation().next(at(20))), ended, "{then}");
    }
}

#[test]
fn leaving_a_machine_off_is_a_decision_and_no_failure() {
    let owed = "5 >bind a=r b=r\n9 bound a=s b=s\n10 active b\n20 leave-off a";
    begun("lighthouse", "rr r failures=0", owed, "20: bind 1");
}

#[test]
fn a_start_that_the_cloud_refuses_again_and_again_holds_once_nothing_else_can_be_done() {
    let owed = "5 >bind a=r b=r\n6 ok bind a b\n9 bound a=s b=s\n10 active b\n11 out a";
    let refused: String = (0..5).map(|n| format!("{0} >start a=s\n{0} refused start a\n", 20 + 10 * n)).collect();
    let journal = format!("{owed}\n{refused}");
    begun("lighthouse", "rr failures=1", &journal, "61: settle 0, activate 0 · ! held start_refused a");
    // There is room for the next batch: it goes on.
    begun("lighthouse", "rr r failures=1 max=2", &journal, "61: settle 0, activate 0, bind 1");
    begun("lighthouse", "rr r failures=1 max=1", &journal, "61: settle 0, activate 0 · ! held start_refused a");
    let abandoned = format!("{journal}\n62 abandon");
    let refused_still = "62: held · settle 0, activate 0 · ! held start_refused a";
    begun("lighthouse", "rr r failures=1", &abandoned, refused_still);
    begun("lighthouse", "rr r failures=1", &format!("{abandoned}\n63 leave-off a"), "63: held · ! ended abandoned");
    let held = format!("{journal}\n62 held:step");
    begun("lighthouse", "rr failures=1", &held, "63: held · settle 0, activate 0");
    begun("lighthouse", "rr failures=1", &format!("{held}\n70 leave-off a"), "70: ! ended completed");
    begun("lighthouse", "rr failures=1", &format!("{held}\n70 running a\n71 release"), "71: ! ended completed");
}

#[test]
fn whoever_waits_for_an_account_that_shows_nothing_is_told_so_however_the_journal_stands() {
    let under_way = "5 >bind a=r b=r\n6 ok bind a b";
    let strange: String = (0..6).map(|n| format!("{} strange settle 0\n", 20 + 200 * n)).collect();
    let is_told =
        |journal: &str, now: u64| Story::begun("lighthouse", "rr").tell(journal).rotation().strange(at(now)).is_some();
    for (then, holds) in [
        ("", "settle 0, activate 0 · ! held settle 0"),
        ("1021 abandon\n", "held · settle 0, activate 0 · ! held settle 0"),
        // It covers no other reason: a release would release that too.
        ("1021 held:canary\n", "held · settle 0, activate 0"),
        ("1021 held\n1022 abandon\n", "held · settle 0, activate 0"),
        ("1022 held:strange\n", "held · settle 0, activate 0"),
    ] {
        let journal = format!("{under_way}\n{strange}{then}");
        begun("lighthouse", "rr", &journal, &format!("1023: {holds}"));
        assert!(is_told(&journal, 1023), "{then}");
        assert!(!is_told(&format!("{journal}1024 release"), 1025), "{then}");
        // Who is gone is one question, and another hold another one.
        let allowed = Story::begun("lighthouse", "rr").tell(&format!("{journal}1024 gone-allowed")).rotation();
        let stays = matches!(allowed.held, Some(HoldReason::Canary | HoldReason::Operator { .. }));
        assert_eq!(stays, then.contains("held:canary") || then.contains("held\n"), "{then}");
        assert!(believes_gone(allowed.gone_allowed, at(1025)) && (stays || allowed.held.is_none()), "{then}");
        // No failure came after it: it is over.
        assert!(!is_told(&journal, 1021 + 240), "{then}");
    }
    // A cloud that is away is none that shows nothing; of a few times it is not said.
    let away = strange.replace("strange", "away");
    assert!(!is_told(&format!("{under_way}\n{away}"), 1023));
    assert!(!is_told(&format!("{under_way}\n20 strange settle 0"), 23));
}

#[test]
fn refused_binds_are_not_taken_for_refused_starts() {
    let refused: String = (0..5).map(|n| format!("{0} >bind b=r\n{0} refused bind b\n", 20 + 10 * n)).collect();
    let journal = format!("5 >bind a=r\n6 bound a=s\n7 active a\n{refused}70 out b");
    begun("lighthouse", "rr failures=1", &journal, "71: settle 0, activate 0");
    let rotation = Story::begun("lighthouse", "rr failures=1").tell(&journal).rotation();
    assert_eq!(rotation.in_flight(at(71)).len(), 1);
}

#[test]
fn a_machine_that_neither_runs_nor_can_be_started_holds_one_deadline_after_its_exclusion() {
    // Its account is in arrears, or it sits in a state in which nothing may be done to it.
    let journal = "5 >bind a=r b=r\n6 ok bind a b\n9 bound a=s b=s\n10 active b\n909 out a";
    begun(
        "lighthouse",
        "rr failures=1",
        journal,
        "1808: settle 0, activate 0\n1809: settle 0, activate 0 · ! held start_refused a",
    );
    let rotation = Story::begun("lighthouse", "rr failures=1").tell(journal).rotation();
    assert_eq!(rotation.in_flight(at(1808)).len(), 1);
    assert_eq!(rotation.in_flight(at(1809)).len(), 0);
    // Given up: whoever is only bound is not waited for, and does not hide who is down.
    let given_up = "5 >bind a=r b=r\n6 ok bind a b\n9 bound a=r@1 b=r@1\n10 abandon\n11 running b\n12 out a";
    let held = "911: held · settle 0, activate 0\n912: held · settle 0, activate 0 · ! held start_refused a";
    begun("ecs", "rr", given_up, held);
    let released = format!("{journal}\n1810 held:step\n2000 release");
    begun(
        "lighthouse",
        "rr failures=1",
        &released,
        "2001: settle 0, activate 0\n2900: settle 0, activate 0 · ! held start_refused a",
    );
}

#[test]
fn room_is_what_unavailable_max_leaves_of_the_owed_starts() {
    let check = |journal: &str, room: u32| {
        assert_eq!(Story::begun("cvm", "rrr max=2").tell(journal).rotation().room(), room, "{journal}");
    };
    check("", 2);
    check("5 >stop a=r", 1);
    check("5 >stop a=r b=r", 0);
    check("5 >stop a=r b=s", 1);
    check("5 >stop a=r b=r c=r", 0);
    check("5 >stop a=r\n6 ok stop a\n7 down a\n8 >bind a=s", 1);
    check("5 >stop a=r\n6 ok stop a\n7 down a\n8 >bind a=s\n9 bound a=s\n10 active a", 2);
    check("5 >stop a=r\n6 gone a", 2);
}
