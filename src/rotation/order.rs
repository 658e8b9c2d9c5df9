//! What a person may order of a journal, and the entries that say so. Pure: it decides on the folded state, and refuses
//! what the fold would not take or what would do nothing. It must never write: who does, appends right behind this state.

use crate::model::{InstanceId, JournalId};

use super::event::Event;
use super::reason::{Allow, HoldReason, Outcome};
use super::retire::Retirement;
use super::state::Rotation;

/// What a person orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// No new prepare, bind or reboot; starts and looks go on.
    Hold {
        /// Why, in their words.
        note: String,
    },
    /// Go on.
    Release {
        /// Why, in their words.
        note: String,
        /// What is allowed besides.
        allow: Vec<Allow>,
    },
    /// Believe the host key that a machine showed, and go on.
    Trust {
        /// The machine.
        instance: InstanceId,
        /// Why, in their words.
        note: String,
    },
    /// Wait for neither soak nor grace: the key that it retires may be in wrong hands.
    WaiveGrace {
        /// The rotation that replaces it.
        rotation: JournalId,
    },
    /// Give it up: it ends once nothing is in flight and no start is owed.
    Abandon {
        /// Why, in their words.
        note: String,
    },
}

/// Why an order is not taken: the rule, and the way on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

fn refused<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(why.into()))
}

impl Rotation {
    /// The entries of an order; none if it is so already.
    pub fn order(&self, order: &Order) -> Result<Vec<Event>, Refusal> {
        if let Some((_, outcome)) = self.ended {
            return refused(format!("rotation {} has ended ({outcome})", self.id));
        }
        match order {
            Order::Hold { .. } if self.held.is_some() || self.abandoned => Ok(Vec::new()),
            Order::Hold { note } => Ok(vec![Event::Held { reason: HoldReason::Operator { note: note.clone() } }]),
            Order::Abandon { .. } if self.abandoned => Ok(Vec::new()),
            Order::Abandon { note } => Ok(vec![Event::AbandonRequested { note: note.clone() }]),
            Order::WaiveGrace { .. } => refused(format!("{} is a rotation, and has no grace to wait out", self.id)),
            Order::Release { note, allow } => self.release_entries(note, allow),
            Order::Trust { instance, note } => self.trust_entries(instance, note),
        }
    }

    fn trust_entries(&self, instance: &InstanceId, note: &str) -> Result<Vec<Event>, Refusal> {
        match &self.held {
            Some(HoldReason::WrongHost { instance: held, seen, .. }) if held == instance => Ok(vec![
                Event::Trusted { instance: instance.clone(), host_key: seen.clone(), note: note.to_string() },
                Event::Released { note: note.to_string(), allow: None },
            ]),
            Some(HoldReason::WrongHost { instance: held, .. }) => {
                refused(format!("rotation {} is held for the host key of {held}, not of {instance}", self.id))
            }
            _ => refused(format!("rotation {} is not held for a host key: there is nothing to trust", self.id)),
        }
    }

    fn release_entries(&self, note: &str, allow: &[Allow]) -> Result<Vec<Event>, Refusal> {
        // Who is not shown may be waited for without a hold.
        let gone = allow.contains(&Allow::Gone);
        if self.held.is_none() && !gone {
            return refused(match self.abandoned {
                true => format!("rotation {} was given up, and is not held", self.id),
                false => format!("rotation {} is not held", self.id),
            });
        }
        let mut left_off: Vec<InstanceId> = Vec::new();
        let undelivered = allow.contains(&Allow::Undelivered);
        if undelivered && self.to_deliver().is_none() {
            return refused(format!("nothing is left to be delivered by rotation {}", self.id));
        }
        for allow in allow {
            match allow {
                Allow::Destroy => {
                    return refused(format!(
                        "--allow=destroy is for the retire journal of a superseded key pair; {} is a rotation",
                        self.id
                    ));
                }
                Allow::LeaveOff(id) if self.member(id).is_none() => {
                    return refused(format!("{id} is not in a batch of rotation {}", self.id));
                }
                Allow::LeaveOff(id) if self.member(id).is_none_or(|member| member.owed.is_none()) => {
                    return refused(format!("no start is owed to {id}: there is nothing to leave off"));
                }
                Allow::LeaveOff(id) => left_off.push(id.clone()),
                Allow::Undelivered | Allow::Gone => {}
            }
        }
        left_off.sort();
        left_off.dedup();
        let release = |allow| Event::Released { note: note.to_string(), allow };
        let mut entries: Vec<Event> = left_off.into_iter().map(|id| release(Some(Allow::LeaveOff(id)))).collect();
        entries.extend(undelivered.then(|| release(Some(Allow::Undelivered))));
        entries.extend(gone.then(|| release(Some(Allow::Gone))));
        if entries.is_empty() {
            entries.push(release(None));
        }
        Ok(entries)
    }
}

impl Retirement {
    /// The entries of an order; none if it is so already.
    pub fn order(&self, order: &Order) -> Result<Vec<Event>, Refusal> {
        let allows = |what: Allow| matches!(order, Order::Release { allow, .. } if allow.contains(&what));
        let (destroys, gone) = (allows(Allow::Destroy), allows(Allow::Gone));
        match self.ended {
            Some((_, Outcome::Kept)) if destroys => {}
            Some((_, outcome)) => return refused(format!("retire journal {} has ended ({outcome})", self.id)),
            None => {}
        }
        match order {
            Order::Hold { .. } if self.held.is_some() => Ok(Vec::new()),
            Order::Hold { note } => Ok(vec![Event::Held { reason: HoldReason::Operator { note: note.clone() } }]),
            Order::WaiveGrace { .. } if self.grace_waived => Ok(Vec::new()),
            Order::WaiveGrace { rotation } => Ok(vec![Event::GraceWaived { rotation: *rotation }]),
            Order::Trust { .. } => refused(format!("{} is a retire journal, and logs in nowhere", self.id)),
            Order::Abandon { .. } => {
                refused(format!("{} is a retire journal, which is not given up: hold it, or let it end", self.id))
            }
            Order::Release { note, allow } => {
                if let Some(Allow::LeaveOff(id)) = allow.iter().find(|allow| matches!(allow, Allow::LeaveOff(_))) {
                    return refused(format!("{} is a retire journal: no start is owed to {id} in it", self.id));
                }
                if allow.contains(&Allow::Undelivered) {
                    return refused(format!("{} is a retire journal, and delivers nothing", self.id));
                }
                let release = |allow| Event::Released { note: note.clone(), allow };
                let allowed = [destroys.then_some(Allow::Destroy), gone.then_some(Allow::Gone)].into_iter().flatten();
                let mut entries: Vec<Event> = allowed.map(|allow| release(Some(allow))).collect();
                if entries.is_empty() && self.held.is_none() {
                    return refused(format!("retire journal {} is not held", self.id));
                }
                if entries.is_empty() {
                    entries.push(release(None));
                }
                Ok(entries)
            }
        }
    }
}
