//! The processor time that a call may take. On a busy host a call lasts longer, and is not ended for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// In microseconds; one thread uses it.
pub(super) struct Budget {
    started: Instant,
    /// In processor time.
    end: AtomicU64,
    /// Since `started`: before, the processor time cannot have ended. Asking for that takes long.
    look: AtomicU64,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            end: AtomicU64::new(u64::MAX),
            look: AtomicU64::new(u64::MAX),
        }
    }

    pub(super) fn start(&self, time: Duration) {
        let time = time.as_micros() as u64;
        self.end.store(processor_time() + time, Ordering::Relaxed);
        self.look.store(self.elapsed() + time, Ordering::Relaxed);
    }

    /// Whether the time was enough. From now on there is no limit.
    pub(super) fn stop(&self) -> bool {
        let was_enough = self.is_left();
        self.look.store(u64::MAX, Ordering::Relaxed);
        self.end.store(u64::MAX, Ordering::Relaxed);
        was_enough
    }

    pub(super) fn is_left(&self) -> bool {
        let elapsed = self.elapsed();
        if elapsed < self.look.load(Ordering::Relaxed) {
            return true;
        }
        let left = self
            .end
            .load(Ordering::Relaxed)
            .saturating_sub(processor_time());
        self.look
            .store(elapsed.saturating_add(left), Ordering::Relaxed);
        left > 0
    }

    fn elapsed(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Of this thread.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_costs_nothing_and_working_does() {
        let budget = Budget::new();
        budget.start(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(60));
        assert!(budget.is_left(), "it slept");
        let began = Instant::now();
        while budget.is_left() {
            assert!(began.elapsed() < Duration::from_secs(60), "it never ends");
        }
        assert!(!budget.stop());
        assert!(budget.is_left());
    }
}
