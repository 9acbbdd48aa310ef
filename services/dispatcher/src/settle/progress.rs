//! Records of settled messages, for the watchdog and the event purge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hookline_shared::event::Stored;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Acked events to remember; the excess is purged once all older events are acked.
const MOST: usize = 1 << 20;

/// Counts messages that were acked, buried, or given back for a reason outside this worker. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Events acked by this worker that may still be stored. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AckedEvents(Arc<Mutex<Vec<Acked>>>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) event: Stored,
    pub(crate) at: Instant,
}

impl AckedEvents {
    pub(super) fn add(&self, event: Stored) {
        let mut acked = self.0.lock();
        if acked.len() < MOST {
            let at = Instant::now();
            acked.push(Acked { event, at });
        }
    }

    pub(crate) fn retain(&self, keep: impl Fn(&Acked) -> bool) {
        self.0.lock().retain(keep);
    }

    /// Takes up to `most` of those acked at least `age` ago.
    pub(crate) fn take_old(&self, age: std::time::Duration, most: usize) -> Vec<Acked> {
        let mut acked = self.0.lock();
        let old = acked.partition_point(|acked| acked.at.elapsed() >= age);
        acked.drain(..old.min(most)).collect()
    }
}
