//! A CLOUD IN A BOX: four clouds in one process, as strict as the real ones, with machines whose guests can really be
//! locked out. It is written from the fact sheet alone: it shares no signing, canonicalisation or wire type with
//! `provider`, so that one misreading cannot hide on both sides (only the transport's plain request and answer are
//! common). It must never listen anywhere but on loopback, and never touch anything outside the process but its guests'
//! sshd and their directory.
//!
//! - [`World`] is the truth: machines, key pairs, operations that take time, the seed's chance.
//! - [`handle`] is the door: one request in, one answer (or none) out. A *face* a cloud reads and writes the wire.
//! - [`Faults`] are what goes wrong, by chance or by script.
//! - [`guest`] puts a real sshd behind each machine.

mod alibaba;
mod baidu;
mod canon;
mod checker;
mod clock;
mod cloud;
mod direct;
mod door;
mod faults;
mod fleet;
pub mod guest;
mod keys;
mod machine;
mod meddle;
mod mischief;
mod rng;
pub mod serve;
mod tencent;
mod world;

pub use checker::Promise;
pub use clock::VirtualClock;
pub use cloud::{Cloud, Rule, Violation};
pub use direct::Direct;
pub use door::{Outcome, handle};
pub use faults::{BadFaults, Faults, Scripted, Weather};
pub use fleet::{FLEET_TAG, TAGS, furnish};
pub use keys::KeyPair;
pub use machine::{Guest, Habit, Machine, Operation, Os, Power, Progress, Refusal, View};
pub use rng::Rng;
pub use world::{InstanceSpec, Settings, World};
