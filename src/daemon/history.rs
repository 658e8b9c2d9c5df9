//! What the metrics know of the time before this process: read from the journals once, at the start.

use std::collections::BTreeMap;

use crate::model::{FleetName, Timestamp};
use crate::rotation::{Event, Outcome, Plan, Purpose};
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
    // As while they are heard: a catch-up or a way back makes no new key.
    let completed = |head: &&Head| {
        matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate)
            && matches!(head.ended, Some((_, Outcome::Completed)))
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Disruption, Duration, JournalId, Power, PrivateKey, ProviderKind, Region, Select};
    use crate::rotation::{Author, KeySource, Part, Place, PlannedInstance, Policy, RotatePlan};
    use crate::store::Memory;
    use crate::telemetry::FleetOfConfig;

    fn plan(key: KeySource) -> Plan {
        Plan::Rotate(RotatePlan {
            fleet: FleetName::new("web"),
            place: Place {
                account: "acc".into(),
                provider: ProviderKind::AlibabaEcs,
                endpoint: None,
                region: Region::new("r"),
            },
            select: Select::All,
            key_name: "rk1_x".into(),
            key,
            undoes: None,
            compromised: false,
            key_bits: 2048,
            disruption: Disruption::NeedsReboot,
            policy: Policy {
                unavailable_max: 1,
                failures_max: 0,
                soak: Duration::ZERO,
                force_stop: false,
                grace: Duration::ZERO,
                verify: Default::default(),
                deliver: Vec::new(),
                pace: Default::default(),
            },
        })
    }

    #[tokio::test]
    async fn a_catch_up_after_a_rotation_makes_its_key_no_younger() {
        let (journal, metrics) = (Memory::new(), Metrics::new().unwrap());
        metrics.set_fleets(&[FleetOfConfig { name: FleetName::new("web"), provider: ProviderKind::AlibabaEcs }]);
        let public_key = PrivateKey::sample(1).public().clone();
        let instance = PlannedInstance {
            id: "i-1".into(),
            name: String::new(),
            power: Power::Running,
            keys: Vec::new(),
            part: Part::Batch(0),
            pin: None,
            known: None,
        };
        let by = Author::Engine("e".to_string());
        let at = |second| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let sources = [KeySource::Generate, KeySource::Existing { public_key: public_key.clone() }];
        for (number, source) in (1_u8..).zip(sources) {
            let (id, since) = (JournalId::derive(at(0), [number; 10]), 100 * i64::from(number));
            journal.begin(id, &plan(source), std::slice::from_ref(&instance), &by, at(since)).await.unwrap();
            let stored = Event::KeyStored { public_key: public_key.clone(), fingerprint: public_key.fingerprint() };
            let ended = Event::Ended { outcome: Outcome::Completed };
            journal.append(id, 1, &[stored], &by, at(since + 1)).await.unwrap();
            journal.append(id, 2, &[ended], &by, at(since + 2)).await.unwrap();
        }
        remember(&metrics, &journal, |_| true).await;
        let page = metrics.render().unwrap();
        for line in [
            "rekeyd_fleet_key_created_timestamp_seconds{fleet=\"web\"} 1800000101",
            "rekeyd_fleet_last_success_timestamp_seconds{fleet=\"web\"} 1800000102",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}: {page}");
        }
    }
}
