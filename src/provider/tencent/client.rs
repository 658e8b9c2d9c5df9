//! The protocol that Lighthouse and CVM share: how a call is put and signed, how an answer is judged, how a listing is
//! read to its last page. It must never take a partial listing for a whole one.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::judge;
use super::legacy::{self, Legacy};
use super::sign::{SIGNED, sign};
use super::wire::{Envelope, Outcome, Page, RawInstance, RawKeyPair};
use crate::model::{InstanceId, KeyPairId};
use crate::net::{Request, Response};
use crate::provider::http::Intent;
use crate::provider::http::door::unreadable;
use crate::provider::open::Parts;
use crate::provider::{Blame, Credentials, Effect, Error, Kind, Result};

/// Instances or key pairs a page, and ids a look (FACTS 2.2).
pub(super) const PAGE: usize = 100;
/// How often a listing that moves under our reading is begun again.
const PASSES_MAX: usize = 5;

/// One account in one region, by one of the two APIs.
pub(super) struct Client {
    pub parts: Parts,
    /// The API's name in signatures: `lighthouse`, `cvm`.
    pub service: &'static str,
    /// The API's version.
    pub version: &'static str,
    /// Speaks to CVM's legacy endpoint instead of the current one.
    pub legacy: Option<Legacy>,
}

/// A good answer.
pub(super) struct Answer<T> {
    /// Always there but in the flat shape of the legacy endpoint.
    pub request_id: Option<String>,
    pub value: T,
}

impl Client {
    /// Calls an action.
    pub(super) async fn call<T: DeserializeOwned + Send>(
        &self,
        action: &str,
        intent: Intent,
        body: &Value,
    ) -> Result<Answer<T>> {
        let (parts, door) = (&self.parts, &self.parts.door);
        // The door asks for a request, and so for a signature, at each attempt.
        match &self.legacy {
            None => {
                let body = body.to_string().into_bytes();
                let sign = |at, _, keys: &Credentials| self.request(action, &body, at, keys);
                door.call(action, intent, &sign, &|answer| read(action, answer)).await
            }
            Some(legacy) => {
                let (call, parameters) = ((action, self.version), legacy::flatten(body));
                let sign = |at, chance, keys: &Credentials| legacy.request(parts, keys, call, &parameters, at, chance);
                door.call(action, intent, &sign, &|answer| legacy::read(action, answer)).await
            }
        }
    }

    fn request(&self, action: &str, body: &[u8], at: Timestamp, keys: &Credentials) -> Request {
        let seconds = at.as_second().to_string();
        let headers = [
            ("host", self.parts.origin.authority()),
            ("content-type", "application/json"),
            ("x-tc-action", action),
            ("x-tc-version", self.version),
            ("x-tc-timestamp", &seconds),
            // Always: the pages disagree on whether it is required (FACTS 7).
            ("x-tc-region", self.parts.region.as_str()),
            ("x-tc-language", "en-US"),
        ];
        let mut headers: Vec<_> =
            headers.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        if let Some(token) = &keys.session_token {
            headers.push(("x-tc-token".to_string(), token.expose_secret().to_string()));
        }
        let mut request = Request {
            method: "POST",
            origin: self.parts.origin.to_string(),
            path: "/".to_string(),
            query: String::new(),
            headers,
            body: body.to_vec(),
        };
        let signature = sign(&request, self.service, &SIGNED, at, keys);
        request.headers.push(("authorization".to_string(), signature.authorization));
        request
    }

    /// Every item of a listing, each once. Offsets shift when something is made or goes away between two pages: then
    /// the total moves or the pages do not join, and the listing is begun again.
    async fn list<T: DeserializeOwned + Send>(
        &self,
        action: &str,
        body: Map<String, Value>,
        id: fn(&T) -> &str,
    ) -> Result<Vec<T>> {
        for _ in 0..PASSES_MAX {
            if let Some(items) = self.pass(action, &body, id).await? {
                return Ok(items);
            }
        }
        Err(Error {
            kind: Kind::Unavailable,
            effect: Effect::NotDone,
            blame: Blame::Request,
            action: action.to_string(),
            code: "moving".to_string(),
            message: format!("the listing changed between its pages {PASSES_MAX} times in a row"),
            request_id: None,
            retry_after: None,
        })
    }

    /// One reading from the first page to the last; `None` if the listing moved. Each page begins with the last item of
    /// the page before: as many made as gone leave the total as it was, but not the seam.
    async fn pass<T: DeserializeOwned + Send>(
        &self,
        action: &str,
        body: &Map<String, Value>,
        id: fn(&T) -> &str,
    ) -> Result<Option<Vec<T>>> {
        let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
        let (mut total, mut seam) = (None, None::<String>);
        loop {
            let mut body = body.clone();
            body.insert("Offset".to_string(), json!(seen.len() - usize::from(seam.is_some())));
            body.insert("Limit".to_string(), json!(PAGE));
            let page: Page<T> = self.call(action, Intent::Read, &Value::Object(body)).await?.value;
            if *total.get_or_insert(page.total) != page.total {
                return Ok(None);
            }
            let mut page_items = page.items.into_iter();
            if seam.is_some() && page_items.next().as_ref().map(id) != seam.as_deref() {
                return Ok(None);
            }
            seam = None;
            for item in page_items {
                seam = Some(id(&item).to_string());
                if !seen.insert(id(&item).to_string()) {
                    return Ok(None);
                }
                items.push(item);
            }
            if seen.len() as u64 == page.total {
                return Ok(Some(items));
            }
            // The end without all of them, or more than all.
            if seam.is_none() || seen.len() as u64 > page.total {
                return Ok(None);
            }
        }
    }

    /// Every instance, narrowed by these filters (at most 10 are sent: more may not be).
    pub(super) async fn instances_by_filter(&self, filters: &[(String, String)]) -> Result<Vec<RawInstance>> {
        let filters: Vec<Value> =
            filters.iter().take(10).map(|(name, value)| json!({"Name": name, "Values": [value]})).collect();
        let mut body = Map::new();
        if !filters.is_empty() {
            body.insert("Filters".to_string(), Value::Array(filters));
        }
        self.list("DescribeInstances", body, |item: &RawInstance| &item.instance_id).await
    }

    /// These instances, each once, without those that the cloud does not know. Whether one unknown id fails a look as a
    /// whole the pages do not say: a look that fails for an instance is halved until the culprit stands alone.
    pub(super) async fn instances_by_id(&self, ids: &[InstanceId]) -> Result<Vec<RawInstance>> {
        let ids: Vec<&str> = ids.iter().map(InstanceId::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let mut wanted: BTreeSet<&str> = ids.iter().copied().collect();
        let mut found = Vec::new();
        let mut work: Vec<&[&str]> = ids.chunks(PAGE).rev().collect();
        while let Some(chunk) = work.pop() {
            // Without a limit the cloud shows 20.
            let body = json!({"InstanceIds": chunk, "Limit": PAGE});
            match self.call::<Page<RawInstance>>("DescribeInstances", Intent::Read, &body).await {
                Ok(page) => {
                    let asked = |item: &RawInstance| wanted.remove(item.instance_id.as_str());
                    found.extend(page.value.items.into_iter().filter(asked));
                }
                Err(error) if error.blame == Blame::Instance && chunk.len() > 1 => {
                    let (left, right) = chunk.split_at(chunk.len() / 2);
                    work.extend([right, left]);
                }
                Err(error) if error.blame == Blame::Instance && error.kind == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Every key pair whose name looks like this one (the filter is fuzzy, or exact: unconfirmed), or every one.
    pub(super) async fn key_pairs(&self, name: Option<&str>) -> Result<Vec<RawKeyPair>> {
        let mut body = Map::new();
        if let Some(name) = name {
            body.insert("Filters".to_string(), json!([{"Name": "key-name", "Values": [name]}]));
        }
        self.list("DescribeKeyPairs", body, |item: &RawKeyPair| &item.key_id).await
    }

    /// The ids of the instances that hang on this key pair; of a pair that is gone, none.
    pub(super) async fn associated(&self, key_pair: &KeyPairId) -> Result<Vec<InstanceId>> {
        let body = json!({"KeyIds": [key_pair.as_str()], "Limit": PAGE});
        let page: Page<RawKeyPair> = match self.call("DescribeKeyPairs", Intent::Read, &body).await {
            Ok(answer) => answer.value,
            Err(error) if error.kind == Kind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let pairs = page.items.into_iter().filter(|pair| pair.key_id == key_pair.as_str());
        let ids = |pair: RawKeyPair| -> Vec<InstanceId> {
            pair.associated().into_iter().flatten().map(InstanceId::from).collect()
        };
        Ok(pairs.flat_map(ids).collect())
    }
}

/// An answer's body, if it is one of the API at all. HTTP 200 says nothing here: errors come with it too (FACTS 2.1).
pub(super) fn body<T: DeserializeOwned>(action: &str, answer: &Response) -> Result<T> {
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| unreadable(action, error)),
        status @ 300..=399 => Err(unreadable(action, format!("HTTP {status}: a redirect is not followed"))),
        status => {
            let text = String::from_utf8_lossy(&answer.body);
            let kind = Kind::Unavailable;
            Err(Error { kind, code: format!("http_{status}"), ..unreadable(action, text) })
        }
    }
}

/// Judges an answer.
fn read<T: DeserializeOwned>(action: &str, answer: &Response) -> Result<Answer<T>> {
    let envelope: Envelope = body(action, answer)?;
    well(action, &envelope.response, true)
}

/// Reads what stands in an answer, or the refusal that stands there. `named`: a good one must tell its `RequestId`.
pub(super) fn well<T: DeserializeOwned>(action: &str, response: &Value, named: bool) -> Result<Answer<T>> {
    let outcome = Outcome::deserialize(response).map_err(|error| unreadable(action, error))?;
    if let Some(refusal) = outcome.error {
        let (kind, effect, blame) = judge(action, &refusal.code);
        let (code, message, request_id) = (refusal.code, refusal.message, outcome.request_id);
        let action = action.to_string();
        return Err(Error { kind, effect, blame, action, code, message, request_id, retry_after: None });
    }
    let request_id = outcome.request_id.filter(|id| !id.is_empty());
    if named && request_id.is_none() {
        return Err(unreadable(action, "an answer without RequestId"));
    }
    match T::deserialize(response) {
        Ok(value) => Ok(Answer { request_id, value }),
        Err(error) => Err(Error { request_id, ..unreadable(action, error) }),
    }
}
