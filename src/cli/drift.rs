//! `rekeyd drift [FLEET…]`: where clouds, custody and machines differ from what the journals record. It looks beside whoever
//! drives, or without one; it must never change anything, here or there.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::config::Config;
use crate::custody::{self, Keeper};
use crate::daemon::{self, Clouds, keeping};
use crate::engine::survey::{self, Survey};
use crate::engine::{Tools, planner};
use crate::model::{FleetName, Mark};
use crate::rotation::{Deviation, DriftKind};
use crate::store::{self, DriverLock, Journal, Sqlite};

use super::credentials::Wanted;
use super::lost::lost;
use super::output::{Output, Tone, count, some};
use super::{Exit, Scene, credentials};

/// So many fleets are looked at together.
const AT_ONCE: usize = 4;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only these fleets; without any, all of the file, and what belongs to no fleet alone
    fleets: Vec<FleetName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    deviations: Vec<Found>,
    /// What could not be seen: of that nothing is said.
    unseen: Vec<Unseen>,
    unreached: Vec<Unreached>,
}

#[derive(Debug, Serialize)]
struct Found {
    /// `None`: the whole installation's.
    fleet: Option<FleetName>,
    #[serde(flatten)]
    deviation: Deviation,
}

#[derive(Debug, Serialize)]
struct Unseen {
    fleet: Option<FleetName>,
    why: String,
}

/// Machines that were not reached to be offered their old keys, or to show their host keys.
#[derive(Debug, Serialize)]
struct Unreached {
    fleet: Option<FleetName>,
    machines: usize,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let mut fleets = daemon::fleets(&config);
    if let Some(unknown) = arguments.fleets.iter().find(|name| !config.fleets.contains_key(name)) {
        bail!("there is no fleet {unknown:?} in the config file; it has {}", some(config.fleets.keys(), 20));
    }
    let is_meant = |fleet: &&planner::Fleet| arguments.fleets.is_empty() || arguments.fleets.contains(&fleet.name);
    credentials::at_hand(scene, Wanted::of(&config).fleets(fleets.iter().filter(is_meant)))?;
    let clouds = Arc::new(Clouds::new(config.clone(), scene.env.clone())?);
    let tools = tools(scene, &config, &clouds).await?;
    // Whose lock this account may not look at is taken to be driving: a young debt is then no drift.
    let driven = DriverLock::is_held(&config.store).unwrap_or(true);
    let mut report = Report { deviations: Vec::new(), unseen: Vec::new(), unreached: Vec::new() };
    if let Some(lost) = lost(&config, &scene.env, &tools.journal.heads().await?).await {
        // Nothing is left to hold the world against.
        report.unseen.push(Unseen { fleet: None, why: lost.to_string() });
    }
    if arguments.fleets.is_empty() {
        report.take(None, survey::holdings(&tools, &fleets).await);
    } else {
        fleets.retain(|fleet| arguments.fleets.contains(&fleet.name));
    }
    let look = async |fleet: &planner::Fleet| (fleet.name.clone(), survey::fleet(&tools, fleet, driven).await);
    let surveys: Vec<(FleetName, Survey)> = stream::iter(&fleets).map(look).buffered(AT_ONCE).collect().await;
    for (fleet, survey) in surveys {
        report.take(Some(fleet), survey);
    }
    match arguments.json {
        true => scene.out.json(&report)?,
        false => scene.out.print(&report.text(scene.out, fleets.len())),
    }
    Ok(match (report.unseen.is_empty(), report.deviations.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Something,
        (true, true) => Exit::Done,
    })
}

/// What a survey works with: the journals, read only; custody, if it is there.
pub(super) async fn tools(scene: &Scene, config: &Arc<Config>, clouds: &Arc<Clouds>) -> Result<Tools> {
    let is_there = |path: &Path| path.try_exists().with_context(|| path.display().to_string());
    let has_store = is_there(&config.store)?;
    let journal: Arc<dyn Journal> = match has_store {
        true => Arc::new(Sqlite::open_to_read(&config.store).await.context("the store cannot be read")?),
        false => Arc::new(store::Memory::new()),
    };
    // To open custody makes its directories: a verb that only looks does not.
    if let Keeper::Directory { places, .. } = &config.custody.keeper {
        if !has_store && !is_there(&places.directory)? {
            let nothing = Arc::new(custody::Memory::new());
            return Ok(clouds.tools_to_look(journal, nothing, config.installation.clone()));
        }
        for place in std::iter::once(&places.directory).chain(&places.copies) {
            if !is_there(place)? {
                bail!("custody: {} is not there: see that its disk is mounted", place.display());
            }
        }
    }
    credentials::at_hand(scene, Wanted::of(config).custody())?;
    let keys = keeping::custodian(config, &scene.env).await;
    let keys = keys.context("custody cannot be read; give the command as the account that it belongs to")?;
    let kept: Option<Mark> = keys.kept_mark().await.context("custody cannot be read")?;
    Ok(clouds.tools_to_look(journal, keys, kept.or_else(|| config.installation.clone())))
}

impl Report {
    fn take(&mut self, fleet: Option<FleetName>, survey: Survey) {
        let found = survey.deviations.into_iter().map(|deviation| Found { fleet: fleet.clone(), deviation });
        self.deviations.extend(found);
        self.unseen.extend(survey.unseen.into_iter().map(|why| Unseen { fleet: fleet.clone(), why }));
        if survey.unreached > 0 {
            self.unreached.push(Unreached { fleet, machines: survey.unreached });
        }
    }

    fn text(&self, out: Output, fleets: usize) -> String {
        let of = |fleet: &Option<FleetName>| fleet.as_ref().map_or("installation".to_string(), ToString::to_string);
        let mut text = String::new();
        let mut line = |words: String| {
            text.push_str(words.trim_end());
            text.push('\n');
        };
        for together in self.deviations.chunk_by(|a, b| (&a.fleet, a.deviation.kind) == (&b.fleet, b.deviation.kind)) {
            let (fleet, kind) = (of(&together[0].fleet), together[0].deviation.kind);
            line(out.tone(Tone::Careful, format!("{fleet}: {kind}: {}", explain(kind))));
            let rows: Vec<Vec<String>> = together
                .iter()
                .map(|Found { deviation, .. }| {
                    vec![deviation.subject.clone(), deviation.recorded.clone(), deviation.seen.clone()]
                })
                .collect();
            line(out.table(2, &[subject(kind), "RECORDED", "SEEN"], &rows));
            for way in together.chunk_by(|a, b| a.deviation.way == b.deviation.way) {
                line(format!("  way on: {}", way[0].deviation.way));
            }
        }
        for Unreached { fleet, machines } in &self.unreached {
            let machines = count(*machines, "machine");
            line(format!("{}: {machines} not reached: their old keys and host keys could not be tried", of(fleet)));
        }
        for Unseen { fleet, why } in &self.unseen {
            line(out.tone(Tone::Bad, format!("{}: not seen: {why}", of(fleet))));
        }
        line(match self.deviations.len() {
            0 if self.unseen.is_empty() => out.tone(Tone::Good, format!("no drift in {}", count(fleets, "fleet"))),
            number => format!("{} in {}", count(number, "deviation"), count(fleets, "fleet")),
        });
        text
    }
}

/// The kind in words.
fn explain(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::OtherKey => "bound to another key pair than recorded, or to one besides",
        DriftKind::NoKey => "was bound, and is bound to no key pair",
        DriftKind::UnknownPair => "a key pair with our mark that no journal knows",
        DriftKind::MissingPair => "a key pair in use is gone, or is another key",
        DriftKind::NeedlessPrivateKey => "a private key that nobody needs",
        DriftKind::MissingPrivateKey => "custody lacks the private key of a pair in use",
        DriftKind::RetiredKeyTaken => "the machine still takes a key that was superseded",
        DriftKind::OtherHostKey => "the machine shows another host key than the one it is known by",
        DriftKind::OwedStart => "is owed a start and does not run",
        DriftKind::NewInstance => "matches the selection, and was never in a plan",
    }
}

fn subject(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::UnknownPair
        | DriftKind::MissingPair
        | DriftKind::NeedlessPrivateKey
        | DriftKind::MissingPrivateKey => "KEY PAIR",
        _ => "INSTANCE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fleet: Option<&str>, kind: DriftKind, subject: &str, way: &str) -> Found {
        let deviation = Deviation {
            kind,
            subject: subject.into(),
            recorded: "rka7f3_01kam3zq5w8f3k2m".into(),
            seen: "rka7f3_01kam3zq5w000000".into(),
            way: way.into(),
        };
        Found { fleet: fleet.map(FleetName::from), deviation }
    }

    #[test]
    fn the_table_fits_a_terminal_and_says_the_way_on_once_a_kind() {
        let report = Report {
            deviations: vec![
                found(None, DriftKind::UnknownPair, "rka7f3_01kam3zq5w8f3k2m", "delete it"),
                found(Some("web"), DriftKind::OtherKey, "lhins-abcd1234", "rekeyd rotate web"),
                found(Some("web"), DriftKind::OtherKey, "lhins-efgh5678", "rekeyd rotate web"),
            ],
            unseen: vec![Unseen { fleet: Some("db".into()), why: "the cloud is away".into() }],
            unreached: vec![Unreached { fleet: Some("web".into()), machines: 1 }],
        };
        let plain = Output::to_stdout(&|name| (name == "NO_COLOR").then(|| "1".into()));
        let text = report.text(plain, 2);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(text.matches("way on: rekeyd rotate web").count(), 1, "{text}");
        assert!(text.contains("\n  INSTANCE        RECORDED                 SEEN\n"), "{text}");
        assert!(text.contains("db: not seen: the cloud is away\n3 deviations in 2 fleets\n"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["deviations"][0]["kind"], "unknown_pair");
        assert_eq!(json["deviations"][0]["fleet"], serde_json::Value::Null);
        assert_eq!(json["deviations"][1]["subject"], "lhins-abcd1234");
        let nothing = Report { deviations: Vec::new(), unseen: Vec::new(), unreached: Vec::new() };
        assert_eq!(nothing.text(plain, 1), "no drift in 1 fleet\n");
    }
}
