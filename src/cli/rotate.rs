//! `rekeyd rotate FLEET`: drives one fleet from here, or hands it over to whoever drives and follows it. It goes on with what is open, begins what is not, and says how it
//! stands when nothing is left to do now. Killed at any moment, the same command goes on.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::{self, Driver, StartError};
use crate::engine::drive::{Reached, Retiring};
use crate::engine::operate::operate;
use crate::engine::planner::{Aim, PlanError, begin, propose_for};
use crate::engine::{Engine, EngineError};
use crate::model::{FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Author, HoldReason, Order, Outcome, Plan, Purpose, Rotation};
use crate::store::{Ask, Journal};

use super::follow::{Followed, Follower, NotBegun};
use super::journals::key_file;
use super::output::{Output, Tone, count, moment, some};
use super::plan::owed;
use super::progress::Progress;
use super::{Exit, Scene, output, owner};

/// A soak or a grace of no more than this is waited out; what lasts longer is left to the next run.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A call that is under way when the command is interrupted gets so long.
const LAST_CALL: Duration = Duration::from_secs(8);

/// After so long a silence it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The fleet, as the config file names it
    fleet: FleetName,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = scene.config()?;
    let fleet = &arguments.fleet;
    owner::check(&config.custody.directory, &format!("rotate {fleet}"))?;
    run_for(scene, config, fleet, Aim::Rotate).await
}

/// Drives a fleet for what is aimed at, or hands it over and follows.
pub(super) async fn run_for(scene: &Scene, config: Arc<Config>, fleet: &FleetName, aim: Aim) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    loop {
        let driver = match Driver::start(config.clone(), scene.env.clone()).await {
            Ok(driver) => driver,
            Err(StartError::Busy { .. }) => {
                let by = Author::Operator(owner::person(&*scene.env));
                let mut followed = false;
                loop {
                    let follower = Follower::open(&config, scene.out, fleet, ask_for(aim)).await?;
                    match follower.run(&by, &mut signals).await {
                        // A way back to several pairs is several rotations: asked for until nothing is left.
                        Ok(Followed::To(Exit::Done)) if matches!(aim, Aim::Back(_)) => followed = true,
                        Ok(Followed::To(exit)) => return Ok(exit),
                        Ok(Followed::NobodyDrives) => break,
                        Err(error) if followed && error.is::<NotBegun>() => return Ok(Exit::Done),
                        Err(error) => return Err(error),
                    }
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        return drive(scene, &config, driver, fleet, aim, signals).await;
    }
}

async fn drive(
    scene: &Scene,
    config: &Config,
    driver: Driver,
    fleet: &FleetName,
    aim: Aim,
    signals: Signals,
) -> anyhow::Result<Exit> {
    let (stop, asked) = watch::channel(false);
    let progress = Arc::new(Progress::new(scene.out));
    let mut engine = Engine::new(driver.tools(vec![progress.clone()])).with_stop(asked);
    let round = Round { config, driver: &driver, out: scene.out };
    let by = Author::Operator(owner::person(&*scene.env));
    let result = tokio::select! {
        result = round.go(&mut engine, fleet, aim, &by) => result,
        () = interrupted(signals, stop) => Err(EngineError::Stopped.into()),
        never = tell_of_waits(&driver, fleet, &progress) => match never {},
    };
    let result = match result {
        Err(error) if is_stop(&error) => Err(stopped(&driver, fleet).await),
        other => other,
    };
    drop(engine);
    driver.close().await;
    result
}

/// What is asked of whoever drives.
fn ask_for(aim: Aim) -> Ask {
    match aim {
        Aim::Rotate => Ask::Rotate,
        Aim::Back(rotation) => Ask::Rollback { rotation },
        Aim::CatchUp { .. } => Ask::CatchUp,
    }
}

/// One fleet, once around.
pub(super) struct Round<'a> {
    pub(super) config: &'a Config,
    pub(super) driver: &'a Driver,
    pub(super) out: Output,
}

impl Round<'_> {
    /// Drives a fleet to what is aimed at, and retires what it supersedes. `by` gives up what is rolled back.
    pub(super) async fn go(
        &self,
        engine: &mut Engine,
        fleet: &FleetName,
        aim: Aim,
        by: &Author,
    ) -> anyhow::Result<Exit> {
        if let Aim::Back(undone) = aim
            && !self.give_up(engine, fleet, undone, by).await?
        {
            return Ok(Exit::Held);
        }
        // Back to one pair after the other; those who are back first, the new ones then.
        let rounds = match aim {
            Aim::Rotate => 1,
            Aim::CatchUp { .. } => 2,
            Aim::Back(_) => usize::MAX,
        };
        for round in 0..rounds {
            let Some(id) = self.begin(engine, fleet, aim, round).await? else { break };
            match engine.drive(id).await? {
                Reached::Ended(outcome) => {
                    if let Some(rotation) = engine.rotation(id) {
                        self.out.line(say_ended(self.out, &self.config.custody.directory, rotation, outcome));
                    }
                    if outcome != Outcome::Completed {
                        break;
                    }
                }
                Reached::Held { reason, down } => {
                    if let Some(rotation) = engine.rotation(id) {
                        say_held(self.out, rotation, &reason, &down);
                    }
                    return Ok(Exit::Held);
                }
            }
        }
        self.retire(engine, fleet).await?;
        Ok(Exit::Done)
    }

    /// Gives up the rotation that is to be rolled back, if it is open, and drives it to its end. `false`: it is held.
    async fn give_up(
        &self,
        engine: &mut Engine,
        fleet: &FleetName,
        undone: JournalId,
        by: &Author,
    ) -> anyhow::Result<bool> {
        let tools = engine.tools();
        let head = tools.journal.head(undone).await?;
        if head.ended.is_some() {
            return Ok(true);
        }
        self.can_read_credentials(head.plan.place())?;
        let order = Order::Abandon { note: "to be rolled back".to_string() };
        operate(tools.journal.as_ref(), &SystemClock, undone, &order, by).await?;
        self.out.line(format!("{fleet}: rotation {undone} is given up; it ends once nothing is in flight"));
        match engine.drive(undone).await? {
            Reached::Ended(_) => Ok(true),
            Reached::Held { reason, down } => {
                if let Some(rotation) = engine.rotation(undone) {
                    say_held(self.out, rotation, &reason, &down);
                }
                Ok(false)
            }
        }
    }

    /// The rotation to drive: the open one, or a new one. `None`: the fleet is no longer in the file, and nothing but its
    /// retire journals is left of it.
    async fn begin(
        &self,
        engine: &Engine,
        fleet: &FleetName,
        aim: Aim,
        round: usize,
    ) -> anyhow::Result<Option<JournalId>> {
        let heads = engine.heads().await?;
        let open = heads.of(fleet).find(|head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none());
        if let Some(head) = open {
            // What is merely missing here (a variable that is not set) is said here, and is no reason to hold.
            self.can_read_credentials(head.plan.place())?;
            let Plan::Rotate(plan) = &head.plan else { bail!("{} is no rotation", head.id) };
            let purpose = plan.purpose();
            let fits = match aim {
                Aim::Rotate => true,
                Aim::Back(undone) => plan.undoes == Some(undone),
                Aim::CatchUp { .. } => purpose == Purpose::CatchUp,
            };
            if !fits {
                bail!(
                    "{fleet}: {} {id} is open: `rekeyd rotate {fleet}` goes on with it, `rekeyd abandon {id}` gives it up",
                    purpose.name(),
                    id = head.id
                );
            }
            self.out.line(format!("{fleet}: going on with {} {}", purpose.name(), head.id));
            return Ok(Some(head.id));
        }
        let Some(planned) = daemon::fleet(self.config, fleet) else {
            if heads.of(fleet).any(|head| head.ended.is_none()) {
                return Ok(None);
            }
            bail!("there is no fleet {fleet:?} in the config file; it has {}", some(self.config.fleets.keys(), 20));
        };
        self.can_read_credentials(&planned.place)?;
        let tools = engine.tools();
        let of = || format!("no rotation of {fleet} was begun");
        let proposal = match propose_for(tools, &planned, &daemon::fleets(self.config), aim).await {
            Err(PlanError::Nobody { .. }) if round > 0 => return Ok(None),
            Err(PlanError::Nobody { problem, .. }) if matches!(aim, Aim::CatchUp { .. }) => {
                self.out.line(format!("{fleet}: {problem}"));
                return Ok(None);
            }
            proposal => proposal.with_context(of)?,
        };
        let head = begin(tools, &proposal).await.with_context(of)?;
        let batches = some(&proposal.forecast.batches, 20);
        let to = match proposal.plan.purpose() {
            Purpose::Rotate => String::new(),
            Purpose::Rollback | Purpose::CatchUp | Purpose::Adopt => {
                format!(", to key pair {}", proposal.plan.key_name)
            }
        };
        self.out.line(format!(
            "{fleet}: {} {} begun: {} in batches of {batches}{to}",
            proposal.plan.purpose().name(),
            head.id,
            count(proposal.forecast.batches.iter().sum(), "instance")
        ));
        for note in &proposal.notes {
            self.out.line(format!("  {note}"));
        }
        Ok(Some(head.id))
    }

    fn can_read_credentials(&self, place: &crate::rotation::Place) -> anyhow::Result<()> {
        self.driver.clouds().can_read_credentials(&place.account).map_err(anyhow::Error::msg)
    }

    /// Drives the retire journals of a fleet, and says what each came to.
    async fn retire(&self, engine: &mut Engine, fleet: &FleetName) -> anyhow::Result<()> {
        for retiring in engine.drive_retirements(fleet, PATIENCE).await? {
            self.out.line(say_retired(self.out, &self.config.custody.directory, &retiring));
        }
        Ok(())
    }
}

/// Says why a rotation is held, who is down because of it, and the way on.
pub(super) fn say_held(out: Output, rotation: &Rotation, reason: &HoldReason, down: &[InstanceId]) {
    let (id, fleet) = (rotation.id, &rotation.plan.fleet);
    let what = rotation.plan.purpose().name();
    out.line(out.tone(Tone::Bad, format!("{fleet}: {what} {id} is held: {reason}")));
    if down.is_empty() {
        out.line(format!("{fleet}: nobody is down because of it"));
    } else {
        let are = if down.len() == 1 { "1 instance is".to_string() } else { format!("{} instances are", down.len()) };
        let why = match reason {
            HoldReason::Account { .. } => "cannot be started without the account",
            _ => "the cloud refuses it",
        };
        out.line(format!("{fleet}: {are} owed a start and perhaps down, and {why}: {}", some(down, 20)));
        let one = &down[0];
        out.line(format!(
            "{fleet}: where the cloud refuses for good (expired, no stock, arrears), \
             `rekeyd release {id} --allow=leave-off:{one}` writes the start off"
        ));
    }
    out.line(format!(
        "{fleet}: `rekeyd release {id}` goes on, `rekeyd abandon {id}` gives it up, `rekeyd show {id}` tells how it came to this"
    ));
}

/// What became of a rotation that ended.
pub(super) fn say_ended(out: Output, custody: &Path, rotation: &Rotation, outcome: Outcome) -> String {
    let number = |which: &dyn Fn(&crate::rotation::Member) -> bool| {
        rotation.members().filter(|(_, member)| which(member)).count()
    };
    let mut parts = vec![format!("{} active", number(&|member| member.active))];
    let mut part = |number: usize, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    part(number(&|member| member.is_straggler() && member.excluded.is_none()), "bound, waiting for their next boot");
    part(number(&|member| member.excluded.is_some()), "excluded");
    part(number(&|member| member.gone), "gone");
    let fleet = &rotation.plan.fleet;
    let key = match &rotation.key {
        Some((_, fingerprint)) if rotation.plan.key.is_strangers() => {
            format!("; key {fingerprint}, a stranger's: nobody here has its private half")
        }
        Some((_, fingerprint)) => {
            format!("; key {fingerprint} in {}", key_file(custody, &rotation.plan.key_name).display())
        }
        None => String::new(),
    };
    let tone = if outcome == Outcome::Completed { Tone::Good } else { Tone::Careful };
    let what = rotation.plan.purpose().name();
    out.tone(tone, format!("{fleet}: {what} {} {outcome}: {}{key}", rotation.id, parts.join(", ")))
}

/// How a retire journal stands.
pub(super) fn say_retired(out: Output, custody: &Path, retiring: &Retiring) -> String {
    let (fleet, name) = (&retiring.plan.fleet, &retiring.plan.key_name);
    let pair = format!("{fleet}: old key pair {name}");
    match (&retiring.ended, &retiring.held, &retiring.waiting, retiring.until) {
        (Some(Outcome::Kept), ..) => format!(
            "{pair} is deleted; its private key is kept in {} (with verify: none no login proves the new one)",
            key_file(custody, name).display()
        ),
        (Some(outcome), ..) => format!("{pair} is {outcome}"),
        (None, Some(reason), ..) => out.tone(Tone::Careful, format!("{pair}: retiring is held: {reason}")),
        (None, None, Some(waiting), _) => {
            out.tone(Tone::Careful, format!("{pair} waits: {waiting}; the next rotate looks again"))
        }
        (None, None, None, Some(until)) => {
            format!("{pair} waits until {}; the next rotate after that goes on with it", moment(until))
        }
        (None, None, None, None) => format!("{pair} waits; the next rotate goes on with it"),
    }
}

/// Returns when the driver must stop at once: on the second signal, or when what was under way at the first one has had
/// its time.
pub(super) async fn interrupted(mut signals: Signals, stop: watch::Sender<bool>) {
    signals.next().await;
    output::complain("stopping after the call that is under way; again to stop at once\n");
    // The engine may be gone already.
    let _ = stop.send(true);
    tokio::select! {
        () = signals.next() => {}
        () = SystemClock.sleep_until(later(SystemClock.now(), LAST_CALL)) => {}
    }
}

/// SIGINT and SIGTERM. From here on they do not end the process by themselves; nor does SIGHUP, which is not heeded: a
/// terminal that goes away must not leave machines switched off.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    _hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            _hangup: of(SignalKind::hangup())?,
        })
    }
    /// The next of either.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

pub(super) fn is_stop(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<EngineError>(), Some(EngineError::Stopped))
}

/// Says what a long silence is about, for as long as it lasts.
async fn tell_of_waits(driver: &Driver, fleet: &FleetName, progress: &Progress) -> Infallible {
    loop {
        SystemClock.sleep_until(later(progress.spoke(), SILENCE)).await;
        let now = SystemClock.now();
        if now < later(progress.spoke(), SILENCE) {
            continue;
        }
        let rotation = open_rotation(driver.journal(), fleet).await;
        progress.say(fleet, &rotation.map_or_else(|| "waiting".to_string(), |rotation| waits(&rotation, now)));
    }
}

/// What a rotation waits for.
fn waits(rotation: &Rotation, now: Timestamp) -> String {
    let in_flight = rotation.in_flight(now);
    if in_flight.is_empty() {
        return match rotation.next(now).wake {
            Some(wake) => format!("waiting until {}", moment(wake)),
            None => "waiting".to_string(),
        };
    }
    // Who goes no further is watched only because of a call whose answer was lost.
    let watched = in_flight.iter().filter_map(|id| rotation.member(id));
    let lost = watched.filter(|member| member.excluded.is_some()).filter_map(|member| member.watch_until()).max();
    let until = lost.map(|until| format!(" (a call with a lost answer may land until {})", moment(until)));
    format!("waiting for {}{}", some(&in_flight, 5), until.unwrap_or_default())
}

async fn open_rotation(journal: &dyn Journal, fleet: &FleetName) -> Option<Rotation> {
    let heads = journal.heads().await.ok()?;
    let head = heads.of(fleet).rev().find(|head| head.ended.is_none())?;
    let Plan::Rotate(plan) = &head.plan else { return None };
    let (instances, entries) = (journal.instances(head.id).await.ok()?, journal.read(head.id, 0).await.ok()?);
    Rotation::fold(head.id, plan.clone(), &instances, &entries).ok()
}

/// What to know after an interruption: who is down, and how it goes on.
async fn stopped(driver: &Driver, fleet: &FleetName) -> anyhow::Error {
    let owed = open_rotation(driver.journal(), fleet).await.map(|rotation| owed(&rotation)).unwrap_or_default();
    let down = match owed.len() {
        0 => "nobody is owed a start".to_string(),
        _ => format!("owed a start and perhaps down: {}", some(&owed, 20)),
    };
    anyhow::anyhow!("stopped as asked; {down}; `rekeyd rotate {fleet}` goes on where it stopped")
}
