//! Programs of the operator's: started without a shell, in an environment of their own, for a bounded time, with a bounded
//! ear for what they say. What one is for, and what its failure means, is the caller's. It must never hand on this process's
//! environment, never wait for a program longer than it was told, and never keep a copy of what one read or said.

use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::model::{Duration, Timestamp, show_duration};

/// What a program said before it ended is waited for so long: a child of its own may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Where programs are looked for if this process was given no PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One run of a program.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// All of its environment; PATH is among it.
    pub environment: &'a [(&'static str, OsString)],
    /// What it can read.
    pub input: &'a [u8],
    /// It is killed after this.
    pub timeout: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exit(i32),
    /// A signal ended it.
    Signal,
    /// It was killed: it took longer than this.
    TimedOut(Duration),
    /// It was never begun.
    NotBegun(String),
    /// It was lost sight of.
    Lost(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal => f.write_str("a signal ended it"),
            Self::TimedOut(time) => write!(f, "not done within {}", show_duration(*time)),
            Self::NotBegun(why) => f.write_str(why),
            Self::Lost(why) => write!(f, "it was lost: {why}"),
        }
    }
}

/// Who listens to what a program prints: to the first bytes of it or to the last. Wiped when it is dropped.
pub struct Ear {
    said: Mutex<Zeroizing<Vec<u8>>>,
    most: usize,
    last: bool,
}

impl Ear {
    /// Keeps the first so many bytes, and one more if there are more.
    pub fn first(most: usize) -> Self {
        Self::new(most + 1, false)
    }

    /// Keeps the last so many bytes.
    pub fn last(most: usize) -> Self {
        Self::new(most, true)
    }

    fn new(most: usize, last: bool) -> Self {
        // Room for all of it at once: a buffer that grows would leave its first half unwiped.
        Self { said: Mutex::new(Zeroizing::new(Vec::with_capacity(most + BLOCK))), most, last }
    }

    /// What was heard.
    pub fn heard(self) -> Zeroizing<Vec<u8>> {
        self.said.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, block: &[u8]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.last {
            said.extend_from_slice(block);
            let over = said.len().saturating_sub(self.most);
            said.drain(..over);
        } else {
            let room = self.most.saturating_sub(said.len()).min(block.len());
            said.extend_from_slice(&block[..room]);
        }
    }
}

/// So much is read at once.
const BLOCK: usize = 1024;

/// Runs a program to its end. `out` and `err` may be the same ear.
pub async fn run(run: Run<'_>, out: &Ear, err: &Ear, clock: &dyn Clock) -> End {
    let Some((program, arguments)) = run.command.split_first() else {
        return End::NotBegun("no program is named".to_string());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(run.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: it is not ended by the Ctrl-C that ends us, but by us, with its children.
    command.kill_on_drop(true).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return End::NotBegun(format!("{program} cannot be run: {error}")),
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = async {
        if let Some(mut stdin) = stdin {
            // Who does not read its input has closed it.
            let _ = stdin.write_all(run.input).await;
        }
    };
    let talk = async {
        tokio::join!(input, listen(stdout, out), listen(stderr, err));
    };
    tokio::pin!(talk);
    let deadline = later(clock.now(), run.timeout);
    match wait(&mut child, talk.as_mut(), clock, deadline).await {
        Some(Ok(status)) => status.code().map_or(End::Signal, End::Exit),
        Some(Err(error)) => End::Lost(error.to_string()),
        None => {
            kill(&mut child, run.environment).await;
            End::TimedOut(run.timeout)
        }
    }
}

/// Waits for the program's end, and then for what it still had to say; `None`: it took too long.
async fn wait(
    child: &mut Child,
    mut talk: Pin<&mut impl Future<Output = ()>>,
    clock: &dyn Clock,
    deadline: Timestamp,
) -> Option<std::io::Result<ExitStatus>> {
    let mut quiet = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = talk.as_mut(), if !quiet => quiet = true,
            () = clock.sleep_until(deadline) => return None,
        }
    };
    if !quiet {
        tokio::select! {
            () = talk => {}
            () = clock.sleep_until(later(clock.now(), LAST_WORDS)) => {}
        }
    }
    Some(status)
}

/// Kills a program and, where there is a `kill` to do it, its children.
async fn kill(child: &mut Child, environment: &[(&'static str, OsString)]) {
    if let Some(id) = child.id() {
        let path = environment.iter().filter(|(name, _)| *name == "PATH").map(|(name, value)| (name, value));
        let mut command = Command::new("kill");
        command.args(["-KILL", "--", &format!("-{id}")]).env_clear().envs(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut group) = command.spawn() {
            // Whether it could is seen by the program's own end.
            let _ = group.wait().await;
        }
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a program that took too long could not be killed");
    }
}

async fn listen(from: Option<impl AsyncRead + Unpin>, ear: &Ear) {
    let Some(mut from) = from else { return };
    let mut block = Zeroizing::new([0; BLOCK]);
    while let Ok(read @ 1..) = from.read(block.as_mut_slice()).await {
        ear.hear(&block[..read]);
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    async fn sh(script: &str, input: &[u8], seconds: u64, first: usize, last: usize) -> (End, Vec<u8>, Vec<u8>) {
        let command = ["sh", "-c", script].map(str::to_string);
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let (out, err) = (Ear::first(first), Ear::last(last));
        let environment = [("PATH", path), ("WHO", "me".into())];
        let this = Run { command: &command, environment: &environment, input, timeout: Duration::from_secs(seconds) };
        let end = run(this, &out, &err, &SystemClock).await;
        (end, out.heard().to_vec(), err.heard().to_vec())
    }

    #[tokio::test]
    async fn a_program_reads_what_it_is_given_and_is_heard_on_both_sides_up_to_a_bound() {
        let (end, out, err) = sh("cat; echo $WHO >&2; exit 5", b"words", 30, 100, 100).await;
        assert_eq!((end, out.as_slice(), err.as_slice()), (End::Exit(5), &b"words"[..], &b"me\n"[..]));
        let (end, out, err) = sh("seq 100000; seq 100000 >&2", b"", 30, 10, 7).await;
        assert_eq!((end, out.as_slice(), err.as_slice()), (End::Exit(0), &b"1\n2\n3\n4\n5\n6"[..], &b"100000\n"[..]));
        // Who does not read its input is not waited for.
        let (end, ..) = sh("exit 0", &vec![b'x'; 1 << 20], 30, 1, 1).await;
        assert_eq!(end, End::Exit(0));
    }

    #[tokio::test]
    async fn each_end_is_told_from_the_others() {
        assert_eq!(sh("kill -9 $$", b"", 30, 1, 1).await.0, End::Signal);
        assert_eq!(sh("sleep 60 & sleep 60", b"", 1, 1, 1).await.0, End::TimedOut(Duration::from_secs(1)));
        let nowhere = ["/nowhere/keeper".to_string()];
        let this = Run { command: &nowhere, environment: &[], input: b"", timeout: Duration::from_secs(1) };
        let (out, err) = (Ear::first(1), Ear::last(1));
        let end = run(this, &out, &err, &SystemClock).await.to_string();
        assert!(end.starts_with("/nowhere/keeper cannot be run: "), "{end}");
        let end = run(Run { command: &[], ..this }, &out, &err, &SystemClock).await;
        assert_eq!(end.to_string(), "no program is named");
    }
}
