//! The client of BCC: rekeyd's questions and orders as calls of the API, and the answers as rekeyd's words.
//! It must never repeat a change by itself (the door does, where that is safe), nor stop a machine in a way that ends
//! its billing: its address and its place on the host could be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::wire::{self, Changed, Page};
use super::{error, sign};
use crate::model::{InstanceId, KeyPairId, KeyPairName, ProviderKind, PublicKey};
use crate::provider::http::answer::{Dialect, Unreadable, batch};
use crate::provider::http::{Intent, Request, Response, door};
use crate::provider::open::Parts;
use crate::provider::{
    Accepted, Credentials, Disruption, Error, Instance, KeyPair, Kind, Limits, PowerChange, Provider, Result, Select,
};

/// What BCC allows and does. Sources: cloud.baidu.com/doc/BCC (batches of power 100; 500 pairs a user and region, names
/// of 1 to 65; key sizes are not stated), bce-sdk-go 6916310. A bind has no documented limit: that of the power
/// actions is kept. No request rates are documented. The downtime is our own figure for a reboot.
pub static LIMITS: Limits = Limits {
    provider: ProviderKind::BaiduBcc,
    bind_max: 100,
    power_max: 100,
    // Ids a look; a page of the listing holds 1,000.
    page_max: 100,
    delete_max: 1,
    key_name_max: 65,
    key_bits: &[2048, 3072, 4096],
    disruption: Disruption::RebootsInstance,
    whole_batch_fails: true,
    key_pairs_max: Some(500),
    requests_per_second: &[],
    downtime: Duration::from_secs(180),
};

/// Every action that this client calls. The API has paths and no names: these are, as far as it has them, the Go SDK's.
pub const ACTIONS: &[&str] = &[
    "ListInstances",
    "ListInstanceByInstanceIds",
    "ListKeypairs",
    "GetKeypairDetail",
    "ImportKeypair",
    "DeleteKeypair",
    "AttachKeypair",
    "DetachKeypair",
    "BatchStopInstance",
    "BatchStartInstance",
    "BatchRebootInstance",
];

/// How BCC tells that something went wrong.
const DIALECT: Dialect = Dialect { request_id: "x-bce-request-id", verdict: error::verdict };
/// Entries a page of a listing.
const KEYS_MAX: &str = "1000";
/// A listing that goes on for more pages than this goes in circles.
const PAGES_MAX: usize = 10_000;
/// How long a signature is valid: the SDKs' own figure, in seconds.
const VALID_SECONDS: u32 = 1800;

/// BCC: one account in one region.
pub(in crate::provider) struct Bcc {
    parts: Parts,
}

/// A call before it is signed.
struct Call<'a> {
    action: &'a str,
    method: &'static str,
    path: &'a str,
    query: Vec<(&'a str, &'a str)>,
    body: Vec<u8>,
}

fn header(name: &str, value: impl ToString) -> (String, String) {
    (name.to_string(), value.to_string())
}

impl Bcc {
    /// A client made of these parts.
    pub(in crate::provider) fn new(parts: Parts) -> Self {
        let door = parts.door.once_more_on(error::EXPIRED);
        Self { parts: Parts { door, ..parts } }
    }

    async fn call<T>(
        &self,
        call: &Call<'_>,
        intent: Intent,
        read: fn(&[u8]) -> std::result::Result<T, Unreadable>,
    ) -> Result<T> {
        self.answer(call, intent, &|response| read(&response.body)).await
    }

    async fn answer<T>(
        &self,
        call: &Call<'_>,
        intent: Intent,
        read: &(dyn Fn(&Response) -> std::result::Result<T, Unreadable> + Send + Sync),
    ) -> Result<T> {
        let sign = |at: Timestamp, _nonce: u128, keys: &Credentials| self.request(call, at, keys);
        let judge = |response: &Response| DIALECT.judge(call.action, response, read);
        self.parts.door.call(call.action, intent, &sign, &judge).await
    }

    /// The signed request.
    fn request(&self, call: &Call<'_>, at: Timestamp, keys: &Credentials) -> Request {
        let pairs = call.query.iter();
        let pairs =
            pairs.map(|(name, value)| format!("{}={}", sign::encode(name.as_bytes()), sign::encode(value.as_bytes())));
        let query = pairs.collect::<Vec<_>>().join("&");
        let mut headers = vec![header("host", self.parts.origin.authority()), header("x-bce-date", sign::date(at))];
        let mut covered = vec!["host", "x-bce-date"];
        if let Some(token) = &keys.session_token {
            headers.push(header("x-bce-security-token", token.expose_secret()));
            covered.push("x-bce-security-token");
        }
        if !call.body.is_empty() {
            headers.push(header("content-type", "application/json"));
        }
        let parts = sign::Parts { method: call.method, path: call.path, query: &query, headers: &headers };
        let secret = keys.access_key_secret.expose_secret();
        let id = &keys.access_key_id;
        let signature = sign::sign(id, secret, at, VALID_SECONDS, parts, &covered);
        headers.push(header("authorization", signature.authorization));
        Request {
            method: call.method,
            origin: self.parts.origin.to_string(),
            path: call.path.to_string(),
            query,
            headers,
            body: call.body.clone(),
        }
    }

    /// All pages of a listing, to the one that is not truncated.
    async fn pages<T>(
        &self,
        call: Call<'_>,
        read: fn(&[u8]) -> std::result::Result<Page<T>, Unreadable>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut markers = BTreeSet::new();
        let mut marker: Option<String> = None;
        loop {
            let mut query = call.query.clone();
            // The page on the look by ids names no such parameter, and a look holds few ids anyway.
            if call.method == "GET" {
                query.push(("maxKeys", KEYS_MAX));
            }
            query.extend(marker.as_deref().map(|marker| ("marker", marker)));
            let page = Call { query, body: call.body.clone(), ..call };
            let page = self.call(&page, Intent::Read, read).await?;
            items.extend(page.items);
            if !page.truncated {
                return Ok(items);
            }
            let Some(next) = page.next else {
                return Err(door::unreadable(call.action, "the listing is truncated and names no next page"));
            };
            if !markers.insert(next.clone()) || markers.len() >= PAGES_MAX {
                return Err(door::unreadable(call.action, "the listing goes in circles: a marker came twice"));
            }
            marker = Some(next);
        }
    }

    /// The instances that a filter lets through, or all. A filter only narrows what is decided on the answer: where the
    /// cloud refuses it (`keypairId` is known to the Go SDK alone), everybody is asked for.
    async fn list(&self, filter: Option<(&str, &str)>) -> Result<BTreeMap<InstanceId, Instance>> {
        let ask = |query| {
            let call = Call { action: "ListInstances", method: "GET", path: "/v2/instance", query, body: Vec::new() };
            self.pages(call, wire::instances)
        };
        let narrowed = none_if_unknown(ask(filter.into_iter().collect()).await);
        let instances = match narrowed {
            Err(error) if filter.is_some() && error.kind == Kind::Invalid => ask(Vec::new()).await?,
            narrowed => narrowed?,
        };
        Ok(instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect())
    }

    /// The instances of these ids; unknown ones are missing. Should the cloud refuse the whole question for one unknown
    /// id, it is halved until that one stands alone.
    async fn by_ids(&self, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Instance>> {
        let ids: Vec<InstanceId> = ids.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let mut open: Vec<&[InstanceId]> = ids.chunks(LIMITS.page_max).rev().collect();
        let mut found = BTreeMap::new();
        while let Some(chunk) = open.pop() {
            let call = Call {
                action: "ListInstanceByInstanceIds",
                method: "POST",
                path: "/v2/instance/listByInstanceId",
                query: Vec::new(),
                body: wire::ids_body(chunk),
            };
            match self.pages(call, wire::instances).await {
                Ok(instances) => {
                    let asked = instances.into_iter().filter(|instance| chunk.contains(&instance.id));
                    found.extend(asked.map(|instance| (instance.id.clone(), instance)));
                }
                Err(error) if says_no_such_instance(&error) => {
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

    async fn list_key_pairs(&self, name: Option<&str>) -> Result<Vec<KeyPair>> {
        let query = name.map(|name| ("name", name)).into_iter().collect();
        let call = Call { action: "ListKeypairs", method: "GET", path: "/v2/keypair", query, body: Vec::new() };
        let pairs = none_if_unknown(self.pages(call, wire::key_pairs).await)?;
        let pairs: BTreeMap<_, _> = pairs.into_iter().map(|pair| (pair.id.clone(), pair)).collect();
        Ok(pairs.into_values().collect())
    }

    /// A listed key pair with all that the cloud shows of it; `None` if it is gone meanwhile.
    async fn key_pair(&self, listed: KeyPair) -> Result<Option<KeyPair>> {
        let action = "GetKeypairDetail";
        let path = key_pair_path(action, &listed.id)?;
        let call = Call { action, method: "GET", path: &path, query: Vec::new(), body: Vec::new() };
        match self.call(&call, Intent::Read, wire::one_key_pair).await {
            Ok(pair) if (&pair.id, &pair.name) == (&listed.id, &listed.name) => {
                Ok(Some(KeyPair { bound: pair.bound.or(listed.bound), ..pair }))
            }
            Ok(pair) => Err(door::unreadable(action, format!("asked for {}, it answers {}", listed.id, pair.id))),
            Err(error) if error.code == "Keypair.KeypairNotExist" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A change of a batch. Instances that the answer lists as failed are refused without a reason; an answer without
    /// a body (the documented one, until 2025-12) leaves everybody to the next look.
    async fn change(&self, call: Call<'_>, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        let read = |response: &Response| -> std::result::Result<Changed, Unreadable> {
            let changed = wire::changed(&response.body)?;
            let request_id = changed.request_id.or_else(|| DIALECT.request_id_of(response));
            Ok(Changed { request_id, ..changed })
        };
        let changed = self.answer(&call, Intent::Change { before }, &read).await?;
        let (kind, effect, blame) = error::FAILED_WITHOUT_REASON;
        let error = self.parts.door.clean(Error {
            kind,
            effect,
            blame,
            action: call.action.to_string(),
            code: "failedInstanceIdList".to_string(),
            message: "the cloud lists the instance as failed and gives no reason".to_string(),
            request_id: changed.request_id.clone(),
            retry_after: None,
        });
        let failed: BTreeSet<InstanceId> = changed.failed.into_iter().filter(|id| instances.contains(id)).collect();
        let refused = failed.into_iter().map(|id| (id, error.clone())).collect();
        Ok(Accepted { request_id: changed.request_id, refused })
    }

    async fn attach(
        &self,
        (action, verb): (&str, &str),
        pair: &KeyPairId,
        instances: &[InstanceId],
        before: Timestamp,
    ) -> Result<Accepted> {
        batch(action, instances, LIMITS.bind_max)?;
        let path = key_pair_path(action, pair)?;
        let call =
            Call { action, method: "PUT", path: &path, query: vec![(verb, "")], body: wire::ids_body(instances) };
        self.change(call, instances, before).await
    }
}

/// The path of a key pair. An empty id would be the path of all of them.
fn key_pair_path(action: &str, pair: &KeyPairId) -> Result<String> {
    match pair.as_str() {
        "" | "." | ".." => Err(door::refused_here(action, format!("{pair:?} is no key pair id"))),
        id => Ok(format!("/v2/keypair/{}", sign::encode(id.as_bytes()))),
    }
}

/// A look that is refused because it names a key pair that does not exist has found nothing.
fn none_if_unknown<T>(looked: Result<Vec<T>>) -> Result<Vec<T>> {
    match looked {
        Err(error) if error.code == "Keypair.KeypairNotExist" => Ok(Vec::new()),
        looked => looked,
    }
}

/// Whether the cloud itself says that an instance of the question does not exist. The code for this question is not
/// documented; no other refusal must look like the death of an instance.
fn says_no_such_instance(error: &Error) -> bool {
    error.kind == Kind::NotFound && (error.code.contains("Instance") || error.code == "NoSuchObject")
}

#[async_trait]
impl Provider for Bcc {
    fn limits(&self) -> &Limits {
        &LIMITS
    }

    async fn find_key_pair(&self, name: &KeyPairName) -> Result<Option<KeyPair>> {
        // The name filter is exact by the SDK's page; an API that does not know it answers all.
        let listed = self.list_key_pairs(Some(name.as_str())).await?.into_iter().find(|pair| pair.name == *name);
        match listed {
            // The listing is of the same model as the single pair, but no page promises that it shows the keys.
            Some(pair) if pair.public_key.is_none() => self.key_pair(pair).await,
            listed => Ok(listed),
        }
    }

    async fn key_pairs(&self, prefix: &str) -> Result<Vec<KeyPair>> {
        let mut pairs = self.list_key_pairs(None).await?;
        pairs.retain(|pair| pair.name.as_str().starts_with(prefix));
        Ok(pairs)
    }

    async fn import_key_pair(&self, name: &KeyPairName, key: &PublicKey, before: Timestamp) -> Result<KeyPairId> {
        let action = "ImportKeypair";
        let body = wire::import_body(name, key);
        // PUT by both SDKs and the page's structure; the page's example has POST.
        let call = Call { action, method: "PUT", path: "/v2/keypair", query: vec![("import", "")], body };
        let pair = self.call(&call, Intent::Change { before }, wire::one_key_pair).await?;
        if pair.name != *name {
            return Err(door::unreadable(action, format!("asked to import {name}, it answers {}", pair.name)));
        }
        Ok(pair.id)
    }

    async fn delete_key_pair(&self, key_pair: &KeyPairId, before: Timestamp) -> Result<()> {
        let action = "DeleteKeypair";
        let path = key_pair_path(action, key_pair)?;
        let call = Call { action, method: "DELETE", path: &path, query: Vec::new(), body: Vec::new() };
        self.call(&call, Intent::Change { before }, wire::changed).await.map(|_| ())
    }

    async fn instances(&self, select: &Select) -> Result<Vec<Instance>> {
        let mut found = match select {
            Select::Tags(tags) => {
                let filter = wire::tags_filter(tags);
                self.list(filter.as_deref().map(|filter| ("tags", filter))).await?
            }
            Select::All => self.list(None).await?,
            Select::Ids(ids) => self.by_ids(ids).await?,
            Select::BoundTo(pair) => self.list(Some(("keypairId", pair.as_str()))).await?,
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
        self.attach(("AttachKeypair", "attach"), key_pair, instances, before).await
    }

    async fn unbind(&self, key_pair: &KeyPairId, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        self.attach(("DetachKeypair", "detach"), key_pair, instances, before).await
    }

    async fn power(&self, change: PowerChange, instances: &[InstanceId], before: Timestamp) -> Result<Accepted> {
        let (action, verb, body) = match change {
            PowerChange::Stop { force } => ("BatchStopInstance", "stop", wire::stop_body(instances, force)),
            PowerChange::Start => ("BatchStartInstance", "start", wire::ids_body(instances)),
            PowerChange::Reboot => ("BatchRebootInstance", "reboot", wire::reboot_body(instances)),
        };
        batch(action, instances, LIMITS.power_max)?;
        let call = Call { action, method: "PUT", path: "/v2/instance/batchAction", query: vec![(verb, "")], body };
        self.change(call, instances, before).await
    }

    async fn denied(&self, _: &[InstanceId]) -> Result<Vec<(InstanceId, Error)>> {
        Ok(Vec::new())
    }

    async fn rehearse(&self, _: PowerChange, _: &[InstanceId]) -> Result<Option<&'static str>> {
        Ok(None)
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
