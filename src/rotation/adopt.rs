//! Adoption: from what clouds and custody still show of a fleet whose journals are lost, to the plans that record it anew.
//! Pure. It must never adopt a pair whose private half is not in custody, nor plan anything that disturbs a machine.

use std::collections::BTreeMap;

use crate::model::{FleetName, Instance, InstanceId, KeyPair, KeyPairId, KeyPairName, Power, PublicKey};

use super::event::BoundInstance;
use super::ledger::Half;
use super::plan::{Known, Part, PlannedInstance};

/// A key pair of ours that machines of the fleet hang on, and whose private half is in custody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedPair {
    /// Its name.
    pub name: KeyPairName,
    /// Its public half, the same in the cloud and in custody.
    pub public_key: PublicKey,
    /// Who hangs on it, as a plan has them.
    pub instances: Vec<PlannedInstance>,
}

/// An instance of the selection that is not adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub instance: InstanceId,
    /// Why.
    pub why: String,
}

/// What can be adopted of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Oldest first, but the fleet's current pair last: the one that most machines hang on, of several the newest.
    pub pairs: Vec<AdoptedPair>,
    /// By instance.
    pub left: Vec<Left>,
}

/// What can be adopted of a fleet. `pairs`: those with our mark in its place; `halves`: what custody holds of them; `claimed`: whether another
/// fleet matches an instance too.
pub fn adopt(
    listing: &[Instance],
    pairs: &[KeyPair],
    halves: &BTreeMap<KeyPairName, Half>,
    claimed: &dyn Fn(&Instance) -> Option<FleetName>,
) -> Adoption {
    let mut adoption = Adoption::default();
    let by_id: BTreeMap<&KeyPairId, &KeyPair> = pairs.iter().map(|pair| (&pair.id, pair)).collect();
    let mut found: BTreeMap<&KeyPairName, (PublicKey, Vec<PlannedInstance>)> = BTreeMap::new();
    let mut listing: Vec<&Instance> = listing.iter().filter(|seen| seen.power != Power::Gone).collect();
    listing.sort_by(|a, b| a.id.cmp(&b.id));
    for seen in listing {
        // Of several, the newest: names carry their time.
        let ours = seen.keys.iter().filter_map(|key| by_id.get(key)).max_by_key(|pair| &pair.name);
        let adopted = match (ours, claimed(seen)) {
            (_, Some(fleet)) => Err(format!("matched by fleet {fleet} too")),
            (None, _) if seen.keys.is_empty() => Err("bound to no key pair".to_string()),
            (None, _) => {
                let keys: Vec<&str> = seen.keys.iter().map(KeyPairId::as_str).collect();
                Err(format!("bound to {}, which is not ours", keys.join(", ")))
            }
            (Some(pair), None) => usable(pair, halves.get(&pair.name)).map(|public_key| (*pair, public_key)),
        };
        match adopted {
            Ok((pair, public_key)) => {
                let (_, instances) = found.entry(&pair.name).or_insert_with(|| (public_key, Vec::new()));
                instances.push(planned(seen));
            }
            Err(why) => adoption.left.push(Left { instance: seen.id.clone(), why }),
        }
    }
    adoption.pairs = found
        .into_iter()
        .map(|(name, (public_key, instances))| AdoptedPair { name: name.clone(), public_key, instances })
        .collect();
    let current = (0..adoption.pairs.len()).max_by_key(|index| (adoption.pairs[*index].instances.len(), *index));
    if let Some(current) = current {
        let current = adoption.pairs.remove(current);
        adoption.pairs.push(current);
    }
    adoption
}

/// The public half of a pair whose private half is in custody, or why it cannot be adopted.
fn usable(pair: &KeyPair, half: Option<&Half>) -> Result<PublicKey, String> {
    let name = &pair.name;
    match (&pair.public_key, half) {
        (Some(shown), Some(Half::Kept(kept))) if shown == kept => Ok(kept.clone()),
        (None, Some(Half::Kept(_))) => Err(format!("bound to {name}, whose public key the cloud does not show")),
        (_, Some(Half::Kept(_))) => Err(format!("bound to {name}, of which custody holds another private key")),
        (_, Some(Half::Lacking(why))) => Err(format!("bound to {name}, and its private key: {why}")),
        (_, None) => Err(format!("bound to {name}, whose private key is not in custody")),
    }
}

/// It begins from there: the cloud's word is taken that who runs accepts the pair, until a login proves it.
fn planned(seen: &Instance) -> PlannedInstance {
    let bound = BoundInstance { instance: seen.id.clone(), power: seen.power, boot: seen.boot.clone() };
    PlannedInstance {
        id: seen.id.clone(),
        name: seen.name.clone(),
        power: seen.power,
        keys: seen.keys.clone(),
        // Nothing is bound, so that there is no canary and no batch to wait for.
        part: Part::Batch(0),
        pin: None,
        known: Some(Known { before: Vec::new(), bound, active: seen.power == Power::Running }),
    }
}
