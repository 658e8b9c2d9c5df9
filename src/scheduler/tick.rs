//! One turn of the scheduler: answer what people asked, see what is due, hand out what may start now. It must never begin
//! a rotation of a fleet that has one open, nor of one that is held; the store refuses both once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::engine::back::may_roll_back;
use crate::engine::drive::begin_retirements;
use crate::engine::late::Late;
use crate::engine::operate::{OrderError, operate};
use crate::engine::planner::{Aim, Fleet, PlanError};
use crate::engine::survey::Survey;
use crate::engine::{EngineError, Tools};
use crate::model::{Duration, FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::policy::{back_off, later};
use crate::rotation::{Order, Outcome, Plan, Purpose};
use crate::store::{Agenda, Answer, Ask, DueTime, Head, Request, StoreError, Unreadable};

use super::book::{Book, Gate, gate};
use super::due::{Judgement, Skip, Tick, offset};
use super::start::{Begun, Cause, Scheduled, Start, chain};
use super::{Observer, Ticked};

/// So many rotations of one account and region need their cloud at once; the next ones wait their turn. More would only
/// queue for the same request rate, each with machines that are down meanwhile.
pub const BUSY_MAX: usize = 8;
/// A `rotate` that nobody took for so long is refused: nobody expects it any more.
pub const ASKED_MAX: Duration = Duration::from_secs(600);

/// A start that is later than this was missed, and is caught up.
const LATE: Duration = Duration::from_secs(10);

/// Decides when rotations begin. It holds nothing that the store would not give again.
pub struct Scheduler {
    tools: Tools,
    agenda: Arc<dyn Agenda>,
    fleets: BTreeMap<FleetName, Scheduled>,
    observers: Vec<Arc<dyn Observer>>,
    book: Book,
    due: BTreeMap<FleetName, DueTime>,
    /// What waits for its turn, in the order in which it became due.
    queue: VecDeque<Start>,
    /// What was handed out and has not begun yet.
    starting: BTreeMap<FleetName, Gate>,
    /// Starts that failed: how often (0: the database did), and not again before.
    failed: BTreeMap<FleetName, (u32, Timestamp)>,
    paused: BTreeSet<FleetName>,
    /// When fleets are looked at next for who is late.
    surveys: BTreeMap<FleetName, Timestamp>,
    /// Who was told to be late in them: waiting, and new.
    late: BTreeMap<FleetName, (Vec<InstanceId>, Vec<InstanceId>)>,
    /// Fleets whose superseded pairs are to be looked through.
    to_retire: BTreeSet<FleetName>,
    /// Journals that cannot be read, as far as it is known.
    unreadable: Vec<Unreadable>,
    touched: u64,
}

impl Scheduler {
    /// Reads what there is, and begins the retire journals that are due.
    pub async fn open(
        tools: Tools,
        agenda: Arc<dyn Agenda>,
        fleets: Vec<Scheduled>,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Result<Self, EngineError> {
        // Before the heads: what operators write from now on is noticed.
        let (touched, _) = agenda.touched(u64::MAX).await?;
        let heads = tools.journal.heads().await?;
        for unreadable in &heads.unreadable {
            let fleet = unreadable.fleet.as_ref().map(ToString::to_string).unwrap_or_else(|| "unknown".to_string());
            tracing::error!(fleet, journal = %unreadable.journal, problem = unreadable.problem, "unreadable journal");
        }
        observers.iter().for_each(|observer| observer.unreadable(&heads.unreadable));
        let fleets: BTreeMap<_, _> = fleets.into_iter().map(|one| (one.fleet.name.clone(), one)).collect();
        let mut due = agenda.due_times().await?;
        let is_scheduled = |name: &FleetName| fleets.get(name).is_some_and(|fleet| fleet.schedule.is_some());
        for name in due.keys().filter(|name| !is_scheduled(name)) {
            agenda.set_due(name, None).await?;
        }
        due.retain(|name, _| is_scheduled(name));
        let mut scheduler = Self {
            tools,
            agenda,
            fleets,
            observers,
            book: Book::of(heads.readable),
            due,
            queue: VecDeque::new(),
            starting: BTreeMap::new(),
            failed: BTreeMap::new(),
            paused: BTreeSet::new(),
            surveys: BTreeMap::new(),
            late: BTreeMap::new(),
            to_retire: BTreeSet::new(),
            unreadable: heads.unreadable,
            touched,
        };
        scheduler.to_retire = scheduler.book.fleets().cloned().collect();
        scheduler.retire_what_is_due().await?;
        for name in scheduler.fleets.keys().cloned().collect::<Vec<_>>() {
            scheduler.go_on_back(&name);
        }
        Ok(scheduler)
    }

    /// One turn: what may begin now. Each start is handed out once, and answered for by [`begun`](Self::begun).
    pub async fn tick(&mut self) -> Result<Vec<Start>, EngineError> {
        let now = self.tools.clock.now();
        self.retire_what_is_due().await?;
        match self.take_requests(now).await {
            // Written by a newer release, perhaps: who asked waits in vain, all else goes on.
            Err(EngineError::Store(StoreError::Unusable(problem))) => {
                tracing::error!(problem, "a request cannot be read")
            }
            taken => taken?,
        }
        self.take_due(now).await?;
        self.take_surveys(now);
        let ready = self.hand_out(now);
        for observer in &self.observers {
            observer.turned(now);
            for (name, fleet) in &self.fleets {
                let due = fleet.schedule.as_ref().and_then(|_| self.due.get(name)).map(|due| due.at);
                observer.due(name, due);
                observer.paused(name, self.paused.contains(name));
            }
        }
        Ok(ready)
    }

    /// The journals that operators wrote to since this was asked last. One that had ended may be open again.
    pub async fn touched(&mut self) -> Result<Vec<JournalId>, EngineError> {
        let (position, ids) = self.agenda.touched(self.touched).await?;
        self.touched = position;
        for id in &ids {
            if self.book.head(*id).is_none_or(|head| head.ended.is_some()) {
                match self.tools.journal.head(*id).await {
                    Ok(head) => self.book.put(head),
                    Err(error) => tracing::warn!(journal = %id, %error, "touched, and not readable"),
                }
            }
        }
        Ok(ids)
    }

    /// The journals that are to be driven.
    pub fn book(&self) -> &Book {
        &self.book
    }

    async fn take_requests(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let asked = self.agenda.asked().await;
        // After the requests: a hold that was released since must not be carried out any more.
        let paused = self.agenda.paused().await?;
        self.paused = paused.keys().cloned().collect();
        for request in asked? {
            let answer = match &request.ask {
                Ask::Hold { note } => {
                    if paused.get(&request.fleet).is_some_and(|newest| newest.id == request.id) {
                        self.hold_all(&request, note).await?;
                    }
                    Some(Answer::Held)
                }
                Ask::Release { .. } => Some(Answer::Released),
                Ask::Rotate => match self.book.open_rotation(&request.fleet) {
                    Some(open) => Some(Answer::Rotation(open.id)),
                    None => self.take_start(&request, Aim::Rotate, now),
                },
                Ask::CatchUp => match self.book.open_rotation(&request.fleet) {
                    Some(open) if purpose(open) == Some(Purpose::CatchUp) => Some(Answer::Rotation(open.id)),
                    Some(open) => Some(Answer::Refused(in_the_way(open))),
                    None => self.take_start(&request, Aim::CatchUp { new: true }, now),
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
                let order = Order::Abandon { note: "to be rolled back".to_string() };
                return match operate(journal, self.tools.clock.as_ref(), rotation, &order, &request.by).await {
                    // It ends once nothing is in flight. (Refused: it has ended since.)
                    Ok(_) | Err(OrderError::Refused(_)) => Ok(None),
                    Err(OrderError::Engine(error)) => Err(error),
                };
            }
        }
        Ok(self.take_start(request, Aim::Back(rotation), now))
    }

    /// The answer to a request for a rotation of a fleet that has none open; `None`: it is queued.
    fn take_start(&mut self, request: &Request, aim: Aim, now: Timestamp) -> Option<Answer> {
        let name = &request.fleet;
        let asked = |start: &Start| start.cause == Cause::Asked(request.id);
        if self.starting.contains_key(name) || self.queue.iter().any(asked) {
            return None;
        }
        // After a fault of the database only: a tick that could not begin is no reason to keep a person waiting.
        let not_yet = |(times, at): &(u32, Timestamp)| *times == 0 && now < *at && *at <= later(now, RETRY_MAX);
        if self.failed.get(name).is_some_and(not_yet) {
            return None;
        }
        // The rotation that is rolled back may have taken long to end.
        let patience = if matches!(aim, Aim::Back(_)) { ASKED_BACK_MAX } else { ASKED_MAX };
        if now > later(request.at, patience) {
            let minutes = patience.as_secs() / 60;
            return Some(Answer::Refused(format!("nobody took it within {minutes} minutes; ask again")));
        }
        let Some(fleet) = self.fleets.get(name) else {
            let why =
                format!("the running daemon's config file has no fleet {name}; restart it if the file was changed");
            return Some(Answer::Refused(why));
        };
        // A person goes before what is merely due.
        self.queue.retain(|start| start.fleet.name != *name);
        self.queue.push_front(Start { fleet: fleet.fleet.clone(), aim, cause: Cause::Asked(request.id) });
        None
    }

    /// A way back to several pairs is several rotations: the next one begins when one of them is completed. Derived from
    /// the journals, also after a start of the process; where nothing is left, nothing begins.
    fn go_on_back(&mut self, name: &FleetName) {
        let newest = self.book.of_fleet(name).iter().rev().find(|head| matches!(head.plan, Plan::Rotate(_)));
        // Lately: what somebody changed long after it is no part of what was asked for then.
        let now = self.tools.clock.now();
        let lately = |at: Timestamp| now < later(at, ASKED_BACK_MAX);
        let completed = newest.filter(|head| matches!(head.ended, Some((at, Outcome::Completed)) if lately(at)));
        if let (Some(undone), Some(fleet)) = (completed.and_then(undoes), self.fleets.get(name)) {
            let aim = Aim::Back(undone);
            self.queue.push_back(Start { fleet: fleet.fleet.clone(), aim, cause: Cause::GoOn });
        }
    }

    /// Idle fleets are looked at once an hour, each at its own moment of it: who is late?
    fn take_surveys(&mut self, now: Timestamp) {
        for (name, fleet) in &self.fleets {
            let offset = offset(name, &self.tools.mark, SURVEYED);
            let due = self.surveys.entry(name.clone()).or_insert_with(|| next_survey(now, offset));
            if now < *due && *due <= later(now, SURVEYED) {
                continue;
            }
            *due = next_survey(now, offset);
            let waits = self.starting.contains_key(name) || self.queue.iter().any(|start| start.fleet.name == *name);
            let rotated = self.book.newest_begun(name).is_some() && self.book.open_rotation(name).is_none();
            if rotated && !waits && !self.paused.contains(name) {
                let aim = Aim::CatchUp { new: fleet.binds_new };
                self.queue.push_back(Start { fleet: fleet.fleet.clone(), aim, cause: Cause::Survey });
            }
        }
    }

    /// Whoever asked wrote the entries as well, unless it was killed in between or a rotation had just begun.
    async fn hold_all(&mut self, request: &Request, note: &str) -> Result<(), EngineError> {
        let open: Vec<JournalId> =
            self.book.of_fleet(&request.fleet).iter().filter(|head| head.ended.is_none()).map(|head| head.id).collect();
        for id in open {
            let order = Order::Hold { note: note.to_string() };
            let (journal, clock) = (self.tools.journal.as_ref(), self.tools.clock.as_ref());
            match operate(journal, clock, id, &order, &request.by).await {
                Ok(_) | Err(OrderError::Refused(_)) => {}
                // Not done, and not answered: the next turn tries again.
                Err(OrderError::Engine(error @ EngineError::Store(StoreError::Database(_)))) => return Err(error),
                // One that cannot be read holds its fleet anyway.
                Err(OrderError::Engine(error)) => tracing::error!(journal = %id, %error, "not held"),
            }
        }
        Ok(())
    }

    async fn take_due(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let mut changed = Vec::new();
        for (name, fleet) in &self.fleets {
            let Some(schedule) = &fleet.schedule else { continue };
            let waits = self.starting.contains_key(name) || self.queue.iter().any(|start| start.fleet.name == *name);
            if waits {
                continue;
            }
            let kept = self.due.get(name).map(|due| (due.schedule.as_str(), due.at));
            let is_open = self.book.open_rotation(name).is_some();
            let Judgement { due, tick } = schedule.judge(kept, self.book.newest_begun(name), is_open, now);
            let due = due.map(|at| DueTime { schedule: schedule.text.clone(), at });
            if due.as_ref() != self.due.get(name) {
                changed.push((name.clone(), due));
            }
            match tick {
                Tick::None => {}
                Tick::Start { due, late } => {
                    let not_yet =
                        self.failed.get(name).is_some_and(|(_, at)| now < *at && *at <= later(now, RETRY_MAX));
                    if !not_yet && !self.paused.contains(name) {
                        let cause = Cause::Due { due, late };
                        self.queue.push_back(Start { fleet: fleet.fleet.clone(), aim: Aim::Rotate, cause });
                    }
                }
                Tick::Skipped { due, why } => {
                    tracing::warn!(fleet = %name, %due, "due, and skipped: {why}");
                    let ticked = if why == Skip::Open { Ticked::Open } else { Ticked::Missed };
                    self.observers.iter().for_each(|observer| observer.ticked(name, ticked));
                }
            }
        }
        for (name, due) in changed {
            self.agenda.set_due(&name, due.as_ref()).await?;
            match due {
                Some(due) => self.due.insert(name.clone(), due),
                None => self.due.remove(&name),
            };
            self.failed.remove(&name);
        }
        Ok(())
    }

    /// What may begin now: in the order in which it became due, but no account waits for another one.
    fn hand_out(&mut self, now: Timestamp) -> Vec<Start> {
        let mut full: BTreeMap<Gate, usize> = BTreeMap::new();
        let (mut ready, mut left) = (Vec::new(), VecDeque::new());
        for start in std::mem::take(&mut self.queue) {
            let at = gate(&start.fleet.place);
            let busy = full.entry(at.clone()).or_insert_with(|| {
                self.book.busy(&at) + self.starting.values().filter(|starting| **starting == at).count()
            });
            if *busy >= BUSY_MAX {
                left.push_back(start);
                continue;
            }
            *busy += 1;
            tracing::debug!(fleet = %start.fleet.name, cause = ?start.cause, %now, "to begin");
            self.starting.insert(start.fleet.name.clone(), at);
            ready.push(start);
        }
        self.queue = left;
        ready
    }

    /// A survey is done.
    pub fn surveyed(&self, fleet: Option<&FleetName>, survey: &Survey) {
        self.observers.iter().for_each(|observer| observer.surveyed(fleet, survey));
    }

    /// All fleets of the file, as the planner wants to know them.
    pub fn fleets(&self) -> Vec<Fleet> {
        self.fleets.values().map(|one| one.fleet.clone()).collect()
    }

    /// What came of a start.
    pub async fn begun(&mut self, start: &Start, result: Result<Begun, PlanError>) -> Result<(), EngineError> {
        let name = &start.fleet.name;
        self.starting.remove(name);
        let now = self.tools.clock.now();
        if let Ok(Begun { late: Some(late), .. }) = &result {
            self.observers.iter().for_each(|observer| observer.late(name, late));
            let told = self.late.insert(name.clone(), (late.waiting.clone(), late.new.clone()));
            if told.is_none_or(|(waiting, new)| waiting != late.waiting || new != late.new) {
                tell_of_late(name, late);
            }
        }
        let answer = match result {
            Ok(Begun { head: None, .. }) => return Ok(()),
            Ok(Begun { head: Some(head), .. }) => {
                self.failed.remove(name);
                if let Cause::Due { late, .. } = start.cause {
                    let ticked = if late > LATE { Ticked::CaughtUp } else { Ticked::Started };
                    self.observers.iter().for_each(|observer| observer.ticked(name, ticked));
                }
                let id = head.id;
                self.book.put(head);
                Answer::Rotation(id)
            }
            Err(PlanError::Store(StoreError::Open { journal, .. })) => {
                let head = self.tools.journal.head(journal).await?;
                self.book.put(head);
                Answer::Rotation(journal)
            }
            // What is broken here, and not in the fleet, is the daemon's to answer for.
            Err(PlanError::Store(error @ (StoreError::Database(_) | StoreError::Unusable(_)))) => {
                self.failed.insert(name.clone(), (0, later(now, RETRY_MIN)));
                return Err(error.into());
            }
            Err(error) => {
                let why = chain(&error);
                if let Cause::Survey | Cause::GoOn = start.cause {
                    tracing::warn!(fleet = %name, aim = ?start.aim, "not begun: {why}");
                }
                if let Cause::Due { .. } = start.cause {
                    let (times, _) = self.failed.get(name).copied().unwrap_or((0, now));
                    let at = later(now, back_off(times, None, 1.0).max(RETRY_MIN));
                    tracing::warn!(fleet = %name, "due, and not begun: {why}; again at {at}");
                    self.failed.insert(name.clone(), (times + 1, at));
                    self.observers.iter().for_each(|observer| observer.ticked(name, Ticked::Failed));
                }
                Answer::Refused(why)
            }
        };
        if let Cause::Asked(id) = start.cause {
            self.agenda.answer(id, &answer, now).await?;
        }
        Ok(())
    }

    /// A journal ended: retire what its rotation superseded.
    pub async fn ended(&mut self, id: JournalId, at: Timestamp, outcome: Outcome) -> Result<(), EngineError> {
        self.book.end(id, at, outcome);
        if let Some(name) =
            self.book.head(id).filter(|head| undoes(head).is_some()).map(|head| head.plan.fleet().clone())
        {
            self.go_on_back(&name);
        }
        self.to_retire.extend(self.book.head(id).map(|head| head.plan.fleet().clone()));
        self.retire_what_is_due().await
    }

    /// Begins the retire journals that are due; what could not be begun is tried again in the next turn.
    async fn retire_what_is_due(&mut self) -> Result<(), EngineError> {
        while let Some(fleet) = self.to_retire.first().cloned() {
            self.retire(&fleet).await?;
            self.to_retire.remove(&fleet);
        }
        Ok(())
    }

    /// Whether a journal needs its cloud now, as its driver has it.
    pub fn set_idle(&mut self, id: JournalId, idle: bool) {
        self.book.set_idle(id, idle);
        self.set_readable(id, None);
    }

    /// A journal cannot be driven for a while: it takes nobody's place.
    pub fn set_parked(&mut self, id: JournalId) {
        self.book.set_idle(id, true);
    }

    /// A journal turned out to be unreadable, or to be readable again.
    pub fn set_readable(&mut self, id: JournalId, problem: Option<String>) {
        let known = self.unreadable.iter().any(|one| one.journal == id);
        if known != problem.is_some() {
            self.unreadable.retain(|one| one.journal != id);
            let fleet = self.book.head(id).map(|head| head.plan.fleet().clone());
            self.unreadable.extend(problem.map(|problem| Unreadable { journal: id, fleet, problem }));
            self.observers.iter().for_each(|observer| observer.unreadable(&self.unreadable));
        }
    }

    async fn retire(&mut self, fleet: &FleetName) -> Result<(), EngineError> {
        match begin_retirements(&self.tools, fleet, self.book.of_fleet(fleet)).await {
            Ok(begun) => begun.into_iter().for_each(|head| self.book.put(head)),
            // One damaged journal holds its fleet, never the daemon.
            Err(EngineError::Store(error @ StoreError::Damaged { .. })) => {
                tracing::error!(%fleet, %error, "no retire journal can begin");
                // Some may have begun before it came to that.
                self.tools.journal.heads().await?.readable.into_iter().for_each(|head| self.book.put(head));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn tell_of_late(fleet: &FleetName, late: &Late) {
    const NAMED: usize = 20;
    let some = |ids: &[InstanceId]| {
        let named: Vec<&str> = ids.iter().take(NAMED).map(InstanceId::as_str).collect();
        let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
        named.join(",") + &more
    };
    if !late.waiting.is_empty() {
        let instance = some(&late.waiting);
        tracing::info!(%fleet, instance, "bound to the fleet's key, and off, out of reach or never proven");
    }
    if !late.new.is_empty() {
        let instance = some(&late.new);
        tracing::warn!(%fleet, instance, "came after the last rotation, and have another key: `rekeyd catch-up {fleet}` binds them");
    }
}

fn purpose(head: &Head) -> Option<Purpose> {
    match &head.plan {
        Plan::Rotate(plan) => Some(plan.purpose()),
        Plan::Retire(_) => None,
    }
}

/// The rotation that this one undoes.
fn undoes(head: &Head) -> Option<JournalId> {
    match &head.plan {
        Plan::Rotate(plan) => plan.undoes,
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

/// The next moment of this offset in an hour.
fn next_survey(now: Timestamp, offset: Duration) -> Timestamp {
    let hour = i128::from(SURVEYED.as_secs()) * 1_000_000_000;
    let offset = i128::try_from(offset.as_nanos()).unwrap_or(0);
    let since = (now.as_nanosecond() - offset).rem_euclid(hour);
    Timestamp::from_nanosecond(now.as_nanosecond() - since + hour).unwrap_or(Timestamp::MAX)
}

/// How often an idle fleet is looked at for who is late.
const SURVEYED: Duration = Duration::from_secs(3600);
/// A `rollback` that could not begin for so long is refused.
const ASKED_BACK_MAX: Duration = Duration::from_secs(3600);
/// A start that failed is tried again after this at the earliest …
const RETRY_MIN: Duration = Duration::from_secs(10);
/// … and this at the latest.
const RETRY_MAX: Duration = Duration::from_secs(300);
