//! One bulkhead per hook and worker, so that a slow hook costs the others nothing.
//!
//! A delivery may wait for a permit here if that is short: the excess of a healthy hook drains quickly, and
//! parking it would cost a write to disk. A delivery that cannot expect a permit in time is rejected at once, and
//! the caller parks it; a failing hook gets less time. In a lane that is over half full each hook keeps to its
//! fair share, unless it is healthy and fast. An unknown hook gets time to prove itself: a worker that starts
//! has a full lane of them.

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A healthy hook whose attempts take no longer is exempt from the fair share.
const FAST: Duration = Duration::from_millis(125);
/// How long a healthy hook's delivery waits for a permit.
const PATIENCE: Duration = Duration::from_secs(1);
/// If no attempt begins for this long, and for longer than two attempts usually take, the hook is stalled.
const STALLED: Duration = Duration::from_millis(250);
/// Attempts that hang are expected to go on for this many times as long.
const HANGS: u32 = 4;
/// Attempts that a deferred delivery lets pass.
const ROUNDS: u32 = 2;
/// The weight of an attempt in the average duration is one in this many.
const WEIGHT: u64 = 8;
/// The assumed duration of an attempt before one has succeeded.
const UNKNOWN: Duration = Duration::from_millis(500);

/// The lane of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First attempts.
    Events,
    /// Parked deliveries that fell due.
    Retries,
}

/// The use of a lane by all hooks.
#[derive(Debug)]
pub(crate) struct LaneOccupancy {
    kind: Kind,
    capacity: usize,
    patience: Duration,
    taken: AtomicUsize,
    hooks: AtomicUsize,
}

impl LaneOccupancy {
    /// `patience`: how long a delivery waits for a permit of a hook that is not known to be healthy.
    #[must_use]
    pub(crate) fn new(kind: Kind, capacity: usize, patience: Duration) -> Self {
        Self {
            kind,
            capacity,
            patience,
            taken: AtomicUsize::new(0),
            hooks: AtomicUsize::new(0),
        }
    }

    pub(crate) fn message(self: &Arc<Self>) -> Occupied {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
    }

    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.capacity / 2
    }

    /// What one hook may hold of a crowded lane; all hooks together hold about half of it.
    fn share(&self) -> usize {
        (self.capacity / 2 / self.hooks.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// Counts a message in its lane until it is dropped.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<LaneOccupancy>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Bulkhead {
    permits: Arc<Semaphore>,
    limit: usize,
    waiting: AtomicUsize,
    /// Deliveries by lane, waiting or in an attempt.
    inside: [AtomicUsize; 2],
    /// Moving average of the duration of attempts; 0 before the first.
    attempt_nanos: AtomicU64,
    /// The same for successful ones.
    success_nanos: AtomicU64,
    /// Notified of the first success.
    proven: Notify,
    started: Instant,
    /// When a permit was last taken, since `started`.
    taken_nanos: AtomicU64,
    /// When an attempt last ended, or one began while there was no other.
    moved_nanos: AtomicU64,
}

/// A delivery that may wait for a permit.
#[derive(Debug)]
pub(crate) struct Admitted {
    inside: Inside,
    waiting: Waiting,
    terms: Terms,
}

/// How long a delivery waits for a permit.
#[derive(Debug, Clone, Copy)]
enum Terms {
    Within(Duration),
    /// Longer if the hook succeeds meanwhile.
    Unproven(Duration),
    /// Only if the hook succeeds meanwhile, and then as for a healthy hook.
    OnceProven(Duration),
}

/// The right to one attempt.
#[derive(Debug)]
pub(crate) struct Permit {
    inside: Inside,
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    /// Waits for the permit; None if there is none in time.
    pub(crate) async fn permit(self) -> Option<Permit> {
        let bulkhead = &self.inside.bulkhead;
        let permit = match self.terms {
            Terms::OnceProven(_) => None,
            _ => Arc::clone(&bulkhead.permits).try_acquire_owned().ok(),
        };
        let permit = match permit {
            Some(permit) => permit,
            None => Box::pin(bulkhead.permit(self.terms)).await?,
        };
        bulkhead.now(&bulkhead.taken_nanos);
        if bulkhead.permits.available_permits() + 1 >= bulkhead.limit {
            bulkhead.now(&bulkhead.moved_nanos);
        }
        drop(self.waiting);
        Some(Permit {
            inside: self.inside,
            _permit: permit,
        })
    }
}

impl Permit {
    pub(crate) fn attempted(&self, took: Duration, succeeded: bool) {
        let bulkhead = &self.inside.bulkhead;
        bulkhead.now(&bulkhead.moved_nanos);
        average(&bulkhead.attempt_nanos, took);
        if succeeded {
            let first = !bulkhead.is_proven();
            average(&bulkhead.success_nanos, took);
            if first {
                bulkhead.proven.notify_waiters();
            }
        }
    }
}

impl Bulkhead {
    /// `limit`: attempts at the same time.
    #[must_use]
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            limit: limit.max(1),
            waiting: AtomicUsize::new(0),
            inside: [AtomicUsize::new(0), AtomicUsize::new(0)],
            attempt_nanos: AtomicU64::new(0),
            success_nanos: AtomicU64::new(0),
            proven: Notify::new(),
            started: Instant::now(),
            taken_nanos: AtomicU64::new(0),
            moved_nanos: AtomicU64::new(0),
        }
    }

    /// Admits a delivery that can expect a permit in time. `calm`: no attempt failed lately.
    pub(crate) fn enter(
        self: &Arc<Self>,
        lane: &Arc<LaneOccupancy>,
        calm: bool,
    ) -> Option<Admitted> {
        let inside = Inside::new(self, lane);
        let stalled = self.stalled() > STALLED.max(self.attempt() * 2);
        let new = calm && self.attempt().is_zero() && self.hangs() <= STALLED;
        let healthy = calm && !stalled && !self.attempt().is_zero();
        let burden = !healthy || self.attempt() > FAST;
        let crowding = burden && lane.is_crowded() && inside.others >= lane.share();
        let (patience, terms) = match (new, crowding) {
            (true, true) => (lane.patience, Terms::OnceProven(lane.patience)),
            (true, false) => (lane.patience, Terms::Unproven(lane.patience)),
            (false, true) => return None,
            (false, false) if healthy => (PATIENCE, Terms::Within(PATIENCE)),
            (false, false) => (lane.patience, Terms::Within(lane.patience)),
        };
        let waiting = Waiting::new(self);
        // Deliveries without a free permit, this one included.
        let ahead = (waiting.others + 1).saturating_sub(self.permits.available_permits());
        let expected = self.attempt() * ahead as u32 / self.limit as u32;
        if ahead > 0 && (stalled || expected > patience) {
            return None;
        }
        Some(Admitted {
            inside,
            waiting,
            terms,
        })
    }

    async fn permit(self: &Arc<Self>, terms: Terms) -> Option<OwnedSemaphorePermit> {
        let patience = match terms {
            Terms::Within(patience) | Terms::Unproven(patience) => patience,
            Terms::OnceProven(patience) => {
                timeout(patience, self.proven()).await.ok()?;
                PATIENCE
            }
        };
        let mut permit = pin!(Arc::clone(&self.permits).acquire_owned());
        if let Ok(permit) = timeout(patience, permit.as_mut()).await {
            return permit.ok();
        }
        if matches!(terms, Terms::Unproven(_)) && self.is_proven() {
            return timeout(PATIENCE, permit).await.ok()?.ok();
        }
        None
    }

    /// Waits for the first success.
    async fn proven(&self) {
        let mut proven = pin!(self.proven.notified());
        // Registers first, so that a success between the check and the wait counts.
        proven.as_mut().enable();
        if !self.is_proven() {
            proven.await;
        }
    }

    /// Whether an attempt has ever succeeded here.
    fn is_proven(&self) -> bool {
        self.success_nanos.load(Ordering::Relaxed) > 0
    }

    /// This worker's time for one successful delivery with all permits in use. Before the first success, failures
    /// and hanging attempts count: each delivery that falls due in vain costs the server several syncs, for
    /// which publishers wait.
    #[must_use]
    pub(crate) fn interval(&self) -> Duration {
        let attempt = match self.success_nanos.load(Ordering::Relaxed) {
            0 => UNKNOWN.max(self.attempt()).max(self.hangs()),
            known => Duration::from_nanos(known),
        };
        attempt / self.limit as u32
    }

    /// When a permit can be expected: attempts take as long as before, and those that hang will for some time.
    #[must_use]
    pub(crate) fn expected_wait(&self) -> Duration {
        (self.hangs() * HANGS).max(self.attempt() * ROUNDS)
    }

    /// Time since an attempt ended; 0 without attempts in flight.
    fn hangs(&self) -> Duration {
        if self.permits.available_permits() >= self.limit {
            return Duration::ZERO;
        }
        self.since(&self.moved_nanos)
    }

    /// Time since an attempt began; 0 with a free permit.
    fn stalled(&self) -> Duration {
        if self.permits.available_permits() > 0 {
            return Duration::ZERO;
        }
        self.since(&self.taken_nanos)
    }

    fn now(&self, moment: &AtomicU64) {
        moment.store(nanos(self.started.elapsed()), Ordering::Relaxed);
    }

    fn since(&self, moment: &AtomicU64) -> Duration {
        let moment = Duration::from_nanos(moment.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(moment)
    }

    fn attempt(&self) -> Duration {
        Duration::from_nanos(self.attempt_nanos.load(Ordering::Relaxed))
    }
}

/// Counts a delivery that waits for a permit.
#[derive(Debug)]
struct Waiting {
    bulkhead: Arc<Bulkhead>,
    others: usize,
}

impl Waiting {
    fn new(bulkhead: &Arc<Bulkhead>) -> Self {
        Self {
            others: bulkhead.waiting.fetch_add(1, Ordering::Relaxed),
            bulkhead: Arc::clone(bulkhead),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bulkhead.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a delivery of a hook in a lane; the first one makes the hook share the lane.
#[derive(Debug)]
struct Inside {
    bulkhead: Arc<Bulkhead>,
    lane: Arc<LaneOccupancy>,
    others: usize,
}

impl Inside {
    fn new(bulkhead: &Arc<Bulkhead>, lane: &Arc<LaneOccupancy>) -> Self {
        let others = bulkhead.inside[lane.kind as usize].fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            lane.hooks.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            bulkhead: Arc::clone(bulkhead),
            lane: Arc::clone(lane),
            others,
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let count = &self.bulkhead.inside[self.lane.kind as usize];
        if count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.lane.hooks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Adds to a moving average. Losing a concurrent update does no harm.
fn average(average: &AtomicU64, took: Duration) {
    let took = nanos(took);
    let new = match average.load(Ordering::Relaxed) {
        0 => took,
        old => old / WEIGHT * (WEIGHT - 1) + took / WEIGHT,
    };
    average.store(new.max(1), Ordering::Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
