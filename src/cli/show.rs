//! `rekeyd show ROTATION`: the story of one journal, entry by entry, and whether its chain is whole.

use anyhow::{Result, bail};
use serde_json::json;

use crate::rotation::{Part, Plan, Rotation};
use crate::store::Head;

use super::journals::Journals;
use super::output::{Tone, count, moment, some, table};
use super::story::Teller;
use super::{Exit, Scene, exposure};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A journal's id or the beginning of one, or a fleet: its newest rotation
    rotation: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let journals = Journals::open(&config).await?;
    let heads = journals.heads().await?.readable;
    let head = find(&heads, &arguments.rotation)?;
    let checked = journals.verify(head.id).await;
    let entries = match (journals.entries(head.id).await, &checked) {
        (Ok(entries), _) => entries,
        // The reason is the chain's own.
        (Err(error), _) => return Err(error),
    };
    let instances = journals.instances(head.id).await.unwrap_or_default();
    let exit = if checked.is_ok() { Exit::Done } else { Exit::Failed };
    let problem = checked.err().map(|error| format!("{error:#}"));
    // Entries that do not fold are shown, and nothing is concluded from them.
    let rotation = match &head.plan {
        Plan::Rotate(plan) => Rotation::fold(head.id, plan.clone(), &instances, &entries).ok(),
        Plan::Retire(_) => None,
    };
    if arguments.json {
        scene.out.json(&json!({
            "journal": head.id,
            "fleet": head.plan.fleet(),
            "plan": head.plan,
            "begun": head.begun,
            "ended": head.ended.map(|(at, _)| at),
            "outcome": head.ended.map(|(_, outcome)| outcome),
            "instances": instances,
            "entries": entries,
            "exposure": rotation.map(|rotation| exposure::as_json(&rotation, &instances)),
            "chain": { "whole": problem.is_none(), "problem": problem },
        }))?;
        return Ok(exit);
    }
    let out = scene.out;
    let what = match &head.plan {
        Plan::Rotate(_) => "rotation",
        Plan::Retire(_) => "retirement",
    };
    let place = head.plan.place();
    let title = format!("{what} {} of fleet {}: key pair {}", head.id, head.plan.fleet(), head.plan.key_name());
    out.line(out.tone(Tone::Strong, title));
    out.line(format!("{} {}, account {}", place.provider, place.region, place.account));
    if !instances.is_empty() {
        let excluded = instances.iter().filter(|one| matches!(one.part, Part::Excluded(_))).count();
        out.line(format!("{} planned, {excluded} left out by the plan", count(instances.len() - excluded, "instance")));
        for one in &instances {
            if let Part::Excluded(reason) = &one.part {
                out.line(format!("  {} {}: {reason}", one.id, one.name));
            }
        }
    }
    let mut teller = Teller::of(&instances);
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| vec![entry.seq.to_string(), moment(entry.at), teller.tell(&head.plan, entry)])
        .collect();
    out.print(&table(0, &["#", "WHEN", "WHAT"], &rows));
    if let Some(rotation) = &rotation {
        exposure::say_exposure(out, rotation, &instances);
    }
    match problem {
        None => out.line(out.tone(Tone::Good, format!("chain: {}, whole", count(entries.len(), "entry")))),
        Some(problem) => out.line(out.tone(Tone::Bad, format!("chain: {problem}"))),
    }
    Ok(exit)
}

/// The journal of an id or a unique beginning of one, or the newest rotation of a fleet.
pub(super) fn find<'a>(heads: &'a [Head], asked: &str) -> Result<&'a Head> {
    let newest = |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && head.plan.fleet().as_str() == asked;
    if let Some(head) = heads.iter().rev().find(newest) {
        return Ok(head);
    }
    let asked = asked.to_lowercase();
    let matching: Vec<&Head> = heads.iter().filter(|head| head.id.to_string().starts_with(&asked)).collect();
    match matching.as_slice() {
        [head] => Ok(head),
        [] => bail!("no journal begins with {asked:?}, and no fleet of that name was rotated; see `rekeyd status`"),
        many => bail!(
            "{} begin with {asked:?}: {}",
            count(many.len(), "journal"),
            some(many.iter().map(|head| head.id), 10)
        ),
    }
}
