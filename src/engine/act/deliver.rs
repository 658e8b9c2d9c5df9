//! Deliver: the private half of the proven key goes where the plan wants it besides custody, one delivery after the other.
//! It must never deliver a half that is not the journal's, nor let one into a log, an argument or an environment. One that
//! was cut off by a crash is made again.

use std::collections::BTreeSet;
use std::sync::Mutex;

use futures_util::FutureExt;
use zeroize::Zeroizing;

use crate::hook::{Fault, Run};
use crate::model::error::{Blame, Effect, Error, Kind};
use crate::model::{Duration, InstanceId};
use crate::provider::Instance;
use crate::rotation::deliver::{Delivery, File, Host, SshConfig, ssh_config};
use crate::rotation::{AddressFrom, Call, Event, HoldReason, HookCommand, Member, Rotation, Sight, Step, Verify};

use super::super::case::Case;
use super::super::look::{MISSING, look, shared_since, sight};
use super::super::record::{Appended, append};
use super::super::{EngineError, Tools, guard};
use super::{Done, failed, hold, kept, load, way};

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
            // What it printed stays out of the journal: it has read a private key.
            Some(Err(Fault { why, .. })) => {
                failed(tools, case, Step::Deliver, error(&what, Kind::Unavailable, why)).await
            }
        };
    }
    let key = match kept(tools, case).await {
        Ok(Ok(key)) => key,
        Err(error) => return failed(tools, case, Step::Deliver, error).await,
        Ok(Err(problem)) => return hold(tools, case, HoldReason::Custody { problem }).await,
    };
    if let Some((journalled, _)) = &case.rotation()?.key
        && let Err(reason) = guard::custody(journalled, Ok(key.public().clone()))
    {
        return hold(tools, case, reason).await;
    }
    let hosts = match &what {
        Delivery::SshConfig(_) => match hosts(tools, case).await? {
            Ok(Some(hosts)) => hosts,
            Ok(None) => return Ok(Done::Wait(MISSING)),
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
        Delivery::Copy(file) => replace(tools, file, Zeroizing::new(key.expose().to_string())).await,
        Delivery::SshConfig(SshConfig { file, identity_file }) => {
            let text = ssh_config(rotation.plan.fleet.as_str(), &hosts, &rotation.plan.policy.verify, identity_file);
            replace(tools, file, text.into()).await
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

/// Replaces a file. A disk that hangs keeps this journal from going on, and no other.
async fn replace(tools: &Tools, file: &File, content: Zeroizing<String>) -> std::io::Result<()> {
    let (files, File { to, mode, owner }) = (tools.surroundings.files.clone(), file.clone());
    let written = tokio::task::spawn_blocking(move || files.replace(&to, mode, owner.as_deref(), content.as_bytes()));
    written.await.unwrap_or_else(|cut_off| Err(std::io::Error::other(cut_off.to_string())))
}

/// The machines that hang on the key and that the cloud still has, whichever journal bound them, and where each is logged in
/// to; `None`: one is missing for the first time.
async fn hosts(tools: &Tools, case: &mut Case) -> Result<Result<Option<Vec<Host>>, Error>, EngineError> {
    let provider = match (tools.providers)(case.plan.place()) {
        Ok(provider) => provider,
        Err(problem) => return Ok(Err(unavailable(problem.to_string()))),
    };
    let takes_part = |member: &Member| member.bound.is_some() && !member.gone && member.excluded.is_none();
    let mut ids: BTreeSet<InstanceId> = BTreeSet::new();
    for head in tools.journal.named(case.plan.key_name()).await? {
        let rotation = match head.id == case.id {
            true => None,
            false => load(tools.journal.as_ref(), head.id).await?.map(|(rotation, _)| rotation),
        };
        let rotation = if head.id == case.id { Some(case.rotation()?) } else { rotation.as_ref() };
        let members =
            rotation.into_iter().filter(|one| one.plan.fleet == *case.plan.fleet()).flat_map(Rotation::members);
        ids.extend(members.filter(|(_, member)| takes_part(member)).map(|(id, _)| id.clone()));
    }
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    let address = match &case.rotation()?.plan.policy.verify {
        Verify::Ssh(login) => Some(login.address.clone()),
        Verify::None => None,
    };
    let now = tools.clock.now();
    let since = shared_since(now);
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, since).await {
        return Ok(Err(error));
    }
    let mut hosts = Vec::new();
    for id in &ids {
        let seen: &Instance = match sight(case, id, since, now) {
            Some(Sight::Seen(seen)) => seen,
            Some(Sight::Missing) => continue,
            None => return Ok(Ok(None)),
        };
        let of = |from: &AddressFrom| way::address(from, seen).ok();
        let found = match &address {
            Some(from) => of(from),
            None => of(&AddressFrom::Private).or_else(|| of(&AddressFrom::Public)),
        };
        // Without an address it stands there all the same, as left out.
        hosts.push(Host { instance: id.clone(), name: seen.name.clone(), address: found.unwrap_or_default() });
    }
    Ok(Ok(Some(hosts)))
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
