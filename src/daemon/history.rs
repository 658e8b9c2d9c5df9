//! What the metrics know of the time before this process: read from the journals once, at the start.

use std::collections::BTreeMap;

use crate::model::{FleetName, Timestamp};
use crate::rotation::{Event, Outcome, Plan, Purpose};
use crate::store::{Head, Journal, StoreError};
use crate::telemetry::{History, Metrics};

/// Tells the metrics of each fleet's newest completed rotation. What cannot be read is left at nothing: whoever needs it
/// says so.
pub(super) async fn remember(metrics: &Metrics, journal: &dyn Journal) {
    let heads = match journal.heads().await {
        Ok(heads) => heads.readable,
        Err(error) => {
            tracing::error!(%error, "the metrics know nothing of earlier rotations");
            return;
        }
    };
    // As while they are heard: a catch-up or a way back makes no new key.
    let completed = |head: &&Head| {
        matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate)
            && matches!(head.ended, Some((_, Outcome::Completed)))
    };
    let newest: BTreeMap<&FleetName, &Head> =
        heads.iter().filter(completed).map(|head| (head.plan.fleet(), head)).collect();
    for (fleet, head) in newest {
        match key_created(journal, head).await {
            Ok(key_created) => {
                let last_success = head.ended.map(|(at, _)| at);
                metrics.remember(fleet, History { key_created, last_success });
            }
            Err(error) => tracing::error!(%fleet, journal = %head.id, %error, "the age of its key is not known"),
        }
    }
}

async fn key_created(journal: &dyn Journal, head: &Head) -> Result<Option<Timestamp>, StoreError> {
    let entries = journal.read(head.id, 0).await?;
    Ok(entries.iter().find(|entry| matches!(entry.event, Event::KeyStored { .. })).map(|entry| entry.at))
}
