//! Seeds: two rotations in bad weather (throttles, server faults, lost and late answers, rubbish, operations that fail,
//! batches half done), killed at a few calls by chance. One number replays a failure.

use rekeyd::model::ProviderKind;
use rekeyd::provider::Api;
use rekeyd::sim::Rng;

use crate::fuse::Side;
use crate::pool;
use crate::rig::{Rig, Scenario};

pub const WEATHER: &str =
    "throttle=0.05,error500=0.05,lost=0.05,late=0.01:20s,delay=0.02:3s,rubbish=0.02,opfail=0.02,halfdone=0.5";

/// `SEEDS=100 FROM=1000` runs others than the usual ones.
pub fn seeds() -> std::ops::Range<u64> {
    let number = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let from = number("FROM", 1);
    from..from + number("SEEDS", 8)
}

/// The same, and half of what the legacy endpoint may answer in its oldest shape comes so.
const FLAT_WEATHER: &str =
    "throttle=0.05,error500=0.05,lost=0.05,late=0.01:20s,delay=0.02:3s,rubbish=0.02,opfail=0.02,halfdone=0.5,flat=0.5";

async fn run(provider: ProviderKind) {
    run_through(&Scenario { faults: WEATHER, ..Scenario::of(provider) }).await;
}

async fn run_through(scenario: &Scenario) {
    let provider = scenario.provider;
    for seed in seeds() {
        let mut chance = Rng::new(seed);
        let blows: Vec<(usize, Side)> = (0..3)
            .map(|_| (chance.below(200), if chance.below(2) == 0 { Side::Before } else { Side::After }))
            .collect();
        let scenario = Scenario { seed, failures_max: 5, canary: 2, ..scenario.clone() };
        let mut rig = Rig::new(scenario, pool(), blows);
        let report = rig.run().await;
        if !report.problems.is_empty() {
            panic!("{provider} seed {seed}\n{}\n{:#?}", rig.story().await, report.problems);
        }
    }
}

#[tokio::test]
async fn lighthouse_keeps_the_promise_in_bad_weather() {
    run(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn cvm_keeps_the_promise_in_bad_weather() {
    run(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn cvm_keeps_the_promise_by_its_legacy_endpoint_in_bad_weather() {
    let (api, faults) = (Api::LegacySha1, FLAT_WEATHER);
    run_through(&Scenario { api, faults, ..Scenario::of(ProviderKind::TencentCvm) }).await;
}

#[tokio::test]
async fn ecs_keeps_the_promise_in_bad_weather() {
    run(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn bcc_keeps_the_promise_in_bad_weather() {
    run(ProviderKind::BaiduBcc).await;
}
