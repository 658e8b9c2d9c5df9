//! The clouds behind one small trait. A provider is one cloud, one account, one region.
//! It reports what the cloud says and does what it is told; it must never decide what a rotation does next.

mod alibaba;
mod baidu;
mod credentials;
mod grant;
pub mod http;
mod keyring;
mod open;
mod role;
mod tencent;
mod witness;

use async_trait::async_trait;

pub use crate::model::error;
pub use crate::model::{Disruption, Hazard, Instance, KeyPair, Limits, Operation, Power, Select};
use crate::model::{InstanceId, KeyPairId, KeyPairName, PublicKey, Timestamp};
pub use credentials::Credentials;
pub use error::{Blame, Effect, Error, Kind};
pub use grant::{Denial, changes, denial, grant, needs, way_on};
pub use http::door::NO_CREDENTIALS;
pub use keyring::{Keyring, ReadCredentials};
pub use open::{Api, OpenError, Settings, actions, limits, open, open_heard};
pub use role::Role;
pub use witness::{Deaf, Heard, Witness};

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

    /// Those of these instances that the cloud itself says it would refuse a call of a rotation, each with the refusal. What
    /// may pass (a state, an operation under way) is left out. Nobody where the cloud cannot be asked: all but Lighthouse.
    async fn denied(&self, instances: &[InstanceId]) -> Result<Vec<(InstanceId, Error)>>;

    /// Asks the cloud whether it would take this change of power now, without its being made: the name of the action that
    /// it would take, or the error that the call would bring. `None` where the cloud has no dry run: all but ECS.
    async fn rehearse(&self, change: PowerChange, instances: &[InstanceId]) -> Result<Option<&'static str>>;

    /// How many key pairs the account may hold in the region, by the cloud's own count; `None` where it cannot be asked
    /// (all but Lighthouse), and [`Limits::key_pairs_max`] is what its pages say.
    async fn key_pairs_max(&self) -> Result<Option<usize>>;

    /// Our clock less the cloud's, by the `Date` header of the newest answer; `None` before the first one.
    fn clock_difference(&self) -> Option<jiff::SignedDuration>;
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
