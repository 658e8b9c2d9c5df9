//! `rekeyd hold FLEET | JOURNAL | --all`: nothing new is disturbed until a person releases it. Whoever drives notices
//! within two seconds; machines that we stopped are started all the same.

use anyhow::{Result, bail};

use crate::clock::{Clock, SystemClock};
use crate::model::FleetName;
use crate::rotation::Order;
use crate::store::{Agenda, Ask, Head};

use super::target::{Desk, Target, name};
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A fleet: no rotation of it begins, and what is open is held. Or a journal's id, or the beginning of one
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    target: Option<String>,
    /// Every fleet
    #[arg(long)]
    all: bool,
    /// Why, for whoever reads the journal
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    note: String,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let target = arguments.target.as_deref().unwrap_or("--all");
    let mut desk = Desk::open(scene, &format!("hold {target}")).await?;
    let order = Order::Hold { note: arguments.note.clone() };
    match &arguments.target {
        None => {
            // All fleets first: nothing begins while the journals are being written to.
            let fleets = desk.fleets();
            for fleet in &fleets {
                pause(&desk, fleet, &arguments.note).await?;
            }
            desk.look_again().await?;
            let mut failed = Vec::new();
            for fleet in &fleets {
                hold_open(&desk, fleet, &order, &mut failed).await?;
            }
            finish(failed)?;
        }
        Some(target) => match desk.find(target)? {
            Target::Fleet(fleet) => {
                pause(&desk, &fleet, &arguments.note).await?;
                desk.look_again().await?;
                let mut failed = Vec::new();
                hold_open(&desk, &fleet, &order, &mut failed).await?;
                finish(failed)?;
            }
            Target::Journal(head) => hold(&desk, &head, &order).await?,
        },
    }
    desk.close().await;
    Ok(Exit::Done)
}

/// No rotation of a fleet begins any more.
async fn pause(desk: &Desk, fleet: &FleetName, note: &str) -> Result<()> {
    let ask = Ask::Hold { note: note.to_string() };
    desk.store.ask(fleet, &ask, &desk.by, SystemClock.now()).await?;
    desk.out.line(format!("{fleet}: held; no rotation begins until `rekeyd release {fleet}`"));
    Ok(())
}

async fn hold_open(desk: &Desk, fleet: &FleetName, order: &Order, failed: &mut Vec<String>) -> Result<()> {
    for head in desk.open_of(fleet) {
        // One journal that cannot be read must not keep the others from being held: nothing drives it anyway.
        if let Err(error) = hold(desk, head, order).await {
            failed.push(format!("{fleet}: {}: {error:#}", name(head)));
        }
    }
    Ok(())
}

async fn hold(desk: &Desk, head: &Head, order: &Order) -> Result<()> {
    let entries = desk.order(head, order).await?;
    let fleet = head.plan.fleet();
    let name = name(head);
    match entries.is_empty() {
        false => desk.out.line(format!("{fleet}: {name} is held until `rekeyd release {}`", head.id)),
        true => match desk.held(head).await? {
            Some(reason) => desk.out.line(format!("{fleet}: {name} was held already: {reason}")),
            None => desk.out.line(format!("{fleet}: {name} was given up already, which holds it until it ends")),
        },
    }
    desk.say_owed(head).await
}

fn finish(failed: Vec<String>) -> Result<()> {
    if !failed.is_empty() {
        bail!("not held:\n{}", failed.join("\n"));
    }
    Ok(())
}
