//! What begins though nobody asked and no schedule says so: the next rotation of a way back, and the hourly look for who is
//! late in an idle fleet. It must never disturb machines but where the fleet's config allows it.

use crate::engine::EngineError;
use crate::engine::late::Late;
use crate::engine::planner::{Aim, PlanError};
use crate::model::{Duration, FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Outcome, Plan};
use crate::store::{Head, LateLook};

use super::due::offset;
use super::requests::ASKED_BACK_MAX;
use super::start::{Begun, Cause, RETRY_MAX, Start, again};
use super::tick::Scheduler;

/// How often an idle fleet is looked at for who is late.
const SURVEYED: Duration = Duration::from_secs(3600);

impl Scheduler {
    /// A way back to several pairs is several rotations: the next one begins when one of them is completed. Derived from
    /// the journals, also after a start of the process; where nothing is left, nothing begins.
    pub(super) fn go_on_back(&mut self, name: &FleetName) {
        let newest = self.book.of_fleet(name).iter().rev().find(|head| matches!(head.plan, Plan::Rotate(_)));
        // Lately: what somebody changed long after it is no part of what was asked for then.
        let now = self.tools.clock.now();
        let lately = |at: Timestamp| now < later(at, ASKED_BACK_MAX);
        let completed = newest.filter(|head| matches!(head.ended, Some((at, Outcome::Completed)) if lately(at)));
        if let (Some(undone), Some(fleet)) = (completed.and_then(undoes), self.fleets.get(name)) {
            let aim = Aim::Back(undone);
            self.queue.push_back(Start { fleet: fleet.fleet.clone(), aim, cause: Cause::GoOn, force: Vec::new() });
        }
    }

    /// What could not be gone on with is tried again, for as long as it is what somebody just asked for.
    pub(super) fn take_ways_back(&mut self, now: Timestamp) {
        let ready = |at: Timestamp| now >= at || at > later(now, RETRY_MAX);
        let ready: Vec<FleetName> =
            self.going_on.iter().filter(|(_, (_, at))| ready(*at)).map(|(name, _)| name.clone()).collect();
        for name in ready {
            if !self.waits(&name) {
                self.go_on_back(&name);
                if !self.waits(&name) {
                    self.going_on.remove(&name);
                }
            }
        }
    }

    /// A way back was gone on with, or could not be.
    pub(super) fn went_on_back(&mut self, name: &FleetName, well: bool, now: Timestamp) {
        let times = self.going_on.remove(name).map_or(0, |(times, _)| times);
        if !well {
            self.going_on.insert(name.clone(), (times + 1, again(times, now)));
        }
    }

    /// Whether a rotation of this fleet is to begin already.
    pub(super) fn waits(&self, name: &FleetName) -> bool {
        self.starting.contains_key(name) || self.queue.iter().any(|start| start.fleet.name == *name)
    }

    /// Keeps who came after the last rotation, in the stead of what was seen before.
    pub(super) async fn keep_late(&self, name: &FleetName, look: Option<LateLook>) -> Result<(), EngineError> {
        match look {
            Some(look) => Ok(self.agenda.set_late(name, &look).await?),
            None => Ok(()),
        }
    }

    /// Idle fleets are looked at once an hour, each at its own moment of it: who is late?
    pub(super) fn take_surveys(&mut self, now: Timestamp) {
        for (name, fleet) in &self.fleets {
            let offset = offset(name, &self.tools.mark, SURVEYED);
            let due = self.surveys.entry(name.clone()).or_insert_with(|| next_survey(now, offset));
            if now < *due && *due <= later(now, SURVEYED) {
                continue;
            }
            *due = next_survey(now, offset);
            let rotated = self.book.newest_begun(name).is_some() && self.book.open_rotation(name).is_none();
            if rotated && !self.waits(name) && !self.going_on.contains_key(name) && !self.paused.contains(name) {
                let aim = Aim::CatchUp { new: fleet.binds_new };
                self.queue.push_back(Start {
                    fleet: fleet.fleet.clone(),
                    aim,
                    cause: Cause::Survey,
                    force: Vec::new(),
                });
            }
        }
    }
}

/// Who came after the last rotation, if that was looked for: for `status`, which asks no cloud.
pub(super) fn look_of(result: &Result<Begun, PlanError>, at: Timestamp) -> Option<LateLook> {
    let late = result.as_ref().ok()?.late.as_ref()?;
    Some(LateLook { at, new: late.new.clone() })
}

/// The rotation that this one undoes.
pub(super) fn undoes(head: &Head) -> Option<JournalId> {
    match &head.plan {
        Plan::Rotate(plan) => plan.undoes,
        Plan::Retire(_) => None,
    }
}

/// Says in the log who is late.
pub(super) fn tell_of_late(fleet: &FleetName, late: &Late) {
    const NAMED: usize = 20;
    let some = |ids: &[InstanceId]| {
        let named: Vec<&str> = ids.iter().take(NAMED).map(InstanceId::as_str).collect();
        let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
        named.join(",") + &more
    };
    if !late.waiting.is_empty() {
        let instance = some(&late.waiting);
        tracing::info!(%fleet, instance, "bound to the fleet's key, and off, out of reach or never proven");
    }
    if !late.new.is_empty() {
        let instance = some(&late.new);
        tracing::warn!(%fleet, instance, "came after the last rotation, and have another key: `rekeyd catch-up {fleet}` binds them");
    }
}

/// The next moment of this offset in an hour.
fn next_survey(now: Timestamp, offset: Duration) -> Timestamp {
    let hour = i128::from(SURVEYED.as_secs()) * 1_000_000_000;
    let offset = i128::try_from(offset.as_nanos()).unwrap_or(0);
    let since = (now.as_nanosecond() - offset).rem_euclid(hour);
    Timestamp::from_nanosecond(now.as_nanosecond() - since + hour).unwrap_or(Timestamp::MAX)
}
