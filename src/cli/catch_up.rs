//! `rekeyd catch-up FLEET`: the fleet's key for those who missed it. It makes no new key; driven from here, or handed over
//! to whoever drives.

use anyhow::Result;

use crate::engine::planner::Aim;
use crate::model::FleetName;

use super::rotate::run_for;
use super::{Exit, Scene, owner};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The fleet, as the config file names it
    fleet: FleetName,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let fleet = &arguments.fleet;
    owner::check(&config, &format!("catch-up {fleet}"))?;
    run_for(scene, config, fleet, Aim::CatchUp { new: true }, &[]).await
}
