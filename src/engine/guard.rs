//! The last look before a call that cannot be taken back. Pure: evidence in, refusal out. Whatever the brain decided, a
//! guard that refuses wins (DESIGN, the promise, numbers 2, 3, 5 and 9).

use crate::model::{InstanceId, Mark, PrivateKey, PublicKey};
use crate::provider::{Error, Instance, KeyPair, Power};
use crate::rotation::policy::CLOCK_DIFFERENCE_MAX;
use crate::rotation::{Found, HoldReason};

/// Our clock may not differ from the cloud's by more than a minute. A cloud that has not shown its clock yet refuses too:
/// every look before a call shows it.
pub fn clock(difference: Option<jiff::SignedDuration>) -> Result<(), HoldReason> {
    match difference.map(|difference| difference.as_secs()) {
        Some(difference) if difference.abs() <= CLOCK_DIFFERENCE_MAX => Ok(()),
        Some(difference) => Err(HoldReason::Clock { difference }),
        None => Err(HoldReason::Clock { difference: i64::MAX }),
    }
}

/// Before a bind: the private half is durable in every copy, and is the half of the pair that the cloud shows now.
pub fn bind(
    journalled: &PublicKey,
    kept: Result<PrivateKey, String>,
    shown: Option<&KeyPair>,
) -> Result<(), HoldReason> {
    custody(journalled, kept)?;
    match shown.and_then(|pair| pair.public_key.as_ref()) {
        Some(shown) if shown == journalled => Ok(()),
        _ => Err(HoldReason::KeyMismatch),
    }
}

/// Before an import: the private half is durable in every copy, and is the half that the journal names.
pub fn custody(journalled: &PublicKey, kept: Result<PrivateKey, String>) -> Result<(), HoldReason> {
    match kept {
        Ok(kept) if kept.public() == journalled => Ok(()),
        Ok(_) => Err(HoldReason::Custody { problem: "the private half is not the one that the journal names".into() }),
        Err(problem) => Err(HoldReason::Custody { problem }),
    }
}

/// Before a stop or a reboot, and before a bind that disturbs: only machines seen in the state that the call is for, and
/// no more running ones than there is room for in `unavailable_max`. `room` does not count those that are owed a start
/// already. Gives those that may go; the others wait.
pub fn room(found: Vec<Found>, room: u32, is_owed: &dyn Fn(&InstanceId) -> bool) -> Vec<Found> {
    let mut left = room;
    let mut may = Vec::new();
    for found in found {
        if found.power == Power::Running && !is_owed(&found.instance) {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        may.push(found);
    }
    may
}

/// Why a key pair may not be deleted yet, or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: wait, naming who or what is waited for.
    Wait(String),
    /// A person must look.
    Hold(HoldReason),
}

/// Before a delete: our mark, our key, nobody bound (known to us or not), and everybody who was ever on the pair is free.
pub fn delete(
    mark: &Mark,
    journalled: Option<&PublicKey>,
    shown: &KeyPair,
    bound: &[Instance],
    hanging: &[InstanceId],
) -> Result<(), Refusal> {
    if !mark.is_on(&shown.name) {
        return Err(Refusal::Hold(HoldReason::UnknownPairs { names: vec![shown.name.to_string()] }));
    }
    match (&shown.public_key, journalled) {
        (Some(shown), Some(journalled)) if shown == journalled => {}
        _ => return Err(Refusal::Hold(HoldReason::KeyMismatch)),
    }
    if !bound.is_empty() {
        let ids: Vec<&str> = bound.iter().map(|seen| seen.id.as_str()).collect();
        return Err(Refusal::Wait(format!("still bound: {}", some_of(&ids))));
    }
    if let Some(count) = shown.bound.filter(|count| *count > 0) {
        return Err(Refusal::Wait(format!("the cloud counts {count} instances bound that it does not list")));
    }
    if !hanging.is_empty() {
        let ids: Vec<&str> = hanging.iter().map(InstanceId::as_str).collect();
        return Err(Refusal::Wait(format!("not proven to be off it: {}", some_of(&ids))));
    }
    Ok(())
}

/// Before a destruction: the pair is gone, everybody who was ever on it is free, and no other open journal names the key.
pub fn destroy(shown: Option<&KeyPair>, hanging: &[InstanceId], other_open_journals: usize) -> Result<(), Refusal> {
    if shown.is_some() {
        return Err(Refusal::Wait("the key pair is still there".into()));
    }
    if !hanging.is_empty() {
        let ids: Vec<&str> = hanging.iter().map(InstanceId::as_str).collect();
        return Err(Refusal::Wait(format!("not proven to be off it: {}", some_of(&ids))));
    }
    if other_open_journals > 0 {
        return Err(Refusal::Wait("another open journal names the key".into()));
    }
    Ok(())
}

/// An error that stands for a guard's word where the journal wants one.
pub(super) fn some_of(ids: &[&str]) -> String {
    const SHOWN: usize = 5;
    match ids.len() {
        count if count > SHOWN => format!("{} and {} more", ids[..SHOWN].join(", "), count - SHOWN),
        _ => ids.join(", "),
    }
}

/// Whether an error says that the pair is not there any more.
pub fn says_gone(error: &Error) -> bool {
    use crate::provider::{Effect, Kind};
    matches!(error.kind, Kind::NotFound | Kind::Already) && error.effect == Effect::NotDone
}
