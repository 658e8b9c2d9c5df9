//! One turn of the scheduler: answer what people asked, see what is due, hand out what may start now. It must never begin
//! a rotation of a fleet that has one open, nor of one that is held; the store refuses both once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::engine::drive::begin_retirements;
use crate::engine::planner::{Aim, Fleet, PlanError};
use crate::engine::{EngineError, Tools};
use crate::model::{Duration, FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Outcome, Rule};
use crate::store::{Agenda, Answer, DueTime, StoreError, Unreadable};

use super::book::{Book, Gate, gate};
use super::due::{Judgement, Skip, Tick};
use super::late::{look_of, tell_of_late, undoes};
use super::start::{Begun, Cause, Closed, RETRY_MAX, RETRY_MIN, Scheduled, Start, again, chain};
use super::{Observer, Ticked};

/// So many rotations of one account and region need their cloud at once; the next ones wait their turn. More would only
/// queue for the same request rate, each with machines that are down meanwhile.
pub const BUSY_MAX: usize = 8;
/// A start that is later than this was missed, and is caught up.
const LATE: Duration = Duration::from_secs(10);

/// Decides when rotations begin. It holds nothing that the store would not give again.
pub struct Scheduler {
    pub(super) tools: Tools,
    pub(super) agenda: Arc<dyn Agenda>,
    pub(super) fleets: BTreeMap<FleetName, Scheduled>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) book: Book,
    pub(super) due: BTreeMap<FleetName, DueTime>,
    /// What waits for its turn, in the order in which it became due.
    pub(super) queue: VecDeque<Start>,
    /// What was handed out and has not begun yet.
    pub(super) starting: BTreeMap<FleetName, Gate>,
    /// Starts that failed: how often (0: the database did), and not again before.
    pub(super) failed: BTreeMap<FleetName, (u32, Timestamp)>,
    /// Ways back that are to be gone on with, and could not: how often, and not again before.
    pub(super) going_on: BTreeMap<FleetName, (u32, Timestamp)>,
    /// What was written down of those last: since when it was due, and why it did not begin.
    pub(super) noted: BTreeMap<FleetName, (Timestamp, String)>,
    pub(super) paused: BTreeSet<FleetName>,
    /// When fleets are looked at next for who is late.
    pub(super) surveys: BTreeMap<FleetName, Timestamp>,
    /// Who was told to be late in them: waiting, and new.
    pub(super) late: BTreeMap<FleetName, (Vec<InstanceId>, Vec<InstanceId>)>,
    /// Fleets whose superseded pairs are to be looked through.
    pub(super) to_retire: BTreeSet<FleetName>,
    /// Journals that cannot be read, as far as it is known.
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) touched: u64,
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
        let due = agenda.due_times().await?;
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
            going_on: BTreeMap::new(),
            noted: BTreeMap::new(),
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
        self.take_ways_back(now);
        self.take_surveys(now);
        let ready = self.hand_out(now);
        self.tell_turn(now);
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

    async fn take_due(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let is_scheduled = |name: &FleetName| self.fleets.get(name).is_some_and(|fleet| fleet.schedule.is_some());
        let mut changed: Vec<(FleetName, Option<DueTime>)> =
            self.due.keys().filter(|name| !is_scheduled(name)).map(|name| (name.clone(), None)).collect();
        for (name, fleet) in &self.fleets {
            let Some(schedule) = &fleet.schedule else { continue };
            // What a person wants back goes first.
            if self.waits(name) || self.going_on.contains_key(name) {
                continue;
            }
            let kept = self.due.get(name).map(|due| (due.schedule.as_str(), due.at));
            let is_open = self.book.open_rotation(name).is_some();
            let Judgement { mut due, tick } = schedule.judge(kept, self.book.newest_begun(name), is_open, now);
            let closed = match tick {
                Tick::Start { due, .. } => fleet.closed(schedule, due, now),
                _ => None,
            };
            if closed == Some(Closed::Skip) {
                due = schedule.next(now);
            }
            let due = due.map(|at| DueTime { schedule: schedule.text.clone(), at });
            if due.as_ref() != self.due.get(name) {
                changed.push((name.clone(), due));
            }
            match tick {
                Tick::None => {}
                Tick::Start { .. } if closed == Some(Closed::Waits) => {}
                Tick::Start { due, .. } if closed == Some(Closed::Skip) => {
                    tracing::warn!(fleet = %name, %due, "due, and skipped: no maintenance window opens within schedule_slack");
                    self.tell(name, Ticked::Closed);
                }
                Tick::Start { due, late } => {
                    let not_yet =
                        self.failed.get(name).is_some_and(|(_, at)| now < *at && *at <= later(now, RETRY_MAX));
                    if !not_yet && !self.paused.contains(name) {
                        let cause = Cause::Due { due, late };
                        let fleet = fleet.fleet.clone();
                        self.queue.push_back(Start { fleet, aim: Aim::Rotate, cause, force: Vec::new() });
                    }
                }
                Tick::Skipped { due, why } => {
                    tracing::warn!(fleet = %name, %due, "due, and skipped: {why}");
                    let ticked = if why == Skip::Open { Ticked::Open } else { Ticked::Missed };
                    self.tell(name, ticked);
                }
            }
        }
        for (name, due) in changed {
            self.keep_due(&name, due).await?;
        }
        Ok(())
    }

    /// Keeps when a fleet is due next.
    async fn keep_due(&mut self, name: &FleetName, due: Option<DueTime>) -> Result<(), EngineError> {
        self.agenda.set_due(name, due.as_ref()).await?;
        match due {
            Some(due) => self.due.insert(name.clone(), due),
            None => self.due.remove(name),
        };
        self.failed.remove(name);
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
            // A key that may be in wrong hands waits for nobody.
            if *busy >= BUSY_MAX && !matches!(start.aim, Aim::Compromised { .. }) {
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

    /// All fleets of the file, as the planner wants to know them.
    pub fn fleets(&self) -> Vec<Fleet> {
        self.fleets.values().map(|one| one.fleet.clone()).collect()
    }

    /// What came of a start.
    pub async fn begun(&mut self, start: &Start, result: Result<Begun, PlanError>) -> Result<(), EngineError> {
        let name = &start.fleet.name;
        self.starting.remove(name);
        let now = self.tools.clock.now();
        if start.cause == Cause::GoOn {
            self.went_on_back(name, result.is_ok(), now);
        }
        if let Ok(Begun { late: Some(late), .. }) = &result {
            self.observers.iter().for_each(|observer| observer.late(name, late));
            let told = self.late.insert(name.clone(), (late.waiting.clone(), late.new.clone()));
            if told.is_none_or(|(waiting, new)| waiting != late.waiting || new != late.new) {
                tell_of_late(name, late);
            }
        }
        let look = look_of(&result, now);
        let answer = match result {
            Ok(Begun { head: None, .. }) => return self.keep_late(name, look).await,
            Ok(Begun { head: Some(head), .. }) => {
                self.failed.remove(name);
                if let Cause::Due { late, .. } = start.cause {
                    let ticked = if late > LATE { Ticked::CaughtUp } else { Ticked::Started };
                    self.tell(name, ticked);
                }
                let id = head.id;
                self.book.put(head);
                // Retire journals that wait lose their grace, where this is for a compromised key.
                self.to_retire.insert(name.clone());
                Answer::Rotation(id)
            }
            Err(PlanError::Store(StoreError::Open { journal, .. })) => {
                let head = self.tools.journal.head(journal).await?;
                self.book.put(head);
                Answer::Rotation(journal)
            }
            Err(PlanError::Nobody { problem, .. }) if matches!(start.aim, Aim::CatchUp { .. } | Aim::Back(_)) => {
                Answer::Nobody(problem)
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
                let schedule = self.fleets.get(name).and_then(|fleet| fleet.schedule.clone());
                let for_good = matches!(error, PlanError::Rule { rule: Rule::SizeChange, .. });
                if let (Cause::Due { due, .. }, true, Some(schedule)) = (start.cause, for_good, schedule) {
                    self.note_refused(name, due, &why, now).await?;
                    // Only a person lifts that: it is not tried again before the next tick.
                    tracing::error!(fleet = %name, "due, and not begun: {why}");
                    let next = schedule.next(now).map(|at| DueTime { schedule: schedule.text.clone(), at });
                    self.keep_due(name, next).await?;
                    self.tell(name, Ticked::Refused);
                } else if let Cause::Due { due, .. } = start.cause {
                    self.note_refused(name, due, &why, now).await?;
                    let (times, _) = self.failed.get(name).copied().unwrap_or((0, now));
                    let at = again(times, now);
                    tracing::warn!(fleet = %name, "due, and not begun: {why}; again at {at}");
                    self.failed.insert(name.clone(), (times + 1, at));
                    self.tell(name, Ticked::Failed);
                }
                Answer::Refused(why)
            }
        };
        if let Cause::Asked(id) = start.cause {
            self.agenda.answer(id, &answer, now).await?;
        }
        self.keep_late(name, look).await
    }

    /// Keeps why a fleet that is due does not begin, for `status`: once for each due time and reason, whatever its numbers.
    async fn note_refused(
        &mut self,
        name: &FleetName,
        due: Timestamp,
        why: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let noted = (due, why.chars().filter(|c| !c.is_ascii_digit()).collect());
        if self.noted.get(name) != Some(&noted) {
            self.agenda.note_refused(name, why, &self.tools.author, now).await?;
            self.noted.insert(name.clone(), noted);
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
