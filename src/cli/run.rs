//! `rekeyd run`: the daemon. It begins rotations when they are due, goes on with open ones, serves its pages, and obeys
//! orders from other terminals, until it is told to stop.

use std::io::{ErrorKind, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::daemon::{self, Daemon, Reload};
use crate::rotation::policy::later;
use crate::store::DriverLock;
use crate::telemetry::{Format, Listening, Look, log};

use super::signals::Signals;
use super::{Exit, Scene, output, owner};

/// What is logged unless RUST_LOG says otherwise. The heartbeat's crate tells each of its steps.
const USUAL: &str = "info,tokio_cron_scheduler=warn";
/// Who waits for another daemon's end looks so often.
const IN_WAITING: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How log lines are written to stderr, one for each journal entry. RUST_LOG filters them (default: info). The journal of
    /// systemd gets their priorities
    #[arg(long, value_enum, env = "REKEYD_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

/// A log line's form.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// `human` on a terminal, else `text`.
    Auto,
    /// For people: the time of day, the words, then the fields.
    Human,
    /// The time, the level, the words, the fields; the journal adds time and level itself.
    Text,
    /// One JSON object a line.
    Json,
}

impl Arguments {
    /// Begins to log.
    pub(super) fn log(&self, scene: &Scene) -> Result<()> {
        let format = match self.log_format {
            LogFormat::Auto if std::io::stderr().is_terminal() => Format::Human,
            LogFormat::Human => Format::Human,
            LogFormat::Auto | LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let look = Look { format, ansi: output::ansi(&*scene.env), journal: output::is_journal(&*scene.env) };
        Ok(log::init(look, &output::log_filter(&*scene.env, USUAL), std::io::stderr)?)
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
    let (path, hung_up) = (scene.config.clone(), Arc::new(Notify::new()));
    let read = move || config::read(&path, &daemon::cloud);
    let reload = Some(Reload { asked: hung_up.clone(), read: Arc::new(read) });
    let daemon = Daemon { config, env: scene.env.clone(), listener, observers: Vec::new(), reload };
    let life = daemon.run(asked);
    tokio::pin!(life);
    loop {
        tokio::select! {
            result = &mut life => return Ok(result.map(|()| Exit::Done)?),
            is_hangup = signals.next_or_hangup() => match is_hangup {
                true => hung_up.notify_one(),
                false => break,
            }
        }
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
