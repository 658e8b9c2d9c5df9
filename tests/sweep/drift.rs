//! Surveys for drift: after rotations and in the midst of them nothing is found, and of what others then did behind our back
//! exactly that.

use std::sync::{Arc, Mutex};

use rekeyd::clock::Clock;
use rekeyd::custody::Custodian;
use rekeyd::engine::survey;
use rekeyd::model::{Duration, KeyPairName, ProviderKind};
use rekeyd::rotation::policy::later;
use rekeyd::sim::{InstanceSpec, Power};
use rekeyd::store::Journal;

use crate::pool;
use crate::rig::{Rig, Scenario, TAG};

fn scenario(provider: ProviderKind) -> Scenario {
    Scenario { by_login: true, ..Scenario::of(provider) }
}

/// `KIND SUBJECT` of everything that surveys of the fleet and of the installation find.
async fn found(rig: &mut Rig, driven: bool) -> Vec<String> {
    let (tools, fleet) = (rig.tools_to_look(), rig.fleet());
    let surveys = [survey::fleet(&tools, &fleet, driven).await, survey::holdings(&tools, &[fleet]).await];
    for survey in &surveys {
        assert_eq!(survey.unseen, Vec::<String>::new());
    }
    let all = surveys.iter().flat_map(|survey| &survey.deviations);
    all.map(|one| format!("{} {}", one.kind, one.subject)).collect()
}

/// Two rotations, surveyed after each; then what others do, one after the other, and each is found, and nothing else.
async fn exactly_what_was_seeded(provider: ProviderKind) {
    // Nobody is off: the first private half is destroyed at the end.
    let mut rig = Rig::new(Scenario { stopped: 0, ..scenario(provider) }, pool(), None);
    let mut engine = rig.engine();
    assert_eq!(found(&mut rig, false).await, Vec::<String>::new(), "{provider}: before the first rotation");
    rig.rotate(&mut engine).await.unwrap();
    assert_eq!(found(&mut rig, false).await, Vec::<String>::new(), "{provider}: after one");
    let first = rig.journal.heads().await.unwrap().readable[0].plan.key_name().clone();
    let first_half = rig.custody.get(&first).await.unwrap();
    rig.rotate(&mut engine).await.unwrap();
    assert_eq!(found(&mut rig, false).await, Vec::<String>::new(), "{provider}: after two\n{}", rig.story().await);
    // What was journalled in the moment of a look is no evidence for it.
    rig.clock.advance_to(later(rig.clock.now(), Duration::from_secs(1)));
    let heads = rig.journal.heads().await.unwrap().readable;
    let current: KeyPairName = heads.iter().map(|head| head.plan.key_name()).max().unwrap().clone();
    assert_ne!(first, current);

    let mut expect: Vec<String> = Vec::new();
    let mut ids = {
        let world = rig.world.lock().unwrap();
        let on_it = world.cloud(0).key_pairs().iter().find(|pair| pair.name == current.as_str()).unwrap().id.clone();
        let bound = world.machines().filter(|(_, machine)| machine.record_keys == [on_it.clone()]);
        bound.filter(|(_, machine)| machine.power == Power::Running).map(|(_, one)| one.id.clone()).collect::<Vec<_>>()
    };
    let mut take = || ids.pop().unwrap();
    let mut check = async |rig: &mut Rig, what: String| {
        expect.push(what);
        expect.sort();
        let mut found = found(rig, false).await;
        found.sort();
        assert_eq!(found, expect, "{provider}");
    };
    let (other, bare, old) = (take(), take(), take());

    let stranger = rig.world.lock().unwrap().add_strangers_pair(0, "theirs");
    rig.world.lock().unwrap().rebind(0, &other, &[stranger]);
    check(&mut rig, format!("other_key {other}")).await;

    rig.world.lock().unwrap().rebind(0, &bare, &[]);
    check(&mut rig, format!("no_key {bare}")).await;

    rig.world.lock().unwrap().authorize(0, &old, &first_half.public().to_openssh());
    check(&mut rig, format!("retired_key_taken {old}")).await;

    rig.world.lock().unwrap().add_strangers_pair(0, "rksim_0123456789abcdef");
    check(&mut rig, "unknown_pair rksim_0123456789abcdef".to_string()).await;

    // Somebody brings back what was destroyed; and a half that no journal ever knew.
    assert!(rig.custody.get(&first).await.is_err(), "{}", rig.story().await);
    rig.custody.put(&first, &first_half).await.unwrap();
    check(&mut rig, format!("needless_private_key {first}")).await;
    rig.custody.put(&"rksim_zzzzzzzzzzzzzzzz".into(), &first_half).await.unwrap();
    check(&mut rig, "needless_private_key rksim_zzzzzzzzzzzzzzzz".to_string()).await;

    let tags = vec![(TAG.0.to_string(), TAG.1.to_string())];
    let new = rig.world.lock().unwrap().add_instance(0, InstanceSpec { tags, ..Default::default() });
    check(&mut rig, format!("new_instance {new}")).await;

    rig.custody.destroy(&current).await.unwrap();
    check(&mut rig, format!("missing_private_key {current}")).await;

    {
        let mut world = rig.world.lock().unwrap();
        let id = world.cloud(0).key_pairs().iter().find(|pair| pair.name == current.as_str()).unwrap().id.clone();
        world.remove_key_pair(0, &id);
    }
    check(&mut rig, format!("missing_pair {current}")).await;
}

/// At many a call of two rotations a survey looks: it must not take for drift what is under way.
async fn nothing_in_the_midst(provider: ProviderKind) {
    let calls = Rig::new(scenario(provider), pool(), None).run().await.calls.len();
    for number in (0..calls).step_by(5) {
        let mut rig = Rig::new(scenario(provider), pool(), None);
        let (tools, fleet) = (rig.tools_to_look(), rig.fleet());
        let found = Arc::new(Mutex::new(None));
        let heard = found.clone();
        let look = async move {
            let one = survey::fleet(&tools, &fleet, true).await;
            let all = survey::holdings(&tools, std::slice::from_ref(&fleet)).await;
            *heard.lock().unwrap() = Some((one, all));
        };
        rig.fuse.lend(number, Box::pin(look));
        rig.run().await;
        let (one, all) = found.lock().unwrap().take().unwrap();
        for survey in [one, all] {
            let amiss = !survey.deviations.is_empty() || !survey.unseen.is_empty();
            assert!(!amiss, "{provider} at call {number}: {survey:#?}\n{}", rig.story().await);
        }
    }
    assert!(calls > 100, "{calls} calls");
}

/// Killed while machines are down: with nobody there to start them, they are found.
async fn owed_starts(provider: ProviderKind) {
    let calls = Rig::new(scenario(provider), pool(), None).run().await.calls.len();
    let mut seen = 0;
    for number in (0..calls).step_by(2) {
        let mut rig = Rig::new(scenario(provider), pool(), [(number, crate::fuse::Side::After)]);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        tokio::select! {
            biased;
            _ = rig.rotate(&mut engine) => continue,
            () = fuse.blown() => {}
        }
        drop(engine);
        let owed: Vec<String> = found(&mut rig, false).await;
        let off = rig.switched_off();
        assert!(owed.iter().all(|one| off.iter().any(|id| *one == format!("owed_start {id}"))), "{owed:?} of {off:?}");
        // Whom the cloud shows on his way is no evidence yet.
        seen += owed.len();
        assert!(found(&mut rig, true).await.is_empty(), "{provider} at call {number}");
    }
    assert!(seen > 0, "{provider}");
}

macro_rules! on_each_cloud {
    ($($seeded:ident $midst:ident $provider:ident;)*) => {$(
        #[tokio::test]
        async fn $seeded() {
            exactly_what_was_seeded(ProviderKind::$provider).await;
        }
        #[tokio::test]
        async fn $midst() {
            nothing_in_the_midst(ProviderKind::$provider).await;
        }
    )*};
}

on_each_cloud! {
    drift_is_found_exactly_as_it_was_seeded_on_lighthouse a_rotation_under_way_is_no_drift_on_lighthouse TencentLighthouse;
    drift_is_found_exactly_as_it_was_seeded_on_cvm a_rotation_under_way_is_no_drift_on_cvm TencentCvm;
    drift_is_found_exactly_as_it_was_seeded_on_ecs a_rotation_under_way_is_no_drift_on_ecs AlibabaEcs;
    drift_is_found_exactly_as_it_was_seeded_on_bcc a_rotation_under_way_is_no_drift_on_bcc BaiduBcc;
}

#[tokio::test]
async fn starts_that_a_killed_engine_owes_are_found_where_machines_are_down() {
    owed_starts(ProviderKind::TencentLighthouse).await;
    owed_starts(ProviderKind::TencentCvm).await;
}
