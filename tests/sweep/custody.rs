//! Custody that does not answer for a while, from any call on: a Vault that restarts, a disk that is not mounted. It is waited
//! for; nothing is held, made twice or taken for lost.

use std::collections::BTreeSet;

use rekeyd::clock::Clock;
use rekeyd::model::{Duration, ProviderKind};
use rekeyd::rotation::Event;
use rekeyd::rotation::policy::later;
use rekeyd::store::Journal as _;

use crate::pool;
use crate::rig::{Rig, Scenario};

fn scenario() -> Scenario {
    scenario_of(ProviderKind::TencentLighthouse)
}

fn scenario_of(provider: ProviderKind) -> Scenario {
    Scenario { rounds: 2, refused: false, stopped: 0, by_login: true, ..Scenario::of(provider) }
}

/// The steps that failed, and whether anything is held.
async fn failed(rig: &Rig) -> (BTreeSet<&'static str>, bool) {
    let (mut steps, mut held) = (BTreeSet::new(), false);
    for head in rig.journal.heads().await.unwrap().readable {
        for entry in rig.journal.read(head.id, 0).await.unwrap() {
            match entry.event {
                Event::Failed { step, error, .. } if error.code == "custody" => drop(steps.insert(step.name())),
                Event::Held { .. } => held = true,
                _ => {}
            }
        }
    }
    (steps, held)
}

#[tokio::test]
async fn custody_that_is_away_for_a_while_is_waited_for_at_every_step_and_nothing_is_held() {
    let calls = Rig::new(scenario(), pool(), None).run().await.calls.len();
    let (mut steps, mut away) = (BTreeSet::new(), 0);
    for call in 0..calls {
        let mut rig = Rig::new(scenario(), pool(), None);
        let (off, on) = (rig.fuse.clone(), rig.fuse.clone());
        rig.fuse.lend(call, Box::pin(async move { off.custody_is_away(true) }));
        rig.fuse.lend(call + 12, Box::pin(async move { on.custody_is_away(false) }));
        let report = rig.run().await;
        let (of_this, held) = failed(&rig).await;
        assert!(report.problems.is_empty() && !held, "call {call}: {:#?}\n{}", report.problems, rig.story().await);
        steps.extend(of_this);
        away += usize::from(rig.fuse.custody_failed() > 0);
    }
    assert!(away > 20, "{away} times");
    let expect = ["bind", "destroy_private_key", "import_key", "store_key", "verify"];
    assert_eq!(steps, expect.into(), "the steps that met it");
}

#[tokio::test]
async fn custody_that_answers_slowly_keeps_nobody_from_being_bound() {
    for provider in [ProviderKind::TencentLighthouse, ProviderKind::TencentCvm] {
        let mut rig = Rig::new(Scenario { rounds: 1, ..scenario_of(provider) }, pool(), None);
        let clock = rig.clock.clone();
        rig.fuse.custody_takes(move || clock.advance_to(later(clock.now(), Duration::from_secs(25))));
        let report = rig.run().await;
        assert!(report.problems.is_empty(), "{provider}: {:#?}\n{}", report.problems, rig.story().await);
        assert!(!failed(&rig).await.1, "{provider}: held");
    }
}
