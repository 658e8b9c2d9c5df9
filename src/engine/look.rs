//! Looking. Instances that several steps wait for are asked for in one go; a look writes no entry. Absence is believed
//! only when it is seen twice, and our account between: an answer that lacks an instance by mistake, or that is another
//! account's, must not write off a machine that we stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Duration, InstanceId, Timestamp};
use crate::provider::{Error, Instance, Provider, Select};
use crate::rotation::policy::later;
use crate::rotation::{Sight, Step};

use super::Tools;
use super::case::Case;
use super::witness;

/// Looks of one turn are shared for so long.
const SHARED: Duration = Duration::from_secs(2);
/// Missing for so long, and still missing: gone.
pub(super) const MISSING: Duration = Duration::from_secs(10);
/// The same for whom a start is owed: being gone closes the debt, so the cloud must be surer of it.
const MISSING_OWED: Duration = Duration::from_secs(120);

/// What the newest looks showed, and when.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    seen: BTreeMap<InstanceId, (Timestamp, Option<Instance>)>,
}

impl Snapshot {
    /// What is known of an instance, if it was looked at not before `since`.
    pub(super) fn get(&self, id: &InstanceId, since: Timestamp) -> Option<(Timestamp, Option<&Instance>)> {
        self.seen.get(id).filter(|(at, _)| *at >= since).map(|(at, seen)| (*at, seen.as_ref()))
    }
    /// A call was made for these: what was seen is old.
    pub(super) fn forget(&mut self, ids: &[InstanceId]) {
        for id in ids {
            self.seen.remove(id);
        }
    }
}

/// Looks at once at everybody whom the steps of this turn will ask about. An error is left to the step that looks again.
pub(super) async fn share(tools: &Tools, case: &mut Case, run: &[Step]) {
    let now = tools.clock.now();
    // A clock that stepped back leaves looks of the future: they are no evidence.
    case.seen.seen.retain(|_, (at, _)| *at >= shared_since(now) && *at <= now);
    let due = run.iter().filter(|step| case.look_at(**step, now).is_none_or(|at| at <= now));
    let Ok(rotation) = case.rotation() else { return };
    let ids: BTreeSet<InstanceId> =
        due.filter_map(|step| step.batch()).flat_map(|batch| rotation.batch(batch).to_vec()).collect();
    let Some(provider) = case.provider.clone().filter(|_| !ids.is_empty()) else { return };
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, later(now, Duration::ZERO)).await {
        tracing::debug!(%error, "shared look failed");
    }
}

/// Makes sure that each of these was looked at not before `since`.
pub(super) async fn look(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    ids: &[InstanceId],
    since: Timestamp,
) -> Result<(), Error> {
    let wanted: Vec<InstanceId> = ids.iter().filter(|id| case.seen.get(id, since).is_none()).cloned().collect();
    if wanted.is_empty() {
        // What a shared look met is for the step to say.
        let is_missing = ids.iter().any(|id| case.missing.contains_key(id));
        return case.strange.clone().filter(|_| is_missing).map_or(Ok(()), Err);
    }
    // The time before the question: what is seen is at least as new.
    let at = tools.clock.now();
    let found = provider.instances(&Select::Ids(wanted.clone())).await?;
    let mut found: BTreeMap<InstanceId, Instance> = found.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
    for id in wanted {
        let seen = found.remove(&id);
        match seen {
            Some(_) => case.missing.remove(&id),
            None => Some(*case.missing.entry(id.clone()).or_insert(at)),
        };
        case.seen.seen.insert(id, (at, seen));
    }
    find_witness(tools, case, provider, ids).await
}

/// Where somebody is missing: sees that it is our account that answers, once since the first of them went missing.
async fn find_witness(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    ids: &[InstanceId],
) -> Result<(), Error> {
    let is_open = |id: &&InstanceId| {
        let first = case.missing.get(*id);
        first.is_some_and(|first| case.witnessed.is_none_or(|witnessed| witnessed < *first))
    };
    let missing: Vec<InstanceId> = ids.iter().filter(is_open).cloned().collect();
    let Ok(rotation) = case.rotation() else { return Ok(()) };
    if missing.is_empty() {
        return Ok(());
    }
    let is_ours = witness::shows_pair(provider, rotation).await?;
    let now = tools.clock.now();
    if is_ours {
        (case.witnessed, case.strange) = (Some(now), None);
        // What was seen missing before is looked at again: our own account may have come back only now.
        case.seen.forget(&missing);
        return Ok(());
    }
    let overdue = missing.iter().filter_map(|id| case.missing.get(id)).any(|first| now >= later(*first, MISSING));
    case.strange = overdue.then(|| witness::stranger(rotation, &missing));
    case.strange.clone().map_or(Ok(()), Err)
}

/// The moment since which a look of this turn may be shared.
pub(super) fn shared_since(now: Timestamp) -> Timestamp {
    now.checked_sub(SHARED).unwrap_or(Timestamp::MIN)
}

/// What is known of an instance: `None` while nothing is, or while it is missing for the first time.
pub(super) fn sight<'a>(case: &'a Case, id: &InstanceId, since: Timestamp, now: Timestamp) -> Option<Sight<'a>> {
    match case.seen.get(id, since)? {
        (_, Some(seen)) => Some(Sight::Seen(seen)),
        (at, None) => {
            let missing = case.missing.get(id)?;
            // Seen missing, our account seen, and seen missing again.
            case.witnessed.filter(|witnessed| missing <= witnessed && *witnessed <= at)?;
            let owed = case.rotation().ok().and_then(|rotation| rotation.member(id)?.owed).is_some();
            let patience = if owed { MISSING_OWED } else { MISSING };
            (now >= later(*missing, patience)).then_some(Sight::Missing)
        }
    }
}
