//! What an open rotation waits for that is neither the cloud nor a person: a maintenance window, a hook, room in its account.
//! Told by the journals and the config file alone; it must never ask whoever drives.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::engine;
use crate::model::{AccountName, Timestamp};
use crate::rotation::{Phase, Plan, Rotation};
use crate::store::Heads;

use super::journals::{Folded, Journals};
use super::output::moment;
use super::story::batch_name;

/// The accounts that have a cap, and how many starts each of their fleets is owed.
#[derive(Default)]
pub(super) struct Crowd(BTreeMap<AccountName, (u32, BTreeMap<String, u32>)>);

impl Crowd {
    /// By the open rotations; one that cannot be read is told elsewhere.
    pub(super) async fn of(config: &Config, journals: &Journals, heads: &Heads) -> Self {
        let capped = config.accounts.iter();
        let capped =
            capped.filter_map(|(name, account)| Some((name.clone(), (account.unavailable_max?, BTreeMap::new()))));
        let mut crowd: BTreeMap<AccountName, (u32, BTreeMap<String, u32>)> = capped.collect();
        for head in heads.readable.iter().filter(|head| head.ended.is_none()) {
            let (Plan::Rotate(plan), Some((_, owed))) = (&head.plan, crowd.get_mut(&head.plan.place().account)) else {
                continue;
            };
            if let Ok(Folded::Rotation(rotation, _)) = journals.fold(head).await {
                *owed.entry(plan.fleet.to_string()).or_default() += rotation.owed();
            }
        }
        Self(crowd)
    }

    /// What a rotation waits for; `None`: nothing but the cloud, or a person.
    pub(super) fn waits(&self, rotation: &Rotation, now: Timestamp) -> Option<String> {
        if let Some(error) = rotation.strange(now) {
            return Some(error.message.clone());
        }
        if let Some((hook, batch)) = rotation.hook_due(now) {
            return Some(format!("runs the {} hook: {}", hook.name(), batch_name(batch)));
        }
        match rotation.waits_for_window(now) {
            Some(opens) if opens == Timestamp::MAX => {
                return Some("waits for a maintenance window, and none comes within two years".into());
            }
            Some(opens) => return Some(format!("waits for its maintenance window, which opens {}", moment(opens))),
            None => {}
        }
        let (cap, owed) = self.0.get(&rotation.plan.place.account)?;
        let is_full = owed.values().sum::<u32>() >= *cap;
        let wants = rotation.members().any(|(_, member)| member.phase() == Phase::Waiting);
        (is_full && wants && !rotation.is_halted())
            .then(|| format!("waits for room: {}", engine::full(&rotation.plan.place.account, *cap, owed)))
    }
}
