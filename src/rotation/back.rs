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
    /// It ended as planned.
    pub completed: bool,
}

/// Whether a rotation may be rolled back, by all rotations of its fleet, oldest first: only the newest that bound
/// anybody. What undoes it belongs to it (a way back may be gone on with), and what a completed way back undid is as if
/// it had never been, together with that way back.
pub fn may_undo(asked: JournalId, rotations: &[Undoable]) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal(why));
    let place = |id: JournalId| rotations.iter().position(|one| one.id == id);
    let Some(asked_at) = place(asked) else {
        return refuse(format!("{asked} is no rotation of this fleet"));
    };
    if !rotations[asked_at].touched {
        return refuse(format!("rotation {asked} bound nobody: there is nothing to undo"));
    }
    let mut undone: BTreeSet<JournalId> = BTreeSet::new();
    for newer in rotations[asked_at + 1..].iter().rev().filter(|one| one.touched && one.undoes != Some(asked)) {
        match newer.undoes {
            _ if undone.contains(&newer.id) => {}
            // Given up, and gone on with later.
            Some(older) if undone.contains(&older) => {}
            // Of what is newer than what is asked for.
            Some(older) if newer.completed && place(older).is_some_and(|older| older > asked_at) => {
                undone.insert(older);
            }
            half => {
                // A way back that was given up is gone on with by the same command as it was begun.
                let first = half.filter(|_| !newer.completed).unwrap_or(newer.id);
                return refuse(format!(
                    "only the newest rotation that bound anybody can be rolled back, which is {}: \
                     `rekeyd rollback {first}` first, or rotate to a new key",
                    newer.id
                ));
            }
        }
    }
    Ok(())
}

/// Who a rotation touched: bound, or asked to be. Whom it only took over from an earlier journal it did not touch.
pub fn touched(rotation: &Rotation) -> impl Iterator<Item = &InstanceId> {
    let touched = |(id, member): (_, &super::member::Member)| {
        (!member.known && (member.asked || member.bound.is_some())).then_some(id)
    };
    rotation.members().filter_map(touched)
}

/// What an instance that a rotation touched was bound to before.
fn before<'a>(undone: &'a Rotation, id: &InstanceId) -> Vec<&'a KeyPairId> {
    let own = undone.key_pair.as_ref().map(|(_, key_pair)| key_pair);
    let found = undone.member(id).and_then(|member| member.found.as_ref());
    found.iter().flat_map(|found| &found.keys).filter(|key| Some(*key) != own).collect()
}

/// Whether nobody whom a rotation touched had a key pair before: no bind leads back from it.
pub fn leads_nowhere(rotation: &Rotation) -> bool {
    touched(rotation).all(|id| before(rotation, id).is_empty())
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
    // Deleted and imported again since, the pair has another handle.
    let same = |own: &OwnPair| own.key_name == undone.plan.key_name && !undone.plan.key.is_strangers();
    let mut bound_to: BTreeSet<&KeyPairId> = [bound_to].into();
    bound_to.extend(ours.iter().filter(|(_, own)| same(own)).map(|(handle, _)| handle));
    let mut back: BTreeMap<(bool, String), (Target, Vec<InstanceId>)> = BTreeMap::new();
    for id in touched(undone).filter(|id| !done.contains(*id)) {
        // Gone: there is nothing to bring back.
        let Some(now) = seen.get(id).filter(|now| now.power != Power::Gone) else { continue };
        let before = before(undone, id);
        match way(now, &bound_to, &before, ours, shown) {
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
    bound_to: &BTreeSet<&KeyPairId>,
    before: &[&KeyPairId],
    ours: &BTreeMap<KeyPairId, OwnPair>,
    shown: &[KeyPair],
) -> Result<Target, String> {
    if !now.keys.iter().any(|key| bound_to.contains(key)) {
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

/// Whom the completed ways back from a rotation had in a batch, and were not themselves undone for. What a way back that
/// was given up left is still to be undone.
pub fn undone_already(undone: JournalId, rotations: &[&Rotation]) -> BTreeSet<InstanceId> {
    let completed = |rotation: &&&Rotation| {
        rotation.plan.undoes == Some(undone)
            && rotation.id != undone
            && matches!(rotation.ended, Some((_, Outcome::Completed)))
    };
    let mut done = BTreeSet::new();
    for back in rotations.iter().filter(completed) {
        let turned_round = undone_already(back.id, rotations);
        done.extend(back.members().map(|(id, _)| id.clone()).filter(|id| !turned_round.contains(id)));
    }
    done
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
