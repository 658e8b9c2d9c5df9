//! `rekeyd demo`: the daemon itself, with nothing prepared. The four clouds are simulated in this process, on real sockets;
//! config, store, custody, schedule and pages are the real ones, in a fresh directory. After the first round the guests are
//! asked which key they accept: what the journals say counts for nothing there.

mod look_back;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::daemon::{self, Daemon, SharedEnv};
use crate::model::{FleetName, RequestId, Timestamp};
use crate::rotation::policy::later;
use crate::rotation::{Author, Entry, Event, HoldReason, Plan};
use crate::sim::guest::Sshd;
use crate::sim::serve::{Options, Ready, Running, ServeError, serve};
use crate::store::{Agenda, Answer, Ask, Head, Journal, Sqlite};
use crate::telemetry::Listening;

use super::journals::Journals;
use super::output::{Tone, count};
use super::progress::Progress;
use super::signals::Signals;
use super::sim::above;
use super::{Exit, Scene};
use look_back::look_back;

/// The demo's config file. Its paths, ports and secrets are put in below.
const CONFIG: &str = include_str!("../../config/demo.yaml");
/// The directory that stands in it.
const DIRECTORY: &str = "/tmp/rekeyd-demo";
/// Where its pages are, unless somebody is there.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9797);
/// Machines in each cloud.
const INSTANCES: usize = 10;
/// How long a simulated machine takes to stop or start: long enough to be seen, short enough to watch.
const OPERATION: Duration = Duration::from_millis(500);
/// A round is this many rotations of each fleet: the second one shows how the first one's key pair is retired.
const ROTATIONS: usize = 2;
/// A round that takes longer has fallen short.
const ROUND_MAX: Duration = Duration::from_secs(600);
/// Between two looks at the journals.
const LOOK: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// End after the first round, non-zero if anything fell short
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let begun = SystemClock.now();
    let mut signals = Signals::new()?;
    let directory = make_directory(&scene.env)?;
    let sshd = Sshd::is_installed().then(|| Sshd::under(above(&scene.env)));
    let options = Options { instances: INSTANCES, operation_time: OPERATION, sshd, ..Options::default() };
    let running = match serve(options.clone()).await {
        // The demo does without where sshd is there and cannot be used.
        Err(ServeError::Guests(_)) => serve(Options { sshd: None, ..options }).await?,
        served => served?,
    };
    let listener = match Listening::bind(LISTEN).await {
        Ok(listener) => listener,
        Err(_) => {
            Listening::bind((Ipv4Addr::LOCALHOST, 0).into()).await.context("no loopback port for the demo's pages")?
        }
    };
    let listen = listener.address().to_string();
    let file = directory.join("rekeyd.yaml");
    let text = fill_in(CONFIG, &directory, &listen, running.ready(), begun);
    std::fs::write(&file, &text).with_context(|| file.display().to_string())?;
    let config = Arc::new(config::load(&text, &file, &daemon::cloud).context("the demo's config file cannot be used")?);
    scene.out.line(format!(
        "four simulated clouds with {INSTANCES} tagged machines each; config, store and custody in {}; \
         metrics on http://{listen}/metrics",
        directory.display()
    ));
    let (stop, asked) = watch::channel(false);
    let daemon = Daemon {
        reload: None,
        config: config.clone(),
        env: secrets(running.ready()),
        listener,
        observers: vec![Arc::new(Progress::new(scene.out, &*scene.env))],
    };
    let mut life = tokio::spawn(daemon.run(asked));
    let round = async {
        let mut short = first_round(&config).await?;
        let (rows, shortfall) = look_back_at_rest(&config, &running).await?;
        short.extend(shortfall);
        Ok::<_, anyhow::Error>((rows, short))
    };
    let (rows, short) = tokio::select! {
        round = round => round?,
        ended = &mut life => {
            ended.context("the daemon was lost")??;
            bail!("the daemon ended before the first round was over");
        }
        () = signals.next() => {
            stop.send_replace(true);
            life.await.context("the daemon was lost")??;
            bail!("stopped as asked; the simulated clouds are gone with this process, the journals are in {}", directory.display());
        }
    };
    let took = SystemClock.now().duration_since(begun).as_secs();
    report(scene, took, &rows, &short);
    scene.out.print(&where_to_look(&scene.program, &file, &config));
    if let Some(ssh) = running.ready().clouds.iter().find_map(|cloud| cloud.ssh.as_ref()) {
        let (keys, control) = (&config.custody.keeper, &running.ready().control);
        scene.out.line(format!(
            "  guests    ssh -p {} -i {keys}/NAME {}@ADDRESS  (real sshd; addresses in {control}/state)\n",
            ssh.port, ssh.user
        ));
    }
    if !arguments.once {
        scene.out.line(
            "the daemon goes on by its schedule (each fleet every three minutes) until Ctrl-C; try status, hold and \
             release in a second terminal",
        );
        tokio::select! {
            ended = &mut life => {
                ended.context("the daemon was lost")??;
                bail!("the daemon ended by itself");
            }
            () = signals.next() => scene.out.line("stopping: calls under way get 8 s; again to end at once"),
        }
    }
    stop.send_replace(true);
    tokio::select! {
        ended = life => ended.context("the daemon was lost")??,
        () = signals.next() => {}
    }
    Ok(if short.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Asks the daemon to rotate each fleet twice, as `rekeyd rotate` does from another terminal, and waits until that is done
/// and the first key pair retired. What fell short is answered.
async fn first_round(config: &Config) -> Result<Vec<String>> {
    let until = later(SystemClock.now(), ROUND_MAX);
    // The daemon makes the database; nobody may change it under its feet, so it is waited for.
    let store = loop {
        match Sqlite::open_to_write(&config.store).await {
            Ok(store) => break store,
            Err(error) if SystemClock.now() > until => return Err(error.into()),
            Err(_) => SystemClock.sleep_until(later(SystemClock.now(), LOOK)).await,
        }
    };
    let mut asked: BTreeMap<&FleetName, Vec<RequestId>> = BTreeMap::new();
    let mut short = Vec::new();
    let mut left: BTreeSet<&FleetName> = config.fleets.keys().collect();
    while !left.is_empty() {
        let heads = store.heads().await?.readable;
        for fleet in left.clone() {
            let of_fleet: Vec<&Head> = heads.iter().filter(|head| head.plan.fleet() == fleet).collect();
            match stand(&store, &of_fleet, asked.entry(fleet).or_default()).await? {
                Stand::Ask => {
                    let by = Author::Operator("demo".to_string());
                    let id = store.ask(fleet, &Ask::rotate(), &by, SystemClock.now()).await?;
                    asked.entry(fleet).or_default().push(id);
                }
                Stand::UnderWay => {}
                Stand::Done => drop(left.remove(fleet)),
                Stand::Short(why) => {
                    left.remove(fleet);
                    short.push(format!("{fleet}: {why}"));
                }
            }
        }
        if SystemClock.now() > until {
            short.extend(left.iter().map(|fleet| format!("{fleet}: not done after {} s", ROUND_MAX.as_secs())));
            break;
        }
        SystemClock.sleep_until(later(SystemClock.now(), LOOK)).await;
    }
    store.close().await;
    Ok(short)
}

/// How a fleet stands in its first round.
enum Stand {
    Ask,
    UnderWay,
    Done,
    Short(String),
}

async fn stand(store: &Sqlite, heads: &[&Head], asked: &[RequestId]) -> Result<Stand> {
    if let Some(last) = asked.last()
        && let Some((_, Answer::Refused(why))) = store.request(*last).await?.answer
    {
        return Ok(Stand::Short(why));
    }
    let mut open = Vec::new();
    for head in heads.iter().filter(|head| head.ended.is_none()) {
        if !is_retired(head, &store.read(head.id, 0).await?) {
            open.push(head);
        }
    }
    if let Some(open) = open.first() {
        return Ok(match stuck(&store.read(open.id, 0).await?) {
            None => Stand::UnderWay,
            Some(reason) => Stand::Short(format!("held: {reason}")),
        });
    }
    // All of them are done, as far as they go today.
    let ended = |kind: fn(&Plan) -> bool| heads.iter().filter(|head| kind(&head.plan)).count();
    let rotations = ended(|plan| matches!(plan, Plan::Rotate(_)));
    let retired = ended(|plan| matches!(plan, Plan::Retire(_)));
    Ok(match (rotations, retired) {
        (rotations, retired) if rotations >= ROTATIONS && retired + 1 >= rotations => Stand::Done,
        // Asked and not begun yet, or its retire journal is about to begin.
        (rotations, _) if asked.len() > rotations || rotations >= ROTATIONS => Stand::UnderWay,
        _ => Stand::Ask,
    })
}

/// Why a journal goes no further by itself. A person at the other terminal who holds it is waited for.
fn stuck(entries: &[Entry]) -> Option<&HoldReason> {
    let held = entries.iter().rev().find_map(|entry| match &entry.event {
        Event::Held { reason } => Some(Some(reason)),
        Event::Released { .. } => Some(None),
        _ => None,
    });
    held.flatten().filter(|reason| !matches!(reason, HoldReason::Operator { .. }))
}

/// Whether a retire journal has gone as far as it can in a demo: its pair is deleted. With logins as proof its private
/// half waits for the machine that stays switched off: nobody has seen that one take a newer key.
fn is_retired(head: &Head, entries: &[Entry]) -> bool {
    let deleted = entries.iter().any(|entry| matches!(entry.event, Event::KeyPairDeleted));
    matches!(&head.plan, Plan::Retire(plan) if head.ended.is_some() || (plan.proven && deleted))
}

/// Looks back at a moment at which nothing is under way: a tick of the schedule may come at any time. What is held has fallen
/// short, and is no reason to wait.
async fn look_back_at_rest(config: &Config, running: &Running) -> Result<(Vec<Vec<String>>, Vec<String>)> {
    let until = later(SystemClock.now(), ROUND_MAX);
    loop {
        let journals = Journals::open(config).await?;
        let before = journals.heads().await?;
        let seen = look_back(config, running).await?;
        let mut open = 0;
        for head in before.readable.iter().filter(|head| head.ended.is_none()) {
            let entries = journals.entries(head.id).await?;
            open += usize::from(!is_retired(head, &entries) && stuck(&entries).is_none());
        }
        let rested = open == 0 && journals.heads().await? == before;
        if rested || SystemClock.now() > until {
            return Ok(seen);
        }
        SystemClock.sleep_until(later(SystemClock.now(), LOOK)).await;
    }
}

/// Says what was done, and what fell short.
fn report(scene: &Scene, took: i64, rows: &[Vec<String>], short: &[String]) {
    let heads =
        ["FLEET", "ROTATIONS", "ACTIVE", "AT NEXT BOOT", "LEFT OUT", "EXCLUDED", "PAIRS RETIRED", "PRIVATE KEY"];
    scene.out.line(String::new());
    scene.out.line(scene.out.tone(Tone::Strong, format!("what was done, in {}", count_seconds(took))));
    scene.out.print(&scene.out.table_in_lines(&[heads.len() - 1, 1], &heads, rows));
    scene.out.line(String::new());
    for problem in short {
        scene.out.line(scene.out.tone(Tone::Bad, format!("fell short: {problem}")));
    }
    if short.is_empty() {
        let text = "every machine that was to be rotated accepts exactly the newest key, in its guest; power is as it \
                    was; no other key pair of rekeyd's is left; no rule of a cloud was broken";
        scene.out.line(scene.out.tone(Tone::Good, text));
    }
}

/// A directory of its own, for nobody else's eyes.
fn make_directory(env: &SharedEnv) -> Result<PathBuf> {
    let above = std::path::absolute(above(env))?;
    let directory = above.join(format!("rekeyd-demo-{:08x}", rand::random::<u32>()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
    made.with_context(|| format!("no directory for the demo: {}", directory.display()))?;
    Ok(directory)
}

/// The demo's config file with these paths and these ports, and with a schedule whose first tick comes after the first
/// round. The clouds' ports in the file are their numbers.
fn fill_in(text: &str, directory: &Path, listen: &str, ready: &Ready, now: Timestamp) -> String {
    let first = now.to_zoned(jiff::tz::TimeZone::UTC).minute() % 3;
    let line = |line: &str| {
        let cloud =
            ready.clouds.iter().zip(1..).find(|(_, number)| line.ends_with(&format!("http://127.0.0.1:{number}")));
        match cloud {
            Some((cloud, number)) => line.replace(&format!("http://127.0.0.1:{number}"), &cloud.endpoint),
            None if line.starts_with("listen:") => format!("listen: {listen}"),
            None if line == "  verify: none" => match ready.clouds.iter().find_map(|cloud| cloud.ssh.as_ref()) {
                Some(ssh) => {
                    format!("  verify: {{ ssh: {{ user: {}, port: {}, address: private }} }}", ssh.user, ssh.port)
                }
                None => line.to_string(),
            },
            None => line.replace("*/3", &format!("{first}-59/3")).replace(DIRECTORY, &directory.display().to_string()),
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

fn count_seconds(seconds: i64) -> String {
    count(usize::try_from(seconds).unwrap_or_default(), "second")
}

fn where_to_look(program: &str, file: &Path, config: &Config) -> String {
    let file = file.display();
    let fleet = config.fleets.keys().next().map(ToString::to_string).unwrap_or_default();
    let listen = config.listen;
    format!(
        "\nwhere to look (the simulated clouds end with this process; the journals and keys stay):\n  \
         {program} --config {file} status\n  \
         {program} --config {file} history {fleet}\n  \
         {program} --config {file} show {fleet}\n  \
         {program} --config {file} hold {fleet}      (and release {fleet})\n  \
         metrics   http://{listen}/metrics  (and /healthz, /readyz)\n  \
         config    {file}\n  \
         journals  {} (SQLite)\n  \
         keys      {} (OpenSSH, as `ssh -i` takes them)\n",
        config.store.display(),
        config.custody.keeper,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_demos_file_is_filled_in_and_asks_for_nothing_that_the_demo_does_not_have() {
        let running = serve(Options::default()).await.unwrap();
        let ready = running.ready();
        let text =
            fill_in(CONFIG, Path::new("/tmp/x"), "127.0.0.1:1234", ready, "2026-11-22T10:58:30Z".parse().unwrap());
        let config = config::load(&text, Path::new("demo.yaml"), &daemon::cloud).unwrap();
        assert_eq!(config.store, Path::new("/tmp/x/rekeyd.db"));
        assert_eq!(config.custody.keeper.directory(), Some(Path::new("/tmp/x/keys")));
        assert_eq!(config.listen.to_string(), "127.0.0.1:1234");
        config.credentials(&*secrets(ready)).unwrap();
        assert_eq!(config.fleets.len(), ready.clouds.len());
        let schedules = config.fleets.values().map(|fleet| fleet.schedule.as_ref().unwrap().expression.as_str());
        assert_eq!(schedules.collect::<BTreeSet<_>>(), ["0 1-59/3 * * * *"].into());
        for fleet in config.fleets.values() {
            let account = &config.accounts[&fleet.account];
            let cloud = ready.clouds.iter().find(|cloud| cloud.provider == account.provider).unwrap();
            assert_eq!(account.endpoint(&fleet.region).as_ref(), Some(&cloud.endpoint));
            assert_eq!(fleet.region.as_str(), cloud.region);
            assert_eq!(fleet.select, crate::provider::Select::Tags(cloud.tags.clone()));
        }
    }
}
