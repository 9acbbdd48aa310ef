//! Retries due within two seconds wait in-process: parking costs the server several syncs, for which publishers wait.
//!
//! Meanwhile the message stays open and keeps its permit of the lane. So only the first retry of a small event may
//! wait here, and only in a part of the lane. All other retries are parked.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::delivery::PendingDelivery;

/// The default schedule begins with one second.
const LONGEST: Duration = Duration::from_secs(2);
/// The largest event.
const MOST_BYTES: usize = 8 << 10;
/// Retries may wait with one in this many of the lane's permits.
const PART: u32 = 4;

#[derive(Debug)]
pub(crate) struct InlineRetries {
    permits: Semaphore,
    stopping: CancellationToken,
}

impl InlineRetries {
    /// `permits`: of the lane.
    #[must_use]
    pub(crate) fn new(permits: u32, stopping: CancellationToken) -> Self {
        Self {
            permits: Semaphore::new((permits / PART) as usize),
            stopping,
        }
    }

    /// Waits until the retry after this attempt is due. False: it must be parked.
    pub(crate) async fn wait(&self, pending: &PendingDelivery, delay: Duration) -> bool {
        if !may_wait(pending, delay) {
            return false;
        }
        let Ok(_permit) = self.permits.try_acquire() else {
            return false;
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.stopping.cancelled() => false,
        }
    }
}

fn may_wait(pending: &PendingDelivery, delay: Duration) -> bool {
    pending.attempt == 1 && delay <= LONGEST && pending.delivery.event.raw.len() <= MOST_BYTES
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use hookline_shared::event::EventId;
    use tokio::time::Instant;

    use super::*;
    use crate::delivery::tests::pending_with;
    use crate::handler::Class;

    const SECOND: Duration = Duration::from_secs(1);

    /// A first attempt of an event with this size in bytes.
    fn pending(bytes: usize) -> PendingDelivery {
        let data = format!("{{\"text\":\"{}\"}}", "a".repeat(bytes - 11));
        assert_eq!(data.len(), bytes);
        pending_with(EventId::given("1"), data)
    }

    #[test]
    fn only_the_first_retry_of_a_small_event_within_two_seconds_may_wait() {
        let small = pending(MOST_BYTES);
        assert!(may_wait(&small, LONGEST));
        assert!(!may_wait(&small, LONGEST + Duration::from_millis(1)));
        assert!(!may_wait(&small.next(Class::Retry(None)), LONGEST));
        assert!(!may_wait(&pending(MOST_BYTES + 1), LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_for_its_delay() {
        let retries = InlineRetries::new(PART, CancellationToken::new());
        let began = Instant::now();
        assert!(retries.wait(&pending(100), SECOND).await);
        assert_eq!(began.elapsed(), SECOND);
        assert!(!retries.wait(&pending(100), 3 * SECOND).await);
        assert_eq!(began.elapsed(), SECOND, "it is parked at once");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_may_wait_in_a_part_of_the_lane() {
        let retries = InlineRetries::new(2 * PART + PART - 1, CancellationToken::new());
        let pending = pending(100);
        let mut waits: Vec<_> = (0..2)
            .map(|_| Box::pin(retries.wait(&pending, SECOND)))
            .collect();
        for wait in &mut waits {
            assert_eq!(wait.as_mut().now_or_never(), None, "it waits");
        }
        let excess = retries.wait(&pending, SECOND);
        assert_eq!(excess.now_or_never(), Some(false), "it is parked");
        for wait in waits {
            assert!(wait.await);
        }
        assert!(retries.wait(&pending, SECOND).await, "its permit is back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stops_parks_waiting_retries() {
        let stopping = CancellationToken::new();
        let retries = InlineRetries::new(PART, stopping.clone());
        let pending = pending(100);
        let mut wait = Box::pin(retries.wait(&pending, SECOND));
        assert_eq!(wait.as_mut().now_or_never(), None, "it waits");
        stopping.cancel();
        assert_eq!(wait.now_or_never(), Some(false));
    }
}
