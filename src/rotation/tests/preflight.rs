//! Findings by tables: what is found out beforehand, and what it comes to.

use super::*;
use crate::model::error::{Blame, Effect};

/// Checks the finding of `rule` in the judgement of `evidence`: its level and words that it says.
fn check(evidence: &Evidence, rule: Rule, expect: &[(Level, &[&str])]) {
    let findings = judge(evidence);
    assert!(findings.is_sorted_by(|a, b| a.level >= b.level), "{findings:?}");
    let of_rule: Vec<&Finding> = findings.iter().filter(|finding| finding.rule == rule).collect();
    let levels: Vec<Level> = of_rule.iter().map(|finding| finding.level).collect();
    assert_eq!(levels, expect.iter().map(|(level, _)| *level).collect::<Vec<_>>(), "{of_rule:#?}");
    for (finding, (_, words)) in of_rule.iter().zip(expect) {
        let text = finding.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text:?} lacks one of {words:?}");
    }
}

fn well() -> Evidence {
    Evidence { clock_difference: Some(0), canary_runs: true, ..Evidence::default() }
}

fn error(kind: Kind, action: &str) -> Error {
    let (effect, blame) = (Effect::NotDone, Blame::Account);
    let (action, code, message) = (action.to_string(), "Forbidden.RAM".to_string(), "no".to_string());
    Error { kind, effect, blame, action, code, message, request_id: None, retry_after: None }
}

fn ids(names: &[&str]) -> Vec<InstanceId> {
    names.iter().map(|name| InstanceId::from(*name)).collect()
}

#[test]
fn nothing_refuses_where_all_is_well_and_what_was_not_tried_is_said() {
    let evidence = Evidence { untried: vec!["ImportKeyPair", "AttachKeyPair"], ..well() };
    let findings = judge(&evidence);
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    assert!(refusals(&findings).is_empty());
    check(
        &evidence,
        Rule::Permissions,
        &[(Level::Ok, &["cannot be tried without being done: ImportKeyPair, AttachKeyPair"])],
    );
}

#[test]
fn a_clock_warns_from_thirty_seconds_on_and_refuses_beyond_sixty() {
    let off = |difference, level, words: &[&str]| {
        check(&Evidence { clock_difference: difference, ..well() }, Rule::Clock, &[(level, words)]);
    };
    off(Some(0), Level::Ok, &["0 s"]);
    off(Some(29), Level::Ok, &["29 s ahead of"]);
    off(Some(-29), Level::Ok, &["29 s behind"]);
    off(Some(30), Level::Warning, &["30 s ahead of", "NTP"]);
    off(Some(-60), Level::Warning, &["60 s behind"]);
    off(Some(61), Level::Refusal, &["61 s ahead of", "beyond 60 s", "NTP"]);
    off(Some(-3600), Level::Refusal, &["3600 s behind"]);
    off(None, Level::Warning, &["no Date"]);
}

#[test]
fn a_rotation_needs_a_free_place_for_its_key_pair() {
    let ours = |number: usize| KeyPairName::new(format!("rka7f3_{number:016}"));
    let places = |ours_there: usize, strangers: usize, max: Option<usize>, told, fleets, level, words: &[&str]| {
        let strange = (0..strangers).map(|number| KeyPairName::new(format!("alice_{number}")));
        let there = (0..ours_there).map(ours).chain(strange).collect();
        let key_pairs = Some(KeyPairs { there, max, told, fleets });
        check(&Evidence { key_pairs, ..well() }, Rule::KeyPairs, &[(level, words)]);
    };
    places(0, 0, Some(10), true, 1, Level::Ok, &["0 of 10 places", "the account's quota"]);
    places(4, 5, Some(10), true, 1, Level::Ok, &["9 of 10"]);
    places(4, 6, Some(10), true, 1, Level::Refusal, &["10 of 10", "imports one", "have the quota raised"]);
    places(4, 8, Some(10), true, 1, Level::Refusal, &["12 of 10"]);
    places(0, 500, Some(500), false, 1, Level::Warning, &["the cloud's pages", "unless the quota was raised"]);
    places(7, 3, None, false, 9, Level::Ok, &["10 in the account", "no quota"]);
    // Five fleets are ten pairs while all of them rotate; one stranger's pair is one too many.
    places(5, 0, Some(10), true, 5, Level::Ok, &["5 of 10"]);
    places(
        5,
        1,
        Some(10),
        true,
        5,
        Level::Warning,
        &["the 5 fleets", "up to 11 with 1 of others", "one after the other"],
    );
    places(0, 0, Some(10), true, 6, Level::Warning, &["up to 12"]);
}

#[test]
fn pairs_of_rekeyds_making_are_known_by_their_names() {
    let known = |name: &str, expect| assert_eq!(is_rekeyds(&KeyPairName::new(name)), expect, "{name}");
    known("rka7f3_0123456789abcdef", true);
    known("rka_0123456789abcdef", true);
    known("rk_0123456789abcdef", false);
    known("rktoolong_0123456789abcdef", false);
    known("rka7f3_0123456789abcde", false);
    known("rka7f3_0123456789ABCDEF", false);
    known("alice", false);
}

#[test]
fn a_denied_action_refuses_and_names_what_allows_it() {
    let tried = |action: &str, result: Result<(), Error>, needed| Tried {
        action: action.to_string(),
        result,
        needed,
        grant: format!("allow ecs:{action}"),
    };
    let with = |tried: Vec<Tried>, expect: &[(Level, &[&str])]| {
        check(&Evidence { tried, untried: vec!["ImportKeyPair"], ..well() }, Rule::Permissions, expect);
    };
    let fails = |kind| Err(error(kind, "RebootInstances"));
    let untried: (Level, &[&str]) = (Level::Ok, &["cannot be tried without being done: ImportKeyPair"]);
    with(
        vec![tried("RebootInstances", Ok(()), true)],
        &[(Level::Ok, &["RebootInstances would be taken (dry run)", "ImportKeyPair"])],
    );
    with(
        vec![tried("RebootInstances", fails(Kind::Denied), true), tried("StartInstances", Ok(()), true)],
        &[
            (Level::Refusal, &["denied: RebootInstances: Forbidden.RAM", "; allow ecs:RebootInstances"]),
            (Level::Ok, &["StartInstances would be taken (dry run)"]),
        ],
    );
    with(
        vec![tried("RebootInstances", fails(Kind::InvalidState), true)],
        &[(Level::Warning, &["a dry run of RebootInstances would fail"]), untried],
    );
    with(
        vec![tried("DescribeQuotas", fails(Kind::Denied), false)],
        &[(Level::Warning, &["denied: ", "; allow ecs:DescribeQuotas"]), untried],
    );
    with(
        vec![tried("DescribeQuotas", fails(Kind::Unavailable), false)],
        &[(Level::Warning, &["could not be asked"]), untried],
    );
}

#[test]
fn who_is_left_out_or_taken_along_is_told_with_the_way_on() {
    let hazard = |hazards: &[Hazard]| -> BTreeSet<Hazard> { hazards.iter().copied().collect() };
    let left_out =
        vec![("i-1".into(), hazard(&[Hazard::Spot])), ("i-2".into(), hazard(&[Hazard::LocalDisk, Hazard::Spot]))];
    let evidence = Evidence { left_out, taken_along: ids(&["i-3"]), unbilled: ids(&["i-4"]), ..well() };
    check(
        &evidence,
        Rule::Hazards,
        &[
            (Level::Warning, &["could hurt them: 2 (spot, local_disk)", "power: { allow: [spot, local_disk] }"]),
            (Level::Warning, &["as power: allow says: 1"]),
            (Level::Warning, &["stopped without charging: 1", "lack of stock"]),
        ],
    );
    let findings = judge(&evidence);
    let whom: Vec<_> =
        findings.iter().filter(|one| one.rule == Rule::Hazards).map(|one| one.instances.clone()).collect();
    assert_eq!(whom, [ids(&["i-1", "i-2"]), ids(&["i-3"]), ids(&["i-4"])]);
    check(&well(), Rule::Hazards, &[]);
}

#[test]
fn refusals_that_the_cloud_foretells_are_told_and_an_unasked_cloud_too() {
    check(&well(), Rule::Denials, &[]);
    let denied = Evidence { denied: ids(&["i-1", "i-2"]), ..well() };
    check(&denied, Rule::Denials, &[(Level::Warning, &["would refuse a call: 2"])]);
    let unasked = |kind, words: &[&str]| {
        let unasked = Some((error(kind, "DescribeInstancesDeniedActions"), "allow it".to_string()));
        check(&Evidence { unasked, ..well() }, Rule::Denials, &[(Level::Warning, words)]);
    };
    unasked(Kind::Denied, &["could not be asked", "; allow it"]);
    unasked(Kind::Unavailable, &["could not be asked"]);
}

#[test]
fn lost_passwords_are_counted_by_name() {
    let evidence = Evidence { loses_password: ids(&["i-1", "i-9"]), ..well() };
    check(&evidence, Rule::Passwords, &[(Level::Warning, &["2 without a key pair now", "last password login"])]);
    check(&well(), Rule::Passwords, &[]);
}

#[test]
fn a_canary_that_does_not_run_or_answer_proves_nothing() {
    let canary = |canary_runs, reach: Option<(usize, usize, usize)>, expect: &[(Level, &[&str])]| {
        let reach = reach.map(|(asked, answered, canary)| Reach { asked, answered, canary });
        check(&Evidence { canary_runs, reach, ..well() }, Rule::Canary, expect);
    };
    canary(true, None, &[]);
    canary(false, None, &[(Level::Warning, &["no machine that could be the canary runs", "proves nothing"])]);
    canary(false, Some((0, 0, 1)), &[(Level::Warning, &["no machine that could be the canary runs"])]);
    canary(true, Some((4, 0, 1)), &[(Level::Warning, &["none of 4", "proves nothing", "verify names"])]);
    canary(true, Some((4, 1, 2)), &[(Level::Warning, &["1 of 4", "fewer than the canary's 2"])]);
    canary(true, Some((4, 2, 2)), &[(Level::Ok, &["2 of 4"])]);
}

#[test]
fn a_jump_hosts_key_that_cannot_be_used_refuses() {
    check(&well(), Rule::JumpKey, &[]);
    let evidence = Evidence { jump_key: Some("the jump host's key /k cannot be read".to_string()), ..well() };
    check(&evidence, Rule::JumpKey, &[(Level::Refusal, &["jump_key: ", "/k cannot be read"])]);
}
