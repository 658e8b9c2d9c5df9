//! Tencent's answers as they come over the wire, and their reading as rekeyd's words. Pure. Lenient where the vendor
//! is (`null` for an empty list, a field that one of the two APIs lacks), strict elsewhere: a wrong type is an error.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::{Image, InstanceId, KeyPairId, KeyPairName, PublicKey};
use crate::provider::http::answer::first_address;
use crate::provider::{Hazard, Instance, KeyPair, Operation, Power};

/// `{"Response": …}`.
#[derive(Deserialize)]
pub(super) struct Envelope {
    #[serde(rename = "Response")]
    pub response: Value,
}

/// The part of an answer that says whether it is well.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outcome {
    pub error: Option<Refusal>,
    pub request_id: Option<String>,
}

/// `Response.Error`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Refusal {
    pub code: String,
    #[serde(default, deserialize_with = "or_default")]
    pub message: String,
}

/// One page of a listing.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    #[serde(rename = "TotalCount")]
    pub total: u64,
    #[serde(rename = "InstanceSet", alias = "KeyPairSet", deserialize_with = "or_default")]
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    pub items: Vec<T>,
}

/// The answer to an import.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Imported {
    pub key_id: String,
}

/// A key pair of either API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawKeyPair {
    pub key_id: String,
    key_name: String,
    public_key: Option<String>,
    associated_instance_ids: Option<Vec<String>>,
    /// Lighthouse, Chinese site, since 2026-05-26: the same with the user of each.
    associated_instance_set: Option<Vec<RawAssociated>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawAssociated {
    instance_id: String,
}

impl RawKeyPair {
    /// Who hangs on it, by either of the two lists; `None` if it has none of them.
    pub(super) fn associated(&self) -> Option<BTreeSet<&str>> {
        let ids = self.associated_instance_ids.iter().flatten().map(String::as_str);
        let set = self.associated_instance_set.iter().flatten().map(|one| one.instance_id.as_str());
        let told = self.associated_instance_ids.is_some() || self.associated_instance_set.is_some();
        told.then(|| ids.chain(set).collect())
    }

    pub(super) fn read(self) -> KeyPair {
        KeyPair {
            bound: self.associated().map(|ids| ids.len()),
            id: KeyPairId::new(self.key_id),
            name: KeyPairName::new(self.key_name),
            public_key: self.public_key.and_then(|text| PublicKey::parse(&text).ok()),
        }
    }
}

/// An instance of either API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawInstance {
    pub instance_id: String,
    #[serde(default, deserialize_with = "or_default")]
    instance_name: String,
    instance_state: String,
    #[serde(default, deserialize_with = "login_keys")]
    login_settings: Vec<String>,
    /// Lighthouse: LINUX_UNIX or WINDOWS.
    platform_type: Option<String>,
    os_name: Option<String>,
    /// Lighthouse.
    instance_restrict_state: Option<String>,
    /// CVM.
    restrict_state: Option<String>,
    /// CVM: STOP_CHARGING on an instance that was stopped without charging.
    stop_charging_mode: Option<String>,
    /// Lighthouse: the image's id there.
    blueprint_id: Option<String>,
    /// CVM.
    image_id: Option<String>,
    latest_operation: Option<String>,
    /// CVM: SPOTPAID is what is bought by bids.
    instance_charge_type: Option<String>,
    /// CVM.
    system_disk: Option<RawDisk>,
    /// CVM; may be null.
    data_disks: Option<Vec<RawDisk>>,
    latest_operation_state: Option<String>,
    latest_operation_request_id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<RawTag>,
    /// Lighthouse.
    zone: Option<String>,
    /// CVM.
    placement: Option<RawPlacement>,
    /// Lighthouse.
    #[serde(default)]
    private_addresses: Value,
    /// Lighthouse; may be null.
    #[serde(default)]
    public_addresses: Value,
    /// CVM.
    #[serde(default)]
    private_ip_addresses: Value,
    /// CVM; may be null.
    #[serde(default)]
    public_ip_addresses: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawTag {
    key: String,
    #[serde(default, deserialize_with = "or_default")]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawDisk {
    disk_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPlacement {
    zone: Option<String>,
}

/// What the tag keys of Tencent's auto scaling begin with. On every instance of a scaling group the service itself puts
/// `tencentcloud:autoscaling:auto-scaling-group-id` (vendor's DescribeInstances sample; resource_tc_instance.go of the
/// vendor's Terraform provider, which hides the tag; read 2026-11-22).
const SCALING_TAG: &str = "tencentcloud:autoscaling:";

impl RawInstance {
    pub(super) fn read(self) -> Instance {
        let power = power(&self.instance_state);
        let unfit = self.unfit(power);
        let image = self.image();
        let hazards = self.hazards();
        let operation =
            (self.latest_operation_state.is_some() || self.latest_operation_request_id.is_some()).then(|| Operation {
                running: self.latest_operation_state.as_deref() == Some("OPERATING"),
                failed: self.latest_operation_state.as_deref() == Some("FAILED"),
                request_id: self.latest_operation_request_id,
            });
        Instance {
            id: InstanceId::new(self.instance_id),
            name: self.instance_name,
            power,
            state: self.instance_state,
            keys: self.login_settings.into_iter().map(KeyPairId::new).collect(),
            boot: None,
            operation,
            unfit,
            hazards,
            tags: self.tags.into_iter().map(|tag| (tag.key, tag.value)).collect::<BTreeMap<_, _>>(),
            private_address: first_address(&[&self.private_addresses, &self.private_ip_addresses]),
            public_address: first_address(&[&self.public_addresses, &self.public_ip_addresses]),
            zone: self.zone.or(self.placement.and_then(|placement| placement.zone)),
            image,
        }
    }

    /// What its disk was made from. ResetInstance makes it anew, from the same image too (vendor's SDK for Python,
    /// lighthouse and cvm models, `LatestOperation` and `ResetInstance`, read 2026-11-23).
    fn image(&self) -> Option<Image> {
        let id = self.blueprint_id.clone().or(self.image_id.clone()).filter(|id| !id.is_empty())?;
        let is_reset = self.latest_operation.as_deref() == Some("ResetInstance");
        Some(Image { id, reset: self.latest_operation_request_id.clone().filter(|_| is_reset) })
    }

    /// What a stop could hurt, by the fields of CVM's Instance (tencentcloud-sdk-python-cvm 3.1.178: InstanceChargeType,
    /// SystemDisk and DataDisks of a type LOCAL_…, StopChargingMode). Lighthouse is sold for a term and its shutdown is
    /// always its own: what it shows under these names is not read ([`super::Face::hazards`]).
    fn hazards(&self) -> BTreeSet<Hazard> {
        let is = |word: &Option<String>, what: &str| word.as_deref() == Some(what);
        let mut disks = self.system_disk.iter().chain(self.data_disks.iter().flatten());
        let local = disks.any(|disk| disk.disk_type.as_ref().is_some_and(|kind| kind.starts_with("LOCAL_")));
        let shown = [
            (Hazard::Spot, is(&self.instance_charge_type, "SPOTPAID")),
            (Hazard::LocalDisk, local),
            (Hazard::StopCharging, is(&self.stop_charging_mode, "STOP_CHARGING")),
        ];
        shown.into_iter().filter(|(_, is)| *is).map(|(hazard, _)| hazard).collect()
    }

    /// Why no key pair can be bound to it, or should not be by this way.
    fn unfit(&self, power: Power) -> Option<String> {
        let windows = match &self.platform_type {
            Some(platform) => platform.eq_ignore_ascii_case("windows"),
            // CVM tells the system by its name only ("Windows Server 2022 …", "Xserver windows…").
            None => self.os_name.as_ref().is_some_and(|name| name.to_lowercase().contains("windows")),
        };
        if windows {
            return Some("Windows".to_string());
        }
        for state in [&self.instance_restrict_state, &self.restrict_state].into_iter().flatten() {
            if state != "NORMAL" {
                return Some(format!("restricted by the cloud: {state}"));
            }
        }
        if let Some(tag) = self.tags.iter().find(|tag| tag.key.starts_with(SCALING_TAG)) {
            return Some(format!("in scaling group {}: change its launch configuration", tag.value));
        }
        // error-classes.json, UnsupportedOperation.StoppedModeStopCharging: start it first.
        (power == Power::Stopped && self.stop_charging_mode.as_deref() == Some("STOP_CHARGING"))
            .then(|| "stopped without charging: start it first".to_string())
    }
}

/// The power state behind the cloud's word (FACTS 2.2). Words that we do not know are [`Power::Other`].
fn power(state: &str) -> Power {
    match state {
        "RUNNING" => Power::Running,
        "STOPPED" => Power::Stopped,
        "PENDING" | "STARTING" | "STOPPING" | "REBOOTING" => Power::Changing,
        "LAUNCH_FAILED" | "TERMINATING" | "DELETING" => Power::Gone,
        // SHUTDOWN is isolated, to be recycled, and may yet be renewed; FREEZING, rescue modes, live migration.
        _ => Power::Other,
    }
}

/// `null` is as good as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// `{"KeyIds": [...]}`, where the object or the list may be null and an empty object may be `[]` (vendor's samples).
fn login_keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct LoginSettings {
        #[serde(default, deserialize_with = "or_default")]
        key_ids: Vec<String>,
    }
    match Value::deserialize(from)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) if items.is_empty() => Ok(Vec::new()),
        settings => LoginSettings::deserialize(settings)
            .map(|settings| settings.key_ids)
            .map_err(|_| serde::de::Error::custom("LoginSettings that cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instance(fields: Value) -> Instance {
        let mut whole = json!({"InstanceId": "ins-1", "InstanceState": "RUNNING"});
        whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value::<RawInstance>(whole).unwrap().read()
    }

    #[test]
    fn every_documented_state_has_its_power() {
        let check = |power, states: &[&str]| {
            for state in states {
                let seen = instance(json!({ "InstanceState": state }));
                assert_eq!((seen.power, seen.state.as_str()), (power, *state));
            }
        };
        check(Power::Running, &["RUNNING"]);
        check(Power::Stopped, &["STOPPED"]);
        check(Power::Changing, &["PENDING", "STARTING", "STOPPING", "REBOOTING"]);
        check(Power::Gone, &["LAUNCH_FAILED", "TERMINATING", "DELETING"]);
        check(Power::Other, &["SHUTDOWN", "FREEZING", "RESCUE_MODE", "ENTER_RESCUE_MODE", "EXIT_RESCUE_MODE"]);
        check(Power::Other, &["SERVICE_LIVE_MIGRATE", "ENTER_SERVICE_LIVE_MIGRATE", "A_NEW_STATE", "", "running"]);
    }

    #[test]
    fn who_can_take_no_key_is_told_with_the_reason() {
        let check = |fields: Value, expect: Option<&str>| {
            assert_eq!(instance(fields.clone()).unfit.as_deref(), expect, "{fields}");
        };
        check(json!({}), None);
        check(json!({"PlatformType": "LINUX_UNIX", "OsName": "windows-like Linux"}), None);
        check(json!({"PlatformType": "WINDOWS"}), Some("Windows"));
        check(json!({"OsName": "CentOS 7.4 64bit", "RestrictState": "NORMAL"}), None);
        check(json!({"OsName": "Xserver WINDOWS 2016"}), Some("Windows"));
        check(json!({"InstanceRestrictState": "NETWORK_RESTRICT"}), Some("restricted by the cloud: NETWORK_RESTRICT"));
        check(json!({"RestrictState": "EXPIRED"}), Some("restricted by the cloud: EXPIRED"));
        let tag = json!([{"Key": "tencentcloud:autoscaling:auto-scaling-group-id", "Value": "asg-2tayppxt"}]);
        check(json!({ "Tags": tag }), Some("in scaling group asg-2tayppxt: change its launch configuration"));
        let unbilled = Some("stopped without charging: start it first");
        check(json!({"InstanceState": "STOPPED", "StopChargingMode": "STOP_CHARGING"}), unbilled);
        check(json!({"InstanceState": "RUNNING", "StopChargingMode": "STOP_CHARGING"}), None);
        check(json!({"InstanceState": "STOPPED", "StopChargingMode": "KEEP_CHARGING"}), None);
    }

    #[test]
    fn what_a_stop_could_hurt_is_read_and_a_mistyped_word_is_an_error() {
        let check = |fields: Value, expect: &[Hazard]| {
            assert_eq!(instance(fields.clone()).hazards, expect.iter().copied().collect(), "{fields}");
        };
        check(json!({}), &[]);
        check(
            json!({"InstanceChargeType": null, "SystemDisk": null, "DataDisks": null, "StopChargingMode": null}),
            &[],
        );
        let cloud = json!({"DiskType": "CLOUD_PREMIUM", "DiskSize": 50});
        check(json!({"InstanceChargeType": "POSTPAID_BY_HOUR", "SystemDisk": cloud, "DataDisks": [cloud]}), &[]);
        check(json!({"InstanceChargeType": "SPOTPAID"}), &[Hazard::Spot]);
        check(json!({"SystemDisk": {"DiskType": "LOCAL_BASIC"}, "DataDisks": []}), &[Hazard::LocalDisk]);
        check(json!({"SystemDisk": cloud, "DataDisks": [cloud, {"DiskType": "LOCAL_NVME"}]}), &[Hazard::LocalDisk]);
        check(json!({"StopChargingMode": "NOT_APPLICABLE"}), &[]);
        check(json!({"StopChargingMode": "KEEP_CHARGING"}), &[]);
        check(json!({"StopChargingMode": "STOP_CHARGING"}), &[Hazard::StopCharging]);
        for bad in [
            json!({"InstanceChargeType": 1}),
            json!({"DataDisks": "LOCAL_PRO"}),
            json!({"SystemDisk": {"DiskType": 7}}),
        ] {
            let mut whole = json!({"InstanceId": "i", "InstanceState": "RUNNING"});
            whole.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
            assert!(serde_json::from_value::<RawInstance>(whole).is_err(), "{bad}");
        }
    }

    #[test]
    fn bound_keys_may_be_null_absent_or_many() {
        let check = |settings: Value, expect: &[&str]| {
            let keys = instance(json!({ "LoginSettings": settings })).keys;
            assert_eq!(keys, expect.iter().map(|id| KeyPairId::new(*id)).collect::<Vec<_>>());
        };
        check(Value::Null, &[]);
        check(json!([]), &[]);
        check(json!({}), &[]);
        check(json!({"KeyIds": null}), &[]);
        check(json!({"KeyIds": []}), &[]);
        check(json!({"KeyIds": ["skey-1", "skey-2"], "Password": null}), &["skey-1", "skey-2"]);
        for bad in [json!({"KeyIds": "skey-1"}), json!("x"), json!({"KeyIds": [1]}), json!([1])] {
            let whole = json!({"InstanceId": "i", "InstanceState": "RUNNING", "LoginSettings": bad});
            assert!(serde_json::from_value::<RawInstance>(whole).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_latest_operation_is_read_where_there_is_one() {
        let check = |fields: Value, expect: Option<(Option<&str>, bool, bool)>| {
            let seen = instance(fields).operation;
            let seen = seen.as_ref().map(|seen| (seen.request_id.as_deref(), seen.running, seen.failed));
            assert_eq!(seen, expect);
        };
        check(json!({"LatestOperation": null, "LatestOperationState": null, "LatestOperationRequestId": null}), None);
        let state = |state: &str| json!({"LatestOperationState": state, "LatestOperationRequestId": "r-1"});
        check(state("OPERATING"), Some((Some("r-1"), true, false)));
        check(state("SUCCESS"), Some((Some("r-1"), false, false)));
        check(state("FAILED"), Some((Some("r-1"), false, true)));
    }

    #[test]
    fn a_key_pair_shows_its_key_and_how_many_hang_on_it() {
        let read = |fields: Value| serde_json::from_value::<RawKeyPair>(fields).unwrap().read();
        let line = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDZ0nf5aFzQS2yjCHqaDnOW6yPHWH/q9JDUCZTyAxZI";
        let seen =
            read(json!({"KeyId": "skey-1", "KeyName": "rk_a", "PublicKey": line, "AssociatedInstanceIds": null}));
        assert_eq!((seen.public_key, seen.bound), (None, None), "a cut-off key is none");
        let seen = read(json!({"KeyId": "skey-1", "KeyName": "rk_a", "AssociatedInstanceIds": ["ins-1", "ins-2"]}));
        assert_eq!((seen.id.as_str(), seen.name.as_str(), seen.bound), ("skey-1", "rk_a", Some(2)));
        let set = json!([{"InstanceId": "ins-2", "Username": "root"}, {"InstanceId": "ins-3", "Username": "ops"}]);
        let both = json!({"KeyId": "k", "KeyName": "a", "AssociatedInstanceIds": ["ins-1", "ins-2"], "AssociatedInstanceSet": set});
        assert_eq!(read(both).bound, Some(3));
        let set = json!({"KeyId": "k", "KeyName": "a", "AssociatedInstanceIds": null, "AssociatedInstanceSet": set});
        assert_eq!(read(set).bound, Some(2));
    }
}
