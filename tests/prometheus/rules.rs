//! The alerting rules: Prometheus' checker takes them, each fires and keeps silent where it should, each has a section in
//! the runbook, with a command to give.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::stage::said;
use crate::{path, read};

const RULES: &str = "dashboards/alerts.yaml";
const CASES: [&str; 3] = [
    "tests/prometheus/alerts_test.yaml",
    "tests/prometheus/alerts_days_test.yaml",
    "tests/prometheus/alerts_seconds_test.yaml",
];
const RUNBOOK: &str = "dashboards/runbook.md";

/// All alerts, as the file has them.
pub fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

pub fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

/// What `promtool` says, and whether it is content.
fn promtool(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.expect("promtool (of Debian's package prometheus; tests/run installs it)");
    let said = said(output);
    (said.code == 0, format!("{}{}", said.out, said.err))
}

#[test]
fn prometheus_takes_the_rules_and_the_scrape_configuration() {
    let (good, words) = promtool(&["check", "rules", path(RULES).to_str().unwrap()]);
    assert!(good && words.contains(&format!("{} rules found", alerts().len())), "{words}");
    let config = path("dashboards/provisioning/prometheus.yaml");
    let (good, words) = promtool(&["check", "config", "--syntax-only", config.to_str().unwrap()]);
    assert!(good, "{words}");
}

#[test]
fn each_alert_fires_and_keeps_silent_in_its_cases() {
    for cases in CASES {
        let (good, words) = promtool(&["test", "rules", path(cases).to_str().unwrap()]);
        assert!(good && words.contains("SUCCESS"), "{words}");
    }
}

#[test]
fn no_alert_lacks_a_firing_or_a_silent_case() {
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for file in CASES {
        let cases: Value = serde_yaml::from_str(&read(file)).unwrap();
        let checks = cases["tests"].as_array().unwrap().iter().map(|case| &case["promql_expr_test"]);
        for check in checks.flat_map(|checks| checks.as_array().unwrap()) {
            let expr = check["expr"].as_str().unwrap();
            // Some ask an expression itself.
            let Some(alert) = expr.split("alertname=\"").nth(1) else { continue };
            let alert = alert.split('"').next().unwrap().to_string();
            match check["exp_samples"].as_array().unwrap().is_empty() {
                true => silent.insert(alert),
                false => firing.insert(alert),
            };
        }
    }
    let alerts = alerts();
    let names: BTreeSet<String> = alerts.iter().map(|alert| name(alert).to_string()).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts have one name");
    assert_eq!((&firing, &silent), (&names, &names));
}

/// The sections of the runbook, by heading.
fn sections() -> BTreeMap<String, String> {
    let runbook = read(RUNBOOK);
    let sections = runbook.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    sections.map(|(heading, text)| (heading.trim().to_string(), text.to_string())).collect()
}

#[test]
fn each_alert_has_its_words_and_a_section_of_the_runbook_with_a_command() {
    let sections = sections();
    let alerts = alerts();
    for alert in &alerts {
        let name = name(alert);
        let annotation = |of: &str| alert["annotations"][of].as_str().unwrap_or_else(|| panic!("{name} has no {of}"));
        assert!(name.starts_with("Rekeyd"), "{name}");
        assert!(["critical", "warning", "none"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(!annotation("summary").is_empty() && !annotation("description").is_empty(), "{name}");
        assert_eq!(annotation("runbook_url"), format!("runbook.md#{}", name.to_lowercase()));
        let section = sections.get(name).unwrap_or_else(|| panic!("the runbook has no section {name}"));
        for part in ["**Means.**", "**Look.**", "**Do.**"] {
            assert!(section.contains(part), "the runbook's section {name} lacks {part}");
        }
        assert!(section.contains("`rekeyd ") || section.contains("`systemctl "), "{name}: no command to give");
    }
    let names: BTreeSet<&str> = alerts.iter().map(name).collect();
    for heading in sections.keys().filter(|heading| heading.starts_with("Rekeyd")) {
        assert!(names.contains(heading.as_str()), "the runbook has a section {heading}, and there is no such alert");
    }
}

#[test]
fn a_stalled_loop_is_told_before_the_watchdog_of_the_unit_ends_it() {
    let unit = read("systemd/rekeyd.service");
    let watchdog = unit.lines().find_map(|line| line.strip_prefix("WatchdogSec=")?.strip_suffix('s')).unwrap();
    let watchdog: u64 = watchdog.parse().unwrap();
    let alerts = alerts();
    let stalled = alerts.iter().find(|alert| name(alert) == "RekeydLoopStalled").unwrap();
    let after = stalled["expr"].as_str().unwrap().split(") > ").nth(1).unwrap().split_whitespace().next().unwrap();
    let held: u64 = stalled["for"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
    // Debian's Prometheus looks every fifteen seconds: the look that sees it, and the first one after `for`.
    const LOOKS: u64 = 15;
    let told = after.parse::<u64>().unwrap() + LOOKS + held.div_ceil(LOOKS) * LOOKS;
    assert!(told < watchdog, "told within {told} s, and killed after {watchdog} s");
}

/// What the runbook has people look for in the log, by the section.
pub fn searches() -> Vec<(String, String)> {
    let of = |text: &str| -> Vec<String> {
        text.split("journalctl -u rekeyd -g '")
            .skip(1)
            .map(|rest| rest.split('\'').next().unwrap().to_string())
            .collect()
    };
    sections().iter().flat_map(|(name, text)| of(text).into_iter().map(|words| (name.clone(), words))).collect()
}

#[test]
fn what_the_runbook_looks_for_in_the_log_is_what_the_program_writes_there() {
    let (mut texts, mut folders) = (String::new(), vec![path("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => texts += &std::fs::read_to_string(entry).unwrap(),
            }
        }
    }
    let searches = searches();
    assert!(searches.len() > 2, "{searches:?}");
    for (section, words) in searches {
        // A text in quotes of the sources, and no pattern that journalctl would read as another one.
        assert!(words.chars().all(|c| c.is_alphanumeric() || " ,'".contains(c)), "{section}: {words}");
        assert!(texts.contains(&words), "{section}: nothing in src writes {words:?}");
    }
}

#[test]
fn the_runbook_names_verbs_that_exist() {
    let verbs = [
        "abandon", "adopt", "catch-up", "check", "drift", "history", "hold", "plan", "release", "rollback", "rotate",
        "run", "show", "status", "trust",
    ];
    let help = said(Command::new(env!("CARGO_BIN_EXE_rekeyd")).arg("--help").output().unwrap()).out;
    for verb in verbs {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} is no verb: {help}");
    }
    let runbook = read(RUNBOOK);
    let mut named = 0;
    for command in runbook.split("`rekeyd ").skip(1) {
        let verb = command.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
        assert!(verbs.contains(&verb), "the runbook gives `rekeyd {verb}`");
        named += 1;
    }
    assert!(named > 20, "{named}");
}
