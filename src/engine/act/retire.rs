//! RetireKeyPair and DestroyPrivateKey. The pair dies first: its deletion is the fence against a late bind. After it was
//! seen gone, everybody who was ever on it is looked at again, and only then grace counts.

use std::collections::BTreeMap;

use crate::model::{Duration, InstanceId, KeyPairId, PublicKey, Timestamp};
use crate::provider::{Disruption, Instance, KeyPair, Kind, Provider, Select};
use crate::rotation::hangs::{Hold, holds, is_free, needs_no_more};
use crate::rotation::policy::{FRESH, SETTLE_DEADLINE, believes_gone, later};
use crate::rotation::retire::is_recalled;
use crate::rotation::{Call, Event, HoldReason, Outcome, Plan, PlannedInstance, Rotation, Step};
use crate::store::{Journal, StoreError};

use super::super::case::{Case, Course};
use super::super::guard::{self, Refusal};
use super::super::look::MISSING;
use super::super::record::{Appended, append};
use super::super::witness::{self, Witness};
use super::super::{EngineError, Tools};
use super::{Done, custody_failed, failed, hold};

/// A pair that is waited for is looked at so often …
const PATIENCE: Duration = Duration::from_secs(60);
/// … and in its first minutes so often: what it waits for is then about to come.
const AT_FIRST: Duration = Duration::from_secs(5);
/// The first minutes.
const FIRST: Duration = Duration::from_secs(180);

/// What the journals know of the pair.
struct Known {
    public_key: Option<PublicKey>,
    holds: BTreeMap<InstanceId, Hold>,
    disruption: Disruption,
}

/// Ends a retire journal whose pair a later rotation binds again: nothing is deleted or destroyed by it any more. Says
/// whether it was so.
pub(in crate::engine) async fn recall(tools: &Tools, case: &mut Case) -> Result<bool, EngineError> {
    if !matches!(&case.course, Course::Retire(retirement) if retirement.ended.is_none()) {
        return Ok(false);
    }
    let named = tools.journal.named(case.plan.key_name()).await?;
    if !is_recalled(case.id, named.iter().map(|head| (head.id, &head.plan))) {
        return Ok(false);
    }
    case.waiting = None;
    append(tools, case, &[Event::Ended { outcome: Outcome::Recalled }]).await?;
    Ok(true)
}

/// Deletes the pair.
pub(super) async fn delete(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let step = Step::RetireKeyPair;
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(PATIENCE)) };
    if let Err(Refusal::Wait(reason)) = guard::journals(&tools.journal.heads().await?.unreadable) {
        return wait(tools, case, reason);
    }
    let looked = tools.clock.now();
    let mut shown = match provider.find_key_pair(case.plan.key_name()).await {
        Ok(shown) => shown,
        Err(error) => return failed(tools, case, step, error).await,
    };
    if shown.is_none() {
        if let Some(done) = is_strange(tools, case, provider.as_ref(), step).await? {
            return Ok(done);
        }
        // Asked again: our own account may have come back only after the first answer.
        shown = match provider.find_key_pair(case.plan.key_name()).await {
            Ok(shown) => shown,
            Err(error) => return failed(tools, case, step, error).await,
        };
    }
    let handle = match &shown {
        Some(pair) => Some(pair.id.clone()),
        None => journalled_handle(tools, case).await?,
    };
    let Some(handle) = handle else {
        // Never imported as far as anybody knows: nothing can be bound to it.
        append(tools, case, &[Event::KeyPairDeleted]).await?;
        return Ok(Done::Recorded);
    };
    let known = match known(tools, case, &handle).await {
        Ok(known) => known,
        Err(error) => return unreadable(tools, case, error),
    };
    let hanging = match hanging(tools, case, provider.as_ref(), step, &known, &handle, false, is_free).await? {
        Ok(hanging) => hanging,
        Err(done) => return Ok(done),
    };
    let Some(pair) = shown else {
        // Seen gone: everybody was looked at again after that.
        return match hanging.is_empty() {
            true => {
                case.waiting = None;
                append(tools, case, &[Event::KeyPairDeleted]).await?;
                Ok(Done::Recorded)
            }
            false => wait(tools, case, format!("deleted, but not proven to be off it: {}", list(&hanging))),
        };
    };
    delete_pair(tools, case, provider.as_ref(), &known, pair, &hanging, looked).await
}

async fn delete_pair(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    known: &Known,
    pair: KeyPair,
    hanging: &[InstanceId],
    looked: Timestamp,
) -> Result<Done, EngineError> {
    let step = Step::RetireKeyPair;
    // Known to us or not: whoever the cloud shows bound.
    let bound = match provider.instances(&Select::BoundTo(pair.id.clone())).await {
        Ok(bound) => bound,
        Err(error) => return failed(tools, case, step, error).await,
    };
    match guard::delete(&tools.mark, known.public_key.as_ref(), &pair, &bound, hanging) {
        Ok(()) => {}
        Err(Refusal::Wait(reason)) => return wait(tools, case, reason),
        Err(Refusal::Hold(reason)) => return hold(tools, case, reason).await,
    }
    if let Err(reason) = guard::clock(provider.clock_difference()) {
        return hold(tools, case, reason).await;
    }
    let intent = tools.clock.now();
    // A success may hide an undeleted pair: it gets time to go, and is asked again ever less often.
    if let Some((asked, times)) = case.retirement()?.asked {
        if times < 3 && intent < later(asked, FRESH) {
            return Ok(Done::Wait(Duration::from_secs(1)));
        }
        if times >= 3 && intent < later(asked, SETTLE_DEADLINE) {
            return wait(tools, case, format!("the cloud was asked {times} times to delete it and still shows it"));
        }
    }
    if intent >= later(looked, FRESH) {
        // The looks took long: what they showed is no evidence any more.
        return Ok(Done::Wait(Duration::from_secs(1)));
    }
    // The looks took their time: somebody may have gone back to the pair meanwhile.
    if recall(tools, case).await? {
        return Ok(Done::Recorded);
    }
    case.waiting = None;
    let started = Event::Started { step, call: Call::Delete, found: Vec::new() };
    if append(tools, case, &[started]).await? == Appended::AfterOperator {
        return Ok(Done::Recorded);
    }
    match provider.delete_key_pair(&pair.id, later(intent, FRESH)).await {
        // Success may hide an undeleted pair: the next look says.
        Ok(()) => Ok(Done::Wait(Duration::from_secs(1))),
        Err(error) if guard::says_gone(&error) => Ok(Done::Wait(Duration::from_secs(1))),
        Err(error) if error.kind == Kind::InUse => {
            let waiting = wait(tools, case, "the cloud says that it is still in use".to_string());
            failed(tools, case, step, error).await?;
            waiting
        }
        Err(error) => failed(tools, case, step, error).await,
    }
}

/// Destroys the private half.
pub(super) async fn destroy(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let step = Step::DestroyPrivateKey;
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(PATIENCE)) };
    if let Err(Refusal::Wait(reason)) = guard::journals(&tools.journal.heads().await?.unreadable) {
        return wait(tools, case, reason);
    }
    if let Some(done) = is_strange(tools, case, provider.as_ref(), step).await? {
        return Ok(done);
    }
    let name = case.plan.key_name().clone();
    let shown = match provider.find_key_pair(&name).await {
        Ok(shown) => shown,
        Err(error) => return failed(tools, case, step, error).await,
    };
    // A person who allows it takes the cloud's word.
    let proven = case.retirement()?.plan.proven && !case.retirement()?.destroy_allowed;
    let mut left = Vec::new();
    if let Some(handle) = journalled_handle(tools, case).await? {
        let known = match known(tools, case, &handle).await {
            Ok(known) => known,
            Err(error) => return unreadable(tools, case, error),
        };
        let free = |hold: &Hold, seen: Option<&Instance>, key: &KeyPairId, disruption: Disruption| {
            needs_no_more(hold, seen, key, disruption, proven)
        };
        left = match hanging(tools, case, provider.as_ref(), step, &known, &handle, proven, free).await? {
            Ok(left) => left,
            Err(done) => return Ok(done),
        };
    }
    let heads = tools.journal.heads().await?.readable;
    let others =
        heads.iter().filter(|head| head.id != case.id && head.ended.is_none() && *head.plan.key_name() == name).count();
    match guard::destroy(shown.as_ref(), &left, others) {
        Ok(()) => {}
        Err(Refusal::Wait(reason)) => return wait(tools, case, reason),
        Err(Refusal::Hold(reason)) => return hold(tools, case, reason).await,
    }
    if let Err(reason) = guard::clock(provider.clock_difference()) {
        return hold(tools, case, reason).await;
    }
    if recall(tools, case).await? {
        return Ok(Done::Recorded);
    }
    case.waiting = None;
    let started = Event::Started { step, call: Call::Destroy, found: Vec::new() };
    if append(tools, case, &[started]).await? == Appended::AfterOperator {
        return Ok(Done::Recorded);
    }
    if let Err(error) = tools.custody.destroy(&name).await {
        if error.is_passing() {
            return failed(tools, case, step, custody_failed("destroy", &error)).await;
        }
        return hold(tools, case, HoldReason::Custody { problem: error.to_string() }).await;
    }
    append(tools, case, &[Event::PrivateKeyDestroyed]).await?;
    Ok(Done::Recorded)
}

/// What to do instead where nothing shows that it is our account that answers: what it does not show is no evidence then.
async fn is_strange(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    step: Step,
) -> Result<Option<Done>, EngineError> {
    let retirement = case.retirement()?;
    if believes_gone(retirement.gone_allowed, tools.clock.now()) {
        return Ok(None);
    }
    match witness::of_place(tools, provider, &retirement.plan).await? {
        Witness::Ours => Ok(None),
        Witness::Failed(error) => failed(tools, case, step, error).await.map(Some),
        Witness::None => {
            case.missing.clear();
            let error = witness::stranger_to(case.retirement()?);
            // Written each hour: who was right once is asked about again when it happens again.
            match case.retirement()?.strange(tools.clock.now()).is_some() {
                true => wait(tools, case, error.message).map(Some),
                false => failed(tools, case, step, error).await.map(Some),
            }
        }
    }
}

fn wait(tools: &Tools, case: &mut Case, reason: String) -> Result<Done, EngineError> {
    case.waiting = Some(reason);
    let retirement = case.retirement()?;
    let due = retirement.deleted.map_or(retirement.soaked(), |deleted| retirement.grace_over(deleted));
    let is_young = tools.clock.now() < later(due, FIRST);
    Ok(Done::Wait(if is_young { AT_FIRST } else { PATIENCE }))
}

/// Who hangs on the pair stands in journals, and one of them cannot be read: nothing is deleted until it can. The other
/// journals go on.
fn unreadable(tools: &Tools, case: &mut Case, error: EngineError) -> Result<Done, EngineError> {
    match error {
        EngineError::Illegal { .. } | EngineError::Store(StoreError::Damaged { .. }) => {
            wait(tools, case, error.to_string())
        }
        other => Err(other),
    }
}

fn list(ids: &[InstanceId]) -> String {
    let ids: Vec<&str> = ids.iter().map(InstanceId::as_str).collect();
    guard::some_of(&ids)
}

/// The handle that the pair's rotations journalled, the newest one's.
async fn journalled_handle(tools: &Tools, case: &Case) -> Result<Option<KeyPairId>, EngineError> {
    let mut handle = None;
    for head in tools.journal.named(case.plan.key_name()).await? {
        let rotation = load(tools.journal.as_ref(), head.id).await?;
        handle = rotation.and_then(|(rotation, _)| rotation.key_pair.map(|(_, id)| id)).or(handle);
    }
    Ok(handle)
}

/// What the journals of the place know, from the pair's first rotation on.
async fn known(tools: &Tools, case: &Case, handle: &KeyPairId) -> Result<Known, EngineError> {
    let plan = &case.retirement()?.plan;
    let mut rotations = Vec::new();
    // In the order in which they began: ids of one millisecond sort by chance.
    let heads = tools.journal.heads().await?.readable.into_iter();
    for head in heads.skip_while(|head| *head.plan.key_name() != plan.key_name) {
        let same_place =
            head.plan.place().provider == plan.place.provider && head.plan.place().region == plan.place.region;
        if matches!(head.plan, Plan::Rotate(_)) && same_place {
            rotations.extend(load(tools.journal.as_ref(), head.id).await?);
        }
    }
    let own =
        || rotations.iter().map(|(rotation, _)| rotation).filter(|rotation| rotation.plan.key_name == plan.key_name);
    let public_key = own().find_map(|rotation| rotation.key.as_ref().map(|(public_key, _)| public_key.clone()));
    let disruption = own().next().map(|rotation| rotation.plan.disruption);
    // Deleted and imported again, it has had several.
    let mut handles = vec![handle.clone()];
    handles.extend(own().filter_map(|rotation| rotation.key_pair.as_ref().map(|(_, id)| id.clone())));
    Ok(Known {
        public_key,
        holds: holds(&plan.key_name, &handles, &rotations),
        disruption: disruption.unwrap_or(Disruption::NeedsReboot),
    })
}

/// A rotation's journal, folded, with all the instances of its plan; `None` for a retire journal.
pub(in crate::engine) async fn load(
    journal: &dyn Journal,
    id: crate::model::JournalId,
) -> Result<Option<(Rotation, Vec<PlannedInstance>)>, EngineError> {
    let Plan::Rotate(plan) = journal.head(id).await?.plan else { return Ok(None) };
    let instances = journal.instances(id).await?;
    let entries = journal.read(id, 0).await?;
    let rotation = Rotation::fold(id, plan, &instances, &entries)
        .map_err(|source| EngineError::Illegal { journal: id, source })?;
    Ok(Some((rotation, instances)))
}

/// Who is not proven to be off the pair: looks at everybody whom any journal found on it and none let go (`by_login`: by a
/// proof), and asks `is_free` of each. Or what to do first, while somebody's absence is not to be believed.
#[expect(clippy::too_many_arguments)]
async fn hanging(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    step: Step,
    known: &Known,
    key: &KeyPairId,
    by_login: bool,
    is_free: impl Fn(&Hold, Option<&Instance>, &KeyPairId, Disruption) -> bool,
) -> Result<Result<Vec<InstanceId>, Done>, EngineError> {
    let open = |hold: &Hold| !hold.is_settled(by_login);
    let ids: Vec<InstanceId> = known.holds.iter().filter(|(_, hold)| open(hold)).map(|(id, _)| id.clone()).collect();
    if ids.is_empty() {
        return Ok(Ok(ids));
    }
    let now = tools.clock.now();
    let seen = match provider.instances(&Select::Ids(ids.clone())).await {
        Ok(seen) => seen,
        Err(error) => return failed(tools, case, step, error).await.map(Err),
    };
    let is_witnessed = witness::is_shown(seen.iter());
    let seen: BTreeMap<&InstanceId, &Instance> = seen.iter().map(|seen| (&seen.id, seen)).collect();
    if seen.len() < ids.len()
        && !is_witnessed
        && let Some(done) = is_strange(tools, case, provider, step).await?
    {
        return Ok(Err(done));
    }
    let mut missing = false;
    for id in &ids {
        if seen.contains_key(id) {
            case.missing.remove(id);
        } else {
            // Absence is believed only when it is seen twice.
            missing |= now < later(*case.missing.entry(id.clone()).or_insert(now), MISSING);
        }
    }
    if missing {
        case.waiting = None;
        return Ok(Err(Done::Wait(MISSING)));
    }
    let free = |id: &InstanceId| is_free(&known.holds[id], seen.get(id).copied(), key, known.disruption);
    Ok(Ok(ids.into_iter().filter(|id| !free(id)).collect()))
}
