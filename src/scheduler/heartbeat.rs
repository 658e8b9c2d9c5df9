//! The heartbeat: says that a second has passed, by tokio-cron-scheduler with ONE job. It must never know a fleet: when
//! a fleet is due is reckoned in [`super::due`], from what is kept in the store, so that a beat that is late, lost or
//! doubled changes nothing.
//!
//! tokio-cron-scheduler 0.15.1 goes by the wall clock: set back, it is silent until that time has come again. It has
//! no end either: its tasks keep each other alive, and a job may still begin after its `shutdown`. Therefore it has a
//! run time of its own, that ends with it, and is made anew when it is silent for too long.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock::Clock;
use crate::model::{Duration, Timestamp};

/// So long is a beat waited for: it comes each second, up to half a second late.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Every second.
const SECOND: &str = "* * * * * *";

/// Why there is no heartbeat.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// No thread for it.
    #[error("the heartbeat's run time")]
    Runtime(#[from] std::io::Error),
    /// The scheduler refuses.
    #[error("the heartbeat's scheduler")]
    Scheduler(#[from] JobSchedulerError),
    /// The scheduler panicked, or is silent.
    #[error("the heartbeat's scheduler does not start")]
    Silent,
}

/// A beat each second, for one listener.
pub struct Heartbeat {
    clock: Arc<dyn Clock>,
    /// Counts beats. The job holds it weakly: what is dropped beats no more, whatever a thread is about.
    count: Arc<watch::Sender<u64>>,
    beats: watch::Receiver<u64>,
    source: Source,
    /// Runs out when a beat is overdue. It outlives a `beat` that is not waited for to its end.
    patience: Patience,
    /// Whether it was said that the beats have stopped.
    said: bool,
}

type Patience = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Heartbeat {
    /// Begins to beat. The clock is asked only for how long a beat is waited for.
    pub async fn start(clock: Arc<dyn Clock>) -> Result<Self, HeartbeatError> {
        let (count, beats) = watch::channel(0);
        let count = Arc::new(count);
        let source = Source::start(Arc::downgrade(&count)).await?;
        let patience = patience(&clock);
        Ok(Self { clock, count, beats, source, patience, said: false })
    }

    /// Returns at the next beat, at once if any came since the last call (however many, that is one), or after
    /// [`PATIENCE`] without one. It may be dropped while it waits: nothing is lost.
    pub async fn beat(&mut self) {
        tokio::select! {
            biased;
            Ok(()) = self.beats.changed() => {
                self.said = false;
                self.patience = patience(&self.clock);
            }
            () = &mut self.patience => {
                self.patience = patience(&self.clock);
                self.renew().await;
            }
        }
    }

    /// Ends it: no beat is counted any more.
    pub async fn stop(self) {
        drop(self.count);
        self.source.stop().await;
    }

    /// Puts a new scheduler in the place of the silent one.
    async fn renew(&mut self) {
        let first = !std::mem::replace(&mut self.said, true);
        if first {
            let seconds = PATIENCE.as_secs();
            tracing::warn!("no beat of the scheduler for {seconds} s (was the clock set back?): it is made anew");
        }
        // A new count too: an old scheduler that wakes up must not beat beside the new one.
        let (count, beats) = watch::channel(0);
        let count = Arc::new(count);
        let made = tokio::select! {
            made = Source::start(Arc::downgrade(&count)) => made,
            () = &mut self.patience => {
                self.patience = patience(&self.clock);
                Err(HeartbeatError::Silent)
            }
        };
        match made {
            Ok(source) => (self.source, self.count, self.beats) = (source, count, beats),
            // The loop goes on by patience alone, and this is tried again.
            Err(error) if first => tracing::error!(error = &error as &dyn std::error::Error, "no new heartbeat"),
            Err(_) => {}
        }
    }
}

/// Time runs only from when it is first waited for: a clock that is set back meanwhile makes it no longer.
fn patience(clock: &Arc<dyn Clock>) -> Patience {
    let clock = Arc::clone(clock);
    Box::pin(async move {
        let until = clock.now().saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        clock.sleep_until(until).await;
    })
}

/// A scheduler with its one job, on a thread of its own.
struct Source {
    scheduler: JobScheduler,
    _thread: Thread,
}

impl Source {
    async fn start(count: Weak<watch::Sender<u64>>) -> Result<Self, HeartbeatError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("heartbeat").enable_time().build()?;
        let thread = Thread(Some(runtime));
        let started = thread.0.as_ref().map(|runtime| runtime.spawn(schedule(count)));
        let scheduler = started.ok_or(HeartbeatError::Silent)?.await.map_err(|_| HeartbeatError::Silent)??;
        Ok(Self { scheduler, _thread: thread })
    }

    async fn stop(mut self) {
        // The scheduler's own door first, then whatever it left running.
        let _ = self.scheduler.shutdown().await;
    }
}

async fn schedule(count: Weak<watch::Sender<u64>>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    // A closure that panics would never run again, one that blocks would hold up the scheduler: this does neither.
    let job = Job::new(SECOND, move |_, _| {
        if let Some(count) = count.upgrade() {
            count.send_modify(|count| *count = count.wrapping_add(1));
        }
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A run time that may be dropped anywhere, and takes its tasks along. Never empty before that.
struct Thread(Option<Runtime>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
