//! Catching up: who missed the fleet's key and can be reached now, and who came later. A read-only look at a fleet, and the
//! small rotation without a new key that comes of it. What disturbs nobody and what does are never in one rotation.

use futures_util::StreamExt;
use futures_util::stream;

use crate::model::{InstanceId, KeyPairId, KeyPairName, Login, PublicKey};
use crate::provider::{Instance, Limits, Power};
use crate::rotation::retire::current;
use crate::rotation::standing::{pins, stands};
use crate::rotation::{
    Draft, KeySource, Outcome, Part, Plan, PlannedInstance, Purpose, Rotation, Stand, Verify, draft,
};
use crate::ssh::LoginProbe;
use crate::store::Head;

use super::act::Way;
use super::drive::pairs;
use super::past::{Past, past};
use super::planner::{Fleet, PlanError, Proposal, claimed_by, drafted, planned_of};
use super::{Tools, preflight};

/// So many machines are asked at once whether they take the key.
const AT_ONCE: usize = 16;

/// Who misses the fleet's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// They were bound to it and never seen to accept it, or never proven; now they run, and take it.
    pub back: Vec<PlannedInstance>,
    /// The same, but they do not run, or cannot be reached, or do not take it.
    pub waiting: Vec<InstanceId>,
    /// They bear the tag, and were not there when the fleet was rotated.
    pub new: Vec<InstanceId>,
    key: Option<Key>,
    listing: Vec<Instance>,
}

/// The fleet's current pair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    key_name: KeyPairName,
    public_key: PublicKey,
    key_pair: KeyPairId,
}

/// Looks at an idle fleet; nothing is late in one that was never rotated, has a rotation open, or is back on a
/// stranger's pair.
pub async fn late(tools: &Tools, fleet: &Fleet, others: &[Fleet]) -> Result<Late, PlanError> {
    let heads = tools.journal.heads().await?;
    let of_fleet: Vec<&Head> = heads.of(&fleet.name).collect();
    let pairs = pairs(&of_fleet);
    let Some(name) = current(&pairs).filter(|_| pairs.iter().all(|pair| pair.ended.is_some())) else {
        return Ok(Late::default());
    };
    let past = past(tools.journal.as_ref(), &fleet.place).await?;
    let Some(key) = key_of(&past, name) else { return Ok(Late::default()) };
    // Without the way to them nobody can be told to be out of reach.
    let way = preflight::way(tools, &fleet.name, &fleet.verify)?;
    let provider = (tools.providers)(&fleet.place).map_err(|error| PlanError::Account(error.to_string()))?;
    let mut listing = provider.instances(&fleet.select).await?;
    // New ones that a stop could hurt are left out like those of any rotation.
    preflight::leave_out(provider.as_ref(), fleet, &mut listing).await;
    let stands = stands(&past);
    let known = rotated_since(&past, fleet, &of_fleet);
    let claimed = claimed_by(fleet, others);
    let mut late = Late::default();
    let mut asked = Vec::new();
    for seen in &listing {
        if claimed(seen).is_some() || seen.power == Power::Gone {
            continue;
        }
        let on = seen.keys.contains(&key.key_pair);
        match stands.get(&seen.id).filter(|stand| stand.key_name == key.key_name && on) {
            Some(stand) if is_late(stand, fleet) => asked.push((seen, stand)),
            Some(_) => {}
            None if on || known.contains(&seen.id) || seen.unfit.is_some() || seen.power == Power::Other => {}
            None => late.new.push(seen.id.clone()),
        }
    }
    let pins = pins(&past);
    let planned = |(seen, stand): (&Instance, &Stand)| Job {
        planned: PlannedInstance {
            id: seen.id.clone(),
            name: seen.name.clone(),
            power: seen.power,
            keys: seen.keys.clone(),
            part: Part::Batch(0),
            pin: pins.get(&seen.id).cloned(),
            known: Some(stand.known()),
        },
        seen: seen.clone(),
    };
    let jobs: Vec<Job> = asked.into_iter().map(planned).collect();
    let (probe, way, public_key) = (tools.probe.as_ref(), way.as_ref(), &key.public_key);
    let answers: Vec<(PlannedInstance, bool)> =
        stream::iter(jobs).map(|job| takes(probe, way, job, public_key)).buffer_unordered(AT_ONCE).collect().await;
    for (planned, takes) in answers {
        if takes { late.back.push(planned) } else { late.waiting.push(planned.id) }
    }
    late.back.sort_by(|a, b| a.id.cmp(&b.id));
    late.waiting.sort();
    late.new.sort();
    late.listing = listing.clone();
    late.key = Some(key);
    Ok(late)
}

/// Bound while it was switched off; or active, and logins prove keys here and none has.
fn is_late(stand: &Stand, fleet: &Fleet) -> bool {
    (stand.waits && !stand.active) || (stand.active && !stand.proven && matches!(fleet.verify, Verify::Ssh(_)))
}

/// A machine to be asked.
struct Job {
    seen: Instance,
    planned: PlannedInstance,
}

/// Whether a machine runs, and would take the key: a journal is begun only where something will come of it. Without logins
/// that it runs is all that can be asked.
async fn takes(probe: &dyn LoginProbe, way: Option<&Way>, job: Job, key: &PublicKey) -> (PlannedInstance, bool) {
    let Job { seen, planned } = job;
    let runs = seen.power == Power::Running && !seen.is_busy();
    let takes = match (way, runs) {
        (_, false) => false,
        (None, true) => true,
        (Some(way), true) => match way.target(&seen) {
            Err(_) => false,
            Ok(target) => {
                let pin = planned.pin.as_ref().filter(|pin| !pin.is_outlived(seen.image.as_ref()));
                matches!(probe.offer(&target, pin.map(|pin| &pin.host_key), key).await, Login::Accepted(_))
            }
        },
    };
    (planned, takes)
}

/// The newest handle and the public half of a pair of ours.
fn key_of(past: &[Past], name: &KeyPairName) -> Option<Key> {
    let named = || past.iter().map(|(rotation, _)| rotation).filter(|rotation| rotation.plan.key_name == *name);
    let key_pair = named().filter_map(|rotation| rotation.key_pair.as_ref()).next_back()?.1.clone();
    let public_key = named().find_map(|rotation| rotation.key.as_ref())?.0.clone();
    Some(Key { key_name: name.clone(), public_key, key_pair })
}

/// All instances that the plans of the fleet's newest completed rotation and of what followed it name: who is among them
/// and not on the pair was refused, excluded or rolled back, and is not new.
fn rotated_since(past: &[Past], fleet: &Fleet, heads: &[&Head]) -> std::collections::BTreeSet<InstanceId> {
    let whole = |head: &&&Head| {
        matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate)
            && matches!(head.ended, Some((_, Outcome::Completed)))
    };
    let since = heads.iter().rev().find(whole).map(|head| head.id);
    let of_fleet = past.iter().filter(|(rotation, _): &&(Rotation, _)| rotation.plan.fleet == fleet.name);
    let newer = of_fleet.skip_while(|(rotation, _)| since.is_some_and(|since| rotation.id != since));
    newer.flat_map(|(_, planned)| planned).map(|planned| planned.id.clone()).collect()
}

/// Plans the catch-up that a look calls for: of those who are back, whom it does not disturb; else, where `new` allows
/// it, of the new ones. [`PlanError::Nobody`] where there is nobody.
pub async fn propose_catch_up(
    tools: &Tools,
    fleet: &Fleet,
    others: &[Fleet],
    late: &Late,
    new: bool,
) -> Result<Proposal, PlanError> {
    let nobody = || {
        let off = match late.waiting.is_empty() {
            true => String::new(),
            false => format!("; still off, out of reach or not taking the key: {}", named(&late.waiting)),
        };
        PlanError::Nobody { fleet: fleet.name.clone(), problem: format!("nobody is to be caught up with now{off}") }
    };
    let provider = (tools.providers)(&fleet.place).map_err(|error| PlanError::Account(error.to_string()))?;
    let limits = provider.limits();
    let Some(key) = &late.key else { return Err(nobody()) };
    let draft = if !late.back.is_empty() {
        known(fleet, late, limits)
    } else if new && !late.new.is_empty() {
        let chosen: Vec<Instance> = late.listing.iter().filter(|seen| late.new.contains(&seen.id)).cloned().collect();
        drafted(fleet, &chosen, limits, &claimed_by(fleet, others), &Default::default())?
    } else {
        return Err(nobody());
    };
    let pins = pins(&past(tools.journal.as_ref(), &fleet.place).await?);
    let source = KeySource::Existing { public_key: key.public_key.clone() };
    let proposal = planned_of(fleet, limits, draft, &pins, key.key_name.clone(), source, None);
    Ok(if late.back.is_empty() { proposal } else { proposal.undisturbing() })
}

fn named(ids: &[InstanceId]) -> String {
    const NAMED: usize = 20;
    let mut named: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    if ids.len() > NAMED {
        named.push(format!("and {} more", ids.len() - NAMED));
    }
    named.join(", ")
}

/// Those who are back, in batches. Nobody of them is disturbed, so none that fails holds the fleet.
fn known(fleet: &Fleet, late: &Late, limits: &Limits) -> Draft {
    let empty = draft(&[], &fleet.rollout, limits, &|_| None, &Default::default());
    let instances = late.back.iter().enumerate().map(|(index, planned)| PlannedInstance {
        part: Part::Batch(u32::try_from(index / limits.bind_max.max(1)).unwrap_or(u32::MAX)),
        ..planned.clone()
    });
    let failures_max = u32::try_from(late.back.len()).unwrap_or(u32::MAX);
    Draft { instances: instances.collect(), failures_max, ..empty }
}
