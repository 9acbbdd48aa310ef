//! Claims that this worker holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookline_shared::event::{EventId, Stored};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::marks::Marks;

/// A claim on a delivery. It is renewed until it is dropped.
#[derive(Debug)]
pub struct Lease {
    claim: Claim,
    lost: CancellationToken,
    held: Arc<Held>,
}

impl Lease {
    /// Resolves when another worker has taken the delivery over.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether the attempt probes an open circuit.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.claim.probe
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.lock().remove(&self.claim.token);
    }
}

/// What is claimed, and how it is told from another worker's claim.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) hook: String,
    pub(super) delivery: String,
    pub(super) bit: Option<Bit>,
    pub(super) attempt: u32,
    pub(super) token: String,
    pub(super) probe: bool,
    pub(super) marks: Option<Marks>,
}

impl Claim {
    /// The key of its state.
    pub(super) fn key(&self) -> String {
        format!("hookline:{{{}}}:d:{}", self.hook, self.delivery)
    }

    /// The key of the page in which its event has a bit; the same as [`key`](Self::key) if it has none.
    pub(super) fn page(&self) -> String {
        match self.bit {
            Some(Bit { second, page, .. }) => {
                format!("hookline:{{{}}}:b:{second}:{page}", self.hook)
            }
            None => self.key(),
        }
    }

    /// The event's bit in the page; empty if it has none.
    pub(super) fn offset(&self) -> String {
        self.bit
            .map_or_else(String::new, |bit| bit.offset.to_string())
    }
}

/// The bit that says that an event was delivered to a hook, if the event is known by its place in the
/// stream. A page holds events that stand near each other and were stored in the same second: a
/// stream that is made anew counts from 1 again, but not within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bit {
    second: u64,
    page: u64,
    offset: u64,
}

/// Events of a page. One that is alone in its page costs as much as a key would, and all of them
/// together hardly more.
const PAGE: u64 = 256;

impl Bit {
    pub(super) fn of(event: &EventId) -> Option<Self> {
        let Stored { sequence, time } = event.place()?;
        Some(Self {
            second: u64::try_from(time / 1_000_000_000).ok()?,
            page: sequence / PAGE,
            offset: sequence % PAGE,
        })
    }
}

/// All claims of this worker, by token.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    claim: Claim,
    lost: CancellationToken,
    renewed: Instant,
}

impl Held {
    pub(super) fn hold(self: &Arc<Self>, claim: Claim) -> Lease {
        let lost = CancellationToken::new();
        let entry = Entry {
            claim: claim.clone(),
            lost: lost.clone(),
            renewed: Instant::now(),
        };
        self.lock().insert(claim.token.clone(), entry);
        Lease {
            claim,
            lost,
            held: Arc::clone(self),
        }
    }

    /// What was not renewed for so long. It is taken for renewed from now on.
    pub(super) fn due(&self, age: Duration) -> Vec<(Claim, CancellationToken)> {
        let now = Instant::now();
        self.lock()
            .values_mut()
            .filter(|entry| now - entry.renewed >= age)
            .map(|entry| {
                entry.renewed = now;
                (entry.claim.clone(), entry.lost.clone())
            })
            .collect()
    }

    pub(super) fn all(&self) -> Vec<Claim> {
        let held = self.lock();
        held.values().map(|entry| entry.claim.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!((first.second, first.page, first.offset), (5, 1, 0));
        let last = bit(2 * PAGE - 1, 6 * SECOND - 1);
        assert_eq!((last.second, last.page, last.offset), (5, 1, PAGE - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn each_claim_is_renewed_in_its_own_time() {
        let held = Arc::new(Held::default());
        let claim = |token: &str| Claim {
            hook: "hook".into(),
            delivery: "delivery".into(),
            bit: None,
            attempt: 1,
            token: token.into(),
            probe: false,
            marks: None,
        };
        let due = || {
            let due = held.due(Duration::from_secs(2)).into_iter();
            due.map(|(claim, _)| claim.token).collect::<Vec<_>>()
        };
        let _first = held.hold(claim("first"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = held.hold(claim("second"));
        assert!(due().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(due(), ["first"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(due(), ["second"]);
        drop(second);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(due(), ["first"], "what is dropped is not renewed");
    }

    #[test]
    fn a_stream_that_is_made_anew_has_other_bits() {
        let bit = |time| Bit::of(&EventId::stored(1, time));
        assert_ne!(bit(5 * SECOND), bit(6 * SECOND));
    }
}
