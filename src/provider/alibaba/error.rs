//! What an error code of ECS means, by action: may it help to try again, may it have happened, who is to blame.
//! Pure: a table and nothing else. It must never call a refusal done, or an unknown outcome refused.
//! Source: the code lists in `tests/vectors/error-classes.json` (alibabacloud help pages of AttachKeyPair,
//! ImportKeyPair, StopInstances and the common codes, 2024-12 to 2025-12); the classes are our judgement.

use crate::provider::http::answer::{self, Verdict};
use crate::provider::{Blame, Effect, Kind};

/// Refusals of a request whose signature had grown old. Each attempt is signed anew, so one that sat in a queue is worth
/// one repetition; a clock that is wrong gets the same answer twice (`error-classes.json`: "retry once").
pub const EXPIRED: &[&str] = &["InvalidTimeStamp.Expired"];

/// What `code` means as the answer to `action` with this HTTP status.
pub fn verdict(action: &str, code: &str, status: u16) -> Verdict {
    by_action(action, code)
        .or_else(|| by_code(code))
        .unwrap_or_else(|| answer::by_status(status, changes_instances(action)))
}

/// What `code` means where it stands beside one instance in the answer to a batch. A code that nobody has written down
/// is taken for a wrong state: looked at again, a bounded number of times. A code in words is a refusal; a number from
/// 500 up, or one that says success, leaves it open.
pub fn verdict_on_one(action: &str, code: &str) -> Verdict {
    // `no code` is ours, for an element that has none.
    let in_words = code.starts_with(|c: char| c.is_ascii_alphabetic()) && !code.contains(' ');
    let (kind, effect) = match by_action(action, code).or_else(|| by_code(code)) {
        Some((kind, effect, _)) => (kind, effect),
        None => match code.parse::<u16>() {
            Ok(404) => (Kind::NotFound, Effect::NotDone),
            Ok(429) => (Kind::Throttled, Effect::NotDone),
            Ok(400..500) => (Kind::InvalidState, Effect::NotDone),
            Err(_) if in_words => (Kind::InvalidState, Effect::NotDone),
            _ => (Kind::InvalidState, Effect::Unknown),
        },
    };
    (kind, effect, Blame::Instance)
}

/// Codes that mean something else on one action than elsewhere.
fn by_action(action: &str, code: &str) -> Option<Verdict> {
    let verdict = match (action, code) {
        // Still attached: the pair waits until nobody hangs on it.
        ("DeleteKeyPairs", "InvalidParameter.KeypairAlreadyAttachedInstance") => {
            (Kind::InUse, Effect::NotDone, Blame::Request)
        }
        // Not documented on delete; if it comes, the pair is gone: the goal.
        ("DeleteKeyPairs", "InvalidKeyPairName.NotFound") => (Kind::Already, Effect::NotDone, Blame::Request),
        // Whether an unknown name is an error to these two is not documented; it would only say that there is none.
        ("DescribeKeyPairs" | "DescribeInstances", "InvalidKeyPairName.NotFound") => {
            (Kind::NotFound, Effect::NotDone, Blame::Request)
        }
        // "Malformed list; also wrong ids": our lists are well-formed, so one id in it is wrong (released meanwhile).
        ("AttachKeyPair" | "DetachKeyPair", "InvalidInstanceIds.ValueNotSupported") => {
            (Kind::NotFound, Effect::NotDone, Blame::Instance)
        }
        _ => return None,
    };
    Some(verdict)
}

fn by_code(code: &str) -> Option<Verdict> {
    use Blame::{Account, Instance, Request};
    use Effect::{NotDone, Unknown};
    let verdict = match code {
        // Later.
        "ServiceUnavailable" | "LimitedOperation.ServiceUnavailable" | "InternalError" | "UnknownError" => {
            (Kind::Unavailable, Unknown, Request)
        }
        // Refused at the gate: signed anew, with a new nonce, it is another request.
        "SignatureNonceUsed" => (Kind::Unavailable, NotDone, Request),
        "InvalidOperation.Conflict" | "InstanceNotReady" => (Kind::Busy, NotDone, Instance),
        code if code == "Throttling" || code.starts_with("Throttling.") => (Kind::Throttled, NotDone, Request),

        // Reached already.
        "KeyPair.AlreadyExist" | "DRYRUN.SUCCESS" | "DryRunOperation" => (Kind::Already, NotDone, Request),

        // To be put right.
        "IncorrectInstanceStatus" | "InvalidParameter.KeypairAlreadyAttachedInstance" => {
            (Kind::InvalidState, NotDone, Instance)
        }

        // One instance.
        "InvalidInstanceId.NotFound" | "InvalidInstanceIds.NotFound" => (Kind::NotFound, NotDone, Instance),
        "DependencyViolation.IoOptimize"
        | "DependencyViolation.WindowsInstance"
        | "InvalidInstanceId.NotSupport"
        | "InstanceLockedForSecurity"
        | "InstanceExpiredOrInArrears"
        | "OperationDenied"
        | "OperationDenied.SystemInstanceNotSupport"
        | "InvalidInstance.NotFoundSystemDisk"
        | "InvalidParameter.KMSKeyId.CMKNotEnabled"
        | "InvalidParameter.KMSKeyId.KMSUnauthorized"
        | "InvalidParameter.Encrypted.KmsNotEnable"
        | "InvalidOperation.KMSKeyIdNotFound"
        | "InvalidOperation.KMSServiceNotOpen" => (Kind::Unsupported, NotDone, Instance),

        // The account.
        "InvalidAccessKeyId.NotFound"
        | "InvalidAccessKeyId.Inactive"
        | "InvalidSecurityToken.Expired"
        | "InvalidSecurityToken.Malformed"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "InvalidTimeStamp.Expired"
        | "Forbidden"
        | "Forbidden.RAM"
        | "Forbidden.RiskControl" => (Kind::Denied, NotDone, Account),
        "QuotaExceed.KeyPair" | "QuotaExceed.Tags" | "QuotaExceeded" | "InsufficientBalance" => {
            (Kind::Quota, NotDone, Account)
        }

        // The request.
        "InvalidKeyPairName.NotFound"
        | "InvalidKeyPairName.Malformed"
        | "InvalidKeyPairNames.ValueNotSupported"
        | "InvalidPublicKeyBody.Malformed"
        | "InvalidInstanceIds.ValueNotSupported"
        | "Abs.InvalidInstanceIds.MalFormed"
        | "InstanceKeyPairLimitExceeded"
        | "InvalidParameter.TooManyInstanceIds"
        | "InvalidRegionId.NotFound"
        | "InvalidResourceGroup.NotFound"
        | "Duplicate.TagKey"
        | "InvalidTagKey.Malformed"
        | "InvalidTagValue.Malformed"
        | "MissingParameter"
        | "InvalidParameter"
        | "UnsupportedOperation"
        | "NoSuchVersion"
        | "IdempotentParameterMismatch" => (Kind::Invalid, NotDone, Request),
        _ => return None,
    };
    Some(verdict)
}

/// Whether an action changes instances.
fn changes_instances(action: &str) -> bool {
    matches!(action, "AttachKeyPair" | "DetachKeyPair" | "StopInstances" | "StartInstances" | "RebootInstances")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Account, Instance, Request};
    use Effect::{NotDone, Unknown};

    const ATTACH: [&str; 2] = ["AttachKeyPair", "DetachKeyPair"];
    const PAIRS: [&str; 2] = ["ImportKeyPair", "DeleteKeyPairs"];
    const POWER: [&str; 3] = ["StopInstances", "StartInstances", "RebootInstances"];

    /// The codes whose class leaves the kind open, or whose note names an action: by hand.
    const BY_HAND: [(&str, &str, Verdict); 19] = [
        ("*", "Throttling", (Kind::Throttled, NotDone, Request)),
        ("*", "Throttling.User", (Kind::Throttled, NotDone, Request)),
        ("*", "Throttling.Api", (Kind::Throttled, NotDone, Request)),
        ("*", "ServiceUnavailable", (Kind::Unavailable, Unknown, Request)),
        ("*", "LimitedOperation.ServiceUnavailable", (Kind::Unavailable, Unknown, Request)),
        ("*", "InternalError", (Kind::Unavailable, Unknown, Request)),
        ("*", "UnknownError", (Kind::Unavailable, Unknown, Request)),
        ("*", "SignatureNonceUsed", (Kind::Unavailable, NotDone, Request)),
        ("*", "InvalidOperation.Conflict", (Kind::Busy, NotDone, Instance)),
        ("*", "InstanceNotReady", (Kind::Busy, NotDone, Instance)),
        ("*", "InvalidInstanceId.NotFound", (Kind::NotFound, NotDone, Instance)),
        ("*", "InvalidInstanceIds.NotFound", (Kind::NotFound, NotDone, Instance)),
        ("*", "KeyPair.AlreadyExist", (Kind::Already, NotDone, Request)),
        ("*", "DRYRUN.SUCCESS", (Kind::Already, NotDone, Request)),
        ("*", "DryRunOperation", (Kind::Already, NotDone, Request)),
        ("AttachKeyPair", "InvalidInstanceIds.ValueNotSupported", (Kind::NotFound, NotDone, Instance)),
        ("DetachKeyPair", "InvalidInstanceIds.ValueNotSupported", (Kind::NotFound, NotDone, Instance)),
        ("DeleteKeyPairs", "InvalidParameter.KeypairAlreadyAttachedInstance", (Kind::InUse, NotDone, Request)),
        ("DeleteKeyPairs", "InvalidKeyPairName.NotFound", (Kind::Already, NotDone, Request)),
    ];

    fn by_class(class: &str) -> Verdict {
        match class {
            "PI" => (Kind::Unsupported, NotDone, Instance),
            "PB" => (Kind::Invalid, NotDone, Request),
            "AU" => (Kind::Denied, NotDone, Account),
            "QU" => (Kind::Quota, NotDone, Account),
            "ST" => (Kind::InvalidState, NotDone, Instance),
            class => panic!("{class}: each code of this class stands in the list by hand"),
        }
    }

    #[test]
    fn every_code_of_the_class_list_is_translated_on_every_action_of_its_group() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut seen = 0;
        for group in file["providers"]["aliyun-ecs"].as_array().unwrap() {
            let title = group["group"].as_str().unwrap();
            let actions: Vec<&str> = [&ATTACH[..], &PAIRS, &POWER, &["DescribeInstances", "DescribeKeyPairs"]].concat();
            let actions = actions.into_iter().filter(|action| title == "common" || title.contains(action));
            for action in actions {
                for entry in group["codes"].as_array().unwrap() {
                    let code = entry["code"].as_str().unwrap();
                    let status = u16::try_from(entry["http"].as_u64().unwrap()).unwrap();
                    let by_hand = |on: &str| BY_HAND.iter().find(|(action, one, _)| *one == code && *action == on);
                    let expect = by_hand(action).or_else(|| by_hand("*")).map(|(_, _, verdict)| *verdict);
                    let expect = expect.unwrap_or_else(|| by_class(entry["cls"].as_str().unwrap()));
                    assert_eq!(verdict(action, code, status), expect, "{code} on {action}");
                    // A status that fell back would have said something else, or the code is not in the table.
                    assert!(by_action(action, code).or_else(|| by_code(code)).is_some(), "{code} is in no table");
                    assert_eq!(verdict_on_one(action, code).2, Instance, "{code} beside one instance");
                    seen += 1;
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn a_look_for_an_unknown_name_finds_nothing() {
        for action in ["DescribeKeyPairs", "DescribeInstances"] {
            assert_eq!(verdict(action, "InvalidKeyPairName.NotFound", 404), (Kind::NotFound, NotDone, Request));
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        let check = |code: &str, status: u16, expect: Verdict| {
            assert_eq!(verdict("AttachKeyPair", code, status), expect, "{code} {status}");
        };
        check("Throttling.Somewhere", 503, (Kind::Throttled, NotDone, Request));
        for status in [302, 400, 401, 403, 404, 429, 500, 599] {
            check("New", status, answer::by_status(status, true));
        }
    }

    #[test]
    fn an_unknown_conflict_of_a_batch_is_somebodys_wrong_state_and_no_fault_of_the_request() {
        for action in ATTACH.iter().chain(&POWER) {
            assert_eq!(verdict(action, "New", 409), (Kind::InvalidState, NotDone, Instance), "{action}");
        }
        for action in PAIRS.iter().chain(&["DescribeInstances"]) {
            assert_eq!(verdict(action, "New", 409), (Kind::Busy, NotDone, Request), "{action}");
        }
    }

    #[test]
    fn an_unknown_code_beside_one_instance_is_looked_at_again() {
        let check = |code: &str, kind, effect| {
            assert_eq!(verdict_on_one("AttachKeyPair", code), (kind, effect, Instance), "{code}");
        };
        check("DependencyViolation.WindowsInstance", Kind::Unsupported, NotDone);
        check("InternalError", Kind::Unavailable, Unknown);
        check("404", Kind::NotFound, NotDone);
        check("429", Kind::Throttled, NotDone);
        check("403", Kind::InvalidState, NotDone);
        check("500", Kind::InvalidState, Unknown);
        check("Something", Kind::InvalidState, NotDone);
        check("", Kind::InvalidState, Unknown);
        check("200", Kind::InvalidState, Unknown);
    }
}
