//! What an error code of BCC means, by action: may it help to try again, may it have happened, who is to blame.
//! Pure: a table and nothing else. It must never call a refusal done, or an unknown outcome refused.
//! Source: the code lists in `tests/vectors/error-classes.json` (cloud.baidu.com/doc/BCC, bce-sdk-go 6916310);
//! the classes are our judgement. The API has paths, not actions: an action here is the SDK's name for it.

use crate::provider::http::answer::{self, Verdict};
use crate::provider::{Blame, Effect, Kind};

/// An instance in `failedInstanceIdList`: the cloud says that it failed and gives no reason, so it is looked at and tried
/// again, a bounded number of times.
pub const FAILED_WITHOUT_REASON: Verdict = (Kind::InvalidState, Effect::NotDone, Blame::Instance);

/// Refusals of a request whose signature had grown old. Each attempt is signed anew, so one that sat in a queue is worth
/// one repetition (both SDKs repeat `RequestExpired`). `RequestTimeTooSkewed` is in no list for BCC: it is the word of
/// the vendor's other services.
pub const EXPIRED: &[&str] = &["RequestExpired", "RequestTimeTooSkewed"];

/// What `code` means as the answer to `action` with this HTTP status.
pub fn verdict(action: &str, code: &str, status: u16) -> Verdict {
    by_action(action, code)
        .or_else(|| by_code(code))
        .unwrap_or_else(|| answer::by_status(status, changes_instances(action)))
}

/// Codes that mean something else on one action than elsewhere.
fn by_action(action: &str, code: &str) -> Option<Verdict> {
    let kind = match (action, code) {
        // A pair that does not exist is the goal of a deletion.
        ("DeleteKeypair", "Keypair.KeypairNotExist") => Kind::Already,
        // Whether an unknown pair is an error to the listings is not documented; it would only say that there is none.
        ("ListKeypairs" | "GetKeypairDetail" | "ListInstances", "Keypair.KeypairNotExist") => Kind::NotFound,
        _ => return None,
    };
    Some((kind, Effect::NotDone, Blame::Request))
}

fn by_code(code: &str) -> Option<Verdict> {
    use Blame::{Account, Instance, Request};
    use Effect::{NotDone, Unknown};
    let verdict = match code {
        // Later. `Http400` is an unexplained 400 that the Go SDK repeats.
        "InternalError" | "Http400" => (Kind::Unavailable, Unknown, Request),
        "Instance.StartInstanceWhenCreating" => (Kind::Busy, NotDone, Instance),

        // Reached already: to be looked at.
        "Keypair.AttachAttachedKeypair" => (Kind::Already, NotDone, Instance),
        "Keypair.KeypairPublicKeyExist" => (Kind::Already, NotDone, Request),

        // To be put right, or waited for.
        "Keypair.InstanceStatusForbidden"
        | "Instance.StartInstanceOperationForbidden"
        | "Instance.StopInstanceOperationForbidden" => (Kind::InvalidState, NotDone, Instance),
        "Keypair.DeleteKeypairInUse" => (Kind::InUse, NotDone, Request),

        // One instance.
        "Keypair.InstanceNotExist" => (Kind::NotFound, NotDone, Instance),
        "Keypair.UnsupportOsType"
        | "Instance.StartExpiredInstance"
        | "Bcc.PrePayCannotStopWithNoCharge"
        | "Bcc.Rocv1CannotStopWithNoCharge"
        | "Bcc.InstanceTypeNotSupportException" => (Kind::Unsupported, NotDone, Instance),

        // The account.
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "InvalidHTTPAuthHeader"
        | "SignatureDoesNotMatch"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "OptInRequired" => (Kind::Denied, NotDone, Account),
        "Keypair.KeypairQuotaExceedLimit" => (Kind::Quota, NotDone, Account),

        // The request.
        "Keypair.KeypairNotExist"
        | "Keypair.KeypairNameInvalid"
        | "Keypair.KeypairDescriptionInvalid"
        | "Keypair.PublicKeyFormatInvalid"
        | "InappropriateJSON"
        | "MalformedJSON"
        | "InvalidHTTPRequest"
        | "InvalidURI"
        | "InvalidVersion"
        | "PreconditionFailed" => (Kind::Invalid, NotDone, Request),
        _ => return None,
    };
    Some(verdict)
}

/// Whether an action changes instances.
fn changes_instances(action: &str) -> bool {
    matches!(
        action,
        "AttachKeypair" | "DetachKeypair" | "BatchStopInstance" | "BatchStartInstance" | "BatchRebootInstance"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Account, Instance, Request};
    use Effect::{NotDone, Unknown};

    const KEY_PAIRS: [&str; 4] = ["AttachKeypair", "DetachKeypair", "ImportKeypair", "DeleteKeypair"];
    const POWER: [&str; 3] = ["BatchStartInstance", "BatchStopInstance", "BatchRebootInstance"];
    const READS: [&str; 4] = ["ListInstances", "ListInstanceByInstanceIds", "ListKeypairs", "GetKeypairDetail"];

    /// The codes whose class leaves the kind open, or whose note names an action: by hand.
    const BY_HAND: [(&str, &str, Verdict); 8] = [
        ("*", "InternalError", (Kind::Unavailable, Unknown, Request)),
        ("*", "Http400", (Kind::Unavailable, Unknown, Request)),
        ("*", "Instance.StartInstanceWhenCreating", (Kind::Busy, NotDone, Instance)),
        ("*", "Keypair.InstanceNotExist", (Kind::NotFound, NotDone, Instance)),
        ("*", "Keypair.AttachAttachedKeypair", (Kind::Already, NotDone, Instance)),
        ("*", "Keypair.KeypairPublicKeyExist", (Kind::Already, NotDone, Request)),
        ("*", "Keypair.DeleteKeypairInUse", (Kind::InUse, NotDone, Request)),
        ("DeleteKeypair", "Keypair.KeypairNotExist", (Kind::Already, NotDone, Request)),
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
        for group in file["providers"]["baidu-bcc"].as_array().unwrap() {
            let actions = match group["group"].as_str().unwrap() {
                "key pair actions" => KEY_PAIRS.to_vec(),
                "batch start / stop" => POWER.to_vec(),
                "common" => [&KEY_PAIRS[..], &POWER, &READS].concat(),
                other => panic!("a new group: {other}"),
            };
            for action in actions {
                for entry in group["codes"].as_array().unwrap() {
                    let code = entry["code"].as_str().unwrap();
                    let status = u16::try_from(entry["http"].as_u64().unwrap()).unwrap();
                    let by_hand = |on: &str| BY_HAND.iter().find(|(action, one, _)| *one == code && *action == on);
                    let expect = by_hand(action).or_else(|| by_hand("*")).map(|(_, _, verdict)| *verdict);
                    let expect = expect.unwrap_or_else(|| by_class(entry["cls"].as_str().unwrap()));
                    assert_eq!(verdict(action, code, status), expect, "{code} on {action}");
                    assert!(by_code(code).is_some(), "{code} is in no table");
                    seen += 1;
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn a_look_for_an_unknown_pair_finds_nothing() {
        for action in ["ListKeypairs", "GetKeypairDetail", "ListInstances"] {
            assert_eq!(verdict(action, "Keypair.KeypairNotExist", 404), (Kind::NotFound, NotDone, Request));
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        let check = |status: u16, expect: Verdict| {
            assert_eq!(verdict("AttachKeypair", "New", status), expect, "{status}");
        };
        for status in [301, 400, 401, 403, 404, 413, 429, 500, 503] {
            check(status, answer::by_status(status, true));
        }
    }

    #[test]
    fn an_unknown_conflict_of_a_batch_is_somebodys_wrong_state_and_no_fault_of_the_request() {
        for action in KEY_PAIRS[..2].iter().chain(&POWER) {
            assert_eq!(verdict(action, "New", 409), (Kind::InvalidState, NotDone, Instance), "{action}");
        }
        for action in KEY_PAIRS[2..].iter().chain(&READS) {
            assert_eq!(verdict(action, "New", 409), (Kind::Busy, NotDone, Request), "{action}");
        }
    }
}
