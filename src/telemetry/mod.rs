//! What a running daemon tells: metrics, log lines, pages. It is heard, not called: other rooms define who listens
//! (`engine::Observer`, `provider::Witness`), and this one listens. It must never steer, never fail what it hears of,
//! and never hold a secret.

mod ear;
pub mod http;
mod labels;
pub mod log;
mod look;
mod maker;
pub mod metrics;
mod series;
mod stand;
mod stopwatch;
mod table;

pub use http::{Listening, Pages, serve};
pub use log::{FilterError, Format, Log, Look};
pub use metrics::{FleetOfConfig, History, Metrics, Tick};
