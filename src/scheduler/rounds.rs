//! When fleets are surveyed for drift: each once an hour, the first time soon after the start, never two of one account and
//! region at once. Pure; what it knows may be lost. It must never be the reason for a change anywhere: a survey only looks.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::survey::Survey;
use crate::model::{Duration, FleetName, Mark, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Deviation, DriftKind};

use super::book::Gate;
use super::due::offset;

/// From one survey to the next.
pub const EVERY: Duration = Duration::from_secs(3600);
/// The first ones come within this after the start, spread over it: who restarts a daemon waits for its numbers.
const FIRST: Duration = Duration::from_secs(30);

/// What is surveyed at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Round {
    /// What belongs to no fleet alone: unknown key pairs, needless private halves.
    Holdings,
    /// A fleet.
    Fleet(FleetName),
}

impl Round {
    /// The fleet; `None`: the whole installation.
    pub fn fleet(&self) -> Option<&FleetName> {
        match self {
            Self::Holdings => None,
            Self::Fleet(fleet) => Some(fleet),
        }
    }
}

/// Which survey is due when, and what the newest ones found.
#[derive(Debug, Default)]
pub struct Rounds {
    due: BTreeMap<Round, (Option<Gate>, Timestamp)>,
    under_way: BTreeSet<Round>,
    found: BTreeMap<Round, BTreeSet<(DriftKind, String)>>,
}

impl Rounds {
    /// The rounds of these fleets, each with the gate of its place, in a process that starts now.
    pub fn new(fleets: impl IntoIterator<Item = (FleetName, Gate)>, mark: &Mark, now: Timestamp) -> Self {
        let fleets = fleets.into_iter().map(|(fleet, gate)| (Round::Fleet(fleet), Some(gate)));
        let due = |round: &Round| {
            let nobody = FleetName::new("");
            later(now, offset(round.fleet().unwrap_or(&nobody), mark, FIRST))
        };
        let due = fleets.chain([(Round::Holdings, None)]).map(|(round, gate)| {
            let at = due(&round);
            (round, (gate, at))
        });
        Self { due: due.collect(), ..Self::default() }
    }

    /// The fleets are these now: who is new is surveyed as after a start, who was known keeps its second.
    pub fn reload(&mut self, fleets: impl IntoIterator<Item = (FleetName, Gate)>, mark: &Mark, now: Timestamp) {
        let mut due = Self::new(fleets, mark, now).due;
        for (round, (_, at)) in &mut due {
            *at = self.due.get(round).map_or(*at, |(_, known)| *known);
        }
        self.found.retain(|round, _| due.contains_key(round));
        self.due = due;
    }

    /// What is to be surveyed now, oldest first. `is_full`: whoever waits for this gate goes first.
    pub fn due(&mut self, now: Timestamp, is_full: &dyn Fn(&Gate) -> bool) -> Vec<Round> {
        let mut taken: BTreeSet<Gate> =
            self.under_way.iter().filter_map(|round| self.due.get(round)?.0.clone()).collect();
        // A due time beyond the next hour stems from before the clock was set back.
        let is_due = |at: Timestamp| at <= now || at > later(now, EVERY);
        let mut waiting: Vec<(Timestamp, &Round, &Option<Gate>)> =
            self.due.iter().map(|(round, (gate, at))| (*at, round, gate)).collect();
        waiting.retain(|(at, round, _)| is_due(*at) && !self.under_way.contains(round));
        waiting.sort();
        let mut ready = Vec::new();
        for (_, round, gate) in waiting {
            let is_free = match gate {
                Some(gate) => !is_full(gate) && taken.insert(gate.clone()),
                None => true,
            };
            if is_free {
                ready.push(round.clone());
            }
        }
        self.under_way.extend(ready.iter().cloned());
        ready
    }

    /// A survey is done, and what it found that the one before it had not.
    pub fn done<'a>(&mut self, round: &Round, survey: &'a Survey, now: Timestamp) -> Vec<&'a Deviation> {
        self.under_way.remove(round);
        if let Some((_, at)) = self.due.get_mut(round) {
            // An hour after it was due, so that fleets stay apart; one that came late does not come twice.
            let next = later(*at, EVERY);
            *at = if next > now && next <= later(now, EVERY) { next } else { later(now, EVERY) };
        }
        let known = self.found.remove(round).unwrap_or_default();
        let key = |deviation: &Deviation| (deviation.kind, deviation.subject.clone());
        let new = survey.deviations.iter().filter(|deviation| !known.contains(&key(deviation))).collect();
        let mut found: BTreeSet<(DriftKind, String)> = survey.deviations.iter().map(key).collect();
        if !survey.unseen.is_empty() {
            // What could not be seen may be there still: it is not said again when it is.
            found.extend(known);
        }
        self.found.insert(round.clone(), found);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Region;

    fn at(second: u64) -> Timestamp {
        later("2026-11-22T00:00:00Z".parse().unwrap(), Duration::from_secs(second))
    }

    fn gate(account: &str) -> Gate {
        (account.into(), Region::new("r"))
    }

    /// `web db` in account main, `far` in another.
    fn rounds() -> Rounds {
        let fleets = [("web", "main"), ("db", "main"), ("far", "other")];
        let fleets = fleets.map(|(fleet, account)| (FleetName::new(fleet), gate(account)));
        Rounds::new(fleets, &Mark::try_from("m".to_string()).unwrap(), at(0))
    }

    fn names(rounds: &[Round]) -> Vec<&str> {
        let mut names: Vec<&str> = rounds.iter().map(|round| round.fleet().map_or("-", FleetName::as_str)).collect();
        names.sort();
        names
    }

    fn survey(kinds: &[(DriftKind, &str)], unseen: &[&str]) -> Survey {
        let deviation = |(kind, subject): &(DriftKind, &str)| Deviation {
            kind: *kind,
            subject: subject.to_string(),
            recorded: String::new(),
            seen: String::new(),
            way: String::new(),
        };
        Survey {
            deviations: kinds.iter().map(deviation).collect(),
            unseen: unseen.iter().map(ToString::to_string).collect(),
            ..Survey::empty(at(0))
        }
    }

    fn nothing() -> Survey {
        survey(&[], &[])
    }

    #[test]
    fn all_are_surveyed_within_half_a_minute_of_the_start_and_one_of_a_place_at_a_time() {
        let mut rounds = rounds();
        let free = |_: &Gate| false;
        let first = rounds.due(at(30), &free);
        assert_eq!(first.len(), 3, "{first:?}");
        assert!(names(&first).contains(&"-") && names(&first).contains(&"far"));
        assert!(rounds.due(at(31), &free).is_empty(), "what is under way is not begun again, nor beside its neighbour");
        for round in &first {
            rounds.done(round, &nothing(), at(40));
        }
        let second = rounds.due(at(41), &free);
        assert_eq!(second.len(), 1, "{second:?}");
        assert!(!first.contains(&second[0]));
    }

    #[test]
    fn each_comes_once_an_hour_at_its_own_second_and_never_beside_a_full_gate() {
        let (mut rounds, free) = (rounds(), |_: &Gate| false);
        let due = rounds.due[&Round::Fleet("far".into())].1;
        assert!(due >= at(0) && due < at(30));
        let full = |gate: &Gate| gate.0.as_str() == "other";
        assert!(!names(&rounds.due(at(30), &full)).contains(&"far"), "others need the cloud more");
        assert_eq!(names(&rounds.due(at(100), &free)), ["far"]);
        rounds.done(&Round::Fleet("far".into()), &nothing(), at(110));
        assert_eq!(rounds.due[&Round::Fleet("far".into())].1, later(due, EVERY));
        // One that comes hours late comes once.
        assert_eq!(
            rounds.due(at(9 * 3600), &free).iter().filter(|round| names(&[(*round).clone()]) == ["far"]).count(),
            1
        );
        rounds.done(&Round::Fleet("far".into()), &nothing(), at(9 * 3600));
        assert_eq!(rounds.due[&Round::Fleet("far".into())].1, at(10 * 3600));
    }

    #[test]
    fn after_a_reload_who_is_new_comes_soon_who_is_gone_never_and_the_others_when_they_would_have() {
        let (mut rounds, free) = (rounds(), |_: &Gate| false);
        while let first @ [_, ..] = &rounds.due(at(40), &free)[..] {
            first.iter().for_each(|round| drop(rounds.done(round, &nothing(), at(40))));
        }
        let web = rounds.due[&Round::Fleet("web".into())].1;
        let fleets = [("web", "main"), ("new", "main")].map(|(fleet, account)| (FleetName::new(fleet), gate(account)));
        rounds.reload(fleets, &Mark::try_from("m".to_string()).unwrap(), at(100));
        assert_eq!(names(&rounds.due(at(130), &free)), ["new"]);
        assert_eq!(rounds.due[&Round::Fleet("web".into())].1, web);
        assert!(!rounds.due.contains_key(&Round::Fleet("far".into())) && rounds.due.contains_key(&Round::Holdings));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_from_being_surveyed() {
        let (mut rounds, free) = (rounds(), |_: &Gate| false);
        let first = rounds.due(at(50_000), &free);
        first.iter().for_each(|round| drop(rounds.done(round, &nothing(), at(50_000))));
        let mut again = rounds.due(at(100), &free);
        again.iter().for_each(|round| drop(rounds.done(round, &nothing(), at(100))));
        again.extend(rounds.due(at(101), &free));
        assert_eq!(names(&again), ["-", "db", "far", "web"]);
    }

    #[test]
    fn a_deviation_is_new_once_and_again_when_it_had_gone() {
        let mut rounds = rounds();
        let round = Round::Fleet("web".into());
        let mut check = |kinds: &[(DriftKind, &str)], unseen: &[&str], expect: &[&str]| {
            let survey = survey(kinds, unseen);
            let new = rounds.done(&round, &survey, at(60));
            assert_eq!(new.iter().map(|new| new.subject.as_str()).collect::<Vec<_>>(), expect);
        };
        let (a, b) = ((DriftKind::NoKey, "a"), (DriftKind::OtherKey, "b"));
        check(&[a], &[], &["a"]);
        check(&[a, b], &[], &["b"]);
        check(&[(DriftKind::OtherKey, "a"), b], &[], &["a"]);
        check(&[], &["the cloud is away"], &[]);
        check(&[b], &[], &[]);
        check(&[], &[], &[]);
        check(&[b], &[], &["b"]);
    }
}
