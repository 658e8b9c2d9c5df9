//! StoreKey: make the key, put its private half into custody, read it back. A half that is there already is adopted; where
//! an earlier rotation made it, it must be there, and be the one that was journalled.

use crate::custody::CustodyError;
use crate::model::PrivateKey;
use crate::provider::{Blame, Effect, Error, Kind};
use crate::rotation::{Call, Event, HoldReason, KeySource, Step};

use super::super::case::Case;
use super::super::record::append;
use super::super::{EngineError, Tools, guard};
use super::{Done, custody_failed, failed, hold};

pub(super) async fn act(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let plan = &case.rotation()?.plan;
    let (name, bits) = (plan.key_name.clone(), plan.key_bits);
    let existing = match &plan.key {
        KeySource::Existing { public_key } | KeySource::Adopted { public_key } => Some(public_key.clone()),
        KeySource::Generate | KeySource::Stranger { .. } => None,
    };
    // An earlier run may have been killed while it wrote the copies: what reached one of them is completed in the others.
    let kept = tools.custody.complete(&name).await;
    let key = match (kept, existing) {
        // An earlier rotation made it: it is never made again under its name.
        (Err(error @ CustodyError::Missing(_)), Some(_)) => {
            return hold(tools, case, HoldReason::Custody { problem: error.to_string() }).await;
        }
        (Err(CustodyError::Missing(_)), None) => {
            append(tools, case, &[Event::Started { step: Step::StoreKey, call: Call::Put, found: Vec::new() }]).await?;
            match make(tools, bits, &name, case).await {
                Ok(key) => key,
                Err(error) => return failed(tools, case, Step::StoreKey, error).await,
            }
        }
        (Err(error), _) => return failed(tools, case, Step::StoreKey, custody_failed("get", &error)).await,
        (Ok(key), existing) => {
            let differs = existing.and_then(|journalled| guard::custody(&journalled, Ok(key.public().clone())).err());
            if let Some(reason) = differs {
                return hold(tools, case, reason).await;
            }
            key
        }
    };
    let public_key = key.public().clone();
    let fingerprint = public_key.fingerprint();
    append(tools, case, &[Event::KeyStored { public_key, fingerprint }]).await?;
    Ok(Done::Recorded)
}

async fn make(tools: &Tools, bits: u16, name: &crate::model::KeyPairName, case: &Case) -> Result<PrivateKey, Error> {
    let comment = format!("{name} {}", case.plan.fleet());
    let key = tools.keys.make(bits, &comment).await.map_err(|error| Error {
        kind: Kind::Invalid,
        effect: Effect::Unknown,
        blame: Blame::Request,
        action: "custody make".to_string(),
        code: "custody".to_string(),
        message: error.to_string(),
        request_id: None,
        retry_after: None,
    })?;
    tools.custody.put(name, &key).await.map_err(|error| custody_failed("put", &error))?;
    tools.custody.get(name).await.map_err(|error| custody_failed("get", &error))
}
