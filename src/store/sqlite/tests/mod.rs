//! What the database does beyond the contract: it outlives the process, refuses changes, notices tampering, stands
//! two processes, and will not be opened where it should not be.

mod agenda;
mod damage;
mod opening;

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::rotation::{Outcome, Part};
use crate::store::Memory;
use crate::store::conformance::{self, at, ended, engine, held, id, instance, operator, retire, rotate, rotated};

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rekeyd.db");
    (dir, path)
}

async fn fresh() -> (TempDir, Sqlite) {
    let (dir, path) = place();
    (dir, Sqlite::open(&path).await.unwrap())
}

/// What somebody with a shell could do.
async fn by_hand(path: &Path, sql: &str) -> Result<(), String> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let done = connection.execute(AssertSqlSafe(sql.to_string())).await.map(|_| ()).map_err(|error| error.to_string());
    connection.close().await.unwrap();
    done
}

async fn refusal(path: &Path) -> String {
    match Sqlite::open(path).await {
        Err(StoreError::Unusable(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

fn problem<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Damaged { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    assert_eq!(conformance::hold(fresh).await, 17);
    assert_eq!(conformance::agenda::hold(fresh).await, 13);
}

#[tokio::test]
async fn both_stores_write_the_same_chain() {
    let (_dir, sqlite) = fresh().await;
    let memory = Memory::new();
    for journal in [&sqlite as &dyn Journal, &memory] {
        rotated(journal, 1, "web").await;
        journal.begin(id(2), &retire("web", "rk_1", id(1)), &[], &operator(), at(3)).await.unwrap();
        rotated(journal, 3, "web").await;
        rotated(journal, 4, "web").await;
    }
    for number in 1..=4 {
        let rows: Vec<EntryRow> = sqlx::query_as("SELECT * FROM entries WHERE journal = $1 ORDER BY seq")
            .bind(id(number).to_string())
            .fetch_all(&sqlite.readers)
            .await
            .unwrap();
        let lines: Vec<Line> = rows.into_iter().map(|row| row.line().unwrap()).collect();
        assert!(!lines.is_empty());
        assert_eq!(lines, memory.lines(id(number)), "journal {number}");
    }
}

#[tokio::test]
async fn a_rotation_begins_from_the_one_before_and_a_retire_journal_from_the_one_it_names() {
    let (_dir, journal) = fresh().await;
    rotated(&journal, 1, "web").await;
    rotated(&journal, 2, "db").await;
    rotated(&journal, 3, "web").await;
    journal.begin(id(4), &retire("web", "rk_1", id(1)), &[], &engine(), at(4)).await.unwrap();
    let text = async |sql: &'static str, number: u8| -> String {
        sqlx::query_scalar(sql).bind(id(number).to_string()).fetch_one(&journal.readers).await.unwrap()
    };
    let first = async |number| text("SELECT prev FROM entries WHERE journal = $1 AND seq = 1", number).await;
    let last = async |number| text("SELECT hash FROM heads WHERE id = $1", number).await;
    assert_eq!(first(1).await, NOTHING_BEFORE);
    assert_eq!(first(2).await, NOTHING_BEFORE);
    assert_eq!(first(3).await, last(1).await);
    assert_eq!(first(4).await, last(1).await);
    for number in 1..=4 {
        journal.verify(id(number)).await.unwrap();
    }
    assert!(matches!(journal.verify(id(5)).await, Err(StoreError::Missing(_))));
}

#[tokio::test]
async fn it_is_all_there_after_it_was_closed_and_opened_again() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    assert!(journal.is_empty().await.unwrap());
    let entries = rotated(&journal, 1, "web").await;
    let head = journal.head(id(1)).await.unwrap();
    journal.close().await;
    let journal = Sqlite::open(&path).await.unwrap();
    assert!(!journal.is_empty().await.unwrap());
    assert_eq!(journal.read(id(1), 0).await.unwrap(), entries);
    assert_eq!(journal.heads().await.unwrap().readable, [head]);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let (dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    let entries = rotated(&journal, 1, "web").await;
    // What a process that dies now leaves behind: its database and log, and nothing folded together.
    for (crashed, is_reader) in [("a", true), ("b", false)] {
        let crashed = dir.path().join(crashed);
        std::fs::create_dir(&crashed).unwrap();
        for name in ["rekeyd.db", "rekeyd.db-wal"] {
            std::fs::copy(dir.path().join(name), crashed.join(name)).unwrap();
        }
        let path = crashed.join("rekeyd.db");
        let journal = if is_reader { Sqlite::open_to_read(&path).await } else { Sqlite::open(&path).await }.unwrap();
        assert_eq!(journal.read(id(1), 0).await.unwrap(), entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_append_one_after_the_other_and_lose_nothing() {
    let (_dir, path) = place();
    let handles = [Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap()];
    handles[0].begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let (writers, each) = (6_usize, 15_u64);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let journal = handles[writer % 2].clone();
            tokio::spawn(async move {
                let (mut known, mut conflicts) = (1, 0_u32);
                for note in 0..each {
                    loop {
                        let event = held(&format!("{writer}/{note}"));
                        match journal.append(id(1), known, &[event], &operator(), at(1)).await {
                            Ok(_) => {
                                known += 1;
                                break;
                            }
                            Err(StoreError::Conflict { .. }) => {
                                conflicts += 1;
                                known += journal.read(id(1), known).await.unwrap().len() as u64;
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                conflicts
            })
        })
        .collect();
    let mut conflicts = 0;
    for task in tasks {
        conflicts += task.await.unwrap();
    }
    assert!(conflicts > 0, "nobody ever met anybody");
    let entries = handles[1].read(id(1), 0).await.unwrap();
    assert_eq!(entries.len() as u64, 1 + writers as u64 * each);
    let notes: std::collections::BTreeSet<String> =
        entries[1..].iter().map(|entry| serde_json::to_string(&entry.event).unwrap()).collect();
    assert_eq!(notes.len() as u64, writers as u64 * each);
    handles[0].verify(id(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_processes_that_begin_a_fleets_rotation_one_does() {
    let (_dir, path) = place();
    let handles = [Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap()];
    let tasks: Vec<_> = (0..8_u8)
        .map(|number| {
            let journal = handles[usize::from(number % 2)].clone();
            tokio::spawn(async move {
                let plan = rotate("web", &format!("rk_{number}"));
                journal.begin(id(number), &plan, &[instance("i-1", 0)], &engine(), at(0)).await
            })
        })
        .collect();
    let mut begun = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => begun += 1,
            Err(StoreError::Open { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(begun, 1);
    assert_eq!(handles[0].heads().await.unwrap().readable.len(), 1);
}

#[tokio::test]
async fn an_append_that_is_dropped_half_way_is_whole_or_not_there() {
    let (_dir, journal) = fresh().await;
    journal.begin(id(1), &rotate("web", "rk_1"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
    let (mut known, mut dropped) = (1, 0);
    for polls in 0..40 {
        let (events, by) = ([held("one"), held("two")], engine());
        let mut append = journal.append(id(1), known, &events, &by, at(1));
        let mut answered = false;
        for _ in 0..polls {
            if std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx))).await.is_ready() {
                answered = true;
                break;
            }
            tokio::task::yield_now().await;
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        dropped += u32::from(!answered);
        drop(append);
        // The next writer is not kept out by what was dropped.
        journal.append(id(1), 0, &[], &engine(), at(1)).await.unwrap_err();
        let new = journal.read(id(1), known).await.unwrap().len() as u64;
        assert!(new == 2 || (new == 0 && !answered), "{new} of 2 entries, answered: {answered}");
        known += new;
    }
    assert!(dropped > 0, "nothing was ever dropped");
    journal.verify(id(1)).await.unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_instances_begin_in_twenty_statements() {
    let (_dir, journal) = fresh().await;
    let mut instances: Vec<PlannedInstance> =
        (0..100_000_u32).map(|number| instance(&format!("lhins-{number:08}"), number / 100)).collect();
    instances[7].part = Part::Excluded("rescue mode".into());
    assert_eq!(instances.len().div_ceil(CHUNK), 20);
    let began = std::time::Instant::now();
    journal.begin(id(1), &rotate("web", "rk_1"), &instances, &engine(), at(0)).await.unwrap();
    let took = began.elapsed();
    assert!(took.as_secs() < 60, "{took:?}");
    eprintln!("begin: {took:?}");
    let began = std::time::Instant::now();
    assert!(journal.instances(id(1)).await.unwrap() == instances);
    eprintln!("instances: {:?}", began.elapsed());
    // A second fleet that has them all finds them taken, but for the one that is excluded there.
    journal.begin(id(2), &rotate("all", "rk_2"), &instances[..9], &engine(), at(0)).await.unwrap_err();
    let mut ours = instances[..9].to_vec();
    ours[7].part = Part::Batch(0);
    journal.begin(id(2), &rotate("all", "rk_2"), &ours, &engine(), at(0)).await.unwrap();
    let left = journal.instances(id(2)).await.unwrap();
    assert_eq!(left.iter().filter(|one| matches!(one.part, Part::Batch(_))).count(), 1);
}

#[tokio::test]
async fn a_thousand_journals_are_listed_quickly() {
    let (_dir, journal) = fresh().await;
    let mut tx = journal.write().await.unwrap();
    let plan = chain::json(&rotate("web", "rk_1")).unwrap();
    for number in 0..1000_u16 {
        let mut chance = [0; 10];
        chance[..2].copy_from_slice(&number.to_be_bytes());
        let id = JournalId::derive(at(0), chance);
        sqlx::query("INSERT INTO journals (id, plan) VALUES ($1, $2)")
            .bind(id.to_string())
            .bind(&plan)
            .execute(&mut *tx)
            .await
            .unwrap();
        let events = vec![held("x"); 20].into_iter().chain([ended(Outcome::Completed)]).collect::<Vec<_>>();
        let written = Tip::fresh(id, &rotate("web", "rk_1"), NOTHING_BEFORE.to_string())
            .extend(0, &events, &engine(), at(0))
            .unwrap();
        insert(&mut tx, id, written).await.unwrap();
    }
    tx.commit().await.unwrap();
    let began = std::time::Instant::now();
    let heads = journal.heads().await.unwrap().readable;
    let took = began.elapsed();
    eprintln!("heads of 1,000: {took:?}");
    assert_eq!(heads.len(), 1000);
    assert!(heads.iter().all(|head| head.seq == 21 && head.ended.is_some()));
    assert!(took.as_secs() < 10, "{took:?}");
}
