//! Opening the database: where it may be, whose it is, which version it has. What is not clearly ours is refused with
//! the way out, and nothing of it is touched. A std file handle on the database itself must never be opened here:
//! closing one drops the locks that SQLite holds on the same file in this process (POSIX locks).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Sqlite, failed};
use crate::store::StoreError;

/// The schema that this release writes. A file that is added here is an ALTER of what operators have on disk:
/// none is ever changed after its release.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!();

/// `rkey`, written by the first migration.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"rkey");

/// How long a writer waits for another process's transaction. Ours take milliseconds.
const BUSY: Duration = Duration::from_secs(5);

/// Connections for reading. Readers never wait for the writer (WAL).
const READERS: u32 = 4;

/// The file that a `store:` setting names: `sqlite:///var/lib/rekeyd/rekeyd.db`, or `sqlite:rekeyd.db` for one in the
/// working directory. The path is taken as it stands: no escapes, no parameters.
pub fn database_path(store: &str) -> Result<PathBuf, StoreError> {
    // The text itself is not repeated: a URL for another database may hold a password.
    let refused = |problem: &str| {
        Err(StoreError::Unusable(format!("the store {problem}; write it like sqlite:///var/lib/rekeyd/rekeyd.db")))
    };
    let Some(path) = store.strip_prefix("sqlite:") else { return refused("is not a SQLite database") };
    let path = path.strip_prefix("//").unwrap_or(path);
    match path {
        "" => refused("names no file"),
        _ if path.contains(":memory:") => refused("would forget every journal"),
        _ if path.contains(['?', '\0']) => refused("has parameters"),
        _ if path.ends_with('/') => refused("names a directory"),
        _ => Ok(path.into()),
    }
}

impl Sqlite {
    /// Opens the database for who drives (it holds the [`DriverLock`](crate::store::DriverLock)), for reading and
    /// writing; makes it (0600) if it is not there and brings its schema up to this
    /// release's. `Unusable` if the place, the file or its version will not do.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = absolute(path)?;
        // One opener at a time, in this process and others: making the file and switching it to WAL do not bear company,
        // and SQLite does not wait for either.
        let _alone = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || make(&path))
                .await
                .map_err(|error| StoreError::Unusable(error.to_string()))??
        };
        // Looked at before anything of it is changed: switching to WAL would already write to another program's database.
        let readers = readers(&path).await?;
        checked(&readers, &path).await?;
        let writer = writer(options(&path).journal_mode(SqliteJournalMode::Wal));
        let writer = writer.await.map_err(|error| unusable(&path, error))?;
        migrate(&writer, &path).await?;
        Ok(Self { writer: Some(writer), readers })
    }

    /// Opens the database for reading and writing beside whoever drives it. Makes nothing and never brings the schema up
    /// to date: that would change it under a running driver of an older release. `Unusable` if there is no database, or if its
    /// version is not this release's.
    pub async fn open_to_write(path: &Path) -> Result<Self, StoreError> {
        let (path, readers) = existing(path).await?;
        let (version, known) = (checked(&readers, &path).await?, newest_known());
        if version != known {
            return Err(StoreError::Unusable(format!(
                "{} has version {version} of the schema, this rekeyd writes version {known}: restart the daemon with this \
                 release (`rekeyd run`), or run a verb that drives (`rekeyd rotate FLEET`) once; either brings it up to date",
                path.display()
            )));
        }
        // Whoever made it switched it to WAL, which stays.
        let writer = writer(options(&path)).await.map_err(|error| unusable(&path, error))?;
        Ok(Self { writer: Some(writer), readers })
    }

    /// Opens the database for reading only, beside a daemon or without one. Makes nothing and changes nothing.
    pub async fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let (path, readers) = existing(path).await?;
        let (version, known) = (checked(&readers, &path).await?, newest_known());
        if version == known {
            return Ok(Self { writer: None, readers });
        }
        Err(StoreError::Unusable(format!(
            "{} has version {version} of the schema, this rekeyd reads version {known}: \
             start `rekeyd run` of this release once, which brings it up to date",
            path.display()
        )))
    }
}

/// Connections for reading a database that must be there already, and its absolute path.
async fn existing(path: &Path) -> Result<(PathBuf, SqlitePool), StoreError> {
    let path = absolute(path)?;
    check_place(&path)?;
    if !path.exists() {
        let path = path.display();
        return Err(StoreError::Unusable(format!("there is no database at {path}: nothing was rotated from here yet")));
    }
    let readers = readers(&path).await?;
    Ok((path, readers))
}

fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(BUSY).foreign_keys(true)
}

async fn readers(path: &Path) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(|error| unusable(path, error))
}

async fn writer(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.synchronous(SqliteSynchronous::Full))
        .await
}

/// A path that SQLite cannot take for a URI or for one of its special names.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| StoreError::Unusable(format!("{}: {error}", path.display())))
}

/// Refuses a place where somebody else could put another database in this one's stead, or write to it: what it says
/// decides which key pairs are deleted.
fn check_place(path: &Path) -> Result<PathBuf, StoreError> {
    let refused = |problem: String| Err(StoreError::Unusable(problem));
    let dir = path.parent().unwrap_or(Path::new("/"));
    match dir.metadata() {
        Err(error) => {
            return refused(format!("the database's directory {}: {error}", dir.display()));
        }
        Ok(meta) if !meta.is_dir() => return refused(format!("{} is not a directory", dir.display())),
        Ok(meta) if meta.permissions().mode() & 0o1002 == 0o002 => {
            let dir = dir.display();
            return refused(format!("everybody may write to {dir}, the database's directory: chmod o-w {dir}"));
        }
        Ok(_) => {}
    }
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return refused(format!("{}: {error}", path.display())),
        Ok(meta) if !meta.is_file() => return refused(format!("{} is not a file", path.display())),
        Ok(meta) if meta.permissions().mode() & 0o022 != 0 => {
            let path = path.display();
            return refused(format!("others may write to the database {path}: chmod 600 {path}"));
        }
        Ok(_) => {}
    }
    Ok(dir.to_path_buf())
}

/// Makes the file if it is not there, durably. Answers the directory, locked until it is dropped.
fn make(path: &Path) -> Result<File, StoreError> {
    let dir = check_place(path)?;
    let failed = |error: std::io::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    let alone = File::open(&dir).map_err(failed)?;
    alone.lock().map_err(failed)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            drop(file);
            alone.sync_all().map_err(failed)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(alone)
}

async fn migrate(writer: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| unusable(path, error))?;
    // `run` is this behind a bound that makes the future un-`Send` (sqlx 0.9.0 says so at `run_direct`).
    match MIGRATIONS.run_direct(None, &mut *tx, false).await {
        Ok(()) => {}
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            return Err(unusable(path, error));
        }
        Err(error) => {
            return Err(StoreError::Unusable(format!("{}: {error}: it was made by another build", path.display())));
        }
    }
    tx.commit().await.map_err(|error| unusable(path, error))
}

/// The version of the schema; 0 in an empty database. `Unusable` if the database is another program's or a newer
/// release's.
async fn checked(readers: &SqlitePool, path: &Path) -> Result<i64, StoreError> {
    let failed = |error| unusable(path, error);
    let things: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(readers).await.map_err(failed)?;
    if things == 0 {
        return Ok(0);
    }
    let application: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(readers).await.map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(StoreError::Unusable(format!("{} is the database of another program", path.display())));
    }
    let found: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(readers)
        .await
        .map_err(failed)?;
    let known = newest_known();
    if found > known {
        return Err(StoreError::Unusable(format!(
            "{} was written by a newer rekeyd: it has version {found} of the schema, this one knows versions up to {known}; \
             use the newer rekeyd, or restore the backup made before the update",
            path.display()
        )));
    }
    Ok(found)
}

/// What a failure while opening means.
fn unusable(path: &Path, error: sqlx::Error) -> StoreError {
    let path = path.display();
    match failed(error) {
        StoreError::Unusable(problem) => StoreError::Unusable(format!("{path}: {problem}")),
        other => StoreError::Unusable(format!("{path} cannot be opened: {other}")),
    }
}
