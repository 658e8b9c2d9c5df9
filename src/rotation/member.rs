//! One instance on its way through a rotation: what each entry that names it changes, and what follows from that. It must
//! never ask the clock: what depends on now is asked with `now`.

use crate::model::Power;
use crate::model::error::{Blame, Effect, Error};
use crate::model::{KeyPairId, Pin, Timestamp};

use super::event::{BoundInstance, Call, Found, Proof};
use super::plan::{Known, PlannedInstance};
use super::policy::{LATE_CALL, Retry, SETTLE_DEADLINE, later};
use super::reason::Exclusion;

/// One instance on its way through the rotation.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its batch.
    pub batch: u32,
    /// Its power when the plan was made.
    pub planned: Power,
    /// The key pairs that it may have when it is first touched; `None`: any.
    pub expected: Option<Vec<KeyPairId>>,
    /// An earlier journal bound it, and this one must not disturb it.
    pub known: bool,
    /// It was bound while it was stopped, by an earlier journal, and was seen running since.
    pub came_back: bool,
    /// As the first call that disturbs it found it: what power and rollback return to. Later looks never replace it.
    pub found: Option<Found>,
    /// The call whose effect is not seen yet.
    pub pending: Option<Pending>,
    /// An earlier call of ours that may still land, though it was made again or given up for another.
    pub unsure: Option<Unsure>,
    /// A bind may have happened: one was asked for, and the cloud has not said that it was not done.
    pub asked: bool,
    /// Bound to our pair, as the cloud first showed it, and when that was.
    pub bound: Option<(Timestamp, BoundInstance)>,
    /// Seen not running since it was bound.
    pub down_since_bound: bool,
    /// It runs and accepts the key, as far as the cloud keeps its word.
    pub active: bool,
    /// Since when.
    pub active_at: Option<Timestamp>,
    /// Whether the plan wants a login as proof.
    pub must_prove: bool,
    /// How it is known again.
    pub pin: Option<Pin>,
    /// Whether its host key was asked for in this journal before it was disturbed.
    pub pin_asked: bool,
    /// It was reached in this journal before it was disturbed.
    pub reached: bool,
    /// A login proved that it accepts the key.
    pub proof: Option<Proof>,
    /// When that was.
    pub proven_at: Option<Timestamp>,
    /// It was not reached for a login in time, and never had been.
    pub late: bool,
    /// We stopped it, or bound it while it ran: a start is owed since then.
    pub owed: Option<Timestamp>,
    /// It goes no further, since when and why.
    pub excluded: Option<(Timestamp, Exclusion)>,
    /// The cloud has it no more.
    pub gone: bool,
    /// The last call that the cloud took for it. A start or reboot that is only repeated does not count anew: the
    /// deadline is the first one's.
    pub last_accepted: Option<Timestamp>,
    /// The call that the cloud took last, until something is seen to have come of it.
    accepted_call: Option<Call>,
    /// What this instance itself was refused since something last went well.
    pub retry: Option<Retry>,
}

/// A call that may still land, though it was made again or given up for another.
#[derive(Clone, Copy, Debug)]
pub struct Unsure {
    /// When its intent was written.
    pub since: Timestamp,
    /// What it was for was seen since: it is feared for [`LATE_CALL`] only.
    pub seen: bool,
}

/// A call whose effect is not seen yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Which.
    pub call: Call,
    /// When its intent was written.
    pub since: Timestamp,
    /// The cloud has said that it took it.
    pub accepted: bool,
    /// The request ids that the latest operation may show.
    pub request_ids: Vec<String>,
    /// Whether an earlier bind may have happened already.
    asked_before: bool,
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing was done to it yet.
    Waiting,
    /// A call for it is under way, or a start is owed.
    UnderWay,
    /// Bound, not active yet.
    Bound,
    /// It runs and accepts the key.
    Active,
    /// A login proved that it accepts the key.
    Proven,
    /// Bound and switched off as it was found, or active and not reached for a login.
    Straggler,
    /// It goes no further.
    Excluded,
    /// The cloud has it no more.
    Gone,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::UnderWay,
        Self::Bound,
        Self::Active,
        Self::Proven,
        Self::Straggler,
        Self::Excluded,
        Self::Gone,
    ];

    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::UnderWay => "under_way",
            Self::Bound => "bound",
            Self::Active => "active",
            Self::Proven => "proven",
            Self::Straggler => "straggler",
            Self::Excluded => "excluded",
            Self::Gone => "gone",
        }
    }
}

impl Member {
    pub(super) fn new(batch: u32, planned: &PlannedInstance, must_prove: bool) -> Self {
        let mut member = Self::fresh(batch, planned, must_prove);
        if let Some(Known { before, bound, active }) = &planned.known {
            let BoundInstance { instance, power, boot } = bound.clone();
            member.known = true;
            member.found = Some(Found { instance, power, keys: before.clone(), boot });
            // Its time is that of the entry that names the pair: [`begin`](Self::begin).
            member.bound = Some((Timestamp::MIN, bound.clone()));
            member.down_since_bound = power == Power::Stopped;
            member.active = *active;
            member.came_back = !active && planned.power != Power::Stopped;
        }
        member
    }
    fn fresh(batch: u32, planned: &PlannedInstance, must_prove: bool) -> Self {
        Self {
            batch,
            planned: planned.power,
            expected: None,
            known: false,
            came_back: false,
            active_at: None,
            must_prove,
            pin: planned.pin.clone(),
            pin_asked: false,
            reached: false,
            proof: None,
            proven_at: None,
            late: false,
            found: None,
            pending: None,
            unsure: None,
            asked: false,
            bound: None,
            down_since_bound: false,
            active: false,
            owed: None,
            excluded: None,
            gone: false,
            last_accepted: None,
            accepted_call: None,
            retry: None,
        }
    }
    /// How far it is: the one word for it that counts most.
    pub fn phase(&self) -> Phase {
        if self.gone {
            Phase::Gone
        } else if self.excluded.is_some() {
            Phase::Excluded
        } else if self.proof.is_some() {
            Phase::Proven
        } else if self.active && !self.late {
            Phase::Active
        } else if self.late || self.is_straggler() {
            Phase::Straggler
        } else if self.bound.is_some() {
            Phase::Bound
        } else if self.pending.is_some() || self.owed.is_some() {
            Phase::UnderWay
        } else {
            Phase::Waiting
        }
    }
    /// Found stopped by the first call: it stays stopped, and waits bound for its next boot.
    pub fn is_straggler(&self) -> bool {
        self.bound.is_some() && !self.active && !self.gone && self.rests()
    }
    /// It was stopped, and no call of ours found it running since (somebody may start it between two tries).
    fn rests(&self) -> bool {
        if self.came_back {
            return false;
        }
        let found_stopped = self.found.as_ref().is_some_and(|found| found.power == Power::Stopped);
        let rests = match self.bound.as_ref().map(|(_, bound)| bound.power) {
            Some(Power::Stopped) => true,
            // Somebody started it between the look and the bind: what makes a key active there is still to come.
            Some(Power::Running) => false,
            _ => found_stopped,
        };
        self.owed.is_none() && rests
    }
    /// Bound while it ran, not active yet, and still to become so.
    pub fn awaits_activation(&self) -> bool {
        self.bound.is_some() && !self.active && !self.gone && self.excluded.is_none() && !self.rests()
    }
    /// Active, and proven by a login where the plan wants one.
    pub fn is_proven(&self) -> bool {
        self.active && (self.proof.is_some() || !self.must_prove)
    }
    /// A login is still to prove it.
    pub fn awaits_proof(&self) -> bool {
        self.active && !self.is_proven() && !self.late && !self.gone && self.excluded.is_none()
    }
    /// Nothing more is expected of it in its batch.
    pub fn is_done(&self) -> bool {
        (self.active && !self.awaits_proof()) || self.gone || self.excluded.is_some() || self.is_straggler()
    }
    /// Until when a call whose effect we have not seen is watched for.
    pub fn watch_until(&self) -> Option<Timestamp> {
        let unseen = |pending: &Pending| matches!(pending.call, Call::Stop | Call::Bind | Call::Reboot);
        let pending = self.pending.as_ref().filter(|pending| unseen(pending));
        let own = pending.map(|pending| later(pending.since, SETTLE_DEADLINE));
        let missed = self.excluded.as_ref().filter(|_| pending.is_some()).map(|(at, _)| later(*at, SETTLE_DEADLINE));
        own.max(missed).max(self.unsure_until())
    }
    /// Until when an earlier call may still land.
    pub fn unsure_until(&self) -> Option<Timestamp> {
        self.unsure.map(|unsure| later(unsure.since, if unsure.seen { LATE_CALL } else { SETTLE_DEADLINE }))
    }
    /// Whether a call of ours may still change it, or a start is owed.
    pub fn is_in_flight(&self, now: Timestamp) -> bool {
        let watched = self.watch_until().is_some_and(|until| now < until);
        // A call without an answer is under way only as long as it is watched for: then it was never made.
        let under_way = self.pending.as_ref().is_some_and(|pending| pending.accepted) && !self.is_done();
        !self.gone && (self.owed.is_some() || under_way || watched)
    }
    /// Whether anything is under way with it that the cloud shows.
    pub fn is_looked_at(&self, now: Timestamp) -> bool {
        self.is_in_flight(now) || self.awaits_activation()
    }
    /// Whether anything is under way with it at all.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.is_looked_at(now) || self.awaits_proof()
    }
}

impl Member {
    pub(super) fn start(&mut self, at: Timestamp, call: Call, found: &Found) {
        let disturbs = matches!(call, Call::Stop | Call::Bind | Call::Reboot);
        if disturbs {
            self.found.get_or_insert_with(|| found.clone());
            if found.power == Power::Running {
                self.owed.get_or_insert(at);
            }
        }
        let mut request_ids = Vec::new();
        if let Some(old) = self.pending.take() {
            let unanswered = !old.accepted && matches!(old.call, Call::Stop | Call::Bind | Call::Reboot);
            // Taken, never seen to come true, and given up for another call: it may land all the same.
            let given_up = old.call == Call::Bind && call != Call::Bind;
            if unanswered || given_up {
                self.unsure = Some(Unsure { since: old.since, seen: false });
            }
            if old.call == call {
                request_ids = old.request_ids;
            }
        }
        self.pending = Some(Pending { call, since: at, accepted: false, request_ids, asked_before: self.asked });
        self.asked |= call == Call::Bind;
    }
    pub(super) fn accept(&mut self, at: Timestamp, request_id: Option<&str>) {
        let call = self.pending.as_ref().map(|pending| pending.call);
        let repeated = matches!(call, Some(Call::Start | Call::Reboot)) && call == self.accepted_call;
        if !repeated {
            self.last_accepted = Some(at);
            self.accepted_call = call;
        }
        if let Some(pending) = &mut self.pending {
            pending.accepted = true;
            pending.request_ids.extend(request_id.map(str::to_string));
        }
    }
    pub(super) fn fail(&mut self, at: Timestamp, retry_at: Timestamp, error: &Error, alone: bool) {
        if error.effect == Effect::NotDone {
            if let Some(pending) = self.pending.take().filter(|pending| pending.call == Call::Bind) {
                self.asked = pending.asked_before;
            }
            // The cloud has answered for this instance since: an earlier call is not feared as long any more.
            self.effect_seen();
        }
        let (tries, since) = match &self.retry {
            Some(retry) => (retry.tries, retry.since),
            None => (0, at),
        };
        // Only what is this instance's own fault counts against it: it stood alone.
        let tries = tries + u32::from(alone && error.blame == Blame::Instance);
        self.retry = Some(Retry { tries, since, last: at, at: retry_at, error: error.clone() });
    }
    pub(super) fn begin(&mut self, at: Timestamp) {
        if let Some((since, _)) = self.bound.as_mut().filter(|_| self.known) {
            *since = at;
            self.active_at = self.active.then_some(at);
        }
    }
    pub(super) fn see_down(&mut self, stopped: bool) {
        // Switched off again: it waits for its next boot.
        self.came_back &= !stopped;
        if stopped && self.pending.as_ref().is_some_and(|pending| pending.call == Call::Stop) {
            self.get_on();
            self.effect_seen();
        }
        self.down_since_bound |= self.bound.is_some();
    }
    pub(super) fn bind(&mut self, at: Timestamp, bound: &BoundInstance, ours: Option<KeyPairId>, own_reboot: bool) {
        self.found.get_or_insert_with(|| Found {
            instance: bound.instance.clone(),
            power: bound.power,
            keys: ours.into_iter().collect(),
            boot: bound.boot.clone(),
        });
        let asked = self.pending.as_ref().is_some_and(|pending| pending.call == Call::Bind);
        if asked {
            self.pending = None;
            self.effect_seen();
        }
        self.retry = None;
        self.accepted_call = None;
        // Where the cloud reboots by itself, any state but running is that reboot; elsewhere only a full stop counts.
        self.down_since_bound =
            bound.power == Power::Stopped || (own_reboot && asked && bound.power == Power::Changing);
        self.bound = Some((at, bound.clone()));
    }
    pub(super) fn activate(&mut self, at: Timestamp) {
        self.active = true;
        self.active_at.get_or_insert(at);
        self.effect_seen();
        // A call that may still land may still take it down: the debt stays until that is over.
        match self.unsure_until() {
            Some(until) if at < until => self.get_on(),
            _ => self.see_running(),
        }
    }
    pub(super) fn see_running(&mut self) {
        self.owed = None;
        self.unsure = None;
        self.get_on();
    }
    /// What was asked for is seen, or refused: an earlier call for the same may still land, but is not feared as long any
    /// more.
    fn effect_seen(&mut self) {
        if let Some(unsure) = &mut self.unsure {
            unsure.seen = true;
        }
    }
    /// What was asked for has come true.
    fn get_on(&mut self) {
        self.pending = None;
        self.retry = None;
        self.accepted_call = None;
    }
}
