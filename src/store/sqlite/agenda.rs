//! Requests and due times in the database. A request's row is inserted once and answered once; triggers refuse anything
//! else. Nothing here may wait for anything but the write lock: whoever drives looks in every half second.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{FromRow, SqliteConnection};

use super::{Sqlite, failed};
use crate::model::{FleetName, JournalId, RequestId, Timestamp};
use crate::rotation::Author;
use crate::store::agenda::{Agenda, Answer, Ask, DueTime, LateLook, Request};
use crate::store::{StoreError, chain};

/// A row of `requests`.
#[derive(FromRow)]
struct RequestRow {
    id: i64,
    fleet: String,
    ask: String,
    author: String,
    at: String,
    answered_at: Option<String>,
    answer: Option<String>,
}

impl RequestRow {
    fn request(self) -> Result<Request, StoreError> {
        let id = self.id;
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Unusable(format!("the database is damaged: request {id} cannot be read: {what}: {error}"))
        };
        let answer = match (&self.answered_at, &self.answer) {
            (Some(at), Some(answer)) => Some((
                at.parse().map_err(|error| unreadable("answered_at", &error))?,
                serde_json::from_str(answer).map_err(|error| unreadable("answer", &error))?,
            )),
            _ => None,
        };
        Ok(Request {
            id: RequestId::new(u64::try_from(id).map_err(|error| unreadable("id", &error))?),
            fleet: FleetName::new(self.fleet),
            ask: serde_json::from_str(&self.ask).map_err(|error| unreadable("ask", &error))?,
            by: serde_json::from_str(&self.author).map_err(|error| unreadable("author", &error))?,
            at: self.at.parse().map_err(|error| unreadable("at", &error))?,
            answer,
        })
    }
}

/// The request that pauses a fleet, if one does.
pub(super) async fn paused_by(
    connection: &mut SqliteConnection,
    fleet: &FleetName,
) -> Result<Option<Request>, StoreError> {
    let row: Option<RequestRow> = sqlx::query_as("SELECT * FROM paused WHERE fleet = $1")
        .bind(fleet.as_str())
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    row.map(RequestRow::request).transpose()
}

/// A time as it is written.
fn time(at: Timestamp) -> String {
    chain::time(chain::whole_milliseconds(at))
}

/// A row's number; those that no row can have come after all.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Agenda for Sqlite {
    async fn ask(&self, fleet: &FleetName, ask: &Ask, by: &Author, at: Timestamp) -> Result<RequestId, StoreError> {
        let (ask, by) = (chain::json(ask)?, chain::json(by)?);
        let mut tx = self.write().await?;
        let id: i64 =
            sqlx::query_scalar("INSERT INTO requests (fleet, ask, author, at) VALUES ($1, $2, $3, $4) RETURNING id")
                .bind(fleet.as_str())
                .bind(ask)
                .bind(by)
                .bind(time(at))
                .fetch_one(&mut *tx)
                .await
                .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        u64::try_from(id).map(RequestId::new).map_err(|error| StoreError::Database(error.to_string()))
    }

    async fn asked(&self) -> Result<Vec<Request>, StoreError> {
        let rows: Vec<RequestRow> = sqlx::query_as(
            "SELECT id, fleet, ask, author, at, answered_at, answer FROM requests WHERE answer IS NULL ORDER BY id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.into_iter().map(RequestRow::request).collect()
    }

    async fn request(&self, id: RequestId) -> Result<Request, StoreError> {
        let row: Option<RequestRow> =
            sqlx::query_as("SELECT id, fleet, ask, author, at, answered_at, answer FROM requests WHERE id = $1")
                .bind(number(id.number()))
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
        row.ok_or(StoreError::NoRequest(id))?.request()
    }

    async fn answer(&self, id: RequestId, answer: &Answer, at: Timestamp) -> Result<bool, StoreError> {
        let answer = chain::json(answer)?;
        let mut tx = self.write().await?;
        let answered: Option<bool> = sqlx::query_scalar("SELECT answer IS NOT NULL FROM requests WHERE id = $1")
            .bind(number(id.number()))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
        if answered.ok_or(StoreError::NoRequest(id))? {
            return Ok(false);
        }
        sqlx::query("UPDATE requests SET answered_at = $2, answer = $3 WHERE id = $1")
            .bind(number(id.number()))
            .bind(time(at))
            .bind(answer)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(true)
    }

    async fn note_refused(&self, fleet: &FleetName, why: &str, by: &Author, at: Timestamp) -> Result<(), StoreError> {
        let (ask, by) = (chain::json(&Ask::rotate())?, chain::json(by)?);
        let answer = chain::json(&Answer::Refused(why.to_string()))?;
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO requests (fleet, ask, author, at, answered_at, answer) VALUES ($1, $2, $3, $4, $4, $5)",
        )
        .bind(fleet.as_str())
        .bind(ask)
        .bind(by)
        .bind(time(at))
        .bind(answer)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn refused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError> {
        let rows: Vec<RequestRow> = sqlx::query_as(
            "SELECT id, fleet, ask, author, at, answered_at, answer FROM requests WHERE outcome = 'refused' \
             AND id IN (SELECT max(id) FROM requests WHERE verb = 'rotate' GROUP BY fleet)",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.into_iter().map(|row| row.request().map(|request| (request.fleet.clone(), request))).collect()
    }

    async fn paused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError> {
        let rows: Vec<RequestRow> =
            sqlx::query_as("SELECT * FROM paused").fetch_all(&self.readers).await.map_err(failed)?;
        rows.into_iter().map(|row| row.request().map(|request| (request.fleet.clone(), request))).collect()
    }

    async fn due_times(&self) -> Result<BTreeMap<FleetName, DueTime>, StoreError> {
        let rows: Vec<(String, String, String)> = sqlx::query_as("SELECT fleet, schedule, at FROM due_times")
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        let due = |(fleet, schedule, at): (String, String, String)| {
            at.parse().ok().map(|at| (FleetName::new(fleet), DueTime { schedule, at }))
        };
        Ok(rows.into_iter().filter_map(due).collect())
    }

    async fn set_due(&self, fleet: &FleetName, due: Option<&DueTime>) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let query = match due {
            None => sqlx::query("DELETE FROM due_times WHERE fleet = $1").bind(fleet.as_str()),
            Some(due) => sqlx::query("INSERT OR REPLACE INTO due_times (fleet, schedule, at) VALUES ($1, $2, $3)")
                .bind(fleet.as_str())
                .bind(&due.schedule)
                .bind(time(due.at)),
        };
        query.execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn late_looks(&self) -> Result<BTreeMap<FleetName, LateLook>, StoreError> {
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT fleet, at, fresh FROM late_looks").fetch_all(&self.readers).await.map_err(failed)?;
        let look = |(fleet, at, new): (String, String, String)| {
            let (at, new) = (at.parse().ok()?, serde_json::from_str(&new).ok()?);
            Some((FleetName::new(fleet), LateLook { at, new }))
        };
        Ok(rows.into_iter().filter_map(look).collect())
    }

    async fn set_late(&self, fleet: &FleetName, look: &LateLook) -> Result<(), StoreError> {
        let new = chain::json(&look.new)?;
        let mut tx = self.write().await?;
        sqlx::query("INSERT OR REPLACE INTO late_looks (fleet, at, fresh) VALUES ($1, $2, $3)")
            .bind(fleet.as_str())
            .bind(time(look.at))
            .bind(new)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn touched(&self, after: u64) -> Result<(u64, Vec<JournalId>), StoreError> {
        // Entries are never deleted and one writer writes at a time: positions have no gaps, and commit in their order.
        let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(rowid), 0) FROM entries")
            .fetch_one(&self.readers)
            .await
            .map_err(failed)?;
        let position = u64::try_from(newest).map_err(|error| StoreError::Database(error.to_string()))?;
        if position <= after {
            return Ok((position, Vec::new()));
        }
        // An author that cannot be read may be a person: whoever reads on then finds the damage.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT journal FROM entries WHERE rowid > $1 AND rowid <= $2 \
             AND CASE WHEN json_valid(author) THEN json_type(author, '$.operator') IS NOT NULL ELSE 1 END \
             GROUP BY journal ORDER BY min(rowid)",
        )
        .bind(number(after))
        .bind(newest)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        Ok((position, ids.iter().filter_map(|id| id.parse().ok()).collect()))
    }
}
