//! The bodies that ECS answers, and the parameters that it asks for, turned into rekeyd's words and back.
//! Pure: it must never send anything, and takes no field on trust (a wrong type is an error, never an empty list). Only
//! what nothing hangs on (a name, a zone, a message, a count) may be anything, and the lists inside an item be missing.
//! Source of the fields: alibabacloud_ecs20140526 7.11.8; ListTagResources: alibabacloud.com/help/en/ecs/api-listtagresources,
//! read 2026-11-22.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Image, InstanceId, KeyPairId, KeyPairName, PublicKey};
use crate::provider::http::answer::{Unreadable, count, filled, first_address, or_default, read, text};
use crate::provider::{Hazard, Instance, KeyPair, Power};

/// The system tag of an instance that Auto Scaling made; such instances are replaced at its will, and their key pair is
/// the scaling configuration's. Source: ACK help pages ("ESS adds the ECS tag acs:autoscaling:scalingGroupId") and the
/// DescribeInstances sample answer (2019-11), both read 2026-11-22.
pub const SCALING_GROUP_TAG: &str = "acs:autoscaling:scalingGroupId";

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What stands on it.
    pub items: Vec<T>,
    /// The token of the next page; `None` on the last.
    pub next: Option<String>,
    /// How many the cloud says there are in all, where it says so.
    pub total: Option<usize>,
}

/// One element of a batch's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whose.
    pub instance: InstanceId,
    /// `None`: taken. Else code and message of the refusal.
    pub refusal: Option<(String, String)>,
}

/// An answer to a change: its request id and what it says of each instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The request id.
    pub request_id: Option<String>,
    /// One each, as far as the answer has them.
    pub outcomes: Vec<Outcome>,
}

/// ECS wraps each list once more: `{"Instances": {"Instance": […]}}`. The list that was asked for must be there; one
/// inside an item, or inside the answer to a change, may be null or missing.
macro_rules! wrapped {
    ($name:ident, $item:ty, $(#[$how:meta])*) => {
        #[derive(Default, Deserialize)]
        struct $name {
            $(#[$how])*
            list: Vec<$item>,
        }
    };
}
wrapped!(Instances, RawInstance, #[serde(rename = "Instance")]);
wrapped!(KeyPairs, RawKeyPair, #[serde(rename = "KeyPair")]);
wrapped!(TagResources, RawTagResource, #[serde(rename = "TagResource")]);
wrapped!(Tags, RawTag, #[serde(rename = "Tag", default, deserialize_with = "or_default")]);
wrapped!(Locks, Value, #[serde(rename = "LockReason", default, deserialize_with = "or_default")]);
wrapped!(Results, RawOutcome, #[serde(rename = "Result", default, deserialize_with = "or_default")]);
wrapped!(Responses, RawOutcome, #[serde(rename = "InstanceResponse", default, deserialize_with = "or_default")]);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawInstance {
    instance_id: String,
    #[serde(default)]
    instance_name: Value,
    status: String,
    key_pair_name: Option<String>,
    #[serde(rename = "OSType")]
    os_type: Option<String>,
    start_time: Option<String>,
    /// NoSpot, SpotWithPriceLimit or SpotAsPriceGo.
    spot_strategy: Option<String>,
    /// Local disks, and what they hold: 0 or nothing for none.
    #[serde(default)]
    local_storage_amount: Value,
    #[serde(default)]
    local_storage_capacity: Value,
    /// KeepCharging, StopCharging or Not-applicable.
    stopped_mode: Option<String>,
    #[serde(default)]
    zone_id: Value,
    /// Another one once the system disk was replaced by one of another image.
    #[serde(default)]
    image_id: Value,
    #[serde(default, deserialize_with = "or_default")]
    tags: Tags,
    #[serde(default, deserialize_with = "or_default")]
    operation_locks: Locks,
    #[serde(default)]
    vpc_attributes: Value,
    /// The address inside the classic network.
    #[serde(default)]
    inner_ip_address: Value,
    #[serde(default)]
    public_ip_address: Value,
    #[serde(default)]
    eip_address: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawTag {
    tag_key: String,
    #[serde(default, deserialize_with = "or_default")]
    tag_value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawKeyPair {
    key_pair_name: String,
    public_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawTagResource {
    resource_id: String,
}

/// The types are strings by the model, but samples show `200` and `"200"`, `true` and `"true"`: read leniently.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawOutcome {
    instance_id: String,
    #[serde(default)]
    success: Value,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
}

/// Reads an answer of DescribeInstances.
pub fn instances(body: &[u8]) -> Result<Page<Instance>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        instances: Instances,
        next_token: Option<String>,
        #[serde(default)]
        total_count: Value,
    }
    let body: Body = read(body)?;
    let items = body.instances.list.into_iter().map(instance).collect::<Result<_, _>>()?;
    Ok(Page { items, next: filled(body.next_token), total: count(&body.total_count) })
}

fn instance(raw: RawInstance) -> Result<Instance, Unreadable> {
    if raw.instance_id.is_empty() {
        return Err("an instance without an id".to_string());
    }
    let hazards = hazards(&raw)?;
    let tags: BTreeMap<String, String> = raw.tags.list.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
    // Whatever stands in the list is a lock, readable or not.
    let lock = |lock: Value| text(lock["LockReason"].clone()).unwrap_or_else(|| "?".to_string());
    let locks: Vec<String> = raw.operation_locks.list.into_iter().map(lock).collect();
    let unfit = if raw.os_type.as_deref().is_some_and(|os| os.eq_ignore_ascii_case("windows")) {
        Some("Windows".to_string())
    } else if !locks.is_empty() {
        Some(format!("locked: {}", locks.join(", ")))
    } else {
        tags.get(SCALING_GROUP_TAG).map(|group| format!("in the scaling group {group}"))
    };
    Ok(Instance {
        id: InstanceId::new(raw.instance_id),
        name: text(raw.instance_name).unwrap_or_default(),
        power: match raw.status.to_ascii_lowercase().as_str() {
            "running" => Power::Running,
            "stopped" => Power::Stopped,
            "pending" | "starting" | "stopping" => Power::Changing,
            _ => Power::Other,
        },
        state: raw.status,
        keys: filled(raw.key_pair_name).into_iter().map(KeyPairId::new).collect(),
        boot: filled(raw.start_time),
        operation: None,
        unfit,
        hazards,
        tags,
        zone: text(raw.zone_id),
        image: text(raw.image_id).map(|id| Image { id, reset: None }),
        private_address: first_address(&[
            &raw.vpc_attributes["PrivateIpAddress"]["IpAddress"],
            &raw.inner_ip_address["IpAddress"],
        ]),
        public_address: first_address(&[&raw.public_ip_address["IpAddress"], &raw.eip_address["IpAddress"]]),
    })
}

/// What a stop could hurt. Ephemeral SSDs of the phased-out kind are no local storage by these fields and are not shown.
fn hazards(raw: &RawInstance) -> Result<BTreeSet<Hazard>, Unreadable> {
    let spot = filled(raw.spot_strategy.clone()).is_some_and(|strategy| !strategy.eq_ignore_ascii_case("NoSpot"));
    let mut local = false;
    for (name, value) in
        [("LocalStorageAmount", &raw.local_storage_amount), ("LocalStorageCapacity", &raw.local_storage_capacity)]
    {
        local |= !value.is_null() && count(value).ok_or_else(|| format!("{name} is no count"))? > 0;
    }
    let unbilled = raw.stopped_mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case("StopCharging"));
    let shown = [(Hazard::Spot, spot), (Hazard::LocalDisk, local), (Hazard::StopCharging, unbilled)];
    Ok(shown.into_iter().filter(|(_, is)| *is).map(|(hazard, _)| hazard).collect())
}

/// Reads an answer of ListTagResources: the ids, each once. One row is one tag of one resource.
pub fn tag_resources(body: &[u8]) -> Result<Page<InstanceId>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        tag_resources: TagResources,
        next_token: Option<String>,
    }
    let body: Body = read(body)?;
    let ids = body.tag_resources.list.into_iter().map(|row| row.resource_id);
    let ids: std::collections::BTreeSet<InstanceId> = ids.filter(|id| !id.is_empty()).map(InstanceId::new).collect();
    Ok(Page { items: ids.into_iter().collect(), next: filled(body.next_token), total: None })
}

/// Reads an answer of DescribeKeyPairs. The handle of a pair is its name.
pub fn key_pairs(body: &[u8]) -> Result<Page<KeyPair>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        key_pairs: KeyPairs,
        total_count: Value,
    }
    let body: Body = read(body)?;
    let total = count(&body.total_count).ok_or("TotalCount is no count")?;
    let items = body.key_pairs.list.into_iter().map(|raw| KeyPair {
        id: KeyPairId::new(raw.key_pair_name.as_str()),
        name: KeyPairName::new(raw.key_pair_name),
        public_key: raw.public_key.and_then(|text| PublicKey::parse(&text).ok()),
        bound: None,
    });
    Ok(Page { items: items.collect(), next: None, total: Some(total) })
}

/// Reads an answer of ImportKeyPair: the name, which is the handle.
pub fn imported(body: &[u8]) -> Result<KeyPairId, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        key_pair_name: String,
    }
    read::<Body>(body).map(|body| KeyPairId::new(body.key_pair_name))
}

/// Reads an answer of AttachKeyPair or DetachKeyPair. An instance is taken only if its element says `Success` *and*
/// code 200; one without an element is neither refused nor confirmed (the older API answers no elements at all, but a
/// request id as every answer of ECS does).
pub fn attached(body: &[u8]) -> Result<Changed, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        request_id: String,
        #[serde(default, deserialize_with = "or_default")]
        results: Results,
    }
    let body: Body = read(body)?;
    let elements = body.results.list.into_iter();
    Ok(Changed { request_id: Some(body.request_id), outcomes: elements.map(|raw| outcome(raw, true)).collect() })
}

/// Reads an answer of StopInstances, StartInstances or RebootInstances. The elements have no `Success`.
pub fn powered(body: &[u8]) -> Result<Changed, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        request_id: String,
        #[serde(default, deserialize_with = "or_default")]
        instance_responses: Responses,
    }
    let body: Body = read(body)?;
    let elements = body.instance_responses.list.into_iter();
    Ok(Changed { request_id: Some(body.request_id), outcomes: elements.map(|raw| outcome(raw, false)).collect() })
}

/// Reads an answer that says nothing but its request id (DeleteKeyPairs).
pub fn deleted(body: &[u8]) -> Result<(), Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        #[serde(rename = "RequestId")]
        _request_id: String,
    }
    read::<Body>(body).map(|_| ())
}

fn outcome(raw: RawOutcome, wants_success: bool) -> Outcome {
    let success = text(raw.success).unwrap_or_default();
    let code = match &raw.code {
        Value::String(code) if !code.is_empty() => code.clone(),
        Value::Number(code) => code.to_string(),
        _ => "no code".to_string(),
    };
    let taken = code == "200" && (!wants_success || success.eq_ignore_ascii_case("true"));
    Outcome {
        instance: InstanceId::new(raw.instance_id),
        refusal: (!taken).then(|| (code, text(raw.message).unwrap_or_default())),
    }
}

/// The ids as ECS wants lists of ids in one parameter: the text of a JSON array.
pub fn json_list<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    Value::from(ids.into_iter().collect::<Vec<_>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of the vendor's own sample answer (2024-04), shortened.
    const SAMPLE: &str = r#"{"RequestId":"R","NextToken":"","TotalCount":1,"Instances":{"Instance":[{
        "InstanceId":"i-bp1h4adlltjc1d48goaq","InstanceName":"web-1","Status":"Running","OSType":"linux",
        "OSName":"Alibaba Cloud Linux  3.2104 LTS 64位","KeyPairName":"rka7f3_01","StartTime":"2024-04-14T22:32Z",
        "StoppedMode":"Not-applicable","ZoneId":"cn-hangzhou-h","ImageId":"m-1","OperationLocks":{"LockReason":[]},
        "Tags":{"Tag":[{"TagKey":"role","TagValue":"web"},{"TagKey":"bare","TagValue":""}]},
        "VpcAttributes":{"PrivateIpAddress":{"IpAddress":["172.16.181.225"]}}}]}}"#;

    #[test]
    fn an_instance_is_read_from_the_vendors_sample() {
        let page = instances(SAMPLE.as_bytes()).unwrap();
        assert_eq!(page.next, None);
        let tags = [("role", "web"), ("bare", "")].map(|(key, value)| (key.to_string(), value.to_string()));
        let expect = Instance {
            id: "i-bp1h4adlltjc1d48goaq".into(),
            name: "web-1".to_string(),
            power: Power::Running,
            state: "Running".to_string(),
            keys: vec!["rka7f3_01".into()],
            boot: Some("2024-04-14T22:32Z".to_string()),
            operation: None,
            unfit: None,
            hazards: Default::default(),
            tags: tags.into(),
            zone: Some("cn-hangzhou-h".to_string()),
            image: Some(Image { id: "m-1".to_string(), reset: None }),
            private_address: Some("172.16.181.225".parse().unwrap()),
            public_address: None,
        };
        assert_eq!(page.items, [expect]);
    }

    #[test]
    fn addresses_are_found_in_either_network_and_none_is_no_fault() {
        let check = |fields: &str, private: Option<&str>, public: Option<&str>| {
            let instance = one(&format!(r#""Status":"Running","Cpu":1{fields}"#));
            let read = |text: &str| text.parse().unwrap();
            assert_eq!((instance.private_address, instance.public_address), (private.map(read), public.map(read)));
        };
        check("", None, None);
        let classic = r#","VpcAttributes":{"PrivateIpAddress":{"IpAddress":[]}},"InnerIpAddress":{"IpAddress":["10.1.2.3"]},
            "PublicIpAddress":{"IpAddress":["203.0.113.1","203.0.113.2"]},"EipAddress":{"IpAddress":""}"#;
        check(classic, Some("10.1.2.3"), Some("203.0.113.1"));
        let elastic = r#","PublicIpAddress":{"IpAddress":[]},"EipAddress":{"IpAddress":"203.0.113.7"}"#;
        check(elastic, None, Some("203.0.113.7"));
        for odd in [r#""x""#, "7", "null", "[]", r#"{"IpAddress":null}"#, r#"{"IpAddress":["x"]}"#] {
            check(&format!(r#","VpcAttributes":{odd},"PublicIpAddress":{odd},"EipAddress":{odd}"#), None, None);
        }
    }

    fn one(fields: &str) -> Instance {
        let body = format!(r#"{{"Instances":{{"Instance":[{{"InstanceId":"i-1",{fields}}}]}}}}"#);
        instances(body.as_bytes()).unwrap().items.remove(0)
    }

    #[test]
    fn states_are_translated_and_unknown_ones_are_hands_off() {
        let check = |status: &str, expect: Power| {
            let instance = one(&format!(r#""Status":"{status}""#));
            assert_eq!((instance.power, instance.state.as_str()), (expect, status));
        };
        check("Running", Power::Running);
        check("Stopped", Power::Stopped);
        check("Pending", Power::Changing);
        check("Starting", Power::Changing);
        check("Stopping", Power::Changing);
        check("Quantum", Power::Other);
        check("RUNNING", Power::Running);
        check("stopped", Power::Stopped);
    }

    #[test]
    fn what_a_stop_could_hurt_is_read_and_a_count_that_is_none_is_an_error() {
        let check = |fields: &str, expect: &[Hazard]| {
            let instance = one(&format!(r#""Status":"Running",{fields}"#));
            assert_eq!(instance.hazards, expect.iter().copied().collect(), "{fields}");
        };
        check(r#""SpotStrategy":"NoSpot","LocalStorageAmount":null,"StoppedMode":"Not-applicable""#, &[]);
        check(
            r#""SpotStrategy":"","LocalStorageAmount":0,"LocalStorageCapacity":"0","StoppedMode":"KeepCharging""#,
            &[],
        );
        check(r#""SpotStrategy":"SpotAsPriceGo""#, &[Hazard::Spot]);
        check(r#""SpotStrategy":"SpotWithPriceLimit""#, &[Hazard::Spot]);
        check(r#""LocalStorageAmount":2,"LocalStorageCapacity":5905"#, &[Hazard::LocalDisk]);
        check(r#""LocalStorageCapacity":"894""#, &[Hazard::LocalDisk]);
        check(r#""StoppedMode":"StopCharging""#, &[Hazard::StopCharging]);
        for bad in [r#""LocalStorageAmount":"some""#, r#""LocalStorageCapacity":[1]"#, r#""SpotStrategy":1"#] {
            let body = format!(r#"{{"Instances":{{"Instance":[{{"InstanceId":"i-1","Status":"Running",{bad}}}]}}}}"#);
            assert!(instances(body.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_nothing_hangs_on_makes_no_instance_unreadable() {
        for fields in [
            r#""Tags":null,"OperationLocks":null"#,
            r#""Tags":{},"OperationLocks":{}"#,
            r#""Tags":{"Tag":null},"OperationLocks":{"LockReason":null}"#,
            r#""Tags":{"Tag":[]},"OperationLocks":{"LockReason":[]},"ZoneId":null,"InstanceName":null"#,
            r#""StartTime":null,"OSType":null,"KeyPairName":null,"VpcAttributes":null,"Cpu":"2","Memory":8.5"#,
        ] {
            let instance = one(&format!(r#""Status":"Running",{fields}"#));
            assert_eq!((instance.tags.len(), instance.unfit, instance.zone), (0, None, None), "{fields}");
        }
        let odd = one(
            r#""Status":"Running","InstanceName":7,"ZoneId":["a"],"Tags":{"Tag":[{"TagKey":"bare","TagValue":null}]}"#,
        );
        assert_eq!((odd.name.as_str(), odd.tags["bare"].as_str()), ("7", ""));
    }

    #[test]
    fn what_is_decided_by_is_never_guessed() {
        for fields in [
            r#""Status":7"#,
            r#""Status":null"#,
            r#""Status":"Running","KeyPairName":7"#,
            r#""Status":"Running","StartTime":{}"#,
            r#""Status":"Running","OSType":true"#,
            r#""Status":"Running","Tags":[{"TagKey":"a","TagValue":"b"}]"#,
            r#""Status":"Running","Tags":{"Tag":[{"TagKey":"a","TagValue":7}]}"#,
            r#""Status":"Running","Tags":{"Tag":[{"TagValue":"b"}]}"#,
            r#""Status":"Running","OperationLocks":{"LockReason":"security"}"#,
        ] {
            let body = format!(r#"{{"Instances":{{"Instance":[{{"InstanceId":"i-1",{fields}}}]}}}}"#);
            assert!(instances(body.as_bytes()).is_err(), "{fields}");
        }
    }

    #[test]
    fn a_total_may_be_written_as_text_and_an_unreadable_one_of_instances_is_none() {
        let total =
            |total: &str| instances(format!(r#"{{"Instances":{{"Instance":[]}},"TotalCount":{total}}}"#).as_bytes());
        assert_eq!(total("1200").unwrap().total, Some(1200));
        assert_eq!(total(r#""1200""#).unwrap().total, Some(1200));
        assert_eq!(total("null").unwrap().total, None);
        let total =
            |total: &str| key_pairs(format!(r#"{{"KeyPairs":{{"KeyPair":[]}},"TotalCount":{total}}}"#).as_bytes());
        assert_eq!(total(r#""3""#).unwrap().total, Some(3));
        assert!(total("null").is_err() && total(r#""many""#).is_err());
    }

    #[test]
    fn what_cannot_take_a_key_says_why() {
        let check = |fields: &str, expect: Option<&str>| {
            assert_eq!(one(&format!(r#""Status":"Running",{fields}"#)).unfit.as_deref(), expect, "{fields}");
        };
        check(r#""OSType":"linux""#, None);
        check(r#""OSType":"windows""#, Some("Windows"));
        check(r#""OSType":"Windows""#, Some("Windows"));
        check(r#""OperationLocks":{"LockReason":[{"LockReason":"security"}]}"#, Some("locked: security"));
        check(r#""OperationLocks":{"LockReason":[{"LockReason":"financial"},{}]}"#, Some("locked: financial, ?"));
        check(r#""OperationLocks":{"LockReason":[null,{"LockReason":""},7]}"#, Some("locked: ?, ?, ?"));
        check(
            r#""Tags":{"Tag":[{"TagKey":"acs:autoscaling:scalingGroupId","TagValue":"asg-1"}]}"#,
            Some("in the scaling group asg-1"),
        );
    }

    #[test]
    fn an_empty_key_pair_name_is_no_key_pair() {
        for fields in
            [r#""Status":"Running","KeyPairName":"","StartTime":"""#, r#""Status":"Running","KeyPairName":null"#]
        {
            let instance = one(fields);
            assert_eq!((instance.keys, instance.boot), (Vec::new(), None));
        }
    }

    #[test]
    fn rubbish_is_never_an_empty_list() {
        type Refuses = fn(&[u8]) -> bool;
        let all: [(&str, Refuses); 7] = [
            ("instances", |body| instances(body).is_err()),
            ("key pairs", |body| key_pairs(body).is_err()),
            ("tag resources", |body| tag_resources(body).is_err()),
            ("imported", |body| imported(body).is_err()),
            ("attached", |body| attached(body).is_err()),
            ("powered", |body| powered(body).is_err()),
            ("deleted", |body| deleted(body).is_err()),
        ];
        for (name, is_error) in all {
            for body in ["", "<html>502</html>", "[]", "null", "7", r#"{"RequestId":"#] {
                assert!(is_error(body.as_bytes()), "{name}: {body:?}");
            }
        }
        for body in ["{}", r#"{"Instances":[]}"#, r#"{"Instances":{}}"#, r#"{"Instances":{"Instance":null}}"#] {
            assert!(instances(body.as_bytes()).is_err(), "{body}");
        }
        assert!(instances(br#"{"Instances":{"Instance":[{"InstanceId":7,"Status":"Running"}]}}"#).is_err());
        assert!(instances(br#"{"Instances":{"Instance":[{"InstanceId":"","Status":"Running"}]}}"#).is_err());
        assert!(instances(br#"{"Instances":{"Instance":[{"InstanceId":"i-1"}]}}"#).is_err());
        assert!(key_pairs(br#"{"KeyPairs":{"KeyPair":[]}}"#).is_err());
        assert!(tag_resources(br#"{"TagResources":[]}"#).is_err());
        assert!(attached(br#"{"RequestId":"R","Results":"none"}"#).is_err());
        assert!(attached(br#"{"RequestId":"R","Results":{"Result":{}}}"#).is_err());
        assert!(attached(b"{}").is_err() && powered(b"{}").is_err(), "every answer of ECS has a request id");
        assert!(attached(br#"{"RequestId":"R","Results":{"Result":[{"Success":true}]}}"#).is_err());
    }

    #[test]
    fn an_instance_is_taken_only_on_success_and_code_200() {
        let check = |element: &str, taken: bool| {
            let body = format!(r#"{{"RequestId":"R","Results":{{"Result":[{{"InstanceId":"i-1",{element}}}]}}}}"#);
            let outcome = attached(body.as_bytes()).unwrap().outcomes.remove(0);
            assert_eq!((outcome.instance.as_str(), outcome.refusal.is_none()), ("i-1", taken), "{element}");
        };
        check(r#""Success":"true","Code":"200","Message":"successful""#, true);
        check(r#""Success":true,"Code":200"#, true);
        check(r#""Success":"True","Code":200"#, true);
        check(r#""Success":true,"Code":"403","Message":"AccessDenied""#, false);
        check(r#""Success":false,"Code":"200""#, false);
        check(r#""Success":"true""#, false);
        check(r#""Success":"true","Code":true"#, false);
        check(r#""Code":"200""#, false);
        check(r#""Success":null,"Code":null"#, false);
    }

    #[test]
    fn a_power_answer_is_read_one_by_one_and_may_lack_elements() {
        let body = br#"{"RequestId":"R","InstanceResponses":{"InstanceResponse":[
            {"InstanceId":"i-1","Code":"200","Message":"success","CurrentStatus":"Stopping","PreviousStatus":"Running"},
            {"InstanceId":"i-2","Code":"IncorrectInstanceStatus","Message":"not so"}]}}"#;
        let refusal = Some(("IncorrectInstanceStatus".to_string(), "not so".to_string()));
        let expect = Changed {
            request_id: Some("R".to_string()),
            outcomes: vec![
                Outcome { instance: "i-1".into(), refusal: None },
                Outcome { instance: "i-2".into(), refusal },
            ],
        };
        assert_eq!(powered(body), Ok(expect));
        let expect = Changed { request_id: Some("R".to_string()), outcomes: Vec::new() };
        for rest in [
            "",
            r#","InstanceResponses":null"#,
            r#","InstanceResponses":{}"#,
            r#","InstanceResponses":{"InstanceResponse":null}"#,
        ] {
            assert_eq!(powered(format!(r#"{{"RequestId":"R"{rest}}}"#).as_bytes()), Ok(expect.clone()), "{rest}");
        }
        for rest in ["", r#","Results":null"#, r#","Results":{}"#, r#","Results":{"Result":null},"FailCount":"0""#] {
            assert_eq!(attached(format!(r#"{{"RequestId":"R"{rest}}}"#).as_bytes()), Ok(expect.clone()), "{rest}");
        }
    }

    #[test]
    fn tag_rows_name_each_instance_once() {
        let body = br#"{"NextToken":"caeba0","RequestId":"R","TagResources":{"TagResource":[
            {"TagValue":"web","ResourceType":"instance","ResourceId":"i-2","TagKey":"role"},
            {"TagValue":"prod","ResourceType":"instance","ResourceId":"i-2","TagKey":"env"},
            {"TagValue":"web","ResourceType":"instance","ResourceId":"i-1","TagKey":"role"}]}}"#;
        let expect = Page { items: vec!["i-1".into(), "i-2".into()], next: Some("caeba0".to_string()), total: None };
        assert_eq!(tag_resources(body), Ok(expect));
    }

    #[test]
    fn an_unreadable_public_key_is_no_public_key() {
        let body = br#"{"TotalCount":2,"KeyPairs":{"KeyPair":[
            {"KeyPairName":"a","KeyPairFingerPrint":"x","PublicKey":"rubbish"},{"KeyPairName":"b"}]}}"#;
        let page = key_pairs(body).unwrap();
        assert_eq!(page.total, Some(2));
        assert!(page.items.iter().all(|pair| pair.public_key.is_none() && pair.id.as_str() == pair.name.as_str()));
    }

    #[test]
    fn ids_are_written_as_a_json_array() {
        assert_eq!(json_list(["i-1", "i\"2"]), r#"["i-1","i\"2"]"#);
        assert_eq!(json_list([]), "[]");
    }
}
