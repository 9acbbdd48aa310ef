//! How a command ends: exit code 0, or 1 with the reason on stderr.

use std::process::ExitCode;

use anyhow::Result;

/// The outcome of a command that did its work; a command that could not returns an error.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Reached,
    /// The missed goals, in one line.
    Missed(String),
}

/// Prints missed goals as a line, and an error with its chain of causes, without a backtrace whatever
/// `RUST_BACKTRACE` says: the chain names the step that failed.
#[must_use]
#[expect(clippy::print_stderr, reason = "the reason for the exit code")]
pub fn end(result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Reached) => return ExitCode::SUCCESS,
        Ok(Outcome::Missed(goals)) => eprintln!("failed: {goals}"),
        Err(error) => eprintln!("error: {error:#}"),
    }
    ExitCode::FAILURE
}
