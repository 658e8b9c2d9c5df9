//! StoreKey: make the key, put its private half into custody, read it back. A half that is there already is adopted.

use crate::custody::CustodyError;
use crate::model::PrivateKey;
use crate::provider::{Blame, Effect, Error, Kind};
use crate::rotation::{Call, Event, Step};

use super::super::case::Case;
use super::super::record::append;
use super::super::{EngineError, Tools};
use super::{Done, failed};

pub(super) async fn act(tools: &Tools, case: &mut Case) -> Result<Done, EngineError> {
    let plan = &case.rotation()?.plan;
    let (name, bits) = (plan.key_name.clone(), plan.key_bits);
    // An earlier run may have been killed while it wrote the copies: what reached one of them is completed in the others.
    let kept = match tools.custody.complete(&name).await {
        Err(CustodyError::Missing(_)) => None,
        other => Some(other),
    };
    let key = match kept {
        Some(Ok(key)) => key,
        Some(Err(error)) => return failed(tools, case, Step::StoreKey, refused("get", &error)).await,
        None => {
            append(tools, case, &[Event::Started { step: Step::StoreKey, call: Call::Put, found: Vec::new() }]).await?;
            match make(tools, bits, &name, case).await {
                Ok(key) => key,
                Err(error) => return failed(tools, case, Step::StoreKey, error).await,
            }
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
        message: error.to_string(),
        ..custody_error("make")
    })?;
    tools.custody.put(name, &key).await.map_err(|error| refused("put", &error))?;
    tools.custody.get(name).await.map_err(|error| refused("get", &error))
}

fn refused(action: &str, error: &CustodyError) -> Error {
    Error { message: error.to_string(), ..custody_error(action) }
}

/// Custody that fails is waited for like a cloud that is away: a full disk, a copy that is not mounted.
fn custody_error(action: &str) -> Error {
    Error {
        kind: Kind::Unavailable,
        effect: Effect::Unknown,
        blame: Blame::Request,
        action: format!("custody {action}"),
        code: "custody".to_string(),
        message: String::new(),
        request_id: None,
        retry_after: None,
    }
}
