//! The frozen plan of a journal: what is to be done, decided once, before any call. What an edited config file says
//! later must never change it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{
    AccountName, Duration, FleetName, HostKey, InstanceId, JournalId, KeyPairId, KeyPairName, Pin, ProviderKind,
    PublicKey, Region,
};
use crate::model::{Disruption, Power, Select};

use super::deliver::Delivery;
use super::event::BoundInstance;
use super::pace::Pace;

/// What a journal is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one a journal, and most are rotations
pub enum Plan {
    /// Bind a new key to a fleet.
    Rotate(RotatePlan),
    /// Retire a superseded key pair.
    Retire(RetirePlan),
}

/// Where the fleet lives: frozen with the plan. Credentials are always the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The account's name in the config file.
    pub account: AccountName,
    /// Its cloud.
    pub provider: ProviderKind,
    /// Its endpoint as the file gives it; `None` is the cloud's own.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Region,
}

/// Bind a new key to a fleet, batch by batch. Its instances are rows of their own ([`PlannedInstance`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatePlan {
    /// The fleet.
    pub fleet: FleetName,
    /// Where it lives.
    pub place: Place,
    /// How its instances were found.
    pub select: Select,
    /// The name of the key pair: the idempotency key of everything that follows.
    pub key_name: KeyPairName,
    /// Where that pair's key comes from.
    #[serde(default, skip_serializing_if = "KeySource::is_generate")]
    pub key: KeySource,
    /// RSA modulus length of the new key; without meaning where none is made.
    pub key_bits: u16,
    /// The rotation that this one undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<JournalId>,
    /// The key that it replaces may be in wrong hands: nothing but the promise is waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compromised: bool,
    /// What a bind does to a machine here.
    pub disruption: Disruption,
    /// The policy in numbers.
    pub policy: Policy,
}

/// Where the key of a rotation comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// A new one is made.
    #[default]
    Generate,
    /// An earlier rotation made it, and its private half is in custody. The pair may have been deleted since: then it is
    /// imported again.
    Existing {
        /// Its public half, as that rotation's journal has it.
        public_key: PublicKey,
    },
    /// It was adopted: the journals that knew it are lost, its private half is in custody, and the cloud shows the pair and
    /// who hangs on it. It is neither made nor imported, and nobody is bound to it.
    Adopted {
        /// Its public half, the same in custody and in the cloud.
        public_key: PublicKey,
    },
    /// It is a stranger's: nobody here has its private half. Only machines that were found on it are bound to it again,
    /// and it is never imported, retired or deleted.
    Stranger {
        /// The pair's handle.
        key_pair: KeyPairId,
        /// Its public half, where the cloud showed it when the plan was made: a machine that accepts its offer is proven.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public_key: Option<PublicKey>,
    },
}

impl KeySource {
    fn is_generate(&self) -> bool {
        *self == Self::Generate
    }
    /// Whether the pair is a stranger's.
    pub fn is_strangers(&self) -> bool {
        matches!(self, Self::Stranger { .. })
    }
}

/// What a rotation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A new key for a fleet.
    Rotate,
    /// Back to the pairs that an earlier rotation found.
    Rollback,
    /// The fleet's key for those who missed it, or who came later.
    CatchUp,
    /// What a lost database knew, recorded anew.
    Adopt,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rotate, Self::Rollback, Self::CatchUp, Self::Adopt];

    /// Its name, as tables, logs and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rotate => "rotation",
            Self::Rollback => "rollback",
            Self::CatchUp => "catch-up",
            Self::Adopt => "adoption",
        }
    }
}

impl RotatePlan {
    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        match (&self.undoes, &self.key) {
            (Some(_), _) => Purpose::Rollback,
            (None, KeySource::Generate) => Purpose::Rotate,
            (None, KeySource::Adopted { .. }) => Purpose::Adopt,
            (None, _) => Purpose::CatchUp,
        }
    }
    /// Whether logins, or offers of the public half, can prove the key: a stranger's pair whose public half the cloud
    /// keeps to itself can be proven by nothing but the cloud's word.
    pub fn can_prove(&self) -> bool {
        matches!(self.policy.verify, Verify::Ssh(_))
            && !matches!(self.key, KeySource::Stranger { public_key: None, .. })
    }
}

/// The policy of one rotation, percentages already counted out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// So many instances of the fleet may be down at once because of us; at least 1.
    pub unavailable_max: u32,
    /// So many may fail before the rotation is held.
    pub failures_max: u32,
    /// Waited after the canary batch, after each step of growth, and before retiring.
    pub soak: Duration,
    /// Whether a stop may cut the power.
    pub force_stop: bool,
    /// From a superseded pair's deletion to the destruction of its private half.
    pub grace: Duration,
    /// How a new key is proven.
    #[serde(default)]
    pub verify: Verify,
    /// Where the private half goes besides custody, once the key is proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliver: Vec<Delivery>,
    /// How it paces itself: growth, failures in a row, windows, hooks.
    #[serde(default)]
    pub pace: Box<Pace>,
}

/// How a new key is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one a plan
pub enum Verify {
    /// Not at all: the cloud's word is taken.
    #[default]
    None,
    /// By a login.
    Ssh(SshLogin),
}

/// How machines are logged in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshLogin {
    /// As whom.
    pub user: String,
    /// Where sshd listens.
    pub port: u16,
    /// Which of a machine's addresses is used.
    pub address: AddressFrom,
    /// What becomes of a machine that still takes the key that it had before.
    pub old_key: OldKey,
    /// For a connection, and for each part of a login.
    pub connect_timeout: Duration,
    /// The host that machines are reached through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpHost>,
    /// A machine that runs again, and refuses the new key or is out of reach for so long, has failed.
    pub deadline: Duration,
}

/// The host that machines are reached through. Its private key stays where it is: it is no key of a fleet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JumpHost {
    /// An address, or a name.
    pub host: String,
    /// Where its sshd listens.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The file of the private key that it takes: OpenSSH, without a passphrase. `$CREDENTIALS_DIRECTORY/NAME` is the credential
    /// NAME of systemd, wherever whoever logs in has it.
    pub key_file: PathBuf,
    /// The host key that it must show.
    pub host_key: HostKey,
}

/// Which of a machine's addresses is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressFrom {
    /// Its first private one.
    Private,
    /// Its first public one.
    Public,
    /// The value of this tag: an address or a name.
    Tag(String),
}

/// What becomes of a machine that still takes the key that it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldKey {
    /// The rotation is held: a key that is not refused is not replaced.
    Refuse,
    /// It is written down.
    Warn,
}

/// Retire a superseded key pair of ours: delete the pair, wait out grace, destroy the private half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetirePlan {
    /// The fleet whose pair it was.
    pub fleet: FleetName,
    /// Where it lives.
    pub place: Place,
    /// The pair's name.
    pub key_name: KeyPairName,
    /// The rotation that bound it.
    pub rotation: JournalId,
    /// Waited before the deletion.
    pub soak: Duration,
    /// From the deletion to the destruction of the private half.
    pub grace: Duration,
    /// Whether the pair's successor was proven by logins: then its private half may be destroyed.
    #[serde(default)]
    pub proven: bool,
}

impl Plan {
    /// The fleet.
    pub fn fleet(&self) -> &FleetName {
        match self {
            Self::Rotate(plan) => &plan.fleet,
            Self::Retire(plan) => &plan.fleet,
        }
    }
    /// Where it lives.
    pub fn place(&self) -> &Place {
        match self {
            Self::Rotate(plan) => &plan.place,
            Self::Retire(plan) => &plan.place,
        }
    }
    /// The key pair that it is about.
    pub fn key_name(&self) -> &KeyPairName {
        match self {
            Self::Rotate(plan) => &plan.key_name,
            Self::Retire(plan) => &plan.key_name,
        }
    }
}

/// One instance of a rotation's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its name when the plan was made.
    pub name: String,
    /// Its power when the plan was made.
    pub power: Power,
    /// The key pairs bound to it when the plan was made.
    pub keys: Vec<KeyPairId>,
    /// Its batch, or why it is in none.
    pub part: Part,
    /// How it was known when the plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What earlier journals know of it: it hangs on the plan's key pair already, and is not disturbed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// An instance that an earlier rotation bound to the pair. It begins from there: it is neither bound nor rebooted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The key pairs that it had before that.
    pub before: Vec<KeyPairId>,
    /// As the cloud first showed it bound to the pair.
    pub bound: BoundInstance,
    /// It was seen active since then; only its proof is missing.
    pub active: bool,
}

/// An instance's part in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// In this batch; 0 is the canary.
    Batch(u32),
    /// Excluded before any call, with the reason.
    Excluded(String),
}
