//! What became of a rotation or of a retire journal, in the words of whoever drove or followed it. It must say no more
//! than the journal does.

use crate::clock::{Clock, SystemClock};
use crate::custody::Keeper;
use crate::engine::drive::Retiring;
use crate::model::InstanceId;
use crate::rotation::back::touched;
use crate::rotation::{HoldReason, Outcome, PlannedInstance, Rotation};

use super::counts::Counts;
use super::output::{Output, Tone, moment, some};

/// Says why a rotation is held, who is down because of it, and the way on.
pub(super) fn say_held(out: Output, rotation: &Rotation, reason: &HoldReason, down: &[InstanceId]) {
    let (id, fleet) = (rotation.id, &rotation.plan.fleet);
    let what = rotation.plan.purpose().name();
    out.line(out.tone(Tone::Bad, format!("{fleet}: {what} {id} is held: {reason}")));
    if down.is_empty() {
        out.line(format!("{fleet}: nobody is down because of it"));
    } else {
        let are = if down.len() == 1 { "1 instance is".to_string() } else { format!("{} instances are", down.len()) };
        let strange = rotation.strange(SystemClock.now());
        let why = match reason {
            HoldReason::Account { .. } => "cannot be started without the account",
            _ if strange.is_some() => "the cloud does not show them",
            _ => "the cloud refuses it",
        };
        out.line(format!("{fleet}: {are} owed a start and perhaps down, and {why}: {}", some(down, 20)));
        match (strange, reason) {
            (Some(error), _) => out.line(format!("{fleet}: {}; it is looked again by itself", error.message)),
            (None, HoldReason::Account { .. }) => {}
            (None, _) => out.line(format!(
                "{fleet}: where the cloud refuses for good (expired, no stock, arrears), \
                 `rekeyd release {id} --allow=leave-off:{}` writes the start off",
                down[0]
            )),
        }
    }
    out.line(format!("{fleet}: {}", reason.way_on(id)));
    // A way back is turned round by rotating anew, once it has ended.
    let undo = match rotation.plan.undoes.is_none() && touched(rotation).next().is_some() {
        true => format!("`rekeyd rollback {id}` takes those that it bound back to what they had, "),
        false => String::new(),
    };
    out.line(format!(
        "{fleet}: `rekeyd release {id}` goes on, {undo}`rekeyd abandon {id}` gives it up, `rekeyd show {id}` tells how it came \
         to this"
    ));
}

/// What became of a rotation that ended; `planned`: all the instances of its plan.
pub(super) fn say_ended(
    out: Output,
    custody: &Keeper,
    rotation: &Rotation,
    planned: &[PlannedInstance],
    outcome: Outcome,
) -> String {
    let counts = Counts::of(rotation, planned).text();
    let fleet = &rotation.plan.fleet;
    let key = match &rotation.key {
        Some((_, fingerprint)) if rotation.plan.key.is_strangers() => {
            format!("; key {fingerprint}, a stranger's: nobody here has its private half")
        }
        Some((_, fingerprint)) => {
            let name = &rotation.plan.key_name;
            let way_in = custody.way_in(name).map(|way| format!(" ({way})")).unwrap_or_default();
            format!("; key {fingerprint} in {}{way_in}", custody.whereabouts(name))
        }
        None => String::new(),
    };
    let tone = if outcome == Outcome::Completed { Tone::Good } else { Tone::Careful };
    let what = rotation.plan.purpose().name();
    out.tone(tone, format!("{fleet}: {what} {} {outcome}: {}{key}", rotation.id, counts))
}

/// How a retire journal stands.
pub(super) fn say_retired(out: Output, custody: &Keeper, retiring: &Retiring) -> String {
    let (fleet, name) = (&retiring.plan.fleet, &retiring.plan.key_name);
    let pair = format!("{fleet}: old key pair {name}");
    match (&retiring.ended, &retiring.held, &retiring.waiting, retiring.until) {
        (Some(Outcome::Kept), ..) => format!(
            "{pair} is deleted; its private key is kept in {} (with verify: none no login proves the new one)",
            custody.whereabouts(name)
        ),
        (Some(outcome), ..) => format!("{pair} is {outcome}"),
        (None, Some(reason), ..) => {
            let way_on = reason.way_on(retiring.id);
            out.tone(Tone::Careful, format!("{pair}: retiring is held: {reason}; {way_on}"))
        }
        (None, None, Some(waiting), _) => {
            out.tone(Tone::Careful, format!("{pair} waits: {waiting}; the next rotate looks again"))
        }
        (None, None, None, Some(until)) => {
            format!("{pair} waits until {}; the next rotate after that goes on with it", moment(until))
        }
        (None, None, None, None) => format!("{pair} waits; the next rotate goes on with it"),
    }
}
