//! The world: clouds, and what is still to happen in them. It is synchronous and deterministic: the seed, the calls
//! and the times passed with them decide everything. It must never read a clock, sleep or do I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::cloud::{Cloud, Violation};
use super::faults::Faults;
use super::keys::{self, KeyPair};
use super::machine::{Course, Machine, Operation, Os, Power, Progress, Refusal, Step};
use super::rng::Rng;
use crate::model::ProviderKind;
use crate::provider::http::transport::Request;

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

/// An instance to be added.
#[derive(Clone, Debug, Default)]
pub struct InstanceSpec {
    /// Its name; empty for one made from the id.
    pub name: String,
    /// Its power.
    pub power: Power,
    /// Its operating system.
    pub os: Os,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// The key pairs bound to it, as ids; none for a machine that only a password opens.
    pub keys: Vec<String>,
    /// Whether every bind that names it fails.
    pub poisoned: bool,
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

    // ---- building

    /// Adds an empty cloud and says its number.
    pub fn open_cloud(&mut self, kind: ProviderKind) -> usize {
        self.clouds.push(Cloud::new(kind, &mut self.rng));
        self.clouds.len() - 1
    }

    /// Adds a key pair of this public key line, as it would have been imported, and says its handle. The line is not
    /// checked: it is the test's own.
    pub fn add_key_pair(&mut self, cloud: usize, name: &str, public_key: &str) -> String {
        let line = keys::read_public_line(public_key).map_or_else(|| public_key.to_string(), |key| key.line);
        let id = match self.clouds[cloud].kind {
            ProviderKind::TencentLighthouse => format!("lhkp-{}", self.rng.id(8)),
            ProviderKind::TencentCvm => format!("skey-{}", self.rng.id(8)),
            ProviderKind::AlibabaEcs => name.to_string(),
            ProviderKind::BaiduBcc => format!("k-{}", self.rng.id(8)),
        };
        // "The stored comment may be rewritten" (FACTS §2.2): here it always is.
        let public_key = format!("{line} {id}");
        self.clouds[cloud].key_pairs.push(KeyPair {
            id: id.clone(),
            name: name.to_string(),
            public_key,
            line,
            description: String::new(),
            tags: Vec::new(),
            created: self.now,
            in_image: false,
        });
        id
    }

    /// Adds a key pair whose private half nobody has.
    pub fn add_strangers_pair(&mut self, cloud: usize, name: &str) -> String {
        let line = keys::strangers_line(&mut self.rng);
        self.add_key_pair(cloud, name, &line)
    }

    /// Adds a machine and says its id. Key pairs that do not exist are bound in the record and open nothing.
    pub fn add_instance(&mut self, cloud: usize, spec: InstanceSpec) -> String {
        let (kind, number) = (self.clouds[cloud].kind, self.clouds[cloud].machines().len());
        let id = match kind {
            ProviderKind::TencentLighthouse => format!("lhins-{}", self.rng.id(8)),
            ProviderKind::TencentCvm => format!("ins-{}", self.rng.id(8)),
            ProviderKind::AlibabaEcs => format!("i-2ze{}", self.rng.id(17)),
            ProviderKind::BaiduBcc => format!("i-{}", self.rng.id(8)),
        };
        let here = &mut self.clouds[cloud];
        let zone = match kind {
            ProviderKind::AlibabaEcs => format!("{}-a", here.region),
            ProviderKind::BaiduBcc => format!("cn-{}-a", here.region),
            _ => format!("{}-{}", here.region, 1 + number % 3),
        };
        let accepts: Vec<String> =
            spec.keys.iter().filter_map(|key| here.key_pair(key)).map(|pair| pair.line.clone()).collect();
        let low = |shift: usize| (number >> shift) & 0xff;
        here.add(Machine {
            name: if spec.name.is_empty() { format!("vm-{number}") } else { spec.name },
            id: id.clone(),
            zone,
            os: spec.os,
            tags: spec.tags,
            private_address: format!("10.{}.{}.{}", low(16), low(8), low(0)),
            // 198.18.0.0/15 is set aside for benchmarks: nobody's machine is there.
            public_address: format!("198.{}.{}.{}", 18 + (low(16) & 1), low(8), low(0)),
            created: self.now,
            power: spec.power,
            first_power: spec.power,
            record_keys: spec.keys.clone(),
            first_record_keys: spec.keys,
            password: accepts.is_empty(),
            first_accepts: accepts.clone(),
            accepts,
            at_next_boot: None,
            boots: 0,
            booted_at: self.now,
            down_because: None,
            stops: 0,
            starts: 0,
            reboots: 0,
            no_charge: false,
            operation: None,
            poisoned: spec.poisoned,
            stuck: false,
            refusals: Vec::new(),
            shown: None,
            generation: 0,
        });
        id
    }

    /// A public key line that belongs to nobody.
    pub fn strangers_line(&mut self) -> String {
        keys::strangers_line(&mut self.rng)
    }

    /// A number below `bound`, from the world's chance.
    pub fn chance_below(&mut self, bound: usize) -> usize {
        self.rng.below(bound)
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

    // ---- meddling

    /// Makes every bind that names this machine fail, or not. Unknown ids are ignored, as in all of these.
    pub fn poison(&mut self, cloud: usize, id: &str, poisoned: bool) {
        self.meddle(cloud, id, |machine| machine.poisoned = poisoned);
    }
    /// Makes this machine refuse every call of `action` with `code`.
    pub fn refuse(&mut self, cloud: usize, id: &str, action: &str, code: &str) {
        let refusal = Refusal { action: action.to_string(), code: code.to_string() };
        self.meddle(cloud, id, |machine| machine.refusals.push(refusal));
    }
    /// Takes all refusals back.
    pub fn permit(&mut self, cloud: usize, id: &str) {
        self.meddle(cloud, id, |machine| machine.refusals.clear());
    }
    /// Makes operations that begin on this machine from now on never end, or end again.
    pub fn stick(&mut self, cloud: usize, id: &str, stuck: bool) {
        self.meddle(cloud, id, |machine| machine.stuck = stuck);
    }
    /// Changes a machine's power at once, as its owner would in the console: no operation, no lag.
    pub fn set_power(&mut self, cloud: usize, id: &str, power: Power) {
        let now = self.now;
        self.meddle(cloud, id, |machine| {
            machine.generation += 1;
            machine.operation = None;
            machine.shown = None;
            machine.go(power, "console", now);
        });
    }
    /// Releases a machine.
    pub fn remove_instance(&mut self, cloud: usize, id: &str) {
        self.set_power(cloud, id, Power::Gone);
    }
    /// Binds key pairs to a machine behind everybody's back: record and guest change at once, nothing is disturbed.
    pub fn rebind(&mut self, cloud: usize, id: &str, keys: &[String]) {
        let lines = self.clouds[cloud].lines(keys).unwrap_or_default();
        self.meddle(cloud, id, |machine| {
            machine.record_keys = keys.to_vec();
            machine.accepts = lines;
            machine.at_next_boot = None;
            machine.shown = None;
        });
    }
    fn meddle(&mut self, cloud: usize, id: &str, change: impl FnOnce(&mut Machine)) {
        if let Some(at) = self.clouds[cloud].position(id) {
            change(self.clouds[cloud].machine_at(at));
        }
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
        machine.at_next_boot = Some(lines);
        if let Some((_, view)) = &mut machine.shown {
            view.keys = keys.to_vec();
        }
    }

    /// The course of a Tencent bind or unbind: `before` and `after` are power steps around the change to `keys`, which
    /// comes at `at`. The record sometimes changes at once ([`Settings::record_early`]).
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
                machine.password = lines.is_empty();
                machine.accepts = lines;
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
