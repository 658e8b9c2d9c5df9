//! Tests of the numbers: what is there from the start, what each thing that is heard changes, what goes; a whole rotation
//! of a simulated fleet; and what Prometheus' own checker says of the page.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::SignedDuration;
use rand::SeedableRng;

use super::super::table::{OK, OUTCOMES, STEPS, UNSEEN_BY_SURVEYS};
use super::*;
use crate::engine::unseen::Blind;
use crate::model::error::Kind;
use crate::model::{Amount, Disruption, InstanceId, Mark, Power};
use crate::provider::{self, Heard};
use crate::rotation::{
    Allow, Author, BoundInstance, ExcludedInstance, Exclusion, Found, HoldReason, Part, Place, PlannedInstance, Policy,
    RetirePlan, RotatePlan, Step,
};

const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}
fn journal(number: u8) -> JournalId {
    JournalId::derive(at(0), [number; 10])
}
fn fleet(name: &str) -> FleetName {
    FleetName::new(name)
}
fn metrics(fleets: &[&str]) -> Metrics {
    let metrics = Metrics::new().unwrap();
    configure(&metrics, fleets);
    metrics
}
fn configure(metrics: &Metrics, fleets: &[&str]) {
    let fleets: Vec<_> = fleets
        .iter()
        .map(|name| FleetOfConfig { name: fleet(name), provider: ProviderKind::TencentLighthouse })
        .collect();
    metrics.set_fleets(&fleets);
}
fn place() -> Place {
    Place {
        account: "acc".into(),
        provider: ProviderKind::TencentLighthouse,
        endpoint: None,
        region: Region::new("ap-singapore"),
    }
}
fn rotate(name: &str) -> RotatePlan {
    RotatePlan {
        fleet: fleet(name),
        place: place(),
        select: provider::Select::All,
        key_name: key_name(name),
        key: Default::default(),
        undoes: None,
        compromised: false,
        key_bits: 2048,
        disruption: Disruption::StopsInstance,
        policy: Policy {
            unavailable_max: 5,
            failures_max: 5,
            soak: Duration::from_secs(60),
            force_stop: false,
            grace: Duration::from_secs(600),
            verify: Default::default(),
            deliver: Vec::new(),
            pace: Default::default(),
        },
    }
}
fn key_name(text: &str) -> crate::model::KeyPairName {
    crate::model::KeyPairName::new(text)
}
fn ids(ids: &str) -> Vec<InstanceId> {
    ids.split_whitespace().map(InstanceId::from).collect()
}
fn planned(ids: &[InstanceId]) -> Vec<PlannedInstance> {
    let planned = |id: &InstanceId| PlannedInstance {
        id: id.clone(),
        name: String::new(),
        power: Power::Running,
        keys: Vec::new(),
        part: Part::Batch(0),
        pin: None,
        known: None,
    };
    ids.iter().map(planned).collect()
}
fn entries(events: &[(i64, Event)]) -> Vec<Entry> {
    let by = Author::Engine("e".to_string());
    (1..)
        .zip(events)
        .map(|(seq, (second, event))| Entry { seq, at: at(*second), by: by.clone(), event: event.clone() })
        .collect()
}
fn begun() -> (i64, Event) {
    (0, Event::Planned { digest: String::new() })
}
fn stored(second: i64) -> (i64, Event) {
    static KEY: OnceLock<crate::model::PrivateKey> = OnceLock::new();
    let key = KEY.get_or_init(|| crate::ssh::generate(2048, "test").unwrap());
    (second, Event::KeyStored { public_key: key.public().clone(), fingerprint: key.public().fingerprint() })
}
fn started(step: Step, call: Call, of: &str) -> Event {
    let found = |instance| Found { instance, power: Power::Running, keys: Vec::new(), boot: None };
    Event::Started { step, call, found: ids(of).into_iter().map(found).collect() }
}
fn bound(of: &str) -> Event {
    let bound = |instance| BoundInstance { instance, power: Power::Running, boot: None };
    Event::Bound { instances: ids(of).into_iter().map(bound).collect() }
}

/// Plays a rotation's entries to the metrics as the engine does, and turns once.
fn play(metrics: &Metrics, id: JournalId, name: &str, instances: &str, events: &[(i64, Event)]) {
    let (plan, entries) = (rotate(name), entries(events));
    let rotation = Rotation::fold(id, plan.clone(), &planned(&ids(instances)), &entries).unwrap();
    for entry in &entries {
        metrics.recorded(id, &Plan::Rotate(plan.clone()), entry);
    }
    metrics.turned(id, View::Rotation { rotation: &rotation, waiting: None }, rotation.last_at);
}
fn play_retirement(metrics: &Metrics, id: JournalId, events: &[(i64, Event)], waiting: Option<&str>, now: i64) {
    let plan = RetirePlan {
        fleet: fleet("web"),
        place: place(),
        key_name: key_name("old"),
        rotation: journal(1),
        soak: Duration::from_secs(60),
        grace: Duration::from_secs(600),
        proven: false,
    };
    let entries = entries(events);
    let retirement = Retirement::fold(id, plan.clone(), &entries).unwrap();
    for entry in &entries {
        metrics.recorded(id, &Plan::Retire(plan.clone()), entry);
    }
    metrics.turned(id, View::Retirement { retirement: &retirement, waiting }, at(now));
}

/// All series of ours and their values.
fn series(metrics: &Metrics) -> BTreeMap<String, f64> {
    let page = metrics.render().unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("rekeyd_")?.rsplit_once(' '));
    lines.map(|(series, value)| (series.to_string(), value.parse().unwrap())).collect()
}
/// These series have these values, and no other of `names` has any but 0.
#[track_caller]
fn check(metrics: &Metrics, names: &[&str], expect: &[(&str, f64)]) {
    let all = series(metrics);
    let of = |series: &str| names.contains(&series.split('{').next().unwrap());
    let got: BTreeMap<&str, f64> =
        all.iter().filter(|(name, value)| of(name) && **value != 0.0).map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(got, expect.iter().copied().collect());
    for name in names {
        assert!(all.keys().any(|series| series.split('{').next() == Some(name)), "there is no {name}");
    }
}

#[test]
fn every_known_series_is_there_from_the_start_at_0() {
    let metrics = metrics(&["web", "db"]);
    let witness = metrics.witness(&"acc".into(), &Region::new("ap-singapore"));
    let all = series(&metrics);
    let not_0: Vec<_> = all.iter().filter(|(_, value)| **value != 0.0).map(|(name, _)| name.as_str()).collect();
    assert_eq!(not_0, [format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))]);
    let expect = [
        "driver",
        "scheduler_last_turn_timestamp_seconds",
        "fleet_key_created_timestamp_seconds{fleet=\"db\"}",
        "fleet_next_due_timestamp_seconds{fleet=\"web\"}",
        "fleet_last_success_timestamp_seconds{fleet=\"web\"}",
        "fleet_paused{fleet=\"web\"}",
        "fleet_key_due_timestamp_seconds{fleet=\"web\"}",
        "fleet_waits_for_window{fleet=\"web\"}",
        "rotation_begun_timestamp_seconds{fleet=\"web\"}",
        "rotation_waits{fleet=\"web\",reason=\"window\"}",
        "rotation_batches{fleet=\"web\",state=\"left\"}",
        "rotation_budget{budget=\"failures\",fleet=\"web\"}",
        "rotation_budget_spent{budget=\"unavailable\",fleet=\"web\"}",
        "drift_unseen{fleet=\"web\",what=\"custody\"}",
        "drift_unseen{fleet=\"\",what=\"journals\"}",
        "rotations_total{fleet=\"web\",outcome=\"abandoned\"}",
        "rotation_open{fleet=\"web\"}",
        "rotation_held{fleet=\"web\",reason=\"start_refused\"}",
        "rotation_instances{fleet=\"web\",phase=\"under_way\"}",
        "retire_journals{fleet=\"web\",state=\"grace\"}",
        "retire_journals_ended_total{fleet=\"web\",outcome=\"kept\"}",
        "starts_owed{fleet=\"web\"}",
        "starts_owed_since_timestamp_seconds{fleet=\"web\"}",
        "step_duration_seconds_count{step=\"bind\"}",
        "batch_size_count{provider=\"tencent-lighthouse\"}",
        "provider_requests_total{action=\"ImportKeyPair\",outcome=\"in_use\",provider=\"tencent-lighthouse\"}",
        "provider_request_duration_seconds_sum{action=\"ImportKeyPair\",provider=\"tencent-lighthouse\"}",
        "provider_throttled_total{action=\"ImportKeyPair\",by=\"cloud\",provider=\"tencent-lighthouse\"}",
        "clock_difference_seconds{account=\"acc\",cloud_region=\"ap-singapore\"}",
        "scheduler_ticks_total{fleet=\"web\",outcome=\"caught_up\"}",
        "journals_unreadable{fleet=\"web\"}",
        "drift{fleet=\"web\",kind=\"other_key\"}",
        "drift{fleet=\"\",kind=\"unknown_pair\"}",
        "drift_last_survey_timestamp_seconds{fleet=\"web\"}",
        "drift_surveys_failed_total{fleet=\"\"}",
    ];
    for name in expect {
        assert_eq!(all.get(name), Some(&0.0), "{name}");
    }
    let actions = provider::actions(ProviderKind::TencentLighthouse).len();
    let requests = all.keys().filter(|name| name.starts_with("provider_requests_total")).count();
    assert_eq!(requests, actions * (1 + Kind::ALL.len()));
    assert!(!all.keys().any(|name| name.contains("alibaba")), "only providers in use");
    drop(witness);
    assert!(!series(&metrics).keys().any(|name| name.starts_with("clock_difference")), "goes with its witness");
}

#[test]
fn the_closed_label_sets_are_those_of_the_rooms_that_make_them() {
    // A new variant does not compile here until it is counted, and then fails until it is in the set.
    let reason = |reason: &HoldReason| match reason {
        HoldReason::Operator { .. } | HoldReason::Failures { .. } | HoldReason::Canary | HoldReason::Step { .. } => 4,
        HoldReason::KeyMismatch | HoldReason::UnknownPairs { .. } | HoldReason::Custody { .. } => 3,
        HoldReason::StartRefused { .. } | HoldReason::Clock { .. } | HoldReason::Account { .. } => 3,
        HoldReason::WrongHost { .. } | HoldReason::OldKeyTaken { .. } | HoldReason::StrangersPair { .. } => 3,
        HoldReason::FailuresInARow { .. } | HoldReason::Hook { .. } => 2,
    };
    let taken = HoldReason::OldKeyTaken { instances: Vec::new() };
    let hook = HoldReason::FailuresInARow { failed: 3, limit: 3 };
    let counted = reason(&HoldReason::Canary) + 2 * reason(&HoldReason::KeyMismatch) + reason(&taken) + reason(&hook);
    assert_eq!(counted, REASONS.len());
    let host = crate::model::HostKey::of(crate::model::PrivateKey::sample(1).public());
    let error = Error_::of(Kind::Busy);
    let reasons = [
        HoldReason::Operator { note: String::new() },
        HoldReason::Failures { failed: 1, allowed: 0 },
        HoldReason::FailuresInARow { failed: 3, limit: 3 },
        HoldReason::Canary,
        HoldReason::Hook { hook: crate::rotation::Hook::BeforeBatch, batch: 1, problem: String::new() },
        HoldReason::Step { step: Step::StoreKey, error },
        HoldReason::KeyMismatch,
        HoldReason::UnknownPairs { names: Vec::new() },
        HoldReason::Custody { problem: String::new() },
        HoldReason::StartRefused { instances: Vec::new() },
        HoldReason::Clock { difference: 0 },
        HoldReason::WrongHost { instance: "i-1".into(), pinned: host.clone(), seen: host },
        taken,
        HoldReason::StrangersPair { problem: String::new() },
        HoldReason::Account { problem: String::new() },
    ];
    assert_eq!(reasons.each_ref().map(HoldReason::kind).as_slice(), REASONS);
    let outcomes: Vec<&str> = [OK].into_iter().chain(Kind::ALL.map(Kind::name)).collect();
    assert_eq!(outcomes, OUTCOMES);
    let step = |step: Step| match step {
        Step::Settle(_) => None,
        Step::StoreKey | Step::ImportKey | Step::Prepare(_) | Step::Bind(_) => Some(step.name()),
        Step::BeforeBatch(_) | Step::AfterBatch(_) | Step::Deliver => Some(step.name()),
        Step::Activate(_) | Step::Verify(_) | Step::RetireKeyPair | Step::DestroyPrivateKey => Some(step.name()),
    };
    let steps = [
        Step::StoreKey,
        Step::ImportKey,
        Step::Settle(0),
        Step::Prepare(0),
        Step::Bind(0),
        Step::Activate(0),
        Step::Verify(0),
        Step::BeforeBatch(0),
        Step::AfterBatch(0),
        Step::Deliver,
        Step::RetireKeyPair,
        Step::DestroyPrivateKey,
    ];
    assert_eq!(steps.into_iter().filter_map(step).collect::<Vec<_>>(), STEPS);
    // The others are made from the variants where they are set: no series may appear that was not there.
    let metrics = metrics(&["web"]);
    let before: Vec<String> = series(&metrics).into_keys().collect();
    for tick in Tick::ALL {
        metrics.ticked(&fleet("web"), tick);
    }
    for outcome in [Outcome::Completed, Outcome::Abandoned] {
        let ended = entries(&[begun(), (1, Event::Ended { outcome })]).remove(1);
        metrics.recorded(journal(1), &Plan::Rotate(rotate("web")), &ended);
    }
    for outcome in [Outcome::Retired, Outcome::Kept] {
        let events = [begun(), (1, Event::Ended { outcome })];
        play_retirement(&metrics, journal(2), &events, None, 1);
    }
    play_retirement(&metrics, journal(2), &[begun()], None, 1);
    play(&metrics, journal(1), "web", "a", &[begun(), (1, Event::Held { reason: HoldReason::Canary })]);
    assert_eq!(series(&metrics).into_keys().collect::<Vec<_>>(), before);
}

/// An error as clouds make them.
struct Error_;
impl Error_ {
    fn of(kind: Kind) -> provider::Error {
        provider::Error {
            kind,
            effect: provider::Effect::NotDone,
            blame: provider::Blame::Request,
            action: "A".to_string(),
            code: "C".to_string(),
            message: String::new(),
            request_id: None,
            retry_after: None,
        }
    }
}

#[test]
fn a_rotations_way_shows_in_the_gauges_and_its_end_in_the_counters() {
    const GAUGES: [&str; 7] = [
        "rotation_open",
        "rotation_held",
        "rotation_instances",
        "starts_owed",
        "starts_owed_since_timestamp_seconds",
        "fleet_key_created_timestamp_seconds",
        "fleet_last_success_timestamp_seconds",
    ];
    let metrics = metrics(&["web", "db"]);
    let mut events = vec![begun(), stored(2), (3, Event::KeyImported { key_pair: "k".into() })];
    events.push((4, started(Step::Bind(0), Call::Bind, "a b")));
    play(&metrics, journal(1), "web", "a b c", &events);
    let bind = [
        ("rotation_open{fleet=\"web\"}", 1.0),
        ("rotation_instances{fleet=\"web\",phase=\"under_way\"}", 2.0),
        ("rotation_instances{fleet=\"web\",phase=\"waiting\"}", 1.0),
        ("starts_owed{fleet=\"web\"}", 2.0),
        ("starts_owed_since_timestamp_seconds{fleet=\"web\"}", (START + 4) as f64),
    ];
    check(&metrics, &GAUGES, &bind);

    events.push((6, bound("a b")));
    events.push((7, Event::Held { reason: HoldReason::Clock { difference: 70 } }));
    play(&metrics, journal(1), "web", "a b c", &events);
    let held = [
        ("rotation_open{fleet=\"web\"}", 1.0),
        ("rotation_held{fleet=\"web\",reason=\"clock\"}", 1.0),
        ("rotation_instances{fleet=\"web\",phase=\"bound\"}", 2.0),
        ("rotation_instances{fleet=\"web\",phase=\"waiting\"}", 1.0),
        ("starts_owed{fleet=\"web\"}", 2.0),
        ("starts_owed_since_timestamp_seconds{fleet=\"web\"}", (START + 4) as f64),
    ];
    check(&metrics, &GAUGES, &held);

    let excluded = ExcludedInstance { instance: "c".into(), reason: Exclusion::StopMissed };
    events.push((8, Event::Released { note: String::new(), allow: None::<Allow> }));
    events.push((9, Event::Activated { instances: ids("a b") }));
    events.push((9, Event::Excluded { instances: vec![excluded] }));
    events.push((10, Event::Ended { outcome: Outcome::Completed }));
    play(&metrics, journal(1), "web", "a b c", &events);
    let ended = [
        ("fleet_key_created_timestamp_seconds{fleet=\"web\"}", (START + 2) as f64),
        ("fleet_last_success_timestamp_seconds{fleet=\"web\"}", (START + 10) as f64),
    ];
    check(&metrics, &GAUGES, &ended);
    check(&metrics, &["rotations_total"], &[("rotations_total{fleet=\"web\",outcome=\"completed\"}", 1.0)]);

    // An older one that is turned again takes nothing back; an abandoned one is no success.
    let old = [begun(), stored(0), (1, Event::Ended { outcome: Outcome::Completed })];
    play(&metrics, journal(2), "web", "a", &old);
    check(&metrics, &GAUGES, &ended);
    let given_up = [begun(), stored(20), (21, Event::Ended { outcome: Outcome::Abandoned })];
    play(&metrics, journal(3), "web", "a", &given_up);
    check(&metrics, &GAUGES, &ended);
}

#[test]
fn steps_and_batches_are_measured_by_the_journals_own_times() {
    let metrics = metrics(&["web"]);
    let events = [
        begun(),
        (1, started(Step::StoreKey, Call::Put, "")),
        stored(3),
        (4, Event::KeyImported { key_pair: "k".into() }),
        (5, started(Step::Bind(0), Call::Bind, "a b")),
        (6, bound("a")),
        (25, bound("b")),
    ];
    play(&metrics, journal(1), "web", "a b", &events);
    let expect = [
        ("step_duration_seconds_count{step=\"store_key\"}", 1.0),
        ("step_duration_seconds_sum{step=\"store_key\"}", 2.0),
        ("step_duration_seconds_count{step=\"bind\"}", 1.0),
        ("step_duration_seconds_sum{step=\"bind\"}", 20.0),
    ];
    check(&metrics, &["step_duration_seconds_count", "step_duration_seconds_sum"], &expect);
    let batch = [("batch_size_sum{provider=\"tencent-lighthouse\"}", 2.0)];
    check(&metrics, &["batch_size_sum"], &batch);
}

#[test]
fn retire_journals_are_counted_by_state_and_by_end() {
    let metrics = metrics(&["web"]);
    let (open, ended) = (["retire_journals"], ["retire_journals_ended_total"]);
    let state = |state: &str| format!("retire_journals{{fleet=\"web\",state=\"{state}\"}}");
    let check_open = |events: &[(i64, Event)], waiting, now, expect: &[(&str, f64)]| {
        play_retirement(&metrics, journal(2), events, waiting, now);
        let expect: Vec<(String, f64)> = expect.iter().map(|(name, value)| (state(name), *value)).collect();
        let expect: Vec<(&str, f64)> = expect.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        check(&metrics, &open, &expect);
    };
    check_open(&[begun()], None, 1, &[("soak", 1.0)]);
    check_open(&[begun()], None, 60, &[("due", 1.0)]);
    check_open(&[begun()], Some("a hangs on it"), 61, &[("waiting", 1.0)]);
    check_open(&[begun()], None, 62, &[("due", 1.0)]);
    let error = Error_::of(Kind::InUse);
    let failed = Event::Failed { step: Step::RetireKeyPair, instances: Vec::new(), error, retry_at: at(90) };
    check_open(&[begun(), (62, failed)], None, 63, &[("waiting", 1.0)]);
    let deleted = (70, Event::KeyPairDeleted);
    check_open(&[begun(), deleted.clone()], None, 71, &[("grace", 1.0)]);
    check_open(&[begun(), deleted.clone()], None, 670, &[("due", 1.0)]);
    let held = (71, Event::Held { reason: HoldReason::KeyMismatch });
    check_open(&[begun(), deleted.clone(), held], None, 671, &[("held", 1.0)]);
    // A second one beside it.
    play_retirement(&metrics, journal(3), &[begun()], None, 1);
    check_open(&[begun(), deleted.clone()], None, 72, &[("grace", 1.0), ("soak", 1.0)]);
    let over = (700, Event::Ended { outcome: Outcome::Kept });
    check_open(&[begun(), deleted, over], None, 700, &[("soak", 1.0)]);
    check(&metrics, &ended, &[("retire_journals_ended_total{fleet=\"web\",outcome=\"kept\"}", 1.0)]);
}

#[test]
fn the_scheduler_tells_what_no_journal_holds() {
    const NAMES: [&str; 10] = [
        "fleet_key_due_timestamp_seconds",
        "fleet_waits_for_window",
        "driver",
        "scheduler_last_turn_timestamp_seconds",
        "scheduler_ticks_total",
        "fleet_next_due_timestamp_seconds",
        "fleet_paused",
        "journals_unreadable",
        "fleet_key_created_timestamp_seconds",
        "fleet_last_success_timestamp_seconds",
    ];
    let metrics = metrics(&["web"]);
    let web = fleet("web");
    metrics.driving(true);
    metrics.turned_at(at(5));
    metrics.ticked(&web, Tick::CaughtUp);
    metrics.due(&web, Some(at(60)));
    metrics.paused(&web, true);
    metrics.key_due(&web, Some(at(50)));
    metrics.waits_for_window(&web, true);
    metrics.unreadable(&web, 2);
    metrics.remember(&web, History { key_created: Some(at(-9)), last_success: Some(at(-8)) });
    let expect = [
        ("driver", 1.0),
        ("scheduler_last_turn_timestamp_seconds", (START + 5) as f64),
        ("scheduler_ticks_total{fleet=\"web\",outcome=\"caught_up\"}", 1.0),
        ("fleet_next_due_timestamp_seconds{fleet=\"web\"}", (START + 60) as f64),
        ("fleet_paused{fleet=\"web\"}", 1.0),
        ("journals_unreadable{fleet=\"web\"}", 2.0),
        ("fleet_key_created_timestamp_seconds{fleet=\"web\"}", (START - 9) as f64),
        ("fleet_last_success_timestamp_seconds{fleet=\"web\"}", (START - 8) as f64),
        ("fleet_key_due_timestamp_seconds{fleet=\"web\"}", (START + 50) as f64),
        ("fleet_waits_for_window{fleet=\"web\"}", 1.0),
    ];
    check(&metrics, &NAMES, &expect);
    metrics.driving(false);
    metrics.key_due(&web, None);
    metrics.waits_for_window(&web, false);
    metrics.due(&web, None);
    metrics.paused(&web, false);
    metrics.unreadable(&web, 0);
    check(&metrics, &NAMES, &[expect[1], expect[2], expect[6], expect[7]]);
    // Nobody's series.
    let stranger = fleet("stranger");
    metrics.ticked(&stranger, Tick::Open);
    metrics.due(&stranger, Some(at(1)));
    metrics.paused(&stranger, true);
    metrics.remember(&stranger, History { key_created: Some(at(1)), last_success: Some(at(1)) });
    check(&metrics, &NAMES, &[expect[1], expect[2], expect[6], expect[7]]);
}

#[test]
fn a_survey_sets_what_it_found_and_one_that_could_not_see_all_leaves_it() {
    const NAMES: [&str; 3] = ["drift", "drift_last_survey_timestamp_seconds", "drift_surveys_failed_total"];
    let metrics = metrics(&["web"]);
    let web = fleet("web");
    metrics.surveyed(Some(&web), at(5), Some(&["other_key", "other_key", "no_key"]));
    metrics.surveyed(None, at(6), Some(&["unknown_pair"]));
    let expect = [
        ("drift{fleet=\"web\",kind=\"other_key\"}", 2.0),
        ("drift{fleet=\"web\",kind=\"no_key\"}", 1.0),
        ("drift{fleet=\"\",kind=\"unknown_pair\"}", 1.0),
        ("drift_last_survey_timestamp_seconds{fleet=\"web\"}", (START + 5) as f64),
        ("drift_last_survey_timestamp_seconds{fleet=\"\"}", (START + 6) as f64),
    ];
    check(&metrics, &NAMES, &expect);
    metrics.surveyed(Some(&web), at(7), None);
    metrics.surveyed(Some(&fleet("stranger")), at(7), Some(&["no_key"]));
    check(&metrics, &NAMES, &[&expect[..], &[("drift_surveys_failed_total{fleet=\"web\"}", 1.0)]].concat());
    metrics.surveyed(Some(&web), at(8), Some(&[]));
    metrics.surveyed(None, at(8), Some(&[]));
    let expect = [
        ("drift_surveys_failed_total{fleet=\"web\"}", 1.0),
        ("drift_last_survey_timestamp_seconds{fleet=\"web\"}", (START + 8) as f64),
        ("drift_last_survey_timestamp_seconds{fleet=\"\"}", (START + 8) as f64),
    ];
    check(&metrics, &NAMES, &expect);
}

#[test]
fn what_a_survey_had_no_answer_from_shows_until_the_next_one() {
    const NAMES: [&str; 3] = ["drift_unseen", "key_pairs", "key_pairs_max"];
    let (metrics, web) = (metrics(&["web"]), fleet("web"));
    // A name that the engine gives and the table does not know would show nowhere.
    assert_eq!(Blind::ALL.map(Blind::name).as_slice(), UNSEEN_BY_SURVEYS);
    metrics.key_pairs(&"acc".into(), &Region::new("r"), 9, 10);
    metrics.unseen(Some(&web), &["custody", "cloud"]);
    metrics.unseen(None, &["journals"]);
    metrics.unseen(Some(&fleet("stranger")), &["cloud"]);
    let places = [
        ("key_pairs{account=\"acc\",cloud_region=\"r\"}", 9.0),
        ("key_pairs_max{account=\"acc\",cloud_region=\"r\"}", 10.0),
    ];
    let unseen = [
        ("drift_unseen{fleet=\"web\",what=\"custody\"}", 1.0),
        ("drift_unseen{fleet=\"web\",what=\"cloud\"}", 1.0),
        ("drift_unseen{fleet=\"\",what=\"journals\"}", 1.0),
    ];
    check(&metrics, &NAMES, &[&places[..], &unseen[..]].concat());
    metrics.unseen(Some(&web), &["cloud"]);
    metrics.unseen(None, &[]);
    check(&metrics, &NAMES, &[&places[..], &unseen[1..2]].concat());
}

#[test]
fn an_open_rotation_tells_its_batches_its_budgets_and_what_it_waits_for() {
    const NAMES: [&str; 5] = [
        "rotation_begun_timestamp_seconds",
        "rotation_batches",
        "rotation_budget",
        "rotation_budget_spent",
        "rotation_waits",
    ];
    let metrics = metrics(&["web"]);
    let mut plan = rotate("web");
    plan.policy.pace.failures_in_a_row = Some(3);
    let mut instances = planned(&ids("a b c"));
    instances[2].part = Part::Batch(1);
    let turn = |events: &[(i64, Event)], waiting: Option<&str>, now: i64| {
        let rotation = Rotation::fold(journal(1), plan.clone(), &instances, &entries(events)).unwrap();
        metrics.turned(journal(1), View::Rotation { rotation: &rotation, waiting }, at(now));
    };
    let mut events = vec![begun(), stored(2), (3, Event::KeyImported { key_pair: "k".into() })];
    events.push((4, started(Step::Bind(0), Call::Bind, "a b")));
    turn(&events, Some("the account is full"), 4);
    let bears = [
        ("rotation_begun_timestamp_seconds{fleet=\"web\"}", START as f64),
        ("rotation_budget{budget=\"failures\",fleet=\"web\"}", 5.0),
        ("rotation_budget{budget=\"failures_in_a_row\",fleet=\"web\"}", 2.0),
        ("rotation_budget{budget=\"unavailable\",fleet=\"web\"}", 5.0),
    ];
    let check_more = |more: &[(&str, f64)]| check(&metrics, &NAMES, &[&bears[..], more].concat());
    let (done, left) =
        ("rotation_batches{fleet=\"web\",state=\"done\"}", "rotation_batches{fleet=\"web\",state=\"left\"}");
    let waits = |reason: &str| format!("rotation_waits{{fleet=\"web\",reason=\"{reason}\"}}");
    let down = ("rotation_budget_spent{budget=\"unavailable\",fleet=\"web\"}", 2.0);
    check_more(&[(left, 2.0), down, (&waits("account"), 1.0)]);

    // One is up again, the other failed and is seen running: the soak is waited for.
    let excluded = ExcludedInstance { instance: "b".into(), reason: Exclusion::SettleMissed };
    events.push((6, bound("a")));
    events.push((8, Event::Activated { instances: ids("a") }));
    events.push((9, Event::Excluded { instances: vec![excluded] }));
    events.push((9, Event::Running { instances: ids("b") }));
    turn(&events, None, 950);
    let failed = [
        ("rotation_budget_spent{budget=\"failures\",fleet=\"web\"}", 1.0),
        ("rotation_budget_spent{budget=\"failures_in_a_row\",fleet=\"web\"}", 1.0),
    ];
    check_more(&[&[(left, 1.0), (done, 1.0)], &failed[..]].concat());
    let soaked = Rotation::fold(journal(1), plan.clone(), &instances, &entries(&events)).unwrap();
    let soaks = soaked.current_from().unwrap().duration_since(at(0)).as_secs() - 1;
    turn(&events, None, soaks);
    check_more(&[&[(left, 1.0), (done, 1.0), (&waits("soak"), 1.0)], &failed[..]].concat());
    turn(&events, None, soaks + 1);
    check_more(&[&[(left, 1.0), (done, 1.0)], &failed[..]].concat());

    // Who is held waits for a person, whatever else.
    events.push((1000, Event::Held { reason: HoldReason::Canary }));
    turn(&events, Some("the account is full"), 1000);
    check_more(&[&[(left, 1.0), (done, 1.0)], &failed[..]].concat());
    events.push((1001, Event::Ended { outcome: Outcome::Abandoned }));
    turn(&events, None, 1001);
    check(&metrics, &NAMES, &[]);
}

#[test]
fn series_of_removed_fleets_go_once_nothing_of_theirs_is_open() {
    let metrics = metrics(&["web", "db"]);
    let has = |name: &str| series(&metrics).keys().filter(|series| series.contains(&format!("\"{name}\""))).count();
    let full = has("web");
    assert!(full > 30 && has("db") == full);
    let open = [begun(), stored(2)];
    play(&metrics, journal(1), "web", "a", &open);
    play_retirement(&metrics, journal(2), &[begun()], None, 1);

    configure(&metrics, &["db"]);
    assert_eq!((has("web"), has("db")), (full, full), "its rotation is carried to its end");
    let completed = (9, Event::Ended { outcome: Outcome::Completed });
    play(&metrics, journal(1), "web", "a", &[begun(), stored(2), completed]);
    assert_eq!(has("web"), full, "its old key pair is still to be retired");
    play_retirement(&metrics, journal(2), &[begun(), (3, Event::Ended { outcome: Outcome::Retired })], None, 3);
    assert_eq!((has("web"), has("db")), (0, full));
    metrics.unreadable(&fleet("web"), 1);
    assert_eq!(has("web"), full, "a journal that cannot be read is not forgotten");
    metrics.unreadable(&fleet("web"), 0);
    assert_eq!(has("web"), 0);

    assert!(has("tencent-lighthouse") > 0);
    configure(&metrics, &[]);
    assert_eq!((has("db"), has("tencent-lighthouse")), (0, 0));
    // An open rotation that is found at the start makes its fleet known.
    play(&metrics, journal(4), "gone", "a", &open);
    assert_eq!(has("gone"), full);
    assert!(has("tencent-lighthouse") > 0);
}

#[test]
fn the_witness_counts_what_was_sent_and_what_was_throttled() {
    let metrics = metrics(&["web"]);
    let witness = metrics.witness(&"acc".into(), &Region::new("ap-singapore"));
    let heard = Heard {
        provider: ProviderKind::TencentLighthouse,
        action: "StopInstances",
        outcome: Ok(()),
        sent: true,
        took: Duration::from_millis(500),
        clock_difference: Some(SignedDuration::from_secs(-3)),
    };
    witness.heard(&heard);
    witness.heard(&Heard { outcome: Err(Kind::Busy), ..heard });
    witness.heard(&Heard { outcome: Err(Kind::Throttled), clock_difference: None, ..heard });
    witness.heard(&Heard { outcome: Err(Kind::Throttled), sent: false, took: Duration::ZERO, ..heard });
    witness.heard(&Heard { action: "/v2/instance/i-123", ..heard });
    let names = [
        "provider_requests_total",
        "provider_request_duration_seconds_sum",
        "provider_throttled_total",
        "clock_difference_seconds",
    ];
    let expect = [
        ("provider_requests_total{action=\"StopInstances\",outcome=\"ok\",provider=\"tencent-lighthouse\"}", 1.0),
        ("provider_requests_total{action=\"StopInstances\",outcome=\"busy\",provider=\"tencent-lighthouse\"}", 1.0),
        (
            "provider_requests_total{action=\"StopInstances\",outcome=\"throttled\",provider=\"tencent-lighthouse\"}",
            1.0,
        ),
        ("provider_requests_total{action=\"other\",outcome=\"ok\",provider=\"tencent-lighthouse\"}", 1.0),
        ("provider_request_duration_seconds_sum{action=\"StopInstances\",provider=\"tencent-lighthouse\"}", 1.5),
        ("provider_request_duration_seconds_sum{action=\"other\",provider=\"tencent-lighthouse\"}", 0.5),
        ("provider_throttled_total{action=\"StopInstances\",by=\"cloud\",provider=\"tencent-lighthouse\"}", 1.0),
        ("provider_throttled_total{action=\"StopInstances\",by=\"rekeyd\",provider=\"tencent-lighthouse\"}", 1.0),
        ("clock_difference_seconds{account=\"acc\",cloud_region=\"ap-singapore\"}", -3.0),
    ];
    check(&metrics, &names, &expect);
}

#[test]
fn every_metric_has_help_and_its_place_in_the_readme_and_no_label_clashes_with_a_scrapers() {
    let metrics = metrics(&["web"]);
    metrics.key_pairs(&"acc".into(), &Region::new("r"), 1, 2);
    let _witness = metrics.witness(&"acc".into(), &Region::new("r"));
    let families = metrics.registry.gather();
    assert!(families.len() >= 30, "{}", families.len());
    let readme = include_str!("../../README.md");
    for family in families {
        let name = family.name();
        if let Some(name) = name.strip_prefix("rekeyd_") {
            assert!(readme.contains(&format!("`{name}`")), "the README's table lacks {name}");
        }
        assert!(name.starts_with("rekeyd_") || name.starts_with("process_"), "{name}");
        assert!(!family.help().is_empty(), "{name}");
        if name == "rekeyd_drift_unseen" {
            let row = readme.lines().find(|line| line.starts_with("| `drift_unseen`")).unwrap();
            for what in UNSEEN_BY_SURVEYS {
                assert!(family.help().contains(what) && row.contains(what), "{name} does not say what {what} is");
            }
        }
        for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let forbidden = ["region", "zone", "env", "cluster", "type", "service", "instance", "job"];
            assert!(!forbidden.contains(&label.name()), "{name}: {}", label.name());
        }
    }
}

/// What `promtool check metrics` says of a page; nothing if all is well.
fn promtool(page: &str) -> String {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("promtool cannot be run ({error}): tests/run installs it, as does Debian's package `prometheus`")
    });
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", if output.status.success() { "" } else { "failed: " }, String::from_utf8(said).unwrap())
}

#[test]
fn promtool_finds_nothing() {
    let metrics = Metrics::new().unwrap();
    assert_eq!(promtool(&metrics.render().unwrap()), "", "without a fleet");
    let fleets: Vec<_> = ProviderKind::ALL
        .map(|provider| FleetOfConfig { name: FleetName::new(format!("odd \"name\"\n\\{provider}")), provider })
        .to_vec();
    metrics.set_fleets(&fleets);
    let witness = metrics.witness(&"acc".into(), &Region::new("ap-singapore"));
    let heard = Heard {
        provider: ProviderKind::BaiduBcc,
        action: "ListKeypairs",
        outcome: Err(Kind::Throttled),
        sent: true,
        took: Duration::from_millis(5),
        clock_difference: Some(SignedDuration::from_secs(1)),
    };
    witness.heard(&heard);
    let events = [begun(), stored(2), (4, started(Step::Bind(0), Call::Bind, "a")), (5, bound("a"))];
    play(&metrics, journal(1), "web", "a", &events);
    play_retirement(&metrics, journal(2), &[begun()], None, 1);
    assert_eq!(promtool(&metrics.render().unwrap()), "");
    assert!(promtool("# TYPE x counter\nx 1\n").contains("_total"), "promtool finds what is wrong");
}

#[test]
fn two_hundred_fleets_are_shown_and_a_large_one_is_counted_once_a_change() {
    let names: Vec<String> = (0..200).map(|number| format!("fleet-{number}")).collect();
    let metrics = metrics(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let _witness = metrics.witness(&"acc".into(), &Region::new("r"));
    let instances: Vec<InstanceId> = (0..10_000).map(|number| InstanceId::new(format!("i-{number}"))).collect();
    let plan = rotate("fleet-7");
    let rotation = Rotation::fold(journal(1), plan, &planned(&instances), &entries(&[begun()])).unwrap();
    let clock = std::time::Instant::now();
    metrics.turned(journal(1), View::Rotation { rotation: &rotation, waiting: None }, at(0));
    let first = clock.elapsed();
    for _ in 0..1000 {
        metrics.turned(journal(1), View::Rotation { rotation: &rotation, waiting: None }, at(0));
    }
    let unchanged = clock.elapsed() - first;
    let clock = std::time::Instant::now();
    let page = metrics.render().unwrap();
    println!(
        "10,000 instances: first turn {first:?}, 1,000 turns without a change {unchanged:?}; 200 fleets: {} series, {} KiB in {:?}",
        page.lines().filter(|line| !line.starts_with('#')).count(),
        page.len() / 1024,
        clock.elapsed()
    );
    let waiting = "rekeyd_rotation_instances{fleet=\"fleet-7\",phase=\"waiting\"} 10000\n";
    assert!(page.contains(waiting));
}

/// A whole rotation of a simulated fleet, twice, heard by engine and door.
#[tokio::test]
async fn a_simulated_fleet_is_rotated_twice_and_the_numbers_tell() {
    use crate::clock::Clock;
    use crate::engine::planner::{begin, propose};
    use crate::engine::{Engine, Tools, drive::Reached};
    use crate::sim::{Direct, InstanceSpec, VirtualClock, World};
    use crate::ssh::{KeyPool, PooledKeyMaker};

    let clock = Arc::new(VirtualClock::new(at(0)));
    let mut world = World::new(1, at(0));
    let cloud = world.open_cloud(ProviderKind::TencentLighthouse);
    for _ in 0..5 {
        world.add_instance(cloud, InstanceSpec::default());
    }
    let account = world.cloud(cloud).clone();
    let transport = Arc::new(Direct::new(Arc::new(Mutex::new(world)), cloud, clock.clone()));
    let metrics = Arc::new(metrics(&["web"]));
    let settings = provider::Settings {
        provider: ProviderKind::TencentLighthouse,
        endpoint: Some("http://127.0.0.1:1".to_string()),
        region: Region::new(account.region.clone()),
        credentials: provider::Credentials {
            access_key_id: account.access_key_id,
            access_key_secret: account.access_key_secret.into(),
            session_token: None,
        }
        .into(),
        rates: BTreeMap::new(),
        api: Default::default(),
    };
    let witness = metrics.witness(&"acc".into(), &settings.region);
    let opened = provider::open_heard(&settings, transport, clock.clone(), 1, witness).unwrap();
    let place = Place { endpoint: settings.endpoint.clone(), region: settings.region.clone(), ..place() };
    let mut engine = Engine::new(Tools {
        journal: Arc::new(crate::store::Memory::new()),
        custody: Arc::new(crate::custody::Memory::new()),
        providers: Box::new(move |_| Ok(opened.clone())),
        keys: Arc::new(PooledKeyMaker::new(KeyPool::new(2))),
        probe: Arc::new(crate::ssh::Memory::new()),
        clock: clock.clone(),
        chance: Mutex::new(rand::rngs::StdRng::seed_from_u64(1)),
        mark: Mark::try_from("sim".to_string()).unwrap(),
        author: Author::Engine("run".to_string()),
        observers: vec![metrics.clone(), Arc::new(crate::telemetry::Log)],
        surroundings: Default::default(),
    });
    let web = crate::engine::planner::Fleet {
        name: fleet("web"),
        place,
        select: provider::Select::All,
        key_bits: 2048,
        rollout: crate::rotation::Rollout {
            canary: Amount::Count(1),
            batch_max: Some(2),
            unavailable_max: Amount::Count(2),
            failures_max: Amount::Count(0),
            growth: 4,
            failures_in_a_row: 3,
            soak: Duration::from_secs(30),
        },
        force_stop: false,
        allow: Default::default(),
        grace: Duration::from_secs(120),
        verify: Default::default(),
        windows: Default::default(),
        deliver: Vec::new(),
        hooks: Default::default(),
    };
    for _ in 0..2 {
        let proposal = propose(engine.tools(), &web, &[]).await.unwrap();
        let id = begin(engine.tools(), &proposal).await.unwrap().id;
        assert_eq!(engine.drive(id).await.unwrap(), Reached::Ended(Outcome::Completed));
    }
    engine.drive_retirements(&web.name, Duration::from_secs(600)).await.unwrap();
    let expect = [
        ("rotations_total{fleet=\"web\",outcome=\"completed\"}", 2.0),
        ("retire_journals_ended_total{fleet=\"web\",outcome=\"kept\"}", 1.0),
    ];
    check(&metrics, &["rotations_total", "retire_journals_ended_total"], &expect);
    check(&metrics, &["rotation_open", "rotation_instances", "starts_owed", "retire_journals"], &[]);
    let all = series(&metrics);
    let value = |name: &str| *all.get(name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(value("batch_size_sum{provider=\"tencent-lighthouse\"}"), 10.0, "five machines twice");
    for step in ["store_key", "import_key", "bind", "activate", "retire_key_pair"] {
        assert!(value(&format!("step_duration_seconds_count{{step=\"{step}\"}}")) > 0.0, "{step}");
    }
    let success = value("fleet_last_success_timestamp_seconds{fleet=\"web\"}");
    let created = value("fleet_key_created_timestamp_seconds{fleet=\"web\"}");
    assert!((START as f64) < created && created < success, "{created} {success}");
    assert!(success < clock.now().as_second() as f64);
    let sum =
        |prefix: &str| all.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum::<f64>();
    assert_eq!(sum("provider_requests_total"), sum("provider_request_duration_seconds_count"));
    let binds =
        "provider_requests_total{action=\"AssociateInstancesKeyPairs\",outcome=\"ok\",provider=\"tencent-lighthouse\"}";
    assert!(value(binds) >= 6.0);
    assert_eq!(promtool(&metrics.render().unwrap()), "");
}
