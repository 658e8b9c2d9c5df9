//! Journals in a SQLite database. Writers take the write lock first (BEGIN IMMEDIATE) and then look, so that what they
//! decide on is what they write behind; `synchronous=FULL` in WAL mode makes a commit durable before it is answered.
//! Rows are only ever inserted, and triggers in the database refuse anything else.

mod agenda;
mod heads;
mod open;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use sqlx::{FromRow, SqliteConnection, SqlitePool};

use super::chain::{self, Line, NOTHING_BEFORE, Tip};
use super::{Head, Heads, Journal, Request, StoreError};
use crate::model::{JournalId, KeyPairName, Timestamp};
use crate::rotation::{Author, Entry, Event, Plan, PlannedInstance};
use heads::{begins_from, head_row, refuse_unreadable, taken_by_others};

pub use open::database_path;

/// So many instances go into one statement, as one JSON array: two parameters, whatever the number.
const CHUNK: usize = 5_000;

/// Journals in a SQLite database. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// One connection: writers of this process queue here, those of others at the file's lock. `None`: opened to read.
    writer: Option<SqlitePool>,
    readers: SqlitePool,
}

/// A row of `entries`.
#[derive(FromRow)]
struct EntryRow {
    seq: i64,
    at: String,
    author: String,
    event: String,
    prev: String,
    hash: String,
}

impl Sqlite {
    /// Whether it holds no journal.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM journals)")
            .fetch_one(&self.readers)
            .await
            .map_err(failed)?;
        Ok(!any)
    }

    /// Checks one journal whole: its chain from the first entry, its plan and instances against their digest, and that
    /// it begins from the journal that it follows. `Damaged` says what is wrong.
    pub async fn verify(&self, id: JournalId) -> Result<(), StoreError> {
        self.read(id, 0).await?;
        self.instances(id).await?;
        let (plan, n, prev): (String, i64, String) =
            sqlx::query_as("SELECT plan, n, prev FROM journals JOIN entries ON journal = id AND seq = 1 WHERE id = $1")
                .bind(id.to_string())
                .fetch_one(&self.readers)
                .await
                .map_err(failed)?;
        let follows = match plan_of(id, &plan)? {
            Plan::Rotate(plan) => {
                let before: Option<Option<String>> = sqlx::query_scalar(
                    "SELECT hash FROM heads WHERE fleet = $1 AND kind = 'rotate' AND n < $2 ORDER BY n DESC LIMIT 1",
                )
                .bind(plan.fleet.as_str())
                .bind(n)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
                before.map_or(prev == NOTHING_BEFORE, |hash| hash.as_ref() == Some(&prev))
            }
            // The rotation may have gone on since, so any of its entries will do.
            Plan::Retire(plan) => {
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM entries WHERE journal = $1 AND hash = $2)")
                    .bind(plan.rotation.to_string())
                    .bind(&prev)
                    .fetch_one(&self.readers)
                    .await
                    .map_err(failed)?
            }
        };
        let problem = "it does not begin from the journal before it: that one is missing or was changed";
        if follows { Ok(()) } else { Err(damaged(id, problem)) }
    }

    /// Closes the connections once what they do is done, and folds the write-ahead log into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    /// A transaction that has the write lock. It must not be raced against a time-out.
    async fn write(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, StoreError> {
        match &self.writer {
            Some(writer) => writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed),
            None => Err(StoreError::Unusable("the database was opened for reading only".to_string())),
        }
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn begin(
        &self,
        id: JournalId,
        plan: &Plan,
        instances: &[PlannedInstance],
        by: &Author,
        at: Timestamp,
    ) -> Result<Head, StoreError> {
        let plan_text = chain::json(plan)?;
        let mut tx = self.write().await?;
        if head_row(&mut tx, id).await?.is_some() {
            return Err(StoreError::Conflict { journal: id, after: 0 });
        }
        refuse_unreadable(&mut tx, plan.fleet()).await?;
        if matches!(plan, Plan::Rotate(_))
            && let Some(refusal) = agenda::paused_by(&mut tx, plan.fleet()).await?.and_then(Request::refusal)
        {
            return Err(refusal);
        }
        let prev = begins_from(&mut tx, plan).await?;
        let texts: Vec<String> = match plan {
            Plan::Rotate(_) => {
                let taken = taken_by_others(&mut tx, plan).await?;
                chain::left_to_bind(instances, &taken)?.iter().map(chain::json).collect::<Result<_, _>>()?
            }
            Plan::Retire(_) => instances.iter().map(chain::json).collect::<Result<_, _>>()?,
        };
        let planned = Event::Planned { digest: chain::digest(&plan_text, &texts) };
        let written = Tip::fresh(id, plan, prev).extend(0, &[planned], by, at)?;

        sqlx::query("INSERT INTO journals (id, plan) VALUES ($1, $2)")
            .bind(id.to_string())
            .bind(plan_text)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        for (chunk, position) in texts.chunks(CHUNK).zip((0_i64..).step_by(CHUNK)) {
            sqlx::query(
                "INSERT INTO planned_instances (journal, position, instance) SELECT $1, $2 + key, value FROM json_each($3)",
            )
            .bind(id.to_string())
            .bind(position)
            .bind(chain::json(&chunk)?)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        let entries = insert(&mut tx, id, written).await?;
        tx.commit().await.map_err(failed)?;
        let begun = entries.first().map_or(at, |entry| entry.at);
        Ok(Head { id, plan: plan.clone(), begun, ended: None, seq: 1 })
    }

    async fn head(&self, id: JournalId) -> Result<Head, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        head_row(&mut reader, id).await?.ok_or(StoreError::Missing(id))?.head()
    }

    async fn heads(&self) -> Result<Heads, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        heads::heads(&mut reader).await
    }

    async fn named(&self, key_name: &KeyPairName) -> Result<Vec<Head>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        heads::named(&mut reader, key_name).await
    }

    async fn instances(&self, id: JournalId) -> Result<Vec<PlannedInstance>, StoreError> {
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        let row = head_row(&mut reader, id).await?.ok_or(StoreError::Missing(id))?;
        let first: Option<String> = sqlx::query_scalar("SELECT event FROM entries WHERE journal = $1 AND seq = 1")
            .bind(id.to_string())
            .fetch_optional(&mut *reader)
            .await
            .map_err(failed)?;
        let texts: Vec<String> =
            sqlx::query_scalar("SELECT instance FROM planned_instances WHERE journal = $1 ORDER BY position")
                .bind(id.to_string())
                .fetch_all(&mut *reader)
                .await
                .map_err(failed)?;
        let first: Option<Event> = first.and_then(|text| serde_json::from_str(&text).ok());
        chain::check_digest(id, first.as_ref(), row.plan_text(id)?, &texts)?;
        let read = |text: &String| serde_json::from_str(text);
        texts.iter().map(read).collect::<Result<_, _>>().map_err(|error| damaged(id, format!("an instance: {error}")))
    }

    async fn read(&self, id: JournalId, after: u64) -> Result<Vec<Entry>, StoreError> {
        let number = number(after)?;
        // From `after` itself: its hash is what the next one must follow.
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT seq, at, author, event, prev, hash FROM entries WHERE journal = $1 AND seq >= $2 ORDER BY seq",
        )
        .bind(id.to_string())
        .bind(number)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        let lines = rows.into_iter().map(EntryRow::line).collect::<Result<Vec<_>, _>>()?;
        match lines.split_first() {
            Some((first, _)) if after == 0 => chain::read(id, 0, &first.prev, &lines),
            Some((known, new)) if known.seq == after => chain::read(id, after, &known.hash, new),
            _ => {
                let mut reader = self.readers.acquire().await.map_err(failed)?;
                head_row(&mut reader, id).await?.ok_or(StoreError::Missing(id))?;
                Err(damaged(id, format!("entry {} is missing", after.max(1))))
            }
        }
    }

    async fn append(
        &self,
        id: JournalId,
        after: u64,
        events: &[Event],
        by: &Author,
        at: Timestamp,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut tx = self.write().await?;
        let tip = head_row(&mut tx, id).await?.ok_or(StoreError::Missing(id))?.tip()?;
        let entries = insert(&mut tx, id, tip.extend(after, events, by, at)?).await?;
        tx.commit().await.map_err(failed)?;
        Ok(entries)
    }
}

impl EntryRow {
    fn line(self) -> Result<Line, StoreError> {
        let Self { seq, at, author, event, prev, hash } = self;
        let seq =
            u64::try_from(seq).map_err(|error| StoreError::Unusable(format!("the database is damaged: {error}")))?;
        Ok(Line { seq, at, author, event, prev, hash })
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    id: JournalId,
    written: Vec<(Line, Entry)>,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::with_capacity(written.len());
    for (line, entry) in written {
        sqlx::query(
            "INSERT INTO entries (journal, seq, at, author, event, prev, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.to_string())
        .bind(number(line.seq)?)
        .bind(line.at)
        .bind(line.author)
        .bind(line.event)
        .bind(line.prev)
        .bind(line.hash)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
        entries.push(entry);
    }
    Ok(entries)
}

fn plan_of(id: JournalId, text: &str) -> Result<Plan, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(id, format!("its plan: {error}")))
}

fn number(seq: u64) -> Result<i64, StoreError> {
    i64::try_from(seq).map_err(|_| StoreError::Database(format!("{seq} is no entry's number")))
}

fn damaged(journal: JournalId, problem: impl ToString) -> StoreError {
    StoreError::Damaged { journal, problem: problem.to_string() }
}

/// What a failure of the database means (result codes: sqlite.org/rescode.html; the low byte is the primary one).
fn failed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(11) => StoreError::Unusable(format!("the database is damaged ({error}): restore it from its backup")),
        Some(26) => StoreError::Unusable("this file is not a SQLite database".to_string()),
        _ => StoreError::Database(error.to_string()),
    }
}
