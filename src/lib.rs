//! rekeyd replaces the SSH key pairs of cloud VM fleets on a schedule, and never locks anybody out.

pub mod cli;
pub mod clock;
pub mod config;
pub mod custody;
pub mod daemon;
pub mod engine;
pub mod files;
pub mod hook;
pub mod model;
pub mod net;
pub mod program;
pub mod provider;
pub mod rotation;
pub mod scheduler;
pub mod sim;
pub mod ssh;
pub mod store;
pub mod telemetry;

/// How the house is built: for whoever is about to change it.
pub mod docs {
    #![doc = include_str!("docs/architecture.md")]
}
