//! The crash sweep: two rotations of a small fleet on each cloud, killed before and after every single call, started
//! again, and the promise asked after each.

#![allow(clippy::unwrap_used)]

mod fuse;
mod rig;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rekeyd::model::ProviderKind;
use rekeyd::ssh::KeyPool;

use fuse::Side;
use rig::{Report, Rig, Scenario};

fn pool() -> &'static Arc<KeyPool> {
    static POOL: OnceLock<Arc<KeyPool>> = OnceLock::new();
    POOL.get_or_init(|| KeyPool::new(12))
}

async fn run(scenario: &Scenario, blows: Option<(usize, Side)>) -> Report {
    let mut rig = Rig::new(scenario.clone(), pool(), blows);
    let report = rig.run().await;
    if !report.problems.is_empty() {
        eprintln!("{}", rig.story().await);
    }
    report
}

#[tokio::test]
async fn two_rotations_without_a_crash_keep_the_promise_on_lighthouse() {
    let report = run(&Scenario::of(ProviderKind::TencentLighthouse), None).await;
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    let kinds: BTreeSet<&String> = report.calls.iter().collect();
    eprintln!("{} calls, {} kinds", report.calls.len(), kinds.len());
}
