//! Making a call for a group of instances: intent, call, outcome. A cloud that fails a whole batch for one bad instance is
//! answered by halving: look first (the good ones may have been done), send the difference, halve until the culprit stands
//! alone. Halving lives in here only; after a crash it begins anew.

use crate::model::{InstanceId, Timestamp};
use crate::provider::{Accepted, Blame, Effect, Error, Instance, Kind, Power, PowerChange, Provider};
use crate::rotation::policy::{FRESH, TRIES_MAX, later};
use crate::rotation::{Call, Event, ExcludedInstance, Exclusion, Found, Step};

use super::super::accounts::Reservation;
use super::super::case::Case;
use super::super::look::look;
use super::super::record::{Appended, append, catch_up};
use super::super::{EngineError, Tools};
use super::{Done, retry_at};

/// Makes a call for all whom the guard has let through, and whom a look showed so at `looked`.
pub(super) async fn make(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    step: Step,
    call: Call,
    reserved: Reservation,
    mut looked: Timestamp,
) -> Result<Done, EngineError> {
    let found = reserved.found.clone();
    let started = Event::Started { step, call, found: found.clone() };
    let all: Vec<InstanceId> = found.iter().map(|found| found.instance.clone()).collect();
    let appended = append(tools, case, &[started]).await?;
    // From here on the entry counts.
    drop(reserved);
    if appended == Appended::AfterOperator {
        // Decided before the operator spoke: not sent. What stands in the journal says that it may have been, so it is taken back.
        let error = Error { message: "an operator's entry came first".into(), ..not_sent(call) };
        append(tools, case, &[failure(tools, case, step, all, error)]).await?;
        return Ok(Done::Recorded);
    }
    case.seen.forget(&all);
    // With each group, whether a call for it may have been done already.
    let mut groups = vec![(found, false)];
    let mut first = true;
    while let Some((mut group, maybe)) = groups.pop() {
        let ids: Vec<InstanceId> = group.iter().map(|found| found.instance.clone()).collect();
        if !first {
            looked = tools.clock.now();
            if let Err(error) = look(tools, case, provider, &ids, looked).await {
                groups.push((group, maybe));
                give_up(tools, case, step, call, groups, error).await?;
                return Ok(Done::Recorded);
            }
            group.retain(|found| still_wanted(case, call, found));
            // What shows as done is settled by the next look.
            if group.is_empty() {
                continue;
            }
            catch_up(tools, case).await?;
            if call != Call::Start && case.course.is_halted() {
                groups.push((group, maybe));
                let error = Error { message: "held meanwhile".into(), ..not_sent(call) };
                give_up(tools, case, step, call, groups, error).await?;
                return Ok(Done::Recorded);
            }
        }
        first = false;
        let ids: Vec<InstanceId> = group.iter().map(|found| found.instance.clone()).collect();
        let before = later(looked, FRESH);
        let answer = send(case, provider, call, &ids, before).await;
        case.seen.forget(&ids);
        match answer {
            Ok(accepted) => append_accepted(tools, case, step, ids, accepted, maybe).await?,
            Err(error) if group.len() > 1 && halves(case, step, &error) => {
                let second = group.split_off(group.len() / 2);
                let maybe = maybe || error.effect == Effect::Unknown;
                groups.push((second, maybe));
                groups.push((group, maybe));
            }
            Err(error) if group.len() == 1 && error.blame == Blame::Instance => {
                append_single(tools, case, step, &ids[0], unsure(error, maybe)).await?;
            }
            Err(error) => {
                let failure = failure(tools, case, step, ids, unsure(error.clone(), maybe));
                append(tools, case, &[failure]).await?;
                if !groups.is_empty() {
                    give_up(tools, case, step, call, groups, error).await?;
                }
                return Ok(Done::Recorded);
            }
        }
    }
    Ok(Done::Recorded)
}

async fn send(
    case: &Case,
    provider: &dyn Provider,
    call: Call,
    ids: &[InstanceId],
    before: Timestamp,
) -> Result<Accepted, Error> {
    let Ok(rotation) = case.rotation() else { return Err(not_sent(call)) };
    match call {
        Call::Bind => match &rotation.key_pair {
            Some((_, key_pair)) => provider.bind(key_pair, ids, before).await,
            None => Err(not_sent(call)),
        },
        Call::Stop => {
            let force = rotation.plan.policy.force_stop;
            provider.power(PowerChange::Stop { force }, ids, before).await
        }
        Call::Start => provider.power(PowerChange::Start, ids, before).await,
        Call::Reboot => provider.power(PowerChange::Reboot, ids, before).await,
        Call::Put | Call::Import | Call::Deliver | Call::Delete | Call::Destroy => Err(not_sent(call)),
    }
}

/// Whether a group is halved: somebody in it is to blame, or stays busy however often it is tried.
fn halves(case: &Case, step: Step, error: &Error) -> bool {
    match error.kind {
        Kind::Busy => case.course.tries(step) >= 3,
        _ => error.blame == Blame::Instance,
    }
}

/// Whether a fresh look still shows the difference that the call is for.
fn still_wanted(case: &Case, call: Call, found: &Found) -> bool {
    let Ok(rotation) = case.rotation() else { return false };
    let Some((_, Some(seen))) = case.seen.get(&found.instance, Timestamp::MIN) else { return false };
    let seen: &Instance = seen;
    let ours = rotation.key_pair.as_ref().is_some_and(|(_, ours)| seen.keys.contains(ours));
    !seen.is_busy()
        && match call {
            Call::Bind => !ours && seen.keys.iter().all(|key| found.keys.contains(key)) && seen.power == found.power,
            Call::Stop => seen.power == Power::Running,
            Call::Start => seen.power == Power::Stopped,
            Call::Reboot => seen.power == Power::Running && seen.boot == found.boot,
            _ => false,
        }
}

async fn append_accepted(
    tools: &Tools,
    case: &mut Case,
    step: Step,
    ids: Vec<InstanceId>,
    accepted: Accepted,
    maybe: bool,
) -> Result<(), EngineError> {
    let refused = |id: &InstanceId| accepted.refused.iter().any(|(refused, _)| refused == id);
    let instances: Vec<InstanceId> = ids.iter().filter(|id| !refused(id)).cloned().collect();
    if !instances.is_empty() {
        append(tools, case, &[Event::Accepted { step, instances, request_id: accepted.request_id }]).await?;
    }
    for (id, error) in accepted.refused {
        if ids.contains(&id) {
            append_single(tools, case, step, &id, unsure(error, maybe)).await?;
        }
    }
    Ok(())
}

/// One instance was refused: for good, for the moment, or because it has what is asked for already.
async fn append_single(
    tools: &Tools,
    case: &mut Case,
    step: Step,
    id: &InstanceId,
    error: Error,
) -> Result<(), EngineError> {
    let for_good = matches!(error.kind, Kind::Unsupported | Kind::NotFound | Kind::Invalid);
    let mut events = Vec::new();
    if error.kind == Kind::Already {
        // The next looks say whether it is so.
        events.push(Event::Accepted { step, instances: vec![id.clone()], request_id: None });
    } else {
        // Also before an exclusion: it says that the call was not done, so nothing of ours is under way there.
        let excludes = for_good && !matches!(step, Step::Activate(_));
        let reason = Exclusion::Refused(error.clone());
        events.push(failure(tools, case, step, vec![id.clone()], error));
        if excludes {
            events.push(Event::Excluded { instances: vec![ExcludedInstance { instance: id.clone(), reason }] });
        }
    }
    append(tools, case, &events).await?;
    Ok(())
}

/// A refusal speaks of the newest call only: where an earlier one for the same may have been done, that stays unknown.
fn unsure(error: Error, maybe: bool) -> Error {
    let effect = if maybe { Effect::Unknown } else { error.effect };
    Error { effect, ..error }
}

/// The groups that are not sent any more: said so, or they would count as under way. What an earlier call may have done
/// stays unknown.
async fn give_up(
    tools: &Tools,
    case: &mut Case,
    step: Step,
    call: Call,
    groups: Vec<(Vec<Found>, bool)>,
    error: Error,
) -> Result<(), EngineError> {
    for effect in [Effect::NotDone, Effect::Unknown] {
        let these = groups.iter().filter(|(_, maybe)| *maybe == (effect == Effect::Unknown));
        let ids: Vec<InstanceId> = these.flat_map(|(group, _)| group).map(|found| found.instance.clone()).collect();
        if !ids.is_empty() {
            let (code, message) = (error.code.clone(), error.message.clone());
            let error = Error { effect, code, message, ..not_sent(call) };
            append(tools, case, &[failure(tools, case, step, ids, error)]).await?;
        }
    }
    Ok(())
}

fn failure(tools: &Tools, case: &Case, step: Step, instances: Vec<InstanceId>, error: Error) -> Event {
    let own = match &instances[..] {
        [only] => {
            case.rotation().ok().and_then(|rotation| rotation.member(only)?.retry.as_ref()).map(|retry| retry.tries)
        }
        _ => None,
    };
    let tries = own.unwrap_or(0).max(case.course.tries(step));
    // A start that is refused again and again is tried for ever, once a minute.
    let tries = if tries >= TRIES_MAX { 6 } else { tries };
    let retry_at = retry_at(tools, tries, &error);
    Event::Failed { step, instances, error, retry_at }
}

fn not_sent(call: Call) -> Error {
    Error {
        kind: Kind::Busy,
        effect: Effect::NotDone,
        blame: Blame::Request,
        action: call.name().to_string(),
        code: "not-sent".to_string(),
        message: String::new(),
        request_id: None,
        retry_after: None,
    }
}
