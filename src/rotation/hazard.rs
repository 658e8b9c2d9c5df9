//! Who is left out of a plan because a stop could hurt it, or because the cloud itself says that it would refuse. Pure:
//! listing in, reasons out. It must never leave out a machine that nothing of ours would stop.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::error::Error;
use crate::model::{Disruption, Hazard, Instance, InstanceId, Power};

/// Whether a rotation may stop a machine that runs. Lighthouse's bind does; CVM's bind needs it; on BCC we stop a machine
/// whose own reboot is not seen. ECS machines are rebooted: that keeps local disks, the place on the host and what a
/// spot instance was bought for.
pub fn stops(disruption: Disruption) -> bool {
    match disruption {
        Disruption::StopsInstance | Disruption::NeedsStopped | Disruption::RebootsInstance => true,
        Disruption::NeedsReboot => false,
    }
}

/// What a rotation could do to this machine that cannot be made good. Whatever is on its way is counted as running; a
/// machine at rest is bound at rest, and nobody stops it.
pub fn endangered(seen: &Instance, disruption: Disruption) -> BTreeSet<Hazard> {
    match stops(disruption) && seen.power != Power::Stopped {
        true => seen.hazards.clone(),
        false => BTreeSet::new(),
    }
}

/// Makes those unfit that a stop could hurt, unless `allow` takes them along, and those that the cloud says it would
/// refuse. Who is unfit already keeps its reason.
pub fn leave_out(
    listing: &mut [Instance],
    disruption: Disruption,
    allow: &BTreeSet<Hazard>,
    denied: &[(InstanceId, Error)],
) {
    let denied: BTreeMap<&InstanceId, &Error> = denied.iter().map(|(id, error)| (id, error)).collect();
    for seen in listing.iter_mut().filter(|seen| seen.unfit.is_none()) {
        let hurts = endangered(seen, disruption).into_iter().filter(|hazard| !allow.contains(hazard));
        let hurts: Vec<String> = hurts.map(|hazard| format!("{}: {}", hazard.name(), hurt(hazard))).collect();
        if !hurts.is_empty() {
            seen.unfit = Some(hurts.join("; "));
        } else if let Some(error) = denied.get(&seen.id) {
            seen.unfit = Some(format!("the cloud would refuse {}: {} ({})", error.action, error.message, error.code));
        }
    }
}

/// What a stop could do, in words.
fn hurt(hazard: Hazard) -> &'static str {
    match hazard {
        Hazard::Spot => "a rotation stops it here, and its start may be refused for lack of stock",
        Hazard::LocalDisk => "a rotation stops it here, and a start on another host loses its local disks",
        Hazard::StopCharging => "a stop gives its place on the host back: its address and its start may be lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::{Blame, Effect, Kind};
    use Hazard::{LocalDisk, Spot, StopCharging};

    fn seen(power: Power, hazards: &[Hazard]) -> Instance {
        Instance {
            id: "i-1".into(),
            name: String::new(),
            power,
            state: String::new(),
            keys: Vec::new(),
            boot: None,
            operation: None,
            unfit: None,
            hazards: hazards.iter().copied().collect(),
            tags: Default::default(),
            zone: None,
            image: None,
            private_address: None,
            public_address: None,
        }
    }

    #[test]
    fn what_a_stop_could_hurt_is_left_out_where_a_rotation_stops_and_nobody_allowed_it() {
        let check = |disruption, power, hazards: &[Hazard], allow: &[Hazard], expect: &[&str]| {
            let mut listing = [seen(power, hazards)];
            leave_out(&mut listing, disruption, &allow.iter().copied().collect(), &[]);
            let unfit = listing[0].unfit.clone().unwrap_or_default();
            assert_eq!(unfit.is_empty(), expect.is_empty(), "{disruption:?} {power:?} {hazards:?} {allow:?}: {unfit}");
            assert!(expect.iter().all(|word| unfit.contains(word)), "{unfit}");
        };
        for disruption in [Disruption::StopsInstance, Disruption::NeedsStopped, Disruption::RebootsInstance] {
            check(disruption, Power::Running, &[], &[], &[]);
            check(disruption, Power::Running, &[Spot], &[], &["spot: "]);
            check(disruption, Power::Running, &[LocalDisk], &[], &["local_disk: "]);
            check(disruption, Power::Running, &[StopCharging], &[], &["stop_charging: "]);
            check(disruption, Power::Changing, &[Spot], &[], &["spot: "]);
            check(disruption, Power::Running, &[Spot, LocalDisk], &[], &["spot: ", "; local_disk: "]);
            check(disruption, Power::Running, &[Spot, LocalDisk], &[Spot], &["local_disk: "]);
            check(disruption, Power::Running, &Hazard::ALL, &Hazard::ALL, &[]);
            check(disruption, Power::Stopped, &Hazard::ALL, &[], &[]);
        }
        check(Disruption::NeedsReboot, Power::Running, &Hazard::ALL, &[], &[]);
        check(Disruption::NeedsReboot, Power::Stopped, &[StopCharging], &[], &[]);
    }

    #[test]
    fn whom_the_cloud_would_refuse_is_left_out_with_its_word_and_the_unfit_keep_their_reason() {
        let error = Error {
            kind: Kind::Unsupported,
            effect: Effect::NotDone,
            blame: Blame::Instance,
            action: "StartInstances".into(),
            code: "UnsupportedOperation.InstanceExpired".into(),
            message: "It expired.".into(),
            request_id: None,
            retry_after: None,
        };
        let check = |unfit: Option<&str>, id: &str, expect: Option<&str>| {
            let mut listing = [Instance { unfit: unfit.map(str::to_string), ..seen(Power::Running, &[]) }];
            leave_out(&mut listing, Disruption::StopsInstance, &BTreeSet::new(), &[(id.into(), error.clone())]);
            assert_eq!(listing[0].unfit.as_deref(), expect);
        };
        let word = "the cloud would refuse StartInstances: It expired. (UnsupportedOperation.InstanceExpired)";
        check(None, "i-1", Some(word));
        check(None, "i-2", None);
        check(Some("Windows"), "i-1", Some("Windows"));
    }
}
