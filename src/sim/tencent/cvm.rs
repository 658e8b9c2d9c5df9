//! CVM, API 2017-03-12 (FACTS §2.2). A bind wants a stopped machine; with ForceStop it takes a running one down by
//! force, binds, and starts it again. Its list of error codes is not Lighthouse's.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::cvm_looks::{self as looks, check_ids, malformed, malformed_keys};
use super::{Product, Refused, broken, params, refused};
use crate::provider::http::transport::{Request, Response};
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
