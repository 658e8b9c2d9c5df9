//! Retiring: which pairs are due, what a retire journal adds up to, who hangs on a pair.

use super::super::hangs::{Hold, holds, is_free, needs_no_more};
use super::super::policy::believes_gone;
use super::super::retire::{Pair, due};
use super::*;

pub(super) fn retirement(journal: &str) -> Result<Retirement, IllegalEvent> {
    let id = JournalId::derive(at(0), [9; 10]);
    let plan = RetirePlan {
        fleet: "web".into(),
        place: place(),
        key_name: "rk1_old".into(),
        rotation: id,
        soak: Duration::from_secs(100),
        grace: Duration::from_secs(1000),
        proven: false,
    };
    let story = Story::new("ecs", "").tell(journal);
    let whole = Retirement::fold(id, plan.clone(), &story.entries)?;
    let mut one_by_one = Retirement::fold(id, plan, &story.entries[..1])?;
    for entry in &story.entries[1..] {
        one_by_one.apply(entry)?;
    }
    assert_eq!(format!("{whole:?}"), format!("{one_by_one:?}"));
    Ok(whole)
}

fn check(journal: &str, expect: &str) {
    let retirement = retirement(journal).unwrap();
    for line in expect.lines().map(str::trim) {
        let (second, said) = line.split_once(':').unwrap();
        let shown = show_next(&retirement.next(at(second.parse().unwrap())));
        assert_eq!(format!("{second}: {shown}"), format!("{second}: {}", said.trim()), "{journal}");
    }
}

#[test]
fn soak_then_the_pair_then_grace_then_the_half() {
    check("0 plan", "0: wake 100\n99: wake 100\n100: retire_key_pair");
    check("0 plan\n100 >delete", "101: retire_key_pair");
    check("0 plan\n100 >delete\n110 deleted", "110: wake 1110\n1109: wake 1110");
    // Without a login proof the half is kept, unless an operator says so.
    check("0 plan\n110 deleted", "1110: ! ended kept");
    check("0 plan\n5 destroy-allowed\n110 deleted", "1109: wake 1110\n1110: destroy_private_key");
    check("0 plan\n5 destroy-allowed\n110 deleted\n1110 >destroy\n1111 destroyed", "1111: ! ended retired");
    check("0 plan\n110 deleted\n1110 end:kept", "1111: ended");
    check("0 plan\n110 deleted\n1110 end:kept\n2000 destroy-allowed", "2000: destroy_private_key");
    check("0 plan\n110 deleted\n1110 end:kept\n2000 destroy-allowed\n2001 destroyed", "2001: ! ended retired");
}

#[test]
fn waived_grace_ends_soak_and_grace_and_nothing_else() {
    check("0 plan\n3 waived", "3: retire_key_pair");
    check("0 plan\n3 waived\n5 inuse delete +30", "6: wake 35\n35: retire_key_pair");
    check("0 plan\n110 deleted\n200 waived", "200: ! ended kept");
    check("0 plan\n3 waived\n5 destroy-allowed\n7 deleted", "7: destroy_private_key");
    check("0 plan\n3 held\n4 waived", "5: held");
    check("0 plan\n3 held\n4 waived\n5 release", "5: retire_key_pair");
    assert!(retirement("0 plan\n1 end:retired\n2 waived").is_err());
}

#[test]
fn it_waits_for_a_bound_pair_and_a_cloud_that_is_away_and_holds_for_a_person() {
    let many = |word: &str| (0..40).map(|n| format!("{} {word} delete +30\n", 100 + 30 * n)).collect::<String>();
    for word in ["inuse", "away", "throttled"] {
        check(&format!("0 plan\n{}", many(word)), "1290: wake 1300\n1300: retire_key_pair");
    }
    check("0 plan\n100 denied delete", "101: ! held retire_key_pair");
    check("0 plan\n100 denied delete\n101 held:step", "200: held");
    check("0 plan\n100 denied delete\n101 held:step\n300 release", "300: retire_key_pair");
    check("0 plan\n5 held", "200: held");
    check("0 plan\n100 away delete\n101 deleted", "102: wake 1101");
}

#[test]
fn how_far_it_is_has_one_word_at_each_moment() {
    let check = |journal: &str, expect: &str| {
        let retirement = retirement(journal).unwrap();
        for word in expect.split_whitespace() {
            let (second, said) = word.split_once(':').unwrap();
            let stage = retirement.stage(at(second.parse().unwrap())).map_or("ended", Stage::name);
            assert_eq!(format!("{second}:{stage}"), format!("{second}:{said}"), "{journal}");
        }
    };
    check("0 plan", "0:soak 99:soak 100:due");
    check("0 plan\n100 >delete", "101:due");
    check("0 plan\n100 inuse delete +30", "101:waiting 131:waiting");
    check("0 plan\n100 inuse delete +30\n110 deleted", "111:grace 1109:grace 1110:due");
    check("0 plan\n110 deleted\n1110 away destroy +30", "1111:waiting");
    check("0 plan\n5 held", "6:held 2000:held");
    check("0 plan\n5 held\n6 release", "6:soak 100:due");
    check("0 plan\n110 deleted\n111 held", "112:held");
    check("0 plan\n110 deleted\n1110 end:kept", "1110:ended");
    check("0 plan\n110 deleted\n1110 end:kept\n2000 destroy-allowed", "2000:due");
    assert_eq!(Stage::ALL.map(Stage::name), ["soak", "waiting", "due", "grace", "held"]);
}

#[test]
fn what_is_said_of_an_account_counts_for_an_hour_and_a_persons_word_too() {
    let check = |journal: &str, now: u64, is_strange: bool, believes: bool| {
        let retirement = retirement(journal).unwrap();
        assert_eq!(retirement.strange(at(now)).is_some(), is_strange, "{journal} at {now}");
        let told = retirement.told(at(now)).is_some();
        assert_eq!(told, is_strange || journal.contains("away"), "{journal} at {now}");
        assert_eq!(believes_gone(retirement.gone_allowed, at(now)), believes, "{journal} at {now}");
    };
    let said = "0 plan\n100 strange delete";
    check(said, 101, true, false);
    check(said, 100 + 3599, true, false);
    check(said, 100 + 3600, false, false);
    check("0 plan\n100 away delete", 101, false, false);
    check(&format!("{said}\n200 gone-allowed"), 201, false, true);
    check(&format!("{said}\n200 gone-allowed\n300 destroy-allowed"), 200 + 3599, false, true);
    check(&format!("{said}\n200 gone-allowed"), 200 + 3600, false, false);
    // A clock that stepped back makes no word of the future count.
    check(&format!("{said}\n200 gone-allowed"), 199, false, false);
}

#[test]
fn entries_that_do_not_belong_into_a_retire_journal_are_refused() {
    let check = |journal: &str, problem: &str| {
        let shown = retirement(journal).unwrap_err().to_string();
        assert!(shown.ends_with(problem), "{shown}");
    };
    check("0 stored", "the plan stands first, and only there");
    check("5 plan\n4 held", "its time runs back");
    check("0 plan\n1 stored", "key_stored is no entry of a retire journal");
    check("0 plan\n1 end:retired\n2 held", "the journal has ended");
    check("0 plan\n1 end:kept\n2 held", "the journal has ended");
    check("0 plan\n1 end:kept\n2 release", "the journal has ended");
    check("0 plan\n1 end:retired\n2 destroy-allowed", "the journal has ended");
}

#[test]
fn due_is_each_pair_but_the_newest_completed_one_once_no_rotation_is_open() {
    // `name:outcome`: c completed, a abandoned, o open; a star: it has a retire journal.
    let check = |pairs: &str, expect: &str| {
        let pairs: Vec<Pair> = pairs
            .split_whitespace()
            .enumerate()
            .map(|(index, word)| Pair {
                rotation: JournalId::derive(at(index as u64), [0; 10]),
                key_name: word.split(':').next().unwrap().into(),
                strangers: word.starts_with("old"),
                undoes: word
                    .split_once('-')
                    .map(|(_, undone)| JournalId::derive(at(undone.trim_end_matches('*').parse().unwrap()), [0; 10])),
                ended: match word.split(':').nth(1).unwrap().chars().next() {
                    Some('c') => Some(Outcome::Completed),
                    Some('a') => Some(Outcome::Abandoned),
                    _ => None,
                },
                retired: word.ends_with('*'),
            })
            .collect();
        let shown: Vec<&str> = due(&pairs).into_iter().map(|pair| pair.key_name.as_str()).collect();
        assert_eq!(shown.join(" "), expect, "{pairs:?}");
    };
    check("", "");
    check("k1:c", "");
    check("k1:c k2:c", "k1");
    check("k1:c k2:o", "");
    check("k1:c k2:a", "k2");
    check("k1:c k2:a k3:c", "k1 k2");
    check("k1:c* k2:c k3:c", "k2");
    check("k1:a", "k1");
    // Rolled back: the newest completed rotation bound the first pair again.
    check("k1:c k2:c k1:c-1", "k2");
    check("k1:c* k2:c k1:c-1", "k2");
    // Superseded again: retired again, whatever came of the first retire journal.
    check("k1:c k2:c k1:c-1 k3:c", "k2 k1");
    check("k1:c* k2:c* k1:c-1 k3:c", "k1");
    check("k1:c* k2:c* k1:c-1* k3:c", "");
    // Back on a stranger's pair: that is never retired, and what was rolled back is.
    check("k1:c old:c-0", "k1");
    check("k1:c old:c-0 k2:c", "k1");
    check("k1:c k2:c old:c-1", "k2");
    check("k1:c k2:c old:c-1*", "k2");
    // To several pairs, one after the other.
    check("k1:c k2:c k1:c-1 old:c-1", "k2");
    // A way back that was given up decides nothing.
    check("k1:c k2:c k1:a-1", "k1");
    // Rolled back and forth; a catch-up of what was rolled back is rolled back with it.
    check("k1:c k2:c k1:c-1 k2:c-2", "k1");
    check("k1:c k2:c k2:c old:c-1", "k2");
    check("k1:c k2:c k2:c", "k1");
}

/// The rotations of a fleet of one instance, oldest first: cloud, `key` (its handle is its name without the mark), plan.
fn rotation(cloud: &str, key: &str, planned: &str, journal: &str) -> (Rotation, Vec<PlannedInstance>) {
    let mut story = Story::new(cloud, "r");
    story.plan.key_name = format!("rk1_{key}").as_str().into();
    story.instances[0].keys = planned.split('+').filter(|key| !key.is_empty()).map(Into::into).collect();
    let story = story.tell(&format!("0 plan\n1 stored\n2 imported {key}\n{journal}"));
    (story.rotation(), story.instances)
}

fn hold(rotations: &[(Rotation, Vec<PlannedInstance>)]) -> Option<Hold> {
    holds(&"rk1_k1".into(), &["k1".into()], rotations).remove(&"a".into())
}

#[test]
fn whoever_was_found_on_the_pair_or_asked_to_bind_to_it_holds_it_until_a_later_journal_says_otherwise() {
    let asked = rotation("ecs", "k1", "old", "5 >bind a=r/old@1\n6 ok bind a");
    let never = rotation("ecs", "k1", "old", "5 out a");
    let active = |key| rotation("ecs", key, "k1", "5 >bind a=r/k1@1\n6 ok bind a\n7 bound a=r@1\n9 active a");
    let stuck = |key| rotation("ecs", key, "k1", "5 >bind a=r/k1@1\n6 ok bind a\n7 bound a=r@1\n9 out a");
    let shown = |rotations: &[_]| match hold(rotations) {
        None => "none".to_string(),
        Some(Hold::On) => "on".into(),
        Some(Hold::Asked(before)) => {
            format!("asked, had {}", before.iter().map(KeyPairId::as_str).collect::<Vec<_>>().join(" "))
        }
        Some(Hold::BoundTo(key, bound)) => format!("bound to {} {}", key.as_str(), letter(bound.power)),
        Some(Hold::Free) => "free".into(),
        Some(Hold::Proven) => "proven".into(),
    };
    assert_eq!(shown(std::slice::from_ref(&asked)), "asked, had old");
    // The cloud said that it was not done: nobody asked, as far as the pair goes. After a lost answer it may have been.
    let refused = rotation("ecs", "k1", "old", "5 >bind a=r/old@1\n6 refused bind a");
    assert_eq!(shown(std::slice::from_ref(&refused)), "none");
    let bound = rotation("ecs", "k1", "old", "5 >bind a=r/old@1\n6 ok bind a\n7 bound a=r@1\n9 out a");
    assert_eq!(shown(std::slice::from_ref(&bound)), "on");
    assert_eq!(shown(std::slice::from_ref(&never)), "none");
    assert_eq!(shown(&[never.clone(), stuck("k2")]), "bound to k2 r");
    assert_eq!(shown(&[never, rotation("ecs", "k2", "k1", "5 out a")]), "on");
    assert_eq!(shown(&[asked.clone(), active("k2")]), "free");
    assert_eq!(shown(&[asked.clone(), stuck("k2")]), "bound to k2 r");
    assert_eq!(shown(&[asked.clone(), rotation("ecs", "k2", "k1", "5 gone a")]), "proven");
    let proven = rotation("ecs", "k2", "k1", "5 >bind a=r/k1@1\n6 ok bind a\n7 bound a=r@1\n9 active a\n10 proven a");
    assert_eq!(shown(&[asked.clone(), proven.clone()]), "proven");
    // A later rotation that takes the cloud's word does not take the proof back.
    assert_eq!(
        shown(&[asked.clone(), proven, rotation("ecs", "k3", "k2", "5 >bind a=r/k2@1\n7 bound a=r@1\n9 active a")]),
        "proven"
    );
    // Bound to another and not seen active, then asked back, and nobody saw that: its disk may accept the first one only.
    let own = rotation("ecs", "k1", "old", "5 >bind a=r/old@1\n6 ok bind a\n7 bound a=r@1\n9 active a");
    let back = rotation("ecs", "k1", "k2", "5 >bind a=r/k2@1\n6 ok bind a");
    assert_eq!(shown(&[own, stuck("k2"), back]), "bound to k2 r");
    // Rolled back to it: it holds again; and is let go by the next.
    assert_eq!(shown(&[asked.clone(), active("k2"), active("k1")]), "on");
    assert_eq!(shown(&[asked.clone(), active("k2"), active("k1"), active("k3")]), "free");
    // A later rotation that was abandoned before it touched anybody changes nothing.
    assert_eq!(shown(&[asked, rotation("ecs", "k2", "k1", "5 abandon")]), "on");
}

#[test]
fn an_instance_is_free_when_it_is_gone_active_on_another_pair_or_stopped_and_bound_to_another() {
    let bound = |power, boot: Option<&str>| {
        let boot = boot.map(str::to_string);
        Hold::BoundTo("k2".into(), BoundInstance { instance: "a".into(), power, boot })
    };
    let check = |cloud: &str, hold: &Hold, look: &str, expect: bool| {
        let seen = (look != "-").then(|| seen("a", look));
        assert_eq!(is_free(hold, seen.as_ref(), &"k1".into(), disruption(cloud)), expect, "{cloud} {hold:?} {look}");
    };
    for cloud in ["lighthouse", "cvm", "ecs", "bcc"] {
        for hold in [&Hold::On, &Hold::Free, &bound(Power::Running, Some("1")), &bound(Power::Stopped, None)] {
            check(cloud, hold, "-", true);
            check(cloud, hold, "g k1", true);
            check(cloud, hold, "r k1 @9", false);
            check(cloud, hold, "s k1", false);
            check(cloud, hold, "s k2 k1", false);
            check(cloud, hold, "c k2 @9", false);
            check(cloud, hold, "s k2", true);
            check(cloud, hold, "s", false);
        }
        // A straggler that booted later: bound while stopped, it runs.
        check(cloud, &bound(Power::Stopped, None), "r k2 @2", true);
        check(cloud, &bound(Power::Stopped, Some("1")), "r k2 @2", true);
    }
    for cloud in ["lighthouse", "cvm"] {
        check(cloud, &Hold::On, "r k2", true);
        check(cloud, &Hold::On, "r k2 op=x busy", false);
    }
    // Asked and never seen bound: free where it still has what it had, or by any of the proofs above.
    for cloud in ["lighthouse", "cvm", "ecs", "bcc"] {
        let asked = Hold::Asked(vec!["old".into()]);
        check(cloud, &asked, "r old @1", true);
        check(cloud, &asked, "r k1 @1", false);
        check(cloud, &asked, "r old k1 @1", false);
        check(cloud, &asked, "c old @1", false);
        check(cloud, &asked, "r @1", false);
        check(cloud, &Hold::Asked(Vec::new()), "r @1", true);
        check(cloud, &Hold::Asked(Vec::new()), "r k1 @1", false);
    }
    check("ecs", &bound(Power::Running, Some("1")), "r k2 @1", false);
    check("ecs", &bound(Power::Running, Some("1")), "r k2 @2", true);
    check("ecs", &bound(Power::Running, None), "r k2 @2", false);
    check("ecs", &bound(Power::Running, Some("1")), "r k3 @2", false);
    check("ecs", &bound(Power::Stopped, None), "r k3", false);
    check("ecs", &Hold::On, "r k2 @2", false);
    check("bcc", &bound(Power::Running, None), "r k2", false);
    check("bcc", &Hold::On, "r k2", false);
}

#[test]
fn a_stopped_machine_may_still_need_the_private_half_that_its_disk_accepts() {
    let bound = Hold::BoundTo("k2".into(), BoundInstance { instance: "a".into(), power: Power::Stopped, boot: None });
    let check = |hold: &Hold, look: &str, expect: bool| {
        let seen = (look != "-").then(|| seen("a", look));
        assert_eq!(
            needs_no_more(hold, seen.as_ref(), &"k1".into(), disruption("ecs"), false),
            expect,
            "{hold:?} {look}"
        );
    };
    check(&bound, "s k2", false);
    check(&Hold::On, "s k2", false);
    check(&bound, "r k2 @2", true);
    check(&Hold::Free, "s k2", true);
    check(&Hold::On, "-", true);
    // Where logins prove keys, the cloud's word that it is active on another lets nothing die.
    for (hold, expect) in [(&Hold::Free, false), (&Hold::Proven, true), (&bound, false), (&Hold::On, false)] {
        assert_eq!(needs_no_more(hold, Some(&seen("a", "r k2 @2")), &"k1".into(), disruption("ecs"), true), expect);
    }
}
