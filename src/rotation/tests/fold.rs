//! What a journal adds up to, and which entries cannot stand where they stand.

use super::*;

#[test]
fn entries_that_cannot_follow_are_refused() {
    let check = |story: Story, expect: &str| assert_eq!(story.illegal(), format!("entry {expect}"));
    check(Story::new("ecs", "r").tell("0 stored"), "1 cannot stand there: the plan stands first, and only there");
    check(Story::begun("ecs", "r").tell("3 plan"), "4 cannot stand there: the plan stands first, and only there");
    check(Story::begun("ecs", "r").tell("1 held"), "4 cannot stand there: its time runs back");
    check(Story::begun("ecs", "r").tell("3 end\n4 held"), "5 cannot stand there: the journal has ended");
    for words in [
        ">bind z=r",
        "ok bind z",
        "refused bind z",
        "down z",
        "bound z=r",
        "active z",
        "running z",
        "gone z",
        "out z",
        "leave-off z",
    ] {
        let story = Story::begun("ecs", "r").tell(&format!("3 {words}"));
        check(story, "4 cannot stand there: z is not in the plan");
    }
    let mut gap = Story::begun("ecs", "r").tell("3 held");
    gap.entries.remove(2);
    check(gap, "4 cannot stand there: it does not follow the entry before it");
    let mut twice = Story::begun("ecs", "r");
    twice.entries.push(twice.entries[2].clone());
    check(twice, "3 cannot stand there: it does not follow the entry before it");
}

#[test]
fn a_refused_entry_changes_nothing() {
    let story = Story::begun("ecs", "rr").tell("5 >bind a=r");
    let mut rotation = story.rotation();
    let before = format!("{rotation:?}");
    for words in ["1 gone a", "6 out z", "6 plan"] {
        let bad = story.clone().tell(words).entries.pop().unwrap();
        assert!(rotation.apply(&bad).is_err(), "{words}");
        assert_eq!(format!("{rotation:?}"), before, "{words}");
    }
    assert!(rotation.apply(&story.tell("6 ok bind a").entries.pop().unwrap()).is_ok());
}

#[test]
fn who_is_owed_a_start_and_what_closes_the_debt() {
    let check = |journal: &str, expect: &str| {
        let rotation = Story::begun("cvm", "rrr").tell(journal).rotation();
        let owed: Vec<&str> = rotation.members().filter(|(_, m)| m.owed.is_some()).map(|(id, _)| id.as_str()).collect();
        assert_eq!(owed.join(" "), expect, "{journal}");
        assert_eq!(rotation.owed() as usize, owed.len(), "{journal}");
    };
    check("", "");
    check("5 >stop a=r b=s", "a");
    check("5 >bind a=r b=s c=r", "a c");
    check("5 >reboot a=r", "a");
    check("5 >start a=s", "");
    for open in [
        "lost stop a",
        "refused stop a",
        "ok stop a",
        "down a",
        "changing a",
        "bound a=s",
        "out a",
        "held",
        "abandon",
        "release",
    ] {
        check(&format!("5 >stop a=r\n6 {open}"), "a");
    }
    for closed in ["running a", "active a", "gone a", "leave-off a"] {
        check(&format!("5 >stop a=r\n6 ok stop a\n7 {closed}"), "");
    }
    check("5 >stop a=r b=r\n6 ok stop a b\n7 leave-off a", "b");
    check("5 >stop a=r\n6 running a\n7 >stop a=r", "a");
}

#[test]
fn the_first_found_of_an_instance_is_never_replaced() {
    let check = |journal: &str, expect: &str| {
        let rotation = Story::begun("cvm", "r").tell(journal).rotation();
        let found = rotation.member(&"a".into()).unwrap().found.clone();
        let shown = found.map_or("-".into(), |found| {
            let keys: Vec<&str> = found.keys.iter().map(|key| key.as_str()).collect();
            format!("{} {}", letter(found.power), keys.join(" "))
        });
        assert_eq!(shown, expect, "{journal}");
    };
    check("", "-");
    check("5 >stop a=r/old+more", "r old more");
    check("5 >stop a=r/old\n6 ok stop a\n7 down a\n8 >bind a=s/other", "r old");
    check("5 >start a=s/old", "-");
    check("5 bound a=r", "r new");
}

#[test]
fn soak_and_release_move_the_moment_from_which_the_batch_may_go_on() {
    let check = |journal: &str, expect: i64| {
        let rotation = Story::begun("ecs", "r r r soak=100").tell(journal).rotation();
        assert_eq!(rotation.current_from().map(seconds), Some(expect), "{journal}");
    };
    check("", 2);
    check("5 >bind a=r\n6 bound a=r\n7 active a", 107);
    check("5 >bind a=r\n6 bound a=r\n7 active a\n8 held\n50 release", 150);
    check("5 >bind a=r\n6 bound a=r\n7 active a\n108 >bind b=r\n109 bound b=r\n120 active b", 120);
}

#[test]
fn one_more_entry_costs_the_same_in_a_small_and_in_a_large_fleet() {
    // Counted, not timed: what `next` and `apply` touch is the batches in which something is under way.
    let mut story = Story::new("ecs", "");
    story.instances = (0..20_000u32)
        .map(|n| PlannedInstance {
            id: format!("i-{n:06}").as_str().into(),
            name: String::new(),
            power: Power::Running,
            keys: Vec::new(),
            part: Part::Batch(n / 100),
            pin: None,
            known: None,
        })
        .collect();
    let mut story = story.tell("0 plan\n1 stored\n2 imported");
    let mut rotation = story.rotation();
    let mut time = 10;
    for batch in 0..200u32 {
        let ids = rotation.batch(batch).to_vec();
        let found = ids.iter().map(|id| found(&format!("{id}=r@1"))).collect();
        let bound =
            |id: &crate::model::InstanceId| BoundInstance { instance: id.clone(), power: Power::Running, boot: None };
        for event in [
            Event::Started { step: Step::Bind(batch), call: Call::Bind, found },
            Event::Bound { instances: ids.iter().map(bound).collect() },
            Event::Activated { instances: ids.clone() },
        ] {
            story.push(at(time), event);
            rotation.apply(story.entries.last().unwrap()).unwrap();
            assert!(rotation.busy.len() <= 1, "{:?}", rotation.busy);
            assert!(rotation.next(at(time)).run.len() <= 3);
            time += 1;
        }
    }
    assert_eq!(show_next(&rotation.next(at(time))), "! ended completed");
}

#[test]
fn a_refusal_of_a_group_counts_for_the_step_and_one_of_a_single_instance_against_that_one() {
    let check = |journal: &str, step_tries: u32, own: [u32; 2]| {
        let story = Story::begun("lighthouse", "rr").tell(journal);
        let rotation = story.rotation();
        let tries = |id: &str| rotation.member(&id.into()).unwrap().retry.as_ref().map_or(0, |retry| retry.tries);
        assert_eq!(rotation.retry(Step::Bind(0)).map_or(0, |retry| retry.tries), step_tries, "{journal}");
        assert_eq!([tries("a"), tries("b")], own, "{journal}");
    };
    check("5 >bind a=r b=r\n6 refused bind a b\n7 >bind a=r b=r\n8 refused bind a b", 2, [0, 0]);
    check("5 >bind a=r b=r\n6 refused bind a", 0, [1, 0]);
    check("5 >bind a=r b=r\n6 away bind a b", 1, [0, 0]);
}

#[test]
fn how_far_an_instance_is_has_one_word() {
    let check = |cloud: &str, journal: &str, expect: &str| {
        let rotation = Story::begun(cloud, "rs").tell(journal).rotation();
        let phases: Vec<&str> = rotation.members().map(|(_, member)| member.phase().name()).collect();
        assert_eq!(phases.join(" "), expect, "{cloud}: {journal}");
    };
    check("ecs", "", "waiting waiting");
    check("ecs", "5 >bind a=r b=s", "under_way under_way");
    check("ecs", "5 >bind a=r b=s\n6 ok bind a b", "under_way under_way");
    // Found running, a start is owed whatever became of the call.
    check("ecs", "5 >bind a=r b=s\n6 refused bind a b", "under_way waiting");
    check("ecs", "5 >bind a=r b=s\n6 ok bind a b\n7 bound a=r b=s", "bound straggler");
    check("ecs", "5 >bind a=r b=s\n7 bound a=r b=s\n8 active a b", "active active");
    check("ecs", "5 >bind a=r b=s\n7 bound a=r b=s\n8 out a b", "excluded excluded");
    check("ecs", "5 >bind a=r b=s\n7 bound a=r b=s\n8 active a\n9 out b\n10 gone a b", "gone gone");
    check("cvm", "5 >stop a=r\n6 ok stop a\n7 down a", "under_way waiting");
    assert_eq!(Phase::ALL.map(Phase::name).len(), Phase::Gone as usize + 1);
    assert!(Phase::ALL.is_sorted(), "each once, in their order");
}

#[test]
fn the_fold_knows_when_the_key_was_stored() {
    let stored = |journal: &str| Story::new("ecs", "r").tell(journal).rotation().key_stored;
    assert_eq!(stored("0 plan"), None);
    assert_eq!(stored("0 plan\n3 stored\n9 imported"), Some(at(3)));
}
