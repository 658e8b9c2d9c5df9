//! The hooks around a batch: start the program, look now and then whether it has ended, write both down. It never waits for
//! one: starts that are owed, and operators, come first. A hook that was cut off by a crash is run again, unless the journal
//! was held meanwhile: then what it may have begun is followed by `after_batch`.

use std::sync::Mutex;

use futures_util::FutureExt;
use serde_json::json;

use crate::hook::{Fault, Run};
use crate::model::{Duration, InstanceId};
use crate::provider::Instance;
use crate::rotation::{Event, Hook, HookFailure};

use super::super::case::Case;
use super::super::look::{look, shared_since};
use super::super::record::{Appended, append};
use super::super::{EngineError, Tools};
use super::Done;

/// Between two looks at a running hook.
const OFTEN: Duration = Duration::from_millis(250);

pub(super) async fn act(tools: &Tools, case: &mut Case, hook: Hook, batch: u32) -> Result<Done, EngineError> {
    let running = case.hook.take().filter(|(step, _)| *step == hook.step(batch));
    if let Some((step, mut end)) = running {
        let ended = match end.get_mut() {
            Ok(end) => end.now_or_never(),
            Err(poisoned) => poisoned.into_inner().now_or_never(),
        };
        let Some(ended) = ended else {
            case.hook = Some((step, end));
            return Ok(Done::Wait(OFTEN));
        };
        let failure = ended.err().map(|Fault { why, output }| HookFailure { why, output });
        return end_with(tools, case, hook, batch, failure).await;
    }
    let rotation = case.rotation()?;
    if rotation.is_halted() && hook == Hook::BeforeBatch {
        let why = "it was held, or rekeyd ended, before it was done".to_string();
        return end_with(tools, case, hook, batch, Some(HookFailure { why, output: String::new() })).await;
    }
    let Some(command) = rotation.plan.policy.pace.hooks.get(hook).cloned() else {
        return end_with(tools, case, hook, batch, None).await;
    };
    let environment = vec![
        ("REKEYD_FLEET", rotation.plan.fleet.to_string()),
        ("REKEYD_ROTATION", rotation.id.to_string()),
        ("REKEYD_BATCH", batch.to_string()),
        ("REKEYD_HOOK", hook.name().to_string()),
    ];
    let concerns = |id: &&InstanceId| {
        rotation.member(id).is_some_and(|member| !member.gone && (hook == Hook::AfterBatch || !member.is_done()))
    };
    let ids: Vec<InstanceId> = rotation.batch(batch).iter().filter(concerns).cloned().collect();
    let since = shared_since(tools.clock.now());
    if let Some(provider) = case.provider.clone()
        && let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await
    {
        // Their ids are enough: who was drained is brought back though the cloud is away.
        tracing::warn!(journal = %case.id, %error, "a hook is told no more than ids");
    }
    let lines: Vec<String> =
        ids.iter().map(|id| line(id, case.seen.get(id, since).and_then(|(_, seen)| seen))).collect();
    let run = Run { command: command.command, timeout: command.timeout, environment, input: lines.concat().into() };
    let appended = append(tools, case, &[Event::HookStarted { hook, batch }]).await?;
    if appended == Appended::AfterOperator && case.course.is_halted() {
        return Ok(Done::Recorded);
    }
    let running = tools.surroundings.hooks.start(run).await;
    case.hook = Some((hook.step(batch), Mutex::new(running)));
    Ok(Done::Recorded)
}

async fn end_with(
    tools: &Tools,
    case: &mut Case,
    hook: Hook,
    batch: u32,
    failure: Option<HookFailure>,
) -> Result<Done, EngineError> {
    append(tools, case, &[Event::HookEnded { hook, batch, failure }]).await?;
    Ok(Done::Recorded)
}

/// An instance as a hook is told of it: one JSON object a line.
fn line(id: &InstanceId, seen: Option<&Instance>) -> String {
    let told = match seen {
        Some(seen) => json!({
            "id": id, "name": seen.name, "zone": seen.zone, "state": seen.state, "tags": seen.tags,
            "private_address": seen.private_address, "public_address": seen.public_address,
        }),
        None => json!({ "id": id }),
    };
    format!("{told}\n")
}
