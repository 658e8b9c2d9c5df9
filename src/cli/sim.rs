//! `rekeyd sim`: four simulated clouds on loopback, until it is told to end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::model::parse_duration;
use crate::sim::Faults;
use crate::sim::serve::{Options, serve};

use super::rotate::Signals;
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Tagged machines in each cloud; strangers' machines come on top
    #[arg(long, default_value_t = 10)]
    instances: usize,
    /// So many fleets share them by turns: each machine bears the tag `fleet` besides, fleet-0, fleet-1 and so on
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    fleets: usize,
    /// Write what a client needs to know there once the clouds answer
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// The seed of ids, credentials, fleets and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Between a request's arrival and its answer
    #[arg(long, default_value = "20ms", value_parser = parse_duration)]
    latency: Duration,
    /// How long stops, starts, reboots and binds take
    #[arg(long, default_value = "200ms", value_parser = parse_duration)]
    operation_time: Duration,
    /// What goes wrong: throttle=P, error500=P, lost=P, late=P:DURATION, delay=P:DURATION, rubbish=P, opfail=P,
    /// halfdone=P, poison=N, poison=ID, skew=DURATION, separated by commas
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SPEC")]
    faults: Faults,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let running = serve(Options {
        instances: arguments.instances,
        fleets: arguments.fleets,
        ready_file: arguments.ready_file.clone(),
        seed: arguments.seed,
        latency: arguments.latency,
        operation_time: arguments.operation_time,
        faults: arguments.faults.clone(),
    })
    .await?;
    for cloud in &running.ready().clouds {
        scene.out.line(format!(
            "{:<18}  {}  region {}  {} tagged instances",
            cloud.provider.to_string(),
            cloud.endpoint,
            cloud.region,
            cloud.instances
        ));
    }
    scene.out.line(format!("{:<18}  {}/state", "control", running.ready().control));
    running.until(signals.next()).await;
    Ok(Exit::Done)
}
