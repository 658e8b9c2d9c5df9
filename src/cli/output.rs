//! How words reach the terminal: tables, few colours, errors with their causes, the log. It must never panic because a
//! reader went away (`rekeyd show … | head`).

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::config::Env;
use crate::model::Timestamp;
use crate::telemetry::{Format, Look, log};

/// Stdout, and whether it takes colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    colours: bool,
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
        let unwanted = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted }
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
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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

/// Columns side by side, two blanks between them, the first row being their heads. Indented by `indent`.
pub(super) fn table(indent: usize, heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let all = || std::iter::once(&heads).chain(rows);
    let width = |column: usize| all().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = " ".repeat(indent);
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
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
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What `RUST_LOG` lets through, or `usual`.
pub(super) fn log_filter(env: Env<'_>, usual: &str) -> String {
    let filter = env("RUST_LOG").and_then(|text| text.into_string().ok()).filter(|text| !text.is_empty());
    filter.unwrap_or_else(|| usual.to_string())
}

/// Whether lines on stderr may be coloured.
pub(super) fn ansi(env: Env<'_>) -> bool {
    std::io::stderr().is_terminal() && env("NO_COLOR").is_none_or(|value| value.is_empty())
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
    if let Err(error) = log::init(look, &log_filter(env, "warn")) {
        complain(&format!("RUST_LOG: {error}: logging warnings and worse\n"));
        // This filter is our own: it is understood.
        let _ = log::init(look, "warn");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_leaves_no_blanks_at_the_ends() {
        let rows = vec![vec!["a".into(), "bbbb".into(), "c".into()], vec!["aaaa".into(), "é".into(), String::new()]];
        assert_eq!(table(2, &["x", "y", "z"], &rows), "  x     y     z\n  a     bbbb  c\n  aaaa  é\n");
    }

    #[test]
    fn many_are_shortened_and_few_are_not() {
        assert_eq!(some([1, 2, 3], 3), "1, 2, 3");
        assert_eq!(some([1, 2, 3, 4], 2), "1, 2 and 2 more");
        assert_eq!((count(1, "instance"), count(0, "instance")), ("1 instance".into(), "0 instances".into()));
        assert_eq!((count(1, "entry"), count(2, "entry")), ("1 entry".into(), "2 entries".into()));
    }
}
