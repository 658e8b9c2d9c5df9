//! `rekeyd plan FLEET`: what a rotation would do now, or an open one next. It looks at the cloud and makes nothing: no
//! key, no journal, no database. With `--compromised` it shows what `rotate --compromised` would do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::daemon::{self, Clouds};
use crate::engine::planner::{Aim, Proposal, propose_for};
use crate::engine::rules;
use crate::model::{Amount, FleetName, InstanceId, JournalId, Timestamp, show_duration};
use crate::provider::Power;
use crate::rotation::policy::SETTLE_DEADLINE;
use crate::rotation::preflight::{Finding, Level, refusals};
use crate::rotation::{Event, Outcome, Part, Place, Plan, PlannedInstance, Rotation, Rule, Verify};
use crate::store::{Head, Request};

use super::credentials::Wanted;
use super::journals::{Folded, Journals};
use super::output::{self, Output, Tone, moment, some};
use super::story::{batch_name, doing};
use super::{Exit, Scene, credentials};

/// So many ids a line.
const SHOWN: usize = 6;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The fleet, as the config file names it
    fleet: FleetName,
    /// What `rotate --compromised` would do: at once, without windows, soak and grace; an open rotation is given up first
    #[arg(long)]
    compromised: bool,
    /// So many machines may be down at once, a number or a share (100%), in place of the fleet's own
    #[arg(long, value_name = "AMOUNT", requires = "compromised")]
    unavailable_max: Option<Amount>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let (config, fleet) = (scene.config()?, &arguments.fleet);
    let journals = Journals::open(&config).await?;
    let heads = journals.heads().await?.readable;
    let is_open = |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none();
    let is_other = |plan: &Plan| matches!(plan, Plan::Rotate(plan) if !plan.compromised);
    let open = heads.iter().filter(is_open).find(|head| head.plan.fleet() == fleet);
    // What is open is given up for a compromised key, and only another rotation for one is not.
    let gives_up = open.filter(|head| arguments.compromised && is_other(&head.plan)).map(|head| head.id);
    if let Some(head) = open.filter(|_| gives_up.is_none()) {
        let Folded::Rotation(rotation, _) = journals.fold(head).await? else { bail!("journal {} is damaged", head.id) };
        return show_open(scene.out, arguments.json, &rotation, SystemClock.now());
    }
    let Some(planned) = daemon::fleet(&config, fleet) else {
        bail!("there is no fleet {fleet:?} in the config file; it has {}", some(config.fleets.keys(), 20));
    };
    credentials::at_hand(scene, Wanted::of(&config).fleets([&planned]))?;
    let clouds = Arc::new(Clouds::new(config.clone(), scene.env.clone())?);
    let tools = clouds.tools_to_plan();
    let aim = match arguments.compromised {
        true => Aim::Compromised { unavailable_max: arguments.unavailable_max },
        false => Aim::Rotate,
    };
    let proposal = propose_for(&tools, &planned, &daemon::fleets(&config), aim).await.context("no plan can be made")?;
    let taken = taken_by_others(&journals, &heads, fleet, &planned.place).await?;
    let mut refusals = forbidden(&journals, &heads, &proposal).await?;
    refusals
        .extend(journals.agenda().await?.paused.remove(fleet).and_then(Request::refusal).map(|held| held.to_string()));
    let (taken, superseded) = (taken_of(&proposal, &taken), superseded(&heads, fleet));
    let outlook = Outlook { taken, superseded, refusals, proposal, gives_up };
    if outlook.batched().all(|instance| outlook.taken.contains_key(&instance.id)) {
        bail!("fleet {fleet}: everybody who could be bound is in another fleet's open rotation; nothing was done");
    }
    if arguments.json {
        scene.out.json(&outlook.json())?;
    } else {
        scene.out.print(&outlook.text(scene.out));
    }
    Ok(Exit::Something)
}

/// What `rotate` would refuse now, with the rule that forces it.
async fn forbidden(journals: &Journals, heads: &[Head], proposal: &Proposal) -> Result<Vec<String>> {
    let fleet = &proposal.plan.fleet;
    let last = rules::last_completed(heads.iter().filter(|head| head.plan.fleet() == fleet));
    let changed = match last {
        Some(last) => rules::grown(&journals.instances(last).await?, &proposal.instances, last),
        None => None,
    };
    let outside = rules::outside(proposal, SystemClock.now());
    let found = [(Rule::Window, outside), (Rule::SizeChange, changed)].into_iter();
    let flag = rules::flag(&proposal.plan);
    let say = |(rule, problem)| format!("{problem}: refused now without `rekeyd rotate {fleet}{flag} --force={rule}`");
    Ok(found.filter_map(|(rule, problem): (Rule, Option<String>)| Some(say((rule, problem?)))).collect())
}

/// The pair that a new rotation would supersede.
fn superseded(heads: &[Head], fleet: &FleetName) -> Option<String> {
    let done = |head: &&Head| {
        matches!(head.plan, Plan::Rotate(_))
            && head.plan.fleet() == fleet
            && matches!(head.ended, Some((_, Outcome::Completed)))
    };
    heads.iter().rev().find(done).map(|head| head.plan.key_name().to_string())
}

/// Instances that open rotations of other fleets have in a batch: `begin` leaves them out.
async fn taken_by_others(
    journals: &Journals,
    heads: &[Head],
    fleet: &FleetName,
    place: &Place,
) -> Result<BTreeMap<InstanceId, FleetName>> {
    let mut taken = BTreeMap::new();
    for head in heads {
        let there = head.plan.place();
        let is_open = matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none();
        let is_near = there.provider == place.provider && there.region == place.region;
        if is_open && is_near && head.plan.fleet() != fleet {
            let instances = journals.instances(head.id).await?.into_iter();
            let batched = instances.filter(|instance| matches!(instance.part, Part::Batch(_)));
            taken.extend(batched.map(|instance| (instance.id, head.plan.fleet().clone())));
        }
    }
    Ok(taken)
}

fn taken_of(proposal: &Proposal, taken: &BTreeMap<InstanceId, FleetName>) -> BTreeMap<InstanceId, FleetName> {
    let batched = proposal.instances.iter().filter(|instance| matches!(instance.part, Part::Batch(_)));
    batched.filter_map(|instance| Some((instance.id.clone(), taken.get(&instance.id)?.clone()))).collect()
}

/// What there is to say of a proposal.
struct Outlook {
    proposal: Proposal,
    taken: BTreeMap<InstanceId, FleetName>,
    superseded: Option<String>,
    /// What `rotate` would refuse it for, unless that is forced.
    refusals: Vec<String>,
    /// The open rotation that does not wait for it.
    gives_up: Option<JournalId>,
}

impl Outlook {
    fn batched(&self) -> impl Iterator<Item = &PlannedInstance> {
        self.proposal.instances.iter().filter(|instance| matches!(instance.part, Part::Batch(_)))
    }

    fn batches(&self) -> BTreeMap<u32, Vec<&PlannedInstance>> {
        let mut batches: BTreeMap<u32, Vec<&PlannedInstance>> = BTreeMap::new();
        for instance in &self.proposal.instances {
            if let Part::Batch(batch) = instance.part {
                batches.entry(batch).or_default().push(instance);
            }
        }
        batches
    }

    fn excluded(&self) -> impl Iterator<Item = (&PlannedInstance, String)> {
        self.proposal.instances.iter().filter_map(|instance| match &instance.part {
            Part::Excluded(reason) => Some((instance, reason.clone())),
            Part::Batch(_) => {
                let fleet = self.taken.get(&instance.id)?;
                Some((instance, format!("fleet {fleet} has it in its open rotation: left out as long as that is open")))
            }
        })
    }

    fn notes(&self) -> Vec<String> {
        let policy = &self.proposal.plan.policy;
        let (verify, private_key) = match &policy.verify {
            Verify::None => (
                "verify: none: the cloud's word is taken that a machine accepts its new key; the canary proves only the \
                 cloud's record"
                    .to_string(),
                "is kept, as no login proves the new one".to_string(),
            ),
            Verify::Ssh(login) => (
                format!("verify: ssh: a login as {} proves the new key on each machine", login.user),
                format!("is destroyed {} after that", show_duration(policy.grace)),
            ),
        };
        let superseded = match &self.superseded {
            Some(name) => format!(
                "afterwards key pair {name} is retired: after a soak of {} it is deleted, if nobody hangs on it; its \
                 private key {private_key}",
                show_duration(policy.soak)
            ),
            None => "key pairs that rekeyd did not make are not touched".to_string(),
        };
        [vec![verify], self.refusals.clone(), vec![superseded]].concat()
    }

    fn json(&self) -> Value {
        let (plan, forecast) = (&self.proposal.plan, &self.proposal.forecast);
        let batch = |(number, instances): (&u32, &Vec<&PlannedInstance>)| {
            let instances: Vec<Value> = instances
                .iter()
                .map(|one| json!({ "id": one.id, "name": one.name, "power": one.power, "key_pairs": one.keys }))
                .collect();
            json!({ "batch": number, "canary": *number == 0, "size": instances.len(), "instances": instances })
        };
        let excluded: Vec<Value> =
            self.excluded().map(|(one, reason)| json!({ "id": one.id, "name": one.name, "reason": reason })).collect();
        json!({
            "fleet": plan.fleet,
            "open_rotation": null,
            "compromised": plan.compromised,
            "gives_up": self.gives_up,
            "account": plan.place.account,
            "provider": plan.place.provider,
            "region": plan.place.region,
            "key_bits": plan.key_bits,
            "batches": self.batches().iter().map(batch).collect::<Vec<_>>(),
            "calls": forecast.calls,
            "goes_down": forecast.goes_down,
            "down_at_once_max": plan.policy.unavailable_max,
            "downtime_seconds": forecast.downtime.as_secs(),
            "downtime_max_seconds": SETTLE_DEADLINE.as_secs(),
            "failures_max": plan.policy.failures_max,
            "soak_seconds": plan.policy.soak.as_secs(),
            "loses_password": forecast.loses_password,
            "excluded": excluded,
            "supersedes": self.superseded,
            "findings": self.proposal.findings,
            "refused": !refusals(&self.proposal.findings).is_empty(),
            "notes": self.notes(),
        })
    }

    fn text(&self, out: Output) -> String {
        let (plan, forecast) = (&self.proposal.plan, &self.proposal.forecast);
        let place = &plan.place;
        let mut text = String::new();
        let mut line = |words: String| {
            let _ = writeln!(text, "{words}");
        };
        let title = format!("fleet {}: {} {}, account {}", plan.fleet, place.provider, place.region, place.account);
        line(out.tone(Tone::Strong, title));
        if plan.compromised {
            line("as of a key in wrong hands: at once, without windows, soak and grace".to_string());
        }
        if let Some(open) = self.gives_up {
            line(format!("first: rotation {open} is given up, and ends once nothing of it is in flight"));
        }
        line(format!(
            "a new RSA key of {} bits for {}",
            plan.key_bits,
            output::count(self.batched().count(), "instance")
        ));
        let rows: Vec<Vec<String>> = self
            .batches()
            .iter()
            .map(|(number, instances)| {
                let running = instances.iter().filter(|instance| instance.power != Power::Stopped).count();
                let ids = some(instances.iter().map(|instance| &instance.id), SHOWN);
                let stopped = instances.len() - running;
                vec![batch_name(*number), instances.len().to_string(), running.to_string(), stopped.to_string(), ids]
            })
            .collect();
        line(out.table(2, &["BATCH", "SIZE", "RUNNING", "STOPPED", "INSTANCES"], &rows).trim_end().to_string());
        let calls = forecast.calls.iter().map(|(call, number)| format!("{number} × {call}"));
        line(format!("calls: {} (a batch that is refused because of one instance is halved)", some(calls, 20)));
        line(match forecast.goes_down {
            0 => "goes down: nobody".to_string(),
            number => format!(
                "goes down: {}, at most {} at once, each for about {} when all goes well; who is not back within {} \
                 counts as failed (at most {} may), and its start is tried on",
                output::count(number, "running machine"),
                plan.policy.unavailable_max,
                show_duration(forecast.downtime),
                show_duration(SETTLE_DEADLINE),
                plan.policy.failures_max,
            ),
        });
        let losing = &forecast.loses_password;
        line(match losing.len() {
            0 => "loses its password login: nobody".to_string(),
            number => format!(
                "loses its password login, and cannot be rolled back by a bind: {number}: {}",
                some(losing, SHOWN)
            ),
        });
        let excluded: Vec<Vec<String>> =
            self.excluded().map(|(one, reason)| vec![one.id.to_string(), one.name.clone(), reason]).collect();
        if excluded.is_empty() {
            line("excluded: nobody".to_string());
        } else {
            line(format!("excluded: {}", excluded.len()));
            line(out.table(2, &["INSTANCE", "NAME", "WHY"], &excluded).trim_end().to_string());
        }
        line("preflight:".to_string());
        for finding in &self.proposal.findings {
            line(out.tone(tone(finding.level), format!("  {:<9}{}{}", finding.level.name(), finding, whom(finding))));
        }
        for note in self.notes() {
            line(out.tone(Tone::Careful, format!("note: {note}")));
        }
        if !refusals(&self.proposal.findings).is_empty() {
            let rotate = format!("`rekeyd rotate {}{}`", plan.fleet, rules::flag(plan));
            line(out.tone(Tone::Bad, format!("{rotate} is refused until that is put right")));
        }
        text
    }
}

pub(super) fn tone(level: Level) -> Tone {
    match level {
        Level::Ok => Tone::Good,
        Level::Warning => Tone::Careful,
        Level::Refusal => Tone::Bad,
    }
}

/// The ids of a finding, where it is about some.
fn whom(finding: &Finding) -> String {
    if finding.instances.is_empty() { String::new() } else { format!(" ({})", some(&finding.instances, SHOWN)) }
}

/// What an open rotation would do next: the brain's answer, as of now.
fn show_open(out: Output, as_json: bool, rotation: &Rotation, now: Timestamp) -> Result<Exit> {
    let next = rotation.next(now);
    // What is held goes on once a person releases it: that is something to do, though not now.
    let is_something =
        !next.run.is_empty() || !next.record.is_empty() || next.wake.is_some() || rotation.held.is_some();
    let held = rotation.held.as_ref().filter(|_| !rotation.abandoned);
    let way_on = held.map(|reason| reason.way_on(rotation.id));
    let exit = if is_something { Exit::Something } else { Exit::Done };
    let whom = |step: &crate::rotation::Step| -> Vec<&InstanceId> {
        let batch = step.batch().map(|batch| rotation.batch(batch)).unwrap_or_default();
        batch.iter().filter(|id| rotation.member(id).is_some_and(|member| !member.is_done())).collect()
    };
    if as_json {
        let steps: Vec<Value> = next
            .run
            .iter()
            .map(|step| json!({ "step": step.name(), "batch": step.batch(), "instances": whom(step) }))
            .collect();
        out.json(&json!({
            "fleet": rotation.plan.fleet, "open_rotation": rotation.id, "held": rotation.held,
            "held_because": rotation.held.as_ref().map(ToString::to_string), "way_on": way_on, "next": steps,
            "records": next.record, "wakes_at": next.wake, "owed_starts": owed(rotation),
        }))?;
        return Ok(exit);
    }
    let fleet = &rotation.plan.fleet;
    out.line(out.tone(Tone::Strong, format!("fleet {fleet}: rotation {} is open", rotation.id)));
    if let Some(reason) = &rotation.held {
        out.line(out.tone(Tone::Bad, format!("held: {reason}")));
    }
    for step in &next.run {
        let batch = step.batch().map(|batch| format!("{}: ", batch_name(batch))).unwrap_or_default();
        let whom = whom(step);
        let whom = if whom.is_empty() { String::new() } else { format!(" ({})", some(whom, SHOWN)) };
        out.line(format!("next: {batch}{}{whom}", doing(*step)));
    }
    for event in &next.record {
        out.line(match event {
            Event::Held { reason } => format!("next: it is held: {reason}"),
            Event::Ended { outcome } => format!("next: it ends, {outcome}"),
            other => format!("next: {}", other.name()),
        });
    }
    if let Some(wake) = next.wake.filter(|_| next.run.is_empty()) {
        out.line(format!("waits until {}", moment(wake)));
    }
    let owed = owed(rotation);
    if !owed.is_empty() {
        out.line(out.tone(Tone::Careful, format!("owed a start: {}", some(owed, SHOWN))));
    }
    out.line(match (way_on, is_something) {
        (Some(way_on), _) if next.run.is_empty() => format!("nothing is done until it is released: {way_on}"),
        (Some(way_on), _) => format!("nobody else is disturbed until it is released: {way_on}"),
        (None, true) => format!("`rekeyd rotate {fleet}` goes on with it"),
        (None, false) => "nothing left to do".to_string(),
    });
    Ok(exit)
}

/// Who is owed a start.
pub(super) fn owed(rotation: &Rotation) -> BTreeSet<InstanceId> {
    rotation.members().filter(|(_, member)| member.owed.is_some()).map(|(id, _)| id.clone()).collect()
}
