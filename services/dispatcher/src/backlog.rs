//! How many deliveries of a hook wait, and whether one more may.
//!
//! The stream knows how many wait; it is asked once so many were parked that the answer may matter.
//! In between this worker counts what it parks itself, so with several workers a hook may exceed
//! its bound by a few percent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The part of the bound after which the stream is asked again.
const STEP: u64 = 50;
/// The count is not believed for longer.
const FRESH: Duration = Duration::from_secs(10);

/// One hook's backlog, as this worker knows it.
#[derive(Debug)]
pub struct Backlog {
    bound: u64,
    started: Instant,
    /// What the stream said last.
    counted: AtomicU64,
    /// What was parked since.
    since: AtomicU64,
    /// When it was asked, in milliseconds since `started`.
    asked: AtomicU64,
}

impl Backlog {
    /// Nothing waits, as far as is known.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self {
            bound,
            started: Instant::now(),
            counted: AtomicU64::new(0),
            since: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }

    /// Counts one more, and says whether the stream is to be asked first. Of those that come at the
    /// same time one is told to: the stream goes through all that waits for an answer.
    #[must_use]
    pub fn one_more(&self) -> bool {
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        if since >= (self.bound / STEP).max(1) {
            let mine = swap(&self.since, since, 0);
            if mine {
                self.counted.fetch_add(since, Ordering::Relaxed);
            }
            return mine;
        }
        let asked = self.asked.load(Ordering::Relaxed);
        let age = self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(asked));
        self.is_full() && age > FRESH && swap(&self.asked, asked, self.now())
    }

    /// The stream says that so many wait; the one that it was asked for comes on top.
    pub fn counted(&self, count: u64) {
        self.counted.store(count, Ordering::Relaxed);
        self.since.fetch_add(1, Ordering::Relaxed);
        self.asked.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether no more may wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
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

    #[tokio::test(start_paused = true)]
    async fn the_stream_is_asked_when_its_answer_may_matter() {
        let backlog = Backlog::new(1_000);
        let asks = (0..100).filter(|_| {
            let ask = backlog.one_more();
            if ask {
                backlog.counted(990);
            }
            ask
        });
        assert_eq!(asks.count(), 5);
        assert!(!backlog.is_full());
        for _ in 0..11 {
            let _ = backlog.one_more();
        }
        assert!(backlog.is_full());
        let strict = Backlog::new(5);
        assert!(strict.one_more());
        strict.counted(4);
        assert!(!strict.is_full(), "the fifth");
        assert!(strict.one_more());
        strict.counted(5);
        assert!(strict.is_full(), "the sixth");
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert!(backlog.one_more(), "there may be room by now");
        backlog.counted(5);
        assert!(!backlog.is_full());
    }
    #[tokio::test(start_paused = true)]
    async fn one_asks_at_a_time() {
        let backlog = Backlog::new(1_000);
        let asks = |count| (0..count).filter(|_| backlog.one_more()).count();
        assert_eq!(asks(20), 1);
        assert_eq!(asks(19), 0, "while there is no answer");
        backlog.counted(2_000);
        assert_eq!(asks(1), 1);
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert_eq!(asks(10), 1, "there may be room by now");
    }
}
