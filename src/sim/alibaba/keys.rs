//! ECS key pairs: import, describe, attach, detach, delete. The handle is the name.
//! It must never change a guest: an attached key waits for the machine's next boot (FACTS 4.1).

use serde_json::{Value, json};

use super::error::{Refused, refused};
use super::instances::numbers;
use super::params::Params;
use super::{matches, tagged, tags_json, twice, well_formed};
use crate::sim::canon::sha256_hex;
use crate::sim::door::Call;
use crate::sim::keys::{KeyPair, read_public_line};
use crate::sim::machine::{Machine, Os, Power};
use crate::sim::world::World;

/// The most instances of one attach or detach (FACTS 4.1).
const ATTACH_MAX: usize = 50;
/// The most names of one delete.
const DELETE_MAX: usize = 100;

/// 2 to 128 characters, the first a letter (of any script), no URL; letters, digits and `: _ . -`.
fn legal_name(name: &str) -> bool {
    (2..=128).contains(&name.chars().count())
        && name.starts_with(char::is_alphabetic)
        && !name.starts_with("http://")
        && !name.starts_with("https://")
        && name.chars().all(|c| c.is_alphanumeric() || ":_.-".contains(c))
}

/// Not MD5: the page's word and its sample disagree, and a client must not compute it (FACTS 4.1).
fn fingerprint(pair: &KeyPair) -> String {
    sha256_hex(pair.line.as_bytes())[..40].to_string()
}

/// ImportKeyPair. Two names may hold the same public key.
pub(super) fn import(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    let (name, body) = (params.required("KeyPairName")?, params.required("PublicKeyBody")?);
    if !legal_name(name) {
        return Err(refused("InvalidKeyPairName.Malformed", "Specified Key Pair name is not valid."));
    }
    let taken = ["ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
    if read_public_line(body).is_none_or(|key| !taken.contains(&key.algorithm.as_str())) {
        return Err(refused("InvalidPublicKeyBody.Malformed", "Specified Public Key Body is not valid."));
    }
    let tags = params.tags()?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    let cloud = world.cloud(call.cloud);
    if cloud.key_pair(name).is_some() {
        return Err(refused("KeyPair.AlreadyExist", "The key pair already exist."));
    }
    if cloud.key_pairs().len() >= cloud.key_pairs_max {
        return Err(refused("QuotaExceed.KeyPair", "The key pair quota exceeds."));
    }
    world.add_key_pair(call.cloud, name, body);
    let pair = world.clouds[call.cloud].key_pairs.last_mut();
    let Some(pair) = pair else { return Err(refused("InternalError", "The key pair was not stored.")) };
    pair.tags = tags;
    Ok(json!({ "KeyPairName": pair.name, "KeyPairFingerPrint": fingerprint(pair) }))
}

/// DescribeKeyPairs: `*` in the name stands for anything; the public key only on request; no list of instances.
pub(super) fn describe(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    let (number, size) = numbers(params, 50)?;
    let (tags, with_key) = (params.tags()?, params.flag("IncludePublicKey")?);
    let found: Vec<&KeyPair> = (world.cloud(call.cloud).key_pairs().iter())
        .filter(|pair| params.text("KeyPairName").is_none_or(|name| matches(name, &pair.name)))
        .filter(|pair| params.text("KeyPairFingerPrint").is_none_or(|print| print == fingerprint(pair)))
        .filter(|pair| tagged(&pair.tags, &tags))
        .collect();
    let show = |pair: &&KeyPair| {
        let mut value = json!({
            "KeyPairName": pair.name,
            "KeyPairFingerPrint": fingerprint(pair),
            "CreationTime": pair.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "ResourceGroupId": "",
            "Tags": tags_json(&pair.tags),
        });
        if with_key {
            value["PublicKey"] = pair.public_key.clone().into();
        }
        value
    };
    let list: Vec<Value> = found.iter().skip((number - 1).saturating_mul(size)).take(size).map(show).collect();
    Ok(json!({ "KeyPairs": { "KeyPair": list }, "TotalCount": found.len(), "PageNumber": number, "PageSize": size }))
}

/// AttachKeyPair: HTTP 200 says only that the request was processed; each instance has its own result.
pub(super) fn attach(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    change(world, call, params, |name, _| Some(vec![name.to_string()]))
}

/// DetachKeyPair: an instance on another pair, or on none, is left alone and counts as done (the page is silent).
pub(super) fn detach(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    change(world, call, params, |name, machine| machine.record_keys.iter().any(|key| key == name).then(Vec::new))
}

/// What attach and detach have in common. `becomes` says what an instance is bound to afterwards; `None`: no change.
fn change(
    world: &mut World,
    call: &Call<'_>,
    params: &Params,
    becomes: impl Fn(&str, &Machine) -> Option<Vec<String>>,
) -> Result<Value, Refused> {
    const CODE: &str = "InvalidInstanceIds.ValueNotSupported";
    let name = params.required("KeyPairName")?;
    params.required("InstanceIds")?;
    let ids = params.json_list("InstanceIds", CODE)?.unwrap_or_default();
    if ids.is_empty() || twice(&ids) || !ids.iter().all(|id| well_formed(id)) {
        return Err(refused(CODE, "The specified parameter InstanceIds is not valid."));
    }
    if ids.len() > ATTACH_MAX {
        return Err(refused("InstanceKeyPairLimitExceeded", "Exceeding the allowed number of instances: 50."));
    }
    let cloud = world.cloud(call.cloud);
    if cloud.key_pair(name).is_none() {
        return Err(refused("InvalidKeyPairName.NotFound", "The specified KeyPairName does not exist."));
    }
    let mut places = Vec::new();
    for id in &ids {
        // A well-formed id may have been released a moment ago: nobody's fault.
        let place = cloud.position(id);
        places.push(place.ok_or_else(|| refused(CODE, format!("No instance {id}.")).blameless())?);
    }
    let (mut results, mut failed) = (Vec::new(), 0);
    for (index, place) in places.into_iter().enumerate() {
        let machine = &world.cloud(call.cloud).machines()[place];
        let outcome = bindable(machine, call.action).map(|()| becomes(name, machine));
        let lagging = machine.view(world.now()).power != machine.power;
        let (success, code, message) = match outcome {
            Ok(keys) => {
                if let Some(keys) = keys {
                    world.bind_for_next_boot(call.cloud, place, &keys);
                }
                (true, "200".to_string(), "success".to_string())
            }
            Err(refused) => {
                failed += 1;
                if let Some(rule) = refused.rule.filter(|_| !lagging) {
                    let detail = format!("{} {}", ids[index], refused.code);
                    world.cloud_mut(call.cloud).blame(rule, call.action, call.at, detail);
                }
                (false, refused.code, refused.message)
            }
        };
        // The model says strings, the samples show numbers and booleans too (FACTS 4.1): both come, in turn.
        results.push(if index % 2 == 0 {
            json!({ "InstanceId": ids[index], "Success": success.to_string(), "Code": code, "Message": message })
        } else {
            let code = if success { json!(200) } else { json!(code) };
            json!({ "InstanceId": ids[index], "Success": success, "Code": code, "Message": message })
        });
    }
    Ok(json!({
        "KeyPairName": name,
        "TotalCount": ids.len().to_string(),
        "FailCount": failed.to_string(),
        "Results": { "Result": results },
    }))
}

/// Why an instance takes no key pair now.
fn bindable(machine: &Machine, action: &str) -> Result<(), Refused> {
    if let Some(code) = machine.refuses(action) {
        return Err(refused(code, "The instance refuses this operation.").blameless());
    }
    // "Attach only" (FACTS section 6).
    if machine.poisoned && action == "AttachKeyPair" {
        return Err(refused("DependencyViolation.IoOptimize", "The specified instance is not I/O optimized."));
    }
    if machine.os == Os::Windows {
        return Err(refused("DependencyViolation.WindowsInstance", "Windows instances do not support key pairs."));
    }
    match machine.power {
        Power::Running | Power::Stopped => Ok(()),
        Power::Isolated => Err(refused("InstanceExpiredOrInArrears", "The instance has expired or is in arrears.")),
        _ => Err(refused("IncorrectInstanceStatus", "The current status of the resource does not support this.")),
    }
}

/// DeleteKeyPairs: all or none. What an unknown name gives is not documented: success here and refusal there, by the
/// seed, so that a client must be good for both.
pub(super) fn delete(world: &mut World, call: &Call<'_>, params: &Params) -> Result<Value, Refused> {
    params.required("KeyPairNames")?;
    let names = params.json_list("KeyPairNames", "InvalidKeyPairNames.ValueNotSupported")?.unwrap_or_default();
    if names.is_empty() || twice(&names) {
        return Err(refused("InvalidKeyPairNames.ValueNotSupported", "The parameter KeyPairNames is not valid."));
    }
    if names.len() > DELETE_MAX {
        return Err(refused("InstanceKeyPairLimitExceeded", "Exceeding the allowed number of key pairs: 100."));
    }
    let cloud = world.cloud(call.cloud);
    let bound = cloud.bound();
    if names.iter().any(|name| bound.contains_key(name.as_str())) {
        let message = "The key pair is still attached to an instance.";
        return Err(refused("InvalidParameter.KeypairAlreadyAttachedInstance", message));
    }
    let unknown = names.iter().any(|name| cloud.key_pair(name).is_none());
    if unknown && world.rng.chance(0.5) {
        return Err(refused("InvalidKeyPairName.NotFound", "The specified KeyPairName does not exist."));
    }
    world.clouds[call.cloud].key_pairs.retain(|pair| !names.contains(&pair.name));
    Ok(json!({}))
}
