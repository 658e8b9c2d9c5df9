//! `rekeyd rotate FLEET`: drives one fleet from here, or hands it over to whoever drives and follows it. It goes on with what is open, begins what is not, and says how it
//! stands when nothing is left to do now. Killed at any moment, the same command goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::{self, Driver, KeepingError, StartError};
use crate::engine::drive::Reached;
use crate::engine::planner::{Aim, PlanError, begin, propose_for};
use crate::engine::{Engine, EngineError, rules};
use crate::model::{Amount, FleetName, JournalId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Author, Outcome, Place, Plan, Purpose, Rotation, Rule, Verify};
use crate::store::Journal;

use super::credentials::Wanted;
use super::exposure::say_exposure;
use super::follow::follow_all;
use super::give_up::COMPROMISED;
use super::outcome::{say_ended, say_held, say_retired};
use super::output::{Output, count, moment, some};
use super::plan::owed;
use super::progress::Progress;
use super::signals::Signals;
use super::story::batch_name;
use super::{Exit, Scene, credentials, output, owner};

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
    /// The fleet's key may be in wrong hands: begin at once, give up whatever rotation of the fleet is open, wait for no
    /// window, soak or grace, and tell how long it took until machines were proven to refuse the old key
    #[arg(long)]
    compromised: bool,
    /// So many machines may be down at once, a number or a share (100%), in place of the fleet's own
    #[arg(long, value_name = "AMOUNT", requires = "compromised")]
    unavailable_max: Option<Amount>,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = scene.config()?;
    let fleet = &arguments.fleet;
    owner::check(&config, &format!("rotate {fleet}"))?;
    let aim = match arguments.compromised {
        true => Aim::Compromised { unavailable_max: arguments.unavailable_max },
        false => Aim::Rotate,
    };
    run_for(scene, config, fleet, aim, &arguments.force).await
}

/// Drives a fleet for what is aimed at, or hands it over and follows.
pub(super) async fn run_for(
    scene: &Scene,
    config: Arc<Config>,
    fleet: &FleetName,
    aim: Aim,
    force: &[Rule],
) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    loop {
        let goes_on = matches!(aim, Aim::Rotate).then(|| fleet.clone());
        let driver = match Driver::start(config.clone(), scene.env.clone(), goes_on).await {
            Ok(driver) => driver,
            Err(StartError::Busy { .. }) => {
                match follow_all(scene, &config, fleet, (aim, force), &mut signals).await? {
                    Some(exit) => return Ok(exit),
                    None => continue,
                }
            }
            Err(StartError::Keeping(KeepingError::Secrets(error))) => {
                let planned = daemon::fleet(&config, fleet);
                credentials::at_hand(scene, Wanted::of(&config).fleets(&planned).custody())?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        return drive(scene, &config, driver, fleet, (aim, force), signals).await;
    }
}

async fn drive(
    scene: &Scene,
    config: &Config,
    driver: Driver,
    fleet: &FleetName,
    (aim, force): (Aim, &[Rule]),
    signals: Signals,
) -> anyhow::Result<Exit> {
    let (stop, asked) = watch::channel(false);
    let progress = Arc::new(Progress::new(scene.out, &*scene.env));
    let mut engine = Engine::new(driver.tools(vec![progress.clone()])).with_stop(asked);
    let round = Round { scene, config, driver: &driver, out: scene.out, force };
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

/// One fleet, once around.
pub(super) struct Round<'a> {
    pub(super) scene: &'a Scene,
    pub(super) config: &'a Config,
    pub(super) driver: &'a Driver,
    pub(super) out: Output,
    /// Rules in spite of which a rotation begins.
    pub(super) force: &'a [Rule],
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
        let in_the_way = match aim {
            Aim::Back(undone) => Some((undone, "to be rolled back")),
            Aim::Compromised { .. } => {
                let open = self.in_the_way(engine, fleet).await?;
                open.map(|open| (open, COMPROMISED))
            }
            Aim::Rotate | Aim::CatchUp { .. } => None,
        };
        if let Some((open, why)) = in_the_way
            && !self.give_up(engine, fleet, open, why, by).await?
        {
            return Ok(Exit::Held);
        }
        // Back to one pair after the other; those who are back first, the new ones then.
        let rounds = match aim {
            Aim::Rotate | Aim::Compromised { .. } => 1,
            Aim::CatchUp { .. } => 2,
            Aim::Back(_) => usize::MAX,
        };
        for round in 0..rounds {
            let Some(id) = self.begin(engine, fleet, aim, round).await? else { break };
            let reached = engine.drive(id).await?;
            match &reached {
                Reached::Ended(outcome) => {
                    let outcome = *outcome;
                    if let Some(rotation) = engine.rotation(id) {
                        let planned = engine.tools().journal.instances(id).await?;
                        let custody = &self.config.custody.keeper;
                        self.out.line(say_ended(self.out, custody, rotation, &planned, outcome));
                    }
                    self.say_exposure(engine, id).await?;
                    if outcome != Outcome::Completed {
                        break;
                    }
                }
                Reached::Held { reason, down } => {
                    if let Some(rotation) = engine.rotation(id) {
                        say_held(self.out, rotation, reason, down);
                    }
                    self.say_exposure(engine, id).await?;
                    return Ok(Exit::Held);
                }
            }
        }
        self.retire(engine, fleet).await?;
        Ok(Exit::Done)
    }

    /// Says how long a compromised key was taken, where that is what the rotation is for.
    async fn say_exposure(&self, engine: &Engine, id: JournalId) -> anyhow::Result<()> {
        if let Some(rotation) = engine.rotation(id).filter(|rotation| rotation.plan.compromised) {
            say_exposure(self.out, rotation, &engine.tools().journal.instances(id).await?);
        }
        Ok(())
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
            let Plan::Rotate(plan) = &head.plan else { bail!("{} is no rotation", head.id) };
            self.can_read_credentials(&plan.place, &plan.policy.verify)?;
            let purpose = plan.purpose();
            let fits = match aim {
                Aim::Rotate => true,
                Aim::Compromised { .. } => plan.compromised,
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
        self.can_read_credentials(&planned.place, &planned.verify)?;
        let tools = engine.tools();
        let of = || format!("no rotation of {fleet} was begun");
        let mut proposal = match propose_for(tools, &planned, &daemon::fleets(self.config), aim).await {
            Err(PlanError::Nobody { .. }) if round > 0 => return Ok(None),
            Err(PlanError::Nobody { problem, .. }) if matches!(aim, Aim::CatchUp { .. }) => {
                self.out.line(format!("{fleet}: {problem}"));
                return Ok(None);
            }
            proposal => proposal.with_context(of)?,
        };
        if proposal.plan.purpose() == Purpose::Rotate {
            rules::check(tools, &mut proposal, self.force).await.with_context(of)?;
        }
        let head = begin(tools, &proposal).await.with_context(of)?;
        let batches = some(&proposal.forecast.batches, 20);
        let to = match proposal.plan.purpose() {
            Purpose::Rotate if proposal.plan.compromised => format!(
                ", at once: no window, no soak, no grace; at most {} down at once",
                proposal.plan.policy.unavailable_max
            ),
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

    /// Whether what a rotation is driven with is there: its account's secrets, and the key of the jump host where that is
    /// systemd's.
    pub(super) fn can_read_credentials(&self, place: &Place, verify: &Verify) -> anyhow::Result<()> {
        credentials::at_hand(self.scene, Wanted::of(self.config).account(&place.account).logins(verify))?;
        self.driver.clouds().can_read_credentials(&place.account).map_err(anyhow::Error::msg)
    }

    /// Drives the retire journals of a fleet, and says what each came to.
    async fn retire(&self, engine: &mut Engine, fleet: &FleetName) -> anyhow::Result<()> {
        for retiring in engine.drive_retirements(fleet, PATIENCE).await? {
            self.out.line(say_retired(self.out, &self.config.custody.keeper, &retiring));
        }
        Ok(())
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

pub(super) fn is_stop(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<EngineError>(), Some(EngineError::Stopped))
}

/// Says what a long silence is about, for as long as it lasts.
async fn tell_of_waits(driver: &Driver, fleet: &FleetName, progress: &Progress) -> Infallible {
    loop {
        SystemClock.sleep_until(later(progress.spoke(), SILENCE)).await;
        let now = SystemClock.now();
        if progress.is_live() || now < later(progress.spoke(), SILENCE) {
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
            return format!("waiting for the {} hook: {}", hook.name(), batch_name(batch));
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
