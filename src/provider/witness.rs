//! Who is told of every call to a cloud. What it hears is bounded (the client's own action words, no ids, no secrets); it
//! must not fail, and cannot steer.

use std::time::Duration;

use jiff::SignedDuration;

use super::error::Kind;
use crate::model::ProviderKind;

/// Hears of each attempt at a call: sent, or kept back because its turn under our own request rate came too late.
pub trait Witness: Send + Sync {
    /// An attempt is over.
    fn heard(&self, heard: &Heard<'_>);
}

/// One attempt at a call. A call that is repeated is heard once for each time it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Which cloud.
    pub provider: ProviderKind,
    /// The client's word for what it called, one of [`actions`](super::actions).
    pub action: &'a str,
    /// How it ended. An answer that refuses single instances only is well.
    pub outcome: Result<(), Kind>,
    /// Whether it was sent. Else it was kept back by our own rate: [`Kind::Throttled`], and no time taken.
    pub sent: bool,
    /// From sending to the judged answer, on the provider's clock.
    pub took: Duration,
    /// Our clock less the cloud's, by the newest answer that told it.
    pub clock_difference: Option<SignedDuration>,
}

/// A witness that does not listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaf;

impl Witness for Deaf {
    fn heard(&self, _: &Heard<'_>) {}
}
