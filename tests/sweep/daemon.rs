//! A daemon in one line of time: the scheduler and the engine over the virtual clock and the store in memory, one turn after
//! the other. It may be killed at any call and made anew from the store, as a start of the process does; it must keep
//! nothing else. What it was is asked at the end: each tick served once or excused, each request answered, due times kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rekeyd::clock::Clock;
use rekeyd::engine::operate::{OrderError, operate};
use rekeyd::engine::{Engine, EngineError};
use rekeyd::model::{Duration, FleetName, JournalId, RequestId, Timestamp};
use rekeyd::rotation::policy::later;
use rekeyd::rotation::{Author, Order, Outcome, Plan, Standing};
use rekeyd::scheduler::due::Schedule;
use rekeyd::scheduler::start::begin;
use rekeyd::scheduler::{Observer, Scheduled, Scheduler, Ticked};
use rekeyd::sim::VirtualClock;
use rekeyd::store::{Agenda, Answer, Ask, Head, Journal, Memory, Request, Unreadable};

use crate::fuse::{Fused, Hand, Side};
use crate::pool;
use crate::rig::{Rig, Scenario, mark};

/// A tick is caught up within this.
pub const SLACK: Duration = Duration::from_secs(300);
/// Every ten minutes, and a little later: not all fleets at once.
const EXPRESSION: &str = "0 5-59/10 * * * *";
const JITTER: Duration = Duration::from_secs(40);
/// A killed process is back after this.
const BACK: Duration = Duration::from_secs(7);
/// A start may be so much later than its tick though nobody was away: turns of other journals take time.
const TURN: Duration = Duration::from_secs(20);

/// Hears what becomes of the ticks; it outlives the daemon.
pub struct Ticks {
    clock: Arc<VirtualClock>,
    heard: Mutex<Vec<(FleetName, Ticked, Timestamp)>>,
    key_due: Mutex<BTreeMap<FleetName, Timestamp>>,
    waited: Mutex<Vec<(FleetName, Timestamp)>>,
}

impl Observer for Ticks {
    fn turned(&self, _at: Timestamp) {}
    fn due(&self, _fleet: &FleetName, _at: Option<Timestamp>) {}
    fn paused(&self, _fleet: &FleetName, _paused: bool) {}
    fn ticked(&self, fleet: &FleetName, what: Ticked) {
        self.heard.lock().unwrap().push((fleet.clone(), what, self.clock.now()));
    }
    fn key_due(&self, fleet: &FleetName, at: Option<Timestamp>) {
        let mut key_due = self.key_due.lock().unwrap();
        match at {
            Some(at) => key_due.insert(fleet.clone(), at),
            None => key_due.remove(fleet),
        };
    }
    fn waits_for_window(&self, fleet: &FleetName, waits: bool) {
        if waits {
            self.waited.lock().unwrap().push((fleet.clone(), self.clock.now()));
        }
    }
    fn unreadable(&self, _journals: &[Unreadable]) {}
}

/// One life of the process.
struct Life {
    scheduler: Scheduler,
    engine: Engine,
    wakes: BTreeMap<JournalId, Timestamp>,
}

pub struct Daemon {
    pub rig: Rig,
    /// How long a killed one is away.
    pub away: Duration,
    /// When a person paused the first fleet, and until when.
    pub pauses: Vec<(Timestamp, Timestamp)>,
    pub problems: Vec<String>,
    ticks: Arc<Ticks>,
    is_scheduled: bool,
    life: Option<Life>,
    aways: Vec<(Timestamp, Timestamp)>,
    turned: Timestamp,
}

impl Daemon {
    pub fn new(scenario: Scenario, is_scheduled: bool, blows: impl IntoIterator<Item = (usize, Side)>) -> Self {
        let rig = Rig::new(scenario, pool(), blows);
        let (heard, key_due, waited) = Default::default();
        let ticks = Arc::new(Ticks { clock: rig.clock.clone(), heard, key_due, waited });
        let turned = rig.clock.now();
        let (pauses, problems, aways) = Default::default();
        Self { rig, away: BACK, pauses, problems, ticks, is_scheduled, life: None, aways, turned }
    }

    fn scheduled(&self) -> Vec<Scheduled> {
        let schedule = |fleet: &FleetName| {
            let builder = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Required).build();
            let cron = builder.parse(EXPRESSION).unwrap();
            Schedule::new(cron, jiff::tz::TimeZone::UTC, SLACK, JITTER, fleet, &mark())
        };
        let fleets = self.rig.fleets().into_iter();
        fleets
            .map(|fleet| Scheduled {
                schedule: self.is_scheduled.then(|| schedule(&fleet.name)),
                binds_new: false,
                fleet,
            })
            .collect()
    }

    /// The due moments of a fleet from the beginning until now.
    fn dues(&self, schedule: &Schedule) -> Vec<Timestamp> {
        let mut dues = Vec::new();
        let mut at = "2026-11-22T03:00:00Z".parse().unwrap();
        while let Some(due) = schedule.next(at).filter(|due| *due <= self.turned) {
            dues.push(due);
            at = due;
        }
        dues
    }

    /// The n-th due moment of the first fleet, from 0.
    pub fn due(&self, number: usize) -> Timestamp {
        let schedule = self.scheduled().remove(0).schedule.unwrap();
        let first = schedule.next("2026-11-22T03:00:00Z".parse().unwrap()).unwrap();
        (0..number).fold(first, |due, _| schedule.next(due).unwrap())
    }

    /// What became of the ticks of the first fleet from this moment on.
    pub fn ticked_since(&self, since: Timestamp) -> Vec<Ticked> {
        let heard = self.ticks.heard.lock().unwrap();
        let web = self.rig.fleet().name;
        heard.iter().filter(|(fleet, _, at)| *fleet == web && *at >= since).map(|(_, what, _)| *what).collect()
    }

    /// When the first fleet's key was to be replaced, as it was told last.
    pub fn key_due(&self) -> Option<Timestamp> {
        self.ticks.key_due.lock().unwrap().get(&self.rig.fleet().name).copied()
    }
    /// In which minutes of the hour the first fleet was told to wait for a window.
    pub fn waited(&self) -> BTreeSet<i64> {
        let (waited, web) = (self.ticks.waited.lock().unwrap(), self.rig.fleet().name);
        waited.iter().filter(|(fleet, _)| *fleet == web).map(|(_, at)| at.as_second() % 3600 / 60).collect()
    }

    /// The rotations of a fleet, oldest first.
    pub async fn rotations(&self, fleet: &FleetName) -> Vec<Head> {
        let heads = self.rig.journal.heads().await.unwrap();
        heads.of(fleet).filter(|head| matches!(head.plan, Plan::Rotate(_))).cloned().collect()
    }

    /// Whether every fleet has completed so many rotations, and nothing is left to do.
    pub async fn has_completed(&self, rotations: usize) -> bool {
        let heads = self.rig.journal.heads().await.unwrap().readable;
        let requests = self.rig.journal.asked().await.unwrap();
        let completed =
            |head: &&Head| matches!(head.plan, Plan::Rotate(_)) && matches!(head.ended, Some((_, Outcome::Completed)));
        let enough = self.rig.fleets().iter().all(|fleet| {
            heads.iter().filter(completed).filter(|head| *head.plan.fleet() == fleet.name).count() >= rotations
        });
        self.life.is_some() && enough && requests.is_empty() && heads.iter().all(|head| head.ended.is_some())
    }

    /// Goes on until every fleet has completed so many rotations, or two hours of its life have passed.
    pub async fn complete(&mut self, rotations: usize) {
        let mut deadline = later(self.rig.clock.now(), Duration::from_secs(2 * 3600));
        while !self.has_completed(rotations).await && self.problems.is_empty() {
            if self.life.is_none() {
                deadline = later(self.rig.clock.now(), Duration::from_secs(2 * 3600));
            }
            if self.rig.clock.now() > deadline {
                self.problems.push(format!("not done at {}", self.rig.clock.now()));
                return;
            }
            self.step(deadline).await;
        }
    }

    /// Goes on until that time.
    pub async fn go_on_until(&mut self, until: Timestamp) {
        while self.rig.clock.now() < until && self.problems.is_empty() {
            self.step(until).await;
        }
    }

    /// One turn of the loop, then time goes on; a crash ends this life.
    pub async fn step(&mut self, until: Timestamp) {
        let (fuse, lent) = (self.rig.fuse.clone(), self.rig.fuse.hands_left());
        let life = self.life.take();
        let turn = async {
            let mut life = match life {
                Some(life) => life,
                None => self.open().await?,
            };
            let wake = life.turn(self.rig.clock.as_ref()).await?;
            Ok::<_, EngineError>((life, wake))
        };
        let done = tokio::select! {
            biased;
            done = turn => Some(done),
            () = fuse.blown() => None,
        };
        match done {
            None => self.killed(self.away),
            Some(Err(error)) => self.problems.push(format!("the daemon stopped: {error}")),
            Some(Ok((life, wake))) => {
                self.life = Some(life);
                let now = self.rig.clock.now();
                self.turned = now;
                let second = later(now, Duration::from_secs(1));
                let mut wake = wake.min(until).min(later(now, Duration::from_secs(60)));
                for due in self.rig.journal.due_times().await.unwrap().into_values() {
                    // What is due and has not begun is paused, or tried again.
                    wake = wake.min(if due.at > now { due.at } else { later(now, Duration::from_secs(10)) });
                }
                // A person wrote, or waits: the next heartbeat sees it.
                let spoken = fuse.hands_left() < lent || !self.rig.journal.asked().await.unwrap().is_empty();
                self.rig.clock.advance_to(if spoken || wake <= now { second } else { wake });
            }
        }
    }

    /// The process is gone for so long.
    pub fn killed(&mut self, away: Duration) {
        self.life = None;
        let now = self.rig.clock.now();
        let back = later(now, away);
        self.aways.push((now, back));
        self.rig.clock.advance_to(back);
    }

    async fn open(&mut self) -> Result<Life, EngineError> {
        let agenda: Arc<dyn Agenda> = self.rig.journal.clone();
        let agenda = Arc::new(Fused { fuse: self.rig.fuse.clone(), inner: agenda });
        self.rig.forget_accounts();
        let tools = self.rig.tools();
        let engine = self.rig.tools();
        let scheduler = Scheduler::open(tools, agenda, self.scheduled(), vec![self.ticks.clone()]).await?;
        let engine = Engine::new(engine).with_attention(Duration::from_secs(60));
        Ok(Life { scheduler, engine, wakes: BTreeMap::new() })
    }

    /// What a person does, to be lent to the fuse.
    pub fn hand(&self, deed: Deed) -> Hand {
        let (store, clock, fleet) = (self.rig.journal.clone(), self.rig.clock.clone(), self.rig.fleet().name);
        Box::pin(async move { deed.do_to(&store, clock.as_ref(), &fleet).await })
    }

    /// What is not as it must be now that all is done.
    pub async fn unkept(&self) -> Vec<String> {
        let mut unkept = self.problems.clone();
        unkept.extend(self.rig.fuse.broken());
        unkept.extend(self.rig.unkept().await);
        unkept.extend(self.requests_unkept().await);
        for fleet in self.scheduled() {
            if let Some(schedule) = &fleet.schedule {
                unkept.extend(self.ticks_unkept(&fleet.fleet.name, schedule).await);
            }
        }
        unkept
    }

    /// Two rotations for one tick, a tick lost, one served too late, a due time forgotten.
    async fn ticks_unkept(&self, fleet: &FleetName, schedule: &Schedule) -> Vec<String> {
        let mut unkept = Vec::new();
        let rotations = self.rotations(fleet).await;
        let is_asked = |request: &&Request| request.fleet == *fleet && matches!(request.ask, Ask::Rotate { .. });
        let asked = self.requests().await.iter().filter(is_asked).count();
        let dues = self.dues(schedule);
        // From each due moment to the next: one rotation, and those that were asked for.
        let mut extra = 0;
        for (number, from) in std::iter::once(Timestamp::MIN).chain(dues.iter().copied()).enumerate() {
            let to = dues.get(number).copied().unwrap_or(Timestamp::MAX);
            let begun = rotations.iter().filter(|head| head.begun >= from && head.begun < to).count();
            extra += begun.saturating_sub(usize::from(number > 0));
        }
        if extra > asked {
            unkept.push(format!("{fleet}: {extra} rotations too many for its ticks, {asked} were asked for"));
        }
        let covers = |spans: &[(Timestamp, Timestamp)], due: Timestamp| {
            spans.iter().any(|(from, to)| *from <= later(due, TURN) && later(*to, TURN) >= later(due, SLACK))
        };
        for due in dues.iter().copied().filter(|due| later(*due, SLACK) < self.turned) {
            let latest = later(later(due, SLACK), TURN);
            let served = rotations.iter().any(|head| head.begun >= due && head.begun <= latest);
            let open = rotations.iter().any(|head| head.begun < due && head.ended.is_none_or(|(at, _)| at >= due));
            let paused = fleet.as_str() == "web" && covers(&self.pauses, due);
            if !served && !open && !paused && !covers(&self.aways, due) {
                unkept.push(format!("{fleet}: the tick of {due} was lost"));
            }
        }
        for head in rotations.iter().filter(|_| asked == 0) {
            let due = dues.iter().rev().find(|due| **due <= head.begun);
            if due.is_none_or(|due| head.begun > later(later(*due, SLACK), TURN)) {
                unkept.push(format!("{fleet}: a rotation began at {}, and was not due", head.begun));
            }
        }
        let kept = self.rig.journal.due_times().await.unwrap().remove(fleet).map(|due| due.at);
        if kept != schedule.next(self.turned) {
            unkept.push(format!("{fleet}: {kept:?} is kept as due, at {}", self.turned));
        }
        unkept
    }

    /// Every request, oldest first.
    pub async fn requests(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        while let Ok(request) = self.rig.journal.request(RequestId::new(requests.len() as u64 + 1)).await {
            requests.push(request);
        }
        requests
    }

    /// Each request is answered; a `rotate` with a rotation that was not over when it was asked for.
    async fn requests_unkept(&self) -> Vec<String> {
        let mut unkept = Vec::new();
        // What the scheduler notes itself, of a start that was refused, nobody asked for.
        for request in self.requests().await.into_iter().filter(|one| matches!(one.by, Author::Operator(_))) {
            let fits = match (&request.ask, &request.answer) {
                (Ask::Rotate { .. }, Some((_, Answer::Rotation(id)))) => {
                    let head = self.rig.journal.head(*id).await.unwrap();
                    *head.plan.fleet() == request.fleet && head.ended.is_none_or(|(at, _)| at >= request.at)
                }
                (Ask::Hold { .. }, Some((_, Answer::Held))) => true,
                (Ask::Release { .. }, Some((_, Answer::Released))) => true,
                _ => false,
            };
            if !fits {
                unkept.push(format!("{request:?}"));
            }
        }
        unkept
    }

    /// For failures: what happened.
    pub async fn story(&self) -> String {
        let calls: Vec<String> =
            self.rig.fuse.calls().iter().enumerate().map(|(n, call)| format!("{n} {call}")).collect();
        let heard = self.ticks.heard.lock().unwrap().clone();
        format!("{}\n{}\n{heard:?}\naway {:?}", calls.join(", "), self.rig.story().await, self.aways)
    }
}

impl Life {
    /// What the loop does at a heartbeat. Says when somebody wakes next.
    async fn turn(&mut self, clock: &VirtualClock) -> Result<Timestamp, EngineError> {
        for id in self.scheduler.touched().await? {
            self.wakes.remove(&id);
        }
        let fleets = self.scheduler.fleets();
        for start in self.scheduler.tick().await? {
            let begun = begin(self.engine.tools(), &start, &fleets).await;
            self.scheduler.begun(&start, begun).await?;
        }
        let open: Vec<JournalId> = self.scheduler.book().open().map(|head| head.id).collect();
        for id in open {
            if self.wakes.get(&id).is_some_and(|wake| clock.now() < *wake) {
                continue;
            }
            let turn = self.engine.turn(id).await?;
            match self.engine.ended(id).filter(|_| turn.standing == Standing::Ended) {
                Some((at, outcome)) => {
                    self.wakes.remove(&id);
                    self.scheduler.ended(id, at, outcome).await?;
                }
                None => {
                    self.scheduler.set_idle(id, !turn.busy);
                    self.wakes.insert(id, turn.wake);
                }
            }
        }
        let wake = |head: &Head| self.wakes.get(&head.id).copied().unwrap_or(Timestamp::MIN);
        Ok(self.scheduler.book().open().map(wake).min().unwrap_or(Timestamp::MAX))
    }
}

/// What a person does at another terminal, in the order of the verbs' calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `hold FLEET`, killed after the row.
    Pause,
    /// `hold FLEET`.
    Hold,
    /// `release FLEET`.
    Release,
    /// `abandon FLEET`.
    Abandon,
    /// `rotate FLEET`.
    Rotate,
    /// `rotate FLEET --compromised`.
    Compromised,
}

impl Deed {
    /// Does it, as the verb does.
    pub async fn do_to(self, store: &Memory, clock: &VirtualClock, fleet: &FleetName) {
        let by = Author::Operator("test".to_string());
        let ask = async |ask: Ask| {
            store.ask(fleet, &ask, &by, clock.now()).await.unwrap();
        };
        let note = String::new;
        let heads = store.heads().await.unwrap();
        let mut open: Vec<&Head> = heads.of(fleet).filter(|head| head.ended.is_none()).collect();
        open.sort_by_key(|head| matches!(head.plan, Plan::Retire(_)));
        let order = async |head: &Head, order: Order| match operate(store, clock, head.id, &order, &by).await {
            Ok(_) | Err(OrderError::Refused(_)) => {}
            Err(OrderError::Engine(error)) => panic!("{error}"),
        };
        match self {
            Self::Pause => ask(Ask::Hold { note: note() }).await,
            Self::Hold => {
                ask(Ask::Hold { note: note() }).await;
                for head in open {
                    order(head, Order::Hold { note: note() }).await;
                }
            }
            Self::Release => {
                // What is not held refuses.
                for head in open {
                    order(head, Order::Release { note: note(), allow: Vec::new() }).await;
                }
                if store.paused().await.unwrap().contains_key(fleet) {
                    ask(Ask::Release { note: note() }).await;
                }
            }
            Self::Abandon => {
                for head in open.into_iter().filter(|head| matches!(head.plan, Plan::Rotate(_))) {
                    order(head, Order::Abandon { note: note() }).await;
                }
            }
            Self::Rotate => ask(Ask::rotate()).await,
            Self::Compromised => {
                ask(Ask::Rotate { force: Vec::new(), compromised: true, unavailable_max: None }).await;
            }
        }
    }
}
