//! Who is late: machines that were off through a rotation, and such as came after it. A catch-up is killed before and after
//! every call of it; nobody is locked out, everybody ends on the fleet's key, and no half that somebody needs is destroyed.

use rekeyd::clock::Clock;
use rekeyd::custody::Custodian;
use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{Aim, PlanError, begin, propose_for};
use rekeyd::model::{Duration, ProviderKind};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Outcome, Purpose};
use rekeyd::sim::Power;

use crate::back::{add_machine, purpose, rotations};
use crate::fuse::Side;
use crate::pool;
use crate::rig::{Rig, Scenario};

/// What `rekeyd catch-up` does, as often as it is called: goes on with what is open, else begins one while there is anybody.
async fn catch_up(rig: &Rig, engine: &mut Engine) -> Result<(), String> {
    loop {
        let id = match rig.open_rotation().await {
            Some(open) => open,
            None => match propose_for(engine.tools(), &rig.fleet(), &[], Aim::CatchUp { new: true }).await {
                Ok(proposal) => begin(engine.tools(), &proposal).await.map_err(|error| error.to_string())?.id,
                Err(PlanError::Nobody { .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            },
        };
        match engine.drive(id).await.map_err(|error| error.to_string())? {
            Reached::Ended(Outcome::Completed) => {}
            other => return Err(format!("the catch-up reached {other:?}")),
        }
    }
}

/// A fleet that has rotated, in which one machine, named too, was off meanwhile and runs again, and two are new.
async fn rotated(scenario: &Scenario, blows: Option<(usize, Side)>) -> (Rig, String) {
    let mut rig = Rig::new(scenario.clone(), pool(), blows);
    let mut engine = rig.engine();
    rig.rotate(&mut engine).await.unwrap();
    let started = {
        let mut world = rig.world.lock().unwrap();
        let off = world.machines().map(|(_, machine)| machine).find(|machine| machine.power == Power::Stopped);
        let off = off.unwrap().id.clone();
        world.set_power(0, &off, Power::Running);
        off
    };
    add_machine(&rig, Some("theirs"));
    add_machine(&rig, None);
    // Boots take a while; until a login succeeds nobody is caught up with.
    let waited = later(rig.clock.now(), Duration::from_secs(300));
    rig.clock.advance_to(waited);
    (rig, started)
}

async fn killed(scenario: &Scenario, blows: Option<(usize, Side)>) -> Vec<String> {
    let (mut rig, started) = rotated(scenario, blows).await;
    let mut problems = Vec::new();
    for start in 0.. {
        assert!(start < 20, "{}", rig.story().await);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        let work = async {
            catch_up(&rig, &mut engine).await?;
            rig.retire(&mut engine).await.map_err(|error| error.to_string())
        };
        tokio::select! {
            biased;
            done = work => {
                problems.extend(done.err());
                break;
            }
            () = fuse.blown() => {}
        }
        let away = later(rig.clock.now(), Duration::from_secs(7));
        rig.clock.advance_to(away);
    }
    problems.extend(rig.fuse.broken());
    problems.extend(rig.unkept().await);
    problems.extend(rig.switched_off());
    // By us, before the catch-up.
    problems.retain(|problem| *problem != format!("{started} was stopped and is running"));
    let made = rotations(&rig).await;
    let rotated = made.iter().filter(|head| purpose(head) == Purpose::Rotate).count();
    if rotated != 1 || !made[1..].iter().all(|head| head.plan.key_name() == made[0].plan.key_name()) {
        problems.push(format!("{rotated} new keys"));
    }
    let tools = rig.tools_to_look();
    let late = rekeyd::engine::late::late(&tools, &rig.fleet(), &[]).await.unwrap();
    if !late.new.is_empty() || (scenario.by_login && !late.waiting.is_empty()) {
        problems.push(format!("late still: {:?} {:?}", late.new, late.waiting));
    }
    assert!(problems.is_empty(), "{} {blows:?}\n{}\n{problems:#?}", scenario.provider, rig.story().await);
    rig.fuse.calls()
}

/// Every call that the catch-up makes.
async fn sweep(provider: ProviderKind) {
    for by_login in [false, true] {
        let scenario = Scenario { refused: false, rounds: 1, by_login, ..Scenario::of(provider) };
        let first = rotated(&scenario, None).await.0.fuse.calls().len();
        let calls = killed(&scenario, None).await.len();
        for number in first..calls {
            for side in [Side::Before, Side::After] {
                killed(&scenario, Some((number, side))).await;
            }
        }
        assert!(calls > first + 20, "{first} {calls}");
    }
}

macro_rules! on_each_cloud {
    ($($name:ident $provider:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            sweep(ProviderKind::$provider).await;
        }
    )*};
}

on_each_cloud! {
    a_catch_up_killed_at_any_call_leaves_nobody_behind_on_lighthouse TencentLighthouse;
    a_catch_up_killed_at_any_call_leaves_nobody_behind_on_cvm TencentCvm;
    a_catch_up_killed_at_any_call_leaves_nobody_behind_on_ecs AlibabaEcs;
    a_catch_up_killed_at_any_call_leaves_nobody_behind_on_bcc BaiduBcc;
}

/// A machine that is switched off through a whole rotation needs the older private half until it was started and a login
/// proved that it accepts the newer one; only then the half is destroyed.
async fn straggler(provider: ProviderKind) {
    let scenario = Scenario { by_login: true, refused: false, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let mut engine = rig.engine();
    let off = {
        let world = rig.world.lock().unwrap();
        let off = world.machines().map(|(_, machine)| machine).find(|machine| machine.power == Power::Stopped);
        off.unwrap().id.clone()
    };
    // Started for the first rotation, so that it really takes the first key.
    rig.world.lock().unwrap().set_power(0, &off, Power::Running);
    rig.rotate(&mut engine).await.unwrap();
    rig.world.lock().unwrap().set_power(0, &off, Power::Stopped);
    rig.rotate(&mut engine).await.unwrap();
    let first = rotations(&rig).await[0].plan.key_name().clone();
    let kept = |rig: &Rig| rig.custody.clone();
    assert!(kept(&rig).get(&first).await.is_ok(), "it may need it");
    // Looked at while it is off: nothing to be done. Long after: neither.
    for _ in 0..2 {
        let nobody = propose_for(engine.tools(), &rig.fleet(), &[], Aim::CatchUp { new: true }).await;
        assert!(matches!(nobody, Err(PlanError::Nobody { .. })), "{:?}", nobody.map(|proposal| proposal.plan));
        let later = later(rig.clock.now(), Duration::from_secs(86_400));
        rig.clock.advance_to(later);
        rig.retire(&mut engine).await.unwrap();
        assert!(kept(&rig).get(&first).await.is_ok(), "it may need it still");
    }
    rig.world.lock().unwrap().set_power(0, &off, Power::Running);
    let boots = |rig: &Rig| {
        let world = rig.world.lock().unwrap();
        let machines = world.machines().map(|(_, machine)| machine);
        machines.map(|machine| machine.stops + machine.reboots).sum::<u32>()
    };
    // Its boot takes a while; until a login succeeds nothing begins.
    let waited = later(rig.clock.now(), Duration::from_secs(300));
    rig.clock.advance_to(waited);
    let before = boots(&rig);
    let proposal = propose_for(engine.tools(), &rig.fleet(), &[], Aim::CatchUp { new: false }).await.unwrap();
    assert_eq!((proposal.plan.purpose(), proposal.instances.len()), (Purpose::CatchUp, 1));
    let id = begin(engine.tools(), &proposal).await.unwrap().id;
    assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed));
    assert_eq!(boots(&rig), before, "nobody was disturbed");
    let rotation = engine.rotation(id).unwrap();
    assert!(rotation.members().all(|(_, member)| member.proof.is_some()), "{}", rig.story().await);
    rig.retire(&mut engine).await.unwrap();
    assert!(kept(&rig).get(&first).await.is_err(), "nobody needs it any more\n{}", rig.story().await);
    assert!(rig.fuse.broken().is_empty(), "{:?}", rig.fuse.broken());
    // All is well now: nothing is left to catch up with.
    let nobody = propose_for(engine.tools(), &rig.fleet(), &[], Aim::CatchUp { new: true }).await;
    assert!(matches!(nobody, Err(PlanError::Nobody { .. })));
}

/// A machine that came after the rotation gets the fleet's key by a rotation without a new key, and is left alone before.
async fn newcomer(provider: ProviderKind) {
    let scenario = Scenario { refused: false, rounds: 1, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let mut engine = rig.engine();
    rig.rotate(&mut engine).await.unwrap();
    let new = add_machine(&rig, None);
    let fleet = rig.fleet();
    let late = rekeyd::engine::late::late(engine.tools(), &fleet, &[]).await.unwrap();
    assert_eq!(late.new.iter().map(|id| id.as_str()).collect::<Vec<_>>(), [new.as_str()]);
    let nobody = propose_for(engine.tools(), &fleet, &[], Aim::CatchUp { new: false }).await;
    assert!(matches!(nobody, Err(PlanError::Nobody { .. })), "only where it is allowed");
    let proposal = propose_for(engine.tools(), &fleet, &[], Aim::CatchUp { new: true }).await.unwrap();
    let id = begin(engine.tools(), &proposal).await.unwrap().id;
    assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed), "{}", rig.story().await);
    rig.retire(&mut engine).await.unwrap();
    let mut problems = rig.fuse.broken();
    problems.extend(rig.unkept().await);
    assert!(problems.is_empty(), "{}\n{problems:#?}", rig.story().await);
    let late = rekeyd::engine::late::late(engine.tools(), &fleet, &[]).await.unwrap();
    assert!(late.new.is_empty(), "{:?}", late.new);
}

#[tokio::test]
async fn an_older_private_half_lives_until_the_last_machine_that_was_off_is_proven_on_the_newer_one() {
    straggler(ProviderKind::TencentLighthouse).await;
    straggler(ProviderKind::TencentCvm).await;
    straggler(ProviderKind::AlibabaEcs).await;
    straggler(ProviderKind::BaiduBcc).await;
}

#[tokio::test]
async fn a_machine_that_came_later_is_bound_to_the_fleets_key_without_a_new_one() {
    newcomer(ProviderKind::TencentLighthouse).await;
    newcomer(ProviderKind::TencentCvm).await;
    newcomer(ProviderKind::AlibabaEcs).await;
    newcomer(ProviderKind::BaiduBcc).await;
}
