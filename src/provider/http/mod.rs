//! What all clouds share of HTTP: the way to the network, repetition, request rates, digests, redaction.
//! Nothing in here knows a cloud.

pub mod answer;
pub mod digest;
pub mod door;
pub mod redact;
pub mod retry;
pub mod throttle;

pub use crate::net::{Request, Response, Transport, TransportError};
pub use door::Door;
pub use retry::Intent;
