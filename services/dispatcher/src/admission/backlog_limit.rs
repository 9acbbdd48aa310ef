//! How many deliveries of a hook wait, and whether one more may.
//!
//! The stream knows how many wait, but goes through all of them to say so. So it is asked once so many
//! were parked that the answer may matter. In between this worker counts what it parks itself, so with
//! several workers a hook may exceed its bound by up to two percent for each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The part of the bound after which the stream is asked again, however little is left of it.
const STEP: u64 = 50;
/// That no more may wait is believed for so many times as long as the stream took to say so.
const COST: u32 = 100;
/// When it is asked again if there was no answer.
const AGAIN: Duration = Duration::from_secs(10);

/// One hook's backlog, as this worker knows it.
#[derive(Debug)]
pub(crate) struct BacklogLimit {
    bound: u64,
    started: Instant,
    /// What the stream said last.
    counted: AtomicU64,
    /// What was parked since.
    since: AtomicU64,
    /// The stream is asked when so many were.
    next: AtomicU64,
    /// When it is asked again if no more may wait, in milliseconds since `started`.
    stale: AtomicU64,
}

impl BacklogLimit {
    /// Nothing is known.
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

    /// Counts one more, and says whether the stream is to be asked first. Of those that come at the
    /// same time one is told to.
    #[must_use]
    pub(crate) fn one_more(&self) -> bool {
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let (next, stale) = (
            self.next.load(Ordering::Relaxed),
            self.stale.load(Ordering::Relaxed),
        );
        // If there is no answer, another one asks.
        if self.is_full() {
            let now = self.after(Duration::ZERO);
            return now >= stale && swap(&self.stale, stale, self.after(AGAIN));
        }
        since >= next && swap(&self.next, next, since + self.least())
    }

    /// The stream says that so many wait at most, and took so long for it; the one that it was asked for
    /// comes on top. With so many workers, at most half of what is left of the bound is used before it
    /// is asked again.
    pub(crate) fn counted(&self, count: u64, took: Duration, workers: u32) {
        let left = self.bound.saturating_sub(count);
        let next = (left / 2 / u64::from(workers.max(1))).min(self.bound / 10);
        let next = next.max(self.least());
        self.counted.store(count, Ordering::Relaxed);
        self.since.store(1, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
        self.stale.store(self.after(took * COST), Ordering::Relaxed);
    }

    /// So many are far from the bound.
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

    /// Whether no more may wait.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        let known = self.counted.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed);
        known > self.bound
    }
}

/// Whether it was this call that replaced a value.
fn swap(value: &AtomicU64, old: u64, new: u64) -> bool {
    let swapped = value.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    swapped.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    /// How many of so many are told to ask.
    fn asks(backlog: &BacklogLimit, count: usize) -> usize {
        (0..count).filter(|_| backlog.one_more()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_is_asked_when_its_answer_may_matter() {
        let backlog = BacklogLimit::new(1_000);
        assert_eq!(asks(&backlog, 1), 1, "nothing is known");
        backlog.counted(700, QUICK, 2);
        assert_eq!(asks(&backlog, 73), 0, "two workers may use half of it");
        assert_eq!(asks(&backlog, 1), 1);
        backlog.counted(990, QUICK, 2);
        assert!(!backlog.is_full());
        assert_eq!(asks(&backlog, 9), 0);
        assert!(!backlog.is_full());
        assert_eq!(asks(&backlog, 1), 0);
        assert!(backlog.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_is_asked_about_the_less_often_the_longer_it_takes() {
        for took in [QUICK, Duration::from_secs(3)] {
            let backlog = BacklogLimit::new(1_000);
            assert_eq!(asks(&backlog, 1), 1);
            backlog.counted(2_000, took, 1);
            assert_eq!(asks(&backlog, 10), 0);
            tokio::time::advance(took * COST).await;
            assert_eq!(asks(&backlog, 5), 1, "there may be room by now");
            backlog.counted(5, took, 1);
            assert!(!backlog.is_full());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_answer_it_is_asked_again_later() {
        let backlog = BacklogLimit::new(1_000);
        assert_eq!(asks(&backlog, 20), 1);
        assert_eq!(asks(&backlog, 1), 1);
        backlog.counted(2_000, QUICK, 1);
        tokio::time::advance(QUICK * COST).await;
        assert_eq!(asks(&backlog, 10), 1);
        tokio::time::advance(AGAIN).await;
        assert_eq!(asks(&backlog, 10), 1);
    }
}
