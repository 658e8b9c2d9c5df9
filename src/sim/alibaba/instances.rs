//! What ECS shows of its machines: DescribeInstances, DescribeInstanceStatus, ListTagResources, DescribeRegions.
//! It must never show a guest's truth: only the record, as old as the world's visibility lag makes it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::params::Params;
use super::{matches, tagged, tags_json};
use crate::sim::canon::sha256_hex;
use crate::sim::cloud::{Cloud, Rule};
use crate::sim::door::Call;
use crate::sim::machine::{Machine, Os, Power, View};
use crate::sim::world::World;

/// The most machines that a tag filter finds (FACTS 4.1).
const TAGGED_MAX: usize = 1000;
/// Rows of a page of ListTagResources: the action has no parameter for it.
const TAG_ROWS: usize = 50;

/// More tags than any resource has: a token counts in this unit.
const ROWS_OF_ONE: usize = 1000;

/// The state as ECS names it. There is no word for a reboot: the machine stops and starts.
pub(super) fn status(power: Power) -> &'static str {
    match power {
        Power::Running => "Running",
        Power::Starting => "Starting",
        Power::Stopping | Power::Rebooting => "Stopping",
        Power::Pending => "Pending",
        Power::Stopped | Power::Isolated | Power::Gone => "Stopped",
    }
}

/// `locks` as ECS names them: security for a machine that refuses with that code, financial for an isolated one.
fn locks(machine: &Machine) -> Vec<&'static str> {
    let security = machine.refusals.iter().any(|refusal| refusal.code == "InstanceLockedForSecurity");
    let financial = machine.power == Power::Isolated;
    [("security", security), ("financial", financial)].into_iter().filter(|(_, is)| *is).map(|(lock, _)| lock).collect()
}

/// Times of an instance have no seconds ("2017-12-10T04:04Z" in the vendor's sample).
fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%MZ").to_string()
}

/// When it was started last. A machine that did not boot since it was made has run since the day before.
fn start_time(machine: &Machine, view: &View) -> String {
    let never = view.booted_at == machine.created;
    minute(if never { view.booted_at - SignedDuration::from_hours(24) } else { view.booted_at })
}

/// One page of a listing.
struct Page {
    from: usize,
    size: usize,
    /// With tokens, `TotalCount` means nothing.
    token: bool,
    number: usize,
}

/// Reads the paging of DescribeInstances: MaxResults and NextToken win over PageNumber and PageSize.
fn page(params: &Params, anchor: &str) -> Result<Page, Refused> {
    let (max, token) = (params.number("MaxResults")?, params.text("NextToken"));
    if max.is_some() || token.is_some() {
        let from = token.map_or(Ok(0), |token| read_token(token, anchor))?;
        return Ok(Page { from, size: max.unwrap_or(10).clamp(10, 100), token: true, number: 1 });
    }
    numbered_page(params, 100)
}

/// Reads PageNumber (from 1) and PageSize (10, at most `most`).
pub(super) fn numbers(params: &Params, most: usize) -> Result<(usize, usize), Refused> {
    let (number, size) = (params.number("PageNumber")?.unwrap_or(1), params.number("PageSize")?.unwrap_or(10));
    if number == 0 || !(1..=most).contains(&size) {
        let refused = refused("InvalidParameter", format!("PageNumber begins at 1, PageSize is at most {most}."));
        return Err(refused.breaking(Rule::Limit));
    }
    Ok((number, size))
}

fn numbered_page(params: &Params, most: usize) -> Result<Page, Refused> {
    let (number, size) = numbers(params, most)?;
    Ok(Page { from: (number - 1).saturating_mul(size), size, token: false, number })
}

/// A token: where to go on, bound to the filters that it was made for.
fn token(from: usize, anchor: &str) -> String {
    hex::encode(format!("{from}/{anchor}"))
}

fn read_token(token: &str, anchor: &str) -> Result<usize, Refused> {
    let text = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let from = text.as_deref().and_then(|text| text.split_once('/')).filter(|(_, of)| *of == anchor);
    from.and_then(|(from, _)| from.parse().ok())
        .ok_or_else(|| refused("InvalidParameter", "NextToken is not one that was given for this query."))
}

fn anchor(params: &Params) -> String {
    let mut digest = sha256_hex(params.without(&["NextToken", "MaxResults", "PageNumber", "PageSize"]).as_bytes());
    digest.truncate(8);
    digest
}

/// DescribeInstances. Filters are all to hold; an empty list of ids finds nothing.
pub(super) fn describe(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    let ids = params.json_list("InstanceIds", "InvalidParameter")?;
    if ids.as_ref().is_some_and(|ids| ids.len() > 100) {
        return Err(refused("InvalidParameter", "InstanceIds holds more than 100 ids.").breaking(Rule::Limit));
    }
    let tags = params.tags()?;
    let state = params.word("Status", &["Pending", "Running", "Starting", "Stopping", "Stopped"])?;
    let page = page(params, &anchor(params))?;
    if params.flag("DryRun")? {
        return Err(refused("DryRunOperation", "Request validation has been passed with DryRun flag set."));
    }
    let (cloud, now) = (world.cloud(call.cloud), world.now());
    let wanted = |machine: &Machine, view: &View| {
        state.is_none_or(|state| state == status(view.power))
            && params.text("KeyPairName").is_none_or(|name| view.keys.iter().any(|key| key == name))
            && params.text("InstanceName").is_none_or(|name| matches(name, &machine.name))
            && params.text("ZoneId").is_none_or(|zone| zone == machine.zone)
            && params.text("LockReason").is_none_or(|lock| locks(machine).contains(&lock))
    };
    let capped = !tags.is_empty() || params.text("ResourceGroupId").is_some();
    // A token names a machine's place among all that ever were: what comes and goes meanwhile moves nothing. Nobody
    // counts behind a token's page, so that a page of a large fleet costs no more than one of a small fleet.
    let (from, most) = match (page.token, capped) {
        (true, false) => (page.from, page.size + 1),
        (_, true) => (0, TAGGED_MAX),
        (false, false) => (0, usize::MAX),
    };
    let places: Vec<usize> = match &ids {
        Some(ids) => BTreeSet::from_iter(ids.iter().filter_map(|id| cloud.position(id))).into_iter().collect(),
        None => (from..cloud.machines().len()).collect(),
    };
    let found: Vec<(usize, &Machine, View)> = (places.into_iter().map(|place| (place, &cloud.machines()[place])))
        .filter(|(place, machine)| *place >= from && machine.power != Power::Gone && tagged(&machine.tags, &tags))
        .map(|(place, machine)| (place, machine, machine.view(now)))
        .filter(|(_, machine, view)| wanted(machine, view))
        .take(most)
        .collect();
    let total = found.len();
    let begin = if page.token { found.partition_point(|(place, ..)| *place < page.from) } else { page.from };
    let shown: Vec<_> = found.iter().skip(begin).take(page.size).collect();
    let next = match (shown.last(), found.get(begin + shown.len())) {
        (Some((last, ..)), Some(_)) if page.token => token(last + 1, &anchor(params)),
        _ => String::new(),
    };
    let list: Vec<Value> = shown.iter().map(|(_, machine, view)| instance(cloud, machine, view)).collect();
    Ok(json!({
        "Instances": { "Instance": list },
        "NextToken": next,
        "TotalCount": if page.token { 0 } else { total },
        "PageNumber": page.number,
        "PageSize": page.size,
    }))
}

fn instance(cloud: &Cloud, machine: &Machine, view: &View) -> Value {
    let os =
        if machine.os == Os::Windows { ("windows", "Windows Server 2022") } else { ("linux", "Debian 12.5 64 bit") };
    let stopped = view.power == Power::Stopped;
    // Stopped without KeepCharging: the address is given back, another comes with the start.
    let list = |address: &str| if address.is_empty() { json!([]) } else { json!([address]) };
    let public = if stopped && machine.no_charge { json!([]) } else { list(&machine.public_address) };
    let mode = match (stopped, machine.no_charge) {
        (false, _) => "Not-applicable",
        (true, false) => "KeepCharging",
        (true, true) => "StopCharging",
    };
    let reasons: Vec<Value> = locks(machine).iter().map(|lock| json!({ "LockReason": lock })).collect();
    json!({
        "InstanceId": machine.id,
        "InstanceName": machine.name,
        "HostName": machine.name,
        "Description": "",
        "Status": status(view.power),
        "RegionId": cloud.region,
        "ZoneId": machine.zone,
        "ImageId": format!("m-{}", machine.image + 1),
        "KeyPairName": view.keys.first().map_or("", String::as_str),
        "OSType": os.0,
        "OSName": os.1,
        "InstanceNetworkType": "vpc",
        "InstanceChargeType": "PostPaid",
        "InstanceType": if machine.local_disk { "ecs.i3.xlarge" } else { "ecs.g7.large" },
        "SpotStrategy": if machine.spot { "SpotAsPriceGo" } else { "NoSpot" },
        "LocalStorageAmount": if machine.local_disk { json!(1) } else { Value::Null },
        "LocalStorageCapacity": if machine.local_disk { json!(894) } else { Value::Null },
        "PublicIpAddress": { "IpAddress": public },
        "EipAddress": { "IpAddress": "", "AllocationId": "", "InternetChargeType": "" },
        "InnerIpAddress": { "IpAddress": [] },
        "VpcAttributes": {
            "PrivateIpAddress": { "IpAddress": list(&machine.private_address) },
            "NatIpAddress": "",
            "VpcId": "vpc-1",
            "VSwitchId": "vsw-1",
        },
        "OperationLocks": { "LockReason": reasons },
        "CreationTime": minute(machine.created),
        "StartTime": start_time(machine, view),
        "ExpiredTime": "2099-12-31T15:59Z",
        "StoppedMode": mode,
        "Tags": tags_json(&machine.tags),
    })
}

/// DescribeInstanceStatus: at most 100 ids, at most 50 a page.
pub(super) fn describe_status(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    let ids = params.list("InstanceId")?;
    if ids.len() > 100 {
        return Err(refused("InvalidParameter.TooManyInstanceIds", "At most 100 instances."));
    }
    let page = numbered_page(params, 50)?;
    let (cloud, now) = (world.cloud(call.cloud), world.now());
    let found: Vec<&Machine> = (cloud.machines().iter())
        .filter(|machine| machine.power != Power::Gone && (ids.is_empty() || ids.contains(&machine.id)))
        .filter(|machine| params.text("ZoneId").is_none_or(|zone| zone == machine.zone))
        .collect();
    let list: Vec<Value> = (found.iter().skip(page.from).take(page.size))
        .map(|machine| json!({ "InstanceId": machine.id, "Status": status(machine.view(now).power) }))
        .collect();
    Ok(json!({
        "InstanceStatuses": { "InstanceStatus": list },
        "TotalCount": found.len(),
        "PageNumber": page.number,
        "PageSize": page.size,
    }))
}

/// ListTagResources: a row for each tag that was asked for, or for each tag of the resources that were. The rows of
/// one machine may lie on two pages. Unlike DescribeInstances it finds more than 1,000.
pub(super) fn list_tags(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    let kind = params.required("ResourceType")?;
    let (ids, tags) = (params.list("ResourceId")?, params.tags()?);
    if ids.len() > 50 {
        return Err(refused("InvalidParameter", "At most 50 resources.").breaking(Rule::Limit));
    }
    if ids.is_empty() && tags.is_empty() {
        return Err(refused("MissingParameter", "One of ResourceId.N and Tag.N must be given."));
    }
    let anchor = anchor(params);
    let from = params.text("NextToken").map_or(Ok(0), |token| read_token(token, &anchor))?;
    let cloud = world.cloud(call.cloud);
    let resources: Vec<(&str, &[(String, String)])> = match kind {
        // Those that are gone keep their place, and lose their tags.
        "instance" => (cloud.machines().iter())
            .map(|machine| {
                (machine.id.as_str(), if machine.power == Power::Gone { &[][..] } else { &machine.tags[..] })
            })
            .collect(),
        "keypair" => cloud.key_pairs().iter().map(|pair| (pair.name.as_str(), &pair.tags[..])).collect(),
        _ => return Err(refused("InvalidParameter", "This ResourceType has no resources here.")),
    };
    // A token names a resource's place and how many of its rows were shown.
    let (place, shown) = (from / ROWS_OF_ONE, from % ROWS_OF_ONE);
    let asked = |key: &String| tags.is_empty() || tags.iter().any(|(wanted, _)| wanted == key);
    let mut rows = (resources.iter().enumerate().skip(place))
        .filter(|(_, (id, has))| (ids.is_empty() || ids.iter().any(|wanted| wanted == id)) && tagged(has, &tags))
        .flat_map(|(at, (id, has))| {
            has.iter().filter(|(key, _)| asked(key)).enumerate().map(move |(n, tag)| (at, n, id, tag))
        })
        .skip_while(|(at, n, ..)| *at == place && *n < shown)
        .peekable();
    let mut list: Vec<Value> = Vec::new();
    while list.len() < TAG_ROWS
        && let Some((_, _, id, (key, value))) = rows.next()
    {
        list.push(json!({ "ResourceId": id, "ResourceType": kind, "TagKey": key, "TagValue": value }));
    }
    let next = rows.peek().map_or_else(String::new, |(at, n, ..)| token(at * ROWS_OF_ONE + n, &anchor));
    Ok(json!({ "TagResources": { "TagResource": list }, "NextToken": next }))
}

/// DescribeRegions.
pub(super) fn describe_regions(world: &mut World, call: &Call<'_>, _: &Params) -> Result<Value, Refused> {
    let here = world.cloud(call.cloud).region.as_str();
    let mut regions = vec![here];
    regions
        .extend(["cn-hangzhou", "cn-beijing", "ap-southeast-1", "eu-central-1"].iter().filter(|other| **other != here));
    let list: Vec<Value> = regions
        .iter()
        .map(|region| json!({ "RegionId": region, "LocalName": region, "RegionEndpoint": format!("ecs.{region}.aliyuncs.com") }))
        .collect();
    Ok(json!({ "Regions": { "Region": list } }))
}
