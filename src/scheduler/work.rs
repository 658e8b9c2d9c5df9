//! The loop: at each heartbeat a turn of the scheduler, and a task for each journal that is open, which drives it until it
//! ends. A journal that fails is left alone for a minute; it must never stop the others, nor the loop.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::engine::planner::{Fleet, PlanError};
use crate::engine::survey::{self, Survey};
use crate::engine::{Engine, EngineError, Tools};
use crate::model::{Duration, FleetName, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Deviation, Outcome, Standing};
use crate::store::{Head, StoreError};

use super::book::{Gate, gate};
use super::heartbeat::Heartbeat;
use super::reload::{Change, places};
use super::rounds::{Round, Rounds};
use super::start::{Begun, Start, begin};
use super::tick::{BUSY_MAX, Scheduler};

/// So many turns at one account and region at once: a look that waits long for its rate is old when it is answered, and
/// a hold must not wait behind a queue of calls.
const TURNS_MAX: usize = 4;
/// A journal that cannot be driven is tried again after this, or when somebody writes to it.
const PARKED: Duration = Duration::from_secs(60);
/// After a fault of the database.
const DATABASE_AWAY: Duration = Duration::from_secs(5);
/// Who writes to a journal wakes its driver; this is for what was overlooked.
const ATTENTION: Duration = Duration::from_secs(60);

/// Makes what one engine works with.
pub type MakeTools = dyn Fn() -> Tools + Send + Sync;

/// Why the loop ended though nobody asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Fatal(#[from] pub EngineError);

/// Runs until `stop` says so: then no new step begins, and what is under way gets `last_call`; what is not done by then is
/// dropped, and looked up at the next start. Between two turns it takes `changes` of the fleets.
pub async fn run(
    mut scheduler: Scheduler,
    tools: Arc<MakeTools>,
    clock: Arc<dyn Clock>,
    heartbeat: &mut Heartbeat,
    mut changes: mpsc::Receiver<Change>,
    mut stop: watch::Receiver<bool>,
    last_call: Duration,
) -> Result<(), Fatal> {
    let mark = tools().mark;
    let rounds = Rounds::new(places(&scheduler), &mark, clock.now());
    let mut work = Work::new(tools, clock.clone(), stop.clone(), rounds);
    let result = 'turns: loop {
        if *stop.borrow() {
            break Ok(());
        }
        match turn(&mut scheduler, &mut work).await {
            Ok(()) => {}
            Err(error) if is_fatal(&error) => break Err(Fatal(error)),
            // The loop goes on, but its last turn is not told: health and the watchdog see that.
            Err(error) => tracing::error!(%error, "the scheduler's turn failed"),
        }
        let done = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => break Ok(()),
            Some(done) = work.tasks.join_next() => Some(done),
            Some(Change { fleets, taken }) = changes.recv() => {
                scheduler.reload(fleets);
                work.rounds.reload(places(&scheduler), &mark, clock.now());
                // Who asked may be gone.
                let _ = taken.send(());
                None
            }
            () = heartbeat.beat() => None,
        };
        for done in done.into_iter().chain(std::iter::from_fn(|| work.tasks.try_join_next())).collect::<Vec<_>>() {
            match done {
                Ok(done) => {
                    if let Err(error) = work.take(done, &mut scheduler).await {
                        if is_fatal(&error) {
                            break 'turns Err(Fatal(error));
                        }
                        tracing::error!(%error, "the end of a task could not be written down");
                    }
                }
                Err(error) => tracing::error!(%error, "a task was lost"),
            }
        }
    };
    work.stop(last_call).await;
    result
}

async fn turn(scheduler: &mut Scheduler, work: &mut Work) -> Result<(), EngineError> {
    for (id, idle) in std::iter::from_fn(|| work.idle.try_recv().ok()) {
        scheduler.set_idle(id, idle);
    }
    // First, and whatever comes of the rest: who is owed a start is started though a request cannot be read.
    for head in scheduler.book().open() {
        work.drive(head);
    }
    for id in scheduler.touched().await? {
        work.wake(id);
    }
    let starts = scheduler.tick().await?;
    let fleets = scheduler.fleets();
    for start in starts {
        work.begin(start, fleets.clone());
    }
    // What was opened again, or began to retire.
    for head in scheduler.book().open() {
        work.drive(head);
    }
    let is_full = |at: &Gate| scheduler.book().busy(at) >= BUSY_MAX;
    for round in work.rounds.due(work.clock.now(), &is_full) {
        work.survey(round, scheduler.fleets());
    }
    Ok(())
}

/// Two engines over one store: this one goes.
fn is_fatal(error: &EngineError) -> bool {
    matches!(error, EngineError::AnotherEngine { .. })
}

/// What a task came to.
enum Done {
    Begun(Box<Start>, Box<Result<Begun, PlanError>>),
    Ended(JournalId, Timestamp, Outcome),
    Failed(JournalId, EngineError),
    PlanningPanicked(Box<Start>),
    NotBegun,
    DrivingPanicked(JournalId),
    Stopped(JournalId),
    Surveyed(Round, Survey),
}

/// The tasks.
struct Work {
    tools: Arc<MakeTools>,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
    tasks: JoinSet<Done>,
    driven: BTreeMap<JournalId, Arc<Notify>>,
    parked: BTreeMap<JournalId, Timestamp>,
    gates: BTreeMap<Gate, Arc<Semaphore>>,
    idle: mpsc::UnboundedReceiver<(JournalId, bool)>,
    tell_idle: mpsc::UnboundedSender<(JournalId, bool)>,
    rounds: Rounds,
}

impl Work {
    fn new(tools: Arc<MakeTools>, clock: Arc<dyn Clock>, stop: watch::Receiver<bool>, rounds: Rounds) -> Self {
        let (tell_idle, idle) = mpsc::unbounded_channel();
        let (driven, parked, gates) = Default::default();
        Self { tools, clock, stop, tasks: JoinSet::new(), driven, parked, gates, idle, tell_idle, rounds }
    }

    /// Begins a rotation.
    fn begin(&mut self, start: Start, fleets: Vec<Fleet>) {
        let (tools, turns) = ((self.tools)(), self.turns(gate(&start.fleet.place)));
        let mut stop = self.stop.clone();
        self.tasks.spawn(async move {
            let begin = async {
                let _turn = turns.acquire().await;
                begin(&tools, &start, &fleets).await
            };
            let begun = tokio::select! {
                biased;
                // It is looked for again after the next start of the process.
                Ok(_) = stop.wait_for(|stop| *stop) => return Done::NotBegun,
                begun = AssertUnwindSafe(begin).catch_unwind() => begun,
            };
            match begun {
                Ok(result) => Done::Begun(Box::new(start), Box::new(result)),
                Err(_) => Done::PlanningPanicked(Box::new(start)),
            }
        });
    }

    /// Looks for drift. A survey takes no turn from those who change something: it has the account's request rate only.
    fn survey(&mut self, round: Round, fleets: Vec<Fleet>) {
        let tools = (self.tools)();
        let mut stop = self.stop.clone();
        self.tasks.spawn(async move {
            let look = async {
                match fleets.iter().find(|fleet| Some(&fleet.name) == round.fleet()) {
                    Some(fleet) => survey::fleet(&tools, fleet, true).await,
                    None => survey::holdings(&tools, &fleets).await,
                }
            };
            let at = tools.clock.now();
            let unseen = |why: &str| Survey { unseen: vec![why.to_string()], ..Survey::empty(at) };
            let survey = tokio::select! {
                biased;
                Ok(_) = stop.wait_for(|stop| *stop) => unseen("told to stop"),
                survey = AssertUnwindSafe(look).catch_unwind() => {
                    survey.unwrap_or_else(|_| unseen("the survey panicked: its log says where"))
                }
            };
            Done::Surveyed(round, survey)
        });
    }

    /// Has a journal driven, unless it is.
    fn drive(&mut self, head: &Head) {
        let now = self.clock.now();
        let parked = |at: &Timestamp| now < *at && *at <= later(now, PARKED);
        if self.driven.contains_key(&head.id) || self.parked.get(&head.id).is_some_and(parked) {
            return;
        }
        self.parked.remove(&head.id);
        let wake = Arc::new(Notify::new());
        self.driven.insert(head.id, wake.clone());
        let task = Task {
            engine: Engine::new((self.tools)()).with_stop(self.stop.clone()).with_attention(ATTENTION),
            id: head.id,
            clock: self.clock.clone(),
            turns: self.turns(gate(head.plan.place())),
            wake,
            stop: self.stop.clone(),
            tell_idle: self.tell_idle.clone(),
        };
        let id = head.id;
        self.tasks.spawn(async move {
            let done = AssertUnwindSafe(task.drive()).catch_unwind().await;
            done.unwrap_or(Done::DrivingPanicked(id))
        });
    }

    /// Somebody wrote to this journal.
    fn wake(&mut self, id: JournalId) {
        self.parked.remove(&id);
        if let Some(wake) = self.driven.get(&id) {
            wake.notify_one();
        }
    }

    fn turns(&mut self, gate: Gate) -> Arc<Semaphore> {
        self.gates.entry(gate).or_insert_with(|| Arc::new(Semaphore::new(TURNS_MAX))).clone()
    }

    async fn take(&mut self, done: Done, scheduler: &mut Scheduler) -> Result<(), EngineError> {
        match done {
            Done::Begun(start, result) => {
                let head = result.as_ref().as_ref().ok().and_then(|begun| begun.head.clone());
                scheduler.begun(&start, *result).await?;
                // It may bind an earlier pair again: a retire journal of that one ends at its next turn.
                let heads = scheduler.book().of_fleet(&start.fleet.name);
                let recalled = |other: &&Head| {
                    other.ended.is_none()
                        && head
                            .as_ref()
                            .is_some_and(|head| head.id != other.id && head.plan.key_name() == other.plan.key_name())
                };
                let ids: Vec<JournalId> = heads.iter().filter(recalled).map(|head| head.id).collect();
                ids.into_iter().for_each(|id| self.wake(id));
                Ok(())
            }
            Done::Ended(id, at, outcome) => {
                self.driven.remove(&id);
                scheduler.set_readable(id, None);
                scheduler.ended(id, at, outcome).await
            }
            Done::Failed(id, error) if is_fatal(&error) => {
                self.driven.remove(&id);
                Err(error)
            }
            Done::Failed(id, error) => {
                let fleet = scheduler.book().head(id).map(|head| head.plan.fleet().as_str());
                tracing::error!(fleet, journal = %id, %error, "a journal cannot be driven; again in a minute");
                if let EngineError::Illegal { .. } | EngineError::Store(StoreError::Damaged { .. }) = error {
                    scheduler.set_readable(id, Some(error.to_string()));
                }
                self.park(id);
                scheduler.set_parked(id);
                Ok(())
            }
            Done::DrivingPanicked(id) => {
                tracing::error!(journal = %id, "driving a journal panicked; again in a minute");
                self.park(id);
                scheduler.set_parked(id);
                Ok(())
            }
            Done::PlanningPanicked(start) => {
                tracing::error!(fleet = %start.fleet.name, "planning a rotation panicked");
                let problem = "rekeyd's planning panicked: its log says where".to_string();
                scheduler.begun(&start, Err(PlanError::Account(problem))).await
            }
            Done::NotBegun => Ok(()),
            Done::Surveyed(round, survey) => {
                let fleet = round.fleet().map(FleetName::as_str);
                for Deviation { kind, subject, recorded, seen, way } in
                    self.rounds.done(&round, &survey, self.clock.now())
                {
                    tracing::warn!(fleet, %kind, subject, recorded, seen, way, "drift");
                }
                for problem in &survey.unseen {
                    tracing::warn!(fleet, problem, "not surveyed for drift");
                }
                scheduler.surveyed(round.fleet(), &survey);
                Ok(())
            }
            Done::Stopped(id) => {
                self.driven.remove(&id);
                Ok(())
            }
        }
    }

    fn park(&mut self, id: JournalId) {
        self.driven.remove(&id);
        self.parked.insert(id, later(self.clock.now(), PARKED));
    }

    /// Waits for what is under way, and drops what is left.
    async fn stop(mut self, last_call: Duration) {
        let until = later(self.clock.now(), last_call);
        let tasks = &mut self.tasks;
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = self.clock.sleep_until(until) => {
                tracing::warn!(tasks = self.tasks.len(), "calls under way are left: the next start looks up what became of them");
            }
        }
        self.tasks.shutdown().await;
    }
}

/// Drives one journal.
struct Task {
    engine: Engine,
    id: JournalId,
    clock: Arc<dyn Clock>,
    turns: Arc<Semaphore>,
    wake: Arc<Notify>,
    stop: watch::Receiver<bool>,
    tell_idle: mpsc::UnboundedSender<(JournalId, bool)>,
}

impl Task {
    async fn drive(mut self) -> Done {
        let mut was_idle = None;
        loop {
            let turn = {
                let _turn = tokio::select! {
                    biased;
                    Ok(_) = self.stop.wait_for(|stop| *stop) => return Done::Stopped(self.id),
                    turn = self.turns.acquire() => turn,
                };
                self.engine.turn(self.id).await
            };
            let wake = match turn {
                Ok(turn) if turn.standing == Standing::Ended => match self.engine.ended(self.id) {
                    Some((at, outcome)) => return Done::Ended(self.id, at, outcome),
                    None => later(self.clock.now(), DATABASE_AWAY),
                },
                Ok(turn) => {
                    if was_idle != Some(!turn.busy) {
                        was_idle = Some(!turn.busy);
                        // The loop may have ended already.
                        let _ = self.tell_idle.send((self.id, !turn.busy));
                    }
                    turn.wake
                }
                Err(EngineError::Stopped) => return Done::Stopped(self.id),
                Err(EngineError::Store(StoreError::Database(problem))) => {
                    tracing::warn!(journal = %self.id, problem, "the database failed; again in a moment");
                    later(self.clock.now(), DATABASE_AWAY)
                }
                Err(error) => return Done::Failed(self.id, error),
            };
            tokio::select! {
                biased;
                Ok(_) = self.stop.wait_for(|stop| *stop) => return Done::Stopped(self.id),
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }
}
