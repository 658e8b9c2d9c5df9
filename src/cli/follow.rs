//! `rekeyd rotate` beside a driver: the request is handed over, and the journal that comes of it is told as it grows, to
//! the same exit codes. It reads; the only things that it writes are its request and, when it goes away, its withdrawal.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::{Clock, SystemClock};
use crate::engine::operate::{OrderError, operate};
use crate::engine::{Observer, View};
use crate::model::{FleetName, JournalId, RequestId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Entry, HoldReason, Order, Outcome, Plan, Retirement, Rotation, Rule, Step};
use crate::store::{Agenda, Answer, Ask, DriverLock, Head, Journal, Request, Sqlite};

use super::exposure::say_exposure;
use super::give_up::COMPROMISED;
use super::outcome::{say_ended, say_held, say_retired};
use super::output::{Output, some};
use super::progress::Progress;
use super::rotate::PATIENCE;
use super::signals::Signals;
use super::target::store_beside;
use super::{Exit, Scene, owner};
use crate::config::Config;
use crate::engine::drive::Retiring;
use crate::engine::planner::Aim;
use crate::rotation::Author;

/// Between two looks at the store.
const LOOK: Duration = Duration::from_millis(300);
/// After so long without an answer it is said that one waits.
const SILENCE: Duration = Duration::from_secs(10);
/// A driver that is gone for so long is gone.
const GONE: Duration = Duration::from_secs(2);

/// What came of handing over.
enum Followed {
    /// It was followed to its end, or to a hold.
    To(Exit, Option<Outcome>),
    /// There is nobody to do it for, in these words.
    Nobody(String),
    /// Nobody drives any more: drive it here.
    NobodyDrives,
}

/// Hands over what is aimed at, and follows all that comes of it. `None`: nobody drives any more, it is to be driven here.
pub(super) async fn follow_all(
    scene: &Scene,
    config: &Config,
    fleet: &FleetName,
    (aim, force): (Aim, &[Rule]),
    signals: &mut Signals,
) -> Result<Option<Exit>> {
    let by = Author::Operator(owner::person(&*scene.env));
    let mut follower = Follower::open(scene, config, fleet, ask_for(aim, force)).await?;
    let exit = loop {
        let followed = !follower.told.is_empty();
        match follower.run(&by, signals).await? {
            Followed::To(_, Some(Outcome::Completed)) if goes_on(aim, followed) => {}
            Followed::To(exit, _) => break Some(exit),
            Followed::Nobody(_) if followed => break follower.finish().await?,
            Followed::Nobody(problem) if matches!(aim, Aim::CatchUp { .. }) => {
                scene.out.line(format!("{fleet}: {problem}"));
                break Some(Exit::Done);
            }
            Followed::Nobody(problem) => bail!("no rotation of {fleet} was begun: {problem}"),
            Followed::NobodyDrives => break None,
        }
    };
    follower.store.close().await;
    Ok(exit)
}

/// Whether there may be more to follow: a way back to several pairs is several rotations, asked for until nothing is left; the
/// new ones are caught up with after those who are back.
fn goes_on(aim: Aim, followed: bool) -> bool {
    match aim {
        Aim::Back(_) => true,
        Aim::CatchUp { .. } => !followed,
        Aim::Rotate | Aim::Compromised { .. } => false,
    }
}

/// What is asked of whoever drives.
fn ask_for(aim: Aim, force: &[Rule]) -> Ask {
    match aim {
        Aim::Rotate => Ask::Rotate { force: force.to_vec(), compromised: false, unavailable_max: None },
        Aim::Compromised { unavailable_max } => {
            Ask::Rotate { force: force.to_vec(), compromised: true, unavailable_max }
        }
        Aim::Back(rotation) => Ask::Rollback { rotation },
        Aim::CatchUp { .. } => Ask::CatchUp,
    }
}

/// Hands a fleet's rotation over to whoever drives, and follows it.
struct Follower<'a> {
    config: &'a Config,
    store: Sqlite,
    ask: Ask,
    out: Output,
    progress: Progress,
    fleet: &'a FleetName,
    begun: Timestamp,
    driverless: Option<Timestamp>,
    given_up: Option<JournalId>,
    /// The rotations that were followed to their ends.
    told: BTreeSet<JournalId>,
}

impl<'a> Follower<'a> {
    async fn open(scene: &Scene, config: &'a Config, fleet: &'a FleetName, ask: Ask) -> Result<Self> {
        let store = store_beside(&config.store).await?;
        // Whoever drives could only refuse it, and might not know the file's other fleets.
        if !config.fleets.contains_key(fleet) && !store.heads().await?.of(fleet).any(|head| head.ended.is_none()) {
            bail!("there is no fleet {fleet:?} in the config file; it has {}", some(config.fleets.keys(), 20));
        }
        Ok(Self {
            config,
            store,
            ask,
            out: scene.out,
            progress: Progress::new(scene.out, &*scene.env),
            fleet,
            begun: SystemClock.now(),
            driverless: None,
            given_up: None,
            told: BTreeSet::new(),
        })
    }

    /// Asks, waits for the answer, follows. A signal withdraws what was not taken yet; what was taken goes on without us.
    async fn run(&mut self, by: &Author, signals: &mut Signals) -> Result<Followed> {
        if self.told.is_empty() {
            self.out.line(format!("{}: another rekeyd drives this store; handed over, following it", self.fleet));
        }
        let id = self.store.ask(self.fleet, &self.ask, by, SystemClock.now()).await?;
        let (store, fleet) = (self.store.clone(), self.fleet);
        tokio::select! {
            result = self.hand_over(id, by) => result,
            () = signals.next() => {
                if store.answer(id, &Answer::Withdrawn, SystemClock.now()).await? {
                    bail!("stopped as asked; the request was withdrawn before it was taken");
                }
                bail!("stopped following, as asked; whoever drives goes on: `rekeyd status {fleet}`, `rekeyd hold {fleet}`");
            }
        }
    }

    /// All that was asked for is done: what of it began and ended unseen between two questions is told, and what follows. `None`:
    /// nobody drives any more.
    async fn finish(&mut self) -> Result<Option<Exit>> {
        let Ask::Rollback { rotation } = self.ask else { return Ok(Some(Exit::Done)) };
        let is_of_it = |plan: &Plan| matches!(plan, Plan::Rotate(plan) if plan.undoes == Some(rotation));
        let heads = self.store.heads().await?;
        let untold = heads
            .of(self.fleet)
            .filter(|head| is_of_it(&head.plan) && head.begun >= self.begun && !self.told.contains(&head.id));
        for id in untold.map(|head| head.id).collect::<Vec<_>>() {
            match self.follow(id).await? {
                Followed::To(exit @ Exit::Held, _) => return Ok(Some(exit)),
                Followed::NobodyDrives => return Ok(None),
                Followed::To(..) | Followed::Nobody(_) => {}
            }
        }
        self.follow_retirements().await?;
        Ok(Some(Exit::Done))
    }

    /// The fleet's open rotation: whoever drives, it is followed, and no other one begins.
    async fn open_rotation(&self) -> Result<Option<JournalId>> {
        let heads = self.store.heads().await?;
        let open = heads.of(self.fleet).find(|head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none());
        Ok(open.map(|head| head.id))
    }

    /// Gives up the open rotation that a compromised key does not wait for: whoever drives it sees that, be it a `rotate` that
    /// takes no requests.
    async fn give_up(&mut self, by: &Author) -> Result<()> {
        let heads = self.store.heads().await?;
        let is_other = |head: &&Head| matches!(&head.plan, Plan::Rotate(plan) if !plan.compromised);
        let open = heads.of(self.fleet).find(|head| head.ended.is_none() && is_other(head)).map(|head| head.id);
        let known = self.config.fleets.contains_key(self.fleet) && !self.store.paused().await?.contains_key(self.fleet);
        let Some(open) = open.filter(|open| known && self.given_up != Some(*open)) else { return Ok(()) };
        let order = Order::Abandon { note: COMPROMISED.to_string() };
        match operate(&self.store, &SystemClock, open, &order, by).await {
            Ok(_) => {
                self.out
                    .line(format!("{}: rotation {open} is given up; it ends once nothing is in flight", self.fleet));
            }
            // It has ended since.
            Err(OrderError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.given_up = Some(open);
        Ok(())
    }

    async fn hand_over(&mut self, id: RequestId, by: &Author) -> Result<Followed> {
        let fleet = self.fleet;
        let asked = SystemClock.now();
        let mut said = false;
        let rotation = loop {
            let Request { answer, .. } = self.store.request(id).await?;
            match answer {
                Some((_, Answer::Rotation(rotation))) => break rotation,
                Some((_, Answer::Nobody(why))) => return Ok(Followed::Nobody(why)),
                Some((_, Answer::Refused(why))) => bail!("no rotation of {fleet} was begun: {why}"),
                Some((_, other)) => bail!("no rotation of {fleet} was begun: the request was answered {other:?}"),
                None => {}
            }
            // What is asked besides is not what is open.
            if matches!(self.ask, Ask::Rotate { compromised: true, .. }) {
                self.give_up(by).await?;
            }
            if matches!(self.ask, Ask::Rotate { compromised: false, .. })
                && let Some(open) = self.open_rotation().await?
                && self.store.answer(id, &Answer::Withdrawn, SystemClock.now()).await?
            {
                break open;
            }
            if self.nobody_drives() && self.store.answer(id, &Answer::Withdrawn, SystemClock.now()).await? {
                return Ok(Followed::NobodyDrives);
            }
            if !said && SystemClock.now() > later(asked, SILENCE) {
                said = true;
                self.progress
                    .say(fleet, "waiting for it to be taken: others go first, or what drives is a `rotate` of its own");
            }
            self.look().await;
        };
        self.follow(rotation).await
    }

    async fn follow(&mut self, id: JournalId) -> Result<Followed> {
        let head = self.store.head(id).await?;
        let Plan::Rotate(plan) = &head.plan else { bail!("{id} is no rotation") };
        let instances = self.store.instances(id).await?;
        let mut rotation = Rotation::fold(id, plan.clone(), &instances, &[])?;
        loop {
            for entry in self.read(&head, rotation.seq).await? {
                rotation.apply(&entry)?;
                self.progress.recorded(id, &head.plan, &entry);
            }
            let view = View::Rotation { rotation: &rotation, waiting: None };
            self.progress.turned(id, view, SystemClock.now());
            if let Some((_, outcome)) = rotation.ended {
                self.out.line(say_ended(self.out, &self.config.custody.keeper, &rotation, &instances, outcome));
                say_exposure(self.out, &rotation, &instances);
                self.told.insert(id);
                // After an abandon the pair waits for the next rotation to take over; on a way back more may come first.
                if outcome == Outcome::Completed && !matches!(self.ask, Ask::Rollback { .. }) {
                    self.follow_retirements().await?;
                }
                return Ok(Followed::To(Exit::Done, Some(outcome)));
            }
            let now = SystemClock.now();
            let nothing_left = rotation.in_flight(now).is_empty() && rotation.hook_due(now).is_none();
            let cut_off = matches!(rotation.held, Some(HoldReason::Account { .. })) || rotation.strange(now).is_some();
            if let Some(reason) = rotation.held.as_ref().filter(|_| nothing_left || cut_off) {
                let owed = rotation.members().filter(|(_, member)| member.owed.is_some());
                let down: Vec<_> = owed.map(|(id, _)| id.clone()).collect();
                say_held(self.out, &rotation, reason, &down);
                say_exposure(self.out, &rotation, &instances);
                return Ok(Followed::To(Exit::Held, None));
            }
            if self.nobody_drives() {
                self.progress.say(self.fleet, "whoever drove is gone");
                return Ok(Followed::NobodyDrives);
            }
            self.look().await;
        }
    }

    /// The fleet's retire journals: each to its end, or to where it waits for long.
    async fn follow_retirements(&mut self) -> Result<()> {
        // Whoever drives begins them right after the rotation.
        SystemClock.sleep_until(later(SystemClock.now(), GONE)).await;
        for head in self.store.heads().await?.readable {
            if head.plan.fleet() == self.fleet && head.ended.is_none() {
                self.follow_retirement(&head).await?;
            }
        }
        Ok(())
    }

    async fn follow_retirement(&mut self, head: &Head) -> Result<()> {
        let Plan::Retire(plan) = &head.plan else { return Ok(()) };
        let mut retirement = Retirement::fold(head.id, plan.clone(), &[])?;
        let mut since = SystemClock.now();
        loop {
            for entry in self.read(head, retirement.seq).await? {
                retirement.apply(&entry)?;
                // What is older than this command is told by `show`.
                if entry.at >= self.begun {
                    self.progress.recorded(head.id, &head.plan, &entry);
                }
                since = SystemClock.now();
            }
            let now = SystemClock.now();
            let next = retirement.next(now);
            let far = next.wake.is_some_and(|until| until > later(now, PATIENCE));
            let ended = retirement.ended.map(|(_, outcome)| outcome);
            // What keeps it is in the driver's mind only: nothing has come of it for so long.
            let stuck = next.run.first().copied().filter(|_| now > later(since, PATIENCE));
            let waits = stuck.is_some();
            if ended.is_some() || retirement.held.is_some() || far || waits || self.nobody_drives() {
                let waiting = stuck.map(|step| match step {
                    Step::DestroyPrivateKey => "somebody who had it is not proven on another one yet".to_string(),
                    _ => "somebody may still hang on it".to_string(),
                });
                let retiring = Retiring {
                    id: head.id,
                    plan: plan.clone(),
                    ended,
                    held: retirement.held,
                    waiting,
                    until: next.wake,
                };
                self.out.line(say_retired(self.out, &self.config.custody.keeper, &retiring));
                return Ok(());
            }
            self.look().await;
        }
    }

    async fn read(&self, head: &Head, after: u64) -> Result<Vec<Entry>> {
        Ok(self.store.read(head.id, after).await?)
    }

    /// Whether nobody has held the driver's lock for a while.
    fn nobody_drives(&mut self) -> bool {
        let now = SystemClock.now();
        if DriverLock::is_held(&self.config.store).unwrap_or(true) {
            self.driverless = None;
            return false;
        }
        now > later(*self.driverless.get_or_insert(now), GONE)
    }

    async fn look(&self) {
        SystemClock.sleep_until(later(SystemClock.now(), LOOK)).await;
    }
}
