//! Where the database may be, whose it is, which version it has, and who brings it up to date.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::Agenda;

/// A database as the first release made it, with the journals of `from`.
async fn of_version_1(path: &Path, from: &Path) {
    std::fs::write(path, "").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    open::MIGRATIONS.run_direct(Some(1), &mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    let copy = format!(
        "ATTACH '{}' AS new; INSERT INTO journals (n, id, plan) SELECT n, id, plan FROM new.journals; \
         INSERT INTO planned_instances (journal, position, instance) \
         SELECT journal, position, instance FROM new.planned_instances; \
         INSERT INTO entries (journal, seq, at, author, event, prev, hash) \
         SELECT journal, seq, at, author, event, prev, hash FROM new.entries ORDER BY rowid;",
        from.display()
    );
    by_hand(path, &copy).await.unwrap();
}

/// Two rotations and a retirement, in a database of the first release.
async fn old() -> (TempDir, PathBuf, Heads) {
    let (dir, path) = place();
    let newer = dir.path().join("newer.db");
    let journal = Sqlite::open(&newer).await.unwrap();
    rotated(&journal, 1, "web").await;
    rotated(&journal, 2, "db").await;
    journal.begin(id(3), &retire("db", "rk_2", id(2)), &[], &operator(), at(3)).await.unwrap();
    let heads = journal.heads().await.unwrap();
    journal.close().await;
    of_version_1(&path, &newer).await;
    (dir, path, heads)
}

async fn version(path: &Path) -> i64 {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_up_to_date_with_all_that_it_holds() {
    let (_dir, path, heads) = old().await;
    assert_eq!(version(&path).await, 1);
    let journal = Sqlite::open(&path).await.unwrap();
    assert_eq!(version(&path).await, 4);
    assert_eq!(journal.heads().await.unwrap(), heads);
    for number in 1..=3 {
        journal.verify(id(number)).await.unwrap();
    }
    assert_eq!(journal.touched(0).await.unwrap(), (7, vec![id(3)]));
    rotated(&journal, 4, "web").await;
    journal.verify(id(4)).await.unwrap();
    journal.append(id(3), 1, &[held("wait")], &operator(), at(9)).await.unwrap();
    // What the first release refused is still refused.
    let answer = by_hand(&path, "INSERT INTO journals (id, plan) VALUES ('x', '{\"kind\":\"cat\"}')").await;
    assert!(answer.as_ref().is_err_and(|error| error.contains("a plan says its kind")), "{answer:?}");
    let answer =
        by_hand(&path, "INSERT INTO planned_instances (journal, position, instance) VALUES ('x', 0, '{')").await;
    assert!(answer.as_ref().is_err_and(|error| error.contains("says its id")), "{answer:?}");
}

#[tokio::test]
async fn a_plan_that_the_disk_spoilt_does_not_keep_the_database_from_being_brought_up_to_date() {
    let (_dir, path, heads) = old().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let plan = br#"{"kind":"rotate","fleet":"web""#;
    let place = bytes.windows(plan.len()).position(|window| window == plan).unwrap();
    bytes[place] = b'x';
    std::fs::write(&path, bytes).unwrap();
    let journal = Sqlite::open(&path).await.unwrap();
    let found = journal.heads().await.unwrap();
    assert_eq!(found.readable, heads.readable[1..]);
    assert_eq!(found.unreadable.iter().map(|one| one.journal).collect::<Vec<_>>(), [id(1)]);
    rotated(&journal, 4, "db").await;
}

#[tokio::test]
async fn who_writes_beside_a_driver_never_brings_its_database_up_to_date() {
    let (_dir, path) = place();
    let refused = async |path: &Path| match Sqlite::open_to_write(path).await {
        Err(StoreError::Unusable(problem)) => problem,
        other => panic!("{other:?}"),
    };
    assert!(refused(&path).await.contains("no database at"));
    assert!(!path.exists());
    let (_old, old, _) = old().await;
    let problem = refused(&old).await;
    for words in ["version 1", "writes version 4", "restart the daemon", "`rekeyd rotate FLEET`"] {
        assert!(problem.contains(words), "{problem} lacks {words}");
    }
    assert_eq!(version(&old).await, 1);
    Sqlite::open(&old).await.unwrap();
    Sqlite::open_to_write(&old).await.unwrap();

    // Beside whoever drives, and after it.
    let daemon = Sqlite::open(&path).await.unwrap();
    rotated(&daemon, 1, "web").await;
    daemon.begin(id(2), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
    let verb = Sqlite::open_to_write(&path).await.unwrap();
    verb.append(id(2), 1, &[held("stop")], &operator(), at(3)).await.unwrap();
    assert_eq!(daemon.read(id(2), 1).await.unwrap().len(), 1);
    daemon.close().await;
    verb.append(id(2), 2, &[held("more")], &operator(), at(4)).await.unwrap();
    assert_eq!(synced(&verb).await, "2");
    verb.close().await;
    assert_eq!(Sqlite::open_to_read(&path).await.unwrap().head(id(2)).await.unwrap().seq, 3);
    by_hand(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (7, 'later', true, x'00', 0)",
    )
    .await
    .unwrap();
    assert!(refused(&path).await.contains("newer rekeyd"));
}

async fn synced(journal: &Sqlite) -> String {
    let row = sqlx::query("PRAGMA synchronous").fetch_one(journal.writer.as_ref().unwrap()).await.unwrap();
    sqlx::Row::try_get_unchecked::<String, _>(&row, 0).unwrap()
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
    assert_eq!(reader.heads().await.unwrap().readable.len(), 1);
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
        assert!(problem.contains("version 7") && problem.contains("up to 4"), "{problem}");
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
    assert!(problem.contains("version 0") && problem.contains("reads version 4"), "{problem}");
    Sqlite::open(&path).await.unwrap().close().await;
    Sqlite::open_to_read(&path).await.unwrap();
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
