//! Whether it is the journals' own account that answers. Credentials are read anew while a rotation runs: with those of another
//! account nothing of ours would be there, and what is not there counts as gone. So an absence is believed only where, with
//! it or right after it, the cloud showed something that must be there; or on a person's word, for an hour. This room must
//! never take an error for an answer.

use std::collections::BTreeSet;

use crate::model::error::{Blame, Effect, Kind};
use crate::model::{Instance, InstanceId, KeyPairId};
use crate::provider::{Error, Power, Provider, Select};
use crate::rotation::{KeySource, Plan, RetirePlan, Retirement, Rotation, STRANGE};

use super::act::load;
use super::{EngineError, Tools};

/// So many of the newest rotations are asked for their machines …
const ROTATIONS: usize = 3;
/// … and for so many of them in all.
const INSTANCES: usize = 100;

/// Whether one of these machines, which the journals know, is there.
pub(super) fn is_shown<'a>(mut seen: impl Iterator<Item = &'a Instance>) -> bool {
    seen.any(|seen| seen.power != Power::Gone)
}

/// Sees that the cloud shows somebody of a rotation's batches: asked before a pair is imported, so that it is not made in
/// another account, and before it is journalled, so that it is a witness from then on.
pub(super) async fn shows_anybody(provider: &dyn Provider, rotation: &Rotation) -> Result<(), Error> {
    match find_anybody(provider, rotation).await? {
        true => Ok(()),
        false => Err(stranger(rotation, &first_of(rotation))),
    }
}

/// Whether the cloud shows the key pair that a rotation journalled, or one of its machines. Before it has a pair, nobody is
/// disturbed and nothing is at stake.
pub(super) async fn shows_something(provider: &dyn Provider, rotation: &Rotation) -> Result<bool, Error> {
    let Some((_, id)) = &rotation.key_pair else { return Ok(true) };
    let shows_pair = match rotation.plan.key {
        KeySource::Stranger { .. } => provider.key_pairs("").await?.iter().any(|pair| pair.id == *id),
        _ if !is_witness(rotation, id) => false,
        KeySource::Generate | KeySource::Existing { .. } | KeySource::Adopted { .. } => {
            provider.find_key_pair(&rotation.plan.key_name).await?.is_some_and(|pair| pair.id == *id)
        }
    };
    Ok(shows_pair || find_anybody(provider, rotation).await?)
}

/// Whether a pair tells accounts apart: one of several imports may have landed in another account, and where the handle is no
/// more than the name (Alibaba's) the two look the same.
fn is_witness(rotation: &Rotation, id: &KeyPairId) -> bool {
    rotation.imports <= 1 || id.as_str() != rotation.plan.key_name.as_str()
}

async fn find_anybody(provider: &dyn Provider, rotation: &Rotation) -> Result<bool, Error> {
    Ok(is_shown(provider.instances(&Select::Ids(first_of(rotation))).await?.iter()))
}

fn first_of(rotation: &Rotation) -> Vec<InstanceId> {
    rotation.members().filter(|(_, member)| !member.gone).map(|(id, _)| id.clone()).take(INSTANCES).collect()
}

/// What is said while nothing of it is shown: tried again, and held after a quarter of an hour.
pub(super) fn stranger(rotation: &Rotation, missing: &[InstanceId]) -> Error {
    let first = missing.first().map(InstanceId::as_str).unwrap_or_default();
    error(format!(
        "the cloud shows neither {first}{} nor the key pair {} of this rotation: are these another account's credentials? No \
         machine counts as gone on their word; if they are gone indeed, `rekeyd release {} --allow=gone`",
        if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() },
        rotation.plan.key_name,
        rotation.id
    ))
}

/// The same of a retire journal.
pub(super) fn stranger_to(retirement: &Retirement) -> Error {
    let plan = &retirement.plan;
    error(format!(
        "the cloud shows neither {} nor any other key pair or machine that the journals of {} know there: are these another \
         account's credentials? Nothing is destroyed on their word; if all of it is gone indeed, `rekeyd release {} \
         --allow=gone`",
        plan.key_name, plan.place.account, retirement.id
    ))
}

fn error(message: String) -> Error {
    Error {
        kind: Kind::Unavailable,
        effect: Effect::NotDone,
        blame: Blame::Account,
        action: "look".to_string(),
        code: STRANGE.to_string(),
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
        let journalled = rotation.and_then(|(one, _)| one.key_pair.clone().filter(|(_, id)| is_witness(&one, id)));
        if journalled.is_some_and(|(_, id)| id == pair.id) {
            return Ok(Witness::Ours);
        }
    }
    let mut ids: BTreeSet<InstanceId> = BTreeSet::new();
    for head in of_place.iter().rev().take(ROTATIONS) {
        ids.extend(tools.journal.instances(head.id).await?.into_iter().map(|planned| planned.id));
    }
    let ids: Vec<InstanceId> = ids.into_iter().take(INSTANCES).collect();
    Ok(match provider.instances(&Select::Ids(ids)).await {
        Ok(seen) if is_shown(seen.iter()) => Witness::Ours,
        Ok(_) => Witness::None,
        Err(error) => Witness::Failed(error),
    })
}
