//! The real program, real OpenSSH servers as the guests: a rotation that the cloud calls successful is only done once each
//! machine was logged in to, and stops by itself where a login says otherwise.

#![allow(clippy::unwrap_used)]

mod canary;
mod compromised;
mod guests;
mod kills;
mod late;
mod logins;
mod rivals;
#[path = "../stage/mod.rs"]
mod stage;
