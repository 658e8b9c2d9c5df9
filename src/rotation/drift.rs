//! Drift: in what ways the world can differ from what the journals record, and what of the installation does: key pairs
//! that no journal knows, private halves that nobody needs. A fleet's own drift is [`super::ledger`]'s. Pure: journals and
//! looks in, deviations out. It must never take for drift what an open journal is about to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use crate::model::{FleetName, KeyPair, KeyPairName, Timestamp};

use super::reason::Outcome;

/// In what way the world differs from the journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    /// An instance is bound to another key pair than recorded, or to one besides.
    OtherKey,
    /// An instance that was bound is bound to none.
    NoKey,
    /// A key pair with our mark that no journal knows.
    UnknownPair,
    /// A key pair in use is not in the cloud any more, or has another public key there.
    MissingPair,
    /// A private half in custody that nobody needs.
    NeedlessPrivateKey,
    /// Custody lacks the private half of a key pair in use.
    MissingPrivateKey,
    /// A machine still takes a key that was superseded on it.
    RetiredKeyTaken,
    /// A machine shows another host key than the one that it is known by.
    OtherHostKey,
    /// A machine that is owed a start does not run, and nobody is about to start it.
    OwedStart,
    /// An instance of the selection that no plan of the fleet has ever had.
    NewInstance,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OtherKey,
        Self::NoKey,
        Self::UnknownPair,
        Self::MissingPair,
        Self::NeedlessPrivateKey,
        Self::MissingPrivateKey,
        Self::RetiredKeyTaken,
        Self::OtherHostKey,
        Self::OwedStart,
        Self::NewInstance,
    ];

    /// All their names, in this order.
    pub const NAMES: [&'static str; 10] = {
        let (mut names, mut at) = ([""; 10], 0);
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    /// Its name, as JSON and metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherKey => "other_key",
            Self::NoKey => "no_key",
            Self::UnknownPair => "unknown_pair",
            Self::MissingPair => "missing_pair",
            Self::NeedlessPrivateKey => "needless_private_key",
            Self::MissingPrivateKey => "missing_private_key",
            Self::RetiredKeyTaken => "retired_key_taken",
            Self::OtherHostKey => "other_host_key",
            Self::OwedStart => "owed_start",
            Self::NewInstance => "new_instance",
        }
    }
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DriftKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One thing that is not as the journals have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Deviation {
    /// In what way.
    pub kind: DriftKind,
    /// The instance's id or the key pair's name.
    pub subject: String,
    /// What the journals record.
    pub recorded: String,
    /// What is seen.
    pub seen: String,
    /// The way on.
    pub way: String,
}

/// A journal's head, as far as it says who needs a private half.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The pair.
    pub name: &'a KeyPairName,
    /// The fleet.
    pub fleet: &'a FleetName,
    /// When and how it ended.
    pub ended: Option<(Timestamp, Outcome)>,
}

/// What was seen of the whole installation.
#[derive(Clone, Debug)]
pub struct Holdings<'a> {
    /// When the first look began.
    pub at: Timestamp,
    /// All journals, oldest first.
    pub named: &'a [Named<'a>],
    /// Key pairs with our mark, each with the place where it is.
    pub pairs: &'a [(String, KeyPair)],
    /// Every place was seen: who is in none of them is nowhere.
    pub whole: bool,
    /// The private halves in custody.
    pub halves: &'a [KeyPairName],
}

impl Holdings<'_> {
    /// Pairs that no journal knows, and halves that nobody needs.
    pub fn judge(&self) -> Vec<Deviation> {
        let known: BTreeSet<&KeyPairName> = self.named.iter().map(|named| named.name).collect();
        let unknown = self.pairs.iter().filter(|(_, pair)| !known.contains(&pair.name));
        let mut found: Vec<Deviation> = unknown
            .map(|(place, pair)| Deviation {
                kind: DriftKind::UnknownPair,
                subject: pair.name.to_string(),
                recorded: "in no journal".to_string(),
                seen: match self.halves.contains(&pair.name) {
                    true => format!("{place}, its private key in custody"),
                    false => place.clone(),
                },
                way: match self.halves.contains(&pair.name) {
                    true => "restore the database that knew it, or see `rekeyd adopt --dry-run`; delete it only once nobody \
                             hangs on it"
                        .to_string(),
                    false => "delete it in the cloud's console, unless another rekeyd bears this mark: rotations hold for it"
                        .to_string(),
                },
            })
            .collect();
        let mut current: BTreeMap<&FleetName, &KeyPairName> = BTreeMap::new();
        for named in self.named.iter().filter(|named| matches!(named.ended, Some((_, Outcome::Completed)))) {
            current.insert(named.fleet, named.name);
        }
        for name in self.halves {
            let of: Vec<&Named<'_>> = self.named.iter().filter(|named| named.name == name).collect();
            let recorded = if of.is_empty() {
                // Somebody may be bound to its pair.
                let shown = self.pairs.iter().any(|(_, pair)| pair.name == *name);
                (!shown && self.whole).then(|| "in no journal".to_string())
            } else {
                let young = |named: &&Named<'_>| named.ended.is_none_or(|(at, _)| at >= self.at);
                let destroyed = of.iter().find_map(|named| named.ended.filter(|(_, how)| *how == Outcome::Retired));
                let needed = of.iter().any(young) || current.values().any(|current| *current == name);
                let when = |at: Timestamp| format!("destroyed at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ"));
                destroyed.filter(|_| !needed).map(|(at, _)| when(at))
            };
            found.extend(recorded.map(|recorded| Deviation {
                kind: DriftKind::NeedlessPrivateKey,
                subject: name.to_string(),
                recorded,
                seen: "in custody".to_string(),
                way: "once nobody needs it, move it out of custody".to_string(),
            }));
        }
        found.sort();
        found
    }
}
