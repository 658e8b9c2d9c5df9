//! The parameters of ECS's actions, as names and values. Pure; it must never ask for a stop that ends a machine's billing.

use std::collections::BTreeMap;

use crate::model::InstanceId;
use crate::provider::PowerChange;

/// Tags a request: more are matched on our side only.
const TAGS_MAX: usize = 20;

/// Names and values, as they go into the query.
pub(super) type Parameters = Vec<(String, String)>;

/// One of them.
pub(super) fn parameter(name: &str, value: impl ToString) -> (String, String) {
    (name.to_string(), value.to_string())
}

/// The action of a change of power and its own parameters. KeepCharging always: the account's own default may be
/// StopCharging.
pub(super) fn power_call(change: PowerChange) -> (&'static str, Parameters) {
    match change {
        PowerChange::Stop { force } => {
            ("StopInstances", vec![parameter("ForceStop", force), parameter("StoppedMode", "KeepCharging")])
        }
        PowerChange::Start => ("StartInstances", Vec::new()),
        PowerChange::Reboot => ("RebootInstances", vec![parameter("ForceReboot", false)]),
    }
}

/// `InstanceId.1`, `InstanceId.2` …
pub(super) fn numbered(instances: &[InstanceId]) -> impl Iterator<Item = (String, String)> {
    (1..).zip(instances).map(|(number, id)| parameter(&format!("InstanceId.{number}"), id))
}

/// The tags as filters, of as many as a request takes.
pub(super) fn tag_parameters(tags: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    (1..=TAGS_MAX).zip(tags).flat_map(|(number, (key, value))| {
        let key = parameter(&format!("Tag.{number}.Key"), key);
        // A value must have 1 to 128 characters here: without it the key alone is looked for.
        let value = (!value.is_empty()).then(|| parameter(&format!("Tag.{number}.Value"), value));
        [Some(key), value].into_iter().flatten()
    })
}
