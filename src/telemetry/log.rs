//! The daemon's log: one line a journal entry. It must say no more than the entry does.

use std::fmt::{self, Write as _};

use tracing::Level;

use crate::engine::Observer;
use crate::model::{InstanceId, JournalId};
use crate::rotation::{Allow, Author, Entry, Event, Exclusion, HoldReason, Plan, Step};

pub use super::look::{FilterError, Format, Look, init};

/// Writes one line an entry, under the target `rekeyd::journal`: what failed or was excluded as a warning, a hold as an
/// error, all else as information.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

/// So many instances are named in a line.
const NAMED: usize = 20;
/// So many exclusions are explained in a line.
const EXPLAINED: usize = 3;

impl Observer for Log {
    fn recorded(&self, id: JournalId, plan: &Plan, entry: &Entry) {
        let level = match &entry.event {
            Event::Held { .. } => Level::ERROR,
            Event::Failed { .. } | Event::Excluded { .. } | Event::HookEnded { failure: Some(_), .. } => Level::WARN,
            _ => Level::INFO,
        };
        let way_on = match (&entry.event, &entry.by) {
            (Event::Held { reason }, Author::Engine(_)) => format!("; {}", reason.way_on(id)),
            _ => String::new(),
        };
        macro_rules! line {
            ($level:expr) => {
                if tracing::enabled!(target: "rekeyd::journal", $level) {
                    let about = About::of(&entry.event);
                    tracing::event!(
                        target: "rekeyd::journal",
                        $level,
                        fleet = plan.fleet().as_str(),
                        rotation = %id,
                        instance = some(&about.instances, NAMED).as_deref(),
                        step = about.step.map(Step::name),
                        action = about.action,
                        request_id = about.request_id,
                        "{}{way_on}",
                        words(plan, entry)
                    )
                }
            };
        }
        match level {
            Level::ERROR => line!(Level::ERROR),
            Level::WARN => line!(Level::WARN),
            _ => line!(Level::INFO),
        }
    }
}

/// What an event is about.
#[derive(Debug, Default, PartialEq, Eq)]
struct About<'a> {
    instances: Vec<&'a InstanceId>,
    step: Option<Step>,
    /// The call, or the cloud's action of an error.
    action: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl<'a> About<'a> {
    fn of(event: &'a Event) -> Self {
        let instances = |all: &'a [InstanceId]| all.iter().collect();
        match event {
            Event::Started { step, call, found } => Self {
                instances: found.iter().map(|found| &found.instance).collect(),
                step: Some(*step),
                action: Some(call.name()),
                request_id: None,
            },
            Event::Accepted { step, instances: all, request_id } => Self {
                instances: instances(all),
                step: Some(*step),
                request_id: request_id.as_deref(),
                ..Self::default()
            },
            Event::Failed { step, instances: all, error, .. } => Self {
                instances: instances(all),
                step: Some(*step),
                action: Some(&error.action),
                request_id: error.request_id.as_deref(),
            },
            Event::Down { stopped, changing } => {
                Self { instances: stopped.iter().chain(changing).collect(), ..Self::default() }
            }
            Event::Bound { instances } => {
                Self { instances: instances.iter().map(|bound| &bound.instance).collect(), ..Self::default() }
            }
            Event::Activated { instances: all }
            | Event::Running { instances: all }
            | Event::Gone { instances: all } => Self { instances: instances(all), ..Self::default() },
            Event::Excluded { instances } => {
                let error = instances.iter().find_map(|excluded| match &excluded.reason {
                    Exclusion::Refused(error) => Some(error),
                    _ => None,
                });
                Self {
                    instances: instances.iter().map(|excluded| &excluded.instance).collect(),
                    step: None,
                    action: error.map(|error| error.action.as_str()),
                    request_id: error.and_then(|error| error.request_id.as_deref()),
                }
            }
            Event::Held { reason: HoldReason::Step { step, error } } => Self {
                instances: Vec::new(),
                step: Some(*step),
                action: Some(&error.action),
                request_id: error.request_id.as_deref(),
            },
            Event::Held { reason: HoldReason::StartRefused { instances: all } } => {
                Self { instances: instances(all), ..Self::default() }
            }
            Event::Released { allow: Some(Allow::LeaveOff(id)), .. } => Self { instances: vec![id], ..Self::default() },
            _ => Self::default(),
        }
    }
}

/// The first few of many, and how many more; `None` of none.
fn some<T: fmt::Display>(all: &[T], shown: usize) -> Option<String> {
    let (first, rest) = all.split_first()?;
    let mut text = first.to_string();
    for one in rest.iter().take(shown - 1) {
        let _ = write!(text, ",{one}");
    }
    if all.len() > shown {
        let _ = write!(text, " and {} more", all.len() - shown);
    }
    Some(text)
}

/// An entry in words: the event's name, and what else counts.
fn words(plan: &Plan, entry: &Entry) -> String {
    let name = entry.event.name();
    let instances = |count: usize| if count == 1 { "1 instance".to_string() } else { format!("{count} instances") };
    let of = |count: usize| if count == 0 { String::new() } else { format!(" of {}", instances(count)) };
    let noted = |note: &str| if note.is_empty() { String::new() } else { format!(": {note}") };
    match &entry.event {
        Event::Planned { .. } => match plan {
            Plan::Rotate(plan) => format!("{name}: {} to key pair {}", plan.purpose().name(), plan.key_name),
            Plan::Retire(plan) => format!("{name}: retirement of key pair {}", plan.key_name),
        },
        Event::Started { step, call, found } => format!("{name}: {step}, {}{}", call.name(), of(found.len())),
        Event::Accepted { step, instances, .. } => format!("{name}: {step}, call{}", of(instances.len())),
        Event::Failed { step, instances, error, retry_at } => {
            format!("{name}: {step}{}: {error}; not again before {retry_at:.0}", of(instances.len()))
        }
        Event::KeyStored { fingerprint, .. } => format!("{name}: {fingerprint}"),
        Event::KeyImported { key_pair } => format!("{name}: {key_pair}"),
        Event::Down { stopped, changing } => format!("{name}: {} stopped, {} changing", stopped.len(), changing.len()),
        Event::Bound { instances: all } => format!("{name}: {}", instances(all.len())),
        Event::Activated { instances: all } | Event::Running { instances: all } | Event::Gone { instances: all } => {
            format!("{name}: {}", instances(all.len()))
        }
        Event::Pinned { hosts } => format!("{name}: host keys of {}", instances(hosts.len())),
        Event::Verified { proofs } => format!("{name}: {}", instances(proofs.len())),
        Event::Unproven { instances: all, why } => format!("{name}: {}: {why}", instances(all.len())),
        Event::Trusted { instance, .. } => format!("{name} by {}: {instance}", entry.by),
        Event::HookStarted { hook, batch } => format!("{name}: {} of batch {batch}", hook.name()),
        Event::HookEnded { hook, batch, failure } => {
            let failure = failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
            format!("{name}: {} of batch {batch}{failure}", hook.name())
        }
        Event::Delivered { delivery } => match plan {
            Plan::Rotate(plan) => {
                let to = plan.policy.deliver.get(*delivery as usize).map(ToString::to_string).unwrap_or_default();
                format!("{name}: {to}")
            }
            Plan::Retire(_) => name.to_string(),
        },
        Event::Resumed { away_since } => format!("{name}: nobody drove it since {away_since:.0}"),
        Event::Excluded { instances } => {
            let each: Vec<String> = instances.iter().map(|one| format!("{}: {}", one.instance, one.reason)).collect();
            format!("{name}: {}", some(&each, EXPLAINED).unwrap_or_default())
        }
        Event::Held { reason } => match &entry.by {
            Author::Operator(_) => format!("{name} by {}: {reason}", entry.by),
            Author::Engine(_) => format!("{name}: {reason}"),
        },
        Event::Released { note, allow } => {
            let allow = match allow {
                Some(Allow::LeaveOff(id)) => format!(", {id} may stay switched off"),
                Some(Allow::Undelivered) => ", undelivered as the key is".to_string(),
                Some(Allow::Gone) => ", what is not shown is gone".to_string(),
                Some(Allow::Destroy) => ", the private key may be destroyed without a login proof".to_string(),
                None => String::new(),
            };
            format!("{name} by {}{allow}{}", entry.by, noted(note))
        }
        Event::AbandonRequested { note } => format!("{name} by {}{}", entry.by, noted(note)),
        Event::GraceWaived { rotation } => format!("{name}: {}, for rotation {rotation}", plan.key_name()),
        Event::KeyPairDeleted | Event::PrivateKeyDestroyed => format!("{name}: {}", plan.key_name()),
        Event::Ended { outcome } => format!("{name}: {outcome}"),
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
