//! Waiting for something to become true: the only place where tests sleep.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers, for at most `deadline`. The error is the
/// last one that `probe` gave.
///
/// # Errors
/// When the deadline passes first.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let error = match probe().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Err(error.context(format!("{what}: not within {deadline:?}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Runs `work` every `period` until it says that it has done enough: a steady
/// pace, made up for when a turn is late.
///
/// # Errors
/// The first error of `work`.
pub async fn paced(period: Duration, mut work: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        if !work().await? {
            return Ok(());
        }
    }
}
