//! What the metrics know of the time before this process: read from the journals once, at the start.

use std::collections::BTreeMap;

use crate::model::{FleetName, Timestamp};
use crate::rotation::{Event, Outcome, Plan};
use crate::store::{Head, Journal, StoreError};
use crate::telemetry::{History, Metrics};

/// Tells the metrics of the newest completed rotation of each fleet that is meant. What cannot be read is left at nothing:
/// whoever needs it says so.
pub(super) async fn remember(metrics: &Metrics, journal: &dyn Journal, meant: impl Fn(&FleetName) -> bool) {
    let heads = match journal.heads().await {
        Ok(heads) => heads.readable,
        Err(error) => {
            tracing::error!(%error, "the metrics know nothing of earlier rotations");
            return;
        }
    };
    let completed =
        |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && matches!(head.ended, Some((_, Outcome::Completed)));
    let newest: BTreeMap<&FleetName, &Head> = heads
        .iter()
        .filter(completed)
        .filter(|head| meant(head.plan.fleet()))
        .map(|head| (head.plan.fleet(), head))
        .collect();
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
