//! Tencent Cloud: Lighthouse and CVM, two APIs of one shape. What differs is in a [`Face`].
//! It must never decide what a rotation does next.

mod client;
mod cvm;
mod error;
mod foretell;
mod legacy;
mod lighthouse;
mod sign;
mod sign_v1;
mod wire;

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::model::{InstanceId, KeyPairId, KeyPairName, PublicKey, Timestamp};
use crate::provider::http::Intent;
use crate::provider::http::door::{refused_here, unreadable};
use crate::provider::open::{Api, Parts};
use crate::provider::{Accepted, Error, Instance, KeyPair, Limits, PowerChange, Provider, Result, Select};
use client::{Answer, Client};
pub(super) use legacy::ENDPOINT as LEGACY_ENDPOINT;
use legacy::Legacy;
use sign_v1::Mac;
use wire::Imported;

/// Lighthouse: what it is called and what it allows.
pub(super) static LIGHTHOUSE: &Face = &lighthouse::FACE;

/// CVM, by this API: what it is called and what it allows.
pub(super) fn cvm(api: Api) -> &'static Face {
    match api {
        Api::V3 => &cvm::FACE,
        Api::Legacy => &cvm::LEGACY,
        Api::LegacySha1 => &cvm::LEGACY_SHA1,
    }
}

/// The actions of either API that are called, for the config's `rates`.
pub(super) const ACTIONS: &[&str] = &[
    "DescribeInstances",
    "DescribeKeyPairs",
    "ImportKeyPair",
    "DeleteKeyPairs",
    "AssociateInstancesKeyPairs",
    "DisassociateInstancesKeyPairs",
    "StopInstances",
    "StartInstances",
    "RebootInstances",
];

/// The same, with what only Lighthouse can be asked.
pub(super) const LIGHTHOUSE_ACTIONS: &[&str] = &[
    "DescribeInstances",
    "DescribeInstancesDeniedActions",
    "DescribeGeneralResourceQuotas",
    "DescribeKeyPairs",
    "ImportKeyPair",
    "DeleteKeyPairs",
    "AssociateInstancesKeyPairs",
    "DisassociateInstancesKeyPairs",
    "StopInstances",
    "StartInstances",
    "RebootInstances",
];

/// What tells the two APIs apart.
pub(super) struct Face {
    /// The API's name in signatures (FACTS 2.3, step 3), whatever the host is called.
    service: &'static str,
    version: &'static str,
    pub(super) limits: &'static Limits,
    import: fn(&KeyPairName, &PublicKey) -> Value,
    /// The parameters of a stop, by force or not.
    stop: fn(bool) -> Value,
    /// Whether what a stop could hurt is read from a listing.
    hazards: bool,
    /// Whether the cloud tells beforehand which calls an instance would be refused, and how many key pairs may be.
    foretells: bool,
    /// By which signature the legacy endpoint is spoken to, if it is.
    legacy: Option<Mac>,
}

/// One account in one region.
pub(super) struct Tencent {
    client: Client,
    face: &'static Face,
}

impl Tencent {
    pub(super) fn new(face: &'static Face, parts: Parts) -> Self {
        let door = parts.door.once_more_on(error::EXPIRED);
        let parts = Parts { door, ..parts };
        let legacy = face.legacy.map(Legacy::new);
        Self { client: Client { parts, service: face.service, version: face.version, legacy }, face }
    }

    /// Calls an action that changes instances.
    async fn change(
        &self,
        action: &'static str,
        mut body: Value,
        instances: &[InstanceId],
        max: usize,
        before: Timestamp,
    ) -> Result<Accepted> {
        // The cloud refuses a list that names one twice.
        let ids: BTreeSet<&str> = instances.iter().map(InstanceId::as_str).collect();
        if ids.is_empty() || ids.len() > max {
            return Err(refused_here(action, format!("{} instances in a call of 1 to {max}", ids.len())));
        }
        body["InstanceIds"] = json!(ids);
        let answer: Answer<IgnoredAny> = self.client.call(action, Intent::Change { before }, &body).await?;
        Ok(Accepted { request_id: answer.request_id, refused: Vec::new() })
    }
}

#[async_trait]
impl Provider for Tencent {
    fn limits(&self) -> &Limits {
        self.face.limits
    }

    async fn find_key_pair(&self, name: &KeyPairName) -> Result<Option<KeyPair>> {
        // The filter is fuzzy (Lighthouse) or of unknown sharpness (CVM): it narrows, the match is ours.
        let pairs = self.client.key_pairs(Some(name.as_str())).await?;
        Ok(pairs.into_iter().map(wire::RawKeyPair::read).find(|pair| pair.name == *name))
    }

    async fn key_pairs(&self, prefix: &str) -> Result<Vec<KeyPair>> {
        // Unfiltered: a filter that happened to be exact would find no prefix.
        let pairs = self.client.key_pairs(None).await?;
        Ok(pairs
            .into_iter()
            .map(wire::RawKeyPair::read)
            .filter(|pair| pair.name.as_str().starts_with(prefix))
            .collect())
    }

    async fn import_key_pair(&self, name: &KeyPairName, key: &PublicKey, before: Timestamp) -> Result<KeyPairId> {
        let action = "ImportKeyPair";
        let intent = Intent::Change { before };
        let answer: Answer<Imported> = self.client.call(action, intent, &(self.face.import)(name, key)).await?;
        if answer.value.key_id.is_empty() {
            return Err(unreadable(action, "an empty KeyId"));
        }
        Ok(KeyPairId::new(answer.value.key_id))
    }

    async fn delete_key_pair(&self, key_pair: &KeyPairId, before: Timestamp) -> Result<()> {
        // One at a time: a refusal for one pair of a list would leave the fate of the others open.
        let body = json!({"KeyIds": [key_pair.as_str()]});
        let _: Answer<IgnoredAny> = self.client.call("DeleteKeyPairs", Intent::Change { before }, &body).await?;
        Ok(())
    }

    async fn instances(&self, select: &Select) -> Result<Vec<Instance>> {
        let (raw, keep): (_, Box<dyn Fn(&Instance) -> bool + Send>) = match select {
            Select::All => (self.client.instances_by_filter(&[]).await?, Box::new(|_| true)),
            Select::Ids(ids) => (self.client.instances_by_id(ids).await?, Box::new(|_| true)),
            Select::BoundTo(key_pair) => {
                let ids = self.client.associated(key_pair).await?;
                // The pair's list may be behind: what an instance itself shows counts.
                (self.client.instances_by_id(&ids).await?, Box::new(|seen| seen.keys.contains(key_pair)))
            }
            Select::Tags(tags) => {
                let filters: Vec<_> = tags.iter().map(|(key, value)| (format!("tag:{key}"), value.clone())).collect();
                let raw = match self.client.instances_by_filter(&filters).await {
                    // Nobody bears a tag whose key the account does not know (FACTS 6).
                    Err(error) if error.code == "InvalidParameterValue.TagKeyNotFound" => Vec::new(),
                    other => other?,
                };
                (raw, Box::new(|seen| tags.iter().all(|(key, value)| seen.tags.get(key) == Some(value))))
            }
        };
        let read = |raw: wire::RawInstance| {
            let seen = raw.read();
            let hazards = if self.face.hazards { seen.hazards } else { BTreeSet::new() };
            Instance { hazards, ..seen }
        };
        Ok(raw.into_iter().map(read).filter(|seen| keep(seen)).collect())
    }

    async fn bind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        // Neither AssociateType (Lighthouse) nor ForceStop (CVM) is sent. AssociateType=ONLINE binds through an agent in
        // the guest, is known to the Chinese site only, since 2026-05-26, and other sites answer UnknownParameter;
        // what is omitted is OFFLINE. ForceStop cuts the power without asking: the engine stops first.
        let body = json!({"KeyIds": [key_pair.as_str()]});
        self.change("AssociateInstancesKeyPairs", body, instances, self.face.limits.bind_max, before).await
    }

    async fn unbind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        let body = json!({"KeyIds": [key_pair.as_str()]});
        self.change("DisassociateInstancesKeyPairs", body, instances, self.face.limits.bind_max, before).await
    }

    async fn power(&self, change: PowerChange, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        let (action, body) = match change {
            PowerChange::Stop { force } => ("StopInstances", (self.face.stop)(force)),
            PowerChange::Start => ("StartInstances", json!({})),
            // The cloud's default type asks the guest first on both APIs.
            PowerChange::Reboot => ("RebootInstances", json!({})),
        };
        self.change(action, body, instances, self.face.limits.power_max, before).await
    }

    async fn denied(&self, instances: &[InstanceId]) -> Result<Vec<(InstanceId, Error)>> {
        match self.face.foretells {
            true => foretell::denied(&self.client, instances).await,
            false => Ok(Vec::new()),
        }
    }

    async fn rehearse(&self, _: PowerChange, _: &[InstanceId]) -> Result<Option<&'static str>> {
        Ok(None)
    }

    async fn key_pairs_max(&self) -> Result<Option<usize>> {
        match self.face.foretells {
            true => foretell::key_pairs_max(&self.client).await.map(Some),
            false => Ok(None),
        }
    }

    fn clock_difference(&self) -> Option<jiff::SignedDuration> {
        self.client.parts.door.clock_difference()
    }
}

#[cfg(test)]
mod tests;
