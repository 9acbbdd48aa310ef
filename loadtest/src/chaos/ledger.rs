//! When each numbered event was published, acknowledged and received.
//!
//! Only acknowledged events must arrive: NATS promised no others.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One endpoint's ledger; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// When publishing began.
    pub published: Option<Instant>,
    pub acknowledged: Option<Instant>,
    /// The first arrival.
    pub first: Option<Instant>,
    /// Further arrivals.
    pub again: Vec<Instant>,
    /// The first arrival's `webhook-id`.
    id: String,
    /// Whether a repeat had another `webhook-id`.
    pub other_id: bool,
}

impl Entry {
    /// From the first attempt to publish to the first arrival.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        Some(self.first?.saturating_duration_since(self.published?))
    }

    /// From the first attempt to publish to NATS's acknowledgement.
    #[must_use]
    pub fn storing(&self) -> Option<Duration> {
        Some(
            self.acknowledged?
                .saturating_duration_since(self.published?),
        )
    }
}

impl Ledger {
    pub fn published(&self, number: usize) {
        let mut entries = self.lock();
        if entries.len() <= number {
            entries.resize_with(number + 1, Entry::default);
        }
        entries[number].published.get_or_insert_with(Instant::now);
    }

    pub fn acknowledged(&self, number: usize) {
        self.lock()[number].acknowledged = Some(Instant::now());
    }

    pub fn arrived(&self, number: usize, id: &str) {
        let mut entries = self.lock();
        if entries.len() <= number {
            entries.resize_with(number + 1, Entry::default);
        }
        let entry = &mut entries[number];
        let now = Instant::now();
        if entry.first.is_some() {
            entry.again.push(now);
            entry.other_id |= entry.id != id;
        } else {
            entry.first = Some(now);
            id.clone_into(&mut entry.id);
        }
    }

    /// The acknowledged entries.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.lock();
        let promised = entries.iter().filter(|entry| entry.acknowledged.is_some());
        promised.cloned().collect()
    }

    /// How many events were acknowledged, and how many of those have not arrived.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        let entries = self.lock();
        let promised = entries.iter().filter(|entry| entry.acknowledged.is_some());
        promised.fold((0, 0), |(all, open), entry| {
            (all + 1, open + usize::from(entry.first.is_none()))
        })
    }

    #[must_use]
    pub fn acknowledged_in(&self, span: RangeInclusive<Instant>) -> usize {
        let entries = self.lock();
        let inside = entries
            .iter()
            .filter_map(|entry| entry.acknowledged)
            .filter(|at| span.contains(at));
        inside.count()
    }

    /// How many events arrived without having been acknowledged.
    #[must_use]
    pub fn invented(&self) -> usize {
        let entries = self.lock();
        let invented = entries
            .iter()
            .filter(|entry| entry.first.is_some() && entry.acknowledged.is_none());
        invented.count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Zero if there are no values.
#[must_use]
pub fn percentile(mut values: Vec<Duration>, percent: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1) as f64;
    let index = (last * percent / 100.0).round() as usize;
    values.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_is_promised() {
        let ledger = Ledger::default();
        for number in 0..3 {
            ledger.published(number);
        }
        ledger.acknowledged(0);
        ledger.acknowledged(2);
        ledger.arrived(2, "a");
        assert_eq!(ledger.open(), (2, 1));
    }

    #[test]
    fn a_repeat_is_known_by_its_id() {
        let ledger = Ledger::default();
        ledger.published(0);
        ledger.acknowledged(0);
        for id in ["a", "a"] {
            ledger.arrived(0, id);
        }
        assert!(!ledger.entries()[0].other_id);
        ledger.arrived(0, "b");
        let entries = ledger.entries();
        assert_eq!(entries[0].again.len(), 2);
        assert!(entries[0].other_id);
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_values() {
        let values: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(values.clone(), 50.0), Duration::from_millis(50));
        assert_eq!(percentile(values, 99.0), Duration::from_millis(99));
        assert_eq!(percentile(Vec::new(), 99.0), Duration::ZERO);
    }
}
