//! The operator's hand: at each call of a rotation the engine is killed, an operator holds, releases or gives up, and the
//! engine is started again. Nobody stays switched off, and what follows ends as it should.

use rekeyd::engine::drive::Reached;
use rekeyd::model::ProviderKind;
use rekeyd::rotation::{Event, Outcome};

use crate::fuse::Side;
use crate::pool;
use crate::rig::{Rig, Scenario};

fn scenario(provider: ProviderKind) -> Scenario {
    Scenario { rounds: 1, refused: false, ..Scenario::of(provider) }
}

/// A rig whose first engine was killed at this call, with a rotation open; `None` where there is none at that call.
async fn killed_at(provider: ProviderKind, call: usize) -> Option<Rig> {
    let side = if call.is_multiple_of(2) { Side::Before } else { Side::After };
    let mut rig = Rig::new(scenario(provider), pool(), [(call, side)]);
    let mut engine = rig.engine();
    let fuse = rig.fuse.clone();
    tokio::select! {
        biased;
        _ = rig.rotate(&mut engine) => {}
        () = fuse.blown() => {}
    }
    rig.open_rotation().await.map(|_| rig)
}

async fn calls(provider: ProviderKind) -> usize {
    let mut rig = Rig::new(scenario(provider), pool(), None);
    rig.run().await.calls.len()
}

async fn hold_and_release(provider: ProviderKind) {
    let mut held = 0;
    for call in 0..calls(provider).await {
        let Some(mut rig) = killed_at(provider, call).await else { continue };
        rig.operate(Event::Held { reason: Rig::operators_hold() }).await;
        let id = rig.open_rotation().await.unwrap();
        let reached = rig.engine().drive(id).await.unwrap();
        assert!(matches!(&reached, Reached::Held { down, .. } if down.is_empty()), "call {call}: {reached:?}");
        assert_eq!(rig.switched_off(), Vec::<String>::new(), "call {call}\n{}", rig.story().await);
        rig.operate(Event::Released { note: String::new(), allow: None }).await;
        let report = rig.run().await;
        assert!(report.problems.is_empty(), "call {call}: {:#?}\n{}", report.problems, rig.story().await);
        held += 1;
    }
    assert!(held > 20, "{held} holds");
}

async fn abandon(provider: ProviderKind) {
    let mut abandoned = 0;
    for call in 0..calls(provider).await {
        let Some(mut rig) = killed_at(provider, call).await else { continue };
        rig.operate(Event::AbandonRequested { note: String::new() }).await;
        let id = rig.open_rotation().await.unwrap();
        let reached = rig.engine().drive(id).await.unwrap();
        assert_eq!(reached, Reached::Ended(Outcome::Abandoned), "call {call}");
        assert_eq!(rig.switched_off(), Vec::<String>::new(), "call {call}\n{}", rig.story().await);
        // The next rotation takes over whatever the abandoned one bound, and its pair is retired.
        rig.scenario.rounds = 2;
        let report = rig.run().await;
        assert!(report.problems.is_empty(), "call {call}: {:#?}\n{}", report.problems, rig.story().await);
        abandoned += 1;
    }
    assert!(abandoned > 20, "{abandoned} abandoned");
}

#[tokio::test]
async fn a_hold_at_any_call_leaves_nobody_switched_off_and_a_release_goes_on_on_lighthouse() {
    hold_and_release(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn a_hold_at_any_call_leaves_nobody_switched_off_and_a_release_goes_on_on_cvm() {
    hold_and_release(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn a_hold_at_any_call_leaves_nobody_switched_off_and_a_release_goes_on_on_ecs() {
    hold_and_release(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn a_hold_at_any_call_leaves_nobody_switched_off_and_a_release_goes_on_on_bcc() {
    hold_and_release(ProviderKind::BaiduBcc).await;
}

#[tokio::test]
async fn giving_up_at_any_call_leaves_nobody_switched_off_and_the_next_rotation_retires_the_pair_on_lighthouse() {
    abandon(ProviderKind::TencentLighthouse).await;
}

#[tokio::test]
async fn giving_up_at_any_call_leaves_nobody_switched_off_and_the_next_rotation_retires_the_pair_on_cvm() {
    abandon(ProviderKind::TencentCvm).await;
}

#[tokio::test]
async fn giving_up_at_any_call_leaves_nobody_switched_off_and_the_next_rotation_retires_the_pair_on_ecs() {
    abandon(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn giving_up_at_any_call_leaves_nobody_switched_off_and_the_next_rotation_retires_the_pair_on_bcc() {
    abandon(ProviderKind::BaiduBcc).await;
}
