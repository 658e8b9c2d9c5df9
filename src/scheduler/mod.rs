//! WHEN. A heartbeat, what is due by the fleets' schedules, what people ask for, and the loop that has each open journal
//! driven. It decides when a rotation begins, never what a rotation does next, and it must never begin two of one fleet.
//! What it knows it reads from the store, so that it may be killed at any line.

pub mod book;
pub mod due;
pub mod heartbeat;
pub mod late;
mod orders;
pub mod reload;
pub mod requests;
pub mod rounds;
pub mod start;
mod tell;
pub mod tick;
pub mod work;

use crate::engine::late::Late;
use crate::engine::survey::Survey;
use crate::model::{FleetName, Timestamp};
use crate::store::Unreadable;

pub use start::{Begun, Cause, Scheduled, Start};
pub use tick::Scheduler;

/// What became of a tick of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ticked {
    /// A rotation began.
    Started,
    /// A rotation began late: nobody was there, or others went first.
    CaughtUp,
    /// Skipped: it was older than `schedule_slack`.
    Missed,
    /// Skipped: a rotation was open.
    Open,
    /// No rotation could begin; it is tried again within `schedule_slack`.
    Failed,
    /// A rule refused it that only a person lifts: not before the next tick.
    Refused,
    /// Skipped: no maintenance window was open within `schedule_slack`.
    Closed,
}

/// Hears what the scheduler does. It must not fail, and cannot steer.
pub trait Observer: Send + Sync {
    /// A turn is over.
    fn turned(&self, at: Timestamp);
    /// When a fleet is due next; `None`: by hand only.
    fn due(&self, fleet: &FleetName, at: Option<Timestamp>);
    /// When the rotation that gave a fleet its key was to be followed by the next, by the schedule as it is now; `None`: no
    /// schedule, or no rotation was completed.
    fn key_due(&self, _fleet: &FleetName, _at: Option<Timestamp>) {}
    /// Whether a tick of a fleet has come and waits for a maintenance window.
    fn waits_for_window(&self, _fleet: &FleetName, _waits: bool) {}
    /// Whether a fleet is held as such: no rotation of it begins.
    fn paused(&self, fleet: &FleetName, paused: bool);
    /// What became of a tick.
    fn ticked(&self, fleet: &FleetName, what: Ticked);
    /// Who is late in a fleet, as it was just looked for.
    fn late(&self, _fleet: &FleetName, _late: &Late) {}
    /// These journals cannot be read.
    fn unreadable(&self, journals: &[Unreadable]);
    /// A fleet was surveyed for drift; `None`: what belongs to no fleet alone.
    fn surveyed(&self, _fleet: Option<&FleetName>, _survey: &Survey) {}
}
