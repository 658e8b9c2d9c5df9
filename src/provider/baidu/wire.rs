//! The bodies that BCC answers and takes, turned into rekeyd's words and back.
//! Pure: it must never send anything, and takes no field on trust (a wrong type is an error, never an empty list). Only
//! what nothing hangs on (a name, a zone, a count) may be anything.
//! Source of the fields: bce-sdk-go 6916310 (`services/bcc/api/model.go`: InstanceModel, ListInstancesResult,
//! KeypairModel, ListKeypairResult; ListInstanceByInstanceIds answers a ListInstancesResult), read 2026-11-22.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Image, InstanceId, KeyPairId, KeyPairName, PublicKey};
use crate::provider::http::answer::{Unreadable, count, filled, first_address, or_default, read, text};
use crate::provider::{Hazard, Instance, KeyPair, Power};

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What stands on it.
    pub items: Vec<T>,
    /// Whether there is more.
    pub truncated: bool,
    /// The marker of the next page, if the answer has one.
    pub next: Option<String>,
}

/// An answer to a change. All other instances were taken, as far as the answer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The request id.
    pub request_id: Option<String>,
    /// Instances that failed, without a reason.
    pub failed: Vec<InstanceId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawInstance {
    id: String,
    #[serde(default)]
    name: Value,
    status: String,
    keypair_id: Option<String>,
    os_name: Option<String>,
    image_name: Option<String>,
    /// Prepaid, Postpaid or bidding.
    payment_timing: Option<String>,
    /// 0 for none. Disks that a family brings along (`ephemeralDisks` at its making) no listing shows.
    #[serde(default, rename = "localDiskSizeInGB")]
    local_disk_size: Value,
    /// `noCharge` for a machine that is stopped without charging (the words are unconfirmed).
    charge_status: Option<String>,
    #[serde(default)]
    zone_name: Value,
    #[serde(default)]
    image_id: Value,
    #[serde(default)]
    internal_ip: Value,
    /// Empty for a machine without one.
    #[serde(default)]
    public_ip: Value,
    tags: Option<Vec<RawTag>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTag {
    tag_key: String,
    #[serde(default, deserialize_with = "or_default")]
    tag_value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKeyPair {
    keypair_id: String,
    name: String,
    public_key: Option<String>,
    #[serde(default)]
    instance_count: Value,
}

/// Reads a page of instances: of the listing, and of the look by ids.
pub fn instances(body: &[u8]) -> Result<Page<Instance>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        instances: Vec<RawInstance>,
        is_truncated: Option<bool>,
        next_marker: Option<String>,
    }
    let body: Body = read(body)?;
    let items = body.instances.into_iter().map(instance).collect::<Result<_, _>>()?;
    Ok(page(items, body.is_truncated, body.next_marker))
}

/// A page of a listing. Where the answer does not say whether it goes on (the page on the look by ids and that on key
/// pairs show no such field), a next marker does.
fn page<T>(items: Vec<T>, truncated: Option<bool>, next: Option<String>) -> Page<T> {
    let next = filled(next);
    Page { items, truncated: truncated.unwrap_or(next.is_some()), next }
}

fn instance(raw: RawInstance) -> Result<Instance, Unreadable> {
    if raw.id.is_empty() {
        return Err("an instance without an id".to_string());
    }
    // There is no field for the kind of system, only its name; and none for a scaling group, which only the Auto
    // Scaling service (GET /v1/node of as.<region>.baidubce.com, 2026-07-22) could tell.
    let says_windows =
        |text: &Option<String>| text.as_ref().is_some_and(|text| text.to_lowercase().contains("windows"));
    let unfit = (says_windows(&raw.os_name) || says_windows(&raw.image_name)).then(|| "Windows".to_string());
    let hazards = hazards(&raw)?;
    Ok(Instance {
        id: InstanceId::new(raw.id),
        name: text(raw.name).unwrap_or_default(),
        power: power(&raw.status),
        state: raw.status,
        keys: filled(raw.keypair_id).into_iter().map(KeyPairId::new).collect(),
        boot: None,
        operation: None,
        unfit,
        hazards,
        tags: raw.tags.into_iter().flatten().map(|tag| (tag.tag_key, tag.tag_value)).collect::<BTreeMap<_, _>>(),
        zone: text(raw.zone_name),
        image: text(raw.image_id).map(|id| Image { id, reset: None }),
        private_address: first_address(&[&raw.internal_ip]),
        public_address: first_address(&[&raw.public_ip]),
    })
}

/// What a stop could hurt.
fn hazards(raw: &RawInstance) -> Result<BTreeSet<Hazard>, Unreadable> {
    // "Spotpaid" is the word of the SDK's third version for the same.
    let says = |word: &Option<String>, what: &str| word.as_ref().is_some_and(|word| word.eq_ignore_ascii_case(what));
    let spot = says(&raw.payment_timing, "bidding") || says(&raw.payment_timing, "spotpaid");
    let size = &raw.local_disk_size;
    let local = !size.is_null() && count(size).ok_or("localDiskSizeInGB is no count")? > 0;
    let shown = [
        (Hazard::Spot, spot),
        (Hazard::LocalDisk, local),
        (Hazard::StopCharging, says(&raw.charge_status, "noCharge")),
    ];
    Ok(shown.into_iter().filter(|(_, is)| *is).map(|(hazard, _)| hazard).collect())
}

/// `Rebooting` is not in the SDK's list and may exist. States in which the machine may well go on running
/// (`SnapshotProcessing`, `ImageProcessing`, `ChangeVpc`, `Scaling`) are [`Power::Other`] and not
/// [`Power::Changing`]: on this cloud a change of power is the only trace of a boot. A `Recycled` instance can be
/// taken back out of the bin, so it is not gone.
fn power(status: &str) -> Power {
    match status.to_ascii_lowercase().as_str() {
        "running" => Power::Running,
        "stopped" => Power::Stopped,
        "starting" | "stopping" | "rebooting" => Power::Changing,
        "deleted" => Power::Gone,
        _ => Power::Other,
    }
}

/// Reads a page of key pairs.
pub fn key_pairs(body: &[u8]) -> Result<Page<KeyPair>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        keypairs: Vec<RawKeyPair>,
        is_truncated: Option<bool>,
        next_marker: Option<String>,
    }
    let body: Body = read(body)?;
    let items = body.keypairs.into_iter().map(key_pair).collect::<Result<_, _>>()?;
    Ok(page(items, body.is_truncated, body.next_marker))
}

fn key_pair(raw: RawKeyPair) -> Result<KeyPair, Unreadable> {
    if raw.keypair_id.is_empty() {
        return Err("a key pair without an id".to_string());
    }
    Ok(KeyPair {
        id: KeyPairId::new(raw.keypair_id),
        name: KeyPairName::new(raw.name),
        public_key: raw.public_key.and_then(|text| PublicKey::parse(&text).ok()),
        bound: count(&raw.instance_count),
    })
}

/// Reads one key pair: the answer to an import, and to the question for a single one.
pub fn one_key_pair(body: &[u8]) -> Result<KeyPair, Unreadable> {
    #[derive(Deserialize)]
    struct Body {
        keypair: RawKeyPair,
    }
    key_pair(read::<Body>(body)?.keypair)
}

/// Reads the answer to a bind, a change of power or a deletion. It may be empty: then it says nothing of anybody.
pub fn changed(body: &[u8]) -> Result<Changed, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        #[serde(default)]
        request_id: Option<String>,
        #[serde(default)]
        failed_instance_id_list: Option<Vec<String>>,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Changed::default());
    }
    // Not straight into the struct: serde would take `[]` for one.
    let Value::Object(_) = read::<Value>(body)? else { return Err("not an object".to_string()) };
    let body: Body = read(body)?;
    let failed = body.failed_instance_id_list.unwrap_or_default().into_iter().map(InstanceId::new).collect();
    Ok(Changed { request_id: body.request_id, failed })
}

fn texts(ids: &[InstanceId]) -> Vec<&str> {
    ids.iter().map(InstanceId::as_str).collect()
}

/// The body of a look by ids, and of a bind and unbind.
pub fn ids_body(ids: &[InstanceId]) -> Vec<u8> {
    json!({ "instanceIds": texts(ids) }).to_string().into_bytes()
}

/// The body of a stop. `stopWithNoCharge` stays off: with it the address and the place on the host may be lost.
pub fn stop_body(ids: &[InstanceId], force: bool) -> Vec<u8> {
    let body = json!({ "instanceIds": texts(ids), "forceStop": force, "stopWithNoCharge": false });
    body.to_string().into_bytes()
}

/// The body of a soft reboot.
pub fn reboot_body(ids: &[InstanceId]) -> Vec<u8> {
    json!({ "instanceIds": texts(ids), "forceStop": false }).to_string().into_bytes()
}

/// The body of an import.
pub fn import_body(name: &KeyPairName, key: &PublicKey) -> Vec<u8> {
    json!({ "name": name.as_str(), "publicKey": key.to_openssh() }).to_string().into_bytes()
}

/// Tags as the listing's filter takes them: `key:value`, separated by commas. Tags that hold one of these two signs
/// cannot be said this way and are left out: the filter only narrows. `None`: nothing to narrow by.
pub fn tags_filter(tags: &BTreeMap<String, String>) -> Option<String> {
    let sayable = |text: &str| !text.is_empty() && !text.contains([',', ':']);
    let pairs: Vec<String> = tags
        .iter()
        .filter(|(key, value)| sayable(key) && sayable(value))
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRt5fUrGTvf1m8NgBbQ6BBAjSLiQbbcyYFhPzhB6YAF";

    fn one(fields: &str) -> Instance {
        let body = format!(r#"{{"instances":[{{"id":"i-1",{fields}}}],"isTruncated":false}}"#);
        instances(body.as_bytes()).unwrap().items.remove(0)
    }

    #[test]
    fn a_page_of_instances_is_read() {
        let body = br#"{"marker":"","isTruncated":true,"nextMarker":"i-2","maxKeys":1000,"instances":[{
            "id":"i-1","name":"web-1","hostname":"h","status":"Running","keypairId":"k-1","keypairName":"rkm_1",
            "tags":[{"tagKey":"role","tagValue":"web"}],"osName":"Ubuntu","imageName":"22.04 LTS amd64",
            "zoneName":"cn-bj-d","imageId":"m-1","cpuCount":2,"internalIp":"192.168.0.2","publicIp":"203.0.113.5"}]}"#;
        let expect = Instance {
            id: "i-1".into(),
            name: "web-1".to_string(),
            power: Power::Running,
            state: "Running".to_string(),
            keys: vec!["k-1".into()],
            boot: None,
            operation: None,
            unfit: None,
            hazards: Default::default(),
            tags: [("role".to_string(), "web".to_string())].into(),
            zone: Some("cn-bj-d".to_string()),
            image: Some(Image { id: "m-1".to_string(), reset: None }),
            private_address: Some("192.168.0.2".parse().unwrap()),
            public_address: Some("203.0.113.5".parse().unwrap()),
        };
        assert_eq!(instances(body), Ok(Page { items: vec![expect], truncated: true, next: Some("i-2".to_string()) }));
    }

    #[test]
    fn states_are_translated_and_only_a_change_of_power_is_one() {
        let check = |status: &str, expect: Power| {
            let instance = one(&format!(r#""status":"{status}""#));
            assert_eq!((instance.power, instance.state.as_str()), (expect, status));
        };
        check("Running", Power::Running);
        check("Stopped", Power::Stopped);
        check("Starting", Power::Changing);
        check("Stopping", Power::Changing);
        check("Rebooting", Power::Changing);
        check("Deleted", Power::Gone);
        for status in ["Scaling", "Expired", "Error", "SnapshotProcessing", "ImageProcessing", "ChangeVpc", "Recycled"]
        {
            check(status, Power::Other);
        }
        check("Quantum", Power::Other);
        check("RUNNING", Power::Running);
    }

    #[test]
    fn what_a_stop_could_hurt_is_read_and_a_size_that_is_none_is_an_error() {
        let check = |fields: &str, expect: &[Hazard]| {
            let instance = one(&format!(r#""status":"Running",{fields}"#));
            assert_eq!(instance.hazards, expect.iter().copied().collect(), "{fields}");
        };
        check(r#""paymentTiming":"Postpaid","localDiskSizeInGB":0,"chargeStatus":"charge""#, &[]);
        check(r#""paymentTiming":null,"localDiskSizeInGB":null,"chargeStatus":null"#, &[]);
        check(r#""paymentTiming":"bidding""#, &[Hazard::Spot]);
        check(r#""paymentTiming":"Spotpaid""#, &[Hazard::Spot]);
        check(r#""localDiskSizeInGB":447"#, &[Hazard::LocalDisk]);
        check(r#""chargeStatus":"noCharge""#, &[Hazard::StopCharging]);
        for bad in [r#""localDiskSizeInGB":"some""#, r#""paymentTiming":7"#] {
            let body = format!(r#"{{"instances":[{{"id":"i-1","status":"Running",{bad}}}],"isTruncated":false}}"#);
            assert!(instances(body.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_nothing_hangs_on_makes_no_page_unreadable() {
        for fields in [
            r#""tags":null,"name":null,"zoneName":null,"keypairId":null,"osName":null,"imageName":null"#,
            r#""tags":[],"cardCount":"0","publicIp":null,"zoneName":"""#,
            r#""createTime":7,"volumes":null,"internalIp":"","publicIp":7"#,
        ] {
            let instance = one(&format!(r#""status":"Running",{fields}"#));
            assert_eq!((instance.tags.len(), instance.unfit, instance.zone), (0, None, None), "{fields}");
            assert_eq!((instance.private_address, instance.public_address), (None, None), "{fields}");
        }
        let bare = one(r#""status":"Running","name":7,"tags":[{"tagKey":"bare","tagValue":null}]"#);
        assert_eq!((bare.name.as_str(), bare.tags["bare"].as_str()), ("7", ""));
        for (count, expect) in [("3", Some(3)), (r#""3""#, Some(3)), ("null", None), (r#""many""#, None)] {
            let pair = format!(r#"{{"keypairs":[{{"keypairId":"k-1","name":"a","instanceCount":{count}}}]}}"#);
            assert_eq!(key_pairs(pair.as_bytes()).unwrap().items[0].bound, expect, "{count}");
        }
    }

    #[test]
    fn windows_is_told_by_name_and_an_empty_key_pair_id_is_none() {
        let check = |fields: &str, expect: Option<&str>| {
            let instance = one(&format!(r#""status":"Running",{fields}"#));
            assert_eq!(instance.unfit.as_deref(), expect, "{fields}");
            assert_eq!(instance.keys, []);
        };
        check(r#""osName":"Windows Server","keypairId":"""#, Some("Windows"));
        check(r#""osName":"","imageName":"2022 DC windows x64","keypairId":null"#, Some("Windows"));
        check(r#""osName":"CentOS","imageName":"7.9 x86_64""#, None);
    }

    #[test]
    fn key_pairs_are_read_with_their_count() {
        let body = format!(
            r#"{{"isTruncated":false,"keypairs":[{{"keypairId":"k-1","name":"a","publicKey":"{KEY}","instanceCount":3}},
            {{"keypairId":"k-2","name":"b","publicKey":"rubbish"}}]}}"#
        );
        let page = key_pairs(body.as_bytes()).unwrap();
        let shown: Vec<_> = page.items.iter().map(|pair| (pair.id.as_str(), pair.name.as_str(), pair.bound)).collect();
        assert_eq!(shown, [("k-1", "a", Some(3)), ("k-2", "b", None)]);
        assert_eq!(page.items[0].public_key, Some(PublicKey::parse(KEY).unwrap()));
        assert_eq!(page.items[1].public_key, None);
    }

    #[test]
    fn an_answer_to_a_change_may_be_empty_or_name_who_failed() {
        let check = |body: &str, id: Option<&str>, failed: &[&str]| {
            let failed = failed.iter().map(|id| InstanceId::from(*id)).collect();
            let expect = Changed { request_id: id.map(str::to_string), failed };
            assert_eq!(changed(body.as_bytes()), Ok(expect), "{body}");
        };
        check("", None, &[]);
        check(" \r\n", None, &[]);
        check("{}", None, &[]);
        check(r#"{"requestId":"r","failedInstanceIdList":null}"#, Some("r"), &[]);
        check(r#"{"requestId":"r","failedInstanceIdList":["i-1","i-2"]}"#, Some("r"), &["i-1", "i-2"]);
    }

    #[test]
    fn an_answer_that_does_not_say_whether_it_goes_on_ends_without_a_next_marker() {
        let check = |body: &str, truncated: bool| {
            assert_eq!(instances(body.as_bytes()).unwrap().truncated, truncated, "{body}");
        };
        check(r#"{"instances":[]}"#, false);
        check(r#"{"instances":[],"nextMarker":""}"#, false);
        check(r#"{"instances":[],"nextMarker":"i-2"}"#, true);
        check(r#"{"instances":[],"isTruncated":false,"nextMarker":"i-2"}"#, false);
        assert!(!key_pairs(br#"{"keypairs":[]}"#).unwrap().truncated);
    }

    #[test]
    fn rubbish_is_never_an_empty_list() {
        type Refuses = fn(&[u8]) -> bool;
        let all: [(&str, Refuses); 4] = [
            ("instances", |body| instances(body).is_err()),
            ("key pairs", |body| key_pairs(body).is_err()),
            ("one key pair", |body| one_key_pair(body).is_err()),
            ("changed", |body| changed(body).is_err()),
        ];
        for (name, is_error) in all {
            for body in ["<html>502</html>", "[]", "null", "7", r#"{"requestId":"#] {
                assert!(is_error(body.as_bytes()), "{name}: {body:?}");
            }
        }
        for body in [
            "",
            "{}",
            r#"{"isTruncated":false}"#,
            r#"{"instances":null,"isTruncated":false}"#,
            r#"{"instances":{},"isTruncated":false}"#,
            r#"{"instances":[{"id":"","status":"Running"}],"isTruncated":false}"#,
            r#"{"instances":[{"id":"i-1"}],"isTruncated":false}"#,
            r#"{"instances":[{"id":"i-1","status":1}],"isTruncated":false}"#,
        ] {
            assert!(instances(body.as_bytes()).is_err(), "{body}");
        }
        assert!(key_pairs(br#"{"keypairs":{}}"#).is_err());
        assert!(key_pairs(br#"{"keypairs":[{"keypairId":"","name":"a"}],"isTruncated":false}"#).is_err());
        assert!(one_key_pair(br#"{"keypair":{"name":"a"}}"#).is_err());
        assert!(changed(br#"{"failedInstanceIdList":"i-1"}"#).is_err());
    }

    #[test]
    fn the_filter_says_what_can_be_said() {
        let check = |tags: &[(&str, &str)], expect: Option<&str>| {
            let tags = tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            assert_eq!(tags_filter(&tags).as_deref(), expect, "{tags:?}");
        };
        check(&[("role", "web front"), ("env", "prod")], Some("env:prod,role:web front"));
        check(&[("role", "a,b"), ("env", "x:y"), ("empty", ""), ("k:1", "v")], None);
        check(&[("role", "a,b"), ("env", "prod")], Some("env:prod"));
        check(&[], None);
    }

    #[test]
    fn bodies_are_written_as_the_api_wants_them() {
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        let ids = ["i-1".into(), "i-2".into()];
        assert_eq!(text(ids_body(&ids)), r#"{"instanceIds":["i-1","i-2"]}"#);
        let stop = r#"{"forceStop":true,"instanceIds":["i-1","i-2"],"stopWithNoCharge":false}"#;
        assert_eq!(text(stop_body(&ids, true)), stop);
        assert_eq!(text(reboot_body(&ids)), r#"{"forceStop":false,"instanceIds":["i-1","i-2"]}"#);
        let import = format!(r#"{{"name":"rkm_1","publicKey":"{KEY}"}}"#);
        assert_eq!(text(import_body(&"rkm_1".into(), &PublicKey::parse(&format!("{KEY} me@here")).unwrap())), import);
    }
}
