//! Looking. Instances that several steps wait for are asked for in one go; a look writes no entry. Absence is believed
//! only when it is seen twice, each time with something of our account: an answer that lacks an instance by mistake, or that is
//! another account's, must not write off a machine that we stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Duration, InstanceId, Timestamp};
use crate::provider::{Error, Instance, Provider, Select};
use crate::rotation::policy::{believes_gone, later};
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
        due.filter_map(|step| step.batch()).flat_map(|batch| rotation.attended(batch, now)).collect();
    let Some(provider) = case.provider.clone().filter(|_| !ids.is_empty()) else { return };
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    if let Err(error) = look(tools, case, provider.as_ref(), &ids, later(now, Duration::ZERO)).await {
        tracing::debug!(%error, "shared look failed");
    }
}

/// Makes sure that each of these was looked at not before `since`. Who is missing, where nothing shows that it is our account
/// that answers, was not looked at: an error only if nobody else was.
pub(super) async fn look(
    tools: &Tools,
    case: &mut Case,
    provider: &dyn Provider,
    ids: &[InstanceId],
    since: Timestamp,
) -> Result<(), Error> {
    let wanted: Vec<InstanceId> = ids.iter().filter(|id| case.seen.get(id, since).is_none()).cloned().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // The time before the question: what is seen is at least as new.
    let at = tools.clock.now();
    let found = provider.instances(&Select::Ids(wanted.clone())).await?;
    let mut found: BTreeMap<InstanceId, Instance> = found.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
    let absent: Vec<InstanceId> = wanted.iter().filter(|id| !found.contains_key(*id)).cloned().collect();
    let is_ours = absent.is_empty() || is_ours(case, provider, &found, at).await?;
    for id in wanted {
        match found.remove(&id) {
            Some(seen) => {
                case.missing.remove(&id);
                case.seen.seen.insert(id, (at, Some(seen)));
            }
            None if is_ours => {
                case.missing.entry(id.clone()).or_insert(at);
                case.seen.seen.insert(id, (at, None));
            }
            // What an earlier answer lacked is no evidence either: it may have been this other account's.
            None => drop(case.missing.remove(&id)),
        }
    }
    if is_ours {
        case.strange = None;
        return Ok(());
    }
    let Ok(rotation) = case.rotation() else { return Ok(()) };
    let first = case.strange.as_ref().map_or(at, |(first, _)| *first);
    let error = witness::stranger(rotation, &absent);
    case.strange = Some((first, error.clone()));
    // Who is seen goes on; a moment's answer is no reason to give up either.
    let is_seen = |id: &InstanceId| case.seen.get(id, since).is_some();
    if ids.iter().any(is_seen) || at < later(first, MISSING) { Ok(()) } else { Err(error) }
}

/// Whether it is our account that says of somebody that he is not there: it shows another machine of the rotation in the same
/// answer, or is asked, after it, for what must be there.
async fn is_ours(
    case: &Case,
    provider: &dyn Provider,
    found: &BTreeMap<InstanceId, Instance>,
    now: Timestamp,
) -> Result<bool, Error> {
    let Ok(rotation) = case.rotation() else { return Ok(true) };
    if witness::is_shown(found.values()) || believes_gone(rotation.gone_allowed, now) {
        return Ok(true);
    }
    witness::shows_something(provider, rotation).await
}

/// The moment since which a look of this turn may be shared.
pub(super) fn shared_since(now: Timestamp) -> Timestamp {
    now.checked_sub(SHARED).unwrap_or(Timestamp::MIN)
}

/// What is known of an instance: `None` while nothing is, or while it is missing for the first time.
pub(super) fn sight<'a>(case: &'a Case, id: &InstanceId, since: Timestamp, now: Timestamp) -> Option<Sight<'a>> {
    match case.seen.get(id, since)? {
        (_, Some(seen)) => Some(Sight::Seen(seen)),
        (_, None) => {
            let missing = case.missing.get(id)?;
            let owed = case.rotation().ok().and_then(|rotation| rotation.member(id)?.owed).is_some();
            let patience = if owed { MISSING_OWED } else { MISSING };
            (now >= later(*missing, patience)).then_some(Sight::Missing)
        }
    }
}
