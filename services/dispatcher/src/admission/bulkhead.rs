//! Whether a hook has room for one more delivery on this worker, so that a slow hook costs the
//! others nothing.
//!
//! A delivery without a permit of its hook waits here only as long as that is short: what a healthy
//! hook has too much of drains soon, and parking it would cost a write to disk. What cannot be
//! expected to get a permit soon is sent away at once, and the caller parks it; of a hook that
//! fails, less is expected. In a lane that is over half full a hook keeps its fair share only,
//! unless it is healthy and fast. A hook that nothing is known of gets the time to show that it is:
//! a worker that starts has a full lane of them.

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A healthy hook whose attempts take no longer is no burden on a lane, however full.
const FAST: Duration = Duration::from_millis(125);
/// How long a healthy hook's delivery waits for a permit.
const PATIENCE: Duration = Duration::from_secs(1);
/// If all permits are taken for that long, and longer than two attempts usually take, something is
/// wrong.
const STALLED: Duration = Duration::from_millis(250);
/// What has hung for a while hangs for so many times as long.
const HANGS: u32 = 4;
/// After so many attempts there is a place for what has to wait.
const ROUNDS: u32 = 2;
/// One attempt counts for this part of the average duration.
const WEIGHT: u64 = 8;
/// What an attempt is taken to last before one has succeeded.
const UNKNOWN: Duration = Duration::from_millis(500);

/// Which lane a delivery is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First attempts.
    Events,
    /// Parked deliveries that fell due.
    Retries,
}

/// How a lane is used, over all hooks.
#[derive(Debug)]
pub(crate) struct LaneOccupancy {
    kind: Kind,
    capacity: usize,
    patience: Duration,
    taken: AtomicUsize,
    hooks: AtomicUsize,
}

impl LaneOccupancy {
    /// An empty lane for `capacity` messages, in which a delivery waits no longer than `patience`
    /// for a permit of a hook that is not known to be healthy.
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

    /// Counts a message in, until the guard is dropped.
    pub(crate) fn message(self: &Arc<Self>) -> Occupied {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
    }

    /// Which lane it is.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.capacity / 2
    }

    /// What one hook may hold in a crowded lane: all of them together about half of it.
    fn share(&self) -> usize {
        (self.capacity / 2 / self.hooks.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// A message in a lane.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<LaneOccupancy>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bulkhead of one hook on this worker.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    permits: Arc<Semaphore>,
    limit: usize,
    waiting: AtomicUsize,
    /// Deliveries of each lane, waiting or attempted.
    inside: [AtomicUsize; 2],
    /// Moving average of the duration of attempts; 0: not known yet.
    attempt_nanos: AtomicU64,
    /// The same of those that succeeded.
    success_nanos: AtomicU64,
    /// Told of the first that did.
    proven: Notify,
    started: Instant,
    /// When a permit was last taken, since `started`.
    taken_nanos: AtomicU64,
    /// When an attempt last ended, or one was about to begin where there was none.
    moved_nanos: AtomicU64,
}

/// A delivery that was let into the bulkhead, and waits for a permit.
#[derive(Debug)]
pub(crate) struct Admitted {
    inside: Inside,
    waiting: Waiting,
    terms: Terms,
}

/// What a permit is given on.
#[derive(Debug, Clone, Copy)]
enum Terms {
    /// Within that time.
    Within(Duration),
    /// Within that time, and longer where the hook turns out to be healthy meanwhile.
    Unproven(Duration),
    /// If it turns out to be healthy within that time; then it is waited for likewise.
    OnceProven(Duration),
}

/// A place in the bulkhead, with a permit for one attempt.
#[derive(Debug)]
pub(crate) struct Permit {
    inside: Inside,
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    /// Waits for the permit; nothing if there is none in time.
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
    /// Notes how long the attempt took, and whether it succeeded.
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
    /// A room for `limit` attempts at the same time.
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

    /// Lets a delivery in that has a permit or gets one soon. `calm`: no attempt failed lately.
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
        // Those that wait, it included, for which no permit is free.
        let ahead = (waiting.others + 1).saturating_sub(self.permits.available_permits());
        let turn = self.attempt() * ahead as u32 / self.limit as u32;
        if ahead > 0 && (stalled || turn > patience) {
            return None;
        }
        Some(Admitted {
            inside,
            waiting,
            terms,
        })
    }

    /// Waits for a permit.
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

    /// Waits until an attempt has succeeded.
    async fn proven(&self) {
        let mut proven = pin!(self.proven.notified());
        // From here on it is told of the first success.
        proven.as_mut().enable();
        if !self.is_proven() {
            proven.await;
        }
    }

    /// Whether an attempt has succeeded.
    #[must_use]
    pub(crate) fn is_proven(&self) -> bool {
        self.success_nanos.load(Ordering::Relaxed) > 0
    }

    /// How long this worker takes for one delivery that succeeds, with all permits in use. Where none
    /// has, a success is taken to last as long as what fails or hangs: each delivery that falls due
    /// in vain costs the server several syncs, for which publishers wait.
    #[must_use]
    pub(crate) fn interval(&self) -> Duration {
        let attempt = match self.success_nanos.load(Ordering::Relaxed) {
            0 => UNKNOWN.max(self.attempt()).max(self.hangs()),
            known => Duration::from_nanos(known),
        };
        attempt / self.limit as u32
    }

    /// For how long the places that are taken are expected to be: attempts take as long as before,
    /// and what hangs is expected to hang for some time yet.
    #[must_use]
    pub(crate) fn taken_for(&self) -> Duration {
        (self.hangs() * HANGS).max(self.attempt() * ROUNDS)
    }

    /// How long no attempt has ended, while there are some.
    fn hangs(&self) -> Duration {
        if self.permits.available_permits() >= self.limit {
            return Duration::ZERO;
        }
        self.since(&self.moved_nanos)
    }

    /// How long no attempt has begun, while all permits are taken.
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

/// A delivery that waits for a permit.
#[derive(Debug)]
struct Waiting {
    bulkhead: Arc<Bulkhead>,
    /// How many there were before.
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

/// A delivery of a hook in a lane; the first one makes the hook one of those that share the lane.
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

/// Adds to a moving average. A lost update is one attempt less in it.
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
