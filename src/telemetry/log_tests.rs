//! Tests of the log: what is written is caught and read again.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::look::dispatch;
use super::*;
use crate::model::Timestamp;
use crate::model::error::{Blame, Effect, Error, Kind};
use crate::rotation::{Call, ExcludedInstance, Found, Outcome, Place, RetirePlan};

/// What was written.
#[derive(Clone, Default)]
struct Caught(Arc<Mutex<Vec<u8>>>);

impl io::Write for Caught {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
fn plan() -> Plan {
    Plan::Retire(RetirePlan {
        fleet: "web".into(),
        place: Place {
            account: "acc".into(),
            provider: crate::model::ProviderKind::TencentCvm,
            endpoint: None,
            region: crate::model::Region::new("r"),
        },
        key_name: crate::model::KeyPairName::new("rka_1"),
        rotation: JournalId::derive(at("2026-11-22T00:00:00Z"), [1; 10]),
        soak: Default::default(),
        grace: Default::default(),
        proven: false,
    })
}
fn ids(count: usize) -> Vec<InstanceId> {
    (1..=count).map(|number| InstanceId::new(format!("ins-{number}"))).collect()
}
fn error(message: &str) -> Error {
    Error {
        kind: Kind::Denied,
        effect: Effect::NotDone,
        blame: Blame::Account,
        action: "StartInstances".to_string(),
        code: "Denied".to_string(),
        message: message.to_string(),
        request_id: Some("req-1".to_string()),
        retry_after: None,
    }
}
fn failed(count: usize, message: &str) -> Event {
    let (step, retry_at) = (Step::Bind(2), at("2026-11-22T00:01:00Z"));
    Event::Failed { step, instances: ids(count), error: error(message), retry_at }
}
fn operators() -> Author {
    Author::Operator("ann".to_string())
}

/// What is logged while `act` runs.
fn caught(format: Format, filter: &str, act: impl FnOnce()) -> String {
    let caught = Caught::default();
    let writer = caught.clone();
    let look = Look { format, ..Look::default() };
    let dispatch = dispatch(look, filter, move || writer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, act);
    let bytes = caught.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}
fn line(format: Format, by: Author, event: Event) -> String {
    let entry = Entry { seq: 2, at: at("2026-11-22T00:00:00Z"), by, event };
    let id = JournalId::derive(at("2026-11-22T00:00:00Z"), [7; 10]);
    let text = caught(format, "info", || Log.recorded(id, &plan(), &entry));
    assert_eq!(text.matches('\n').count(), 1, "one line: {text:?}");
    assert!(text.ends_with('\n'));
    text
}

#[test]
fn an_entry_is_one_json_object_with_its_fields_at_the_top() {
    let check = |by: Author, event: Event, expect: Value| {
        let mut seen: Value = serde_json::from_str(&line(Format::Json, by, event)).unwrap();
        let seen = seen.as_object_mut().unwrap();
        let time = seen.remove("timestamp").unwrap();
        let time = time.as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(seen.remove("target"), Some(json!("rekeyd::journal")));
        assert_eq!(seen.remove("fleet"), Some(json!("web")));
        assert_eq!(
            seen.remove("rotation"),
            Some(json!(JournalId::derive(at("2026-11-22T00:00:00Z"), [7; 10]).to_string()))
        );
        assert_eq!(Value::Object(seen.clone()), expect);
    };
    let engine = || Author::Engine("e".to_string());
    let found = |instance| Found { instance, power: crate::model::Power::Running, keys: Vec::new(), boot: None };
    check(
        engine(),
        Event::Started { step: Step::Bind(2), call: Call::Bind, found: ids(2).into_iter().map(found).collect() },
        json!({
            "level": "INFO", "message": "started: bind batch 2, bind of 2 instances", "instance": "ins-1,ins-2",
            "step": "bind", "action": "bind",
        }),
    );
    check(
        engine(),
        Event::Accepted { step: Step::Bind(2), instances: ids(1), request_id: Some("req-7".to_string()) },
        json!({
            "level": "INFO", "message": "accepted: bind batch 2, call of 1 instance", "instance": "ins-1",
            "step": "bind", "request_id": "req-7",
        }),
    );
    check(
        engine(),
        failed(1, "no right"),
        json!({
            "level": "WARN", "instance": "ins-1", "step": "bind", "action": "StartInstances", "request_id": "req-1",
            "message": "failed: bind batch 2 of 1 instance: StartInstances: Denied: no right (request req-1); \
                        not again before 2026-11-22T00:01:00Z",
        }),
    );
    check(
        engine(),
        Event::Excluded {
            instances: ids(5)
                .into_iter()
                .map(|instance| ExcludedInstance { instance, reason: Exclusion::StopMissed })
                .collect(),
        },
        json!({
            "level": "WARN", "instance": "ins-1,ins-2,ins-3,ins-4,ins-5",
            "message": "excluded: ins-1: not seen stopped in time,ins-2: not seen stopped in time,\
                        ins-3: not seen stopped in time and 2 more",
        }),
    );
    check(
        engine(),
        Event::Held { reason: HoldReason::Step { step: Step::ImportKey, error: error("no") } },
        json!({
            "level": "ERROR", "step": "import_key", "action": "StartInstances", "request_id": "req-1",
            "message": "held: import_key cannot go on: StartInstances: Denied: no (request req-1); put right what the \
                        error says; `rekeyd release 01a2008d-7400-7707-8707-070707070707` tries again",
        }),
    );
    check(
        operators(),
        Event::Held { reason: HoldReason::Operator { note: "wait".to_string() } },
        json!({ "level": "ERROR", "message": "held by operator ann: held by an operator: wait" }),
    );
    check(
        operators(),
        Event::Released { note: "go".to_string(), allow: Some(Allow::LeaveOff("ins-1".into())) },
        json!({
            "level": "INFO", "instance": "ins-1",
            "message": "released by operator ann, ins-1 may stay switched off: go",
        }),
    );
    check(engine(), Event::KeyPairDeleted, json!({ "level": "INFO", "message": "key_pair_deleted: rka_1" }));
    check(
        engine(),
        Event::Ended { outcome: Outcome::Retired },
        json!({ "level": "INFO", "message": "ended: retired" }),
    );
}

#[test]
fn many_instances_are_named_to_twenty() {
    let check = |count: usize, expect: &str| {
        let seen: Value = serde_json::from_str(&line(Format::Json, operators(), failed(count, ""))).unwrap();
        let instance = seen.get("instance").and_then(Value::as_str);
        assert_eq!(instance.unwrap_or("none").replace("ins-", ""), expect);
    };
    check(0, "none");
    check(1, "1");
    check(20, "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20");
    check(1000, "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20 and 980 more");
}

#[test]
fn text_is_the_time_the_level_the_words_and_the_fields() {
    let text = line(Format::Text, operators(), failed(2, "no right"));
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
    let id = JournalId::derive(at("2026-11-22T00:00:00Z"), [7; 10]);
    let expect = format!(
        " WARN rekeyd::journal: failed: bind batch 2 of 2 instances: StartInstances: Denied: no right (request req-1); \
         not again before 2026-11-22T00:01:00Z fleet=\"web\" rotation={id} instance=\"ins-1,ins-2\" step=\"bind\" \
         action=\"StartInstances\" request_id=\"req-1\"\n"
    );
    assert_eq!(rest, expect);
}

#[test]
fn nothing_that_a_cloud_says_begins_a_line_or_moves_a_cursor() {
    let evil = "a\nb\r\u{1b}[2J\u{9b}1m\u{7}\tend";
    for format in [Format::Human, Format::Text, Format::Json] {
        let mut event = failed(1, evil);
        if let Event::Failed { instances, error, .. } = &mut event {
            instances[0] = InstanceId::new(evil);
            (error.action, error.request_id) = (evil.to_string(), Some(evil.to_string()));
        }
        // `line` asks that it is one.
        let text = line(format, operators(), event);
        let told = text.trim_end_matches('\n');
        assert!(told.contains("end"), "{told}");
        let json = format == Format::Json;
        // JSON leaves what stands above ASCII as it is; what it is read with gets it back whole.
        assert!(!told.chars().any(|c| c.is_control() && !(json && c > '\u{7f}')), "{told:?}");
        // Other rooms' lines too.
        let other = caught(format, "info", || tracing::warn!(host = %evil, port = evil, "said {evil}"));
        assert_eq!(other.matches('\n').count(), 1, "{other:?}");
        assert!(!other.contains(['\u{1b}', '\r']), "{other:?}");
    }
}

#[test]
fn the_filter_is_obeyed_and_a_bad_one_refused() {
    let entry = |event| Entry { seq: 2, at: at("2026-11-22T00:00:00Z"), by: operators(), event };
    let check = |filter: &str, lines: usize| {
        let text = caught(Format::Text, filter, || {
            let id = JournalId::derive(at("2026-11-22T00:00:00Z"), [7; 10]);
            for event in [Event::KeyPairDeleted, failed(1, ""), Event::Held { reason: HoldReason::Canary }] {
                Log.recorded(id, &plan(), &entry(event));
            }
        });
        assert_eq!(text.lines().count(), lines, "{filter}: {text}");
    };
    check("info", 3);
    check("warn", 2);
    check("error", 1);
    check("warn,rekeyd::journal=info", 3);
    check("off", 0);
    let bad = init(Look::default(), "rekeyd=loud", std::io::stderr).unwrap_err();
    assert!(bad.to_string().contains("\"rekeyd=loud\""), "{bad}");
}

#[test]
fn text_has_colours_only_where_they_are_wanted() {
    for ansi in [false, true] {
        let caught = Caught::default();
        let writer = caught.clone();
        let look = Look { ansi, ..Look::default() };
        let dispatch = dispatch(look, "info", move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || tracing::info!("hello"));
        assert_eq!(caught.0.lock().unwrap().contains(&0x1b), ansi);
    }
}

#[test]
fn the_journal_gets_priorities_and_neither_times_nor_colours() {
    let check = |format: Format, act: &dyn Fn(), expect: &str| {
        let caught = Caught::default();
        let writer = caught.clone();
        let look = Look { format, ansi: true, journal: true };
        let dispatch = dispatch(look, "trace", move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, act);
        let text = String::from_utf8(caught.0.lock().unwrap().clone()).unwrap();
        match format {
            Format::Json => {
                let (priority, rest) = text.split_once('>').unwrap();
                let line: Value = serde_json::from_str(rest).unwrap();
                assert_eq!(format!("{priority}> {}", line["message"].as_str().unwrap()), expect);
            }
            _ => assert_eq!(text, expect),
        }
    };
    let target = "rekeyd::telemetry::log::tests";
    check(Format::Text, &|| tracing::error!(fleet = "web", "a"), &format!("<3>{target}: a fleet=\"web\"\n"));
    check(Format::Text, &|| tracing::warn!("a\nb"), &format!("<4>{target}: a\\nb\n"));
    check(Format::Text, &|| tracing::info!("a"), &format!("<6>{target}: a\n"));
    check(Format::Text, &|| tracing::debug!("a"), &format!("<7>{target}: a\n"));
    check(Format::Json, &|| tracing::warn!("a\nb"), "<4> a\nb");
}

#[test]
fn people_get_the_time_of_day_the_level_the_words_and_the_fields() {
    let text = line(Format::Human, operators(), Event::KeyPairDeleted);
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.len() == 9 && time.ends_with('Z'), "{time}");
    let id = JournalId::derive(at("2026-11-22T00:00:00Z"), [7; 10]);
    assert_eq!(rest, format!(" INFO key_pair_deleted: rka_1 fleet=\"web\" rotation={id}\n"));
}
