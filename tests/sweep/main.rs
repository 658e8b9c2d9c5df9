//! The crash sweep: two rotations of a small fleet on each cloud, killed before and after every single call, started
//! again, and the promise asked after each.

#![allow(clippy::unwrap_used)]

mod account;
mod adopt;
mod back;
mod compromised;
mod custody;
mod daemon;
mod deliver;
mod drift;
mod fuse;
mod gone;
mod jump;
mod late;
mod login;
mod operator;
mod rig;
mod roll;
mod seeds;
mod strangers;
mod ticks;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rekeyd::model::ProviderKind;
use rekeyd::provider::Api;
use rekeyd::ssh::KeyPool;

use fuse::Side;
use rig::{FLAT, Rig, Scenario};

fn pool() -> &'static Arc<KeyPool> {
    static POOL: OnceLock<Arc<KeyPool>> = OnceLock::new();
    POOL.get_or_init(|| KeyPool::new(12))
}

/// Runs a scenario once without a crash, then once for each side of each call. Gives calls and kinds of steps covered.
async fn sweep(scenario: &Scenario) -> (usize, BTreeSet<String>) {
    let calls = run(scenario, None).await;
    for number in 0..calls.len() {
        for side in [Side::Before, Side::After] {
            run(scenario, Some((number, side))).await;
        }
    }
    let kinds: BTreeSet<String> = calls.iter().cloned().collect();
    for event in [
        "key_stored",
        "started",
        "accepted",
        "key_imported",
        "bound",
        "activated",
        "excluded",
        "running",
        "key_pair_deleted",
        "ended",
    ] {
        let crashed = |kind: &&String| kind.starts_with("journal") && kind.split(' ').any(|word| word == event);
        assert!(kinds.iter().any(|kind| crashed(&kind)), "no crash around {event}: {kinds:?}");
    }
    (calls.len(), kinds)
}

async fn run(scenario: &Scenario, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut rig = Rig::new(scenario.clone(), pool(), blows);
    let report = rig.run().await;
    assert_eq!(rig.fuse.times(), usize::from(blows.is_some()), "the fuse at {blows:?}");
    if !report.problems.is_empty() {
        let calls: Vec<String> = report.calls.iter().enumerate().map(|(n, call)| format!("{n} {call}")).collect();
        panic!(
            "{:?} {blows:?}\n{}\n{}\n{:#?}",
            scenario.provider,
            calls.join(", "),
            rig.story().await,
            report.problems
        );
    }
    report.calls
}

#[tokio::test]
async fn lighthouse_keeps_the_promise_when_killed_at_any_call() {
    let (calls, kinds) = sweep(&Scenario::of(ProviderKind::TencentLighthouse)).await;
    assert!(calls > 100, "{calls} calls: {kinds:?}");
}

#[tokio::test]
async fn cvm_keeps_the_promise_when_killed_at_any_call() {
    let (calls, kinds) = sweep(&Scenario::of(ProviderKind::TencentCvm)).await;
    assert!(calls > 100, "{calls} calls: {kinds:?}");
}

#[tokio::test]
async fn cvm_keeps_the_promise_by_its_legacy_endpoint_when_killed_at_any_call() {
    let cvm = Scenario::of(ProviderKind::TencentCvm);
    let (calls, kinds) = sweep(&Scenario { api: Api::Legacy, faults: FLAT, ..cvm }).await;
    assert!(calls > 100, "{calls} calls: {kinds:?}");
    assert!(kinds.contains("legacy AssociateInstancesKeyPairs"), "{kinds:?}");
}

#[tokio::test]
async fn ecs_keeps_the_promise_when_killed_at_any_call() {
    let (calls, kinds) = sweep(&Scenario::of(ProviderKind::AlibabaEcs)).await;
    assert!(calls > 100, "{calls} calls: {kinds:?}");
}

#[tokio::test]
async fn bcc_keeps_the_promise_when_killed_at_any_call() {
    let (calls, kinds) = sweep(&Scenario::of(ProviderKind::BaiduBcc)).await;
    assert!(calls > 100, "{calls} calls: {kinds:?}");
}

/// The same with logins as proof: two rotations, the second one's retirement destroys the first one's private half; but
/// not while a machine that stayed switched off could need it.
async fn by_login(provider: ProviderKind) {
    let resting = Scenario { by_login: true, ..Scenario::of(provider) };
    let calls = run(&resting, None).await;
    assert!(calls.iter().any(|call| call.contains("key_pair_deleted")), "the pair was not deleted: {calls:?}");
    assert!(!calls.iter().any(|call| call.contains("private_key_destroyed")), "destroyed: {calls:?}");
    let scenario = Scenario { stopped: 0, ..resting };
    let calls = run(&scenario, None).await;
    for event in ["pinned", "verified", "private_key_destroyed"] {
        assert!(calls.iter().any(|call| call.starts_with("journal") && call.contains(event)), "no {event}: {calls:?}");
    }
    for number in (0..calls.len()).filter(|number| number % 3 == 0 || calls[*number].contains("verified")) {
        for side in [Side::Before, Side::After] {
            run(&scenario, Some((number, side))).await;
        }
    }
}

#[tokio::test]
async fn lighthouse_proves_by_logins_when_killed_at_any_call() {
    by_login(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn cvm_proves_by_logins_when_killed_at_any_call() {
    by_login(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn ecs_proves_by_logins_when_killed_at_any_call() {
    by_login(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn bcc_proves_by_logins_when_killed_at_any_call() {
    by_login(ProviderKind::BaiduBcc).await;
}
