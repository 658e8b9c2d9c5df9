//! Lighthouse, API 2020-03-24, as the international site serves it (FACTS §2.2): no AssociateType, no Tags on import.
//! A bind shuts a running machine down and leaves it so.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::lighthouse_looks::{self as looks, check_ids, malformed, malformed_keys};
use super::listing::{IDS_MAX, state};
use super::{Product, Refused, broken, params, refused};
use crate::net::{Request, Response};
use crate::sim::cloud::Rule::{Malformed, State};
use crate::sim::door::{Call, Face};
use crate::sim::machine::{self, Course, Machine, Os, Power, Step};
use crate::sim::world::World;

/// The Lighthouse face.
pub(in crate::sim) struct Lighthouse;

impl Face for Lighthouse {
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

impl Product for Lighthouse {
    const SERVICE: &'static str = "lighthouse";
    const VERSION: &'static str = "2020-03-24";
    const ACTIONS: &'static [(&'static str, Option<u32>)] = &[
        ("DescribeInstances", None),
        ("DescribeInstancesDeniedActions", None),
        ("DescribeKeyPairs", Some(100)),
        ("ImportKeyPair", Some(10)),
        ("DeleteKeyPairs", Some(10)),
        ("AssociateInstancesKeyPairs", Some(10)),
        ("DisassociateInstancesKeyPairs", Some(20)),
        ("StopInstances", Some(10)),
        ("StartInstances", Some(10)),
        ("RebootInstances", Some(10)),
        ("DescribeGeneralResourceQuotas", None),
        ("DescribeRegions", None),
    ];

    fn act(world: &mut World, call: &Call<'_>) -> Result<Value, Refused> {
        match call.action {
            "DescribeInstances" => looks::describe_instances(world, call),
            "DescribeInstancesDeniedActions" => looks::denied_actions(world, call),
            "DescribeKeyPairs" => looks::describe_key_pairs(world, call),
            "ImportKeyPair" => looks::import(world, call),
            "DeleteKeyPairs" => looks::delete(world, call),
            "AssociateInstancesKeyPairs" => bind(world, call, true),
            "DisassociateInstancesKeyPairs" => bind(world, call, false),
            "StopInstances" => power(world, call, &[Power::Running], machine::stop),
            "StartInstances" => power(world, call, &[Power::Stopped], machine::start),
            "RebootInstances" => power(world, call, &[Power::Running], machine::reboot),
            "DescribeGeneralResourceQuotas" => looks::quotas(world, call),
            _ => looks::regions(world, call),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Bind {
    instance_ids: Vec<String>,
    key_ids: Vec<String>,
}

fn bind(world: &mut World, call: &Call<'_>, attach: bool) -> Result<Value, Refused> {
    let Bind { instance_ids, key_ids } = params(call)?;
    check_ids(&key_ids, IDS_MAX)?;
    malformed_keys(&key_ids)?;
    if world.cloud(call.cloud).lines(&key_ids).is_none() {
        return Err(refused("ResourceNotFound.KeyIdNotFound", "no such key pair"));
    }
    let good = |machine: &Machine| {
        if machine.os == Os::Windows {
            let code = "UnsupportedOperation.WindowsNotAllowToAssociateKeyPair";
            return Err(broken(State, code, "a Windows instance takes no key pair"));
        }
        if attach && machine.poisoned {
            // The code of both lists that says for good, and says it of one instance.
            let code = "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation";
            return Err(refused(code, "the instance's area does not support this"));
        }
        allowed(machine, &[Power::Running, Power::Stopped])?;
        if attach && key_ids.iter().any(|key| machine.record_keys.contains(key)) {
            return Err(refused("UnsupportedOperation.KeyPairBindDuplicate", "the key pair is bound already"));
        }
        if !attach && !key_ids.iter().all(|key| machine.record_keys.contains(key)) {
            return Err(refused("UnsupportedOperation.KeyPairNotBoundToInstance", "the key pair is not bound"));
        }
        Ok(())
    };
    let course = |world: &mut World, at: usize| {
        let time = world.settings.operation_time;
        let machine = &world.cloud(call.cloud).machines()[at];
        let kept = || machine.record_keys.iter().filter(|key| !key_ids.contains(key)).cloned().collect();
        let keys: Vec<String> = if attach { key_ids.clone() } else { kept() };
        let mut course = Course::new();
        if machine.power == Power::Running {
            course.push((Duration::ZERO, Step::Power(Power::Stopping)));
            course.push((time, Step::Power(Power::Stopped)));
        }
        course.extend(world.rekey(call.cloud, &keys, time));
        course.push((time, Step::Done));
        course
    };
    on_each(world, call, &instance_ids, good, course)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Operate {
    instance_ids: Vec<String>,
    stop_type: Option<String>,
}

fn power(world: &mut World, call: &Call<'_>, from: &[Power], how: fn(Duration) -> Course) -> Result<Value, Refused> {
    let Operate { instance_ids, stop_type } = params(call)?;
    if let Some(stop_type) = stop_type {
        if call.action == "StartInstances" {
            return Err(broken(Malformed, "UnknownParameter", "StopType"));
        }
        if !["SOFT", "HARD", "SOFT_FIRST"].contains(&stop_type.as_str()) {
            return Err(broken(Malformed, "InvalidParameterValue", format!("StopType {stop_type}")));
        }
    }
    on_each(world, call, &instance_ids, |machine| allowed(machine, from), |world, _| how(world.settings.operation_time))
}

/// [`super::on_each`] with Lighthouse's checks of the ids.
fn on_each(
    world: &mut World,
    call: &Call<'_>,
    ids: &[String],
    good: impl Fn(&Machine) -> Result<(), Refused>,
    course: impl Fn(&mut World, usize) -> Course,
) -> Result<Value, Refused> {
    check_ids(ids, IDS_MAX)?;
    malformed(ids)?;
    super::on_each(world, call, ids, "ResourceNotFound.InstanceIdNotFound", good, course)
}

/// Whether a machine may be operated on: nothing under way, and one of these states.
pub(super) fn allowed(machine: &Machine, states: &[Power]) -> Result<(), Refused> {
    if machine.power == Power::Pending {
        return Err(refused("OperationDenied.InstanceCreating", "the instance is being made"));
    }
    if machine.is_busy() {
        return Err(refused("OperationDenied.InstanceOperationInProgress", "another operation is under way"));
    }
    if !states.contains(&machine.power) {
        let message = format!("the instance is {}", state(machine.power));
        return Err(broken(State, "UnsupportedOperation.InvalidInstanceState", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::InstanceSpec;

    fn bench() -> Bench {
        Bench::new(ProviderKind::TencentLighthouse)
    }

    fn bind_of(ids: &[&str], keys: &[&str]) -> Value {
        json!({ "InstanceIds": ids, "KeyIds": keys })
    }

    #[test]
    fn a_bind_shuts_a_running_machine_down_replaces_its_keys_and_nobody_starts_it() {
        for early in [0.0, 1.0] {
            let mut bench = bench();
            bench.world.settings.record_early = early;
            let old = bench.world.add_strangers_pair(0, "old");
            let line = bench.world.strangers_line();
            let new = bench.world.add_key_pair(0, "new", &line);
            let id = bench.instance(Power::Running, &[&old]);
            let reply = bench.call("AssociateInstancesKeyPairs", bind_of(&[&id], &[&new]));
            assert_eq!(bench.state(&id), "RUNNING/-", "the first look still shows the old state");
            assert_eq!(bench.look(&id)["LoginSettings"]["KeyIds"], json!([old]));
            bench.wait(60);
            assert_eq!(bench.state(&id), "STOPPING/OPERATING");
            assert_eq!(bench.look(&id)["LatestOperationRequestId"], reply["RequestId"]);
            assert_eq!(
                bench.world.cloud(0).machine(&id).unwrap().accepts,
                bench.world.cloud(0).lines(std::slice::from_ref(&old)).unwrap()
            );
            bench.wait(200);
            assert_eq!(bench.state(&id), "STOPPED/SUCCESS");
            bench.wait(3_600_000);
            let row = bench.look(&id);
            assert_eq!((&row["InstanceState"], &row["LoginSettings"]["KeyIds"]), (&json!("STOPPED"), &json!([new])));
            let machine = bench.world.cloud(0).machine(&id).unwrap();
            assert_eq!(machine.accepts, [line]);
            assert_eq!(machine.down_because.as_deref(), Some("AssociateInstancesKeyPairs"));
            assert_eq!(bench.code("StartInstances", json!({ "InstanceIds": [id] })), "");
            bench.wait(300);
            assert_eq!(bench.state(&id), "RUNNING/SUCCESS");
            let machine = bench.world.cloud(0).machine(&id).unwrap();
            assert_eq!((machine.down_because.as_ref(), machine.boots, machine.stops, machine.starts), (None, 1, 1, 1));
            assert_eq!(bench.violations(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_bind_leaves_a_stopped_machine_stopped_and_an_unbind_gives_the_password_back() {
        let mut bench = bench();
        let pair = bench.world.add_strangers_pair(0, "pair");
        let id = bench.instance(Power::Stopped, &[]);
        assert_eq!(bench.code("AssociateInstancesKeyPairs", bind_of(&[&id], &[&pair])), "");
        bench.wait(300);
        assert_eq!(bench.state(&id), "STOPPED/SUCCESS");
        let machine = bench.world.cloud(0).machine(&id).unwrap();
        assert_eq!((machine.accepts.len(), machine.password, machine.stops), (1, false, 0));
        assert_eq!(
            bench.code("AssociateInstancesKeyPairs", bind_of(&[&id], &[&pair])),
            "UnsupportedOperation.KeyPairBindDuplicate"
        );
        assert_eq!(bench.code("DisassociateInstancesKeyPairs", bind_of(&[&id], &[&pair])), "");
        bench.wait(300);
        let machine = bench.world.cloud(0).machine(&id).unwrap();
        assert_eq!((machine.accepts.len(), machine.password, machine.record_keys.len()), (0, true, 0));
        let again = bench.code("DisassociateInstancesKeyPairs", bind_of(&[&id], &[&pair]));
        assert_eq!(again, "UnsupportedOperation.KeyPairNotBoundToInstance");
    }

    #[test]
    fn one_bad_instance_fails_the_batch_with_its_own_code() {
        let many: Vec<String> = (0..101).map(|n| format!("lhins-{n}")).collect();
        let check = |what: &str, ids: &dyn Fn(&mut Bench) -> Vec<String>, expect: &str| {
            let mut bench = bench();
            let pair = bench.world.add_strangers_pair(0, "pair");
            let good = bench.instance(Power::Running, &[]);
            let ids = [vec![good.clone()], ids(&mut bench)].concat();
            let code = bench.code("AssociateInstancesKeyPairs", json!({ "InstanceIds": ids, "KeyIds": [pair] }));
            assert_eq!(code, expect, "{what}");
            let busy = bench.world.cloud(0).machine(&good).unwrap().is_busy();
            assert_eq!(busy, expect.is_empty(), "{what}: all or none");
        };
        let add = |bench: &mut Bench, spec: InstanceSpec| vec![bench.world.add_instance(0, spec)];
        check("a good one", &|b| vec![b.instance(Power::Stopped, &[])], "");
        check("unknown", &|_| vec!["lhins-none".into()], "ResourceNotFound.InstanceIdNotFound");
        check("malformed", &|_| vec!["ins-abcdefgh".into()], "InvalidParameterValue.InstanceIdMalformed");
        check("twice", &|_| vec!["lhins-a".into(), "lhins-a".into()], "InvalidParameterValue.Duplicated");
        check("more than 100", &|_| many.clone(), "InvalidParameterValue.LimitExceeded");
        check(
            "Windows",
            &|b| add(b, InstanceSpec { os: Os::Windows, ..InstanceSpec::default() }),
            "UnsupportedOperation.WindowsNotAllowToAssociateKeyPair",
        );
        check(
            "poisoned",
            &|b| add(b, InstanceSpec { poisoned: true, ..InstanceSpec::default() }),
            "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation",
        );
        check("isolated", &|b| vec![b.instance(Power::Isolated, &[])], "UnsupportedOperation.InvalidInstanceState");
        check("pending", &|b| vec![b.instance(Power::Pending, &[])], "OperationDenied.InstanceCreating");
        check(
            "busy",
            &|b| {
                let id = b.instance(Power::Running, &[]);
                assert_eq!(b.code("RebootInstances", json!({ "InstanceIds": [id] })), "");
                vec![id]
            },
            "OperationDenied.InstanceOperationInProgress",
        );
        check(
            "bound already",
            &|b| {
                let pair = b.world.cloud(0).key_pairs()[0].id.clone();
                vec![b.instance(Power::Running, &[&pair])]
            },
            "UnsupportedOperation.KeyPairBindDuplicate",
        );
        check(
            "one that refuses",
            &|b| {
                let id = b.instance(Power::Running, &[]);
                b.world.refuse(0, &id, "AssociateInstancesKeyPairs", "UnsupportedOperation.InstanceExpired");
                vec![id]
            },
            "UnsupportedOperation.InstanceExpired",
        );
    }

    #[test]
    fn the_good_ones_before_a_culprit_are_done_if_the_faults_say_so() {
        let mut bench = bench();
        bench.world.faults.half_done = 1.0;
        let pair = bench.world.add_strangers_pair(0, "pair");
        let (first, last) = (bench.instance(Power::Running, &[]), bench.instance(Power::Running, &[]));
        let ids = [&first, "lhins-none", &last];
        assert_eq!(
            bench.code("AssociateInstancesKeyPairs", bind_of(&ids, &[&pair])),
            "ResourceNotFound.InstanceIdNotFound"
        );
        let busy = |id: &str| bench.world.cloud(0).machine(id).unwrap().is_busy();
        assert_eq!((busy(&first), busy(&last)), (true, false));
    }

    #[test]
    fn power_actions_want_their_state() {
        let check = |power: Power, action: &str, expect: &str, after: &str| {
            let mut bench = bench();
            let id = bench.instance(power, &[]);
            assert_eq!(bench.code(action, json!({ "InstanceIds": [id] })), expect, "{action} {power:?}");
            bench.wait(1_000);
            assert_eq!(bench.state(&id), after, "{action} {power:?}");
        };
        let wrong = "UnsupportedOperation.InvalidInstanceState";
        check(Power::Running, "StopInstances", "", "STOPPED/SUCCESS");
        check(Power::Stopped, "StopInstances", wrong, "STOPPED/-");
        check(Power::Stopped, "StartInstances", "", "RUNNING/SUCCESS");
        check(Power::Running, "StartInstances", wrong, "RUNNING/-");
        check(Power::Running, "RebootInstances", "", "RUNNING/SUCCESS");
        check(Power::Stopped, "RebootInstances", wrong, "STOPPED/-");
        let mut bench = bench();
        let stop = |kind: &str| json!({ "InstanceIds": ["lhins-x"], "StopType": kind });
        assert_eq!(bench.code("StopInstances", stop("GENTLY")), "InvalidParameterValue");
        assert_eq!(bench.code("StartInstances", stop("SOFT")), "UnknownParameter");
        assert_eq!(bench.code("RebootInstances", stop("SOFT_FIRST")), "ResourceNotFound.InstanceIdNotFound");
    }

    #[test]
    fn an_operation_may_fail_or_never_end() {
        let mut bench = bench();
        let pair = bench.world.add_strangers_pair(0, "pair");
        let id = bench.instance(Power::Running, &[]);
        bench.world.faults.operation_fails = 1.0;
        bench.call("RebootInstances", json!({ "InstanceIds": [id] }));
        bench.wait(500);
        assert_eq!(bench.state(&id), "RUNNING/FAILED");
        bench.call("AssociateInstancesKeyPairs", bind_of(&[&id], &[&pair]));
        bench.wait(500);
        assert_eq!(bench.state(&id), "STOPPED/FAILED");
        assert_eq!(bench.look(&id)["LoginSettings"]["KeyIds"], json!([]));
        bench.world.faults.operation_fails = 0.0;
        bench.world.stick(0, &id, true);
        bench.call("AssociateInstancesKeyPairs", bind_of(&[&id], &[&pair]));
        bench.wait(3_600_000);
        assert_eq!(bench.state(&id), "STOPPED/OPERATING");
        assert_eq!(bench.code("DeleteKeyPairs", json!({ "KeyIds": [pair] })), "ResourceInUse.KeyPairInUse");
    }

    #[test]
    fn key_pairs_are_imported_under_the_name_rule_and_once() {
        let mut bench = bench();
        let (line, other) = (bench.world.strangers_line(), bench.world.strangers_line());
        let check = |bench: &mut Bench, name: &str, key: &str, expect: &str| {
            let code = bench.code("ImportKeyPair", json!({ "KeyName": name, "PublicKey": key }));
            let expect = if expect.is_empty() { String::new() } else { format!("InvalidParameterValue.{expect}") };
            assert_eq!(code, expect, "{name}");
        };
        check(&mut bench, "", &line, "InvalidKeyPairNameEmpty");
        check(&mut bench, "twenty_six_characters_long", &line, "InvalidKeyPairNameTooLong");
        check(&mut bench, "with-hyphen", &line, "InvalidKeyPairNameIncludeIllegalChar");
        check(&mut bench, "rka7f3_0123", "ssh-rsa nonsense", "KeyPairPublicKeyMalformed");
        let ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3lw6O0oCJ0bqWQd5lVJuFz1gMnYTZkKTkCfX2MTKiI";
        check(&mut bench, "rka7f3_0123", ed25519, "KeyPairPublicKeyMalformed");
        check(&mut bench, "rka7f3_0123", &format!("{line} me@here"), "");
        check(&mut bench, "rka7f3_0123", &other, "DuplicateParameterValue");
        check(&mut bench, "other", &line, "KeyPairPublicKeyDuplicated");
        let found = bench.call("DescribeKeyPairs", json!({}));
        let pair = &found["KeyPairSet"][0];
        assert_eq!((&found["TotalCount"], &pair["KeyName"]), (&json!(1), &json!("rka7f3_0123")));
        assert_eq!(
            pair["PublicKey"],
            format!("{line} {}", pair["KeyId"].as_str().unwrap()),
            "the comment is the cloud's"
        );
        let tagged = json!({ "KeyName": "n", "PublicKey": other, "Tags": [] });
        assert_eq!(bench.code("ImportKeyPair", tagged), "UnknownParameter", "Tags are the Chinese site's only");
        assert_eq!(bench.code("ImportKeyPair", json!({ "KeyName": "n" })), "MissingParameter");
        for number in 1..10 {
            bench.world.add_strangers_pair(0, &format!("n{number}"));
        }
        let full = bench.code("ImportKeyPair", json!({ "KeyName": "n", "PublicKey": other }));
        assert_eq!(full, "LimitExceeded.KeyPairLimitExceeded");
        let quotas = bench.call("DescribeGeneralResourceQuotas", json!({ "ResourceNames": ["USER_KEY_PAIR"] }));
        assert_eq!(quotas["GeneralResourceQuotaSet"][0]["ResourceQuotaAvailable"], 0);
        assert_eq!(quotas["GeneralResourceQuotaSet"][0]["ResourceQuotaTotal"], 10);
    }

    #[test]
    fn a_key_pair_is_deleted_only_when_nothing_uses_it() {
        let mut bench = bench();
        let pair = bench.world.add_strangers_pair(0, "pair");
        let id = bench.instance(Power::Stopped, &[]);
        let delete = |bench: &mut Bench, ids: &[&str]| bench.code("DeleteKeyPairs", json!({ "KeyIds": ids }));
        bench.call("AssociateInstancesKeyPairs", bind_of(&[&id], &[&pair]));
        assert_eq!(delete(&mut bench, &[&pair]), "ResourceInUse.KeyPairInUse", "a bind is under way");
        bench.wait(300);
        assert_eq!(delete(&mut bench, &[&pair]), "ResourceInUse.KeyPairInUse", "bound");
        let pairs = bench.call("DescribeKeyPairs", json!({ "KeyIds": [pair] }));
        assert_eq!(pairs["KeyPairSet"][0]["AssociatedInstanceIds"], json!([id]));
        bench.world.rebind(0, &id, &[]);
        assert_eq!(delete(&mut bench, &[&pair]), "");
        assert_eq!(delete(&mut bench, &[&pair]), "ResourceNotFound.KeyIdNotFound");
        assert_eq!(delete(&mut bench, &["skey-abc"]), "InvalidParameterValue.KeyPairIdMalformed");
        assert_eq!(delete(&mut bench, &[]), "MissingParameter");
        let eleven: Vec<String> = (0..11).map(|n| format!("lhkp-{n}")).collect();
        let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
        assert_eq!(delete(&mut bench, &eleven), "InvalidParameterValue.LimitExceeded");
    }

    #[test]
    fn lists_are_paged_newest_first_and_filters_have_their_limits() {
        let mut bench = bench();
        let tag = |value: &str| vec![("role".to_string(), value.to_string())];
        let mut ids = Vec::new();
        for number in 0..150 {
            let tags = tag(if number % 2 == 0 { "web" } else { "db" });
            ids.push(bench.world.add_instance(0, InstanceSpec { tags, ..InstanceSpec::default() }));
        }
        bench.world.set_power(0, &ids[7], Power::Isolated);
        bench.world.remove_instance(0, &ids[8]);
        let first = bench.call("DescribeInstances", json!({ "Limit": 100 }));
        assert_eq!((&first["TotalCount"], first["InstanceSet"].as_array().unwrap().len()), (&json!(149), 100));
        assert_eq!(first["InstanceSet"][0]["InstanceId"], ids[7].as_str(), "to be recycled first");
        assert_eq!(first["InstanceSet"][1]["InstanceId"], ids[149].as_str(), "then the newest");
        let second = bench.call("DescribeInstances", json!({ "Offset": 100, "Limit": 100 }));
        assert_eq!(second["InstanceSet"].as_array().unwrap().len(), 49);
        assert_eq!(bench.call("DescribeInstances", json!({}))["InstanceSet"].as_array().unwrap().len(), 20);
        let filter = |name: &str, values: usize| json!([{ "Name": name, "Values": vec!["web"; values] }]);
        let found = bench.call("DescribeInstances", json!({ "Filters": filter("tag:role", 1) }));
        assert_eq!(found["TotalCount"], 74);
        let gone = bench.call("DescribeInstances", json!({ "InstanceIds": [ids[8], ids[9]] }));
        assert_eq!(gone["TotalCount"], 1, "who is gone is left out");
        let check = |bench: &mut Bench, params: Value, expect: &str| {
            assert_eq!(bench.code("DescribeInstances", params.clone()), expect, "{params}");
        };
        check(&mut bench, json!({ "OrderField": "EXPIRED_TIME", "Order": "ASC" }), "");
        check(&mut bench, json!({ "OrderField": "CREATED_TIME" }), "InvalidParameterValue");
        check(&mut bench, json!({ "Limit": 101 }), "InvalidParameterValue.OutOfRange");
        check(&mut bench, json!({ "Limit": 0 }), "InvalidParameterValue.OutOfRange");
        check(&mut bench, json!({ "Offset": -1 }), "InvalidParameterValue.Negative");
        check(&mut bench, json!({ "Filters": filter("zone", 100) }), "");
        check(&mut bench, json!({ "Filters": filter("zone", 101) }), "InvalidParameter.InvalidFilter");
        check(&mut bench, json!({ "Filters": filter("nonsense", 1) }), "InvalidParameter.InvalidFilter");
        check(&mut bench, json!({ "Filters": filter("zone", 0) }), "InvalidParameter.InvalidFilter");
        let eleven: Vec<Value> = (0..11).map(|_| filter("zone", 1)[0].clone()).collect();
        check(&mut bench, json!({ "Filters": eleven }), "InvalidParameter.InvalidFilter");
        let both = json!({ "Filters": filter("zone", 1), "InstanceIds": [ids[0]] });
        check(&mut bench, both, "InvalidParameter.ParameterConflict");
        check(&mut bench, json!({ "InstanceIds": ids[..101] }), "InvalidParameterValue.LimitExceeded");
        check(&mut bench, json!({ "InstanceIds": ["i-1"] }), "InvalidParameterValue.InstanceIdMalformed");
    }

    #[test]
    fn key_names_are_matched_by_parts_and_by_five_values_at_most() {
        let mut bench = bench();
        for name in ["rka_1", "rka_12", "other"] {
            bench.world.add_strangers_pair(0, name);
        }
        let filter = |values: &[&str]| json!({ "Filters": [{ "Name": "key-name", "Values": values }] });
        assert_eq!(bench.call("DescribeKeyPairs", filter(&["rka_1"]))["TotalCount"], 2);
        assert_eq!(bench.code("DescribeKeyPairs", filter(&["a"; 6])), "InvalidParameter.InvalidFilter");
        assert_eq!(
            bench.code("DescribeKeyPairs", json!({ "KeyIds": ["k"] })),
            "InvalidParameterValue.KeyPairIdMalformed"
        );
    }

    #[test]
    fn denied_actions_say_what_a_call_would_meet() {
        let mut bench = bench();
        let id = bench.instance(Power::Stopped, &[]);
        let windows = bench.world.add_instance(0, InstanceSpec { os: Os::Windows, ..InstanceSpec::default() });
        let found = bench.call("DescribeInstancesDeniedActions", json!({ "InstanceIds": [id, windows] }));
        let denied = |at: usize| -> Vec<String> {
            let actions = found["InstanceDeniedActionSet"][at]["DeniedActions"].as_array().unwrap();
            actions.iter().map(|action| action["Action"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(denied(0), ["StopInstances", "RebootInstances"]);
        assert_eq!(denied(1), ["AssociateInstancesKeyPairs", "DisassociateInstancesKeyPairs", "StartInstances"]);
        assert_eq!(bench.call("DescribeRegions", json!({}))["RegionSet"][0]["Region"], "ap-singapore");
    }

    #[test]
    fn a_late_bind_meets_a_deleted_pair() {
        let mut bench = bench();
        let (old, pair) = (bench.world.add_strangers_pair(0, "old"), bench.world.add_strangers_pair(0, "pair"));
        let id = bench.instance(Power::Running, &[&old]);
        let late = || crate::sim::Weather::Late(Duration::from_secs(60));
        bench.world.faults.script(None, "AssociateInstancesKeyPairs", 1, late());
        bench.world.faults.script(None, "AssociateInstancesKeyPairs", 2, late());
        for key in [&pair, &old] {
            let request = bench.request("AssociateInstancesKeyPairs", &bind_of(&[&id], &[key]));
            assert!(bench.send(&request).reply.is_none());
        }
        assert_eq!(bench.code("DeleteKeyPairs", json!({ "KeyIds": [pair] })), "");
        bench.wait(120_000);
        assert_eq!(bench.state(&id), "RUNNING/-");
        assert_eq!(bench.violations(), Vec::<String>::new(), "a late call is not the client's fault");
    }
}
