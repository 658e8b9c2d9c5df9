//! The refusals of the ECS face: code, HTTP status and message (FACTS section 6, aliyun-ecs).
//! It must never hold a code that is in no list: `every_code_is_in_the_lists` reads them.

use serde_json::{Value, json};

use crate::sim::cloud::Rule::{self, Clock, Limit, Malformed, Nonce, Signature, State};

/// A refusal of the whole request.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// The vendor's code.
    pub(crate) code: String,
    /// The HTTP status of that code.
    pub(crate) status: u16,
    /// English text for people; a client must not read it.
    pub(crate) message: String,
    /// The rule that the client broke, unless the refusal can meet a careful client too.
    pub(crate) rule: Option<Rule>,
}

/// The codes of this face, their HTTP statuses, and the rule that whoever gets one has broken.
/// `InsufficientBalance` has 400 in the common list and 403 in that of the power actions: power's is taken.
const CODES: &[(&str, u16, Option<Rule>)] = &[
    ("Abs.InvalidInstanceIds.MalFormed", 403, Some(Malformed)),
    ("DRYRUN.SUCCESS", 400, None),
    ("DependencyViolation.IoOptimize", 400, None),
    ("DependencyViolation.WindowsInstance", 403, None),
    ("DryRunOperation", 400, None),
    ("Duplicate.TagKey", 400, Some(Malformed)),
    ("Forbidden", 403, None),
    ("Forbidden.RAM", 403, None),
    ("IncompleteSignature", 400, Some(Signature)),
    ("IncorrectInstanceStatus", 403, Some(State)),
    ("InstanceExpiredOrInArrears", 403, None),
    ("InstanceKeyPairLimitExceeded", 403, Some(Limit)),
    ("InstanceLockedForSecurity", 403, None),
    ("InstanceNotReady", 403, None),
    ("InsufficientBalance", 403, None),
    ("InternalError", 500, None),
    ("InvalidAccessKeyId.NotFound", 404, Some(Signature)),
    ("InvalidInstance.NotFoundSystemDisk", 403, None),
    ("InvalidInstanceId.NotFound", 404, None),
    ("InvalidInstanceId.NotSupport", 403, None),
    ("InvalidInstanceIds.NotFound", 404, None),
    ("InvalidInstanceIds.ValueNotSupported", 400, Some(Malformed)),
    ("InvalidKeyPairName.Malformed", 400, Some(Malformed)),
    ("InvalidKeyPairName.NotFound", 400, None),
    ("InvalidKeyPairNames.ValueNotSupported", 400, Some(Malformed)),
    ("InvalidOperation.Conflict", 409, None),
    ("InvalidParameter", 400, Some(Malformed)),
    ("InvalidParameter.KeypairAlreadyAttachedInstance", 400, None),
    ("InvalidParameter.TooManyInstanceIds", 403, Some(Limit)),
    ("InvalidPublicKeyBody.Malformed", 400, Some(Malformed)),
    ("InvalidRegionId.NotFound", 404, Some(Malformed)),
    ("InvalidSecurityToken.Malformed", 400, Some(Signature)),
    ("InvalidTagKey.Malformed", 400, Some(Malformed)),
    ("InvalidTimeStamp.Expired", 400, Some(Clock)),
    ("KeyPair.AlreadyExist", 400, None),
    ("LimitedOperation.ServiceUnavailable", 503, None),
    ("MissingParameter", 400, Some(Malformed)),
    ("NoSuchVersion", 400, Some(Malformed)),
    ("OperationDenied", 403, None),
    ("OperationDenied.SystemInstanceNotSupport", 403, None),
    ("QuotaExceed.KeyPair", 403, None),
    ("QuotaExceed.Tags", 403, Some(Limit)),
    ("ServiceUnavailable", 503, None),
    ("SignatureDoesNotMatch", 403, Some(Signature)),
    ("SignatureNonceUsed", 400, Some(Nonce)),
    ("Throttling", 400, None),
    ("Throttling.User", 400, None),
    ("UnsupportedOperation", 400, Some(Malformed)),
];

/// Makes a refusal; status and rule come from the list, 400 and none for a code that a test invents.
pub(crate) fn refused(code: &str, message: impl Into<String>) -> Refused {
    let known = CODES.iter().find(|(known, ..)| *known == code);
    let (status, rule) = known.map_or((400, None), |(_, status, rule)| (*status, *rule));
    Refused { code: code.to_string(), status, message: message.into(), rule }
}

impl Refused {
    /// The same refusal, which a careful client can meet too.
    pub(crate) fn blameless(mut self) -> Self {
        self.rule = None;
        self
    }
    /// The same refusal, for breaking this rule.
    pub(crate) fn breaking(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self
    }
    /// The same refusal with another status: the lists name two for some codes.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    /// The error body: `{RequestId, HostId, Code, Message, Recommend}` (FACTS 4.2).
    pub(crate) fn body(&self, request_id: &str, host: &str) -> Value {
        json!({
            "RequestId": request_id,
            "HostId": host,
            "Code": self.code,
            "Message": self.message,
            "Recommend": format!("look for {} in the error center", self.code),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_lists_with_this_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<(&str, u64)> = file["providers"]["aliyun-ecs"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["codes"].as_array().unwrap())
            .map(|code| (code["code"].as_str().unwrap(), code["http"].as_u64().unwrap()))
            .collect();
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
        for (code, status, _) in CODES {
            assert!(listed.contains(&(code, u64::from(*status))), "{code} {status}");
        }
    }
}
