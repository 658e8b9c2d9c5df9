//! The refusals of the BCC face: code, HTTP status and message (FACTS section 6, baidu-bcc).
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
    ("AccessDenied", 403),
    ("InappropriateJSON", 400),
    ("InternalError", 500),
    ("InvalidAccessKeyId", 403),
    ("InvalidHTTPAuthHeader", 400),
    ("InvalidHTTPRequest", 400),
    ("InvalidURI", 400),
    ("InvalidVersion", 404),
    ("Keypair.AttachAttachedKeypair", 400),
    ("Keypair.DeleteKeypairInUse", 403),
    ("Keypair.InstanceNotExist", 404),
    ("Keypair.InstanceStatusForbidden", 409),
    ("Keypair.KeypairDescriptionInvalid", 400),
    ("Keypair.KeypairNameInvalid", 400),
    ("Keypair.KeypairNotExist", 404),
    ("Keypair.KeypairPublicKeyExist", 400),
    ("Keypair.KeypairQuotaExceedLimit", 413),
    ("Keypair.PublicKeyFormatInvalid", 400),
    ("Keypair.UnsupportOsType", 403),
    ("Instance.StartExpiredInstance", 409),
    ("Instance.StartInstanceOperationForbidden", 409),
    ("Instance.StopInstanceOperationForbidden", 409),
    ("MalformedJSON", 400),
    ("RequestExpired", 400),
    ("SignatureDoesNotMatch", 400),
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
    /// The error body: `{requestId, code, message}` (FACTS 5.1).
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        json!({ "requestId": request_id, "code": self.code, "message": self.message }).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_lists_with_this_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/error-classes.json");
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let listed: Vec<(&str, u64)> = file["providers"]["baidu-bcc"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["codes"].as_array().unwrap())
            .map(|code| (code["code"].as_str().unwrap(), code["http"].as_u64().unwrap()))
            .collect();
        for (code, status) in CODES {
            assert!(listed.contains(&(code, u64::from(*status))), "{code} {status}");
        }
    }
}
