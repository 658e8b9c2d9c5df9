//! Alibaba Cloud ECS on the wire (FACTS section 4): RPC style, ACS3-HMAC-SHA256, errors with HTTP statuses. Written
//! from the fact sheet apart from the client. It must never let a call through that the gateway would not.
//!
//! What bites here as it does in the cloud: an attached key opens nothing before the next boot · a batch is attached
//! in part with HTTP 200 · a stop that does not say KeepCharging loses the public address · `StartTime` is in whole
//! minutes · a tag filter finds 1,000 machines and no more · there is no operation id.

mod error;
mod instances;
mod keys;
mod params;
mod power;
mod sign;

use serde_json::{Value, json};

use self::error::{Refused, refused};
use self::params::Params;
use super::canon::Credential;
use super::door::{Call, Face};
use super::world::World;
use crate::net::{Request, Response};

/// What an action does.
type Act = fn(&mut World, &Call<'_>, &Params) -> Result<Value, Refused>;
/// An action: its name, whether it needs `RegionId`, and what it does.
type Action = (&'static str, bool, Act);

const ACTIONS: &[Action] = &[
    ("AttachKeyPair", true, keys::attach),
    ("DeleteKeyPairs", true, keys::delete),
    ("DescribeInstanceStatus", true, instances::describe_status),
    ("DescribeInstances", true, instances::describe),
    ("DescribeKeyPairs", true, keys::describe),
    ("DescribeRegions", false, instances::describe_regions),
    ("DetachKeyPair", true, keys::detach),
    ("ImportKeyPair", true, keys::import),
    ("ListTagResources", true, instances::list_tags),
    ("RebootInstance", false, |world, call, params| power::one(world, call, params, power::Verb::Reboot)),
    ("RebootInstances", true, |world, call, params| power::many(world, call, params, power::Verb::Reboot)),
    ("StartInstance", false, |world, call, params| power::one(world, call, params, power::Verb::Start)),
    ("StartInstances", true, |world, call, params| power::many(world, call, params, power::Verb::Start)),
    ("StopInstance", false, |world, call, params| power::one(world, call, params, power::Verb::Stop)),
    ("StopInstances", true, |world, call, params| power::many(world, call, params, power::Verb::Stop)),
];

/// The face of ECS.
pub(super) struct Ecs;

impl Face for Ecs {
    fn action(&self, request: &Request) -> String {
        sign::header(request, "x-acs-action").unwrap_or_default()
    }

    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        let host = sign::header(call.request, "host").unwrap_or_default();
        let (status, body) = match checked(world, call).and_then(|(act, params)| act(world, call, &params)) {
            Ok(mut body) => {
                body["RequestId"] = call.request_id.into();
                (200, body)
            }
            Err(refused) => {
                if let Some(rule) = refused.rule {
                    let detail = format!("{}: {}", refused.code, refused.message);
                    world.cloud_mut(call.cloud).blame(rule, call.action, call.at, detail);
                }
                (refused.status, refused.body(call.request_id, &host))
            }
        };
        // JSON only for those who ask for it (FACTS 4.2; that XML is the default of this version is unconfirmed).
        let json = sign::header(call.request, "accept").is_some_and(|accept| accept.contains("application/json"));
        if json { respond(status, &body, call.request_id) } else { respond_xml(call, status, &body) }
    }

    fn throttled(&self, request_id: &str) -> Response {
        let refused = refused("Throttling.User", "Request was denied due to user flow control.");
        let mut response = respond(refused.status, &refused.body(request_id, "ecs"), request_id);
        // "When present": in every other answer. Its unit is not confirmed; 1 is harmless as seconds and as milliseconds.
        if request_id.bytes().last().is_some_and(|byte| byte % 2 == 0) {
            response.headers.push(("x-acs-retry-after".into(), "1".into()));
        }
        response
    }

    fn denied(&self, request_id: &str) -> Response {
        let refused = refused("Forbidden.RAM", "User not authorized to operate on the specified resource.");
        respond(refused.status, &refused.body(request_id, "ecs"), request_id)
    }

    fn internal_error(&self, request_id: &str) -> Response {
        let refused = refused("InternalError", "The request processing has failed due to some unknown error.");
        respond(refused.status, &refused.body(request_id, "ecs"), request_id)
    }
}

/// The gateway's checks: identity, clock, signature, nonce, form, action, region.
fn checked(world: &mut World, call: &Call<'_>) -> Result<(Act, Params), Refused> {
    let nonce = sign::verify(call.request, &Credential::of(world.cloud(call.cloud)), call.at)?;
    // A date may be a window ahead, and is good for two windows then.
    let window = (sign::WINDOW * 2).unsigned_abs();
    if !world.cloud_mut(call.cloud).remember_nonce(&nonce, call.at, window) {
        return Err(refused("SignatureNonceUsed", "Specified signature nonce was used already."));
    }
    let params = Params::read(call.request)?;
    let action = ACTIONS.iter().find(|(name, ..)| *name == params.action);
    let (_, regional, act) =
        action.ok_or_else(|| refused("UnsupportedOperation", format!("There is no action {}.", params.action)))?;
    if *regional && params.required("RegionId")? != world.cloud(call.cloud).region {
        return Err(refused("InvalidRegionId.NotFound", "The specified RegionId does not exist."));
    }
    Ok((*act, params))
}

fn respond(status: u16, body: &Value, request_id: &str) -> Response {
    let headers = vec![
        ("content-type".into(), "application/json;charset=utf-8".into()),
        ("x-acs-request-id".into(), request_id.into()),
    ];
    Response { status, headers, body: body.to_string().into_bytes() }
}

fn respond_xml(call: &Call<'_>, status: u16, body: &Value) -> Response {
    let root = if status == 200 { format!("{}Response", call.action) } else { "Error".to_string() };
    let mut text = String::from("<?xml version='1.0' encoding='UTF-8'?>");
    write_xml(&mut text, &root, body);
    let headers = vec![
        ("content-type".into(), "text/xml;charset=utf-8".into()),
        ("x-acs-request-id".into(), call.request_id.into()),
    ];
    Response { status, headers, body: text.into_bytes() }
}

/// Writes a value as an element; a list is the element repeated.
fn write_xml(out: &mut String, name: &str, value: &Value) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| write_xml(out, name, item));
    }
    out.push_str(&format!("<{name}>"));
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| write_xml(out, name, value)),
        Value::String(text) => {
            out.push_str(&text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(&format!("</{name}>"));
}

/// Whether `text` has the form of `pattern`, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    let mut rest = rest;
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether the tags hold each of the wanted ones; a wanted tag without a value takes any.
fn tagged(tags: &[(String, String)], wanted: &[(String, Option<String>)]) -> bool {
    wanted
        .iter()
        .all(|(key, value)| tags.iter().any(|(has, is)| has == key && value.as_ref().is_none_or(|value| value == is)))
}

fn tags_json(tags: &[(String, String)]) -> Value {
    let list: Vec<Value> = tags.iter().map(|(key, value)| json!({ "TagKey": key, "TagValue": value })).collect();
    json!({ "Tag": list })
}

/// Whether an id could be an instance's.
fn well_formed(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric()))
}

/// Whether any of them comes twice.
fn twice(ids: &[String]) -> bool {
    let mut seen = std::collections::HashSet::new();
    !ids.iter().all(|id| seen.insert(id))
}

#[cfg(test)]
mod testing;
