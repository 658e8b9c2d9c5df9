//! Baidu AI Cloud BCC, API v2: one file each for the signature, the error codes, the bodies and the client.
//! It must never decide anything: it says what the cloud says and does what it is told.

mod client;
mod error;
mod sign;
mod wire;

pub(super) use client::{ACTIONS, Bcc, LIMITS};

use crate::model::Region;

/// Where it answers in a region if the config file names no endpoint: the Go SDK's addresses.
pub(super) fn endpoint(region: &Region) -> String {
    format!("https://bcc.{region}.baidubce.com")
}
