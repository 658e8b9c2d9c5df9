//! What a log line looks like: for people on a terminal, as text, as JSON, and in each the journal's priorities where stderr
//! is the journal. Nothing that a cloud says can begin a second line or move a terminal's cursor.

use std::fmt::{self, Write as _};

use jiff::tz::TimeZone;
use tracing::field::Field;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::{Clock, SystemClock};

/// What a line holds, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: the time of day (UTC), level, message, fields.
    Human,
    /// Time, level, target, message, fields.
    #[default]
    Text,
    /// For machines: one object a line, the fields at its top level.
    Json,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What it holds.
    pub format: Format,
    /// In colours.
    pub ansi: bool,
    /// It goes to the journal of systemd: each line begins with its priority (`<4>`, sd-daemon(3)), and text leaves out the
    /// time and the level, which the journal has itself.
    pub journal: bool,
}

/// The filter is none.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} is not understood: {source}")]
pub struct FilterError {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Logs to `writer` (stderr) from now on. `filter` is as in `RUST_LOG` (`info`, `warn,rekeyd::journal=info`). A second call in one
/// process (tests) changes nothing.
pub fn init<W>(look: Look, filter: &str, writer: W) -> Result<(), FilterError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let _ = tracing::dispatcher::set_global_default(dispatch(look, filter, writer)?);
    Ok(())
}

/// Who writes what passes the filter, times in UTC by RFC 3339.
pub(super) fn dispatch<W>(look: Look, filter: &str, writer: W) -> Result<Dispatch, FilterError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let parsed = EnvFilter::try_new(filter).map_err(|source| FilterError { filter: filter.to_string(), source })?;
    let Look { format, ansi, journal } = look;
    let subscriber = tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(ansi && !journal).with_writer(writer);
    let fields = debug_fn(text_field).delimited(" ");
    let shape = tracing_subscriber::fmt::format();
    Ok(match (format, journal) {
        (Format::Human, _) => {
            let shape = shape.with_timer(TimeOfDay).with_target(false);
            Dispatch::new(subscriber.fmt_fields(fields).event_format(Prioritized { journal, shape }).finish())
        }
        (Format::Text, true) => {
            let shape = shape.without_time().with_level(false);
            Dispatch::new(subscriber.fmt_fields(fields).event_format(Prioritized { journal, shape }).finish())
        }
        (Format::Text, false) => Dispatch::new(subscriber.fmt_fields(fields).finish()),
        // JSON escapes by itself.
        (Format::Json, _) => {
            let subscriber = subscriber.json();
            let shape = shape.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Dispatch::new(subscriber.event_format(Prioritized { journal, shape }).finish())
        }
    })
}

/// A line, and before it its priority if it goes to the journal.
struct Prioritized<F> {
    journal: bool,
    shape: F,
}

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        self.shape.format_event(context, writer, event)
    }
}

/// As syslog(3) numbers them: err, warning, info, debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The hour, the minute and the second, in UTC as everything that rekeyd says.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.now().to_zoned(TimeZone::UTC).strftime("%H:%M:%SZ"))
    }
}

/// One field of a text line, on that line.
fn text_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut line = OneLine(writer);
    match field.name() {
        "message" => write!(line, "{value:?}"),
        name => write!(line, "{name}={value:?}"),
    }
}

/// Writes control characters as Rust does in a literal: `\n`, `\u{1b}`. tracing-subscriber 0.3.23 escapes those of
/// terminals by itself, line breaks not.
struct OneLine<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|c| c.is_control()) {
                Some(control) => {
                    self.0.write_str(&part[..part.len() - control.len_utf8()])?;
                    write!(self.0, "{}", control.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}
