//! What a person's order is about, and the desk at which it is given: the store, opened to write beside whoever drives.
//! It must never migrate the database under a running driver, nor write under another account than custody's owner's.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::engine::operate::{OrderError, operate};
use crate::model::FleetName;
use crate::rotation::policy::later;
use crate::rotation::{Author, Entry, HoldReason, Order, Plan, Retirement, Rotation};
use crate::store::{DriverLock, Head, Journal, Sqlite};

use super::output::{Output, some};
use super::plan::owed;
use super::show::find;
use super::{Scene, owner};

/// Between two looks at a store that is being made.
const MAKING: Duration = Duration::from_millis(300);
/// Whoever has just become the driver makes the database within this, or brings it up to date.
const MADE: Duration = Duration::from_secs(5);

/// The store, to write beside who drives.
pub(super) async fn store_beside(path: &Path) -> Result<Sqlite> {
    let begun = SystemClock.now();
    loop {
        match Sqlite::open_to_write(path).await {
            Err(_) if SystemClock.now() < later(begun, MADE) && DriverLock::is_held(path).unwrap_or(false) => {
                SystemClock.sleep_until(later(SystemClock.now(), MAKING)).await;
            }
            other => return Ok(other?),
        }
    }
}

/// What an order is about.
pub(super) enum Target {
    /// A fleet, and all of its open journals.
    Fleet(FleetName),
    /// One journal.
    Journal(Box<Head>),
}

/// Where orders are given.
pub(super) struct Desk {
    pub(super) config: Arc<Config>,
    pub(super) store: Sqlite,
    pub(super) by: Author,
    pub(super) out: Output,
    heads: Vec<Head>,
}

impl Desk {
    /// Opens the store of the config file for a verb, given as it was typed.
    pub(super) async fn open(scene: &Scene, verb: &str) -> Result<Self> {
        let config = scene.config()?;
        owner::check(&config, verb)?;
        if !config.store.try_exists().with_context(|| config.store.display().to_string())? {
            bail!(
                "there is no database at {} yet: nothing runs that could be told to stop or go on",
                config.store.display()
            );
        }
        let store = store_beside(&config.store).await.context("the store cannot be written to")?;
        let heads = store.heads().await?.readable;
        let by = Author::Operator(owner::person(&*scene.env));
        Ok(Self { config, store, by, out: scene.out, heads })
    }

    /// Reads again which journals there are: one may have begun before an order counted.
    pub(super) async fn look_again(&mut self) -> Result<()> {
        self.heads = self.store.heads().await?.readable;
        Ok(())
    }

    /// The fleets that the file or an open journal has.
    pub(super) fn fleets(&self) -> BTreeSet<FleetName> {
        let open = self.heads.iter().filter(|head| head.ended.is_none()).map(|head| head.plan.fleet().clone());
        self.config.fleets.keys().cloned().chain(open).collect()
    }

    /// The fleet of this name, or the journal of this id or unique beginning of one.
    pub(super) fn find(&self, asked: &str) -> Result<Target> {
        if let Some(fleet) = self.fleets().into_iter().find(|fleet| fleet.as_str() == asked) {
            return Ok(Target::Fleet(fleet));
        }
        let known = || format!("there is no fleet {asked:?} either; there are {}", some(self.fleets(), 20));
        Ok(Target::Journal(Box::new(find(&self.heads, asked).with_context(known)?.clone())))
    }

    /// The open journals of a fleet, its rotation first.
    pub(super) fn open_of(&self, fleet: &FleetName) -> Vec<&Head> {
        let mut open: Vec<&Head> =
            self.heads.iter().filter(|head| head.plan.fleet() == fleet && head.ended.is_none()).collect();
        open.sort_by_key(|head| matches!(head.plan, Plan::Retire(_)));
        open
    }

    /// Gives an order to one journal.
    pub(super) async fn order(&self, head: &Head, order: &Order) -> Result<Vec<Entry>, OrderError> {
        operate(&self.store, &SystemClock, head.id, order, &self.by).await
    }

    /// Whether an order would be taken by one journal; writes nothing.
    pub(super) async fn check(&self, head: &Head, order: &Order) -> Result<()> {
        match self.fold(head).await? {
            Ok(rotation) => rotation.order(order)?,
            Err(retirement) => retirement.order(order)?,
        };
        Ok(())
    }

    /// Why a journal is held.
    pub(super) async fn held(&self, head: &Head) -> Result<Option<HoldReason>> {
        Ok(match self.fold(head).await? {
            Ok(rotation) => rotation.held.clone(),
            Err(retirement) => retirement.held,
        })
    }

    /// Says who is owed a start by a rotation: that goes on whatever is ordered.
    pub(super) async fn say_owed(&self, head: &Head) -> Result<()> {
        if let Ok(rotation) = self.fold(head).await? {
            let owed = owed(&rotation);
            if !owed.is_empty() {
                self.out.line(format!("  owed a start, and started as soon as it can be: {}", some(&owed, 20)));
            }
        }
        Ok(())
    }

    async fn fold(&self, head: &Head) -> Result<std::result::Result<Box<Rotation>, Retirement>> {
        let entries = self.store.read(head.id, 0).await?;
        Ok(match &head.plan {
            Plan::Rotate(plan) => {
                let instances = self.store.instances(head.id).await?;
                Ok(Box::new(Rotation::fold(head.id, plan.clone(), &instances, &entries)?))
            }
            Plan::Retire(plan) => Err(Retirement::fold(head.id, plan.clone(), &entries)?),
        })
    }

    /// Closes the store, so that nothing is left in its write-ahead log.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}

/// A journal in a line: `rotation 0192…` or `retire journal 0192… of key pair rk…`.
pub(super) fn name(head: &Head) -> String {
    match &head.plan {
        Plan::Rotate(plan) => format!("{} {}", plan.purpose().name(), head.id),
        Plan::Retire(plan) => format!("retire journal {} of key pair {}", head.id, plan.key_name),
    }
}
