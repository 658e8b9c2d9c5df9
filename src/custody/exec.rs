//! Custody by a program of the operator's: `COMMAND put NAME`, `get NAME`, `list`, `destroy NAME`. The key goes in by stdin and
//! comes back by stdout, never in an argument or the environment. It must never believe an exit code that it did not ask
//! again about, nor show what the program said without looking for a key in it.

use std::ffi::OsString;
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::slots::{Remote, Slots};
use super::{CustodyError, quiet};
use crate::clock::Clock;
use crate::model::Duration;
use crate::program::{self, Ear, End};

/// How the program is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSettings {
    /// The program and its first arguments; never empty.
    pub command: Vec<String>,
    /// It is killed after this, and the call has failed.
    pub timeout: Duration,
}

/// No key is longer; a 4096-bit one has about 3,400 bytes.
const KEY_MAX: usize = 64 * 1024;
/// Room for twenty thousand names.
const LIST_MAX: usize = 2 * 1024 * 1024;
/// So much of stderr is read for its last line.
const COMPLAINT_MAX: usize = 4096;

/// There is one of this name already.
const EXISTS: i32 = 2;
/// There is none of this name.
const MISSING: i32 = 3;

/// A keeper behind a program.
pub struct Exec {
    settings: ExecSettings,
    environment: Vec<(&'static str, OsString)>,
    clock: Arc<dyn Clock>,
}

/// What the program answered.
enum Answer {
    Done(Zeroizing<Vec<u8>>),
    Exists,
    Missing,
}

impl Exec {
    /// A custodian that calls this program with this environment and no other variable.
    pub fn custodian(
        settings: ExecSettings,
        environment: Vec<(&'static str, OsString)>,
        clock: Arc<dyn Clock>,
    ) -> Remote<Self> {
        Remote(Self { settings, environment, clock })
    }

    async fn call(&self, verb: &str, name: &str, input: &str, most: usize) -> Result<Answer, CustodyError> {
        let own = [verb, name].into_iter().filter(|word| !word.is_empty()).map(str::to_string);
        let command: Vec<String> = self.settings.command.iter().cloned().chain(own).collect();
        let (out, err) = (Ear::first(most), Ear::last(COMPLAINT_MAX));
        let run = program::Run {
            command: &command,
            environment: &self.environment,
            input: input.as_bytes(),
            timeout: self.settings.timeout,
        };
        match program::run(run, &out, &err, self.clock.as_ref()).await {
            End::Exit(0) => {
                let out = out.heard();
                match out.len() > most {
                    true => Err(self.failed(verb, name, format!("it answered more than {most} bytes"))),
                    false => Ok(Answer::Done(out)),
                }
            }
            End::Exit(EXISTS) if verb == "put" => Ok(Answer::Exists),
            End::Exit(MISSING) if matches!(verb, "get" | "destroy") => Ok(Answer::Missing),
            end => {
                let said = quiet::last_line(&err.heard(), &[input]);
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(self.failed(verb, name, format!("{end}{said}")))
            }
        }
    }

    fn failed(&self, verb: &str, name: &str, problem: String) -> CustodyError {
        CustodyError::Failed { place: format!("{} {verb} {name}", self.program()).trim_end().to_string(), problem }
    }

    fn program(&self) -> &str {
        self.settings.command.first().map_or("", String::as_str)
    }
}

#[async_trait]
impl Slots for Exec {
    async fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, CustodyError> {
        let damaged = |problem: &str| {
            Err(CustodyError::Damaged {
                place: self.place(name),
                problem: format!("{problem}: find out what the program keeps, and restore it from a backup"),
            })
        };
        match self.call("get", name, "", KEY_MAX).await? {
            Answer::Done(out) if out.is_empty() => damaged("exit code 0, and nothing on stdout"),
            Answer::Done(out) => match std::str::from_utf8(&out) {
                Ok(text) => Ok(Some(whole(text))),
                Err(_) => damaged("what it holds is no text"),
            },
            Answer::Missing => Ok(None),
            Answer::Exists => Err(self.failed("get", name, "no answer to this question".to_string())),
        }
    }

    async fn create(&self, name: &str, text: &str) -> Result<(), CustodyError> {
        match self.call("put", name, text, KEY_MAX).await? {
            Answer::Exists => Err(self.failed("put", name, "exit code 2, there is one already".to_string())),
            Answer::Done(_) | Answer::Missing => Ok(()),
        }
    }

    async fn erase(&self, name: &str) -> Result<(), CustodyError> {
        self.call("destroy", name, "", KEY_MAX).await.map(drop)
    }

    async fn names(&self) -> Result<Vec<String>, CustodyError> {
        match self.call("list", "", "", LIST_MAX).await? {
            Answer::Done(out) => match std::str::from_utf8(&out) {
                Ok(text) => Ok(text.lines().map(|line| line.trim().to_string()).collect()),
                Err(_) => Err(self.failed("list", "", "it answered something that is no text".to_string())),
            },
            Answer::Exists | Answer::Missing => Err(self.failed("list", "", "no answer to this question".to_string())),
        }
    }

    fn place(&self, name: &str) -> String {
        format!("{} get {name}", self.program())
    }
}

/// With one line break at its end: shells take it off what passes through a variable.
fn whole(text: &str) -> Zeroizing<String> {
    let bare = text.trim_end_matches(['\n', '\r']);
    let mut whole = Zeroizing::new(String::with_capacity(bare.len() + 1));
    whole.push_str(bare);
    whole.push('\n');
    whole
}
