//! Making a world and meddling with it: what a test, or the owner at his console, does behind the client's back. None
//! of this is reachable through the wire.

use super::cloud::Cloud;
use super::keys::{self, KeyPair};
use super::machine::{Guest, Machine, Operation, Os, Power, Progress, Refusal};
use super::world::World;
use crate::model::ProviderKind;

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
    /// Whether it is bought by bids. Lighthouse sells no such.
    pub spot: bool,
    /// Whether it has disks of its host. Lighthouse shows none.
    pub local_disk: bool,
}

impl World {
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
            image: 0,
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
            spot: spec.spot,
            local_disk: spec.local_disk,
            operation: None,
            guest: Guest::default(),
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

    // ---- meddling

    /// Makes a machine one that is bought by bids.
    pub fn make_spot(&mut self, cloud: usize, id: &str) {
        self.meddle(cloud, id, |machine| machine.spot = true);
    }
    /// Gives a machine a disk of its host.
    pub fn give_local_disk(&mut self, cloud: usize, id: &str) {
        self.meddle(cloud, id, |machine| machine.local_disk = true);
    }
    /// Stops a machine in the mode that costs nothing, at once, as its owner would in the console.
    pub fn stop_without_charging(&mut self, cloud: usize, id: &str) {
        self.set_power(cloud, id, Power::Stopped);
        self.meddle(cloud, id, |machine| machine.no_charge = true);
    }
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
    /// Writes a public key line into a machine's guest, as its owner would: it takes that key from now on.
    pub fn authorize(&mut self, cloud: usize, id: &str, line: &str) {
        self.meddle(cloud, id, |machine| machine.accepts.push(line.to_string()));
    }
    /// Takes a key pair out of the cloud, whoever is bound to it. Guests do not notice.
    pub fn remove_key_pair(&mut self, cloud: usize, id: &str) {
        self.clouds[cloud].key_pairs.retain(|pair| pair.id != id);
    }
    /// Gives a machine other addresses, or none where they are empty.
    pub fn set_addresses(&mut self, cloud: usize, id: &str, private: &str, public: &str) {
        self.meddle(cloud, id, |machine| {
            machine.private_address = private.to_string();
            machine.public_address = public.to_string();
        });
    }
    /// Changes what is peculiar to a machine's guest.
    pub fn change_guest(&mut self, cloud: usize, id: &str, change: impl FnOnce(&mut Guest)) {
        self.meddle(cloud, id, |machine| change(&mut machine.guest));
    }
    /// Makes a machine from its image anew, at once: another disk with other host keys, on which the cloud puts the keys
    /// of its record. A running one boots.
    pub fn reimage(&mut self, cloud: usize, id: &str) {
        let (now, request_id) = (self.now, self.rng.uuid());
        let here = &mut self.clouds[cloud];
        let record = here.machine(id).map(|machine| machine.record_keys.clone()).unwrap_or_default();
        let lines: Vec<String> =
            record.iter().filter_map(|key| here.key_pair(key)).map(|pair| pair.line.clone()).collect();
        let tencent = matches!(here.kind, ProviderKind::TencentLighthouse | ProviderKind::TencentCvm);
        let action = if tencent { "ResetInstance" } else { "console" };
        self.meddle(cloud, id, |machine| {
            let power = machine.power;
            machine.generation += 1;
            machine.shown = None;
            machine.operation =
                Some(Operation { action: action.to_string(), request_id, started: now, progress: Progress::Success });
            machine.guest.image += 1;
            machine.image += 1;
            machine.at_next_boot = Some(lines);
            if power == Power::Running {
                machine.go(Power::Rebooting, action, now);
                machine.go(Power::Running, action, now);
            } else if let Some(lines) = machine.at_next_boot.take() {
                machine.password = lines.is_empty();
                machine.accepts = lines;
            }
        });
    }
    pub(super) fn meddle(&mut self, cloud: usize, id: &str, change: impl FnOnce(&mut Machine)) {
        if let Some(at) = self.clouds[cloud].position(id) {
            change(self.clouds[cloud].machine_at(at));
        }
    }
}
