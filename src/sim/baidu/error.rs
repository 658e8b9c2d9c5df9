//! The refusals of the BCC face: code, HTTP status and message (FACTS section 6, baidu-bcc).
//! It must never hold a code that is in no list: `every_code_is_in_the_lists` reads them.

use serde_json::{Value, json};

use crate::sim::cloud::Rule::{self, Clock, Malformed, Signature, State};

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
const CODES: &[(&str, u16, Option<Rule>)] = &[
    ("AccessDenied", 403, Some(Signature)),
    ("Bcc.InstanceTypeNotSupportException", 403, None),
    ("Bcc.PrePayCannotStopWithNoCharge", 403, None),
    ("InappropriateJSON", 400, Some(Malformed)),
    ("Instance.StartExpiredInstance", 409, None),
    ("Instance.StartInstanceOperationForbidden", 409, Some(State)),
    ("Instance.StartInstanceWhenCreating", 409, None),
    ("Instance.StopInstanceOperationForbidden", 409, Some(State)),
    ("InternalError", 500, None),
    ("InvalidAccessKeyId", 403, Some(Signature)),
    ("InvalidHTTPAuthHeader", 400, Some(Signature)),
    ("InvalidHTTPRequest", 400, Some(Malformed)),
    ("InvalidURI", 400, Some(Malformed)),
    ("InvalidVersion", 404, Some(Malformed)),
    ("Keypair.AttachAttachedKeypair", 400, None),
    ("Keypair.DeleteKeypairInUse", 403, None),
    ("Keypair.InstanceNotExist", 404, None),
    ("Keypair.InstanceStatusForbidden", 409, Some(State)),
    ("Keypair.KeypairDescriptionInvalid", 400, Some(Malformed)),
    ("Keypair.KeypairNameInvalid", 400, Some(Malformed)),
    ("Keypair.KeypairNotExist", 404, None),
    ("Keypair.KeypairPublicKeyExist", 400, None),
    ("Keypair.KeypairQuotaExceedLimit", 413, None),
    ("Keypair.PublicKeyFormatInvalid", 400, Some(Malformed)),
    ("Keypair.UnsupportOsType", 403, None),
    ("MalformedJSON", 400, Some(Malformed)),
    ("OptInRequired", 403, None),
    ("PreconditionFailed", 412, Some(Malformed)),
    ("RequestExpired", 400, Some(Clock)),
    ("SignatureDoesNotMatch", 400, Some(Signature)),
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
    /// The error body: `{requestId, code, message}` (FACTS 5.1).
    pub(crate) fn body(&self, request_id: &str) -> Value {
        json!({ "requestId": request_id, "code": self.code, "message": self.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_lists_with_this_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<(&str, u64)> = file["providers"]["baidu-bcc"]
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
