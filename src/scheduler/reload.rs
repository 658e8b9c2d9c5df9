//! The config file was read anew: its fleets take the place of those known so far, between two turns of the loop. It must
//! never touch what has begun: an open rotation follows its plan, and a fleet that is gone is carried to its end.

use tokio::sync::oneshot;

use crate::engine::planner::Aim;
use crate::model::FleetName;

use super::book::{Gate, gate};
use super::start::{Cause, Scheduled};
use super::tick::Scheduler;

/// The fleets of the config file, read anew.
pub struct Change {
    /// All of them.
    pub fleets: Vec<Scheduled>,
    /// Told once the loop goes by them.
    pub taken: oneshot::Sender<()>,
}

/// The fleets, each with the gate of its place.
pub(super) fn places(scheduler: &Scheduler) -> impl Iterator<Item = (FleetName, Gate)> + use<> {
    scheduler.fleets().into_iter().map(|fleet| (fleet.name, gate(&fleet.place)))
}

impl Scheduler {
    /// Goes by these fleets from now on. A fleet that is new, or whose schedule changed, is due at its next tick, never at
    /// once: what is kept as its due time belongs to another schedule. What waits for its turn begins by the new file; what
    /// was handed out already, by the old one.
    pub fn reload(&mut self, fleets: Vec<Scheduled>) {
        self.fleets = fleets.into_iter().map(|one| (one.fleet.name.clone(), one)).collect();
        let fleets = &self.fleets;
        self.queue.retain_mut(|start| match fleets.get(&start.fleet.name) {
            // Judged anew in the next turn, by the schedule that is now.
            Some(_) if matches!(start.cause, Cause::Due { .. }) => false,
            Some(one) => {
                start.fleet = one.fleet.clone();
                if let (Cause::Survey, Aim::CatchUp { new }) = (start.cause, &mut start.aim) {
                    *new = one.binds_new;
                }
                true
            }
            // Who asked is refused in the next turn.
            None => false,
        });
        // Whoever changed the file may have put right why a rotation could not begin.
        self.failed.clear();
        self.surveys.retain(|name, _| fleets.contains_key(name));
        self.late.retain(|name, _| fleets.contains_key(name));
        self.noted.retain(|name, _| fleets.contains_key(name));
    }
}
