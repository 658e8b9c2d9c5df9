//! The contracts of [`Journal`] and [`Agenda`](super::Agenda) as cases that every implementation must pass. Each case gets a store of its own.

pub(super) mod agenda;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{Head, Heads, Journal, StoreError};
use crate::model::{FleetName, InstanceId, JournalId, KeyPairName, ProviderKind, Timestamp};
use crate::provider::{Disruption, Power, Select};
use crate::rotation::{
    Allow, Author, Call, Entry, Event, Found, HoldReason, Outcome, Part, Place, Plan, PlannedInstance, Policy,
    RetirePlan, RotatePlan, Step,
};

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
type Case = (&'static str, for<'a> fn(&'a dyn Journal) -> Running<'a>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$((stringify!($name), |journal| Box::pin($name(journal)))),*];
    };
}

cases![
    what_begins_reads_back,
    what_is_appended_reads_back_as_it_was_answered,
    an_append_behind_another_is_a_conflict_and_writes_nothing,
    of_many_appends_at_once_one_is_taken,
    a_clock_that_steps_back_is_lifted,
    times_are_kept_to_the_millisecond,
    a_fleet_has_one_open_rotation,
    what_another_fleet_is_binding_is_excluded,
    nobody_to_bind_begins_nothing,
    a_key_pair_is_retired_once,
    a_retire_journal_names_a_rotation,
    nothing_follows_the_end,
    a_release_opens_a_kept_retire_journal_again,
    heads_come_in_the_order_in_which_they_began,
    a_journal_that_is_not_there_is_missing,
    an_id_begins_once,
    an_entry_that_was_known_and_is_not_there_is_damage,
];

/// Runs every case on a store from `fresh`, which also answers what must outlive the store. Answers how many ran.
pub(super) async fn hold<J: Journal, G>(mut fresh: impl AsyncFnMut() -> (G, J)) -> usize {
    for (name, case) in CASES {
        let (_guard, journal) = fresh().await;
        eprintln!("case {name}");
        case(&journal).await;
    }
    CASES.len()
}

// --- what the cases are made of

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// The `number`th journal's id.
pub(super) fn id(number: u8) -> JournalId {
    JournalId::derive(at(0), [number; 10])
}

pub(super) fn engine() -> Author {
    Author::Engine("run-1".into())
}

pub(super) fn operator() -> Author {
    Author::Operator("wei \"the\n2nd\" 伟".into())
}

fn place(region: &str) -> Place {
    Place { account: "lh".into(), provider: ProviderKind::TencentLighthouse, endpoint: None, region: region.into() }
}

pub(super) fn rotate_in(fleet: &str, key: &str, region: &str) -> Plan {
    Plan::Rotate(RotatePlan {
        fleet: fleet.into(),
        place: place(region),
        select: Select::Tags([("role".to_string(), "web".to_string())].into()),
        key_name: key.into(),
        key: Default::default(),
        undoes: None,
        compromised: false,
        key_bits: 4096,
        disruption: Disruption::StopsInstance,
        policy: Policy {
            unavailable_max: 1,
            failures_max: 0,
            soak: Duration::from_secs(600),
            force_stop: false,
            grace: Duration::from_secs(604_800),
            verify: Default::default(),
            deliver: Vec::new(),
            pace: Default::default(),
        },
    })
}

pub(super) fn rotate(fleet: &str, key: &str) -> Plan {
    rotate_in(fleet, key, "ap-singapore")
}

pub(super) fn retire(fleet: &str, key: &str, rotation: JournalId) -> Plan {
    Plan::Retire(RetirePlan {
        fleet: fleet.into(),
        place: place("ap-singapore"),
        key_name: key.into(),
        rotation,
        soak: Duration::ZERO,
        grace: Duration::from_secs(60),
        proven: false,
    })
}

pub(super) fn instance(name: &str, batch: u32) -> PlannedInstance {
    PlannedInstance {
        id: name.into(),
        name: format!("{name} \\ \"web\" \u{0} 伟"),
        power: Power::Running,
        keys: vec!["skey-1".into()],
        part: Part::Batch(batch),
        pin: None,
        known: None,
    }
}

pub(super) fn ended(outcome: Outcome) -> Event {
    Event::Ended { outcome }
}

pub(super) fn held(note: &str) -> Event {
    Event::Held { reason: HoldReason::Operator { note: note.into() } }
}

fn released() -> Event {
    Event::Released { note: String::new(), allow: Some(Allow::Destroy) }
}

fn started() -> Event {
    let found = Found { instance: "i-1".into(), power: Power::Running, keys: vec!["skey-1".into()], boot: None };
    Event::Started { step: Step::Bind(0), call: Call::Bind, found: vec![found] }
}

/// Begins a rotation of `fleet` whose instances are its own, and ends it.
pub(super) async fn rotated(journal: &dyn Journal, number: u8, fleet: &str) -> Vec<Entry> {
    let plan = rotate(fleet, &format!("rk_{number}"));
    journal.begin(id(number), &plan, &[instance(&format!("{fleet}-1"), 0)], &engine(), at(0)).await.unwrap();
    journal.append(id(number), 1, &[started(), ended(Outcome::Completed)], &engine(), at(1)).await.unwrap();
    journal.read(id(number), 0).await.unwrap()
}

fn parts(instances: &[PlannedInstance]) -> Vec<(&str, Option<u32>)> {
    let part = |part: &Part| match part {
        Part::Batch(batch) => Some(*batch),
        Part::Excluded(_) => None,
    };
    instances.iter().map(|one| (one.id.as_str(), part(&one.part))).collect()
}

// --- the cases

async fn what_begins_reads_back(journal: &dyn Journal) {
    let plan = rotate("web", "rk_1");
    let mut excluded = instance("i-2", 0);
    excluded.part = Part::Excluded("rescue mode".into());
    let instances = [instance("i-3", 1), excluded, instance("i-1", 0)];
    let head = journal.begin(id(1), &plan, &instances, &operator(), at(0)).await.unwrap();
    assert_eq!(head, Head { id: id(1), plan: plan.clone(), begun: at(0), ended: None, seq: 1 });
    assert_eq!(journal.head(id(1)).await.unwrap(), head);
    assert_eq!(journal.instances(id(1)).await.unwrap(), instances);
    let entries = journal.read(id(1), 0).await.unwrap();
    assert_eq!((entries.len(), entries[0].seq, entries[0].at, &entries[0].by), (1, 1, at(0), &operator()));
    let Event::Planned { digest } = &entries[0].event else { panic!("{entries:?}") };
    assert_eq!(digest.len(), 64);
    // Another plan has another digest.
    journal.begin(id(2), &rotate("db", "rk_2"), &[instance("i-9", 0)], &operator(), at(0)).await.unwrap();
    assert_ne!(journal.read(id(2), 0).await.unwrap()[0].event, entries[0].event);
}

async fn what_is_appended_reads_back_as_it_was_answered(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let written = journal.append(id(1), 1, &[started(), held("wait")], &operator(), at(5)).await.unwrap();
    assert_eq!(written.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(written[1], Entry { seq: 3, at: at(5), by: operator(), event: held("wait") });
    let third = journal.append(id(1), 3, &[released()], &engine(), at(6)).await.unwrap();
    let all = journal.read(id(1), 0).await.unwrap();
    assert_eq!(all[1..3], written);
    assert_eq!(all[3..], third);
    for after in 0..=4 {
        assert_eq!(journal.read(id(1), after).await.unwrap(), all[after as usize..], "after {after}");
    }
    assert_eq!(journal.head(id(1)).await.unwrap().seq, 4);
    assert_eq!(journal.append(id(1), 4, &[], &engine(), at(7)).await.unwrap(), []);
    assert_eq!(journal.head(id(1)).await.unwrap().seq, 4);
}

async fn an_append_behind_another_is_a_conflict_and_writes_nothing(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    journal.append(id(1), 1, &[started()], &engine(), at(1)).await.unwrap();
    for after in [0, 1, 3, 99] {
        let answer = journal.append(id(1), after, &[held("late"), held("later")], &operator(), at(2)).await;
        let conflict =
            matches!(answer, Err(StoreError::Conflict { journal, after: known }) if journal == id(1) && known == after);
        assert!(conflict, "after {after}: {answer:?}");
    }
    assert_eq!(journal.read(id(1), 0).await.unwrap().len(), 2);
}

async fn of_many_appends_at_once_one_is_taken(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let (by, event) = (operator(), [held("me")]);
    let all = futures_util::future::join_all((0..8).map(|_| journal.append(id(1), 1, &event, &by, at(1)))).await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 1, "{all:?}");
    assert!(all.iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Conflict { .. }))), "{all:?}");
    assert_eq!(journal.read(id(1), 0).await.unwrap().len(), 2);
}

async fn a_clock_that_steps_back_is_lifted(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(100)).await.unwrap();
    let back = journal.append(id(1), 1, &[started()], &engine(), at(3)).await.unwrap();
    assert_eq!(back[0].at, at(100));
    let on = journal.append(id(1), 2, &[started()], &engine(), at(101)).await.unwrap();
    assert_eq!(on[0].at, at(101));
    let times: Vec<Timestamp> = journal.read(id(1), 0).await.unwrap().iter().map(|entry| entry.at).collect();
    assert_eq!(times, [at(100), at(100), at(101)]);
}

async fn times_are_kept_to_the_millisecond(journal: &dyn Journal) {
    let fine: Timestamp = "2026-11-22T01:02:03.123987654Z".parse().unwrap();
    let kept: Timestamp = "2026-11-22T01:02:03.123Z".parse().unwrap();
    let head = journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), fine).await.unwrap();
    assert_eq!(head.begun, kept);
    assert_eq!(journal.append(id(1), 1, &[started()], &engine(), fine).await.unwrap()[0].at, kept);
    assert!(journal.read(id(1), 0).await.unwrap().iter().all(|entry| entry.at == kept));
}

async fn a_fleet_has_one_open_rotation(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let second = journal.begin(id(2), &rotate("web", "rk_2"), &[instance("i-2", 0)], &engine(), at(1)).await;
    let open = matches!(&second, Err(StoreError::Open { fleet, journal }) if *fleet == FleetName::new("web") && *journal == id(1));
    assert!(open, "{second:?}");
    assert_eq!(journal.heads().await.unwrap().readable.len(), 1);
    journal.append(id(1), 1, &[ended(Outcome::Abandoned)], &engine(), at(2)).await.unwrap();
    journal.begin(id(2), &rotate("web", "rk_2"), &[instance("i-2", 0)], &engine(), at(3)).await.unwrap();
    // A retire journal stands beside it and blocks nothing.
    journal.begin(id(3), &retire("web", "rk_1", id(1)), &[], &engine(), at(4)).await.unwrap();
    journal.append(id(2), 1, &[ended(Outcome::Completed)], &engine(), at(5)).await.unwrap();
    journal.begin(id(4), &rotate("web", "rk_4"), &[instance("i-2", 0)], &engine(), at(6)).await.unwrap();
}

async fn what_another_fleet_is_binding_is_excluded(journal: &dyn Journal) {
    let mut out = instance("i-4", 0);
    out.part = Part::Excluded("rescue mode".into());
    let theirs = [instance("i-1", 0), instance("i-2", 1), out];
    journal.begin(id(1), &rotate("web", "rk_1"), &theirs, &engine(), at(0)).await.unwrap();
    let ours = [instance("i-3", 0), instance("i-2", 0), instance("i-4", 1)];
    journal.begin(id(2), &rotate("all", "rk_2"), &ours, &engine(), at(0)).await.unwrap();
    let kept = journal.instances(id(2)).await.unwrap();
    assert_eq!(parts(&kept), [("i-3", Some(0)), ("i-2", None), ("i-4", Some(1))]);
    assert_eq!(kept[1].part, Part::Excluded("fleet web has it in its open rotation".into()));
    // The same id elsewhere is another machine.
    journal.begin(id(3), &rotate_in("far", "rk_3", "eu-frankfurt"), &ours, &engine(), at(0)).await.unwrap();
    assert_eq!(journal.instances(id(3)).await.unwrap(), ours);
    // What has ended binds nothing.
    journal.append(id(1), 1, &[ended(Outcome::Completed)], &engine(), at(1)).await.unwrap();
    journal.begin(id(4), &rotate("web2", "rk_4"), &theirs[..2], &engine(), at(2)).await.unwrap();
    assert_eq!(parts(&journal.instances(id(4)).await.unwrap()), [("i-1", Some(0)), ("i-2", Some(1))]);
}

async fn nobody_to_bind_begins_nothing(journal: &dyn Journal) {
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let mut out = instance("i-2", 0);
    out.part = Part::Excluded("rescue mode".into());
    for instances in [vec![], vec![out.clone()], vec![instance("i-1", 0), out]] {
        let answer = journal.begin(id(2), &rotate("db", "rk_2"), &instances, &engine(), at(1)).await;
        assert!(matches!(answer, Err(StoreError::NobodyToBind)), "{answer:?}");
    }
    assert_eq!(journal.heads().await.unwrap().readable.len(), 1);
    assert!(matches!(journal.read(id(2), 0).await, Err(StoreError::Missing(_))));
}

async fn a_key_pair_is_retired_once(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    journal.begin(id(2), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
    assert_eq!(journal.instances(id(2)).await.unwrap(), []);
    let again = async |number| journal.begin(id(number), &retire("web", "rk_1", id(1)), &[], &engine(), at(3)).await;
    assert!(matches!(again(3).await, Err(StoreError::Open { journal, .. }) if journal == id(2)));
    journal.append(id(2), 1, &[ended(Outcome::Retired)], &engine(), at(4)).await.unwrap();
    assert!(matches!(again(3).await, Err(StoreError::Open { journal, .. }) if journal == id(2)));
    journal.begin(id(3), &retire("web", "rk_0", id(1)), &[], &engine(), at(5)).await.unwrap();
    // A rotation binds it again: not while that is open, and once more after it.
    journal.begin(id(4), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(6)).await.unwrap();
    assert!(matches!(again(5).await, Err(StoreError::Open { journal, .. }) if journal == id(4)));
    journal.append(id(4), 1, &[ended(Outcome::Completed)], &engine(), at(7)).await.unwrap();
    journal.begin(id(5), &retire("web", "rk_1", id(4)), &[], &engine(), at(8)).await.unwrap();
    assert!(matches!(again(6).await, Err(StoreError::Open { journal, .. }) if journal == id(5)));
    // One that is open stands in the way, also of a retirement that a later rotation made due.
    journal.begin(id(6), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(9)).await.unwrap();
    journal.append(id(6), 1, &[ended(Outcome::Completed)], &engine(), at(10)).await.unwrap();
    assert!(matches!(again(7).await, Err(StoreError::Open { journal, .. }) if journal == id(5)));
    journal.append(id(5), 1, &[ended(Outcome::Recalled)], &engine(), at(11)).await.unwrap();
    again(7).await.unwrap();
    let named: Vec<JournalId> = journal.named(&"rk_1".into()).await.unwrap().iter().map(|head| head.id).collect();
    assert_eq!(named, [id(1), id(2), id(4), id(5), id(6), id(7)]);
}

async fn a_retire_journal_names_a_rotation(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    journal.begin(id(2), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
    for not_a_rotation in [2, 9] {
        let plan = retire("web", "rk_0", id(not_a_rotation));
        let answer = journal.begin(id(3), &plan, &[], &engine(), at(2)).await;
        assert!(matches!(answer, Err(StoreError::Missing(missing)) if missing == id(not_a_rotation)), "{answer:?}");
    }
}

async fn nothing_follows_the_end(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    journal.begin(id(2), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
    journal.append(id(2), 1, &[ended(Outcome::Retired)], &engine(), at(3)).await.unwrap();
    for (number, seq) in [(1, 3), (2, 2)] {
        for event in [held("late"), released(), started(), ended(Outcome::Completed)] {
            let answer = journal.append(id(number), seq, std::slice::from_ref(&event), &operator(), at(4)).await;
            assert!(matches!(answer, Err(StoreError::Ended(ended)) if ended == id(number)), "{event:?}: {answer:?}");
        }
        assert_eq!(journal.head(id(number)).await.unwrap().seq, seq);
    }
    // Who does not know that it has ended is told to read on first.
    assert!(matches!(journal.append(id(1), 2, &[started()], &engine(), at(4)).await, Err(StoreError::Conflict { .. })));
    // Nor within one append; and then nothing of it is written.
    journal.begin(id(3), &rotate("web", "rk_3"), &[instance("i-1", 0)], &engine(), at(5)).await.unwrap();
    let both = [ended(Outcome::Completed), started()];
    assert!(matches!(journal.append(id(3), 1, &both, &engine(), at(6)).await, Err(StoreError::Ended(_))));
    assert_eq!(journal.head(id(3)).await.unwrap().seq, 1);
    // A rotation is not kept: its release does not open it, whatever its end says.
    journal.append(id(3), 1, &[ended(Outcome::Kept)], &engine(), at(7)).await.unwrap();
    assert!(matches!(journal.append(id(3), 2, &[released()], &operator(), at(8)).await, Err(StoreError::Ended(_))));
}

async fn a_release_opens_a_kept_retire_journal_again(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    journal.begin(id(2), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
    journal.append(id(2), 1, &[ended(Outcome::Kept)], &engine(), at(3)).await.unwrap();
    assert_eq!(journal.head(id(2)).await.unwrap().ended, Some((at(3), Outcome::Kept)));
    for event in [held("late"), started(), ended(Outcome::Retired)] {
        let answer = journal.append(id(2), 2, std::slice::from_ref(&event), &engine(), at(4)).await;
        assert!(matches!(answer, Err(StoreError::Ended(_))), "{event:?}: {answer:?}");
    }
    journal.append(id(2), 2, &[released()], &operator(), at(5)).await.unwrap();
    assert_eq!(journal.head(id(2)).await.unwrap().ended, None);
    let destroyed = [Event::PrivateKeyDestroyed, ended(Outcome::Retired)];
    journal.append(id(2), 3, &destroyed, &engine(), at(6)).await.unwrap();
    assert_eq!(journal.head(id(2)).await.unwrap().ended, Some((at(6), Outcome::Retired)));
    let answer = journal.append(id(2), 5, &[released()], &operator(), at(7)).await;
    assert!(matches!(answer, Err(StoreError::Ended(_))), "{answer:?}");
    assert_eq!(journal.read(id(2), 0).await.unwrap().len(), 5);
}

async fn heads_come_in_the_order_in_which_they_began(journal: &dyn Journal) {
    assert_eq!(journal.heads().await.unwrap(), Heads::default());
    // Neither ids nor times say the order: both may come from a clock that stepped back.
    rotated(journal, 9, "web").await;
    journal.begin(id(5), &rotate("db", "rk_5"), &[instance("i-5", 0)], &engine(), at(-50)).await.unwrap();
    journal.begin(id(7), &retire("web", "rk_9", id(9)), &[], &engine(), at(8)).await.unwrap();
    let heads = journal.heads().await.unwrap();
    assert_eq!(heads.of(&"web".into()).map(|head| head.id).collect::<Vec<_>>(), [id(9), id(7)]);
    assert_eq!(heads.unreadable, []);
    let heads = heads.readable;
    let expect =
        [(id(9), at(0), Some((at(1), Outcome::Completed)), 3), (id(5), at(-50), None, 1), (id(7), at(8), None, 1)];
    assert_eq!(heads.iter().map(|head| (head.id, head.begun, head.ended, head.seq)).collect::<Vec<_>>(), expect);
    for head in heads {
        assert_eq!(journal.head(head.id).await.unwrap(), head);
    }
}

async fn a_journal_that_is_not_there_is_missing(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    let missing = |answer: Result<(), StoreError>| {
        assert!(matches!(answer, Err(StoreError::Missing(missing)) if missing == id(2)), "{answer:?}");
    };
    missing(journal.head(id(2)).await.map(|_| ()));
    missing(journal.instances(id(2)).await.map(|_| ()));
    missing(journal.read(id(2), 0).await.map(|_| ()));
    missing(journal.read(id(2), 7).await.map(|_| ()));
    missing(journal.append(id(2), 0, &[started()], &engine(), at(1)).await.map(|_| ()));
}

async fn an_id_begins_once(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    let answer = journal.begin(id(1), &rotate("db", "rk_2"), &[instance("i-2", 0)], &engine(), at(2)).await;
    assert!(matches!(answer, Err(StoreError::Conflict { journal, after: 0 }) if journal == id(1)), "{answer:?}");
    assert_eq!(journal.heads().await.unwrap().readable.len(), 1);
    assert_eq!(journal.instances(id(1)).await.unwrap()[0].id, InstanceId::new("web-1"));
}

async fn an_entry_that_was_known_and_is_not_there_is_damage(journal: &dyn Journal) {
    rotated(journal, 1, "web").await;
    assert_eq!(journal.read(id(1), 3).await.unwrap(), []);
    for after in [4, 99] {
        let answer = journal.read(id(1), after).await;
        assert!(matches!(answer, Err(StoreError::Damaged { .. })), "after {after}: {answer:?}");
    }
}

#[test]
fn an_empty_store_beside_private_keys_is_refused() {
    let check = |empty, keys: &[&str], expect: Option<&str>| {
        let keys: Vec<KeyPairName> = keys.iter().map(|key| KeyPairName::new(*key)).collect();
        let answer = super::refuse_lost(empty, &keys).err().map(|error| error.to_string());
        assert_eq!(answer.as_deref(), expect);
    };
    check(true, &[], None);
    check(false, &["rk_1"], None);
    check(
        true,
        &["rk_1", "rk_2"],
        Some(
            "the database holds no journal, but custody holds private keys (rk_1, rk_2): restore the database from its \
             backup, or if it is lost, `rekeyd adopt --dry-run` shows what can be recorded anew from clouds and custody, and \
             `rekeyd adopt` does so",
        ),
    );
    check(
        true,
        &["rk_1"; 12],
        Some(
            "the database holds no journal, but custody holds private keys (rk_1, rk_1, rk_1, rk_1, rk_1, rk_1, rk_1, \
             rk_1, rk_1, rk_1, and 2 more): restore the database from its backup, or if it is lost, `rekeyd adopt \
             --dry-run` shows what can be recorded anew from clouds and custody, and `rekeyd adopt` does so",
        ),
    );
}
