//! What a rotation's journal adds up to. `apply` is the only thing that changes it, one entry at a time, at the same cost
//! for 100 instances and 100,000. It must never ask the clock: what depends on now is asked with `now`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Disruption;
use crate::model::error::{Blame, Effect};
use crate::model::{Fingerprint, InstanceId, JournalId, KeyPairId, Pin, PublicKey, Timestamp};

use super::budget::Budget;
use super::event::{Call, Entry, Event, OldKeyFound, Proof, Step};
use super::hook::Hooked;
use super::member::Member;
use super::plan::{KeySource, OldKey, Part, PlannedInstance, RotatePlan, Verify};
use super::policy::Retry;
use super::reason::{Allow, Exclusion, HoldReason, Outcome};

/// An entry that cannot follow what stands before it: the journal cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} cannot stand there: {problem}")]
pub struct IllegalEvent {
    /// Its number.
    pub seq: u64,
    /// Why not.
    pub problem: String,
}

/// A rotation's state: its journal, folded.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The journal.
    pub id: JournalId,
    /// The frozen plan.
    pub plan: RotatePlan,
    /// When it began.
    pub begun: Timestamp,
    /// The newest entry.
    pub seq: u64,
    /// When it was written.
    pub last_at: Timestamp,
    /// The public key, once its private half is in custody; of a stranger's pair, if the cloud shows it.
    pub key: Option<(PublicKey, Fingerprint)>,
    /// When that was.
    pub key_stored: Option<Timestamp>,
    /// The pair's handle, once imported, and when that was.
    pub key_pair: Option<(Timestamp, KeyPairId)>,
    /// When an import was asked for whose answer is not known: it may still land.
    pub importing: Option<Timestamp>,
    /// When a person last allowed to take what is not shown for gone.
    pub gone_allowed: Option<Timestamp>,
    /// Why it is held.
    pub held: Option<HoldReason>,
    /// Since when; only while it is.
    pub held_since: Option<Timestamp>,
    /// An operator gave it up.
    pub abandoned: bool,
    /// How and when it ended.
    pub ended: Option<(Timestamp, Outcome)>,
    pub(super) members: BTreeMap<InstanceId, Member>,
    pub(super) batches: Vec<Vec<InstanceId>>,
    /// The first batch that is not done; the number of batches when all are.
    pub(super) current: usize,
    /// When the batch before the current one was done, or the key imported.
    pub(super) current_since: Option<Timestamp>,
    /// When it was taken up again after nobody had driven it: no deadline counts the time before.
    pub(super) resumed: Option<Timestamp>,
    /// Batches in which something is under way.
    pub(super) busy: BTreeSet<u32>,
    pub(super) retries: BTreeMap<Step, Retry>,
    pub(super) budget: Budget,
    pub(super) hooked: Hooked,
    /// Machines found to take their old key still, since the last release, where the plan refuses that.
    pub(super) old_keys_taken: u32,
    pub(super) owed: u32,
    /// Which deliveries were made, or are not to be made any more.
    pub(super) delivered: BTreeSet<u32>,
}

impl Rotation {
    /// The state of a journal by its plan, its instances and its entries.
    pub fn fold(
        id: JournalId,
        plan: RotatePlan,
        instances: &[PlannedInstance],
        entries: &[Entry],
    ) -> Result<Self, IllegalEvent> {
        let mut members = BTreeMap::new();
        let mut batches: Vec<Vec<InstanceId>> = Vec::new();
        for instance in instances {
            if let Part::Batch(batch) = instance.part {
                let index = batch as usize;
                if batches.len() <= index {
                    batches.resize_with(index + 1, Vec::new);
                }
                batches[index].push(instance.id.clone());
                let mut member = Member::new(batch, instance, plan.can_prove());
                // What somebody bound since the plan of a way back was made is not bound over.
                member.expected = plan.undoes.map(|_| instance.keys.clone());
                members.insert(instance.id.clone(), member);
            }
        }
        let key = match &plan.key {
            KeySource::Stranger { public_key: Some(key), .. } => Some((key.clone(), key.fingerprint())),
            _ => None,
        };
        let mut rotation = Self {
            id,
            plan,
            begun: Timestamp::MIN,
            seq: 0,
            last_at: Timestamp::MIN,
            key,
            key_stored: None,
            key_pair: None,
            importing: None,
            gone_allowed: None,
            held: None,
            held_since: None,
            abandoned: false,
            ended: None,
            members,
            batches,
            current: 0,
            current_since: None,
            resumed: None,
            busy: BTreeSet::new(),
            retries: BTreeMap::new(),
            budget: Budget::default(),
            hooked: Hooked::default(),
            old_keys_taken: 0,
            owed: 0,
            delivered: BTreeSet::new(),
        };
        for entry in entries {
            rotation.apply(entry)?;
        }
        Ok(rotation)
    }

    /// The instances of the plan's batches.
    pub fn members(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members.iter()
    }
    /// One instance of the plan's batches.
    pub fn member(&self, id: &InstanceId) -> Option<&Member> {
        self.members.get(id)
    }
    /// The instances of one batch.
    pub fn batch(&self, batch: u32) -> &[InstanceId] {
        self.batches.get(batch as usize).map(Vec::as_slice).unwrap_or_default()
    }
    /// The number of batches.
    pub fn batch_count(&self) -> usize {
        self.batches.len()
    }
    /// Whether no new prepare, bind or reboot may begin.
    pub fn is_halted(&self) -> bool {
        self.held.is_some() || self.abandoned
    }
    /// Failures in a row of a step as a whole.
    pub fn retry(&self, step: Step) -> Option<&Retry> {
        self.retries.get(&step)
    }
    /// Takes one more entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        let illegal = |problem: &str| Err(IllegalEvent { seq: entry.seq, problem: problem.to_string() });
        if entry.seq != self.seq + 1 {
            return illegal("it does not follow the entry before it");
        }
        if entry.at < self.last_at {
            return illegal("its time runs back");
        }
        if self.ended.is_some() {
            return illegal("the journal has ended");
        }
        if (entry.seq == 1) != matches!(entry.event, Event::Planned { .. }) {
            return illegal("the plan stands first, and only there");
        }
        if let Some(stranger) = entry.event.named().find(|id| !self.members.contains_key(*id)) {
            return illegal(&format!("{stranger} is not in the plan"));
        }
        self.seq = entry.seq;
        self.last_at = entry.at;
        self.take(entry.at, &entry.event);
        let touched: BTreeSet<u32> = entry.event.named().filter_map(|id| Some(self.members.get(id)?.batch)).collect();
        for batch in touched {
            self.recount(batch);
        }
        self.advance(entry.at);
        Ok(())
    }

    fn take(&mut self, at: Timestamp, event: &Event) {
        self.budget.hear(event, self.plan.can_prove());
        match event {
            Event::Planned { .. } => self.begun = at,
            Event::Started { step, call, found } => {
                if *call == Call::Import {
                    self.importing = Some(at);
                }
                if let (Some(batch), Call::Stop | Call::Bind | Call::Reboot) = (step.batch(), call) {
                    self.hooked.touch(batch);
                }
                for found in found {
                    self.change(&found.instance, |member| member.start(at, *call, found));
                }
            }
            Event::Accepted { step, instances, request_id } => {
                self.retries.remove(step);
                for id in instances {
                    self.change(id, |member| member.accept(at, request_id.as_deref()));
                }
            }
            Event::Failed { step, instances, error, retry_at } => {
                if *step == Step::ImportKey && error.effect == Effect::NotDone {
                    self.importing = None;
                }
                let alone = instances.len() == 1;
                if error.blame != Blame::Instance || !alone {
                    Retry::count(&mut self.retries, *step, at, *retry_at, error);
                }
                for id in instances {
                    self.change(id, |member| member.fail(at, *retry_at, error, alone));
                }
            }
            Event::KeyStored { public_key, fingerprint } => {
                self.retries.remove(&Step::StoreKey);
                self.key = Some((public_key.clone(), fingerprint.clone()));
                self.key_stored = Some(at);
            }
            Event::KeyImported { key_pair } => {
                self.retries.remove(&Step::ImportKey);
                self.key_pair = Some((at, key_pair.clone()));
                self.importing = None;
                self.current_since = Some(at);
                // Now there is something that those may be seen on who were bound by an earlier journal.
                self.members.values_mut().for_each(|member| member.begin(at));
                (0..self.batches.len() as u32).for_each(|batch| self.recount(batch));
            }
            Event::Down { stopped, changing } => {
                for id in stopped {
                    self.change(id, |member| member.see_down(true));
                }
                for id in changing {
                    self.change(id, |member| member.see_down(false));
                }
            }
            Event::Bound { instances } => {
                let ours = self.key_pair.as_ref().map(|(_, id)| id.clone());
                let own_reboot = self.plan.disruption == Disruption::RebootsInstance;
                for bound in instances {
                    self.change(&bound.instance, |member| member.bind(at, bound, ours.clone(), own_reboot));
                }
            }
            Event::Activated { instances } => {
                for id in instances {
                    self.change(id, |member| member.activate(at));
                }
            }
            Event::Pinned { hosts } => {
                for host in hosts {
                    self.change(&host.instance, |member| {
                        member.pin_asked = true;
                        member.reached |= host.pin.is_some();
                        member.pin = host.pin.clone().or(member.pin.take());
                    });
                }
            }
            Event::Verified { proofs } => {
                for proof in proofs {
                    self.old_keys_taken += u32::from(self.takes_old_key(proof));
                    self.change(&proof.instance, |member| {
                        member.pin = Some(Pin { host_key: proof.host_key.clone(), image: proof.image.clone() });
                        member.proof = Some(proof.clone());
                        member.proven_at = Some(at);
                    });
                }
            }
            Event::Unproven { instances, .. } => {
                for id in instances {
                    self.change(id, |member| member.late = true);
                }
            }
            Event::Trusted { instance, host_key, .. } => self.change(instance, |member| {
                member.pin = Some(Pin { host_key: host_key.clone(), image: None });
                // It gets its time again.
                member.active_at = member.active_at.map(|_| at);
            }),
            Event::Running { instances } => {
                for id in instances {
                    self.change(id, Member::see_running);
                }
            }
            Event::Excluded { instances } => {
                for excluded in instances {
                    let is_new = self.members.get(&excluded.instance).is_some_and(|member| member.excluded.is_none());
                    self.budget.fail(is_new);
                    self.change(&excluded.instance, |member| {
                        member.excluded.get_or_insert((at, excluded.reason.clone()));
                        // What was refused before is no reason not to start it now.
                        member.retry = None;
                    });
                }
            }
            Event::Resumed { .. } => self.resumed = Some(at),
            Event::HookStarted { hook, batch } => self.hooked.start(*hook, *batch),
            Event::HookEnded { hook, batch, failure } => {
                self.hooked.end(*hook, *batch, failure.as_ref());
                // What waited for it is not late for that.
                self.resumed = Some(at);
            }
            Event::Delivered { delivery } => {
                self.retries.remove(&Step::Deliver);
                self.delivered.insert(*delivery);
            }
            Event::Gone { instances } => {
                for id in instances {
                    self.change(id, |member| {
                        member.gone = true;
                        member.owed = None;
                        member.pending = None;
                    });
                }
            }
            Event::Held { reason } => (self.held, self.held_since) = (Some(reason.clone()), Some(at)),
            Event::Released { allow, .. } => self.release(at, allow.as_ref()),
            Event::AbandonRequested { .. } => self.abandoned = true,
            Event::Ended { outcome } => self.ended = Some((at, *outcome)),
            // A retire journal's: the store keeps them apart, the fold has nothing to learn from them.
            Event::GraceWaived { .. } | Event::KeyPairDeleted | Event::PrivateKeyDestroyed => {}
        }
    }

    /// Whether a machine was found to take its old key still, where the plan refuses that.
    fn takes_old_key(&self, proof: &Proof) -> bool {
        let refuses = matches!(&self.plan.policy.verify, Verify::Ssh(login) if login.old_key == OldKey::Refuse);
        refuses && proof.old_key == OldKeyFound::Taken
    }

    fn release(&mut self, at: Timestamp, allow: Option<&Allow>) {
        self.retries.clear();
        if allow == Some(&Allow::Gone) {
            self.gone_allowed = Some(at);
            if !self.held.as_ref().is_some_and(HoldReason::is_strange) {
                return;
            }
        }
        (self.held, self.held_since) = (None, None);
        self.budget.release();
        self.hooked.release();
        self.old_keys_taken = 0;
        if let Some(since) = &mut self.current_since {
            *since = (*since).max(at);
        }
        let batches: BTreeSet<usize> = self.busy.iter().map(|batch| *batch as usize).chain([self.current]).collect();
        for id in batches.iter().filter_map(|batch| self.batches.get(*batch)).flatten() {
            if let Some(member) = self.members.get_mut(id) {
                member.retry = None;
            }
        }
        match allow {
            Some(Allow::Undelivered) => self.delivered.extend(0..self.plan.policy.deliver.len() as u32),
            Some(Allow::LeaveOff(id)) => self.change(id, |member| {
                member.owed = None;
                member.pending = None;
                member.unsure = None;
                member.excluded.get_or_insert((at, Exclusion::LeftOff));
            }),
            Some(Allow::Destroy | Allow::Gone) | None => {}
        }
    }

    /// Every change of a member goes through here: the count of owed starts is kept with it.
    fn change(&mut self, id: &InstanceId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(id) {
            let before = member.owed.is_some();
            change(member);
            self.owed = self.owed + u32::from(member.owed.is_some()) - u32::from(before);
        }
    }

    fn recount(&mut self, batch: u32) {
        // Asked with the beginning of time: what is only watched until some moment counts, `next` filters it by now.
        let open = self.batch(batch).iter().any(|id| self.members[id].is_open(Timestamp::MIN));
        if open {
            self.busy.insert(batch)
        } else {
            self.busy.remove(&batch)
        };
    }

    fn advance(&mut self, at: Timestamp) {
        while self.current < self.batches.len()
            && self.batches[self.current].iter().all(|id| self.members[id].is_done())
        {
            self.current += 1;
            self.current_since = Some(at);
        }
    }
}
