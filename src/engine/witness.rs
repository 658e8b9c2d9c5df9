//! Whether it is the journals' own account that answers. Credentials are read anew while a rotation runs: with those of another
//! account nothing of ours would be there, and what is not there counts as gone. So an absence is believed only where, after
//! it was first noticed and before it was last, the cloud showed something that must be there. This room must never take an
//! error for an answer.

use std::collections::BTreeSet;

use crate::model::InstanceId;
use crate::model::error::{Blame, Effect, Kind};
use crate::provider::{Error, Power, Provider, Select};
use crate::rotation::{KeySource, Plan, RetirePlan, Rotation};

use super::act::load;
use super::{EngineError, Tools};

/// So many of the newest rotations are asked for their machines …
const ROTATIONS: usize = 3;
/// … and for so many of them in all.
const INSTANCES: usize = 100;

/// Whether the cloud shows somebody of a rotation's batches: asked before a pair is imported, so that it is not made in
/// another account, and before it is journalled, so that it is a witness from then on.
pub(super) async fn shows_anybody(provider: &dyn Provider, rotation: &Rotation) -> Result<(), Error> {
    let ids: Vec<InstanceId> = rotation.members().map(|(id, _)| id.clone()).take(INSTANCES).collect();
    let seen = provider.instances(&Select::Ids(ids.clone())).await?;
    match seen.iter().any(|seen| seen.power != Power::Gone) {
        true => Ok(()),
        false => Err(stranger(rotation, &ids)),
    }
}

/// Whether the cloud shows the key pair that a rotation journalled. Before it has one, nobody is disturbed and nothing is at
/// stake.
pub(super) async fn shows_pair(provider: &dyn Provider, rotation: &Rotation) -> Result<bool, Error> {
    let Some((_, id)) = &rotation.key_pair else { return Ok(true) };
    match rotation.plan.key {
        KeySource::Stranger { .. } => Ok(provider.key_pairs("").await?.iter().any(|pair| pair.id == *id)),
        KeySource::Generate | KeySource::Existing { .. } | KeySource::Adopted { .. } => {
            Ok(provider.find_key_pair(&rotation.plan.key_name).await?.is_some_and(|pair| pair.id == *id))
        }
    }
}

/// What is said while neither is shown: tried again, and held after a quarter of an hour.
pub(super) fn stranger(rotation: &Rotation, missing: &[InstanceId]) -> Error {
    let first = missing.first().map(InstanceId::as_str).unwrap_or_default();
    let message = format!(
        "the cloud shows neither {first}{} nor the key pair {} of this rotation: are these another account's credentials? No \
         machine counts as gone on their word",
        if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() },
        rotation.plan.key_name
    );
    Error {
        kind: Kind::Unavailable,
        effect: Effect::NotDone,
        blame: Blame::Account,
        action: "look".to_string(),
        code: "account".to_string(),
        message,
        request_id: None,
        retry_after: None,
    }
}

/// What came of looking for a witness.
pub(super) enum Witness {
    /// It is the journals' account.
    Ours,
    /// Nothing that the journals know is shown.
    None,
    /// The cloud could not be asked.
    Failed(Error),
}

/// Whether the cloud shows another key pair of ours that the journals of the place know, or a machine of its newest rotations.
pub(super) async fn of_place(
    tools: &Tools,
    provider: &dyn Provider,
    retired: &RetirePlan,
) -> Result<Witness, EngineError> {
    let heads = tools.journal.heads().await?.readable;
    let of_place: Vec<_> = heads
        .iter()
        .filter(|head| matches!(head.plan, Plan::Rotate(_)) && *head.plan.place() == retired.place)
        .collect();
    let shown = match provider.key_pairs(&tools.mark.prefix()).await {
        Ok(pairs) => pairs,
        Err(error) => return Ok(Witness::Failed(error)),
    };
    for head in of_place.iter().rev().filter(|head| *head.plan.key_name() != retired.key_name) {
        let Some(pair) = shown.iter().find(|pair| pair.name == *head.plan.key_name()) else { continue };
        let rotation = load(tools.journal.as_ref(), head.id).await?;
        // Journalled as imported: one that landed in another account is not.
        if rotation.and_then(|(rotation, _)| rotation.key_pair).is_some_and(|(_, id)| id == pair.id) {
            return Ok(Witness::Ours);
        }
    }
    let mut ids: BTreeSet<InstanceId> = BTreeSet::new();
    for head in of_place.iter().rev().take(ROTATIONS) {
        ids.extend(tools.journal.instances(head.id).await?.into_iter().map(|planned| planned.id));
    }
    let ids: Vec<InstanceId> = ids.into_iter().take(INSTANCES).collect();
    Ok(match provider.instances(&Select::Ids(ids)).await {
        Ok(seen) if seen.iter().any(|seen| seen.power != Power::Gone) => Witness::Ours,
        Ok(_) => Witness::None,
        Err(error) => Witness::Failed(error),
    })
}
