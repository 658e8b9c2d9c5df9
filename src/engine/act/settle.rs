//! Settle: look at everything that is under way in a batch, and write down what has come true. It makes no call that
//! changes anything.

use crate::model::{Duration, InstanceId};
use crate::provider::{Blame, Effect, Error, Kind};
use crate::rotation::{Event, ExcludedInstance, Finding, Step};

use super::super::case::Case;
use super::super::look::{look, shared_since, sight};
use super::super::record::append;
use super::super::{EngineError, Tools};
use super::{Done, failed, look_interval, retry_at};

/// Between two looks for a reboot that the cloud does by itself.
const OFTEN: Duration = Duration::from_millis(250);

pub(super) async fn act(tools: &Tools, case: &mut Case, batch: u32) -> Result<Done, EngineError> {
    let step = Step::Settle(batch);
    let now = tools.clock.now();
    let open = |case: &Case| -> Result<Vec<InstanceId>, EngineError> {
        let rotation = case.rotation()?;
        let is_open = |id: &&InstanceId| rotation.member(id).is_some_and(|member| member.is_open(now));
        Ok(rotation.batch(batch).iter().filter(is_open).cloned().collect())
    };
    let ids = open(case)?;
    let Some(provider) = case.provider.clone() else { return Ok(Done::Wait(look_interval(None, now))) };
    let since = shared_since(now);
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await {
        return failed(tools, case, step, error).await;
    }
    let rotation = case.rotation()?;
    let mut findings = Vec::new();
    for id in &ids {
        // Deadlines pass by the time now; what was seen is as old as the look.
        if let Some(finding) = sight(case, id, since, now).and_then(|sight| rotation.finding(id, sight, now)) {
            findings.push((id.clone(), finding));
        }
    }
    if findings.is_empty() {
        // A reboot that the cloud does by itself is over soon, and seen is seen: one that is missed costs a second one.
        if ids.iter().any(|id| rotation.awaits_own_reboot(id, now)) {
            return Ok(Done::Wait(OFTEN));
        }
        let oldest = ids.iter().filter_map(|id| rotation.member(id)?.pending.as_ref().map(|pending| pending.since));
        return Ok(Done::Wait(look_interval(oldest.min(), now)));
    }
    let events = events(tools, case, findings)?;
    append(tools, case, &events).await?;
    Ok(Done::Recorded)
}

/// Findings as entries: the results of a batch are one append.
pub(super) fn events(
    tools: &Tools,
    case: &Case,
    findings: Vec<(InstanceId, Finding)>,
) -> Result<Vec<Event>, EngineError> {
    let rotation = case.rotation()?;
    let (mut stopped, mut changing, mut bound, mut activated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut running, mut excluded, mut gone, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, finding) in findings {
        match finding {
            Finding::Gone => gone.push(id),
            Finding::Stopped => stopped.push(id),
            Finding::Changing => changing.push(id),
            Finding::Bound(instance) => bound.push(instance),
            Finding::Activated => activated.push(id),
            Finding::Running => running.push(id),
            Finding::Excluded(reason) => excluded.push(ExcludedInstance { instance: id, reason }),
            Finding::OperationFailed(call) => {
                let batch = rotation.member(&id).map_or(0, |member| member.batch);
                let step = match call {
                    crate::rotation::Call::Stop => Step::Prepare(batch),
                    crate::rotation::Call::Bind => Step::Bind(batch),
                    _ => Step::Activate(batch),
                };
                let tries =
                    rotation.member(&id).and_then(|member| member.retry.as_ref()).map_or(0, |retry| retry.tries);
                let error = operation_failed(call.name());
                let retry_at = retry_at(tools, tries, &error);
                events.push(Event::Failed { step, instances: vec![id], error, retry_at });
            }
        }
    }
    if !stopped.is_empty() || !changing.is_empty() {
        events.push(Event::Down { stopped, changing });
    }
    if !bound.is_empty() {
        events.push(Event::Bound { instances: bound });
    }
    if !activated.is_empty() {
        events.push(Event::Activated { instances: activated });
    }
    if !running.is_empty() {
        events.push(Event::Running { instances: running });
    }
    if !gone.is_empty() {
        events.push(Event::Gone { instances: gone });
    }
    if !excluded.is_empty() {
        events.push(Event::Excluded { instances: excluded });
    }
    Ok(events)
}

/// The cloud took the call, and its operation ended in failure: this instance may be tried again, bounded.
fn operation_failed(action: &str) -> Error {
    Error {
        kind: Kind::InvalidState,
        effect: Effect::NotDone,
        blame: Blame::Instance,
        action: action.to_string(),
        code: "LatestOperationState=FAILED".to_string(),
        message: "the cloud took the call, and its operation failed".to_string(),
        request_id: None,
        retry_after: None,
    }
}
