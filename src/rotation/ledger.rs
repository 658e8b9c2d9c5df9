//! A fleet's ledger: which key pair each of its instances was bound to last, by its journals, and what of it the world shows
//! otherwise. Pure. It must never take for drift what an open rotation is about to do, nor the want of an answer for evidence.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    FleetName, HostKey, Instance, InstanceId, JournalId, KeyPair, KeyPairId, KeyPairName, Pin, Power, PublicKey,
    Timestamp,
};

use super::drift::{Deviation, DriftKind};
use super::plan::PlannedInstance;
use super::policy::{SETTLE_DEADLINE, later};
use super::reason::HoldReason;
use super::state::Rotation;

/// So many of a machine's superseded keys are offered to it, the newest ones: each is a connection.
pub const SUPERSEDED_MAX: usize = 3;

/// What the journals record of a fleet.
#[derive(Clone, Debug)]
pub struct Ledger {
    fleet: FleetName,
    records: BTreeMap<InstanceId, Record>,
    /// Every instance that a plan of the fleet had.
    planned: BTreeSet<InstanceId>,
    owed: BTreeMap<InstanceId, Debt>,
    pairs: BTreeMap<KeyPairId, PairRecord>,
    /// The pair that the fleet is meant to hang on.
    current: Option<KeyPairId>,
    open: bool,
}

/// Which pair an instance was bound to last, and by whom.
#[derive(Clone, Debug)]
struct Record {
    fleet: FleetName,
    pair: KeyPairId,
    /// What it may show besides: a bind that is under way, or was seen after the look.
    may: BTreeSet<KeyPairId>,
    /// It may show no pair at all.
    bare: bool,
    /// What it was on before, oldest first.
    was: Vec<KeyPairId>,
    pin: Option<Pin>,
}

#[derive(Clone, Debug)]
struct PairRecord {
    name: KeyPairName,
    public_key: Option<PublicKey>,
    imported: Timestamp,
    /// Nobody here has its private half.
    strangers: bool,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    rotation: JournalId,
    since: Timestamp,
    /// The cloud refuses the start, and the rotation is held for it.
    refused: bool,
}

/// What custody answers for the private half of a pair in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Half {
    /// It is there; this is its public half.
    Kept(PublicKey),
    /// It is not there, or cannot be used, and why.
    Lacking(String),
}

/// What came of offering a machine its superseded keys. One that cannot be reached tells nothing, and is not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It would take the keys of these pairs; none: it refuses them all.
    Takes(Vec<KeyPairName>),
    /// It shows another host key than this one, by which it is known.
    OtherHost {
        /// The key that it is known by.
        pinned: HostKey,
        /// The key that it shows.
        seen: HostKey,
    },
}

/// What was seen of a fleet.
#[derive(Clone, Debug)]
pub struct Looks<'a> {
    /// When the first look began: what the journals say of later moments is no evidence.
    pub at: Timestamp,
    /// The instances of its selection.
    pub listed: &'a [Instance],
    /// Recorded instances that the selection does not show.
    pub others: &'a [Instance],
    /// Key pairs with our mark.
    pub pairs: &'a [KeyPair],
    /// Pairs whose deletion was asked for: their absence is our own doing.
    pub retired: &'a BTreeSet<KeyPairName>,
    /// What custody holds of the pairs in use.
    pub halves: &'a BTreeMap<KeyPairName, Half>,
    /// What came of offering superseded keys.
    pub offered: &'a BTreeMap<InstanceId, Offered>,
    /// Whether somebody drives the store: then a young debt is being paid.
    pub driven: bool,
}

impl Ledger {
    /// What these rotations add up to, oldest first: the fleet's own, and those of others that bound its instances since.
    /// `current`: the pair that the fleet is meant to hang on. `looked`: when the first look began that will be held
    /// against it.
    pub fn of(
        fleet: &FleetName,
        current: Option<&KeyPairName>,
        rotations: &[(Rotation, Vec<PlannedInstance>)],
        looked: Timestamp,
    ) -> Self {
        let mut ledger = Self {
            fleet: fleet.clone(),
            records: BTreeMap::new(),
            planned: BTreeSet::new(),
            owed: BTreeMap::new(),
            pairs: BTreeMap::new(),
            current: None,
            open: false,
        };
        for (rotation, planned) in rotations {
            ledger.enter(rotation, planned, looked);
            if let Some((_, id)) = rotation.key_pair.as_ref().filter(|_| Some(&rotation.plan.key_name) == current) {
                ledger.current = Some(id.clone());
            }
        }
        ledger
    }

    fn enter(&mut self, rotation: &Rotation, planned: &[PlannedInstance], looked: Timestamp) {
        let plan = &rotation.plan;
        let own = plan.fleet == self.fleet;
        let is_open = rotation.ended.is_none();
        if let Some((imported, id)) = &rotation.key_pair {
            let public_key = rotation.key.as_ref().map(|(public_key, _)| public_key.clone());
            let strangers = plan.key.is_strangers();
            let pair = PairRecord { name: plan.key_name.clone(), public_key, imported: *imported, strangers };
            self.pairs.insert(id.clone(), pair);
        }
        self.open |= own && is_open;
        let refused = matches!(rotation.held, Some(HoldReason::StartRefused { .. }));
        for instance in planned {
            if own {
                self.planned.insert(instance.id.clone());
            }
            let Some(member) = rotation.member(&instance.id) else { continue };
            if let Some(since) = member.owed.filter(|_| own) {
                self.owed.insert(instance.id.clone(), Debt { rotation: rotation.id, since, refused });
            }
            if member.gone {
                self.records.remove(&instance.id);
                continue;
            }
            let Some((_, pair)) = &rotation.key_pair else { continue };
            let before = self.records.get(&instance.id);
            let found = member.found.iter().flat_map(|found| &found.keys).chain(&instance.keys);
            match &member.bound {
                Some((bound_at, _)) => {
                    let after_look = *bound_at >= looked;
                    let mut was: Vec<KeyPairId> = before.map(|before| before.was.clone()).unwrap_or_default();
                    was.extend(before.map(|before| before.pair.clone()));
                    was.extend(found.clone().cloned());
                    let record = Record {
                        fleet: plan.fleet.clone(),
                        pair: pair.clone(),
                        may: if after_look { was.iter().cloned().collect() } else { BTreeSet::new() },
                        bare: after_look,
                        was,
                        pin: member.pin.clone().or_else(|| before.and_then(|before| before.pin.clone())),
                    };
                    self.records.insert(instance.id.clone(), record);
                }
                // Asked to be bound, and not seen so: it may be either way, for as long as nobody has looked.
                None if is_open || member.asked => {
                    if let Some(record) = self.records.get_mut(&instance.id) {
                        record.may.insert(pair.clone());
                        record.bare |= is_open && member.asked;
                    }
                }
                None => {}
            }
        }
    }

    /// The instances that the fleet's own rotations bound last.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.records.iter().filter(|(_, record)| record.fleet == self.fleet).map(|(id, _)| id)
    }

    /// Our pairs that are in use as far as the journals know: the current one, and whatever an instance was bound to last.
    pub fn names(&self) -> BTreeSet<&KeyPairName> {
        let recorded = self.records.values().filter(|record| record.fleet == self.fleet).map(|record| &record.pair);
        let pairs = self.current.iter().chain(recorded).filter_map(|id| self.pairs.get(id));
        pairs.filter(|pair| !pair.strangers).map(|pair| &pair.name).collect()
    }

    /// Whether a rotation of the fleet is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether what an instance shows is what is recorded, or what an open rotation is about to make of it.
    pub fn agrees(&self, seen: &Instance) -> bool {
        let Some(record) = self.records.get(&seen.id) else { return true };
        let may = |key: &KeyPairId| *key == record.pair || record.may.contains(key);
        if seen.keys.is_empty() { record.bare } else { seen.keys.iter().all(may) }
    }

    /// The keys that were superseded on an instance, the newest first: who opens it with one of them should not be able to.
    pub fn superseded(&self, id: &InstanceId) -> Vec<(KeyPairName, PublicKey)> {
        let Some(record) = self.records.get(id) else { return Vec::new() };
        let now = self.pairs.get(&record.pair).and_then(|pair| pair.public_key.as_ref());
        let mut keys: Vec<(KeyPairName, PublicKey)> = Vec::new();
        for pair in record.was.iter().rev().filter_map(|id| self.pairs.get(id)) {
            let Some(public_key) = &pair.public_key else { continue };
            if Some(public_key) != now && keys.iter().all(|(_, known)| known != public_key) {
                keys.push((pair.name.clone(), public_key.clone()));
            }
        }
        keys.truncate(SUPERSEDED_MAX);
        keys
    }

    /// The host key that an instance is known by.
    pub fn pin(&self, id: &InstanceId) -> Option<&Pin> {
        self.records.get(id)?.pin.as_ref()
    }

    /// What is not as the journals have it, by kind and subject.
    pub fn judge(&self, looks: &Looks<'_>) -> Vec<Deviation> {
        let seen: BTreeMap<&InstanceId, &Instance> = looks
            .others
            .iter()
            .chain(looks.listed)
            .filter(|seen| seen.power != Power::Gone)
            .map(|seen| (&seen.id, seen))
            .collect();
        let mut found: Vec<Deviation> = seen.values().filter_map(|seen| self.bound_otherwise(seen, looks)).collect();
        found.extend(looks.listed.iter().filter_map(|seen| self.is_new(seen)));
        found.extend(self.owed.iter().filter_map(|(id, debt)| self.is_owed(seen.get(id)?, *debt, looks)));
        for (id, pair) in self.pairs.iter().filter(|(_, pair)| !pair.strangers) {
            let is_current = self.current.as_ref() == Some(id);
            let mut recorded = self.records.iter().filter(|(_, one)| one.fleet == self.fleet && one.pair == *id);
            let shown = |one: &InstanceId| seen.get(one).is_some_and(|seen| seen.keys.contains(id));
            if is_current || recorded.clone().any(|(one, _)| shown(one)) {
                found.extend(self.lacks_half(pair, looks));
            }
            let our_doing = pair.imported >= looks.at || looks.retired.contains(&pair.name);
            if (is_current || recorded.next().is_some()) && !our_doing {
                found.extend(self.is_missing(id, pair, looks));
            }
        }
        found.extend(looks.offered.iter().filter_map(|(id, offered)| self.is_taken(id, offered)));
        found.sort();
        found.dedup();
        found
    }

    fn rotate(&self) -> String {
        format!("rekeyd rotate {}", self.fleet)
    }

    fn name_of(&self, id: &KeyPairId, looks: &Looks<'_>) -> String {
        let known = self.pairs.get(id).map(|pair| &pair.name);
        let shown = looks.pairs.iter().find(|pair| pair.id == *id).map(|pair| &pair.name);
        known.or(shown).map_or_else(|| id.to_string(), ToString::to_string)
    }

    fn bound_otherwise(&self, seen: &Instance, looks: &Looks<'_>) -> Option<Deviation> {
        let record = self.records.get(&seen.id)?;
        // Somebody is at it: the next survey sees what came of that.
        if self.agrees(seen) || seen.is_busy() {
            return None;
        }
        let shown: Vec<String> = seen.keys.iter().map(|key| self.name_of(key, looks)).collect();
        Some(Deviation {
            kind: if shown.is_empty() { DriftKind::NoKey } else { DriftKind::OtherKey },
            subject: seen.id.to_string(),
            recorded: self.name_of(&record.pair, looks),
            seen: if shown.is_empty() { "no key pair".to_string() } else { shown.join(", ") },
            way: self.rotate(),
        })
    }

    fn is_new(&self, seen: &Instance) -> Option<Deviation> {
        // A fleet that was never rotated has nothing but new instances; one that could take no key is no loss.
        let known = self.planned.is_empty() || self.planned.contains(&seen.id) || self.records.contains_key(&seen.id);
        if known || seen.unfit.is_some() || matches!(seen.power, Power::Gone | Power::Other) {
            return None;
        }
        let keys: Vec<&str> = seen.keys.iter().map(KeyPairId::as_str).collect();
        Some(Deviation {
            kind: DriftKind::NewInstance,
            subject: seen.id.to_string(),
            recorded: "in no plan".to_string(),
            seen: if keys.is_empty() { "no key pair".to_string() } else { keys.join(", ") },
            way: format!("rekeyd catch-up {}", self.fleet),
        })
    }

    fn is_owed(&self, seen: &Instance, debt: Debt, looks: &Looks<'_>) -> Option<Deviation> {
        let is_down = !matches!(seen.power, Power::Running | Power::Changing);
        let is_paid = looks.driven && !debt.refused && looks.at < later(debt.since, SETTLE_DEADLINE);
        (is_down && !is_paid).then(|| Deviation {
            kind: DriftKind::OwedStart,
            subject: seen.id.to_string(),
            recorded: format!("owed a start since {}", debt.since.strftime("%Y-%m-%dT%H:%M:%SZ")),
            seen: seen.state.clone(),
            way: match debt.refused {
                true => format!("rekeyd release {}", debt.rotation),
                false => self.rotate(),
            },
        })
    }

    fn is_missing(&self, id: &KeyPairId, pair: &PairRecord, looks: &Looks<'_>) -> Option<Deviation> {
        let seen = match looks.pairs.iter().find(|shown| shown.name == pair.name) {
            None => "not in the cloud".to_string(),
            // One whose public key the cloud keeps to itself is no evidence against it.
            Some(shown) => match (&shown.public_key, &pair.public_key) {
                (Some(shown), Some(ours)) if shown != ours => format!("another key: {}", shown.fingerprint()),
                _ if shown.id != *id => format!("another pair of that name: {}", shown.id),
                _ => return None,
            },
        };
        let recorded = pair.public_key.as_ref().map_or_else(|| id.to_string(), |key| key.fingerprint().to_string());
        let (kind, subject) = (DriftKind::MissingPair, pair.name.to_string());
        Some(Deviation { kind, subject, recorded, seen, way: self.rotate() })
    }

    fn lacks_half(&self, pair: &PairRecord, looks: &Looks<'_>) -> Option<Deviation> {
        let ours = pair.public_key.as_ref()?;
        let seen = match looks.halves.get(&pair.name)? {
            Half::Kept(kept) if kept == ours => return None,
            Half::Kept(other) => format!("another key: {}", other.fingerprint()),
            Half::Lacking(why) => why.clone(),
        };
        Some(Deviation {
            kind: DriftKind::MissingPrivateKey,
            subject: pair.name.to_string(),
            recorded: ours.fingerprint().to_string(),
            seen,
            way: format!("restore it from a backup of custody, or {}", self.rotate()),
        })
    }

    fn is_taken(&self, id: &InstanceId, offered: &Offered) -> Option<Deviation> {
        let subject = id.to_string();
        match offered {
            Offered::Takes(names) if names.is_empty() => None,
            Offered::Takes(names) => {
                let names: Vec<&str> = names.iter().map(KeyPairName::as_str).collect();
                let pair = self.pairs.get(&self.records.get(id)?.pair)?;
                Some(Deviation {
                    kind: DriftKind::RetiredKeyTaken,
                    subject,
                    recorded: pair.name.to_string(),
                    seen: format!("takes {}", names.join(", ")),
                    way: "see first that it takes the newer key: this one may be the only one that works; then take it out of \
                          authorized_keys there"
                        .to_string(),
                })
            }
            Offered::OtherHost { pinned, seen } => Some(Deviation {
                kind: DriftKind::OtherHostKey,
                subject,
                recorded: pinned.to_string(),
                seen: seen.to_string(),
                way: "look whether it was re-installed; the next rotation holds for it".to_string(),
            }),
        }
    }
}
