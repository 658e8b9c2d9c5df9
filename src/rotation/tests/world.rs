//! A small world for the brain: machines that obey calls late, answers that are lost, a driver that does what the engine
//! does. One seed replays a failure. Safety under faults; once they stop, the journal must end or stand held.

use std::collections::BTreeMap;

use super::*;
use crate::model::InstanceId;

/// A linear congruential generator: enough chance for a test, and the same everywhere.
#[derive(Clone)]
pub(super) struct Luck(u64);

impl Luck {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }
    /// 0 to `below` - 1.
    pub(super) fn of(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.of(of) == 0
    }
}

/// What a call that was taken will do, and when.
struct Operation_ {
    call: Call,
    request: String,
    begins: u64,
    ends: u64,
    fails: bool,
}

struct Machine {
    power: Power,
    key: &'static str,
    /// The key that it accepts: the one that was bound when it booted.
    accepts: &'static str,
    boot: u64,
    operations: Vec<Operation_>,
    shown: Option<(String, bool)>,
    /// Nobody else has touched it: if it ran when the plan was made, it runs at the end.
    ours: bool,
}

pub(super) struct World {
    disruption: Disruption,
    machines: BTreeMap<InstanceId, Machine>,
    pub(super) now: u64,
    pub(super) luck: Luck,
    /// While this is on, calls are lost, refused and late, and people meddle.
    pub(super) faults: bool,
    /// The journal tells of this world, so nobody may be down that it does not account for.
    pub(super) budget_counts: bool,
    requests: u64,
}

/// Where a journal came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    Ended(Outcome),
    Held,
    Nowhere,
}

impl World {
    pub(super) fn new(story: &Story, seed: u64) -> Self {
        let machine = |planned: &PlannedInstance| Machine {
            power: planned.power,
            key: "old",
            accepts: "old",
            boot: 1,
            operations: Vec::new(),
            shown: None,
            ours: true,
        };
        Self {
            disruption: story.plan.disruption,
            machines: story.instances.iter().map(|planned| (planned.id.clone(), machine(planned))).collect(),
            now: 10,
            luck: Luck::new(seed),
            faults: false,
            budget_counts: true,
            requests: 0,
        }
    }

    /// Another world than the one that the journal tells of.
    pub(super) fn scatter(&mut self) {
        for machine in self.machines.values_mut() {
            machine.power =
                [Power::Running, Power::Running, Power::Stopped, Power::Other, Power::Gone][self.luck.of(5) as usize];
            machine.key = ["old", "new", "alien"][self.luck.of(3) as usize];
            machine.ours = false;
        }
    }

    /// Time passes, and what was asked for happens.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            let now = self.now;
            for machine in self.machines.values_mut() {
                let mut at_work = std::mem::take(&mut machine.operations);
                at_work.retain(|operation| {
                    if operation.begins == now {
                        // Landing late, it may find a machine that it is not for.
                        let fits = match operation.call {
                            Call::Start => machine.power == Power::Stopped,
                            Call::Bind if self.disruption != Disruption::NeedsStopped => true,
                            Call::Bind => machine.power == Power::Stopped,
                            _ => machine.power == Power::Running,
                        };
                        if !fits {
                            return false;
                        }
                        machine.shown = Some((operation.request.clone(), false));
                        // A reboot cannot be told from a stop and a start while it is under way.
                        let disturbs = match operation.call {
                            Call::Bind => matches!(self.disruption, Disruption::StopsInstance),
                            _ => true,
                        };
                        if disturbs && machine.power != Power::Gone && !operation.fails {
                            machine.power = match (operation.call, machine.power) {
                                (Call::Bind, Power::Running) => Power::Changing,
                                (Call::Bind, power) => power,
                                _ => Power::Changing,
                            };
                        }
                    }
                    if operation.ends > now {
                        return true;
                    }
                    machine.shown = Some((operation.request.clone(), operation.fails));
                    if machine.power == Power::Gone || operation.fails {
                        return false;
                    }
                    match operation.call {
                        Call::Stop => machine.power = Power::Stopped,
                        Call::Bind => {
                            machine.key = "new";
                            match self.disruption {
                                Disruption::StopsInstance => machine.power = Power::Stopped,
                                Disruption::RebootsInstance
                                    if machine.power == Power::Running && !now.is_multiple_of(3) =>
                                {
                                    machine.boot += 1;
                                    machine.accepts = "new";
                                }
                                _ => {}
                            }
                        }
                        _ => {
                            machine.power = Power::Running;
                            machine.boot += 1;
                            machine.accepts = machine.key;
                        }
                    }
                    false
                });
                machine.operations.append(&mut at_work);
            }
        }
    }

    fn see(&self, id: &InstanceId) -> Option<Instance> {
        let machine = self.machines.get(id).filter(|machine| machine.power != Power::Gone)?;
        let tencent = matches!(self.disruption, Disruption::StopsInstance | Disruption::NeedsStopped);
        let under_way = machine.operations.iter().any(|operation| operation.begins <= self.now);
        let mut seen = seen(id.as_str(), &format!("{} {}", letter(machine.power), machine.key));
        seen.boot = (self.disruption == Disruption::NeedsReboot).then(|| machine.boot.to_string());
        seen.operation = machine.shown.as_ref().filter(|_| tencent).map(|(request, failed)| Operation {
            request_id: Some(request.clone()),
            running: under_way,
            failed: *failed && !under_way,
        });
        Some(seen)
    }

    /// The cloud takes a call, if the machine is in a state for it. Whether it says so is another matter.
    fn ask(&mut self, call: Call, id: &InstanceId, late: u64, fails: bool) -> Result<String, Error> {
        self.requests += 1;
        let request = format!("q{}", self.requests);
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else { panic!("{id} is not there") };
        let busy = machine.operations.iter().any(|operation| operation.begins <= now);
        let fits = match call {
            Call::Stop | Call::Reboot => machine.power == Power::Running,
            Call::Start => machine.power == Power::Stopped,
            Call::Bind if self.disruption == Disruption::NeedsStopped => machine.power == Power::Stopped,
            _ => matches!(machine.power, Power::Running | Power::Stopped),
        };
        if !fits || busy {
            return Err(error(Kind::InvalidState, Effect::NotDone, Blame::Instance));
        }
        let begins = now + 2 + late;
        let ends = begins + 5;
        machine.operations.push(Operation_ { call, request: request.clone(), begins, ends, fails });
        Ok(request)
    }

    fn open(&self, rotation: &Rotation, batch: u32) -> Vec<InstanceId> {
        let is_open = |id: &&InstanceId| rotation.member(id).is_some_and(|member| member.is_open(at(self.now)));
        rotation.batch(batch).iter().filter(is_open).cloned().collect()
    }

    /// Does a step as the engine does it; says whether anything was written.
    fn act(&mut self, story: &mut Story, rotation: &mut Rotation, step: Step) -> bool {
        let now = at(self.now);
        let ids = match step {
            Step::StoreKey => return self.tell(story, rotation, "stored"),
            Step::ImportKey => return self.tell(story, rotation, "imported"),
            Step::Settle(batch) => self.open(rotation, batch),
            _ => rotation.batch(step.batch().unwrap()).to_vec(),
        };
        let (mut findings, mut calls, mut stopping) = (Vec::new(), BTreeMap::<Call, Vec<Found>>::new(), false);
        for id in ids {
            let seen = self.see(&id);
            let sight = seen.as_ref().map_or(Sight::Missing, Sight::Seen);
            if let Step::Settle(_) = step {
                findings.extend(rotation.finding(&id, sight, now).map(|finding| (id, finding)));
                continue;
            }
            let pending = rotation.member(&id).and_then(|member| member.pending.as_ref());
            match (rotation.want(step, &id, sight, now), seen) {
                (Want::Record(finding), _) => findings.push((id, finding)),
                (Want::Call(call), Some(seen)) => calls.entry(call).or_default().push(Found {
                    instance: id,
                    power: seen.power,
                    keys: seen.keys,
                    boot: seen.boot,
                }),
                (Want::Wait, _) => stopping |= pending.is_some_and(|pending| pending.call == Call::Stop),
                _ => {}
            }
        }
        if !findings.is_empty() {
            for (id, finding) in findings {
                let event = self.event_of(rotation, id, finding);
                self.write(story, rotation, event);
            }
            return true;
        }
        if stopping && matches!(step, Step::Bind(_)) {
            return false;
        }
        for (call, found) in calls {
            let mut room = rotation.room();
            let mut may = |found: &Found| {
                let free = found.power != Power::Running
                    || matches!(call, Call::Start)
                    || rotation.member(&found.instance).is_some_and(|member| member.owed.is_some());
                if !free && room > 0 {
                    room -= 1;
                    return true;
                }
                free
            };
            let found: Vec<Found> = found.into_iter().filter(&mut may).collect();
            if !found.is_empty() {
                self.make(story, rotation, step, call, found);
                return true;
            }
        }
        false
    }

    fn make(&mut self, story: &mut Story, rotation: &mut Rotation, step: Step, call: Call, found: Vec<Found>) {
        let ids: Vec<InstanceId> = found.iter().map(|found| found.instance.clone()).collect();
        self.write(story, rotation, Event::Started { step, call, found });
        for id in ids {
            let fate = if self.faults { self.luck.of(12) } else { 99 };
            // Within LATE_CALL: what lands later than that is beyond what is promised (decision 0005).
            let late = if fate < 3 { self.luck.of(55) } else { 0 };
            let instances = vec![id.clone()];
            let fail = |error, wait| Event::Failed { step, instances: instances.clone(), error, retry_at: at(wait) };
            let lost = error(Kind::Unavailable, Effect::Unknown, Blame::Request);
            let retry = self.now + 1 + self.luck.of(8);
            let event = match fate {
                // Never arrived; or it did, and nobody heard the answer; or the process died before it could be written.
                0 => fail(lost, retry),
                1 | 2 => {
                    let _ = self.ask(call, &id, late, false);
                    if fate == 1 { fail(lost, retry) } else { continue }
                }
                3 => fail(error(Kind::InvalidState, Effect::NotDone, Blame::Instance), retry),
                fate => match self.ask(call, &id, 0, fate == 4) {
                    Ok(request_id) => Event::Accepted { step, instances, request_id: Some(request_id) },
                    Err(error) => fail(error, retry),
                },
            };
            self.write(story, rotation, event);
        }
    }

    fn event_of(&self, rotation: &Rotation, id: InstanceId, finding: Finding) -> Event {
        let machine = &self.machines[&id];
        let batch = rotation.member(&id).unwrap().batch;
        let instances = vec![id.clone()];
        match finding {
            Finding::Gone => Event::Gone { instances },
            Finding::Stopped => Event::Down { stopped: instances, changing: Vec::new() },
            Finding::Changing => Event::Down { stopped: Vec::new(), changing: instances },
            Finding::Bound(bound) => Event::Bound { instances: vec![bound] },
            Finding::Activated => {
                if machine.ours {
                    assert_eq!(machine.accepts, "new", "{id} is called active, and accepts another key");
                }
                Event::Activated { instances }
            }
            Finding::Running => Event::Running { instances },
            Finding::Excluded(reason) => Event::Excluded { instances: vec![ExcludedInstance { instance: id, reason }] },
            Finding::OperationFailed(call) => Event::Failed {
                step: step(call.name(), batch),
                instances,
                error: error(Kind::InvalidState, Effect::NotDone, Blame::Instance),
                retry_at: at(self.now + 2),
            },
        }
    }

    pub(super) fn tell(&mut self, story: &mut Story, rotation: &mut Rotation, words: &str) -> bool {
        let event = story.event(at(self.now), words);
        self.write(story, rotation, event);
        true
    }

    fn write(&mut self, story: &mut Story, rotation: &mut Rotation, event: Event) {
        story.push(at(self.now), event);
        rotation.apply(story.entries.last().unwrap()).unwrap();
        recount(rotation);
    }

    /// People and fate, while faults are on.
    fn meddle(&mut self, story: &mut Story, rotation: &mut Rotation) {
        match self.luck.of(60) {
            0 => drop(self.tell(story, rotation, "held")),
            1..=3 if rotation.held.is_some() => drop(self.tell(story, rotation, "release")),
            4 if self.luck.one_in(4) => drop(self.tell(story, rotation, "abandon")),
            5 if self.luck.one_in(3) => {
                let at_ = self.luck.of(self.machines.len() as u64) as usize;
                let fate = self.luck.of(4);
                let Some(machine) = self.machines.values_mut().nth(at_) else { return };
                machine.ours = false;
                match (fate, machine.power) {
                    (0, _) => machine.power = Power::Gone,
                    (1, Power::Running) => machine.power = Power::Stopped,
                    (2, Power::Stopped) => {
                        machine.power = Power::Running;
                        machine.boot += 1;
                        machine.accepts = machine.key;
                    }
                    (3, _) => machine.key = "alien",
                    _ => {}
                }
            }
            // The process dies and begins anew: the same by the journal alone.
            6..=8 => *rotation = refold(story, rotation),
            _ => {}
        }
    }

    /// Never more down because of us than the budget allows.
    fn count_down(&self, story: &Story) {
        let down = story.instances.iter().filter(|planned| {
            let machine = &self.machines[&planned.id];
            planned.power == Power::Running && machine.ours && machine.power != Power::Running
        });
        let (down, max) = (down.count(), story.plan.policy.unavailable_max as usize);
        assert!(!self.budget_counts || down <= max, "{down} are down at {}, {max} may be\n{}", self.now, tale(story));
    }

    /// Drives until the journal ends, or stands held with nothing more to be done, for so many seconds at most.
    pub(super) fn drive(&mut self, story: &mut Story, rotation: &mut Rotation, seconds: u64) -> Came {
        let until = self.now + seconds;
        while self.now < until {
            if self.faults && rotation.ended.is_none() {
                self.meddle(story, rotation);
            }
            let next = rotation.next(at(self.now));
            assert_eq!(next, rotation.next(at(self.now)), "next must not depend on luck");
            if !next.record.is_empty() {
                for event in next.record {
                    self.write(story, rotation, event);
                }
                continue;
            }
            if let Some((_, outcome)) = rotation.ended {
                return Came::Ended(outcome);
            }
            if !self.faults && rotation.held.is_some() && rotation.in_flight(at(self.now)).is_empty() {
                return Came::Held;
            }
            if !next.run.iter().any(|step| self.act(story, rotation, *step)) {
                let pause = 1 + self.luck.of(4);
                self.pass(pause);
            } else if self.luck.one_in(3) {
                self.pass(1);
            }
            self.count_down(story);
        }
        Came::Nowhere
    }

    /// Who is waited for, and what the world shows of them.
    pub(super) fn stuck(&self, rotation: &Rotation) -> String {
        let mut shown = format!("{} at {}", show_next(&rotation.next(at(self.now))), self.now);
        for (id, member) in rotation.members().filter(|(_, member)| member.is_open(at(self.now)) || !member.is_done()) {
            let machine = &self.machines[id];
            shown += &format!("\n{} {} {} {member:?}", id, letter(machine.power), machine.key);
        }
        shown
    }

    /// Whom we stopped, or bound while running, runs again; and whoever is called active accepts the key.
    pub(super) fn nobody_is_left_down(&self, story: &Story, rotation: &Rotation) {
        for planned in &story.instances {
            let (machine, member) = (&self.machines[&planned.id], rotation.member(&planned.id).unwrap());
            if machine.ours && planned.power == Power::Running {
                assert_eq!(machine.power, Power::Running, "{} stays down: {member:?}", planned.id);
                if member.active {
                    assert_eq!(machine.accepts, "new", "{} is not active: {member:?}", planned.id);
                }
            }
            if machine.ours && planned.power == Power::Stopped && member.bound.is_some() {
                assert_eq!(machine.power, Power::Stopped, "{} was started: {member:?}", planned.id);
            }
        }
    }
}

/// The state by the journal alone, which must be the same.
pub(super) fn refold(story: &Story, rotation: &Rotation) -> Rotation {
    let again = story.rotation();
    assert_eq!(format!("{again:?}"), format!("{rotation:?}"));
    again
}

/// The count that is kept is the count that is.
pub(super) fn recount(rotation: &Rotation) {
    let owed = rotation.members().filter(|(_, member)| member.owed.is_some()).count();
    assert_eq!(rotation.owed() as usize, owed);
}

/// The journal, for whoever reads a failure.
fn tale(story: &Story) -> String {
    story.entries.iter().map(|entry| format!("{} {:?}\n", seconds(entry.at), entry.event)).collect()
}
