//! What Lighthouse tells beforehand: which calls an instance would be refused, and how many key pairs an account may
//! hold. Questions only; it must never take the refusal of a passing state for one that lasts.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::client::{Answer, Client, PAGE};
use super::error::judge;
use crate::model::InstanceId;
use crate::provider::http::Intent;
use crate::provider::http::door::unreadable;
use crate::provider::{Error, Kind, Result};

/// Asks which calls instances would be refused; at most 100 ids a call (FACTS 2.2).
const DENIED: &str = "DescribeInstancesDeniedActions";
/// Asks what an account may hold.
const QUOTAS: &str = "DescribeGeneralResourceQuotas";
/// The resource's name there.
const KEY_PAIRS: &str = "USER_KEY_PAIR";
/// The calls of a rotation that are made of an instance here: the bind stops it by itself.
const NEEDED: [&str; 2] = ["AssociateInstancesKeyPairs", "StartInstances"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Denials {
    instance_denied_action_set: Vec<OfInstance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfInstance {
    instance_id: String,
    denied_actions: Option<Vec<Denial>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Denial {
    action: String,
    code: String,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Quotas {
    general_resource_quota_set: Vec<Quota>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Quota {
    resource_name: String,
    resource_quota_total: i64,
}

/// The first lasting refusal of each of these instances, as the error that the call itself would bring.
pub(super) async fn denied(client: &Client, instances: &[InstanceId]) -> Result<Vec<(InstanceId, Error)>> {
    let ids: Vec<&str> = instances.iter().map(InstanceId::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    let mut found = Vec::new();
    for chunk in ids.chunks(PAGE) {
        let answer: Answer<Denials> = client.call(DENIED, Intent::Read, &json!({"InstanceIds": chunk})).await?;
        for one in answer.value.instance_denied_action_set {
            if !chunk.contains(&one.instance_id.as_str()) {
                continue;
            }
            let mut denials = one.denied_actions.into_iter().flatten();
            let lasting = denials.find_map(|denial| lasting(denial, answer.request_id.clone()));
            found.extend(lasting.map(|error| (InstanceId::new(one.instance_id), client.parts.door.clean(error))));
        }
    }
    Ok(found)
}

/// The refusal of a call that a rotation needs, unless it may pass: a running machine takes no start, one under way
/// nothing.
fn lasting(denial: Denial, request_id: Option<String>) -> Option<Error> {
    let Denial { action, code, message } = denial;
    if !NEEDED.contains(&action.as_str()) {
        return None;
    }
    let (kind, effect, blame) = judge(&action, &code);
    let passes = matches!(kind, Kind::InvalidState | Kind::Busy | Kind::Already | Kind::Throttled | Kind::Unavailable);
    let message = message.unwrap_or_default();
    (!passes).then_some(Error { kind, effect, blame, action, code, message, request_id, retry_after: None })
}

/// How many key pairs the account may hold in the region.
pub(super) async fn key_pairs_max(client: &Client) -> Result<usize> {
    let body = json!({"ResourceNames": [KEY_PAIRS]});
    let answer: Answer<Quotas> = client.call(QUOTAS, Intent::Read, &body).await?;
    let quota = answer.value.general_resource_quota_set.into_iter().find(|quota| quota.resource_name == KEY_PAIRS);
    let total = quota.and_then(|quota| usize::try_from(quota.resource_quota_total).ok());
    total.ok_or_else(|| unreadable(QUOTAS, format!("it does not tell of {KEY_PAIRS}")))
}
