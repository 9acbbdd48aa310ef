//! Bounds how many deliveries may wait for any worker. Beyond, events are no longer spread.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const LIMIT: u64 = 50_000;
/// After this a count is stale: other workers may have taken the deliveries.
const FRESH: Duration = Duration::from_secs(10);

/// The last count and its time.
#[derive(Debug, Default)]
pub(crate) struct SpreadLimit(Mutex<Option<(u64, Instant)>>);

impl SpreadLimit {
    pub(crate) fn note(&self, waiting: u64) {
        *self.0.lock() = Some((waiting, Instant::now()));
    }

    pub(crate) fn is_reached(&self) -> bool {
        let last = *self.0.lock();
        last.is_some_and(|(waiting, at)| waiting >= LIMIT && at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_goes_stale() {
        let limit = SpreadLimit::default();
        assert!(!limit.is_reached(), "no count");
        limit.note(LIMIT);
        assert!(limit.is_reached());
        tokio::time::advance(FRESH).await;
        assert!(!limit.is_reached(), "a stale count");
        limit.note(LIMIT - 1);
        assert!(!limit.is_reached());
    }
}
