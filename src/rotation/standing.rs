//! Where the instances of an account and region stand by all its journals: on which pair the newest rotation that bound
//! them left them, how far it saw that, and by which host key they are known. Pure; derived, never remembered.

use std::collections::BTreeMap;

use crate::model::{InstanceId, JournalId, KeyPairId, KeyPairName, Pin, Power};

use super::event::BoundInstance;
use super::plan::{KeySource, Known, PlannedInstance};
use super::state::Rotation;

/// Where an instance was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The rotation that bound it.
    pub rotation: JournalId,
    /// To the pair of this name …
    pub key_name: KeyPairName,
    /// … which had this handle then.
    pub key_pair: KeyPairId,
    /// What it had before.
    pub before: Vec<KeyPairId>,
    /// As the cloud first showed it bound.
    pub bound: BoundInstance,
    /// It was switched off then, and was not seen running since.
    pub waits: bool,
    /// It was seen active.
    pub active: bool,
    /// It was seen active, and proven by a login where its plan wanted that.
    pub proven: bool,
}

impl Stand {
    /// What a plan says of it: it begins from there.
    pub fn known(&self) -> Known {
        let mut bound = self.bound.clone();
        if self.waits {
            // Where the first look showed it on its way down, it was down when its key was to become active.
            bound.power = Power::Stopped;
        }
        Known { before: self.before.clone(), bound, active: self.active }
    }
}

/// Where each instance stands by these rotations, oldest first. Who was asked to be bound and not seen so stands nowhere
/// that could be relied on.
pub fn stands(rotations: &[(Rotation, Vec<PlannedInstance>)]) -> BTreeMap<InstanceId, Stand> {
    let mut stands: BTreeMap<InstanceId, Stand> = BTreeMap::new();
    for (rotation, _) in rotations {
        for (id, member) in rotation.members() {
            if member.gone {
                stands.remove(id);
                continue;
            }
            // What an adoption found is all that is known of it.
            if member.known && !matches!(rotation.plan.key, KeySource::Adopted { .. }) {
                let same = |stand: &&mut Stand| stand.key_name == rotation.plan.key_name;
                if let Some(stand) = stands.get_mut(id).filter(same) {
                    stand.active |= member.active;
                    stand.waits &= !member.active;
                    stand.proven |= member.is_proven();
                }
                continue;
            }
            match (&member.bound, &rotation.key_pair) {
                (Some((_, bound)), Some((_, key_pair))) => {
                    let found = member.found.as_ref();
                    let stand = Stand {
                        rotation: rotation.id,
                        key_name: rotation.plan.key_name.clone(),
                        key_pair: key_pair.clone(),
                        before: found.map(|found| found.keys.clone()).unwrap_or_default(),
                        bound: bound.clone(),
                        waits: member.is_straggler(),
                        active: member.active,
                        proven: member.is_proven(),
                    };
                    stands.insert(id.clone(), stand);
                }
                _ if member.asked => {
                    stands.remove(id);
                }
                _ => {}
            }
        }
    }
    stands
}

/// How instances are known again at the end of these rotations, oldest first.
pub fn pins(rotations: &[(Rotation, Vec<PlannedInstance>)]) -> BTreeMap<InstanceId, Pin> {
    let members = rotations.iter().flat_map(|(rotation, _)| rotation.members());
    members.filter_map(|(id, member)| Some((id.clone(), member.pin.clone()?))).collect()
}
