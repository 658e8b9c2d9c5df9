//! Prepare, Bind and Activate: ask the brain what it wants of each instance of a batch, guard, and call. No instance is
//! disturbed that was not seen, less than 10 s ago, in the state that the call is for.

use std::collections::BTreeMap;

use crate::model::{Duration, InstanceId, KeyPairId, Timestamp};
use crate::provider::{Error, Instance, Provider};
use crate::rotation::policy::{FRESH, later};
use crate::rotation::{Call, Found, HoldReason, KeySource, Sight, Step, Want};

use super::super::accounts::{self, Reservation};
use super::super::case::Case;
use super::super::look::{look, shared_since, sight};
use super::super::record::append;
use super::super::{EngineError, Tools, guard};
use super::{Done, call, failed, hold, kept, look_interval, retire, settle, verify};

/// Room in the account is looked for this often.
const ROOM: Duration = Duration::from_secs(5);

pub(super) async fn act(tools: &Tools, case: &mut Case, step: Step) -> Result<Done, EngineError> {
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(Duration::from_secs(1))) };
    let now = tools.clock.now();
    let ids = case.rotation()?.attended(step.batch().unwrap_or_default(), now);
    let since = shared_since(now);
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await {
        return failed(tools, case, step, error).await;
    }
    let rotation = case.rotation()?;
    let (mut records, mut calls, mut waits) = (Vec::new(), BTreeMap::<Call, Vec<Found>>::new(), false);
    for id in &ids {
        let Some(sight) = sight(case, id, since, now) else {
            waits = true;
            continue;
        };
        match rotation.want(step, id, sight, now) {
            Want::Nothing => {}
            Want::Wait => waits = true,
            Want::Record(finding) => records.push((id.clone(), finding)),
            Want::Call(call) => {
                if let Sight::Seen(seen) = sight {
                    calls.entry(call).or_default().push(found(seen));
                }
            }
        }
    }
    if !records.is_empty() {
        let events = settle::events(tools, case, records)?;
        append(tools, case, &events).await?;
        return Ok(Done::Recorded);
    }
    // One bind for the whole batch: while some of it is still being stopped, the others wait for them.
    let stopping = |id: &InstanceId| {
        let pending = rotation.member(id).and_then(|member| member.pending.as_ref());
        pending.is_some_and(|pending| pending.call == Call::Stop)
    };
    if matches!(step, Step::Bind(_)) && waits && ids.iter().any(stopping) {
        return Ok(Done::Wait(look_interval(None, now)));
    }
    for (call, found) in calls {
        if let Some(done) = guarded(tools, case, provider.as_ref(), step, call, found).await? {
            return Ok(done);
        }
    }
    if case.waiting.is_some() && !matches!(step, Step::Activate(_)) {
        // Others of the account are to come back first: their entries do not wake this journal.
        return Ok(Done::Wait(ROOM));
    }
    let oldest = ids.iter().filter_map(|id| case.rotation().ok()?.member(id)?.pending.as_ref().map(|p| p.since)).min();
    Ok(Done::Wait(look_interval(oldest, now)))
}

/// Makes a call if its guard lets it through; `None`: nobody may go now.
async fn guarded(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    step: Step,
    call: Call,
    found: Vec<Found>,
) -> Result<Option<Done>, EngineError> {
    let rotation = case.rotation()?;
    let disturbs = matches!(call, Call::Stop | Call::Bind | Call::Reboot);
    let is_owed = |id: &InstanceId| rotation.member(id).is_some_and(|member| member.owed.is_some());
    let mut found = if disturbs { guard::room(found, rotation.room(), &is_owed) } else { found };
    let limits = provider.limits();
    found.truncate(if call == Call::Bind { limits.bind_max } else { limits.power_max });
    if found.is_empty() {
        return Ok(None);
    }
    if disturbs && let Some(done) = verify::pin(tools, case, step, &found).await? {
        return Ok(Some(done));
    }
    if disturbs && let Err(reason) = guard::clock(provider.clock_difference()) {
        return hold(tools, case, reason).await.map(Some);
    }
    if call == Call::Bind {
        let refused = match case.rotation()?.plan.key.clone() {
            KeySource::Stranger { key_pair, .. } => guard_back(tools, case, provider, &key_pair, &found).await?,
            KeySource::Generate | KeySource::Existing { .. } | KeySource::Adopted { .. } => {
                guard_bind(tools, case, provider).await?
            }
        };
        match refused {
            Ok(()) => {}
            Err(Refused::Hold(reason)) => return hold(tools, case, reason).await.map(Some),
            Err(Refused::Failed(error)) => return failed(tools, case, step, error).await.map(Some),
        }
    }
    let reserved = match disturbs {
        true => accounts::reserve(tools, case, found).await?,
        false => Reservation::of(found),
    };
    if reserved.found.is_empty() {
        return Ok(None);
    }
    let found = &reserved.found;
    // The looks may be old by now (a slow answer, a throttle): then everybody is looked at again first.
    let looked =
        found.iter().filter_map(|found| case.seen.get(&found.instance, Timestamp::MIN)).map(|(at, _)| at).min();
    let Some(looked) = looked.filter(|at| tools.clock.now() < later(*at, FRESH)) else {
        let ids: Vec<InstanceId> = found.iter().map(|found| found.instance.clone()).collect();
        case.seen.forget(&ids);
        return Ok(None);
    };
    call::make(tools, case, provider, step, call, reserved, looked).await.map(Some)
}

/// Why a bind is not called.
enum Refused {
    /// The guard's word.
    Hold(HoldReason),
    /// The cloud or custody could not be asked.
    Failed(Error),
}

async fn guard_bind(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
) -> Result<Result<(), Refused>, EngineError> {
    let now = tools.clock.now();
    let fresh = case.kept.take().filter(|(at, _)| *at <= now && now < later(*at, FRESH));
    let kept = match fresh {
        Some(kept) => Ok(kept),
        None => match kept(tools, case).await {
            Ok(word) => word.map(|key| (tools.clock.now(), key.public().clone())),
            Err(error) => return Ok(Err(Refused::Failed(error))),
        },
    };
    case.kept = kept.as_ref().ok().cloned();
    let shown = match provider.find_key_pair(case.plan.key_name()).await {
        Ok(shown) => shown,
        Err(error) => return Ok(Err(Refused::Failed(error))),
    };
    let rotation = case.rotation()?;
    let (Some((public_key, _)), Some((_, journalled))) = (&rotation.key, &rotation.key_pair) else {
        return Ok(Err(Refused::Hold(HoldReason::KeyMismatch)));
    };
    let guarded = guard::bind(public_key, kept.map(|(_, public_key)| public_key), shown.as_ref());
    let same = shown.as_ref().map(|pair| &pair.id) == Some(journalled);
    Ok(guarded.and(if same { Ok(()) } else { Err(HoldReason::KeyMismatch) }).map_err(Refused::Hold))
}

async fn guard_back(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    key_pair: &KeyPairId,
    found: &[Found],
) -> Result<Result<(), Refused>, EngineError> {
    let pairs = match provider.key_pairs("").await {
        Ok(pairs) => pairs,
        Err(error) => return Ok(Err(Refused::Failed(error))),
    };
    let shown = pairs.iter().find(|pair| pair.id == *key_pair);
    if let (None, Some(undone)) = (&case.undone, case.rotation()?.plan.undoes) {
        case.undone = retire::load(tools.journal.as_ref(), undone).await?.map(|(rotation, _)| Box::new(rotation));
    }
    let planned = case.rotation()?.key.as_ref().map(|(public_key, _)| public_key);
    Ok(guard::bind_back(key_pair, planned, shown, found, case.undone.as_deref()).map_err(Refused::Hold))
}

pub(super) fn found(seen: &Instance) -> Found {
    Found { instance: seen.id.clone(), power: seen.power, keys: seen.keys.clone(), boot: seen.boot.clone() }
}
