//! The way back: which rotation may be undone, and to which pair each instance returns.

use super::super::back::{OwnPair, Undoable, leads_nowhere, may_undo, own_pairs, touched, undone_already, ways};
use super::*;
use crate::model::{KeyPair, PublicKey};

fn id(number: u8) -> JournalId {
    JournalId::derive(at(u64::from(number)), [number; 10])
}

#[test]
fn only_the_newest_rotation_that_bound_anybody_is_rolled_back() {
    // A word a rotation: `+` bound somebody, `-` nobody; `+<0` is a completed way back from rotation 0, `+?0` one that was
    // given up.
    let check = |words: &str, asked: u8, expect: &str| {
        let all: Vec<Undoable> = words
            .split_whitespace()
            .enumerate()
            .map(|(number, word)| Undoable {
                id: id(number as u8),
                touched: word.starts_with('+'),
                undoes: word.split_once(['<', '?']).map(|(_, undone)| id(undone.parse().unwrap())),
                completed: !word.contains('?'),
            })
            .collect();
        let said = match may_undo(id(asked), &all) {
            Ok(()) => "may".to_string(),
            Err(refusal) => refusal.to_string(),
        };
        assert!(said.contains(expect), "{words} {asked}: {said}");
    };
    check("+", 0, "may");
    check("+ +", 1, "may");
    check("+ +", 0, &format!("`rekeyd rollback {}` first", id(1)));
    check("+ -", 0, "may");
    check("+ -", 1, "bound nobody");
    check("", 0, "is no rotation of this fleet");
    // What undoes it belongs to it: killed, it is gone on with.
    check("+ + +<1", 1, "may");
    check("+ + +<1 +<1", 1, "may");
    check("+ + +?1", 1, "may");
    // What was undone is as if it had never been, with what undid it.
    check("+ + +<1", 0, "may");
    check("+ + +<1 +<1", 0, "may");
    check("+ + +<1 + +<3", 0, "may");
    check("+ + +<1 +", 0, &id(3).to_string());
    check("+ + +?1", 0, &format!("`rekeyd rollback {}` first", id(1)));
    check("+ + +?1 +<1", 0, "may");
    check("+ +<0 +", 0, &id(2).to_string());
    // Back from the way back: then it stands again.
    check("+ + +<1", 2, "may");
    check("+ + +<1 +<1", 2, &id(3).to_string());
    check("+ + +<1 +<2", 1, "may");
    check("+ + +<1 +<2", 0, &id(1).to_string());
    check("+ + +<1 +<2 +<1", 0, "may");
}

fn public(number: u8) -> PublicKey {
    PrivateKey::sample(number).public().clone()
}

fn shown(handle: &str, number: Option<u8>) -> KeyPair {
    KeyPair {
        id: handle.into(),
        name: format!("name-{handle}").as_str().into(),
        public_key: number.map(public),
        bound: None,
    }
}

/// `k0` is ours and kept, `k1` is ours and destroyed; `old` and `hidden` are strangers' and there, `gone` is not.
fn check(found: &str, now: &str, expect: &str) {
    let story = Story::new("ecs", "r")
        .tell(&format!("0 plan\n1 stored\n2 imported new\n5 >bind a=r/{found}@1\n6 bound a=r/new@1"));
    let own =
        |name: &str, kept| OwnPair { key_name: format!("rk1_{name}").as_str().into(), public_key: public(1), kept };
    let ours = [("k0", true), ("k1", false), ("new", true)].map(|(name, kept)| (name.into(), own(name, kept))).into();
    let pairs = [shown("old", Some(9)), shown("hidden", None)];
    let ways = ways(&story.rotation(), &Default::default(), &[seen("a", now)], &ours, &pairs);
    let mut said: Vec<String> = ways
        .back
        .iter()
        .map(|(target, _)| match &target.key {
            KeySource::Existing { .. } => target.key_name.to_string(),
            KeySource::Stranger { key_pair, public_key } => {
                format!("{key_pair}{}", if public_key.is_some() { ", provable" } else { "" })
            }
            KeySource::Generate | KeySource::Adopted { .. } => panic!("no way back"),
        })
        .collect();
    said.extend(ways.stays.iter().map(|(_, why)| why.clone()));
    said.extend(ways.in_part.iter().map(|_| "in part".to_string()));
    assert_eq!(said.join("; "), expect, "found {found}, now {now}");
}

#[test]
fn each_instance_returns_to_what_was_found_before_or_stays_with_a_reason() {
    check("k0", "r new", "rk1_k0");
    check("k0", "s new", "rk1_k0");
    check("old", "r new", "old, provable");
    check("hidden", "r new", "hidden");
    check("old", "g new", "");
    check("old", "r old", "it has what it had before");
    check("old", "r alien", "bound to alien by somebody else since: never bound over");
    check("", "r new", "it had no key pair before: no bind brings its password login back");
    check("gone", "r new", "key pair gone, which it had before, is in the cloud no more");
    check("k1", "r new", "the private key of rk1_k1, which it had before, is not in custody any more");
    // One of several: ours first, for its private half is at hand.
    check("old+k0", "r new", "rk1_k0; in part");
    check("gone+old", "r new", "old, provable; in part");
    check("k1+hidden", "r new", "hidden; in part");
    // It was on the pair already: nothing was taken from it.
    check("new", "r new", "it had no key pair before: no bind brings its password login back");
}

#[test]
fn targets_come_one_after_the_other_ours_first_and_who_is_done_is_left_out() {
    let mut story = Story::new("ecs", "rrr");
    story = story.tell(
        "0 plan\n1 stored\n2 imported new\n5 >bind a=r/old@1 b=r/k0@1 c=r/old@1\n6 bound a=r/new@1 b=r/new@1 c=r/new@1",
    );
    let undone = story.rotation();
    let own = OwnPair { key_name: "rk1_k0".into(), public_key: public(1), kept: true };
    let ours = [("k0".into(), own)].into();
    let now = ["a", "b", "c"].map(|id| seen(id, "r new"));
    let ids = |done: &[&str]| {
        let done = done.iter().map(|id| (*id).into()).collect();
        let ways = ways(&undone, &done, &now, &ours, &[shown("old", None)]);
        let of = |(_, ids): &(_, Vec<crate::model::InstanceId>)| {
            ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join("")
        };
        ways.back.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&[]), "b ac");
    assert_eq!(ids(&["b"]), "ac");
    assert_eq!(ids(&["a", "b", "c"]), "");
}

#[test]
fn what_is_left_to_be_undone_is_derived_from_the_ways_back_that_were_completed() {
    let undone = Story::begun("ecs", "rr").tell("5 >bind a=r").rotation();
    assert_eq!(touched(&undone).map(|id| id.as_str()).collect::<Vec<_>>(), ["a"], "asked is touched");
    let back = |of: JournalId, number: u8, end: &str| {
        let mut story = Story::new("ecs", "r");
        story.plan.undoes = Some(of);
        let mut back = story.tell(&format!("0 plan\n1 stored\n2 imported old\n3 out a\n{end}")).rotation();
        back.id = id(number);
        back
    };
    let done = back(undone.id, 1, "9 end");
    assert_eq!(undone_already(undone.id, &[&done]).len(), 1, "excluded there, it is not tried for ever");
    assert_eq!(undone_already(undone.id, &[&back(undone.id, 1, "9 abandon\n10 end:abandoned")]).len(), 0);
    assert_eq!(undone_already(undone.id, &[&undone]).len(), 0);
    let turned_round = back(done.id, 2, "9 end");
    assert_eq!(undone_already(undone.id, &[&done, &turned_round]).len(), 0, "it is as it was before the way back");
    assert_eq!(own_pairs([&undone]).into_keys().map(|key| key.to_string()).collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_rotation_of_machines_that_had_no_pair_leads_nowhere() {
    let check = |found: &str, expect: bool| {
        let story = Story::new("ecs", "rr").tell(&format!("0 plan\n1 stored\n2 imported new\n5 >bind {found}"));
        assert_eq!(leads_nowhere(&story.rotation()), expect, "{found}");
    };
    check("a=r/@1 b=r/@1", true);
    check("a=r/@1 b=r/old@1", false);
    // Found by its second bind on the new pair alone: that is not what it had before.
    check("a=r/new@1", true);
}
