//! `rekeyd status [FLEET]`: how each fleet stands, by its journals alone. It asks no cloud and needs no secret.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::model::{Fingerprint, FleetName, InstanceId, JournalId, KeyPairName, Timestamp};
use crate::rotation::{
    HoldReason, Member, Outcome, Part, Phase, Plan, PlannedInstance, Retirement, Rotation, Stage, Step,
};
use crate::store::{Head, Heads, Unreadable};

use super::journals::{Folded, Journals};
use super::output::{Output, Tone, moment, some};
use super::story::batch_name;
use super::{Exit, Scene, plan};

/// So many ids a line.
const SHOWN: usize = 10;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only this fleet
    fleet: Option<FleetName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a fleet stands.
#[derive(Debug, Serialize)]
struct FleetStatus {
    fleet: FleetName,
    /// Whether the config file still has it.
    configured: bool,
    open: Option<Progress>,
    last: Option<Progress>,
    retiring: Vec<Retiring>,
    kept: Vec<Kept>,
    /// Journals that cannot be read, and why.
    problems: Vec<String>,
}

/// How far a rotation is, or was when it ended.
#[derive(Debug, Serialize)]
pub(super) struct Progress {
    rotation: JournalId,
    begun: Timestamp,
    ended: Option<Timestamp>,
    outcome: Option<Outcome>,
    held: Option<HoldReason>,
    held_because: Option<String>,
    key_pair: KeyPairName,
    fingerprint: Option<Fingerprint>,
    private_key: PathBuf,
    /// The batch that is being worked at, and how many there are.
    batch: Option<u32>,
    batches: usize,
    pub(super) counts: Counts,
    owed_starts: BTreeSet<InstanceId>,
}

/// Instances by how far they are.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) planned: usize,
    pub(super) waiting: usize,
    pub(super) under_way: usize,
    pub(super) bound: usize,
    pub(super) active: usize,
    pub(super) stragglers: usize,
    pub(super) excluded: usize,
    pub(super) excluded_in_plan: usize,
    pub(super) gone: usize,
}

/// A retire journal that has not ended.
#[derive(Debug, Serialize)]
struct Retiring {
    journal: JournalId,
    key_pair: KeyPairName,
    state: &'static str,
    until: Option<Timestamp>,
    why: String,
}

/// A private half whose pair is retired, still in custody.
#[derive(Debug, Serialize)]
struct Kept {
    journal: JournalId,
    key_pair: KeyPairName,
    private_key: PathBuf,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let journals = Journals::open(&config).await?;
    let heads = journals.heads().await?;
    let mut fleets: BTreeSet<FleetName> = config.fleets.keys().cloned().collect();
    fleets.extend(heads.readable.iter().map(|head| head.plan.fleet().clone()));
    fleets.extend(heads.unreadable.iter().filter_map(|one| one.fleet.clone()));
    if let Some(fleet) = &arguments.fleet {
        if !fleets.contains(fleet) {
            bail!("there is no fleet {fleet:?}; there are {}", some(&fleets, 20));
        }
        fleets.retain(|name| name == fleet);
    }
    let mut all = Vec::new();
    for fleet in fleets {
        let configured = config.fleets.contains_key(&fleet);
        all.push(status(&journals, fleet, configured, &heads).await);
    }
    // Whose they are cannot be read: they are no fleet's to list.
    let problems: Vec<String> = heads.unreadable.iter().filter(|one| one.fleet.is_none()).map(problem).collect();
    if arguments.json {
        scene.out.json(&serde_json::json!({ "problems": problems, "fleets": all }))?;
    } else {
        for problem in &problems {
            let text = format!("a journal of an unknown fleet cannot be read: {problem}");
            scene.out.line(scene.out.tone(Tone::Bad, text));
        }
        if !journals.exist() {
            scene.out.line(format!("there is no database at {} yet", config.store.display()));
        }
        for fleet in &all {
            fleet.print(scene.out);
        }
    }
    let spoilt = !problems.is_empty() || all.iter().any(|fleet| !fleet.problems.is_empty());
    Ok(if spoilt { Exit::Failed } else { Exit::Done })
}

fn problem(one: &Unreadable) -> String {
    format!("journal {}: {}", one.journal, one.problem)
}

async fn status(journals: &Journals, fleet: FleetName, configured: bool, heads: &Heads) -> FleetStatus {
    let of_fleet: Vec<&Head> = heads.of(&fleet).collect();
    let unreadable = heads.unreadable.iter().filter(|one| one.fleet.as_ref() == Some(&fleet));
    let problems = unreadable.map(problem).collect();
    let mut status =
        FleetStatus { fleet, configured, open: None, last: None, retiring: Vec::new(), kept: Vec::new(), problems };
    for head in of_fleet.into_iter().rev() {
        let of_interest = match (&head.plan, &head.ended) {
            (Plan::Rotate(_), None) | (Plan::Retire(_), None | Some((_, Outcome::Kept))) => true,
            (Plan::Rotate(_), Some((_, outcome))) => *outcome == Outcome::Completed && status.last.is_none(),
            (Plan::Retire(_), Some(_)) => false,
        };
        if !of_interest {
            continue;
        }
        match (journals.fold(head).await, &head.ended) {
            (Ok(Folded::Rotation(rotation, instances)), None) => {
                status.open = Some(Progress::of(journals, head, &rotation, &instances));
            }
            (Ok(Folded::Rotation(rotation, instances)), Some(_)) => {
                status.last = Some(Progress::of(journals, head, &rotation, &instances));
            }
            (Ok(Folded::Retirement(retirement)), None) => {
                status.retiring.push(retiring(&retirement, SystemClock.now()))
            }
            (Ok(Folded::Retirement(retirement)), Some(_)) => {
                let name = &retirement.plan.key_name;
                if journals.has_key(name) != Some(false) {
                    let private_key = journals.key_file(name);
                    status.kept.push(Kept { journal: head.id, key_pair: name.clone(), private_key });
                }
            }
            (Err(error), _) => status.problems.push(format!("{error:#}")),
        }
    }
    status
}

impl Progress {
    pub(super) fn of(journals: &Journals, head: &Head, rotation: &Rotation, planned: &[PlannedInstance]) -> Self {
        let current = (0..).take_while(|batch| (*batch as usize) < rotation.batch_count()).find(|batch| {
            rotation.batch(*batch).iter().any(|id| rotation.member(id).is_some_and(|member| !member.is_done()))
        });
        Self {
            rotation: head.id,
            begun: head.begun,
            ended: head.ended.map(|(at, _)| at),
            outcome: head.ended.map(|(_, outcome)| outcome),
            held: rotation.held.clone(),
            held_because: rotation.held.as_ref().map(ToString::to_string),
            key_pair: rotation.plan.key_name.clone(),
            fingerprint: rotation.key.as_ref().map(|(_, fingerprint)| fingerprint.clone()),
            private_key: journals.key_file(&rotation.plan.key_name),
            batch: current.filter(|_| rotation.key_pair.is_some()),
            batches: rotation.batch_count(),
            counts: Counts::of(rotation, planned),
            owed_starts: plan::owed(rotation),
        }
    }
}

impl Counts {
    fn of(rotation: &Rotation, planned: &[PlannedInstance]) -> Self {
        let mut counts = Self {
            planned: rotation.members().count(),
            excluded_in_plan: planned.iter().filter(|one| matches!(one.part, Part::Excluded(_))).count(),
            ..Self::default()
        };
        for (_, member) in rotation.members() {
            *counts.of_member(member) += 1;
        }
        counts
    }

    fn of_member(&mut self, member: &Member) -> &mut usize {
        match member.phase() {
            Phase::Waiting => &mut self.waiting,
            Phase::UnderWay => &mut self.under_way,
            Phase::Bound => &mut self.bound,
            Phase::Active => &mut self.active,
            Phase::Straggler => &mut self.stragglers,
            Phase::Excluded => &mut self.excluded,
            Phase::Gone => &mut self.gone,
        }
    }

    pub(super) fn text(&self) -> String {
        let all = [
            (self.active, "active"),
            (self.bound, "bound and not active yet"),
            (self.under_way, "under way"),
            (self.waiting, "waiting"),
            (self.stragglers, "bound and switched off"),
            (self.excluded, "excluded"),
            (self.gone, "gone"),
            (self.excluded_in_plan, "left out by the plan"),
        ];
        let some: Vec<String> =
            all.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        some.join(", ")
    }
}

fn retiring(retirement: &Retirement, now: Timestamp) -> Retiring {
    let next = retirement.next(now);
    let retry = next.run.iter().chain([&Step::RetireKeyPair]).find_map(|step| retirement.retry(*step));
    let stage = retirement.stage(now);
    let why = match (stage, &retirement.held, retry) {
        (_, Some(reason), _) => format!("held: {reason}"),
        (Some(Stage::Soak), ..) => "soak before the pair is deleted".to_string(),
        (Some(Stage::Grace), ..) => "the pair is deleted; grace before its private key's end".to_string(),
        (_, _, Some(retry)) if retirement.deleted.is_none() => {
            format!("the pair could not be deleted: {}", retry.error)
        }
        (_, _, Some(retry)) => format!("its private key could not be destroyed: {}", retry.error),
        (_, _, None) if retirement.deleted.is_none() => "the pair is deleted once nobody hangs on it".to_string(),
        (_, _, None) => "grace is over".to_string(),
    };
    let state = stage.map_or("ended", Stage::name);
    Retiring { journal: retirement.id, key_pair: retirement.plan.key_name.clone(), state, until: next.wake, why }
}

impl FleetStatus {
    fn print(&self, out: Output) {
        let configured = if self.configured { "" } else { " (no longer in the config file)" };
        out.line(out.tone(Tone::Strong, format!("fleet {}{configured}", self.fleet)));
        for problem in &self.problems {
            out.line(out.tone(Tone::Bad, format!("  cannot be read: {problem}")));
        }
        match &self.open {
            Some(open) => open.print(out),
            None => out.line("  no open rotation"),
        }
        match &self.last {
            Some(last) => {
                let at = last.ended.map(moment).unwrap_or_default();
                out.line(format!("  last rotation completed {at}: {} ({})", last.counts.text(), last.rotation));
                let print = last.fingerprint.as_ref().map(ToString::to_string).unwrap_or_default();
                out.line(format!("  key {print} in {}", last.private_key.display()));
            }
            None => out.line("  never rotated"),
        }
        for pair in &self.retiring {
            let until = pair.until.map(|at| format!(" until {}", moment(at))).unwrap_or_default();
            let text = format!("  old key pair {}: {}{until} ({})", pair.key_pair, pair.why, pair.journal);
            out.line(if pair.state == "held" { out.tone(Tone::Bad, text) } else { text });
        }
        for kept in &self.kept {
            out.line(format!(
                "  kept private key {}: its pair is deleted, no login proved its successor",
                kept.private_key.display()
            ));
        }
    }
}

impl Progress {
    fn print(&self, out: Output) {
        let stand = match (self.fingerprint.is_some(), self.batch) {
            (false, _) => "making the key".to_string(),
            (true, Some(batch)) => format!("at {} of {} batches", batch_name(batch), self.batches),
            (true, None) => "importing the key, or ending".to_string(),
        };
        let text = format!("  open rotation {} since {}: {stand}", self.rotation, moment(self.begun));
        out.line(out.tone(Tone::Careful, text));
        out.line(format!("    {}", self.counts.text()));
        if let Some(reason) = &self.held_because {
            out.line(out.tone(Tone::Bad, format!("    HELD: {reason}")));
        }
        if !self.owed_starts.is_empty() {
            let text = format!("    owed a start: {}", some(&self.owed_starts, SHOWN));
            out.line(out.tone(Tone::Careful, text));
        }
    }
}
