//! ImportKey: the derived name is the idempotency key. Same name and same public key: adopt. Same name, another key: hold.
//! A pair with our mark that no journal in this store knows: hold. A stranger's pair is only looked for, never imported.

use crate::model::{Duration, KeyPairId};
use crate::provider::{Effect, Error, Kind, Provider};
use crate::rotation::policy::{FRESH, LATE_CALL, later};
use crate::rotation::{Call, Event, HoldReason, KeySource, Plan, Retirement, STRANGE, Step};

use super::super::case::Case;
use super::super::guard;
use super::super::record::{Appended, append};
use super::super::{EngineError, Tools, witness};
use super::{Done, failed, hold, kept};

pub(super) async fn act(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(Duration::from_secs(1))) };
    let name = case.plan.key_name().clone();
    match case.rotation()?.plan.key.clone() {
        KeySource::Generate => {}
        KeySource::Existing { .. } if is_retiring(tools, case).await? => return Ok(Done::Wait(Duration::from_secs(1))),
        KeySource::Existing { .. } | KeySource::Adopted { .. } => {}
        KeySource::Stranger { key_pair, .. } => return find_strangers(tools, case, provider.as_ref(), key_pair).await,
    }
    let Some((public_key, _)) = case.rotation()?.key.clone() else { return Ok(Done::Wait(Duration::from_secs(1))) };

    let ours = match provider.key_pairs(&tools.mark.prefix()).await {
        Ok(pairs) => pairs,
        Err(error) => return failed(tools, case, Step::ImportKey, error).await,
    };
    let heads = tools.journal.heads().await?;
    let is_known = |name: &_| heads.readable.iter().any(|head| head.plan.key_name() == name);
    let names: Vec<String> =
        ours.iter().filter(|pair| !is_known(&pair.name)).map(|pair| pair.name.to_string()).collect();
    if let (false, Some(unreadable)) = (names.is_empty(), heads.unreadable.first()) {
        // One of them may be its: that journal holds its own fleet, and makes this one wait.
        tracing::warn!(journal = %unreadable.journal, pairs = names.join(", "), "an unreadable journal may know these pairs");
        return Ok(Done::Wait(Duration::from_secs(30)));
    }
    // While what was lost is adopted, one pair after the other, those that follow are in no journal yet.
    let adopts = matches!(case.rotation()?.plan.key, KeySource::Adopted { .. });
    if !names.is_empty() && !adopts {
        return hold(tools, case, HoldReason::UnknownPairs { names }).await;
    }
    // Asked for by name as well: a listing by prefix may lag or be cut, and a second import would then be a conflict.
    let shown = match provider.find_key_pair(&name).await {
        Ok(shown) => shown,
        Err(error) => return failed(tools, case, Step::ImportKey, error).await,
    };
    match shown {
        Some(pair) if pair.public_key.as_ref() == Some(&public_key) => {
            return imported(tools, case, provider.as_ref(), pair.id).await;
        }
        Some(_) => return hold(tools, case, HoldReason::KeyMismatch).await,
        None if adopts => return hold(tools, case, HoldReason::KeyMismatch).await,
        None => {}
    }
    // Asked for a moment ago, by this run or the one before it: the listing gets time to show it.
    if case.rotation()?.importing.is_some_and(|since| tools.clock.now() < later(since, FRESH)) {
        return Ok(Done::Wait(Duration::from_secs(1)));
    }
    let kept = match kept(tools, case).await {
        Ok(kept) => kept.map(|key| key.public().clone()),
        Err(error) => return failed(tools, case, Step::ImportKey, error).await,
    };
    if let Err(reason) = guard::custody(&public_key, kept) {
        return hold(tools, case, reason).await;
    }
    if let Err(error) = witness::vouch(provider.as_ref(), case.rotation()?, tools.clock.now()).await {
        return failed(tools, case, Step::ImportKey, error).await;
    }
    let started = Event::Started { step: Step::ImportKey, call: Call::Import, found: Vec::new() };
    if append(tools, case, &[started]).await? == Appended::AfterOperator {
        return Ok(Done::Recorded);
    }
    let before = later(tools.clock.now(), FRESH);
    match provider.import_key_pair(&name, &public_key, before).await {
        // The next look says what there is: an answer is not proof.
        Ok(_) => {
            let accepted = Event::Accepted { step: Step::ImportKey, instances: Vec::new(), request_id: None };
            append(tools, case, &[accepted]).await?;
            Ok(Done::Recorded)
        }
        Err(error) if error.kind == Kind::Conflict => hold(tools, case, HoldReason::KeyMismatch).await,
        Err(error) => failed(tools, case, Step::ImportKey, error).await,
    }
}

/// Whether a retire journal of the pair may still delete it: one is open (it ends at its next turn, as this rotation binds
/// the pair again), or asked for the deletion so lately that it may still land.
async fn is_retiring(tools: &Tools, case: &Case) -> Result<bool, EngineError> {
    let now = tools.clock.now();
    for head in tools.journal.named(case.plan.key_name()).await? {
        let Plan::Retire(plan) = head.plan else { continue };
        if head.ended.is_none() {
            return Ok(true);
        }
        let entries = tools.journal.read(head.id, 0).await?;
        let retirement = Retirement::fold(head.id, plan, &entries)
            .map_err(|source| EngineError::Illegal { journal: head.id, source })?;
        if retirement.deleted.is_none() && retirement.asked.is_some_and(|(at, _)| now < later(at, LATE_CALL)) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn find_strangers(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    key_pair: KeyPairId,
) -> Result<Done, EngineError> {
    let pairs = match provider.key_pairs("").await {
        Ok(pairs) => pairs,
        Err(error) => return failed(tools, case, Step::ImportKey, error).await,
    };
    let shown = pairs.iter().find(|pair| pair.id == key_pair);
    let planned = case.rotation()?.key.as_ref().map(|(public_key, _)| public_key);
    if let Err(reason) = guard::bind_back(&key_pair, planned, shown, &[], None) {
        return hold(tools, case, reason).await;
    }
    imported(tools, case, provider, key_pair).await
}

/// The pair is there, and so is somebody whom it is for, and still the pair: it is not another account's.
async fn imported(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    key_pair: KeyPairId,
) -> Result<Done, EngineError> {
    let rotation = case.rotation()?;
    if let Err(mut error) = witness::vouch(provider, rotation, tools.clock.now()).await {
        if error.code == STRANGE && matches!(rotation.plan.key, KeySource::Generate) {
            error.message += &format!(
                "; if they are another account's, a key pair {} lies there, of no use to anybody",
                rotation.plan.key_name
            );
        }
        // What was imported before is not undone by this.
        return failed(tools, case, Step::ImportKey, Error { effect: Effect::Unknown, ..error }).await;
    }
    match witness::shows_pair(provider, &rotation.plan, &key_pair).await {
        Ok(true) => {}
        Ok(false) => return Ok(Done::Wait(Duration::from_secs(1))),
        Err(error) => return failed(tools, case, Step::ImportKey, Error { effect: Effect::Unknown, ..error }).await,
    }
    append(tools, case, &[Event::KeyImported { key_pair }]).await?;
    Ok(Done::Recorded)
}
