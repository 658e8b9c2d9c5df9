//! Key pairs: found by exactly their name, listed to the last page, imported create-only, deleted only when free.

use std::sync::Arc;

use rekeyd::model::{KeyPairName, ProviderKind, PublicKey};
use rekeyd::provider::{Blame, Kind};
use rekeyd::sim::{Power, Rule};

use crate::rig::Rig;

/// The names of all pairs in the cloud, and the lines behind them.
fn pairs(rig: &Rig) -> Vec<(String, String)> {
    rig.with(|world| world.cloud(0).key_pairs().iter().map(|pair| (pair.name.clone(), pair.line.clone())).collect())
}

pub async fn an_imported_key_is_found_by_its_name_with_the_same_public_key(rig: Arc<Rig>) {
    let (name, key) = (rig.name(), rig.public_key());
    assert_eq!(rig.provider.find_key_pair(&name).await.unwrap(), None);
    let id = rig.provider.import_key_pair(&name, &key, rig.before()).await.unwrap();
    let found = rig.provider.find_key_pair(&name).await.unwrap().unwrap();
    assert_eq!((&found.id, &found.name, &found.public_key), (&id, &name, &Some(key.clone())));
    assert_eq!(found.bound.unwrap_or(0), 0);
    let shown = rig.with(|world| world.cloud(0).key_pair(id.as_str()).unwrap().public_key.clone());
    assert_ne!(shown, key.to_openssh(), "the cloud put a comment of its own behind it");
}

pub async fn a_name_is_found_exactly_among_those_that_contain_it(rig: Arc<Rig>) {
    // A fuzzy filter finds all of these, a page and more, before the one that is meant.
    for number in 0..60 {
        rig.pair(&format!("rksim_pair{number:03}"));
        rig.pair(&format!("A{number:03}_rksim_pair"));
    }
    rig.pair("RKSIM_PAIR");
    assert_eq!(rig.provider.find_key_pair(&"rksim_pair".into()).await.unwrap(), None);
    let meant = rig.pair("rksim_pair");
    rig.pair("rksim_pair_");
    let found = rig.provider.find_key_pair(&"rksim_pair".into()).await.unwrap().unwrap();
    assert_eq!((found.id, found.name.as_str()), (meant, "rksim_pair"));
    for near in ["rksim_pai", "ksim_pair", "Rksim_pair"] {
        assert_eq!(rig.provider.find_key_pair(&near.into()).await.unwrap(), None, "{near}");
    }
}

pub async fn a_wildcard_finds_no_pair(rig: Arc<Rig>) {
    rig.pair("rksim_pair");
    for wild in ["rksim_*", "*", "rksim_pai?"] {
        match rig.provider.find_key_pair(&wild.into()).await {
            Ok(found) => assert_eq!(found, None, "{wild}"),
            Err(error) => assert_eq!(error.kind, Kind::Invalid, "{error}"),
        }
    }
    assert!(matches!(rig.provider.key_pairs("rk*").await, Ok(found) if found.is_empty()));
}

pub async fn pairs_of_a_prefix_are_listed_to_the_last_page(rig: Arc<Rig>) {
    let count = if rig.kind == ProviderKind::BaiduBcc { 1050 } else { 120 };
    let mut ours: Vec<String> = Vec::new();
    for number in 0..count {
        let name = format!("rksim_{number:04}");
        rig.pair(&name);
        ours.push(name);
        if number % 10 == 0 {
            rig.pair(&format!("rksi_{number:04}"));
            rig.pair(&format!("X_rksim_{number:04}"));
            rig.pair(&format!("RKSIM_{number:04}"));
        }
    }
    let found = rig.provider.key_pairs("rksim_").await.unwrap();
    assert!(found.iter().all(|pair| pair.public_key.is_some()));
    let mut names: Vec<String> = found.iter().map(|pair| pair.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ours);
    let everything = rig.provider.key_pairs("").await.unwrap().len();
    assert_eq!(everything, pairs(&rig).len(), "the empty prefix is everybody's");
}

pub async fn how_many_are_bound_is_shown_where_the_cloud_says_it(rig: Arc<Rig>) {
    let pair = rig.pair("rksim_pair");
    for _ in 0..3 {
        rig.machine_of(Power::Running, &[&pair]);
    }
    let said = rig.provider.find_key_pair(&"rksim_pair".into()).await.unwrap().unwrap().bound;
    let listed = rig.provider.key_pairs("rksim_").await.unwrap()[0].bound;
    let expect = if rig.kind == ProviderKind::AlibabaEcs { None } else { Some(3) };
    assert_eq!((said, listed), (expect, expect));
}

pub async fn a_strangers_unreadable_key_hides_no_other_pair(rig: Arc<Rig>) {
    rig.with(|world| world.add_key_pair(0, "rksim_broken", "ssh-rsa AAAAbroken"));
    rig.with(|world| world.add_key_pair(0, "rksim_none", "null"));
    rig.pair("rksim_whole");
    let found = rig.provider.key_pairs("rksim_").await.unwrap();
    let readable: Vec<bool> = ["rksim_broken", "rksim_none", "rksim_whole"]
        .iter()
        .map(|name| found.iter().find(|pair| pair.name.as_str() == *name).unwrap().public_key.is_some())
        .collect();
    assert_eq!(readable, [false, false, true]);
    assert_eq!(rig.provider.find_key_pair(&"rksim_none".into()).await.unwrap().unwrap().public_key, None);
}

pub async fn a_key_pair_that_exists_is_never_imported_again(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let (name, key) = (rig.name(), rig.public_key());
    rig.provider.import_key_pair(&name, &key, rig.before()).await.unwrap();
    let there = pairs(&rig);
    let again = rig.not_done(rig.provider.import_key_pair(&name, &key, rig.before()).await);
    assert_eq!(again.kind, Kind::Already, "{again:?}");
    let other = rig.provider.import_key_pair(&name, &rig.public_key(), rig.before()).await;
    if rig.kind == ProviderKind::BaiduBcc {
        // Its pages know a refusal for a key that exists, none for a name: both stand, and both are shown.
        let other = other.unwrap();
        let listed = rig.provider.key_pairs(name.as_str()).await.unwrap();
        assert_eq!((listed.len(), listed.iter().filter(|pair| pair.id == other).count()), (2, 1));
    } else {
        let other = rig.not_done(other);
        assert!(matches!(other.kind, Kind::Already | Kind::Conflict), "{other:?}");
        assert_eq!(pairs(&rig), there);
    }
}

pub async fn a_key_that_exists_under_another_name_is_known_already_where_the_cloud_compares_keys(rig: Arc<Rig>) {
    let key = rig.public_key();
    rig.provider.import_key_pair(&rig.name(), &key, rig.before()).await.unwrap();
    let there = pairs(&rig);
    let second = rig.provider.import_key_pair(&rig.name(), &key, rig.before()).await;
    if rig.kind == ProviderKind::AlibabaEcs {
        // Its pages name no such refusal: both stand.
        second.unwrap();
    } else {
        let error = rig.not_done(second);
        assert_eq!((error.kind, pairs(&rig)), (Kind::Already, there), "{error:?}");
    }
}

pub async fn a_name_that_breaks_the_rule_is_refused_and_makes_nothing(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let longest = rig.provider.limits().key_name_max;
    let bad = [String::new(), "x".repeat(longest + 1), "rk!sim".to_string(), "rk\nsim".to_string(), "rk\"sim".into()];
    for name in bad {
        let refused = rig.provider.import_key_pair(&KeyPairName::new(&name), &rig.public_key(), rig.before()).await;
        let error = rig.not_done(refused);
        assert_eq!((error.kind, error.blame), (Kind::Invalid, Blame::Request), "{name:?}: {error:?}");
    }
    assert_eq!(pairs(&rig), []);
    let longest = KeyPairName::new("x".repeat(longest));
    rig.provider.import_key_pair(&longest, &rig.public_key(), rig.before()).await.unwrap();
    assert!(rig.provider.find_key_pair(&longest).await.unwrap().is_some());
}

pub async fn a_kind_of_key_that_the_cloud_does_not_list_is_refused(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    let key = PublicKey::parse(line).unwrap();
    let error = rig.not_done(rig.provider.import_key_pair(&rig.name(), &key, rig.before()).await);
    assert_eq!((error.kind, error.blame), (Kind::Invalid, Blame::Request), "{error:?}");
    assert_eq!(pairs(&rig), []);
}

pub async fn a_full_quota_is_the_accounts(rig: Arc<Rig>) {
    rig.pair("rksim_first");
    rig.with(|world| world.cloud_mut(0).key_pairs_max = 1);
    let error = rig.not_done(rig.provider.import_key_pair(&rig.name(), &rig.public_key(), rig.before()).await);
    assert_eq!((error.kind, error.blame), (Kind::Quota, Blame::Account), "{error:?}");
}

pub async fn a_free_pair_is_deleted_and_its_neighbours_stay(rig: Arc<Rig>) {
    let (gone, kept) = (rig.pair("rksim_gone"), rig.pair("rksim_kept"));
    rig.provider.delete_key_pair(&gone, rig.before()).await.unwrap();
    assert_eq!(rig.provider.find_key_pair(&"rksim_gone".into()).await.unwrap(), None);
    assert_eq!(rig.provider.find_key_pair(&"rksim_kept".into()).await.unwrap().unwrap().id, kept);
}

pub async fn a_bound_pair_is_in_use_and_stays(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let pair = rig.pair("rksim_bound");
    rig.machine_of(Power::Stopped, &[&pair]);
    let error = rig.not_done(rig.provider.delete_key_pair(&pair, rig.before()).await);
    assert_eq!(error.kind, Kind::InUse, "{error:?}");
    assert!(rig.provider.find_key_pair(&"rksim_bound".into()).await.unwrap().is_some());
}

pub async fn a_pair_that_is_being_bound_is_not_deleted(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let pair = rig.pair("rksim_soon");
    let machines = rig.stopped(1);
    rig.provider.bind(&pair, &machines, rig.before()).await.unwrap();
    let error = rig.not_done(rig.provider.delete_key_pair(&pair, rig.before()).await);
    assert!(matches!(error.kind, Kind::InUse | Kind::Busy), "{error:?}");
    rig.settle();
    assert_eq!(rig.look(&machines[0]).await.keys, [pair]);
}

pub async fn a_pair_that_is_gone_already_says_so_when_deleted(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let pair = rig.pair("rksim_gone");
    rig.provider.delete_key_pair(&pair, rig.before()).await.unwrap();
    match rig.provider.delete_key_pair(&pair, rig.before()).await {
        // ECS: "unknown name: error or success not documented" (FACTS 4.1).
        Ok(()) => assert_eq!(rig.kind, ProviderKind::AlibabaEcs),
        refused => {
            let error = rig.not_done(refused);
            assert!(matches!(error.kind, Kind::Already | Kind::NotFound), "{error:?}");
        }
    }
}
