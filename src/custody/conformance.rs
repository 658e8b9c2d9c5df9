//! The one suite that holds every custodian to the contract in `custody/mod.rs`. It must never know how one keeps its
//! keys: what is particular to one is tested beside it.

use super::{Custodian, CustodyError, Directory, MARK_FILE, Memory, Settings};
use crate::model::{KeyPairName, Mark, PrivateKey};

/// Every implementation, empty, by name. A directory stands twice: alone and with copies.
async fn everyone(root: &std::path::Path) -> Vec<(&'static str, Box<dyn Custodian>)> {
    let alone = Settings { directory: root.join("alone"), copies: Vec::new() };
    let copied = Settings { directory: root.join("a"), copies: vec![root.join("b"), root.join("c")] };
    vec![
        ("Memory", Box::new(Memory::new())),
        ("Directory", Box::new(Directory::open(alone).await.unwrap())),
        ("Directory", Box::new(Directory::open(copied).await.unwrap())),
    ]
}

fn mark(text: &str) -> Mark {
    Mark::try_from(text.to_string()).unwrap()
}

#[test]
fn the_suite_knows_every_implementation() {
    let room = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/custody");
    let mut written = Vec::new();
    for file in std::fs::read_dir(room).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let of = |line: &str| Some(line.strip_prefix("impl Custodian for ")?.trim_end_matches([' ', '{']).to_string());
        written.extend(source.lines().filter_map(of));
    }
    written.sort();
    assert_eq!(written, ["Directory", "Memory"], "hold a new custodian to the contract: add it to `everyone`");
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut held: Vec<_> = runtime.block_on(everyone(root.path())).into_iter().map(|(name, _)| name).collect();
    held.sort();
    held.dedup();
    assert_eq!(held, written);
}

#[tokio::test]
async fn every_custodian_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    for (name, custodian) in everyone(root.path()).await {
        keeps_the_contract(name, custodian.as_ref()).await;
    }
}

async fn keeps_the_contract(who: &str, custodian: &dyn Custodian) {
    let (one, two) = (KeyPairName::new("rka7f3_one"), KeyPairName::new("rka7f3_two"));
    let (key, other) = (PrivateKey::sample(1), PrivateKey::sample(2));

    // Nothing is there, and destroying nothing is well.
    assert!(custodian.list().await.unwrap().is_empty(), "{who}");
    assert!(matches!(custodian.get(&one).await, Err(CustodyError::Missing(name)) if name == one), "{who}");
    assert!(matches!(custodian.complete(&one).await, Err(CustodyError::Missing(name)) if name == one), "{who}");
    custodian.destroy(&one).await.unwrap();

    // What was put reads back to the byte, and a repetition is well.
    for _ in 0..2 {
        custodian.put(&one, &key).await.unwrap();
        assert_eq!(custodian.get(&one).await.unwrap().expose(), key.expose(), "{who}");
        assert_eq!(custodian.complete(&one).await.unwrap().expose(), key.expose(), "{who}");
        assert_eq!(custodian.list().await.unwrap(), std::slice::from_ref(&one), "{who}");
    }

    // Create-only: another key of that name is refused and changes nothing.
    assert!(matches!(custodian.put(&one, &other).await, Err(CustodyError::Exists(name)) if name == one), "{who}");
    assert_eq!(custodian.get(&one).await.unwrap().public(), key.public(), "{who}");

    // A second key does not disturb the first; the list is sorted; the same key may have two names.
    custodian.put(&two, &other).await.unwrap();
    let early = KeyPairName::new("A");
    custodian.put(&early, &key).await.unwrap();
    assert_eq!(custodian.list().await.unwrap(), [early.clone(), one.clone(), two.clone()], "{who}");
    custodian.destroy(&early).await.unwrap();

    // The mark is kept whatever comes, and is no key.
    for fresh in ["a7f3", "zzzz", "a7f3"] {
        assert_eq!(custodian.mark(mark(fresh)).await.unwrap(), mark("a7f3"), "{who}");
    }
    assert_eq!(custodian.list().await.unwrap(), [one.clone(), two.clone()], "{who}");

    // Destroyed is gone, twice is well, and only what was named went.
    for _ in 0..2 {
        custodian.destroy(&one).await.unwrap();
        assert!(matches!(custodian.get(&one).await, Err(CustodyError::Missing(_))), "{who}");
    }
    assert_eq!(custodian.get(&two).await.unwrap().public(), other.public(), "{who}");
    assert_eq!(custodian.mark(mark("x")).await.unwrap(), mark("a7f3"), "{who}");

    // The name is free again: only what is there is protected.
    custodian.put(&one, &other).await.unwrap();
    assert_eq!(custodian.get(&one).await.unwrap().public(), other.public(), "{who}");

    // Names are never paths.
    let long = "x".repeat(65);
    for bad in ["", ".", "..", "../a", "/etc/passwd", "a/b", "a.b", ".tmp-1-1", "a b", "é", "a\0", MARK_FILE, &long] {
        let name = KeyPairName::new(bad);
        assert!(matches!(custodian.put(&name, &key).await, Err(CustodyError::Name(_))), "{who} {bad:?}");
        assert!(matches!(custodian.get(&name).await, Err(CustodyError::Name(_))), "{who} {bad:?}");
        assert!(matches!(custodian.complete(&name).await, Err(CustodyError::Name(_))), "{who} {bad:?}");
        assert!(matches!(custodian.destroy(&name).await, Err(CustodyError::Name(_))), "{who} {bad:?}");
    }
    custodian.put(&KeyPairName::new("x".repeat(64)), &key).await.unwrap();
    assert_eq!(custodian.mark(mark("x")).await.unwrap(), mark("a7f3"), "{who}");
}
