//! A message that was pulled and whose deliveries are under way: once each of them has come to
//! something, it is known what becomes of the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hookline_shared::event::Stored;

use crate::admission::bulkhead::Occupied;
use crate::delivery::PendingDelivery;
use crate::nats::pulled_message::PulledMessage;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Done, parked or dead: its message may be acked.
    Dealt,
    /// Not yet: its message comes again after that time.
    NotYet(Duration),
    /// Another worker has it, message and all.
    TakenOver,
}

/// The message. Where it is dropped before all its deliveries are settled, it comes again by itself.
#[derive(Debug)]
pub(crate) struct OpenMessage {
    pub pulled: PulledMessage,
    /// Where it stands in the event stream, if it is an event.
    pub event: Option<Stored>,
    /// What its deliveries came to.
    pub tally: Tally,
    _occupied: Occupied,
}

impl OpenMessage {
    /// A message with so many deliveries.
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

/// A delivery that is under way, and its message.
#[derive(Debug)]
pub(crate) struct OpenDelivery {
    pub work: PendingDelivery,
    pub open: Arc<OpenMessage>,
}

/// What the deliveries of a message came to so far.
#[derive(Debug)]
pub(crate) struct Tally {
    left: AtomicUsize,
    worst: AtomicU64,
}

/// [`Settled`] as a number, the worst the largest: `Dealt`, milliseconds plus one, `TakenOver`.
const DEALT: u64 = 0;
const TAKEN_OVER: u64 = u64::MAX;

impl Tally {
    fn new(deliveries: usize) -> Self {
        Self {
            left: AtomicUsize::new(deliveries),
            worst: AtomicU64::new(DEALT),
        }
    }

    /// One came to this. After the last one: what follows for the message.
    pub(crate) fn add(&self, settled: Settled) -> Option<Settled> {
        let settled = match settled {
            Settled::Dealt => DEALT,
            Settled::NotYet(wait) => 1 + wait.as_millis() as u64,
            Settled::TakenOver => TAKEN_OVER,
        };
        self.worst.fetch_max(settled, Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        Some(match self.worst.load(Ordering::Acquire) {
            DEALT => Settled::Dealt,
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
        for (all, together) in [
            (vec![Settled::Dealt], Settled::Dealt),
            (vec![Settled::Dealt, wait(0)], wait(0)),
            (vec![wait(2), wait(7), Settled::Dealt], wait(7)),
            (vec![Settled::TakenOver, wait(7)], Settled::TakenOver),
        ] {
            let tally = Tally::new(all.len());
            let mut told: Vec<_> = all.iter().map(|settled| tally.add(*settled)).collect();
            assert_eq!(told.pop(), Some(Some(together)), "{all:?}");
            assert!(told.iter().all(Option::is_none), "{all:?}");
        }
    }
}
