//! The BCC face called through the door, as a client calls it: what it refuses, and what it does to the guests.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::sign::testing::sign_with;
use crate::model::ProviderKind;
use crate::net::{Request, Response};
use crate::sim::InstanceSpec;
use crate::sim::canon::Credential;
use crate::sim::cloud::Rule;
use crate::sim::door::handle;
use crate::sim::faults::Weather;
use crate::sim::machine::{Machine, Os, Power};
use crate::sim::world::World;

/// A world with one BCC account, and a client that signs.
struct Bench {
    world: World,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let now: Timestamp = "2026-01-01T12:00:30Z".parse().unwrap();
        let mut world = World::new(1, now);
        world.open_cloud(ProviderKind::BaiduBcc);
        Self { world, now }
    }
    fn machine(&mut self, keys: &[&String], power: Power, os: Os) -> String {
        let keys = keys.iter().map(ToString::to_string).collect();
        self.world.add_instance(0, InstanceSpec { keys, power, os, ..InstanceSpec::default() })
    }
    fn guest(&self, id: &str) -> &Machine {
        self.world.cloud(0).machine(id).unwrap()
    }
    fn pass(&mut self, millis: i64) {
        self.now += SignedDuration::from_millis(millis);
        self.world.advance(self.now);
    }
    fn request(&mut self, method: &'static str, target: &str, body: &Value) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method,
            origin: "http://127.0.0.1".into(),
            path: path.into(),
            query: query.into(),
            headers: vec![("host".into(), "127.0.0.1".into())],
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        sign_with(&mut request, &Credential::of(self.world.cloud(0)), self.now);
        request
    }
    fn send(&mut self, request: &Request) -> Response {
        handle(&mut self.world, 0, self.now, request).reply.unwrap()
    }
    fn call(&mut self, method: &'static str, target: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, target, &body);
        let response = self.send(&request);
        assert!(response.header("date").is_some() && response.header("x-bce-request-id").is_some());
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }
    fn done(&mut self, method: &'static str, target: &str, body: Value) -> Value {
        let (status, reply) = self.call(method, target, body);
        assert_eq!(status, 200, "{method} {target}: {reply}");
        assert!(reply["requestId"].is_string());
        reply
    }
    fn refused(&mut self, method: &'static str, target: &str, body: Value, status: u16, code: &str) {
        let (got, reply) = self.call(method, target, body.clone());
        assert_eq!((got, reply["code"].as_str()), (status, Some(code)), "{method} {target} {body}: {reply}");
        assert!(reply["requestId"].is_string() && reply["message"].is_string());
    }
    fn show(&mut self, id: &str) -> Value {
        self.done("GET", &format!("/v2/instance/{id}"), Value::Null)["instance"].clone()
    }
    fn rules(&self) -> Vec<Rule> {
        self.world.violations().map(|violation| violation.rule).collect()
    }
}

fn ids(list: &[&String]) -> Value {
    json!({ "instanceIds": list })
}

#[test]
fn an_attach_is_on_record_at_once_and_the_cloud_reboots_a_running_machine_by_itself() {
    let mut bench = Bench::new();
    let old = bench.world.add_strangers_pair(0, "old");
    let line = bench.world.strangers_line();
    let reply = bench.done("PUT", "/v2/keypair?import", json!({ "name": "new", "publicKey": line }));
    let new = reply["keypair"]["keypairId"].as_str().unwrap().to_string();
    let on = bench.machine(&[&old], Power::Running, Os::Linux);
    let off = bench.machine(&[&old], Power::Stopped, Os::Linux);
    let before = bench.guest(&on).accepts.clone();

    let reply = bench.done("PUT", &format!("/v2/keypair/{new}?attach"), ids(&[&on, &off]));
    assert_eq!(reply["failedInstanceIdList"], json!([]));
    let shown = bench.show(&on);
    assert_eq!((&shown["keypairId"], &shown["keypairName"]), (&json!(new), &json!("new")));
    assert_eq!((shown["status"].as_str(), &bench.guest(&on).accepts), (Some("Running"), &before));
    bench.pass(150);
    assert_eq!(bench.show(&on)["status"], "Starting");
    bench.pass(200);
    assert_eq!(bench.show(&on)["status"], "Running");
    assert_eq!((&bench.guest(&on).accepts, bench.guest(&on).reboots), (&vec![line.clone()], 1));

    assert_eq!((bench.guest(&off).power, &bench.guest(&off).accepts), (Power::Stopped, &before));
    bench.done("PUT", &format!("/v2/instance/{off}?start"), Value::Null);
    bench.pass(300);
    assert_eq!(bench.guest(&off).accepts, [line]);

    bench.done("PUT", &format!("/v2/keypair/{old}?detach"), ids(&[&on]));
    assert_eq!(bench.show(&on)["keypairId"], json!(new), "another pair is silently left alone");
    bench.done("PUT", &format!("/v2/keypair/{new}?detach="), ids(&[&on]));
    assert_eq!(bench.show(&on)["keypairId"], "");
    bench.pass(300);
    assert!(bench.guest(&on).password);
    assert_eq!(bench.rules(), []);
}

#[test]
fn one_machine_that_must_not_be_attached_refuses_the_call_and_a_failing_one_is_listed() {
    let mut bench = Bench::new();
    let pair = bench.world.add_strangers_pair(0, "new");
    let target = format!("/v2/keypair/{pair}?attach");
    let good = bench.machine(&[], Power::Running, Os::Linux);
    let windows = bench.machine(&[], Power::Running, Os::Windows);
    let starting = bench.machine(&[], Power::Starting, Os::Linux);
    let attached = bench.machine(&[&pair], Power::Running, Os::Linux);
    let refusing = bench.machine(&[], Power::Running, Os::Linux);
    bench.world.refuse(0, &refusing, "AttachKeypair", "OptInRequired");
    let gone = "i-gone".to_string();
    for (other, status, code) in [
        (&windows, 403, "Keypair.UnsupportOsType"),
        (&starting, 409, "Keypair.InstanceStatusForbidden"),
        (&attached, 400, "Keypair.AttachAttachedKeypair"),
        (&refusing, 403, "OptInRequired"),
        (&gone, 404, "Keypair.InstanceNotExist"),
        (&good, 400, "InappropriateJSON"),
    ] {
        bench.refused("PUT", &target, ids(&[&good, other]), status, code);
        assert_eq!(bench.show(&good)["keypairId"], "", "{code}");
    }
    bench.refused("PUT", "/v2/keypair/k-gone?attach", ids(&[&good]), 404, "Keypair.KeypairNotExist");
    assert_eq!(bench.rules(), [Rule::State, Rule::Malformed]);

    bench.world.faults.half_done = 1.0;
    bench.refused("PUT", &target, ids(&[&good, &windows]), 403, "Keypair.UnsupportOsType");
    assert_eq!(bench.show(&good)["keypairId"], json!(pair), "done before the culprit was met");

    let poisoned = bench.machine(&[], Power::Running, Os::Linux);
    bench.world.poison(0, &poisoned, true);
    let next = bench.machine(&[], Power::Stopped, Os::Linux);
    let reply = bench.done("PUT", &target, ids(&[&poisoned, &next]));
    assert_eq!(reply["failedInstanceIdList"], json!([poisoned]));
    assert_eq!((&bench.show(&poisoned)["keypairId"], &bench.show(&next)["keypairId"]), (&json!(""), &json!(pair)));
}

#[test]
fn a_batch_of_power_is_all_or_nothing_on_states() {
    let mut bench = Bench::new();
    let on = bench.machine(&[], Power::Running, Os::Linux);
    let off = bench.machine(&[], Power::Stopped, Os::Linux);
    let expired = bench.machine(&[], Power::Isolated, Os::Linux);
    let making = bench.machine(&[], Power::Pending, Os::Linux);
    let gone = "i-gone".to_string();
    for (verb, list, status, code) in [
        ("stop", ids(&[&on, &off]), 409, "Instance.StopInstanceOperationForbidden"),
        ("reboot", ids(&[&on, &off]), 409, "Instance.StopInstanceOperationForbidden"),
        ("start", ids(&[&off, &on]), 409, "Instance.StartInstanceOperationForbidden"),
        ("start", ids(&[&off, &expired]), 409, "Instance.StartExpiredInstance"),
        ("start", ids(&[&off, &making]), 409, "Instance.StartInstanceWhenCreating"),
        ("stop", ids(&[&on, &gone]), 404, "Keypair.InstanceNotExist"),
        ("stop", json!({ "instanceIds": [on], "forceStop": "no" }), 400, "InappropriateJSON"),
        (
            "stop",
            json!({ "instanceIds": (0..101).map(|n| format!("i-{n}")).collect::<Vec<_>>() }),
            400,
            "InappropriateJSON",
        ),
    ] {
        bench.refused("PUT", &format!("/v2/instance/batchAction?{verb}"), list, status, code);
    }
    assert_eq!((bench.guest(&on).power, bench.guest(&off).power), (Power::Running, Power::Stopped));
    let stop = json!({ "instanceIds": [on], "forceStop": false, "stopWithNoCharge": false });
    assert_eq!(
        bench.done("PUT", "/v2/instance/batchAction?clientToken=x&stop=", stop)["failedInstanceIdList"],
        json!([])
    );
    assert_eq!(bench.show(&on)["status"], "Running", "the first look still shows the old state");
    bench.pass(100);
    assert_eq!(bench.show(&on)["status"], "Stopping");
    bench.pass(200);
    assert_eq!(bench.show(&on)["status"], "Stopped");
    bench.done("PUT", "/v2/instance/batchAction?start", ids(&[&on, &off]));
    bench.pass(300);
    bench.done("PUT", &format!("/v2/instance/{on}?reboot"), json!({ "forceStop": false }));
    bench.pass(300);
    assert_eq!((bench.guest(&on).boots, bench.guest(&on).reboots), (2, 1));
    let rules = bench.rules();
    bench.done("PUT", &format!("/v2/instance/{on}?stop"), json!({ "stopWithNoCharge": true }));
    bench.pass(300);
    assert_eq!(bench.show(&on)["publicIp"], "");
    assert_eq!(bench.rules().len(), rules.len() + 1);
}

#[test]
fn a_refusal_that_nobody_could_foresee_is_nobodys_fault() {
    let mut bench = Bench::new();
    let id = bench.machine(&[], Power::Running, Os::Linux);
    bench.done("PUT", &format!("/v2/instance/{id}?stop"), Value::Null);
    let code = "Instance.StopInstanceOperationForbidden";
    bench.refused("PUT", &format!("/v2/instance/{id}?stop"), Value::Null, 409, code);
    assert_eq!(bench.rules(), []);
    bench.pass(100);
    bench.refused("PUT", &format!("/v2/instance/{id}?stop"), Value::Null, 409, code);
    assert_eq!(bench.rules(), [Rule::State]);
}

#[test]
fn instances_are_listed_by_marker_and_found_by_each_filter() {
    let mut bench = Bench::new();
    let pair = bench.world.add_strangers_pair(0, "old");
    let tags = vec![("role".to_string(), "web".to_string()), ("env".to_string(), "prod".to_string())];
    let spec = InstanceSpec { tags, keys: vec![pair.clone()], ..InstanceSpec::default() };
    let web = bench.world.add_instance(0, spec);
    let off = bench.machine(&[], Power::Stopped, Os::Linux);
    let last = bench.machine(&[], Power::Running, Os::Linux);
    let found = |body: &Value| -> Vec<String> {
        body["instances"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_string()).collect()
    };
    for (query, expect) in [
        (String::new(), vec![&web, &off, &last]),
        ("tags=role:web,env:prod".into(), vec![&web]),
        ("tags=role".into(), vec![&web]),
        ("tags=role:web,env:test".into(), vec![]),
        ("status=Stopped,Starting".into(), vec![&off]),
        (format!("instanceIds={last},{web},i-none"), vec![&web, &last]),
        (format!("keypairId={pair}"), vec![&web]),
        ("instanceNames=vm-1".into(), vec![&off]),
        ("fuzzyInstanceName=vm-".into(), vec![&web, &off, &last]),
    ] {
        let body = bench.done("GET", &format!("/v2/instance?{query}"), Value::Null);
        assert_eq!(found(&body).iter().collect::<Vec<_>>(), expect, "{query}");
        assert_eq!((&body["isTruncated"], body.get("nextMarker")), (&json!(false), None));
    }
    let body = bench.done("GET", "/v2/instance?maxKeys=2", Value::Null);
    assert_eq!((found(&body), &body["isTruncated"]), (vec![web.clone(), off.clone()], &json!(true)));
    let marker = body["nextMarker"].as_str().unwrap().to_string();
    bench.world.remove_instance(0, &last);
    let body = bench.done("GET", &format!("/v2/instance?maxKeys=2&marker={marker}"), Value::Null);
    assert_eq!((found(&body), &body["isTruncated"]), (vec![], &json!(false)), "released since: the marker still holds");
    bench.refused("GET", "/v2/instance?marker=i-none", Value::Null, 400, "InvalidHTTPRequest");
    bench.refused("GET", "/v2/instance?maxKeys=1001", Value::Null, 400, "InvalidHTTPRequest");
    let body = bench.done("POST", "/v2/instance/listByInstanceId?clientToken=x", ids(&[&off, &last]));
    assert_eq!(found(&body), [off]);
    bench.refused("GET", "/v2/instance/i-none", Value::Null, 404, "Keypair.InstanceNotExist");
}

#[test]
fn key_pairs_are_imported_shown_and_deleted_by_id() {
    let mut bench = Bench::new();
    let (line, other) = (bench.world.strangers_line(), bench.world.strangers_line());
    let body = |name: &str, key: &str, description: &str| json!({ "name": name, "publicKey": key, "description": description });
    let ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFVGGXfBRh5EZOG4iPnVsKtlxVVeHlJ5gSWAVVnC3Jc1";
    for (body, code) in [
        (body("", &line, ""), "Keypair.KeypairNameInvalid"),
        (body("1new", &line, ""), "Keypair.KeypairNameInvalid"),
        (body("new:one", &line, ""), "Keypair.KeypairNameInvalid"),
        (body(&"n".repeat(66), &line, ""), "Keypair.KeypairNameInvalid"),
        (body("new", &line, &"d".repeat(141)), "Keypair.KeypairDescriptionInvalid"),
        (body("new", "ssh-rsa AAAA", ""), "Keypair.PublicKeyFormatInvalid"),
        (body("new", ed25519, ""), "Keypair.PublicKeyFormatInvalid"),
        (json!({ "name": 1 }), "InappropriateJSON"),
    ] {
        bench.refused("PUT", "/v2/keypair?import", body, 400, code);
    }
    let reply = bench.done("PUT", "/v2/keypair?import=&clientToken=x", body("new", &line, "of rekeyd"));
    let id = reply["keypair"]["keypairId"].as_str().unwrap().to_string();
    assert!(reply["keypair"]["publicKey"].as_str().unwrap().starts_with(&line));
    bench.refused("PUT", "/v2/keypair?import", body("else", &line, ""), 400, "Keypair.KeypairPublicKeyExist");
    bench.done("POST", "/v2/keypair?import", body("new", &other, ""));
    bench.world.cloud_mut(0).key_pairs_max = 2;
    let third = bench.world.strangers_line();
    bench.refused("PUT", "/v2/keypair?import", body("x", &third, ""), 413, "Keypair.KeypairQuotaExceedLimit");

    for (query, expect) in [("", 2), ("name=new", 2), ("name=ne", 0), ("maxKeys=1", 1)] {
        let reply = bench.done("GET", &format!("/v2/keypair?{query}"), Value::Null);
        assert_eq!(reply["keypairs"].as_array().unwrap().len(), expect, "{query}");
    }
    let first = bench.done("GET", "/v2/keypair?maxKeys=1", Value::Null);
    let next = format!("/v2/keypair?maxKeys=1&marker={}", first["nextMarker"].as_str().unwrap());
    let second = bench.done("GET", &next, Value::Null);
    assert_eq!((second["keypairs"].as_array().unwrap().len(), &second["isTruncated"]), (1, &json!(false)));

    let holder = bench.machine(&[&id], Power::Stopped, Os::Linux);
    let shown = bench.done("GET", &format!("/v2/keypair/{id}"), Value::Null)["keypair"].clone();
    assert_eq!((&shown["instanceCount"], &shown["description"]), (&json!(1), &json!("of rekeyd")));
    bench.refused("DELETE", &format!("/v2/keypair/{id}"), Value::Null, 403, "Keypair.DeleteKeypairInUse");
    bench.world.remove_instance(0, &holder);
    bench.done("DELETE", &format!("/v2/keypair/{id}?delete"), json!({}));
    bench.refused("DELETE", &format!("/v2/keypair/{id}"), Value::Null, 404, "Keypair.KeypairNotExist");
    bench.refused("GET", &format!("/v2/keypair/{id}"), Value::Null, 404, "Keypair.KeypairNotExist");
}

#[test]
fn the_gateway_lets_nothing_through_that_the_cloud_would_not() {
    let mut bench = Bench::new();
    let code = |response: &Response| {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        (response.status, body["code"].as_str().unwrap_or_default().to_string())
    };
    let request = bench.request("GET", "/v2/instance", &Value::Null);
    assert_eq!(bench.send(&request).status, 200);
    assert_eq!(bench.send(&request).status, 200, "there is no nonce");
    let mut stolen = request.clone();
    stolen.path = "/v2/keypair".into();
    assert_eq!(code(&bench.send(&stolen)), (400, "SignatureDoesNotMatch".into()));
    bench.pass(1_801_000);
    assert_eq!(code(&bench.send(&request)), (400, "RequestExpired".into()));
    bench.refused("DELETE", "/v2/instance/i-1", Value::Null, 400, "InvalidHTTPRequest");
    assert_eq!(bench.rules(), [Rule::Signature, Rule::Clock, Rule::Malformed]);
    assert_eq!(bench.world.cloud(0).calls()["ListInstances"], 3);

    bench.world.faults.script(None, "ListInstances", 1, Weather::Throttled);
    bench.refused("GET", "/v2/instance", Value::Null, 429, "Http429");
    bench.world.faults.script(None, "", 1, Weather::ServerError { applied: false, gateway: false });
    bench.refused("GET", "/v2/instance", Value::Null, 500, "InternalError");
}
