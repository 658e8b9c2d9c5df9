//! The way back: a rotation is rolled back, and everything is killed before and after every call of that. Nobody is
//! locked out, everybody is on what it had before, and of the pair that was left nothing stays.

use rekeyd::clock::Clock;
use rekeyd::engine::Engine;
use rekeyd::engine::drive::Reached;
use rekeyd::engine::planner::{Aim, Fleet, PlanError, begin, propose_for};
use rekeyd::model::{Duration, FleetName, JournalId, ProviderKind};
use rekeyd::provider::Select;
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Event, Outcome, Plan, Purpose};
use rekeyd::sim::{InstanceSpec, Machine, Os};
use rekeyd::store::{Head, Journal};

use crate::fuse::Side;
use crate::pool;
use crate::rig::{Report, Rig, Scenario};

/// How far the superseded pair's retire journal is when its rotation is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retired {
    /// It has not begun.
    No,
    /// It waits out soak.
    Begun,
    /// The pair is deleted.
    Over,
}

pub async fn rotations(rig: &Rig) -> Vec<Head> {
    let heads = rig.journal.heads().await.unwrap().readable;
    heads.into_iter().filter(|head| matches!(head.plan, Plan::Rotate(_))).collect()
}

pub fn purpose(head: &Head) -> Purpose {
    match &head.plan {
        Plan::Rotate(plan) => plan.purpose(),
        Plan::Retire(_) => panic!("{} is no rotation", head.id),
    }
}

/// What `rekeyd rollback` does, as often as it is called: goes on with what is open, and begins what is left.
async fn go_back(rig: &Rig, engine: &mut Engine, undone: JournalId) -> Result<(), String> {
    loop {
        let open = rotations(rig).await.into_iter().find(|head| head.ended.is_none());
        let id = match open {
            Some(head) => head.id,
            None => match propose_for(engine.tools(), &rig.fleet(), &[], Aim::Back(undone)).await {
                Ok(proposal) => begin(engine.tools(), &proposal).await.map_err(|error| error.to_string())?.id,
                Err(PlanError::Nobody { .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            },
        };
        match engine.drive(id).await.map_err(|error| error.to_string())? {
            Reached::Ended(Outcome::Completed) => {}
            other => return Err(format!("the way back reached {other:?}")),
        }
    }
}

/// Rotates as often as the scenario says, and rolls the last one back; started again whenever the fuse blows.
async fn there_and_back(rig: &mut Rig, retired: Retired) -> Report {
    let mut problems = Vec::new();
    let fleet = FleetName::new("web");
    'starts: for start in 0.. {
        assert!(start < 20, "{}", rig.story().await);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        let work = async {
            loop {
                let made: Vec<Head> =
                    rotations(rig).await.into_iter().filter(|head| purpose(head) == Purpose::Rotate).collect();
                let open = made.iter().any(|head| head.ended.is_none());
                if made.len() >= rig.scenario.rounds && !open {
                    break;
                }
                rig.rotate_only(&mut engine).await?;
                let last = rotations(rig).await.len() >= rig.scenario.rounds;
                match retired {
                    _ if !last => rig.retire(&mut engine).await,
                    Retired::No => Ok(()),
                    Retired::Begun => engine.drive_retirements(&fleet, Duration::ZERO).await.map(|_| ()),
                    Retired::Over => rig.retire(&mut engine).await,
                }
                .map_err(|error| error.to_string())?;
            }
            let undone = rotations(rig).await[rig.scenario.rounds - 1].id;
            go_back(rig, &mut engine, undone).await?;
            rig.retire(&mut engine).await.map_err(|error| error.to_string())
        };
        tokio::select! {
            biased;
            done = work => {
                if let Err(problem) = done { problems.push(problem); }
                break 'starts;
            }
            () = fuse.blown() => {}
        }
        let away = later(rig.clock.now(), Duration::from_secs(7));
        rig.clock.advance_to(away);
    }
    problems.extend(rig.fuse.broken());
    Report { calls: rig.fuse.calls(), problems }
}

async fn run(scenario: &Scenario, retired: Retired, blows: Option<(usize, Side)>) -> Vec<String> {
    let mut rig = Rig::new(scenario.clone(), pool(), blows);
    let mut report = there_and_back(&mut rig, retired).await;
    if scenario.rounds > 1 {
        report.problems.extend(rig.unkept().await);
    } else {
        report.problems.extend(not_as_it_was(&rig));
    }
    let back = rotations(&rig).await.iter().filter(|head| purpose(head) == Purpose::Rollback).count();
    if back != 1 {
        report.problems.push(format!("{back} rotations on the way back"));
    }
    assert!(
        report.problems.is_empty(),
        "{} {retired:?} {blows:?}\n{}\n{:#?}",
        scenario.provider,
        rig.story().await,
        report.problems
    );
    report.calls
}

/// After the first rotation of a fleet was rolled back: who had a stranger's pair has it again, and accepts it alone.
fn not_as_it_was(rig: &Rig) -> Vec<String> {
    let world = rig.world.lock().unwrap();
    let had_a_pair = |machine: &Machine| !machine.first_record_keys.is_empty() && machine.os != Os::Windows;
    let machines = world.machines().map(|(_, machine)| machine);
    let wrong = machines.filter(|machine| had_a_pair(machine)).filter(|machine| {
        machine.record_keys != machine.first_record_keys || machine.would_accept() != machine.first_accepts
    });
    wrong.map(|machine| format!("{} is not as it was", machine.id)).collect()
}

/// The calls that the rollback itself makes, thinned out where a run is long.
async fn sweep(scenario: Scenario, retired: Retired, every: usize) {
    let calls = run(&scenario, retired, None).await;
    // The way there is swept elsewhere: it is the same up to here.
    let first = {
        let mut rig = Rig::new(scenario.clone(), pool(), None);
        let mut engine = rig.engine();
        for round in 1..=scenario.rounds {
            rig.rotate_only(&mut engine).await.unwrap();
            if round < scenario.rounds {
                rig.retire(&mut engine).await.unwrap();
            }
        }
        rig.fuse.calls().len()
    };
    let mut swept = 0;
    for number in (first..calls.len()).filter(|number| number % every == 0) {
        for side in [Side::Before, Side::After] {
            run(&scenario, retired, Some((number, side))).await;
            swept += 1;
        }
    }
    assert!(swept > 8, "{swept} of {} calls from {first} on", calls.len());
}

/// Killed at any call of the last rotation, given up, and rolled back from there.
async fn given_up_and_back(provider: ProviderKind) {
    let scenario = Scenario { refused: false, ..Scenario::of(provider) };
    let first = {
        let mut rig = Rig::new(scenario.clone(), pool(), None);
        let mut engine = rig.engine();
        rig.rotate(&mut engine).await.unwrap();
        rig.fuse.calls().len()
    };
    let mut back = 0;
    for call in (first..first + 400).step_by(2) {
        let side = if call.is_multiple_of(2) { Side::Before } else { Side::After };
        let mut rig = Rig::new(scenario.clone(), pool(), [(call, side)]);
        let mut engine = rig.engine();
        let fuse = rig.fuse.clone();
        let ended = tokio::select! {
            biased;
            () = async {
                rig.rotate(&mut engine).await.unwrap();
                rig.rotate_only(&mut engine).await.unwrap();
            } => true,
            () = fuse.blown() => false,
        };
        if ended {
            break;
        }
        drop(engine);
        let mut engine = rig.engine();
        let Some(open) = rig.open_rotation().await else { continue };
        rig.operate(Event::AbandonRequested { note: String::new() }).await;
        assert_eq!(engine.drive(open).await.unwrap(), Reached::Ended(Outcome::Abandoned), "call {call}");
        match propose_for(engine.tools(), &rig.fleet(), &[], Aim::Back(open)).await {
            // Nobody was touched yet, or nobody in earnest: all are where they were.
            Err(PlanError::Refused(_) | PlanError::Nobody { .. }) => continue,
            Err(error) => panic!("call {call}: {error}"),
            Ok(_) => back += 1,
        }
        go_back(&rig, &mut engine, open).await.unwrap();
        rig.retire(&mut engine).await.unwrap();
        let mut problems = rig.fuse.broken();
        problems.extend(rig.unkept().await);
        assert!(problems.is_empty(), "{provider} call {call}\n{}\n{problems:#?}", rig.story().await);
        assert_eq!(rig.switched_off(), Vec::<String>::new(), "call {call}");
    }
    assert!(back > 10, "{back} ways back");
}

macro_rules! on_each_cloud {
    ($($back:ident $given_up:ident $strangers:ident $provider:ident;)*) => {$(
        #[tokio::test]
        async fn $back() {
            sweep(Scenario::of(ProviderKind::$provider), Retired::Begun, 3).await;
            for retired in [Retired::No, Retired::Over] {
                sweep(Scenario::of(ProviderKind::$provider), retired, 7).await;
            }
            let by_login = Scenario { by_login: true, ..Scenario::of(ProviderKind::$provider) };
            sweep(by_login, Retired::Begun, 5).await;
        }
        #[tokio::test]
        async fn $given_up() {
            given_up_and_back(ProviderKind::$provider).await;
        }
        #[tokio::test]
        async fn $strangers() {
            let once = Scenario { rounds: 1, ..Scenario::of(ProviderKind::$provider) };
            sweep(once.clone(), Retired::No, 2).await;
            sweep(Scenario { by_login: true, ..once }, Retired::No, 4).await;
        }
    )*};
}

on_each_cloud! {
    a_rollback_killed_at_any_call_brings_everybody_back_on_lighthouse
        a_rotation_given_up_at_any_call_is_rolled_back_on_lighthouse
        a_strangers_key_is_gone_back_to_on_lighthouse TencentLighthouse;
    a_rollback_killed_at_any_call_brings_everybody_back_on_cvm
        a_rotation_given_up_at_any_call_is_rolled_back_on_cvm
        a_strangers_key_is_gone_back_to_on_cvm TencentCvm;
    a_rollback_killed_at_any_call_brings_everybody_back_on_ecs
        a_rotation_given_up_at_any_call_is_rolled_back_on_ecs
        a_strangers_key_is_gone_back_to_on_ecs AlibabaEcs;
    a_rollback_killed_at_any_call_brings_everybody_back_on_bcc
        a_rotation_given_up_at_any_call_is_rolled_back_on_bcc
        a_strangers_key_is_gone_back_to_on_bcc BaiduBcc;
}

/// A further machine of the fleet, on a stranger's pair of its own if it is to have any.
pub fn add_machine(rig: &Rig, strangers: Option<&str>) -> String {
    let mut world = rig.world.lock().unwrap();
    let keys: Vec<String> = strangers.map(|name| world.add_strangers_pair(0, name)).into_iter().collect();
    let tags = vec![(crate::rig::TAG.0.to_string(), crate::rig::TAG.1.to_string())];
    world.add_instance(0, InstanceSpec { tags, keys, ..Default::default() })
}

/// A catch-up is rolled back, and then the rotation before it: what was undone stands in nobody's way.
async fn back_and_further_back(provider: ProviderKind) {
    let scenario = Scenario { refused: false, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let mut engine = rig.engine();
    for _ in 0..2 {
        rig.rotate(&mut engine).await.unwrap();
    }
    let second = rotations(&rig).await[1].id;
    let new = add_machine(&rig, Some("theirs"));
    let proposal = propose_for(engine.tools(), &rig.fleet(), &[], Aim::CatchUp { new: true }).await.unwrap();
    let caught_up = begin(engine.tools(), &proposal).await.unwrap().id;
    assert_eq!(engine.drive(caught_up).await.unwrap(), Reached::Ended(Outcome::Completed));
    let refused = propose_for(engine.tools(), &rig.fleet(), &[], Aim::Back(second)).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("`rekeyd rollback {caught_up}` first")), "{refused}");
    go_back(&rig, &mut engine, caught_up).await.unwrap();
    go_back(&rig, &mut engine, second).await.unwrap();
    rig.retire(&mut engine).await.unwrap();
    assert!(rig.fuse.broken().is_empty(), "{}\n{:?}", rig.story().await, rig.fuse.broken());
    let key = |wanted: &str| {
        let world = rig.world.lock().unwrap();
        let machine = world.machines().map(|(_, machine)| machine).find(|machine| machine.id == wanted).unwrap();
        assert_eq!(machine.record_keys.len(), 1, "{wanted}");
        let (_, pair) = world.key_pairs().find(|(_, pair)| pair.id == machine.record_keys[0]).unwrap();
        pair.name.clone()
    };
    let first = rotations(&rig).await[0].plan.key_name().to_string();
    assert_eq!(key(&new), "theirs");
    let touched: Vec<String> = engine.rotation(second).unwrap().members().map(|(id, _)| id.to_string()).collect();
    assert!(touched.len() > 3, "{touched:?}");
    for id in touched {
        assert_eq!(key(&id), first, "{id}\n{}", rig.story().await);
    }
}

#[tokio::test]
async fn a_catch_up_that_was_rolled_back_stands_in_the_way_of_no_further_rollback() {
    back_and_further_back(ProviderKind::TencentLighthouse).await;
    back_and_further_back(ProviderKind::TencentCvm).await;
    back_and_further_back(ProviderKind::AlibabaEcs).await;
    back_and_further_back(ProviderKind::BaiduBcc).await;
}

/// Two rotations are rolled back one after the other, though the pair between them was deleted, and imported anew for the first
/// way back.
async fn back_twice(provider: ProviderKind) {
    let scenario = Scenario { refused: false, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let mut engine = rig.engine();
    for _ in 0..3 {
        rig.rotate(&mut engine).await.unwrap();
    }
    let made = rotations(&rig).await;
    go_back(&rig, &mut engine, made[2].id).await.unwrap();
    go_back(&rig, &mut engine, made[1].id).await.unwrap();
    assert!(rig.fuse.broken().is_empty(), "{}\n{:?}", rig.story().await, rig.fuse.broken());
    let world = rig.world.lock().unwrap();
    let first = made[0].plan.key_name().as_str();
    let pair = world.key_pairs().find(|(_, pair)| pair.name == first).map(|(_, pair)| pair.id.clone());
    let on_it = |id: &str| {
        let mut machines = world.machines().map(|(_, machine)| machine);
        machines.any(|machine| machine.id == id && machine.record_keys.iter().eq(pair.iter()))
    };
    let touched: Vec<String> = engine.rotation(made[1].id).unwrap().members().map(|(id, _)| id.to_string()).collect();
    assert!(touched.len() > 3 && touched.iter().all(|id| on_it(id)), "{provider} {touched:?}");
}

#[tokio::test]
async fn two_rotations_are_rolled_back_one_after_the_other() {
    back_twice(ProviderKind::TencentLighthouse).await;
    back_twice(ProviderKind::TencentCvm).await;
    back_twice(ProviderKind::AlibabaEcs).await;
    back_twice(ProviderKind::BaiduBcc).await;
}

/// Of a way back to two pairs the machines of one are unfit: the others are brought back all the same, and those are named.
async fn unfit_in_part(provider: ProviderKind) {
    let scenario = Scenario { refused: false, rounds: 1, ..Scenario::of(provider) };
    let mut rig = Rig::new(scenario, pool(), None);
    let other = add_machine(&rig, Some("zz_theirs"));
    let mut engine = rig.engine();
    rig.rotate(&mut engine).await.unwrap();
    let undone = rotations(&rig).await[0].id;
    let select = propose_for(engine.tools(), &rig.fleet(), &[], Aim::Back(undone)).await.unwrap().plan.select;
    // Another fleet matches those that would come first.
    let claims = Fleet { name: FleetName::new("db"), select: select.clone(), ..rig.fleet() };
    let proposal =
        propose_for(engine.tools(), &rig.fleet(), std::slice::from_ref(&claims), Aim::Back(undone)).await.unwrap();
    assert_ne!(proposal.plan.select, select);
    let notes = proposal.notes.join("\n");
    assert!(notes.contains("stays as it is: cannot go back to") && notes.contains("fleet db too"), "{notes}");
    let id = begin(engine.tools(), &proposal).await.unwrap().id;
    assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed));
    let (Select::Ids(claimed), Select::Ids(back)) = (&select, &proposal.plan.select) else {
        panic!("a way back selects by id")
    };
    assert!(claimed.iter().chain(back).any(|id| id.as_str() == other));
    // Claimed as before: named, and nothing more to be done. Fit again: theirs is the next turn.
    let nobody = propose_for(engine.tools(), &rig.fleet(), &[claims], Aim::Back(undone)).await.unwrap_err().to_string();
    assert!(nobody.contains(claimed[0].as_str()) && nobody.contains("fleet db too"), "{nobody}");
    go_back(&rig, &mut engine, undone).await.unwrap();
    let mut problems = rig.fuse.broken();
    problems.extend(not_as_it_was(&rig));
    assert!(problems.is_empty(), "{}\n{problems:#?}", rig.story().await);
}

#[tokio::test]
async fn machines_that_cannot_go_back_now_do_not_keep_those_of_another_pair_from_it() {
    unfit_in_part(ProviderKind::TencentLighthouse).await;
    unfit_in_part(ProviderKind::AlibabaEcs).await;
}

#[tokio::test]
async fn a_rotation_of_machines_that_had_no_pair_is_not_given_up_for_a_rollback() {
    let scenario = Scenario { refused: false, running: 0, stopped: 0, ..Scenario::of(ProviderKind::TencentLighthouse) };
    let mut rig = Rig::new(scenario, pool(), None);
    add_machine(&rig, None);
    let mut engine = rig.engine();
    rig.rotate_only(&mut engine).await.unwrap();
    let head = rotations(&rig).await.remove(0);
    let refused = rekeyd::engine::back::may_roll_back(rig.journal.as_ref(), &head).await.unwrap_err().to_string();
    assert!(refused.contains("had a key pair before"), "{refused}");
}
