//! `rekeyd hold FLEET | JOURNAL | --all`: nothing new is disturbed until a person releases it. Whoever drives notices
//! within two seconds; machines that we stopped are started all the same.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::clock::{Clock, SystemClock};
use crate::model::{FleetName, JournalId};
use crate::rotation::{Order, Plan};
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
            // What disturbs machines now, first of all; then nothing more begins; then whatever has begun meanwhile.
            let fleets = desk.fleets();
            let (mut failed, mut done) = (Vec::new(), BTreeSet::new());
            for fleet in &fleets {
                let rotations = desk.open_of(fleet).into_iter().filter(|head| matches!(head.plan, Plan::Rotate(_)));
                hold_these(&desk, rotations, &order, &mut failed, &mut done).await;
            }
            for fleet in &fleets {
                if let Err(error) = pause(&desk, fleet, &arguments.note).await {
                    failed.push(format!("{fleet}: {error:#}"));
                }
            }
            desk.look_again().await?;
            for fleet in &fleets {
                hold_these(&desk, desk.open_of(fleet), &order, &mut failed, &mut done).await;
            }
            finish(failed)?;
        }
        Some(target) => match desk.find(target)? {
            Target::Fleet(fleet) => {
                pause(&desk, &fleet, &arguments.note).await?;
                desk.look_again().await?;
                let (mut failed, mut done) = (Vec::new(), BTreeSet::new());
                hold_these(&desk, desk.open_of(&fleet), &order, &mut failed, &mut done).await;
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

/// Holds those that are not done yet. One journal that cannot be read must not keep the others from being held: nothing
/// drives it anyway.
async fn hold_these<'a>(
    desk: &Desk,
    heads: impl IntoIterator<Item = &'a Head>,
    order: &Order,
    failed: &mut Vec<String>,
    done: &mut BTreeSet<JournalId>,
) {
    for head in heads {
        if done.insert(head.id)
            && let Err(error) = hold(desk, head, order).await
        {
            failed.push(format!("{}: {}: {error:#}", head.plan.fleet(), name(head)));
        }
    }
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
