//! What the daemon is doing, in one line for `systemctl status`: its fleets, each open rotation and its phase, who is held
//! and since when. It hears the engine; it must never steer it, nor tell what a cloud or a person wrote.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::engine::{Observer, View};
use crate::model::{FleetName, JournalId, Timestamp};
use crate::rotation::{Entry, Plan, Rotation};

/// So many rotations are told of; the service manager takes lines of 4 KiB.
const SHOWN: usize = 12;

/// How each open journal stands.
#[derive(Debug, Default)]
pub(super) struct Doing(Mutex<BTreeMap<JournalId, Stand>>);

/// How a journal stands, as of an entry of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    Rotation { seq: u64, fleet: FleetName, held: bool, words: String },
    Retiring { held: bool },
}

impl Doing {
    /// All of it, in one line.
    pub(super) fn words(&self) -> String {
        words(self.0.lock().unwrap_or_else(PoisonError::into_inner).values())
    }
}

impl Observer for Doing {
    fn recorded(&self, _: JournalId, _: &Plan, _: &Entry) {}

    fn turned(&self, id: JournalId, view: View<'_>, now: Timestamp) {
        let mut stands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stand = match view {
            View::Rotation { rotation, .. } if rotation.ended.is_none() => {
                if matches!(stands.get(&id), Some(Stand::Rotation { seq, .. }) if *seq == rotation.seq) {
                    return;
                }
                Some(Stand::Rotation {
                    seq: rotation.seq,
                    fleet: rotation.plan.fleet.clone(),
                    held: rotation.held.is_some(),
                    words: phase(rotation, now),
                })
            }
            View::Retirement { retirement, .. } if retirement.ended.is_none() => {
                Some(Stand::Retiring { held: retirement.held.is_some() })
            }
            _ => None,
        };
        match stand {
            Some(stand) => stands.insert(id, stand),
            None => stands.remove(&id),
        };
    }
}

/// How far a rotation is, and what it is about or waits for.
fn phase(rotation: &Rotation, now: Timestamp) -> String {
    let done = rotation.members().filter(|(_, member)| member.is_done()).count();
    let mut words = match (&rotation.held, rotation.held_since) {
        (Some(reason), Some(since)) => format!("held since {since:.0} ({})", reason.kind()),
        _ if rotation.abandoned => "being given up".to_string(),
        _ => {
            let next = rotation.next(now);
            match (next.run.first(), next.wake) {
                (Some(step), _) => match step.batch() {
                    Some(0) => format!("{}, canary", step.name()),
                    Some(batch) => format!("{}, batch {batch} of {}", step.name(), rotation.batch_count() - 1),
                    None => step.name().to_string(),
                },
                (None, Some(wake)) => format!("waiting until {wake:.0}"),
                (None, None) => "ending".to_string(),
            }
        }
    };
    let _ = write!(words, ", {done} of {} done", rotation.members().count());
    if rotation.owed() > 0 {
        let _ = write!(words, ", {} owed a start", rotation.owed());
    }
    words
}

/// Who is held first.
fn words<'a>(stands: impl Iterator<Item = &'a Stand>) -> String {
    let (mut rotations, mut retiring, mut stuck) = (Vec::new(), 0, 0);
    for stand in stands {
        match stand {
            Stand::Rotation { fleet, held, words, .. } => rotations.push((!held, fleet, words)),
            Stand::Retiring { held: false } => retiring += 1,
            Stand::Retiring { held: true } => stuck += 1,
        }
    }
    rotations.sort();
    let mut text = if rotations.is_empty() { "; no rotation is open".to_string() } else { String::new() };
    for (_, fleet, words) in rotations.iter().take(SHOWN) {
        let _ = write!(text, "; {fleet}: {words}");
    }
    if rotations.len() > SHOWN {
        let _ = write!(text, "; and {} more", rotations.len() - SHOWN);
    }
    for (number, what) in [(retiring, "being retired"), (stuck, "whose retirement is held")] {
        if number > 0 {
            let _ = write!(text, "; key pairs {what}: {number}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_held_comes_first_and_many_are_counted() {
        let rotation = |fleet: &str, held| Stand::Rotation { seq: 1, fleet: fleet.into(), held, words: "w".into() };
        let check = |stands: &[Stand], expect: &str| assert_eq!(words(stands.iter()), expect);
        check(&[], "; no rotation is open");
        check(&[rotation("a", false), rotation("b", true)], "; b: w; a: w");
        let retiring =
            [Stand::Retiring { held: false }, Stand::Retiring { held: false }, Stand::Retiring { held: true }];
        check(&retiring, "; no rotation is open; key pairs being retired: 2; key pairs whose retirement is held: 1");
        let many: Vec<Stand> = (0..14).map(|number| rotation(&format!("f{number:02}"), false)).collect();
        assert!(words(many.iter()).ends_with("; f11: w; and 2 more"));
    }
}
