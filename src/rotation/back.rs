//! The way back: which rotation may be undone, and to which pair each instance that it touched returns. Pure; what is left
//! to be undone is derived from journals and from one look, never remembered.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Instance, InstanceId, JournalId, KeyPair, KeyPairId, KeyPairName, Power, PublicKey};

use super::order::Refusal;
use super::plan::{KeySource, RotatePlan};
use super::reason::Outcome;
use super::state::Rotation;

/// What is known of one rotation of the fleet, for [`may_undo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undoable {
    /// The rotation.
    pub id: JournalId,
    /// It bound somebody, or asked to.
    pub touched: bool,
    /// The rotation that it undoes itself.
    pub undoes: Option<JournalId>,
}

/// Whether a rotation may be rolled back, by all rotations of its fleet, oldest first: only the newest that bound
/// anybody. (What undoes it belongs to it: a way back may be gone on with.)
pub fn may_undo(asked: JournalId, rotations: &[Undoable]) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal(why));
    match rotations.iter().find(|one| one.id == asked) {
        None => return refuse(format!("{asked} is no rotation of this fleet")),
        Some(one) if !one.touched => return refuse(format!("rotation {asked} bound nobody: there is nothing to undo")),
        Some(_) => {}
    }
    let newest = rotations.iter().rev().find(|one| one.touched && one.undoes != Some(asked));
    match newest.filter(|newest| newest.id != asked) {
        None => Ok(()),
        Some(newest) => refuse(format!(
            "only the newest rotation that bound anybody can be rolled back, which is {newest}: \
             `rekeyd rollback {newest}` first, or rotate to a new key",
            newest = newest.id
        )),
    }
}

/// Who a rotation touched: bound, or asked to be. Whom it only took over from an earlier journal it did not touch.
pub fn touched(rotation: &Rotation) -> impl Iterator<Item = &InstanceId> {
    let touched = |(id, member): (_, &super::member::Member)| {
        (!member.known && (member.asked || member.bound.is_some())).then_some(id)
    };
    rotation.members().filter_map(touched)
}

/// A pair of ours that the journals know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPair {
    /// Its name.
    pub key_name: KeyPairName,
    /// Its public half.
    pub public_key: PublicKey,
    /// Its private half is in custody, whole.
    pub kept: bool,
}

/// A pair to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub key_name: KeyPairName,
    /// Whose it is.
    pub key: KeySource,
}

/// The ways back from a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Who returns to which pair: ours first, by name; then strangers', by handle.
    pub back: Vec<(Target, Vec<InstanceId>)>,
    /// Who stays as it is, and why.
    pub stays: Vec<(InstanceId, String)>,
    /// Who had several pairs and gets one of them back: a bind is to one.
    pub in_part: Vec<InstanceId>,
}

/// The ways back from `undone`, for whom it touched and who is not among those that a completed way back had in a batch.
/// `ours`: all pairs of ours, by every handle that they had. `shown`: all pairs that the cloud shows.
pub fn ways(
    undone: &Rotation,
    done: &BTreeSet<InstanceId>,
    seen: &[Instance],
    ours: &BTreeMap<KeyPairId, OwnPair>,
    shown: &[KeyPair],
) -> Ways {
    let seen: BTreeMap<&InstanceId, &Instance> = seen.iter().map(|seen| (&seen.id, seen)).collect();
    let mut ways = Ways::default();
    let Some((_, bound_to)) = &undone.key_pair else { return ways };
    let mut back: BTreeMap<(bool, String), (Target, Vec<InstanceId>)> = BTreeMap::new();
    for id in touched(undone).filter(|id| !done.contains(*id)) {
        // Gone: there is nothing to bring back.
        let Some(now) = seen.get(id).filter(|now| now.power != Power::Gone) else { continue };
        let found = undone.member(id).and_then(|member| member.found.as_ref());
        let before: Vec<&KeyPairId> =
            found.iter().flat_map(|found| &found.keys).filter(|key| *key != bound_to).collect();
        match way(now, bound_to, &before, ours, shown) {
            Err(why) => ways.stays.push((id.clone(), why)),
            Ok(target) => {
                if before.len() > 1 {
                    ways.in_part.push(id.clone());
                }
                let order = match &target.key {
                    KeySource::Stranger { key_pair, .. } => (true, key_pair.to_string()),
                    _ => (false, target.key_name.to_string()),
                };
                back.entry(order).or_insert_with(|| (target, Vec::new())).1.push(id.clone());
            }
        }
    }
    ways.back = back.into_values().collect();
    ways
}

fn way(
    now: &Instance,
    bound_to: &KeyPairId,
    before: &[&KeyPairId],
    ours: &BTreeMap<KeyPairId, OwnPair>,
    shown: &[KeyPair],
) -> Result<Target, String> {
    if !now.keys.contains(bound_to) {
        return Err(match now.keys.iter().find(|key| !before.contains(key)) {
            Some(other) => format!("bound to {other} by somebody else since: never bound over"),
            None => "it has what it had before".to_string(),
        });
    }
    if before.is_empty() {
        return Err("it had no key pair before: no bind brings its password login back".to_string());
    }
    let own = |key: &&&KeyPairId| ours.get(**key).filter(|own| own.kept);
    if let Some(own) = before.iter().find_map(|key| own(&key)) {
        let key = KeySource::Existing { public_key: own.public_key.clone() };
        return Ok(Target { key_name: own.key_name.clone(), key });
    }
    let strangers = before.iter().filter(|key| !ours.contains_key(**key));
    if let Some(pair) = strangers.clone().find_map(|key| shown.iter().find(|pair| pair.id == **key)) {
        let key = KeySource::Stranger { key_pair: pair.id.clone(), public_key: pair.public_key.clone() };
        return Ok(Target { key_name: pair.name.clone(), key });
    }
    Err(match (strangers.clone().next(), before.first().and_then(|key| ours.get(*key))) {
        (Some(pair), _) => format!("key pair {pair}, which it had before, is in the cloud no more"),
        (None, Some(own)) => {
            format!("the private key of {}, which it had before, is not in custody any more", own.key_name)
        }
        (None, None) => "what it had before is not known".to_string(),
    })
}

/// Whom the completed ways back from a rotation had in a batch. What a way back that was given up left is still to be
/// undone.
pub fn undone_already<'a>(
    undone: JournalId,
    rotations: impl IntoIterator<Item = &'a Rotation>,
) -> BTreeSet<InstanceId> {
    let completed = |rotation: &&Rotation| {
        rotation.plan.undoes == Some(undone) && matches!(rotation.ended, Some((_, Outcome::Completed)))
    };
    let batched = rotations.into_iter().filter(completed).flat_map(|rotation| rotation.members());
    batched.map(|(id, _)| id.clone()).collect()
}

/// All pairs of ours that these rotations name, by every handle that they had.
pub fn own_pairs<'a>(rotations: impl IntoIterator<Item = &'a Rotation>) -> BTreeMap<KeyPairId, OwnPair> {
    let own = |rotation: &'a Rotation| {
        let RotatePlan { key_name, key, .. } = &rotation.plan;
        let (public_key, _) = rotation.key.as_ref().filter(|_| !key.is_strangers())?;
        let (_, key_pair) = rotation.key_pair.as_ref()?;
        let pair = OwnPair { key_name: key_name.clone(), public_key: public_key.clone(), kept: false };
        Some((key_pair.clone(), pair))
    };
    rotations.into_iter().filter_map(own).collect()
}
