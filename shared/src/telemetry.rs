//! Sets up logs and the metrics registry of a service.

use std::io::IsTerminal as _;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

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
    let logs = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = match options.log_format {
        Format::Text => logs.boxed(),
        Format::Json => logs.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(logs.with_filter(filter_fn(is_safe)))
        .try_init()
        .map_err(|error| Error::Twice(error.into()))
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
