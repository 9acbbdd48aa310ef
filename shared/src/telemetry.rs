//! Logs and metrics of a service process.

use std::io::IsTerminal as _;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// How the process logs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
#[group(skip)]
pub struct Options {
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as
    /// `info,hookline_dispatcher=debug`.
    #[arg(
        long,
        env = "HOOKLINE_LOG",
        value_name = "FILTER",
        default_value = "info,async_nats=warn"
    )]
    pub log: String,

    /// How log lines look.
    #[arg(
        long,
        env = "HOOKLINE_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = Format::Text
    )]
    pub log_format: Format,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error("the log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Another subscriber is installed.
    #[error("logs are set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends logs to standard error from now on.
///
/// # Errors
/// If the filter does not parse.
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
        .with(logs.with_filter(filter_fn(may_be_shown)))
        .try_init()
        .map_err(|error| Error::Twice(error.into()))
}

/// Whether a line may be shown, whatever the filter says: below `info`, libraries print what is
/// sent and received, which holds secrets and bodies.
fn may_be_shown(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || line.target().starts_with("hookline")
}

/// A registry that holds the process's own figures: memory, file handles, processor time.
///
/// # Errors
/// If the collector cannot be registered.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}
