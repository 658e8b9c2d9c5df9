//! The dashboards: what Grafana would trip over, and what an operator would. That its own model knows all of them is seen
//! by `tests/sdk/test_grafana.py`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{metrics_of, read};

pub const DASHBOARDS: [&str; 2] = ["fleet-overview", "rotation-in-flight"];

pub fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("dashboards/{name}.json"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The panels that are no rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

pub fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap()
}

/// A panel's queries.
pub fn queries(panel: &Value) -> Vec<&str> {
    panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()).collect()
}

fn variables(dashboard: &Value) -> Vec<&Value> {
    dashboard["templating"]["list"].as_array().unwrap().iter().collect()
}

/// Runs the same for each dashboard.
fn each(check: impl Fn(&str, &Value)) {
    DASHBOARDS.iter().for_each(|name| check(name, &dashboard(name)));
}

#[test]
fn each_dashboard_has_an_identity_of_its_own_and_the_other_ones_link() {
    let mut identities = BTreeSet::new();
    each(|name, dashboard| {
        assert_eq!(dashboard["uid"], format!("rekeyd-{name}"));
        assert!(dashboard["uid"].as_str().unwrap().len() <= 40, "Grafana takes no longer uid");
        assert!(dashboard["id"].is_null(), "{name}: an id belongs to one Grafana");
        assert!((36..=41).contains(&dashboard["schemaVersion"].as_u64().unwrap()), "{name}");
        assert_eq!(dashboard["tags"], serde_json::json!(["rekeyd"]), "{name}");
        assert_eq!(dashboard["links"][0]["tags"], dashboard["tags"], "{name}: it links to those of its tag");
        assert!(dashboard["title"].as_str().unwrap().starts_with("rekeyd: "), "{name}");
    });
    for name in DASHBOARDS {
        assert!(identities.insert(dashboard(name)["title"].as_str().unwrap().to_string()));
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    each(|name, dashboard| {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = title(panel);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: its id is another's");
            let at = |of: &str| panel["gridPos"][of].as_u64().unwrap();
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {title}: {x} + {w} is beyond the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {title} lies over another panel at {cell:?}");
            }
        }
        let bottom = taken.iter().map(|(_, y)| y + 1).max().unwrap();
        let lines: BTreeSet<u64> = taken.iter().map(|(_, y)| *y).collect();
        assert_eq!(lines.len() as u64, bottom, "{name}: lines without a panel");
    });
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_prometheus() {
    let types = ["stat", "table", "timeseries", "state-timeline", "bargauge"];
    each(|name, dashboard| {
        let panels = panels(dashboard);
        assert!(panels.len() >= 12, "{name}");
        for panel in panels {
            let title = title(panel);
            let kind = panel["type"].as_str().unwrap();
            assert!(types.contains(&kind), "{name}: {title}: {kind}");
            assert!(!title.is_empty() && panel["description"].as_str().unwrap().len() > 8, "{name}: {title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}: {title} asks nothing");
            let mut letters = BTreeSet::new();
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {title}");
                assert_eq!(target["datasource"]["type"], "prometheus", "{name}: {title}");
                assert!(!target["expr"].as_str().unwrap().trim().is_empty(), "{name}: {title}");
                assert!(letters.insert(target["refId"].as_str().unwrap()), "{name}: {title}: one letter for two");
                assert_ne!(target["instant"], target["range"], "{name}: {title}: either at once or over a time");
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            if ["timeseries", "bargauge"].contains(&kind) {
                assert!(defaults["unit"].is_string(), "{name}: {title} has no unit");
            }
            // A state is shown in words, each with its colour.
            if kind == "state-timeline" {
                assert!(!defaults["mappings"][0]["options"].as_object().unwrap().is_empty(), "{name}: {title}");
            }
            if defaults["color"]["mode"] == "thresholds" {
                let steps = defaults["thresholds"]["steps"].as_array().unwrap();
                assert!(steps.len() > 1 && steps[0]["value"].is_null(), "{name}: {title}: thresholds begin at none");
            }
        }
    });
}

#[test]
fn variables_are_declared_and_used_and_all_of_them_may_be_chosen() {
    each(|name, dashboard| {
        let text = serde_json::to_string(&dashboard["panels"]).unwrap();
        let declared: BTreeSet<&str> =
            variables(dashboard).iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        for variable in variables(dashboard) {
            let of = variable["name"].as_str().unwrap();
            assert!(
                text.contains(&format!("${of}")) || text.contains(&format!("${{{of}}}")),
                "{name}: ${of} is unused"
            );
            match variable["type"].as_str().unwrap() {
                "datasource" => assert_eq!(variable["query"], "prometheus", "{name}"),
                "query" => {
                    assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}: ${of}");
                    assert!(variable["query"]["query"].as_str().unwrap().starts_with("label_values(rekeyd_"), "{name}");
                    assert!(variable["includeAll"] == true && variable["allValue"] == ".*", "{name}: ${of}");
                    assert_eq!(variable["multi"], true, "{name}: ${of}");
                }
                other => panic!("{name}: ${of}: {other}"),
            }
        }
        let grafanas = ["__rate_interval", "__range"];
        for used in text.split('$').skip(1) {
            let used = used.trim_start_matches('{');
            let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(declared.contains(used) || grafanas.contains(&used), "{name}: ${used} is declared nowhere");
        }
    });
}

#[test]
fn each_query_is_of_the_chosen_fleets_and_none_of_single_machines_or_targets() {
    each(|name, dashboard| {
        let declared: Vec<&str> =
            variables(dashboard).iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        for panel in panels(dashboard) {
            for query in queries(panel) {
                let of_rules = query.contains("ALERTS{");
                assert!(of_rules || !metrics_of(query).is_empty(), "{name}: {}: {query}", title(panel));
                // A series of rekeyd's is chosen by the installation at least.
                for selector in query.split("rekeyd_").skip(1) {
                    let braces = selector.split_once('{').map(|(_, rest)| rest.split('}').next().unwrap());
                    assert!(braces.is_some_and(|inside| inside.contains("job=~\"$job\"")), "{name}: {query}");
                }
                let by_fleet = query.contains("by (job, fleet") || query.contains("by (fleet");
                assert!(!by_fleet || query.contains("fleet=~\"$fleet"), "{name}: {query}: all fleets");
                assert!(!query.contains("instance=") && !query.contains("instance_id"), "{name}: {query}");
            }
            for target in panel["targets"].as_array().unwrap() {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                assert!(!legend.contains("instance"), "{name}: {legend}");
            }
        }
        assert!(declared.contains(&"fleet") && declared.contains(&"job"), "{name}");
    });
}

#[test]
fn provisioning_files_name_what_is_there() {
    let sources: Value = serde_yaml::from_str(&read("dashboards/provisioning/datasources/prometheus.yaml")).unwrap();
    assert_eq!((&sources["apiVersion"], &sources["datasources"][0]["type"]), (&1.into(), &"prometheus".into()));
    let boards: Value = serde_yaml::from_str(&read("dashboards/provisioning/dashboards/rekeyd.yaml")).unwrap();
    assert_eq!((&boards["apiVersion"], &boards["providers"][0]["type"]), (&1.into(), &"file".into()));
    let folder = boards["providers"][0]["options"]["path"].as_str().unwrap();
    let readme = read("README.md");
    for (what, words) in [("the dashboards' folder", folder), ("the rules", "/etc/prometheus/rules/rekeyd.yaml")] {
        assert!(readme.contains(words), "the README does not say where {what} go: {words}");
    }
    let scrape = read("dashboards/provisioning/prometheus.yaml");
    assert!(scrape.contains("/etc/prometheus/rules/rekeyd.yaml") && scrape.contains("job_name: rekeyd"), "{scrape}");
}
