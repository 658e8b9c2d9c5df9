//! What the scheduler tells, passed on: to the metrics, to the health pages, to the service manager. Its watchdog hears of
//! turns of the scheduler's own loop, and of nothing else: a loop that is stuck is restarted, a held rotation is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sd_notify::NotifyState;

use crate::engine::late::Late;
use crate::engine::survey::Survey;
use crate::model::{FleetName, Timestamp};
use crate::scheduler::{Observer, Ticked};
use crate::store::Unreadable;
use crate::telemetry::{Metrics, Tick};

use super::doing::Doing;

/// Tells the service manager, if there is one. That it cannot be told is no reason not to work.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Hears the scheduler.
pub(super) struct Ear {
    metrics: Arc<Metrics>,
    doing: Arc<Doing>,
    state: Mutex<State>,
}

struct State {
    /// Fleets that have journals that cannot be read.
    unreadable: BTreeSet<FleetName>,
    turned: Option<Timestamp>,
    not_driving: Option<&'static str>,
    /// How many fleets the file has.
    fleets: usize,
    /// When the config file was refused, if none was taken since.
    refused: Option<Timestamp>,
    /// What the service manager was told last.
    said: String,
}

impl Ear {
    pub(super) fn new(metrics: Arc<Metrics>, doing: Arc<Doing>) -> Self {
        let state = State {
            unreadable: BTreeSet::new(),
            turned: None,
            not_driving: Some("starting"),
            fleets: 0,
            refused: None,
            said: String::new(),
        };
        Self { metrics, doing, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process drives from now on. The loop's first turn comes at once.
    pub(super) fn driving(&self, at: Timestamp) {
        let mut state = self.state();
        (state.not_driving, state.turned) = (None, Some(at));
        drop(state);
        self.metrics.driving(true);
        tell(&[NotifyState::Ready]);
        self.say();
    }

    /// The config file is being read anew.
    pub(super) fn reloading(&self) {
        // From systemd 253 on it wants to know when that began.
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        tell(&states);
    }

    /// The config file was read: it has so many fleets, or (`None`) was refused.
    pub(super) fn config_read(&self, fleets: Option<usize>, at: Timestamp) {
        let mut state = self.state();
        match fleets {
            Some(fleets) => (state.fleets, state.refused) = (fleets, None),
            None => state.refused = Some(at),
        }
        drop(state);
        self.metrics.config_read(fleets.map(|_| at));
    }

    /// What came of reading it anew is in force.
    pub(super) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
        self.say();
    }

    /// Tells the service manager what is being done, where that changed.
    fn say(&self) {
        let mut state = self.state();
        let fleets = state.fleets;
        let what = match state.not_driving {
            Some("stopping") => "stopping".to_string(),
            Some(why) => format!("waiting: {why}"),
            None => format!("driving {fleets} {}{}", if fleets == 1 { "fleet" } else { "fleets" }, self.doing.words()),
        };
        let refused =
            state.refused.map(|at| format!("; the config file was refused at {at:.0}, the one before is in force"));
        let text = what + refused.as_deref().unwrap_or_default();
        if state.said != text {
            tell(&[NotifyState::Status(&text)]);
            state.said = text;
        }
    }

    /// It does not, and why.
    pub(super) fn not_driving(&self, why: &'static str) {
        self.state().not_driving = Some(why);
        self.metrics.driving(false);
        if why == "stopping" {
            tell(&[NotifyState::Stopping]);
        }
        self.say();
    }

    /// The loop, or the wait for the driver's place, goes round.
    pub(super) fn alive(&self, at: Timestamp) {
        self.state().turned = Some(at);
        tell(&[NotifyState::Watchdog]);
    }

    pub(super) fn turned_last(&self) -> Option<Timestamp> {
        self.state().turned
    }

    pub(super) fn why_not(&self) -> Option<String> {
        self.state().not_driving.map(str::to_string)
    }
}

impl Observer for Ear {
    fn turned(&self, at: Timestamp) {
        self.alive(at);
        self.say();
        self.metrics.turned_at(at);
    }
    fn due(&self, fleet: &FleetName, at: Option<Timestamp>) {
        self.metrics.due(fleet, at);
    }
    fn key_due(&self, fleet: &FleetName, at: Option<Timestamp>) {
        self.metrics.key_due(fleet, at);
    }
    fn waits_for_window(&self, fleet: &FleetName, waits: bool) {
        self.metrics.waits_for_window(fleet, waits);
    }
    fn paused(&self, fleet: &FleetName, paused: bool) {
        self.metrics.paused(fleet, paused);
    }
    fn late(&self, fleet: &FleetName, late: &Late) {
        self.metrics.late(fleet, late.waiting.len() + late.back.len(), late.new.len());
    }
    fn ticked(&self, fleet: &FleetName, what: Ticked) {
        self.metrics.ticked(
            fleet,
            match what {
                Ticked::Started => Tick::Started,
                Ticked::CaughtUp => Tick::CaughtUp,
                Ticked::Missed => Tick::Missed,
                Ticked::Open => Tick::Open,
                Ticked::Failed => Tick::Failed,
                Ticked::Refused => Tick::Refused,
                Ticked::Closed => Tick::Closed,
            },
        );
    }
    fn unreadable(&self, journals: &[Unreadable]) {
        let mut numbers: BTreeMap<FleetName, usize> =
            std::mem::take(&mut self.state().unreadable).into_iter().map(|fleet| (fleet, 0)).collect();
        for fleet in journals.iter().filter_map(|journal| journal.fleet.as_ref()) {
            *numbers.entry(fleet.clone()).or_default() += 1;
        }
        numbers.iter().for_each(|(fleet, number)| self.metrics.unreadable(fleet, *number));
        self.state().unreadable =
            numbers.into_iter().filter(|(_, number)| *number > 0).map(|(fleet, _)| fleet).collect();
    }
    fn surveyed(&self, fleet: Option<&FleetName>, survey: &Survey) {
        let kinds: Vec<&str> = survey.deviations.iter().map(|deviation| deviation.kind.name()).collect();
        self.metrics.surveyed(fleet, survey.at, survey.unseen.is_empty().then_some(&kinds[..]));
        self.metrics.unseen(fleet, &survey.blind.iter().map(|blind| blind.name()).collect::<Vec<_>>());
        for places in &survey.places {
            self.metrics.key_pairs(&places.account, &places.region, places.taken, places.max);
        }
    }
}
