//! Binding and unbinding: what is accepted, what it does to a machine, and what one bad machine does to its batch.

use std::sync::Arc;

use rekeyd::model::{InstanceId, KeyPairId};
use rekeyd::provider::{Blame, Disruption, Error, Kind, Power as Shown, PowerChange};
use rekeyd::sim::{InstanceSpec, Machine, Os, Power, Rule};

use crate::rig::{Rig, TAG, tags};

/// The key lines that a pair stands for.
fn lines(rig: &Rig, pair: &KeyPairId) -> Vec<String> {
    rig.with(|world| vec![world.cloud(0).key_pair(pair.as_str()).unwrap().line.clone()])
}

pub async fn a_bind_of_stopped_machines_is_accepted_and_shows_once_it_has_settled(rig: Arc<Rig>) {
    let (old, pair) = (rig.pair("rksim_old"), rig.pair("rksim_new"));
    let machines = vec![rig.machine_of(Power::Stopped, &[&old]), rig.machine_of(Power::Stopped, &[])];
    let bystander = rig.machine_of(Power::Stopped, &[&old]);
    let accepted = rig.provider.bind(&pair, &machines, rig.before()).await.unwrap();
    assert_eq!(accepted.refused, []);
    rig.settle();
    for id in &machines {
        let seen = rig.look(id).await;
        assert_eq!((&seen.keys, seen.power), (&vec![pair.clone()], Shown::Stopped), "{seen:?}");
        assert_eq!(rig.truth(id).would_accept(), lines(&rig, &pair));
        if rig.is_tencent() {
            let request = accepted.request_id.clone().expect("the id that the operation shows");
            let operation = seen.operation.unwrap();
            assert_eq!((operation.request_id, operation.running, operation.failed), (Some(request), false, false));
        }
    }
    assert_eq!(rig.look(&bystander).await.keys, [old]);
}

pub async fn a_bind_of_a_running_machine_disturbs_it_as_the_limits_say(rig: Arc<Rig>) {
    let (old, pair) = (rig.pair("rksim_old"), rig.pair("rksim_new"));
    let id = rig.machine_of(Power::Running, &[&old]);
    let before: Machine = rig.truth(&id);
    let disruption = rig.provider.limits().disruption;
    if disruption == Disruption::NeedsStopped {
        rig.expects(Rule::State);
    }
    let result = rig.provider.bind(&pair, std::slice::from_ref(&id), rig.before()).await;
    rig.settle();
    let after = rig.truth(&id);
    match disruption {
        Disruption::StopsInstance => {
            assert_eq!(result.unwrap().refused, []);
            assert_eq!((after.power, after.would_accept()), (Power::Stopped, lines(&rig, &pair).as_slice()));
        }
        Disruption::NeedsStopped => {
            let error = rig.verdict_on(&id, result);
            assert_eq!((error.kind, error.blame), (Kind::InvalidState, Blame::Instance), "{error:?}");
            assert_eq!((after.power, after.boots, after.record_keys), (Power::Running, 0, before.record_keys));
        }
        Disruption::NeedsReboot => {
            assert_eq!(result.unwrap().refused, []);
            assert_eq!((after.power, after.boots, &after.accepts), (Power::Running, 0, &before.accepts));
            rig.provider.power(PowerChange::Reboot, std::slice::from_ref(&id), rig.before()).await.unwrap();
            rig.settle();
            assert_eq!(rig.truth(&id).accepts, lines(&rig, &pair));
        }
        Disruption::RebootsInstance => {
            assert_eq!(result.unwrap().refused, []);
            assert_eq!((after.power, after.boots, after.accepts), (Power::Running, 1, lines(&rig, &pair)));
        }
    }
    if disruption != Disruption::NeedsStopped {
        assert_eq!(rig.look(&id).await.keys, [pair]);
    }
}

pub async fn a_second_bind_replaces_the_first(rig: Arc<Rig>) {
    let (first, second) = (rig.pair("rksim_first"), rig.pair("rksim_second"));
    let machines = rig.stopped(2);
    for pair in [&first, &second] {
        rig.provider.bind(pair, &machines, rig.before()).await.unwrap();
        rig.settle();
    }
    for id in &machines {
        assert_eq!(rig.look(id).await.keys, std::slice::from_ref(&second));
        assert_eq!(rig.truth(id).would_accept(), lines(&rig, &second));
    }
}

pub async fn a_pair_bound_already_is_accepted_again_or_says_already(rig: Arc<Rig>) {
    let pair = rig.pair("rksim_pair");
    let id = rig.machine_of(Power::Stopped, &[&pair]);
    match rig.provider.bind(&pair, std::slice::from_ref(&id), rig.before()).await {
        Ok(accepted) if accepted.refused.is_empty() => {}
        refused => assert_eq!(rig.verdict_on(&id, refused).kind, Kind::Already),
    }
    rig.settle();
    assert_eq!(rig.look(&id).await.keys, [pair]);
}

pub async fn a_batch_of_bind_max_is_taken_and_one_more_is_refused(rig: Arc<Rig>) {
    rig.expects(Rule::Limit);
    let (pair, other) = (rig.pair("rksim_pair"), rig.pair("rksim_other"));
    let most = rig.provider.limits().bind_max;
    let machines = rig.stopped(most + 1);
    let refused = rig.provider.bind(&pair, &machines, rig.before()).await;
    let error = rig.not_done(refused);
    assert_eq!((error.kind, error.blame), (Kind::Invalid, Blame::Request), "{error:?}");
    rig.settle();
    assert!(machines.iter().all(|id| rig.bound(id).is_empty()));
    let accepted = rig.provider.bind(&other, &machines[..most], rig.before()).await.unwrap();
    assert_eq!(accepted.refused, []);
    rig.settle();
    assert!(machines[..most].iter().all(|id| rig.bound(id) == [other.to_string()]));
    let error = rig.not_done(rig.provider.unbind(&other, &machines, rig.before()).await);
    assert_eq!(error.kind, Kind::Invalid, "{error:?}");
    let accepted = rig.provider.unbind(&other, &machines[..most], rig.before()).await.unwrap();
    assert_eq!(accepted.refused, []);
    rig.settle();
    assert!(machines.iter().all(|id| rig.bound(id).is_empty()));
}

pub async fn a_bind_of_nobody_does_nothing(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let (pair, id) = (rig.pair("rksim_pair"), rig.stopped(1).remove(0));
    match rig.provider.bind(&pair, &[], rig.before()).await {
        Ok(accepted) => assert_eq!(accepted.refused, []),
        refused => assert_eq!(rig.not_done(refused).kind, Kind::Invalid),
    }
    rig.settle();
    assert_eq!(rig.bound(&id), Vec::<String>::new());
}

/// Binds three good machines and this one, with the bad one in each place of the batch.
async fn bind_with(rig: &Rig, culprit: &InstanceId) -> Error {
    let mut last = None;
    for place in 0..4 {
        let pair = rig.pair(rig.name().as_str());
        let good = rig.stopped(3);
        let mut batch = good.clone();
        batch.insert(place, culprit.clone());
        let result = rig.provider.bind(&pair, &batch, rig.before()).await;
        let whole = result.is_err();
        let error = rig.verdict_on(culprit, result);
        assert_eq!(error.blame, Blame::Instance, "{error:?}");
        assert!(!whole || rig.provider.limits().whole_batch_fails, "the good ones are left out: {error:?}");
        rig.settle();
        for id in &good {
            let expect = if whole { Vec::new() } else { vec![pair.to_string()] };
            assert_eq!(rig.bound(id), expect, "a good one of a batch with a bad one in place {place}");
        }
        last = Some(error);
    }
    last.unwrap()
}

pub async fn a_windows_machine_in_a_batch_is_told_from_the_good_ones(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    rig.expects(Rule::State);
    let spec = InstanceSpec { os: Os::Windows, power: Power::Stopped, tags: tags(&[TAG]), ..Default::default() };
    let error = bind_with(&rig, &rig.add(spec)).await;
    assert_eq!(error.kind, Kind::Unsupported, "{error:?}");
}

pub async fn a_poisoned_machine_in_a_batch_is_told_from_the_good_ones(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let culprit = rig.stopped(1).remove(0);
    rig.with(|world| world.poison(0, culprit.as_str(), true));
    let error = bind_with(&rig, &culprit).await;
    assert!(matches!(error.kind, Kind::Unsupported | Kind::InvalidState), "{error:?}");
}

pub async fn a_machine_under_operation_in_a_batch_is_told_from_the_good_ones(rig: Arc<Rig>) {
    rig.expects(Rule::State);
    let culprit = rig.stopped(1).remove(0);
    rig.with(|world| {
        world.stick(0, culprit.as_str(), true);
    });
    rig.provider.power(PowerChange::Start, std::slice::from_ref(&culprit), rig.before()).await.unwrap();
    let error = bind_with(&rig, &culprit).await;
    assert!(matches!(error.kind, Kind::Busy | Kind::InvalidState), "{error:?}");
}

pub async fn a_machine_that_is_gone_fails_no_more_than_its_batch(rig: Arc<Rig>) {
    let gone = rig.stopped(1).remove(0);
    rig.with(|world| world.remove_instance(0, gone.as_str()));
    let pair = rig.pair("rksim_pair");
    let good = rig.stopped(3);
    let batch = [good.clone(), vec![gone.clone()]].concat();
    let result = rig.provider.bind(&pair, &batch, rig.before()).await;
    let whole = result.is_err();
    let error = rig.verdict_on(&gone, result);
    assert_eq!((error.kind, error.blame), (Kind::NotFound, Blame::Instance), "{error:?}");
    rig.settle();
    for id in &good {
        let expect = if whole { Vec::new() } else { vec![pair.to_string()] };
        assert_eq!(rig.bound(id), expect);
    }
}

pub async fn a_bind_of_a_pair_that_is_gone_blames_the_request(rig: Arc<Rig>) {
    rig.expects(Rule::Malformed);
    let (pair, machines) = (rig.pair("rksim_gone"), rig.stopped(2));
    rig.provider.delete_key_pair(&pair, rig.before()).await.unwrap();
    let error = rig.not_done(rig.provider.bind(&pair, &machines, rig.before()).await);
    assert!(matches!(error.kind, Kind::Invalid | Kind::NotFound), "{error:?}");
    assert_eq!(error.blame, Blame::Request, "{error:?}");
    rig.settle();
    assert!(machines.iter().all(|id| rig.bound(id).is_empty()));
}

pub async fn an_unbind_takes_the_pair_off_and_no_other(rig: Arc<Rig>) {
    let (pair, other) = (rig.pair("rksim_pair"), rig.pair("rksim_other"));
    let mut keys = vec![&pair];
    if rig.is_tencent() {
        keys.push(&other);
    }
    let (id, bystander) = (rig.machine_of(Power::Stopped, &keys), rig.machine_of(Power::Stopped, &[&pair]));
    let accepted = rig.provider.unbind(&pair, std::slice::from_ref(&id), rig.before()).await.unwrap();
    assert_eq!(accepted.refused, []);
    rig.settle();
    let left: Vec<KeyPairId> = if rig.is_tencent() { vec![other] } else { Vec::new() };
    assert_eq!(rig.look(&id).await.keys, left);
    assert_eq!(rig.look(&bystander).await.keys, [pair]);
}

pub async fn an_unbind_of_a_pair_that_is_not_there_changes_nothing(rig: Arc<Rig>) {
    let (pair, other) = (rig.pair("rksim_pair"), rig.pair("rksim_other"));
    let id = rig.machine_of(Power::Stopped, &[&other]);
    match rig.provider.unbind(&pair, std::slice::from_ref(&id), rig.before()).await {
        Ok(accepted) if accepted.refused.is_empty() => {}
        refused => {
            let error = rig.verdict_on(&id, refused);
            assert!(matches!(error.kind, Kind::Already | Kind::NotFound), "{error:?}");
        }
    }
    rig.settle();
    assert_eq!(rig.look(&id).await.keys, [other]);
}
