//! One file a step. An act looks, acts on the difference only, and appends: intent before the call, outcome after it. It
//! must never sleep, and never make a call that its guard has not let through.

mod batch;
mod call;
mod deliver;
mod hook;
mod import_key;
mod retire;
mod settle;
mod store_key;
pub(super) mod verify;
mod way;

pub(super) use retire::{load, recall};

use crate::custody::CustodyError;
use crate::model::{Duration, PrivateKey, Timestamp};
use crate::provider::{Blame, Effect, Error, Kind};
use crate::rotation::policy::{back_off, later};
use crate::rotation::{Event, HoldReason, Hook, Step};

pub(super) use way::Way;

use super::case::Case;
use super::record::append;
use super::{EngineError, NoProvider, Tools};

/// What an act came to.
pub(super) enum Done {
    /// Something was written: ask the brain anew.
    Recorded,
    /// Nothing can be done yet: look again after this.
    Wait(Duration),
}

/// Does what can be done of a step now.
pub(super) async fn act(tools: &Tools, case: &mut Case, step: Step) -> Result<Done, EngineError> {
    let asks_cloud = !matches!(step, Step::StoreKey | Step::BeforeBatch(_) | Step::AfterBatch(_) | Step::Deliver);
    if asks_cloud {
        // Each time: a reload of the config file may have changed the account's credentials, or taken the account away.
        match (tools.providers)(case.plan.place()) {
            Ok(provider) => {
                if case.provider.replace(provider).is_none() {
                    case.waiting = None;
                }
            }
            Err(NoProvider::Gone(problem)) => {
                case.provider = None;
                return account_is_gone(tools, case, problem).await;
            }
            Err(NoProvider::NotNow(problem)) => {
                case.provider = None;
                tracing::error!(journal = %case.id, problem, "waiting for the account's credentials");
                case.waiting = Some(problem);
                return Ok(Done::Wait(Duration::from_secs(30)));
            }
        }
    }
    match step {
        Step::StoreKey => store_key::act(tools, case).await,
        Step::ImportKey => import_key::act(tools, case).await,
        Step::Settle(batch) => settle::act(tools, case, batch).await,
        Step::Activate(_) | Step::Prepare(_) | Step::Bind(_) => batch::act(tools, case, step).await,
        Step::Verify(batch) => verify::act(tools, case, batch).await,
        Step::BeforeBatch(batch) => hook::act(tools, case, Hook::BeforeBatch, batch).await,
        Step::AfterBatch(batch) => hook::act(tools, case, Hook::AfterBatch, batch).await,
        Step::Deliver => deliver::act(tools, case).await,
        Step::RetireKeyPair => retire::delete(tools, case).await,
        Step::DestroyPrivateKey => retire::destroy(tools, case).await,
    }
}

/// The plan's account is no longer in the config file: hold. What is owed cannot be paid without it, so it is tried again.
async fn account_is_gone(tools: &Tools, case: &mut Case, problem: String) -> Result<Done, EngineError> {
    if case.course.is_halted() {
        return Ok(Done::Wait(Duration::from_secs(10)));
    }
    hold(tools, case, HoldReason::Account { problem }).await
}

/// Holds the journal, unless it is held already.
async fn hold(tools: &Tools, case: &mut Case, reason: HoldReason) -> Result<Done, EngineError> {
    if case.course.is_halted() {
        return Ok(Done::Wait(Duration::from_secs(5)));
    }
    append(tools, case, &[Event::Held { reason }]).await?;
    Ok(Done::Recorded)
}

/// The step as a whole did not get on.
async fn failed(tools: &Tools, case: &mut Case, step: Step, error: Error) -> Result<Done, EngineError> {
    let retry_at = retry_at(tools, case.course.tries(step), &error);
    append(tools, case, &[Event::Failed { step, instances: Vec::new(), error, retry_at }]).await?;
    Ok(Done::Recorded)
}

/// When to try again after so many failures in a row.
fn retry_at(tools: &Tools, tries: u32, error: &Error) -> Timestamp {
    let jitter = match tools.chance.lock() {
        Ok(mut chance) => rand::RngExt::random::<f64>(&mut *chance),
        Err(_) => 1.0,
    };
    later(tools.clock.now(), back_off(tries, error.retry_after, jitter))
}

/// How long until the next look at something that has been going on since `since`: 1 s at first, 5 s at last.
fn look_interval(since: Option<Timestamp>, now: Timestamp) -> Duration {
    let age = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    Duration::from_secs((age / 10).clamp(1, 5) as u64)
}

/// Custody's word as the guards take it. Where custody cannot be asked that is no word about the key, but an error of the
/// step, which is tried again.
async fn kept(tools: &Tools, case: &Case) -> Result<Result<PrivateKey, String>, Error> {
    match tools.custody.get(case.plan.key_name()).await {
        Err(error) if error.is_passing() => Err(Error { effect: Effect::NotDone, ..custody_failed("get", &error) }),
        word => Ok(word.map_err(|error| error.to_string())),
    }
}

/// Custody that fails is waited for like a cloud that is away: a full disk, a copy that is not mounted, a sealed Vault.
fn custody_failed(action: &str, error: &CustodyError) -> Error {
    Error {
        kind: Kind::Unavailable,
        effect: Effect::Unknown,
        blame: Blame::Request,
        action: format!("custody {action}"),
        code: "custody".to_string(),
        message: error.to_string(),
        request_id: None,
        retry_after: None,
    }
}
