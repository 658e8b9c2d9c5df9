//! What is asked of fleets beside whoever drives them, and when they are due: requests, pauses, due times, and who was
//! touched by a person. A request is written once and answered once; it must never be changed or forgotten.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::{Amount, FleetName, InstanceId, JournalId, RequestId, Timestamp};
use crate::rotation::{Author, Rule};

/// What a person asks of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Rotate it now.
    Rotate {
        /// In spite of these rules.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        force: Vec<Rule>,
        /// The fleet's key may be in wrong hands: at once, and whatever rotation is open is given up for it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        compromised: bool,
        /// So many machines may be down at once, in place of the fleet's own number; with `compromised` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unavailable_max: Option<Amount>,
    },
    /// Roll a rotation of it back: give it up if it is open, then bind again what was found before it.
    Rollback {
        /// Which.
        rotation: JournalId,
    },
    /// Bind its key to those who missed it or came later.
    CatchUp,
    /// Pause it: no rotation of it begins until it is released.
    Hold {
        /// Why, in the person's words; may be empty.
        note: String,
    },
    /// End its pause.
    Release {
        /// Why, in the person's words; may be empty.
        note: String,
    },
}

impl Ask {
    /// Rotate it now, forcing nothing.
    pub fn rotate() -> Self {
        Self::Rotate { force: Vec::new(), compromised: false, unavailable_max: None }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "detail", rename_all = "snake_case")]
pub enum Answer {
    /// This rotation: begun for it, or open already.
    Rotation(JournalId),
    /// The fleet is held.
    Held,
    /// The fleet is released.
    Released,
    /// It was not done, for this reason.
    Refused(String),
    /// There was nobody to do it for, in these words. Nothing is amiss.
    Nobody(String),
    /// Who asked took it back.
    Withdrawn,
}

/// A request, and its answer once it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The fleet.
    pub fleet: FleetName,
    /// What is asked.
    pub ask: Ask,
    /// Who asked.
    pub by: Author,
    /// When.
    pub at: Timestamp,
    /// When it was answered, and how.
    pub answer: Option<(Timestamp, Answer)>,
}

impl Request {
    /// Whether it says if its fleet is paused: a hold or a release that was neither refused nor withdrawn.
    pub(super) fn counts_for_pause(&self) -> bool {
        let taken_back = matches!(self.answer, Some((_, Answer::Refused(_) | Answer::Withdrawn)));
        matches!(self.ask, Ask::Hold { .. } | Ask::Release { .. }) && !taken_back
    }

    /// The refusal of a rotation, if this request pauses its fleet.
    pub(crate) fn refusal(self) -> Option<StoreError> {
        let Self { fleet, ask: Ask::Hold { note }, by, at, .. } = self else { return None };
        Some(StoreError::Paused { fleet, by, at, note })
    }
}

/// When a fleet is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTime {
    /// The schedule that it was reckoned from, as text: under another one it is worth nothing.
    pub schedule: String,
    /// The moment.
    pub at: Timestamp,
}

/// Who came to a fleet after its last rotation, as whoever drives saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateLook {
    /// When it was looked.
    pub at: Timestamp,
    /// Who.
    pub new: Vec<InstanceId>,
}

/// Keeps what is asked of fleets, and when they are due. Contract, held by one conformance suite for every
/// implementation:
///
/// - What writes returns only when it is durable, and writes all or nothing.
/// - Times are kept to the millisecond, and answered as they are kept.
/// - Requests number 1, 2, 3 … in the order in which they were asked, whatever `at` says. Any process may ask; who
///   drives answers.
/// - No fleet is known here: a request of one that no file names is kept like any other, for the driver to refuse.
/// - A request that cannot be read is `Unusable` with its number, for whatever would have to answer it.
#[async_trait]
pub trait Agenda: Send + Sync {
    /// Writes a request down. A [`Ask::Hold`] pauses its fleet from the moment at which this returns.
    async fn ask(&self, fleet: &FleetName, ask: &Ask, by: &Author, at: Timestamp) -> Result<RequestId, StoreError>;

    /// The requests without an answer, oldest first.
    async fn asked(&self) -> Result<Vec<Request>, StoreError>;

    /// One request; `NoRequest` if there is none of this number.
    async fn request(&self, id: RequestId) -> Result<Request, StoreError>;

    /// Answers a request, once: `false` if it was answered before, and then nothing is changed. `NoRequest` if there is
    /// none of this number.
    async fn answer(&self, id: RequestId, answer: &Answer, at: Timestamp) -> Result<bool, StoreError>;

    /// Writes down that a rotation was due and could not begin: a `rotate` of the driver's own, refused as it is written, so
    /// that nobody takes it up.
    async fn note_refused(&self, fleet: &FleetName, why: &str, by: &Author, at: Timestamp) -> Result<(), StoreError>;

    /// The newest `rotate` of each fleet, where it was refused.
    async fn refused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError>;

    /// The paused fleets, each with the request that pauses it: its newest hold or release is a hold. What was refused or
    /// withdrawn does not count; what has no answer yet does.
    async fn paused(&self) -> Result<BTreeMap<FleetName, Request>, StoreError>;

    /// When fleets are due. They are reckoned from schedules: one that cannot be read is left out, as if it were lost.
    async fn due_times(&self) -> Result<BTreeMap<FleetName, DueTime>, StoreError>;

    /// Keeps when a fleet is due, in the stead of what was kept before; `None` forgets it.
    async fn set_due(&self, fleet: &FleetName, due: Option<&DueTime>) -> Result<(), StoreError>;

    /// Who came after the last rotation, by fleet. It is looked for again within the hour: what cannot be read is left out.
    async fn late_looks(&self) -> Result<BTreeMap<FleetName, LateLook>, StoreError>;

    /// Keeps who came after the last rotation, in the stead of what was kept before.
    async fn set_late(&self, fleet: &FleetName, look: &LateLook) -> Result<(), StoreError>;

    /// The journals that got an operator's entry behind position `after`, each once, in the order of their first such
    /// entry; and the newest position, to be asked from next. A position counts the entries of all journals; it means
    /// something to this store only, and 0 stands before all. When nothing was written since, this costs one look at an
    /// index, however many entries there are. `u64::MAX` asks for the newest position alone.
    async fn touched(&self, after: u64) -> Result<(u64, Vec<JournalId>), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_and_answers_are_written_as_every_release_will_read_them() {
        // Never to be changed: rows of an earlier release must still be read, and the migrations' SQL names the tags.
        let check = |text: &str, written: String| assert_eq!(written, text);
        let ask = |ask: Ask| {
            let text = serde_json::to_string(&ask).unwrap();
            assert_eq!(serde_json::from_str::<Ask>(&text).unwrap(), ask);
            text
        };
        let answer = |answer: Answer| {
            let text = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
            text
        };
        let id = "01940000-0000-7000-8000-000000000001".parse().unwrap();
        check(r#"{"ask":"rotate"}"#, ask(Ask::rotate()));
        let rotate = |force, compromised, unavailable_max| ask(Ask::Rotate { force, compromised, unavailable_max });
        check(r#"{"ask":"rotate","force":["window"]}"#, rotate(vec![Rule::Window], false, None));
        check(r#"{"ask":"rotate","compromised":true}"#, rotate(Vec::new(), true, None));
        check(
            r#"{"ask":"rotate","compromised":true,"unavailable_max":{"percent":100}}"#,
            rotate(Vec::new(), true, Some(Amount::Percent(100))),
        );
        check(
            r#"{"ask":"rollback","rotation":"01940000-0000-7000-8000-000000000001"}"#,
            ask(Ask::Rollback { rotation: id }),
        );
        check(r#"{"ask":"catch_up"}"#, ask(Ask::CatchUp));
        check(r#"{"ask":"hold","note":"a \"b\""}"#, ask(Ask::Hold { note: "a \"b\"".into() }));
        check(r#"{"ask":"release","note":""}"#, ask(Ask::Release { note: String::new() }));
        check(r#"{"answer":"rotation","detail":"01940000-0000-7000-8000-000000000001"}"#, answer(Answer::Rotation(id)));
        check(r#"{"answer":"held"}"#, answer(Answer::Held));
        check(r#"{"answer":"released"}"#, answer(Answer::Released));
        check(r#"{"answer":"refused","detail":"no such fleet"}"#, answer(Answer::Refused("no such fleet".into())));
        check(r#"{"answer":"nobody","detail":"all are in"}"#, answer(Answer::Nobody("all are in".into())));
        check(r#"{"answer":"withdrawn"}"#, answer(Answer::Withdrawn));
    }

    #[test]
    fn a_refused_rotation_of_a_paused_fleet_names_the_way_out() {
        let check = |note: &str, expect: &str| {
            let error = StoreError::Paused {
                fleet: "web".into(),
                by: Author::Operator("wei".into()),
                at: "2026-11-22T01:02:03Z".parse().unwrap(),
                note: note.into(),
            };
            assert_eq!(error.to_string(), expect);
        };
        check(
            "",
            "fleet web was paused by operator wei at 2026-11-22T01:02:03Z: `rekeyd release web` lets it rotate again",
        );
        check(
            "sales day",
            "fleet web was paused by operator wei at 2026-11-22T01:02:03Z (sales day): `rekeyd release web` lets it rotate again",
        );
    }
}
