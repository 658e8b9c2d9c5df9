//! `rekeyd show ROTATION`: the story of one journal, entry by entry, and whether its chain is whole.

use anyhow::{Result, bail};
use serde_json::json;

use crate::model::Timestamp;
use crate::rotation::{Part, Plan, PlannedInstance, Rotation};
use crate::store::Head;

use super::counts::Counts;
use super::fate::Fate;
use super::journals::Journals;
use super::output::{Output, Tone, count, moment, some, span};
use super::story::{Teller, kind};
use super::{Exit, Scene, exposure};

/// So many instances are listed.
const SHOWN: usize = 20;

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
    let place = head.plan.place();
    let compromised = matches!(&head.plan, Plan::Rotate(plan) if plan.compromised);
    let why = if compromised { ", as the old key is in wrong hands" } else { "" };
    let (what, name) = (kind(&head.plan), head.plan.key_name());
    let title = format!("{what} {} of fleet {}: key pair {name}{why}", head.id, head.plan.fleet());
    out.line(out.tone(Tone::Strong, title));
    out.line(format!("{} {}, account {}", place.provider, place.region, place.account));
    let newest = entries.last().map_or(head.begun, |entry| entry.at);
    out.line(match &head.ended {
        Some((at, outcome)) => {
            format!("begun {}, {outcome} {} ({})", moment(head.begun), moment(*at), span(head.begun, *at))
        }
        None => format!("begun {}, still open; last entry {}", moment(head.begun), moment(newest)),
    });
    kin(&heads, head).into_iter().for_each(|line| out.line(line));
    if let Some(rotation) = &rotation {
        if let Some((_, fingerprint)) = &rotation.key {
            out.line(format!("key {fingerprint}"));
        }
        out.line(Counts::of(rotation, &instances).text());
        if let Some(reason) = &rotation.held {
            out.line(out.tone(Tone::Bad, format!("HELD: {reason}; {}", reason.way_on(head.id))));
        }
    }
    let left_out = instances.iter().filter_map(|one| match &one.part {
        Part::Excluded(reason) => Some(vec![one.id.to_string(), one.name.clone(), reason.to_string()]),
        Part::Batch(_) => None,
    });
    let left_out: Vec<Vec<String>> = left_out.collect();
    if !left_out.is_empty() {
        out.line("left out by the plan:");
        out.print(&out.table(2, &["INSTANCE", "NAME", "WHY"], &left_out));
    }
    // The day stands above.
    let day = |at: Timestamp| at.strftime("%F").to_string();
    let one_day = day(newest) == day(head.begun);
    let mut teller = Teller::of(&instances);
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let when = if one_day { entry.at.strftime("%H:%M:%SZ").to_string() } else { moment(entry.at) };
            vec![entry.seq.to_string(), when, span(head.begun, entry.at), teller.tell(&head.plan, entry)]
        })
        .collect();
    out.print(&out.table(0, &["#", "WHEN", "AFTER", "WHAT"], &rows));
    if let Some(rotation) = &rotation {
        say_unwell(out, rotation, &instances);
    }
    if let Some(rotation) = &rotation {
        exposure::say_exposure(out, rotation, &instances);
    }
    match problem {
        None => out.line(out.tone(Tone::Good, format!("chain: {}, whole", count(entries.len(), "entry")))),
        Some(problem) => out.line(out.tone(Tone::Bad, format!("chain: {problem}"))),
    }
    Ok(exit)
}

/// What came before it and what became of it, where other journals tell.
fn kin(heads: &[Head], head: &Head) -> Vec<String> {
    let told = |other: &Head| {
        let (what, id) = (kind(&other.plan), other.id);
        let stands = match &other.ended {
            Some((at, outcome)) => format!("{what} {id}, {outcome} {}", moment(*at)),
            None => format!("{what} {id}, still open"),
        };
        match (&head.plan, &other.plan) {
            (Plan::Rotate(this), Plan::Rotate(_)) if this.undoes == Some(id) => {
                Some(format!("it undoes {what} {id}, begun {}", moment(other.begun)))
            }
            (Plan::Rotate(_), Plan::Rotate(that)) if that.undoes == Some(head.id) => {
                Some(format!("undone by {stands}"))
            }
            (Plan::Rotate(this), Plan::Retire(that)) if this.key_name == that.key_name => {
                Some(format!("its key pair since: {stands}"))
            }
            (Plan::Retire(this), Plan::Rotate(that)) if this.key_name == that.key_name => {
                Some(format!("its key pair in {stands}"))
            }
            _ => None,
        }
    };
    heads.iter().filter(|other| other.plan.fleet() == head.plan.fleet()).filter_map(told).collect()
}

/// Those of the batches who have not the key, each with its name and what became of it.
fn say_unwell(out: Output, rotation: &Rotation, instances: &[PlannedInstance]) {
    let batched = instances.iter().filter(|one| matches!(one.part, Part::Batch(_)));
    let fates = batched.filter_map(|one| Some((one, Fate::of(rotation, one)?)));
    let unwell: Vec<_> = fates.filter(|(_, fate)| !fate.is_well()).collect();
    if unwell.is_empty() {
        return;
    }
    out.line(format!("not seen to take the key: {}", count(unwell.len(), "instance")));
    let row = |(one, fate): &(&PlannedInstance, Fate)| vec![one.id.to_string(), one.name.clone(), fate.to_string()];
    let rows: Vec<Vec<String>> = unwell.iter().take(SHOWN).map(row).collect();
    out.print(&out.table(2, &["INSTANCE", "NAME", "WHAT BECAME OF IT"], &rows));
    if unwell.len() > SHOWN {
        out.line(format!("  and {} more: --json has them all", unwell.len() - SHOWN));
    }
}

/// The journal of an id or a unique beginning of one, or the newest rotation of a fleet.
pub(super) fn find<'a>(heads: &'a [Head], asked: &str) -> Result<&'a Head> {
    let newest = |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && head.plan.fleet().as_str() == asked;
    if let Some(head) = heads.iter().rev().find(newest) {
        return Ok(head);
    }
    // A table on a narrow terminal cuts ids.
    let asked = asked.trim_end_matches('…').to_lowercase();
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
