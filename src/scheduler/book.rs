//! What the scheduler knows of the journals: who has one open, when the newest began. Pure; it is filled from the store at
//! the start and kept up by what this process itself begins and ends. It must never be the reason for a call: whoever
//! drives a journal reads it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AccountName, FleetName, JournalId, Region, Timestamp};
use crate::rotation::{Outcome, Place, Plan, Purpose};
use crate::store::Head;

/// Where request rates are kept: one account in one region.
pub type Gate = (AccountName, Region);

/// The gate of a place.
pub fn gate(place: &Place) -> Gate {
    (place.account.clone(), place.region.clone())
}

/// All journals' heads, by fleet, oldest first.
#[derive(Debug, Default)]
pub struct Book {
    fleets: BTreeMap<FleetName, Vec<Head>>,
    /// Journals whose driver said that there is nothing to do for it now.
    idle: BTreeSet<JournalId>,
}

impl Book {
    /// A book of these, oldest first.
    pub fn of(heads: Vec<Head>) -> Self {
        let mut book = Self::default();
        for head in heads {
            book.put(head);
        }
        book
    }

    /// A journal began, or was read again.
    pub fn put(&mut self, head: Head) {
        let heads = self.fleets.entry(head.plan.fleet().clone()).or_default();
        match heads.iter_mut().find(|known| known.id == head.id) {
            Some(known) => *known = head,
            None => heads.push(head),
        }
    }

    /// A journal ended.
    pub fn end(&mut self, id: JournalId, at: Timestamp, outcome: Outcome) {
        self.idle.remove(&id);
        if let Some(head) = self.fleets.values_mut().flatten().find(|head| head.id == id) {
            head.ended = Some((at, outcome));
        }
    }

    /// Whether a journal needs its cloud now, or waits for time or a person.
    pub fn set_idle(&mut self, id: JournalId, idle: bool) {
        if idle {
            self.idle.insert(id);
        } else {
            self.idle.remove(&id);
        }
    }

    /// The journals of a fleet, oldest first.
    pub fn of_fleet(&self, fleet: &FleetName) -> &[Head] {
        self.fleets.get(fleet).map(Vec::as_slice).unwrap_or_default()
    }
    /// The names of all fleets that have journals.
    pub fn fleets(&self) -> impl Iterator<Item = &FleetName> {
        self.fleets.keys()
    }
    /// A journal's head.
    pub fn head(&self, id: JournalId) -> Option<&Head> {
        self.fleets.values().flatten().find(|head| head.id == id)
    }
    /// The journals that are open, of either kind.
    pub fn open(&self) -> impl Iterator<Item = &Head> {
        self.fleets.values().flatten().filter(|head| head.ended.is_none())
    }
    /// The open rotation of a fleet.
    pub fn open_rotation(&self, fleet: &FleetName) -> Option<&Head> {
        self.of_fleet(fleet).iter().find(|head| is_rotation(head) && head.ended.is_none())
    }
    /// When the newest rotation of the whole fleet began: a catch-up or a way back serves no tick.
    pub fn newest_begun(&self, fleet: &FleetName) -> Option<Timestamp> {
        let whole = |head: &&Head| matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate);
        self.of_fleet(fleet).iter().rev().find(whole).map(|head| head.begun)
    }
    /// When the newest rotation began that gave the whole fleet its key, and was completed; an adoption stands for those
    /// whose journals are lost.
    pub fn newest_renewed(&self, fleet: &FleetName) -> Option<Timestamp> {
        let renews = |head: &&Head| {
            let whole = matches!(&head.plan, Plan::Rotate(plan)
                if matches!(plan.purpose(), Purpose::Rotate | Purpose::Adopt));
            whole && matches!(head.ended, Some((_, Outcome::Completed)))
        };
        self.of_fleet(fleet).iter().rev().find(renews).map(|head| head.begun)
    }
    /// How many rotations need the cloud behind this gate now.
    pub fn busy(&self, at: &Gate) -> usize {
        let busy = |head: &&Head| is_rotation(head) && !self.idle.contains(&head.id) && gate(head.plan.place()) == *at;
        self.open().filter(busy).count()
    }
}

fn is_rotation(head: &Head) -> bool {
    matches!(head.plan, Plan::Rotate(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Disruption, Duration, ProviderKind, Select};
    use crate::rotation::{Policy, RetirePlan, RotatePlan};

    fn at(second: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + second, 0).unwrap()
    }

    fn place(account: &str) -> Place {
        let region = Region::new("bj");
        Place { account: account.into(), provider: ProviderKind::BaiduBcc, endpoint: None, region }
    }

    /// `rotate FLEET ACCOUNT` or `retire FLEET ACCOUNT`, begun at this second.
    fn head(number: u8, words: &str) -> Head {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (fleet, place) = (FleetName::new(words[1]), place(words[2]));
        let id = JournalId::derive(at(0), [number; 10]);
        let plan = match words[0] {
            "rotate" => Plan::Rotate(RotatePlan {
                fleet,
                place,
                select: Select::All,
                key_name: "rk1_x".into(),
                key: Default::default(),
                undoes: None,
                compromised: false,
                key_bits: 2048,
                disruption: Disruption::RebootsInstance,
                policy: Policy {
                    unavailable_max: 1,
                    failures_max: 0,
                    soak: Duration::ZERO,
                    force_stop: false,
                    grace: Duration::ZERO,
                    verify: Default::default(),
                    deliver: Vec::new(),
                    pace: Default::default(),
                },
            }),
            _ => Plan::Retire(RetirePlan {
                fleet,
                place,
                key_name: "rk1_x".into(),
                rotation: id,
                soak: Duration::ZERO,
                grace: Duration::ZERO,
                proven: false,
            }),
        };
        Head { id, plan, begun: at(number.into()), ended: None, seq: 1 }
    }

    #[test]
    fn who_is_open_who_is_newest_and_who_needs_its_cloud() {
        let mut book = Book::default();
        for (number, words) in ["rotate a main", "retire a main", "rotate b main", "rotate c other"].iter().enumerate()
        {
            book.put(head(number as u8, words));
        }
        let (web, main) = (FleetName::new("a"), gate(&place("main")));
        let id = |number: u8| JournalId::derive(at(0), [number; 10]);
        assert_eq!(book.open_rotation(&web).map(|head| head.id), Some(id(0)));
        assert_eq!((book.newest_begun(&web), book.newest_renewed(&web)), (Some(at(0)), None));
        assert_eq!((book.busy(&main), book.busy(&gate(&place("other")))), (2, 1), "a retire journal does not count");
        book.set_idle(id(2), true);
        assert_eq!(book.busy(&main), 1, "nor does one that waits for time or a person");
        book.set_idle(id(2), false);
        book.end(id(0), at(9), Outcome::Completed);
        assert_eq!(book.busy(&main), 1);
        assert_eq!(book.open_rotation(&web), None);
        assert_eq!((book.newest_begun(&web), book.newest_renewed(&web)), (Some(at(0)), Some(at(0))));
        book.put(Head { ended: Some((at(9), Outcome::Abandoned)), ..head(7, "rotate a main") });
        assert_eq!((book.newest_begun(&web), book.newest_renewed(&web)), (Some(at(7)), Some(at(0))), "given up");
        assert_eq!(book.open().map(|head| head.id).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
        // Read again after an operator opened it: the same journal, not a second one.
        book.put(head(0, "rotate a main"));
        assert_eq!((book.of_fleet(&web).len(), book.open().count()), (3, 4));
    }
}
