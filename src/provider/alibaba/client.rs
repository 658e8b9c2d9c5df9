//! The client of ECS: rekeyd's questions and orders as calls of the API, and the answers as rekeyd's words.
//! It must never repeat a change by itself (the door does, where that is safe), nor stop a machine in a way that ends
//! its billing: its address and its place on the host could be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::parameters::{Parameters, numbered, parameter, power_call, tag_parameters};
use super::wire::{self, Changed, Page};
use super::{error, sign};
use crate::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey};
use crate::provider::http::answer::{Dialect, Unreadable, batch};
use crate::provider::http::{Intent, Request, Response, door};
use crate::provider::open::Parts;
use crate::provider::{
    Accepted, Credentials, Disruption, Error, Instance, KeyPair, Kind, Limits, PowerChange, Provider, Result, Select,
};

/// What ECS allows and does. Sources: alibabacloud_ecs20140526 7.11.8 (batches, pages), help page ImportKeyPair (names,
/// 500 pairs a region; key sizes are not stated, all RSA is taken). No request rates are documented for these
/// actions: they are the account's quota. The downtime is our own figure for a reboot.
pub static LIMITS: Limits = Limits {
    provider: ProviderKind::AlibabaEcs,
    bind_max: 50,
    power_max: 100,
    page_max: 100,
    delete_max: 100,
    key_name_max: 128,
    key_bits: &[2048, 3072, 4096],
    disruption: Disruption::NeedsReboot,
    whole_batch_fails: false,
    key_pairs_max: Some(500),
    requests_per_second: &[],
    downtime: Duration::from_secs(180),
};

/// Every action that this client calls.
pub const ACTIONS: &[&str] = &[
    "ListTagResources",
    "DescribeInstances",
    "DescribeKeyPairs",
    "ImportKeyPair",
    "DeleteKeyPairs",
    "AttachKeyPair",
    "DetachKeyPair",
    "StopInstances",
    "StartInstances",
    "RebootInstances",
];

const VERSION: &str = "2014-05-26";
/// How ECS tells that something went wrong.
const DIALECT: Dialect = Dialect { request_id: "x-acs-request-id", verdict: error::verdict };
/// Instances that DescribeInstances finds by tags, at most (alibabacloud_ecs20140526 7.11.8).
const TAGGED_MAX: usize = 1000;
/// Key pairs a page.
const KEY_PAIRS_MAX: usize = 50;
/// A listing that goes on for more pages than this goes in circles.
const PAGES_MAX: usize = 10_000;
/// How often a listing that moves under our hands is begun again.
const LISTINGS_MAX: usize = 5;

/// ECS: one account in one region.
pub(in crate::provider) struct Ecs {
    parts: Parts,
}

impl Ecs {
    /// A client made of these parts.
    pub(in crate::provider) fn new(parts: Parts) -> Self {
        let door = parts.door.once_more_on(error::EXPIRED);
        Self { parts: Parts { door, ..parts } }
    }

    async fn call<T>(
        &self,
        action: &str,
        intent: Intent,
        mut parameters: Parameters,
        read: fn(&[u8]) -> std::result::Result<T, Unreadable>,
    ) -> Result<T> {
        parameters.push(parameter("RegionId", &self.parts.region));
        let query = sign::canonical_query(&parameters);
        let sign = |at: Timestamp, nonce: u128, keys: &Credentials| self.request(action, &query, at, nonce, keys);
        let judge = |response: &Response| DIALECT.judge(action, response, |response| read(&response.body));
        self.parts.door.call(action, intent, &sign, &judge).await
    }

    /// The signed request. The query goes over the wire as it is signed; the body is empty.
    fn request(&self, action: &str, query: &str, at: Timestamp, nonce: u128, keys: &Credentials) -> Request {
        let mut headers = vec![
            parameter("host", self.parts.origin.authority()),
            parameter("accept", "application/json"),
            parameter("x-acs-action", action),
            parameter("x-acs-version", VERSION),
            parameter("x-acs-date", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            parameter("x-acs-signature-nonce", format!("{nonce:032x}")),
            parameter("x-acs-content-sha256", crate::provider::http::digest::sha256_hex(b"")),
        ];
        if let Some(token) = &keys.session_token {
            headers.push(parameter("x-acs-accesskey-id", &keys.access_key_id));
            headers.push(parameter("x-acs-security-token", token.expose_secret()));
        }
        let parts = sign::Parts { method: "POST", path: "/", query, headers: &headers, body: b"" };
        let secret = keys.access_key_secret.expose_secret();
        let signature = sign::sign(&keys.access_key_id, secret, parts, sign::must_be_signed);
        headers.push(parameter("authorization", signature.authorization));
        Request {
            method: "POST",
            origin: self.parts.origin.to_string(),
            path: "/".to_string(),
            query: query.to_string(),
            headers,
            body: Vec::new(),
        }
    }

    /// All pages of a listing by `NextToken`, to the one that has none, as one. Its total is the largest that a page told.
    async fn pages<T>(
        &self,
        action: &str,
        parameters: &Parameters,
        read: fn(&[u8]) -> std::result::Result<Page<T>, Unreadable>,
    ) -> Result<Page<T>> {
        let (mut items, mut total) = (Vec::new(), None);
        let mut tokens = BTreeSet::new();
        let mut asked = parameters.clone();
        loop {
            let page = self.call(action, Intent::Read, asked, read).await?;
            items.extend(page.items);
            total = total.max(page.total);
            let Some(token) = page.next else { return Ok(Page { items, next: None, total }) };
            asked = parameters.clone();
            asked.push(parameter("NextToken", &token));
            if !tokens.insert(token) || tokens.len() >= PAGES_MAX {
                return Err(door::unreadable(action, "the listing goes in circles: a NextToken came twice"));
            }
        }
    }

    async fn describe(&self, filters: impl IntoIterator<Item = (String, String)>) -> Result<Page<Instance>> {
        let parameters: Parameters = [parameter("MaxResults", LIMITS.page_max)].into_iter().chain(filters).collect();
        self.pages("DescribeInstances", &parameters, wire::instances).await
    }

    /// The instances of these ids; unknown ones are missing. The cloud leaves them out by itself; should it refuse the
    /// whole question instead, it is halved until the unknown one stands alone.
    async fn by_ids(&self, ids: impl IntoIterator<Item = InstanceId>) -> Result<BTreeMap<InstanceId, Instance>> {
        let ids: Vec<InstanceId> = ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut open: Vec<&[InstanceId]> = ids.chunks(LIMITS.page_max).rev().collect();
        let mut found = BTreeMap::new();
        while let Some(chunk) = open.pop() {
            let list = wire::json_list(chunk.iter().map(InstanceId::as_str));
            match self.describe(Some(parameter("InstanceIds", list))).await {
                Ok(page) => {
                    let asked = page.items.into_iter().filter(|instance| chunk.contains(&instance.id));
                    found.extend(asked.map(|instance| (instance.id.clone(), instance)));
                }
                // Only codes that say so: any other refusal must not look like the death of an instance.
                Err(error) if matches!(&*error.code, "InvalidInstanceId.NotFound" | "InvalidInstanceIds.NotFound") => {
                    if chunk.len() > 1 {
                        let (left, right) = chunk.split_at(chunk.len() / 2);
                        open.extend([right, left]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The ids of the instances that bear these tags, by ListTagResources: DescribeInstances finds no more than 1,000
    /// by tags (alibabacloud_ecs20140526 7.11.8).
    async fn tagged(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceId>> {
        let mut parameters = vec![parameter("ResourceType", "instance")];
        parameters.extend(tag_parameters(tags));
        Ok(self.pages("ListTagResources", &parameters, wire::tag_resources).await?.items)
    }

    /// The instances that bear these tags, and perhaps others. An account that may not ask ListTagResources (a policy
    /// of least privilege), or for which it does not exist, asks DescribeInstances: as far as that sees.
    async fn by_tags(&self, tags: &BTreeMap<String, String>) -> Result<BTreeMap<InstanceId, Instance>> {
        let refusal = match self.tagged(tags).await {
            Ok(ids) => return self.by_ids(ids).await,
            Err(refusal) if may_not_ask(&refusal) => refusal,
            Err(error) => return Err(error),
        };
        let page = self.describe(tag_parameters(tags)).await?;
        // With tokens the total is not to be relied upon: as many as can be found may be all or not.
        if page.items.len() >= TAGGED_MAX || page.total.is_some_and(|total| total > TAGGED_MAX) {
            let message = format!(
                "DescribeInstances finds no more than {TAGGED_MAX} instances by tags, and there may be more: allow the \
                 action ecs:ListTagResources. It was refused: {}",
                refusal.message
            );
            return Err(self.parts.door.clean(Error { message, ..refusal }));
        }
        Ok(once(page.items))
    }

    /// All key pairs of a name or pattern. The pages are numbered: a listing whose total moves is begun again, and one of
    /// several pages is read until two readings agree (as many made as gone between two pages leave the total as it was).
    async fn list_key_pairs(&self, pattern: &str) -> Result<Vec<KeyPair>> {
        let mut earlier = None;
        for _ in 0..LISTINGS_MAX {
            let Some((pairs, pages)) = self.read_key_pairs(pattern).await? else { continue };
            let names: Vec<KeyPairName> = pairs.keys().cloned().collect();
            if pages == 1 || earlier.replace(names.clone()) == Some(names) {
                return Ok(pairs.into_values().collect());
            }
        }
        Err(Error {
            kind: Kind::Unavailable,
            message: "the key pairs changed while they were listed".to_string(),
            code: "moving".to_string(),
            ..door::refused_here("DescribeKeyPairs", "")
        })
    }

    /// One reading from the first page to the last, and how many there were; `None` if the listing moved.
    async fn read_key_pairs(&self, pattern: &str) -> Result<Option<(BTreeMap<KeyPairName, KeyPair>, usize)>> {
        let mut pairs = BTreeMap::new();
        let mut first_total = None;
        for number in 1..=PAGES_MAX {
            let parameters = vec![
                parameter("KeyPairName", pattern),
                parameter("IncludePublicKey", true),
                parameter("PageSize", KEY_PAIRS_MAX),
                parameter("PageNumber", number),
            ];
            let page = self.call("DescribeKeyPairs", Intent::Read, parameters, wire::key_pairs).await?;
            let total = *first_total.get_or_insert(page.total);
            let last = page.items.is_empty();
            pairs.extend(page.items.into_iter().map(|pair| (pair.name.clone(), pair)));
            if page.total != total || (last && Some(pairs.len()) < total) {
                return Ok(None);
            }
            if Some(pairs.len()) >= total {
                return Ok(Some((pairs, number)));
            }
        }
        Ok(None)
    }

    /// What an answer to a batch says: refusals of single instances, those that were asked for and each once.
    fn accepted(&self, action: &str, instances: &[InstanceId], changed: Changed) -> Accepted {
        let mut refused = BTreeMap::new();
        for outcome in changed.outcomes {
            let Some((code, message)) = outcome.refusal else { continue };
            if instances.contains(&outcome.instance) {
                let (kind, effect, blame) = error::verdict_on_one(action, &code);
                let request_id = changed.request_id.clone();
                let action = action.to_string();
                let error = Error { kind, effect, blame, action, code, message, request_id, retry_after: None };
                refused.insert(outcome.instance, self.parts.door.clean(error));
            }
        }
        Accepted { request_id: changed.request_id, refused: refused.into_iter().collect() }
    }

    async fn attach(
        &self,
        action: &str,
        pair: &KeyPairId,
        instances: &[InstanceId],
        before: Timestamp,
    ) -> Result<Accepted> {
        batch(action, instances, LIMITS.bind_max)?;
        let parameters = vec![
            parameter("KeyPairName", pair),
            parameter("InstanceIds", wire::json_list(instances.iter().map(InstanceId::as_str))),
        ];
        let changed = self.call(action, Intent::Change { before }, parameters, wire::attached).await?;
        Ok(self.accepted(action, instances, changed))
    }
}

/// Whether an action is closed to this account, or unknown here: others may be open.
fn may_not_ask(error: &Error) -> bool {
    let unknown = ["UnsupportedOperation", "InvalidAction.NotFound", "NoSuchVersion"];
    error.kind == Kind::Denied || unknown.contains(&error.code.as_str())
}

fn once(instances: Vec<Instance>) -> BTreeMap<InstanceId, Instance> {
    instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect()
}

/// A look that is refused because it names a key pair that does not exist has found nothing.
fn none_if_unknown<T: Default>(looked: Result<T>) -> Result<T> {
    match looked {
        Err(error) if error.code == "InvalidKeyPairName.NotFound" => Ok(T::default()),
        looked => looked,
    }
}

#[async_trait]
impl Provider for Ecs {
    fn limits(&self) -> &Limits {
        &LIMITS
    }

    async fn find_key_pair(&self, name: &KeyPairName) -> Result<Option<KeyPair>> {
        let pairs = none_if_unknown(self.list_key_pairs(name.as_str()).await)?;
        Ok(pairs.into_iter().find(|pair| pair.name == *name))
    }

    async fn key_pairs(&self, prefix: &str) -> Result<Vec<KeyPair>> {
        let mut pairs = none_if_unknown(self.list_key_pairs(&format!("{prefix}*")).await)?;
        pairs.retain(|pair| pair.name.as_str().starts_with(prefix));
        Ok(pairs)
    }

    async fn import_key_pair(&self, name: &KeyPairName, key: &PublicKey, before: Timestamp) -> Result<KeyPairId> {
        let action = "ImportKeyPair";
        let parameters = vec![parameter("KeyPairName", name), parameter("PublicKeyBody", key.to_openssh())];
        let id = self.call(action, Intent::Change { before }, parameters, wire::imported).await?;
        if id.as_str() != name.as_str() {
            return Err(door::unreadable(action, format!("asked to import {name}, it answers {id}")));
        }
        Ok(id)
    }

    async fn delete_key_pair(&self, key_pair: &KeyPairId, before: Timestamp) -> Result<()> {
        let parameters = vec![parameter("KeyPairNames", wire::json_list([key_pair.as_str()]))];
        self.call("DeleteKeyPairs", Intent::Change { before }, parameters, wire::deleted).await
    }

    async fn instances(&self, select: &Select) -> Result<Vec<Instance>> {
        let mut found = match select {
            Select::Tags(tags) if !tags.is_empty() => self.by_tags(tags).await?,
            Select::Tags(_) | Select::All => once(self.describe(None).await?.items),
            Select::Ids(ids) => self.by_ids(ids.iter().cloned()).await?,
            Select::BoundTo(pair) => {
                let looked = self.describe(Some(parameter("KeyPairName", pair))).await;
                once(none_if_unknown(looked.map(|page| page.items))?)
            }
        };
        match select {
            Select::Tags(tags) => {
                found.retain(|_, instance| tags.iter().all(|(key, value)| instance.tags.get(key) == Some(value)));
            }
            Select::BoundTo(pair) => found.retain(|_, instance| instance.keys.contains(pair)),
            Select::All | Select::Ids(_) => {}
        }
        Ok(found.into_values().collect())
    }

    async fn bind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        self.attach("AttachKeyPair", key_pair, instances, before).await
    }

    async fn unbind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        self.attach("DetachKeyPair", key_pair, instances, before).await
    }

    async fn power(&self, change: PowerChange, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        // SuccessFirst: one instance in the wrong state does not hold up the others, and the answer tells of each.
        let (action, own) = power_call(change);
        batch(action, instances, LIMITS.power_max)?;
        let optimization = parameter("BatchOptimization", "SuccessFirst");
        let parameters = numbered(instances).chain(own).chain([optimization]).collect();
        let changed = self.call(action, Intent::Change { before }, parameters, wire::powered).await?;
        Ok(self.accepted(action, instances, changed))
    }

    async fn denied(&self, _: &[InstanceId]) -> Result<Vec<(InstanceId, Error)>> {
        Ok(Vec::new())
    }

    async fn rehearse(&self, change: PowerChange, instances: &[InstanceId]) -> Result<Option<&'static str>> {
        let (action, own) = power_call(change);
        batch(action, instances, LIMITS.power_max)?;
        // All or none: with SuccessFirst a dry run always says that it went well (FACTS 4.1).
        let together = [parameter("BatchOptimization", "AllTogether"), parameter("DryRun", true)];
        let parameters = numbered(instances).chain(own).chain(together).collect();
        // A dry run that would go well is answered with an error of its own.
        match self.call(action, Intent::Read, parameters, wire::powered).await {
            Err(error) if matches!(error.code.as_str(), "DRYRUN.SUCCESS" | "DryRunOperation") => Ok(Some(action)),
            Err(error) => Err(error),
            Ok(_) => Err(door::unreadable(action, "a dry run was answered as if it had been done")),
        }
    }

    async fn key_pairs_max(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn clock_difference(&self) -> Option<SignedDuration> {
        self.parts.door.clock_difference()
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
