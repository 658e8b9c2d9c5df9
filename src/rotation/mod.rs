//! THE BRAIN. A pure function reads the journal and names the steps that may run now: no `async`, no clock, no I/O, no
//! `HashMap` (order must not depend on luck). It must never be told what a call returned except by a journal entry.

mod budget;
pub mod draft;
pub mod event;
mod flight;
pub mod hook;
pub mod judge;
pub mod member;
pub mod next;
pub mod order;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod proof;
pub mod reason;
mod remedy;
pub mod retire;
pub mod rule;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;
pub mod window;

pub use draft::{Draft, draft};
pub use event::{
    Author, BoundInstance, Call, Entry, Event, ExcludedInstance, Found, OldKeyFound, PinnedHost, Proof, Step,
};
pub use hook::{Hook, HookCommand, HookFailure, Hooks};
pub use judge::{Finding, Sight, Want};
pub use member::{Member, Pending, Phase};
pub use next::{Next, Standing};
pub use order::{Order, Refusal};
pub use pace::Pace;
pub use plan::{
    AddressFrom, OldKey, Part, Place, Plan, PlannedInstance, Policy, RetirePlan, RotatePlan, SshLogin, Verify,
};
pub use policy::Rollout;
pub use proof::ProofFinding;
pub use reason::{Allow, Exclusion, HoldReason, Outcome};
pub use retire::{Retirement, Stage};
pub use rule::Rule;
pub use state::{IllegalEvent, Rotation};
pub use window::{Freeze, Window, Windows};
