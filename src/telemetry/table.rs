//! Every metric's name, once, with its help and its labels, and which series of it exist from the start. It must never
//! hold a label without bound (no instance id, no path), nor one that scrapers set themselves: `region`, `zone`, `env`,
//! `cluster`, `type`, `service`. Base units; `_total` on counters; moments, not ages.

use prometheus::{Error, Gauge, GaugeVec, Histogram, HistogramVec, IntCounterVec, Registry};

use crate::model::ProviderKind;
use crate::rotation::DriftKind;

use super::maker::Maker;
use super::series::{Label, Series, Subject, Values};

pub(super) use super::labels::{BUDGETS, OUTCOMES, STEPS, UNSEEN_BY_SURVEYS, WAITS_FOR};

const FLEET: Label = Label("fleet", Values::Fleets);
const PROVIDER: Label = Label("provider", Values::Providers);
const ACTION: Label = Label("action", Values::Actions);
const ACCOUNT: Label = Label("account", Values::Open);
const CLOUD_REGION: Label = Label("cloud_region", Values::Open);
const VERSION: Label = Label("version", Values::Closed(&[env!("CARGO_PKG_VERSION")]));
const PHASE: Label = Label(
    "phase",
    Values::Closed(&["waiting", "under_way", "bound", "active", "proven", "straggler", "excluded", "gone"]),
);
const STATE: Label = Label("state", Values::Closed(&["soak", "waiting", "due", "grace", "held"]));
const REASON: Label = Label("reason", Values::Closed(REASONS));
const ROTATED: Label = Label("outcome", Values::Closed(&["completed", "abandoned"]));
const RETIRED: Label = Label("outcome", Values::Closed(&["retired", "kept", "recalled"]));
const LATE: Label = Label("late", Values::Closed(&["waiting", "new"]));
const PROVED: Label = Label("outcome", Values::Closed(&["proven", "failed", "unreached"]));
const TICKED: Label =
    Label("outcome", Values::Closed(&["started", "caught_up", "missed", "open", "failed", "refused", "closed"]));
const ANSWERED: Label = Label("outcome", Values::Closed(OUTCOMES));
const BY: Label = Label("by", Values::Closed(&[BY_CLOUD, BY_OURSELVES]));
const STEP: Label = Label("step", Values::Closed(STEPS));
const BUDGET: Label = Label("budget", Values::Closed(&BUDGETS));
const BATCHES: Label = Label("state", Values::Closed(&["done", "left"]));
const WAITS: Label = Label("reason", Values::Closed(WAITS_FOR));
const UNSEEN: Label = Label("what", Values::Closed(UNSEEN_BY_SURVEYS));
const KIND: Label = Label("kind", Values::Closed(&DriftKind::NAMES));

/// The kinds of `HoldReason`.
pub(super) const REASONS: &[&str] = &[
    "operator",
    "failures",
    "failures_in_a_row",
    "canary",
    "hook",
    "step",
    "key_mismatch",
    "unknown_pairs",
    "custody",
    "start_refused",
    "clock",
    "wrong_host",
    "old_key_taken",
    "strangers_pair",
    "account",
];
/// A request that ended well.
pub(super) const OK: &str = "ok";
/// The cloud said: too many requests.
pub(super) const BY_CLOUD: &str = "cloud";
/// Not sent: its turn under our own rate would have come too late.
pub(super) const BY_OURSELVES: &str = "rekeyd";

/// 50 ms to the transport's longest wait.
const REQUEST_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0];
/// 0.1 s to the settle deadline of a quarter of an hour.
const STEP_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0];
/// One to the largest batch that a cloud takes.
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// All metrics but the process's own.
pub(super) struct Table {
    pub driver: Gauge,
    pub config_last_reload_successful: Gauge,
    pub config_last_reload_success: Gauge,
    pub scheduler_last_turn: Gauge,
    pub scheduler_ticks: IntCounterVec,
    pub key_created: GaugeVec,
    pub next_due: GaugeVec,
    pub key_due: GaugeVec,
    pub last_success: GaugeVec,
    pub paused: GaugeVec,
    pub waits_for_window: GaugeVec,
    pub late_instances: GaugeVec,
    pub journals_unreadable: GaugeVec,
    pub rotations: IntCounterVec,
    pub rotation_open: GaugeVec,
    pub rotation_begun: GaugeVec,
    pub rotation_held: GaugeVec,
    pub rotation_waits: GaugeVec,
    pub rotation_batches: GaugeVec,
    pub rotation_budget: GaugeVec,
    pub rotation_budget_spent: GaugeVec,
    pub rotation_instances: GaugeVec,
    pub starts_owed: GaugeVec,
    pub starts_owed_since: GaugeVec,
    pub retire_journals: GaugeVec,
    pub retire_journals_ended: IntCounterVec,
    pub proofs: IntCounterVec,
    pub drift: GaugeVec,
    pub drift_last_survey: GaugeVec,
    pub drift_surveys_failed: IntCounterVec,
    pub drift_unseen: GaugeVec,
    pub step_duration: HistogramVec,
    pub batch_size: HistogramVec,
    pub requests: IntCounterVec,
    pub request_duration: HistogramVec,
    pub throttled: IntCounterVec,
    pub clock_difference: GaugeVec,
    pub key_pairs: GaugeVec,
    pub key_pairs_max: GaugeVec,
    series: Vec<Series>,
}

impl Table {
    /// All metrics, registered; those whose labels are known have their series.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let mut make = Maker { registry, series: Vec::new() };
        make.gauges("build_info", "Which rekeyd this is; always 1.", &[VERSION])?
            .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?
            .set(1.0);
        let table = Self {
            driver: make.gauge("driver", "1 while this process drives the store; 0 while it waits for another one.")?,
            config_last_reload_successful: make.gauge(
                "config_last_reload_successful",
                "1 if the config file was taken when it was read last; 0 if it was refused, and the one before stays in force.",
            )?,
            config_last_reload_success: make.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the config file that is in force was read.",
            )?,
            scheduler_last_turn: make.gauge(
                "scheduler_last_turn_timestamp_seconds",
                "When the scheduler's loop turned last; 0 before its first turn.",
            )?,
            scheduler_ticks: make.counters(
                "scheduler_ticks_total",
                "Due times of a fleet's schedule, by what became of them: started, caught_up (started late, within \
                 schedule_slack), missed (skipped), open (a rotation was open), failed (could not be started), refused \
                 (a rule that only a person lifts), closed (no maintenance window within schedule_slack).",
                &[FLEET, TICKED],
            )?,
            key_created: make.gauges(
                "fleet_key_created_timestamp_seconds",
                "When the fleet's active key was made, the one of its newest completed rotation; 0 if there is none.",
                &[FLEET],
            )?,
            next_due: make.gauges(
                "fleet_next_due_timestamp_seconds",
                "When the fleet is due next; 0 if it never is.",
                &[FLEET],
            )?,
            key_due: make.gauges(
                "fleet_key_due_timestamp_seconds",
                "When the fleet's key was to be replaced: the first due time of its schedule, as it is now, after the begin of \
                 its newest completed rotation; 0 without a schedule or such a rotation. By how much the key is too old: \
                 time() - (this > 0).",
                &[FLEET],
            )?,
            last_success: make.gauges(
                "fleet_last_success_timestamp_seconds",
                "When a rotation of the fleet was last completed; 0 if none was.",
                &[FLEET],
            )?,
            paused: make.gauges("fleet_paused", "1 while an operator holds the fleet's schedule.", &[FLEET])?,
            waits_for_window: make.gauges(
                "fleet_waits_for_window",
                "1 while a due time of the fleet has come and waits for a maintenance window.",
                &[FLEET],
            )?,
            late_instances: make.gauges("fleet_late_instances", "Who misses the fleet's key.", &[FLEET, LATE])?,
            journals_unreadable: make.gauges(
                "journals_unreadable",
                "Journals of the fleet that cannot be read; they hold the fleet.",
                &[FLEET],
            )?,
            rotations: make.counters("rotations_total", "Rotations that ended, by outcome.", &[FLEET, ROTATED])?,
            rotation_open: make.gauges("rotation_open", "1 while a rotation of the fleet is open.", &[FLEET])?,
            rotation_begun: make.gauges(
                "rotation_begun_timestamp_seconds",
                "When the fleet's open rotation began; 0 if none is open.",
                &[FLEET],
            )?,
            rotation_held: make.gauges(
                "rotation_held",
                "1 while the fleet's open rotation is held, by the kind of reason.",
                &[FLEET, REASON],
            )?,
            rotation_waits: make.gauges(
                "rotation_waits",
                "1 while the fleet's open rotation begins nothing new for want of: a maintenance window, a hook that runs, the \
                 end of a soak, its account (machines that may be down at once, or credentials that can be read).",
                &[FLEET, WAITS],
            )?,
            rotation_batches: make.gauges("rotation_batches", "Batches of the fleet's open rotation.", &[FLEET, BATCHES])?,
            rotation_budget: make.gauges(
                "rotation_budget",
                "What the fleet's open rotation bears: one of its failures more, in all or in a row, holds it; no more of its \
                 instances than unavailable are down at once because of us. 0 if none is open.",
                &[FLEET, BUDGET],
            )?,
            rotation_budget_spent: make.gauges(
                "rotation_budget_spent",
                "What is spent of rotation_budget since the newest release for it.",
                &[FLEET, BUDGET],
            )?,
            rotation_instances: make.gauges(
                "rotation_instances",
                "Instances of the fleet's open rotation, by how far they are.",
                &[FLEET, PHASE],
            )?,
            starts_owed: make.gauges(
                "starts_owed",
                "Instances of the fleet's open rotation that are owed a start: down because of us, or about to be.",
                &[FLEET],
            )?,
            starts_owed_since: make.gauges(
                "starts_owed_since_timestamp_seconds",
                "Since when the oldest start of the fleet is owed; 0 if none is. Its age: time() - (this > 0).",
                &[FLEET],
            )?,
            retire_journals: make.gauges(
                "retire_journals",
                "Open retire journals, one for each superseded key pair, by state.",
                &[FLEET, STATE],
            )?,
            retire_journals_ended: make.counters(
                "retire_journals_ended_total",
                "Retire journals that ended: private key destroyed (retired), kept for want of a login proof, or recalled as a \
                 later rotation binds the pair again.",
                &[FLEET, RETIRED],
            )?,
            proofs: make.counters(
                "proofs_total",
                "Machines of the fleet whose new key was to be proven by a login: proven, failed (it refused the key, or was \
                 out of reach since), unreached (it never was in reach: no failure).",
                &[FLEET, PROVED],
            )?,
            drift: make.gauges(
                "drift",
                "What the newest hourly survey of the fleet saw otherwise than the journals have it, by kind; fleet is empty \
                 for unknown key pairs and needless private halves.",
                &[FLEET, KIND],
            )?,
            drift_last_survey: make.gauges(
                "drift_last_survey_timestamp_seconds",
                "When the fleet was last surveyed for drift, and all of it was seen; 0 if it never was.",
                &[FLEET],
            )?,
            drift_surveys_failed: make.counters(
                "drift_surveys_failed_total",
                "Surveys for drift that could not see all: a cloud, custody or a journal did not answer.",
                &[FLEET],
            )?,
            drift_unseen: make.gauges(
                "drift_unseen",
                "1 if the newest survey of the fleet had no answer from: its account's credentials (they cannot be read), its \
                 cloud, custody, the journals, its machines (the key of the jump host cannot be read); fleet is empty for what \
                 belongs to no fleet alone.",
                &[FLEET, UNSEEN],
            )?,
            step_duration: make.histograms(
                "step_duration_seconds",
                "From a step's first call for a batch until what it was for is seen, or given up, for all of it.",
                &[STEP],
                STEP_SECONDS,
            )?,
            batch_size: make.histograms(
                "batch_size",
                "Instances that a bind was asked for at once.",
                &[PROVIDER],
                BATCH,
            )?,
            requests: make.counters(
                "provider_requests_total",
                "Requests sent, each repetition counted, by outcome: ok, or the kind of error.",
                &[PROVIDER, ACTION, ANSWERED],
            )?,
            request_duration: make.histograms(
                "provider_request_duration_seconds",
                "From sending a request until its answer, or until it is given up.",
                &[PROVIDER, ACTION],
                REQUEST_SECONDS,
            )?,
            throttled: make.counters(
                "provider_throttled_total",
                "Requests throttled: refused as too many (cloud), or not sent as our own rate left no turn (rekeyd).",
                &[PROVIDER, ACTION, BY],
            )?,
            clock_difference: make.gauges(
                "clock_difference_seconds",
                "Our clock less the cloud's, by its newest answer, to the second; above 60 either way nothing is bound.",
                &[ACCOUNT, CLOUD_REGION],
            )?,
            key_pairs: make.gauges(
                "key_pairs",
                "Key pairs in the account and region, whoever made them, as of the last hourly look.",
                &[ACCOUNT, CLOUD_REGION],
            )?,
            key_pairs_max: make.gauges(
                "key_pairs_max",
                "Key pairs that the account may have in the region: its quota, or what the cloud's pages say.",
                &[ACCOUNT, CLOUD_REGION],
            )?,
            series: make.series,
        };
        table.each(|series| series.create(Subject::Nothing));
        // What is of no fleet: nobody adds it.
        DriftKind::NAMES.iter().for_each(|kind| set(&table.drift, &["", *kind], 0.0));
        set(&table.drift_last_survey, &[""], 0.0);
        table.drift_surveys_failed.with_label_values(&[""]);
        table.unseen("", &[]);
        Ok(table)
    }

    /// Makes the series of a fleet, at 0.
    pub fn add_fleet(&self, fleet: &str) {
        self.each(|series| series.create(Subject::Fleet(fleet)));
    }
    /// Removes the series of a fleet.
    pub fn remove_fleet(&self, fleet: &str) {
        self.each(|series| series.remove(Subject::Fleet(fleet)));
    }
    /// Makes the series of a provider, at 0.
    pub fn add_provider(&self, provider: ProviderKind) {
        self.each(|series| series.create(Subject::Provider(provider)));
    }
    /// Removes the series of a provider.
    pub fn remove_provider(&self, provider: ProviderKind) {
        self.each(|series| series.remove(Subject::Provider(provider)));
    }

    /// What a survey for drift found; `None`: not all could be seen, and what was found before stands.
    pub fn surveyed(&self, fleet: &str, at: f64, found: Option<&[&str]>) {
        let Some(found) = found else { return count(&self.drift_surveys_failed, &[fleet]) };
        for kind in DriftKind::NAMES {
            let number = found.iter().filter(|one| **one == kind).count();
            set(&self.drift, &[fleet, kind], number as f64);
        }
        set(&self.drift_last_survey, &[fleet], at);
    }

    /// What did not answer the newest survey.
    pub fn unseen(&self, fleet: &str, unseen: &[&str]) {
        for what in UNSEEN_BY_SURVEYS {
            set(&self.drift_unseen, &[fleet, *what], f64::from(u8::from(unseen.contains(what))));
        }
    }

    fn each(&self, act: impl FnMut(&Series)) {
        self.series.iter().for_each(act);
    }
}

/// Sets one series of many. A wrong number of labels sets nothing.
pub(super) fn set(gauges: &GaugeVec, labels: &[&str], value: f64) {
    if let Ok(gauge) = gauges.get_metric_with_label_values(labels) {
        gauge.set(value);
    }
}
/// Counts one more in one series of many.
pub(super) fn count(counters: &IntCounterVec, labels: &[&str]) {
    if let Ok(counter) = counters.get_metric_with_label_values(labels) {
        counter.inc();
    }
}
/// Puts a value into one series of many.
pub(super) fn observe(histograms: &HistogramVec, labels: &[&str], value: f64) {
    if let Ok(histogram) = histograms.get_metric_with_label_values(labels) {
        Histogram::observe(&histogram, value);
    }
}
