//! `rekeyd rollback ROTATION`: back to what each instance had before that rotation touched it. It is driven from here, or
//! handed over to whoever drives; it must refuse before anything is given up for it.

use anyhow::{Context, Result, bail};

use crate::engine::back::may_roll_back;
use crate::engine::planner::Aim;
use crate::rotation::Plan;

use super::output::some;
use super::rotate::run_for;
use super::show::find;
use super::target::store_beside;
use super::{Exit, Scene, owner};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The rotation's id, or the beginning of one
    rotation: String,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    use crate::store::Journal;
    let config = scene.config()?;
    owner::check(&config, &format!("rollback {}", arguments.rotation))?;
    if !config.store.try_exists().with_context(|| config.store.display().to_string())? {
        bail!("there is no database at {} yet: nothing was rotated from here", config.store.display());
    }
    let store = store_beside(&config.store).await.context("the store cannot be read")?;
    let heads = store.heads().await?.readable;
    let head = find(&heads, &arguments.rotation)?.clone();
    // A fleet's newest rotation is the way back itself once that has begun: the same command would turn it round.
    if head.plan.fleet().as_str() == arguments.rotation {
        bail!("name the rotation, not its fleet: `rekeyd rollback {}` is the newest one", head.id);
    }
    let Plan::Rotate(plan) = &head.plan else {
        bail!("{} is a retire journal: a rotation is rolled back, and `rekeyd history` lists them", head.id);
    };
    let fleet = plan.fleet.clone();
    if !config.fleets.contains_key(&fleet) {
        bail!(
            "fleet {fleet} is not in the config file, which says how its machines may be disturbed; it has {}",
            some(config.fleets.keys(), 20)
        );
    }
    let refused = may_roll_back(&store, &head).await;
    store.close().await;
    refused.context("nothing was done")?;
    run_for(scene, config, &fleet, Aim::Back(head.id), &[]).await
}
