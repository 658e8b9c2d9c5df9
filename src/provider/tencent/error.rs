//! What Tencent's error codes mean, by action: may it help to try again, may it have happened, who is to blame.
//! Pure. The codes and classes are those of `error-classes.json` (groups tencent-common, -lighthouse, -cvm, -legacy-v2: the
//! numbers are the flat answers' of CVM's legacy endpoint); where a note there names an action, the note wins. It must never call an outcome known that the cloud leaves open.

use crate::provider::error::{Blame, Effect, Kind};

/// The three answers.
pub type Verdict = (Kind, Effect, Blame);

const THROTTLED: Verdict = (Kind::Throttled, Effect::NotDone, Blame::Request);
const DOWN: Verdict = (Kind::Unavailable, Effect::Unknown, Blame::Request);
const BUSY: Verdict = (Kind::Busy, Effect::NotDone, Blame::Instance);
const WRONG_STATE: Verdict = (Kind::InvalidState, Effect::NotDone, Blame::Instance);
const NO_INSTANCE: Verdict = (Kind::NotFound, Effect::NotDone, Blame::Instance);
const NO_KEY: Verdict = (Kind::NotFound, Effect::NotDone, Blame::Request);
const UNFIT: Verdict = (Kind::Unsupported, Effect::NotDone, Blame::Instance);
const INVALID: Verdict = (Kind::Invalid, Effect::NotDone, Blame::Request);
const DENIED: Verdict = (Kind::Denied, Effect::NotDone, Blame::Account);
const QUOTA: Verdict = (Kind::Quota, Effect::NotDone, Blame::Account);
const IN_USE: Verdict = (Kind::InUse, Effect::NotDone, Blame::Request);
/// The goal of the call as a whole is reached.
const ALREADY: Verdict = (Kind::Already, Effect::NotDone, Blame::Request);
/// One instance is where the call would bring it, and the call was refused for that.
const ONE_ALREADY: Verdict = (Kind::Already, Effect::NotDone, Blame::Instance);

/// Refusals of a request whose signature had grown old. Each attempt is signed anew, so one that sat in a queue is worth
/// one repetition; a clock that is wrong gets the same answer twice (`error-classes.json`: "retry ONCE").
pub const EXPIRED: &[&str] = &["AuthFailure.SignatureExpire", "4200"];

/// What this code means as the answer to this action.
pub fn judge(action: &str, code: &str) -> Verdict {
    by_action(action, code).or_else(|| listed(code)).unwrap_or_else(|| by_shape(action, code))
}

/// Where the action gives a code another meaning.
fn by_action(action: &str, code: &str) -> Option<Verdict> {
    Some(match (action, code) {
        // Deleting a bound pair, or one that an image refers to: the retire journal waits.
        ("DeleteKeyPairs", "ResourceInUse" | "ResourceInUse.KeyPairInUse") => IN_USE,
        ("DeleteKeyPairs", "UnsupportedOperation.KeyPairBindToBlueprints") => IN_USE,
        ("DeleteKeyPairs", "InvalidParameterValue.KeyPairNotSupported") => IN_USE,
        // Deleting what is gone.
        ("DeleteKeyPairs", "ResourceNotFound.KeyIdNotFound" | "InvalidKeyPairId.NotFound") => ALREADY,
        ("DescribeKeyPairs", "ResourceNotFound.KeyIdNotFound" | "InvalidKeyPairId.NotFound") => NO_KEY,
        ("StartInstances", "UnsupportedOperation.InstanceStateRunning") => ONE_ALREADY,
        ("StopInstances", "UnsupportedOperation.InstanceStateStopped") => ONE_ALREADY,
        // Some resource: here it is no instance, and no proof that a pair is gone.
        ("ImportKeyPair" | "DescribeKeyPairs" | "DeleteKeyPairs", "5000") => INVALID,
        _ => return None,
    })
}

/// The codes that the vendor documents.
fn listed(code: &str) -> Option<Verdict> {
    Some(match code {
        "RequestLimitExceeded"
        | "RequestLimitExceeded.UinLimitExceeded"
        | "RequestLimitExceeded.GlobalRegionUinLimitExceeded"
        | "RequestLimitExceeded.IPLimitExceeded"
        | "4400" => THROTTLED,

        "AuthFailure"
        | "AuthFailure.InvalidAuthorization"
        | "AuthFailure.InvalidSecretId"
        | "AuthFailure.MFAFailure"
        | "AuthFailure.SecretIdNotFound"
        | "AuthFailure.SignatureExpire"
        | "AuthFailure.SignatureFailure"
        | "AuthFailure.TokenFailure"
        | "AuthFailure.UnauthorizedOperation"
        | "AuthFailure.InvalidHeaderUin"
        | "UnauthorizedOperation"
        | "UnauthorizedOperation.NoPermission"
        | "UnauthorizedOperation.InvalidToken"
        | "UnauthorizedOperation.TokenInvalid"
        | "UnauthorizedOperation.MFAExpired"
        | "UnauthorizedOperation.MFANotFound"
        | "IpInBlacklist"
        | "IpNotInWhitelist"
        | "4100" | "4101" | "4102" | "4103" | "4104" | "4105" | "4106" | "4110" | "4200" | "4300" => DENIED,

        // The cloud is out of order. What such an answer leaves behind nobody knows, so the outcome is open.
        "InternalError"
        | "InternalServerError"
        | "InternalError.DescribeInstanceStatus"
        // In practice a fault of the server (the note in error-classes.json), whatever its name says.
        | "InternalError.InvalidCommandNotFound"
        | "ServiceUnavailable"
        | "ResourceUnavailable"
        | "ResourceUnavailable.TATServiceError"
        | "FailedOperation"
        | "FailedOperation.DescribeInstanceStatus"
        | "FailedOperation.ImportKeyPairFailed"
        | "FailedOperation.CreateKeyPairFailed"
        | "FailedOperation.DeleteKeyPairFailed"
        | "FailedOperation.DisassociateKeyPairFailed"
        | "UnsupportedOperation.SystemBusy"
        // Resource operation failed.
        | "5100" => DOWN,
        // A replay: no attempt of ours has another's nonce, so a copy of this one came first, and was perhaps done. (Or the
        // Timestamp is off: the page has one code for both.)
        "4500" => DOWN,
        // The same, and if it does not pass it is that instance.
        "FailedOperation.InstanceOperationFailed" => (Kind::Unavailable, Effect::Unknown, Blame::Instance),
        "FailedOperation.TATInvocationNotFinished" => (Kind::Busy, Effect::Unknown, Blame::Instance),

        "ResourceInUse"
        | "MutexOperation.TaskRunning"
        | "OperationDenied.InstanceOperationInProgress"
        | "OperationDenied.InstanceCreating"
        | "UnsupportedOperation.LatestOperationUnfinished"
        | "UnsupportedOperation.InstanceStatePending"
        | "UnsupportedOperation.InstanceStateStarting"
        | "UnsupportedOperation.InstanceStateStopping"
        | "UnsupportedOperation.InstanceStateRebooting"
        | "UnsupportedOperation.InstanceStateEnterRescueMode"
        | "UnsupportedOperation.InstanceStateExitRescueMode"
        | "UnsupportedOperation.InstanceStateEnterServiceLiveMigrate"
        | "UnsupportedOperation.InstanceStateServiceLiveMigrate"
        | "UnsupportedOperation.InstanceStateExitServiceLiveMigrate" => BUSY,

        "UnsupportedOperation.InvalidInstanceState"
        | "UnsupportedOperation.InstanceStateRunning"
        | "UnsupportedOperation.InstanceStateStopped"
        | "UnsupportedOperation.InstanceStateNotRunning"
        | "ResourceInUse.KeyPairInUse" => WRONG_STATE,

        // A malformed id belongs to no instance: it is as missing as an unknown one.
        "ResourceNotFound"
        | "ResourceNotFound.InstanceIdNotFound"
        | "ResourceNotFound.InstanceNotFound"
        | "InvalidInstanceId.NotFound"
        | "InvalidInstanceId.Malformed"
        | "InvalidParameterValue.InstanceIdMalformed"
        | "UnsupportedOperation.InstanceStateTerminated" => NO_INSTANCE,

        "UnsupportedOperation"
        | "UnsupportedOperation.KeyPairUnbindUsernameMismatch"
        | "UnsupportedOperation.InstanceDisplayAreaNotSupportOperation"
        | "UnsupportedOperation.WindowsNotAllowToAssociateKeyPair"
        | "UnsupportedOperation.WindowsNotSupportKeyPair"
        | "UnsupportedOperation.TatAgentNotOnline"
        | "UnsupportedOperation.InstanceExpired"
        | "ResourceUnavailable.TATAgentUnavailable"
        | "UnsupportedOperation.InstanceStateRescueMode"
        | "UnsupportedOperation.InstanceStateShutdown"
        | "UnsupportedOperation.InstanceStateIsolating"
        | "UnsupportedOperation.InstanceStateTerminating"
        | "UnsupportedOperation.InstanceStateFreezing"
        | "UnsupportedOperation.InstanceStateBanning"
        | "UnsupportedOperation.InstanceStateCorrupted"
        | "UnsupportedOperation.InstanceReinstallFailed"
        | "UnsupportedOperation.StoppedModeStopCharging"
        | "UnsupportedOperation.HibernationForNormalInstance"
        | "UnsupportedOperation.InstanceOsWindows"
        | "UnsupportedOperation.KeyPairUnsupportedWindows"
        | "InvalidInstance.NotSupported"
        | "InvalidParameterValue.ZoneNotSupported"
        | "FailedOperation.InvalidInstanceApplicationRole"
        // "Does not exist, was returned, or belongs to other users" (DOC intl 239/1757): no proof that an instance is gone.
        | "5000" => UNFIT,

        "LimitExceeded"
        | "LimitExceeded.KeyPairLimitExceeded"
        | "LimitExceeded.TagResourceQuota"
        | "InvalidKeyPair.LimitExceeded"
        | "ResourceInsufficient"
        | "5200" => QUOTA,

        "UnsupportedOperation.KeyPairBindDuplicate" | "UnsupportedOperation.KeyPairNotBoundToInstance" => ONE_ALREADY,
        "DryRunOperation"
        | "InvalidParameterValue.DuplicateParameterValue"
        | "InvalidParameterValue.KeyPairPublicKeyDuplicated"
        | "InvalidKeyPairName.Duplicate"
        | "InvalidPublicKey.Duplicate" => ALREADY,

        "AuthFailure.InvalidRegion"
        | "ActionOffline"
        | "InvalidAction"
        | "NoSuchVersion"
        | "InvalidRequest"
        | "InvalidParameter"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "UnknownParameter"
        | "UnsupportedProtocol"
        | "UnsupportedRegion"
        | "InvalidParameterValue.Duplicated"
        | "InvalidParameterValue.KeyPairIdMalformed"
        | "InvalidParameterValue.LimitExceeded"
        | "InvalidParameterValue.OutOfRange"
        | "ResourceNotFound.KeyIdNotFound"
        | "InvalidParameterValue.InvalidKeyPairNameEmpty"
        | "InvalidParameterValue.InvalidKeyPairNameTooLong"
        | "InvalidParameterValue.InvalidKeyPairNameIncludeIllegalChar"
        | "InvalidParameterValue.KeyPairPublicKeyMalformed"
        | "UnsupportedOperation.KeyPairBindToBlueprints"
        | "InvalidParameter.InvalidFilter"
        | "InvalidParameter.ParameterConflict"
        | "InvalidParameterValue.Negative"
        | "InvalidKeyPairId.NotFound"
        | "InvalidKeyPairId.Malformed"
        | "InvalidParameterValue.KeyPairNotSupported"
        | "InvalidParameterCombination"
        | "InvalidPublicKey.Malformed"
        | "InvalidKeyPairNameEmpty"
        | "InvalidKeyPairNameTooLong"
        | "InvalidKeyPairNameIncludeIllegalChar"
        | "InvalidProjectId.NotFound"
        | "InvalidFilter"
        | "InvalidFilterValue.LimitExceeded"
        | "InvalidParameterValueLimit"
        | "InvalidParameterValueOffset"
        | "InvalidParameterValue.TagKeyNotFound"
        | "FailedOperation.IllegalTagKey"
        | "FailedOperation.IllegalTagValue"
        | "FailedOperation.TagKeyReserved"
        | "InvalidZone.MismatchRegion"
        | "4000"
        | "4600" => INVALID,
        _ => return None,
    })
}

/// Codes that nobody listed, by their shape (FACTS 6). One that fits no shape is read as an outage with an open
/// outcome: it is repeated within bounds and looked up, never assumed.
fn by_shape(action: &str, code: &str) -> Verdict {
    let starts = |text: &str| code.starts_with(text);
    let ends = |text: &str| code.ends_with(text);
    if starts("RequestLimitExceeded") {
        THROTTLED
    } else if starts("InternalError") || starts("InternalServerError") {
        DOWN
    } else if ends("InProgress") || ends("Unfinished") || ends("Busy") || starts("Mutex") {
        BUSY
    } else if starts("ResourceNotFound") && code.contains("Instance") {
        NO_INSTANCE
    } else if starts("UnsupportedOperation") {
        UNFIT
    } else if starts("InvalidParameter") || starts("InvalidFilter") || starts("Missing") || ends("Malformed") {
        INVALID
    } else if starts("AuthFailure") || starts("Unauthorized") {
        DENIED
    } else if starts("LimitExceeded") {
        QUOTA
    } else {
        // `Family.Detail` means at least what its family means.
        let family = code.split_once('.').map(|(family, _)| family);
        family.and_then(|family| by_action(action, family).or_else(|| listed(family))).unwrap_or(DOWN)
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
