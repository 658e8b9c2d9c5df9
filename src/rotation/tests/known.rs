//! A rotation whose key exists already: back to our own pair or a stranger's, and the catch-up of those who missed it.

use super::super::standing::{pins, stands};
use super::story::pin;
use super::*;
use crate::model::PublicKey;

fn public(number: u8) -> PublicKey {
    PrivateKey::sample(number).public().clone()
}

fn by_login() -> Verify {
    Verify::Ssh(SshLogin {
        user: "root".into(),
        port: 22,
        address: AddressFrom::Private,
        old_key: OldKey::Refuse,
        connect_timeout: Duration::from_secs(10),
        jump: None,
        deadline: Duration::from_secs(600),
    })
}

/// A catch-up of one machine that runs now. `known`: `straggler` (bound while it was switched off) or `late` (active, not
/// proven).
fn catch_up(cloud: &str, known: &str, verify: Verify) -> Story {
    let mut story = Story::new(cloud, "r");
    story.plan.key = KeySource::Existing { public_key: public(1) };
    story.plan.policy.verify = verify;
    let power = if known == "straggler" { Power::Stopped } else { Power::Running };
    let bound = BoundInstance { instance: "a".into(), power, boot: Some("1".into()) };
    story.instances[0].known = Some(Known { before: vec!["old".into()], bound, active: known == "late" });
    story.instances[0].keys = vec!["new".into()];
    story
}

fn next(story: &Story, second: u64) -> String {
    show_next(&story.rotation().next(at(second)))
}

fn finding(story: &Story, second: u64, look: &str) -> String {
    let instance = seen("a", look);
    let finding = story.rotation().finding(&"a".into(), Sight::Seen(&instance), at(second));
    finding.as_ref().map_or("-".into(), show_finding)
}

const CLOUDS: [&str; 4] = ["lighthouse", "cvm", "ecs", "bcc"];

#[test]
fn a_straggler_that_runs_is_seen_active_and_never_touched() {
    for cloud in CLOUDS {
        let story = catch_up(cloud, "straggler", Verify::None);
        assert_eq!(next(&story.tell("0 plan"), 0), "store_key", "nothing is looked at before there is a pair");
        let story = catch_up(cloud, "straggler", Verify::None).tell("0 plan\n1 stored\n2 imported new");
        assert!(next(&story, 3).starts_with("settle 0, activate 0"), "{cloud}: {}", next(&story, 3));
        assert_eq!(finding(&story, 3, "r new @2"), "active", "{cloud}");
        // Nothing disturbs it, whatever a look shows.
        let rotation = story.rotation();
        for look in ["r new @1", "r old @1", "s new", "s old", "c new", "r @1"] {
            let instance = seen("a", look);
            for step in [Step::Prepare(0), Step::Bind(0), Step::Activate(0)] {
                for second in [3, 100, 2000] {
                    let want = show_want(&rotation.want(step, &"a".into(), Sight::Seen(&instance), at(second)));
                    assert!(["nothing", "wait"].contains(&want.as_str()), "{cloud} {look} {step}: {want}");
                }
            }
        }
        let story = story.tell("3 active a");
        assert_eq!(next(&story, 4), "! ended completed", "{cloud}");
    }
}

#[test]
fn a_straggler_that_is_switched_off_again_waits_for_its_next_boot_and_is_no_failure() {
    for cloud in CLOUDS {
        let story = catch_up(cloud, "straggler", by_login()).tell("0 plan\n1 stored\n2 imported new");
        assert_eq!(finding(&story, 3, "s new"), "stopped", "{cloud}");
        let story = story.tell("3 down a");
        assert_eq!(next(&story, 4), "! ended completed", "{cloud}");
        let rotation = story.rotation();
        assert_eq!(rotation.member(&"a".into()).unwrap().phase(), Phase::Straggler);
    }
}

#[test]
fn who_is_late_is_only_proven_and_a_canary_of_nobody_holds_nothing() {
    let story = catch_up("ecs", "late", by_login()).tell("0 plan\n1 stored\n2 imported new");
    assert!(next(&story, 3).starts_with("verify 0"), "{}", next(&story, 3));
    let rotation = story.rotation();
    let member = rotation.member(&"a".into()).unwrap();
    assert!(member.active && member.awaits_proof() && !member.asked && member.owed.is_none());
    assert_eq!(member.active_at, Some(at(2)), "its time begins with the pair");
    let mut story = story;
    story.push(at(950), Event::Unproven { instances: vec!["a".into()], why: "no route".into() });
    assert_eq!(next(&story, 951), "! ended completed");
    let given_up = catch_up("ecs", "late", by_login()).tell("0 plan\n1 stored\n2 imported new\n3 abandon");
    assert_eq!(next(&given_up, 4), "held · ! ended abandoned");
}

/// Back to a stranger's pair.
fn back(verify: Verify, public_key: Option<PublicKey>) -> Story {
    let mut story = Story::new("ecs", "r rr");
    story.plan.key = KeySource::Stranger { key_pair: "old".into(), public_key };
    story.plan.undoes = Some(JournalId::derive(at(0), [7; 10]));
    story.plan.policy.verify = verify;
    story.plan.policy.soak = Duration::from_secs(600);
    story.instances.iter_mut().for_each(|planned| planned.keys = vec!["new".into()]);
    story
}

#[test]
fn a_strangers_key_is_never_made_nor_kept_and_is_proven_only_where_its_public_half_is_known() {
    let story = back(by_login(), None).tell("0 plan");
    assert_eq!(next(&story, 0), "import_key");
    let story = story.tell("2 imported old");
    assert_eq!(next(&story, 2), "bind 0");
    assert!(!story.rotation().member(&"a".into()).unwrap().must_prove);
    let known = back(by_login(), Some(public(9))).tell("0 plan\n2 imported old").rotation();
    assert!(known.member(&"a".into()).unwrap().must_prove);
    assert_eq!(known.key.as_ref().map(|(key, _)| key), Some(&public(9)));
    assert_eq!(known.plan.purpose(), Purpose::Rollback);
}

#[test]
fn a_way_back_keeps_its_canary_and_does_not_soak() {
    let story =
        back(Verify::None, None).tell("0 plan\n2 imported old\n3 >bind a=r/new@1\n4 bound a=r/old@1\n9 active a");
    assert_eq!(next(&story, 10), "bind 1");
    let failed = back(Verify::None, None).tell("0 plan\n2 imported old\n3 >bind a=r/new@1\n4 bound a=r/old@1\n9 out a");
    assert!(next(&failed, 10).contains("! held"), "{}", next(&failed, 10));
}

#[test]
fn a_way_back_binds_over_nothing_that_was_not_there_when_it_was_planned() {
    let rotation = back(Verify::None, None).tell("0 plan\n2 imported old").rotation();
    let want = |look: &str| {
        let instance = seen("a", look);
        show_want(&rotation.want(Step::Bind(0), &"a".into(), Sight::Seen(&instance), at(3)))
    };
    assert_eq!(want("r new @1"), "bind");
    assert_eq!(want("r alien @1"), "record out drifted");
    assert_eq!(want("r old @1"), "record bound r@1", "somebody was faster");
}

#[test]
fn a_plan_of_an_earlier_release_makes_a_new_key_and_a_plan_that_does_is_written_as_before() {
    let plan = Story::new("ecs", "r").plan;
    let text = serde_json::to_string(&plan).unwrap();
    assert!(!text.contains("\"key\"") && !text.contains("undoes"), "{text}");
    assert_eq!(serde_json::from_str::<RotatePlan>(&text).unwrap(), plan);
    assert_eq!(plan.purpose(), Purpose::Rotate);
    for plan in [catch_up("ecs", "late", Verify::None).plan, back(Verify::None, Some(public(2))).plan] {
        let text = serde_json::to_string(&Plan::Rotate(plan.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), Plan::Rotate(plan), "{text}");
    }
}

/// One journal of machine `a`.
fn told(key: &str, known: Option<(&str, bool)>, journal: &str) -> (Rotation, Vec<PlannedInstance>) {
    let mut story = Story::new("ecs", "r");
    story.plan.key_name = format!("rk1_{key}").as_str().into();
    if let Some((before, active)) = known {
        let bound = BoundInstance { instance: "a".into(), power: Power::Stopped, boot: None };
        story.plan.key = KeySource::Existing { public_key: public(1) };
        story.instances[0].known = Some(Known { before: vec![before.into()], bound, active });
    }
    let story = story.tell(&format!("0 plan\n1 stored\n2 imported {key}\n{journal}"));
    (story.rotation(), story.instances)
}

#[test]
fn where_a_machine_stands_is_what_the_newest_journal_saw_that_bound_it() {
    let check = |rotations: &[(Rotation, Vec<PlannedInstance>)], expect: &str| {
        let stand = stands(rotations).remove(&"a".into());
        let shown = stand.map(|stand| {
            let words = [("waits", stand.waits), ("active", stand.active), ("proven", stand.proven)];
            let words: Vec<&str> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
            let before: Vec<&str> = stand.before.iter().map(KeyPairId::as_str).collect();
            format!("{} after {} {}", stand.key_pair, before.join("+"), words.join(" "))
        });
        assert_eq!(shown.unwrap_or("-".into()).trim(), expect);
    };
    let straggler = || told("k2", None, "5 >bind a=s/k1\n6 bound a=s/k2");
    let active = || told("k1", None, "5 >bind a=r/k0@1\n6 bound a=r/k1@1\n9 active a");
    check(&[active()], "k1 after k0 active proven");
    check(&[active(), straggler()], "k2 after k1 waits");
    check(&[active(), told("k2", None, "5 >bind a=r/k1@1")], "-");
    check(&[active(), told("k2", None, "5 out a")], "k1 after k0 active proven");
    check(&[active(), told("k2", None, "5 gone a")], "-");
    // Caught up; or not: it is still waited for.
    check(&[active(), straggler(), told("k2", Some(("k1", false)), "9 active a")], "k2 after k1 active proven");
    check(&[active(), straggler(), told("k2", Some(("k1", false)), "9 down a")], "k2 after k1 waits");
    check(&[active(), straggler(), told("k2", Some(("k1", false)), "9 out a")], "k2 after k1 waits");
    let known = stands(&[active(), straggler()]).remove(&"a".into()).unwrap().known();
    assert_eq!((known.before, known.bound.power, known.active), (vec!["k1".into()], Power::Stopped, false));
}

#[test]
fn the_pin_is_the_newest_journals() {
    let with = |planned: &str, journal: &str| {
        let mut story = Story::new("ecs", "r");
        story.instances[0].pin = (!planned.is_empty()).then(|| pin(planned));
        let story = story.tell("0 plan\n1 stored\n2 imported k").tell(journal);
        (story.rotation(), story.instances)
    };
    let check = |rotations: &[(Rotation, Vec<PlannedInstance>)], expect: &str| {
        assert_eq!(pins(rotations).remove(&"a".into()), (!expect.is_empty()).then(|| pin(expect)));
    };
    let first = || with("", "3 pinned a=H@m-1");
    check(&[with("", "")], "");
    check(&[first()], "H@m-1");
    check(&[first(), with("H@m-1", "")], "H@m-1");
    check(&[first(), with("H@m-1", "3 anew a=X@m-2")], "X@m-2");
    check(&[first(), with("H@m-1", "3 pinned a")], "H@m-1");
    check(&[first(), with("H@m-1", "3 trust a=X")], "X");
    check(&[first(), with("", "")], "H@m-1");
}

#[test]
fn a_retire_journal_is_recalled_by_a_later_rotation_of_its_pair_and_by_nothing_else() {
    let id = |number: u8| JournalId::derive(at(number.into()), [number; 10]);
    let rotate = Plan::Rotate(Story::new("ecs", "r").plan);
    let retire = Plan::Retire(super::retire::retirement("0 plan").unwrap().plan);
    let check = |kinds: &str, expect: bool| {
        let plans = kinds.chars().enumerate().map(|(number, kind)| match kind {
            // The journal that is asked about is the capital one.
            'r' => (id(number as u8), &rotate),
            _ => (id(number as u8), &retire),
        });
        let asked = id(kinds.find('T').unwrap_or(99) as u8);
        assert_eq!(super::super::retire::is_recalled(asked, plans), expect, "{kinds}");
    };
    check("rT", false);
    check("rTr", true);
    check("rTrt", true);
    check("rtrT", false);
    check("rTt", false);
    check("r", false);
    let ended = super::retire::retirement("0 plan\n110 deleted\n111 end:recalled").unwrap();
    assert_eq!(show_next(&ended.next(at(5000))), "ended", "it destroys nothing any more");
}
