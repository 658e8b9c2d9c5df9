//! The agenda in the database: it outlives the process, two processes share it, it is read without a writer, and asking
//! who was touched stays cheap.

use super::*;
use crate::model::{FleetName, RequestId};
use crate::store::conformance::agenda::{pause, release};
use crate::store::{Agenda, Answer, Ask, DueTime};

fn web() -> FleetName {
    "web".into()
}

#[tokio::test]
async fn it_is_read_by_who_opened_to_read_and_outlives_the_process() {
    let (_dir, path) = place();
    let daemon = Sqlite::open(&path).await.unwrap();
    let verb = Sqlite::open_to_write(&path).await.unwrap();
    let reader = Sqlite::open_to_read(&path).await.unwrap();
    let hold = verb.ask(&web(), &pause("x"), &operator(), at(0)).await.unwrap();
    let rotation = verb.ask(&"db".into(), &Ask::rotate(), &operator(), at(1)).await.unwrap();
    assert!(daemon.answer(rotation, &Answer::Rotation(id(7)), at(2)).await.unwrap());
    let due = DueTime { schedule: "0 0 3 1 * * UTC".into(), at: at(99) };
    daemon.set_due(&web(), Some(&due)).await.unwrap();
    rotated(&daemon, 1, "db").await;
    let check = async |store: &Sqlite| {
        assert_eq!(store.asked().await.unwrap().iter().map(|one| one.id).collect::<Vec<_>>(), [hold]);
        assert_eq!(store.request(rotation).await.unwrap().answer, Some((at(2), Answer::Rotation(id(7)))));
        assert_eq!(store.paused().await.unwrap().into_keys().collect::<Vec<_>>(), [web()]);
        assert_eq!(store.due_times().await.unwrap(), [(web(), due.clone())].into());
        assert_eq!(store.touched(0).await.unwrap(), (3, vec![]));
    };
    for store in [&daemon, &verb, &reader] {
        check(store).await;
    }
    for answer in [
        reader.ask(&web(), &Ask::rotate(), &operator(), at(9)).await.map(drop),
        reader.answer(hold, &Answer::Held, at(9)).await.map(drop),
        reader.set_due(&web(), None).await,
    ] {
        assert!(matches!(&answer, Err(StoreError::Unusable(text)) if text.contains("reading only")), "{answer:?}");
    }
    for store in [daemon, verb, reader] {
        store.close().await;
    }
    check(&Sqlite::open_to_read(&path).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hold_of_one_process_beats_every_later_begin_of_another() {
    let (_dir, path) = place();
    let daemon = Sqlite::open(&path).await.unwrap();
    let verb = Sqlite::open_to_write(&path).await.unwrap();
    let mut refused = 0;
    for number in 0..40_u8 {
        let name = format!("fleet-{number}");
        let begin = {
            let (daemon, name) = (daemon.clone(), name.clone());
            tokio::spawn(async move {
                let plan = rotate(&name, &format!("rk_{number}"));
                daemon.begin(id(number), &plan, &[instance(&name, 0)], &engine(), at(0)).await
            })
        };
        verb.ask(&FleetName::new(&name), &pause("now"), &operator(), at(0)).await.unwrap();
        // It is written. Whatever has not begun by now never does.
        let begun_before = daemon.heads().await.unwrap().of(&FleetName::new(&name)).count();
        match begin.await.unwrap() {
            Ok(_) => assert_eq!(begun_before, 1, "{name} began after its hold"),
            Err(StoreError::Paused { fleet, .. }) => {
                assert_eq!(fleet, FleetName::new(&name));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(daemon.heads().await.unwrap().of(&FleetName::new(&name)).count(), begun_before);
    }
    eprintln!("{refused} of 40 begins came after the hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_ask_and_answer_and_lose_nothing() {
    let (_dir, path) = place();
    let handles = [Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap()];
    let tasks: Vec<_> = (0..8_usize)
        .map(|number| {
            let store = handles[number % 2].clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..10 {
                    ids.push(store.ask(&web(), &Ask::rotate(), &operator(), at(0)).await.unwrap());
                }
                ids
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids.sort();
    assert_eq!(ids, (1..=80).map(RequestId::new).collect::<Vec<_>>());
    assert_eq!(handles[1].asked().await.unwrap().len(), 80);
    let mut taken = 0;
    let tasks: Vec<_> = (0..8_usize)
        .map(|number| {
            let (store, ids) = (handles[number % 2].clone(), ids[..10].to_vec());
            tokio::spawn(async move {
                let mut taken = 0;
                for id in ids {
                    taken += u32::from(store.answer(id, &Answer::Refused(number.to_string()), at(1)).await.unwrap());
                }
                taken
            })
        })
        .collect();
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!(taken, 10);
    assert_eq!(handles[0].asked().await.unwrap().len(), 70);
}

#[tokio::test]
async fn a_request_that_was_spoilt_is_named_and_a_due_time_is_lost() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    for ask in [release(), Ask::rotate()] {
        store.ask(&web(), &ask, &operator(), at(0)).await.unwrap();
    }
    store.set_due(&web(), Some(&DueTime { schedule: "x".into(), at: at(0) })).await.unwrap();
    let spoil = "DROP TRIGGER requests_are_answered_once; PRAGMA ignore_check_constraints = ON; \
                 UPDATE requests SET ask = '{' WHERE id = 2; UPDATE due_times SET at = 'soon'";
    by_hand(&path, spoil).await.unwrap();
    for problem in [store.asked().await.unwrap_err(), store.request(RequestId::new(2)).await.unwrap_err()] {
        let text = problem.to_string();
        assert!(matches!(problem, StoreError::Unusable(_)) && text.contains("request 2 cannot be read"), "{text}");
    }
    assert_eq!(store.request(RequestId::new(1)).await.unwrap().ask, release());
    assert!(store.paused().await.unwrap().is_empty());
    assert!(store.due_times().await.unwrap().is_empty());
    rotated(&store, 1, "web").await;
    // It can still be done away with.
    assert!(store.answer(RequestId::new(2), &Answer::Refused("spoilt".into()), at(1)).await.unwrap());
    assert_eq!(store.asked().await.unwrap().iter().map(|one| one.id.number()).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn asking_who_was_touched_costs_nothing_among_many_entries() {
    let (_dir, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    store.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let many = 200_000;
    // Short texts: what is read here is the authors and the order.
    let fill = format!(
        "DROP TRIGGER entries_are_numbered_without_a_gap; \
         WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {many}) \
         INSERT INTO entries (journal, seq, at, author, event, prev, hash) \
         SELECT journal, i, at, author, '{{\"event\":\"x\"}}', '', '' FROM n, (SELECT journal, at, author FROM entries)"
    );
    by_hand(&path, &fill).await.unwrap();
    let newest = many;
    assert_eq!(store.touched(0).await.unwrap(), (newest, vec![]));
    let pace = async |what: &str, after: u64, expect: (u64, Vec<JournalId>)| {
        let began = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(store.touched(after).await.unwrap(), expect, "{what}");
        }
        let took = began.elapsed() / 100;
        eprintln!("{what}: {took:?}");
        assert!(took.as_millis() < 10, "{what}: {took:?}");
    };
    pace("nothing new", newest, (newest, vec![])).await;
    pace("the newest position", u64::MAX, (newest, vec![])).await;
    store.begin(id(2), &rotate("db", "rk_2"), &[instance("i-2", 0)], &engine(), at(0)).await.unwrap();
    store.append(id(2), 1, &[held("x")], &operator(), at(1)).await.unwrap();
    pace("one new", newest, (newest + 2, vec![id(2)])).await;
    // What folds the file together leaves the positions as they are.
    by_hand(&path, "VACUUM").await.unwrap();
    assert_eq!(store.touched(newest + 1).await.unwrap(), (newest + 2, vec![id(2)]));
    assert_eq!(store.touched(newest + 2).await.unwrap(), (newest + 2, vec![]));
}
