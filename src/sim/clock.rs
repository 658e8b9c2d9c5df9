//! The simulation's time: whoever sleeps moves it. One engine at a time, so no two sleepers ever disagree. It must never
//! ask the machine for the time.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::clock::Clock;

/// A clock that stands still until somebody sleeps.
#[derive(Debug)]
pub struct VirtualClock(Mutex<Timestamp>);

impl VirtualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }
    /// Moves it forward, never back.
    pub fn advance_to(&self, at: Timestamp) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (*now).max(at);
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    async fn sleep_until(&self, until: Timestamp) {
        self.advance_to(until);
        // Others get their turn: a loop of sleeps must not starve whoever watches it.
        tokio::task::yield_now().await;
    }
}
