//! How a command ends: exit code 0, or 1 with the reason on stderr.

use std::process::ExitCode;

use anyhow::Result;

/// The outcome of a command that could do its work.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Reached,
    /// Goals that were missed, in one line.
    Missed(String),
}

/// Prints the reason, if there is one: a line for missed goals; for a fault of the harness its chain of
/// causes, with a backtrace only if `RUST_BACKTRACE` asks for one.
#[must_use]
#[expect(clippy::print_stderr, reason = "the reason for the exit code")]
pub fn end(result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Reached) => return ExitCode::SUCCESS,
        Ok(Outcome::Missed(goals)) => eprintln!("failed: {goals}"),
        Err(error) => eprintln!("error: {error:?}"),
    }
    ExitCode::FAILURE
}
