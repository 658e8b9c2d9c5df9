//! `rekeyd status [FLEET]`: how each fleet stands, by its journals and what the daemon saw last. It asks no cloud and needs no
//! secret.

mod who;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::daemon::SharedEnv;
use crate::model::{Fingerprint, FleetName, InstanceId, JournalId, KeyPairName, Timestamp};
use crate::rotation::standing::stands;
use crate::rotation::{HoldReason, Outcome, Plan, PlannedInstance, Purpose, Retirement, Rotation, Stage, Stand};
use crate::store::{Answer, Ask, DriverLock, Head, Heads, Request, Unreadable};

use super::counts::Counts;
use super::journals::{Agenda, Folded, Journals};
use super::output::{Tone, some};
use super::{Exit, Scene, lost::lost, plan, waits::Crowd};
use who::{LeftOut, Past, left_out, new_ones, waits_for};

/// So many ids a line.
const SHOWN: usize = 10;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only this fleet
    fleet: Option<FleetName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How everything stands.
#[derive(Debug, Serialize)]
struct Survey {
    /// Whether a rekeyd drives the store; `None`: this account may not look.
    driver: Option<bool>,
    /// The journals are lost beside private keys that are not: why nothing begins, and the way on.
    lost: Option<String>,
    /// Journals that cannot be read and may be any fleet's.
    problems: Vec<String>,
    fleets: Vec<FleetStatus>,
}

/// How a fleet stands.
#[derive(Debug, Serialize)]
struct FleetStatus {
    fleet: FleetName,
    /// Whether the config file still has it.
    configured: bool,
    /// Its schedule in the config file; `None`: by hand only.
    schedule: Option<String>,
    /// When it is due next, as the daemon reckoned it.
    next_due: Option<Timestamp>,
    /// Held as a whole: no rotation of it begins.
    hold: Option<FleetHold>,
    /// A `rotate` that nobody has taken yet, asked then.
    asked: Option<Timestamp>,
    /// The last start that was refused, if none has begun since.
    refused: Option<Refused>,
    open: Option<Progress>,
    /// The newest that was completed.
    last: Option<Progress>,
    /// The newest of the whole fleet that was completed, where that is another one.
    last_whole: Option<Progress>,
    retiring: Vec<Retiring>,
    kept: Vec<Kept>,
    /// Bound to the fleet's key by earlier rotations, and not seen to accept it since: switched off, or never proven.
    late: BTreeSet<InstanceId>,
    /// Came after the last rotation, as the daemon saw it in its newest hourly look, unless a rotation began since.
    new: Option<NewOnes>,
    /// Journals that cannot be read, and why.
    problems: Vec<String>,
}

/// A fleet's hold: who gave the order, when and why.
#[derive(Debug, Serialize)]
struct FleetHold {
    by: String,
    at: Timestamp,
    note: String,
}

/// A start that was refused.
#[derive(Debug, Serialize)]
struct Refused {
    at: Timestamp,
    why: String,
}

/// Machines with the fleet's tag that no rotation had.
#[derive(Debug, Serialize)]
struct NewOnes {
    /// When it was looked.
    at: Timestamp,
    instances: Vec<InstanceId>,
}

/// How far a rotation is, or was when it ended.
#[derive(Debug, Serialize)]
pub(super) struct Progress {
    rotation: JournalId,
    /// A rotation, a rollback or a catch-up.
    kind: &'static str,
    /// The rotation that it undoes.
    undoes: Option<JournalId>,
    begun: Timestamp,
    ended: Option<Timestamp>,
    outcome: Option<Outcome>,
    held: Option<HoldReason>,
    held_because: Option<String>,
    /// What a person can do about it.
    way_on: Option<String>,
    /// What it waits for that is neither the cloud nor a person.
    waits: Option<String>,
    key_pair: KeyPairName,
    fingerprint: Option<Fingerprint>,
    /// Where custody has it: a path, if it is a file. Nobody here has a stranger's.
    private_key: Option<String>,
    /// How to get in with it, where `ssh -i` does not simply take a file.
    way_in: Option<String>,
    /// The batch that is being worked at, and how many there are.
    batch: Option<u32>,
    batches: usize,
    pub(super) counts: Counts,
    /// Who goes no further, and who was left out by the plan.
    excluded: Vec<LeftOut>,
    owed_starts: BTreeSet<InstanceId>,
    /// Since when the oldest of them is owed.
    owed_since: Option<Timestamp>,
}

/// A retire journal that has not ended.
#[derive(Debug, Serialize)]
struct Retiring {
    journal: JournalId,
    key_pair: KeyPairName,
    state: &'static str,
    until: Option<Timestamp>,
    why: String,
    /// Who may still need the pair or its private key, as far as the journals know.
    waits_for: BTreeSet<InstanceId>,
}

/// A private half whose pair is retired, still in custody.
#[derive(Debug, Serialize)]
struct Kept {
    journal: JournalId,
    key_pair: KeyPairName,
    private_key: String,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let config = scene.config()?;
    let journals = Journals::open(&config).await?;
    let survey = survey(&scene.env, &config, &journals, arguments.fleet.as_ref()).await?;
    if arguments.json {
        scene.out.json(&survey)?;
    } else {
        match survey.driver {
            Some(true) => scene.out.line("a rekeyd drives this store"),
            Some(false) => scene.out.line(scene.out.tone(Tone::Careful, "no rekeyd drives this store now")),
            None => {}
        }
        if let Some(lost) = &survey.lost {
            scene.out.line(scene.out.tone(Tone::Bad, lost));
        } else if !journals.exist() {
            scene.out.line(format!("there is no database at {} yet", config.store.display()));
        }
        for problem in &survey.problems {
            let text = format!("cannot be read, and may be any fleet's: {problem}");
            scene.out.line(scene.out.tone(Tone::Bad, text));
        }
        for fleet in &survey.fleets {
            fleet.print(scene.out);
        }
    }
    Ok(survey.exit())
}

async fn survey(
    env: &SharedEnv,
    config: &Arc<Config>,
    journals: &Journals,
    asked: Option<&FleetName>,
) -> Result<Survey> {
    let heads = journals.heads().await?;
    let agenda = journals.agenda().await?;
    let mut fleets: BTreeSet<FleetName> = config.fleets.keys().cloned().collect();
    fleets.extend(heads.readable.iter().map(|head| head.plan.fleet().clone()));
    fleets.extend(heads.unreadable.iter().filter_map(|one| one.fleet.clone()));
    if let Some(fleet) = asked {
        if !fleets.contains(fleet) {
            bail!("there is no fleet {fleet:?}; there are {}", some(&fleets, 20));
        }
        fleets.retain(|name| name == fleet);
    }
    let unknown = heads.unreadable.iter().filter(|one| one.fleet.is_none());
    let driver = DriverLock::is_held(&config.store).ok();
    let lost = lost(config, env, &heads).await.map(|lost| lost.to_string());
    let mut survey = Survey { driver, lost, problems: unknown.map(problem).collect(), fleets: Vec::new() };
    let mut past = Past::default();
    let crowd = Crowd::of(config, journals, &heads).await;
    for fleet in fleets {
        let configured = config.fleets.get(&fleet);
        survey.fleets.push(status(journals, fleet, configured, &heads, &agenda, &crowd, &mut past).await);
    }
    Ok(survey)
}

impl Survey {
    fn exit(&self) -> Exit {
        let spoilt = self.lost.is_some()
            || !self.problems.is_empty()
            || self.fleets.iter().any(|fleet| !fleet.problems.is_empty());
        if spoilt { Exit::Failed } else { Exit::Done }
    }
}

fn problem(one: &Unreadable) -> String {
    format!("journal {}: {}", one.journal, one.problem)
}

async fn status(
    journals: &Journals,
    fleet: FleetName,
    configured: Option<&config::Fleet>,
    heads: &Heads,
    agenda: &Agenda,
    crowd: &Crowd,
    past: &mut Past,
) -> FleetStatus {
    let of_fleet: Vec<&Head> = heads.of(&fleet).collect();
    let unreadable = heads.unreadable.iter().filter(|one| one.fleet.as_ref() == Some(&fleet));
    let problems = unreadable.map(problem).collect();
    let schedule = configured.and_then(|fleet| fleet.schedule.as_ref());
    let reckoned =
        agenda.due.get(&fleet).filter(|due| schedule.is_some_and(|now| due.schedule.starts_with(&now.expression)));
    let asked = |request: &&Request| request.fleet == fleet && matches!(request.ask, Ask::Rotate { .. });
    let hold = agenda.paused.get(&fleet).map(|request| FleetHold {
        by: request.by.to_string(),
        at: request.at,
        note: match &request.ask {
            Ask::Hold { note } => note.clone(),
            _ => String::new(),
        },
    });
    let mut status = FleetStatus {
        configured: configured.is_some(),
        schedule: schedule.map(|schedule| schedule.expression.clone()),
        next_due: reckoned.map(|due| due.at),
        hold,
        asked: agenda.asked.iter().find(asked).map(|request| request.at),
        refused: refused_last(agenda, &fleet, &of_fleet),
        open: None,
        last: None,
        last_whole: None,
        retiring: Vec::new(),
        kept: Vec::new(),
        late: BTreeSet::new(),
        new: new_ones(agenda, &fleet, &of_fleet),
        problems,
        fleet,
    };
    let mut since = Vec::new();
    let newest = of_fleet.iter().rposition(|head| is_whole(head)).unwrap_or_default();
    for head in &of_fleet[newest..] {
        // One that cannot be read is told of below.
        if let (Plan::Rotate(_), Ok(Folded::Rotation(rotation, instances))) = (&head.plan, journals.fold(head).await) {
            since.push((*rotation, instances));
        }
    }
    let is_late = |stand: &Stand| !stand.active || !stand.proven;
    status.late = stands(&since).into_iter().filter(|(_, stand)| is_late(stand)).map(|(id, _)| id).collect();
    for head in of_fleet.into_iter().rev() {
        let of_interest = match (&head.plan, &head.ended) {
            (Plan::Rotate(_), None) | (Plan::Retire(_), None | Some((_, Outcome::Kept))) => true,
            (Plan::Rotate(_), Some((_, outcome))) => {
                let whole =
                    is_whole(head) && status.last_whole.is_none() && status.last.as_ref().is_none_or(Progress::is_part);
                *outcome == Outcome::Completed && (status.last.is_none() || whole)
            }
            (Plan::Retire(_), Some(_)) => false,
        };
        if !of_interest {
            continue;
        }
        match (journals.fold(head).await, &head.ended) {
            (Ok(Folded::Rotation(rotation, instances)), None) => {
                let waits = crowd.waits(&rotation, SystemClock.now());
                status.open = Some(Progress { waits, ..Progress::of(journals, head, &rotation, &instances) });
            }
            (Ok(Folded::Rotation(rotation, instances)), Some(_)) => {
                let progress = Some(Progress::of(journals, head, &rotation, &instances));
                match status.last {
                    None => status.last = progress,
                    Some(_) => status.last_whole = progress,
                }
            }
            (Ok(Folded::Retirement(retirement)), None) => {
                let waits_for = waits_for(journals, heads, past, &retirement, SystemClock.now()).await;
                status.retiring.push(Retiring { waits_for, ..retiring(&retirement, SystemClock.now()) })
            }
            (Ok(Folded::Retirement(retirement)), Some(_)) => {
                let name = &retirement.plan.key_name;
                if journals.has_key(name) != Some(false) {
                    let private_key = journals.whereabouts(name);
                    status.kept.push(Kept { journal: head.id, key_pair: name.clone(), private_key });
                }
            }
            (Err(error), _) => status.problems.push(format!("{error:#}")),
        }
    }
    status
}

/// A rotation of the whole fleet that was completed: what came before it counts no more.
fn is_whole(head: &Head) -> bool {
    matches!(&head.plan, Plan::Rotate(plan) if plan.purpose() == Purpose::Rotate)
        && matches!(head.ended, Some((_, Outcome::Completed)))
}

/// The last start that was refused, unless a rotation began after it.
fn refused_last(agenda: &Agenda, fleet: &FleetName, heads: &[&Head]) -> Option<Refused> {
    let request = agenda.refused.get(fleet)?;
    let Some((at, Answer::Refused(why))) = &request.answer else { return None };
    let begun_since = heads.iter().any(|head| matches!(head.plan, Plan::Rotate(_)) && head.begun >= *at);
    (!begun_since).then(|| Refused { at: *at, why: why.clone() })
}

impl Progress {
    /// Whether it was of a part of the fleet: a way back, a catch-up.
    fn is_part(&self) -> bool {
        self.kind != Purpose::Rotate.name()
    }

    pub(super) fn of(journals: &Journals, head: &Head, rotation: &Rotation, planned: &[PlannedInstance]) -> Self {
        let current = (0..).take_while(|batch| (*batch as usize) < rotation.batch_count()).find(|batch| {
            rotation.batch(*batch).iter().any(|id| rotation.member(id).is_some_and(|member| !member.is_done()))
        });
        let ours = !rotation.plan.key.is_strangers();
        Self {
            rotation: head.id,
            kind: rotation.plan.purpose().name(),
            undoes: rotation.plan.undoes,
            begun: head.begun,
            ended: head.ended.map(|(at, _)| at),
            outcome: head.ended.map(|(_, outcome)| outcome),
            held: rotation.held.clone(),
            held_because: rotation.held.as_ref().map(ToString::to_string),
            way_on: rotation.held.as_ref().map(|reason| reason.way_on(head.id)),
            waits: None,
            key_pair: rotation.plan.key_name.clone(),
            fingerprint: rotation.key.as_ref().map(|(_, fingerprint)| fingerprint.clone()),
            private_key: ours.then(|| journals.whereabouts(&rotation.plan.key_name)),
            way_in: ours.then(|| journals.way_in(&rotation.plan.key_name)).flatten(),
            batch: current.filter(|_| rotation.key_pair.is_some()),
            batches: rotation.batch_count(),
            counts: Counts::of(rotation, planned),
            excluded: left_out(rotation, planned),
            owed_starts: plan::owed(rotation),
            owed_since: rotation.members().filter_map(|(_, member)| member.owed).min(),
        }
    }
}

fn retiring(retirement: &Retirement, now: Timestamp) -> Retiring {
    let next = retirement.next(now);
    let retry = retirement.told(now);
    let stage = retirement.stage(now);
    let why = match (stage, &retirement.held, retry) {
        (_, Some(reason), _) => format!("held: {reason}; {}", reason.way_on(retirement.id)),
        (Some(Stage::Soak), ..) => "soak before the pair is deleted".to_string(),
        (Some(Stage::Grace), ..) => "the pair is deleted; grace before its private key's end".to_string(),
        (_, _, Some(retry)) if retirement.deleted.is_none() => {
            format!("the pair could not be deleted: {}", retry.error)
        }
        (_, _, Some(retry)) => format!("its private key could not be destroyed: {}", retry.error),
        (_, _, None) if retirement.deleted.is_none() => "the pair is deleted once nobody hangs on it".to_string(),
        (_, _, None) => {
            "grace is over; its private key goes once all that had it are proven on another one".to_string()
        }
    };
    let state = stage.map_or("ended", Stage::name);
    Retiring {
        journal: retirement.id,
        key_pair: retirement.plan.key_name.clone(),
        state,
        until: next.wake,
        why,
        waits_for: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

    use super::*;
    use crate::rotation::{Author, Event, Part};
    use crate::store::{Journal, Sqlite};
    use crate::{config, daemon};

    fn id(number: u8) -> JournalId {
        JournalId::derive(Timestamp::UNIX_EPOCH, [number; 10])
    }

    /// Rotations 1 of `lighthouse` and 2 of `old`, begun and abandoned; then what somebody did to them.
    async fn surveyed(sql: &str, asked: Option<&str>) -> Survey {
        let dir = tempfile::tempdir().unwrap();
        let text =
            include_str!("../../config/demo.yaml").replace("/tmp/rekeyd-demo", &dir.path().display().to_string());
        let mut config = config::load(&text, Path::new("demo.yaml"), &daemon::cloud).unwrap();
        config.store = dir.path().join("rekeyd.db");
        let store = Sqlite::open(&config.store).await.unwrap();
        for (number, fleet) in [(1, "lighthouse"), (2, "old")] {
            let plan = format!(
                r#"{{"kind":"rotate","fleet":"{fleet}","place":{{"account":"lh","provider":"tencent-lighthouse","endpoint":null,
                "region":"r"}},"select":{{"tags":{{}}}},"key_name":"rkm_{fleet}","key_bits":2048,"disruption":"stops_instance",
                "policy":{{"unavailable_max":1,"failures_max":0,"soak":{{"secs":0,"nanos":0}},"force_stop":false,
                "grace":{{"secs":0,"nanos":0}}}}}}"#
            );
            let plan: Plan = serde_json::from_str(&plan).unwrap();
            let instance = PlannedInstance {
                id: fleet.into(),
                name: String::new(),
                power: crate::model::Power::Running,
                keys: Vec::new(),
                part: Part::Batch(0),
                pin: None,
                known: None,
            };
            let (by, at) = (Author::Engine("x".into()), Timestamp::UNIX_EPOCH);
            store.begin(id(number), &plan, &[instance], &by, at).await.unwrap();
            let end = Event::Ended { outcome: Outcome::Abandoned };
            store.append(id(number), 1, &[end], &by, at).await.unwrap();
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&config.store);
        let mut hand = SqliteConnection::connect_with(&options).await.unwrap();
        hand.execute(AssertSqlSafe(format!("DROP TRIGGER journals_are_not_changed; {sql}"))).await.unwrap();
        hand.close().await.unwrap();
        store.close().await;
        let journals = Journals::open(&config).await.unwrap();
        let env: SharedEnv = Arc::new(|_| None);
        survey(&env, &Arc::new(config), &journals, asked.map(FleetName::from).as_ref()).await.unwrap()
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_read_is_told_at_its_fleet_or_once_on_top() {
        let check = async |sql: &str, asked: Option<&str>, on_top: usize, of_fleets: &[&str]| {
            let survey = surveyed(sql, asked).await;
            assert_eq!(survey.problems.len(), on_top, "{sql}: {survey:?}");
            let spoilt = survey.fleets.iter().filter(|fleet| !fleet.problems.is_empty());
            assert_eq!(spoilt.map(|fleet| fleet.fleet.as_str()).collect::<Vec<_>>(), of_fleets, "{sql}");
            let told = survey.problems.iter().chain(survey.fleets.iter().flat_map(|fleet| &fleet.problems));
            for problem in told {
                assert!(problem.starts_with("journal ") && problem.contains("its plan: "), "{problem}");
            }
            let expect = if on_top + of_fleets.len() > 0 { Exit::Failed } else { Exit::Done };
            assert_eq!(survey.exit(), expect, "{sql}");
            assert!(serde_json::to_value(&survey).unwrap()["problems"].is_array());
        };
        check("SELECT 1", None, 0, &[]).await;
        check("UPDATE journals SET plan = '{' WHERE n = 1", None, 1, &[]).await;
        check("UPDATE journals SET plan = '{'", Some("lighthouse"), 2, &[]).await;
        // A fleet that is no longer in the file, and has nothing else to show.
        let newer = "UPDATE journals SET plan = json_set(plan, '$.kind', 'rebind') WHERE n = 2";
        check(newer, None, 0, &["old"]).await;
        check(newer, Some("old"), 0, &["old"]).await;
    }
}
