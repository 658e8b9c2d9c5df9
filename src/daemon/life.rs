//! The life of the daemon: its pages first, then the driver's place, then the scheduler until it is told to stop. It puts
//! rooms together; it must never decide what a rotation does, and never let two drive.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, CatchUp, Config};
use crate::engine;
use crate::model::FleetName;
use crate::rotation::policy::later;
use crate::scheduler::due::Schedule;
use crate::scheduler::heartbeat::{Heartbeat, HeartbeatError};
use crate::scheduler::work::{self, Fatal};
use crate::scheduler::{Scheduled, Scheduler};
use crate::telemetry::{FleetOfConfig, Listening, Log, Metrics, Pages, serve};

use super::history::remember;
use super::notice::{Ear, tell};
use super::{Driver, SharedEnv, StartError, fleets};

/// Calls that are under way when the daemon is told to stop get so long.
const LAST_CALL: Duration = Duration::from_secs(8);
/// Then the heartbeat is stopped and the store closed, each of which may take so long: the whole takes less than ten seconds.
const LAST_WORDS: Duration = Duration::from_millis(700);
/// Who waits for the driver's place looks so often.
const IN_WAITING: Duration = Duration::from_secs(1);

/// Why the daemon does not run, or ran no longer.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It did not come so far.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The journals cannot be read as a whole.
    #[error("the journals")]
    Engine(#[from] engine::EngineError),
    /// The metrics contradict each other: a fault of this build.
    #[error("the metrics: {0}")]
    Metrics(String),
    /// The heartbeat did not start.
    #[error("the heartbeat")]
    Heartbeat(#[from] HeartbeatError),
    /// Another engine writes to the same journals.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// What a daemon is made of.
pub struct Daemon {
    /// The checked file.
    pub config: Arc<Config>,
    /// Where its secrets come from.
    pub env: SharedEnv,
    /// Where its pages are served.
    pub listener: Listening,
    /// Who hears each entry besides the log and the metrics.
    pub observers: Vec<Arc<dyn engine::Observer>>,
}

impl Daemon {
    /// Runs until `stop` says so, or until it cannot go on.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().map_err(|error| DaemonError::Metrics(error.to_string()))?);
        let provider = |fleet: &config::Fleet| Some(self.config.accounts.get(&fleet.account)?.provider);
        let known = self.config.fleets.iter();
        let known =
            known.filter_map(|(name, fleet)| Some(FleetOfConfig { name: name.clone(), provider: provider(fleet)? }));
        metrics.set_fleets(&known.collect::<Vec<_>>());
        let ear = Arc::new(Ear::new(metrics.clone()));
        let (turned, not_driving) = (ear.clone(), ear.clone());
        let pages = Arc::new(Pages {
            metrics: metrics.clone(),
            clock: clock.clone(),
            turned: Box::new(move || turned.turned_last()),
            not_driving: Box::new(move || not_driving.why_not()),
        });
        let served = tokio::spawn(serve(self.listener, pages, std::future::pending()));
        let work = Work { config: self.config, metrics, ear, clock: clock.clone(), observers: self.observers };
        let result = work.run(self.env, stop).await;
        served.abort();
        result
    }
}

/// What the parts of a running daemon share.
struct Work {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    ear: Arc<Ear>,
    clock: Arc<dyn Clock>,
    observers: Vec<Arc<dyn engine::Observer>>,
}

impl Work {
    async fn run(self, env: SharedEnv, mut stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let driver = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => return Ok(()),
            driver = self.take_place(env) => driver?,
        };
        let result = self.drive(&driver, stop).await;
        self.ear.not_driving("stopping");
        tokio::select! {
            () = driver.close() => {}
            () = self.clock.sleep_until(later(self.clock.now(), LAST_WORDS)) => {}
        }
        result
    }

    /// Waits for the driver's place. The pages are up meanwhile, and say that this process does not drive.
    async fn take_place(&self, env: SharedEnv) -> Result<Driver, StartError> {
        let mut said = false;
        loop {
            let heard = self.metrics.clone();
            let witness = move |account: &_, region: &_| heard.witness(account, region);
            match Driver::start_heard(self.config.clone(), env.clone(), Box::new(witness)).await {
                Err(StartError::Busy { lock }) => {
                    if !said {
                        said = true;
                        tracing::warn!(lock = %lock.display(), "another rekeyd drives this store: waiting for its place");
                        self.ear.not_driving("another rekeyd drives this store");
                        // As far as it can come: a start that the service manager gave up would only be made again.
                        tell(&[NotifyState::Ready, NotifyState::Status("waiting: another rekeyd drives this store")]);
                    }
                    self.ear.alive(self.clock.now());
                    self.clock.sleep_until(later(self.clock.now(), IN_WAITING)).await;
                }
                other => return other,
            }
        }
    }

    async fn drive(&self, driver: &Driver, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        remember(&self.metrics, driver.journal()).await;
        let mut observers: Vec<Arc<dyn engine::Observer>> = vec![Arc::new(Log), self.metrics.clone()];
        observers.extend(self.observers.iter().cloned());
        let tools = driver.make_tools(observers);
        let scheduled = scheduled(&self.config, driver);
        let scheduler = Scheduler::open(tools(), driver.agenda(), scheduled, vec![self.ear.clone()]).await?;
        let mut heartbeat = Heartbeat::start(self.clock.clone()).await?;
        self.ear.driving(self.clock.now());
        let store = self.config.store.display();
        tracing::info!(fleets = self.config.fleets.len(), listen = %self.config.listen, %store, "driving");
        let result = work::run(scheduler, tools, self.clock.clone(), &mut heartbeat, stop, LAST_CALL).await;
        tokio::select! {
            () = heartbeat.stop() => {}
            () = self.clock.sleep_until(later(self.clock.now(), LAST_WORDS)) => {}
        }
        Ok(result?)
    }
}

/// The fleets of the file as the scheduler takes them.
fn scheduled(config: &Config, driver: &Driver) -> Vec<Scheduled> {
    let schedule = |name: &FleetName| {
        let schedule = config.fleets.get(name)?.schedule.as_ref()?;
        let (cron, timezone) = (schedule.cron.clone(), schedule.timezone.clone());
        Some(Schedule::new(cron, timezone, schedule.slack, schedule.jitter, name, driver.mark()))
    };
    let binds_new = |name: &FleetName| config.fleets.get(name).is_some_and(|fleet| fleet.catch_up == CatchUp::Auto);
    let scheduled = |fleet: engine::planner::Fleet| Scheduled {
        schedule: schedule(&fleet.name),
        binds_new: binds_new(&fleet.name),
        fleet,
    };
    fleets(config).into_iter().map(scheduled).collect()
}
