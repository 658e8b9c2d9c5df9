//! `rekeyd release FLEET | JOURNAL | --all [--allow=…]`: what is held goes on. What only a person may decide is allowed
//! here by name, and nowhere else.

use anyhow::{Result, bail};

use crate::clock::{Clock, SystemClock};
use crate::model::{FleetName, InstanceId};
use crate::rotation::{Allow, HoldReason, Order, Outcome, Plan};
use crate::store::{Agenda, Ask, Head};

use super::target::{Desk, Target, name};
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A fleet: rotations of it begin again, and what is held goes on. Or a journal's id, or the beginning of one
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    target: Option<String>,
    /// Every fleet, and every journal that an operator held (what is held for another reason is released by name)
    #[arg(long, conflicts_with = "allow")]
    all: bool,
    /// `leave-off:INSTANCE`: the instance may stay switched off, it is excluded and no start is owed to it any more.
    /// `destroy`: the private key of this retire journal may be destroyed without a login proof. `undelivered`: the rotation
    /// may end though its key was not delivered everywhere. `gone`: for an hour, what the cloud does not show is gone, though
    /// nothing shows that it is this journal's account that answers. May be given more than once
    #[arg(long, value_name = "WHAT", value_parser = parse_allow)]
    allow: Vec<Allow>,
    /// Why, for whoever reads the journal
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    note: String,
}

fn parse_allow(text: &str) -> Result<Allow, String> {
    match text.split_once(':') {
        None if text == "destroy" => Ok(Allow::Destroy),
        None if text == "undelivered" => Ok(Allow::Undelivered),
        None if text == "gone" => Ok(Allow::Gone),
        Some(("leave-off", id)) if !id.is_empty() => Ok(Allow::LeaveOff(InstanceId::new(id))),
        _ => Err("write leave-off:INSTANCE, destroy, undelivered or gone".to_string()),
    }
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let target = arguments.target.as_deref().unwrap_or("--all");
    let desk = Desk::open(scene, &format!("release {target}")).await?;
    let (note, allow) = (arguments.note.clone(), arguments.allow.clone());
    let order = Order::Release { note: note.clone(), allow: allow.clone() };
    let mut failed = Vec::new();
    match &arguments.target {
        None => {
            let paused = desk.store.paused().await?;
            for fleet in desk.fleets() {
                if paused.contains_key(&fleet) {
                    resume(&desk, &fleet, &note).await?;
                }
                for head in desk.open_of(&fleet) {
                    // One journal that cannot be read must not keep the others held.
                    match desk.held(head).await {
                        Ok(Some(HoldReason::Operator { .. })) => {
                            note_failure(&mut failed, head, release(&desk, head, &order).await)
                        }
                        Ok(Some(reason)) => desk.out.line(format!(
                            "{fleet}: {} stays held: {reason}; `rekeyd release {}` releases it",
                            name(head),
                            head.id
                        )),
                        Ok(None) => {}
                        Err(error) => note_failure(&mut failed, head, Err(error)),
                    }
                }
            }
        }
        Some(target) => match desk.find(target)? {
            Target::Journal(head) => release(&desk, &head, &order).await?,
            Target::Fleet(fleet) => release_fleet(&desk, &fleet, &order, &allow, &note, &mut failed).await?,
        },
    }
    desk.close().await;
    if !failed.is_empty() {
        bail!("not released:\n{}", failed.join("\n"));
    }
    Ok(Exit::Done)
}

fn note_failure(failed: &mut Vec<String>, head: &Head, result: Result<()>) {
    if let Err(error) = result {
        failed.push(format!("{}: {}: {error:#}", head.plan.fleet(), name(head)));
    }
}

async fn release_fleet(
    desk: &Desk,
    fleet: &FleetName,
    order: &Order,
    allow: &[Allow],
    note: &str,
    failed: &mut Vec<String>,
) -> Result<()> {
    if allow.contains(&Allow::Destroy) {
        bail!(
            "--allow=destroy is for one retire journal, so that no other key dies with it: \
             `rekeyd release JOURNAL --allow=destroy`; `rekeyd status {fleet}` lists the kept keys with their journals"
        );
    }
    let was_paused = desk.store.paused().await?.contains_key(fleet);
    let mut held = Vec::new();
    for head in desk.open_of(fleet) {
        match desk.held(head).await {
            Ok(Some(_)) => held.push(head),
            Ok(None) => {}
            Err(error) => note_failure(failed, head, Err(error)),
        }
    }
    // What is allowed speaks of a rotation's instances.
    let rotation = held.iter().find(|head| matches!(head.plan, Plan::Rotate(_)));
    if !allow.is_empty() && rotation.is_none() {
        bail!(
            "{fleet} has no held rotation, of which --allow could speak; a journal that is not held is named by its id \
             (`rekeyd status {fleet}`)"
        );
    }
    if held.is_empty() && !was_paused && failed.is_empty() {
        bail!("{fleet} is not held");
    }
    let plain = Order::Release { note: note.to_string(), allow: Vec::new() };
    let of = |head: &Head| if matches!(head.plan, Plan::Rotate(_)) { order } else { &plain };
    // A refusal leaves everything as it was.
    for head in &held {
        desk.check(head, of(head)).await?;
    }
    // The fleet first: a hold that nobody has carried out yet must not hold again what is released here.
    if was_paused {
        resume(desk, fleet, note).await?;
    }
    for head in held {
        note_failure(failed, head, release(desk, head, of(head)).await);
    }
    Ok(())
}

/// Rotations of a fleet may begin again.
async fn resume(desk: &Desk, fleet: &FleetName, note: &str) -> Result<()> {
    desk.store.ask(fleet, &Ask::Release { note: note.to_string() }, &desk.by, SystemClock.now()).await?;
    desk.out.line(format!("{fleet}: released; rotations of it may begin again"));
    Ok(())
}

async fn release(desk: &Desk, head: &Head, order: &Order) -> Result<()> {
    let was = desk.held(head).await?;
    desk.order(head, order).await?;
    let only_gone = matches!(order, Order::Release { allow, .. } if allow.iter().all(|allow| *allow == Allow::Gone) && !allow.is_empty());
    if only_gone && let Some(reason) = desk.held(head).await? {
        let (fleet, what) = (head.plan.fleet(), name(head));
        desk.out
            .line(format!("{fleet}: {what}: what is not shown counts as gone for an hour; it stays held: {reason}"));
        return Ok(());
    }
    let was = was.map(|reason| format!(" (it was held: {reason})")).unwrap_or_default();
    let kept = matches!(head.ended, Some((_, Outcome::Kept)));
    let what = if kept { "is open again, to destroy the private key" } else { "is released" };
    desk.out.line(format!("{}: {} {what}{was}", head.plan.fleet(), name(head)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_allowed_is_named_exactly() {
        let check = |text: &str, expect: Option<Allow>| assert_eq!(parse_allow(text).ok(), expect, "{text}");
        check("destroy", Some(Allow::Destroy));
        check("undelivered", Some(Allow::Undelivered));
        check("gone", Some(Allow::Gone));
        check("leave-off:i-1", Some(Allow::LeaveOff(InstanceId::new("i-1"))));
        check("leave-off:", None);
        check("leave-off", None);
        check("destroy:all", None);
        check("", None);
    }
}
