//! The one suite that holds every custodian to the contract in `custody/mod.rs`. It must never know how one keeps its
//! keys: what is particular to one is tested beside it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::vault::bao::Bao;
use super::vault::fake::Fake;
use super::{Custodian, CustodyError, Directory, Exec, ExecSettings, Later, MARK_FILE, Memory, Settings};
use crate::clock::SystemClock;
use crate::model::{KeyPairName, Mark, PrivateKey};

/// What can go wrong between us and a keeper elsewhere.
pub(crate) trait Mischief {
    /// The next change is made, and its answer lost.
    fn lose(&self);
    /// The next change is not made until it lands, and its answer lost.
    fn delay(&self);
    /// What was delayed lands.
    fn land(&self);
    /// From now on nobody answers, or everybody does again.
    fn away(&self, away: bool);
}

/// A custodian under the suite.
struct Held {
    /// What implements its keeping.
    who: &'static str,
    custodian: Box<dyn Custodian>,
    /// Where answers can be lost.
    mischief: Option<Box<dyn Mischief>>,
    /// What must live as long as it.
    _alive: Option<Bao>,
}

/// A keeper of the kind that an operator writes: a script over a directory, with mischief by files beside it.
struct Script(PathBuf);

const SCRIPT: &str = r#"#!/bin/sh
set -u
umask 077
here=${0%/*}
if [ -e "$here/away" ]; then echo "the safe is closed" >&2; exit 9; fi
trick() { mv "$here/$1" "$here/was-$1" 2>/dev/null; }
case $1 in
put)
    new=$(mktemp "$here/new.XXXXXX")
    cat >"$new"
    if trick delay; then printf 'put %s %s' "$2" "$new" >"$here/late"; exit 7; fi
    ln "$new" "$here/keys/$2" 2>/dev/null && done=0 || done=2
    rm "$new"
    trick lose && exit 7
    exit $done
    ;;
get) [ -e "$here/keys/$2" ] || exit 3; cat "$here/keys/$2" ;;
list) ls -A "$here/keys" ;;
destroy)
    [ -e "$here/keys/$2" ] || exit 3
    if trick delay; then printf 'destroy %s' "$2" >"$here/late"; exit 7; fi
    rm "$here/keys/$2"
    ! trick lose || exit 7
    ;;
*) echo "no verb" >&2; exit 64 ;;
esac
"#;

impl Script {
    fn write(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("keys")).unwrap();
        let script = folder.join("keeper");
        std::fs::write(&script, SCRIPT).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self(folder.to_path_buf())
    }

    fn custodian(&self) -> impl Custodian + use<> {
        // By its interpreter: a file that was just written may be busy while another test's process is born.
        let command = vec!["/bin/sh".to_string(), self.0.join("keeper").display().to_string()];
        let settings = ExecSettings { command, timeout: Duration::from_secs(60) };
        let path = std::env::var_os("PATH").unwrap();
        Exec::custodian(settings, vec![("PATH", path)], Arc::new(SystemClock))
    }
}

impl Mischief for Script {
    fn lose(&self) {
        std::fs::write(self.0.join("lose"), "").unwrap();
    }

    fn delay(&self) {
        std::fs::write(self.0.join("delay"), "").unwrap();
    }

    fn land(&self) {
        let late = std::fs::read_to_string(self.0.join("late")).unwrap();
        match late.split(' ').collect::<Vec<_>>().as_slice() {
            ["put", name, new] => drop(std::fs::hard_link(new, self.0.join("keys").join(name))),
            ["destroy", name] => drop(std::fs::remove_file(self.0.join("keys").join(name))),
            other => panic!("{other:?}"),
        }
    }

    fn away(&self, away: bool) {
        match away {
            true => std::fs::write(self.0.join("away"), "").unwrap(),
            false => std::fs::remove_file(self.0.join("away")).unwrap(),
        }
    }
}

/// Every implementation, empty, by name: a directory alone and with copies, plain and encrypted; a Vault in memory, and a
/// real OpenBao over a bad line; a program.
async fn everyone(root: &Path) -> Vec<Held> {
    let alone = |name: &str| Settings { directory: root.join(name), copies: Vec::new() };
    let copied = |name: &str| Settings {
        directory: root.join(name),
        copies: vec![root.join(format!("{name}-b")), root.join(format!("{name}-c"))],
    };
    let held = |who, custodian| Held { who, custodian, mischief: None, _alive: None };
    let sealed = async |settings| Box::new(Directory::sealed(settings, "correct horse battery".into()).await.unwrap());
    let (fake, vault) = Fake::with_custodian().await;
    let bao = Bao::start().await;
    let (line, real) = bao.custodian_over_a_bad_line().await;
    let script = Script::write(&root.join("exec"));
    vec![
        held("Memory", Box::new(Memory::new())),
        held("Later", Box::new(Later::new(mark("a7f3"), || Box::pin(marked())))),
        held("Directory", Box::new(Directory::open(alone("alone")).await.unwrap())),
        held("Directory", Box::new(Directory::open(copied("copied")).await.unwrap())),
        held("Directory", sealed(alone("sealed")).await),
        held("Directory", sealed(copied("sealed-copied")).await),
        Held { mischief: Some(Box::new(fake)), ..held("Vault", Box::new(vault)) },
        Held { mischief: Some(Box::new(line)), _alive: Some(bao), ..held("Vault", Box::new(real)) },
        Held { mischief: Some(Box::new(Script(script.0.clone()))), ..held("Exec", Box::new(script.custodian())) },
    ]
}

/// As a custody that was there before is found.
async fn marked() -> Result<Arc<dyn Custodian>, CustodyError> {
    let memory = Memory::new();
    memory.mark(mark("a7f3")).await?;
    Ok(Arc::new(memory))
}

fn mark(text: &str) -> Mark {
    Mark::try_from(text.to_string()).unwrap()
}

/// What implements a keeping by itself, in the sources; `Remote` is none, but what it stands on is.
fn written() -> Vec<String> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/custody");
    let (mut written, mut folders) = (Vec::new(), vec![room]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(path).unwrap();
            let of = |line: &str| {
                let name = line.strip_prefix("impl Custodian for ").or_else(|| line.strip_prefix("impl Slots for "))?;
                Some(name.trim_end_matches([' ', '{']).to_string())
            };
            written.extend(source.lines().filter_map(of));
        }
    }
    written.sort();
    written
}

#[tokio::test]
async fn every_custodian_keeps_the_contract_with_lost_and_late_answers_too_and_the_suite_knows_them_all() {
    let written = written();
    assert_eq!(
        written,
        ["Directory", "Exec", "Later", "Memory", "Vault"],
        "hold a new one to the contract: add it to `everyone`"
    );
    let root = tempfile::tempdir().unwrap();
    let (mut held, mut tricked) = (Vec::new(), Vec::new());
    for one in everyone(root.path()).await {
        let custodian = one.custodian.as_ref();
        if let Some(mischief) = &one.mischief {
            bears_lost_and_late_answers(one.who, custodian, mischief.as_ref()).await;
            tricked.push(one.who);
        }
        keeps_the_contract(one.who, custodian).await;
        held.push(one.who);
    }
    tricked.sort();
    assert_eq!(tricked, ["Exec", "Vault", "Vault"], "each keeper elsewhere, the fake and the real one");
    held.sort();
    held.dedup();
    assert_eq!(held, written);
}

/// It leaves nothing but the mark `a7f3` behind.
async fn bears_lost_and_late_answers(who: &str, custodian: &dyn Custodian, mischief: &dyn Mischief) {
    let (one, two) = (KeyPairName::new("rka7f3_one"), KeyPairName::new("rka7f3_two"));
    let (key, other) = (PrivateKey::sample(1), PrivateKey::sample(2));
    let unknown = |result: Result<(), CustodyError>, what: &str| {
        let error = result.unwrap_err();
        assert!(error.is_passing(), "{who}: {what}: {error:?}");
    };
    let holds = async |name: &KeyPairName, expect: &PrivateKey| {
        assert_eq!(custodian.get(name).await.unwrap().expose(), expect.expose(), "{who}: {name}");
    };
    let lacks = async |name: &KeyPairName| {
        let told = custodian.get(name).await;
        assert!(matches!(told, Err(CustodyError::Missing(_))), "{who}: {name}: {told:?}");
    };

    // The mark first: late, another one takes its place, and the late one does not replace it.
    mischief.delay();
    unknown(custodian.mark(mark("zzzz")).await.map(drop), "a late mark");
    mischief.lose();
    assert_eq!(custodian.mark(mark("a7f3")).await.unwrap(), mark("a7f3"), "{who}");
    mischief.land();
    assert_eq!(custodian.mark(mark("x")).await.unwrap(), mark("a7f3"), "{who}");
    assert_eq!(custodian.kept_mark().await.unwrap(), Some(mark("a7f3")), "{who}");

    // A put whose answer is lost was done, and is seen to be.
    mischief.lose();
    custodian.put(&one, &key).await.unwrap();
    holds(&one, &key).await;

    // One that lands late has failed until it is seen, and a repetition completes it.
    mischief.delay();
    unknown(custodian.put(&two, &key).await, "a late put");
    lacks(&two).await;
    mischief.land();
    holds(&two, &key).await;
    custodian.put(&two, &key).await.unwrap();
    assert!(matches!(custodian.put(&two, &other).await, Err(CustodyError::Exists(_))), "{who}");

    // A destroy whose answer is lost was done; one that is late is asked for again.
    mischief.lose();
    custodian.destroy(&two).await.unwrap();
    lacks(&two).await;
    mischief.delay();
    unknown(custodian.destroy(&one).await, "a late destroy");
    holds(&one, &key).await;
    mischief.land();
    lacks(&one).await;
    custodian.destroy(&one).await.unwrap();

    // A late put never writes over the key that was put since.
    mischief.delay();
    unknown(custodian.put(&one, &key).await, "a late put");
    custodian.put(&one, &other).await.unwrap();
    mischief.land();
    holds(&one, &other).await;

    // Who does not answer has not said that there is nothing.
    mischief.away(true);
    unknown(custodian.get(&one).await.map(drop), "away");
    unknown(custodian.get(&two).await.map(drop), "away");
    unknown(custodian.complete(&two).await.map(drop), "away");
    unknown(custodian.put(&two, &key).await, "away");
    unknown(custodian.destroy(&one).await, "away");
    unknown(custodian.list().await.map(drop), "away");
    unknown(custodian.mark(mark("x")).await.map(drop), "away");
    unknown(custodian.kept_mark().await.map(drop), "away");
    mischief.away(false);
    assert_eq!(custodian.list().await.unwrap(), std::slice::from_ref(&one), "{who}");
    holds(&one, &other).await;
    custodian.destroy(&one).await.unwrap();
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
