//! Where the journals stand, read row by row: what somebody spoilt must never hide another journal, nor pass for sound.
//! What may begin, and from what, is decided here, on the connection that will write it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IntoDeserializer;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{damaged, failed};
use crate::model::{FleetName, InstanceId, JournalId, KeyPairName, Timestamp};
use crate::rotation::{Outcome, Plan};
use crate::store::chain::{NOTHING_BEFORE, Tip};
use crate::store::{Head, Heads, StoreError, Unreadable, stands_in_the_way};

/// A query of the view `heads`.
macro_rules! heads {
    ($rest:literal) => {
        concat!("SELECT id, plan, fleet, began_from, begun_at, seq, at, hash, name, outcome FROM heads ", $rest)
    };
}

/// A row of the view `heads`. Whatever is not there, or is no text, is `None`: reading one never fails.
pub(super) struct HeadRow {
    id: Option<String>,
    plan: Option<String>,
    fleet: Option<String>,
    began_from: Option<String>,
    begun_at: Option<String>,
    seq: Option<i64>,
    at: Option<String>,
    hash: Option<String>,
    name: Option<String>,
    outcome: Option<String>,
}

impl From<SqliteRow> for HeadRow {
    fn from(row: SqliteRow) -> Self {
        let text = |column| row.try_get(column).ok().flatten();
        Self {
            id: text("id"),
            plan: text("plan"),
            fleet: text("fleet"),
            began_from: text("began_from"),
            begun_at: text("begun_at"),
            seq: row.try_get("seq").ok().flatten(),
            at: text("at"),
            hash: text("hash"),
            name: text("name"),
            outcome: text("outcome"),
        }
    }
}

impl HeadRow {
    fn journal(&self) -> Result<JournalId, StoreError> {
        let id = self.id.as_deref().unwrap_or_default();
        id.parse().map_err(|problem| damaged(JournalId::NIL, problem))
    }

    pub(super) fn plan_text(&self, id: JournalId) -> Result<&str, StoreError> {
        self.plan.as_deref().ok_or_else(|| damaged(id, "its plan is no text"))
    }

    fn plan(&self, id: JournalId) -> Result<Plan, StoreError> {
        serde_json::from_str(self.plan_text(id)?).map_err(|error| damaged(id, format!("its plan: {error}")))
    }

    fn ended(&self, id: JournalId) -> Result<Option<Outcome>, StoreError> {
        let problem = |error: serde::de::value::Error| damaged(id, format!("its outcome: {error}"));
        match (self.name.as_deref(), self.outcome.as_deref()) {
            (Some("ended"), outcome) => {
                Outcome::deserialize(outcome.unwrap_or_default().into_deserializer()).map(Some).map_err(problem)
            }
            (None | Some("unreadable"), _) => Err(damaged(id, "its newest entry cannot be read")),
            (Some(_), _) => Ok(None),
        }
    }

    pub(super) fn tip(&self) -> Result<Tip, StoreError> {
        let id = self.journal()?;
        let (Some(seq), Some(at), Some(hash)) = (self.seq, &self.at, &self.hash) else {
            return Err(damaged(id, "it has no entries"));
        };
        Ok(Tip {
            journal: id,
            is_retire: matches!(self.plan(id)?, Plan::Retire(_)),
            seq: u64::try_from(seq).map_err(|error| damaged(id, error))?,
            at: time_of(id, at)?,
            hash: hash.clone(),
            ended: self.ended(id)?,
        })
    }

    pub(super) fn head(&self) -> Result<Head, StoreError> {
        let Tip { journal: id, seq, at, ended, .. } = self.tip()?;
        let begun = self.begun_at.as_ref().ok_or_else(|| damaged(id, "entry 1 is missing"))?;
        let ended = ended.map(|outcome| (at, outcome));
        Ok(Head { id, plan: self.plan(id)?, begun: time_of(id, begun)?, ended, seq })
    }

    /// What ties it to journals of its own fleet: the hash that it begins from, and its newest.
    fn links(&self) -> impl Iterator<Item = &str> {
        let began_from = self.began_from.as_deref().filter(|hash| *hash != NOTHING_BEFORE);
        began_from.into_iter().chain(self.hash.as_deref())
    }

    fn unreadable(&self, error: &StoreError) -> Unreadable {
        let problem = match error {
            StoreError::Damaged { problem, .. } => problem.clone(),
            other => other.to_string(),
        };
        let journal = self.journal().unwrap_or(JournalId::NIL);
        Unreadable { journal, fleet: self.fleet.as_deref().map(FleetName::new), problem }
    }
}

fn time_of(id: JournalId, text: &str) -> Result<Timestamp, StoreError> {
    text.parse().map_err(|error| damaged(id, format!("its time {text:?}: {error}")))
}

/// Where all journals stand.
pub(super) async fn heads(connection: &mut SqliteConnection) -> Result<Heads, StoreError> {
    let rows = sqlx::query(heads!("ORDER BY n")).fetch_all(connection).await.map_err(failed)?;
    Ok(Listing::of(rows).heads)
}

/// Where the journals stand that name a key pair; those that cannot be read are passed over.
pub(super) async fn named(connection: &mut SqliteConnection, name: &KeyPairName) -> Result<Vec<Head>, StoreError> {
    Ok(named_rows(connection, name).await?.iter().filter_map(|row| row.head().ok()).collect())
}

async fn named_rows(connection: &mut SqliteConnection, name: &KeyPairName) -> Result<Vec<HeadRow>, StoreError> {
    let rows = sqlx::query(heads!("WHERE key_name = $1 ORDER BY n")).bind(name.as_str());
    Ok(rows.fetch_all(connection).await.map_err(failed)?.into_iter().map(HeadRow::from).collect())
}

/// Where one journal stands.
pub(super) async fn head_row(connection: &mut SqliteConnection, id: JournalId) -> Result<Option<HeadRow>, StoreError> {
    let row = sqlx::query(heads!("WHERE id = $1")).bind(id.to_string()).fetch_optional(connection).await;
    Ok(row.map_err(failed)?.map(HeadRow::from))
}

/// Journals, and what is known of those whose fleet is not.
struct Listing {
    heads: Heads,
    /// Of each unreadable one: whether it begins from nothing.
    is_first: Vec<bool>,
    /// The fleets of which the journal that begins from nothing can be read. A fleet has one.
    begun: BTreeSet<FleetName>,
}

impl Listing {
    fn of(rows: Vec<SqliteRow>) -> Self {
        let mut listing = Self { heads: Heads::default(), is_first: Vec::new(), begun: BTreeSet::new() };
        let rows: Vec<HeadRow> = rows.into_iter().map(HeadRow::from).collect();
        let mut whose = None;
        for row in &rows {
            let is_first = row.began_from.as_deref() == Some(NOTHING_BEFORE);
            match row.head() {
                Ok(head) => {
                    if is_first {
                        listing.begun.insert(head.plan.fleet().clone());
                    }
                    listing.heads.readable.push(head);
                }
                Err(error) => {
                    let mut one = row.unreadable(&error);
                    if one.fleet.is_none() {
                        let whose = whose.get_or_insert_with(|| fleets_by_hash(&rows));
                        one.fleet = row.links().find_map(|hash| whose.get(hash)).map(|fleet| FleetName::new(*fleet));
                    }
                    listing.heads.unreadable.push(one);
                    listing.is_first.push(is_first);
                }
            }
        }
        listing
    }

    /// An unreadable journal that may be this fleet's.
    fn may_be_of(&self, fleet: &FleetName) -> Option<&Unreadable> {
        let mut all = self.heads.unreadable.iter().zip(&self.is_first);
        let (one, _) = all.find(|(one, is_first)| match &one.fleet {
            Some(of) => of == fleet,
            None => !(**is_first && self.begun.contains(fleet)),
        })?;
        Some(one)
    }
}

/// Whose journal ends with a hash, or begins from it: a journal begins from one of its own fleet. Carried from one to the
/// next where several in a row do not say.
fn fleets_by_hash(rows: &[HeadRow]) -> BTreeMap<&str, &str> {
    let mut whose: BTreeMap<&str, &str> = BTreeMap::new();
    // Those that say it themselves, then the others in both directions of the chain.
    let (named, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.fleet.is_some());
    for row in named.into_iter().chain(others.iter().copied()).chain(others.iter().rev().copied()) {
        let fleet = row.fleet.as_deref().or_else(|| row.links().find_map(|hash| whose.get(hash).copied()));
        whose.extend(fleet.into_iter().flat_map(|fleet| row.links().map(move |hash| (hash, fleet))));
    }
    whose
}

/// `Damaged` if a journal that cannot be read may be this fleet's: it holds its fleet, and no other.
pub(super) async fn refuse_unreadable(connection: &mut SqliteConnection, fleet: &FleetName) -> Result<(), StoreError> {
    let rows = sqlx::query(heads!("WHERE fleet = $1 OR fleet IS NULL ORDER BY n")).bind(fleet.as_str());
    let mut listing = Listing::of(rows.fetch_all(&mut *connection).await.map_err(failed)?);
    if listing.heads.unreadable.iter().any(|one| one.fleet.is_none()) {
        let rows = sqlx::query(heads!("ORDER BY n")).fetch_all(connection).await.map_err(failed)?;
        listing = Listing::of(rows);
    }
    match listing.may_be_of(fleet) {
        None => Ok(()),
        Some(one) => Err(damaged(one.journal, &one.problem)),
    }
}

/// The hash that a new journal of this plan begins from, if it may begin.
pub(super) async fn begins_from(connection: &mut SqliteConnection, plan: &Plan) -> Result<String, StoreError> {
    let open = |row: HeadRow| Ok(StoreError::Open { fleet: plan.fleet().clone(), journal: row.journal()? });
    match plan {
        Plan::Rotate(plan) => {
            // At most one is open, and then it is the newest: a rotation begins only when the one before has ended.
            let newest = sqlx::query(heads!("WHERE fleet = $1 AND kind = 'rotate' ORDER BY n DESC LIMIT 1"));
            let newest = newest.bind(plan.fleet.as_str()).fetch_optional(connection).await.map_err(failed)?;
            let Some(row) = newest.map(HeadRow::from) else { return Ok(NOTHING_BEFORE.to_string()) };
            let tip = row.tip()?;
            if tip.ended.is_none() { open(row).and_then(Err) } else { Ok(tip.hash) }
        }
        Plan::Retire(plan) => {
            let named = named_rows(&mut *connection, &plan.key_name).await?;
            let tips = named.iter().map(HeadRow::tip).collect::<Result<Vec<_>, _>>()?;
            if let Some(journal) = stands_in_the_way(&tips) {
                return Err(StoreError::Open { fleet: plan.fleet.clone(), journal });
            }
            let tip = head_row(connection, plan.rotation).await?.ok_or(StoreError::Missing(plan.rotation))?.tip()?;
            if tip.is_retire { Err(StoreError::Missing(plan.rotation)) } else { Ok(tip.hash) }
        }
    }
}

/// The instances that other fleets' open rotations of the same provider and region have in a batch, and whose they are. What a
/// plan does not say (it is spoilt) may be just this place; then it may be nobody's that is known, too.
pub(super) async fn taken_by_others(
    connection: &mut SqliteConnection,
    plan: &Plan,
) -> Result<BTreeMap<InstanceId, Option<FleetName>>, StoreError> {
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT planned_instances.id, fleet FROM heads JOIN planned_instances ON journal = heads.id \
         WHERE coalesce(kind, 'rotate') = 'rotate' AND outcome IS NULL AND coalesce(provider, $1) = $1 \
         AND coalesce(region, $2) = $2 AND batch IS NOT NULL AND planned_instances.id IS NOT NULL ORDER BY n",
    )
    .bind(plan.place().provider.as_str())
    .bind(plan.place().region.as_str())
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    Ok(rows.into_iter().map(|(id, fleet)| (InstanceId::new(id), fleet.map(FleetName::new))).collect())
}
