//! The key of the jump host becomes unreadable at any call of a rotation, for a moment or for good: that is this machine's own
//! fault. It is tried again, then held with the file, the rule and the way on; no machine is ever a straggler or a failure for it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{PlanError, begin, propose};
use rekeyd::model::{JournalId, ProviderKind};
use rekeyd::rotation::{Event, HoldReason, Outcome};
use rekeyd::store::Journal;

use crate::pool;
use crate::rig::{Rig, Scenario};

fn put(file: &Path, key: &str) {
    std::fs::write(file, key).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Begins a rotation; refused while the key cannot be read, with nothing made.
async fn begun(rig: &Rig, engine: &Engine, file: &Path, key: &str) -> JournalId {
    let fleet = rig.fleet();
    for _ in 0..2 {
        let proposal = propose(engine.tools(), &fleet, &[]).await.unwrap();
        match begin(engine.tools(), &proposal).await {
            Ok(head) => return head.id,
            Err(PlanError::Preflight { findings, .. }) => {
                let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
                assert!(
                    said.iter().all(|said| said.starts_with("jump_key: ") && said.contains("cannot be read")),
                    "{said:?}"
                );
                assert!(rig.journal.heads().await.unwrap().readable.is_empty());
            }
            Err(error) => panic!("{error}"),
        }
        put(file, key);
    }
    panic!("it does not begin")
}

/// The key is taken away at a call, and put back so many calls later, if at all before a person does. Answers the number of
/// calls, how often a step failed for it, and whether it was held.
async fn at_call(provider: ProviderKind, key: &str, call: usize, back: Option<usize>) -> (usize, usize, bool) {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("jump-key");
    put(&file, key);
    let scenario =
        Scenario { by_login: true, refused: false, stopped: 0, jump: Some(file.clone()), ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let gone = file.clone();
    rig.fuse.lend(call, Box::pin(async move { std::fs::remove_file(gone).unwrap() }));
    if let Some(back) = back {
        let (file, key) = (file.clone(), key.to_string());
        rig.fuse.lend(call + back, Box::pin(async move { put(&file, &key) }));
    }
    let mut engine = rig.engine();
    let id = begun(&rig, &engine, &file, key).await;
    let mut held = false;
    let what = format!("{provider} at call {call}, back {back:?}");
    loop {
        match engine.drive(id).await.unwrap() {
            Reached::Ended(Outcome::Completed) => break,
            Reached::Held { reason: HoldReason::Step { error, .. }, down } if error.code == "JumpKey" && !held => {
                let said = error.to_string();
                assert!(
                    said.contains("cannot be read") && said.contains("put the private key there"),
                    "{what}: {said}"
                );
                assert_eq!(down.len(), 0, "{what}");
                held = true;
                put(&file, key);
                rig.operate(Event::Released { note: String::new(), allow: None }).await;
            }
            other => panic!("{what}: {other:?}\n{}", rig.story().await),
        }
    }
    let story = rig.story().await;
    let names = |event: &Event| matches!(event, Event::Unproven { .. } | Event::Excluded { .. });
    let entries = rig.journal.read(id, 0).await.unwrap();
    assert!(!entries.iter().any(|entry| names(&entry.event)), "{what}\n{story}");
    let proven = entries.iter().filter_map(|entry| match &entry.event {
        Event::Verified { proofs } => Some(proofs.len()),
        _ => None,
    });
    assert_eq!(proven.sum::<usize>(), 4, "{what}\n{story}");
    let mut problems = rig.fuse.broken();
    problems.extend(rig.unkept().await);
    // Nothing of the old pair: it is retired later.
    problems.retain(|problem| !problem.contains("key pair"));
    assert!(problems.is_empty(), "{what}\n{story}\n{problems:#?}");
    let failed = |event: &Event| matches!(event, Event::Failed { error, .. } if error.code == "JumpKey");
    let failures = entries.iter().filter(|entry| failed(&entry.event)).count();
    (rig.fuse.calls().len(), failures, held)
}

async fn sweep(provider: ProviderKind) {
    let key = rekeyd::ssh::generate(2048, "jump").unwrap();
    let key = key.expose();
    let (calls, ..) = at_call(provider, key, usize::MAX - 1_000, None).await;
    let (mut failures, mut holds) = (0, 0);
    for call in 0..calls {
        let back = (call % 3 > 0).then_some(call % 3 * 2);
        let (_, failed, held) = at_call(provider, key, call, back).await;
        failures += usize::from(failed > 0);
        holds += usize::from(held);
    }
    assert!(failures > calls / 3 && holds > 3, "{failures} runs failed a step, {holds} were held, of {calls} calls");
}

#[tokio::test]
async fn an_unreadable_jump_key_costs_no_machine_anything_on_lighthouse() {
    sweep(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn an_unreadable_jump_key_costs_no_machine_anything_on_cvm() {
    sweep(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn an_unreadable_jump_key_costs_no_machine_anything_on_ecs() {
    sweep(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn an_unreadable_jump_key_costs_no_machine_anything_on_bcc() {
    sweep(ProviderKind::BaiduBcc).await;
}
