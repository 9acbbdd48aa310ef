//! A pulled message with deliveries in flight. When all of them are settled, so is the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hookline_shared::event::Stored;

use crate::admission::bulkhead::Occupied;
use crate::delivery::PendingDelivery;
use crate::nats::pulled_message::PulledMessage;

/// What a delivery, or all of them, mean for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Done, parked or dead: it may be acked.
    Final,
    /// It is redelivered after that time.
    NotYet(Duration),
    /// Another worker has it.
    TakenOver,
}

/// Dropped before all its deliveries are settled, the message is redelivered after its ack wait.
#[derive(Debug)]
pub(crate) struct OpenMessage {
    pub pulled: PulledMessage,
    /// Where it is in the event stream, if it is an event.
    pub event: Option<Stored>,
    pub tally: Tally,
    _occupied: Occupied,
}

impl OpenMessage {
    #[must_use]
    pub(crate) fn new(
        pulled: PulledMessage,
        event: Option<Stored>,
        occupied: Occupied,
        deliveries: usize,
    ) -> Self {
        Self {
            pulled,
            event,
            tally: Tally::new(deliveries),
            _occupied: occupied,
        }
    }
}

#[derive(Debug)]
pub(crate) struct OpenDelivery {
    pub pending: PendingDelivery,
    pub open: Arc<OpenMessage>,
}

/// The worst result of a message's deliveries so far.
#[derive(Debug)]
pub(crate) struct Tally {
    left: AtomicUsize,
    worst: AtomicU64,
}

/// [`Settled`] as a number, worst last: `Final`, milliseconds plus one, `TakenOver`.
const FINAL: u64 = 0;
const TAKEN_OVER: u64 = u64::MAX;

impl Tally {
    fn new(deliveries: usize) -> Self {
        Self {
            left: AtomicUsize::new(deliveries),
            worst: AtomicU64::new(FINAL),
        }
    }

    /// Adds a result. Returns the worst after the last one.
    pub(crate) fn add(&self, settled: Settled) -> Option<Settled> {
        let settled = match settled {
            Settled::Final => FINAL,
            Settled::NotYet(wait) => 1 + wait.as_millis() as u64,
            Settled::TakenOver => TAKEN_OVER,
        };
        self.worst.fetch_max(settled, Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        Some(match self.worst.load(Ordering::Acquire) {
            FINAL => Settled::Final,
            TAKEN_OVER => Settled::TakenOver,
            millis => Settled::NotYet(Duration::from_millis(millis - 1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_delivery_the_worst_counts() {
        let wait = |millis| Settled::NotYet(Duration::from_millis(millis));
        for (all, worst_of_all) in [
            (vec![Settled::Final], Settled::Final),
            (vec![Settled::Final, wait(0)], wait(0)),
            (vec![wait(2), wait(7), Settled::Final], wait(7)),
            (vec![Settled::TakenOver, wait(7)], Settled::TakenOver),
        ] {
            let tally = Tally::new(all.len());
            let mut answers: Vec<_> = all.iter().map(|settled| tally.add(*settled)).collect();
            assert_eq!(answers.pop(), Some(Some(worst_of_all)), "{all:?}");
            assert!(answers.iter().all(Option::is_none), "{all:?}");
        }
    }
}
