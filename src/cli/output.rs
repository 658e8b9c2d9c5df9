//! How words reach the terminal: few colours, as wide as it is, errors with their causes, the log. It must never panic because
//! a reader went away (`rekeyd show … | head`).

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::config::Env;
use crate::model::{Duration, Timestamp, show_duration};
use crate::telemetry::{Format, Look, log};

use super::live;
use super::table::{in_lines, table};

/// Stdout: whether it takes colours, and how wide it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    colours: bool,
    /// Whether it is a terminal.
    pub(super) terminal: bool,
    /// The columns of the terminal; `None`: it is none, or does not say.
    width: Option<usize>,
}

/// What a colour means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Strong,
    Good,
    Careful,
    Bad,
    Faint,
}

impl Output {
    pub(super) fn to_stdout(env: Env<'_>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { colours: terminal && takes_colours(env), terminal, width: if terminal { columns(env) } else { None } }
    }

    /// Columns side by side, as wide as the terminal; the first row being their heads.
    pub(super) fn table(&self, indent: usize, heads: &[&str], rows: &[Vec<String>]) -> String {
        table(indent, heads, rows, self.width)
    }

    /// The same at the left edge; where not all of it fits, a row becomes several lines of so many columns.
    pub(super) fn table_in_lines(&self, lines: &[usize], heads: &[&str], rows: &[Vec<String>]) -> String {
        in_lines(lines, heads, rows, self.width)
    }

    /// A text in a tone; the text itself where there are no colours.
    pub(super) fn tone(&self, tone: Tone, text: impl std::fmt::Display) -> String {
        let code = match tone {
            Tone::Strong => 1,
            Tone::Good => 32,
            Tone::Careful => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        };
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }

    /// Prints a text as it is. Who went away does not get it.
    pub(super) fn print(&self, text: &str) {
        live::beside(|| {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        });
    }

    /// Prints one line.
    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.print(&format!("{}\n", text.as_ref()));
    }

    /// Prints a value as JSON.
    pub(super) fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?);
        Ok(())
    }
}

/// The first few of many, and how many more.
pub(super) fn some<T: ToString>(all: impl IntoIterator<Item = T>, shown: usize) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    match all.len() {
        count if count > shown => format!("{} and {} more", all[..shown].join(", "), count - shown),
        _ => all.join(", "),
    }
}

/// `1 instance`, `3 instances`, `2 entries`.
pub(super) fn count(number: usize, thing: &str) -> String {
    match (number, thing.strip_suffix("try")) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{number} {stem}tries"),
        (_, None) => format!("{number} {thing}s"),
    }
}

/// A moment, to the second, UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time between two moments, as people say it: `14s`, `2h 5m`.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = u64::try_from(to.duration_since(from).as_secs()).unwrap_or_default();
    // Nobody counts the seconds of hours.
    let whole = if seconds >= 3600 { seconds - seconds % 60 } else { seconds };
    show_duration(Duration::from_secs(whole))
}

/// An error and its causes, on stderr. A cause that says nothing new is left out.
pub(super) fn explain(error: &anyhow::Error) {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            let _ = writeln!(text, "{}{cause}", if cause.contains('\n') { "" } else { "  because: " });
        }
        said = cause;
    }
    complain(&text);
}

/// Writes to stderr; who went away does not get it.
pub(super) fn complain(text: &str) {
    live::beside(|| drop(std::io::stderr().write_all(text.as_bytes())));
}

/// What `RUST_LOG` lets through, or `usual`.
pub(super) fn log_filter(env: Env<'_>, usual: &str) -> String {
    let filter = env("RUST_LOG").and_then(|text| text.into_string().ok()).filter(|text| !text.is_empty());
    filter.unwrap_or_else(|| usual.to_string())
}

/// Whether lines on stderr may be coloured.
pub(super) fn ansi(env: Env<'_>) -> bool {
    std::io::stderr().is_terminal() && takes_colours(env)
}

/// Whether a terminal takes colours, and nobody said that they are unwanted (<https://no-color.org>).
fn takes_colours(env: Env<'_>) -> bool {
    let is = |name: &str| env(name).filter(|value| !value.is_empty());
    is("NO_COLOR").is_none() && !is_dumb(env)
}

/// Whether the terminal can do nothing but take one line after another.
pub(super) fn is_dumb(env: Env<'_>) -> bool {
    env("TERM").is_some_and(|term| term == "dumb")
}

/// How wide the terminal is: `COLUMNS`, if it was said, else what the terminal itself says.
fn columns(env: Env<'_>) -> Option<usize> {
    let said = env("COLUMNS").and_then(|text| text.into_string().ok()?.trim().parse().ok());
    let asked = || console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    said.or_else(asked).filter(|columns| *columns > 0)
}

/// Whether stderr is the journal's socket: systemd names its device and inode in `$JOURNAL_STREAM` (systemd.exec(5)). A child
/// whose stderr goes elsewhere inherits the variable, but not the socket.
pub(super) fn is_journal(env: Env<'_>) -> bool {
    let named = env("JOURNAL_STREAM").and_then(|text| text.into_string().ok());
    let own = || {
        let file = std::fs::File::from(std::io::stderr().as_fd().try_clone_to_owned().ok()?);
        let about = file.metadata().ok()?;
        Some(format!("{}:{}", about.dev(), about.ino()))
    };
    named.is_some_and(|named| own() == Some(named))
}

/// Logs to stderr: warnings and worse, or what `RUST_LOG` says.
pub(super) fn log_to_stderr(env: Env<'_>) {
    let look = Look { format: Format::Text, ansi: ansi(env), journal: false };
    if let Err(error) = log::init(look, &log_filter(env, "warn"), || Aside) {
        complain(&format!("RUST_LOG: {error}: logging warnings and worse\n"));
        // This filter is our own: it is understood.
        let _ = log::init(look, "warn", || Aside);
    }
}

/// Stderr, with live progress out of the way.
struct Aside;

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        live::beside(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_width_follow_the_environment() {
        let env = |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| value.into());
        let check =
            |name, value, colours: bool| assert_eq!(takes_colours(&env(name, value)), colours, "{name}={value}");
        check("NO_COLOR", "1", false);
        check("NO_COLOR", "", true);
        check("TERM", "dumb", false);
        check("TERM", "xterm", true);
        assert_eq!(columns(&env("COLUMNS", "97")), Some(97));
    }

    #[test]
    fn many_are_shortened_and_few_are_not() {
        assert_eq!(some([1, 2, 3], 3), "1, 2, 3");
        assert_eq!(some([1, 2, 3, 4], 2), "1, 2 and 2 more");
        assert_eq!((count(1, "instance"), count(0, "instance")), ("1 instance".into(), "0 instances".into()));
        assert_eq!((count(1, "entry"), count(2, "entry")), ("1 entry".into(), "2 entries".into()));
    }
}
