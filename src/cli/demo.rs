//! `rekeyd demo`: the main job with nothing prepared. The four clouds are simulated in this process, on real sockets;
//! config, store and custody are the real ones, in a fresh directory. At the end the guests are asked which key they
//! accept: what the journals say counts for nothing there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::daemon::{self, Driver, SharedEnv};
use crate::engine::{Engine, EngineError, Observer};
use crate::model::{FleetName, Mark};
use crate::rotation::{Outcome, Part, Plan};
use crate::sim::serve::{Options, Ready, Running, serve};
use crate::sim::{Promise, TAGS};

use super::journals::{Folded, Journals};
use super::output::{Tone, count, table};
use super::progress::Progress;
use super::rotate::{Round, Signals, interrupted, is_stop};
use super::{Exit, Scene};

/// The demo's config file. Its paths, ports and secrets are put in below.
const CONFIG: &str = include_str!("../../config/demo.yaml");
/// The directory that stands in it.
const DIRECTORY: &str = "/tmp/rekeyd-demo";
/// Machines in each cloud.
const INSTANCES: usize = 10;
/// How long a simulated machine takes to stop or start: long enough to be seen, short enough to watch.
const OPERATION: Duration = Duration::from_millis(500);
/// A round is this many rotations of each fleet: the second one shows how the first one's key pair is retired.
const ROTATIONS: usize = 2;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// End after the first round (as it does without this, until the daemon is there)
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let begun = SystemClock.now();
    let signals = Signals::new()?;
    let directory = make_directory(&scene.env)?;
    let running = serve(Options { instances: INSTANCES, operation_time: OPERATION, ..Options::default() }).await?;
    let file = directory.join("rekeyd.yaml");
    let text = fill_in(CONFIG, &directory, running.ready());
    std::fs::write(&file, &text).with_context(|| file.display().to_string())?;
    let config = Arc::new(config::load(&text, &file, &daemon::cloud).context("the demo's config file cannot be used")?);
    scene.out.line(format!(
        "four simulated clouds with {INSTANCES} tagged machines each; config, store and custody in {}",
        directory.display()
    ));
    if !arguments.once {
        scene.out.line("this release's demo ends after one round, as with --once");
    }
    let driver = Driver::start(config.clone(), secrets(running.ready())).await?;
    let (stop, asked) = watch::channel(false);
    let rounds = join_all(config.fleets.keys().map(|fleet| round(scene, &config, &driver, fleet, asked.clone())));
    let results = tokio::select! {
        results = rounds => results,
        () = interrupted(signals, stop) => return Err(EngineError::Stopped.into()),
    };
    let mut short = Vec::new();
    for (fleet, result) in config.fleets.keys().zip(results) {
        match result {
            Ok(Exit::Done) => {}
            Ok(_) => short.push(format!("{fleet}: held")),
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) => short.push(format!("{fleet}: {error:#}")),
        }
    }
    driver.close().await;
    let (rows, shortfall) = look_back(&config, &running).await?;
    short.extend(shortfall);
    let took = SystemClock.now().duration_since(begun).as_secs();
    scene.out.line(String::new());
    scene.out.line(scene.out.tone(Tone::Strong, format!("what was done, in {}", count_seconds(took))));
    let heads = [
        "FLEET",
        "CLOUD",
        "ROTATIONS",
        "ACTIVE",
        "AT NEXT BOOT",
        "LEFT OUT",
        "EXCLUDED",
        "PAIRS RETIRED",
        "PRIVATE KEY",
    ];
    scene.out.print(&table(0, &heads, &rows));
    scene.out.line(String::new());
    for problem in &short {
        scene.out.line(scene.out.tone(Tone::Bad, format!("fell short: {problem}")));
    }
    if short.is_empty() {
        let text = "every machine that was to be rotated accepts exactly the newest key, in its guest; power is as it \
                    was; no other key pair of rekeyd's is left; no rule of a cloud was broken";
        scene.out.line(scene.out.tone(Tone::Good, text));
    }
    scene.out.print(&where_to_look(&scene.program, &file, &config));
    Ok(if short.is_empty() { Exit::Done } else { Exit::Failed })
}

/// One fleet's round.
async fn round(
    scene: &Scene,
    config: &Config,
    driver: &Driver,
    fleet: &FleetName,
    asked: watch::Receiver<bool>,
) -> Result<Exit> {
    let progress: Arc<dyn Observer> = Arc::new(Progress::new(scene.out));
    let mut engine = Engine::new(driver.tools(vec![progress])).with_stop(asked);
    for _ in 0..ROTATIONS {
        let exit = Round { config, driver, out: scene.out }.rotate(&mut engine, fleet).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// A directory of its own, for nobody else's eyes.
fn make_directory(env: &SharedEnv) -> Result<PathBuf> {
    let above = env("TMPDIR").filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let above = std::path::absolute(above)?;
    let directory = above.join(format!("rekeyd-demo-{:08x}", rand::random::<u32>()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
    made.with_context(|| format!("no directory for the demo: {}", directory.display()))?;
    Ok(directory)
}

/// The demo's config file with these paths and these ports. The ports in the file are the clouds' numbers.
fn fill_in(text: &str, directory: &Path, ready: &Ready) -> String {
    let line = |line: &str| {
        let cloud =
            ready.clouds.iter().zip(1..).find(|(_, number)| line.ends_with(&format!("http://127.0.0.1:{number}")));
        match cloud {
            Some((cloud, number)) => line.replace(&format!("http://127.0.0.1:{number}"), &cloud.endpoint),
            None => line.replace(DIRECTORY, &directory.display().to_string()),
        }
    };
    let mut text: Vec<String> = text.lines().map(line).collect();
    text.push(String::new());
    text.join("\n")
}

/// The simulated clouds' credentials, by the names of variables that the file asks for. This process's own environment
/// is neither asked nor changed.
fn secrets(ready: &Ready) -> SharedEnv {
    let mut secrets = BTreeMap::new();
    for (name, cloud) in ["LIGHTHOUSE", "CVM", "ECS", "BCC"].iter().zip(&ready.clouds) {
        secrets.insert(format!("REKEYD_DEMO_{name}_ID"), OsString::from(&cloud.access_key_id));
        secrets.insert(format!("REKEYD_DEMO_{name}_SECRET"), OsString::from(&cloud.access_key_secret));
    }
    Arc::new(move |name| secrets.get(name).cloned())
}

/// A row for each fleet, and whatever is not as it must be: what the journals say is held against the guests.
async fn look_back(config: &Config, running: &Running) -> Result<(Vec<Vec<String>>, Vec<String>)> {
    let (mut rows, mut short) = (Vec::new(), Vec::new());
    let journals = Journals::open(config).await?;
    for (name, fleet) in &config.fleets {
        let provider = config.accounts.get(&fleet.account).map(|account| account.provider).context("no account")?;
        let heads = journals.heads_of(name).await?;
        let completed = |head: &&crate::store::Head| {
            matches!(head.plan, Plan::Rotate(_)) && matches!(head.ended, Some((_, Outcome::Completed)))
        };
        let Some(newest) = heads.iter().rev().find(completed) else {
            short.push(format!("{name}: no rotation completed"));
            continue;
        };
        let Folded::Rotation(rotation, planned) = journals.fold(newest).await? else { continue };
        let number = |which: &dyn Fn(&crate::rotation::Member) -> bool| {
            rotation.members().filter(|(_, member)| which(member)).count()
        };
        let rotations = heads.iter().filter(completed).count();
        let retired = heads.iter().filter(|head| matches!(head.plan, Plan::Retire(_)) && head.ended.is_some()).count();
        let excluded: Vec<_> = rotation.members().filter(|(_, member)| member.excluded.is_some()).collect();
        let left_out: BTreeSet<String> =
            planned.iter().filter(|one| matches!(one.part, Part::Excluded(_))).map(|one| one.id.to_string()).collect();
        rows.push(vec![
            name.to_string(),
            provider.to_string(),
            rotations.to_string(),
            number(&|member| member.active).to_string(),
            number(&|member| member.is_straggler()).to_string(),
            left_out.len().to_string(),
            excluded.len().to_string(),
            retired.to_string(),
            journals.key_file(newest.plan.key_name()).display().to_string(),
        ]);
        let mut say = |problem: String| short.push(format!("{name}: {problem}"));
        excluded.iter().for_each(|(id, _)| say(format!("{id} was excluded")));
        if (rotations, retired) != (ROTATIONS, ROTATIONS - 1) {
            say(format!("{rotations} rotations and {retired} retirements ended"));
        }
        if journals.has_key(newest.plan.key_name()) != Some(true) {
            say("custody does not hold the newest private key".to_string());
        }
        let world = running.world();
        let world = world.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cloud) = world.clouds().iter().position(|cloud| cloud.kind == provider) else { continue };
        let prefix = config.installation.as_ref().map(Mark::prefix).unwrap_or_default();
        let promise = Promise {
            cloud,
            tag: (TAGS[1].0.to_string(), TAGS[1].1.to_string()),
            unavailable_max: rotation.plan.policy.unavailable_max as usize,
            canary: 1,
            prefix: prefix.clone(),
            ..Promise::default()
        };
        promise.unkept(&world, newest.plan.key_name().as_str(), &left_out).into_iter().for_each(&mut say);
        let ours = world.cloud(cloud).key_pairs().iter().filter(|pair| pair.name.starts_with(&prefix)).count();
        if ours != 1 {
            say(format!("{} of ours in the cloud", count(ours, "key pair")));
        }
        for broken in world.cloud(cloud).violations() {
            say(format!("a rule of the cloud was broken: {broken:?}"));
        }
    }
    Ok((rows, short))
}

fn count_seconds(seconds: i64) -> String {
    count(usize::try_from(seconds).unwrap_or_default(), "second")
}

fn where_to_look(program: &str, file: &Path, config: &Config) -> String {
    let file = file.display();
    let fleet = config.fleets.keys().next().map(ToString::to_string).unwrap_or_default();
    format!(
        "\nwhere to look (the simulated clouds end with this process; the journals and keys stay):\n  \
         {program} --config {file} status\n  \
         {program} --config {file} history {fleet}\n  \
         {program} --config {file} show {fleet}\n  \
         config    {file}\n  \
         journals  {} (SQLite)\n  \
         keys      {} (OpenSSH, as `ssh -i` takes them)\n",
        config.store.display(),
        config.custody.directory.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_demos_file_is_filled_in_and_asks_for_nothing_that_the_demo_does_not_have() {
        let running = serve(Options::default()).await.unwrap();
        let ready = running.ready();
        let text = fill_in(CONFIG, Path::new("/tmp/x"), ready);
        let config = config::load(&text, Path::new("demo.yaml"), &daemon::cloud).unwrap();
        assert_eq!(config.store, Path::new("/tmp/x/rekeyd.db"));
        assert_eq!(config.custody.directory, Path::new("/tmp/x/keys"));
        config.credentials(&*secrets(ready)).unwrap();
        assert_eq!(config.fleets.len(), ready.clouds.len());
        for fleet in config.fleets.values() {
            let account = &config.accounts[&fleet.account];
            let cloud = ready.clouds.iter().find(|cloud| cloud.provider == account.provider).unwrap();
            assert_eq!(account.endpoint(&fleet.region).as_ref(), Some(&cloud.endpoint));
            assert_eq!(fleet.region.as_str(), cloud.region);
            assert_eq!(fleet.select, crate::provider::Select::Tags(cloud.tags.clone()));
        }
    }
}
