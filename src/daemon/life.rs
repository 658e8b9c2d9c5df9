//! The life of the daemon: its pages first, then the driver's place, then the scheduler until it is told to stop. It puts
//! rooms together; it must never decide what a rotation does, and never let two drive.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::{self, CatchUp, Config};
use crate::engine;
use crate::model::FleetName;
use crate::rotation::policy::later;
use crate::scheduler::due::Schedule;
use crate::scheduler::heartbeat::{Heartbeat, HeartbeatError};
use crate::scheduler::reload::Change;
use crate::scheduler::work::{self, Fatal};
use crate::scheduler::{Scheduled, Scheduler};
use crate::telemetry::{FleetOfConfig, Listening, Log, Metrics, Pages, serve};

use super::doing::Doing;
use super::history::remember;
use super::notice::{Ear, tell};
use super::{Driver, Reload, SharedEnv, StartError, fleets};

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
    /// How the file is read again; `None`: it never is.
    pub reload: Option<Reload>,
}

impl Daemon {
    /// Runs until `stop` says so, or until it cannot go on.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().map_err(|error| DaemonError::Metrics(error.to_string()))?);
        metrics.set_fleets(&known(&self.config));
        let doing = Arc::new(Doing::default());
        let ear = Arc::new(Ear::new(metrics.clone(), doing.clone()));
        ear.config_read(Some(self.config.fleets.len()), clock.now());
        let (turned, not_driving) = (ear.clone(), ear.clone());
        let pages = Arc::new(Pages {
            metrics: metrics.clone(),
            clock: clock.clone(),
            turned: Box::new(move || turned.turned_last()),
            not_driving: Box::new(move || not_driving.why_not()),
        });
        let served = tokio::spawn(serve(self.listener, pages, std::future::pending()));
        let mut observers: Vec<Arc<dyn engine::Observer>> = vec![Arc::new(Log), metrics.clone(), doing];
        observers.extend(self.observers);
        let (config, env) = (Mutex::new(self.config), self.env);
        let work = Work { config, env, reload: self.reload, metrics, ear, clock: clock.clone(), observers };
        let result = work.run(stop).await;
        served.abort();
        result
    }
}

/// What the parts of a running daemon share.
struct Work {
    /// The file in force.
    config: Mutex<Arc<Config>>,
    env: SharedEnv,
    reload: Option<Reload>,
    metrics: Arc<Metrics>,
    ear: Arc<Ear>,
    clock: Arc<dyn Clock>,
    observers: Vec<Arc<dyn engine::Observer>>,
}

impl Work {
    async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        let driver = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => return Ok(()),
            driver = self.take_place() => driver?,
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
    async fn take_place(&self) -> Result<Driver, StartError> {
        let mut said = false;
        loop {
            let heard = self.metrics.clone();
            let witness = move |account: &_, region: &_| heard.witness(account, region);
            match Driver::start_heard(self.config(), self.env.clone(), Box::new(witness)).await {
                Err(StartError::Busy { lock }) => {
                    if !said {
                        said = true;
                        tracing::warn!(lock = %lock.display(), "another rekeyd drives this store: waiting for its place");
                        // As far as it can come: a start that the service manager gave up would only be made again.
                        tell(&[NotifyState::Ready]);
                        self.ear.not_driving("another rekeyd drives this store");
                    }
                    self.ear.alive(self.clock.now());
                    tokio::select! {
                        () = self.clock.sleep_until(later(self.clock.now(), IN_WAITING)) => {}
                        () = self.asked() => {
                            self.ear.reloading();
                            self.read().await;
                            self.ear.reloaded();
                        }
                    }
                }
                other => return other,
            }
        }
    }

    async fn drive(&self, driver: &Driver, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
        remember(&self.metrics, driver.journal(), |_| true).await;
        let tools = driver.make_tools(self.observers.clone());
        let config = self.config();
        let scheduled = scheduled(&config, driver);
        let scheduler = Scheduler::open(tools(), driver.agenda(), scheduled, vec![self.ear.clone()]).await?;
        let mut heartbeat = Heartbeat::start(self.clock.clone()).await?;
        self.ear.driving(self.clock.now());
        let store = config.store.display();
        tracing::info!(fleets = config.fleets.len(), listen = %config.listen, %store, "driving");
        let (change, changes) = mpsc::channel(1);
        let result = tokio::select! {
            result = work::run(scheduler, tools, self.clock.clone(), &mut heartbeat, changes, stop, LAST_CALL) => result,
            never = self.reload_for_ever(driver, change) => match never {},
        };
        tokio::select! {
            () = heartbeat.stop() => {}
            () = self.clock.sleep_until(later(self.clock.now(), LAST_WORDS)) => {}
        }
        Ok(result?)
    }

    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until somebody wants the file to be read.
    async fn asked(&self) {
        match &self.reload {
            Some(reload) => reload.asked.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Reads the file. What is good is in force from now on, as far as this room goes by it; else it is said what is wrong.
    async fn read(&self) -> Option<Arc<Config>> {
        let (reload, old) = (self.reload.as_ref()?, self.config());
        let read = reload.read(&old, &self.env).await;
        self.ear.config_read(read.as_ref().ok().map(|config| config.fleets.len()), self.clock.now());
        match read {
            Ok(config) => {
                config.notes.iter().for_each(|note| tracing::info!(line = note.line, "{note}"));
                *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
                self.metrics.set_fleets(&known(&config));
                Some(config)
            }
            Err(errors) => {
                for problem in
                    errors.iter().flat_map(|error| error.to_string().lines().map(str::to_string).collect::<Vec<_>>())
                {
                    tracing::error!(problem, "the config file is refused, and the one read before stays in force");
                }
                None
            }
        }
    }

    /// Reads the file as often as somebody asks, and hands what is good to whoever goes by it.
    async fn reload_for_ever(&self, driver: &Driver, change: mpsc::Sender<Change>) -> Infallible {
        loop {
            self.asked().await;
            let old = self.config();
            self.ear.reloading();
            if let Some(config) = self.read().await {
                driver.clouds().reload(config.clone());
                remember(&self.metrics, driver.journal(), |fleet| !old.fleets.contains_key(fleet)).await;
                let (taken, done) = oneshot::channel();
                let fleets = scheduled(&config, driver);
                tracing::info!(fleets = fleets.len(), "the config file was read anew, and is in force");
                // Nobody takes it any more: the loop has ended, and this is dropped.
                if change.send(Change { fleets, taken }).await.is_ok() {
                    let _ = done.await;
                }
            }
            self.ear.reloaded();
        }
    }
}

/// The fleets of the file as the metrics know them.
fn known(config: &Config) -> Vec<FleetOfConfig> {
    let provider = |fleet: &config::Fleet| Some(config.accounts.get(&fleet.account)?.provider);
    let fleets = config.fleets.iter();
    fleets.filter_map(|(name, fleet)| Some(FleetOfConfig { name: name.clone(), provider: provider(fleet)? })).collect()
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
