//! What observers are told: after each turn how the fleets stand, and what becomes of ticks and surveys. It must never decide
//! anything.

use crate::engine::survey::Survey;
use crate::model::{FleetName, Timestamp};

use super::Ticked;
use super::tick::Scheduler;

impl Scheduler {
    /// A turn is over.
    pub(super) fn tell_turn(&self, now: Timestamp) {
        for observer in &self.observers {
            observer.turned(now);
            for (name, fleet) in &self.fleets {
                let schedule = fleet.schedule.as_ref();
                let due = schedule.and_then(|_| self.due.get(name)).map(|due| due.at);
                observer.due(name, due);
                observer.waits_for_window(name, fleet.waits_for_window(due, now));
                observer.key_due(name, schedule.and_then(|schedule| schedule.next(self.book.newest_renewed(name)?)));
                observer.paused(name, self.paused.contains(name));
            }
        }
    }

    /// What became of a tick.
    pub(super) fn tell(&self, name: &FleetName, what: Ticked) {
        self.observers.iter().for_each(|observer| observer.ticked(name, what));
    }

    /// A survey is done.
    pub fn surveyed(&self, fleet: Option<&FleetName>, survey: &Survey) {
        self.observers.iter().for_each(|observer| observer.surveyed(fleet, survey));
    }
}
