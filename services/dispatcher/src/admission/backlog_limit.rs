//! Bounds how many deliveries of a hook wait.
//!
//! The stream goes through all deliveries of a hook to count them. So it is asked only once the count may have
//! come near the bound; in between each worker counts what it parks itself. With several workers a hook may
//! exceed its bound by up to two percent for each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The stream is asked at most once for this part of the bound, however little of it is left.
const STEP: u64 = 50;
/// A full backlog is counted again after this many times the duration of the last count.
const COST: u32 = 100;
/// Between counts while the stream does not answer.
const RETRY: Duration = Duration::from_secs(10);

/// One hook's backlog as this worker knows it.
#[derive(Debug)]
pub(crate) struct BacklogLimit {
    bound: u64,
    started: Instant,
    /// The stream's last count.
    counted: AtomicU64,
    /// Parked since then.
    since: AtomicU64,
    /// The value of `since` at which the stream is asked.
    next: AtomicU64,
    /// When a full backlog is counted again, in milliseconds since `started`.
    stale: AtomicU64,
}

impl BacklogLimit {
    #[must_use]
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            bound,
            started: Instant::now(),
            counted: AtomicU64::new(0),
            since: AtomicU64::new(0),
            next: AtomicU64::new(1),
            stale: AtomicU64::new(0),
        }
    }

    /// Counts one more. Returns true to one of several concurrent callers if the stream must be asked first.
    #[must_use]
    pub(crate) fn one_more(&self) -> bool {
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let (next, stale) = (
            self.next.load(Ordering::Relaxed),
            self.stale.load(Ordering::Relaxed),
        );
        // The caller may get no answer; then another one asks.
        if self.is_full() {
            let now = self.after(Duration::ZERO);
            return now >= stale && swap(&self.stale, stale, self.after(RETRY));
        }
        since >= next && swap(&self.next, next, since + self.least())
    }

    /// Notes the stream's count, without the delivery for which it was asked. At most half of the rest is used,
    /// by all workers together, before the next count.
    pub(crate) fn counted(&self, count: u64, took: Duration, workers: u32) {
        let left = self.bound.saturating_sub(count);
        let next = (left / 2 / u64::from(workers.max(1))).min(self.bound / 10);
        let next = next.max(self.least());
        self.counted.store(count, Ordering::Relaxed);
        self.since.store(1, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
        self.stale.store(self.after(took * COST), Ordering::Relaxed);
    }

    /// A count up to this is far from the bound.
    #[must_use]
    pub(crate) fn few(&self) -> u64 {
        self.bound / 2
    }

    fn least(&self) -> u64 {
        (self.bound / STEP).max(1)
    }

    fn after(&self, time: Duration) -> u64 {
        (self.started.elapsed() + time).as_millis() as u64
    }

    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        let known = self.counted.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed);
        known > self.bound
    }
}

/// Whether this call replaced the value.
fn swap(value: &AtomicU64, old: u64, new: u64) -> bool {
    let swapped = value.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    swapped.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    /// How many of `count` calls must ask the stream.
    fn asks(backlog: &BacklogLimit, count: usize) -> usize {
        (0..count).filter(|_| backlog.one_more()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_is_asked_near_the_bound() {
        let backlog = BacklogLimit::new(1_000);
        assert_eq!(asks(&backlog, 1), 1, "no count yet");
        backlog.counted(700, QUICK, 2);
        assert_eq!(
            asks(&backlog, 73),
            0,
            "two workers may use half of the rest"
        );
        assert_eq!(asks(&backlog, 1), 1);
        backlog.counted(990, QUICK, 2);
        assert!(!backlog.is_full());
        assert_eq!(asks(&backlog, 9), 0);
        assert!(!backlog.is_full());
        assert_eq!(asks(&backlog, 1), 0);
        assert!(backlog.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_backlog_is_counted_less_often_the_longer_a_count_takes() {
        for took in [QUICK, Duration::from_secs(3)] {
            let backlog = BacklogLimit::new(1_000);
            assert_eq!(asks(&backlog, 1), 1);
            backlog.counted(2_000, took, 1);
            assert_eq!(asks(&backlog, 10), 0);
            tokio::time::advance(took * COST).await;
            assert_eq!(asks(&backlog, 5), 1, "it may have drained");
            backlog.counted(5, took, 1);
            assert!(!backlog.is_full());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_answer_is_asked_again_later() {
        let backlog = BacklogLimit::new(1_000);
        assert_eq!(asks(&backlog, 20), 1);
        assert_eq!(asks(&backlog, 1), 1);
        backlog.counted(2_000, QUICK, 1);
        tokio::time::advance(QUICK * COST).await;
        assert_eq!(asks(&backlog, 10), 1);
        tokio::time::advance(RETRY).await;
        assert_eq!(asks(&backlog, 10), 1);
    }
}
