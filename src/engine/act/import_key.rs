//! ImportKey: the derived name is the idempotency key. Same name and same public key: adopt. Same name, another key: hold.
//! A pair with our mark that no journal in this store knows: hold.

use crate::model::Duration;
use crate::provider::Kind;
use crate::rotation::policy::{FRESH, later};
use crate::rotation::{Call, Event, HoldReason, Step};

use super::super::case::Case;
use super::super::guard;
use super::super::record::{Appended, append};
use super::super::{EngineError, Tools};
use super::{Done, failed, hold, kept};

pub(super) async fn act(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(Duration::from_secs(1))) };
    let name = case.plan.key_name().clone();
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
    if !names.is_empty() {
        return hold(tools, case, HoldReason::UnknownPairs { names }).await;
    }
    // Asked for by name as well: a listing by prefix may lag or be cut, and a second import would then be a conflict.
    let shown = match provider.find_key_pair(&name).await {
        Ok(shown) => shown,
        Err(error) => return failed(tools, case, Step::ImportKey, error).await,
    };
    match shown {
        Some(pair) if pair.public_key.as_ref() == Some(&public_key) => {
            append(tools, case, &[Event::KeyImported { key_pair: pair.id }]).await?;
            return Ok(Done::Recorded);
        }
        Some(_) => return hold(tools, case, HoldReason::KeyMismatch).await,
        None => {}
    }
    // Asked for a moment ago, by this run or the one before it: the listing gets time to show it.
    if case.rotation()?.importing.is_some_and(|since| tools.clock.now() < later(since, FRESH)) {
        return Ok(Done::Wait(Duration::from_secs(1)));
    }
    if let Err(reason) = guard::custody(&public_key, kept(tools, case).await) {
        return hold(tools, case, reason).await;
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
