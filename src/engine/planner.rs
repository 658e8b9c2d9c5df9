//! From a fleet's settings to a plan: look at the fleet, draft the batches, forecast what it will cost. Nothing is made,
//! imported or bound here; `begin` only opens the journal.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Amount, Duration, FleetName, InstanceId, JournalId, KeyPairName, Pin, Timestamp};
use crate::provider::{self, Disruption, Error, Hazard, Instance, Kind, Limits, Power, Select, way_on};
use crate::rotation::preflight::{Finding, refusals};
use crate::rotation::standing::pins;
use crate::rotation::{
    Delivery, Draft, Hooks, KeySource, Pace, Part, Place, Plan, PlannedInstance, Policy, Refusal, Rollout, RotatePlan,
    Rule, Verify, Windows, draft,
};
use crate::store::{Head, StoreError};

use super::back::propose_back;
use super::late::{late, propose_catch_up};
use super::{Tools, past::past, preflight};

/// A fleet, as the config file has it.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Its name.
    pub name: FleetName,
    /// Where it lives.
    pub place: Place,
    /// How its instances are found.
    pub select: Select,
    /// RSA modulus length.
    pub key_bits: u16,
    /// How it is rolled out.
    pub rollout: Rollout,
    /// Whether a stop may cut the power.
    pub force_stop: bool,
    /// Machines with these hazards are stopped all the same.
    pub allow: BTreeSet<Hazard>,
    /// From a superseded pair's deletion to the destruction of its private half.
    pub grace: Duration,
    /// How a new key is proven.
    pub verify: Verify,
    /// When it may be disturbed.
    pub windows: Windows,
    /// What is run around each batch.
    pub hooks: Hooks,
    /// Where the private half goes besides custody, once the key is proven.
    pub deliver: Vec<Delivery>,
}

/// Between the end of a machine's downtime and the look that shows it, for all of a batch: our own figure.
const SETTLE_MARGIN: Duration = Duration::from_secs(60);

impl Fleet {
    /// How a rotation of it paces itself, its first so many batches growing.
    pub fn pace(&self, growing: u32) -> Pace {
        Pace {
            growing,
            failures_in_a_row: Some(self.rollout.failures_in_a_row),
            windows: self.windows.clone(),
            batch_time: batch_time(provider::limits(self.place.provider).downtime),
            hooks: self.hooks.clone(),
        }
    }
}

/// From a batch's first call until all of it is back, when all goes well and a machine is down for so long.
pub fn batch_time(downtime: Duration) -> Duration {
    downtime + SETTLE_MARGIN
}

/// Whether a batch of this fleet that began now would end inside its windows: whether it may be disturbed.
pub fn may_disturb(fleet: &Fleet, now: Timestamp) -> bool {
    fleet.pace(1).fits(now)
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The account cannot be used.
    #[error("{0}")]
    Account(String),
    /// The cloud did not answer well.
    #[error("{0}")]
    Provider(#[from] Error),
    /// The selection is empty, or everybody in it is excluded.
    #[error("fleet {fleet}: {problem}; nothing was done")]
    Nobody {
        /// The fleet.
        fleet: FleetName,
        /// What was found.
        problem: String,
    },
    /// It may not be done, or not now: the rule, and the way on.
    #[error(transparent)]
    Refused(Refusal),
    /// The account may not look.
    #[error("{error}; {grant}")]
    Denied {
        /// The refusal.
        error: Error,
        /// What can be done about it.
        grant: String,
    },
    /// The preflight found reasons not to begin.
    #[error("fleet {fleet}: refused before it began: {}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join(". And: "))]
    Preflight {
        /// The fleet.
        fleet: FleetName,
        /// The reasons, each with the way on.
        findings: Vec<Finding>,
    },
    /// A rule refuses it, and only a person may force it.
    #[error("fleet {fleet}: {problem}; `rekeyd rotate {fleet}{flag} --force={rule}` begins one all the same")]
    Rule {
        /// The fleet.
        fleet: FleetName,
        /// The rule.
        rule: Rule,
        /// The flag that says what was asked for, with a blank before it; empty for an ordinary rotation.
        flag: &'static str,
        /// The numbers.
        problem: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A plan, and what it will cost.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The plan.
    pub plan: RotatePlan,
    /// Its instances.
    pub instances: Vec<PlannedInstance>,
    /// What it will cost.
    pub forecast: Forecast,
    /// What is to be known besides, in words.
    pub notes: Vec<String>,
    /// What was found out beforehand, the gravest first.
    pub findings: Vec<Finding>,
}

impl Proposal {
    /// The same of a plan in which nobody is disturbed: no window and no hook has a say in it.
    pub(super) fn undisturbing(mut self) -> Self {
        self.plan.policy.pace = Box::default();
        self
    }
}

/// What a plan will cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Sizes of the batches, the canary first.
    pub batches: Vec<usize>,
    /// Changing calls, by action.
    pub calls: BTreeMap<&'static str, usize>,
    /// Running machines that go down.
    pub goes_down: usize,
    /// For so long each, when all goes well.
    pub downtime: Duration,
    /// Nobody of the canary batch runs, or nobody of those asked answers a login: it proves nothing.
    pub canary_proves_nothing: bool,
    /// Who has no key pair now: a bind ends their password login, and no bind can bring it back.
    pub loses_password: Vec<InstanceId>,
}

/// What a rotation is begun for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// A new key for the whole fleet.
    Rotate,
    /// The same at once, as the key that the fleet has may be in wrong hands.
    Compromised {
        /// So many machines may be down at once; `None`: as many as the fleet's own rotations.
        unavailable_max: Option<Amount>,
    },
    /// Back from this rotation: the next pair that instances return to.
    Back(JournalId),
    /// Those who missed the fleet's key and are back; where there are none, the new ones if that is allowed.
    CatchUp {
        /// New instances are bound too, which disturbs them.
        new: bool,
    },
}

/// Plans what is aimed at. `others` are the other fleets of the account and region.
pub async fn propose_for(tools: &Tools, fleet: &Fleet, others: &[Fleet], aim: Aim) -> Result<Proposal, PlanError> {
    match aim {
        Aim::Rotate => propose(tools, fleet, others).await,
        Aim::Compromised { unavailable_max } => {
            Ok(propose(tools, &fleet.compromised(unavailable_max), others).await?.compromised())
        }
        Aim::Back(undone) => propose_back(tools, fleet, others, undone).await,
        Aim::CatchUp { new } => {
            let late = late(tools, fleet, others).await?;
            propose_catch_up(tools, fleet, others, &late, new).await
        }
    }
}

/// Plans a rotation: looks at the fleet, drafts the batches. `others` are the other fleets of the account and region.
pub async fn propose(tools: &Tools, fleet: &Fleet, others: &[Fleet]) -> Result<Proposal, PlanError> {
    let provider = (tools.providers)(&fleet.place).map_err(|error| PlanError::Account(error.to_string()))?;
    let mut listing = provider.instances(&fleet.select).await.map_err(|error| match error.kind {
        Kind::Denied => {
            let grant = way_on(fleet.place.provider, &error);
            PlanError::Denied { error, grant }
        }
        _ => PlanError::Provider(error),
    })?;
    let mut foretold = preflight::leave_out(provider.as_ref(), fleet, &mut listing).await;
    foretold.undeliverable = preflight::undeliverable(tools, fleet).await;
    foretold.jump_key = preflight::jump_key_problem(tools, &fleet.verify);
    let limits = provider.limits();
    let claimed = claimed_by(fleet, others);
    let mut draft = drafted(fleet, &listing, limits, &claimed, &BTreeSet::new())?;
    let mut reach = None;
    if let Some((reachable, reached)) = preflight::reach(tools, &fleet.verify, &listing, &draft).await {
        draft = drafted(fleet, &listing, limits, &claimed, &reachable)?;
        reach = Some(reached);
    }
    let pins = match fleet.verify {
        Verify::None => BTreeMap::new(),
        Verify::Ssh(_) => pins(&past(tools.journal.as_ref(), &fleet.place).await?),
    };
    let silent = reach.as_ref().is_some_and(|reach| reach.answered == 0);
    let fleets = preflight::fleets_there(fleet, others);
    let findings = preflight::findings(provider.as_ref(), fleet, fleets, &listing, &draft, foretold, reach).await?;
    let key_name = KeyPairName::derive(&tools.mark, tools.clock.now(), chance(tools) as u32);
    let mut proposal = planned_of(fleet, limits, draft, &pins, key_name, KeySource::Generate, None);
    proposal.forecast.canary_proves_nothing |= silent;
    proposal.findings = findings;
    Ok(proposal)
}

/// Which other fleet matches an instance too.
pub(super) fn claimed_by<'a>(fleet: &'a Fleet, others: &'a [Fleet]) -> impl Fn(&Instance) -> Option<FleetName> + 'a {
    move |seen| {
        let matching = others
            .iter()
            .find(|other| other.name != fleet.name && other.place == fleet.place && selects(&other.select, seen));
        matching.map(|other| other.name.clone())
    }
}

/// Drafts the batches; refused where nobody is in any.
pub(super) fn drafted(
    fleet: &Fleet,
    listing: &[Instance],
    limits: &Limits,
    claimed: &dyn Fn(&Instance) -> Option<FleetName>,
    reachable: &BTreeSet<InstanceId>,
) -> Result<Draft, PlanError> {
    let draft = draft(listing, &fleet.rollout, limits, claimed, reachable);
    if !draft.instances.iter().any(|instance| matches!(instance.part, Part::Batch(_))) {
        let problem = match draft.instances.len() {
            0 => "no instance matches its selection".to_string(),
            count => format!("{count} instances match its selection, and all of them are excluded{}", example(&draft)),
        };
        return Err(PlanError::Nobody { fleet: fleet.name.clone(), problem });
    }
    Ok(draft)
}

/// The plan of a draft, with the host keys by which its instances are known.
pub(super) fn planned_of(
    fleet: &Fleet,
    limits: &Limits,
    mut draft: Draft,
    pins: &BTreeMap<InstanceId, Pin>,
    key_name: KeyPairName,
    key: KeySource,
    undoes: Option<JournalId>,
) -> Proposal {
    for instance in &mut draft.instances {
        instance.pin = pins.get(&instance.id).cloned();
    }
    let mut batches = Vec::new();
    for instance in &draft.instances {
        if let Part::Batch(batch) = instance.part {
            batches.resize((batch as usize + 1).max(batches.len()), Vec::new());
            batches[batch as usize].push(instance);
        }
    }
    let policy = Policy {
        unavailable_max: draft.unavailable_max,
        failures_max: draft.failures_max,
        soak: fleet.rollout.soak,
        force_stop: fleet.force_stop,
        grace: fleet.grace,
        verify: fleet.verify.clone(),
        deliver: fleet.deliver.clone(),
        pace: Box::new(fleet.pace(draft.growing)),
    };
    let plan = RotatePlan {
        fleet: fleet.name.clone(),
        place: fleet.place.clone(),
        select: fleet.select.clone(),
        key_name,
        key,
        key_bits: fleet.key_bits,
        undoes,
        compromised: false,
        disruption: limits.disruption,
        policy,
    };
    let forecast = forecast(&batches, limits.disruption, limits.downtime);
    Proposal { plan, forecast, instances: draft.instances, notes: Vec::new(), findings: Vec::new() }
}

/// The reason of the first who is excluded.
fn example(draft: &Draft) -> String {
    let reasons = draft.instances.iter().filter_map(|one| match &one.part {
        Part::Excluded(reason) => Some(format!(" ({}: {reason})", one.id)),
        Part::Batch(_) => None,
    });
    reasons.take(1).collect()
}

/// Opens the journal of a proposal, unless one of its findings is a refusal.
pub async fn begin(tools: &Tools, proposal: &Proposal) -> Result<Head, PlanError> {
    let findings = refusals(&proposal.findings);
    if !findings.is_empty() {
        return Err(PlanError::Preflight { fleet: proposal.plan.fleet.clone(), findings });
    }
    // Ways back and catch-ups have no preflight of their own; and the file may have gone since.
    preflight::way(tools, &proposal.plan.fleet, &proposal.plan.policy.verify)?;
    let plan = Plan::Rotate(proposal.plan.clone());
    let at = tools.clock.now();
    let head = tools.journal.begin(new_id(tools), &plan, &proposal.instances, &tools.author, at).await?;
    announce(tools, &head).await?;
    Ok(head)
}

/// Tells who listens of a journal's first entry, which `begin` wrote.
pub(super) async fn announce(tools: &Tools, head: &Head) -> Result<(), StoreError> {
    if tools.observers.is_empty() {
        return Ok(());
    }
    for entry in tools.journal.read(head.id, 0).await? {
        tools.observers.iter().for_each(|observer| observer.recorded(head.id, &head.plan, &entry));
    }
    Ok(())
}

/// A fresh journal id.
pub(super) fn new_id(tools: &Tools) -> JournalId {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&chance(tools).to_be_bytes());
    JournalId::derive(tools.clock.now(), bytes)
}

fn chance(tools: &Tools) -> u64 {
    match tools.chance.lock() {
        Ok(mut chance) => rand::RngExt::random(&mut *chance),
        // A poisoned lock means that a thread panicked with it: the generator itself is whole.
        Err(poisoned) => rand::RngExt::random(&mut *poisoned.into_inner()),
    }
}

/// Whether a fleet's selection takes an instance that a listing showed.
pub fn selects(select: &Select, seen: &Instance) -> bool {
    match select {
        Select::All => true,
        Select::Tags(tags) => tags.iter().all(|(key, value)| seen.tags.get(key) == Some(value)),
        Select::Ids(ids) => ids.contains(&seen.id),
        Select::BoundTo(key) => seen.keys.contains(key),
    }
}

fn forecast(batches: &[Vec<&PlannedInstance>], disruption: Disruption, downtime: Duration) -> Forecast {
    let mut calls: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut call = |name| *calls.entry(name).or_default() += 1;
    call("import key pair");
    let runs = |instance: &&PlannedInstance| instance.power == Power::Running;
    for batch in batches {
        call("bind");
        if batch.iter().any(&runs) {
            match disruption {
                Disruption::StopsInstance => call("start"),
                Disruption::NeedsStopped => {
                    call("stop");
                    call("start");
                }
                Disruption::NeedsReboot => call("reboot"),
                Disruption::RebootsInstance => {}
            }
        }
    }
    let all = || batches.iter().flatten();
    Forecast {
        batches: batches.iter().map(Vec::len).collect(),
        calls,
        goes_down: all().filter(|instance| runs(instance)).count(),
        downtime,
        canary_proves_nothing: !batches.first().is_some_and(|canary| canary.iter().any(&runs)),
        loses_password: all().filter(|instance| instance.keys.is_empty()).map(|instance| instance.id.clone()).collect(),
    }
}
