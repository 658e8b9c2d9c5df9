//! Tencent Cloud's API 3.0 gateway (FACTS §2.1, §2.3): what Lighthouse and CVM have in common. Each error is HTTP 200
//! with `Response.Error`. CVM has its legacy endpoint besides. It must never let a call through that the gateway would
//! not.

mod cvm;
mod cvm_looks;
mod form;
mod legacy;
mod lighthouse;
mod lighthouse_looks;
mod listing;
mod sign;
mod sign_v1;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use cvm::Cvm;
pub(super) use legacy::{BY_VERSION, FLAT, PATH as LEGACY_PATH};
pub(super) use lighthouse::Lighthouse;

use super::cloud::Rule;
use super::door::Call;
use super::machine::{Course, Machine};
use super::world::World;
use crate::net::{Request, Response};

/// The signature's window on both sides, in seconds (FACTS §2.3: ±5 min).
const WINDOW: i64 = 300;
/// The largest body of a TC3 request (FACTS §2.1).
const BODY_MAX: usize = 10 * 1024 * 1024;
/// The gateway's headers; another `x-tc-` header is a mistake.
const HEADERS: [&str; 9] = [
    "x-tc-action",
    "x-tc-version",
    "x-tc-timestamp",
    "x-tc-region",
    "x-tc-token",
    "x-tc-language",
    "x-tc-requestclient",
    "x-tc-traceid",
    "x-tc-content-sha256",
];

/// One product behind the gateway.
trait Product: Sync {
    /// The first label of its host: the service in the signature's scope.
    const SERVICE: &'static str;
    /// The version that each call names.
    const VERSION: &'static str;
    /// Its actions, with the documented requests a second (FACTS §2.2 "Rates"); `None` where no page names a number.
    const ACTIONS: &'static [(&'static str, Option<u32>)];
    /// Carries an action out, all gateway checks being passed.
    fn act(world: &mut World, call: &Call<'_>) -> Result<Value, Refused>;
}

/// Why a call is refused.
#[derive(Debug)]
struct Refused {
    code: String,
    message: String,
    /// The rule that the client broke, unless the refusal can meet a careful client too.
    rule: Option<Rule>,
}

fn refused(code: &str, message: impl Into<String>) -> Refused {
    Refused { code: code.to_string(), message: message.into(), rule: None }
}

fn broken(rule: Rule, code: &str, message: impl Into<String>) -> Refused {
    Refused { code: code.to_string(), message: message.into(), rule: Some(rule) }
}

/// The action a request names, without checking anything.
fn action(request: &Request) -> String {
    let named = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-tc-action"));
    named.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn answer<P: Product>(world: &mut World, call: &Call<'_>) -> Response {
    match checked::<P>(world, call).and_then(|()| P::act(world, call)) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("RequestId".into(), call.request_id.into());
            respond(&json!({ "Response": fields }))
        }
        Ok(_) => internal_error(call.request_id),
        Err(refused) => {
            if let Some(rule) = refused.rule {
                let detail = format!("{}: {}", refused.code, refused.message);
                world.cloud_mut(call.cloud).blame(rule, call.action, call.at, detail);
            }
            error(&refused.code, &refused.message, call.request_id)
        }
    }
}

fn error(code: &str, message: &str, request_id: &str) -> Response {
    respond(&json!({ "Response": { "Error": { "Code": code, "Message": message }, "RequestId": request_id } }))
}

fn respond(body: &Value) -> Response {
    let headers = vec![("content-type".into(), "application/json".into())];
    Response { status: 200, headers, body: body.to_string().into_bytes() }
}

fn throttled(request_id: &str) -> Response {
    error("RequestLimitExceeded", "Your current request times equals to the limit.", request_id)
}

fn denied(request_id: &str) -> Response {
    error("UnauthorizedOperation", "You are not authorized to perform this operation.", request_id)
}

fn internal_error(request_id: &str) -> Response {
    error("InternalError", "An internal error has occurred. Retry your request.", request_id)
}

/// The gateway's checks: protocol, identity, clock, signature, region, version, action, rate.
fn checked<P: Product>(world: &mut World, call: &Call<'_>) -> Result<(), Refused> {
    use Rule::{Clock, Malformed, Rate, Signature};
    let request = call.request;
    if request.method != "POST" || request.path != "/" || !request.query.is_empty() {
        return Err(broken(Malformed, "UnsupportedProtocol", "only POST / with a JSON body is served here"));
    }
    if request.body.len() > BODY_MAX {
        return Err(broken(Rule::Limit, "InvalidRequest", "the body is larger than 10 MB"));
    }
    for (name, _) in &request.headers {
        let name = name.to_ascii_lowercase();
        if name.starts_with("x-tc-") && !HEADERS.contains(&name.as_str()) {
            return Err(broken(Malformed, "UnknownParameter", format!("unknown header {name}")));
        }
        let ours = name.starts_with("x-tc-") || ["authorization", "content-type", "host"].contains(&name.as_str());
        if ours && call.header(&name).is_none() {
            return Err(broken(Malformed, "InvalidRequest", format!("{name} comes twice")));
        }
    }
    let needed = |name: &str| {
        call.header(name).ok_or_else(|| broken(Malformed, "MissingParameter", format!("the header {name} is missing")))
    };
    let content_type = needed("content-type")?;
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(broken(Malformed, "InvalidRequest", format!("content type {content_type:?} with TC3")));
    }
    if request.origin.split_once("://").map(|(_, authority)| authority) != Some(needed("host")?) {
        return Err(broken(Malformed, "InvalidRequest", "the host header is not the host that was called"));
    }
    needed("x-tc-action")?;
    let (version, timestamp) = (needed("x-tc-version")?, needed("x-tc-timestamp")?);
    let timestamp: i64 = timestamp
        .parse()
        .map_err(|_| broken(Malformed, "InvalidParameterValue", "X-TC-Timestamp is not a number of seconds"))?;
    let header = call
        .header("authorization")
        .ok_or_else(|| broken(Signature, "AuthFailure.InvalidAuthorization", "the Authorization header is missing"))?;
    let who = sign::authorization(header).ok_or_else(|| {
        broken(Signature, "AuthFailure.InvalidAuthorization", "the Authorization header is malformed")
    })?;

    let cloud = world.cloud_mut(call.cloud);
    if who.secret_id != cloud.access_key_id {
        return Err(broken(Signature, "AuthFailure.SecretIdNotFound", "The SecretId is not found."));
    }
    if (call.at.as_second() - timestamp).abs() > WINDOW {
        return Err(broken(Clock, "AuthFailure.SignatureExpire", "The signature has expired."));
    }
    let scope = Some(who.date.to_string()) == sign::date(timestamp) && who.service == P::SERVICE;
    let parts =
        sign::Parts { method: request.method, query: &request.query, headers: &request.headers, body: &request.body };
    let expected = sign::signature(&parts, &who, &cloud.access_key_secret, timestamp);
    if !scope || expected.as_deref() != Some(who.signature) {
        return Err(broken(
            Signature,
            "AuthFailure.SignatureFailure",
            "The provided credentials could not be validated.",
        ));
    }
    if call.header("x-tc-token") != cloud.session_token.as_deref() {
        return Err(broken(Signature, "AuthFailure.TokenFailure", "The token is wrong."));
    }
    if version != P::VERSION {
        return Err(broken(Malformed, "NoSuchVersion", format!("there is no version {version}")));
    }
    let Some((_, rate)) = P::ACTIONS.iter().find(|(name, _)| *name == call.action) else {
        return Err(broken(Malformed, "InvalidAction", format!("there is no action {}", call.action)));
    };
    match call.header("x-tc-region") {
        None if call.action == "DescribeRegions" => {}
        None => return Err(broken(Malformed, "MissingParameter", "the header x-tc-region is missing")),
        Some(region) if region == cloud.region || call.action == "DescribeRegions" => {}
        Some(region) => return Err(broken(Malformed, "UnsupportedRegion", format!("region {region}"))),
    }
    if let Some(rate) = rate
        && !cloud.admit(call.action, *rate, call.at)
    {
        let message = format!("Your current request times equals to {rate}/s, which exceeds the frequency limit.");
        return Err(broken(Rate, "RequestLimitExceeded", message));
    }
    Ok(())
}

/// Reads an action's parameters. A parameter that the action does not know is refused, one that is missing too.
fn params<T: DeserializeOwned>(call: &Call<'_>) -> Result<T, Refused> {
    let value: Value = serde_json::from_slice(&call.request.body)
        .map_err(|_| broken(Rule::Malformed, "InvalidRequest", "the body is not JSON"))?;
    if !value.is_object() {
        return Err(broken(Rule::Malformed, "InvalidRequest", "the body is not a JSON object"));
    }
    serde_json::from_value(value).map_err(|error| {
        let message = error.to_string();
        let code = if message.starts_with("unknown field") {
            "UnknownParameter"
        } else if message.starts_with("missing field") {
            "MissingParameter"
        } else {
            "InvalidParameter"
        };
        broken(Rule::Malformed, code, message)
    })
}

/// A tag, as requests and answers have it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

fn tags_json(tags: &[(String, String)]) -> Value {
    tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

/// Whether an id is the prefix and then lower-case letters and digits.
fn well_formed(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|rest| {
        (1..=16).contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    })
}

/// Whether any of them comes twice.
fn twice(ids: &[String]) -> bool {
    let mut seen = std::collections::HashSet::new();
    !ids.iter().all(|id| seen.insert(id))
}

/// The characters of a key pair's name (FACTS §2.2): digits, letters and `_`, at most 25.
const KEY_NAME_MAX: usize = 25;

fn legal_name(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Begins an operation on each instance, if every one of them is found and `good`; else none is begun, and the answer
/// is the first culprit's code. Whether the good ones before it proceed "is not said" (FACTS §2.2): by the share that
/// [`super::Faults::half_done`] gives, they do.
fn on_each(
    world: &mut World,
    call: &Call<'_>,
    ids: &[String],
    not_found: &str,
    good: impl Fn(&Machine) -> Result<(), Refused>,
    course: impl Fn(&mut World, usize) -> Course,
) -> Result<Value, Refused> {
    let (mut fine, mut culprit) = (Vec::new(), None);
    for id in ids {
        let cloud = world.cloud(call.cloud);
        let found = cloud.position(id).ok_or_else(|| refused(not_found, "no such instance"));
        let checked = found.and_then(|at| {
            let machine = &cloud.machines()[at];
            if let Some(code) = machine.refuses(call.action) {
                return Err(refused(code, "the instance does not take this"));
            }
            good(machine).map(|()| at)
        });
        match checked {
            Ok(at) => fine.push(at),
            Err(refused) => {
                culprit = Some(refused);
                break;
            }
        }
    }
    if culprit.is_none() || world.half_done() {
        for at in fine {
            let course = course(world, at);
            world.begin(call.cloud, at, call.action, call.request_id, course);
        }
    }
    culprit.map_or_else(|| Ok(json!({})), Err)
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{Bench, code, response};
    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::Weather;

    /// A change to a good request; the service to sign it for anew, or `None` to leave the signature as it was.
    type Change = fn(&mut Request) -> Option<&'static str>;

    fn set(request: &mut Request, name: &str, value: &str) {
        request.headers.retain(|(key, _)| key != name);
        request.headers.push((name.into(), value.into()));
    }

    #[test]
    fn the_gateway_refuses_whatever_is_not_a_good_request() {
        let check = |what: &str, change: Change, expect: &str| {
            let mut bench = Bench::new(ProviderKind::TencentLighthouse);
            let mut request = bench.request("DescribeInstances", &json!({}));
            if let Some(service) = change(&mut request) {
                bench.sign(&mut request, service);
            }
            let reply = bench.send(&request).reply.unwrap();
            assert_eq!(code(&response(&reply)), expect, "{what}");
            assert_eq!(bench.world.violations().count(), usize::from(!expect.is_empty()), "{what}");
        };
        const SIGN: Option<&str> = Some("lighthouse");
        check("nothing changed", |_| None, "");
        check("signed anew", |_| SIGN, "");
        check(
            "GET",
            |r| {
                r.method = "GET";
                SIGN
            },
            "UnsupportedProtocol",
        );
        check(
            "another path",
            |r| {
                r.path = "/v2".into();
                SIGN
            },
            "UnsupportedProtocol",
        );
        check(
            "a query",
            |r| {
                r.query = "a=b".into();
                SIGN
            },
            "UnsupportedProtocol",
        );
        check(
            "a form",
            |r| {
                set(r, "content-type", "application/x-www-form-urlencoded");
                SIGN
            },
            "InvalidRequest",
        );
        check(
            "a charset",
            |r| {
                set(r, "content-type", "application/json; charset=utf-8");
                SIGN
            },
            "",
        );
        check(
            "a charset unsigned",
            |r| {
                set(r, "content-type", "application/json; charset=utf-8");
                None
            },
            "AuthFailure.SignatureFailure",
        );
        check(
            "another body",
            |r| {
                r.body = b"{ }".to_vec();
                None
            },
            "AuthFailure.SignatureFailure",
        );
        check(
            "another host",
            |r| {
                set(r, "host", "127.0.0.1");
                SIGN
            },
            "InvalidRequest",
        );
        check(
            "an unknown header",
            |r| {
                set(r, "x-tc-nonsense", "1");
                None
            },
            "UnknownParameter",
        );
        check(
            "a header twice",
            |r| {
                r.headers.push(("x-tc-region".into(), "x".into()));
                None
            },
            "InvalidRequest",
        );
        check(
            "no region",
            |r| {
                r.headers.retain(|(k, _)| k != "x-tc-region");
                None
            },
            "MissingParameter",
        );
        check(
            "another region",
            |r| {
                set(r, "x-tc-region", "ap-nowhere");
                None
            },
            "UnsupportedRegion",
        );
        check(
            "no version",
            |r| {
                r.headers.retain(|(k, _)| k != "x-tc-version");
                None
            },
            "MissingParameter",
        );
        check(
            "another version",
            |r| {
                set(r, "x-tc-version", "2017-03-12");
                None
            },
            "NoSuchVersion",
        );
        check(
            "another action",
            |r| {
                set(r, "x-tc-action", "RunInstances");
                None
            },
            "InvalidAction",
        );
        check(
            "no action",
            |r| {
                r.headers.retain(|(k, _)| k != "x-tc-action");
                None
            },
            "MissingParameter",
        );
        check(
            "a token that was not given out",
            |r| {
                set(r, "x-tc-token", "t");
                None
            },
            "AuthFailure.TokenFailure",
        );
        check(
            "no signature",
            |r| {
                r.headers.retain(|(k, _)| k != "authorization");
                None
            },
            "AuthFailure.InvalidAuthorization",
        );
        check(
            "a bearer",
            |r| {
                set(r, "authorization", "Bearer x");
                None
            },
            "AuthFailure.InvalidAuthorization",
        );
        check("another service's scope", |_| Some("cvm"), "AuthFailure.SignatureFailure");
        check(
            "an old timestamp",
            |r| {
                set(r, "x-tc-timestamp", "1795348499");
                SIGN
            },
            "AuthFailure.SignatureExpire",
        );
        check(
            "a body that is no JSON",
            |r| {
                r.body = b"x".to_vec();
                SIGN
            },
            "InvalidRequest",
        );
        check(
            "a list",
            |r| {
                r.body = b"[]".to_vec();
                SIGN
            },
            "InvalidRequest",
        );
        check(
            "an unknown parameter",
            |r| {
                r.body = br#"{"Nonsense":1}"#.to_vec();
                SIGN
            },
            "UnknownParameter",
        );
        check(
            "a wrong type",
            |r| {
                r.body = br#"{"Limit":"9"}"#.to_vec();
                SIGN
            },
            "InvalidParameter",
        );
        check(
            "another credential",
            |r| {
                let value = r
                    .headers
                    .iter()
                    .find(|(k, _)| k == "authorization")
                    .unwrap()
                    .1
                    .replace("Credential=", "Credential=X");
                set(r, "authorization", &value);
                None
            },
            "AuthFailure.SecretIdNotFound",
        );
    }

    #[test]
    fn the_clock_window_is_five_minutes_to_both_sides_and_follows_the_clouds_own_clock() {
        for (skew, expect) in [
            (0, ""),
            (300, ""),
            (301, "AuthFailure.SignatureExpire"),
            (-300, ""),
            (-301, "AuthFailure.SignatureExpire"),
        ] {
            let mut bench = Bench::new(ProviderKind::TencentCvm);
            bench.world.cloud_mut(0).skew = jiff::SignedDuration::from_secs(skew);
            assert_eq!(bench.code("DescribeInstances", json!({})), expect, "{skew}");
        }
    }

    #[test]
    fn requests_beyond_the_documented_rate_are_refused_until_time_passes() {
        let mut bench = Bench::new(ProviderKind::TencentLighthouse);
        let ask = |bench: &mut Bench| bench.code("StopInstances", json!({ "InstanceIds": ["lhins-x"] }));
        for number in 0..12 {
            assert_eq!(ask(&mut bench), "ResourceNotFound.InstanceIdNotFound", "{number}");
        }
        assert_eq!(ask(&mut bench), "RequestLimitExceeded");
        // Other actions have buckets of their own.
        assert_eq!(bench.code("DescribeKeyPairs", json!({})), "");
        bench.wait(100);
        assert_eq!(ask(&mut bench), "ResourceNotFound.InstanceIdNotFound");
        assert_eq!(ask(&mut bench), "RequestLimitExceeded");
        assert_eq!(bench.world.violations().filter(|v| v.rule == Rule::Rate).count(), 2);
    }

    #[test]
    fn a_session_token_must_come_once_one_is_set() {
        let mut bench = Bench::new(ProviderKind::TencentCvm);
        bench.world.cloud_mut(0).session_token = Some("token".into());
        assert_eq!(bench.code("DescribeRegions", json!({})), "AuthFailure.TokenFailure");
        let mut request = bench.request("DescribeRegions", &json!({}));
        set(&mut request, "x-tc-token", "token");
        let reply = bench.send(&request).reply.unwrap();
        assert_eq!(code(&response(&reply)), "");
    }

    #[test]
    fn every_answer_has_the_date_and_a_request_id_of_its_own() {
        let mut bench = Bench::new(ProviderKind::TencentCvm);
        let request = bench.request("DescribeInstances", &json!({}));
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let reply = bench.send(&request).reply.unwrap();
            assert_eq!(reply.header("date"), Some("Sun, 22 Nov 2026 12:00:00 GMT"));
            ids.insert(response(&reply)["RequestId"].to_string());
        }
        assert_eq!(ids.len(), 20);
    }

    #[test]
    fn faults_strike_as_they_are_scripted() {
        let kind = ProviderKind::TencentLighthouse;
        let mut bench = Bench::new(kind);
        let id = bench.instance(crate::sim::Power::Running, &[]);
        let stop = json!({ "InstanceIds": [id] });
        let mut strike = |weather: Weather| {
            bench.world.set_power(0, &id, crate::sim::Power::Running);
            bench.world.faults.script(Some(kind), "StopInstances", 1, weather);
            let request = bench.request("StopInstances", &stop);
            let outcome = bench.send(&request);
            let busy = bench.world.cloud(0).machine(&id).unwrap().is_busy();
            bench.wait(10_000);
            let down = bench.world.cloud(0).machine(&id).unwrap().power == crate::sim::Power::Stopped;
            (outcome, busy, down)
        };
        let (outcome, busy, _) = strike(Weather::Throttled);
        assert_eq!((code(&response(&outcome.reply.unwrap())), busy), ("RequestLimitExceeded".into(), false));
        for applied in [false, true] {
            let (outcome, busy, _) = strike(Weather::ServerError { applied, gateway: false });
            assert_eq!((code(&response(&outcome.reply.unwrap())), busy), ("InternalError".into(), applied));
            let (outcome, busy, _) = strike(Weather::ServerError { applied, gateway: true });
            assert_eq!((outcome.reply.unwrap().status, busy), (502, applied));
            let (outcome, busy, down) = strike(Weather::Lost { applied });
            assert_eq!((outcome.reply.is_none(), busy, down), (true, applied, applied));
            let (outcome, busy, _) = strike(Weather::Answer { applied, status: 200, body: b"<html>".to_vec() });
            assert_eq!((outcome.reply.unwrap().body, busy), (b"<html>".to_vec(), applied));
        }
        let (outcome, busy, down) = strike(Weather::Late(std::time::Duration::from_secs(5)));
        assert_eq!((outcome.reply.is_none(), busy, down), (true, false, true), "it lands later");
        let (outcome, busy, _) = strike(Weather::Delayed(std::time::Duration::from_secs(3)));
        assert_eq!((outcome.delay.as_secs(), busy), (3, true));
        let (outcome, _, _) = strike(Weather::CutOff(5));
        assert_eq!(outcome.reply.unwrap().body.len(), 5);
        let (outcome, _, _) = strike(Weather::Skewed(jiff::SignedDuration::from_hours(1)));
        let date = outcome.reply.unwrap().header("date").unwrap().to_string();
        assert!(date.contains(" 13:02:"), "{date}");
        assert_eq!(bench.violations(), Vec::<String>::new());
    }

    #[test]
    fn the_same_seed_and_the_same_calls_give_the_same_answers() {
        let run = || {
            let mut bench = Bench::new(ProviderKind::TencentLighthouse);
            bench.world.faults = "throttle=0.2,error500=0.2,rubbish=0.2,lost=0.1,opfail=0.3".parse().unwrap();
            let id = bench.instance(crate::sim::Power::Running, &[]);
            let mut answers = Vec::new();
            for action in ["StopInstances", "StartInstances", "DescribeInstances"].repeat(10) {
                let params = json!({ "InstanceIds": [id] });
                let request = bench.request(action, &params);
                answers.push(bench.send(&request).reply.map(|reply| reply.body));
                bench.wait(300);
            }
            answers
        };
        assert_eq!(run(), run());
        assert!(run().iter().any(Option::is_none));
    }
}
