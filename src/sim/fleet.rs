//! The fleet that a served cloud begins with, made from the seed: what an operator finds, not what he would wish for.
//! Machines of strangers' keys and of none, stopped ones, a Windows box, one that a scaling group owns, and others'
//! machines that no fleet may touch.

use super::machine::{Os, Power};
use super::meddle::InstanceSpec;
use super::world::World;
use crate::model::ProviderKind;

/// The tags that every machine of the fleet bears, and no other machine.
pub const TAGS: [(&str, &str); 2] = [("env", "sim"), ("role", "web")];

/// The tag that tells one fleet of several from another.
pub const FLEET_TAG: &str = "fleet";

/// The value of [`FLEET_TAG`] of so many fleets, in their order.
pub fn fleet_names(fleets: usize) -> impl Iterator<Item = String> {
    (0..fleets).map(|number| format!("fleet-{number}"))
}

/// A system tag of a machine that a scaling group owns. Lighthouse and BCC have no such groups in the fact sheet.
fn scaling_tag(kind: ProviderKind) -> Option<(&'static str, &'static str)> {
    match kind {
        ProviderKind::TencentCvm => Some(("tencentcloud:autoscaling:auto-scaling-group-id", "asg-sim00001")),
        ProviderKind::AlibabaEcs => Some(("acs:autoscaling:scalingGroupId", "asg-sim00001")),
        ProviderKind::TencentLighthouse | ProviderKind::BaiduBcc => None,
    }
}

/// Puts `instances` tagged machines into a cloud, and a tenth of that in strangers' machines. Of the tagged ones every
/// seventh is stopped, one in five only a password opens; from five on one is Windows, and from six on one belongs to
/// a scaling group, where the cloud has those. The poisoned ones are those that [`super::Faults`] asks for.
pub fn furnish(world: &mut World, cloud: usize, instances: usize) {
    furnish_fleets(world, cloud, instances, 0);
}

/// The same, and `fleets` share the tagged ones by turns: the first bears `fleet: fleet-0` besides, the next `fleet-1`,
/// and round again. With 0 nobody bears such a tag.
pub fn furnish_fleets(world: &mut World, cloud: usize, instances: usize, fleets: usize) {
    let kind = world.cloud(cloud).kind;
    let pairs = [world.add_strangers_pair(cloud, "ops_2019"), world.add_strangers_pair(cloud, "alice")];
    let tencent = matches!(kind, ProviderKind::TencentLighthouse | ProviderKind::TencentCvm);
    let turn = world.chance_below(7);
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let mut linux = Vec::new();
    for number in 0..instances {
        let windows = number == 4;
        let keys = match number % 5 {
            _ if windows => Vec::new(),
            // Tencent's machines can hang on several pairs.
            1 if tencent => pairs.to_vec(),
            0..=2 => pairs[..1].to_vec(),
            3 => pairs[1..].to_vec(),
            _ => Vec::new(),
        };
        let mut tags = own(&TAGS);
        tags.extend(scaling_tag(kind).filter(|_| number == 5).map(|(key, value)| (key.to_string(), value.to_string())));
        if let Some(turn) = number.checked_rem(fleets) {
            tags.extend(fleet_names(fleets).nth(turn).map(|name| (FLEET_TAG.to_string(), name)));
        }
        let power = if number % 7 == turn && !windows && number > 0 { Power::Stopped } else { Power::Running };
        let os = if windows { Os::Windows } else { Os::Linux };
        let name = format!("web-{number}");
        let id = world.add_instance(cloud, InstanceSpec { name, power, os, tags, keys, ..InstanceSpec::default() });
        if !windows {
            linux.push(id);
        }
    }
    for number in 0..instances.div_ceil(10) {
        let tags = if number % 2 == 0 { own(&[("role", "db"), ("env", "sim")]) } else { Vec::new() };
        let keys = pairs[..number % 2].to_vec();
        let name = format!("stranger-{number}");
        world.add_instance(cloud, InstanceSpec { name, tags, keys, ..InstanceSpec::default() });
    }
    let poisoned = (linux.len() * usize::from(world.faults.poison_share)).div_ceil(100);
    for _ in 0..poisoned.min(linux.len()) {
        let chosen = linux.swap_remove(world.chance_below(linux.len()));
        world.poison(cloud, &chosen, true);
    }
    for id in world.faults.poisoned.clone() {
        world.poison(cloud, &id, true);
    }
    world.cloud_mut(cloud).skew = world.faults.skew;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_furnished_cloud_has_all_that_an_operator_finds() {
        for kind in ProviderKind::ALL {
            let mut world = World::new(11, "2026-11-22T00:00:00Z".parse().unwrap());
            world.faults = "poison=1,skew=3s".parse().unwrap();
            let cloud = world.open_cloud(kind);
            furnish(&mut world, cloud, 50);
            let tagged = |machine: &&super::super::Machine| {
                TAGS.iter().all(|(key, value)| machine.tags.iter().any(|(k, v)| k == key && v == value))
            };
            let machines = world.cloud(cloud).machines();
            let ours: Vec<_> = machines.iter().filter(tagged).collect();
            assert_eq!((ours.len(), machines.len()), (50, 55), "{kind}");
            let count = |what: &dyn Fn(&super::super::Machine) -> bool| ours.iter().filter(|m| what(m)).count();
            assert_eq!(count(&|m| m.os == Os::Windows), 1, "{kind}");
            assert!(count(&|m| m.power == Power::Stopped) >= 5, "{kind}");
            assert!(count(&|m| m.accepts.is_empty() && m.password) >= 9, "{kind}");
            assert_eq!(count(&|m| m.poisoned), 1, "{kind}");
            assert_eq!(count(&|m| m.tags.len() == 3), usize::from(scaling_tag(kind).is_some()), "{kind}");
            assert_eq!(count(&|m| m.accepts.len() == 2) > 0, kind.as_str().starts_with("tencent"), "{kind}");
            assert!(world.cloud(cloud).skew.as_secs() == 3);
        }
    }

    #[test]
    fn fleets_share_the_tagged_machines_by_turns() {
        let fleets = |instances, fleets| -> Vec<String> {
            let mut world = World::new(11, "2026-11-22T00:00:00Z".parse().unwrap());
            let cloud = world.open_cloud(ProviderKind::BaiduBcc);
            furnish_fleets(&mut world, cloud, instances, fleets);
            let tags = world.cloud(cloud).machines().iter().flat_map(|machine| machine.tags.clone());
            tags.filter(|(key, _)| key == FLEET_TAG).map(|(_, name)| name).collect()
        };
        assert_eq!(fleets(5, 3), ["fleet-0", "fleet-1", "fleet-2", "fleet-0", "fleet-1"]);
        assert_eq!(fleets(1, 3), ["fleet-0"]);
        assert_eq!(fleets(5, 0), Vec::<String>::new());
    }
}
