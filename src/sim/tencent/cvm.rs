//! CVM, API 2017-03-12 (FACTS §2.2). A bind wants a stopped machine; with ForceStop it takes a running one down by
//! force, binds, and starts it again. Its list of error codes is not Lighthouse's.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::cvm_looks::{self as looks, check_ids, malformed, malformed_keys};
use super::{Product, Refused, broken, params, refused};
use crate::net::{Request, Response};
use crate::sim::cloud::Rule::{Malformed, State};
use crate::sim::door::{Call, Face};
use crate::sim::machine::{self, Course, Machine, Os, Power, Step};
use crate::sim::world::World;

/// The CVM face.
pub(in crate::sim) struct Cvm;

impl Face for Cvm {
    fn action(&self, request: &Request) -> String {
        super::action(request)
    }
    fn answer(&self, world: &mut World, call: &Call<'_>) -> Response {
        super::answer::<Self>(world, call)
    }
    fn throttled(&self, request_id: &str) -> Response {
        super::throttled(request_id)
    }
    fn denied(&self, request_id: &str) -> Response {
        super::denied(request_id)
    }
    fn internal_error(&self, request_id: &str) -> Response {
        super::internal_error(request_id)
    }
}

impl Product for Cvm {
    const SERVICE: &'static str = "cvm";
    const VERSION: &'static str = "2017-03-12";
    const ACTIONS: &'static [(&'static str, Option<u32>)] = &[
        ("DescribeInstances", Some(40)),
        ("DescribeInstancesStatus", None),
        ("DescribeKeyPairs", Some(10)),
        ("ImportKeyPair", Some(10)),
        ("DeleteKeyPairs", Some(10)),
        ("AssociateInstancesKeyPairs", Some(10)),
        ("DisassociateInstancesKeyPairs", Some(10)),
        ("StopInstances", Some(10)),
        ("StartInstances", Some(10)),
        ("RebootInstances", Some(10)),
        ("DescribeRegions", None),
    ];

    fn act(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
        match call.action {
            "DescribeInstances" => looks::describe_instances(world, call),
            "DescribeInstancesStatus" => looks::describe_status(world, call),
            "DescribeKeyPairs" => looks::describe_key_pairs(world, call),
            "ImportKeyPair" => looks::import(world, call),
            "DeleteKeyPairs" => looks::delete(world, call),
            "AssociateInstancesKeyPairs" => bind(world, call, true),
            "DisassociateInstancesKeyPairs" => bind(world, call, false),
            "StopInstances" => stop(world, call),
            "StartInstances" => start(world, call),
            "RebootInstances" => reboot(world, call),
            _ => looks::regions(world, call),
        }
    }
}

// ---- binding

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Bind {
    instance_ids: Vec<String>,
    key_ids: Vec<String>,
    force_stop: Option<bool>,
}

fn bind(world: &mut World, call: &Call<'_>, attach: bool) -> Result<Value, Refused> {
    let Bind { instance_ids, key_ids, force_stop } = params(call)?;
    let force = force_stop.unwrap_or(false);
    check_ids(&key_ids)?;
    malformed_keys(&key_ids)?;
    if world.cloud(call.cloud).lines(&key_ids).is_none() {
        return Err(refused("InvalidKeyPairId.NotFound", "no such key pair"));
    }
    let good = |machine: &Machine| {
        if machine.os == Os::Windows {
            return Err(broken(State, "UnsupportedOperation.InstanceOsWindows", "a Windows instance"));
        }
        if attach && machine.poisoned {
            return Err(refused("InvalidInstance.NotSupported", "the instance does not support this"));
        }
        if machine.no_charge {
            return Err(refused("UnsupportedOperation.StoppedModeStopCharging", "stopped in no-charge mode"));
        }
        let states: &[Power] = if force { &[Power::Stopped, Power::Running] } else { &[Power::Stopped] };
        allowed(machine, states)
    };
    let course = |world: &mut World, at: usize| {
        let time = world.settings.operation_time;
        let machine = &world.cloud(call.cloud).machines()[at];
        let running = machine.power == Power::Running;
        let kept = || machine.record_keys.iter().filter(|key| !key_ids.contains(key)).cloned().collect();
        let keys: Vec<String> = if attach { key_ids.clone() } else { kept() };
        let mut course = Course::new();
        if running {
            course.push((Duration::ZERO, Step::Power(Power::Stopping)));
            course.push((time, Step::Power(Power::Stopped)));
        }
        course.extend(world.rekey(call.cloud, &keys, time));
        if running {
            course.push((time, Step::Power(Power::Starting)));
            course.push((time * 2, Step::Power(Power::Running)));
            course.push((time * 2, Step::Done));
        } else {
            course.push((time, Step::Done));
        }
        course
    };
    on_each(world, call, &instance_ids, good, course)
}

// ---- power

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Stop {
    instance_ids: Vec<String>,
    stop_type: Option<String>,
    force_stop: Option<bool>,
    stopped_mode: Option<String>,
}

fn stop(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let Stop { instance_ids, stop_type, force_stop, stopped_mode } = params(call)?;
    stop_type_or_flag(stop_type.as_deref(), force_stop)?;
    let mode = stopped_mode.as_deref().unwrap_or("KEEP_CHARGING");
    if !["KEEP_CHARGING", "STOP_CHARGING"].contains(&mode) {
        return Err(broken(Malformed, "InvalidParameterValue", format!("StoppedMode {mode}")));
    }
    let answer = on_each(
        world,
        call,
        &instance_ids,
        |machine| allowed(machine, &[Power::Running]),
        |world, _| machine::stop(world.settings.operation_time),
    )?;
    if mode == "STOP_CHARGING" {
        for id in &instance_ids {
            world.stop_charging(call.cloud, id);
        }
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Start {
    instance_ids: Vec<String>,
}

fn start(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let Start { instance_ids } = params(call)?;
    on_each(
        world,
        call,
        &instance_ids,
        |machine| allowed(machine, &[Power::Stopped]),
        |world, _| machine::start(world.settings.operation_time),
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Reboot {
    instance_ids: Vec<String>,
    stop_type: Option<String>,
    force_reboot: Option<bool>,
}

fn reboot(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
    let Reboot { instance_ids, stop_type, force_reboot } = params(call)?;
    stop_type_or_flag(stop_type.as_deref(), force_reboot)?;
    on_each(
        world,
        call,
        &instance_ids,
        |machine| allowed(machine, &[Power::Running]),
        |world, _| machine::reboot(world.settings.operation_time),
    )
}

/// StopType and the deprecated flag exclude each other (FACTS §2.2, §6: InvalidParameterCombination).
fn stop_type_or_flag(stop_type: Option<&str>, flag: Option<bool>) -> Result<(), Refused> {
    match stop_type {
        Some(_) if flag.is_some() => {
            Err(broken(Malformed, "InvalidParameterCombination", "StopType with the deprecated flag"))
        }
        Some(kind) if !["SOFT", "HARD", "SOFT_FIRST"].contains(&kind) => {
            Err(broken(Malformed, "InvalidParameterValue", format!("StopType {kind}")))
        }
        _ => Ok(()),
    }
}

// ---- what all of them check

/// Begins an operation on each instance if all are found and `good`; else the first culprit's code is the answer, and
/// the good ones before it proceed or not (see Lighthouse's).
fn on_each(
    world: &mut World,
    call: &Call<'_>,
    ids: &[String],
    good: impl Fn(&Machine) -> Result<(), Refused>,
    course: impl Fn(&mut World, usize) -> Course,
) -> Result<Value, Refused> {
    check_ids(ids)?;
    malformed(ids)?;
    super::on_each(world, call, ids, "InvalidInstanceId.NotFound", good, course)
}

/// Whether a machine may be operated on. CVM has a code for each state.
fn allowed(machine: &Machine, states: &[Power]) -> Result<(), Refused> {
    if states.contains(&machine.power) && !machine.is_busy() {
        return Ok(());
    }
    let name = match machine.power {
        Power::Running if !machine.is_busy() => "Running",
        Power::Stopped if !machine.is_busy() => "Stopped",
        Power::Starting => "Starting",
        Power::Stopping => "Stopping",
        Power::Rebooting => "Rebooting",
        Power::Pending => "Pending",
        Power::Isolated => "Shutdown",
        Power::Gone => "Terminated",
        Power::Running | Power::Stopped => {
            return Err(refused("OperationDenied.InstanceOperationInProgress", "another operation is under way"));
        }
    };
    let (code, message) = (format!("UnsupportedOperation.InstanceState{name}"), format!("the instance is {name}"));
    // A machine that is on its way somewhere can meet a careful client; one that stands in the wrong state cannot.
    match machine.power {
        Power::Running | Power::Stopped | Power::Isolated => Err(broken(State, &code, message)),
        _ => Err(refused(&code, message)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::InstanceSpec;

    fn bench() -> Bench {
        Bench::new(ProviderKind::TencentCvm)
    }

    fn bind_of(id: &str, key: &str, force: Option<bool>) -> Value {
        match force {
            Some(force) => json!({ "InstanceIds": [id], "KeyIds": [key], "ForceStop": force }),
            None => json!({ "InstanceIds": [id], "KeyIds": [key] }),
        }
    }

    #[test]
    fn a_bind_wants_a_stopped_machine_or_force_and_force_starts_it_again() {
        let mut bench = bench();
        let (old, new) = (bench.world.add_strangers_pair(0, "old"), bench.world.add_strangers_pair(0, "new"));
        let id = bench.instance(Power::Running, &[&old]);
        for force in [None, Some(false)] {
            let code = bench.code("AssociateInstancesKeyPairs", bind_of(&id, &new, force));
            assert_eq!(code, "UnsupportedOperation.InstanceStateRunning");
        }
        assert_eq!(bench.code("AssociateInstancesKeyPairs", bind_of(&id, &new, Some(true))), "");
        assert_eq!(bench.state(&id), "RUNNING/-", "the first look still shows the old state");
        bench.wait(60);
        assert_eq!(bench.state(&id), "STOPPING/OPERATING");
        bench.wait(200);
        assert_eq!(bench.state(&id), "STARTING/OPERATING");
        bench.wait(200);
        assert_eq!(bench.state(&id), "RUNNING/SUCCESS");
        assert_eq!(bench.look(&id)["LoginSettings"]["KeyIds"], json!([new]));
        assert_eq!(bench.world.cloud(0).machine(&id).unwrap().accepts, bench.world.cloud(0).lines(&[new]).unwrap());
    }

    #[test]
    fn a_stopped_machine_is_bound_in_place_and_an_unbound_one_shows_null() {
        let mut bench = bench();
        let pair = bench.world.add_strangers_pair(0, "pair");
        let id = bench.instance(Power::Stopped, &[]);
        assert_eq!(bench.look(&id)["LoginSettings"]["KeyIds"], Value::Null);
        assert_eq!(bench.code("AssociateInstancesKeyPairs", bind_of(&id, &pair, None)), "");
        let busy = bench.code("StartInstances", json!({ "InstanceIds": [id] }));
        assert_eq!(busy, "OperationDenied.InstanceOperationInProgress");
        bench.wait(300);
        assert_eq!(bench.state(&id), "STOPPED/SUCCESS");
        assert_eq!(bench.look(&id)["LoginSettings"]["KeyIds"], json!([pair]));
        assert_eq!(bench.code("DisassociateInstancesKeyPairs", bind_of(&id, &pair, None)), "");
        bench.wait(300);
        assert!(bench.world.cloud(0).machine(&id).unwrap().password);
        assert_eq!(bench.violations(), Vec::<String>::new());
    }

    #[test]
    fn each_state_has_its_code() {
        let check = |power: Power, action: &str, expect: &str| {
            let mut bench = bench();
            let id = bench.instance(power, &[]);
            let expect = if expect.is_empty() { String::new() } else { format!("UnsupportedOperation.{expect}") };
            assert_eq!(bench.code(action, json!({ "InstanceIds": [id] })), expect, "{action} {power:?}");
        };
        check(Power::Running, "StopInstances", "");
        check(Power::Stopped, "StopInstances", "InstanceStateStopped");
        check(Power::Stopped, "StartInstances", "");
        check(Power::Running, "StartInstances", "InstanceStateRunning");
        check(Power::Running, "RebootInstances", "");
        check(Power::Stopped, "RebootInstances", "InstanceStateStopped");
        check(Power::Starting, "StopInstances", "InstanceStateStarting");
        check(Power::Stopping, "StartInstances", "InstanceStateStopping");
        check(Power::Rebooting, "StopInstances", "InstanceStateRebooting");
        check(Power::Pending, "StopInstances", "InstanceStatePending");
        check(Power::Isolated, "StartInstances", "InstanceStateShutdown");
    }

    #[test]
    fn one_bad_instance_fails_the_bind() {
        let mut bench = bench();
        let pair = bench.world.add_strangers_pair(0, "pair");
        let good = bench.instance(Power::Stopped, &[]);
        let spec = |os, poisoned| InstanceSpec { os, poisoned, power: Power::Stopped, ..InstanceSpec::default() };
        let windows = bench.world.add_instance(0, spec(Os::Windows, false));
        let poisoned = bench.world.add_instance(0, spec(Os::Linux, true));
        let free = bench.instance(Power::Running, &[]);
        bench.call("StopInstances", json!({ "InstanceIds": [free], "StoppedMode": "STOP_CHARGING" }));
        bench.wait(300);
        for (bad, expect) in [
            (windows.as_str(), "UnsupportedOperation.InstanceOsWindows"),
            (&poisoned, "InvalidInstance.NotSupported"),
            (&free, "UnsupportedOperation.StoppedModeStopCharging"),
            ("ins-none", "InvalidInstanceId.NotFound"),
            ("lhins-none", "InvalidInstanceId.Malformed"),
            (&good, "InvalidParameterValue"),
        ] {
            let params = json!({ "InstanceIds": [good, bad], "KeyIds": [pair] });
            assert_eq!(bench.code("AssociateInstancesKeyPairs", params), expect, "{bad}");
            assert!(!bench.world.cloud(0).machine(&good).unwrap().is_busy());
        }
        let missing = json!({ "InstanceIds": [good], "KeyIds": ["skey-none"] });
        assert_eq!(bench.code("AssociateInstancesKeyPairs", missing), "InvalidKeyPairId.NotFound");
        let malformed = json!({ "InstanceIds": [good], "KeyIds": ["lhkp-x"] });
        assert_eq!(bench.code("AssociateInstancesKeyPairs", malformed), "InvalidKeyPairId.Malformed");
    }

    #[test]
    fn stop_type_excludes_the_deprecated_flags() {
        let mut bench = bench();
        let check = |bench: &mut Bench, action: &str, more: Value, expect: &str| {
            let mut params = more.clone();
            params["InstanceIds"] = json!(["ins-none"]);
            assert_eq!(bench.code(action, params), expect, "{action} {more}");
        };
        let fine = "InvalidInstanceId.NotFound";
        check(&mut bench, "StopInstances", json!({ "StopType": "SOFT", "StoppedMode": "KEEP_CHARGING" }), fine);
        check(&mut bench, "StopInstances", json!({ "ForceStop": true }), fine);
        check(
            &mut bench,
            "StopInstances",
            json!({ "StopType": "SOFT", "ForceStop": false }),
            "InvalidParameterCombination",
        );
        check(&mut bench, "StopInstances", json!({ "StoppedMode": "x" }), "InvalidParameterValue");
        check(&mut bench, "RebootInstances", json!({ "StopType": "x" }), "InvalidParameterValue");
        check(
            &mut bench,
            "RebootInstances",
            json!({ "StopType": "HARD", "ForceReboot": true }),
            "InvalidParameterCombination",
        );
        check(&mut bench, "StartInstances", json!({ "StopType": "HARD" }), "UnknownParameter");
    }

    #[test]
    fn key_pairs_follow_cvms_own_codes() {
        let mut bench = bench();
        let (line, other) = (bench.world.strangers_line(), bench.world.strangers_line());
        let check = |bench: &mut Bench, params: Value, expect: &str| {
            assert_eq!(bench.code("ImportKeyPair", params.clone()), expect, "{params}");
        };
        let import =
            |name: &str, project: i64, key: &str| json!({ "KeyName": name, "ProjectId": project, "PublicKey": key });
        check(&mut bench, json!({ "KeyName": "a", "PublicKey": line }), "MissingParameter");
        check(&mut bench, import("a", 7, &line), "InvalidProjectId.NotFound");
        check(&mut bench, import("", 0, &line), "InvalidKeyPairNameEmpty");
        check(&mut bench, import("twenty_six_characters_long", 0, &line), "InvalidKeyPairNameTooLong");
        check(&mut bench, import("a-b", 0, &line), "InvalidKeyPairNameIncludeIllegalChar");
        check(&mut bench, import("a", 0, "ssh-rsa x"), "InvalidPublicKey.Malformed");
        let mut tagged = import("a", 0, &line);
        tagged["TagSpecification"] =
            json!([{ "ResourceType": "keypair", "Tags": [{ "Key": "by", "Value": "rekeyd" }] }]);
        check(&mut bench, tagged, "");
        check(&mut bench, import("a", 0, &other), "InvalidKeyPairName.Duplicate");
        check(&mut bench, import("b", 0, &line), "InvalidPublicKey.Duplicate");
        bench.world.cloud_mut(0).key_pairs_max = 1;
        check(&mut bench, import("b", 0, &other), "InvalidKeyPair.LimitExceeded");
        let found = bench.call("DescribeKeyPairs", json!({ "Filters": [{ "Name": "tag:by", "Values": ["rekeyd"] }] }));
        assert_eq!((&found["TotalCount"], &found["KeyPairSet"][0]["KeyName"]), (&json!(1), &json!("a")));
        let unknown = json!({ "Filters": [{ "Name": "tag-key", "Values": ["nobody"] }] });
        assert_eq!(bench.code("DescribeKeyPairs", unknown), "InvalidParameterValue.TagKeyNotFound");
    }

    #[test]
    fn a_bound_pair_is_refused_alone_and_passed_over_among_others() {
        let mut bench = bench();
        let (bound, free) = (bench.world.add_strangers_pair(0, "bound"), bench.world.add_strangers_pair(0, "free"));
        bench.instance(Power::Stopped, &[&bound]);
        let alone = bench.code("DeleteKeyPairs", json!({ "KeyIds": [bound] }));
        assert_eq!(alone, "InvalidParameterValue.KeyPairNotSupported");
        assert_eq!(bench.code("DeleteKeyPairs", json!({ "KeyIds": [bound, free] })), "");
        let left: Vec<&str> = bench.world.cloud(0).key_pairs().iter().map(|pair| pair.name.as_str()).collect();
        assert_eq!(left, ["bound"]);
        assert_eq!(bench.code("DeleteKeyPairs", json!({ "KeyIds": [free] })), "InvalidKeyPairId.NotFound");
    }

    #[test]
    fn lists_have_cvms_limits() {
        let mut bench = bench();
        let tags = vec![("role".to_string(), "web".to_string())];
        let id = bench.world.add_instance(0, InstanceSpec { tags, ..InstanceSpec::default() });
        let check = |bench: &mut Bench, action: &str, params: Value, expect: &str| {
            assert_eq!(bench.code(action, params.clone()), expect, "{action} {params}");
        };
        let filter =
            |name: &str, values: usize| json!({ "Filters": [{ "Name": name, "Values": vec!["web"; values] }] });
        check(&mut bench, "DescribeInstances", filter("tag:role", 5), "");
        check(&mut bench, "DescribeInstances", filter("tag:role", 6), "InvalidFilterValue.LimitExceeded");
        check(&mut bench, "DescribeInstances", filter("tag:none", 1), "InvalidParameterValue.TagKeyNotFound");
        check(&mut bench, "DescribeInstances", filter("nonsense", 1), "InvalidFilter");
        check(&mut bench, "DescribeInstances", json!({ "Limit": 101 }), "InvalidParameterValueLimit");
        check(&mut bench, "DescribeInstances", json!({ "Offset": -1 }), "InvalidParameterValueOffset");
        let mut both = filter("tag:role", 1);
        both["InstanceIds"] = json!([id]);
        check(&mut bench, "DescribeInstances", both, "InvalidParameterCombination");
        let status = bench.call("DescribeInstancesStatus", json!({ "InstanceIds": [id] }));
        assert_eq!(status["InstanceStatusSet"], json!([{ "InstanceId": id, "InstanceState": "RUNNING" }]));
        check(&mut bench, "DescribeInstancesStatus", filter("zone", 1), "UnknownParameter");
        assert_eq!(bench.call("DescribeRegions", json!({}))["RegionSet"][0]["RegionState"], "AVAILABLE");
    }
}
