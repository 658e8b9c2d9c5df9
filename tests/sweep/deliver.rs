//! Deliveries, killed at every call: no key pair is deleted before its successor is where it was to go, and what is there at
//! the end is the key that the fleet accepts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use rekeyd::custody::Custodian;
use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::operate::operate;
use rekeyd::engine::planner::{Aim, begin, propose_for};
use rekeyd::files::Files;
use rekeyd::hook::{Fault, Run, Runner, Running};
use rekeyd::model::{Duration, ProviderKind};
use rekeyd::rotation::deliver::{File, SshConfig};
use rekeyd::rotation::{Allow, Author, Delivery, Event, HoldReason, HookCommand, Order, Outcome, Plan, Step};
use rekeyd::store::Journal;

use crate::back::add_machine;
use crate::fuse::Side;
use crate::pool;
use crate::rig::{Rig, Scenario};

/// A delivery of each kind.
pub fn everywhere() -> Vec<Delivery> {
    let file = |to: &str| File { to: to.into(), mode: 0o600, owner: None };
    vec![
        Delivery::Exec(HookCommand { command: vec!["push".to_string()], timeout: Duration::from_secs(60) }),
        Delivery::Copy(file("/ops/web.key")),
        Delivery::SshConfig(SshConfig { file: file("/ops/web.conf"), identity_file: "/ops/web.key".into() }),
    ]
}

/// Where keys are delivered to. It outlives the engines.
#[derive(Default)]
pub struct Shelf {
    files: Mutex<BTreeMap<PathBuf, String>>,
    pushed: Mutex<Vec<String>>,
    /// Nothing can be written, and no program succeeds.
    broken: Mutex<bool>,
}

impl Files for Shelf {
    fn replace(&self, to: &Path, _mode: u32, _owner: Option<&str>, content: &[u8]) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not yours"));
        }
        self.files.lock().unwrap().insert(to.to_path_buf(), String::from_utf8(content.to_vec()).unwrap());
        Ok(())
    }
}

#[async_trait]
impl Runner for Shelf {
    async fn start(&self, run: Run) -> Running {
        let shown = format!("{:?}{:?}", run.command, run.environment);
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
        let broken = *self.broken.lock().unwrap();
        if !broken {
            self.pushed.lock().unwrap().push(run.input.to_string());
        }
        let fault = Fault { why: "exit code 1".to_string(), output: "not now".to_string() };
        Box::pin(async move { if broken { Err(fault) } else { Ok(()) } })
    }
}

fn scenario(provider: ProviderKind) -> Scenario {
    Scenario { deliver: true, refused: false, by_login: true, ..Scenario::of(provider) }
}

/// What is not where it was to be, by the journals and the shelf.
async fn undelivered(rig: &Rig) -> Vec<String> {
    let mut problems = Vec::new();
    let heads = rig.journal.heads().await.unwrap().readable;
    let mut delivered_at = Vec::new();
    let mut newest = None;
    for head in &heads {
        let entries = rig.journal.read(head.id, 0).await.unwrap();
        let at = |is: fn(&Event) -> bool| entries.iter().filter(|entry| is(&entry.event)).map(|entry| entry.at).max();
        match &head.plan {
            Plan::Rotate(plan) => {
                let count = entries.iter().filter(|entry| matches!(entry.event, Event::Delivered { .. })).count();
                if count != 3 {
                    problems.push(format!("{count} deliveries of {}", plan.key_name));
                }
                delivered_at.extend(at(|event| matches!(event, Event::Delivered { .. })));
                newest = Some(plan.key_name.clone());
            }
            Plan::Retire(_) => {
                let deleted = at(|event| matches!(event, Event::Started { step: Step::RetireKeyPair, .. }));
                let number = heads.iter().filter(|head| matches!(head.plan, Plan::Retire(_))).count();
                if deleted.is_none_or(|deleted| delivered_at.iter().filter(|at| **at <= deleted).count() <= number) {
                    problems.push(format!("{} was deleted before its successor was delivered", head.plan.key_name()));
                }
            }
        }
    }
    let key = rig.custody.get(&newest.unwrap()).await.unwrap();
    let files = rig.shelf.files.lock().unwrap();
    if files.get(Path::new("/ops/web.key")).map(String::as_str) != Some(key.expose()) {
        problems.push("the copy is not the fleet's key".to_string());
    }
    let snippet = files.get(Path::new("/ops/web.conf")).cloned().unwrap_or_default();
    if snippet.matches("HostName ").count() < 4 || !snippet.contains("IdentityFile \"/ops/web.key\"") {
        problems.push(format!("a snippet of other machines: {snippet}"));
    }
    if rig.shelf.pushed.lock().unwrap().last().map(String::as_str) != Some(key.expose()) {
        problems.push("the program read another key last".to_string());
    }
    problems
}

async fn run(provider: ProviderKind, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut rig = Rig::new(scenario(provider), pool(), blows);
    let mut report = rig.run().await;
    report.problems.extend(undelivered(&rig).await);
    assert!(report.problems.is_empty(), "{provider} {blows:?}\n{}\n{:#?}", rig.story().await, report.problems);
    report.calls
}

async fn sweep(provider: ProviderKind) {
    let calls = run(provider, None).await;
    let near = |number: usize| {
        let calls = &calls[number.saturating_sub(2)..(number + 3).min(calls.len())];
        calls.iter().any(|call| call.contains("delivered"))
    };
    let mut swept = 0;
    for number in (0..calls.len()).filter(|number| near(*number) || number % 12 == 0) {
        for side in [Side::Before, Side::After] {
            run(provider, Some((number, side))).await;
            swept += 1;
        }
    }
    assert!(swept > 40, "{swept} of {}", calls.len());
}

#[tokio::test]
async fn a_key_is_delivered_before_the_older_one_is_retired_when_killed_at_any_call_on_lighthouse() {
    sweep(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn a_key_is_delivered_before_the_older_one_is_retired_when_killed_at_any_call_on_ecs() {
    sweep(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn what_cannot_be_delivered_holds_before_anything_is_retired_until_it_can_or_a_person_goes_on_without() {
    for without in [false, true] {
        let mut rig = Rig::new(scenario(ProviderKind::TencentLighthouse), pool(), None);
        let mut engine = rig.engine();
        rig.rotate(&mut engine).await.unwrap();
        *rig.shelf.broken.lock().unwrap() = true;
        let refused = rig.rotate_only(&mut engine).await.unwrap_err();
        assert!(refused.contains("Deliver"), "{refused}");
        let id = rig.open_rotation().await.unwrap();
        let held = engine.rotation(id).unwrap().held.clone();
        assert!(matches!(held, Some(HoldReason::Step { step: Step::Deliver, .. })), "{held:?}");
        let way_on = held.unwrap().way_on(id);
        assert!(way_on.contains("--allow=undelivered"), "{way_on}");
        rig.retire(&mut engine).await.unwrap();
        let heads = rig.journal.heads().await.unwrap().readable;
        assert!(heads.iter().all(|head| matches!(head.plan, Plan::Rotate(_))), "nothing is retired yet");
        if !without {
            *rig.shelf.broken.lock().unwrap() = false;
        }
        let allow = if without { vec![Allow::Undelivered] } else { Vec::new() };
        let order = Order::Release { note: String::new(), allow };
        let by = Author::Operator("test".to_string());
        operate(rig.journal.as_ref(), rig.clock.as_ref(), id, &order, &by).await.unwrap();
        assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed), "{}", rig.story().await);
        rig.retire(&mut engine).await.unwrap();
        let problems = undelivered(&rig).await;
        assert_eq!(problems.is_empty(), !without, "{problems:#?}");
        // Allowed for once: the next one is delivered again.
        *rig.shelf.broken.lock().unwrap() = false;
        rig.rotate(&mut engine).await.unwrap();
        assert!(rig.fuse.broken().is_empty(), "{:?}", rig.fuse.broken());
    }
}

#[tokio::test]
async fn a_catch_up_delivers_the_whole_fleet_and_a_way_back_the_older_key_again() {
    let mut rig = Rig::new(scenario(ProviderKind::AlibabaEcs), pool(), None);
    let mut engine = rig.engine();
    let drive = async |engine: &mut Engine, aim: Aim, rig: &Rig| {
        let proposal = propose_for(engine.tools(), &rig.fleet(), &[], aim).await.unwrap();
        let id = begin(engine.tools(), &proposal).await.unwrap().id;
        assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed), "{}", rig.story().await);
        (id, proposal.notes.join("; "))
    };
    rig.rotate(&mut engine).await.unwrap();
    let first = rig.journal.heads().await.unwrap().readable[0].plan.key_name().clone();
    let hosts = |rig: &Rig| {
        let files = rig.shelf.files.lock().unwrap();
        files.get(Path::new("/ops/web.conf")).unwrap().matches("HostName ").count()
    };
    let copied = |rig: &Rig| rig.shelf.files.lock().unwrap().get(Path::new("/ops/web.key")).cloned().unwrap();
    let before = hosts(&rig);
    add_machine(&rig, Some("theirs"));
    let (caught_up, _) = drive(&mut engine, Aim::CatchUp { new: true }, &rig).await;
    assert_eq!(hosts(&rig), before + 1, "{}", rig.shelf.files.lock().unwrap()[Path::new("/ops/web.conf")]);
    // Of the few whom a catch-up brought: the others keep their key, and the file keeps it.
    let (_, notes) = drive(&mut engine, Aim::Back(caught_up), &rig).await;
    assert!(notes.contains("is delivered nowhere"), "{notes}");
    let key = rig.custody.get(&first).await.unwrap();
    assert_eq!(copied(&rig), key.expose());
    rig.rotate(&mut engine).await.unwrap();
    assert_ne!(copied(&rig), key.expose());
    let second = rig.journal.heads().await.unwrap().readable;
    let second =
        second.iter().rfind(|head| matches!(&head.plan, Plan::Rotate(plan) if plan.key_name != first)).unwrap().id;
    // The new machine has a stranger's pair again: a way back to two pairs, of which none is the whole fleet's.
    let (_, notes) = drive(&mut engine, Aim::Back(second), &rig).await;
    assert!(notes.contains("is delivered nowhere"), "{notes}");
    assert!(rig.fuse.broken().is_empty(), "{:?}", rig.fuse.broken());
}

#[tokio::test]
async fn a_way_back_of_a_whole_fleet_delivers_its_older_key() {
    let mut rig = Rig::new(Scenario { stopped: 0, ..scenario(ProviderKind::TencentLighthouse) }, pool(), None);
    let mut engine = rig.engine();
    rig.rotate(&mut engine).await.unwrap();
    rig.rotate_only(&mut engine).await.unwrap();
    let heads = rig.journal.heads().await.unwrap().readable;
    let rotations: Vec<_> = heads.iter().filter(|head| matches!(head.plan, Plan::Rotate(_))).collect();
    let proposal = propose_for(engine.tools(), &rig.fleet(), &[], Aim::Back(rotations[1].id)).await.unwrap();
    let id = begin(engine.tools(), &proposal).await.unwrap().id;
    assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed), "{}", rig.story().await);
    let key = rig.custody.get(rotations[0].plan.key_name()).await.unwrap();
    assert_eq!(rig.shelf.files.lock().unwrap()[Path::new("/ops/web.key")], key.expose());
}
