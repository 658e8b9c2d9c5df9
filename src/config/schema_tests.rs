//! `config/rekeyd.schema.json`, by which editors complete and check, held against the reader itself: at every place that the
//! reader opens, the schema has the keys that the reader knows, and no others anywhere.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::fields::asked;
use super::*;
use crate::model::Duration;
use crate::provider::Hazard;

const REFERENCE: &str = include_str!("../../config/rekeyd.yaml");

fn schema() -> Value {
    serde_json::from_str(include_str!("../../config/rekeyd.schema.json")).unwrap()
}

fn cloud(_: ProviderKind) -> Cloud {
    Cloud { bind_max: 100, batch_time: Duration::from_secs(60), key_pairs_max: None, endangers: true, actions: &[] }
}

/// The schemas that one schema is made of, each with where it stands.
fn parts<'a>(root: &'a Value, (at, one): (String, &'a Value)) -> Vec<(String, &'a Value)> {
    let mut all = vec![(at.clone(), one)];
    if let Some(to) = one["$ref"].as_str() {
        let to = to.strip_prefix('#').unwrap();
        all.extend(parts(root, (to.to_string(), root.pointer(to).unwrap())));
    }
    for many in ["allOf", "anyOf", "oneOf"] {
        for (number, part) in one[many].as_array().into_iter().flatten().enumerate() {
            all.extend(parts(root, (format!("{at}/{many}/{number}"), part)));
        }
    }
    all
}

/// The schemas of a place: `fleets.web.windows[0]`.
fn of_place<'a>(root: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut here = parts(root, (String::new(), root));
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (key, is_item) = step.split_once('[').map_or((step, false), |(key, _)| (key, true));
        let mut steps = vec![vec![format!("properties/{key}"), "additionalProperties".to_string()]];
        steps.extend(is_item.then(|| vec!["items".to_string()]));
        for ways in steps {
            let under = |(at, one): &(String, &'a Value)| {
                let found = ways.iter().find_map(|way| Some((format!("{at}/{way}"), one.pointer(&format!("/{way}"))?)));
                found.filter(|(_, one)| one.is_object())
            };
            here = here.iter().filter_map(under).flat_map(|found| parts(root, found)).collect();
        }
    }
    here
}

fn keys(one: &Value) -> BTreeSet<String> {
    one["properties"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
}

/// Where in the schema mappings have keys of their own.
fn mappings(at: &str, one: &Value, found: &mut BTreeSet<String>) {
    if one["properties"].is_object() && one["type"] == "object" {
        found.insert(at.to_string());
    }
    match one {
        Value::Object(all) => all.iter().for_each(|(key, one)| mappings(&format!("{at}/{key}"), one, found)),
        Value::Array(all) => all.iter().enumerate().for_each(|(key, one)| mappings(&format!("{at}/{key}"), one, found)),
        _ => {}
    }
}

/// The reference with another custody.
fn kept_by(custody: &str) -> String {
    let (before, rest) = REFERENCE.split_once("\ncustody:\n").unwrap();
    let (_, after) = rest.split_once("\naccounts:\n").unwrap();
    format!("{before}\ncustody: {custody}\naccounts:\n{after}")
}

const VAULT: &str = "{ vault: { address: 'https://v:8200', mount: secret, path: rekeyd, token: { env: T } } }";
const EXEC: &str = "{ exec: { command: [/bin/keep], timeout: 30s } }";

#[test]
fn the_schema_has_every_key_that_the_reader_knows_and_no_other() {
    let schema = schema();
    let mut texts = vec![REFERENCE.to_string(), kept_by(VAULT), kept_by(EXEC)];
    // All of a fleet's groups, as defaults.
    texts.push(REFERENCE.replacen("\ndefaults:\n", "\ndefaults:\n  power: {}\n  retire: { grace: 7d }\n", 1));
    texts.push(REFERENCE.replacen("key_file: /etc/rekeyd/bastion.key", "key_file: { credential: bastion-key }", 1));
    for text in &texts {
        load(text, Path::new("rekeyd.yaml"), &cloud).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    let mut visited = BTreeSet::new();
    let known = asked::known();
    for (path, known) in &known {
        let here: Vec<_> =
            of_place(&schema, path).into_iter().filter(|(_, one)| one["properties"].is_object()).collect();
        let have: BTreeSet<String> = here.iter().flat_map(|(_, one)| keys(one)).collect();
        assert_eq!(&have, known, "{path:?}");
        for (at, one) in here {
            assert_eq!(one["additionalProperties"], false, "{at}");
            visited.insert(at);
        }
    }
    let mut all = BTreeSet::new();
    mappings("", &schema, &mut all);
    assert_eq!(visited, all, "the reader opened only {:?}", known.keys());
    let words = |at: &str| schema.pointer(at).unwrap()["enum"].clone();
    let providers = words("/properties/accounts/additionalProperties/properties/provider");
    assert_eq!(providers, serde_json::json!(ProviderKind::ALL.map(ProviderKind::as_str)));
    let hazards = words("/definitions/fleet/properties/power/properties/allow/items");
    assert_eq!(hazards, serde_json::json!(Hazard::ALL.map(Hazard::name)));
}

/// What of JSON Schema the file uses, and no more: a keyword that is not known here is a mistake.
fn refuses(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("type {other}"),
    };
    let number = |limit: &Value| value.as_f64().zip(limit.as_f64());
    let fits = |one: &&Value| refuses(root, one, value).is_none();
    for (keyword, rule) in schema.as_object().unwrap() {
        let many = || rule.as_array().unwrap();
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "definitions" => true,
            "$ref" => fits(&root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap()),
            "allOf" => many().iter().all(|one| fits(&one)),
            "anyOf" => many().iter().any(|one| fits(&one)),
            "oneOf" => many().iter().filter(fits).count() == 1,
            "not" => !fits(&rule),
            "type" => rule.as_array().map_or_else(|| is(rule), |kinds| kinds.iter().any(is)),
            "enum" => many().contains(value),
            "const" => rule == value,
            "minimum" => number(rule).is_none_or(|(value, limit)| value >= limit),
            "maximum" => number(rule).is_none_or(|(value, limit)| value <= limit),
            "minItems" => value.as_array().is_none_or(|all| all.len() as u64 >= rule.as_u64().unwrap()),
            "minProperties" => value.as_object().is_none_or(|all| all.len() as u64 >= rule.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|all| all.len() as u64 <= rule.as_u64().unwrap()),
            "required" => {
                value.as_object().is_none_or(|all| many().iter().all(|key| all.contains_key(key.as_str().unwrap())))
            }
            "properties" | "additionalProperties" | "items" => true,
            other => panic!("keyword {other}"),
        };
        if !good {
            return Some(format!("{keyword} {rule}: {value}"));
        }
    }
    for one in value.as_array().filter(|_| schema["items"].is_object()).into_iter().flatten() {
        if let Some(why) = refuses(root, &schema["items"], one) {
            return Some(why);
        }
    }
    for (key, one) in value.as_object().into_iter().flatten() {
        let why = match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some("no such key".to_string()),
            (Value::Null, rest @ Value::Object(_)) => refuses(root, rest, one),
            (Value::Null, _) => None,
            (rule, _) => refuses(root, rule, one),
        };
        if let Some(why) = why {
            return Some(format!("{key}: {why}"));
        }
    }
    None
}

#[test]
fn every_example_fits_the_schema_and_what_the_reader_refuses_by_its_shape_does_not() {
    let schema = schema();
    let read = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(refuses(&schema, &schema, &read(&text)), None, "{}", path.display());
        }
    }
    let (before, rest) = REFERENCE.split_once("    credentials:\n").unwrap();
    let (_, after) = rest.split_once("session_token:").unwrap();
    let after = after.split_once('\n').unwrap().1;
    let role = "    credentials: { role: auto, metadata_endpoint: 'http://127.0.0.1:1' }\n";
    let by = |credentials: &str| format!("{before}{credentials}{after}");
    let handed = REFERENCE.replacen("key_file: /etc/rekeyd/bastion.key", "key_file: { credential: bastion-key }", 1);
    for text in [kept_by(VAULT), kept_by(EXEC), by(role), by(""), handed] {
        load(&text, Path::new("rekeyd.yaml"), &cloud).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(refuses(&schema, &schema, &read(&text)), None, "{text}");
    }
    let check = |from: &str, to: &str| {
        assert!(REFERENCE.contains(from), "{from}");
        let text = REFERENCE.replacen(from, to, 1);
        assert!(load(&text, Path::new("rekeyd.yaml"), &cloud).is_err(), "the reader takes {to}");
        assert!(refuses(&schema, &schema, &read(&text)).is_some(), "the schema takes {to}");
    };
    check("installation: a7f3", "instalation: a7f3");
    check("    region: ap-singapore\n", "    region: ap-singapore\n    banana: 1\n");
    check("provider: tencent-lighthouse", "provider: aws");
    check("provider: tencent-lighthouse", "provider: tencent-cvm\n    api: v2");
    check("      access_key_id: { env: TENCENTCLOUD_SECRET_ID }\n", "      role: auto\n");
    check("      access_key_id: {", "      role: auto\n      access_key_id: {");
    check("    key: { bits: 4096 }", "    key: { bits: 1024 }");
    check("{ env: TENCENTCLOUD_SECRET_ID }", "AKID0123456789");
    check("{ env: TENCENTCLOUD_SECRET_ID }", "{ env: A, file: /b }");
    check("      growth: 4", "      growth: 0");
    check("old_key: refuse", "old_key: ignore");
    check("    tags: { role: web, env: prod }\n", "");
    check("    account: lh\n", "    account: [lh]\n");
    check("allow: []", "allow: [banana]");
    check("defaults:\n", "defaults:\n  all_instances: true\n");
    check("  directory: /var/lib/rekeyd/keys", "  exec: { command: [/bin/keep] }\n  directory: /var/lib/rekeyd/keys");
    check("          host: bastion.example.net\n", "");
    check("key_file: /etc/rekeyd/bastion.key", "key_file: { file: /etc/rekeyd/bastion.key }");
    check("key_file: /etc/rekeyd/bastion.key", "key_file: {}");
    assert!(REFERENCE.starts_with("# yaml-language-server: $schema=rekeyd.schema.json\n"));
}
