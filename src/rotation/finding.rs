//! What was found out beforehand, in words that `plan --json` and `check --json` have for good. It must never judge.

use std::fmt;

use serde::Serialize;

use crate::model::InstanceId;

/// What a finding comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// To be known; a rotation begins all the same.
    Warning,
    /// No rotation begins.
    Refusal,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Whether the cloud answers.
    Cloud,
    /// Whether it takes the access key.
    Credentials,
    /// Our clock and the cloud's.
    Clock,
    /// Places for key pairs in the account and region.
    KeyPairs,
    /// What the access key may do.
    Permissions,
    /// Calls that the cloud says it would refuse.
    Denials,
    /// Machines that a stop could hurt.
    Hazards,
    /// Machines that lose their password login.
    Passwords,
    /// Whether the canary proves anything.
    Canary,
    /// The key that opens the jump host.
    JumpKey,
    /// Where the key is delivered to.
    Deliver,
    /// Whom the fleets' selections find.
    Tags,
}

impl Level {
    /// Its name, as `plan --json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Refusal => "refusal",
        }
    }
}

impl Rule {
    /// Its name, as `plan --json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::KeyPairs => "key_pairs",
            Self::Permissions => "permissions",
            Self::Denials => "denials",
            Self::Hazards => "hazards",
            Self::Passwords => "passwords",
            Self::Canary => "canary",
            Self::JumpKey => "jump_key",
            Self::Deliver => "deliver",
            Self::Tags => "tags",
        }
    }
}

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it comes to.
    pub level: Level,
    /// What it is about.
    pub rule: Rule,
    /// What was found.
    pub says: String,
    /// What an operator can do about it; `None` where nothing is to be done.
    pub way_on: Option<String>,
    /// Whom it is about, where it is about some.
    pub instances: Vec<InstanceId>,
}

impl Finding {
    /// A finding about nobody in particular.
    pub fn new(level: Level, rule: Rule, says: impl Into<String>) -> Self {
        Self { level, rule, says: says.into(), way_on: None, instances: Vec::new() }
    }
    /// The same, with a way on.
    pub fn go(mut self, way_on: impl Into<String>) -> Self {
        self.way_on = Some(way_on.into());
        self
    }
    pub(super) fn about(mut self, instances: &[InstanceId]) -> Self {
        self.instances = instances.to_vec();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.says)?;
        match &self.way_on {
            Some(way_on) => write!(f, "; {way_on}"),
            None => Ok(()),
        }
    }
}
