//! The only place that asks the time or sleeps. Everything else takes a [`Clock`], so that a simulation can be its master.

use async_trait::async_trait;
use jiff::Timestamp;

/// Time as rekeyd sees it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now. It may step back (NTP): the journal's own time never does.
    fn now(&self) -> Timestamp;
    /// Returns at `until`, at once if that has passed.
    async fn sleep_until(&self, until: Timestamp);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    async fn sleep_until(&self, until: Timestamp) {
        if let Ok(left) = std::time::Duration::try_from(until.duration_since(self.now())) {
            tokio::time::sleep(left).await;
        }
    }
}
