//! Lighthouse, API 2020-03-24, as the international site serves it (FACTS §2.2): no AssociateType, no Tags on import.
//! A bind shuts a running machine down and leaves it so.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::listing::{self, Filter, IDS_MAX, Rules, latest_operation, moment, state};
use super::{KEY_NAME_MAX, Product, Refused, broken, legal_name, params, refused, tags_json, twice, well_formed};
use crate::provider::http::transport::{Request, Response};
use crate::sim::cloud::Rule::{Limit, Malformed, State};
use crate::sim::door::{Call, Face};
use crate::sim::keys::{KeyPair, read_public_line};
use crate::sim::machine::{self, Course, Machine, Os, Power, Step};
use crate::sim::world::World;

/// The Lighthouse face.
pub(in crate::sim) struct Lighthouse;

impl Face for Lighthouse {
    fn action(&self, request: &Request) -> String {
        super::action(request)
    }
    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        super::answer::<Self>(world, call)
    }
    fn throttled(&self, request_id: &str) -> Response {
        super::throttled(request_id)
    }
    fn internal_error(&self, request_id: &str) -> Response {
        super::internal_error(request_id)
    }
}

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

impl Product for Lighthouse {
    const SERVICE: &'static str = "lighthouse";
    const VERSION: &'static str = "2020-03-24";
    const ACTIONS: &'static [(&'static str, Option<u32>)] = &[
        ("DescribeInstances", None),
        ("DescribeInstancesDeniedActions", None),
        ("DescribeKeyPairs", Some(100)),
        ("ImportKeyPair", Some(10)),
        ("DeleteKeyPairs", Some(10)),
        ("AssociateInstancesKeyPairs", Some(10)),
        ("DisassociateInstancesKeyPairs", Some(20)),
        ("StopInstances", Some(10)),
        ("StartInstances", Some(10)),
        ("RebootInstances", Some(10)),
        ("DescribeGeneralResourceQuotas", None),
        ("DescribeRegions", None),
    ];

    fn act(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
        match call.action {
            "DescribeInstances" => describe_instances(world, call),
            "DescribeInstancesDeniedActions" => denied_actions(world, call),
            "DescribeKeyPairs" => describe_key_pairs(world, call),
            "ImportKeyPair" => import(world, call),
            "DeleteKeyPairs" => delete(world, call),
            "AssociateInstancesKeyPairs" => bind(world, call, true),
            "DisassociateInstancesKeyPairs" => bind(world, call, false),
            "StopInstances" => power(world, call, &[Power::Running], machine::stop),
            "StartInstances" => power(world, call, &[Power::Stopped], machine::start),
            "RebootInstances" => power(world, call, &[Power::Running], machine::reboot),
            "DescribeGeneralResourceQuotas" => quotas(world, call),
            _ => regions(world, call),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeInstances {
    instance_ids: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
    offset: Option<i64>,
    limit: Option<i64>,
}

fn describe_instances(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: DescribeInstances = params(call)?;
    const KNOWN: [&str; 6] =
        ["instance-name", "private-ip-address", "public-ip-address", "zone", "instance-state", "bundle-id"];
    let query = RULES.query(asked.instance_ids, asked.filters, (asked.offset, asked.limit), &KNOWN)?;
    malformed(&query.ids)?;
    let (total, page) = query.page(query.machines(world.cloud(call.cloud), world.now()));
    let rows: Vec<Value> = page.into_iter().map(|machine| row(machine, world.now())).collect();
    Ok(json!({ "TotalCount": total, "InstanceSet": rows }))
}

fn row(machine: &Machine, now: jiff::Timestamp) -> Value {
    let view = machine.view(now);
    let linux = machine.os == Os::Linux;
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| row.insert(name.to_string(), value);
    put("InstanceId", json!(machine.id));
    put("InstanceName", json!(machine.name));
    put("BundleId", json!(listing::BUNDLE));
    put("InstanceState", json!(state(view.power)));
    put("InstanceRestrictState", json!("NORMAL"));
    put("InstanceChargeType", json!(listing::CHARGE_TYPE));
    put("LoginSettings", json!({ "KeyIds": view.keys }));
    put("PrivateAddresses", json!([machine.private_address]));
    put("PublicAddresses", json!([machine.public_address]));
    put("PlatformType", json!(if linux { "LINUX_UNIX" } else { "WINDOWS" }));
    put("Platform", json!(if linux { "DEBIAN" } else { "WINDOWS" }));
    put("OsName", json!(if linux { "Debian 12 64bit" } else { "Windows Server 2022 64bit" }));
    put("Zone", json!(machine.zone));
    put("Uuid", json!(listing::uuid(machine)));
    put("CreatedTime", json!(moment(machine.created)));
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

fn describe_key_pairs(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
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

fn import(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
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

fn delete(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
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
struct Bind {
    instance_ids: Vec<String>,
    key_ids: Vec<String>,
}

fn bind(world: &mut World, call: &Call<'_>, attach: bool) -> Result<Value, Refused> {
    let Bind { instance_ids, key_ids } = params(call)?;
    check_ids(&key_ids, IDS_MAX)?;
    malformed_keys(&key_ids)?;
    if world.cloud(call.cloud).lines(&key_ids).is_none() {
        return Err(refused("ResourceNotFound.KeyIdNotFound", "no such key pair"));
    }
    let good = |machine: &Machine| {
        if machine.os == Os::Windows {
            let code = "UnsupportedOperation.WindowsNotAllowToAssociateKeyPair";
            return Err(broken(State, code, "a Windows instance takes no key pair"));
        }
        if attach && machine.poisoned {
            // The code of both lists that says for good, and says it of one instance.
            let code = "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation";
            return Err(refused(code, "the instance's area does not support this"));
        }
        allowed(machine, &[Power::Running, Power::Stopped])?;
        if attach && key_ids.iter().any(|key| machine.record_keys.contains(key)) {
            return Err(refused("UnsupportedOperation.KeyPairBindDuplicate", "the key pair is bound already"));
        }
        if !attach && !key_ids.iter().all(|key| machine.record_keys.contains(key)) {
            return Err(refused("UnsupportedOperation.KeyPairNotBoundToInstance", "the key pair is not bound"));
        }
        Ok(())
    };
    let course = |world: &mut World, at: usize| {
        let time = world.settings.operation_time;
        let machine = &world.cloud(call.cloud).machines()[at];
        let kept = || machine.record_keys.iter().filter(|key| !key_ids.contains(key)).cloned().collect();
        let keys: Vec<String> = if attach { key_ids.clone() } else { kept() };
        let mut course = Course::new();
        if machine.power == Power::Running {
            course.push((Duration::ZERO, Step::Power(Power::Stopping)));
            course.push((time, Step::Power(Power::Stopped)));
        }
        course.extend(world.rekey(call.cloud, &keys, time));
        course.push((time, Step::Done));
        course
    };
    on_each(world, call, &instance_ids, good, course)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Operate {
    instance_ids: Vec<String>,
    stop_type: Option<String>,
}

fn power(world: &mut World, call: &Call<'_>, from: &[Power], how: fn(Duration) -> Course) -> Result<Value, Refused> {
    let Operate { instance_ids, stop_type } = params(call)?;
    if let Some(stop_type) = stop_type {
        if call.action == "StartInstances" {
            return Err(broken(Malformed, "UnknownParameter", "StopType"));
        }
        if !["SOFT", "HARD", "SOFT_FIRST"].contains(&stop_type.as_str()) {
            return Err(broken(Malformed, "InvalidParameterValue", format!("StopType {stop_type}")));
        }
    }
    on_each(world, call, &instance_ids, |machine| allowed(machine, from), |world, _| how(world.settings.operation_time))
}

/// [`super::on_each`] with Lighthouse's checks of the ids.
fn on_each(
    world: &mut World,
    call: &Call<'_>,
    ids: &[String],
    good: impl Fn(&Machine) -> Result<(), Refused>,
    course: impl Fn(&mut World, usize) -> Course,
) -> Result<Value, Refused> {
    check_ids(ids, IDS_MAX)?;
    malformed(ids)?;
    super::on_each(world, call, ids, "ResourceNotFound.InstanceIdNotFound", good, course)
}

/// Whether a machine may be operated on: nothing under way, and one of these states.
fn allowed(machine: &Machine, states: &[Power]) -> Result<(), Refused> {
    if machine.power == Power::Pending {
        return Err(refused("OperationDenied.InstanceCreating", "the instance is being made"));
    }
    if machine.is_busy() {
        return Err(refused("OperationDenied.InstanceOperationInProgress", "another operation is under way"));
    }
    if !states.contains(&machine.power) {
        let message = format!("the instance is {}", state(machine.power));
        return Err(broken(State, "UnsupportedOperation.InvalidInstanceState", message));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ByIds {
    instance_ids: Vec<String>,
}

fn denied_actions(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
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

fn quotas(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
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

fn regions(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let Nothing {} = params(call)?;
    let region = &world.cloud(call.cloud).region;
    let row = json!({ "Region": region, "RegionName": region, "RegionState": "AVAILABLE", "IsChinaMainland": false });
    Ok(json!({ "TotalCount": 1, "RegionSet": [row] }))
}

fn check_ids(ids: &[String], max: usize) -> Result<(), Refused> {
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

fn malformed(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "lhins-")) {
        Some(id) => Err(broken(Malformed, "InvalidParameterValue.InstanceIdMalformed", id)),
        None => Ok(()),
    }
}

fn malformed_keys(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "lhkp-")) {
        Some(id) => Err(broken(Malformed, "InvalidParameterValue.KeyPairIdMalformed", id)),
        None => Ok(()),
    }
}
