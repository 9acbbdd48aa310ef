//! Claims that this worker holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(test)]
use hookline_shared::event::Event;
use hookline_shared::event::{DeliveryId, EventId, Stored};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call::Call;
use crate::marks::Marks;

/// A claim on a delivery. It is renewed until it is dropped.
#[derive(Debug)]
pub struct Lease {
    claim: Arc<Claim>,
    held: Arc<Held>,
}

impl Lease {
    /// Resolves when another worker has taken the delivery over.
    pub async fn lost(&self) {
        self.claim.lost.notified().await;
    }

    /// Whether the attempt probes an open circuit.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.claim.probe
    }

    /// Whether its end concerns nothing but the delivery, so that it may end together with others.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.claim.probe && self.claim.marks.is_none()
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// A renewal that comes after its end would claim the delivery anew.
    pub(super) fn renew_no_more(&self) {
        self.held.lock().remove(&self.claim.number);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renew_no_more();
    }
}

/// What is claimed, and how it is told from another worker's claim.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) number: u64,
    pub(super) hook: Arc<str>,
    pub(super) delivery: DeliveryId,
    pub(super) bit: Option<Bit>,
    pub(super) attempt: u32,
    /// Claims that were made together share it.
    pub(super) token: Arc<str>,
    pub(super) probe: bool,
    pub(super) marks: Option<Marks>,
    /// Tells that another worker has taken the delivery over.
    pub(super) lost: Notify,
}

impl Claim {
    /// Adds the keys of the hash that its state is in and of the bitmap to a call: the same key where
    /// there is no bitmap.
    pub(super) fn add_keys_to(&self, call: &mut Call<'_>) {
        let Self {
            hook,
            delivery,
            bit,
            ..
        } = self;
        match bit {
            Some(bit) => {
                let (second, page) = bit.page;
                call.text(format_args!("hookline:{{{hook}}}:l:{second}:{page}"))
                    .text(format_args!("hookline:{{{hook}}}:b:{second}:{page}"));
            }
            None => {
                call.text(format_args!("hookline:{{{hook}}}:l:{delivery}"))
                    .text(format_args!("hookline:{{{hook}}}:l:{delivery}"));
            }
        }
    }

    /// Whether its state is in the same hash as another one's.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        match (self.bit, other.bit) {
            (Some(bit), Some(other)) => bit.page == other.page,
            (None, None) => self.delivery == other.delivery,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Its field in the hash, and its bit in the bitmap.
    pub(super) fn field(&self) -> u64 {
        self.bit.map_or(0, |bit| bit.offset)
    }
}

/// The bit that says that an event was delivered to a hook, if the event is known by its place in the
/// stream. A page holds events that stand near each other and were stored in the same second: a
/// stream that is made anew counts from 1 again, but not within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bit {
    pub(super) page: (u64, u64),
    pub(super) offset: u64,
}

/// Events of a page. One that is alone in its page costs as much as a key would, and all of them
/// together hardly more.
const PAGE: u64 = 256;

impl Bit {
    pub(super) fn of(event: &EventId) -> Option<Self> {
        let Stored { sequence, time } = event.place()?;
        let second = u64::try_from(time / 1_000_000_000).ok()?;
        Some(Self {
            page: (second, sequence / PAGE),
            offset: sequence % PAGE,
        })
    }
}

/// All claims of this worker, by number.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<u64, Entry>>);

#[derive(Debug)]
struct Entry {
    claim: Arc<Claim>,
    renewed: Instant,
}

impl Held {
    pub(super) fn hold(self: &Arc<Self>, claim: Claim) -> Lease {
        let claim = Arc::new(claim);
        let entry = Entry {
            claim: Arc::clone(&claim),
            renewed: Instant::now(),
        };
        self.lock().insert(claim.number, entry);
        Lease {
            claim,
            held: Arc::clone(self),
        }
    }

    /// What was not renewed for so long. It is taken for renewed from now on.
    pub(super) fn due(&self, age: Duration) -> Vec<Arc<Claim>> {
        let now = Instant::now();
        self.lock()
            .values_mut()
            .filter(|entry| now - entry.renewed >= age)
            .map(|entry| {
                entry.renewed = now;
                Arc::clone(&entry.claim)
            })
            .collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Claim>> {
        let held = self.lock();
        held.values()
            .map(|entry| Arc::clone(&entry.claim))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Claim {
    /// A claim on the delivery of an event.
    pub(super) fn sample(number: u64, id: EventId) -> Self {
        let bit = Bit::of(&id);
        let event = Event::parse_with_id("hookline.events.a.b.c", None, "{}".into(), id);
        Self {
            number,
            hook: "hook".into(),
            delivery: DeliveryId::new(&event.expect("an event"), "hook"),
            bit,
            attempt: 1,
            token: "token".into(),
            probe: false,
            marks: None,
            lost: Notify::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn only_an_event_that_is_known_by_its_place_has_a_bit() {
        assert_eq!(Bit::of(&EventId::given("1-2")), None);
        let bit = |sequence, time| Bit::of(&EventId::stored(sequence, time)).expect("a bit");
        let first = bit(PAGE, 5 * SECOND);
        assert_eq!((first.page, first.offset), ((5, 1), 0));
        let last = bit(2 * PAGE - 1, 6 * SECOND - 1);
        assert_eq!((last.page, last.offset), ((5, 1), PAGE - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn each_claim_is_renewed_in_its_own_time() {
        let held = Arc::new(Held::default());
        let claim = |number| Claim::sample(number, EventId::stored(number, SECOND));
        let due = || {
            let due = held.due(Duration::from_secs(2)).into_iter();
            due.map(|claim| claim.number).collect::<Vec<_>>()
        };
        let _first = held.hold(claim(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = held.hold(claim(2));
        assert!(due().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(due(), [1]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(due(), [2]);
        drop(second);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(due(), [1], "what is dropped is not renewed");
    }

    #[test]
    fn a_stream_that_is_made_anew_has_other_bits() {
        let bit = |time| Bit::of(&EventId::stored(1, time));
        assert_ne!(bit(5 * SECOND), bit(6 * SECOND));
    }
}
