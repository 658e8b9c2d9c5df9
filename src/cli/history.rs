//! `rekeyd history FLEET`: the journals of a fleet, newest first.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::model::FleetName;
use crate::rotation::Plan;
use crate::store::Head;

use super::journals::{Folded, Journals};
use super::output::{moment, table};
use super::status::Progress;
use super::{Exit, Scene};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The fleet
    fleet: FleetName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let (config, fleet) = (scene.config()?, &arguments.fleet);
    let journals = Journals::open(&config).await?;
    let heads = journals.heads_of(fleet).await?;
    if heads.is_empty() && !config.fleets.contains_key(fleet) {
        bail!("there is no fleet {fleet:?} in the config file, and no journal of one");
    }
    let mut lines = Vec::new();
    for head in heads.iter().rev() {
        lines.push(Line::read(&journals, head).await);
    }
    let spoilt = lines.iter().any(|line| line.problem.is_some());
    if arguments.json {
        let all: Vec<Value> = lines.iter().map(Line::json).collect();
        scene.out.json(&json!({ "fleet": fleet, "journals": all }))?;
    } else if lines.is_empty() {
        scene.out.line(format!("fleet {fleet} was never rotated"));
    } else {
        let rows: Vec<Vec<String>> = lines.iter().map(Line::row).collect();
        scene.out.print(&table(0, &["BEGUN", "WHAT", "OUTCOME", "ENDED", "KEY PAIR", "JOURNAL", "INSTANCES"], &rows));
    }
    Ok(if spoilt { Exit::Failed } else { Exit::Done })
}

/// One journal.
struct Line<'a> {
    head: &'a Head,
    progress: Option<Progress>,
    problem: Option<String>,
}

impl<'a> Line<'a> {
    async fn read(journals: &Journals, head: &'a Head) -> Self {
        match journals.fold(head).await {
            Ok(Folded::Rotation(rotation, instances)) => {
                let progress = Some(Progress::of(journals, head, &rotation, &instances));
                Self { head, progress, problem: None }
            }
            Ok(Folded::Retirement(_)) => Self { head, progress: None, problem: None },
            Err(error) => Self { head, progress: None, problem: Some(format!("{error:#}")) },
        }
    }

    fn kind(&self) -> &'static str {
        match &self.head.plan {
            Plan::Rotate(plan) => plan.purpose().name(),
            Plan::Retire(_) => "retirement",
        }
    }

    fn row(&self) -> Vec<String> {
        let (ended, outcome) = match &self.head.ended {
            Some((at, outcome)) => (moment(*at), outcome.to_string()),
            None => (String::new(), "open".to_string()),
        };
        let counts = self.progress.as_ref().map(|progress| progress.counts.text());
        vec![
            moment(self.head.begun),
            self.kind().to_string(),
            outcome,
            ended,
            self.head.plan.key_name().to_string(),
            self.head.id.to_string(),
            self.problem.clone().or(counts).unwrap_or_default(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "journal": self.head.id,
            "kind": self.kind(),
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
        })
    }
}
