//! A question about speed: a subcommand by itself, and a section of the report of `bench`.

use anyhow::Result;

use crate::report::Section;

/// The options of a subcommand; their defaults are those of `make bench`.
pub trait Question: clap::Args {
    /// The subcommand.
    const NAME: &'static str;

    /// The options of `make bench-full`.
    fn full() -> Self;

    /// Measures. An error is a fault of the harness, not a missed goal.
    fn run(&self) -> impl Future<Output = Result<Section>>;
}
