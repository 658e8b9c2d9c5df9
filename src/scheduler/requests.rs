//! What people ask of fleets beside whoever drives, answered: rotations, ways back, catch-ups, holds. A request is answered
//! once; it must never begin a rotation of a fleet that has one open.

use crate::engine::EngineError;
use crate::engine::back::may_roll_back;
use crate::engine::operate::{OrderError, operate};
use crate::engine::planner::{Aim, PlanError};
use crate::model::{Duration, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Order, Plan, Purpose, Rule};
use crate::store::{Answer, Ask, Head, Request};

use super::late::undoes;
use super::orders::hold_all;
use super::start::{Cause, RETRY_MAX, Start, chain};
use super::tick::Scheduler;

/// A `rotate` that nobody took for so long is refused: nobody expects it any more.
pub const ASKED_MAX: Duration = Duration::from_secs(600);

/// A `rollback` that could not begin for so long is refused.
pub(super) const ASKED_BACK_MAX: Duration = Duration::from_secs(3600);

impl Scheduler {
    pub(super) async fn take_requests(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let asked = self.agenda.asked().await;
        // After the requests: a hold that was released since must not be carried out any more.
        let paused = self.agenda.paused().await?;
        self.paused = paused.keys().cloned().collect();
        for request in asked? {
            let answer = match &request.ask {
                Ask::Hold { note } => {
                    if paused.get(&request.fleet).is_some_and(|newest| newest.id == request.id) {
                        hold_all(&self.tools, &self.book, &request, note).await?;
                    }
                    Some(Answer::Held)
                }
                Ask::Release { .. } => Some(Answer::Released),
                Ask::Rotate { force, compromised: true, unavailable_max } => {
                    let aim = Aim::Compromised { unavailable_max: *unavailable_max };
                    self.take_compromised(&request, aim, force, paused.get(&request.fleet), now).await?
                }
                Ask::Rotate { force, .. } => match self.book.open_rotation(&request.fleet) {
                    Some(open) => Some(Answer::Rotation(open.id)),
                    None => self.take_start(&request, Aim::Rotate, force, now),
                },
                Ask::CatchUp => match self.book.open_rotation(&request.fleet) {
                    Some(open) if purpose(open) == Some(Purpose::CatchUp) => Some(Answer::Rotation(open.id)),
                    Some(open) => Some(Answer::Refused(in_the_way(open))),
                    None => self.take_start(&request, Aim::CatchUp { new: true }, &[], now),
                },
                Ask::Rollback { rotation } => self.take_rollback(&request, *rotation, now).await?,
            };
            if let Some(answer) = answer {
                self.agenda.answer(request.id, &answer, now).await?;
            }
        }
        Ok(())
    }

    /// The answer to a `rollback`; `None`: its rotation is being given up, or the way back is queued.
    async fn take_rollback(
        &mut self,
        request: &Request,
        rotation: JournalId,
        now: Timestamp,
    ) -> Result<Option<Answer>, EngineError> {
        let journal = self.tools.journal.as_ref();
        match self.book.open_rotation(&request.fleet) {
            None => {}
            Some(open) if undoes(open) == Some(rotation) => return Ok(Some(Answer::Rotation(open.id))),
            Some(open) if open.id != rotation => return Ok(Some(Answer::Refused(in_the_way(open)))),
            Some(open) => {
                match may_roll_back(journal, open).await {
                    Ok(()) => {}
                    Err(PlanError::Store(error)) => return Err(error.into()),
                    Err(error) => return Ok(Some(Answer::Refused(chain(&error)))),
                }
                return self.give_up(request, rotation, "to be rolled back").await.map(|()| None);
            }
        }
        Ok(self.take_start(request, Aim::Back(rotation), &[], now))
    }

    /// The answer to a `rotate --compromised`; `None`: what is open is being given up, or the rotation is queued. What would
    /// be refused is refused before anything is given up for it, as far as that is known here.
    async fn take_compromised(
        &mut self,
        request: &Request,
        aim: Aim,
        force: &[Rule],
        paused: Option<&Request>,
        now: Timestamp,
    ) -> Result<Option<Answer>, EngineError> {
        let open = self.book.open_rotation(&request.fleet);
        let (id, is_compromised) = match open.map(|open| (open.id, &open.plan)) {
            Some((id, Plan::Rotate(plan))) => (id, plan.compromised),
            _ => return Ok(self.take_start(request, aim, force, now)),
        };
        if is_compromised {
            return Ok(Some(Answer::Rotation(id)));
        }
        if let Some(paused) = paused.and_then(|paused| paused.clone().refusal()) {
            return Ok(Some(Answer::Refused(paused.to_string())));
        }
        if now > later(request.at, ASKED_BACK_MAX) || !self.fleets.contains_key(&request.fleet) {
            return Ok(self.take_start(request, aim, force, now));
        }
        self.give_up(request, id, "its fleet's key is compromised, and a new rotation begins").await.map(|()| None)
    }

    /// Gives a rotation up for what is asked: it ends once nothing is in flight.
    async fn give_up(&self, request: &Request, id: JournalId, why: &str) -> Result<(), EngineError> {
        let order = Order::Abandon { note: why.to_string() };
        let (journal, clock) = (self.tools.journal.as_ref(), self.tools.clock.as_ref());
        match operate(journal, clock, id, &order, &request.by).await {
            // Refused: it has ended since.
            Ok(_) | Err(OrderError::Refused(_)) => Ok(()),
            Err(OrderError::Engine(error)) => Err(error),
        }
    }

    /// The answer to a request for a rotation of a fleet that has none open; `None`: it is queued.
    fn take_start(&mut self, request: &Request, aim: Aim, force: &[Rule], now: Timestamp) -> Option<Answer> {
        let name = &request.fleet;
        let asked = |start: &Start| start.cause == Cause::Asked(request.id);
        if self.starting.contains_key(name) || self.queue.iter().any(asked) {
            return None;
        }
        // Only what is urgent takes the place of what is urgent; who asked for less is answered by what comes of it.
        let urgent = |aim: &Aim| matches!(aim, Aim::Compromised { .. });
        if !urgent(&aim) && self.queue.iter().any(|start| start.fleet.name == *name && urgent(&start.aim)) {
            return None;
        }
        // After a fault of the database only: a tick that could not begin is no reason to keep a person waiting.
        let not_yet = |(times, at): &(u32, Timestamp)| *times == 0 && now < *at && *at <= later(now, RETRY_MAX);
        if self.failed.get(name).is_some_and(not_yet) {
            return None;
        }
        // The rotation that is given up for it may have taken long to end.
        let patience = match aim {
            Aim::Back(_) | Aim::Compromised { .. } => ASKED_BACK_MAX,
            Aim::Rotate | Aim::CatchUp { .. } => ASKED_MAX,
        };
        if now > later(request.at, patience) {
            let minutes = patience.as_secs() / 60;
            return Some(Answer::Refused(format!("nobody took it within {minutes} minutes; ask again")));
        }
        let Some(fleet) = self.fleets.get(name) else {
            let why = format!(
                "the running daemon's config file has no fleet {name}; reload it if the file was changed (SIGHUP)"
            );
            return Some(Answer::Refused(why));
        };
        // A person goes before what is merely due.
        self.queue.retain(|start| start.fleet.name != *name);
        self.queue.push_front(Start {
            fleet: fleet.fleet.clone(),
            aim,
            cause: Cause::Asked(request.id),
            force: force.to_vec(),
        });
        None
    }
}

fn purpose(head: &Head) -> Option<Purpose> {
    match &head.plan {
        Plan::Rotate(plan) => Some(plan.purpose()),
        Plan::Retire(_) => None,
    }
}

fn in_the_way(open: &Head) -> String {
    format!(
        "{} {} is open: `rekeyd rotate {}` goes on with it, `rekeyd abandon {}` gives it up",
        purpose(open).map_or("journal", Purpose::name),
        open.id,
        open.plan.fleet(),
        open.id
    )
}
