//! Programs of the operator's that are run around a batch: without a shell, in an environment of their own, for a bounded
//! time. What one is for, and what its failure means, is the engine's. It must never hand on
//! this process's environment, and never wait for a program longer than it was told.

use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::model::Duration;
use crate::program::{self, Ear, End, PATH};

/// So many bytes of what a program printed last are kept,
const OUTPUT_MAX: usize = 4096;
/// and so many lines of them.
const LINES_MAX: usize = 20;

/// One run of a program. `Debug` shows nothing of what it can read: that may be a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// It is killed after this.
    pub timeout: Duration,
    /// Its environment, besides PATH.
    pub environment: Vec<(&'static str, String)>,
    /// What it can read.
    pub input: Zeroizing<String>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} for {:?}, {} bytes to read", self.command, self.timeout, self.input.len())
    }
}

/// A program that did not do well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In a few words.
    pub why: String,
    /// The last lines that it printed, at most 20 and 4096 bytes, without control characters but the ends of lines.
    pub output: String,
}

/// The end of a run. Who drops it kills the program.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// Runs programs.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Begins a run. That it could not be begun is told as its end.
    async fn start(&self, run: Run) -> Running;
}

/// Where no program can be run: each run fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

#[async_trait]
impl Runner for Nobody {
    async fn start(&self, _run: Run) -> Running {
        Box::pin(async { Err(fault("no program can be run from here")) })
    }
}

/// Runs programs of this machine.
pub struct Programs {
    path: OsString,
    clock: Arc<dyn Clock>,
}

impl Programs {
    /// Looks for programs in this PATH; without one, in the usual places.
    pub fn new(path: Option<OsString>, clock: Arc<dyn Clock>) -> Self {
        Self { path: path.unwrap_or_else(|| PATH.into()), clock }
    }
}

#[async_trait]
impl Runner for Programs {
    async fn start(&self, run: Run) -> Running {
        let (path, clock) = (self.path.clone(), self.clock.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { execute(run, path, clock.as_ref()).await });
        Box::pin(async move {
            match task.join_next().await {
                Some(Ok(ended)) => ended,
                _ => Err(fault("it was cut off")),
            }
        })
    }
}

fn fault(why: &str) -> Fault {
    Fault { why: why.to_string(), output: String::new() }
}

async fn execute(run: Run, path: OsString, clock: &dyn Clock) -> Result<(), Fault> {
    let own = run.environment.into_iter().map(|(name, value)| (name, value.into()));
    let environment: Vec<(&'static str, OsString)> = std::iter::once(("PATH", path)).chain(own).collect();
    let said = Ear::last(OUTPUT_MAX);
    let this = program::Run {
        command: &run.command,
        environment: &environment,
        input: run.input.as_bytes(),
        timeout: run.timeout,
    };
    match program::run(this, &said, &said, clock).await {
        End::Exit(0) => Ok(()),
        end => Err(Fault { why: end.to_string(), output: clean(&said.heard()) }),
    }
}

/// The last lines, fit for a journal and a terminal.
fn clean(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said).replace("\r\n", "\n");
    let plain: String =
        text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<&str> = plain.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    async fn run_for(script: &str, seconds: u64) -> Result<(), Fault> {
        let run = Run {
            command: ["sh", "-c", script].map(str::to_string).to_vec(),
            timeout: Duration::from_secs(seconds),
            environment: vec![("REKEYD_FLEET", "web".to_string())],
            input: "{\"id\":\"i-1\"}\n{\"id\":\"i-2\"}\n".to_string().into(),
        };
        Programs::new(std::env::var_os("PATH"), Arc::new(SystemClock)).start(run).await.await
    }

    #[tokio::test]
    async fn a_program_reads_its_instances_and_knows_nothing_of_our_environment() {
        assert_eq!(run_for("test $(wc -l) = 2 && test $REKEYD_FLEET = web", 30).await, Ok(()));
        let told = run_for("env | grep -v -e ^PATH= -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=; exit 7", 30).await;
        assert_eq!(told, Err(Fault { why: "exit code 7".to_string(), output: "REKEYD_FLEET=web".to_string() }));
    }

    #[tokio::test]
    async fn failures_say_how_and_what_was_printed_last() {
        let check = async |script: &str, why: &str, output: &str| {
            let fault = run_for(script, 30).await.unwrap_err();
            assert_eq!((fault.why.as_str(), fault.output.as_str()), (why, output), "{script}");
        };
        check("exit 3", "exit code 3", "").await;
        check("exec 2>&1; echo one; printf 'two\\033[31m\\a\\n' >&2; exit 1", "exit code 1", "one\ntwo[31m").await;
        check("kill -9 $$", "a signal ended it", "").await;
        let many = run_for("seq 100000; exit 1", 30).await.unwrap_err().output;
        assert!(many.lines().count() == LINES_MAX && many.ends_with("\n100000"), "{many}");
    }

    #[tokio::test]
    async fn who_takes_too_long_is_killed_with_its_children_and_who_leaves_a_child_behind_is_not_waited_for() {
        let begun = std::time::Instant::now();
        let fault = run_for("echo drained; sleep 60 & sleep 60", 1).await.unwrap_err();
        assert_eq!((fault.why.as_str(), fault.output.as_str()), ("not done within 1s", "drained"));
        assert_eq!(run_for("sleep 60 & echo done", 30).await, Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, alive) = (folder.path().join("begun"), folder.path().join("alive"));
        let script = format!("touch {}; sleep 2; touch {}", begun.display(), alive.display());
        let run = Run {
            command: ["sh", "-c", &script].map(str::to_string).to_vec(),
            timeout: Duration::from_secs(30),
            environment: Vec::new(),
            input: Zeroizing::default(),
        };
        let running = Programs::new(std::env::var_os("PATH"), Arc::new(SystemClock)).start(run).await;
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
        drop(running);
        SystemClock.sleep_until(SystemClock.now() + Duration::from_secs(3)).await;
        assert!(!alive.exists(), "it went on");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_fails() {
        let run = Run {
            command: vec!["/nowhere/drain".to_string()],
            timeout: Duration::from_secs(1),
            environment: Vec::new(),
            input: Zeroizing::default(),
        };
        let fault = Programs::new(None, Arc::new(SystemClock)).start(run.clone()).await.await.unwrap_err();
        assert!(fault.why.starts_with("/nowhere/drain cannot be run: "), "{}", fault.why);
        assert!(Nobody.start(run).await.await.is_err());
    }

    /// The line of README that asks Prometheus, with a `curl` that answers this.
    async fn asked(answer: &str, exit: u8) -> Result<(), Fault> {
        let readme = include_str!("../README.md");
        let line = readme.lines().find_map(|line| line.trim().strip_prefix("- curl ")).unwrap();
        run_for(&format!("curl() {{ printf '%s' '{answer}'; return {exit}; }}; curl {line}"), 30).await
    }

    #[tokio::test]
    async fn the_query_of_prometheus_that_readme_shows_lets_go_only_by_an_empty_answer() {
        let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(asked(empty, 0).await, Ok(()));
        let firing = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#;
        assert!(asked(firing, 0).await.is_err());
        assert!(asked("", 22).await.is_err(), "no answer holds too");
    }
}
