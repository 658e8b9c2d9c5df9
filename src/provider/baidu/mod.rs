//! Baidu AI Cloud BCC, API v2: one file each for the signature, the error codes, the bodies and the client.
//! It must never decide anything: it says what the cloud says and does what it is told.

mod client;
pub mod error;
pub mod sign;
pub mod wire;

pub use client::Bcc;
