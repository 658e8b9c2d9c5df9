//! What a person types, one file a verb. A verb puts words to what the other rooms know; it must never decide what a
//! rotation does next, and never print a secret. What was asked for goes to stdout, errors and their causes to stderr.

mod abandon;
mod adopt;
mod catch_up;
mod check;
mod counts;
mod credentials;
mod demo;
mod drift;
mod exposure;
mod fate;
mod follow;
mod give_up;
mod history;
mod hold;
mod init;
mod journals;
mod live;
mod lost;
mod online;
mod outcome;
mod output;
mod owner;
mod pages;
mod plan;
mod progress;
mod release;
mod rollback;
mod rotate;
mod run;
mod show;
mod signals;
mod sim;
mod status;
mod story;
mod table;
mod target;
mod trust;
mod version;
mod waits;
mod when;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{Config, process_env};
use crate::daemon::{self, SharedEnv};
use output::Output;

/// Where the config file is unless it is said.
const CONFIG: &str = "/etc/rekeyd/rekeyd.yaml";

/// How a verb ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// `plan`: there is something to do; `drift`: there is some.
    Something = 2,
    /// `rotate`: held.
    Held = 3,
}

/// Replaces the SSH key pairs of cloud VM fleets, and never locks anybody out.
#[derive(Parser)]
#[command(name = "rekeyd", version = version::version(), propagate_version = true)]
struct Arguments {
    /// The config file
    #[arg(long, global = true, env = "REKEYD_CONFIG", default_value = CONFIG, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant)] // one is made, once
enum Verb {
    /// Read the config file and say everything that is wrong with it, each with its line
    ///
    /// Exit code 0: the file is good, and every account's credentials can be read. 1: it is not. With --online the clouds are asked,
    /// too, by calls that change nothing. 1 then: no rotation would begin with one of the accounts.
    Check(check::Arguments),
    /// Show what a rotation of a fleet would do now, and make nothing
    ///
    /// With an open rotation: what that one would do next, or why it is held. Exit code 2: there is something to do, be it after a
    /// release. 0: an open rotation has nothing left to do. 1: error.
    Plan(plan::Arguments),
    /// Run the daemon: rotate fleets when they are due, until told to stop
    ///
    /// SIGTERM or Ctrl-C: no new step, calls under way get 8 seconds, the process ends within 10. A second one ends it at
    /// once. Killed at any moment, the next start goes on. Exit code 0: stopped as told. 1: error.
    Run(run::Arguments),
    /// Hold a fleet, a journal, or everything: nothing new is disturbed until it is released
    ///
    /// Machines that we stopped are started all the same. A running daemon obeys within two seconds.
    Hold(hold::Arguments),
    /// Release what is held: it goes on
    Release(release::Arguments),
    /// Give up an open rotation: it ends once nothing is in flight and no start is owed
    ///
    /// What is bound stays bound, and the next rotation takes over from there.
    Abandon(abandon::Arguments),
    /// Believe the host key that a machine showed: the rotation that is held for it goes on
    Trust(trust::Arguments),
    /// Rotate a fleet now: go on with its open rotation, or begin one; then retire superseded key pairs
    ///
    /// Beside a running daemon it hands over, and follows. Exit code 0: it ended. 3: it is held, and who is down is printed.
    /// 1: error. Interrupted or killed at any moment, the same command goes on where it stopped.
    Rotate(rotate::Arguments),
    /// Undo a rotation: give it up if it is open, then bind again what each instance had before it
    ///
    /// Only the fleet's newest rotation that bound anybody; only the instances that it touched. Who had no key pair before
    /// stays as it is. Beside a running daemon it hands over, and follows. Exit code as of `rotate`. Interrupted or killed
    /// at any moment, the same command goes on.
    Rollback(rollback::Arguments),
    /// Bring in those who missed the fleet's key: prove who was switched off or out of reach, bind who came later
    ///
    /// It makes no new key. Who is proven only is not disturbed; machines that came after the last rotation are bound, canary first.
    /// A running daemon does the first by itself, and the second with `catch_up: auto`. Exit code as of `rotate`.
    CatchUp(catch_up::Arguments),
    /// Show how the fleets stand
    Status(status::Arguments),
    /// Show where clouds, custody and machines differ from what the journals record
    ///
    /// It only looks, and offers machines public halves where `verify: ssh` says how. Exit code 0: no drift. 2: deviations, each with
    /// the way on. 1: error, or not all could be seen.
    Drift(drift::Arguments),
    /// Record anew what a lost database knew, from what clouds and custody still show
    ///
    /// Only where the database holds no journals. Nothing is bound or rebooted; with `verify: ssh` logins prove the keys. Exit code
    /// 0: adopted. 3: held. 1: error. With --dry-run 2: there is something to adopt. Killed at any moment, the same command
    /// goes on.
    Adopt(adopt::Arguments),
    /// Show the journals, newest first: of a fleet, an instance, a key, a time
    History(history::Arguments),
    /// Tell the story of one rotation or retirement, entry by entry
    Show(show::Arguments),
    /// Serve four simulated clouds on loopback until Ctrl-C
    Sim(Box<sim::Arguments>),
    /// Rotate four simulated fleets on this machine, with nothing prepared
    Demo(demo::Arguments),
    /// Write a config file from a few questions, or from flags
    ///
    /// No secret goes into it: only where each is read from. A file that is there is never written over.
    Init(Box<init::Arguments>),
    /// Print completions for a shell: `source <(rekeyd completions bash)`
    Completions(pages::Completions),
    /// Write the man pages into a directory, for packages
    #[command(hide = true)]
    Man(pages::Man),
}

/// What every verb is given.
struct Scene {
    /// How this program was called, for commands that a person may copy.
    program: String,
    /// What with: all that followed the program's name.
    arguments: Vec<String>,
    config: PathBuf,
    env: SharedEnv,
    out: Output,
}

impl Scene {
    /// Reads the config file.
    fn config(&self) -> anyhow::Result<Arc<Config>> {
        let read = crate::config::read(&self.config, &daemon::cloud);
        Ok(Arc::new(read.context("the config file cannot be used")?))
    }
}

/// What this process holds, keys and secrets too, gets into no core dump, and is not read by other processes of its account.
fn hide_memory() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            output::complain(&format!("warning: a crash could leave secrets in a core dump (prctl): {error}\n"));
        }
    }
}

/// Runs one command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    hide_memory();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = arguments.first().map_or_else(|| "rekeyd".into(), |name| name.to_string_lossy().into_owned());
    let words = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed terminal. A mistyped command is an error like any other: 2 means
            // something else to `plan`.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Failed as u8 } else { Exit::Done as u8 });
        }
    };
    let out = Output::to_stdout(&process_env);
    let scene = Scene { program, arguments: words, config: arguments.config, env: Arc::new(process_env), out };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::explain(&anyhow::Error::from(error).context("no threads to work with"));
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let exit = runtime.block_on(async {
        match &arguments.verb {
            Verb::Run(arguments) => arguments.log(&scene)?,
            _ => output::log_to_stderr(&process_env),
        }
        match arguments.verb {
            Verb::Run(arguments) => run::run(&scene, &arguments).await,
            Verb::Hold(arguments) => hold::run(&scene, &arguments).await,
            Verb::Release(arguments) => release::run(&scene, &arguments).await,
            Verb::Abandon(arguments) => abandon::run(&scene, &arguments).await,
            Verb::Trust(arguments) => trust::run(&scene, &arguments).await,
            Verb::Check(arguments) => check::run(&scene, &arguments).await,
            Verb::Plan(arguments) => plan::run(&scene, &arguments).await,
            Verb::Rotate(arguments) => rotate::run(&scene, &arguments).await,
            Verb::Rollback(arguments) => rollback::run(&scene, &arguments).await,
            Verb::CatchUp(arguments) => catch_up::run(&scene, &arguments).await,
            Verb::Status(arguments) => status::run(&scene, &arguments).await,
            Verb::Drift(arguments) => drift::run(&scene, &arguments).await,
            Verb::Adopt(arguments) => adopt::run(&scene, &arguments).await,
            Verb::History(arguments) => history::run(&scene, &arguments).await,
            Verb::Show(arguments) => show::run(&scene, &arguments).await,
            Verb::Sim(arguments) => sim::run(&scene, &arguments).await,
            Verb::Demo(arguments) => demo::run(&scene, &arguments).await,
            Verb::Init(arguments) => init::run(&scene, &arguments),
            Verb::Completions(arguments) => Ok(pages::completions(&scene, &arguments)),
            Verb::Man(arguments) => pages::man(&scene, &arguments),
        }
    });
    // A verb that was cut off may have left a key half made: that is not waited for.
    runtime.shutdown_background();
    let exit = exit.unwrap_or_else(|error| {
        output::explain(&error);
        Exit::Failed
    });
    ExitCode::from(exit as u8)
}
