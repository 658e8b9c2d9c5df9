//! THE BRAIN. A pure function reads the journal and names the steps that may run now: no `async`, no clock, no I/O, no
//! `HashMap` (order must not depend on luck). It must never be told what a call returned except by a journal entry.

pub mod event;
pub mod plan;

pub use event::{
    Allow, Author, BoundInstance, Call, Entry, Event, ExcludedInstance, Exclusion, Found, HoldReason, Outcome, Step,
};
pub use plan::{Part, Place, Plan, PlannedInstance, Policy, RetirePlan, RotatePlan};
