//! Waiting: the only place where the harness and the scenarios sleep.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How often a probe is asked.
const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it succeeds. After `deadline`, fails with the probe's last error.
///
/// The deadline only ends a hung scenario: make it generous, and assert no speed with it.
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

/// Runs `work` every `period`, catching up after a late turn, until it returns false.
pub async fn paced(period: Duration, mut work: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        if !work().await? {
            return Ok(());
        }
    }
}

/// Lets a time pass that is part of the scenario: a receiver is slow, or a period that the product was
/// configured with runs out. To wait for an effect, use [`eventually`].
pub async fn let_pass(time: Duration) {
    tokio::time::sleep(time).await;
}
