//! THE BRAIN. A pure function reads the journal and names the steps that may run now: no `async`, no clock, no I/O, no
//! `HashMap` (order must not depend on luck). It must never be told what a call returned except by a journal entry.

pub mod adopt;
pub mod back;
mod budget;
pub mod deliver;
pub mod draft;
pub mod drift;
pub mod event;
pub mod exposure;
mod finding;
mod flight;
pub mod hangs;
pub mod hazard;
pub mod hook;
pub mod judge;
pub mod ledger;
pub mod member;
pub mod next;
pub mod order;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod preflight;
pub mod proof;
pub mod reason;
mod remedy;
pub mod retire;
pub mod rule;
mod stake;
pub mod standing;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;
pub mod window;

pub use budget::Spending;
pub use deliver::Delivery;
pub use draft::{Draft, draft};
pub use drift::{Deviation, DriftKind, Holdings, Named};
pub use event::{
    Author, BoundInstance, Call, Entry, Event, ExcludedInstance, Found, OldKeyFound, PinnedHost, Proof, Step,
    batch_name,
};
pub use hook::{Hook, HookCommand, HookFailure, Hooks};
pub use judge::{Finding, Sight, Want};
pub use ledger::{Half, Ledger, Looks, Offered};
pub use member::{Member, Pending, Phase};
pub use next::{Next, Standing};
pub use order::{Order, Refusal};
pub use pace::Pace;
pub use plan::{
    AddressFrom, JumpHost, KeySource, Known, OldKey, Part, Place, Plan, PlannedInstance, Policy, Purpose, RetirePlan,
    RotatePlan, SshLogin, Verify,
};
pub use policy::Rollout;
pub use proof::ProofFinding;
pub use reason::{Allow, Exclusion, HoldReason, Outcome, STRANGE};
pub use retire::{Retirement, Stage};
pub use rule::Rule;
pub use standing::Stand;
pub use state::{IllegalEvent, Rotation};
pub use window::{Freeze, Window, Windows};
