//! The ECS face called through the door, as a client calls it: what it refuses, and what it does to the guests.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::sign::testing::sign_with;
use crate::model::ProviderKind;
use crate::net::{Request, Response};
use crate::sim::InstanceSpec;
use crate::sim::canon::{Credential, encode};
use crate::sim::cloud::Rule;
use crate::sim::door::handle;
use crate::sim::faults::Weather;
use crate::sim::machine::{Os, Power};
use crate::sim::world::World;

/// A world with one ECS account, and a client that signs.
struct Bench {
    world: World,
    now: Timestamp,
    nonce: u32,
}

impl Bench {
    fn new() -> Self {
        let now: Timestamp = "2026-01-01T12:00:30Z".parse().unwrap();
        let mut world = World::new(1, now);
        world.open_cloud(ProviderKind::AlibabaEcs);
        Self { world, now, nonce: 0 }
    }
    fn machine(&mut self, keys: &[&str], power: Power, os: Os) -> String {
        let keys = keys.iter().map(ToString::to_string).collect();
        self.world.add_instance(0, InstanceSpec { keys, power, os, ..InstanceSpec::default() })
    }
    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.world.advance(self.now);
    }
    fn request(&mut self, action: &str, params: &[(&str, &str)]) -> Request {
        self.nonce += 1;
        let query: Vec<String> =
            params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let header = |name: &str, value: &str| (name.to_string(), value.to_string());
        let mut request = Request {
            method: "POST",
            origin: "http://127.0.0.1".into(),
            path: "/".into(),
            query: query.join("&"),
            headers: vec![
                header("accept", "application/json"),
                header("host", "127.0.0.1"),
                header("x-acs-action", action),
                header("x-acs-version", "2014-05-26"),
                header("x-acs-signature-nonce", &self.nonce.to_string()),
            ],
            body: Vec::new(),
        };
        sign_with(&mut request, &Credential::of(self.world.cloud(0)), self.now);
        request
    }
    fn send(&mut self, request: &Request) -> Response {
        handle(&mut self.world, 0, self.now, request).reply.unwrap()
    }
    /// Calls an action in the cloud's region: status and body.
    fn call(&mut self, action: &str, params: &[(&str, &str)]) -> (u16, Value) {
        let mut params = params.to_vec();
        if !params.iter().any(|(name, _)| *name == "RegionId") {
            params.push(("RegionId", "cn-beijing"));
        }
        let request = self.request(action, &params);
        let response = self.send(&request);
        assert!(response.header("date").is_some() && response.header("x-acs-request-id").is_some());
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }
    fn done(&mut self, action: &str, params: &[(&str, &str)]) -> Value {
        let (status, body) = self.call(action, params);
        assert_eq!(status, 200, "{action}: {body}");
        body
    }
    fn refused(&mut self, action: &str, params: &[(&str, &str)], status: u16, code: &str) {
        let (got, body) = self.call(action, params);
        assert_eq!((got, body["Code"].as_str()), (status, Some(code)), "{action} {params:?}: {body}");
        assert!(body["RequestId"].is_string() && body["HostId"].is_string() && body["Message"].is_string());
    }
    fn show(&mut self, id: &str) -> Value {
        let ids = json!([id]).to_string();
        self.done("DescribeInstances", &[("InstanceIds", &ids)])["Instances"]["Instance"][0].clone()
    }
    fn rules(&self) -> Vec<Rule> {
        self.world.violations().map(|violation| violation.rule).collect()
    }
}

fn list(ids: &[&String]) -> String {
    json!(ids).to_string()
}

#[test]
fn an_attached_key_is_on_record_at_once_and_opens_the_machine_after_the_next_boot() {
    let mut bench = Bench::new();
    bench.world.add_strangers_pair(0, "old");
    let new_line = bench.world.strangers_line();
    let id = bench.machine(&["old"], Power::Running, Os::Linux);
    let old = bench.world.cloud(0).machine(&id).unwrap().accepts.clone();
    let stopped = bench.machine(&["old"], Power::Stopped, Os::Linux);
    bench.done("ImportKeyPair", &[("KeyPairName", "new"), ("PublicKeyBody", &new_line)]);

    let ids = list(&[&id, &stopped]);
    let reply = bench.done("AttachKeyPair", &[("KeyPairName", "new"), ("InstanceIds", &ids)]);
    assert_eq!((reply["TotalCount"].as_str(), reply["FailCount"].as_str()), (Some("2"), Some("0")));
    let results = &reply["Results"]["Result"];
    assert_eq!((&results[0]["Success"], &results[0]["Code"]), (&json!("true"), &json!("200")));
    assert_eq!((&results[1]["Success"], &results[1]["Code"]), (&json!(true), &json!(200)));
    let before = bench.show(&id);
    assert_eq!((before["KeyPairName"].as_str(), before["Status"].as_str()), (Some("new"), Some("Running")));
    bench.pass(3600);
    assert_eq!(bench.world.cloud(0).machine(&id).unwrap().accepts, old, "an hour later still the old key");

    bench.done("RebootInstances", &[("InstanceId.1", &id)]);
    assert_eq!(bench.show(&id)["Status"], "Running", "the first look still shows the old state");
    bench.pass(1);
    let after = bench.show(&id);
    assert_eq!(after["Status"], "Running");
    assert_ne!(after["StartTime"], before["StartTime"]);
    assert_eq!(bench.world.cloud(0).machine(&id).unwrap().accepts, std::slice::from_ref(&new_line));

    bench.done("StartInstances", &[("InstanceId.1", &stopped)]);
    bench.pass(1);
    assert_eq!(bench.world.cloud(0).machine(&stopped).unwrap().accepts, [new_line]);

    let ids = list(&[&id]);
    bench.done("DetachKeyPair", &[("KeyPairName", "new"), ("InstanceIds", &ids)]);
    bench.done("DetachKeyPair", &[("KeyPairName", "old"), ("InstanceIds", &ids)]);
    assert_eq!(bench.show(&id)["KeyPairName"], "");
    bench.done("RebootInstance", &[("InstanceId", &id)]);
    bench.pass(1);
    assert!(bench.world.cloud(0).machine(&id).unwrap().password);
    assert_eq!(bench.rules(), []);
}

#[test]
fn start_times_are_whole_minutes() {
    let mut bench = Bench::new();
    let id = bench.machine(&[], Power::Running, Os::Linux);
    let mut starts = vec![bench.show(&id)["StartTime"].clone()];
    for pause in [1, 1, 60] {
        bench.done("RebootInstances", &[("InstanceId.1", &id)]);
        bench.pass(pause);
        starts.push(bench.show(&id)["StartTime"].clone());
    }
    assert_eq!(starts, ["2025-12-31T12:00Z", "2026-01-01T12:00Z", "2026-01-01T12:00Z", "2026-01-01T12:00Z"]);
}

#[test]
fn a_batch_is_attached_in_part_with_http_200() {
    let mut bench = Bench::new();
    bench.world.add_strangers_pair(0, "new");
    let good = bench.machine(&[], Power::Running, Os::Linux);
    let windows = bench.machine(&[], Power::Running, Os::Windows);
    let poisoned = bench.machine(&[], Power::Running, Os::Linux);
    bench.world.poison(0, &poisoned, true);
    let starting = bench.machine(&[], Power::Starting, Os::Linux);
    let locked = bench.machine(&[], Power::Running, Os::Linux);
    bench.world.refuse(0, &locked, "AttachKeyPair", "InstanceLockedForSecurity");
    let ids = list(&[&good, &windows, &poisoned, &starting, &locked]);
    let reply = bench.done("AttachKeyPair", &[("KeyPairName", "new"), ("InstanceIds", &ids)]);
    assert_eq!(reply["FailCount"], "4");
    let codes: Vec<&Value> = reply["Results"]["Result"].as_array().unwrap().iter().map(|r| &r["Code"]).collect();
    let expect = [
        "200",
        "DependencyViolation.WindowsInstance",
        "DependencyViolation.IoOptimize",
        "IncorrectInstanceStatus",
        "InstanceLockedForSecurity",
    ];
    assert_eq!(codes, expect);
    assert_eq!(bench.show(&good)["KeyPairName"], "new");
    assert_eq!(bench.show(&windows)["KeyPairName"], "");
    assert_eq!(bench.show(&locked)["OperationLocks"]["LockReason"][0]["LockReason"], "security");
    assert_eq!(bench.rules(), [Rule::State], "only the one in the wrong state could have been known");
}

#[test]
fn attach_refuses_what_the_page_refuses() {
    let mut bench = Bench::new();
    bench.world.add_strangers_pair(0, "new");
    let id = bench.machine(&[], Power::Running, Os::Linux);
    let many: Vec<String> = (0..51).map(|_| bench.machine(&[], Power::Running, Os::Linux)).collect();
    let many = list(&many.iter().collect::<Vec<_>>());
    let (one, twice) = (list(&[&id]), list(&[&id, &id]));
    for (name, ids, status, code) in [
        ("new", many.as_str(), 403, "InstanceKeyPairLimitExceeded"),
        ("new", twice.as_str(), 400, "InvalidInstanceIds.ValueNotSupported"),
        ("new", id.as_str(), 400, "InvalidInstanceIds.ValueNotSupported"),
        ("new", "[]", 400, "InvalidInstanceIds.ValueNotSupported"),
        ("new", r#"["i-gone"]"#, 400, "InvalidInstanceIds.ValueNotSupported"),
        ("other", one.as_str(), 400, "InvalidKeyPairName.NotFound"),
        ("", one.as_str(), 400, "MissingParameter"),
        ("new", "", 400, "MissingParameter"),
    ] {
        bench.refused("AttachKeyPair", &[("KeyPairName", name), ("InstanceIds", ids)], status, code);
    }
    bench.refused("AttachKeyPair", &[("RegionId", "us-east-1")], 404, "InvalidRegionId.NotFound");
    assert_eq!(bench.show(&id)["KeyPairName"], "");
}

#[test]
fn a_stop_without_keep_charging_loses_the_public_address_and_is_written_down() {
    let mut bench = Bench::new();
    let id = bench.machine(&[], Power::Running, Os::Linux);
    let before = bench.show(&id)["PublicIpAddress"]["IpAddress"].clone();
    for (mode, kept) in [(Some("KeepCharging"), true), (None, false)] {
        let mut params = vec![("InstanceId.1", id.as_str())];
        params.extend(mode.map(|mode| ("StoppedMode", mode)));
        let reply = bench.done("StopInstances", &params);
        let response = &reply["InstanceResponses"]["InstanceResponse"][0];
        assert_eq!((&response["Code"], &response["PreviousStatus"]), (&json!("200"), &json!("Running")));
        assert_eq!(response["CurrentStatus"], "Stopping");
        bench.pass(1);
        let stopped = bench.show(&id);
        assert_eq!(stopped["Status"], "Stopped");
        assert_eq!(stopped["StoppedMode"], if kept { "KeepCharging" } else { "StopCharging" });
        bench.done("StartInstances", &[("InstanceId.1", &id)]);
        bench.pass(1);
        assert_eq!(bench.show(&id)["PublicIpAddress"]["IpAddress"] == before, kept);
        assert_eq!(bench.rules().len(), usize::from(!kept));
    }
}

#[test]
fn power_is_all_or_nothing_unless_success_comes_first() {
    let mut bench = Bench::new();
    let on = bench.machine(&[], Power::Running, Os::Linux);
    let off = bench.machine(&[], Power::Stopped, Os::Linux);
    let owing = bench.machine(&[], Power::Isolated, Os::Linux);
    let keep = ("StoppedMode", "KeepCharging");
    let both = [("InstanceId.1", on.as_str()), ("InstanceId.2", off.as_str()), keep];
    bench.refused("StopInstances", &both, 403, "IncorrectInstanceStatus");
    assert_eq!(bench.show(&on)["Status"], "Running");
    bench.refused("StartInstances", &[("InstanceId.1", &owing)], 403, "InstanceExpiredOrInArrears");
    bench.refused("RebootInstances", &[("InstanceId.1", &off)], 403, "IncorrectInstanceStatus");
    bench.refused("StopInstances", &[("InstanceId.1", "i-gone")], 404, "InvalidInstanceId.NotFound");
    bench.refused("StopInstances", &[], 403, "InvalidInstanceId.NotFound");
    bench.refused(
        "StopInstances",
        &[("InstanceId.1", &on), ("InstanceId.2", &on)],
        403,
        "Abs.InvalidInstanceIds.MalFormed",
    );
    let names: Vec<String> = (1..=101).map(|n| format!("InstanceId.{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), on.as_str())).collect();
    bench.refused("StopInstances", &many, 403, "InvalidParameter.TooManyInstanceIds");
    bench.refused("StopInstances", &[("InstanceId.1", &on), ("DryRun", "true")], 400, "DRYRUN.SUCCESS");
    bench.refused("StopInstance", &[("InstanceId", &on), ("DryRun", "true")], 400, "DryRunOperation");
    assert_eq!(bench.show(&on)["Status"], "Running");

    let first = [both[0], both[1], keep, ("BatchOptimization", "SuccessFirst")];
    let reply = bench.done("StopInstances", &first);
    let codes: Vec<&Value> =
        reply["InstanceResponses"]["InstanceResponse"].as_array().unwrap().iter().map(|r| &r["Code"]).collect();
    assert_eq!(codes, ["200", "IncorrectInstanceStatus"]);
    bench.pass(1);
    assert_eq!(bench.show(&on)["Status"], "Stopped");
    let dry = [first[0], first[3], ("DryRun", "true")];
    bench.refused("StopInstances", &dry, 400, "DRYRUN.SUCCESS");
}

#[test]
fn a_tag_filter_finds_a_thousand_and_list_tag_resources_finds_the_rest() {
    let mut bench = Bench::new();
    for number in 0..1003 {
        let tags = vec![("role".to_string(), "web".to_string()), ("n".to_string(), number.to_string())];
        bench.world.add_instance(0, InstanceSpec { tags, ..InstanceSpec::default() });
    }
    let tag = [("Tag.1.Key", "role"), ("Tag.1.Value", "web")];
    let mut walk = |action: &str, extra: &[(&str, &str)], lists: [&str; 2]| {
        let (mut token, mut rows, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let mut params = extra.to_vec();
            params.push(("NextToken", &token));
            let body = bench.done(action, &params);
            rows.extend(body[lists[0]][lists[1]].as_array().unwrap().clone());
            pages += 1;
            token = body["NextToken"].as_str().unwrap().to_string();
            if token.is_empty() {
                return (rows, pages);
            }
        }
    };
    let small = [tag[0], tag[1], ("MaxResults", "1")];
    let (rows, pages) = walk("DescribeInstances", &small, ["Instances", "Instance"]);
    assert_eq!((rows.len(), pages), (1000, 100), "fewer than ten a page are ten");
    let large = [tag[0], tag[1], ("MaxResults", "5000")];
    let (rows, pages) = walk("DescribeInstances", &large, ["Instances", "Instance"]);
    assert_eq!((rows.len(), pages), (1000, 10), "more than a hundred a page are a hundred");
    let (rows, _) = walk("DescribeInstances", &[("MaxResults", "100")], ["Instances", "Instance"]);
    assert_eq!(rows.len(), 1003, "the cap is the tag filter's");
    let kind = ("ResourceType", "instance");
    let (rows, _) = walk("ListTagResources", &[kind, tag[0], tag[1]], ["TagResources", "TagResource"]);
    assert_eq!(rows.len(), 1003);
    assert_eq!(rows[0]["TagKey"], "role");
    let id = rows[7]["ResourceId"].as_str().unwrap().to_string();
    let (rows, _) = walk("ListTagResources", &[kind, ("ResourceId.1", &id)], ["TagResources", "TagResource"]);
    assert_eq!(rows.len(), 2, "by id: each of its tags");

    let page = bench.done("DescribeInstances", &large);
    let token = page["NextToken"].as_str().unwrap().to_string();
    bench.refused("DescribeInstances", &[("NextToken", &token)], 400, "InvalidParameter");
}

#[test]
fn instances_are_found_by_each_filter() {
    let mut bench = Bench::new();
    bench.world.add_strangers_pair(0, "old");
    let on = bench.machine(&["old"], Power::Running, Os::Linux);
    let off = bench.machine(&[], Power::Stopped, Os::Windows);
    let gone = bench.machine(&[], Power::Running, Os::Linux);
    bench.world.remove_instance(0, &gone);
    let one = list(&[&on]);
    for (filter, expect) in [
        (vec![], vec![&on, &off]),
        (vec![("Status", "Stopped")], vec![&off]),
        (vec![("KeyPairName", "old")], vec![&on]),
        (vec![("InstanceName", "vm-*")], vec![&on, &off]),
        (vec![("InstanceName", "*-1")], vec![&off]),
        (vec![("InstanceName", "vm")], vec![]),
        (vec![("InstanceIds", one.as_str())], vec![&on]),
        (vec![("InstanceIds", "[]")], vec![]),
        (vec![("PageSize", "1"), ("PageNumber", "2")], vec![&off]),
        (vec![("Tag.1.Key", "role")], vec![]),
    ] {
        let body = bench.done("DescribeInstances", &filter);
        let found: Vec<&str> = body["Instances"]["Instance"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["InstanceId"].as_str().unwrap())
            .collect();
        assert_eq!(found, expect, "{filter:?}");
    }
    let statuses = bench.done("DescribeInstanceStatus", &[("InstanceId.1", &off)]);
    assert_eq!(statuses["InstanceStatuses"]["InstanceStatus"], json!([{ "InstanceId": off, "Status": "Stopped" }]));
    let windows = bench.show(&off);
    assert_eq!((&windows["OSType"], &windows["KeyPairName"]), (&json!("windows"), &json!("")));
    for bad in [("PageSize", "101"), ("PageNumber", "0"), ("InstanceIds", "i-1"), ("Status", "running")] {
        bench.refused("DescribeInstances", &[bad], 400, "InvalidParameter");
    }
    bench.refused("DescribeInstanceStatus", &[("PageSize", "51")], 400, "InvalidParameter");
    bench.refused("DescribeInstances", &[("DryRun", "True")], 400, "DryRunOperation");
    bench.refused("ListTagResources", &[("ResourceType", "instance")], 400, "MissingParameter");
    let regions = bench.done("DescribeRegions", &[]);
    assert_eq!(regions["Regions"]["Region"][0]["RegionId"], "cn-beijing");
}

#[test]
fn key_pairs_are_imported_shown_and_deleted_by_name() {
    let mut bench = Bench::new();
    let line = bench.world.strangers_line();
    let import =
        |name: &'static str, body: &str| [("KeyPairName", name), ("PublicKeyBody", body.to_string().leak() as &str)];
    let ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFVGGXfBRh5EZOG4iPnVsKtlxVVeHlJ5gSWAVVnC3Jc1";
    for (name, body, status, code) in [
        ("a", line.as_str(), 400, "InvalidKeyPairName.Malformed"),
        ("1abc", &line, 400, "InvalidKeyPairName.Malformed"),
        ("http://key", &line, 400, "InvalidKeyPairName.Malformed"),
        ("with space", &line, 400, "InvalidKeyPairName.Malformed"),
        ("rk_new", "ssh-rsa AAAA", 400, "InvalidPublicKeyBody.Malformed"),
        ("rk_new", ed25519, 400, "InvalidPublicKeyBody.Malformed"),
        ("rk_new", "", 400, "MissingParameter"),
    ] {
        bench.refused("ImportKeyPair", &import(name, body), status, code);
    }
    let tagged =
        [import("rk_new", &line)[0], import("rk_new", &line)[1], ("Tag.1.Key", "by"), ("Tag.1.Value", "rekeyd")];
    assert_eq!(bench.done("ImportKeyPair", &tagged)["KeyPairName"], "rk_new");
    bench.refused("ImportKeyPair", &import("rk_new", &line), 400, "KeyPair.AlreadyExist");
    bench.done("ImportKeyPair", &import("rk_two", &line));
    bench.world.cloud_mut(0).key_pairs_max = 2;
    bench.refused("ImportKeyPair", &import("rk_three", &line), 403, "QuotaExceed.KeyPair");

    for (filter, total, shown) in [
        (vec![("KeyPairName", "rk_*")], 2, 2),
        (vec![("KeyPairName", "rk_new")], 1, 1),
        (vec![("KeyPairName", "new")], 0, 0),
        (vec![("PageSize", "1"), ("PageNumber", "2")], 2, 1),
        (vec![("Tag.1.Key", "by")], 1, 1),
    ] {
        let body = bench.done("DescribeKeyPairs", &filter);
        let pairs = body["KeyPairs"]["KeyPair"].as_array().unwrap();
        assert_eq!((body["TotalCount"].as_u64(), pairs.len()), (Some(total), shown), "{filter:?}");
        assert!(pairs.iter().all(|pair| pair.get("PublicKey").is_none()), "only on request");
    }
    bench.refused("DescribeKeyPairs", &[("PageSize", "51")], 400, "InvalidParameter");
    let body = bench.done("DescribeKeyPairs", &[("KeyPairName", "rk_new"), ("IncludePublicKey", "true")]);
    let shown = body["KeyPairs"]["KeyPair"][0]["PublicKey"].as_str().unwrap();
    assert!(shown.starts_with(&line), "the comment may be rewritten, the key may not");

    bench.machine(&["rk_two"], Power::Stopped, Os::Linux);
    let delete = |names: &'static str| [("KeyPairNames", names)];
    let bound = "InvalidParameter.KeypairAlreadyAttachedInstance";
    bench.refused("DeleteKeyPairs", &delete(r#"["rk_new","rk_two"]"#), 400, bound);
    bench.refused("DeleteKeyPairs", &delete("rk_new"), 400, "InvalidKeyPairNames.ValueNotSupported");
    bench.refused("DeleteKeyPairs", &delete("[]"), 400, "InvalidKeyPairNames.ValueNotSupported");
    bench.done("DeleteKeyPairs", &delete(r#"["rk_new"]"#));
    assert!(bench.world.cloud(0).key_pair("rk_new").is_none());
    let answers: Vec<u16> = (0..20).map(|_| bench.call("DeleteKeyPairs", &delete(r#"["rk_gone"]"#)).0).collect();
    assert!(answers.contains(&200) && answers.contains(&400), "the page is silent: both, by the seed");
}

#[test]
fn the_gateway_lets_nothing_through_that_the_cloud_would_not() {
    let mut bench = Bench::new();
    let code = |response: &Response| {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        (response.status, body["Code"].as_str().unwrap_or_default().to_string())
    };
    let region = [("RegionId", "cn-beijing")];
    let request = bench.request("DescribeInstances", &region);
    assert_eq!(bench.send(&request).status, 200);
    assert_eq!(code(&bench.send(&request)), (400, "SignatureNonceUsed".into()));
    let mut stolen = bench.request("DescribeInstances", &region);
    stolen.query = "RegionId=cn-beijing&Status=Running".into();
    assert_eq!(code(&bench.send(&stolen)), (403, "SignatureDoesNotMatch".into()));
    let old = bench.request("DescribeInstances", &region);
    bench.pass(901);
    assert_eq!(code(&bench.send(&old)), (400, "InvalidTimeStamp.Expired".into()));
    bench.refused("RunInstances", &[], 400, "UnsupportedOperation");
    let none = bench.request("DescribeInstances", &[]);
    assert_eq!(code(&bench.send(&none)), (400, "MissingParameter".into()));
    assert_eq!(bench.rules(), [Rule::Nonce, Rule::Signature, Rule::Clock, Rule::Malformed, Rule::Malformed]);

    bench.world.faults.script(None, "DescribeInstances", 1, Weather::Throttled);
    bench.refused("DescribeInstances", &[], 400, "Throttling.User");
    bench.world.faults.script(None, "", 1, Weather::ServerError { applied: false, gateway: false });
    bench.refused("DescribeInstances", &[], 500, "InternalError");

    // Who does not ask for JSON gets XML.
    let mut request = bench.request("DescribeInstances", &region);
    request.headers.retain(|(name, _)| name != "accept" && name != "authorization");
    sign_with(&mut request, &Credential::of(bench.world.cloud(0)), bench.now);
    let body = String::from_utf8(bench.send(&request).body).unwrap();
    assert!(body.contains("<DescribeInstancesResponse>") && body.contains("<TotalCount>0</TotalCount>"), "{body}");
}

#[test]
fn a_form_body_is_as_good_as_a_query() {
    let mut bench = Bench::new();
    let mut request = bench.request("DescribeInstances", &[]);
    request.headers.retain(|(name, _)| name != "authorization");
    request.headers.push(("content-type".into(), "application/x-www-form-urlencoded".into()));
    request.body = b"RegionId=cn-beijing&PageSize=5".to_vec();
    sign_with(&mut request, &Credential::of(bench.world.cloud(0)), bench.now);
    assert_eq!(bench.send(&request).status, 200);
}
