//! Who still hangs on a superseded pair, by what the journals say and by a look. Pure, like all of the brain; whoever it lets
//! go may lose the way in, so in doubt it must let nobody go.

use std::collections::BTreeMap;

use crate::model::{Disruption, Instance, InstanceId, KeyPairId, KeyPairName, Power};

use super::event::BoundInstance;
use super::plan::{PlannedInstance, Verify};
use super::state::Rotation;

/// What the journals say of an instance and a superseded pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It was found on the pair, or seen bound to it, and nothing later took it off.
    On,
    /// It was asked to be bound to it, and was never seen so. These are the pairs that it had before.
    Asked(Vec<KeyPairId>),
    /// A later rotation bound it to this other pair, but did not see it active.
    BoundTo(KeyPairId, BoundInstance),
    /// A later rotation saw it active on another pair.
    Free,
    /// A later rotation logged in to it with another key, or it is gone.
    Proven,
}

impl Hold {
    /// Whether the journals say that it is over; `by_login`: that a login has shown it.
    pub fn is_settled(&self, by_login: bool) -> bool {
        *self == Self::Proven || (*self == Self::Free && !by_login)
    }
}

/// Who any journal found on the pair, or asked to be bound to it, and what later journals say of them. `keys`: the handles
/// that it had (it may have been deleted, and imported again). `rotations` are those of the account from the pair's first on,
/// oldest first, each with all the instances of its plan.
pub fn holds(
    key_name: &KeyPairName,
    keys: &[KeyPairId],
    rotations: &[(Rotation, Vec<PlannedInstance>)],
) -> BTreeMap<InstanceId, Hold> {
    let mut holds: BTreeMap<InstanceId, Hold> = BTreeMap::new();
    for (rotation, planned) in rotations {
        let own = rotation.plan.key_name == *key_name;
        // Logins are wanted, and this rotation's key could not be proven: active is then the cloud's word only.
        let proves = rotation.plan.can_prove() || rotation.plan.policy.verify == Verify::None;
        for instance in planned {
            let member = rotation.member(&instance.id);
            let on = |shown: &[KeyPairId]| shown.iter().any(|key| keys.contains(key));
            let found = member.and_then(|member| member.found.as_ref()).is_some_and(|found| on(&found.keys));
            let bound = own && member.is_some_and(|member| member.bound.is_some());
            if found || bound || on(&instance.keys) {
                holds.insert(instance.id.clone(), Hold::On);
            } else if own
                && let Some(member) = member.filter(|member| member.asked)
                // What it may still hang on otherwise is not forgotten for a bind that nobody saw.
                && holds.get(&instance.id).is_none_or(|hold| hold.is_settled(false) || matches!(hold, Hold::Asked(_)))
            {
                let before = member.found.as_ref().map(|found| found.keys.clone()).unwrap_or_default();
                holds.insert(instance.id.clone(), Hold::Asked(before));
            }
            let Some(member) = member else { continue };
            let Some(hold) = holds.get_mut(&instance.id) else { continue };
            if member.gone || (!own && member.proof.is_some()) {
                *hold = Hold::Proven;
            } else if !own && member.is_proven() && proves {
                if *hold != Hold::Proven {
                    *hold = Hold::Free;
                }
            } else if let (false, Some((_, bound)), Some((_, other))) = (own, &member.bound, &rotation.key_pair) {
                *hold = Hold::BoundTo(other.clone(), bound.clone());
            }
        }
    }
    holds
}

/// Whether an instance that the journals do not call free is seen to be so: gone (`None`), active on another pair, or
/// stopped and bound to another.
pub fn is_free(hold: &Hold, seen: Option<&Instance>, key: &KeyPairId, disruption: Disruption) -> bool {
    let Some(seen) = seen.filter(|seen| seen.power != Power::Gone) else { return true };
    (seen.power == Power::Stopped && is_off(seen, key)) || is_proven_off(hold, seen, key, disruption)
}

/// The cloud shows another pair in this one's place, and nothing under way.
fn is_off(seen: &Instance, key: &KeyPairId) -> bool {
    !seen.keys.contains(key) && !seen.keys.is_empty() && !seen.is_busy()
}

/// Whether an instance can need the private half no more: gone, or active on another pair, and where logins prove keys
/// (`proven`) seen so by one. Stopped and bound to another is not enough: where a key waits for a boot, its disk may accept
/// the old one still.
pub fn needs_no_more(
    hold: &Hold,
    seen: Option<&Instance>,
    key: &KeyPairId,
    disruption: Disruption,
    proven: bool,
) -> bool {
    let Some(seen) = seen.filter(|seen| seen.power != Power::Gone) else { return true };
    never_landed(hold, seen, key) || ((!proven || hold.is_settled(true)) && is_proven_off(hold, seen, key, disruption))
}

/// It has what it had before the bind was asked for: nothing came of it. Should it still land, the pair is gone by then:
/// its deletion is the fence.
fn never_landed(hold: &Hold, seen: &Instance, key: &KeyPairId) -> bool {
    let Hold::Asked(before) = hold else { return false };
    let same = seen.keys.len() == before.len() && seen.keys.iter().all(|key| before.contains(key));
    same && !seen.keys.contains(key) && !seen.is_busy()
}

fn is_proven_off(hold: &Hold, seen: &Instance, key: &KeyPairId, disruption: Disruption) -> bool {
    if never_landed(hold, seen, key) {
        return true;
    }
    if !is_off(seen, key) {
        return false;
    }
    match (hold, seen.power, disruption) {
        (Hold::Free | Hold::Proven, ..) => true,
        (_, Power::Running, Disruption::StopsInstance | Disruption::NeedsStopped) => true,
        // It was stopped when the other pair was bound: running now, it has booted since.
        (Hold::BoundTo(other, bound), Power::Running, Disruption::NeedsReboot | Disruption::RebootsInstance) => {
            let booted = bound.boot.is_some() && seen.boot.is_some() && bound.boot != seen.boot;
            seen.keys.contains(other) && (bound.power == Power::Stopped || booted)
        }
        _ => false,
    }
}
