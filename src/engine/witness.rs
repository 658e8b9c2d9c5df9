//! Whether it is the journals' own account that answers. Credentials are read anew while a rotation runs: with those of another
//! account nothing of ours would be there, and what is not there counts as gone. So an absence is believed only where, with
//! it or right after it, the cloud showed something that must be there; or on a person's word, for an hour. This room must
//! never take an error for an answer.

use std::collections::BTreeSet;

use crate::model::error::{Blame, Effect, Kind};
use crate::model::{Instance, InstanceId, KeyPairId, Timestamp};
use crate::provider::{Error, Power, Provider, Select};
use crate::rotation::policy::believes_gone;
use crate::rotation::{KeySource, Plan, RetirePlan, Retirement, RotatePlan, Rotation, STRANGE};

use super::act::load;
use super::guard::some_of;
use super::{EngineError, Tools};

/// So many of the newest rotations are asked for their machines …
const ROTATIONS: usize = 3;
/// … and for so many of them in all.
const INSTANCES: usize = 100;

/// Whether one of these machines, which the journals know, is there.
pub(super) fn is_shown<'a>(mut seen: impl Iterator<Item = &'a Instance>) -> bool {
    seen.any(|seen| seen.power != Power::Gone)
}

/// Sees that the cloud shows somebody of a rotation's batches, or that a person's word stands for it: asked before a pair is
/// imported, so that it is not made in another account, and before it is journalled, so that it is a witness from then on.
pub(super) async fn vouch(provider: &dyn Provider, rotation: &Rotation, now: Timestamp) -> Result<(), Error> {
    if believes_gone(rotation.gone_allowed, now) || find_anybody(provider, rotation).await? {
        return Ok(());
    }
    Err(error(format!(
        "the cloud shows none of the machines of this rotation ({}): are these another account's credentials? No key pair is \
         imported there; if the machines are gone indeed, `rekeyd abandon {}`, or `rekeyd release {} --allow=gone`",
        some(&first_of(rotation)),
        rotation.id,
        rotation.id
    )))
}

/// Whether the cloud shows the key pair that a rotation journalled, or one of its machines. Before it has a pair, nobody is
/// disturbed and nothing is at stake.
pub(super) async fn shows_something(provider: &dyn Provider, rotation: &Rotation) -> Result<bool, Error> {
    let Some((_, id)) = &rotation.key_pair else { return Ok(true) };
    let shows_pair = tells_accounts_apart(&rotation.plan, id) && shows_pair(provider, &rotation.plan, id).await?;
    Ok(shows_pair || find_anybody(provider, rotation).await?)
}

/// Whether the cloud shows a rotation's key pair under this handle.
pub(super) async fn shows_pair(provider: &dyn Provider, plan: &RotatePlan, id: &KeyPairId) -> Result<bool, Error> {
    match plan.key {
        KeySource::Stranger { .. } => Ok(provider.key_pairs("").await?.iter().any(|pair| pair.id == *id)),
        KeySource::Generate | KeySource::Existing { .. } | KeySource::Adopted { .. } => {
            Ok(provider.find_key_pair(&plan.key_name).await?.is_some_and(|pair| pair.id == *id))
        }
    }
}

/// Where a handle is no more than the name (Alibaba's), another account may have one of the same: an import that landed there,
/// a team's own pair.
fn tells_accounts_apart(plan: &RotatePlan, id: &KeyPairId) -> bool {
    id.as_str() != plan.key_name.as_str()
}

async fn find_anybody(provider: &dyn Provider, rotation: &Rotation) -> Result<bool, Error> {
    Ok(is_shown(provider.instances(&Select::Ids(first_of(rotation))).await?.iter()))
}

fn first_of(rotation: &Rotation) -> Vec<InstanceId> {
    rotation.members().filter(|(_, member)| !member.gone).map(|(id, _)| id.clone()).take(INSTANCES).collect()
}

/// What is said while nothing of it is shown: tried again, and held after a quarter of an hour.
pub(super) fn stranger(rotation: &Rotation, missing: &[InstanceId]) -> Error {
    error(format!(
        "the cloud shows neither {} nor the key pair {} of this rotation: are these another account's credentials? No machine \
         counts as gone on their word; if they are gone indeed, `rekeyd release {} --allow=gone`",
        some(missing),
        rotation.plan.key_name,
        rotation.id
    ))
}

fn some(ids: &[InstanceId]) -> String {
    some_of(&ids.iter().map(InstanceId::as_str).collect::<Vec<_>>())
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
        let is_own = |one: &Rotation| {
            one.key_pair.as_ref().is_some_and(|(_, id)| *id == pair.id && tells_accounts_apart(&one.plan, id))
        };
        if rotation.is_some_and(|(rotation, _)| is_own(&rotation)) {
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
