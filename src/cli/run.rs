//! `rekeyd run`: the daemon. It begins rotations when they are due, goes on with open ones, serves its pages, and obeys
//! orders from other terminals, until it is told to stop.

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::daemon::Service;
use crate::telemetry::Format;

use super::rotate::Signals;
use super::{Exit, Scene, output, owner};

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
        Ok(crate::telemetry::log::init(format, &output::log_filter(&*scene.env, "info"), output::ansi(&*scene.env))?)
    }
}

pub(super) async fn run(scene: &Scene, _: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    owner::check(&config.custody.directory, "run")?;
    for note in &config.notes {
        tracing::info!(line = note.line, "{note}");
    }
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {} (listen: in the config file): another daemon, or another program, may have it",
            config.listen
        )
    })?;
    let mut signals = Signals::new()?;
    let (stop, asked) = watch::channel(false);
    let service = Service { config, env: scene.env.clone(), listener, observers: Vec::new() };
    let service = service.run(asked);
    tokio::pin!(service);
    tokio::select! {
        result = &mut service => return Ok(result.map(|()| Exit::Done)?),
        () = signals.next() => {}
    }
    tracing::info!("told to stop: no new step; calls under way get 8 s; again to end at once");
    stop.send_replace(true);
    tokio::select! {
        result = service => Ok(result.map(|()| Exit::Done)?),
        () = signals.next() => {
            tracing::warn!("told twice: ending at once; the next start looks up what became of calls under way");
            Ok(Exit::Failed)
        }
    }
}
