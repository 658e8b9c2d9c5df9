//! BCC key pairs: import, list, get, attach, detach, delete.
//! It must never change a guest: an attached key waits for a boot, which the cloud itself brings about where the
//! machine runs (FACTS 5.1: the console guide; the API page is silent).

use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::instances::missing;
use super::route;
use crate::sim::canon::sha256_hex;
use crate::sim::cloud::Cloud;
use crate::sim::door::Call;
use crate::sim::keys::{KeyPair, read_public_line};
use crate::sim::machine::{Machine, Os, Power, Step};
use crate::sim::world::World;

/// 1 to 65 characters, the first a letter (of any script); letters, digits and `- _ / .`.
fn legal_name(name: &str) -> bool {
    (1..=65).contains(&name.chars().count())
        && name.starts_with(char::is_alphabetic)
        && name.chars().all(|c| c.is_alphanumeric() || "-_/.".contains(c))
}

/// PUT /v2/keypair?import. A name may be there already, a public key may not.
pub(super) fn import(world: &mut World, call: &Call<'_>, read: &route::Call) -> Result<Value, Refused> {
    let (name, key, description) = (read.string("name")?, read.string("publicKey")?, read.string("description")?);
    if !legal_name(name) {
        return Err(refused("Keypair.KeypairNameInvalid", "The name of the keypair is invalid."));
    }
    if description.chars().count() > 140 {
        return Err(refused("Keypair.KeypairDescriptionInvalid", "The description of the keypair is too long."));
    }
    let taken = ["ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
    let line = read_public_line(key).filter(|key| taken.contains(&key.algorithm.as_str())).map(|key| key.line);
    let line = line.ok_or_else(|| refused("Keypair.PublicKeyFormatInvalid", "The public key's format is invalid."))?;
    let cloud = world.cloud(call.cloud);
    if cloud.key_pairs().iter().any(|pair| pair.line == line) {
        return Err(refused("Keypair.KeypairPublicKeyExist", "The public key already exists."));
    }
    if cloud.key_pairs().len() >= cloud.key_pairs_max {
        return Err(refused("Keypair.KeypairQuotaExceedLimit", "The quota of keypairs is exceeded."));
    }
    let id = world.add_key_pair(call.cloud, name, key);
    if let Some(pair) = world.clouds[call.cloud].key_pairs.last_mut() {
        pair.description = description.to_string();
    }
    get(world, call, &id)
}

/// GET /v2/keypair: pages by marker; `name` is matched exactly.
pub(super) fn list(world: &mut World, call: &Call<'_>, read: &route::Call) -> Result<Value, Refused> {
    let (cloud, size, marker) = (world.cloud(call.cloud), read.max_keys()?, read.query("marker"));
    let begin = match marker {
        None => 0,
        Some(id) => (cloud.key_pairs().iter().position(|pair| pair.id == id))
            .ok_or_else(|| refused("InvalidHTTPRequest", "The marker is not one that was given.").blameless())?,
    };
    let named = |pair: &&KeyPair| read.query("name").is_none_or(|name| name == pair.name);
    let mut found: Vec<&KeyPair> = cloud.key_pairs()[begin..].iter().filter(named).take(size + 1).collect();
    let next = (found.len() > size).then(|| found.pop()).flatten().map(|pair| &pair.id);
    let bound = cloud.bound();
    let count = |pair: &KeyPair| bound.get(pair.id.as_str()).map_or(0, Vec::len);
    let list: Vec<Value> = found.iter().map(|pair| model(cloud, pair, count(pair))).collect();
    let mut body = json!({
        "marker": marker.unwrap_or_default(),
        "isTruncated": next.is_some(),
        "maxKeys": size,
        "keypairs": list,
    });
    if let Some(next) = next {
        body["nextMarker"] = next.as_str().into();
    }
    Ok(body)
}

/// GET /v2/keypair/{id}.
pub(super) fn get(world: &mut World, call: &Call<'_>, id: &str) -> Result<Value, Refused> {
    let cloud = world.cloud(call.cloud);
    let pair = cloud.key_pair(id).ok_or_else(|| unknown(id))?;
    Ok(json!({ "keypair": model(cloud, pair, cloud.bound().get(id).map_or(0, Vec::len)) }))
}

fn unknown(id: &str) -> Refused {
    refused("Keypair.KeypairNotExist", format!("The keypair {id} does not exist."))
}

fn model(cloud: &Cloud, pair: &KeyPair, instances: usize) -> Value {
    let digest = sha256_hex(pair.line.as_bytes());
    let octets: Vec<&str> = (0..16).filter_map(|at| digest.get(2 * at..2 * at + 2)).collect();
    json!({
        "keypairId": pair.id,
        "name": pair.name,
        "description": pair.description,
        "publicKey": pair.public_key,
        "regionId": cloud.region,
        "fingerPrint": octets.join(":"),
        "instanceCount": instances,
        "createdTime": pair.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// PUT /v2/keypair/{id}?attach. One machine that must not be attached refuses the call; one that cannot be attached
/// now is in `failedInstanceIdList` of a reply with HTTP 200.
pub(super) fn attach(world: &mut World, call: &Call<'_>, read: &route::Call, id: &str) -> Result<Value, Refused> {
    change(world, call, read, id, |machine| match machine.record_keys.iter().any(|key| key == id) {
        true => Err(refused("Keypair.AttachAttachedKeypair", format!("{} has this keypair already.", machine.id))),
        false => Ok(Some(vec![id.to_string()])),
    })
}

/// PUT /v2/keypair/{id}?detach. A machine that is not on this pair is silently left alone (FACTS 5.1).
pub(super) fn detach(world: &mut World, call: &Call<'_>, read: &route::Call, id: &str) -> Result<Value, Refused> {
    change(world, call, read, id, |machine| Ok(machine.record_keys.iter().any(|key| key == id).then(Vec::new)))
}

/// What attach and detach have in common. `becomes` says what a machine is bound to afterwards; `None`: no change.
fn change(
    world: &mut World,
    call: &Call<'_>,
    read: &route::Call,
    id: &str,
    becomes: impl Fn(&Machine) -> Result<Option<Vec<String>>, Refused>,
) -> Result<Value, Refused> {
    let ids = read.instance_ids()?;
    let cloud = world.cloud(call.cloud);
    cloud.key_pair(id).ok_or_else(|| unknown(id))?;
    let (mut changes, mut failed) = (Vec::new(), Vec::new());
    let mut refusal = None;
    for id in &ids {
        let outcome = cloud.position(id).ok_or_else(|| missing(id)).and_then(|place| {
            let machine = &cloud.machines()[place];
            bindable(world, call, machine)?;
            Ok((place, becomes(machine)?))
        });
        match outcome {
            Ok((place, Some(keys))) if cloud.machines()[place].poisoned && !keys.is_empty() => failed.push(id.clone()),
            Ok((place, Some(keys))) => changes.push((place, keys)),
            Ok((_, None)) => {}
            Err(refused) => {
                refusal = Some(refused);
                break;
            }
        }
    }
    // A refused batch is not touched; where the world's faults say so, the machines before the culprit are done.
    if refusal.is_none() || world.rng.chance(world.faults.half_done) {
        for (place, keys) in changes {
            bind(world, call, place, &keys);
        }
    }
    match refusal {
        Some(refused) => Err(refused),
        None => Ok(json!({ "failedInstanceIdList": failed })),
    }
}

/// Why a machine takes no key pair now.
fn bindable(world: &World, call: &Call<'_>, machine: &Machine) -> Result<(), Refused> {
    let id = &machine.id;
    if let Some(code) = machine.refuses(call.action) {
        return Err(refused(code, format!("The instance {id} refuses this operation.")).blameless());
    }
    if machine.os == Os::Windows {
        return Err(refused("Keypair.UnsupportOsType", format!("The operating system of {id} is not supported.")));
    }
    if ![Power::Running, Power::Stopped].contains(&machine.power) {
        let refused = refused("Keypair.InstanceStatusForbidden", format!("{id} must be Running or Stopped."));
        // Whoever saw another state a moment ago could not know.
        let lagging = machine.view(world.now()).power != machine.power;
        return Err(if lagging { refused.blameless() } else { refused });
    }
    Ok(())
}

/// Changes the record at once; a running machine is rebooted by the cloud a little later.
fn bind(world: &mut World, call: &Call<'_>, place: usize, keys: &[String]) {
    if world.cloud(call.cloud).machines()[place].power == Power::Running {
        let (delay, time) = (world.settings.reboot_delay, world.settings.operation_time);
        // A course with no step at zero: the machine runs on until the cloud gets round to it.
        let begins = delay.max(std::time::Duration::from_millis(1));
        let ends = begins.saturating_add(time);
        let course =
            vec![(begins, Step::Power(Power::Rebooting)), (ends, Step::Power(Power::Running)), (ends, Step::Done)];
        world.begin(call.cloud, place, call.action, call.request_id, course);
    }
    world.bind_for_next_boot(call.cloud, place, keys);
}

/// DELETE /v2/keypair/{id}.
pub(super) fn delete(world: &mut World, call: &Call<'_>, id: &str) -> Result<Value, Refused> {
    let cloud = world.cloud(call.cloud);
    cloud.key_pair(id).ok_or_else(|| unknown(id))?;
    if cloud.bound().contains_key(id) {
        return Err(refused("Keypair.DeleteKeypairInUse", "The keypair is bound to an instance."));
    }
    world.clouds[call.cloud].key_pairs.retain(|pair| pair.id != id);
    Ok(json!({}))
}
