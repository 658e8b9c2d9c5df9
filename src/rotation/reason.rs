//! Why: an instance goes no further, a journal is held, a person allows something, a journal ended. Each is written into
//! journals, so that no word of it may ever be renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::error::Error;
use crate::model::{HostKey, InstanceId, KeyPairId};

use super::event::Step;
use super::hook::Hook;
use super::step::batch_name;

/// Why an instance was excluded while the rotation ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The cloud refuses this instance.
    Refused(Error),
    /// It was bound by somebody else since we first saw it: never bind over that.
    Drifted {
        /// The keys that nobody expected.
        keys: Vec<KeyPairId>,
    },
    /// It was not seen stopped in time.
    StopMissed,
    /// It was not seen bound and active in time.
    SettleMissed,
    /// It stayed in a state in which it cannot be bound.
    NotReady {
        /// The cloud's word for the state.
        state: String,
    },
    /// A person chose to leave it switched off.
    LeftOff,
    /// It is active by the cloud's word, and no login proved it in time.
    Unproven {
        /// What the last try came to.
        why: String,
    },
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused by the cloud: {error}"),
            Self::Drifted { keys } => {
                let keys: Vec<&str> = keys.iter().map(KeyPairId::as_str).collect();
                write!(f, "bound by somebody else meanwhile ({})", keys.join(", "))
            }
            Self::StopMissed => f.write_str("not seen stopped in time"),
            Self::SettleMissed => f.write_str("not seen bound and active in time"),
            Self::NotReady { state } => write!(f, "stayed in state {state}, in which it cannot be bound"),
            Self::Unproven { why } => write!(f, "not proven by a login in time: {why}"),
            Self::LeftOff => f.write_str("left switched off by an operator's decision"),
        }
    }
}

/// Why a journal is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// An operator said so.
    Operator {
        /// The operator's words.
        note: String,
    },
    /// More instances failed than `failures_max` allows.
    Failures {
        /// So many failed since the last release.
        failed: u32,
        /// So many may.
        allowed: u32,
    },
    /// So many failed one after another, as many as `failures_in_a_row` says.
    FailuresInARow {
        /// So many failed with nobody active, or proven, between them.
        failed: u32,
        /// So many hold.
        limit: u32,
    },
    /// Nobody in the canary batch became active.
    Canary,
    /// A hook failed.
    Hook {
        /// Which.
        hook: Hook,
        /// For this batch.
        batch: u32,
        /// How, and the last line that it printed.
        problem: String,
    },
    /// A step cannot go on.
    Step {
        /// Which.
        step: Step,
        /// Why.
        error: Error,
    },
    /// The cloud shows a pair of our name with another public key.
    KeyMismatch,
    /// Pairs with our mark that no journal in this store knows.
    UnknownPairs {
        /// Their names.
        names: Vec<String>,
    },
    /// Custody does not have the private half, or a copy of it is damaged.
    Custody {
        /// What is wrong.
        problem: String,
    },
    /// Instances that we stopped cannot be started, and nothing else can be done.
    StartRefused {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// Our clock and the cloud's differ too much.
    Clock {
        /// Ours less the cloud's, in seconds.
        difference: i64,
    },
    /// A machine shows another host key than the one that it is known by.
    WrongHost {
        /// Which.
        instance: InstanceId,
        /// The key that it is known by.
        pinned: HostKey,
        /// The key that it shows.
        seen: HostKey,
    },
    /// Machines still take the key that was to be replaced.
    OldKeyTaken {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// A stranger's pair cannot be bound again: it is not shown any more, or not every instance was found on it.
    StrangersPair {
        /// What is wrong.
        problem: String,
    },
    /// The account in the config file is no longer the one of the plan.
    Account {
        /// What differs.
        problem: String,
    },
}

impl HoldReason {
    /// Held as the cloud shows nothing of the rotation: the only hold that a word on who is gone releases. A canary's, say, stays.
    pub fn is_strange(&self) -> bool {
        matches!(self, Self::Step { error, .. } if error.code == STRANGE)
    }

    /// A word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Operator { .. } => "operator",
            Self::Failures { .. } => "failures",
            Self::FailuresInARow { .. } => "failures_in_a_row",
            Self::Canary => "canary",
            Self::Hook { .. } => "hook",
            Self::Step { .. } => "step",
            Self::KeyMismatch => "key_mismatch",
            Self::UnknownPairs { .. } => "unknown_pairs",
            Self::Custody { .. } => "custody",
            Self::StartRefused { .. } => "start_refused",
            Self::Clock { .. } => "clock",
            Self::WrongHost { .. } => "wrong_host",
            Self::OldKeyTaken { .. } => "old_key_taken",
            Self::StrangersPair { .. } => "strangers_pair",
            Self::Account { .. } => "account",
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { note } if note.is_empty() => f.write_str("held by an operator"),
            Self::Operator { note } => write!(f, "held by an operator: {note}"),
            Self::Failures { failed, allowed } => {
                write!(f, "{failed} instances failed, failures_max allows {allowed}")
            }
            Self::FailuresInARow { failed, limit } => write!(
                f,
                "{failed} instances failed one after another, with nobody active (where logins prove keys: proven) between \
                 them; failures_in_a_row is {limit}: a release goes on, and counts anew"
            ),
            Self::Canary => {
                f.write_str("nobody in the canary batch became active (where logins prove keys: was proven)")
            }
            Self::Hook { hook, batch, problem } => {
                write!(f, "{}: the {} hook failed: {problem}", batch_name(*batch), hook.name())
            }
            Self::Step { step, error } => write!(f, "{step} cannot go on: {error}"),
            Self::KeyMismatch => f.write_str("the cloud shows a key pair of our name with another public key"),
            Self::UnknownPairs { names } => write!(
                f,
                "key pairs with our mark that no journal in this store knows: {} (a second daemon, or a restored database?)",
                names.join(", ")
            ),
            Self::Custody { problem } => write!(f, "custody: {problem}"),
            Self::StartRefused { instances } => {
                let ids: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                write!(f, "the cloud refuses to start {}", ids.join(", "))
            }
            Self::Clock { difference } => {
                write!(f, "our clock differs from the cloud's by {difference} s, 60 s is the most")
            }
            Self::WrongHost { instance, pinned, seen } => write!(
                f,
                "{instance} is known by the host key {pinned}, and shows {seen}: re-installed, or another machine at its \
                 address; `rekeyd trust {instance}` takes it"
            ),
            Self::OldKeyTaken { instances } => {
                let ids: Vec<&str> = instances.iter().take(20).map(InstanceId::as_str).collect();
                write!(f, "the old key is still taken by {} (verify.ssh.old_key: refuse)", ids.join(", "))
            }
            Self::StrangersPair { problem } | Self::Account { problem } => f.write_str(problem),
        }
    }
}

/// The code of the error of a step that finds nothing of the journals' account.
pub const STRANGE: &str = "account";

/// What a release allows besides going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    /// This instance may stay switched off: its start is no longer owed.
    LeaveOff(InstanceId),
    /// The private half of a retire journal may be destroyed without a login proof.
    Destroy,
    /// The rotation may end though its key was not delivered everywhere.
    Undelivered,
    /// For [`GONE_ALLOWED`](super::policy::GONE_ALLOWED) what the cloud does not show is gone, though nothing shows that it is
    /// the journals' account that answers.
    Gone,
}

/// How a journal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A rotation: every instance of the plan is active, a straggler, excluded or gone.
    Completed,
    /// A rotation: given up by an operator; what is bound stays bound.
    Abandoned,
    /// A retire journal: the pair is deleted, the private half destroyed.
    Retired,
    /// A retire journal: the pair is deleted, the private half kept for want of a login proof.
    Kept,
    /// A retire journal: a later rotation binds the pair again, so that it is not retired, or not yet.
    Recalled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Abandoned => "abandoned",
            Self::Retired => "retired",
            Self::Kept => "kept",
            Self::Recalled => "recalled",
        })
    }
}
