//! Retries due within two seconds wait in-process: parking costs the server several syncs, for which publishers wait.
//!
//! Meanwhile the message stays open and keeps its permit of the lane. So only the first retry of a small event may
//! wait here, and only in a part of the lane. All other retries are parked.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;

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

    /// Waits until a retry is due. False: it must be parked.
    pub(crate) async fn wait(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        delay: Duration,
    ) -> bool {
        if !may_wait(pending, delay) || !hook.is_plain() {
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
    use std::sync::Arc;

    use hookline_shared::event::{DeliveryId, Event, EventId};
    use hookline_shared::subject;

    use super::*;
    use crate::handler::{Class, Delivery};

    fn pending(bytes: usize) -> PendingDelivery {
        let subject = subject::event_subject("default", "crud", "consumers");
        let body = format!("{{\"text\":\"{}\"}}", "a".repeat(bytes));
        let event = Event::parse_with_id(&subject, None, body.into(), EventId::given("1"));
        let event = Arc::new(event.expect("an event"));
        let delivery = Delivery {
            id: DeliveryId::new(&event, "hook"),
            event_name: event.name.as_str().into(),
            event,
        };
        PendingDelivery::first(delivery, 0)
    }

    #[test]
    fn only_the_first_retry_of_a_small_event_within_two_seconds_may_wait() {
        let small = pending(100);
        assert!(may_wait(&small, LONGEST));
        assert!(!may_wait(&small, LONGEST + Duration::from_millis(1)));
        assert!(!may_wait(&small.next(Class::Retry(None)), LONGEST));
        assert!(!may_wait(&pending(MOST_BYTES), LONGEST));
    }
}
