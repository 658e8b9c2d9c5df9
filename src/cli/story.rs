//! Journal entries in human words: what `rotate` prints as it goes, and what `show` tells afterwards. Pure. It must say
//! no more than the entry does.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{InstanceId, Power};
pub(super) use crate::rotation::batch_name;
use crate::rotation::{
    Allow, Call, Entry, Event, Found, OldKeyFound, Outcome, Part, Plan, PlannedInstance, Purpose, Step, Verify,
};

use super::output::{count, moment, some};

/// So many instances are named, and no more.
const NAMED: usize = 3;

/// Tells the entries of one journal, in their order. It knows what earlier ones said: which instance is in which batch,
/// which call a step made.
#[derive(Debug, Default)]
pub(super) struct Teller {
    batches: BTreeMap<InstanceId, u32>,
    calls: BTreeMap<Step, (Call, BTreeSet<InstanceId>)>,
    /// Those that we stopped: off for a moment only.
    stopped: BTreeSet<InstanceId>,
    /// Found switched off by a bind, and not by us: the key counts from their next boot.
    off: BTreeSet<InstanceId>,
}

impl Teller {
    /// One that knows the plan's batches.
    pub(super) fn of(instances: &[PlannedInstance]) -> Self {
        let batch = |instance: &PlannedInstance| match instance.part {
            Part::Batch(batch) => Some((instance.id.clone(), batch)),
            Part::Excluded(_) => None,
        };
        Self { batches: instances.iter().filter_map(batch).collect(), ..Self::default() }
    }

    /// One entry in words.
    pub(super) fn tell(&mut self, plan: &Plan, entry: &Entry) -> String {
        match &entry.event {
            Event::Planned { .. } => match plan {
                Plan::Rotate(plan) => match (plan.purpose(), plan.undoes) {
                    (Purpose::Rotate, _) if plan.compromised => {
                        format!("rotation of a compromised key begun, its key pair will be {}", plan.key_name)
                    }
                    (Purpose::Rotate, _) => format!("rotation begun, its key pair will be {}", plan.key_name),
                    (Purpose::Rollback, Some(undone)) => {
                        format!("rollback of rotation {undone} begun, to key pair {}", plan.key_name)
                    }
                    (purpose, _) => format!("{} begun, to key pair {}", purpose.name(), plan.key_name),
                },
                Plan::Retire(_) => "retiring begun".to_string(),
            },
            Event::Started { step, call, found } => {
                self.calls.insert(*step, (*call, found.iter().map(|found| found.instance.clone()).collect()));
                match call {
                    Call::Stop => self.stopped.extend(found.iter().map(|found| found.instance.clone())),
                    Call::Bind => {
                        let off =
                            found.iter().filter(|found| found.power == Power::Stopped).map(|found| &found.instance);
                        self.off.extend(off.filter(|id| !self.stopped.contains(*id)).cloned());
                    }
                    _ => {}
                }
                if let Some(batch) = step.batch() {
                    self.batches.extend(found.iter().map(|found| (found.instance.clone(), batch)));
                }
                started(*step, *call, found)
            }
            Event::Accepted { step, instances, .. } => {
                let asked = self.calls.get(step);
                let call = asked.map_or("call", |(call, _)| noun(*call));
                // Of all that were asked for: the line before names them.
                let all =
                    asked.is_some_and(|(_, asked)| instances.iter().collect::<BTreeSet<_>>() == asked.iter().collect());
                let whom = if all { String::new() } else { format!(" of {}", these(instances)) };
                format!("{}the cloud took the {call}{whom}", batch_of(step.batch()))
            }
            Event::Failed { step, instances, error, retry_at } => {
                let whom = if instances.is_empty() { String::new() } else { format!(" for {}", these(instances)) };
                let what = self.calls.get(step).map_or_else(|| doing(*step), |(call, _)| noun(*call));
                let batch = batch_of(step.batch());
                format!("{batch}{what} failed{whom}: {error}; not again before {}", moment(*retry_at))
            }
            Event::KeyStored { fingerprint, .. } if self.was_there(plan, Step::StoreKey) => {
                format!("its private key is in custody already, {fingerprint}")
            }
            Event::KeyStored { fingerprint, .. } => format!("private key kept in custody, {fingerprint}"),
            Event::KeyImported { key_pair } if is_strangers(plan) => {
                format!("key pair {key_pair} is there: a stranger's, nobody here has its private half")
            }
            Event::KeyImported { key_pair } if self.was_there(plan, Step::ImportKey) => {
                format!("key pair {key_pair} is in the cloud already")
            }
            Event::KeyImported { key_pair } => format!("key pair imported, the cloud calls it {key_pair}"),
            Event::Down { stopped, changing } => {
                let batch = self.batch(stopped.iter().chain(changing));
                let stopped = (!stopped.is_empty()).then(|| format!("{} stopped", these(stopped)));
                let changing = (!changing.is_empty()).then(|| format!("{} on the way down or up", these(changing)));
                format!("{batch}{}", stopped.into_iter().chain(changing).collect::<Vec<_>>().join(", "))
            }
            Event::Bound { instances } => {
                let ids: Vec<_> = instances.iter().map(|bound| bound.instance.clone()).collect();
                let off: Vec<_> = ids.iter().filter(|id| self.off.contains(*id)).cloned().collect();
                let off = match (off.len(), ids.len()) {
                    (0, _) => String::new(),
                    (some, all) if some == all => "; switched off, so the key counts from the next boot".to_string(),
                    _ => format!("; switched off, so the key counts from the next boot: {}", these(&off)),
                };
                format!("{}bound {}{off}", self.batch(&ids), these(&ids))
            }
            Event::Activated { instances } if is_to_be_proven(plan) => {
                let are = if instances.len() == 1 { "is" } else { "are" };
                let batch = self.batch(instances);
                format!("{batch}active: {} {are} bound and active, and to be proven by a login", these(instances))
            }
            Event::Activated { instances } => {
                let key = if is_new(plan) { "the new key" } else { "the key" };
                format!("{}active: {} {} {key}", self.batch(instances), these(instances), accept(instances.len()))
            }
            Event::Running { instances } => {
                format!("{}running again: {}", self.batch(instances), these(instances))
            }
            Event::Excluded { instances } => {
                let each = instances.iter().map(|excluded| format!("{}: {}", excluded.instance, excluded.reason));
                let batch = self.batch(instances.iter().map(|excluded| &excluded.instance));
                format!("{batch}excluded {}", some(each, NAMED))
            }
            Event::Pinned { hosts } => {
                let reached = hosts.iter().filter(|host| host.pin.is_some()).count();
                let anew: Vec<_> = hosts.iter().filter(|host| host.reimaged).map(|host| &host.instance).collect();
                let batch = self.batch(hosts.iter().map(|host| &host.instance));
                let anew = match anew.is_empty() {
                    true => String::new(),
                    false => format!("; re-imaged since it was last known: {}", some(anew, NAMED)),
                };
                let of = match (reached, hosts.len()) {
                    (0, 1) => "host key not read: the machine is off, or out of reach".to_string(),
                    (0, all) => format!("host keys read of none of {all} machines: off, or out of reach"),
                    (1, 1) => "host key read".to_string(),
                    (reached, all) if reached == all => format!("host keys read of {all} machines"),
                    (reached, all) => {
                        format!("host keys read of {reached} of {all} machines; the others are off, or out of reach")
                    }
                };
                format!("{batch}{of}{anew}")
            }
            Event::Verified { proofs } => {
                let ids: Vec<_> = proofs.iter().map(|proof| proof.instance.clone()).collect();
                let number = |found| proofs.iter().filter(|proof| proof.old_key == found).count();
                let old = match (number(OldKeyFound::Refused), number(OldKeyFound::Taken)) {
                    (0, 0) => String::new(),
                    (refused, 0) if refused == proofs.len() => "; the old one is refused".to_string(),
                    (refused, 0) => format!("; {refused} refuse the old one"),
                    (_, taken) => format!("; {taken} still take the old one"),
                };
                let how = match (is_strangers(plan), is_new(plan)) {
                    (true, _) => "offered the stranger's key, and taken by",
                    (false, true) => "logged in with the new key to",
                    (false, false) => "logged in with the key to",
                };
                format!("{}proven: {how} {}{old}", self.batch(&ids), these(&ids))
            }
            Event::Unproven { instances, why } => {
                format!("{}not reached for a login: {}: {why}", self.batch(instances), these(instances))
            }
            Event::Trusted { instance, host_key, note } => {
                format!("{} trusts {instance} by its new host key {host_key}{}", entry.by, noted(note))
            }
            Event::HookStarted { hook, batch } => format!("{}running the {} hook", batch_of(Some(*batch)), hook.name()),
            Event::HookEnded { hook, batch, failure } => {
                let came = failure.as_ref().map_or("is done".to_string(), |failure| format!("failed: {failure}"));
                format!("{}the {} hook {came}", batch_of(Some(*batch)), hook.name())
            }
            Event::Delivered { delivery } => format!("private key delivered: {}", delivery_of(plan, *delivery)),
            Event::Resumed { away_since } => {
                format!("taken up again; nobody had looked since {}", moment(*away_since))
            }
            Event::Gone { instances } => format!("{}gone from the cloud: {}", self.batch(instances), these(instances)),
            Event::Held { reason } => format!("HELD: {reason}"),
            Event::Released { note, allow } => {
                let allow = match allow {
                    Some(Allow::LeaveOff(id)) => format!(", {id} may stay switched off"),
                    Some(Allow::Undelivered) => ", undelivered as the key is".to_string(),
                    Some(Allow::Gone) => ", what is not shown is gone".to_string(),
                    Some(Allow::Destroy) => ", the private key may be destroyed without a login proof".to_string(),
                    None => String::new(),
                };
                format!("released by {}{allow}{}", entry.by, noted(note))
            }
            Event::AbandonRequested { note } => format!("given up by {}{}", entry.by, noted(note)),
            Event::GraceWaived { rotation } => {
                format!("soak and grace are over: rotation {rotation} replaces a compromised key")
            }
            Event::KeyPairDeleted => "key pair deleted, and nobody hangs on it".to_string(),
            Event::PrivateKeyDestroyed => "private key destroyed".to_string(),
            Event::Ended { outcome } => ended(plan, *outcome),
        }
    }

    /// Whether an earlier rotation made what this step makes sure of, and this one made nothing.
    fn was_there(&self, plan: &Plan, step: Step) -> bool {
        !is_new(plan) && !self.calls.contains_key(&step)
    }

    /// The batches of these instances, as a prefix; nothing where they are not known.
    fn batch<'a>(&self, instances: impl IntoIterator<Item = &'a InstanceId>) -> String {
        let batches: BTreeSet<u32> = instances.into_iter().filter_map(|id| self.batches.get(id).copied()).collect();
        match batches.first() {
            Some(batch) if batches.len() == 1 => batch_of(Some(*batch)),
            _ => String::new(),
        }
    }
}

/// What a journal is, in a word.
pub(super) fn kind(plan: &Plan) -> &'static str {
    match plan {
        Plan::Rotate(plan) => plan.purpose().name(),
        Plan::Retire(_) => "retirement",
    }
}

/// A step in words, as something that is going on.
pub(super) fn doing(step: Step) -> &'static str {
    match step {
        Step::StoreKey => "making the key",
        Step::ImportKey => "importing the public key",
        Step::Settle(_) => "looking at what is under way",
        Step::Activate(_) => "starting what is owed a start, and making the key active",
        Step::Prepare(_) => "stopping machines",
        Step::Bind(_) => "binding the key pair",
        Step::Verify(_) => "proving by logins",
        Step::BeforeBatch(_) => "running the before_batch hook",
        Step::AfterBatch(_) => "running the after_batch hook",
        Step::Deliver => "delivering the private key",
        Step::RetireKeyPair => "deleting the key pair",
        Step::DestroyPrivateKey => "destroying the private key",
    }
}

fn batch_of(batch: Option<u32>) -> String {
    batch.map(|batch| format!("{}: ", batch_name(batch))).unwrap_or_default()
}

fn started(step: Step, call: Call, found: &[Found]) -> String {
    let ids: Vec<_> = found.iter().map(|found| found.instance.clone()).collect();
    let batch = batch_of(step.batch());
    match call {
        Call::Put => "making a key pair".to_string(),
        Call::Import => "importing the public key".to_string(),
        Call::Stop => format!("{batch}stopping {}", these(&ids)),
        Call::Bind => format!("{batch}binding {}", these(&ids)),
        Call::Start => format!("{batch}starting {}", these(&ids)),
        Call::Reboot => format!("{batch}rebooting {}", these(&ids)),
        Call::Deliver => "delivering the private key".to_string(),
        Call::Delete => "deleting the key pair".to_string(),
        Call::Destroy => "destroying the private key".to_string(),
    }
}

fn noun(call: Call) -> &'static str {
    match call {
        Call::Put => "keeping",
        Call::Deliver => "delivery",
        Call::Delete => "deletion",
        Call::Destroy => "destruction",
        other => other.name(),
    }
}

/// A delivery by what it is and where to.
fn delivery_of(plan: &Plan, number: u32) -> String {
    match plan {
        Plan::Rotate(plan) => plan.policy.deliver.get(number as usize).map(ToString::to_string).unwrap_or_default(),
        Plan::Retire(_) => String::new(),
    }
}

fn ended(plan: &Plan, outcome: Outcome) -> String {
    match (plan, outcome) {
        (Plan::Rotate(plan), outcome) => format!("{} {outcome}", plan.purpose().name()),
        (Plan::Retire(_), Outcome::Recalled) => {
            "retirement ended: a later rotation binds the key pair again, and nothing more is deleted".to_string()
        }
        (Plan::Retire(_), Outcome::Kept) => {
            "retirement ended: the private key is kept, as no login proved the new one".to_string()
        }
        (Plan::Retire(_), outcome) => format!("retirement ended: {outcome}"),
    }
}

fn is_strangers(plan: &Plan) -> bool {
    matches!(plan, Plan::Rotate(plan) if plan.key.is_strangers())
}

fn is_new(plan: &Plan) -> bool {
    matches!(plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate)
}

/// Whether a login is to show that a machine takes the key: until then that it is active is the cloud's word.
fn is_to_be_proven(plan: &Plan) -> bool {
    matches!(plan, Plan::Rotate(plan) if matches!(plan.policy.verify, Verify::Ssh(_)) && plan.can_prove())
}

fn these(ids: &[InstanceId]) -> String {
    match ids.len() {
        0..=NAMED => some(ids, NAMED),
        many => count(many, "instance"),
    }
}

fn accept(number: usize) -> &'static str {
    if number == 1 { "accepts" } else { "accept" }
}

fn noted(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}
