//! The contract of [`Agenda`] as cases that every implementation must pass, together with what it changes for
//! [`Journal`]. Each case gets a store of its own.

use super::{at, engine, held, id, instance, operator, rotate, rotated, started};
use super::{ended, retire};
use crate::model::{FleetName, RequestId, Timestamp};
use crate::rotation::{Author, Outcome};
use crate::store::{Agenda, Answer, Ask, DueTime, Journal, LateLook, Request, StoreError};

use super::Running;

/// Both halves of a store.
pub(in crate::store) trait Store: Journal + Agenda {}
impl<T: Journal + Agenda> Store for T {}

type Case = (&'static str, for<'a> fn(&'a dyn Store) -> Running<'a>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[Case] = &[$((stringify!($name), |store| Box::pin($name(store)))),*];
    };
}

cases![
    what_is_asked_reads_back_oldest_first,
    a_request_is_answered_once,
    of_many_answers_at_once_one_is_taken,
    a_request_that_is_not_there_is_missing,
    the_newest_hold_or_release_says_whether_a_fleet_is_paused,
    what_is_refused_or_withdrawn_pauses_nobody,
    no_rotation_of_a_paused_fleet_begins,
    a_hold_beside_many_begins_lets_none_begin_after_it,
    a_refused_start_is_told_until_another_rotation_is_asked_for,
    due_times_are_kept_changed_and_forgotten,
    who_came_late_is_kept_until_the_next_look,
    who_was_touched_by_an_operator_is_told_once,
    times_of_requests_and_due_times_are_kept_to_the_millisecond,
];

/// Runs every case on a store from `fresh`, which also answers what must outlive the store. Answers how many ran.
pub(in crate::store) async fn hold<S: Store, G>(mut fresh: impl AsyncFnMut() -> (G, S)) -> usize {
    for (name, case) in CASES {
        let (_guard, store) = fresh().await;
        eprintln!("case {name}");
        case(&store).await;
    }
    CASES.len()
}

pub(in crate::store) fn pause(note: &str) -> Ask {
    Ask::Hold { note: note.into() }
}

pub(in crate::store) fn release() -> Ask {
    Ask::Release { note: "done".into() }
}

fn fleet(name: &str) -> FleetName {
    name.into()
}

async fn ask(store: &dyn Store, name: &str, ask: Ask, second: i64) -> RequestId {
    store.ask(&fleet(name), &ask, &operator(), at(second)).await.unwrap()
}

async fn what_is_asked_reads_back_oldest_first(store: &dyn Store) {
    assert_eq!(store.asked().await.unwrap(), []);
    let asks = [Ask::rotate(), pause("a \"note\"\nof 2 lines 伟"), release()];
    let mut expect = Vec::new();
    for (number, ask) in (1..).zip(asks) {
        // A clock that steps back orders nothing anew.
        let (by, at) = (operator(), at(-(number as i64)));
        let id = store.ask(&fleet("web"), &ask, &by, at).await.unwrap();
        assert_eq!(id, RequestId::new(number));
        expect.push(Request { id, fleet: fleet("web"), ask, by, at, answer: None });
    }
    // A fleet that nobody knows may be asked for as well.
    ask(store, "none; DROP TABLE", Ask::rotate(), 0).await;
    let asked = store.asked().await.unwrap();
    assert_eq!(asked[..3], expect);
    assert_eq!(asked[3].fleet, fleet("none; DROP TABLE"));
    for request in asked {
        assert_eq!(store.request(request.id).await.unwrap(), request);
    }
}

async fn a_request_is_answered_once(store: &dyn Store) {
    let answers = [
        Answer::Rotation(id(7)),
        Answer::Held,
        Answer::Released,
        Answer::Refused("no fleet \"web\"".into()),
        Answer::Withdrawn,
    ];
    for (number, answer) in (1..).zip(answers) {
        let id = ask(store, "web", Ask::rotate(), number).await;
        let before = store.request(id).await.unwrap();
        assert!(store.answer(id, &answer, at(100)).await.unwrap());
        let after = Request { answer: Some((at(100), answer.clone())), ..before };
        assert_eq!(store.request(id).await.unwrap(), after);
        for again in [Answer::Withdrawn, answer] {
            assert!(!store.answer(id, &again, at(200)).await.unwrap());
        }
        assert_eq!(store.request(id).await.unwrap(), after);
        assert_eq!(store.asked().await.unwrap(), []);
    }
    let (first, second) = (ask(store, "web", Ask::rotate(), 8).await, ask(store, "web", Ask::rotate(), 9).await);
    assert!(store.answer(first, &Answer::Held, at(10)).await.unwrap());
    assert_eq!(store.asked().await.unwrap().iter().map(|one| one.id).collect::<Vec<_>>(), [second]);
}

async fn of_many_answers_at_once_one_is_taken(store: &dyn Store) {
    let id = ask(store, "web", Ask::rotate(), 0).await;
    let answers: Vec<Answer> = (0..8).map(|number| Answer::Refused(number.to_string())).collect();
    let all = futures_util::future::join_all(answers.iter().map(|answer| store.answer(id, answer, at(1)))).await;
    let taken: Vec<usize> = (0..8).filter(|number| *all[*number].as_ref().unwrap()).collect();
    assert_eq!(taken.len(), 1, "{all:?}");
    assert_eq!(store.request(id).await.unwrap().answer, Some((at(1), answers[taken[0]].clone())));
}

async fn a_request_that_is_not_there_is_missing(store: &dyn Store) {
    ask(store, "web", Ask::rotate(), 0).await;
    for number in [0, 2, u64::MAX] {
        let id = RequestId::new(number);
        let missing = |error: StoreError| {
            assert!(matches!(error, StoreError::NoRequest(missing) if missing == id), "{error:?}");
        };
        missing(store.request(id).await.unwrap_err());
        missing(store.answer(id, &Answer::Held, at(1)).await.unwrap_err());
    }
}

/// The paused fleets and the number of the request that pauses each.
async fn paused(store: &dyn Store) -> Vec<(String, u64)> {
    let all = store.paused().await.unwrap();
    assert!(all.iter().all(|(fleet, request)| *fleet == request.fleet && matches!(request.ask, Ask::Hold { .. })));
    all.iter().map(|(fleet, request)| (fleet.to_string(), request.id.number())).collect()
}

async fn the_newest_hold_or_release_says_whether_a_fleet_is_paused(store: &dyn Store) {
    let web = |number| vec![("web".to_string(), number)];
    assert_eq!(paused(store).await, []);
    ask(store, "web", Ask::rotate(), 0).await;
    assert_eq!(paused(store).await, []);
    let first = ask(store, "web", pause("one"), 9).await;
    assert_eq!(paused(store).await, web(2));
    // Answered or not; and a rotation that is asked for releases nobody.
    assert!(store.answer(first, &Answer::Held, at(10)).await.unwrap());
    ask(store, "web", Ask::rotate(), 11).await;
    assert_eq!(paused(store).await, web(2));
    assert_eq!(store.paused().await.unwrap()[&fleet("web")], store.request(first).await.unwrap());
    // The newest is the last that was asked, whatever the clock said.
    ask(store, "web", pause("two"), 3).await;
    assert_eq!(paused(store).await, web(4));
    ask(store, "db", release(), 12).await;
    assert_eq!(paused(store).await, web(4));
    ask(store, "web", release(), 1).await;
    assert_eq!(paused(store).await, []);
    ask(store, "db", pause("three"), 12).await;
    ask(store, "web", pause("four"), 12).await;
    assert_eq!(paused(store).await, [("db".to_string(), 7), ("web".to_string(), 8)]);
}

async fn what_is_refused_or_withdrawn_pauses_nobody(store: &dyn Store) {
    let web = |number| vec![("web".to_string(), number)];
    for taken_back in [Answer::Refused("no such fleet".into()), Answer::Withdrawn] {
        let hold = ask(store, "db", pause("wrong"), 0).await;
        assert_eq!(paused(store).await, [("db".to_string(), hold.number())]);
        assert!(store.answer(hold, &taken_back, at(1)).await.unwrap());
        assert_eq!(paused(store).await, []);
    }
    // What stands behind it counts again.
    let first = ask(store, "web", pause("one"), 2).await;
    let second = ask(store, "web", pause("two"), 3).await;
    let released = ask(store, "web", release(), 4).await;
    assert_eq!(paused(store).await, []);
    assert!(store.answer(released, &Answer::Refused("not yours".into()), at(5)).await.unwrap());
    assert_eq!(paused(store).await, web(second.number()));
    assert!(store.answer(second, &Answer::Withdrawn, at(6)).await.unwrap());
    assert_eq!(paused(store).await, web(first.number()));
}

async fn no_rotation_of_a_paused_fleet_begins(store: &dyn Store) {
    rotated(store, 1, "web").await;
    ask(store, "web", pause("sales day"), 3).await;
    let plan = rotate("web", "rk_2");
    let begin = async || store.begin(id(2), &plan, &[instance("i-1", 0)], &engine(), at(4)).await;
    let refused = begin().await.unwrap_err();
    let StoreError::Paused { fleet: paused, by, at: since, note } = &refused else { panic!("{refused:?}") };
    assert_eq!((paused, by, *since, note.as_str()), (&fleet("web"), &operator(), at(3), "sales day"));
    assert!(refused.to_string().contains("`rekeyd release web`"), "{refused}");
    assert_eq!(store.heads().await.unwrap().readable.len(), 1);
    // Another fleet, and the retirement of its old pair, go on.
    store.begin(id(3), &rotate("db", "rk_3"), &[instance("i-3", 0)], &engine(), at(5)).await.unwrap();
    store.begin(id(4), &retire("web", "rk_1", id(1)), &[], &engine(), at(5)).await.unwrap();
    // What is open already goes on as well.
    ask(store, "db", pause("later"), 6).await;
    store.append(id(3), 1, &[started(), ended(Outcome::Completed)], &engine(), at(7)).await.unwrap();
    ask(store, "web", release(), 8).await;
    begin().await.unwrap();
}

async fn a_hold_beside_many_begins_lets_none_begin_after_it(store: &dyn Store) {
    let fleets: Vec<String> = (0..8).map(|number| format!("fleet-{number}")).collect();
    let work = fleets.iter().zip(1..).map(async |(name, number)| {
        let (plan, instances, by) = (rotate(name, &format!("rk_{number}")), [instance(name, 0)], engine());
        let (name, hold) = (fleet(name), pause("now"));
        let (held, begun) = futures_util::future::join(
            store.ask(&name, &hold, &by, at(1)),
            store.begin(id(number), &plan, &instances, &by, at(1)),
        )
        .await;
        held.unwrap();
        assert!(matches!(begun, Ok(_) | Err(StoreError::Paused { .. })), "{begun:?}");
        // The hold is written: from here on nothing begins.
        let again = rotate(name.as_str(), &format!("rk_{number}b"));
        let after = store.begin(id(number + 100), &again, &instances, &by, at(2)).await;
        assert!(matches!(after, Err(StoreError::Paused { .. })), "{after:?}");
    });
    futures_util::future::join_all(work).await;
}

async fn a_refused_start_is_told_until_another_rotation_is_asked_for(store: &dyn Store) {
    assert!(store.refused().await.unwrap().is_empty());
    store.note_refused(&fleet("web"), "no place", &engine(), at(1)).await.unwrap();
    store.note_refused(&fleet("db"), "denied", &engine(), at(2)).await.unwrap();
    store.note_refused(&fleet("web"), "no clock", &engine(), at(3)).await.unwrap();
    // Nobody is asked for it, and it pauses nobody.
    assert!(store.asked().await.unwrap().is_empty() && store.paused().await.unwrap().is_empty());
    let told = async || -> Vec<(String, Timestamp, String)> {
        let refused = store.refused().await.unwrap();
        let told = refused.into_iter().map(|(fleet, request)| match request.answer {
            Some((_, Answer::Refused(why))) if request.ask == Ask::rotate() => (fleet.to_string(), request.at, why),
            other => panic!("{other:?}"),
        });
        told.collect()
    };
    let expect = |list: &[(&str, i64, &str)]| -> Vec<(String, Timestamp, String)> {
        list.iter().map(|(fleet, second, why)| (fleet.to_string(), at(*second), why.to_string())).collect()
    };
    assert_eq!(told().await, expect(&[("db", 2, "denied"), ("web", 3, "no clock")]));
    ask(store, "db", pause("later"), 4).await;
    assert_eq!(told().await.len(), 2, "a hold is no rotation");
    let asked = ask(store, "web", Ask::rotate(), 5).await;
    assert_eq!(told().await, expect(&[("db", 2, "denied")]), "it waits for its answer");
    store.answer(asked, &Answer::Refused("nobody".into()), at(6)).await.unwrap();
    assert_eq!(told().await, expect(&[("db", 2, "denied"), ("web", 5, "nobody")]));
}

async fn due_times_are_kept_changed_and_forgotten(store: &dyn Store) {
    let due = |schedule: &str, second| DueTime { schedule: schedule.into(), at: at(second) };
    assert!(store.due_times().await.unwrap().is_empty());
    store.set_due(&fleet("web"), None).await.unwrap();
    store.set_due(&fleet("web"), Some(&due("0 0 3 1 * * Asia/Shanghai", 5))).await.unwrap();
    store.set_due(&fleet("db"), Some(&due("0 0 4 1 * * UTC", 6))).await.unwrap();
    store.set_due(&fleet("web"), Some(&due("0 0 3 2 * * Asia/Shanghai", 4))).await.unwrap();
    let kept = store.due_times().await.unwrap();
    let expect = [(fleet("db"), due("0 0 4 1 * * UTC", 6)), (fleet("web"), due("0 0 3 2 * * Asia/Shanghai", 4))];
    assert_eq!(kept, expect.into());
    store.set_due(&fleet("db"), None).await.unwrap();
    assert_eq!(store.due_times().await.unwrap().into_keys().collect::<Vec<_>>(), [fleet("web")]);
}

async fn who_came_late_is_kept_until_the_next_look(store: &dyn Store) {
    let look = |second, new: &[&str]| LateLook { at: at(second), new: new.iter().map(|id| (*id).into()).collect() };
    assert!(store.late_looks().await.unwrap().is_empty());
    store.set_late(&fleet("web"), &look(1, &["i-1", "i-2"])).await.unwrap();
    store.set_late(&fleet("db"), &look(2, &[])).await.unwrap();
    store.set_late(&fleet("web"), &look(3, &["i-2"])).await.unwrap();
    let expect = [(fleet("db"), look(2, &[])), (fleet("web"), look(3, &["i-2"]))];
    assert_eq!(store.late_looks().await.unwrap(), expect.into());
}

async fn who_was_touched_by_an_operator_is_told_once(store: &dyn Store) {
    assert_eq!(store.touched(0).await.unwrap(), (0, vec![]));
    rotated(store, 1, "web").await;
    // The engine's own entries touch nobody.
    assert_eq!(store.touched(0).await.unwrap(), (3, vec![]));
    for (number, name) in [(2, "db"), (3, "www")] {
        store.begin(id(number), &rotate(name, name), &[instance(name, 0)], &engine(), at(2)).await.unwrap();
    }
    let write = async |number, after, by: Author| {
        store.append(id(number), after, &[held("a"), held("b")], &by, at(3)).await.unwrap();
    };
    write(3, 1, operator()).await;
    write(2, 1, engine()).await;
    write(2, 3, operator()).await;
    write(3, 3, operator()).await;
    assert_eq!(store.touched(0).await.unwrap(), (13, vec![id(3), id(2)]));
    assert_eq!(store.touched(5).await.unwrap(), (13, vec![id(3), id(2)]));
    assert_eq!(store.touched(7).await.unwrap(), (13, vec![id(2), id(3)]));
    assert_eq!(store.touched(12).await.unwrap(), (13, vec![id(3)]));
    for nothing_new in [13, 14, u64::MAX] {
        assert_eq!(store.touched(nothing_new).await.unwrap(), (13, vec![]), "after {nothing_new}");
    }
    // What was refused wrote nothing.
    store.append(id(2), 1, &[held("late")], &operator(), at(4)).await.unwrap_err();
    assert_eq!(store.touched(13).await.unwrap(), (13, vec![]));
    // A journal that a person began is touched.
    store.begin(id(4), &rotate("far", "rk_4"), &[instance("i-4", 0)], &operator(), at(5)).await.unwrap();
    assert_eq!(store.touched(13).await.unwrap(), (14, vec![id(4)]));
}

async fn times_of_requests_and_due_times_are_kept_to_the_millisecond(store: &dyn Store) {
    let fine: Timestamp = "2026-11-22T01:02:03.123987654Z".parse().unwrap();
    let kept: Timestamp = "2026-11-22T01:02:03.123Z".parse().unwrap();
    let id = store.ask(&fleet("web"), &Ask::rotate(), &operator(), fine).await.unwrap();
    assert!(store.answer(id, &Answer::Held, fine).await.unwrap());
    let request = store.request(id).await.unwrap();
    assert_eq!((request.at, request.answer), (kept, Some((kept, Answer::Held))));
    store.set_due(&fleet("web"), Some(&DueTime { schedule: "x".into(), at: fine })).await.unwrap();
    assert_eq!(store.due_times().await.unwrap()[&fleet("web")].at, kept);
}
