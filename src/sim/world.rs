//! The world: clouds, and what is still to happen in them. It is synchronous and deterministic: the seed, the calls
//! and the times passed with them decide everything. It must never read a clock, sleep or do I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::cloud::{Cloud, Violation};
use super::faults::Faults;
use super::keys::KeyPair;
use super::machine::{Course, Machine, Operation, Progress, Step};
use super::rng::Rng;
use crate::model::ProviderKind;
use crate::net::Request;

pub use super::meddle::InstanceSpec;

/// How long things take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Between a call's arrival and its answer. The world changes when the call arrives.
    pub latency: Duration,
    /// How long a stop, a start, a reboot or a bind takes.
    pub operation_time: Duration,
    /// How long after an accepted call looks still show the old state.
    pub visibility_lag: Duration,
    /// How long after a bind Baidu waits before it reboots a running machine.
    pub reboot_delay: Duration,
    /// The share of Tencent's binds whose record changes when the call is accepted, rather than when it is done.
    pub record_early: f64,
}

impl Default for Settings {
    /// No latency, operations of 200 ms, a lag of 50 ms, a reboot after 100 ms, the record changes when it is done.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            latency: Duration::ZERO,
            operation_time: ms(200),
            visibility_lag: ms(50),
            reboot_delay: ms(100),
            record_early: 0.0,
        }
    }
}

/// What happens later.
pub(super) enum Due {
    /// A step of a machine's operation.
    Step { cloud: usize, machine: usize, generation: u64, step: Step },
    /// A call that was sent long ago and lands only now; nobody hears the answer.
    Call { cloud: usize, sent: Timestamp, request: Request },
}

/// One or more clouds and their time.
pub struct World {
    /// How long things take. May be changed at any time.
    pub settings: Settings,
    /// What goes wrong. May be changed at any time.
    pub faults: Faults,
    pub(super) clouds: Vec<Cloud>,
    pub(super) rng: Rng,
    pub(super) now: Timestamp,
    pub(super) due: BTreeMap<(Timestamp, u64), Due>,
    sequence: u64,
}

/// `at` and `duration` more.
pub(super) fn later(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

impl World {
    /// A world without clouds, at `now`.
    pub fn new(seed: u64, now: Timestamp) -> Self {
        Self {
            settings: Settings::default(),
            faults: Faults::default(),
            clouds: Vec::new(),
            rng: Rng::new(seed),
            now,
            due: BTreeMap::new(),
            sequence: 0,
        }
    }

    // ---- looking in from outside

    /// The world's own time: that of the latest call or [`World::advance`].
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// The clouds.
    pub fn clouds(&self) -> &[Cloud] {
        &self.clouds
    }
    /// A cloud, by the number that [`World::open_cloud`] gave.
    pub fn cloud(&self, cloud: usize) -> &Cloud {
        &self.clouds[cloud]
    }
    /// A cloud, to change its quota, token, region or clock.
    pub fn cloud_mut(&mut self, cloud: usize) -> &mut Cloud {
        &mut self.clouds[cloud]
    }
    /// Every machine of every cloud, those that are gone too.
    pub fn machines(&self) -> impl Iterator<Item = (&Cloud, &Machine)> {
        self.clouds.iter().flat_map(|cloud| cloud.machines().iter().map(move |machine| (cloud, machine)))
    }
    /// Every key pair of every cloud.
    pub fn key_pairs(&self) -> impl Iterator<Item = (&Cloud, &KeyPair)> {
        self.clouds.iter().flat_map(|cloud| cloud.key_pairs.iter().map(move |pair| (cloud, pair)))
    }
    /// How often each action was called, by cloud and action.
    pub fn calls(&self) -> BTreeMap<(ProviderKind, &str), u64> {
        let mut calls = BTreeMap::new();
        for cloud in &self.clouds {
            for (action, count) in &cloud.calls {
                *calls.entry((cloud.kind, action.as_str())).or_default() += count;
            }
        }
        calls
    }
    /// What clients did that a cloud refuses on principle.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.clouds.iter().flat_map(|cloud| &cloud.violations)
    }
    /// When something happens next without anybody calling.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.keys().next().map(|(at, _)| *at).filter(|at| *at < Timestamp::MAX)
    }

    // ---- what the faces use

    /// A request id that was never used.
    pub fn request_id(&mut self) -> String {
        self.rng.uuid()
    }

    /// Begins an operation on a machine. An operation that was still under way is superseded: its steps are dropped.
    /// Looks show the old state until the visibility lag has passed.
    pub fn begin(&mut self, cloud: usize, machine: usize, action: &str, request_id: &str, course: Course) {
        let failing = self.rng.chance(self.faults.operation_fails);
        let course = if failing { fails(course) } else { course };
        let (now, lag) = (self.now, self.settings.visibility_lag);
        let operator = self.clouds[cloud].machine_at(machine);
        operator.shown = Some((later(now, lag), operator.view(now)));
        operator.generation += 1;
        operator.operation = Some(Operation {
            action: action.to_string(),
            request_id: request_id.to_string(),
            started: now,
            progress: Progress::Operating,
        });
        let (generation, stuck) = (operator.generation, operator.stuck);
        for (after, step) in course {
            if after.is_zero() {
                self.step(cloud, machine, generation, step);
            } else {
                let at = if stuck { Timestamp::MAX } else { later(now, after) };
                self.put(at, Due::Step { cloud, machine, generation, step });
            }
        }
    }

    /// Changes the record at once; the guest follows at its next boot (ECS, BCC). `keys` are ids, and empty to unbind.
    pub fn bind_for_next_boot(&mut self, cloud: usize, machine: usize, keys: &[String]) {
        let lines = self.clouds[cloud].lines(keys).unwrap_or_default();
        let machine = self.clouds[cloud].machine_at(machine);
        machine.record_keys = keys.to_vec();
        machine.at_next_boot = Some(machine.takes(lines));
        if let Some((_, view)) = &mut machine.shown {
            view.keys = keys.to_vec();
        }
    }

    /// The middle of a Tencent bind's or unbind's course: record and guest change to `keys` at `at`, the record
    /// sometimes at once ([`Settings::record_early`]). What happens to the machine's power the face puts around it.
    pub fn rekey(&mut self, cloud: usize, keys: &[String], at: Duration) -> Course {
        let lines = self.clouds[cloud].lines(keys).unwrap_or_default();
        let early = self.rng.chance(self.settings.record_early);
        let recorded = if early { Duration::ZERO } else { at };
        vec![(recorded, Step::Record(keys.to_vec())), (at, Step::Guest(lines))]
    }

    /// Whether an operation is under way that will bind this pair.
    pub fn is_being_bound(&self, cloud: usize, key: &str) -> bool {
        self.due.values().any(|due| match due {
            Due::Step { cloud: of, machine, generation, step: Step::Record(keys) } => {
                *of == cloud
                    && self.clouds[cloud].machines()[*machine].generation == *generation
                    && keys.iter().any(|id| id == key)
            }
            _ => false,
        })
    }

    /// Deletes key pairs. Whether they may be deleted the face has asked.
    pub fn delete_key_pairs(&mut self, cloud: usize, ids: &[String]) {
        self.clouds[cloud].key_pairs.retain(|pair| !ids.contains(&pair.id));
    }

    /// Gives a key pair its tags.
    pub fn tag_key_pair(&mut self, cloud: usize, id: &str, tags: Vec<(String, String)>) {
        if let Some(pair) = self.clouds[cloud].key_pairs.iter_mut().find(|pair| pair.id == id) {
            pair.tags = tags;
        }
    }

    /// Marks a machine that is being stopped as one that costs nothing once it is. Its next start ends that.
    pub fn stop_charging(&mut self, cloud: usize, id: &str) {
        self.meddle(cloud, id, |machine| machine.no_charge = true);
    }

    /// Whether the good instances of a refused batch are done nevertheless.
    pub fn half_done(&mut self) -> bool {
        self.rng.chance(self.faults.half_done)
    }

    /// Puts something off until `at`.
    pub(super) fn put(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), due);
    }

    /// Does a step of an operation, unless the operation was superseded meanwhile.
    pub(super) fn step(&mut self, cloud: usize, machine: usize, generation: u64, step: Step) {
        let now = self.now;
        let machine = self.clouds[cloud].machine_at(machine);
        if machine.generation != generation {
            return;
        }
        let action = machine.operation.as_ref().map(|operation| operation.action.clone()).unwrap_or_default();
        let end = |machine: &mut Machine, progress| {
            if let Some(operation) = &mut machine.operation {
                operation.progress = progress;
            }
        };
        match step {
            Step::Power(power) => machine.go(power, &action, now),
            Step::Record(keys) => machine.record_keys = keys,
            Step::Guest(lines) => {
                // Tencent: a bind switches the password login off, an unbind back on (FACTS §2.2).
                machine.accepts = machine.takes(lines);
                machine.password = machine.accepts.is_empty();
                machine.at_next_boot = None;
            }
            Step::Done => end(machine, Progress::Success),
            Step::Fail => end(machine, Progress::Failed),
        }
    }
}

/// The same operation, ending FAILED: a power operation leaves the machine as it was, a bind takes it down and yet
/// does not change its keys.
fn fails(course: Course) -> Course {
    let end = course.last().map_or(Duration::ZERO, |(after, _)| *after);
    let binds = course.iter().any(|(_, step)| matches!(step, Step::Guest(_)));
    let power = |step: &Step| binds && matches!(step, Step::Power(_));
    let mut failing: Course = course.into_iter().filter(|(_, step)| power(step)).collect();
    failing.push((end, Step::Fail));
    failing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::machine::{self, Power};
    use crate::sim::{InstanceSpec, furnish};

    fn world() -> World {
        World::new(5, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn wait(world: &mut World, milliseconds: u64) {
        world.advance(later(world.now(), Duration::from_millis(milliseconds)));
    }

    #[test]
    fn a_bind_for_the_next_boot_opens_the_machine_only_after_a_boot() {
        for power in [Power::Running, Power::Stopped] {
            let mut world = world();
            let cloud = world.open_cloud(ProviderKind::AlibabaEcs);
            let (old, new) = (world.add_strangers_pair(cloud, "old"), world.add_strangers_pair(cloud, "new"));
            let keys = vec![old.clone()];
            let id = world.add_instance(cloud, InstanceSpec { power, keys, ..InstanceSpec::default() });
            let line = |world: &World, key: &String| world.cloud(cloud).key_pair(key).unwrap().line.clone();
            let (old, new_line) = (line(&world, &old), line(&world, &new));
            world.bind_for_next_boot(cloud, 0, std::slice::from_ref(&new));
            let machine = world.cloud(cloud).machine(&id).unwrap();
            assert_eq!((&machine.record_keys, &machine.accepts), (&vec![new], &vec![old.clone()]));
            let opens = if power == Power::Running { &old } else { &new_line };
            assert_eq!(machine.would_accept(), std::slice::from_ref(opens), "{power:?}");
            let started = machine.booted_at;
            let time = world.settings.operation_time;
            let course = if power == Power::Running { machine::reboot(time) } else { machine::start(time) };
            world.begin(cloud, 0, "boot", "r", course);
            wait(&mut world, 199);
            assert_eq!(world.cloud(cloud).machine(&id).unwrap().accepts, [old]);
            wait(&mut world, 1);
            let machine = world.cloud(cloud).machine(&id).unwrap();
            assert_eq!((machine.power, machine.boots, &machine.accepts), (Power::Running, 1, &vec![new_line]));
            assert!(machine.booted_at > started && machine.at_next_boot.is_none());
        }
    }

    #[test]
    fn a_new_operation_supersedes_the_old_ones_steps() {
        let mut world = world();
        let cloud = world.open_cloud(ProviderKind::BaiduBcc);
        let id = world.add_instance(cloud, InstanceSpec::default());
        let at = |milliseconds| Duration::from_millis(milliseconds);
        let reboot = vec![(at(100), Step::Power(Power::Rebooting)), (at(300), Step::Power(Power::Running))];
        world.begin(cloud, 0, "attach", "a", reboot);
        world.begin(cloud, 0, "stop", "b", machine::stop(at(200)));
        wait(&mut world, 10_000);
        let machine = world.cloud(cloud).machine(&id).unwrap();
        assert_eq!(
            (machine.power, machine.reboots, machine.down_because.as_deref()),
            (Power::Stopped, 0, Some("stop"))
        );
        assert_eq!(world.next_due(), None);
    }

    #[test]
    fn a_look_shows_the_old_state_for_the_lag_and_time_never_runs_back() {
        let mut world = world();
        let cloud = world.open_cloud(ProviderKind::AlibabaEcs);
        world.add_instance(cloud, InstanceSpec::default());
        let start = world.now();
        world.begin(cloud, 0, "stop", "a", machine::stop(Duration::from_millis(20)));
        for (milliseconds, expect) in [(0, Power::Running), (49, Power::Running), (50, Power::Stopped)] {
            world.advance(later(start, Duration::from_millis(milliseconds)));
            assert_eq!(world.cloud(cloud).machines()[0].view(world.now()).power, expect, "{milliseconds}");
        }
        let now = world.now();
        world.advance(start);
        assert_eq!(world.now(), now);
    }

    #[test]
    fn ids_credentials_and_fleets_come_from_the_seed_alone() {
        let make = |seed| {
            let mut world = World::new(seed, Timestamp::UNIX_EPOCH);
            for kind in ProviderKind::ALL {
                let cloud = world.open_cloud(kind);
                furnish(&mut world, cloud, 30);
            }
            let clouds =
                world.clouds().iter().map(|cloud| (cloud.access_key_id.clone(), cloud.access_key_secret.clone()));
            let machines = world.machines().map(|(_, machine)| format!("{machine:?}"));
            (clouds.collect::<Vec<_>>(), machines.collect::<Vec<_>>())
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
