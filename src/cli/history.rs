//! `rekeyd history [FLEET]`: the journals, newest first; of a fleet, of an instance, of a key, of a time. It reads, and must
//! never leave out a journal because it cannot be read.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::model::{FleetName, InstanceId, KeyPairName, Timestamp};
use crate::rotation::{Phase, Plan, PlannedInstance, Rotation};
use crate::store::Head;

use super::fate::Fate;
use super::journals::{Folded, Journals};
use super::output::{self, count, moment, span};
use super::status::Progress;
use super::story::kind;
use super::when::{self, End};
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only journals of this fleet
    fleet: Option<FleetName>,
    /// Only rotations whose plan had this instance, and what became of it in each
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// Only journals of this key: its pair's name, the cloud's id of the pair, or the fingerprint (SHA256:...) or its beginning
    #[arg(long, value_name = "NAME|FINGERPRINT")]
    key: Option<String>,
    /// Only what was not over before this time: a date, 2026-11-01T03:00, or 7d for seven days ago; UTC
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what had begun by this time; a date means its end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The time that is asked for; all of it where nothing is said.
    fn span(&self, now: Timestamp) -> Result<(Timestamp, Timestamp)> {
        let read = |name: &str, text: &Option<String>, end, none| match text {
            Some(text) => when::parse(text, now, end).map_err(|why| anyhow::anyhow!("--{name}: {why}")),
            None => Ok(none),
        };
        let since = read("since", &self.since, End::First, Timestamp::MIN)?;
        let until = read("until", &self.until, End::Last, Timestamp::MAX)?;
        if until < since {
            bail!("--until {} is before --since {}: nothing lies between them", moment(until), moment(since));
        }
        Ok((since, until))
    }
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let (since, until) = arguments.span(SystemClock.now())?;
    let config = scene.config()?;
    let journals = Journals::open(&config).await?;
    let all = journals.heads().await?;
    let of_fleet = |fleet: &FleetName| arguments.fleet.as_ref().is_none_or(|asked| asked == fleet);
    let heads: Vec<&Head> = all.readable.iter().filter(|head| of_fleet(head.plan.fleet())).collect();
    // One that may be any fleet's may be this one's.
    let unreadable: Vec<_> = all.unreadable.iter().filter(|one| one.fleet.as_ref().is_none_or(of_fleet)).collect();
    if let Some(fleet) = &arguments.fleet
        && heads.is_empty()
        && unreadable.iter().all(|one| one.fleet.is_none())
        && !config.fleets.contains_key(fleet)
    {
        bail!("there is no fleet {fleet:?} in the config file, and no journal of one");
    }
    let (mut lines, mut names) = (Vec::new(), BTreeSet::new());
    for head in heads.iter().rev() {
        let line = Line::read(&journals, head, arguments.instance.as_ref()).await;
        if arguments.key.as_ref().is_some_and(|key| line.is_of(key)) {
            names.insert(head.plan.key_name().clone());
        }
        lines.push(line);
    }
    lines.retain(|line| line.is_within(since, until) && line.is_asked(arguments, &names));
    let spoilt = !unreadable.is_empty() || lines.iter().any(|line| line.problem.is_some());
    if arguments.json {
        let unreadable = unreadable.iter().map(|one| json!({ "journal": one.journal, "problem": one.problem }));
        scene.out.json(&json!({
            "fleet": arguments.fleet,
            "journals": lines.iter().map(|line| line.json(arguments.instance.as_ref())).collect::<Vec<_>>(),
            "unreadable": unreadable.collect::<Vec<_>>(),
        }))?;
    } else {
        print(scene, arguments, &lines);
        for one in unreadable {
            output::complain(&format!("journal {} cannot be read: {}\n", one.journal, one.problem));
        }
    }
    Ok(if spoilt { Exit::Failed } else { Exit::Done })
}

fn print(scene: &Scene, arguments: &Arguments, lines: &[Line<'_>]) {
    let asked =
        [arguments.instance.is_some(), arguments.key.is_some(), arguments.since.is_some(), arguments.until.is_some()];
    if lines.is_empty() {
        scene.out.line(match (&arguments.fleet, asked.contains(&true)) {
            (_, true) => {
                "no journal is like that; without --instance, --key, --since and --until all are shown".to_string()
            }
            (Some(fleet), false) => format!("fleet {fleet} was never rotated"),
            (None, false) => "nothing was ever rotated from here".to_string(),
        });
        return;
    }
    let last = if arguments.instance.is_some() { "WHAT BECAME OF IT" } else { "INSTANCES" };
    let mut heads = vec!["BEGUN", "FLEET", "WHAT", "OUTCOME", "TOOK", "JOURNAL", "KEY PAIR", last];
    let mut rows: Vec<Vec<String>> = lines.iter().map(Line::row).collect();
    if arguments.fleet.is_some() {
        heads.remove(1);
        rows.iter_mut().for_each(|row| drop(row.remove(1)));
    }
    scene.out.print(&scene.out.table_in_lines(&[heads.len() - 3, 2, 1], &heads, &rows));
    let plain = lines.len() > 1 && asked.contains(&true);
    if plain {
        scene.out.line(count(lines.len(), "journal"));
    }
}

/// One journal.
struct Line<'a> {
    head: &'a Head,
    folded: Option<(Rotation, Vec<PlannedInstance>)>,
    progress: Option<Progress>,
    /// What became of the instance that is asked for.
    fate: Option<Fate>,
    problem: Option<String>,
}

impl<'a> Line<'a> {
    async fn read(journals: &Journals, head: &'a Head, instance: Option<&InstanceId>) -> Self {
        let bare = Self { head, folded: None, progress: None, fate: None, problem: None };
        match journals.fold(head).await {
            Ok(Folded::Rotation(rotation, instances)) => Self {
                progress: Some(Progress::of(journals, head, &rotation, &instances)),
                fate: instance.and_then(|id| Fate::of(&rotation, instances.iter().find(|one| one.id == *id)?)),
                folded: Some((*rotation, instances)),
                ..bare
            },
            Ok(Folded::Retirement(_)) => bare,
            Err(error) => Self { problem: Some(format!("{error:#}")), ..bare },
        }
    }

    /// Whether it was open at some moment of this time.
    fn is_within(&self, since: Timestamp, until: Timestamp) -> bool {
        self.head.begun <= until && self.head.ended.is_none_or(|(at, _)| at >= since)
    }

    /// Whether its own key is this one.
    fn is_of(&self, key: &str) -> bool {
        let rotation = self.folded.as_ref().map(|(rotation, _)| rotation);
        let fingerprint = rotation.and_then(|rotation| rotation.key.as_ref()).map(|(_, print)| print.to_string());
        let pair = rotation.and_then(|rotation| rotation.key_pair.as_ref()).map(|(_, pair)| pair.as_str());
        let begins = key.strip_prefix("SHA256:").is_some_and(|rest| !rest.is_empty());
        self.head.plan.key_name().as_str() == key
            || pair == Some(key)
            || fingerprint.is_some_and(|print| print == key || begins && print.starts_with(key))
    }

    /// Whether it is about what was asked for. What cannot be read may be about anything, and is shown.
    fn is_asked(&self, arguments: &Arguments, names: &BTreeSet<KeyPairName>) -> bool {
        let of_key = arguments.key.is_none() || names.contains(self.head.plan.key_name());
        let of_instance = arguments.instance.is_none() || self.fate.is_some();
        (of_key && of_instance) || self.problem.is_some()
    }

    fn row(&self) -> Vec<String> {
        let (took, outcome) = match &self.head.ended {
            Some((at, outcome)) => (span(self.head.begun, *at), outcome.to_string()),
            None => (String::new(), "open".to_string()),
        };
        let counts = self.progress.as_ref().map(|progress| progress.counts.text());
        let fate = self.fate.as_ref().map(ToString::to_string);
        vec![
            moment(self.head.begun),
            self.head.plan.fleet().to_string(),
            kind(&self.head.plan).to_string(),
            outcome,
            took,
            self.head.id.to_string(),
            self.head.plan.key_name().to_string(),
            self.problem.clone().or(fate).or(counts).unwrap_or_default(),
        ]
    }

    fn json(&self, instance: Option<&InstanceId>) -> Value {
        let mut line = json!({
            "journal": self.head.id,
            "fleet": self.head.plan.fleet(),
            "kind": kind(&self.head.plan),
            "key_pair": self.head.plan.key_name(),
            "begun": self.head.begun,
            "ended": self.head.ended.map(|(at, _)| at),
            "outcome": self.head.ended.map(|(_, outcome)| outcome),
            "entries": self.head.seq,
            "undoes": match &self.head.plan {
                Plan::Rotate(plan) => plan.undoes,
                Plan::Retire(_) => None,
            },
            "rotation": self.progress,
            "problem": self.problem,
        });
        if let (Some(id), Some(fate)) = (instance, &self.fate) {
            line["instance"] = json!({
                "id": id,
                "name": fate.name,
                "batch": fate.batch,
                "phase": fate.phase.map_or("left_out", Phase::name),
                "since": fate.since,
                "says": fate.to_string(),
            });
        }
        line
    }
}
