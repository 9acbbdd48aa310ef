//! Questions that NATS may leave without an answer: one that is under way when the leader of a cluster
//! dies is lost, and whoever waits for its answer waits for as long as the client library does.

use std::time::Duration;

use tokio::time::timeout;

/// How long an answer may take, each time: the first may be lost, and a slow server answers the last.
const PATIENCE: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// There was no answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer, though asked {} times", PATIENCE.len())]
pub(crate) struct NoAnswer;

/// Asks until there is an answer, each time with more patience. What is asked may be heard more than
/// once.
///
/// # Errors
/// [`NoAnswer`] after fifteen seconds.
pub(crate) async fn with_retries<F: Future>(
    question: impl Fn() -> F,
) -> Result<F::Output, NoAnswer> {
    for patience in PATIENCE {
        if let Ok(answer) = timeout(patience, question()).await {
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
    async fn a_question_that_is_lost_is_asked_again() {
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
    async fn a_slow_server_is_waited_for_and_a_silent_one_not_for_ever() {
        let slow = with_retries(|| sleep(Duration::from_secs(7)));
        assert!(slow.await.is_ok());
        let began = Instant::now();
        assert!(with_retries(std::future::pending::<()>).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(15));
    }
}
