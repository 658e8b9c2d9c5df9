//! `rekeyd run`: the daemon. It begins rotations when they are due, goes on with open ones, serves its pages, and obeys
//! orders from other terminals, until it is told to stop.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::rotation::policy::later;
use crate::store::DriverLock;
use crate::telemetry::{Format, Listening};

use super::rotate::Signals;
use super::{Exit, Scene, output, owner};

/// What is logged unless RUST_LOG says otherwise. The heartbeat's crate tells each of its steps.
const USUAL: &str = "info,tokio_cron_scheduler=warn";
/// Who waits for another daemon's end looks so often.
const IN_WAITING: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How log lines are written to stderr, one for each journal entry. RUST_LOG filters them (default: info)
    #[arg(long, value_enum, env = "REKEYD_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// A log line's form.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Arguments {
    /// Begins to log.
    pub(super) fn log(&self, scene: &Scene) -> Result<()> {
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        Ok(crate::telemetry::log::init(format, &output::log_filter(&*scene.env, USUAL), output::ansi(&*scene.env))?)
    }
}

pub(super) async fn run(scene: &Scene, _: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    owner::check(&config, "run")?;
    for note in &config.notes {
        tracing::info!(line = note.line, "{note}");
    }
    let mut signals = Signals::new()?;
    let listener = tokio::select! {
        listener = listen(&config) => listener?,
        () = signals.next() => return Ok(Exit::Done),
    };
    let (stop, asked) = watch::channel(false);
    let daemon = Daemon { config, env: scene.env.clone(), listener, observers: Vec::new() };
    let life = daemon.run(asked);
    tokio::pin!(life);
    tokio::select! {
        result = &mut life => return Ok(result.map(|()| Exit::Done)?),
        () = signals.next() => {}
    }
    tracing::info!("told to stop: no new step; calls under way get 8 s; again to end at once");
    stop.send_replace(true);
    tokio::select! {
        result = life => Ok(result.map(|()| Exit::Done)?),
        () = signals.next() => {
            tracing::warn!("told twice: ending at once; the next start looks up what became of calls under way");
            Ok(Exit::Failed)
        }
    }
}

/// The place of the pages. Where another daemon of the same file has it, that one's end is waited for.
async fn listen(config: &Config) -> Result<Listening> {
    let mut said = false;
    loop {
        match Listening::bind(config.listen).await {
            Err(error)
                if error.kind() == ErrorKind::AddrInUse && DriverLock::is_held(&config.store).unwrap_or(false) =>
            {
                if !said {
                    said = true;
                    let listen = config.listen;
                    tracing::warn!(
                        "another rekeyd drives this store and serves {listen}: waiting for its place, without pages"
                    );
                }
                SystemClock.sleep_until(later(SystemClock.now(), IN_WAITING)).await;
            }
            other => {
                return other.with_context(|| {
                    format!(
                        "cannot listen on {} (`listen` in the config file): another program may have it",
                        config.listen
                    )
                });
            }
        }
    }
}
