//! The clouds behind one small trait. A provider is one cloud, one account, one region.
//! It reports what the cloud says and does what it is told; it must never decide what a rotation does next.

mod alibaba;
mod baidu;
mod credentials;
pub mod error;
pub mod http;
mod open;
mod tencent;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey, Timestamp};
pub use credentials::Credentials;
pub use error::{Blame, Effect, Error, Kind};
pub use open::{OpenError, Settings, actions, limits, open};

/// What a provider answers.
pub type Result<T> = std::result::Result<T, Error>;

/// One cloud, one account, one region. Contract for every implementation:
///
/// - A read is repeated by the provider itself while that may help, 30 s at most. A call that changes the cloud is
///   repeated only when it is known not to have been done, and never *sent* after its `before`: then it answers
///   [`Kind::Throttled`] with [`Effect::NotDone`].
/// - An error's [`Effect`] is `NotDone` only where the cloud is known not to have acted.
/// - Every answer is checked: rubbish is [`Kind::Protocol`], never a panic.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What this cloud allows and does.
    fn limits(&self) -> &Limits;

    /// The key pair of exactly this name, if there is one.
    async fn find_key_pair(&self, name: &KeyPairName) -> Result<Option<KeyPair>>;

    /// Every key pair whose name begins with `prefix`, to the last page.
    async fn key_pairs(&self, prefix: &str) -> Result<Vec<KeyPair>>;

    /// Imports a public key. A name or key that exists already is [`Kind::Already`]: look.
    async fn import_key_pair(&self, name: &KeyPairName, key: &PublicKey, before: Timestamp) -> Result<KeyPairId>;

    /// Deletes a key pair. Success may hide an undeleted pair (Tencent): look. Bound: [`Kind::InUse`].
    async fn delete_key_pair(&self, key_pair: &KeyPairId, before: Timestamp) -> Result<()>;

    /// The instances of a selection, to the last page, each once. Of [`Select::Ids`] those that the cloud does not
    /// know are missing from the answer. The tag match is decided here, on the answer.
    async fn instances(&self, select: &Select) -> Result<Vec<Instance>>;

    /// Binds one key pair to at most `bind_max` instances, in place of what they have.
    async fn bind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted>;

    /// Takes one key pair off at most `bind_max` instances.
    async fn unbind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted>;

    /// Stops, starts or reboots at most `power_max` instances.
    async fn power(&self, change: PowerChange, instances: &[InstanceId], before: Timestamp) -> Result<Accepted>;

    /// Our clock less the cloud's, by the `Date` header of the newest answer; `None` before the first one.
    fn clock_difference(&self) -> Option<jiff::SignedDuration>;
}

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

/// A change of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PowerChange {
    /// Stop; `force` cuts the power where a soft stop would wait for the guest. Billing goes on (KeepCharging).
    Stop {
        /// Cut the power.
        force: bool,
    },
    /// Start.
    Start,
    /// Reboot, softly.
    Reboot,
}

/// What the cloud said when it took a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The call's request id: on Tencent the id that `LatestOperationRequestId` will show.
    pub request_id: Option<String>,
    /// Instances that the same answer refused, one by one (Alibaba, Baidu). All others were taken.
    pub refused: Vec<(InstanceId, Error)>,
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
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its zone, where shown.
    pub zone: Option<String>,
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
