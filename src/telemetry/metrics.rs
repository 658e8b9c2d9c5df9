//! What was heard, as numbers: counters from entries, gauges from how journals stand, requests from the clouds' witness.
//! It must never cost more than a journal's change is worth: a state is counted through once each time it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::process_collector::ProcessCollector;
use prometheus::{Error, GaugeVec, Registry, TextEncoder};

use crate::engine::{Observer, View};
use crate::model::{AccountName, FleetName, JournalId, ProviderKind, Region, Timestamp};
use crate::provider::Witness;
use crate::rotation::{Call, Entry, Event, Exclusion, Outcome, Phase, Plan, Purpose, Retirement, Rotation, Stage};

use super::ear::Ear;
use super::stand::{Stand, waits_for};
use super::stopwatch::Stopwatch;
use super::table::{BUDGETS, REASONS, Table, WAITS_FOR, count, observe, set};

/// A fleet that the config file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetOfConfig {
    /// Its name.
    pub name: FleetName,
    /// Where it lives.
    pub provider: ProviderKind,
}

/// What a fleet's journals tell of the time before this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When the key of its newest completed rotation was stored.
    pub key_created: Option<Timestamp>,
    /// When that rotation ended.
    pub last_success: Option<Timestamp>,
}

/// What became of a due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tick {
    /// A rotation was started in time.
    Started,
    /// One was started late, within `schedule_slack`.
    CaughtUp,
    /// None was: it was too late.
    Missed,
    /// None was: one is open.
    Open,
    /// One could not be started.
    Failed,
    /// A rule refused it that only a person lifts.
    Refused,
    /// No maintenance window came in time.
    Closed,
}

impl Tick {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Started, Self::CaughtUp, Self::Missed, Self::Open, Self::Failed, Self::Refused, Self::Closed];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::CaughtUp => "caught_up",
            Self::Missed => "missed",
            Self::Open => "open",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Closed => "closed",
        }
    }
}

/// The numbers of one process. It hears ([`Observer`], [`witness`](Self::witness)) and is told what no journal holds.
///
/// A fleet is known while the config file has it, or a journal of it is open or unreadable; all series of known fleets
/// exist from the start, those of others go. What is told of an unknown fleet is dropped.
pub struct Metrics {
    registry: Registry,
    table: Table,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    configured: BTreeMap<FleetName, ProviderKind>,
    /// The open rotations: of which fleet, where, and the newest entry when they were last counted through.
    rotations: BTreeMap<JournalId, (FleetName, ProviderKind, u64)>,
    /// The open retire journals, and how far each was.
    retirements: BTreeMap<JournalId, (FleetName, ProviderKind, Stage)>,
    unreadable: BTreeSet<FleetName>,
    /// Those that have their series.
    fleets: BTreeSet<FleetName>,
    providers: BTreeSet<ProviderKind>,
    stopwatch: Stopwatch,
}

impl Metrics {
    /// All metrics at 0, and the process's own. It fails only if two metrics have one name, or one a name that is none.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let table = Table::new(&registry)?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self { registry, table, state: Mutex::default() })
    }

    /// These are the fleets of the config file now.
    pub fn set_fleets(&self, fleets: &[FleetOfConfig]) {
        let mut state = self.state();
        state.configured = fleets.iter().map(|fleet| (fleet.name.clone(), fleet.provider)).collect();
        self.settle_series(&mut state);
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// What a fleet's journals tell of earlier times, read at the start.
    pub fn remember(&self, fleet: &FleetName, history: History) {
        self.tell(&self.table.key_created, fleet, seconds(history.key_created));
        self.tell(&self.table.last_success, fleet, seconds(history.last_success));
    }
    /// A due time of this fleet came, and this became of it.
    pub fn ticked(&self, fleet: &FleetName, tick: Tick) {
        let state = self.state();
        if state.fleets.contains(fleet) {
            count(&self.table.scheduler_ticks, &[fleet.as_str(), tick.name()]);
        }
    }
    /// When this fleet is due next; `None`: never.
    pub fn due(&self, fleet: &FleetName, at: Option<Timestamp>) {
        self.tell(&self.table.next_due, fleet, seconds(at));
    }
    /// How many miss a fleet's key.
    pub fn late(&self, fleet: &FleetName, waiting: usize, new: usize) {
        let state = self.state();
        if state.fleets.contains(fleet) {
            set(&self.table.late_instances, &[fleet.as_str(), "waiting"], waiting as f64);
            set(&self.table.late_instances, &[fleet.as_str(), "new"], new as f64);
        }
    }
    /// When this fleet's key was to be replaced by its schedule; `None`: there is no schedule, or no such key.
    pub fn key_due(&self, fleet: &FleetName, at: Option<Timestamp>) {
        self.tell(&self.table.key_due, fleet, seconds(at));
    }
    /// Whether a due time of this fleet has come and waits for a maintenance window.
    pub fn waits_for_window(&self, fleet: &FleetName, waits: bool) {
        self.tell(&self.table.waits_for_window, fleet, f64::from(u8::from(waits)));
    }
    /// Whether an operator holds this fleet's schedule.
    pub fn paused(&self, fleet: &FleetName, paused: bool) {
        self.tell(&self.table.paused, fleet, f64::from(u8::from(paused)));
    }
    /// So many journals of this fleet cannot be read.
    pub fn unreadable(&self, fleet: &FleetName, journals: usize) {
        let mut state = self.state();
        match journals {
            0 => state.unreadable.remove(fleet),
            _ => state.unreadable.insert(fleet.clone()),
        };
        self.settle_series(&mut state);
        if state.fleets.contains(fleet) {
            set(&self.table.journals_unreadable, &[fleet.as_str()], journals as f64);
        }
    }
    /// A fleet (`None`: the installation) was surveyed for drift and showed these kinds; `None`: not all could be seen.
    pub fn surveyed(&self, fleet: Option<&FleetName>, at: Timestamp, found: Option<&[&str]>) {
        let state = self.state();
        if fleet.is_none_or(|fleet| state.fleets.contains(fleet)) {
            self.table.surveyed(fleet.map_or("", FleetName::as_str), seconds(Some(at)), found);
        }
    }
    /// What did not answer the newest survey of a fleet (`None`: of the installation), by name.
    pub fn unseen(&self, fleet: Option<&FleetName>, unseen: &[&str]) {
        let state = self.state();
        if fleet.is_none_or(|fleet| state.fleets.contains(fleet)) {
            self.table.unseen(fleet.map_or("", FleetName::as_str), unseen);
        }
    }
    /// So many key pairs are in an account and region, and so many may be.
    pub fn key_pairs(&self, account: &AccountName, cloud_region: &Region, taken: usize, max: usize) {
        let place = [account.as_str(), cloud_region.as_str()];
        set(&self.table.key_pairs, &place, taken as f64);
        set(&self.table.key_pairs_max, &place, max as f64);
    }
    /// The scheduler's loop turned.
    pub fn turned_at(&self, at: Timestamp) {
        self.table.scheduler_last_turn.set(seconds(Some(at)));
    }
    /// The config file was read, at the start or by a reload: it was taken at this moment, or (`None`) refused.
    pub fn config_read(&self, taken: Option<Timestamp>) {
        self.table.config_last_reload_successful.set(f64::from(u8::from(taken.is_some())));
        if taken.is_some() {
            self.table.config_last_reload_success.set(seconds(taken));
        }
    }
    /// Whether this process drives the store.
    pub fn driving(&self, drives: bool) {
        self.table.driver.set(f64::from(u8::from(drives)));
    }

    /// Who hears the calls to one account in one region. Its series of the clock's difference goes with it.
    pub fn witness(&self, account: &AccountName, cloud_region: &Region) -> Arc<dyn Witness> {
        let ear = Ear {
            requests: self.table.requests.clone(),
            durations: self.table.request_duration.clone(),
            throttled: self.table.throttled.clone(),
            clock_difference: self.table.clock_difference.clone(),
            place: [account.as_str().to_string(), cloud_region.as_str().to_string()],
        };
        set(&ear.clock_difference, &ear.place.each_ref().map(String::as_str), 0.0);
        Arc::new(ear)
    }

    /// So many proofs of a fleet came out so.
    fn proved(&self, state: &State, fleet: &FleetName, outcome: &str, times: usize) {
        if state.fleets.contains(fleet) {
            (0..times).for_each(|_| count(&self.table.proofs, &[fleet.as_str(), outcome]));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, gauges: &GaugeVec, fleet: &FleetName, value: f64) {
        // Under the lock: a fleet that is being forgotten gets no series back.
        let state = self.state();
        if state.fleets.contains(fleet) {
            set(gauges, &[fleet.as_str()], value);
        }
    }

    /// Makes the series of who is known, and removes those of who is not any more.
    fn settle_series(&self, state: &mut State) {
        let rotations = state.rotations.values().map(|(fleet, provider, _)| (fleet, *provider));
        let retirements = state.retirements.values().map(|(fleet, provider, _)| (fleet, *provider));
        let configured = state.configured.iter().map(|(fleet, provider)| (fleet, *provider));
        let (mut fleets, mut providers) = (state.unreadable.clone(), BTreeSet::new());
        for (fleet, provider) in configured.chain(rotations).chain(retirements) {
            if !fleets.contains(fleet) {
                fleets.insert(fleet.clone());
            }
            providers.insert(provider);
        }
        fleets.difference(&state.fleets).for_each(|fleet| self.table.add_fleet(fleet.as_str()));
        state.fleets.difference(&fleets).for_each(|fleet| self.table.remove_fleet(fleet.as_str()));
        providers.difference(&state.providers).for_each(|provider| self.table.add_provider(*provider));
        state.providers.difference(&providers).for_each(|provider| self.table.remove_provider(*provider));
        (state.fleets, state.providers) = (fleets, providers);
    }

    fn rotation(&self, id: JournalId, rotation: &Rotation, waits: Option<&str>) {
        let mut state = self.state();
        let (fleet, provider) = (&rotation.plan.fleet, rotation.plan.place.provider);
        let known = state.rotations.get(&id).map(|(.., seq)| *seq);
        match rotation.ended {
            None if known == Some(rotation.seq) => self.waits(fleet, waits),
            None => {
                state.rotations.insert(id, (fleet.clone(), provider, rotation.seq));
                if known.is_none() {
                    self.settle_series(&mut state);
                }
                self.show(fleet, &Stand::of(rotation));
                self.waits(fleet, waits);
            }
            Some((at, outcome)) => {
                let renews = rotation.plan.purpose() == Purpose::Rotate;
                if outcome == Outcome::Completed && renews && state.fleets.contains(fleet) {
                    self.succeeded(fleet, at, rotation.key_stored);
                }
                if state.rotations.remove(&id).is_some() {
                    self.show(fleet, &Stand::default());
                    self.waits(fleet, None);
                    self.settle_series(&mut state);
                }
            }
        }
    }

    /// Unless a newer success is known.
    fn succeeded(&self, fleet: &FleetName, at: Timestamp, key_created: Option<Timestamp>) {
        let Ok(last) = self.table.last_success.get_metric_with_label_values(&[fleet.as_str()]) else { return };
        if last.get() <= seconds(Some(at)) {
            last.set(seconds(Some(at)));
            set(&self.table.key_created, &[fleet.as_str()], seconds(key_created));
        }
    }

    fn show(&self, fleet: &FleetName, stand: &Stand) {
        let fleet = fleet.as_str();
        set(&self.table.rotation_open, &[fleet], f64::from(u8::from(stand.begun.is_some())));
        set(&self.table.rotation_begun, &[fleet], seconds(stand.begun));
        set(&self.table.rotation_batches, &[fleet, "done"], stand.batches.0 as f64);
        set(&self.table.rotation_batches, &[fleet, "left"], stand.batches.1 as f64);
        for (budget, spending) in BUDGETS.iter().zip(stand.budgets) {
            set(&self.table.rotation_budget, &[fleet, *budget], f64::from(spending.bears.unwrap_or_default()));
            set(&self.table.rotation_budget_spent, &[fleet, *budget], f64::from(spending.spent));
        }
        for reason in REASONS {
            set(&self.table.rotation_held, &[fleet, *reason], f64::from(u8::from(stand.held == Some(reason))));
        }
        for phase in Phase::ALL {
            let instances = stand.phases.get(&phase).copied().unwrap_or_default();
            set(&self.table.rotation_instances, &[fleet, phase.name()], f64::from(instances));
        }
        set(&self.table.starts_owed, &[fleet], f64::from(stand.owed));
        set(&self.table.starts_owed_since, &[fleet], seconds(stand.owed_since));
    }

    fn waits(&self, fleet: &FleetName, waits: Option<&str>) {
        for reason in WAITS_FOR {
            set(&self.table.rotation_waits, &[fleet.as_str(), *reason], f64::from(u8::from(waits == Some(*reason))));
        }
    }

    fn retirement(&self, id: JournalId, retirement: &Retirement, waits: bool, now: Timestamp) {
        let stage = match retirement.stage(now) {
            Some(Stage::Due) if waits => Some(Stage::Waiting),
            stage => stage,
        };
        let mut state = self.state();
        let (fleet, provider) = (&retirement.plan.fleet, retirement.plan.place.provider);
        let known = state.retirements.get(&id).map(|(.., stage)| *stage);
        if known == stage {
            return;
        }
        match stage {
            Some(stage) => state.retirements.insert(id, (fleet.clone(), provider, stage)),
            None => state.retirements.remove(&id),
        };
        if known.is_none() || stage.is_none() {
            self.settle_series(&mut state);
        }
        if state.fleets.contains(fleet) {
            for stage in Stage::ALL {
                let all = state.retirements.values().filter(|(of, _, at)| of == fleet && *at == stage);
                set(&self.table.retire_journals, &[fleet.as_str(), stage.name()], all.count() as f64);
            }
        }
    }
}

impl Observer for Metrics {
    fn recorded(&self, id: JournalId, plan: &Plan, entry: &Entry) {
        let mut state = self.state();
        for (step, took) in state.stopwatch.hear(id, entry) {
            observe(&self.table.step_duration, &[step.name()], took.as_secs_f64());
        }
        let fleet = plan.fleet();
        match &entry.event {
            Event::Started { call: Call::Bind, found, .. } => {
                observe(&self.table.batch_size, &[plan.place().provider.as_str()], found.len() as f64);
            }
            Event::Verified { proofs } => self.proved(&state, fleet, "proven", proofs.len()),
            Event::Unproven { instances, .. } => self.proved(&state, fleet, "unreached", instances.len()),
            Event::Excluded { instances } => {
                let failed = instances.iter().filter(|one| matches!(one.reason, Exclusion::Unproven { .. }));
                self.proved(&state, fleet, "failed", failed.count());
            }
            Event::Ended { outcome } if state.fleets.contains(fleet) => {
                let counters = match plan {
                    Plan::Rotate(_) => &self.table.rotations,
                    Plan::Retire(_) => &self.table.retire_journals_ended,
                };
                count(counters, &[fleet.as_str(), outcome_name(*outcome)]);
            }
            _ => {}
        }
    }

    fn turned(&self, id: JournalId, view: View<'_>, now: Timestamp) {
        match view {
            View::Rotation { rotation, waiting } => {
                self.rotation(id, rotation, waits_for(rotation, waiting.is_some(), now));
            }
            View::Retirement { retirement, waiting } => self.retirement(id, retirement, waiting.is_some(), now),
        }
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Abandoned => "abandoned",
        Outcome::Retired => "retired",
        Outcome::Kept => "kept",
        Outcome::Recalled => "recalled",
    }
}

/// A moment in seconds since 1970; 0 for none.
fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
