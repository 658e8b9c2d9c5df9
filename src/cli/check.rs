//! `rekeyd check`: everything that is wrong with the config file, at once, each with file and line; then the credentials
//! of every account, the settings of every cloud, the keys of jump hosts, and what custody's directory holds. It makes nothing,
//! and sends nothing unless it is told to ask the clouds.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use crate::config::{self, Config, Remark};
use crate::custody::{Examined, Keeper, Settings};
use crate::daemon::{self, Clouds, keeping};
use crate::engine::planner::Fleet;
use crate::rotation::{SshLogin, Verify};
use crate::ssh::read_key_file;

use super::credentials::Wanted;
use super::output::{self, Tone};
use super::{Exit, Scene, credentials, online};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask the clouds whether each account will do: its credentials, permissions, clock, key pairs and tags. Nothing is changed
    #[arg(long)]
    online: bool,
}

pub(super) async fn run(scene: &Scene, arguments: &Arguments) -> Result<Exit> {
    let (problems, notes, config) = match config::read(&scene.config, &daemon::cloud) {
        Err(error) => (error.problems.iter().map(Finding::from).collect(), Vec::new(), None),
        Ok(config) => {
            let (mut problems, mut notes) = beyond_the_file(scene, &config)?;
            custody(scene, &config, &mut problems, &mut notes).await;
            (problems, notes, Some(Arc::new(config)))
        }
    };
    let asked = match &config {
        Some(config) if arguments.online => Some(online::ask(scene, config).await?),
        _ => None,
    };
    let unfit = asked.iter().flatten().filter(|asked| asked.is_unfit()).count();
    let exit = if problems.is_empty() && unfit == 0 { Exit::Done } else { Exit::Failed };
    if arguments.json {
        let all = |findings: &[Finding]| findings.iter().map(Finding::json).collect::<Vec<_>>();
        let mut said = json!({
            "file": scene.config, "ok": matches!(exit, Exit::Done), "problems": all(&problems), "notes": all(&notes),
        });
        if let Some(asked) = &asked {
            said["online"] = asked.iter().map(online::Asked::json).collect();
        }
        scene.out.json(&said)?;
        return Ok(exit);
    }
    for problem in &problems {
        output::complain(&format!("{}\n", problem.text));
    }
    for note in &notes {
        scene.out.line(scene.out.tone(Tone::Careful, format!("note: {}", note.text)));
    }
    match (&config, problems.len()) {
        (Some(config), 0) => scene.out.line(format!(
            "{}: good: {}, {}",
            scene.config.display(),
            output::count(config.accounts.len(), "account"),
            output::count(config.fleets.len(), "fleet"),
        )),
        (_, number) => output::complain(&format!("{}\n", output::count(number, "problem"))),
    }
    for asked in asked.iter().flatten() {
        asked.show(scene.out);
    }
    if unfit > 0 {
        output::complain(&format!("{} will not do\n", output::count(unfit, "account")));
    }
    let fleets = config.as_ref().map(|config| daemon::fleets(config)).unwrap_or_default();
    if let Some(way) = config.as_ref().and_then(|config| credentials::way(scene, wanted(config, &fleets))) {
        output::complain(&format!("with the credentials of systemd:\n\n  {way}\n\n"));
    }
    Ok(exit)
}

/// All that the file has of systemd.
fn wanted<'a>(config: &'a Config, fleets: &'a [Fleet]) -> Wanted<'a> {
    config.accounts.keys().fold(Wanted::of(config), Wanted::account).fleets(fleets).custody()
}

/// One thing to know, as it is printed, and where it stands.
struct Finding {
    text: String,
    remark: Option<Remark>,
}

impl From<&Remark> for Finding {
    fn from(remark: &Remark) -> Self {
        Self { text: remark.to_string(), remark: Some(remark.clone()) }
    }
}

impl Finding {
    fn json(&self) -> Value {
        match &self.remark {
            Some(remark) => json!({
                "file": remark.file, "line": remark.line, "column": remark.column, "path": remark.path, "text": remark.text,
            }),
            None => json!({ "text": self.text }),
        }
    }
}

/// What the file alone does not tell: problems and notes.
fn beyond_the_file(scene: &Scene, config: &Config) -> Result<(Vec<Finding>, Vec<Finding>)> {
    let env = &*scene.env;
    let (mut problems, mut notes): (Vec<Finding>, Vec<Finding>) =
        (Vec::new(), config.notes.iter().map(Finding::from).collect());
    let mut readable = Vec::new();
    for (name, account) in &config.accounts {
        match account.credentials(env) {
            Ok(credentials) => {
                readable.push(name);
                let warnings = credentials.iter().flat_map(|credentials| &credentials.warnings);
                notes.extend(warnings.map(Finding::from));
            }
            Err(error) => problems.extend(error.problems.iter().map(Finding::from)),
        }
    }
    let clouds = Clouds::new(config.clone().into(), scene.env.clone())?;
    for (name, fleet) in &config.fleets {
        let Some(place) = daemon::place(config, fleet).filter(|place| readable.contains(&&place.account)) else {
            continue;
        };
        let checked = clouds.settings(&place).map_err(|error| error.to_string());
        let checked = checked.and_then(|settings| settings.check().map_err(|error| error.to_string()));
        if let Err(problem) = checked {
            let text = format!("{}: fleets.{name}: account {}: {problem}", scene.config.display(), place.account);
            problems.push(Finding { text, remark: None });
        }
    }
    // Read as a rotation would read it: here it is said before one is planned.
    for (name, fleet) in &config.fleets {
        let Verify::Ssh(SshLogin { jump: Some(jump), .. }) = &fleet.verify else { continue };
        if let Err(error) = read_key_file(&jump.key_file, credentials::directory(env).as_deref()) {
            let text = format!("{}: fleets.{name}.verify.ssh.jump.key_file: {error}", scene.config.display());
            problems.push(Finding { text, remark: None });
        }
    }
    Ok((problems, notes))
}

/// Custody's secrets, and the keys that it keeps plain.
async fn custody(scene: &Scene, config: &Config, problems: &mut Vec<Finding>, notes: &mut Vec<Finding>) {
    let file = scene.config.display();
    let found = |text: String| Finding { text: format!("{file}: {text}"), remark: None };
    match config.custody.secrets(&*scene.env) {
        Ok(secrets) => notes.extend(secrets.warnings.iter().map(Finding::from)),
        Err(error) => return problems.extend(error.problems.iter().map(Finding::from)),
    }
    if let Err(error) = keeping::network(config) {
        problems.push(found(error.to_string()));
    }
    let Keeper::Directory { places, encrypts: true } = &config.custody.keeper else { return };
    let is_there = |place: &std::path::PathBuf| place.try_exists().unwrap_or(true);
    // To open custody makes its directories.
    if !std::iter::once(&places.directory).chain(&places.copies).all(is_there) {
        return;
    }
    match examine(scene, config, places).await {
        Ok(Examined { keys, plain }) if !plain.is_empty() => {
            let one = places.directory.join(plain[0].as_str());
            notes.push(found(format!(
                "custody.encrypt: kept plain: {} of {keys}, made before it was set; they stay usable, and go as they are \
                 retired; `ssh-keygen -p -f {}` encrypts one (each copy of it, with the same passphrase)",
                plain.len(),
                one.display()
            )));
        }
        Ok(_) => {}
        Err(error) => problems.push(found(format!("custody.encrypt: {error:#}"))),
    }
}

async fn examine(scene: &Scene, config: &Config, places: &Settings) -> Result<Examined> {
    Ok(keeping::directory(config, places, &scene.env).await?.examine().await?)
}
