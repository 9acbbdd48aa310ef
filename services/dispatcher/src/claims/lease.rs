//! Claims held by this worker, which are renewed until they are dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hookline_shared::event::DeliveryId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bitmap::{Bitmap, Bits};
use crate::admission::suppression::Marks;

/// A claim on a delivery, renewed until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    claim: Arc<Claim>,
    held: Arc<Held>,
}

impl Lease {
    /// Resolves when another worker has taken the delivery over.
    pub(crate) async fn lost(&self) {
        self.claim.lost.notified().await;
    }

    /// Whether the attempt probes an open circuit.
    #[must_use]
    pub(crate) fn is_probe(&self) -> bool {
        self.claim.probe
    }

    /// Whether its release concerns nothing but the delivery, so that it can be released in a batch.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        !self.claim.probe && self.claim.marks.is_none()
    }

    pub(super) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// Time since the last request that Redis answered with yes, this worker holds it.
    pub(super) fn age(&self) -> Duration {
        let held = self.held.lock();
        let confirmed = held.get(&self.claim.number).map(|entry| entry.confirmed);
        confirmed.unwrap_or(self.claim.asked).elapsed()
    }

    /// A renewal after the release would claim the delivery again.
    pub(super) fn stop_renewing(&self) {
        self.held.lock().remove(&self.claim.number);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewing();
    }
}

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) number: u64,
    pub(super) group: Arc<Group>,
    /// In the bitmap.
    pub(super) offset: u8,
    pub(super) delivery: DeliveryId,
    pub(super) probe: bool,
    pub(super) marks: Option<Marks>,
    /// Before the request to Redis.
    pub(super) asked: Instant,
    /// Notified when another worker has taken the delivery over.
    pub(super) lost: Notify,
}

impl Claim {
    pub(super) fn set(&self) -> Bits {
        Bits::of(self.offset)
    }
}

/// Shared by claims that are made together on one bitmap.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) hook: Arc<str>,
    /// Of the hook.
    pub(super) revision: u64,
    pub(super) bitmap: Bitmap,
    pub(super) attempt: u32,
    pub(super) token: Token,
}

/// Identifies a group's claims: the worker, and a number that it uses once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64, u64);

impl Token {
    pub(super) fn new(worker: u64, number: u64) -> Self {
        Self(worker, number)
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_be_bytes()
    }
}

/// All claims of this worker, by number.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<u64, Entry>>);

#[derive(Debug)]
struct Entry {
    claim: Arc<Claim>,
    /// Before the last request to Redis.
    asked: Instant,
    /// Before the last request that confirmed the claim.
    confirmed: Instant,
}

impl Held {
    pub(super) fn hold(self: &Arc<Self>, claim: Claim) -> Lease {
        let claim = Arc::new(claim);
        let entry = Entry {
            claim: Arc::clone(&claim),
            asked: claim.asked,
            confirmed: claim.asked,
        };
        self.lock().insert(claim.number, entry);
        Lease {
            claim,
            held: Arc::clone(self),
        }
    }

    /// Claims last asked about at least `age` ago, by number.
    pub(super) fn due(&self, age: Duration) -> Vec<Arc<Claim>> {
        let now = Instant::now();
        let mut due: Vec<_> = self
            .lock()
            .values()
            .filter(|entry| now - entry.asked >= age)
            .map(|entry| Arc::clone(&entry.claim))
            .collect();
        due.sort_unstable_by_key(|claim| claim.number);
        due
    }

    /// Notes Redis' answers about the claims that are still held.
    pub(super) fn note(&self, claims: &[Arc<Claim>], asked: Instant, own: &[Option<bool>]) {
        let mut held = self.lock();
        for (claim, own) in claims.iter().zip(own) {
            if let Some(entry) = held.get_mut(&claim.number) {
                entry.asked = asked;
                if *own == Some(true) {
                    entry.confirmed = asked;
                }
            }
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Claim>> {
        let held = self.lock();
        held.values()
            .map(|entry| Arc::clone(&entry.claim))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.0.lock()
    }
}
