//! CVM's legacy endpoint, `/v2/index.php` (FACTS §3): GET or POST of a form, signature v1, nonces, and answers in two
//! shapes. Behind it are the same machines, key pairs and rates as behind API 3.0. It must never let a call through that
//! the endpoint would not, and it must never serve the oldest form, without `Version`: no client of ours speaks it.
//!
//! With a version the page promises the wrapped shape, `{"Response":{…}}`; the gateway before it has the flat one,
//! `{"code":4100,"message":"…"}`. Whether it has it with a version too is unconfirmed: half of its refusals come flat
//! and half wrapped. By the share [`Faults::flat`](crate::sim::Faults::flat) all of them come flat, and so does what
//! went well. What an action refuses is always wrapped: its codes with a version are documented so (SEED-001).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Cvm, Product, Refused, WINDOW, broken, form, refused, respond, sign_v1, twice};
use crate::net::{Request, Response};
use crate::sim::canon;
use crate::sim::cloud::Rule::{Clock, Limit, Malformed, Nonce, Rate, Signature};
use crate::sim::door::{Call, Face};
use crate::sim::world::World;

/// Where the endpoint is.
pub(in crate::sim) const PATH: &str = "/v2/index.php";
/// The largest query of a GET, and the largest body of a POST (FACTS §2.1).
const QUERY_MAX: usize = 32 * 1024;
const BODY_MAX: usize = 1024 * 1024;
/// What every request bears, and what it may bear besides (FACTS §3 "Common params").
const COMMON: [&str; 7] = ["Action", "Version", "Timestamp", "Nonce", "SecretId", "Signature", "Region"];
const OPTIONAL: [&str; 3] = ["SignatureMethod", "Token", "RequestClient"];

/// The face, for one call.
pub(in crate::sim) struct Legacy {
    /// Whatever goes well comes flat, and whatever the gateway refuses.
    flat: bool,
}

/// The face as the page has it, and the one that answers flat.
pub(in crate::sim) const BY_VERSION: Legacy = Legacy { flat: false };
pub(in crate::sim) const FLAT: Legacy = Legacy { flat: true };

impl Face for Legacy {
    fn action(&self, request: &Request) -> String {
        let params = pairs(request).unwrap_or_default();
        params.into_iter().find(|(name, _)| name == "Action").map(|(_, value)| value).unwrap_or_default()
    }

    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        let done = match checked(world, call) {
            Ok(body) => {
                let request = Request { body, ..call.request.clone() };
                (Cvm::act(world, &Call { request: &request, ..*call }), false)
            }
            Err(refused) => (Err(refused), true),
        };
        match done {
            (Ok(Value::Object(fields)), _) => self.good(fields, call.request_id),
            (Ok(_), _) => self.internal_error(call.request_id),
            (Err(refused), by_gateway) => {
                if let Some(rule) = refused.rule {
                    let detail = format!("{}: {}", refused.code, refused.message);
                    world.cloud_mut(call.cloud).blame(rule, call.action, call.at, detail);
                }
                self.bad(&refused, by_gateway, call.request_id)
            }
        }
    }

    fn throttled(&self, request_id: &str) -> Response {
        self.bad(&refused("RequestLimitExceeded", "too many requests"), true, request_id)
    }
    fn denied(&self, request_id: &str) -> Response {
        self.bad(&refused("UnauthorizedOperation", "the action is not granted"), true, request_id)
    }
    fn internal_error(&self, request_id: &str) -> Response {
        self.bad(&refused("InternalServerError", "an internal error has occurred"), self.flat, request_id)
    }
}

impl Legacy {
    fn good(&self, mut fields: Map<String, Value>, request_id: &str) -> Response {
        fields.insert("RequestId".into(), request_id.into());
        if !self.flat {
            return respond(&json!({ "Response": fields }));
        }
        fields.insert("code".into(), 0.into());
        fields.insert("message".into(), "".into());
        fields.insert("codeDesc".into(), "Success".into());
        respond(&Value::Object(fields))
    }

    fn bad(&self, refused: &Refused, by_gateway: bool, request_id: &str) -> Response {
        let by_turns = |digit: usize| request_id.bytes().nth_back(digit).is_some_and(|byte| byte % 2 == 0);
        let flat = by_gateway && (self.flat || by_turns(0) || refused.code == REPLAYED);
        if !flat {
            return super::error(&refused.code, &refused.message, request_id);
        }
        let number = number(&refused.code);
        // A number, by the page's tables; but its sample shows it as a text (DOC cloud.tencent.com/doc/api/309/7025).
        let code = if by_turns(1) { json!(number.to_string()) } else { json!(number) };
        respond(&json!({ "code": code, "message": refused.message }))
    }
}

/// The code of a request whose nonce was used already. The wrapped shape has none for it: it always comes flat.
const REPLAYED: &str = "4500";

/// The flat shape's number for a code with which the gateway refuses (FACTS §6 "tencent-legacy-v2"; 6000 and 6100, DOC
/// cloud.tencent.com/document/api/239/1757).
fn number(code: &str) -> u32 {
    match code {
        "AuthFailure.SignatureFailure" => 4100,
        "UnauthorizedOperation" => 4101,
        "AuthFailure.SecretIdNotFound" => 4104,
        "AuthFailure.TokenFailure" => 4105,
        "RequestLimitExceeded" => 4400,
        // Of the timestamp too: "a difference of 5 minutes at most" (FACTS §6; 4200 is the 2017 page's only).
        REPLAYED | "AuthFailure.SignatureExpire" => 4500,
        "UnsupportedProtocol" => 4600,
        "InternalServerError" => 6000,
        "InvalidAction" | "NoSuchVersion" => 6100,
        // Bad parameters, of every kind.
        _ => 4000,
    }
}

/// The parameters of a request, decoded, in the order sent.
fn pairs(request: &Request) -> Option<Vec<(String, String)>> {
    match request.method {
        "GET" => canon::pairs(&request.query),
        _ => canon::pairs(std::str::from_utf8(&request.body).ok()?),
    }
}

/// The gateway's checks: form, identity, clock, signature, nonce, version, action, region, rate. Gives the action's own
/// parameters as the JSON of API 3.0.
fn checked(world: &mut World, call: &Call<'_>) -> Result<Vec<u8>, Refused> {
    let request = call.request;
    framed(call)?;
    let params = pairs(request)
        .ok_or_else(|| broken(Malformed, "InvalidParameterValue", "the parameters are no percent-encoded UTF-8"))?;
    let given = |wanted: &str| params.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    if twice(&params.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()) {
        return Err(broken(Malformed, "InvalidParameterValue", "a parameter comes twice"));
    }
    for name in COMMON {
        let at_will = name == "Region" && call.action == "DescribeRegions";
        if !at_will && given(name).is_none_or(str::is_empty) {
            return Err(broken(Malformed, "MissingParameter", format!("the parameter {name} is missing")));
        }
    }
    let (timestamp, nonce) = (whole(given("Timestamp"), "Timestamp")?, whole(given("Nonce"), "Nonce")?);
    let client = given("RequestClient").unwrap_or("-");
    if client.len() > 128
        || client.is_empty()
        || !client.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_,;.".contains(&c))
    {
        return Err(broken(Malformed, "InvalidParameterValue", "RequestClient is malformed"));
    }
    let algorithm = sign_v1::algorithm(given("SignatureMethod")).ok_or_else(|| {
        broken(Malformed, "InvalidParameterValue", "SignatureMethod is neither HmacSHA1 nor HmacSHA256")
    })?;

    let cloud = world.cloud_mut(call.cloud);
    if given("SecretId") != Some(cloud.access_key_id.as_str()) {
        return Err(broken(Signature, "AuthFailure.SecretIdNotFound", "the SecretId is not found"));
    }
    if call.at.as_second().abs_diff(i64::try_from(timestamp).unwrap_or(i64::MAX)) > WINDOW.unsigned_abs() {
        return Err(broken(Clock, "AuthFailure.SignatureExpire", "the Timestamp is more than 5 minutes off"));
    }
    let host = call.header("host").unwrap_or_default();
    let to_sign = sign_v1::string_to_sign(request.method, host, &request.path, &params);
    if given("Signature") != Some(&sign_v1::signature(algorithm, &cloud.access_key_secret, &to_sign)) {
        return Err(broken(Signature, "AuthFailure.SignatureFailure", "the signature is wrong"));
    }
    if given("Token") != cloud.session_token.as_deref() {
        return Err(broken(Signature, "AuthFailure.TokenFailure", "the token is wrong"));
    }
    // A timestamp may be a window ahead, and is good for two windows then.
    if !cloud.remember_nonce(&nonce.to_string(), call.at, Duration::from_secs(2 * WINDOW.unsigned_abs())) {
        return Err(broken(Nonce, REPLAYED, "the Nonce was used already"));
    }
    match given("Version") {
        Some(Cvm::VERSION) => {}
        version => return Err(broken(Malformed, "NoSuchVersion", format!("version {version:?}"))),
    }
    let Some((_, rate)) = Cvm::ACTIONS.iter().find(|(name, _)| *name == call.action) else {
        return Err(broken(Malformed, "InvalidAction", format!("there is no action {}", call.action)));
    };
    match given("Region") {
        Some(region) if region != cloud.region && call.action != "DescribeRegions" => {
            return Err(broken(Malformed, "UnsupportedRegion", format!("region {region}")));
        }
        _ => {}
    }
    if let Some(rate) = rate
        && !cloud.admit(call.action, *rate, call.at)
    {
        return Err(broken(Rate, "RequestLimitExceeded", format!("more than {rate} requests a second")));
    }
    let common = |name: &str| COMMON.contains(&name) || OPTIONAL.contains(&name);
    let own: Vec<_> = params.iter().filter(|(name, _)| !common(name)).cloned().collect();
    Ok(form::object(&own)?.to_string().into_bytes())
}

/// Whether the request is a GET with a query or a POST with a form, and to the host that was called.
fn framed(call: &Call<'_>) -> Result<(), Refused> {
    let request = call.request;
    let unsupported = |message: &str| Err(broken(Malformed, "UnsupportedProtocol", message));
    match request.method {
        "GET" if !request.body.is_empty() => return unsupported("a GET with a body"),
        "GET" => {}
        "POST" if !request.query.is_empty() => return unsupported("a POST with a query"),
        "POST" => {
            let kind = call.header("content-type").and_then(|kind| kind.split(';').next()).map(str::trim);
            if kind != Some("application/x-www-form-urlencoded") {
                return unsupported("a POST whose content type is not application/x-www-form-urlencoded");
            }
        }
        _ => return unsupported("only GET and POST are served here"),
    }
    if request.query.len() > QUERY_MAX || request.body.len() > BODY_MAX {
        return Err(broken(Limit, "InvalidParameterValue", "a query of more than 32 KB, or a body of more than 1 MB"));
    }
    if request.origin.split_once("://").map(|(_, authority)| authority) != call.header("host") {
        return Err(broken(Malformed, "InvalidParameterValue", "the host header is not the host that was called"));
    }
    Ok(())
}

/// A positive whole number, in digits.
fn whole(value: Option<&str>, name: &str) -> Result<u64, Refused> {
    let value = value.unwrap_or_default();
    let number = value.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == value);
    number.ok_or_else(|| broken(Malformed, "InvalidParameterValue", format!("{name} is no positive whole number")))
}

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod tests;
