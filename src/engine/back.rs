//! Planning the way back: one rotation for each pair that instances return to. It looks and plans only; the guard before
//! each bind asks again.

use std::collections::BTreeMap;

use crate::model::{InstanceId, JournalId};
use crate::provider::{Instance, Select};
use crate::rotation::back::{
    Target, Undoable, Ways, leads_nowhere, may_undo, own_pairs, touched, undone_already, ways,
};
use crate::rotation::{Outcome, Part, PlannedInstance, Purpose, Refusal, Rotation};

use super::Tools;
use super::past::past;
use super::planner::{Fleet, PlanError, Proposal, claimed_by, drafted, planned_of};
use crate::store::{Head, Journal};

/// Plans the next rotation of the way back from `undone`; [`PlanError::Nobody`] where nothing is left to be undone.
pub(super) async fn propose_back(
    tools: &Tools,
    fleet: &Fleet,
    others: &[Fleet],
    undone: JournalId,
) -> Result<Proposal, PlanError> {
    let provider = (tools.providers)(&fleet.place).map_err(|error| PlanError::Account(error.to_string()))?;
    let past = past(tools.journal.as_ref(), &fleet.place).await?;
    let rotations: Vec<&Rotation> = past.iter().map(|(rotation, _)| rotation).collect();
    let of_fleet: Vec<&Rotation> = rotations.iter().filter(|one| one.plan.fleet == fleet.name).copied().collect();
    may_undo(undone, &undoable(&of_fleet)).map_err(PlanError::Refused)?;
    let Some(rotation) = of_fleet.iter().find(|rotation| rotation.id == undone) else {
        return Err(PlanError::Refused(Refusal(format!("rotation {undone} cannot be read"))));
    };
    if rotation.ended.is_none() {
        let why = format!("rotation {undone} is open: it is given up first, and ends once nothing is in flight");
        return Err(PlanError::Refused(Refusal(why)));
    }
    let done = undone_already(undone, &of_fleet);
    let left: Vec<InstanceId> = touched(rotation).filter(|id| !done.contains(*id)).cloned().collect();
    let listing = match left.is_empty() {
        true => Vec::new(),
        false => provider.instances(&Select::Ids(left)).await?,
    };
    let mut ours = own_pairs(rotations.iter().copied());
    for own in ours.values_mut() {
        own.kept = match tools.custody.get(&own.key_name).await {
            // Nobody may read "not in custody any more" of a key that could not be asked for.
            Err(error) if error.is_passing() => return Err(PlanError::Refused(Refusal(format!("custody: {error}")))),
            word => word.is_ok_and(|kept| *kept.public() == own.public_key),
        };
    }
    let shown = provider.key_pairs("").await?;
    let Ways { back, mut stays, in_part } = ways(rotation, &done, &listing, &ours, &shown);
    let claimed = claimed_by(fleet, others);
    // Not all go back to one key, or only those go whom a catch-up brought: the fleet's files stay as they are.
    let parted = back.len() > 1 || !done.is_empty() || rotation.plan.purpose() == Purpose::CatchUp;
    let mut found = None;
    for (target, ids) in back {
        let chosen: Vec<Instance> = listing.iter().filter(|seen| ids.contains(&seen.id)).cloned().collect();
        match drafted(fleet, &chosen, provider.limits(), &claimed, &Default::default()) {
            Ok(draft) => {
                found = Some((target, ids, draft));
                break;
            }
            // All of this pair are unfit: the next pair's turn.
            Err(PlanError::Nobody { problem, .. }) => {
                let why = format!("cannot go back to {}: {problem}", target.key_name);
                stays.extend(ids.into_iter().map(|id| (id, why.clone())));
            }
            Err(error) => return Err(error),
        }
    }
    let Some((Target { key_name, key }, ids, mut draft)) = found else {
        let why = match stays.is_empty() {
            true => format!("nothing is left to be undone of rotation {undone}"),
            false => format!("nothing is left to be undone of rotation {undone}: {}", reasons(&stays)),
        };
        return Err(PlanError::Nobody { fleet: fleet.name.clone(), problem: why });
    };
    // Said once: in the first journal of the way back.
    if done.is_empty() {
        draft.instances.extend(staying(&listing, &stays));
    }
    let pins = crate::rotation::standing::pins(&past);
    let (names_key, undoes) = (key_name.clone(), Some(undone));
    let mut proposal = planned_of(fleet, provider.limits(), draft, &pins, key_name, key, undoes);
    proposal.plan.select = Select::Ids(ids.clone());
    // A person wants back: not at the next window.
    proposal.plan.policy.pace.windows = Default::default();
    if parted && !proposal.plan.policy.deliver.is_empty() {
        proposal.plan.policy.deliver.clear();
        proposal.notes.push(format!("{names_key} is delivered nowhere: it is not the key of the whole fleet"));
    }
    let part: Vec<&InstanceId> = in_part.iter().filter(|id| ids.contains(id)).collect();
    if !part.is_empty() {
        let some: Vec<&str> = part.iter().take(20).map(|id| id.as_str()).collect();
        proposal.notes.push(format!(
            "{} had several key pairs, and gets {names_key} alone: a bind is to one pair",
            some.join(", ")
        ));
    }
    proposal.notes.extend(stays.iter().take(20).map(|(id, why)| format!("{id} stays as it is: {why}")));
    Ok(proposal)
}

/// Whether a rotation may be rolled back: asked before it is given up for that, so that a refusal leaves all as it was.
pub async fn may_roll_back(journal: &dyn Journal, head: &Head) -> Result<(), PlanError> {
    let past = past(journal, head.plan.place()).await?;
    let rotations: Vec<&Rotation> = past.iter().map(|(rotation, _)| rotation).collect();
    let of_fleet: Vec<&Rotation> =
        rotations.into_iter().filter(|rotation| rotation.plan.fleet == *head.plan.fleet()).collect();
    may_undo(head.id, &undoable(&of_fleet)).map_err(PlanError::Refused)?;
    match of_fleet.iter().find(|rotation| rotation.id == head.id) {
        Some(rotation) if leads_nowhere(rotation) => Err(PlanError::Refused(Refusal(format!(
            "no machine that rotation {} bound had a key pair before: no bind brings a password login back",
            head.id
        )))),
        _ => Ok(()),
    }
}

/// What may be undone, by the rotations of a fleet, oldest first.
fn undoable(rotations: &[&Rotation]) -> Vec<Undoable> {
    let one = |rotation: &&Rotation| Undoable {
        id: rotation.id,
        touched: touched(rotation).next().is_some(),
        undoes: rotation.plan.undoes,
        completed: matches!(rotation.ended, Some((_, Outcome::Completed))),
    };
    rotations.iter().map(one).collect()
}

fn staying(listing: &[Instance], stays: &[(InstanceId, String)]) -> Vec<PlannedInstance> {
    let seen: BTreeMap<&InstanceId, &Instance> = listing.iter().map(|seen| (&seen.id, seen)).collect();
    let planned = |(id, why): &(InstanceId, String)| {
        let seen = seen.get(id)?;
        Some(PlannedInstance {
            id: id.clone(),
            name: seen.name.clone(),
            power: seen.power,
            keys: seen.keys.clone(),
            part: Part::Excluded(why.clone()),
            pin: None,
            known: None,
        })
    };
    stays.iter().filter_map(planned).collect()
}

fn reasons(stays: &[(InstanceId, String)]) -> String {
    const SHOWN: usize = 5;
    let mut all: Vec<String> = stays.iter().take(SHOWN).map(|(id, why)| format!("{id}: {why}")).collect();
    if stays.len() > SHOWN {
        all.push(format!("and {} more", stays.len() - SHOWN));
    }
    all.join("; ")
}
