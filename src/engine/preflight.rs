//! What is found out before a rotation begins: questions to the cloud and to the machines, none of which changes anything.
//! What the answers come to, the brain judges. It must never log in, nor call for a change that is no dry run.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use crate::model::{FleetName, Instance, InstanceId, KeyPairName, ProviderKind};
use crate::provider::{Error, Kind, Power, PowerChange, Provider, changes, way_on};
use crate::rotation::deliver::{File, SshConfig};
use crate::rotation::preflight::{Evidence, Finding, KeyPairs, Reach, Tried, judge, jump_key};
use crate::rotation::{Delivery, Draft, Part, PlannedInstance, Verify, hazard};
use crate::ssh::{LoginProbe, Target};

use super::Tools;
use super::act::Way;
use super::act::verify::AT_ONCE;
use super::planner::{Fleet, PlanError};

/// So many machines are asked for their host keys for each one of the canary …
const ASKED_EACH: usize = 4;
/// … and no more than this.
const ASKED_MAX: usize = 64;

/// What was asked of the cloud before the batches were drafted.
pub(super) struct Foretold {
    denied: Vec<InstanceId>,
    unasked: Option<Error>,
    left_out: Vec<InstanceId>,
    /// The files of its deliveries that could not be written now, with the reason.
    pub undeliverable: Vec<String>,
    /// Why the jump host's key cannot be used.
    pub jump_key: Option<String>,
}

/// Makes those of a listing unfit that a stop could hurt, or that the cloud says it would refuse.
pub(super) async fn leave_out(provider: &dyn Provider, fleet: &Fleet, listing: &mut [Instance]) -> Foretold {
    let fit = |listing: &[Instance]| -> BTreeSet<InstanceId> {
        let fit = listing.iter().filter(|seen| seen.unfit.is_none() && seen.power != Power::Gone);
        fit.map(|seen| seen.id.clone()).collect()
    };
    let disruption = provider.limits().disruption;
    let before = fit(listing);
    hazard::leave_out(listing, disruption, &fleet.allow, &[]);
    let unhurt = fit(listing);
    let asked: Vec<InstanceId> = unhurt.iter().cloned().collect();
    // It is a forecast: that it cannot be had is told, and is no reason to stop.
    let (denied, unasked) = match provider.denied(&asked).await {
        Ok(denied) => (denied, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    hazard::leave_out(listing, disruption, &fleet.allow, &denied);
    let left = fit(listing);
    Foretold {
        denied: unhurt.difference(&left).cloned().collect(),
        unasked,
        left_out: before.difference(&unhurt).cloned().collect(),
        undeliverable: Vec::new(),
        jump_key: None,
    }
}

/// The files of a fleet's deliveries that could not be written now, with the reason.
pub(super) async fn undeliverable(tools: &Tools, fleet: &Fleet) -> Vec<String> {
    let files: Vec<File> = fleet
        .deliver
        .iter()
        .filter_map(|delivery| match delivery {
            Delivery::Exec(_) => None,
            Delivery::Copy(file) | Delivery::SshConfig(SshConfig { file, .. }) => Some(file.clone()),
        })
        .collect();
    let disk = tools.surroundings.files.clone();
    let tried = tokio::task::spawn_blocking(move || {
        let tried = files.iter().map(|File { to, owner, .. }| disk.can_replace(to, owner.as_deref()));
        tried.filter_map(|tried| tried.err().map(|error| error.to_string())).collect()
    });
    tried.await.unwrap_or_else(|cut_off| vec![format!("its files could not be tried: {cut_off}")])
}

/// Why the jump host's key cannot be used, if there is one and it cannot.
pub(super) fn jump_key_problem(tools: &Tools, verify: &Verify) -> Option<String> {
    let Verify::Ssh(login) = verify else { return None };
    Way::open(tools, login).err().map(|error| error.to_string())
}

/// The way to a fleet's machines, where logins prove keys; refused where the jump host's key cannot be used.
pub(super) fn way(tools: &Tools, fleet: &FleetName, verify: &Verify) -> Result<Option<Way>, PlanError> {
    let Verify::Ssh(login) = verify else { return Ok(None) };
    let refused = |problem: String| PlanError::Preflight { fleet: fleet.clone(), findings: vec![jump_key(&problem)] };
    Way::open(tools, login).map(Some).map_err(|error| refused(error.to_string()))
}

/// Who of the first machines of a draft answers at sshd. Nobody logs in. `None` where no login proves a key, or the way
/// there is closed.
pub(super) async fn reach(
    tools: &Tools,
    verify: &Verify,
    listing: &[Instance],
    draft: &Draft,
) -> Option<(BTreeSet<InstanceId>, Reach)> {
    let Verify::Ssh(login) = verify else { return None };
    let way = Way::open(tools, login).ok()?;
    let canary = draft.instances.iter().filter(|one| one.part == Part::Batch(0)).count();
    let seen: BTreeMap<&InstanceId, &Instance> = listing.iter().map(|seen| (&seen.id, seen)).collect();
    let runs = |one: &&PlannedInstance| matches!(one.part, Part::Batch(_)) && one.power == Power::Running;
    let asked: Vec<(InstanceId, Result<Target, String>)> = draft
        .instances
        .iter()
        .filter(runs)
        .filter_map(|one| Some((one.id.clone(), way.target(seen.get(&one.id)?))))
        .take((canary * ASKED_EACH).min(ASKED_MAX))
        .collect();
    let (number, probe) = (asked.len(), tools.probe.as_ref());
    let answers: Vec<Option<InstanceId>> =
        stream::iter(asked).map(|asked| answers(probe, asked)).buffer_unordered(AT_ONCE).collect().await;
    let reachable: BTreeSet<InstanceId> = answers.into_iter().flatten().collect();
    let reach = Reach { asked: number, answered: reachable.len(), canary };
    Some((reachable, reach))
}

async fn answers(probe: &dyn LoginProbe, (id, target): (InstanceId, Result<Target, String>)) -> Option<InstanceId> {
    probe.host_key(&target.ok()?, None).await.ok().map(|_| id)
}

/// Everything that can be found out about a draft. Only a fault that would stop the planning too is an error: the cloud is
/// out of order.
pub(super) async fn findings(
    provider: &dyn Provider,
    fleet: &Fleet,
    fleets: usize,
    listing: &[Instance],
    draft: &Draft,
    foretold: Foretold,
    reach: Option<Reach>,
) -> Result<Vec<Finding>, Error> {
    let limits = provider.limits();
    let mut tried = Vec::new();
    let key_pairs = match provider.key_pairs("").await {
        Ok(pairs) => {
            Some(places(provider, pairs.into_iter().map(|pair| pair.name).collect(), fleets, &mut tried).await)
        }
        Err(error) if error.kind == Kind::Denied => {
            tried.push(tried_one(limits.provider, error, true));
            None
        }
        Err(error) => return Err(error),
    };
    let batched: BTreeMap<&InstanceId, &PlannedInstance> =
        draft.instances.iter().filter(|one| matches!(one.part, Part::Batch(_))).map(|one| (&one.id, one)).collect();
    rehearse(provider, &batched, &mut tried).await;
    let passed: Vec<&str> = tried.iter().filter(|one| one.result.is_ok()).map(|one| one.action.as_str()).collect();
    let untried = changes(limits.provider).filter(|action| !passed.contains(action)).collect();
    let of = |ids: &[InstanceId], seen: &Instance| ids.contains(&seen.id);
    let in_batches = || listing.iter().filter(|seen| batched.contains_key(&seen.id));
    let ids = |seen: &mut dyn Iterator<Item = &Instance>| seen.map(|seen| seen.id.clone()).collect::<Vec<_>>();
    let evidence = Evidence {
        clock_difference: provider.clock_difference().map(|difference| difference.as_secs()),
        key_pairs,
        tried,
        untried,
        unasked: foretold.unasked.map(|error| {
            let way_on = way_on(limits.provider, &error);
            (error, way_on)
        }),
        denied: foretold.denied,
        left_out: listing
            .iter()
            .filter(|seen| of(&foretold.left_out, seen))
            .map(|seen| (seen.id.clone(), &seen.hazards - &fleet.allow))
            .collect(),
        taken_along: ids(&mut in_batches().filter(|seen| !hazard::endangered(seen, limits.disruption).is_empty())),
        unbilled: ids(&mut in_batches().filter(|seen| {
            seen.power == Power::Stopped && seen.hazards.contains(&crate::provider::Hazard::StopCharging)
        })),
        loses_password: ids(&mut in_batches().filter(|seen| seen.keys.is_empty())),
        canary_runs: batched.values().any(|one| one.part == Part::Batch(0) && one.power == Power::Running),
        reach,
        jump_key: foretold.jump_key,
        undeliverable: foretold.undeliverable,
    };
    Ok(judge(&evidence))
}

/// How many key pairs there may be: by the account's own quota where it may be asked for, else by the cloud's pages.
async fn places(provider: &dyn Provider, there: Vec<KeyPairName>, fleets: usize, tried: &mut Vec<Tried>) -> KeyPairs {
    let documented = provider.limits().key_pairs_max;
    let (max, told) = match provider.key_pairs_max().await {
        Ok(Some(max)) => (Some(max), true),
        Ok(None) => (documented, false),
        Err(error) => {
            // The pages' number does for a forecast: a rotation needs no such question.
            tried.push(tried_one(provider.limits().provider, error, false));
            (documented, false)
        }
    };
    KeyPairs { there, max, told, fleets }
}

/// Tries the calls that a rotation makes of machines as they are now, where the cloud has dry runs: one of each.
async fn rehearse(provider: &dyn Provider, batched: &BTreeMap<&InstanceId, &PlannedInstance>, tried: &mut Vec<Tried>) {
    for (change, power) in [(PowerChange::Reboot, Power::Running), (PowerChange::Start, Power::Stopped)] {
        let Some(one) = batched.values().find(|one| one.power == power) else { continue };
        tried.extend(match provider.rehearse(change, std::slice::from_ref(&one.id)).await {
            Ok(None) => None,
            Ok(Some(action)) => {
                Some(Tried { action: action.to_string(), result: Ok(()), needed: true, grant: String::new() })
            }
            Err(error) => Some(tried_one(provider.limits().provider, error, true)),
        });
    }
}

fn tried_one(kind: ProviderKind, error: Error, needed: bool) -> Tried {
    let action = error.action.clone();
    Tried { grant: way_on(kind, &error), action, result: Err(error), needed }
}

/// How many fleets of the file live where this one does, itself among them.
pub(super) fn fleets_there(fleet: &Fleet, others: &[Fleet]) -> usize {
    let beside: BTreeSet<&FleetName> =
        others.iter().filter(|other| other.place == fleet.place).map(|other| &other.name).collect();
    beside.len() + usize::from(!beside.contains(&fleet.name))
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
