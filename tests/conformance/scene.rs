//! Every method of the trait as a value, with a scene in which it would go well: what the cases on faults run over.

use std::sync::Arc;

use rekeyd::model::{InstanceId, KeyPairId, KeyPairName, PublicKey, Timestamp};
use rekeyd::provider::{Error, PowerChange, Provider, Select};
use rekeyd::sim::Power;

use crate::rig::{Rig, TAG, by_tags};

/// Every way to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Find,
    Pairs,
    Tags,
    All,
    Ids,
    BoundTo,
}

/// Every way to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Import,
    Delete,
    Bind,
    Unbind,
    Stop,
    Start,
    Reboot,
}

impl Read {
    pub const EACH: [Self; 6] = [Self::Find, Self::Pairs, Self::Tags, Self::All, Self::Ids, Self::BoundTo];
}

impl Change {
    pub const EACH: [Self; 7] =
        [Self::Import, Self::Delete, Self::Bind, Self::Unbind, Self::Stop, Self::Start, Self::Reboot];
}

/// Machines and pairs with which each method would go well once.
pub struct Scene {
    name: KeyPairName,
    key: PublicKey,
    spare: KeyPairId,
    fresh: KeyPairId,
    old: KeyPairId,
    old_name: KeyPairName,
    stopped: InstanceId,
    running: InstanceId,
    provider: Arc<dyn Provider>,
}

impl Scene {
    pub fn new(rig: &Rig) -> Self {
        let old_name = rig.name();
        let old = rig.pair(old_name.as_str());
        Self {
            name: rig.name(),
            key: rig.public_key(),
            spare: rig.pair(rig.name().as_str()),
            fresh: rig.pair(rig.name().as_str()),
            stopped: rig.machine_of(Power::Stopped, &[&old]),
            running: rig.machine_of(Power::Running, &[&old]),
            old,
            old_name,
            provider: rig.provider.clone(),
        }
    }

    /// The same scene seen by another client.
    pub fn seen_by(self, provider: Arc<dyn Provider>) -> Self {
        Self { provider, ..self }
    }

    /// Looks, and says how much was found.
    pub async fn read(&self, read: Read) -> Result<usize, Error> {
        let instances = |select: Select| async move { self.provider.instances(&select).await.map(|all| all.len()) };
        match read {
            Read::Find => self.provider.find_key_pair(&self.old_name).await.map(|found| usize::from(found.is_some())),
            Read::Pairs => self.provider.key_pairs("rksim_").await.map(|all| all.len()),
            Read::Tags => instances(by_tags(&[TAG])).await,
            Read::All => instances(Select::All).await,
            Read::Ids => instances(Select::Ids(vec![self.stopped.clone()])).await,
            Read::BoundTo => instances(Select::BoundTo(self.old.clone())).await,
        }
    }

    pub async fn change(&self, change: Change, before: Timestamp) -> Result<(), Error> {
        let provider = &self.provider;
        let (stopped, running) = (std::slice::from_ref(&self.stopped), std::slice::from_ref(&self.running));
        let soft = PowerChange::Stop { force: false };
        let accepted = match change {
            Change::Import => return provider.import_key_pair(&self.name, &self.key, before).await.map(|_| ()),
            Change::Delete => return provider.delete_key_pair(&self.spare, before).await,
            Change::Bind => provider.bind(&self.fresh, stopped, before).await?,
            Change::Unbind => provider.unbind(&self.old, stopped, before).await?,
            Change::Stop => provider.power(soft, running, before).await?,
            Change::Start => provider.power(PowerChange::Start, stopped, before).await?,
            Change::Reboot => provider.power(PowerChange::Reboot, running, before).await?,
        };
        // One machine a call: what is said of it is said of the call.
        accepted.refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}
