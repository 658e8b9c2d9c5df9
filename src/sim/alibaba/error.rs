//! The refusals of the ECS face: code, HTTP status and message (FACTS section 6, aliyun-ecs).
//! It must never hold a code that is in no list: `every_code_is_in_the_lists` reads them.

use serde_json::json;

/// A refusal of the whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The vendor's code.
    pub code: &'static str,
    /// The HTTP status of that code.
    pub status: u16,
    /// English text for people; a client must not read it.
    pub message: String,
}

/// The codes this face answers with, and their HTTP statuses.
const CODES: &[(&str, u16)] = &[
    ("Abs.InvalidInstanceIds.MalFormed", 403),
    ("DRYRUN.SUCCESS", 400),
    ("DryRunOperation", 400),
    ("Duplicate.TagKey", 400),
    ("Forbidden", 403),
    ("IncompleteSignature", 400),
    ("IncorrectInstanceStatus", 403),
    ("InstanceExpiredOrInArrears", 403),
    ("InstanceKeyPairLimitExceeded", 403),
    ("InstanceLockedForSecurity", 403),
    ("InternalError", 500),
    ("InvalidAccessKeyId.NotFound", 404),
    ("InvalidInstanceId.NotFound", 404),
    ("InvalidInstanceIds.ValueNotSupported", 400),
    ("InvalidKeyPairName.Malformed", 400),
    ("InvalidKeyPairName.NotFound", 400),
    ("InvalidKeyPairNames.ValueNotSupported", 400),
    ("InvalidOperation.Conflict", 409),
    ("InvalidParameter", 400),
    ("InvalidParameter.KeypairAlreadyAttachedInstance", 400),
    ("InvalidParameter.TooManyInstanceIds", 403),
    ("InvalidPublicKeyBody.Malformed", 400),
    ("InvalidRegionId.NotFound", 404),
    ("InvalidSecurityToken.Malformed", 400),
    ("InvalidTagKey.Malformed", 400),
    ("InvalidTagValue.Malformed", 400),
    ("InvalidTimeStamp.Expired", 400),
    ("KeyPair.AlreadyExist", 400),
    ("LimitedOperation.ServiceUnavailable", 503),
    ("MissingParameter", 400),
    ("NoSuchVersion", 400),
    ("QuotaExceed.KeyPair", 403),
    ("QuotaExceed.Tags", 403),
    ("ServiceUnavailable", 503),
    ("SignatureDoesNotMatch", 403),
    ("SignatureNonceUsed", 400),
    ("Throttling", 400),
    ("Throttling.User", 400),
    ("UnsupportedOperation", 400),
];

/// Makes a refusal; its status comes from the list.
pub fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault { code, status: status(code), message: message.into() }
}

/// The HTTP status of a code; 400 for one that is not in the list.
pub fn status(code: &str) -> u16 {
    CODES.iter().find(|(known, _)| *known == code).map_or(400, |(_, status)| *status)
}

impl Fault {
    /// The error body: `{RequestId, HostId, Code, Message, Recommend}` (FACTS 4.2).
    pub fn body(&self, request_id: &str, host: &str) -> Vec<u8> {
        json!({
            "RequestId": request_id,
            "HostId": host,
            "Code": self.code,
            "Message": self.message,
            "Recommend": format!("https://api.aliyun.com/troubleshoot?q={}&product=Ecs", self.code),
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_lists_with_this_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<(&str, u64)> = file["providers"]["aliyun-ecs"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["codes"].as_array().unwrap())
            .map(|code| (code["code"].as_str().unwrap(), code["http"].as_u64().unwrap()))
            .collect();
        assert!(CODES.is_sorted());
        for (code, status) in CODES {
            assert!(listed.contains(&(code, u64::from(*status))), "{code} {status}");
        }
    }
}
