//! `rekeyd adopt`: records anew what a lost database knew, from what clouds and custody still show. Nothing is bound, rebooted
//! or made; where logins prove keys, they are proven. Killed at any moment, the same command goes on.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::watch;

use crate::config::Config;
use crate::daemon::{self, Clouds, Driver};
use crate::engine::adopt::{AdoptError, Inventory, go_on, is_recorded, record, take_stock};
use crate::engine::drive::Reached;
use crate::engine::planner::Proposal;
use crate::engine::{Engine, EngineError};
use crate::model::JournalId;
use crate::store::Head;

use super::credentials::Wanted;
use super::outcome::{say_ended, say_held};
use super::output::{Output, Tone, count, some};
use super::progress::Progress;
use super::rotate::interrupted;
use super::signals::Signals;
use super::{Exit, Scene, credentials, drift, owner};

/// So many ids a line.
const SHOWN: usize = 6;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Show what would be adopted, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let fleets = daemon::fleets(&config);
    if arguments.dry_run {
        credentials::at_hand(scene, Wanted::of(&config).fleets(&fleets))?;
        let clouds = Arc::new(Clouds::new(config.clone(), scene.env.clone())?);
        let tools = drift::tools(scene, &config, &clouds).await?;
        let inventory = take_stock(&tools, &fleets).await?;
        let heads = tools.journal.heads().await?.readable;
        scene.out.print(&text(scene.out, &inventory, &heads));
        let is_done = inventory.proposals.iter().all(|one| is_recorded(&heads, one));
        return Ok(if is_done { Exit::Done } else { Exit::Something });
    }
    owner::check(&config, "adopt")?;
    credentials::at_hand(scene, Wanted::of(&config).fleets(&fleets).custody())?;
    let signals = Signals::new()?;
    let driver = Driver::start_to_adopt(config.clone(), scene.env.clone()).await?;
    let (stop, asked) = watch::channel(false);
    let progress = Arc::new(Progress::new(scene.out, &*scene.env));
    let mut engine = Engine::new(driver.tools(vec![progress])).with_stop(asked);
    let result = tokio::select! {
        result = adopt_all(scene.out, &config, &mut engine) => result,
        () = interrupted(signals, stop) => Err(EngineError::Stopped.into()),
    };
    drop(engine);
    driver.close().await;
    match result {
        Err(AdoptError::Engine(EngineError::Stopped)) => {
            bail!("stopped as asked; `rekeyd adopt` goes on where it stopped")
        }
        other => Ok(other?),
    }
}

async fn adopt_all(out: Output, config: &Config, engine: &mut Engine) -> Result<Exit, AdoptError> {
    let mut held = false;
    for (id, reached) in go_on(engine).await? {
        held |= say(out, config, engine, id, &reached).await?;
    }
    let inventory = take_stock(engine.tools(), &daemon::fleets(config)).await?;
    out.print(&text(out, &inventory, &engine.heads().await?.readable));
    if !held {
        for (id, reached) in record(engine, &inventory).await? {
            held |= say(out, config, engine, id, &reached).await?;
        }
    }
    if held {
        out.line(out.tone(Tone::Careful, "not all is adopted: after the release `rekeyd adopt` goes on"));
        return Ok(Exit::Held);
    }
    out.line(out.tone(Tone::Good, "adopted: `rekeyd status` shows how the fleets stand, `rekeyd drift` what is amiss"));
    Ok(Exit::Done)
}

/// Says how a rotation stands, and whether it is held.
async fn say(
    out: Output,
    config: &Config,
    engine: &Engine,
    id: JournalId,
    reached: &Reached,
) -> Result<bool, AdoptError> {
    let Some(rotation) = engine.rotation(id) else { return Ok(false) };
    match reached {
        Reached::Ended(outcome) => {
            let planned = engine.tools().journal.instances(id).await?;
            out.line(say_ended(out, &config.custody.keeper, rotation, &planned, *outcome));
            Ok(false)
        }
        Reached::Held { reason, down } => {
            say_held(out, rotation, reason, down);
            Ok(true)
        }
    }
}

fn text(out: Output, inventory: &Inventory, heads: &[Head]) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{}", words.trim_end());
    };
    let new: Vec<&Proposal> = inventory.proposals.iter().filter(|one| !is_recorded(heads, one)).collect();
    line(out.tone(Tone::Strong, format!("{} to adopt; nothing is bound or rebooted", count(new.len(), "key pair"))));
    let rows: Vec<Vec<String>> = new
        .iter()
        .map(|one| {
            let last = inventory.proposals.iter().rev().find(|other| other.plan.fleet == one.plan.fleet);
            let current = last.is_some_and(|last| last.plan.key_name == one.plan.key_name);
            let ids = some(one.instances.iter().map(|instance| &instance.id), SHOWN);
            let current = if current { "current" } else { "superseded" };
            vec![one.plan.fleet.to_string(), one.plan.key_name.to_string(), current.to_string(), ids]
        })
        .collect();
    if !rows.is_empty() {
        line(out.table(2, &["FLEET", "KEY PAIR", "BECOMES", "INSTANCES"], &rows));
    }
    for (fleet, left) in &inventory.left {
        line(format!("{fleet}: not adopted: {}", count(left.len(), "instance")));
        let rows: Vec<Vec<String>> =
            left.iter().map(|left| vec![left.instance.to_string(), left.why.clone()]).collect();
        line(out.table(2, &["INSTANCE", "WHY"], &rows));
    }
    if !inventory.pairs.is_empty() {
        let names = some(&inventory.pairs, SHOWN);
        line(out.tone(
            Tone::Careful,
            format!(
                "key pairs with our mark that are not adopted: {names}: rotations hold for them; delete each in the cloud's \
                 console once nobody needs it"
            ),
        ));
    }
    if !inventory.halves.is_empty() {
        line(format!("private keys without an adopted pair, kept: {}", some(&inventory.halves, SHOWN)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Plan;

    #[test]
    fn what_is_shown_names_the_current_pair_and_what_is_left() {
        let place = r#"{"account":"lh","provider":"tencent-lighthouse","endpoint":null,"region":"r"}"#;
        let proposal = |fleet: &str, name: &str| {
            let plan = format!(
                r#"{{"kind":"rotate","fleet":"{fleet}","place":{place},"select":"all","key_name":"{name}","key_bits":2048,
                "disruption":"stops_instance","policy":{{"unavailable_max":1,"failures_max":0,"soak":{{"secs":0,"nanos":0}},
                "force_stop":false,"grace":{{"secs":0,"nanos":0}}}}}}"#
            );
            let Ok(Plan::Rotate(plan)) = serde_json::from_str(&plan) else { panic!("no plan: {plan}") };
            let forecast = crate::engine::planner::Forecast {
                batches: Vec::new(),
                calls: Default::default(),
                goes_down: 0,
                downtime: Default::default(),
                canary_proves_nothing: false,
                loses_password: Vec::new(),
            };
            Proposal { plan, instances: Vec::new(), forecast, notes: Vec::new(), findings: Vec::new() }
        };
        let inventory = Inventory {
            proposals: vec![proposal("web", "rkm_1"), proposal("web", "rkm_2"), proposal("db", "rkm_3")],
            left: vec![(
                "web".into(),
                vec![crate::rotation::adopt::Left { instance: "i-9".into(), why: "bound to no key pair".into() }],
            )],
            pairs: vec!["rkm_0".into()],
            halves: vec!["rkm_9".into()],
        };
        let plain = Output::to_stdout(&|name| (name == "NO_COLOR").then(|| "1".into()));
        let db = inventory.proposals[2].plan.clone();
        let id = JournalId::NIL;
        let head = Head { id, plan: Plan::Rotate(db), begun: crate::model::Timestamp::UNIX_EPOCH, ended: None, seq: 1 };
        let text = text(plain, &inventory, &[head]);
        assert!(text.starts_with("2 key pairs to adopt; nothing is bound or rebooted\n"), "{text}");
        assert!(text.contains("rkm_1     superseded") && text.contains("rkm_2     current"), "{text}");
        assert!(text.contains("i-9       bound to no key pair"), "{text}");
        assert!(text.contains("not adopted: rkm_0: rotations hold") && text.contains("kept: rkm_9"), "{text}");
    }
}
