//! When a batch may begin: steps of growth and their soaks, failures in a row, windows, the hooks around it.

use super::*;

/// `expect` has a line for each moment: `SECOND: what next says`.
fn check(story: &Story, expect: &str) {
    let rotation = story.rotation();
    for line in expect.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (second, said) = line.split_once(':').unwrap();
        let next = rotation.next(at(second.parse().unwrap()));
        assert_eq!(format!("{second}: {}", show_next(&next)), format!("{second}: {}", said.trim()));
    }
}

fn begun(cloud: &str, fleet: &str, journal: &str, expect: &str) {
    check(&Story::begun(cloud, fleet).tell(journal), expect);
}

/// Second 0 of a story is 00:00 UTC, a Sunday: open from 01:00 to 02:00 on Sundays and Tuesdays.
fn in_windows(cloud: &str, fleet: &str) -> Story {
    let mut story = Story::begun(cloud, fleet);
    let time = |text: &str| text.parse().unwrap();
    story.plan.policy.pace.windows = Windows {
        zone: "UTC".into(),
        windows: vec![Window { days: vec![2, 7], from: time("01:00"), to: time("02:00") }],
        freeze: Vec::new(),
    };
    story
}

#[test]
fn each_step_of_growth_is_soaked_and_batches_of_full_size_are_not() {
    let fleet = "r r rr rr rr growing=3 soak=100";
    let mut journal = String::new();
    for (number, (ids, second)) in [("a", 10), ("b", 200), ("c d", 400), ("e f", 600)].into_iter().enumerate() {
        let each = |what: &str| ids.split(' ').map(|id| format!(" {id}={what}")).collect::<String>();
        journal += &format!("{second} >bind{}\n{} bound{}\n", each("r"), second + 1, each("s"));
        journal += &format!("{} active {ids}\n", second + 2);
        let (done, batch) = (second + 2, number + 1);
        let expect = match number {
            0..=2 => format!("{done}: wake {}\n{}: bind {batch}", done + 100, done + 100),
            _ => format!("{done}: bind {batch}"),
        };
        begun("lighthouse", fleet, &journal, &expect);
    }
    // A journal that is older than growth: the canary only.
    begun("lighthouse", "r r r soak=100", "5 >bind a=r\n6 bound a=s\n7 active a\n200 gone b", "200: bind 2");
}

#[test]
fn so_many_failures_in_a_row_hold_and_whoever_comes_through_ends_the_row() {
    let fleet = "r rrrrrr failures=9 row=2";
    let canary = "5 >bind a=r\n6 bound a=s\n7 active a";
    begun("lighthouse", fleet, &format!("{canary}\n8 out b"), "8: bind 1");
    begun("lighthouse", fleet, &format!("{canary}\n8 out b\n9 out c"), "9: ! held failures_in_a_row");
    let between = format!("{canary}\n8 out b\n9 >bind c=r\n10 bound c=s\n11 active c\n12 out d");
    begun("lighthouse", fleet, &between, "12: bind 1");
    begun("lighthouse", fleet, &format!("{between}\n13 out e"), "13: ! held failures_in_a_row");
    // Nobody fails twice, and who is gone has not failed.
    begun("lighthouse", fleet, &format!("{canary}\n8 out b\n9 out b\n10 gone c"), "10: bind 1");
    // A release begins a new row, and only where it was the row that tripped.
    let released = format!("{canary}\n8 out b\n9 out c\n10 held:row\n11 release\n12 out d");
    begun("lighthouse", fleet, &released, "12: bind 1");
    begun("lighthouse", fleet, &format!("{released}\n13 out e"), "13: ! held failures_in_a_row");
    let other = format!("{canary}\n8 out b\n9 held\n10 release\n11 out c");
    begun("lighthouse", fleet, &other, "11: ! held failures_in_a_row");
    // And it raises no other budget.
    let both = "r rrrrrr failures=1 row=2";
    let all = format!("{canary}\n8 out b\n9 out c\n10 held:row\n11 release");
    begun("lighthouse", both, &all, "11: ! held failures");
    // Where a login is to prove the key, being active ends no row.
    let mut story = Story::begun("lighthouse", fleet);
    story.plan.policy.verify = Verify::Ssh(SshLogin {
        user: "root".into(),
        port: 22,
        address: AddressFrom::Private,
        old_key: OldKey::Warn,
        connect_timeout: Duration::from_secs(1),
        jump: None,
        deadline: Duration::from_secs(600),
    });
    let active = "5 >bind a=r b=r c=r\n6 bound a=s b=s c=s\n8 out b\n9 active a\n10 out c";
    check(&story.tell(active), "10: verify 0, settle 1, activate 1 · ! held failures_in_a_row");
}

#[test]
fn a_batch_begins_only_if_it_ends_inside_a_window_and_what_is_under_way_goes_on() {
    let (open, shut) = (3600, 7200);
    let story = |journal: &str| in_windows("lighthouse", "r rr takes=600").tell(journal);
    check(&story(""), "2: wake 3600\n3599: wake 3600\n3600: bind 0\n6600: bind 0");
    // From the last moment on it waits for Tuesday.
    check(&story(""), "6601: wake 176400");
    let canary = "6600 >bind a=r\n6601 ok bind a #q";
    check(&story(canary), "6700: settle 0, activate 0, bind 0\n7300: settle 0, activate 0, bind 0");
    let done = format!("{canary}\n7300 bound a=s\n7310 >start a=s\n7311 ok start a\n7350 active a");
    check(&story(&done), "7350: wake 176400\n176400: bind 1");
    // Of a batch that was begun, who was not touched waits; who was, goes on.
    let half = "3600 >bind a=r\n3601 bound a=s\n3602 active a\n6600 >bind b=r\n6601 ok bind b";
    let rotation = story(half).rotation();
    let seen = |id: &str| seen(id, "r old");
    let want = |id: &str, second: u64| {
        let look = seen(id);
        show_want(&rotation.want(Step::Bind(1), &id.into(), Sight::Seen(&look), at(second)))
    };
    assert_eq!((want("c", 6600).as_str(), want("c", 6601).as_str()), ("bind", "wait"));
    let rotation = story(&format!("{half}\n6602 refused bind b +1")).rotation();
    let look = seen("b");
    let again = rotation.want(Step::Bind(1), &"b".into(), Sight::Seen(&look), at(shut + 10));
    assert_eq!(show_want(&again), "bind", "a start is owed to it: it goes on");
    // Freed by a person's --force: the plan has no windows.
    let mut forced = story("");
    forced.plan.policy.pace.windows = Windows::default();
    check(&forced, "2: bind 0");
    let _ = open;
}

#[test]
fn no_deadline_counts_the_time_in_which_a_window_was_closed() {
    // Bound before a hold; released after the window: the reboot waits for the next one, and is not late for that.
    let story = in_windows("ecs", "rr takes=600 failures=9").tell(
        "3600 >bind a=r@1 b=r@1\n3601 ok bind a b\n3610 bound a=r@1 b=r@1\n3620 held\n3630 running a b\n7300 release",
    );
    let rotation = story.rotation();
    let finding = |second: u64| {
        let look = seen("a", "r new @1");
        rotation.finding(&"a".into(), Sight::Seen(&look), at(second)).map(|finding| show_finding(&finding))
    };
    let want = |second: u64| {
        let look = seen("a", "r new @1");
        show_want(&rotation.want(Step::Activate(0), &"a".into(), Sight::Seen(&look), at(second)))
    };
    assert_eq!((finding(20_000), want(20_000).as_str()), (None, "wait"));
    assert_eq!((finding(176_400), want(176_400).as_str()), (None, "reboot"), "the next window is open");
    assert_eq!(finding(176_400 + 901).as_deref(), Some("out settle missed"), "and begins a deadline of its own");
}

#[test]
fn before_a_batch_its_hook_and_nothing_of_the_batch_before_that_is_done() {
    let fleet = "r r before=300";
    begun("cvm", fleet, "", "2: before_0");
    begun("cvm", fleet, "3 run:before 0", "4: before_0");
    begun("cvm", fleet, "3 run:before 0\n5 done:before 0", "5: prepare 0, bind 0");
    let failed = "3 run:before 0\n5 fail:before 0";
    begun("cvm", fleet, failed, "5: ! held hook");
    begun("cvm", fleet, &format!("{failed}\n6 held:step\n7 release"), "7: before_0");
    // Each batch has its own, and without an after_batch nothing stands between them.
    let first = "3 run:before 0\n5 done:before 0\n6 >bind a=s\n7 bound a=s\n8 >start a=s\n9 active a";
    begun("cvm", fleet, first, "9: before_1");
    begun("cvm", fleet, &format!("{first}\n10 run:before 1"), "11: before_1");
    begun("cvm", fleet, &format!("{first}\n10 run:before 1\n12 done:before 1"), "12: prepare 1, bind 1");
    // The reason says which, of what, and what it said last.
    let Some(Event::Held { reason }) = Story::begun("cvm", fleet).tell(failed).rotation().next(at(5)).record.pop()
    else {
        panic!("not held")
    };
    assert_eq!(reason.to_string(), "canary: the before_batch hook failed: exit code 1: y");
}

#[test]
fn after_a_batch_its_hook_before_anything_else_begins_or_ends() {
    let fleet = "r r after=60 failures=9";
    let first = "6 >bind a=r\n7 bound a=s\n8 active a";
    begun("lighthouse", fleet, "", "2: bind 0");
    begun("lighthouse", fleet, first, "9: after_0");
    begun("lighthouse", fleet, &format!("{first}\n10 run:after 0"), "11: after_0");
    let done = format!("{first}\n10 run:after 0\n11 done:after 0");
    begun("lighthouse", fleet, &done, "11: bind 1");
    let failed = format!("{first}\n10 run:after 0\n11 fail:after 0");
    begun("lighthouse", fleet, &failed, "11: ! held hook");
    begun("lighthouse", fleet, &format!("{failed}\n12 held:step\n13 release"), "13: after_0");
    // Also when machines of it failed; not where nothing was done to it.
    begun("lighthouse", "r after=60", first, "9: after_0");
    begun("lighthouse", "r after=60", &format!("{first}\n10 run:after 0\n11 done:after 0"), "11: ! ended completed");
    begun("lighthouse", fleet, &format!("{done}\n12 out b"), "12: ! ended completed");
    let out = format!("{done}\n12 >bind b=r\n13 refused bind b\n14 out b\n15 running b");
    begun("lighthouse", fleet, &out, "15: after_1");
}

#[test]
fn a_batch_that_must_stop_is_followed_by_its_after_batch_and_begun_anew_when_it_goes_on() {
    let fleet = "rr before=60 after=60";
    let drained = "3 run:before 0\n5 done:before 0";
    // Held before anything was disturbed, or once nothing of it is under way.
    let held = format!("{drained}\n6 held");
    begun("cvm", fleet, &held, "6: held · after_0");
    let stopping = format!("{drained}\n6 >stop a=r b=r\n7 ok stop a b\n8 held");
    begun("cvm", fleet, &stopping, "8: held · settle 0, activate 0");
    let started = format!("{stopping}\n9 down a b\n10 >start a=s b=s\n12 running a b");
    begun("cvm", fleet, &started, "12: held · after_0");
    let back = format!("{started}\n13 run:after 0\n14 done:after 0");
    begun("cvm", fleet, &back, "14: held");
    begun("cvm", fleet, &format!("{back}\n15 release"), "15: before_0");
    // Cut off: it may have drained somebody.
    begun("cvm", fleet, "3 run:before 0\n4 held", "4: held · before_0");
    begun("cvm", fleet, "3 run:before 0\n4 held\n5 fail:before 0", "5: held · after_0");
    // Given up: it ends after it, and also if it fails.
    let given_up = format!("{drained}\n6 abandon");
    begun("cvm", fleet, &given_up, "6: held · after_0");
    begun("cvm", fleet, &format!("{given_up}\n7 run:after 0\n8 done:after 0"), "8: held · ! ended abandoned");
    begun("cvm", fleet, &format!("{given_up}\n7 run:after 0\n8 fail:after 0"), "8: held · ! ended abandoned");
    // A failure during a hold is not tried again before a release.
    begun("cvm", fleet, &format!("{held}\n7 run:after 0\n8 fail:after 0"), "8: held");
    // What is bound and was rebooted by nobody is disturbed only behind the hook.
    let bound = "3 run:before 0\n5 done:before 0\n6 >bind a=r@1 b=r@1\n7 ok bind a b\n8 bound a=r@1 b=r@1\n9 held";
    let released = format!("{bound}\n10 running a b\n11 run:after 0\n12 done:after 0\n13 release");
    let story = Story::begun("ecs", fleet).tell(&released);
    check(&story, "13: settle 0, activate 0, before_0");
    let look = seen("a", "r new @1");
    let want = |story: &Story, second| {
        show_want(&story.rotation().want(Step::Activate(0), &"a".into(), Sight::Seen(&look), at(second)))
    };
    assert_eq!(want(&story, 14), "wait");
    assert_eq!(want(&story.tell("15 run:before 0\n16 done:before 0"), 16), "reboot");
}

#[test]
fn a_batch_whose_window_closes_on_it_is_brought_back_and_begun_anew_in_the_next_one() {
    let story = |journal: &str| in_windows("lighthouse", "rr takes=600 before=300 after=300").tell(journal);
    // The hooks count: 1200 s before the end is the last moment.
    check(&story(""), "6000: before_0\n6001: wake 176400");
    let drained = "6000 run:before 0\n6300 done:before 0";
    check(&story(drained), "6300: bind 0");
    // The process was away: too late for a batch, and somebody is drained.
    check(&story(drained), "6301: after_0");
    let back = format!("{drained}\n6400 run:after 0\n6401 done:after 0");
    check(&story(&back), "6401: wake 176400\n176400: before_0");
}

#[test]
fn plans_of_releases_that_knew_none_of_this_read_as_they_did() {
    let story = Story::new("cvm", "r");
    let mut value = serde_json::to_value(&story.plan).unwrap();
    value["policy"].as_object_mut().unwrap().remove("pace");
    assert_eq!(serde_json::from_value::<RotatePlan>(value).unwrap().policy.pace, Box::new(Pace::default()));
    let empty: Pace = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, Pace::default());
    let ended = r#"{"event":"hook_ended","hook":"after_batch","batch":3}"#;
    let event = Event::HookEnded { hook: Hook::AfterBatch, batch: 3, failure: None };
    assert_eq!(serde_json::from_str::<Event>(ended).unwrap(), event);
    assert_eq!(serde_json::to_string(&event).unwrap(), ended);
}
