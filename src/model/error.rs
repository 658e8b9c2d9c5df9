//! A provider's error answers three questions: may it help to try again (kind), may it have happened (effect), and who
//! is to blame. It must never carry a secret: what goes in is already redacted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a provider says when a call did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{action}: {code}: {message}{}", self.request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default())]
pub struct Error {
    /// May it help to try again?
    pub kind: Kind,
    /// May it have happened?
    pub effect: Effect,
    /// Who is to blame?
    pub blame: Blame,
    /// The cloud's action (`AssociateInstancesKeyPairs`).
    pub action: String,
    /// The cloud's error code, or our word where there is none (`timeout`, `unreadable`).
    pub code: String,
    /// The cloud's message, shortened and redacted.
    pub message: String,
    /// The cloud's request id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// How long the cloud asked us to wait.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<Duration>,
}

/// May it help to try again?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Too many requests: later.
    Throttled,
    /// The cloud or the way to it is out of order: later.
    Unavailable,
    /// Something else is being done to the instance: later.
    Busy,
    /// The goal seems reached already: look, adopt.
    Already,
    /// The instance is in the wrong state: put it right, bounded.
    InvalidState,
    /// It does not exist.
    NotFound,
    /// The name is taken by something else.
    Conflict,
    /// The pair is still bound.
    InUse,
    /// A quota is full.
    Quota,
    /// The credentials are refused.
    Denied,
    /// The request is wrong: no repetition helps.
    Invalid,
    /// This instance can never take it.
    Unsupported,
    /// The answer is rubbish.
    Protocol,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Throttled,
        Self::Unavailable,
        Self::Busy,
        Self::Already,
        Self::InvalidState,
        Self::NotFound,
        Self::Conflict,
        Self::InUse,
        Self::Quota,
        Self::Denied,
        Self::Invalid,
        Self::Unsupported,
        Self::Protocol,
    ];

    /// Its name, as journals and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Already => "already",
            Self::InvalidState => "invalid_state",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::InUse => "in_use",
            Self::Quota => "quota",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
        }
    }
}

/// May it have happened?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The cloud is known not to have acted.
    NotDone,
    /// Nobody knows: look.
    Unknown,
}

/// Who is to blame?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// One instance of the call.
    Instance,
    /// The call as a whole.
    Request,
    /// The account: credentials, quota.
    Account,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_journals_have_it_and_none_is_left_out() {
        let all = std::collections::BTreeSet::from(Kind::ALL);
        assert_eq!(all.len(), Kind::Protocol as usize + 1, "the last one counts them");
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
