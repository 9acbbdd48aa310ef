//! Requests that are repeated if there is no answer. A request in flight when the leader of a NATS cluster dies is
//! lost, and the client library would wait long for its answer.

use std::time::Duration;

use tokio::time::timeout;

/// Timeouts of the tries: the first request may be lost, and even a slow server answers the last.
const PATIENCE: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

#[derive(Debug, thiserror::Error)]
#[error("no answer to {} requests", PATIENCE.len())]
pub(crate) struct NoAnswer;

/// Repeats a request until there is an answer, for fifteen seconds. The server may get it more than once.
pub(crate) async fn with_retries<F: Future>(
    request: impl Fn() -> F,
) -> Result<F::Output, NoAnswer> {
    for patience in PATIENCE {
        if let Ok(answer) = timeout(patience, request()).await {
            return Ok(answer);
        }
    }
    Err(NoAnswer)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_request_is_repeated() {
        let (asked, began) = (Cell::new(0), Instant::now());
        let answer = with_retries(|| {
            asked.set(asked.get() + 1);
            let (number, lost) = (asked.get(), std::future::pending());
            async move { if number == 1 { lost.await } else { number } }
        });
        assert_eq!(answer.await.ok(), Some(2));
        assert_eq!(began.elapsed(), PATIENCE[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_gets_time_and_a_silent_one_is_given_up() {
        let slow = with_retries(|| sleep(Duration::from_secs(7)));
        assert!(slow.await.is_ok());
        let began = Instant::now();
        assert!(with_retries(std::future::pending::<()>).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(15));
    }
}
