//! Who: left out of a rotation and why, waited for by a retire journal, new since the last rotation. By journals and the daemon's
//! last look alone; it must never name somebody whom neither names.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::{FleetName, InstanceId, JournalId, KeyPairId, Timestamp};
use crate::rotation::hangs::holds;
use crate::rotation::{Part, Plan, PlannedInstance, Retirement, Rotation, Stage};
use crate::store::{Head, Heads};

use super::super::journals::{Agenda, Folded, Journals};
use super::NewOnes;

/// Somebody who takes no part, or no more.
#[derive(Debug, Serialize)]
pub(super) struct LeftOut {
    pub(super) instance: InstanceId,
    pub(super) reason: String,
}

/// Those that were excluded on the way, then those that the plan left out.
pub(super) fn left_out(rotation: &Rotation, planned: &[PlannedInstance]) -> Vec<LeftOut> {
    let on_the_way = rotation.members().filter_map(|(id, member)| {
        let (_, reason) = member.excluded.as_ref()?;
        Some(LeftOut { instance: id.clone(), reason: reason.to_string() })
    });
    let by_plan = planned.iter().filter_map(|one| match &one.part {
        Part::Excluded(reason) => Some(LeftOut { instance: one.id.clone(), reason: reason.clone() }),
        Part::Batch(_) => None,
    });
    on_the_way.chain(by_plan).collect()
}

/// Who came after the last rotation, by the daemon's newest look, unless a rotation began since: that may have bound them.
pub(super) fn new_ones(agenda: &Agenda, fleet: &FleetName, heads: &[&Head]) -> Option<NewOnes> {
    let look = agenda.late.get(fleet).filter(|look| !look.new.is_empty())?;
    let begun_since = heads.iter().any(|head| matches!(head.plan, Plan::Rotate(_)) && head.begun >= look.at);
    (!begun_since).then(|| NewOnes { at: look.at, instances: look.new.clone() })
}

/// The rotations that were folded, each once for all fleets; `None`: it cannot be read.
pub(super) type Past = BTreeMap<JournalId, Option<(Rotation, Vec<PlannedInstance>)>>;

/// Who may still need the pair of a retire journal, or its private half, as far as journals know: that is whom it waits for.
/// Nobody while it waits for time or a person.
pub(super) async fn waits_for(
    journals: &Journals,
    heads: &Heads,
    past: &mut Past,
    retirement: &Retirement,
    now: Timestamp,
) -> BTreeSet<InstanceId> {
    if !matches!(retirement.stage(now), Some(Stage::Waiting | Stage::Due)) {
        return BTreeSet::new();
    }
    let plan = &retirement.plan;
    let near = |head: &&Head| {
        let place = head.plan.place();
        matches!(head.plan, Plan::Rotate(_))
            && place.provider == plan.place.provider
            && place.region == plan.place.region
    };
    let mut rotations = Vec::new();
    for head in heads.readable.iter().skip_while(|head| *head.plan.key_name() != plan.key_name).filter(near) {
        if let Entry::Vacant(place) = past.entry(head.id) {
            let folded = match journals.fold(head).await {
                Ok(Folded::Rotation(rotation, instances)) => Some((*rotation, instances)),
                Ok(Folded::Retirement(_)) | Err(_) => None,
            };
            place.insert(folded);
        }
        rotations.extend(past.get(&head.id).cloned().flatten());
    }
    let own = rotations.iter().map(|(rotation, _)| rotation).filter(|one| one.plan.key_name == plan.key_name);
    let handles: Vec<KeyPairId> = own.filter_map(|one| one.key_pair.as_ref().map(|(_, id)| id.clone())).collect();
    let by_login = retirement.deleted.is_some() && plan.proven && !retirement.destroy_allowed;
    let holds = holds(&plan.key_name, &handles, &rotations);
    holds.into_iter().filter(|(_, hold)| !hold.is_settled(by_login)).map(|(id, _)| id).collect()
}
