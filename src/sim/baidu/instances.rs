//! What BCC shows of its machines: the listing with its marker, the listing by ids, one machine.
//! It must never show a guest's truth: only the record, as old as the world's visibility lag makes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::route;
use crate::sim::cloud::Cloud;
use crate::sim::door::Call;
use crate::sim::machine::{Machine, Os, Power, View};
use crate::sim::world::World;

/// The status as BCC names it. `Rebooting` is in no list (FACTS 5.1, unconfirmed): a reboot shows as `Starting`.
fn status(power: Power) -> &'static str {
    match power {
        Power::Running => "Running",
        Power::Starting | Power::Rebooting | Power::Pending => "Starting",
        Power::Stopping => "Stopping",
        Power::Stopped => "Stopped",
        Power::Isolated => "Expired",
        Power::Gone => "Deleted",
    }
}

/// GET /v2/instance and POST /v2/instance/listByInstanceId. Filters are all to hold; the values of one are
/// alternatives, except `tags` (`key:value` or `key`), which are all to be there.
pub(super) fn list(
    world: &mut World,
    call: &Call<'_>,
    read: &route::Call,
    ids: Option<Vec<String>>,
) -> Result<Value, Refused> {
    let (cloud, now, size) = (world.cloud(call.cloud), world.now(), read.max_keys()?);
    let among = |name: &str, value: &str| read.comma_list(name).is_none_or(|list| list.contains(&value));
    let tagged = |machine: &Machine| {
        let has = |key: &str, value: Option<&str>| {
            machine.tags.iter().any(|(has, is)| has == key && value.is_none_or(|value| value == is))
        };
        read.comma_list("tags").is_none_or(|wanted| {
            wanted.iter().all(|tag| match tag.split_once(':') {
                Some((key, value)) => has(key, Some(value)),
                None => has(tag, None),
            })
        })
    };
    let wanted = |machine: &Machine, view: &View| {
        tagged(machine)
            && among("instanceIds", &machine.id)
            && among("instanceNames", &machine.name)
            && among("status", status(view.power))
            && among("internalIp", &machine.private_address)
            && among("privateIps", &machine.private_address)
            && among("zoneName", &machine.zone)
            && among("keypairId", view.keys.first().map_or("", String::as_str))
            && read.query("fuzzyInstanceName").is_none_or(|part| machine.name.contains(part))
    };
    let marker = read.query("marker");
    let begin = match marker {
        None => 0,
        // The machine that a marker names may be gone by now: its place is kept.
        Some(id) => (cloud.machines().iter().position(|machine| machine.id == id))
            .ok_or_else(|| refused("InvalidHTTPRequest", "The marker is not one that was given."))?,
    };
    let places: Vec<usize> = match &ids {
        Some(ids) => BTreeSet::from_iter(ids.iter().filter_map(|id| cloud.position(id))).into_iter().collect(),
        None => (begin..cloud.machines().len()).collect(),
    };
    let mut found: Vec<(&Machine, View)> = (places.into_iter().filter(|place| *place >= begin))
        .map(|place| &cloud.machines()[place])
        .filter(|machine| machine.power != Power::Gone)
        .map(|machine| (machine, machine.view(now)))
        .filter(|(machine, view)| wanted(machine, view))
        .take(size + 1)
        .collect();
    let next = (found.len() > size).then(|| found.pop()).flatten().map(|(machine, _)| &machine.id);
    let list: Vec<Value> = found.iter().map(|(machine, view)| instance(cloud, machine, view)).collect();
    let mut body = json!({
        "marker": marker.unwrap_or_default(),
        "isTruncated": next.is_some(),
        "maxKeys": size,
        "instances": list,
    });
    if let Some(next) = next {
        body["nextMarker"] = next.as_str().into();
    }
    Ok(body)
}

/// GET /v2/instance/{id}. No page names the code for an unknown id: the keypair actions' is taken.
pub(super) fn get(world: &mut World, call: &Call<'_>, id: &str) -> Result<Value, Refused> {
    let cloud = world.cloud(call.cloud);
    let machine = cloud.machine(id).ok_or_else(|| missing(id))?;
    Ok(json!({ "instance": instance(cloud, machine, &machine.view(world.now())) }))
}

/// The refusal for an instance that does not exist.
pub(super) fn missing(id: &str) -> Refused {
    refused("Keypair.InstanceNotExist", format!("The instance {id} does not exist."))
}

fn instance(cloud: &Cloud, machine: &Machine, view: &View) -> Value {
    let key = view.keys.first().map_or("", String::as_str);
    let tags: Vec<Value> =
        machine.tags.iter().map(|(key, value)| json!({ "tagKey": key, "tagValue": value })).collect();
    let os = if machine.os == Os::Windows { ("Windows Server", "2022 DataCenter") } else { ("Debian", "12.5") };
    let stopped = view.power == Power::Stopped;
    json!({
        "id": machine.id,
        "name": machine.name,
        "hostname": machine.name,
        "desc": "",
        "status": status(view.power),
        "chargeStatus": if stopped && machine.no_charge { "noCharge" } else { "charge" },
        "paymentTiming": if machine.spot { "bidding" } else { "Postpaid" },
        "localDiskSizeInGB": if machine.local_disk { 447 } else { 0 },
        "createTime": machine.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "expireTime": "",
        "publicIp": if stopped && machine.no_charge { "" } else { &machine.public_address },
        "internalIp": machine.private_address,
        "ipv6": "",
        "keypairId": key,
        "keypairName": cloud.key_pair(key).map_or("", |pair| &pair.name),
        "tags": tags,
        "osName": os.0,
        "osVersion": os.1,
        "osArch": "x86_64 (64bit)",
        "imageId": format!("m-{}", machine.image + 1),
        "imageName": format!("{} {}", os.0, os.1),
        "imageType": "System",
        "vpcId": "vpc-1",
        "zoneName": machine.zone,
        "roleName": "",
    })
}
