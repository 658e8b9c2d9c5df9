//! Custody that does not answer for a while, from any call on: a Vault that restarts, a disk that is not mounted. It is waited
//! for; nothing is held, made twice or taken for lost.

use std::collections::BTreeSet;

use rekeyd::model::ProviderKind;
use rekeyd::rotation::Event;
use rekeyd::store::Journal as _;

use crate::pool;
use crate::rig::{Rig, Scenario};

fn scenario() -> Scenario {
    Scenario { rounds: 2, refused: false, stopped: 0, by_login: true, ..Scenario::of(ProviderKind::TencentLighthouse) }
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
