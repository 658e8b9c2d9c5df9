//! What the database does beyond the contract: it outlives the process, refuses changes, notices tampering, stands
//! two processes, and will not be opened where it should not be.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::rotation::Part;
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
    assert_eq!(journal.heads().await.unwrap(), [head]);
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

#[tokio::test]
async fn no_row_is_changed_deleted_or_replaced() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    let entries = rotated(&journal, 1, "web").await;
    let (one, mut refused) = (id(1), 0);
    let mut check = async |sql: &str, expect: &str| {
        let answer = by_hand(&path, sql).await;
        assert!(answer.as_ref().is_err_and(|error| error.contains(expect)), "{sql}: {answer:?}");
        refused += 1;
    };
    check("UPDATE journals SET n = 7", "never changed").await;
    check("UPDATE entries SET at = '2030-01-01T00:00:00.000Z' WHERE seq = 3", "never changed").await;
    check("UPDATE planned_instances SET position = 7", "never changed").await;
    check("DELETE FROM journals", "never deleted").await;
    check("DELETE FROM entries WHERE seq = 3", "never deleted").await;
    check("DELETE FROM planned_instances", "never deleted").await;
    check("INSERT OR REPLACE INTO journals (id, plan) SELECT id, plan FROM journals", "never replaced").await;
    check("INSERT OR REPLACE INTO journals (n, id, plan) SELECT n, 'x', plan FROM journals", "never replaced").await;
    check(
        "INSERT OR REPLACE INTO planned_instances SELECT journal, position, instance FROM planned_instances",
        "frozen",
    )
    .await;
    let copy =
        "INSERT OR REPLACE INTO entries SELECT journal, seq, at, author, event, prev, hash FROM entries WHERE seq = 3";
    check(copy, "without a gap").await;
    let gap = "INSERT INTO entries SELECT journal, 9, at, author, event, prev, hash FROM entries WHERE seq = 3";
    check(gap, "without a gap").await;
    check("INSERT INTO entries VALUES ('none', 1, '', '{}', '{\"event\":\"x\"}', '', '')", "FOREIGN KEY").await;
    assert_eq!(refused, 12);
    assert_eq!(journal.read(one, 0).await.unwrap(), entries);
    journal.verify(one).await.unwrap();
}

#[tokio::test]
async fn what_was_tampered_with_is_damaged() {
    let check = async |sql: &str, expect: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        let drop_triggers = "DROP TRIGGER entries_are_not_changed; DROP TRIGGER entries_are_not_deleted;";
        by_hand(&path, &format!("{drop_triggers} {sql}")).await.unwrap();
        let found = problem(journal.read(id(1), 0).await);
        assert!(found.contains(expect), "{sql}: {found}");
        assert_eq!(problem(journal.verify(id(1)).await), found);
    };
    check("UPDATE entries SET event = replace(event, 'running', 'stopped') WHERE seq = 2", "entry 2 was changed").await;
    check("UPDATE entries SET at = '2030-01-01T00:00:00.000Z' WHERE seq = 3", "entry 3 was changed").await;
    check("UPDATE entries SET author = '{\"engine\":\"x\"}' WHERE seq = 1", "entry 1 was changed").await;
    check("UPDATE entries SET prev = hash WHERE seq = 2", "entry 2 does not follow").await;
    check("UPDATE entries SET hash = prev WHERE seq = 2", "entry 2 was changed").await;
    check("DELETE FROM entries WHERE seq = 2", "entry 2 is missing").await;
    check("DELETE FROM entries WHERE seq = 1", "entry 1 is missing").await;
    check("DELETE FROM entries", "entry 1 is missing").await;
}

#[tokio::test]
async fn a_spoilt_journal_does_not_hide_the_others() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    let entries = rotated(&journal, 2, "db").await;
    let spoil = format!("UPDATE entries SET event = '{{' WHERE seq = 3 AND journal = '{}'", id(1));
    let drop_trigger = "DROP TRIGGER entries_are_not_changed; PRAGMA ignore_check_constraints = ON";
    by_hand(&path, &format!("{drop_trigger}; {spoil}")).await.unwrap();
    assert_eq!(journal.heads().await.unwrap().iter().map(|head| head.id).collect::<Vec<_>>(), [id(1), id(2)]);
    assert!(problem(journal.read(id(1), 0).await).contains("entry 3 was changed"));
    assert_eq!(journal.read(id(2), 0).await.unwrap(), entries);
    // What spoilt its end left it open: its fleet waits, the other goes on.
    let begun = journal.begin(id(3), &rotate("web", "rk_3"), &[instance("i-1", 0)], &engine(), at(9)).await;
    assert!(matches!(begun, Err(StoreError::Open { journal, .. }) if journal == id(1)), "{begun:?}");
    journal.begin(id(3), &rotate("db", "rk_3"), &[instance("i-1", 0)], &engine(), at(9)).await.unwrap();
}

#[tokio::test]
async fn reading_on_notices_a_change_behind_what_is_known() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    let change = "UPDATE entries SET event = '{\"event\":\"key_pair_deleted\"}' WHERE seq = 3";
    by_hand(&path, &format!("DROP TRIGGER entries_are_not_changed; {change}")).await.unwrap();
    assert!(problem(journal.read(id(1), 2).await).contains("entry 3 was changed"));
    assert_eq!(journal.read(id(1), 3).await.unwrap(), []);
}

#[tokio::test]
async fn a_plan_that_is_not_the_one_it_began_with_is_damaged() {
    let check = async |table: &str, sql: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        by_hand(&path, &format!("DROP TRIGGER {table}; {sql}")).await.unwrap();
        assert!(problem(journal.instances(id(1)).await).contains("not those that it began with"), "{sql}");
        assert!(problem(journal.verify(id(1)).await).contains("not those that it began with"), "{sql}");
    };
    let instances = "planned_instances_are_not_changed";
    check(instances, "UPDATE planned_instances SET instance = replace(instance, '\"batch\":0', '\"batch\":1')").await;
    check("planned_instances_are_not_deleted", "DELETE FROM planned_instances").await;
    check("journals_are_not_changed", "UPDATE journals SET plan = replace(plan, '4096', '2048')").await;
}

#[tokio::test]
async fn a_journal_whose_forerunner_is_gone_is_noticed() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    rotated(&journal, 2, "web").await;
    journal.begin(id(3), &retire("web", "rk_1", id(1)), &[], &engine(), at(4)).await.unwrap();
    let gone = format!(
        "PRAGMA foreign_keys = OFF; DROP TRIGGER journals_are_not_deleted; DROP TRIGGER entries_are_not_deleted; \
         DELETE FROM journals WHERE id = '{0}'; DELETE FROM entries WHERE journal = '{0}';",
        id(1)
    );
    by_hand(&path, &gone).await.unwrap();
    for number in [2, 3] {
        journal.read(id(number), 0).await.unwrap();
        assert!(problem(journal.verify(id(number)).await).contains("does not begin from the journal before it"));
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
    assert_eq!(handles[0].heads().await.unwrap().len(), 1);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_database_that_is_not_there_yet() {
    for _ in 0..25 {
        let (_dir, path) = place();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { Sqlite::open(&path).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap().close().await;
        }
    }
}

#[tokio::test]
async fn it_is_read_beside_a_writer_and_after_it() {
    let (_dir, path) = place();
    assert!(
        matches!(Sqlite::open_to_read(&path).await, Err(StoreError::Unusable(text)) if text.contains("no database at"))
    );
    assert!(!path.exists());
    let daemon = Sqlite::open(&path).await.unwrap();
    let reader = {
        let path = path.clone();
        tokio::spawn(async move { Sqlite::open_to_read(&path).await }).await.unwrap().unwrap()
    };
    let entries = rotated(&daemon, 1, "web").await;
    // A reader is not kept waiting by an open transaction, and does not see it.
    let mut tx = daemon.write().await.unwrap();
    tx.execute(AssertSqlSafe(format!("INSERT INTO journals (id, plan) SELECT '{}', plan FROM journals", id(9))))
        .await
        .unwrap();
    assert_eq!(reader.read(id(1), 0).await.unwrap(), entries);
    assert_eq!(reader.heads().await.unwrap().len(), 1);
    tx.rollback().await.unwrap();
    let answer = reader.append(id(1), 3, &[held("no")], &operator(), at(9)).await;
    assert!(matches!(&answer, Err(StoreError::Unusable(text)) if text.contains("reading only")), "{answer:?}");
    daemon.close().await;
    reader.close().await;
    let reader = Sqlite::open_to_read(&path).await.unwrap();
    assert_eq!(reader.read(id(1), 0).await.unwrap(), entries);
    reader.verify(id(1)).await.unwrap();
}

#[tokio::test]
async fn commits_are_synced_and_foreign_keys_hold() {
    let (_dir, journal) = fresh().await;
    let writer = journal.writer.as_ref().unwrap();
    let pragma = async |sql: &'static str| -> String {
        let row = sqlx::query(sql).fetch_one(writer).await.unwrap();
        sqlx::Row::try_get_unchecked::<String, _>(&row, 0).unwrap()
    };
    assert_eq!(pragma("PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma("PRAGMA synchronous").await, "2");
    assert_eq!(pragma("PRAGMA foreign_keys").await, "1");
    assert_eq!(pragma("PRAGMA busy_timeout").await, "5000");
}

#[tokio::test]
async fn its_files_are_the_owners_alone() {
    let (dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    let mut seen = 0;
    for file in dir.path().read_dir().unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        seen += 1;
    }
    assert_eq!(seen, 3, "the database, its log and its shared memory");
}

#[tokio::test]
async fn a_place_that_others_may_write_to_is_refused() {
    let (dir, path) = place();
    Sqlite::open(&path).await.unwrap().close().await;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for bad in [0o620, 0o602] {
        mode(&path, bad);
        assert!(refusal(&path).await.contains("chmod 600"));
    }
    mode(&path, 0o644);
    Sqlite::open(&path).await.unwrap().close().await;
    mode(dir.path(), 0o777);
    assert!(refusal(&path).await.contains("chmod o-w"));
    mode(dir.path(), 0o1777);
    Sqlite::open(&path).await.unwrap().close().await;
    mode(dir.path(), 0o700);
    let nowhere = refusal(&dir.path().join("none/rekeyd.db")).await;
    assert!(nowhere.contains("the database's directory"), "{nowhere}");
    let below_a_file = refusal(&path.join("rekeyd.db")).await;
    assert!(below_a_file.contains("is not a directory"), "{below_a_file}");
    assert!(refusal(dir.path()).await.contains("is not a file"));
}

#[tokio::test]
async fn what_is_not_our_database_is_refused_and_left_alone() {
    let (_dir, path) = place();
    let text = "this is a letter to a friend, and no database at all\n".repeat(40);
    std::fs::write(&path, &text).unwrap();
    let problem = refusal(&path).await;
    assert!(problem.contains("is not a SQLite database") && problem.contains("rekeyd.db"), "{problem}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert!(matches!(Sqlite::open_to_read(&path).await, Err(StoreError::Unusable(_))));

    let (_dir, path) = place();
    by_hand(&path, "CREATE TABLE letters (text); CREATE TABLE _sqlx_migrations (version)").await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let problem = refusal(&path).await;
    assert!(problem.contains("the database of another program"), "{problem}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(matches!(Sqlite::open_to_read(&path).await, Err(StoreError::Unusable(_))));
}

#[tokio::test]
async fn a_torn_database_is_an_error_and_never_a_panic() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    for number in 1..=9 {
        rotated(&journal, number, &format!("fleet-{number}")).await;
    }
    journal.close().await;
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0xa5);
    std::fs::write(&path, &torn).unwrap();
    let problem = match Sqlite::open(&path).await {
        Ok(journal) => journal.heads().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(problem.contains("damaged") && problem.contains("restore"), "{problem}");
}

#[tokio::test]
async fn a_newer_releases_database_is_refused_and_names_both_versions() {
    let (_dir, path) = place();
    Sqlite::open(&path).await.unwrap().close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (7, 'later', true, x'00', 0)";
    by_hand(&path, newer).await.unwrap();
    for problem in [refusal(&path).await, Sqlite::open_to_read(&path).await.unwrap_err().to_string()] {
        assert!(problem.contains("newer rekeyd"), "{problem}");
        assert!(problem.contains("version 7") && problem.contains("up to 1"), "{problem}");
    }
}

#[tokio::test]
async fn a_schema_that_another_build_made_is_refused() {
    let (_dir, path) = place();
    Sqlite::open(&path).await.unwrap().close().await;
    by_hand(&path, "UPDATE _sqlx_migrations SET checksum = x'00'").await.unwrap();
    assert!(refusal(&path).await.contains("made by another build"));
}

#[tokio::test]
async fn an_older_schema_is_not_read_before_it_is_brought_up_to_date() {
    let (_dir, path) = place();
    std::fs::write(&path, "").unwrap();
    let problem = Sqlite::open_to_read(&path).await.unwrap_err().to_string();
    assert!(problem.contains("version 0") && problem.contains("reads version 1"), "{problem}");
    Sqlite::open(&path).await.unwrap().close().await;
    Sqlite::open_to_read(&path).await.unwrap();
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
    let heads = journal.heads().await.unwrap();
    let took = began.elapsed();
    eprintln!("heads of 1,000: {took:?}");
    assert_eq!(heads.len(), 1000);
    assert!(heads.iter().all(|head| head.seq == 21 && head.ended.is_some()));
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn the_store_setting_names_a_file() {
    let check = |text: &str, expect: Result<&str, &str>| match (database_path(text), expect) {
        (Ok(path), Ok(expect)) => assert_eq!(path, Path::new(expect), "{text}"),
        (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{text}: {error}"),
        (answer, _) => panic!("{text}: {answer:?}"),
    };
    check("sqlite:///var/lib/rekeyd/rekeyd.db", Ok("/var/lib/rekeyd/rekeyd.db"));
    check("sqlite:/var/lib/rekeyd.db", Ok("/var/lib/rekeyd.db"));
    check("sqlite:rekeyd.db", Ok("rekeyd.db"));
    check("sqlite:///with space/a%20b.db", Ok("/with space/a%20b.db"));
    check("postgres://rekeyd:secret@db/rekeyd", Err("the store is not a SQLite database; write"));
    check("/var/lib/rekeyd.db", Err("is not a SQLite database"));
    check("", Err("is not a SQLite database"));
    check("sqlite:", Err("names no file"));
    check("sqlite://", Err("names no file"));
    check("sqlite::memory:", Err("would forget"));
    check("sqlite:///x.db?mode=ro", Err("has parameters"));
    check("sqlite:///var/lib/", Err("names a directory"));
}

#[test]
fn every_migration_on_disk_is_built_in() {
    // The compiler notices a changed file by itself, but not a new one: then this fails until the room is built anew.
    let mut files: Vec<String> = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("migrations")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let built_in: Vec<String> = open::MIGRATIONS
        .iter()
        .map(|one| format!("{:04}_{}.sql", one.version, one.description.replace(' ', "_")))
        .collect();
    assert_eq!(files, built_in);
}
