//! What a journal holds. Events are past participles: each was true when it was written, and none is ever changed.
//! Nothing here may be renamed or taken away: journals of every release must fold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Power;
use crate::model::error::Error;
use crate::model::{Fingerprint, HostKey, Image, InstanceId, JournalId, KeyPairId, Pin, PublicKey, Timestamp};

use super::hook::{Hook, HookFailure};
use super::reason::{Allow, Exclusion, HoldReason, Outcome};

pub use super::step::{Call, Step, batch_name};

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 1, 2, 3 … without a gap.
    pub seq: u64,
    /// When it was written; never earlier than the entry before it.
    pub at: Timestamp,
    /// Who wrote it.
    pub by: Author,
    /// What happened.
    pub event: Event,
}

/// Who wrote an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// An engine, by the id of its run.
    Engine(String),
    /// A person, by the name of the account that gave the command.
    Operator(String),
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(run) => write!(f, "engine {run}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// An instance as the look right before a call found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which.
    pub instance: InstanceId,
    /// Its power then.
    pub power: Power,
    /// The key pairs bound to it then.
    pub keys: Vec<KeyPairId>,
    /// Its boot marker then, where the cloud has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// An instance that the cloud shows bound to our pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundInstance {
    /// Which.
    pub instance: InstanceId,
    /// Its power in the look that first showed the pair bound.
    pub power: Power,
    /// Its boot marker in that look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// An instance that will not be rotated any further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcludedInstance {
    /// Which.
    pub instance: InstanceId,
    /// Why.
    pub reason: Exclusion,
}

/// The host key that an instance showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedHost {
    /// Which.
    pub instance: InstanceId,
    /// Its key, and what its disk was made from then; `None`: it could not be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// It was known by another host key, and the cloud shows that its disk was made anew since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reimaged: bool,
}

/// A login that succeeded. When it did is its entry's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Where.
    pub instance: InstanceId,
    /// With this key.
    pub key: Fingerprint,
    /// The host key that was shown, and proven.
    pub host_key: HostKey,
    /// What its disk was made from then, where the cloud shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The server's greeting.
    pub server: String,
    /// Whether it still takes what it had before.
    pub old_key: OldKeyFound,
}

/// Whether a machine still takes the key that it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldKeyFound {
    /// It had none whose public half the journals know.
    NotKnown,
    /// It was offered, and refused.
    Refused,
    /// It would be taken still.
    Taken,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The journal began with this plan. Always the first entry.
    Planned {
        /// SHA-256 of the plan and its instances, in hex.
        digest: String,
    },
    /// A call is about to be made for exactly these instances. Intent comes before effect: from here on it may have
    /// happened.
    Started {
        /// Of which step.
        step: Step,
        /// Which call.
        call: Call,
        /// The instances, as the look less than 10 s ago found them; empty for calls without instances.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        found: Vec<Found>,
    },
    /// The cloud took the call. What it does shows later.
    Accepted {
        /// Of which step.
        step: Step,
        /// For these instances.
        instances: Vec<InstanceId>,
        /// The request's id, which the latest operation will show.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
    },
    /// A step did not get on. What its error says of the effect is all that is known.
    Failed {
        /// Which.
        step: Step,
        /// For these instances; empty: the step as a whole.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        instances: Vec<InstanceId>,
        /// Why.
        error: Error,
        /// Not to be tried again before this.
        retry_at: Timestamp,
    },
    /// The private half is durable in every copy of custody.
    KeyStored {
        /// The public half.
        public_key: PublicKey,
        /// Its fingerprint.
        fingerprint: Fingerprint,
    },
    /// The cloud shows the pair with our public key.
    KeyImported {
        /// Its handle.
        key_pair: KeyPairId,
    },
    /// Seen not running.
    Down {
        /// These are stopped.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stopped: Vec<InstanceId>,
        /// These are on their way.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changing: Vec<InstanceId>,
    },
    /// The cloud shows our pair bound to these, and no operation under way.
    Bound {
        /// Which.
        instances: Vec<BoundInstance>,
    },
    /// These run and accept the key, as far as the cloud keeps its word.
    Activated {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// The host keys that these showed before they were disturbed; none: they could not be reached then.
    Pinned {
        /// Which and what.
        hosts: Vec<PinnedHost>,
    },
    /// A login with the new key proved that these accept it.
    Verified {
        /// Which, and how.
        proofs: Vec<Proof>,
    },
    /// Active by the cloud's word, never reached for a login in time: not proven, and no failure.
    Unproven {
        /// Which.
        instances: Vec<InstanceId>,
        /// What the last try came to.
        why: String,
    },
    /// An operator trusts the host key that this one showed.
    Trusted {
        /// Which.
        instance: InstanceId,
        /// The key.
        host_key: HostKey,
        /// The operator's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// A hook is about to be run for a batch: from here on it may have done something.
    HookStarted {
        /// Which.
        hook: Hook,
        /// For this batch.
        batch: u32,
    },
    /// A hook came to its end.
    HookEnded {
        /// Which.
        hook: Hook,
        /// For this batch.
        batch: u32,
        /// What went wrong, if anything did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<HookFailure>,
    },
    /// The private half is where this delivery of the plan wants it.
    Delivered {
        /// Its number in the plan, from 0.
        delivery: u32,
    },
    /// Seen running as they are: their start is no longer owed.
    Running {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// Nobody drove it for a while, and something was under way: what was not seen meanwhile is not too late for that.
    Resumed {
        /// Since when nobody did.
        away_since: Timestamp,
    },
    /// These go no further.
    Excluded {
        /// Which and why.
        instances: Vec<ExcludedInstance>,
    },
    /// The cloud has them no more.
    Gone {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// Held: no new prepare, bind or reboot.
    Held {
        /// Why.
        reason: HoldReason,
    },
    /// An operator lets it go on. The budget that tripped is raised.
    Released {
        /// The operator's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
        /// What is allowed besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allow: Option<Allow>,
    },
    /// An operator gives it up: it ends once nothing is in flight and no start is owed.
    AbandonRequested {
        /// The operator's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// A person replaces a key that may be in wrong hands: what is left of soak and grace is over.
    GraceWaived {
        /// Because of which rotation.
        rotation: JournalId,
    },
    /// The pair was seen gone, and nobody of its journals on it: from here grace counts.
    KeyPairDeleted,
    /// The private half is in no copy of custody any more.
    PrivateKeyDestroyed,
    /// The last entry.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

impl Event {
    /// Whether an operator, and not the engine, writes such an entry.
    pub fn is_operators(&self) -> bool {
        let orders = matches!(self, Self::Released { .. } | Self::AbandonRequested { .. } | Self::Trusted { .. });
        orders
            || matches!(self, Self::GraceWaived { .. })
            || matches!(self, Self::Held { reason: HoldReason::Operator { .. } })
    }
    /// The instances that it names as members of the plan's batches.
    pub(super) fn named(&self) -> Box<dyn Iterator<Item = &InstanceId> + '_> {
        match self {
            Self::Started { found, .. } => Box::new(found.iter().map(|found| &found.instance)),
            Self::Pinned { hosts } => Box::new(hosts.iter().map(|host| &host.instance)),
            Self::Verified { proofs } => Box::new(proofs.iter().map(|proof| &proof.instance)),
            Self::Trusted { instance, .. } => Box::new(std::iter::once(instance)),
            Self::Accepted { instances, .. }
            | Self::Failed { instances, .. }
            | Self::Activated { instances }
            | Self::Running { instances }
            | Self::Unproven { instances, .. }
            | Self::Gone { instances } => Box::new(instances.iter()),
            Self::Down { stopped, changing } => Box::new(stopped.iter().chain(changing)),
            Self::Bound { instances } => Box::new(instances.iter().map(|bound| &bound.instance)),
            Self::Excluded { instances } => Box::new(instances.iter().map(|excluded| &excluded.instance)),
            Self::Released { allow: Some(Allow::LeaveOff(id)), .. } => Box::new(std::iter::once(id)),
            _ => Box::new(std::iter::empty()),
        }
    }
    /// Its name, as logs and tables have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Started { .. } => "started",
            Self::Accepted { .. } => "accepted",
            Self::Failed { .. } => "failed",
            Self::KeyStored { .. } => "key_stored",
            Self::KeyImported { .. } => "key_imported",
            Self::Down { .. } => "down",
            Self::Bound { .. } => "bound",
            Self::Activated { .. } => "activated",
            Self::Pinned { .. } => "pinned",
            Self::Verified { .. } => "verified",
            Self::Unproven { .. } => "unproven",
            Self::Trusted { .. } => "trusted",
            Self::HookStarted { .. } => "hook_started",
            Self::HookEnded { .. } => "hook_ended",
            Self::Delivered { .. } => "delivered",
            Self::Running { .. } => "running",
            Self::Resumed { .. } => "resumed",
            Self::Excluded { .. } => "excluded",
            Self::Gone { .. } => "gone",
            Self::Held { .. } => "held",
            Self::Released { .. } => "released",
            Self::AbandonRequested { .. } => "abandon_requested",
            Self::GraceWaived { .. } => "grace_waived",
            Self::KeyPairDeleted => "key_pair_deleted",
            Self::PrivateKeyDestroyed => "private_key_destroyed",
            Self::Ended { .. } => "ended",
        }
    }
}
