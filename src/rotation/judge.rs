//! From one look at one instance to what is true of it and what is wanted of it. Pure: the hands look, ask here, and do no
//! more than what is wanted. What makes a key *active* on which cloud stands here, and only here.

use crate::model::{Disruption, Instance, Power};
use crate::model::{Duration, InstanceId, KeyPairId, Timestamp};

use super::event::{BoundInstance, Call, Step};
use super::member::{Member, Pending};
use super::policy::{
    FRESH, OWN_REBOOT, REPEAT_AFTER, REQUEST_ID_SHOWS, SETTLE_DEADLINE, STOP_DEADLINE, TRIES_MAX, later,
};
use super::reason::Exclusion;
use super::state::Rotation;

/// What a look showed of an instance.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// This.
    Seen(&'a Instance),
    /// The cloud does not know it (seen so twice).
    Missing,
}

/// What has come true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The cloud has it no more.
    Gone,
    /// Seen stopped.
    Stopped,
    /// Seen on its way from one power state to another.
    Changing,
    /// Shown bound to our pair.
    Bound(BoundInstance),
    /// It runs and accepts the key.
    Activated,
    /// It runs as it is; nothing is owed.
    Running,
    /// It goes no further.
    Excluded(Exclusion),
    /// The operation that our call began ended in failure.
    OperationFailed(Call),
}

/// What a step wants of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Nothing,
    /// Nothing yet: look again.
    Wait,
    /// This call.
    Call(Call),
    /// This is true already, or ends it: write it down.
    Record(Finding),
}

impl Rotation {
    /// What has come true of an instance, and is not in the journal yet. For `Settle`.
    pub fn finding(&self, id: &InstanceId, sight: Sight<'_>, now: Timestamp) -> Option<Finding> {
        let member = self.member(id).filter(|member| member.is_open(now))?;
        let seen = match sight {
            Sight::Missing => return Some(Finding::Gone),
            Sight::Seen(seen) if seen.power == Power::Gone => return Some(Finding::Gone),
            Sight::Seen(seen) => seen,
        };
        self.pending_finding(member, seen, now)
            .or_else(|| self.bound_finding(member, seen))
            .or_else(|| self.debt_finding(member, seen, now))
            .or_else(|| self.missed(member, now))
    }

    fn pending_finding(&self, member: &Member, seen: &Instance, now: Timestamp) -> Option<Finding> {
        let pending = member.pending.as_ref()?;
        let operation = seen.operation.as_ref();
        let is_ours = |id: &Option<String>| id.as_ref().is_some_and(|id| pending.request_ids.contains(id));
        match pending.call {
            Call::Stop if seen.power == Power::Stopped && !seen.is_busy() => return Some(Finding::Stopped),
            Call::Bind if self.shows_ours(seen) && self.bind_has_settled(pending, seen, now) => {
                return Some(Finding::Bound(bound(seen)));
            }
            _ => {}
        }
        let failed = operation.is_some_and(|operation| operation.failed && is_ours(&operation.request_id));
        (pending.accepted && failed).then_some(Finding::OperationFailed(pending.call))
    }

    /// Whether a shown pair may be believed. The first look after the call still shows the old state, so the latest
    /// operation must be ours and over; where our request id is lost, or is not shown in time, none may be under way.
    fn bind_has_settled(&self, pending: &Pending, seen: &Instance, now: Timestamp) -> bool {
        // Stopped, it cannot go down behind our back any more: at worst its start is refused as busy.
        let in_time = seen.power == Power::Stopped || now >= later(pending.since, REQUEST_ID_SHOWS);
        let Some(operation) = &seen.operation else {
            return in_time || self.plan.disruption != Disruption::StopsInstance;
        };
        let ours = operation.request_id.as_ref().is_some_and(|id| pending.request_ids.contains(id));
        !operation.running && (ours || pending.request_ids.is_empty() || in_time)
    }

    fn bound_finding(&self, member: &Member, seen: &Instance) -> Option<Finding> {
        let (_, bound) = member.bound.as_ref().filter(|_| !member.active && self.shows_ours(seen))?;
        let runs = seen.power == Power::Running && !seen.is_busy();
        let active = match self.plan.disruption {
            Disruption::StopsInstance | Disruption::NeedsStopped => runs,
            Disruption::NeedsReboot => {
                let booted = bound.boot.is_some() && seen.boot.is_some() && bound.boot != seen.boot;
                runs && (member.down_since_bound || booted)
            }
            Disruption::RebootsInstance => runs && member.down_since_bound,
        };
        if active {
            return Some(Finding::Activated);
        }
        if member.came_back && seen.power == Power::Stopped {
            return Some(Finding::Stopped);
        }
        let boots_count = matches!(self.plan.disruption, Disruption::NeedsReboot | Disruption::RebootsInstance);
        if !boots_count || member.down_since_bound {
            let stopping = member.pending.as_ref().is_some_and(|pending| pending.call == Call::Stop);
            return (stopping && seen.power == Power::Stopped).then_some(Finding::Stopped);
        }
        match seen.power {
            Power::Stopped => Some(Finding::Stopped),
            // It ran when it was first shown bound, so this change began after that.
            Power::Changing if bound.power == Power::Running => Some(Finding::Changing),
            _ => None,
        }
    }

    /// Whether the cloud's own reboot of an instance may begin and end at any moment: it is then looked for often.
    pub fn awaits_own_reboot(&self, id: &InstanceId, now: Timestamp) -> bool {
        let to_come = |member: &Member| member.awaits_activation() && self.own_reboot_is_to_come(member, now);
        self.member(id).is_some_and(to_come)
    }

    /// Bound while it ran, where the cloud then reboots it by itself: that has not been seen yet.
    fn own_reboot_is_to_come(&self, member: &Member, now: Timestamp) -> bool {
        let soon = member.bound.as_ref().is_some_and(|(at, _)| now < later(*at, OWN_REBOOT));
        self.plan.disruption == Disruption::RebootsInstance && !member.down_since_bound && soon
    }

    /// Seen running, with nothing of ours that could still take it down: its start is no longer owed.
    fn debt_finding(&self, member: &Member, seen: &Instance, now: Timestamp) -> Option<Finding> {
        member.owed?;
        let goes_no_further = self.is_halted() || member.excluded.is_some() || member.active;
        // Started as it was during a hold, and released since: it is prepared again once the start is seen.
        let started = member.pending.as_ref().is_some_and(|pending| pending.call == Call::Start);
        let may_still_land =
            member.watch_until().is_some_and(|until| now < until) || self.own_reboot_is_to_come(member, now);
        let runs = seen.power == Power::Running && !seen.is_busy();
        (runs && (goes_no_further || started) && !may_still_land).then_some(Finding::Running)
    }

    fn missed(&self, member: &Member, now: Timestamp) -> Option<Finding> {
        if member.excluded.is_some() || member.active || member.is_straggler() {
            return None;
        }
        // Held before its answer came: it is not made again, and nothing was taken that could be too late.
        if self.is_halted() && member.pending.as_ref().is_some_and(|pending| !pending.accepted) {
            return None;
        }
        // A hold, a closed window or a hook stops the reboot that it waits for, so no deadline runs against it; a release,
        // the next window or the hook's end begins a new one.
        let waits = self.is_halted() || !self.may_begin(member, now);
        if waits && member.bound.is_some() && member.pending.is_none() && member.owed.is_none() {
            return None;
        }
        if let Some(pending) = member.pending.as_ref().filter(|pending| pending.call == Call::Stop) {
            // A release, or taking it up again, begins a new deadline.
            let since = pending.since.max(self.current_since.unwrap_or(Timestamp::MIN)).max(self.counted_from(now));
            let over = now >= later(since, STOP_DEADLINE);
            return over.then_some(Finding::Excluded(Exclusion::StopMissed));
        }
        // Starts and reboots are repeated: that does not put the deadline off.
        let first = member.pending.as_ref().filter(|pending| !matches!(pending.call, Call::Start | Call::Reboot));
        let from = member
            .last_accepted
            .max(member.bound.as_ref().map(|(at, _)| *at))
            .max(first.map(|pending| pending.since))
            .or(member.pending.as_ref().map(|pending| pending.since))
            .or(member.owed.filter(|_| self.is_halted()))?
            .max(self.current_since.unwrap_or(Timestamp::MIN))
            .max(self.counted_from(now));
        let over = now >= later(from, SETTLE_DEADLINE);
        over.then_some(Finding::Excluded(Exclusion::SettleMissed))
    }

    /// Of whom in a batch a step may still want something: the others need not be shown.
    pub fn attended(&self, batch: u32, now: Timestamp) -> Vec<InstanceId> {
        let is_left = |member: &Member| member.gone || (member.is_done() && !member.is_open(now));
        let attended = |id: &&InstanceId| self.member(id).is_some_and(|member| !is_left(member));
        self.batch(batch).iter().filter(attended).cloned().collect()
    }

    /// What a step wants of an instance now.
    pub fn want(&self, step: Step, id: &InstanceId, sight: Sight<'_>, now: Timestamp) -> Want {
        let Some(member) = self.member(id).filter(|member| !member.gone) else { return Want::Nothing };
        let seen = match sight {
            Sight::Seen(seen) if seen.power != Power::Gone => seen,
            _ if member.is_done() && !member.is_open(now) => return Want::Nothing,
            // Never touched, it is under way for nobody: no `Settle` would ever say so.
            _ => return Want::Record(Finding::Gone),
        };
        match step {
            Step::Prepare(_) => self.want_prepared(member, seen, now),
            Step::Bind(_) => self.want_bound(member, seen, now),
            Step::Activate(_) => self.want_active(member, seen, now),
            _ => Want::Nothing,
        }
    }

    fn want_prepared(&self, member: &Member, seen: &Instance, now: Timestamp) -> Want {
        if member.is_done() || member.bound.is_some() {
            return Want::Nothing;
        }
        if let Some(want) = self.before_disturbing(member, seen, now) {
            return want;
        }
        match seen.power {
            Power::Running if !seen.is_busy() => Want::Call(Call::Stop),
            Power::Stopped if !seen.is_busy() => Want::Nothing,
            _ => self.not_ready(member, seen, now),
        }
    }

    fn want_bound(&self, member: &Member, seen: &Instance, now: Timestamp) -> Want {
        if member.is_done() || member.bound.is_some() {
            return Want::Nothing;
        }
        if let Some(want) = self.before_disturbing(member, seen, now) {
            return want;
        }
        match seen.power {
            _ if seen.is_busy() => self.not_ready(member, seen, now),
            Power::Stopped => Want::Call(Call::Bind),
            Power::Running if self.plan.disruption != Disruption::NeedsStopped => Want::Call(Call::Bind),
            Power::Running => Want::Wait,
            _ => self.not_ready(member, seen, now),
        }
    }

    /// What forbids to stop or bind an instance now, or makes it needless.
    fn before_disturbing(&self, member: &Member, seen: &Instance, now: Timestamp) -> Option<Want> {
        let Some((_, ours)) = &self.key_pair else { return Some(Want::Nothing) };
        if !self.may_begin(member, now) {
            return Some(Want::Wait);
        }
        if let Some(retry) = &member.retry {
            if retry.tries >= TRIES_MAX {
                return Some(Want::Record(Finding::Excluded(Exclusion::Refused(retry.error.clone()))));
            }
            if now < retry.at {
                return Some(Want::Wait);
            }
        }
        if let Some(pending) = &member.pending {
            // Accepted: it will show. Unanswered: it may have happened, so the world gets a moment to show it.
            if pending.accepted || now < later(pending.since, FRESH) {
                return Some(Want::Wait);
            }
        }
        if self.shows_ours(seen) {
            let settled = match &member.pending {
                Some(pending) => self.bind_has_settled(pending, seen, now),
                None => !seen.operation.as_ref().is_some_and(|operation| operation.running),
            };
            return Some(match settled {
                true => Want::Record(Finding::Bound(bound(seen))),
                false => self.not_ready(member, seen, now),
            });
        }
        let expected = member.found.as_ref().map(|found| &found.keys).or(member.expected.as_ref());
        let is_strange = |key: &&KeyPairId| *key != ours && expected.is_some_and(|keys| !keys.contains(key));
        let strange: Vec<KeyPairId> = seen.keys.iter().filter(is_strange).cloned().collect();
        if !strange.is_empty() {
            return Some(Want::Record(Finding::Excluded(Exclusion::Drifted { keys: strange })));
        }
        None
    }

    /// In a state in which nothing can be done with it. The deadline is its own: in a long batch it may be touched late.
    fn not_ready(&self, member: &Member, seen: &Instance, now: Timestamp) -> Want {
        let touched = member.pending.as_ref().map(|pending| pending.since);
        let touched = touched.max(member.retry.as_ref().map(|retry| retry.since)).max(member.last_accepted);
        let from = self.current_from().max(touched).unwrap_or(Timestamp::MAX).max(self.counted_from(now));
        if now >= later(from, SETTLE_DEADLINE) {
            return Want::Record(Finding::Excluded(Exclusion::NotReady { state: seen.state.clone() }));
        }
        Want::Wait
    }

    fn want_active(&self, member: &Member, seen: &Instance, now: Timestamp) -> Want {
        if member.retry.as_ref().is_some_and(|retry| now < retry.at) || seen.is_busy() {
            return Want::Wait;
        }
        let pending = member.pending.as_ref();
        let waits = |call: Call, repeat_after| {
            pending.is_some_and(|pending| {
                let patience = if pending.accepted { repeat_after } else { FRESH };
                pending.call == call && now < later(pending.since, patience)
            })
        };
        let goes_no_further = self.is_halted() || member.excluded.is_some() || member.active;
        if seen.power == Power::Stopped && member.owed.is_some() {
            let may_start = member.bound.is_some() || goes_no_further;
            let stop_unseen = pending.is_some_and(|pending| pending.call == Call::Stop);
            let wait = waits(Call::Start, REPEAT_AFTER / 3) || waits(Call::Bind, REPEAT_AFTER) || stop_unseen;
            return match (may_start, wait) {
                (false, _) => Want::Nothing,
                (true, true) => Want::Wait,
                (true, false) => Want::Call(Call::Start),
            };
        }
        if self.is_halted() || member.known || !member.awaits_activation() || seen.power != Power::Running {
            return Want::Nothing;
        }
        if let Some(retry) = member.retry.as_ref().filter(|retry| retry.tries >= TRIES_MAX) {
            return Want::Record(Finding::Excluded(Exclusion::Refused(retry.error.clone())));
        }
        if !self.may_begin(member, now) {
            return Want::Wait;
        }
        let bound_at = member.bound.as_ref().map_or(now, |(at, _)| *at);
        match self.plan.disruption {
            Disruption::NeedsReboot if waits(Call::Reboot, REPEAT_AFTER) => Want::Wait,
            Disruption::NeedsReboot if boot_would_not_show(seen, now) => Want::Wait,
            Disruption::NeedsReboot => Want::Call(Call::Reboot),
            Disruption::RebootsInstance if member.down_since_bound => Want::Nothing,
            Disruption::RebootsInstance if now < later(bound_at, OWN_REBOOT) => Want::Wait,
            Disruption::RebootsInstance if waits(Call::Stop, STOP_DEADLINE) => Want::Wait,
            Disruption::RebootsInstance => Want::Call(Call::Stop),
            Disruption::StopsInstance | Disruption::NeedsStopped => Want::Nothing,
        }
    }

    pub(super) fn resumed(&self) -> Timestamp {
        self.resumed.unwrap_or(Timestamp::MIN)
    }

    fn shows_ours(&self, seen: &Instance) -> bool {
        self.key_pair.as_ref().is_some_and(|(_, ours)| seen.keys.contains(ours))
    }
}

/// Alibaba's StartTime tells the minute (vendor's sample `2017-12-10T04:04Z`, read 2026-11-22): a boot within the minute
/// of the last one would look like none. A marker that is no such time is taken as it is.
fn boot_would_not_show(seen: &Instance, now: Timestamp) -> bool {
    let booted = seen.boot.as_ref().and_then(|boot| boot.parse::<Timestamp>().ok());
    booted.is_some_and(|booted| booted <= now && now < later(booted, Duration::from_secs(60)))
}

fn bound(seen: &Instance) -> BoundInstance {
    BoundInstance { instance: seen.id.clone(), power: seen.power, boot: seen.boot.clone() }
}
