//! Second attempts that follow so soon that they are waited for here. One that is parked costs the
//! server several syncs of its disk, for which publishers wait.
//!
//! Meanwhile the message stays open, as it does during an attempt, with its place in the lane: so few
//! wait, only small ones, and each once. What finds no place is parked, as every later attempt is.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;

/// The longest that is waited: the default schedule begins with a second.
const LONGEST: Duration = Duration::from_secs(2);
/// The largest event that is waited with.
const MOST_BYTES: usize = 8 << 10;
/// This part of the lane's places is for those that wait.
const PART: u32 = 4;

/// The places in which second attempts are waited for.
#[derive(Debug)]
pub(crate) struct InlineRetries {
    places: Semaphore,
    stopping: CancellationToken,
}

impl InlineRetries {
    /// Some of a lane's places, until the worker stops.
    #[must_use]
    pub(crate) fn new(permits: u32, stopping: CancellationToken) -> Self {
        Self {
            places: Semaphore::new((permits / PART) as usize),
            stopping,
        }
    }

    /// Waits for the attempt after one that failed. False: it is to be parked.
    pub(crate) async fn wait(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        delay: Duration,
    ) -> bool {
        if !is_soon(work, delay) || !hook.is_plain() {
            return false;
        }
        let Ok(_place) = self.places.try_acquire() else {
            return false;
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.stopping.cancelled() => false,
        }
    }
}

/// Whether there is so little to wait for.
fn is_soon(work: &PendingDelivery, delay: Duration) -> bool {
    work.attempt == 1 && delay <= LONGEST && work.delivery.event.raw.len() <= MOST_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookline_shared::event::{DeliveryId, Event, EventId};
    use hookline_shared::subject;

    use super::*;
    use crate::handler::{Class, Delivery};

    fn work(bytes: usize) -> PendingDelivery {
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
    fn only_a_small_second_attempt_that_follows_within_two_seconds_is_soon() {
        let small = work(100);
        assert!(is_soon(&small, LONGEST));
        assert!(!is_soon(&small, LONGEST + Duration::from_millis(1)));
        assert!(!is_soon(&small.next(Class::Retry(None)), LONGEST));
        assert!(!is_soon(&work(MOST_BYTES), LONGEST));
    }
}
