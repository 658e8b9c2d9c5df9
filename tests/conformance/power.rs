//! Stops, starts and reboots: what is accepted, what is in the wrong state, and that a stop never gives the machine's
//! address or place away.

use std::sync::Arc;

use rekeyd::model::InstanceId;
use rekeyd::provider::{Blame, Kind, Power as Shown, PowerChange};
use rekeyd::sim::{Power, Rule};

use crate::rig::Rig;

const STOP: PowerChange = PowerChange::Stop { force: false };
const EACH: [PowerChange; 4] = [STOP, PowerChange::Stop { force: true }, PowerChange::Start, PowerChange::Reboot];

/// The power that each change asks for, and the one that it ends in.
fn ends(change: PowerChange) -> (Power, Power) {
    match change {
        PowerChange::Stop { .. } => (Power::Running, Power::Stopped),
        PowerChange::Start => (Power::Stopped, Power::Running),
        PowerChange::Reboot => (Power::Running, Power::Running),
    }
}

pub async fn each_change_of_power_is_accepted_and_comes_to_its_end(rig: Arc<Rig>) {
    for change in EACH {
        let (from, to) = ends(change);
        let machines: Vec<InstanceId> = (0..3).map(|_| rig.machine_of(from, &[])).collect();
        let bystander = rig.machine_of(from, &[]);
        let accepted = rig.provider.power(change, &machines, rig.before()).await.unwrap();
        assert_eq!(accepted.refused, []);
        rig.settle();
        let shown = if to == Power::Running { Shown::Running } else { Shown::Stopped };
        for id in &machines {
            let (seen, truth) = (rig.look(id).await, rig.truth(id));
            assert_eq!((seen.power, truth.boots), (shown, u32::from(to == Power::Running)), "{change:?}");
            assert!(!truth.no_charge, "{change:?}: billing goes on, the address and the place are kept");
            if rig.is_tencent() {
                let operation = seen.operation.unwrap();
                assert_eq!((operation.request_id, operation.running), (accepted.request_id.clone(), false));
                assert!(accepted.request_id.is_some());
            }
        }
        let still = rig.truth(&bystander);
        assert_eq!((still.power, still.boots), (from, 0), "{change:?}");
    }
}

pub async fn a_machine_in_the_wrong_power_is_to_blame_and_stays_as_it_is(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    for change in EACH {
        let wrong = match change {
            PowerChange::Start => Power::Running,
            PowerChange::Stop { .. } | PowerChange::Reboot => Power::Stopped,
        };
        let id = rig.machine_of(wrong, &[]);
        let error = rig.verdict_on(&id, rig.provider.power(change, std::slice::from_ref(&id), rig.before()).await);
        assert!(matches!(error.kind, Kind::Already | Kind::InvalidState), "{change:?}: {error:?}");
        // "Already" means that the goal is reached: a stopped machine has not been rebooted.
        assert!(error.kind != Kind::Already || change != PowerChange::Reboot, "{error:?}");
        assert_eq!(error.blame, Blame::Instance, "{change:?}: {error:?}");
        rig.settle();
        assert_eq!((rig.truth(&id).power, rig.truth(&id).boots), (wrong, 0), "{change:?}");
    }
}

pub async fn one_in_the_wrong_power_stops_all_of_its_batch_or_none_but_itself(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    for change in EACH {
        let (from, to) = ends(change);
        let wrong = if from == Power::Running { Power::Stopped } else { Power::Running };
        let culprit = rig.machine_of(wrong, &[]);
        let good: Vec<InstanceId> = (0..3).map(|_| rig.machine_of(from, &[])).collect();
        let batch = [good.clone(), vec![culprit.clone()]].concat();
        let result = rig.provider.power(change, &batch, rig.before()).await;
        let whole = result.is_err();
        let error = rig.verdict_on(&culprit, result);
        assert_eq!(error.blame, Blame::Instance, "{change:?}: {error:?}");
        rig.settle();
        for id in &good {
            let truth = rig.truth(id);
            let changed = (to, u32::from(to == Power::Running));
            assert_eq!((truth.power, truth.boots), if whole { (from, 0) } else { changed }, "{change:?}");
        }
    }
}

pub async fn a_machine_isolated_for_money_is_not_started(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let id = rig.machine_of(Power::Isolated, &[]);
    let result = rig.provider.power(PowerChange::Start, std::slice::from_ref(&id), rig.before()).await;
    let error = rig.verdict_on(&id, result);
    assert!(matches!(error.kind, Kind::Unsupported | Kind::InvalidState), "{error:?}");
    assert_eq!(error.blame, Blame::Instance, "{error:?}");
}

pub async fn a_machine_under_operation_is_busy(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let id = rig.machine_of(Power::Running, &[]);
    rig.provider.power(PowerChange::Reboot, std::slice::from_ref(&id), rig.before()).await.unwrap();
    let error = rig.verdict_on(&id, rig.provider.power(STOP, std::slice::from_ref(&id), rig.before()).await);
    assert!(matches!(error.kind, Kind::Busy | Kind::InvalidState), "{error:?}");
    assert_eq!(error.blame, Blame::Instance, "{error:?}");
    rig.settle();
    assert_eq!((rig.truth(&id).power, rig.truth(&id).boots), (Power::Running, 1));
}

pub async fn a_machine_that_is_gone_is_not_found(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    rig.with(|world| world.remove_instance(0, id.as_str()));
    for change in EACH {
        let error = rig.verdict_on(&id, rig.provider.power(change, std::slice::from_ref(&id), rig.before()).await);
        assert_eq!((error.kind, error.blame), (Kind::NotFound, Blame::Instance), "{change:?}: {error:?}");
    }
}

pub async fn a_batch_of_power_max_is_taken_and_one_more_is_refused(rig: Arc<Rig>) {
    rig.expects(Rule::Limit);
    let most = rig.provider.limits().power_max;
    let machines: Vec<InstanceId> = (0..=most).map(|_| rig.machine_of(Power::Running, &[])).collect();
    let error = rig.not_done(rig.provider.power(STOP, &machines, rig.before()).await);
    assert_eq!((error.kind, error.blame), (Kind::Invalid, Blame::Request), "{error:?}");
    rig.settle();
    assert!(machines.iter().all(|id| rig.truth(id).power == Power::Running));
    assert_eq!(rig.provider.power(STOP, &machines[..most], rig.before()).await.unwrap().refused, []);
    rig.settle();
    assert!(machines[..most].iter().all(|id| rig.truth(id).power == Power::Stopped));
}
