//! Adoption: a listing, pairs and halves in; which pairs are recorded anew, with whom, and who is left out, why.

use std::collections::BTreeMap;

use super::super::adopt::adopt;
use super::*;
use crate::model::{FleetName, KeyPair, KeyPairName};

/// Instances as `a r k1`, a line each; pairs and halves as `1 2 3=7`: the third by another key; `4-`: by none that is shown.
fn check(listing: &str, pairs: &str, halves: &str, expect: &str) {
    let number = |word: &str| word.parse::<u8>().unwrap();
    let key = |number: u8| PrivateKey::sample(number).public().clone();
    let name = |number: u8| KeyPairName::new(format!("rk1_k{number}"));
    let pair = |word: &str| {
        let (of, public_key) = match (word.strip_suffix('-'), word.split_once('=')) {
            (Some(of), _) => (of, None),
            (None, Some((of, other))) => (of, Some(key(number(other)))),
            (None, None) => (word, Some(key(number(word)))),
        };
        KeyPair { id: format!("k{of}").as_str().into(), name: name(number(of)), public_key, bound: None }
    };
    let half = |word: &str| match (word.strip_suffix('!'), word.split_once('=')) {
        (Some(of), _) => (name(number(of)), Half::Lacking("differs".into())),
        (None, Some((of, other))) => (name(number(of)), Half::Kept(key(number(other)))),
        (None, None) => (name(number(word)), Half::Kept(key(number(word)))),
    };
    let listing: Vec<Instance> =
        listing.lines().map(|line| line.trim().split_once(' ').unwrap()).map(|(id, look)| seen(id, look)).collect();
    let pairs: Vec<KeyPair> = pairs.split_whitespace().map(pair).collect();
    let halves: BTreeMap<KeyPairName, Half> = halves.split_whitespace().map(half).collect();
    let claimed = |seen: &Instance| (seen.id.as_str() == "x").then(|| FleetName::new("db"));
    let adoption = adopt(&listing, &pairs, &halves, &claimed);
    let mut shown = Vec::new();
    for pair in &adoption.pairs {
        let one = |instance: &PlannedInstance| {
            let known = instance.known.as_ref().unwrap();
            assert_eq!((&instance.part, known.bound.power), (&Part::Batch(0), instance.power));
            format!("{}{}", instance.id, if known.active { "" } else { "?" })
        };
        let of: Vec<String> = pair.instances.iter().map(one).collect();
        shown.push(format!("{} {}", pair.name.as_str().trim_start_matches("rk1_"), of.join(" ")));
    }
    shown.extend(adoption.left.iter().map(|left| format!("-{}: {}", left.instance, left.why)));
    assert_eq!(shown.join(" · "), expect, "{listing:?}");
}

#[test]
fn who_hangs_on_a_pair_of_ours_is_adopted_with_it_and_the_rest_is_named() {
    check("a r k1\nb s k1\nc c k1", "1", "1", "k1 a b? c?");
    check(
        "a r k1\nb r other\nc r\nd g k1",
        "1",
        "1",
        "k1 a · -b: bound to other, which is not ours · -c: bound to no key pair",
    );
    check("x r k1\na r k1", "1", "1", "k1 a · -x: matched by fleet db too");
    check("a r k1 other", "1", "1", "k1 a");
    check("a r k1 k2\nb r k1\nc r k1", "1 2", "1 2", "k2 a · k1 b c");
    check("", "1", "1", "");
}

#[test]
fn the_pair_that_most_hang_on_comes_last_and_of_several_the_newest() {
    check("a r k1\nb r k2\nc r k3", "1 2 3", "1 2 3", "k1 a · k2 b · k3 c");
    check("a r k1\nb r k2\nc r k2\nd r k3", "1 2 3", "1 2 3", "k1 a · k3 d · k2 b c");
    check("a r k2\nb r k1", "1 2", "1 2", "k1 b · k2 a");
}

#[test]
fn a_pair_without_its_own_private_half_is_never_adopted() {
    check("a r k1", "1", "", "-a: bound to rk1_k1, whose private key is not in custody");
    check("a r k1", "1", "1=7", "-a: bound to rk1_k1, of which custody holds another private key");
    check("a r k1", "1=7", "1", "-a: bound to rk1_k1, of which custody holds another private key");
    check("a r k1", "1-", "1", "-a: bound to rk1_k1, whose public key the cloud does not show");
    check("a r k1", "1", "1!", "-a: bound to rk1_k1, and its private key: differs");
    check("a r k1\nb r k2", "1 2", "2", "k2 b · -a: bound to rk1_k1, whose private key is not in custody");
}

#[test]
fn an_adopted_rotation_binds_nobody_and_ends_when_all_are_proven() {
    let adopted = |verify: Verify, journal: &str| {
        let public_key = PrivateKey::sample(1).public().clone();
        let mut story = Story::new("ecs", "rs");
        story.plan.key = KeySource::Adopted { public_key };
        story.plan.policy.verify = verify;
        for instance in &mut story.instances {
            let (power, boot) = (instance.power, None);
            instance.keys = vec!["new".into()];
            let bound = BoundInstance { instance: instance.id.clone(), power, boot };
            instance.known = Some(Known { before: Vec::new(), bound, active: power == Power::Running });
        }
        let rotation = story.tell(journal).rotation();
        assert_eq!(rotation.plan.purpose(), Purpose::Adopt);
        show_next(&rotation.next(at(20)))
    };
    assert_eq!(adopted(Verify::None, "0 plan"), "store_key");
    assert_eq!(adopted(Verify::None, "0 plan\n1 stored"), "import_key");
    assert_eq!(adopted(Verify::None, "0 plan\n1 stored\n2 imported"), "! ended completed");
    let login = SshLogin {
        user: "root".into(),
        port: 22,
        address: AddressFrom::Private,
        old_key: OldKey::Refuse,
        connect_timeout: Duration::from_secs(10),
        jump: None,
        deadline: Duration::from_secs(600),
    };
    // The batch is open as long as it is not proven; that it has nobody left to bind, the act sees.
    assert_eq!(adopted(Verify::Ssh(login), "0 plan\n1 stored\n2 imported"), "verify 0, bind 0");
}
