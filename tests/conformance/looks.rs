//! What one look at an instance shows: power, keys, boot, operation, and why it can take no key.

use std::sync::Arc;

use rekeyd::model::{KeyPairId, ProviderKind};
use rekeyd::provider::{Power as Shown, PowerChange, Select};
use rekeyd::sim::{InstanceSpec, Os, Power};

use crate::rig::{Rig, TAG, sorted, tags};

pub async fn each_power_of_a_machine_is_shown_as_what_it_means(rig: Arc<Rig>) {
    let table = [
        (Power::Running, Shown::Running),
        (Power::Stopped, Shown::Stopped),
        (Power::Starting, Shown::Changing),
        (Power::Stopping, Shown::Changing),
        (Power::Rebooting, Shown::Changing),
        (Power::Pending, Shown::Changing),
    ];
    for (power, expect) in table {
        let id = rig.machine_of(power, &[]);
        let seen = rig.look(&id).await;
        assert_eq!((seen.power, seen.state.is_empty(), seen.unfit), (expect, false, None), "{power:?}: {}", seen.state);
    }
}

pub async fn a_machine_isolated_for_money_is_one_to_keep_off(rig: Arc<Rig>) {
    let seen = rig.look(&rig.machine_of(Power::Isolated, &[])).await;
    assert!(seen.power == Shown::Other || seen.unfit.is_some(), "{seen:?}");
    assert!(seen.power != Shown::Running && seen.power != Shown::Gone, "{seen:?}");
}

pub async fn keys_name_tags_and_zone_are_shown(rig: Arc<Rig>) {
    let (one, two) = (rig.pair("rksim_one"), rig.pair("rksim_two"));
    let keys: Vec<KeyPairId> = if rig.is_tencent() { vec![one, two] } else { vec![two] };
    let id = rig.add(InstanceSpec {
        name: "web 7 前端".to_string(),
        tags: tags(&[TAG, ("env", "")]),
        keys: keys.iter().map(ToString::to_string).collect(),
        ..InstanceSpec::default()
    });
    let seen = rig.look(&id).await;
    assert_eq!((seen.name.as_str(), seen.keys), ("web 7 前端", keys));
    assert_eq!(seen.tags.into_iter().collect::<Vec<_>>(), tags(&[("env", ""), TAG]));
    assert_eq!(seen.zone, Some(rig.truth(&id).zone));
    assert_eq!(rig.look(&rig.machine_of(Power::Running, &[])).await.keys, []);
}

pub async fn addresses_are_shown_and_a_machine_without_them_is_still_read(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    let truth = rig.truth(&id);
    let seen = rig.look(&id).await;
    assert_eq!(seen.private_address.map(|address| address.to_string()), Some(truth.private_address));
    assert_eq!(seen.public_address.map(|address| address.to_string()), Some(truth.public_address));
    rig.with(|world| world.set_addresses(0, id.as_str(), "", ""));
    let seen = rig.look(&id).await;
    assert_eq!((seen.private_address, seen.public_address, seen.power), (None, None, Shown::Running));
}

pub async fn a_disk_that_was_made_anew_shows_and_any_other_operation_does_not(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    let before = rig.look(&id).await.image.unwrap();
    rig.with(|world| world.set_power(0, id.as_str(), Power::Stopped));
    assert!(!before.was_replaced_by(&rig.look(&id).await.image.unwrap()));
    rig.with(|world| world.reimage(0, id.as_str()));
    let after = rig.look(&id).await.image.unwrap();
    assert!(before.was_replaced_by(&after), "{before:?} {after:?}");
    assert!(!after.was_replaced_by(&rig.look(&id).await.image.unwrap()));
}

pub async fn a_windows_machine_is_unfit_and_says_why(rig: Arc<Rig>) {
    let windows = rig.add(InstanceSpec { os: Os::Windows, tags: tags(&[TAG]), ..InstanceSpec::default() });
    let unfit = rig.look(&windows).await.unfit.expect("Windows takes no key pair");
    assert!(unfit.to_lowercase().contains("windows"), "{unfit}");
    let linux = rig.machine_of(Power::Running, &[]);
    assert_eq!(rig.look(&linux).await.unfit, None);
}

pub async fn a_machine_of_a_scaling_group_is_unfit_and_says_why(rig: Arc<Rig>) {
    // The clouds' own markers; Lighthouse and BCC have none on their pages.
    let marker = match rig.kind {
        ProviderKind::TencentCvm => ("tencentcloud:autoscaling:auto-scaling-group-id", "asg-1"),
        ProviderKind::AlibabaEcs => ("acs:autoscaling:scalingGroupId", "asg-1"),
        ProviderKind::TencentLighthouse | ProviderKind::BaiduBcc => ("scaling", "group"),
    };
    let id = rig.add(InstanceSpec { tags: tags(&[TAG, marker]), ..InstanceSpec::default() });
    let unfit = rig.look(&id).await.unfit;
    match rig.kind {
        ProviderKind::TencentCvm | ProviderKind::AlibabaEcs => {
            let unfit = unfit.expect("its group would replace it");
            assert!(unfit.contains("scaling"), "{unfit}");
        }
        ProviderKind::TencentLighthouse | ProviderKind::BaiduBcc => assert_eq!(unfit, None),
    }
}

pub async fn a_boot_is_seen_by_its_marker_where_the_cloud_shows_one(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    let first = rig.look(&id).await.boot;
    assert_eq!(first.is_some(), rig.kind == ProviderKind::AlibabaEcs, "{first:?}");
    rig.settle();
    assert_eq!(rig.look(&id).await.boot, first, "nothing was booted");
    rig.provider.power(PowerChange::Reboot, std::slice::from_ref(&id), rig.before()).await.unwrap();
    rig.settle();
    assert_eq!(rig.truth(&id).boots, 1);
    // A marker in whole minutes shows a boot only once the minute is over.
    rig.wait(120_000);
    rig.provider.power(PowerChange::Reboot, std::slice::from_ref(&id), rig.before()).await.unwrap();
    rig.settle();
    let again = rig.look(&id).await.boot;
    assert_eq!(again.is_some(), first.is_some());
    assert!(again.is_none() || again != first, "a boot minutes later shows another marker: {again:?}");
}

pub async fn an_operation_is_shown_from_its_acceptance_to_its_end(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    assert!(!rig.look(&id).await.is_busy());
    let stop = PowerChange::Stop { force: false };
    let accepted = rig.provider.power(stop, std::slice::from_ref(&id), rig.before()).await.unwrap();
    // The first looks may still show the old state; it is busy before it is stopped.
    rig.wait(100);
    let busy = rig.look(&id).await;
    assert!(busy.is_busy(), "{busy:?}");
    rig.settle();
    let done = rig.look(&id).await;
    assert!(!done.is_busy() && done.power == Shown::Stopped, "{done:?}");
    if rig.is_tencent() {
        let request = accepted.request_id.expect("the id to wait for");
        for (seen, running) in [(busy, true), (done, false)] {
            let operation = seen.operation.unwrap();
            assert_eq!((operation.request_id.as_deref(), operation.running), (Some(request.as_str()), running));
            assert!(!operation.failed);
        }
    } else {
        assert_eq!((busy.operation, done.operation), (None, None));
    }
}

pub async fn an_operation_that_failed_says_so(rig: Arc<Rig>) {
    let id = rig.machine_of(Power::Running, &[]);
    rig.with(|world| world.faults.operation_fails = 1.0);
    let stop = PowerChange::Stop { force: false };
    let accepted = rig.provider.power(stop, std::slice::from_ref(&id), rig.before()).await.unwrap();
    rig.settle();
    let seen = rig.look(&id).await;
    assert_eq!(seen.power, Shown::Running);
    if rig.is_tencent() {
        let operation = seen.operation.unwrap();
        assert_eq!((operation.running, operation.failed), (false, true));
        assert_eq!(operation.request_id, accepted.request_id);
    }
}

pub async fn every_selection_shows_an_instance_alike(rig: Arc<Rig>) {
    let pair = rig.pair("rksim_pair");
    let ids: Vec<_> = (0..4).map(|_| rig.machine_of(Power::Running, &[&pair])).collect();
    let ids = sorted(ids);
    let of = async |select: Select| {
        let mut found = rig.provider.instances(&select).await.unwrap();
        found.sort_by(|one, two| one.id.cmp(&two.id));
        found
    };
    let expect = of(Select::Ids(ids.clone())).await;
    assert_eq!(expect.len(), 4);
    assert_eq!(of(Select::All).await, expect);
    assert_eq!(of(Select::BoundTo(pair)).await, expect);
    assert_eq!(of(crate::rig::by_tags(&[TAG])).await, expect);
}
