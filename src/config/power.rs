//! The `power` of a fleet: how its machines may be stopped, and which of them may be although a stop could hurt them. It
//! must never allow what the file does not name.

use std::collections::BTreeSet;

use super::fields::{Field, Group, nearest, parse_bool};
use super::report::Report;
use crate::model::{Hazard, ProviderKind};

/// What `power` says.
pub(super) struct Power {
    /// Whether a stop may cut the power. Default: no.
    pub(super) force_stop: bool,
    /// Machines with these hazards are stopped all the same. Default: none.
    pub(super) allow: BTreeSet<Hazard>,
}

/// Reads `power`. `spared` names the provider where nothing needs allowing: nobody is stopped there, or nothing is shown
/// that a stop could hurt.
pub(super) fn read(report: &mut Report, group: &Group<'_>, spared: Option<ProviderKind>) -> Power {
    let power = group.group(report, "power", &["force_stop", "allow"]);
    let force_stop = power.parse(report, "force_stop", parse_bool).unwrap_or(false);
    let Some(field) = power.get("allow") else { return Power { force_stop, allow: BTreeSet::new() } };
    let allow: BTreeSet<Hazard> = read_allow(report, &field);
    if let Some(provider) = spared.filter(|_| !allow.is_empty()) {
        report.note(
            &field.at,
            format!("has no effect: on {provider} no rotation stops a machine that a stop could hurt"),
        );
    }
    Power { force_stop, allow }
}

fn read_allow(report: &mut Report, field: &Field<'_>) -> BTreeSet<Hazard> {
    field.list(report).iter().filter_map(|item| item.parse(report, parse_hazard)).collect()
}

fn parse_hazard(text: &str) -> Result<Hazard, String> {
    let names = Hazard::ALL.map(Hazard::name);
    let found = Hazard::ALL.into_iter().find(|hazard| hazard.name() == text);
    found.ok_or_else(|| {
        let hint = nearest(text, &names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("{text:?} is nothing that a stop could hurt{hint} (known: {})", names.join(", "))
    })
}
