//! The last look before a call that cannot be taken back. Pure: evidence in, refusal out. Whatever the brain decided, a
//! guard that refuses wins (DESIGN, the promise, numbers 2, 3, 5 and 9).

use crate::model::{InstanceId, KeyPairId, Mark, PublicKey};
use crate::provider::{Error, Instance, KeyPair, Power};
use crate::rotation::policy::CLOCK_DIFFERENCE_MAX;
use crate::rotation::{Found, HoldReason, Rotation};
use crate::store::Unreadable;

/// Our clock may not differ from the cloud's by more than a minute. Every look before a call shows it; an answer without a
/// `Date` (a proxy may take it off) leaves the cloud's own signature window as the bound, and is no reason to refuse.
pub fn clock(difference: Option<jiff::SignedDuration>) -> Result<(), HoldReason> {
    match difference.map(|difference| difference.as_secs()) {
        Some(difference) if difference.abs() > CLOCK_DIFFERENCE_MAX => Err(HoldReason::Clock { difference }),
        _ => Ok(()),
    }
}

/// Before a bind: the private half is durable in every copy, and is the half of the pair that the cloud shows now.
pub fn bind(
    journalled: &PublicKey,
    kept: Result<PublicKey, String>,
    shown: Option<&KeyPair>,
) -> Result<(), HoldReason> {
    custody(journalled, kept)?;
    match shown.and_then(|pair| pair.public_key.as_ref()) {
        Some(shown) if shown == journalled => Ok(()),
        _ => Err(HoldReason::KeyMismatch),
    }
}

/// Before an import: the private half is durable in every copy, and is the half that the journal names. `kept`: the public
/// half of what custody gave.
pub fn custody(journalled: &PublicKey, kept: Result<PublicKey, String>) -> Result<(), HoldReason> {
    match kept {
        Ok(kept) if kept == *journalled => Ok(()),
        Ok(_) => Err(HoldReason::Custody { problem: "the private half is not the one that the journal names".into() }),
        Err(problem) => Err(HoldReason::Custody { problem }),
    }
}

/// Before a bind to a stranger's pair, whose private half nobody here has: the cloud shows it as it was when the way back
/// was planned, and the rotation that is undone found each of these instances on it.
pub fn bind_back(
    key_pair: &KeyPairId,
    planned: Option<&PublicKey>,
    shown: Option<&KeyPair>,
    instances: &[Found],
    undone: Option<&Rotation>,
) -> Result<(), HoldReason> {
    let refuse = |problem: String| Err(HoldReason::StrangersPair { problem });
    let Some(shown) = shown.filter(|shown| shown.id == *key_pair) else {
        return refuse(format!("the cloud shows no key pair {key_pair} any more: nobody is bound to it again"));
    };
    if planned.is_some() && shown.public_key.as_ref() != planned {
        return refuse(format!("the cloud shows key pair {key_pair} with another public key than before"));
    }
    let was_on = |id: &InstanceId| {
        let found = undone.and_then(|undone| undone.member(id)).and_then(|member| member.found.as_ref());
        found.is_some_and(|found| found.keys.contains(key_pair))
    };
    let others: Vec<&str> =
        instances.iter().map(|found| &found.instance).filter(|id| !was_on(id)).map(InstanceId::as_str).collect();
    if !others.is_empty() {
        return refuse(format!("never found on key pair {key_pair}: {}", some_of(&others)));
    }
    Ok(())
}

/// Before a stop or a reboot, and before a bind that disturbs: only machines seen in the state that the call is for, and
/// no more running ones than there is room for in `unavailable_max`. `room` does not count those that are owed a start
/// already. Gives those that may go; the others wait.
pub fn room(found: Vec<Found>, room: u32, is_owed: &dyn Fn(&InstanceId) -> bool) -> Vec<Found> {
    let mut left = room;
    let mut may = Vec::new();
    for found in found {
        if found.power == Power::Running && !is_owed(&found.instance) {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        may.push(found);
    }
    may
}

/// Why a key pair may not be deleted yet, or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: wait, naming who or what is waited for.
    Wait(String),
    /// A person must look.
    Hold(HoldReason),
}

/// Before a delete: our mark, our key, nobody bound (known to us or not), and everybody who was ever on the pair is free.
pub fn delete(
    mark: &Mark,
    journalled: Option<&PublicKey>,
    shown: &KeyPair,
    bound: &[Instance],
    hanging: &[InstanceId],
) -> Result<(), Refusal> {
    if !mark.is_on(&shown.name) {
        return Err(Refusal::Hold(HoldReason::UnknownPairs { names: vec![shown.name.to_string()] }));
    }
    match (&shown.public_key, journalled) {
        (Some(shown), Some(journalled)) if shown == journalled => {}
        _ => return Err(Refusal::Hold(HoldReason::KeyMismatch)),
    }
    if !bound.is_empty() {
        let ids: Vec<&str> = bound.iter().map(|seen| seen.id.as_str()).collect();
        return Err(Refusal::Wait(format!("still bound: {}", some_of(&ids))));
    }
    if let Some(count) = shown.bound.filter(|count| *count > 0) {
        return Err(Refusal::Wait(format!("the cloud counts {count} instances bound that it does not list")));
    }
    if !hanging.is_empty() {
        let ids: Vec<&str> = hanging.iter().map(InstanceId::as_str).collect();
        return Err(Refusal::Wait(format!("not proven to be off it: {}", some_of(&ids))));
    }
    Ok(())
}

/// Before a destruction: the pair is gone, everybody who was ever on it is free, and no other open journal names the key.
pub fn destroy(shown: Option<&KeyPair>, hanging: &[InstanceId], other_open_journals: usize) -> Result<(), Refusal> {
    if shown.is_some() {
        return Err(Refusal::Wait("the key pair is still there".into()));
    }
    if !hanging.is_empty() {
        let ids: Vec<&str> = hanging.iter().map(InstanceId::as_str).collect();
        return Err(Refusal::Wait(format!("not proven to be off it: {}", some_of(&ids))));
    }
    if other_open_journals > 0 {
        return Err(Refusal::Wait("another open journal names the key".into()));
    }
    Ok(())
}

/// Before a deletion or a destruction: every journal of the store can be read. One that cannot may know of others who hang on
/// the pair, or name its key.
pub fn journals(unreadable: &[Unreadable]) -> Result<(), Refusal> {
    match unreadable.first() {
        None => Ok(()),
        Some(Unreadable { journal, problem, .. }) => Err(Refusal::Wait(format!(
            "journal {journal} cannot be read ({problem}): it may know who else hangs on the pair"
        ))),
    }
}

/// An error that stands for a guard's word where the journal wants one.
pub(super) fn some_of(ids: &[&str]) -> String {
    const SHOWN: usize = 5;
    match ids.len() {
        count if count > SHOWN => format!("{} and {} more", ids[..SHOWN].join(", "), count - SHOWN),
        _ => ids.join(", "),
    }
}

/// Whether an error says that the pair is not there any more.
pub fn says_gone(error: &Error) -> bool {
    use crate::provider::{Effect, Kind};
    matches!(error.kind, Kind::NotFound | Kind::Already) && error.effect == Effect::NotDone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyPairId, KeyPairName, PrivateKey};

    fn pair(name: &str, key: Option<&PrivateKey>) -> KeyPair {
        KeyPair {
            id: KeyPairId::new("k-1"),
            name: KeyPairName::new(name),
            public_key: key.map(|key| key.public().clone()),
            bound: None,
        }
    }

    fn mark() -> Mark {
        Mark::try_from("m".to_string()).unwrap()
    }

    #[test]
    fn the_clock_guard_refuses_more_than_a_minute_either_way() {
        let check = |seconds: Option<i64>, expect: bool| {
            assert_eq!(clock(seconds.map(jiff::SignedDuration::from_secs)).is_ok(), expect, "{seconds:?}");
        };
        check(Some(0), true);
        check(Some(60), true);
        check(Some(-60), true);
        check(Some(61), false);
        check(Some(-61), false);
        check(Some(i64::MAX), false);
        check(None, true);
    }

    #[test]
    fn the_bind_guard_refuses_unless_custody_journal_and_cloud_agree() {
        let (ours, other) = (PrivateKey::sample(1), PrivateKey::sample(2));
        let check = |kept: Result<&PrivateKey, &str>, shown: Option<KeyPair>, expect: Option<&str>| {
            let kept = kept.map(|key| key.public().clone()).map_err(str::to_string);
            let refusal = bind(ours.public(), kept, shown.as_ref()).err().map(|reason| reason.kind());
            assert_eq!(refusal, expect);
        };
        check(Ok(&ours), Some(pair("rkm_a", Some(&ours))), None);
        check(Err("copy is missing"), Some(pair("rkm_a", Some(&ours))), Some("custody"));
        check(Ok(&other), Some(pair("rkm_a", Some(&ours))), Some("custody"));
        check(Ok(&ours), Some(pair("rkm_a", Some(&other))), Some("key_mismatch"));
        check(Ok(&ours), Some(pair("rkm_a", None)), Some("key_mismatch"));
        check(Ok(&ours), None, Some("key_mismatch"));
    }

    #[test]
    fn the_guard_of_the_way_back_refuses_whoever_was_not_found_on_the_strangers_pair() {
        use crate::model::{Disruption, Duration, JournalId, ProviderKind, Region, Select, Timestamp};
        use crate::rotation::{Author, Call, Entry, Event, Part, Place, PlannedInstance, Policy, RotatePlan, Step};
        let found = |id: &str, key: &str| Found {
            instance: id.into(),
            power: Power::Running,
            keys: vec![key.into()],
            boot: None,
        };
        let planned = |id: &str| PlannedInstance {
            id: id.into(),
            name: String::new(),
            power: Power::Running,
            keys: Vec::new(),
            part: Part::Batch(0),
            pin: None,
            known: None,
        };
        let plan = RotatePlan {
            fleet: "web".into(),
            place: Place {
                account: "a".into(),
                provider: ProviderKind::AlibabaEcs,
                endpoint: None,
                region: Region::new("r"),
            },
            select: Select::All,
            key_name: "rkm_a".into(),
            key: Default::default(),
            key_bits: 2048,
            undoes: None,
            compromised: false,
            disruption: Disruption::NeedsReboot,
            policy: Policy {
                unavailable_max: 1,
                failures_max: 0,
                soak: Duration::ZERO,
                force_stop: false,
                grace: Duration::ZERO,
                deliver: Vec::new(),
                pace: Default::default(),
                verify: Default::default(),
            },
        };
        let both = vec![found("i-1", "old"), found("i-2", "other")];
        let events = [
            Event::Planned { digest: String::new() },
            Event::Started { step: Step::Bind(0), call: Call::Bind, found: both },
        ];
        let by = Author::Engine("e".into());
        let entries: Vec<Entry> = (1..)
            .zip(events)
            .map(|(seq, event)| Entry { seq, at: Timestamp::UNIX_EPOCH, by: by.clone(), event })
            .collect();
        let undone = Rotation::fold(JournalId::NIL, plan, &[planned("i-1"), planned("i-2")], &entries).unwrap();
        let theirs = PrivateKey::sample(3);
        let shown = |id: &str, key: Option<&PrivateKey>| KeyPair { id: id.into(), ..pair("old_key", key) };
        let check =
            |shown: Option<KeyPair>, planned: Option<&PrivateKey>, whom: &str, undone: Option<&Rotation>, expect| {
                let planned = planned.map(PrivateKey::public);
                let call = [found(whom, "rkm_a")];
                let refusal = bind_back(&"old".into(), planned, shown.as_ref(), &call, undone).err();
                assert_eq!(refusal.map(|reason| reason.kind()), expect, "{whom}");
            };
        let refused = Some("strangers_pair");
        check(Some(shown("old", Some(&theirs))), Some(&theirs), "i-1", Some(&undone), None);
        check(Some(shown("old", None)), None, "i-1", Some(&undone), None);
        check(Some(shown("old", None)), None, "i-2", Some(&undone), refused);
        check(Some(shown("old", None)), None, "i-3", Some(&undone), refused);
        check(Some(shown("old", None)), None, "i-1", None, refused);
        check(Some(shown("other", None)), None, "i-2", Some(&undone), refused);
        check(None, None, "i-1", Some(&undone), refused);
        check(Some(shown("old", None)), Some(&theirs), "i-1", Some(&undone), refused);
        check(Some(shown("old", Some(&PrivateKey::sample(4)))), Some(&theirs), "i-1", Some(&undone), refused);
    }

    #[test]
    fn the_room_guard_lets_no_more_running_machines_go_than_there_is_room_for() {
        let check = |letters: &str, room_left: u32, expect: &str| {
            // `r` runs, `s` is stopped, `o` runs and is owed a start already: it counts as down.
            let found = letters.chars().enumerate().map(|(number, letter)| Found {
                instance: format!("{letter}{number}").as_str().into(),
                power: if letter == 's' { Power::Stopped } else { Power::Running },
                keys: Vec::new(),
                boot: None,
            });
            let is_owed = |id: &InstanceId| id.as_str().starts_with('o');
            let may: String =
                room(found.collect(), room_left, &is_owed).iter().map(|found| &found.instance.as_str()[..1]).collect();
            assert_eq!(may, expect, "{letters} {room_left}");
        };
        check("rrr", 2, "rr");
        check("rrr", 0, "");
        check("srsr", 1, "srs");
        check("oro", 0, "oo");
        check("oro", 1, "oro");
    }

    #[test]
    fn the_delete_guard_refuses_strangers_the_bound_and_the_unproven() {
        let (ours, other) = (PrivateKey::sample(1), PrivateKey::sample(2));
        let seen = Instance {
            id: "i-1".into(),
            name: String::new(),
            power: Power::Stopped,
            state: String::new(),
            keys: Vec::new(),
            boot: None,
            operation: None,
            unfit: None,
            hazards: Default::default(),
            tags: Default::default(),
            zone: None,
            image: None,
            private_address: None,
            public_address: None,
        };
        let check = |shown: KeyPair, bound: &[Instance], hanging: &[InstanceId], expect: &str| {
            let word = match delete(&mark(), Some(ours.public()), &shown, bound, hanging) {
                Ok(()) => "go".to_string(),
                Err(Refusal::Wait(reason)) => reason,
                Err(Refusal::Hold(reason)) => reason.kind().to_string(),
            };
            assert!(word.starts_with(expect), "{word}, not {expect}");
        };
        let good = || pair("rkm_a", Some(&ours));
        check(good(), &[], &[], "go");
        check(pair("rkother_a", Some(&ours)), &[], &[], "unknown_pairs");
        check(pair("old_key", Some(&ours)), &[], &[], "unknown_pairs");
        check(pair("rkm_a", Some(&other)), &[], &[], "key_mismatch");
        check(pair("rkm_a", None), &[], &[], "key_mismatch");
        check(good(), &[seen], &[], "still bound: i-1");
        check(KeyPair { bound: Some(2), ..good() }, &[], &[], "the cloud counts 2");
        check(KeyPair { bound: Some(0), ..good() }, &[], &[], "go");
        check(good(), &[], &["i-7".into()], "not proven to be off it: i-7");
        let unknown = delete(&mark(), None, &good(), &[], &[]);
        assert_eq!(unknown, Err(Refusal::Hold(HoldReason::KeyMismatch)), "a key that no journal names");
    }

    #[test]
    fn the_destroy_guard_refuses_while_anybody_could_need_the_half() {
        let shown = pair("rkm_a", None);
        assert!(destroy(None, &[], 0).is_ok());
        assert!(destroy(Some(&shown), &[], 0).is_err());
        assert!(destroy(None, &["i-1".into()], 0).is_err());
        assert!(destroy(None, &[], 1).is_err());
    }

    #[test]
    fn the_journals_guard_refuses_while_a_journal_of_any_fleet_cannot_be_read() {
        assert_eq!(journals(&[]), Ok(()));
        for fleet in [None, Some("web".into())] {
            let spoilt =
                Unreadable { journal: crate::model::JournalId::NIL, fleet, problem: "its plan: EOF".to_string() };
            let Err(Refusal::Wait(reason)) = journals(&[spoilt]) else { panic!("not refused") };
            assert!(reason.contains("00000000-0000-0000-0000-000000000000 cannot be read (its plan: EOF)"), "{reason}");
        }
    }
}
