//! CVM's looks and key pairs: DescribeInstances, DescribeInstancesStatus, DescribeKeyPairs, ImportKeyPair, DeleteKeyPairs
//! (FACTS §2.2). Nothing in here disturbs a machine.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::listing::{self, Filter, IDS_MAX, Query, Rules, addresses, latest_operation, moment, state};
use super::{KEY_NAME_MAX, Refused, Tag, broken, legal_name, params, refused, tags_json, twice, well_formed};
use crate::sim::cloud::Rule::{Limit, Malformed};
use crate::sim::door::Call;
use crate::sim::keys::{KeyPair, read_public_line};
use crate::sim::machine::{Machine, Os, Progress};
use crate::sim::world::World;

const RULES: Rules = Rules {
    values_max: 5,
    bad_filter: "InvalidFilter",
    too_many_values: "InvalidFilterValue.LimitExceeded",
    bad_limit: "InvalidParameterValueLimit",
    bad_offset: "InvalidParameterValueOffset",
    conflict: "InvalidParameterCombination",
    too_many_ids: "InvalidParameterValue.LimitExceeded",
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeInstances {
    instance_ids: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
    offset: Option<i64>,
    limit: Option<i64>,
}

/// The filters served. The vendor has more (security-group-id, ipv6-address, creation times): nothing here would differ
/// by them, so they are refused rather than ignored.
const KNOWN: [&str; 11] = [
    "zone",
    "project-id",
    "vpc-id",
    "subnet-id",
    "instance-id",
    "uuid",
    "instance-name",
    "instance-charge-type",
    "instance-state",
    "private-ip-address",
    "public-ip-address",
];

pub(super) fn describe_instances(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: DescribeInstances = params(call)?;
    let query = RULES.query(asked.instance_ids, asked.filters, (asked.offset, asked.limit), &KNOWN)?;
    malformed(&query.ids)?;
    let cloud = world.cloud(call.cloud);
    known_tags(&query, cloud.machines().iter().flat_map(|machine| &machine.tags))?;
    let (total, page) = query.page(query.machines(cloud, world.now()));
    let rows: Vec<Value> = page.into_iter().map(|machine| row(machine, world.now())).collect();
    Ok(json!({ "TotalCount": total, "InstanceSet": rows }))
}

/// A tag key that nothing bears is an error here, not an empty result (`InvalidParameterValue.TagKeyNotFound`).
fn known_tags<'a>(query: &Query, mut tags: impl Iterator<Item = &'a (String, String)> + Clone) -> Result<(), Refused> {
    let all = tags.clone();
    for key in query.filters.iter().flat_map(Filter::tag_keys) {
        if !tags.any(|(of, _)| of == key) {
            return Err(refused("InvalidParameterValue.TagKeyNotFound", format!("tag key {key}")));
        }
        tags = all.clone();
    }
    Ok(())
}

fn row(machine: &Machine, now: jiff::Timestamp) -> Value {
    let view = machine.view(now);
    let failed = view.operation.as_ref().is_some_and(|operation| operation.progress == Progress::Failed);
    let linux = machine.os == Os::Linux;
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| row.insert(name.to_string(), value);
    put("InstanceId", json!(machine.id));
    put("InstanceName", json!(machine.name));
    put("InstanceState", json!(state(view.power)));
    put("RestrictState", json!("NORMAL"));
    put("InstanceChargeType", json!(if machine.spot { "SPOTPAID" } else { listing::CHARGE_TYPE }));
    put("InstanceType", json!(if machine.local_disk { "IT5.4XLARGE64" } else { "S5.MEDIUM2" }));
    put("SystemDisk", json!({ "DiskType": "CLOUD_PREMIUM", "DiskId": "disk-sim00001", "DiskSize": 50 }));
    // "May be null".
    let local = json!([{ "DiskType": "LOCAL_NVME", "DiskId": "", "DiskSize": 3570 }]);
    put("DataDisks", if machine.local_disk { local } else { Value::Null });
    put("Placement", json!({ "Zone": machine.zone, "ProjectId": 0 }));
    put("VirtualPrivateCloud", json!({ "VpcId": listing::VPC, "SubnetId": listing::SUBNET }));
    // "May be null" (FACTS §2.2).
    let keys = if view.keys.is_empty() { Value::Null } else { json!(view.keys) };
    put("LoginSettings", json!({ "KeyIds": keys }));
    put("PrivateIpAddresses", addresses(&machine.private_address));
    put("PublicIpAddresses", addresses(&machine.public_address));
    put("OsName", json!(if linux { "Debian 12 64bit" } else { "Windows Server 2022 64bit" }));
    put("DefaultLoginUser", json!(if linux { "root" } else { "Administrator" }));
    put("DefaultLoginPort", json!(if linux { 22 } else { 3389 }));
    put("ImageId", json!("img-1"));
    put("StopChargingMode", json!(if machine.no_charge { "STOP_CHARGING" } else { "KEEP_CHARGING" }));
    put("Uuid", json!(listing::uuid(machine)));
    put("CreatedTime", json!(moment(machine.created)));
    put("Tags", tags_json(&machine.tags));
    for (name, value) in latest_operation(view.operation.as_ref()) {
        put(name, value);
    }
    put("LatestOperationErrorMsg", if failed { json!("the operation failed") } else { Value::Null });
    Value::Object(row)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeStatus {
    instance_ids: Option<Vec<String>>,
    offset: Option<i64>,
    limit: Option<i64>,
}

pub(super) fn describe_status(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: DescribeStatus = params(call)?;
    let query = RULES.query(asked.instance_ids, None, (asked.offset, asked.limit), &[])?;
    malformed(&query.ids)?;
    let (total, page) = query.page(query.machines(world.cloud(call.cloud), world.now()));
    let row = |machine: &Machine| json!({ "InstanceId": machine.id, "InstanceState": state(machine.view(world.now()).power) });
    Ok(json!({ "TotalCount": total, "InstanceStatusSet": page.into_iter().map(row).collect::<Vec<_>>() }))
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
    let query = RULES.query(asked.key_ids, asked.filters, (asked.offset, asked.limit), &["project-id", "key-name"])?;
    malformed_keys(&query.ids)?;
    let cloud = world.cloud(call.cloud);
    known_tags(&query, cloud.key_pairs().iter().flat_map(|pair| &pair.tags))?;
    let takes = |filter: &Filter, pair: &KeyPair| match filter.name() {
        "project-id" => filter.has("0"),
        // Whether this is exact is unconfirmed (FACTS §2.2): matched by parts, the client has to compare.
        "key-name" => filter.has_part_of(&pair.name),
        _ => filter.takes_tags(&pair.tags).unwrap_or(false),
    };
    let (total, page) = query.page(cloud.key_pairs().iter().filter(|pair| {
        (query.ids.is_empty() || query.ids.contains(&pair.id)) && query.filters.iter().all(|filter| takes(filter, pair))
    }));
    let bound = cloud.bound();
    let row = |pair: &KeyPair| {
        json!({
            "KeyId": pair.id,
            "KeyName": pair.name,
            "ProjectId": 0,
            "Description": "",
            "PublicKey": pair.public_key,
            "PrivateKey": null,
            "AssociatedInstanceIds": bound.get(pair.id.as_str()).cloned().unwrap_or_default(),
            "CreatedTime": moment(pair.created),
            "Tags": tags_json(&pair.tags),
        })
    };
    Ok(json!({ "TotalCount": total, "KeyPairSet": page.into_iter().map(row).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) fn regions(world: &World, call: &Call<'_>) -> Result<Value, Refused> {
    let Nothing {} = params(call)?;
    let region = &world.cloud(call.cloud).region;
    let row = json!({ "Region": region, "RegionName": region, "RegionState": "AVAILABLE" });
    Ok(json!({ "TotalCount": 1, "RegionSet": [row] }))
}

// ---- key pairs

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Import {
    key_name: String,
    project_id: i64,
    public_key: String,
    tag_specification: Option<Vec<TagSpecification>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct TagSpecification {
    resource_type: String,
    tags: Vec<Tag>,
}

pub(super) fn import(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let asked: Import = params(call)?;
    let name = asked.key_name.as_str();
    if asked.project_id != 0 {
        return Err(broken(Malformed, "InvalidProjectId.NotFound", format!("project {}", asked.project_id)));
    }
    if name.is_empty() {
        return Err(broken(Malformed, "InvalidKeyPairNameEmpty", "the name is empty"));
    }
    if name.len() > KEY_NAME_MAX {
        return Err(broken(Malformed, "InvalidKeyPairNameTooLong", "the name is longer than 25"));
    }
    if !legal_name(name) {
        return Err(broken(Malformed, "InvalidKeyPairNameIncludeIllegalChar", "digits, letters and _ only"));
    }
    let key = read_public_line(&asked.public_key)
        .filter(|key| key.algorithm == "ssh-rsa")
        .ok_or_else(|| broken(Malformed, "InvalidPublicKey.Malformed", "the public key is not OpenSSH RSA"))?;
    let mut tags = Vec::new();
    for specification in asked.tag_specification.unwrap_or_default() {
        if specification.resource_type != "keypair" {
            return Err(broken(Malformed, "InvalidParameterValue", "ResourceType is not keypair"));
        }
        for tag in specification.tags {
            if tag.key.is_empty() || tag.key.starts_with("qcs:") {
                return Err(broken(Malformed, "FailedOperation.IllegalTagKey", tag.key));
            }
            tags.push((tag.key, tag.value));
        }
    }
    let cloud = world.cloud(call.cloud);
    if cloud.key_pairs().iter().any(|pair| pair.name == name) {
        return Err(refused("InvalidKeyPairName.Duplicate", "the name is taken"));
    }
    if cloud.key_pairs().iter().any(|pair| pair.line == key.line) {
        return Err(refused("InvalidPublicKey.Duplicate", "the public key exists"));
    }
    if cloud.key_pairs().len() >= cloud.key_pairs_max {
        return Err(refused("InvalidKeyPair.LimitExceeded", "too many key pairs"));
    }
    let id = world.add_key_pair(call.cloud, name, &key.line);
    world.tag_key_pair(call.cloud, &id, tags);
    Ok(json!({ "KeyId": id }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Delete {
    key_ids: Vec<String>,
}

/// A pair that is still bound is refused when it is named alone. Among others it is passed over in silence: "check each
/// key's deletion yourself" (FACTS §2.2).
pub(super) fn delete(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let Delete { key_ids } = params(call)?;
    check_ids(&key_ids)?;
    malformed_keys(&key_ids)?;
    let cloud = world.cloud(call.cloud);
    let bound = cloud.bound();
    let mut free = Vec::new();
    for id in &key_ids {
        let pair = cloud.key_pair(id).ok_or_else(|| refused("InvalidKeyPairId.NotFound", "no such key pair"))?;
        let used = bound.contains_key(id.as_str()) || pair.in_image || world.is_being_bound(call.cloud, id);
        if !used {
            free.push(id.clone());
        } else if key_ids.len() == 1 {
            return Err(refused("InvalidParameterValue.KeyPairNotSupported", "an instance or an image uses it"));
        }
    }
    world.delete_key_pairs(call.cloud, &free);
    Ok(json!({}))
}

// ---- what CVM checks of ids

pub(super) fn check_ids(ids: &[String]) -> Result<(), Refused> {
    if ids.is_empty() {
        return Err(broken(Malformed, "MissingParameter", "no ids"));
    }
    if ids.len() > IDS_MAX {
        return Err(broken(Limit, "InvalidParameterValue.LimitExceeded", format!("{} ids", ids.len())));
    }
    if twice(ids) {
        return Err(broken(Malformed, "InvalidParameterValue", "an id comes twice"));
    }
    Ok(())
}

pub(super) fn malformed(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "ins-")) {
        Some(id) => Err(broken(Malformed, "InvalidInstanceId.Malformed", id)),
        None => Ok(()),
    }
}

pub(super) fn malformed_keys(ids: &[String]) -> Result<(), Refused> {
    match ids.iter().find(|id| !well_formed(id, "skey-")) {
        Some(id) => Err(broken(Malformed, "InvalidKeyPairId.Malformed", id)),
        None => Ok(()),
    }
}
