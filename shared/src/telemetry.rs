//! Sets up logs and the metrics registry of a service.

use std::cell::Cell;
use std::fmt::{self, Debug, Write};
use std::io::IsTerminal as _;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
#[group(skip)]
pub struct Options {
    /// Log level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as
    /// `info,hookline_dispatcher=debug`.
    #[arg(
        long,
        env = "HOOKLINE_LOG",
        value_name = "FILTER",
        default_value = "info,async_nats=warn"
    )]
    pub log: String,

    /// Format of log lines.
    #[arg(
        long,
        env = "HOOKLINE_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = Format::Text
    )]
    pub log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid log filter (--log or HOOKLINE_LOG)")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is already set up")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends logs to standard error.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&options.log)?;
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = match options.log_format {
        Format::Text => logs
            .event_format(Records(tracing_subscriber::fmt::format()))
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .boxed(),
        Format::Json => logs.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(logs.with_filter(filter_fn(is_safe)))
        .try_init()
        .map_err(|error| Error::Twice(error.into()))
}

/// The target of the `log` handler's records, whose lines are our own: their texts are escaped already.
pub const OWN_RECORDS: &str = "hookline::log";

thread_local! {
    /// Whether the record that this thread formats is one of those.
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

struct Records(tracing_subscriber::fmt::format::Format);

impl<S, N> FormatEvent<S, N> for Records
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        out: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        IS_OWN.set(event.metadata().target() == OWN_RECORDS);
        let written = self.0.format_event(context, out, event);
        IS_OWN.set(false);
        written
    }
}

/// Writes a field so that nothing in it looks like another line: values come from events, hooks and receivers.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    write!(Escaping(out), "{value:?}")
}

struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(breaks_a_line) {
            let end = part.chars().next_back().filter(|char| breaks_a_line(*char));
            let Some(end) = end else {
                self.0.write_str(part)?;
                continue;
            };
            self.0.write_str(&part[..part.len() - end.len_utf8()])?;
            write!(self.0, "{}", end.escape_default())?;
        }
        Ok(())
    }
}

/// Control characters, line separators, and those that change the direction of text.
fn breaks_a_line(char: char) -> bool {
    (char.is_control() && !(char == '\n' && IS_OWN.get()))
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a line may be logged, whatever the filter says: below `info`, libraries log the data that they
/// send and receive, including secrets and bodies.
fn is_safe(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || line.target().starts_with("hookline")
}

/// A registry with the metrics of the process itself: memory, open files, CPU time.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_that_is_logged_looks_like_another_line() {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || written.clone())
            .with_ansi(false)
            .event_format(Records(tracing_subscriber::fmt::format()))
            .fmt_fields(debug_fn(write_field).delimited(" "));
        let forged = "a\r\n2026-01-01 ERROR b\u{2028}c\u{85}d\u{1b}[31me\u{202e}f\u{0}g é";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("attempt", hook = %forged);
            let _in_span = span.enter();
            tracing::error!(error = %forged, text = forged, "{forged}");
        });
        let own = Lines::default();
        let written = own.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || written.clone())
            .event_format(Records(tracing_subscriber::fmt::format()))
            .fmt_fields(debug_fn(write_field).delimited(" "));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: OWN_RECORDS, "a\nb");
            tracing::info!("a\nb");
        });
        assert_eq!(
            own.0.lock().iter().filter(|byte| **byte == b'\n').count(),
            3
        );
        let text = String::from_utf8(lines.0.lock().clone()).expect("UTF-8");
        let escaped = r"a\r\n2026-01-01 ERROR b\u{2028}c\u{85}d\u{1b}[31me\u{202e}f\u{0}g é";
        assert_eq!(text.matches(escaped).count(), 3, "{text}");
        assert_eq!(
            text.trim_end_matches('\n')
                .chars()
                .filter(|char| breaks_a_line(*char))
                .count(),
            0,
            "{text}"
        );
        assert!(text.contains("error=a"), "{text}");
    }
}
