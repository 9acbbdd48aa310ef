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

    /// Counts one more, and says whether the stream is to be asked first.
    #[must_use]
    pub fn one_more(&self) -> bool {
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        if since >= (self.bound / STEP).max(1) {
            return true;
        }
        let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
        self.is_full() && self.started.elapsed().saturating_sub(asked) > FRESH
    }

    /// The stream says that so many wait; the one that it was asked for comes on top.
    pub fn counted(&self, count: u64) {
        let now = self.started.elapsed().as_millis() as u64;
        self.counted.store(count, Ordering::Relaxed);
        self.since.store(1, Ordering::Relaxed);
        self.asked.store(now, Ordering::Relaxed);
    }

    /// Whether no more may wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let known = self.counted.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed);
        known > self.bound
    }
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
}
