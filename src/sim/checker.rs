//! THE PROMISE, asked of the world: is anybody locked out, is more down than may be, is anything of others' touched? It
//! knows the truth in the guests, which no client sees. It must be asked after every call, and never repair anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::cloud::Cloud;
use super::keys::KeyPair;
use super::machine::{Machine, Os, Power};
use super::world::World;

/// What one fleet was promised.
#[derive(Debug, Default)]
pub struct Promise {
    /// The cloud's number in the world.
    pub cloud: usize,
    /// A machine is managed if it bears this tag.
    pub tag: (String, String),
    /// Managed machines that may be down at once because of us.
    pub unavailable_max: usize,
    /// The size of the canary batch: so many machines at most are staked on a key that nobody has been seen to accept.
    pub canary: usize,
    /// What names of our key pairs begin with.
    pub prefix: String,
    /// Key pairs that a machine was seen to accept at some time.
    pub proven: Mutex<BTreeSet<String>>,
}

impl Promise {
    fn manages(&self, machine: &Machine) -> bool {
        machine.tags.contains(&self.tag)
    }

    /// What is broken right now, with the private halves that custody holds (as public key lines without a comment).
    pub fn broken(&self, world: &World, custody: &BTreeSet<String>) -> Vec<String> {
        let cloud = world.cloud(self.cloud);
        let mut broken = Vec::new();
        let mut down = Vec::new();
        for machine in cloud.machines() {
            if !self.manages(machine) {
                broken.extend(touched(machine));
                continue;
            }
            if machine.power == Power::Gone || machine.os == Os::Windows {
                continue;
            }
            for (when, lines) in
                [("now", Some(&machine.accepts)), ("after its next boot", machine.at_next_boot.as_ref())]
            {
                let Some(lines) = lines else { continue };
                let known = |line: &String| custody.contains(line) || machine.first_accepts.contains(line);
                let password = lines.is_empty() && machine.first_accepts.is_empty();
                if !password && !lines.iter().any(known) {
                    broken.push(format!("locked out: {} accepts no known key {when}", machine.id));
                }
            }
            if machine.power != Power::Running
                && machine.down_because.as_ref().is_some_and(|because| because != "console")
            {
                down.push(machine.id.as_str());
            }
        }
        if down.len() > self.unavailable_max {
            broken.push(format!("{} down at once, {} may be: {}", down.len(), self.unavailable_max, down.join(", ")));
        }
        broken.extend(self.staked(cloud));
        broken
    }

    /// Key pairs of ours that are bound to more machines than a canary batch, and that no running machine accepts.
    fn staked(&self, cloud: &Cloud) -> Vec<String> {
        let mut bound: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        for pair in cloud.key_pairs().iter().filter(|pair| pair.name.starts_with(&self.prefix)) {
            for machine in cloud.machines().iter().filter(|machine| machine.record_keys.contains(&pair.id)) {
                let (count, proven) = bound.entry(&pair.name).or_default();
                // Who was off from the beginning stakes nothing: it is bound after the canary, or there is no canary.
                *count += usize::from(machine.first_power == Power::Running);
                *proven |= machine.accepts.contains(&pair.line);
            }
        }
        let mut ever = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        ever.extend(bound.iter().filter(|(_, (_, proven))| *proven).map(|(name, _)| name.to_string()));
        let staked = bound.into_iter().filter(|(name, (count, _))| *count > self.canary && !ever.contains(*name));
        staked
            .map(|(name, (count, _))| format!("{count} machines staked on {name}, which nobody accepts yet"))
            .collect()
    }

    /// What is not as it must be when nothing is left to do: everybody who runs accepts the newest key and no other,
    /// power is as it was, and of ours only the newest pair is left. `excluded` are those that the cloud refused.
    pub fn unkept(&self, world: &World, newest: &str, excluded: &BTreeSet<String>) -> Vec<String> {
        let cloud = world.cloud(self.cloud);
        let mut unkept = Vec::new();
        let ours: Vec<_> = cloud.key_pairs().iter().filter(|pair| pair.name.starts_with(&self.prefix)).collect();
        // An excluded machine may hang on an older pair of ours: that pair waits.
        let waits = |pair: &KeyPair| {
            let hangs =
                |machine: &&Machine| machine.record_keys.contains(&pair.id) || machine.accepts.contains(&pair.line);
            cloud.machines().iter().filter(|machine| excluded.contains(&machine.id)).any(|machine| hangs(&machine))
        };
        for pair in ours.iter().filter(|pair| pair.name != newest && !waits(pair)) {
            unkept.push(format!("key pair {} is left", pair.name));
        }
        let Some(active) = ours.iter().find(|pair| pair.name == newest) else {
            return vec![format!("key pair {newest} is not there")];
        };
        for machine in cloud.machines().iter().filter(|machine| self.manages(machine)) {
            if machine.power == Power::Gone || machine.os == Os::Windows {
                continue;
            }
            if machine.power != machine.first_power {
                let (was, is) = (machine.first_power.as_str(), machine.power.as_str());
                unkept.push(format!("{} was {was} and is {is}", machine.id));
            }
            if excluded.contains(&machine.id) {
                continue;
            }
            if machine.would_accept() != [active.line.clone()] {
                unkept.push(format!("{} does not accept exactly {newest}", machine.id));
            }
            if machine.record_keys != [active.id.clone()] {
                unkept.push(format!("{} is not bound to exactly {newest}", machine.id));
            }
        }
        unkept
    }
}

/// What was done to a machine that is not ours to touch.
fn touched(machine: &Machine) -> Option<String> {
    let as_it_was = machine.record_keys == machine.first_record_keys
        && machine.accepts == machine.first_accepts
        && machine.stops + machine.starts + machine.reboots == 0;
    (!as_it_was).then(|| format!("{} is not ours, and was touched", machine.id))
}
