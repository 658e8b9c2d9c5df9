//! What the journals of a place say, folded: for plans that go on from what earlier rotations did. It must never make one
//! journal's damage another fleet's trouble.

use crate::model::JournalId;
use crate::rotation::{Place, Plan, PlannedInstance, Rotation};
use crate::store::{Journal, StoreError};

use super::EngineError;
use super::act::load;

/// A rotation, and all the instances of its plan.
pub(super) type Past = (Rotation, Vec<PlannedInstance>);

/// The rotations of a cloud and region, oldest first. One that cannot be read is left out: who asks for a certain one
/// finds it missing.
pub(super) async fn past(journal: &dyn Journal, place: &Place) -> Result<Vec<Past>, StoreError> {
    let mut past = Vec::new();
    for head in journal.heads().await?.readable {
        let there = head.plan.place();
        if matches!(head.plan, Plan::Rotate(_)) && there.provider == place.provider && there.region == place.region {
            past.extend(read(journal, head.id).await?);
        }
    }
    Ok(past)
}

async fn read(journal: &dyn Journal, id: JournalId) -> Result<Option<Past>, StoreError> {
    match load(journal, id).await {
        Ok(rotation) => Ok(rotation),
        Err(EngineError::Store(error @ (StoreError::Database(_) | StoreError::Unusable(_)))) => Err(error),
        Err(error) => {
            tracing::warn!(journal = %id, %error, "a journal that a plan would go on from cannot be read");
            Ok(None)
        }
    }
}
