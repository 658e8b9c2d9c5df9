//! Every documented code of Tencent, on every action that may answer it, against its class; exceptions by hand.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const BIND: [&str; 2] = ["AssociateInstancesKeyPairs", "DisassociateInstancesKeyPairs"];
const POWER: [&str; 3] = ["StopInstances", "StartInstances", "RebootInstances"];
const KEYS: [&str; 3] = ["ImportKeyPair", "DescribeKeyPairs", "DeleteKeyPairs"];
const LOOK: [&str; 1] = ["DescribeInstances"];

/// Where a note names an action, or the action makes the class meaningless: these and no others.
const EXCEPTIONS: [(&str, &str, Verdict); 14] = [
    ("AssociateInstancesKeyPairs", "InternalError.InvalidCommandNotFound", DOWN),
    ("DisassociateInstancesKeyPairs", "InternalError.InvalidCommandNotFound", DOWN),
    ("DeleteKeyPairs", "ResourceInUse", IN_USE),
    ("DeleteKeyPairs", "ResourceInUse.KeyPairInUse", IN_USE),
    ("DeleteKeyPairs", "UnsupportedOperation.KeyPairBindToBlueprints", IN_USE),
    ("DeleteKeyPairs", "InvalidParameterValue.KeyPairNotSupported", IN_USE),
    ("DeleteKeyPairs", "InvalidKeyPairId.NotFound", ALREADY),
    // The class OK of the key-pair group is meant for the deletion.
    ("DescribeKeyPairs", "ResourceNotFound.KeyIdNotFound", NO_KEY),
    ("ImportKeyPair", "ResourceNotFound.KeyIdNotFound", INVALID),
    ("StartInstances", "UnsupportedOperation.InstanceStateRunning", ONE_ALREADY),
    ("StopInstances", "UnsupportedOperation.InstanceStateStopped", ONE_ALREADY),
    // "Resource missing" is blamed on an instance, and a call about key pairs has none.
    ("ImportKeyPair", "5000", INVALID),
    ("DescribeKeyPairs", "5000", INVALID),
    ("DeleteKeyPairs", "5000", INVALID),
];

/// Which actions a group of the file is about.
fn actions(provider: &str, group: &str) -> Vec<&'static str> {
    match (provider, group) {
        ("tencent-common", _) => [&BIND[..], &POWER, &KEYS, &LOOK].concat(),
        ("tencent-lighthouse", group) if group.starts_with("Associate") => BIND.to_vec(),
        ("tencent-lighthouse", group) if group.starts_with("Import") => KEYS.to_vec(),
        // The notes of the bind group speak of the deletion too.
        ("tencent-cvm", group) if group.starts_with("Associate") => [&BIND[..], &POWER, &["DeleteKeyPairs"]].concat(),
        ("tencent-cvm", group) if group.starts_with("Import") => [&KEYS[..], &LOOK].concat(),
        ("tencent-legacy-v2", group) if group.starts_with("cvm.api") => [&BIND[..], &POWER, &KEYS, &LOOK].concat(),
        ("tencent-legacy-v2", group) if group.starts_with("legacy key") => [&BIND[..], &["ImportKeyPair"]].concat(),
        other => panic!("a group that this test does not know: {other:?}"),
    }
}

fn fits(class: &str, verdict: Verdict) -> bool {
    let (kind, effect, blame) = verdict;
    match class {
        "RL" => match kind {
            Kind::Throttled => effect == Effect::NotDone,
            Kind::Unavailable => effect == Effect::Unknown,
            Kind::Busy => blame == Blame::Instance,
            _ => false,
        },
        "PI" => matches!(verdict, (Kind::NotFound | Kind::Unsupported, Effect::NotDone, Blame::Instance)),
        "PB" => verdict == INVALID,
        "AU" => verdict == DENIED,
        "QU" => verdict == QUOTA,
        "ST" => verdict == WRONG_STATE,
        "OK" => (kind, effect) == (Kind::Already, Effect::NotDone),
        other => panic!("a class that this test does not know: {other}"),
    }
}

#[test]
fn every_documented_code_means_what_its_class_says_but_for_the_exceptions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut used = BTreeSet::new();
    let mut seen = 0;
    for provider in ["tencent-common", "tencent-lighthouse", "tencent-cvm", "tencent-legacy-v2"] {
        for group in file["providers"][provider].as_array().unwrap() {
            for entry in group["codes"].as_array().unwrap() {
                let (code, class) = (entry["code"].as_str().unwrap(), entry["cls"].as_str().unwrap());
                assert!(listed(code).is_some(), "{code} is not listed");
                for action in actions(provider, group["group"].as_str().unwrap()) {
                    seen += 1;
                    let verdict = judge(action, code);
                    match EXCEPTIONS.iter().find(|(a, c, _)| (*a, *c) == (action, code)) {
                        Some((_, _, expect)) => {
                            assert_eq!(verdict, *expect, "{action} {code}");
                            used.insert((action, code.to_string()));
                        }
                        None => assert!(fits(class, verdict), "{action} {code} is {class}, not {verdict:?}"),
                    }
                    if code.starts_with("InternalError") || code == "InternalServerError" {
                        assert_eq!(verdict.1, Effect::Unknown, "{action} {code}");
                    }
                }
            }
        }
    }
    assert!(seen > 650, "only {seen} pairs of action and code");
    assert_eq!(used.len(), EXCEPTIONS.len(), "exceptions that nothing needs: {used:?}");
}

#[test]
fn codes_that_nobody_listed_are_read_by_their_shape() {
    let check = |code: &str, expect: Verdict| assert_eq!(judge("AssociateInstancesKeyPairs", code), expect, "{code}");
    check("RequestLimitExceeded.NewLimit", THROTTLED);
    check("InternalError.NewFault", DOWN);
    check("OperationDenied.SomethingInProgress", BUSY);
    check("UnsupportedOperation.SomethingUnfinished", BUSY);
    check("ResourceBusy", BUSY);
    check("MutexOperation.New", BUSY);
    check("ResourceNotFound.NewInstanceGone", NO_INSTANCE);
    check("UnsupportedOperation.NewReason", UNFIT);
    check("InvalidParameterValue.New", INVALID);
    check("InvalidFilter.New", INVALID);
    check("MissingParameter.New", INVALID);
    check("InvalidThing.Malformed", INVALID);
    check("AuthFailure.New", DENIED);
    check("UnauthorizedOperation.New", DENIED);
    check("LimitExceeded.New", QUOTA);
    check("ResourceInsufficient.New", QUOTA);
    check("FailedOperation.New", DOWN);
    check("SomethingElse", DOWN);
    check("", DOWN);
    assert_eq!(judge("DeleteKeyPairs", "ResourceInUse.New"), IN_USE);
}

#[test]
fn a_flat_code_never_proves_an_end_and_a_replay_leaves_the_outcome_open() {
    for action in [&BIND[..], &POWER, &KEYS, &LOOK].concat() {
        assert_ne!(judge(action, "5000").0, Kind::NotFound, "{action}");
        assert_eq!(judge(action, "4500"), DOWN, "{action}");
        // Numbers that nobody listed (a partial success, an inner fault).
        assert_eq!(judge(action, "5400"), DOWN, "{action}");
        assert_eq!(judge(action, "-1"), DOWN, "{action}");
    }
}
