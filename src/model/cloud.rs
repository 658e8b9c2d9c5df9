//! What a cloud shows and allows, as plain values: instances, key pairs, limits. Every room speaks of clouds in these
//! words, the brain too; they must never say how a cloud is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey};

/// Which instances are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those that bear all of these tags, value for value.
    Tags(BTreeMap<String, String>),
    /// All of the account in the region.
    All,
    /// These.
    Ids(Vec<InstanceId>),
    /// Those to which the cloud shows this key pair bound.
    BoundTo(KeyPairId),
}

/// A key pair as the cloud shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The handle for calls.
    pub id: KeyPairId,
    /// Its name.
    pub name: KeyPairName,
    /// Its public key; `None` where the cloud keeps it to itself or shows none that can be read.
    pub public_key: Option<PublicKey>,
    /// How many instances the cloud says are bound to it, where it says so.
    pub bound: Option<usize>,
}

/// An instance as the cloud shows it in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its name, for people.
    pub name: String,
    /// Its power state.
    pub power: Power,
    /// The cloud's own word for the state.
    pub state: String,
    /// The key pairs bound to it.
    pub keys: Vec<KeyPairId>,
    /// What changes with every boot, where the cloud shows such a thing (ECS: StartTime).
    pub boot: Option<String>,
    /// The latest operation, where the cloud shows it (Tencent).
    pub operation: Option<Operation>,
    /// Why it can take no key by this way, where the listing shows it: Windows, a restriction, a scaling group.
    pub unfit: Option<String>,
    /// What the listing shows of it that a stop could hurt.
    pub hazards: BTreeSet<Hazard>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its zone, where shown.
    pub zone: Option<String>,
    /// What its disk was made from, where shown.
    pub image: Option<Image>,
    /// The first address inside the cloud, where one is shown that can be read.
    pub private_address: Option<IpAddr>,
    /// The first address outside, where it has one that can be read. It may change with a stop.
    pub public_address: Option<IpAddr>,
}

/// The power state of an instance, as far as rekeyd cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// On its way from one to the other.
    Changing,
    /// Terminated, or about to be: it will not come back.
    Gone,
    /// Any state in which nothing may be done to it (rescue mode, isolated, a state that we do not know).
    Other,
}

/// What a listing shows of an instance that a stop could hurt. Lighthouse sells none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hazard {
    /// Bought for as long as nobody bids more: CVM `InstanceChargeType` SPOTPAID, ECS `SpotStrategy` other than NoSpot,
    /// BCC `paymentTiming` bidding.
    Spot,
    /// With disks of its host: CVM `LOCAL_*` disks, ECS `LocalStorageAmount` or `LocalStorageCapacity`, BCC
    /// `localDiskSizeInGB`.
    LocalDisk,
    /// Its place on the host is given back while it is stopped: CVM `StopChargingMode`, ECS `StoppedMode`, BCC
    /// `chargeStatus`.
    StopCharging,
}

impl Hazard {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spot, Self::LocalDisk, Self::StopCharging];

    /// Its name, as the config file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::LocalDisk => "local_disk",
            Self::StopCharging => "stop_charging",
        }
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instance's latest operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The request that began it.
    pub request_id: Option<String>,
    /// Whether it is still under way.
    pub running: bool,
    /// Whether it ended in failure.
    pub failed: bool,
}

/// What an instance's disk was made from, as a cloud shows it: it tells a re-installed machine from another one at its
/// address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image's id.
    pub id: String,
    /// The request that made the disk anew, where the latest operation is that (Tencent): the image may be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<String>,
}

impl Image {
    /// Whether a disk seen later, `seen`, was made anew since this one.
    pub fn was_replaced_by(&self, seen: &Self) -> bool {
        self.id != seen.id || (seen.reset.is_some() && seen.reset != self.reset)
    }
}

impl Instance {
    /// Whether an operation is under way on it.
    pub fn is_busy(&self) -> bool {
        self.power == Power::Changing || self.operation.as_ref().is_some_and(|operation| operation.running)
    }
}

/// What a cloud allows and does. No `Default`: a new cloud answers every question.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Which cloud.
    pub provider: ProviderKind,
    /// Instances a bind.
    pub bind_max: usize,
    /// Instances a stop, start or reboot.
    pub power_max: usize,
    /// Instances a page, or ids a look.
    pub page_max: usize,
    /// Key pairs a delete call.
    pub delete_max: usize,
    /// The longest key-pair name.
    pub key_name_max: usize,
    /// RSA sizes that it takes.
    pub key_bits: &'static [u16],
    /// What a bind does to a running machine.
    pub disruption: Disruption,
    /// Whether one bad instance fails the whole call.
    pub whole_batch_fails: bool,
    /// Key pairs a region, where documented.
    pub key_pairs_max: Option<usize>,
    /// Requests a second of each action, where documented; `None` for the others.
    pub requests_per_second: &'static [(&'static str, u32)],
    /// How long a machine is down at most when all goes well, for `plan`.
    pub downtime: Duration,
}

/// What a bind does to a machine, and so what makes the key active (DESIGN, the table of section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disruption {
    /// Lighthouse: shut down by force; nobody promises a start.
    StopsInstance,
    /// CVM: must be stopped first.
    NeedsStopped,
    /// ECS: works only after a boot.
    NeedsReboot,
    /// BCC: the cloud reboots it by itself.
    RebootsInstance,
}
