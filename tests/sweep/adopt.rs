//! The lost database: after a rotation that was cut off at any call the journals are gone, and adopt records what clouds and
//! custody still show, itself killed here and there. What follows is as if nothing had been lost.

use rekeyd::engine::adopt::{AdoptError, go_on, record, take_stock};
use rekeyd::engine::drive::Reached;
use rekeyd::engine::{Engine, survey};
use rekeyd::model::ProviderKind;
use rekeyd::rotation::{Outcome, Plan, Purpose};
use rekeyd::store::Journal;

use crate::fuse::Side;
use crate::pool;
use crate::rig::{Rig, Scenario};

fn scenario(provider: ProviderKind) -> Scenario {
    Scenario { by_login: true, refused: false, ..Scenario::of(provider) }
}

/// What the verb does.
async fn adopt(rig: &Rig, engine: &mut Engine) -> Result<(), String> {
    let words = |error: AdoptError| error.to_string();
    let mut reached = go_on(engine).await.map_err(words)?;
    let inventory = take_stock(engine.tools(), &rig.fleets()).await.map_err(words)?;
    reached.extend(record(engine, &inventory).await.map_err(words)?);
    match reached.iter().find(|(_, how)| *how != Reached::Ended(Outcome::Completed)) {
        Some(other) => Err(format!("{other:?}")),
        None => Ok(()),
    }
}

/// Two rotations, then the database is lost; then it is adopted, killed at each of its calls, and rotated again.
async fn comes_back(provider: ProviderKind) {
    // How many calls there are until the loss, and then in the adoption.
    let (before, calls) = run(provider, None).await;
    assert!(calls > 8, "{calls} calls");
    for number in 0..calls {
        for side in [Side::Before, Side::After] {
            run(provider, Some((before + number, side))).await;
        }
    }
}

async fn run(provider: ProviderKind, blows: Option<(usize, Side)>) -> (usize, usize) {
    let mut rig = Rig::new(scenario(provider), pool(), blows);
    let mut engine = rig.engine();
    for _ in 0..2 {
        rig.rotate(&mut engine).await.unwrap();
    }
    drop(engine);
    let before = rig.fuse.calls().len();
    let newest = rig.journal.heads().await.unwrap().readable;
    let newest = newest.iter().map(|head| head.plan.key_name().clone()).max().unwrap();
    rig.journal = Default::default();

    // Without journals a rotation would bind over what it does not know: it is held.
    let mut times = 0;
    loop {
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        tokio::select! {
            biased;
            done = adopt(&rig, &mut engine) => {
                done.unwrap_or_else(|problem| panic!("{provider} {blows:?}: {problem}"));
                break;
            }
            () = fuse.blown() => times += 1,
        }
        assert!(times < 3, "{provider} {blows:?}");
    }
    let calls = rig.fuse.calls().len() - before;
    let heads = rig.journal.heads().await.unwrap().readable;
    let current = heads.last().unwrap();
    let Plan::Rotate(plan) = &current.plan else { panic!("{current:?}") };
    assert_eq!((plan.purpose(), &plan.key_name), (Purpose::Adopt, &newest), "{provider} {blows:?}");
    assert_eq!(heads.len(), 1, "{heads:#?}");
    {
        let world = rig.world.lock().unwrap();
        let off = world.machines().filter(|(_, machine)| machine.power != machine.first_power).count();
        assert_eq!(off, 0, "{provider} {blows:?}: nobody was disturbed");
    }
    // All is known again; the half of the first pair, which waits for the machine that is off, is not.
    let (tools, fleet) = (rig.tools_to_look(), rig.fleet());
    let of_fleet = survey::fleet(&tools, &fleet, false).await;
    assert!(of_fleet.unseen.is_empty(), "{of_fleet:#?}");
    let strange: Vec<_> = of_fleet.deviations.iter().filter(|one| one.kind.name() != "new_instance").collect();
    assert!(strange.is_empty(), "{provider} {blows:?}: {strange:#?}");
    // Adopted twice is adopted once.
    let mut engine = rig.engine();
    adopt(&rig, &mut engine).await.unwrap();
    assert_eq!(rig.journal.heads().await.unwrap().readable.len(), 1);
    rig.rotate(&mut engine).await.unwrap();
    let refused = take_stock(engine.tools(), &rig.fleets()).await.unwrap_err();
    assert!(matches!(refused, AdoptError::Journals), "{refused}");
    let mut problems = rig.fuse.broken();
    problems.extend(rig.unkept().await);
    assert!(problems.is_empty(), "{provider} {blows:?}\n{}\n{problems:#?}", rig.story().await);
    (before, calls)
}

/// Cut off in the midst of its second rotation, with machines on two pairs of ours: both are adopted.
async fn comes_back_from_the_midst(provider: ProviderKind) {
    let calls = Rig::new(scenario(provider), pool(), None).run().await.calls;
    let mut two = 0;
    let bound: Vec<usize> = (0..calls.len()).filter(|call| calls[*call].contains("journal bound")).collect();
    for call in bound {
        let mut rig = Rig::new(scenario(provider), pool(), [(call, Side::After)]);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        tokio::select! {
            biased;
            _ = async { while rig.rotate(&mut engine).await.is_ok() {} } => panic!("{provider}: not cut off"),
            () = fuse.blown() => {}
        }
        drop(engine);
        // Whoever the dead engine owed a start is the operator's to start: that was in the journals only.
        let off = rig.switched_off();
        for id in off {
            rig.world.lock().unwrap().set_power(0, &id, rekeyd::sim::Power::Running);
        }
        rig.journal = Default::default();
        let mut engine = rig.engine();
        adopt(&rig, &mut engine).await.unwrap_or_else(|problem| panic!("{provider} at {call}: {problem}"));
        let adopted = rig.journal.heads().await.unwrap().readable.len();
        // A pair of ours that nobody hangs on any more is the operator's to delete, as the verb says.
        let inventory = take_stock(engine.tools(), &rig.fleets()).await.unwrap();
        for name in &inventory.pairs {
            let mut world = rig.world.lock().unwrap();
            let pair = world.cloud(0).key_pairs().iter().find(|pair| pair.name == name.as_str());
            let id = pair.unwrap().id.clone();
            assert!(world.machines().all(|(_, machine)| !machine.record_keys.contains(&id)), "{name}");
            world.remove_key_pair(0, &id);
        }
        two += usize::from(adopted == 2);
        rig.rotate(&mut engine).await.unwrap_or_else(|problem| panic!("{provider} at {call}: {problem}"));
        let mut problems = rig.fuse.broken();
        problems.extend(rig.unkept().await);
        assert!(problems.is_empty(), "{provider} at {call}\n{}\n{problems:#?}", rig.story().await);
    }
    assert!(two > 0, "{provider}: never two pairs");
}

macro_rules! on_each_cloud {
    ($($lost:ident $midst:ident $provider:ident;)*) => {$(
        #[tokio::test]
        async fn $lost() {
            comes_back(ProviderKind::$provider).await;
        }
        #[tokio::test]
        async fn $midst() {
            comes_back_from_the_midst(ProviderKind::$provider).await;
        }
    )*};
}

on_each_cloud! {
    a_lost_database_comes_back_on_lighthouse one_lost_in_the_midst_of_a_rotation_comes_back_on_lighthouse TencentLighthouse;
    a_lost_database_comes_back_on_cvm one_lost_in_the_midst_of_a_rotation_comes_back_on_cvm TencentCvm;
    a_lost_database_comes_back_on_ecs one_lost_in_the_midst_of_a_rotation_comes_back_on_ecs AlibabaEcs;
    a_lost_database_comes_back_on_bcc one_lost_in_the_midst_of_a_rotation_comes_back_on_bcc BaiduBcc;
}
