//! Lighthouse's looks and key pairs: DescribeInstances, DescribeInstancesDeniedActions, DescribeKeyPairs, ImportKeyPair,
//! DeleteKeyPairs, quotas and regions (FACTS §2.2). Nothing in here disturbs a machine.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lighthouse::allowed;
use super::listing::{self, Filter, IDS_MAX, Rules, addresses, latest_operation, moment, state};
use super::{KEY_NAME_MAX, Refused, broken, legal_name, params, refused, tags_json, twice, well_formed};
use crate::sim::cloud::Rule::{Limit, Malformed};
use crate::sim::door::Call;
use crate::sim::keys::{KeyPair, read_public_line};
use crate::sim::machine::{Machine, Os, Power};
use crate::sim::world::{World, later};

/// Key pairs a delete call may name.
const DELETE_MAX: usize = 10;

const RULES: Rules = Rules {
    values_max: 100,
    bad_filter: "InvalidParameter.InvalidFilter",
    too_many_values: "InvalidParameter.InvalidFilter",
    bad_limit: "InvalidParameterValue.OutOfRange",
    bad_offset: "InvalidParameterValue.Negative",
    conflict: "InvalidParameter.ParameterConflict",
    too_many_ids: "InvalidParameterValue.LimitExceeded",
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeInstances {
    instance_ids: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
    offset: Option<i64>,
    limit: Option<i64>,
    order_field: Option<String>,
    order: Option<String>,
}

pub(super) fn describe_instances(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: DescribeInstances = params(call)?;
    const KNOWN: [&str; 6] =
        ["instance-name", "private-ip-address", "public-ip-address", "zone", "instance-state", "bundle-id"];
    let query = RULES.query(asked.instance_ids, asked.filters, (asked.offset, asked.limit), &KNOWN)?;
    malformed(&query.ids)?;
    let mut machines: Vec<&Machine> = query.machines(world.cloud(call.cloud), world.now()).collect();
    match (asked.order_field.as_deref(), asked.order.as_deref()) {
        (None, None) => {}
        (Some("EXPIRED_TIME"), order @ (None | Some("ASC" | "DESC"))) => {
            machines.sort_by_key(|machine| expires(machine));
            if order == Some("DESC") {
                machines.reverse();
            }
        }
        _ => return Err(broken(Malformed, "InvalidParameterValue", "OrderField is EXPIRED_TIME, Order ASC or DESC")),
    }
    let (total, page) = query.page(machines.into_iter());
    let rows: Vec<Value> = page.into_iter().map(|machine| row(machine, world.now())).collect();
    Ok(json!({ "TotalCount": total, "InstanceSet": rows }))
}

/// Every machine here is paid for thirty days.
fn expires(machine: &Machine) -> jiff::Timestamp {
    later(machine.created, Duration::from_secs(30 * 86_400))
}

fn row(machine: &Machine, now: jiff::Timestamp) -> Value {
    let view = machine.view(now);
    let linux = machine.os == Os::Linux;
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| row.insert(name.to_string(), value);
    put("InstanceId", json!(machine.id));
    put("InstanceName", json!(machine.name));
    // The same after a ResetInstance: only the latest operation tells.
    put("BlueprintId", json!("lhbp-1"));
    put("BundleId", json!(listing::BUNDLE));
    put("InstanceState", json!(state(view.power)));
    put("InstanceRestrictState", json!("NORMAL"));
    put("InstanceChargeType", json!(listing::CHARGE_TYPE));
    put("LoginSettings", json!({ "KeyIds": view.keys }));
    put("PrivateAddresses", addresses(&machine.private_address));
    put("PublicAddresses", addresses(&machine.public_address));
    put("PlatformType", json!(if linux { "LINUX_UNIX" } else { "WINDOWS" }));
    put("Platform", json!(if linux { "DEBIAN" } else { "WINDOWS" }));
    put("OsName", json!(if linux { "Debian 12 64bit" } else { "Windows Server 2022 64bit" }));
    put("Zone", json!(machine.zone));
    put("Uuid", json!(listing::uuid(machine)));
    put("CreatedTime", json!(moment(machine.created)));
    put("ExpiredTime", json!(moment(expires(machine))));
    put("Tags", tags_json(&machine.tags));
    for (name, value) in latest_operation(view.operation.as_ref()) {
        put(name, value);
    }
    put("LatestOperationStartedTime", json!(view.operation.map(|operation| moment(operation.started))));
    Value::Object(row)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeKeyPairs {
    key_ids: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
    offset: Option<i64>,
    limit: Option<i64>,
}

pub(super) fn describe_key_pairs(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: DescribeKeyPairs = params(call)?;
    // Five values here, a hundred for instances (FACTS §2.2).
    let rules = Rules { values_max: 5, ..RULES };
    let query = rules.query(asked.key_ids, asked.filters, (asked.offset, asked.limit), &["key-id", "key-name"])?;
    malformed_keys(&query.ids)?;
    let cloud = world.cloud(call.cloud);
    let takes = |filter: &Filter, pair: &KeyPair| match filter.name() {
        "key-id" => filter.has(&pair.id),
        "key-name" => filter.has_part_of(&pair.name),
        _ => filter.takes_tags(&pair.tags).unwrap_or(false),
    };
    let (total, page) = query.page(cloud.key_pairs().iter().filter(|pair| {
        (query.ids.is_empty() || query.ids.contains(&pair.id)) && query.filters.iter().all(|filter| takes(filter, pair))
    }));
    let bound = cloud.bound();
    let rows: Vec<Value> = page
        .into_iter()
        .map(|pair| {
            json!({
                "KeyId": pair.id,
                "KeyName": pair.name,
                "PublicKey": pair.public_key,
                "AssociatedInstanceIds": bound.get(pair.id.as_str()).cloned().unwrap_or_default(),
                "CreatedTime": moment(pair.created),
                "Tags": tags_json(&pair.tags),
                // The vendor's sample shows the word, not the value.
                "PrivateKey": "null",
            })
        })
        .collect();
    Ok(json!({ "TotalCount": total, "KeyPairSet": rows }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Import {
    key_name: String,
    public_key: String,
}

pub(super) fn import(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: Import = params(call)?;
    let code = |end: &str| format!("InvalidParameterValue.{end}");
    let name = asked.key_name.as_str();
    if name.is_empty() {
        return Err(broken(Malformed, &code("InvalidKeyPairNameEmpty"), "the name is empty"));
    }
    if name.len() > KEY_NAME_MAX {
        return Err(broken(Malformed, &code("InvalidKeyPairNameTooLong"), "the name is longer than 25"));
    }
    if !legal_name(name) {
        return Err(broken(Malformed, &code("InvalidKeyPairNameIncludeIllegalChar"), "digits, letters and _ only"));
    }
    let key = read_public_line(&asked.public_key)
        .filter(|key| key.algorithm == "ssh-rsa")
        .ok_or_else(|| broken(Malformed, &code("KeyPairPublicKeyMalformed"), "the public key is not OpenSSH RSA"))?;
    let cloud = world.cloud(call.cloud);
    if cloud.key_pairs().iter().any(|pair| pair.name == name) {
        return Err(refused(&code("DuplicateParameterValue"), "the name is taken"));
    }
    if cloud.key_pairs().iter().any(|pair| pair.line == key.line) {
        return Err(refused(&code("KeyPairPublicKeyDuplicated"), "the public key exists"));
    }
    if cloud.key_pairs().len() >= cloud.key_pairs_max {
        return Err(refused("LimitExceeded.KeyPairLimitExceeded", "too many key pairs in this region"));
    }
    let id = world.add_key_pair(call.cloud, name, &key.line);
    Ok(json!({ "KeyId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Delete {
    key_ids: Vec<String>,
}

pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let Delete { key_ids } = params(call)?;
    check_ids(&key_ids, DELETE_MAX)?;
    malformed_keys(&key_ids)?;
    let cloud = world.cloud(call.cloud);
    let bound = cloud.bound();
    for id in &key_ids {
        let pair = cloud.key_pair(id).ok_or_else(|| refused("ResourceNotFound.KeyIdNotFound", "no such key pair"))?;
        if bound.contains_key(id.as_str()) || world.is_being_bound(call.cloud, id) {
            return Err(refused("ResourceInUse.KeyPairInUse", "the key pair is bound to an instance"));
        }
        if pair.in_image {
            return Err(refused("UnsupportedOperation.KeyPairBindToBlueprints", "a custom image names the key pair"));
        }
    }
    world.delete_key_pairs(call.cloud, &key_ids);
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ByIds {
    instance_ids: Vec<String>,
}

pub(super) fn denied_actions(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let ByIds { instance_ids } = params(call)?;
    check_ids(&instance_ids, IDS_MAX)?;
    malformed(&instance_ids)?;
    let mut set = Vec::new();
    for id in &instance_ids {
        let machine = world.cloud(call.cloud).machine(id);
        let machine = machine.ok_or_else(|| refused("ResourceNotFound.InstanceIdNotFound", "no such instance"))?;
        let stopped_or_running = [Power::Running, Power::Stopped];
        let checks: [(&str, &[Power]); 5] = [
            ("AssociateInstancesKeyPairs", &stopped_or_running),
            ("DisassociateInstancesKeyPairs", &stopped_or_running),
            ("StopInstances", &[Power::Running]),
            ("StartInstances", &[Power::Stopped]),
            ("RebootInstances", &[Power::Running]),
        ];
        let mut denied = Vec::new();
        for (action, states) in checks {
            let windows = machine.os == Os::Windows && action.ends_with("KeyPairs");
            let refusal = machine.refuses(action).map(|code| refused(code, "the instance does not take this"));
            let refusal = refusal
                .or(windows.then(|| refused("UnsupportedOperation.WindowsNotSupportKeyPair", "Windows")))
                .or(allowed(machine, states).err());
            if let Some(Refused { code, message, .. }) = refusal {
                denied.push(json!({ "Action": action, "Code": code, "Message": message }));
            }
        }
        set.push(json!({ "InstanceId": id, "DeniedActions": denied }));
    }
    Ok(json!({ "InstanceDeniedActionSet": set }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Quotas {
    resource_names: Vec<String>,
}

pub(super) fn quotas(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let Quotas { resource_names } = params(call)?;
    let cloud = world.cloud(call.cloud);
    let total = cloud.key_pairs_max;
    let set = resource_names.iter().map(|name| match name.as_str() {
        "USER_KEY_PAIR" => Ok(json!({
            "ResourceName": name,
            "ResourceQuotaAvailable": total.saturating_sub(cloud.key_pairs().len()),
            "ResourceQuotaTotal": total,
        })),
        other => Err(broken(Malformed, "InvalidParameterValue", format!("resource name {other}"))),
    });
    Ok(json!({ "GeneralResourceQuotaSet": set.collect::<Result<Vec<_>, _>>()? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) fn regions(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let Nothing {} = params(call)?;
    let region = &world.cloud(call.cloud).region;
    let row = json!({ "Region": region, "RegionName": region, "RegionState": "AVAILABLE", "IsChinaMainland": false });
    Ok(json!({ "TotalCount": 1, "RegionSet": [row] }))
}

pub(super) fn check_ids(ids: &[String], max: usize) -> Result<(), Refused> {
    if ids.is_empty() {
        return Err(broken(Malformed, "MissingParameter", "no ids"));
    }
    if ids.len() > max {
        return Err(broken(Limit, "InvalidParameterValue.LimitExceeded", format!("{} ids, at most {max}", ids.len())));
    }
    if twice(ids) {
        return Err(broken(Malformed, "InvalidParameterValue.Duplicated", "an id comes twice"));
    }
    Ok(())
}

pub(super) fn malformed(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "lhins-")) {
        Some(id) => Err(broken(Malformed, "InvalidParameterValue.InstanceIdMalformed", id)),
        None => Ok(()),
    }
}

pub(super) fn malformed_keys(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "lhkp-")) {
        Some(id) => Err(broken(Malformed, "InvalidParameterValue.KeyPairIdMalformed", id)),
        None => Ok(()),
    }
}
