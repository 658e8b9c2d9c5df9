//! Deliver: the private half of the proven key goes where the plan wants it besides custody, one delivery after the other.
//! It must never deliver a half that is not the journal's, nor let one into a log, an argument or an environment. One that
//! was cut off by a crash is made again.

use std::sync::Mutex;

use futures_util::FutureExt;
use zeroize::Zeroizing;

use crate::hook::{Fault, Run};
use crate::model::error::{Blame, Effect, Error, Kind};
use crate::model::{Duration, InstanceId};
use crate::provider::Instance;
use crate::rotation::deliver::{Delivery, File, Host, SshConfig, ssh_config};
use crate::rotation::{AddressFrom, Call, Event, HoldReason, HookCommand, HookFailure, Step, Verify};

use super::super::case::Case;
use super::super::look::{look, shared_since};
use super::super::record::{Appended, append};
use super::super::{EngineError, Tools, guard};
use super::{Done, failed, hold, kept, way};

/// Between two looks at a running program.
const OFTEN: Duration = Duration::from_millis(250);

pub(super) async fn act(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let Some(delivery) = case.rotation()?.to_deliver() else { return Ok(Done::Wait(OFTEN)) };
    let Some(what) = case.rotation()?.plan.policy.deliver.get(delivery as usize).cloned() else {
        return Ok(Done::Wait(OFTEN));
    };
    if let Some((step, mut end)) = case.hook.take().filter(|(step, _)| *step == Step::Deliver) {
        let ended = match end.get_mut() {
            Ok(end) => end.now_or_never(),
            Err(poisoned) => poisoned.into_inner().now_or_never(),
        };
        return match ended {
            None => {
                case.hook = Some((step, end));
                Ok(Done::Wait(OFTEN))
            }
            Some(Ok(())) => delivered(tools, case, delivery).await,
            Some(Err(Fault { why, output })) => {
                let failure = HookFailure { why, output };
                failed(tools, case, Step::Deliver, error(&what, Kind::Unavailable, failure.to_string())).await
            }
        };
    }
    let key = match kept(tools, case).await {
        Ok(Ok(key)) => key,
        Err(error) => return failed(tools, case, Step::Deliver, error).await,
        Ok(Err(problem)) => return hold(tools, case, HoldReason::Custody { problem }).await,
    };
    if let Some((journalled, _)) = &case.rotation()?.key
        && let Err(reason) = guard::custody(journalled, Ok(key.clone()))
    {
        return hold(tools, case, reason).await;
    }
    let hosts = match &what {
        Delivery::SshConfig(_) => match hosts(tools, case).await? {
            Ok(hosts) => hosts,
            Err(error) => return failed(tools, case, Step::Deliver, error).await,
        },
        _ => Vec::new(),
    };
    let started = Event::Started { step: Step::Deliver, call: Call::Deliver, found: Vec::new() };
    let appended = append(tools, case, &[started]).await?;
    if appended == Appended::AfterOperator && case.course.is_halted() {
        return Ok(Done::Recorded);
    }
    let rotation = case.rotation()?;
    let files = &tools.surroundings.files;
    let replace =
        |File { to, mode, owner }: &File, content: &str| files.replace(to, *mode, owner.as_deref(), content.as_bytes());
    let written = match &what {
        Delivery::Exec(HookCommand { command, timeout }) => {
            let environment = vec![
                ("REKEYD_FLEET", rotation.plan.fleet.to_string()),
                ("REKEYD_ROTATION", rotation.id.to_string()),
                ("REKEYD_KEY_NAME", rotation.plan.key_name.to_string()),
                ("REKEYD_PUBLIC_KEY", key.public().to_openssh()),
                ("REKEYD_HOOK", "deliver".to_string()),
            ];
            let input = Zeroizing::new(key.expose().to_string());
            let run = Run { command: command.clone(), timeout: *timeout, environment, input };
            let running = tools.surroundings.hooks.start(run).await;
            case.hook = Some((Step::Deliver, Mutex::new(running)));
            return Ok(Done::Recorded);
        }
        Delivery::Copy(file) => replace(file, key.expose()),
        Delivery::SshConfig(SshConfig { file, identity_file }) => {
            let text = ssh_config(rotation.plan.fleet.as_str(), &hosts, &rotation.plan.policy.verify, identity_file);
            replace(file, &text)
        }
    };
    match written {
        Ok(()) => delivered(tools, case, delivery).await,
        Err(problem) => {
            let kind = match problem.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                std::io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Unavailable,
            };
            failed(tools, case, Step::Deliver, error(&what, kind, problem.to_string())).await
        }
    }
}

async fn delivered(tools: &Tools, case: &mut Case, delivery: u32) -> Result<Done, EngineError> {
    append(tools, case, &[Event::Delivered { delivery }]).await?;
    Ok(Done::Recorded)
}

/// Why a delivery did not succeed, as the journal has it.
fn error(what: &Delivery, kind: Kind, message: String) -> Error {
    Error {
        kind,
        effect: Effect::Unknown,
        blame: Blame::Request,
        action: "deliver".to_string(),
        code: what.to_string(),
        message,
        request_id: None,
        retry_after: None,
    }
}

/// The machines of the plan that the cloud still has, and where each is logged in to.
async fn hosts(tools: &Tools, case: &mut Case) -> Result<Result<Vec<Host>, Error>, EngineError> {
    let provider = match (tools.providers)(case.plan.place()) {
        Ok(provider) => provider,
        Err(problem) => return Ok(Err(unavailable(problem.to_string()))),
    };
    let rotation = case.rotation()?;
    let takes_part = |member: &crate::rotation::Member| !member.gone && member.excluded.is_none();
    let ids: Vec<InstanceId> =
        rotation.members().filter(|(_, member)| takes_part(member)).map(|(id, _)| id.clone()).collect();
    let address = match &rotation.plan.policy.verify {
        Verify::Ssh(login) => Some(login.address.clone()),
        Verify::None => None,
    };
    let since = shared_since(tools.clock.now());
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await {
        return Ok(Err(error));
    }
    let host = |id: &InstanceId| {
        let (_, seen) = case.seen.get(id, since)?;
        let seen: &Instance = seen?;
        let of = |from: &AddressFrom| way::address(from, seen).ok();
        let address = match &address {
            Some(from) => of(from),
            None => of(&AddressFrom::Private).or_else(|| of(&AddressFrom::Public)),
        };
        Some(Host { instance: id.clone(), name: seen.name.clone(), address: address? })
    };
    Ok(Ok(ids.iter().filter_map(host).collect()))
}

fn unavailable(message: String) -> Error {
    Error {
        kind: Kind::Unavailable,
        effect: Effect::NotDone,
        blame: Blame::Account,
        action: "deliver".to_string(),
        code: String::new(),
        message,
        request_id: None,
        retry_after: None,
    }
}
