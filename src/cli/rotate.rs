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
use crate::engine::planner::{begin, propose};
use crate::engine::{Engine, EngineError, rules};
use crate::model::{FleetName, InstanceId, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Author, HoldReason, Outcome, Plan, Rotation, Rule};
use crate::store::Journal;

use super::follow::{Followed, Follower};
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
    /// Begin in spite of this rule: `size-change`, a selection that changed by more than 30 %; `window`, outside all
    /// maintenance windows, which the whole rotation then does without. May be given more than once
    #[arg(long, value_name = "RULE")]
    force: Vec<Rule>,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = scene.config()?;
    let fleet = &arguments.fleet;
    owner::check(&config.custody.directory, &format!("rotate {fleet}"))?;
    let mut signals = Signals::new()?;
    loop {
        let driver = match Driver::start(config.clone(), scene.env.clone()).await {
            Ok(driver) => driver,
            Err(StartError::Busy { .. }) => {
                let by = Author::Operator(owner::person(&*scene.env));
                let follower = Follower::open(&config, scene.out, fleet).await?;
                match follower.run(&by, &arguments.force, &mut signals).await? {
                    Followed::To(exit) => return Ok(exit),
                    Followed::NobodyDrives => continue,
                }
            }
            Err(error) => return Err(error.into()),
        };
        return drive(scene, &config, driver, arguments, signals).await;
    }
}

async fn drive(
    scene: &Scene,
    config: &Config,
    driver: Driver,
    arguments: &Arguments,
    signals: Signals,
) -> anyhow::Result<Exit> {
    let fleet = &arguments.fleet;
    let (stop, asked) = watch::channel(false);
    let progress = Arc::new(Progress::new(scene.out));
    let mut engine = Engine::new(driver.tools(vec![progress.clone()])).with_stop(asked);
    let round = Round { config, driver: &driver, out: scene.out };
    let result = tokio::select! {
        result = round.rotate(&mut engine, fleet, &arguments.force) => result,
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

/// One fleet, once around.
pub(super) struct Round<'a> {
    pub(super) config: &'a Config,
    pub(super) driver: &'a Driver,
    pub(super) out: Output,
}

impl Round<'_> {
    /// Rotates a fleet and retires what it supersedes.
    pub(super) async fn rotate(&self, engine: &mut Engine, fleet: &FleetName, force: &[Rule]) -> anyhow::Result<Exit> {
        let Some(id) = self.begin(engine, fleet, force).await? else {
            self.retire(engine, fleet).await?;
            return Ok(Exit::Done);
        };
        match engine.drive(id).await? {
            Reached::Ended(outcome) => {
                if let Some(rotation) = engine.rotation(id) {
                    self.out.line(say_ended(self.out, &self.config.custody.directory, rotation, outcome));
                }
                self.retire(engine, fleet).await?;
                Ok(Exit::Done)
            }
            Reached::Held { reason, down } => {
                if let Some(rotation) = engine.rotation(id) {
                    say_held(self.out, rotation, &reason, &down);
                }
                Ok(Exit::Held)
            }
        }
    }

    /// The rotation to drive: the open one, or a new one. `None`: the fleet is no longer in the file, and nothing but its
    /// retire journals is left of it.
    async fn begin(&self, engine: &Engine, fleet: &FleetName, force: &[Rule]) -> anyhow::Result<Option<JournalId>> {
        let heads = engine.heads().await?;
        let open = heads.of(fleet).find(|head| matches!(head.plan, Plan::Rotate(_)) && head.ended.is_none());
        if let Some(head) = open {
            // What is merely missing here (a variable that is not set) is said here, and is no reason to hold.
            self.can_read_credentials(head.plan.place())?;
            if !force.is_empty() {
                bail!(
                    "{fleet} has an open rotation, {0}, whose plan is frozen: --force is for one that begins; `rekeyd abandon \
                     {0}` gives it up first",
                    head.id
                );
            }
            self.out.line(format!("{fleet}: going on with rotation {}", head.id));
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
        let mut proposal = propose(tools, &planned, &daemon::fleets(self.config)).await.with_context(of)?;
        rules::check(tools, &mut proposal, force).await.with_context(of)?;
        let head = begin(tools, &proposal).await.with_context(of)?;
        let batches = some(&proposal.forecast.batches, 20);
        self.out.line(format!(
            "{fleet}: rotation {} begun: {} in batches of {batches}",
            head.id,
            count(proposal.forecast.batches.iter().sum(), "instance")
        ));
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
    out.line(out.tone(Tone::Bad, format!("{fleet}: rotation {id} is held: {reason}")));
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
    out.line(format!("{fleet}: {}", reason.way_on(id)));
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
        Some((_, fingerprint)) => {
            format!("; key {fingerprint} in {}", key_file(custody, &rotation.plan.key_name).display())
        }
        None => String::new(),
    };
    let tone = if outcome == Outcome::Completed { Tone::Good } else { Tone::Careful };
    out.tone(tone, format!("{fleet}: rotation {} {outcome}: {}{key}", rotation.id, parts.join(", ")))
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
        (None, Some(reason), ..) => {
            let way_on = reason.way_on(retiring.id);
            out.tone(Tone::Careful, format!("{pair}: retiring is held: {reason}; {way_on}"))
        }
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
        if let Some((hook, batch)) = rotation.hook_due(now) {
            return format!("waiting for the {} hook of batch {batch}", hook.name());
        }
        return match rotation.next(now).wake {
            Some(wake) if rotation.waits_for_window(now).is_some() => {
                format!("waiting for its maintenance window, which opens {}", moment(wake))
            }
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
