//! Drift: journals and looks in, deviations out. The world agrees with the journals unless a line says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{FleetName, HostKey, InstanceId, KeyPair, KeyPairName};

/// A rotation of instances `a b c` in pair `k<number>` by its own public key; `before` is what each was planned with.
fn rotation(fleet: &str, number: u8, before: &str, journal: &str) -> (Rotation, Vec<PlannedInstance>) {
    let start = format!("0 plan\n1 stored\n2 imported k{number}\n{journal}");
    let mut story = Story::new("lighthouse", "r rr").tell(&start);
    (story.plan.fleet, story.plan.key_name) = (fleet.into(), format!("rk1_k{number}").as_str().into());
    for instance in &mut story.instances {
        instance.keys = before.split_whitespace().map(Into::into).collect();
    }
    for entry in &mut story.entries {
        if let Event::KeyStored { public_key, fingerprint } = &mut entry.event {
            *public_key = PrivateKey::sample(number).public().clone();
            *fingerprint = public_key.fingerprint();
        }
        if let Event::Started { found, .. } = &mut entry.event {
            found.iter_mut().for_each(|found| found.keys = before.split_whitespace().map(Into::into).collect());
        }
    }
    (story.rotation(), story.instances)
}

/// All three bound and active, and the rotation ended.
const WELL: &str = "5 >bind a=r b=r c=r\n6 ok bind a b c\n7 bound a=r b=r c=r\n8 active a b c\n9 end";

fn pair(number: u8) -> KeyPair {
    KeyPair {
        id: format!("k{number}").as_str().into(),
        name: format!("rk1_k{number}").as_str().into(),
        public_key: Some(PrivateKey::sample(number).public().clone()),
        bound: None,
    }
}

fn host(number: u8) -> HostKey {
    HostKey::of(PrivateKey::sample(number).public())
}

/// What is seen, a line each: `a r k1` an instance of the selection (`+a r k1` one beside it), and what differs from the
/// journals: `no-pair 1` `pair 1=7` (by that key) `pair 1@x` (by that id) `no-half 1` `half 1=7` `asked 1` (its deletion was) `driven`
/// `look SECOND` `takes a 1 2` `host a`.
fn found(fleet: &str, rotations: &[(Rotation, Vec<PlannedInstance>)], looks: &str) -> String {
    let (mut at_, mut listed, mut others, mut driven) = (at(1000), Vec::new(), Vec::new(), false);
    let number = |word: &str| word.trim_start_matches("rk1_k").trim_start_matches('k').parse::<u8>().unwrap();
    let known: BTreeSet<u8> = rotations.iter().map(|(rotation, _)| number(rotation.plan.key_name.as_str())).collect();
    let mut pairs: BTreeMap<u8, KeyPair> = known.iter().map(|number| (*number, pair(*number))).collect();
    let name = |number: u8| KeyPairName::new(format!("rk1_k{number}"));
    let half = |number: u8| Half::Kept(PrivateKey::sample(number).public().clone());
    let mut halves: BTreeMap<KeyPairName, Half> = known.iter().map(|one| (name(*one), half(*one))).collect();
    let mut retired = BTreeSet::new();
    let mut offered: BTreeMap<InstanceId, Offered> = BTreeMap::new();
    for line in looks.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "driven" => driven = true,
            "look" => at_ = at(rest.parse().unwrap()),
            "no-pair" => drop(pairs.remove(&number(rest))),
            "no-half" => drop(halves.insert(name(number(rest)), Half::Lacking("not in custody".into()))),
            "asked" => drop(retired.insert(name(number(rest)))),
            "half" => {
                let (of, key) = rest.split_once('=').unwrap();
                halves.insert(name(number(of)), half(number(key)));
            }
            "pair" => {
                let (of, change) = rest.split_at(1);
                let pair = pairs.entry(number(of)).or_insert_with(|| pair(number(of)));
                match change.split_at(1) {
                    ("=", "-") => pair.public_key = None,
                    ("=", key) => pair.public_key = Some(PrivateKey::sample(number(key)).public().clone()),
                    (_, id) => pair.id = id.into(),
                }
            }
            "takes" => {
                let mut words = rest.split_whitespace();
                let id = words.next().unwrap().into();
                offered.insert(id, Offered::Takes(words.map(|word| name(number(word))).collect()));
            }
            "host" => drop(offered.insert(rest.into(), Offered::OtherHost { pinned: host(8), seen: host(9) })),
            id => match id.strip_prefix('+') {
                Some(id) => others.push(seen(id, rest)),
                None => listed.push(seen(id, rest)),
            },
        }
    }
    let pairs: Vec<KeyPair> = pairs.into_values().collect();
    let done = rotations.iter().rev().find(|(one, _)| {
        one.plan.fleet.as_str() == fleet && one.ended.is_some_and(|(_, how)| how == Outcome::Completed)
    });
    let current = done.map(|(rotation, _)| &rotation.plan.key_name);
    let ledger = Ledger::of(&FleetName::new(fleet), current, rotations, at_);
    let looks = Looks {
        at: at_,
        listed: &listed,
        others: &others,
        pairs: &pairs,
        retired: &retired,
        halves: &halves,
        offered: &offered,
        driven,
    };
    let found = ledger.judge(&looks);
    let show = |one: &Deviation| format!("{} {}: {}", one.kind, one.subject, one.seen.replace("rk1_", ""));
    found.iter().map(show).collect::<Vec<_>>().join(" · ")
}

fn check(rotations: &[(Rotation, Vec<PlannedInstance>)], looks: &str, expect: &str) {
    assert_eq!(found("web", rotations, looks), expect, "{looks}");
}

const AGREE: &str = "a r k1\nb r k1\nc s k1\n";

#[test]
fn where_the_world_is_as_recorded_nothing_is_found() {
    check(&[], "a r\nb r other", "");
    let one = rotation("web", 1, "old", WELL);
    check(std::slice::from_ref(&one), AGREE, "");
    // Gone, not shown, switched off by its owner: no key is wrong for that.
    check(std::slice::from_ref(&one), "a g\nb s k1", "");
    check(&[one, rotation("web", 2, "k1", WELL)], "a r k2\nb r k2\nc r k2", "");
}

#[test]
fn an_instance_on_another_pair_or_on_none_is_found_whether_the_selection_shows_it_or_not() {
    let one = || [rotation("web", 1, "old", WELL)];
    check(&one(), "a r other\nb r k1\nc r k1", "other_key a: other");
    check(&one(), "a r k1 other\nb r k1\nc r k1", "other_key a: k1, other");
    check(&one(), "a r\nb r k1\nc r k1", "no_key a: no key pair");
    check(&one(), "+a r\nb r k1\n+c r other", "other_key c: other · no_key a: no key pair");
    let two = || [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", WELL)];
    check(&two(), "a r k1\nb r k2\nc r k2", "other_key a: k1");
    // Somebody is at it this very moment.
    check(&one(), "a r other op=x busy\nb r k1\nc c", "");
}

#[test]
fn what_no_rotation_bound_is_no_drift() {
    // Excluded before anything was done to it, or refused: nothing of ours is recorded.
    let some =
        "5 >bind a=r\n6 ok bind a\n7 bound a=r\n8 active a\n8 out b\n8 >bind c=r\n8 refused bind c\n8 out c\n9 end";
    check(&[rotation("web", 1, "old", some)], "a r k1\nb r other\nc r", "");
    // It went over to another fleet, whose pair it has now.
    let db = rotation("db", 2, "k1", "5 >bind a=r\n6 ok bind a\n7 bound a=r\n8 active a\n9 end");
    check(&[rotation("web", 1, "old", WELL), db.clone()], "+a r k2\nb r k1\nc r k1", "");
    check(&[rotation("web", 1, "old", WELL), db], "+a r k1\nb r k1\nc r k1", "other_key a: k1");
}

#[test]
fn an_open_rotation_and_what_it_did_since_the_look_are_no_drift() {
    let one = rotation("web", 1, "old", WELL);
    let check = |journal: &str, looks: &str, expect: &str| {
        check(&[one.clone(), rotation("web", 2, "k1", journal)], looks, expect);
    };
    let under_way = "5 >bind a=r\n6 ok bind a";
    for looks in ["a r k1\nb r k1\nc r k1", "a s k2\nb r k1\nc r k1", "a s\nb r k1\nc r k1"] {
        check(under_way, &format!("driven\nlook 20\n{looks}"), "");
    }
    check(under_way, "driven\nlook 20\na r k2\nb r other\nc r k1", "other_key b: other");
    check(under_way, "driven\na r k2\nb r\nc r k1", "no_key b: no key pair");
    check("5 >bind a=r\n6 ok bind a\n7 bound a=r\n8 active a", "a r k1\nb r k1\nc r k1", "other_key a: k1");
    // Bound after the look began: it may show what it had.
    check(WELL, "look 6\na r k1\nb r k2\nc r", "");
    check(WELL, "look 8\na r k1\nb r k2\nc r k2", "other_key a: k1");
    // Asked, excluded, ended: nobody has seen since which of the two it is.
    check("5 >bind a=r\n6 ok bind a\n7 out a\n8 out b c\n9 end", "a r k2\nb r k1\nc r k1", "");
}

#[test]
fn a_pair_in_use_that_is_gone_or_another_is_found_and_one_that_we_delete_is_not() {
    let two = || [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", WELL)];
    let agree = "a r k2\nb r k2\nc r k2\n";
    let check = |looks: &str, expect: &str| check(&two(), &format!("{agree}{looks}"), expect);
    check("no-pair 2", "missing_pair rk1_k2: not in the cloud");
    let other = PrivateKey::sample(7).public().fingerprint();
    check("pair 2=7", &format!("missing_pair rk1_k2: another key: {other}"));
    check("pair 2@x", "missing_pair rk1_k2: another pair of that name: x");
    check("pair 2=-", "");
    // The superseded pair may go.
    check("no-pair 1", "");
    // But not while somebody is on it still, unless its deletion was asked for.
    let left = "5 >bind a=r\n6 ok bind a\n7 bound a=r\n8 active a\n8 out b\n8 out c\n9 end";
    let mixed = || [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", left)];
    let check =
        |looks: &str, expect: &str| super::drift::check(&mixed(), &format!("a r k2\nb r k1\nc r k1\n{looks}"), expect);
    check("", "");
    check("no-pair 1", "missing_pair rk1_k1: not in the cloud");
    check("no-pair 1\nasked 1", "");
}

#[test]
fn a_pair_in_use_whose_private_half_is_lost_is_found() {
    let two = || [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", WELL)];
    check(&two(), "a r k2\nb r k2\nc r k2\nno-half 2", "missing_private_key rk1_k2: not in custody");
    check(&two(), "a r k2\nb r k2\nc r k2\nno-half 1", "");
    let other = PrivateKey::sample(7).public().fingerprint();
    let expect = format!("missing_private_key rk1_k2: another key: {other}");
    check(&two(), "a r k2\nb r k2\nc r k2\nhalf 2=7", &expect);
    // A superseded one that somebody is on still.
    let left = "5 >bind a=r\n6 ok bind a\n7 bound a=r\n8 active a\n8 out b\n8 out c\n9 end";
    let mixed = [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", left)];
    check(&mixed, "a r k2\nb r k1\nc r k1\nno-half 1", "missing_private_key rk1_k1: not in custody");
    check(&mixed, "a r k2\nb g\nc g\nno-half 1", "");
}

#[test]
fn a_start_that_is_owed_is_found_unless_somebody_is_paying_it() {
    let open = |more: &str| [rotation("web", 1, "old", &format!("5 >bind a=r\n6 ok bind a\n{more}"))];
    let rest = "b r old\nc r old\n";
    check(&open(""), &format!("{rest}a s old\nlook 20"), "owed_start a: Stopped");
    check(&open(""), &format!("{rest}a s old\nlook 20\ndriven"), "");
    check(&open(""), &format!("{rest}a s old\nlook 906\ndriven"), "owed_start a: Stopped");
    check(&open("7 held"), &format!("{rest}a s old\nlook 20\ndriven"), "");
    check(&open(""), &format!("{rest}a c old\nlook 20"), "");
    check(&open(""), &format!("{rest}a r old\nlook 20"), "");
    check(&open("7 leave-off a"), &format!("{rest}a s old\nlook 20"), "");
    let (mut refused, planned) = open("7 held").into_iter().next().unwrap();
    refused.held = Some(HoldReason::StartRefused { instances: vec!["a".into()] });
    check(&[(refused, planned)], &format!("{rest}a s old\nlook 20\ndriven"), "owed_start a: Stopped");
}

#[test]
fn an_instance_that_no_plan_has_had_is_new_once_there_was_a_plan() {
    let one = || [rotation("web", 1, "old", WELL)];
    check(&one(), &format!("{AGREE}d r other\ne s"), "new_instance d: other · new_instance e: no key pair");
    check(&one(), &format!("{AGREE}d o\ne g"), "");
    let mut unfit = seen("d", "r");
    unfit.unfit = Some("Windows".into());
    let (pairs, halves) = (vec![pair(1)], BTreeMap::new());
    let ledger = Ledger::of(&"web".into(), None, &one(), at(1000));
    let looks = Looks {
        at: at(1000),
        listed: &[unfit],
        others: &[],
        pairs: &pairs,
        retired: &BTreeSet::new(),
        halves: &halves,
        offered: &BTreeMap::new(),
        driven: false,
    };
    assert_eq!(ledger.judge(&looks), []);
}

#[test]
fn a_machine_that_takes_an_old_key_or_shows_another_host_key_is_found() {
    let two = [rotation("web", 1, "old", WELL), rotation("web", 2, "k1", WELL)];
    let agree = "a r k2\nb r k2\nc r k2\n";
    check(&two, &format!("{agree}takes a\ntakes b 1"), "retired_key_taken b: takes k1");
    check(&two, &format!("{agree}host c"), &format!("other_host_key c: {}", host(9)));
}

#[test]
fn the_keys_that_were_superseded_on_an_instance_are_the_newest_ones_it_had() {
    let show = |rotations: &[_]| {
        let keys = Ledger::of(&"web".into(), None, rotations, at(1000)).superseded(&"a".into());
        keys.iter().map(|(name, _)| name.as_str().trim_start_matches("rk1_")).collect::<Vec<_>>().join(" ")
    };
    let nth = |number: u8, before: &str| rotation("web", number, before, WELL);
    assert_eq!(show(&[nth(1, "old")]), "");
    assert_eq!(show(&[nth(1, "old"), nth(2, "k1")]), "k1");
    assert_eq!(show(&[nth(1, ""), nth(2, "k1"), nth(3, "k2"), nth(4, "k3"), nth(5, "k4")]), "k4 k3 k2");
    // Rolled back to the first: that is its key again.
    assert_eq!(show(&[nth(1, "old"), nth(2, "k1"), nth(1, "k2")]), "k2");
    assert_eq!(show(&[nth(1, "old"), rotation("web", 2, "k1", "5 out a\n9 end")]), "");
}

#[test]
fn of_the_whole_installation_pairs_that_nobody_knows_and_halves_that_nobody_needs_are_found() {
    // `open` `done` `given-up` rotations, `retiring` `retired` `kept` retire journals, of a fleet, a pair, and when they ended.
    let check = |heads: &str, pairs: &str, halves: &str, whole: bool, expect: &str| {
        let words: Vec<Vec<&str>> = heads.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<(FleetName, KeyPairName)> =
            words.iter().map(|words| (words[1].into(), words[2].into())).collect();
        let ended = |words: &[&str]| {
            let outcome = match words[0] {
                "open" | "retiring" => return None,
                "done" => Outcome::Completed,
                "given-up" => Outcome::Abandoned,
                "retired" => Outcome::Retired,
                "kept" => Outcome::Kept,
                other => panic!("{other} is no journal"),
            };
            Some((at(words.get(3).map_or(9, |second| second.parse().unwrap())), outcome))
        };
        let named: Vec<Named<'_>> =
            words.iter().zip(&names).map(|(words, (fleet, name))| Named { name, fleet, ended: ended(words) }).collect();
        let shown = |name: &str| ("here".to_string(), KeyPair { name: name.into(), ..pair(1) });
        let pairs: Vec<(String, KeyPair)> = pairs.split_whitespace().map(shown).collect();
        let halves: Vec<KeyPairName> = halves.split_whitespace().map(Into::into).collect();
        let holdings = Holdings { at: at(100), named: &named, pairs: &pairs, whole, halves: &halves };
        let found: Vec<String> = holdings
            .judge()
            .iter()
            .map(|one| format!("{} {}: {}, {}", one.kind, one.subject, one.recorded, one.seen))
            .collect();
        assert_eq!(found.join(" · "), expect, "{heads} | {pairs:?} | {halves:?}");
    };
    let all = "done web p1\ndone web p2\nretiring web p1\ngiven-up db p3\nopen db p4\ndone old p5\nkept old p6";
    check(all, "p1 p2 p3 p4 p5", "p1 p2 p3 p4 p5 p6", true, "");
    check("", "", "", true, "");
    check("done web p1", "p1 px", "p1", true, "unknown_pair px: in no journal, here");
    check("done web p1", "p1 px", "p1 px", true, "unknown_pair px: in no journal, here, its private key in custody");
    check("done web p1", "p1", "p1 px", true, "needless_private_key px: in no journal, in custody");
    // Where a cloud did not answer, somebody there may be on it.
    check("done web p1", "p1", "p1 px", false, "");
    let gone = "done web p1\ndone web p2\nretired web p1";
    check(gone, "p2", "p1 p2", true, "needless_private_key p1: destroyed at 2026-03-01T00:00:09Z, in custody");
    check(gone, "p2", "p2", true, "");
    // Destroyed after the look; opened again by an operator; bound anew by a rollback.
    check("done web p1\ndone web p2\nretired web p1 100", "p2", "p1 p2", true, "");
    check("done web p1\ndone web p2\nretiring web p1", "p2", "p1 p2", true, "");
    check("done web p1\nretired web p1\ndone web p1", "p1", "p1", true, "");
}
