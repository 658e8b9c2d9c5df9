//! A compromised key is replaced beside a daemon, asked for and killed at any call of an ordinary rotation and of what
//! follows it: that rotation is given up, nobody is locked out, nothing waits for soak or grace, and every machine is
//! proven to refuse the old key.

use rekeyd::clock::Clock;
use rekeyd::model::{Duration, ProviderKind, Timestamp};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Event, OldKey, Outcome, Part, Plan, Rotation, Verify};
use rekeyd::store::Journal;

use crate::daemon::{Daemon, Deed};
use crate::fuse::Side;
use crate::rig::Scenario;

/// Nobody is off, so that every retire journal can end.
fn scenario(provider: ProviderKind) -> Scenario {
    Scenario { by_login: true, refused: false, stopped: 0, ..Scenario::of(provider) }
}

/// One rotation, and then an ordinary one asked for, up to here; answers the number of calls until that was asked.
async fn second_asked(daemon: &mut Daemon) -> usize {
    daemon.hand(Deed::Rotate).await;
    daemon.complete(1).await;
    let calls = daemon.rig.fuse.calls().len();
    daemon.hand(Deed::Rotate).await;
    calls
}

/// Asked for at this call of what comes then, perhaps killed there too. Says whether a rotation was given up for it, and
/// whether a retire journal lost its grace.
async fn at_call(provider: ProviderKind, first: usize, call: usize, is_killed: bool) -> (bool, bool) {
    let blows = is_killed.then_some((first + call, Side::After));
    let mut daemon = Daemon::new(scenario(provider), false, blows);
    second_asked(&mut daemon).await;
    daemon.rig.fuse.lend(first + call, daemon.hand(Deed::Compromised));
    while daemon.rig.fuse.hands_left() > 0 && daemon.problems.is_empty() {
        daemon.step(Timestamp::MAX).await;
    }
    let asked = daemon.rig.clock.now();
    daemon.complete(2).await;
    let mut unkept = daemon.unkept().await;
    let rotations = daemon.rotations(&daemon.rig.fleet().name).await;
    let newest = rotations.last().unwrap();
    let Plan::Rotate(plan) = &newest.plan else { panic!("{newest:?}") };
    let warns = matches!(&plan.policy.verify, Verify::Ssh(login) if login.old_key == OldKey::Warn);
    if !plan.compromised || !warns || !plan.policy.soak.is_zero() || !plan.policy.grace.is_zero() {
        unkept.push(format!("the newest rotation is no urgent one: {plan:?}"));
    }
    let (instances, entries) =
        (daemon.rig.journal.instances(newest.id).await.unwrap(), daemon.rig.journal.read(newest.id, 0).await.unwrap());
    let canary = instances.iter().filter(|one| one.part == Part::Batch(0)).count();
    if canary != 1 {
        unkept.push(format!("{canary} machines in the canary"));
    }
    let exposure = Rotation::fold(newest.id, plan.clone(), &instances, &entries).unwrap().exposure(&instances);
    if exposure.hosts != 4 || exposure.refused != 4 || exposure.until[2].is_none() {
        unkept.push(format!("{exposure:?}"));
    }
    let mut waived = false;
    for head in daemon.rig.journal.heads().await.unwrap().readable {
        let Plan::Retire(plan) = &head.plan else { continue };
        let Some((ended, outcome)) = head.ended.filter(|(ended, _)| *ended > newest.begun) else { continue };
        let entries = daemon.rig.journal.read(head.id, 0).await.unwrap();
        let is_waived = entries.iter().any(|entry| entry.event == Event::GraceWaived { rotation: newest.id });
        waived |= is_waived;
        // Grace that was over anyway needs no waiver.
        let deleted = entries.iter().find(|entry| entry.event == Event::KeyPairDeleted).map(|entry| entry.at);
        let waits = deleted.is_none_or(|deleted| later(deleted, plan.grace) > newest.begun)
            && (!plan.soak.is_zero() || !plan.grace.is_zero());
        if outcome != Outcome::Retired || (waits && !is_waived) {
            unkept.push(format!("{} is {outcome}, waited out its grace: {}", head.id, waits && !is_waived));
        }
        let last = newest.ended.map(|(at, _)| at).unwrap_or(asked);
        if later(last, Duration::from_secs(100)) < ended {
            unkept.push(format!("{} ended at {ended}, the rotation at {last}", head.id));
        }
    }
    assert!(
        unkept.is_empty(),
        "{provider} at call {call} from {first} on, killed {is_killed}\n{}\n{unkept:#?}",
        daemon.story().await
    );
    (rotations.iter().any(|head| matches!(head.ended, Some((_, Outcome::Abandoned)))), waived)
}

async fn sweep(provider: ProviderKind, from: usize) {
    let mut daemon = Daemon::new(scenario(provider), false, None);
    let first = second_asked(&mut daemon).await;
    daemon.complete(2).await;
    let calls = daemon.rig.fuse.calls().len() - first;
    let (mut given_up, mut waived) = (0, 0);
    for (number, call) in (from..calls.saturating_sub(5)).step_by(5).enumerate() {
        let (abandoned, lost_grace) = at_call(provider, first, call, number % 2 == 1).await;
        given_up += usize::from(abandoned);
        waived += usize::from(lost_grace);
    }
    assert!(given_up > 4 && waived > 1, "{given_up} given up, {waived} graces waived, of {calls} calls");
}

#[tokio::test]
async fn a_compromised_key_is_replaced_at_once_whatever_is_open_on_lighthouse() {
    sweep(ProviderKind::TencentLighthouse, 0).await;
}

#[tokio::test]
async fn a_compromised_key_is_replaced_at_once_whatever_is_open_on_cvm() {
    sweep(ProviderKind::TencentCvm, 1).await;
}

#[tokio::test]
async fn a_compromised_key_is_replaced_at_once_whatever_is_open_on_ecs() {
    sweep(ProviderKind::AlibabaEcs, 2).await;
}

#[tokio::test]
async fn a_compromised_key_is_replaced_at_once_whatever_is_open_on_bcc() {
    sweep(ProviderKind::BaiduBcc, 3).await;
}
