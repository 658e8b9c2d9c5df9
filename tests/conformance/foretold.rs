//! What can be found out before anything is done: hazards, calls that would be refused, dry runs, quotas. Where a cloud has
//! no such question the answer is empty, and never an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use rekeyd::model::{Hazard, InstanceId, ProviderKind};
use rekeyd::provider::{Effect, Kind, PowerChange, Select};
use rekeyd::sim::{InstanceSpec, Power, Rule};

use crate::rig::{Rig, sorted};

const STOP: PowerChange = PowerChange::Stop { force: false };

pub async fn what_a_stop_could_hurt_is_shown_where_the_cloud_sells_it(rig: Arc<Rig>) {
    let add = |spot, local_disk| rig.add(InstanceSpec { spot, local_disk, ..InstanceSpec::default() });
    let plain = rig.machine_of(Power::Running, &[]);
    let (spot, local, both) = (add(true, false), add(false, true), add(true, true));
    let unbilled = rig.machine_of(Power::Running, &[]);
    rig.with(|world| world.stop_without_charging(0, unbilled.as_str()));
    let check = async |id: &InstanceId, expect: &[Hazard]| {
        // Lighthouse sells none of these, and shows none.
        let expect = if rig.kind == ProviderKind::TencentLighthouse { &[] } else { expect };
        assert_eq!(rig.look(id).await.hazards, expect.iter().copied().collect::<BTreeSet<_>>(), "{id}");
    };
    check(&plain, &[]).await;
    check(&spot, &[Hazard::Spot]).await;
    check(&local, &[Hazard::LocalDisk]).await;
    check(&both, &[Hazard::Spot, Hazard::LocalDisk]).await;
    check(&unbilled, &[Hazard::StopCharging]).await;
    // Started, it is one like any other.
    rig.with(|world| world.set_power(0, unbilled.as_str(), Power::Running));
    check(&unbilled, &[]).await;
}

pub async fn whom_the_cloud_would_refuse_is_told_where_it_can_be_asked(rig: Arc<Rig>) {
    // More than one question's worth, and each of the two powers.
    let mut ids: Vec<InstanceId> = (0..120).map(|_| rig.machine_of(Power::Running, &[])).collect();
    ids.extend(rig.stopped(5));
    let refuse = |id: &InstanceId, action: &str, code: &str| rig.with(|world| world.refuse(0, id.as_str(), action, code));
    refuse(&ids[3], "AssociateInstancesKeyPairs", "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation");
    refuse(&ids[118], "StartInstances", "UnsupportedOperation.InstanceExpired");
    // Nobody needs it: a rotation does not unbind.
    refuse(&ids[7], "DisassociateInstancesKeyPairs", "UnsupportedOperation.InstanceExpired");
    let denied = rig.provider.denied(&ids).await.unwrap();
    let whom = sorted(denied.iter().map(|(id, _)| id.clone()));
    let expect = if rig.kind == ProviderKind::TencentLighthouse {
        sorted([ids[3].clone(), ids[118].clone()])
    } else {
        Vec::new()
    };
    assert_eq!(whom, expect);
    for (id, error) in denied {
        assert_eq!((error.kind, error.effect), (Kind::Unsupported, Effect::NotDone), "{error:?}");
        assert_eq!(error.action == "StartInstances", id == ids[118]);
        assert!(!error.message.is_empty() && error.code.starts_with("UnsupportedOperation."), "{error:?}");
    }
}

pub async fn a_state_that_passes_is_no_refusal(rig: Arc<Rig>) {
    let (running, stopped, busy) =
        (rig.machine_of(Power::Running, &[]), rig.machine_of(Power::Stopped, &[]), rig.machine_of(Power::Running, &[]));
    rig.provider.power(STOP, std::slice::from_ref(&busy), rig.before()).await.unwrap();
    rig.wait(100);
    assert_eq!(rig.provider.denied(&[running, stopped, busy]).await, Ok(Vec::new()));
    assert_eq!(rig.provider.denied(&[]).await, Ok(Vec::new()));
}

pub async fn a_dry_run_disturbs_nobody_and_says_what_the_call_would_meet(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let (running, stopped) = (rig.machine_of(Power::Running, &[]), rig.machine_of(Power::Stopped, &[]));
    let has_one = rig.kind == ProviderKind::AlibabaEcs;
    let name = |name| has_one.then_some(name);
    let rehearse = async |change, id: &InstanceId| rig.provider.rehearse(change, std::slice::from_ref(id)).await;
    assert_eq!(rehearse(PowerChange::Reboot, &running).await, Ok(name("RebootInstances")));
    assert_eq!(rehearse(STOP, &running).await, Ok(name("StopInstances")));
    assert_eq!(rehearse(PowerChange::Start, &stopped).await, Ok(name("StartInstances")));
    let wrong = rehearse(PowerChange::Start, &running).await;
    if has_one {
        assert_eq!(rig.not_done(wrong).kind, Kind::InvalidState);
    } else {
        assert_eq!(wrong, Ok(None));
    }
    rig.settle();
    for (id, power) in [(running, Power::Running), (stopped, Power::Stopped)] {
        let truth = rig.truth(&id);
        assert_eq!((truth.power, truth.boots, truth.stops + truth.starts + truth.reboots), (power, 0, 0));
    }
}

pub async fn a_dry_run_of_a_denied_call_is_denied(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    rig.with(|world| world.cloud_mut(0).denied = ["RebootInstances".to_string()].into());
    let tried = rig.provider.rehearse(PowerChange::Reboot, std::slice::from_ref(&id)).await;
    if rig.kind == ProviderKind::AlibabaEcs {
        let error = rig.not_done(tried);
        assert_eq!((error.kind, error.action.as_str()), (Kind::Denied, "RebootInstances"));
    } else {
        assert_eq!(tried, Ok(None));
    }
}

pub async fn a_question_that_is_closed_to_the_account_is_denied_and_others_stay_open(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    let closed = ["DescribeInstancesDeniedActions", "DescribeGeneralResourceQuotas"].map(str::to_string);
    rig.with(|world| world.cloud_mut(0).denied = closed.into());
    let (denied, max) = (rig.provider.denied(std::slice::from_ref(&id)).await, rig.provider.key_pairs_max().await);
    if rig.kind == ProviderKind::TencentLighthouse {
        assert_eq!((rig.not_done(denied).kind, rig.not_done(max).kind), (Kind::Denied, Kind::Denied));
    } else {
        assert_eq!((denied, max), (Ok(Vec::new()), Ok(None)));
    }
    assert_eq!(rig.ids(&Select::All).await, [id]);
}

pub async fn how_many_pairs_there_may_be_is_told_where_it_can_be_asked(rig: Arc<Rig>) {
    for max in [10, 17] {
        rig.with(|world| world.cloud_mut(0).key_pairs_max = max);
        let expect = (rig.kind == ProviderKind::TencentLighthouse).then_some(max);
        assert_eq!(rig.provider.key_pairs_max().await, Ok(expect));
        rig.pair("rksim_one_more");
    }
}
