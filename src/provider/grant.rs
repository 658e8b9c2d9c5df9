//! What to grant an access key that is denied an action, in the words of its cloud. A table; it must never be taken for
//! more than a hint: which policy denied a call no answer says.

use super::error::Error;
use super::open::{actions, limits};
use crate::model::{Disruption, ProviderKind};

/// How `action` is allowed. `action` is as an error or [`super::actions`] has it.
pub fn grant(kind: ProviderKind, action: &str) -> String {
    match kind {
        ProviderKind::TencentLighthouse => format!("allow lighthouse:{action} in the access key's CAM policy"),
        ProviderKind::TencentCvm => format!("allow cvm:{action} in the access key's CAM policy"),
        ProviderKind::AlibabaEcs => format!("allow ecs:{action} in the access key's RAM policy"),
        // The API has paths and no names, and its policies name permissions and not calls. That these two allow what is
        // asked is unconfirmed: no page names them call by call.
        ProviderKind::BaiduBcc => {
            let permission = if is_look(action) { "READ" } else { "OPERATE" };
            format!("give the access key's user an IAM policy for BCC with the permission {permission} (for {action})")
        }
    }
}

/// The actions with which a rotation changes something there: it takes no key off, and reboots and stops only where a
/// bind wants that.
pub fn changes(kind: ProviderKind) -> impl Iterator<Item = &'static str> {
    let unused: &[&str] = match limits(kind).disruption {
        Disruption::StopsInstance => &["Stop", "Reboot"],
        Disruption::NeedsStopped | Disruption::RebootsInstance => &["Reboot"],
        Disruption::NeedsReboot => &["Stop"],
    };
    let unused = move |action: &str| {
        let verb = action.strip_prefix("Batch").unwrap_or(action);
        ["Disassociate", "Detach"].iter().chain(unused).any(|unused| verb.starts_with(unused))
    };
    actions(kind).iter().copied().filter(move |action| !is_look(action) && !unused(action))
}

/// The actions that an access key must be allowed, or should (a forecast does without): every look, and [`changes`]. What
/// [`actions`] has besides them a client can do, and nobody asks it to.
pub fn needs(kind: ProviderKind) -> impl Iterator<Item = &'static str> {
    let changes: Vec<&str> = changes(kind).collect();
    actions(kind).iter().copied().filter(move |action| is_look(action) || changes.contains(action))
}

/// What a denial is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The access key itself: unknown, disabled, its secret or token wrong, or expired.
    Credentials,
    /// The time of the request: our clock or the cloud's is wrong.
    Clock,
    /// What the access key may do.
    Permission,
}

/// What a denial with this code is about. What is not known is taken for a permission: that is the commonest. Codes from
/// the vendors' lists (`error-classes.json`): TC3 1209/56023, ECS ErrorCenter, BCC Ojwvyo6nc; the numbers are those of CVM's
/// legacy endpoint, 213/6982.
pub fn denial(code: &str) -> Denial {
    match code {
        "AuthFailure.SignatureExpire" | "RequestExpired" | "RequestTimeTooSkewed" | "4200" => Denial::Clock,
        code if code.starts_with("InvalidTimeStamp") => Denial::Clock,
        "AuthFailure.UnauthorizedOperation" => Denial::Permission,
        "SignatureDoesNotMatch" | "IncompleteSignature" | "InvalidHTTPAuthHeader" => Denial::Credentials,
        "UnauthorizedOperation.InvalidToken" | "UnauthorizedOperation.TokenInvalid" => Denial::Credentials,
        "UnauthorizedOperation.MFAExpired" | "UnauthorizedOperation.MFANotFound" => Denial::Credentials,
        // Signature, unknown key, token, MFA; a suspended account. 4110, "other CAM", stays with the permissions, which CAM is
        // about.
        "4100" | "4104" | "4105" | "4106" | "4300" => Denial::Credentials,
        code if [
            "AuthFailure",
            "InvalidAccessKeyId",
            "InvalidSecurityToken",
            "MissingSecurityToken",
            "InvalidCredential",
        ]
        .iter()
        .any(|start| code.starts_with(start)) =>
        {
            Denial::Credentials
        }
        _ => Denial::Permission,
    }
}

/// Whether a denial with this code may be of the access key itself, surely or perhaps: BCC says `AccessDenied` of a token that
/// it does not take (the page Ojwvyo6nc has no other code for one) and of a missing permission.
pub(super) fn may_be_of_credentials(code: &str) -> bool {
    denial(code) == Denial::Credentials || code == "AccessDenied"
}

/// What to do about a denial.
pub fn way_on(kind: ProviderKind, error: &Error) -> String {
    match denial(&error.code) {
        Denial::Permission => grant(kind, &error.action),
        Denial::Clock => "set this machine's clock (NTP)".to_string(),
        Denial::Credentials => {
            "see that the access key is enabled, of this cloud's site (Chinese or international) and of an account that is \
             not suspended, and that its id, secret and token belong together and have not expired"
                .to_string()
        }
    }
}

/// Whether an action only looks.
fn is_look(action: &str) -> bool {
    ["Describe", "List", "Get"].iter().any(|verb| action.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_action_is_granted_in_the_clouds_own_words() {
        let check = |kind, action, expect: &str| assert!(grant(kind, action).contains(expect), "{kind} {action}");
        check(ProviderKind::TencentLighthouse, "ImportKeyPair", "lighthouse:ImportKeyPair in the access key's CAM");
        check(ProviderKind::TencentCvm, "StopInstances", "cvm:StopInstances");
        check(ProviderKind::AlibabaEcs, "RebootInstances", "ecs:RebootInstances in the access key's RAM");
        check(ProviderKind::BaiduBcc, "AttachKeypair", "OPERATE (for AttachKeypair)");
        check(ProviderKind::BaiduBcc, "ListInstances", "READ (for ListInstances)");
    }

    #[test]
    fn a_denial_is_of_the_key_of_the_time_or_of_the_action() {
        let check = |codes: &[&str], expect: Denial| {
            codes.iter().for_each(|code| assert_eq!(denial(code), expect, "{code}"));
        };
        check(
            &["AuthFailure.SignatureFailure", "AuthFailure.SecretIdNotFound", "AuthFailure.TokenFailure"],
            Denial::Credentials,
        );
        check(
            &["SignatureDoesNotMatch", "InvalidAccessKeyId.NotFound", "InvalidSecurityToken.Expired"],
            Denial::Credentials,
        );
        check(&["InvalidAccessKeyId", "InvalidAccessKeyId.Inactive", "InvalidHTTPAuthHeader"], Denial::Credentials);
        check(&["4100", "4104", "4105", "4106", "4300"], Denial::Credentials);
        check(&["AuthFailure.SignatureExpire", "InvalidTimeStamp.Expired", "RequestExpired", "4200"], Denial::Clock);
        check(
            &[
                "UnauthorizedOperation",
                "UnauthorizedOperation.NoPermission",
                "AuthFailure.UnauthorizedOperation",
                "Forbidden.RAM",
            ],
            Denial::Permission,
        );
        check(&["AccessDenied", "Forbidden", "", "OptInRequired"], Denial::Permission);
        check(&["4101", "4102", "4103", "4110"], Denial::Permission);
    }

    /// What each documented denial is about. One that the vendors add is to be put here: it must not pass for a permission only
    /// because nobody looked.
    const DOCUMENTED: [(Denial, &[&str]); 3] = [
        (
            Denial::Credentials,
            &[
                "AuthFailure",
                "AuthFailure.InvalidAuthorization",
                "AuthFailure.InvalidSecretId",
                "AuthFailure.MFAFailure",
                "AuthFailure.SecretIdNotFound",
                "AuthFailure.SignatureFailure",
                "AuthFailure.TokenFailure",
                "AuthFailure.InvalidHeaderUin",
                "UnauthorizedOperation.InvalidToken",
                "UnauthorizedOperation.TokenInvalid",
                "UnauthorizedOperation.MFAExpired",
                "UnauthorizedOperation.MFANotFound",
                "4100",
                "4104",
                "4105",
                "4106",
                "4300",
                "InvalidAccessKeyId.NotFound",
                "InvalidAccessKeyId.Inactive",
                "InvalidSecurityToken.Expired",
                "InvalidSecurityToken.Malformed",
                "SignatureDoesNotMatch",
                "IncompleteSignature",
                "InvalidAccessKeyId",
                "InvalidHTTPAuthHeader",
            ],
        ),
        (Denial::Clock, &["AuthFailure.SignatureExpire", "4200", "InvalidTimeStamp.Expired", "RequestExpired"]),
        (
            Denial::Permission,
            &[
                "AuthFailure.UnauthorizedOperation",
                "UnauthorizedOperation",
                "UnauthorizedOperation.NoPermission",
                "IpInBlacklist",
                "IpNotInWhitelist",
                "4101",
                "4102",
                "4103",
                "4110",
                "Forbidden",
                "Forbidden.RAM",
                "Forbidden.RiskControl",
                "AccessDenied",
                "OptInRequired",
            ],
        ),
    ];

    #[test]
    fn every_documented_denial_was_thought_about() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/error-classes.json")).unwrap();
        let groups = file["providers"].as_object().unwrap().values().flat_map(|cloud| cloud.as_array().unwrap());
        let codes = groups.flat_map(|group| group["codes"].as_array().unwrap());
        let mut left: Vec<&str> = DOCUMENTED.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
        for code in codes.filter(|code| code["cls"] == "AU").map(|code| code["code"].as_str().unwrap()) {
            let named = DOCUMENTED.iter().find(|(_, codes)| codes.contains(&code));
            let (about, _) = named.unwrap_or_else(|| panic!("{code}: what is it about?"));
            assert_eq!(denial(code), *about, "{code}");
            left.retain(|one| *one != code);
        }
        assert_eq!(left, Vec::<&str>::new(), "in no list");
    }

    #[test]
    fn every_cloud_has_its_changes_and_no_look_is_one() {
        let check = |kind, expect: &[&str]| assert_eq!(changes(kind).collect::<Vec<_>>(), expect, "{kind}");
        let bind = "AssociateInstancesKeyPairs";
        check(ProviderKind::TencentLighthouse, &["ImportKeyPair", "DeleteKeyPairs", bind, "StartInstances"]);
        check(ProviderKind::TencentCvm, &["ImportKeyPair", "DeleteKeyPairs", bind, "StopInstances", "StartInstances"]);
        let power = ["StartInstances", "RebootInstances"];
        check(ProviderKind::AlibabaEcs, &["ImportKeyPair", "DeleteKeyPairs", "AttachKeyPair", power[0], power[1]]);
        let power = ["BatchStopInstance", "BatchStartInstance"];
        check(ProviderKind::BaiduBcc, &["ImportKeypair", "DeleteKeypair", "AttachKeypair", power[0], power[1]]);
    }
}
