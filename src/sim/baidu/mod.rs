//! Baidu AI Cloud BCC on the wire (FACTS section 5): REST with JSON bodies, bce-auth-v1, errors with HTTP statuses.
//! Written from the fact sheet apart from the client. It must never let a call through that the gateway would not.
//!
//! What bites here as it does in the cloud: the cloud reboots a running machine by itself some time after an attach ·
//! an attach may fail in part with HTTP 200 · one machine in the wrong state refuses a whole batch · names of key
//! pairs need not be unique · there is no boot time, no operation id and no nonce.

mod error;
mod instances;
mod keys;
mod power;
mod route;
mod sign;

use serde_json::Value;

use self::error::{Refused, refused};
use self::route::Operation;
use super::canon::Credential;
use super::door::{Call, Face};
use super::world::World;
use crate::net::{Request, Response};

/// The face of BCC.
pub(super) struct Bcc;

impl Face for Bcc {
    /// BCC's wire has no action names: see [`Operation::name`]. A request for no operation counts under its method.
    fn action(&self, request: &Request) -> String {
        route::operation_of(request).map_or_else(|_| request.method.to_string(), |operation| operation.name().into())
    }

    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        match act(world, call) {
            Ok(mut body) => {
                body["requestId"] = call.request_id.into();
                respond(200, &body, call.request_id)
            }
            Err(refused) => {
                if let Some(rule) = refused.rule {
                    let detail = format!("{}: {}", refused.code, refused.message);
                    world.cloud_mut(call.cloud).blame(rule, call.action, call.at, detail);
                }
                respond(refused.status, &refused.body(call.request_id), call.request_id)
            }
        }
    }

    /// No page names the answer for too many requests; the status is HTTP's own. (`Http400`, which the vendor's Go SDK
    /// repeats, is explained nowhere: it may not stand for "nothing was done".)
    fn throttled(&self, request_id: &str) -> Response {
        let refused = refused("Http429", "Too many requests.");
        respond(429, &refused.body(request_id), request_id)
    }

    fn denied(&self, request_id: &str) -> Response {
        let refused = refused("AccessDenied", "Access denied.");
        respond(refused.status, &refused.body(request_id), request_id)
    }

    fn internal_error(&self, request_id: &str) -> Response {
        let refused = refused("InternalError", "We encountered an internal error. Please try again.");
        respond(refused.status, &refused.body(request_id), request_id)
    }
}

/// Checks the signature, reads the request, and carries it out.
fn act(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    sign::verify(call.request, &Credential::of(world.cloud(call.cloud)), call.at)?;
    let read = route::Call::read(call.request)?;
    match &read.operation {
        Operation::ListInstances => instances::list(world, call, &read, None),
        Operation::ListInstancesById => instances::list(world, call, &read, Some(read.instance_ids()?)),
        Operation::GetInstance(id) => instances::get(world, call, id),
        Operation::BatchPower(verb) => power::batch(world, call, &read, *verb),
        Operation::Power(verb, id) => power::one(world, call, &read, *verb, id),
        Operation::ImportKeyPair => keys::import(world, call, &read),
        Operation::ListKeyPairs => keys::list(world, call, &read),
        Operation::GetKeyPair(id) => keys::get(world, call, id),
        Operation::AttachKeyPair(id) => keys::attach(world, call, &read, id),
        Operation::DetachKeyPair(id) => keys::detach(world, call, &read, id),
        Operation::DeleteKeyPair(id) => keys::delete(world, call, id),
    }
}

fn respond(status: u16, body: &Value, request_id: &str) -> Response {
    let headers = vec![
        ("content-type".into(), "application/json;charset=UTF-8".into()),
        ("x-bce-request-id".into(), request_id.into()),
    ];
    Response { status, headers, body: body.to_string().into_bytes() }
}

#[cfg(test)]
mod testing;
