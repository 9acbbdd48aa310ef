//! Whether a hook has room for one more delivery on this worker, so that a slow hook costs the
//! others nothing.
//!
//! A delivery without a permit of its hook waits here only as long as that is short: what a fast
//! hook has too much of drains in milliseconds, and parking it would cost a write to disk. What
//! cannot be expected to get a permit soon is sent away at once, and the caller parks it. In a lane
//! that is over half full a hook keeps its fair share only, unless what it holds drains quickly.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A hook that drains what it holds within this time is no burden on a lane, however full.
const QUICK: Duration = Duration::from_millis(50);
/// One attempt counts for this part of the average duration.
const WEIGHT: u32 = 8;

/// Which lane a delivery is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// First attempts.
    Events,
    /// Parked deliveries that fell due.
    Retries,
}

/// How a lane's room is used, over all hooks.
#[derive(Debug)]
pub struct LaneRoom {
    kind: Kind,
    capacity: usize,
    patience: Duration,
    taken: AtomicUsize,
    hooks: AtomicUsize,
}

impl LaneRoom {
    /// An empty lane for `capacity` messages, in which a delivery waits for its hook's permit for
    /// no longer than `patience`.
    #[must_use]
    pub fn new(kind: Kind, capacity: usize, patience: Duration) -> Self {
        Self {
            kind,
            capacity,
            patience,
            taken: AtomicUsize::new(0),
            hooks: AtomicUsize::new(0),
        }
    }

    /// Counts a message in, until the guard is dropped.
    pub fn message(&self) -> Counted<'_> {
        Counted::new(&self.taken)
    }

    fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.capacity / 2
    }

    /// What one hook may hold in a crowded lane.
    fn share(&self) -> usize {
        (self.capacity / self.hooks.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// The room of one hook on this worker.
#[derive(Debug)]
pub struct Room {
    permits: Semaphore,
    limit: usize,
    waiting: AtomicUsize,
    /// Deliveries of each lane, waiting or attempted.
    inside: [AtomicUsize; 2],
    /// Moving average of the duration of attempts; 0: not known yet.
    attempt_nanos: AtomicU64,
    started: Instant,
    /// When a permit was last taken, since `started`.
    taken_nanos: AtomicU64,
}

/// A place in the room, with a permit for one attempt.
#[derive(Debug)]
pub struct Place<'a> {
    room: &'a Room,
    _permit: SemaphorePermit<'a>,
    _inside: Inside<'a>,
}

impl Place<'_> {
    /// Notes how long the attempt took.
    pub fn attempted(&self, took: Duration) {
        let took = nanos(took).max(1);
        let average = &self.room.attempt_nanos;
        let old = average.load(Ordering::Relaxed);
        let new = match old {
            0 => took,
            _ => (old / u64::from(WEIGHT)) * u64::from(WEIGHT - 1) + took / u64::from(WEIGHT),
        };
        // A lost update is one attempt less in an average.
        average.store(new.max(1), Ordering::Relaxed);
    }
}

impl Room {
    /// A room for `limit` attempts at the same time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            permits: Semaphore::new(limit),
            limit: limit.max(1),
            waiting: AtomicUsize::new(0),
            inside: [AtomicUsize::new(0), AtomicUsize::new(0)],
            attempt_nanos: AtomicU64::new(0),
            started: Instant::now(),
            taken_nanos: AtomicU64::new(0),
        }
    }

    /// A place for one attempt; nothing if there is none soon.
    pub async fn enter<'a>(&'a self, lane: &'a LaneRoom) -> Option<Place<'a>> {
        let inside = Inside::new(lane, &self.inside[lane.kind as usize]);
        if lane.is_crowded() && inside.others >= lane.share() && self.drains_in() > QUICK {
            return None;
        }
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait(lane.patience).await?,
        };
        self.taken_nanos
            .store(nanos(self.started.elapsed()), Ordering::Relaxed);
        Some(Place {
            room: self,
            _permit: permit,
            _inside: inside,
        })
    }

    /// How long the hook takes for one delivery when it has as many as it can take.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.attempt_nanos.load(Ordering::Relaxed)) / self.limit as u32
    }

    async fn wait(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        let waiting = Counted::new(&self.waiting);
        if self.interval() * (waiting.others as u32 + 1) > patience || self.stalled() > patience {
            return None;
        }
        tokio::time::timeout(patience, self.permits.acquire())
            .await
            .ok()?
            .ok()
    }

    /// How long no attempt has begun, while all permits are taken.
    fn stalled(&self) -> Duration {
        if self.permits.available_permits() > 0 {
            return Duration::ZERO;
        }
        let taken = Duration::from_nanos(self.taken_nanos.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(taken)
    }

    /// How long it takes until everything in here is done.
    fn drains_in(&self) -> Duration {
        let inside: usize = self.inside.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        let rounds = inside.div_ceil(self.limit) as u32;
        let attempt = Duration::from_nanos(self.attempt_nanos.load(Ordering::Relaxed));
        (attempt * rounds).max(self.stalled())
    }
}

/// One more, until it is dropped.
#[derive(Debug)]
pub struct Counted<'a> {
    count: &'a AtomicUsize,
    /// How many there were before.
    others: usize,
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let others = count.fetch_add(1, Ordering::Relaxed);
        Self { count, others }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A delivery of a hook in a lane; the first one makes the hook one of those that share the lane.
#[derive(Debug)]
struct Inside<'a> {
    lane: &'a LaneRoom,
    count: &'a AtomicUsize,
    others: usize,
}

impl<'a> Inside<'a> {
    fn new(lane: &'a LaneRoom, count: &'a AtomicUsize) -> Self {
        let others = count.fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            lane.hooks.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            lane,
            count,
            others,
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.lane.hooks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn lane(capacity: usize) -> LaneRoom {
        LaneRoom::new(Kind::Events, capacity, PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_fast_hook_has_too_much_of_waits_for_a_permit() {
        let (lane, room) = (lane(100), Room::new(1));
        let place = room.enter(&lane).await.expect("a free permit");
        place.attempted(Duration::from_millis(1));
        let mut second = Box::pin(room.enter(&lane));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        drop(place);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_hook_has_too_much_of_is_sent_away_at_once() {
        let (lane, room) = (lane(100), Room::new(1));
        let place = room.enter(&lane).await.expect("a free permit");
        place.attempted(Duration::from_secs(5));
        let sent_away = room.enter(&lane).now_or_never();
        assert!(sent_away.is_some_and(|place| place.is_none()), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_was_never_seen_is_waited_for_no_longer_than_patience() {
        let (lane, room) = (lane(100), Room::new(1));
        let _place = room.enter(&lane).await.expect("a free permit");
        let waited = Instant::now();
        assert!(room.enter(&lane).await.is_none());
        assert_eq!(waited.elapsed(), PATIENCE);
        tokio::time::advance(Duration::from_millis(1)).await;
        let stalled = room.enter(&lane).now_or_never();
        assert!(stalled.is_some_and(|place| place.is_none()), "at once");
    }

    #[tokio::test]
    async fn in_a_crowded_lane_a_slow_hook_keeps_its_share_and_a_fast_one_is_let_in() {
        let lane = lane(4);
        let _messages = [lane.message(), lane.message(), lane.message()];
        let (slow, fast) = (Room::new(32), Room::new(32));
        let mut held = Vec::new();
        for room in [&slow, &fast] {
            let took = if std::ptr::eq(room, &slow) { 1_000 } else { 1 };
            let place = room.enter(&lane).await.expect("nothing is known of it yet");
            place.attempted(Duration::from_millis(took));
            held.push(place);
        }
        // Two hooks share four places.
        held.push(slow.enter(&lane).await.expect("within its share"));
        assert!(slow.enter(&lane).await.is_none());
        for _ in 0..4 {
            held.push(fast.enter(&lane).await.expect("it drains quickly"));
        }
    }

    #[test]
    fn the_interval_is_an_attempt_by_the_permits() {
        let (lane, room) = (lane(100), Room::new(10));
        let place = room.enter(&lane).now_or_never().flatten().expect("a place");
        for _ in 0..100 {
            place.attempted(Duration::from_millis(50));
        }
        let interval = room.interval();
        assert!(
            interval > Duration::from_millis(4) && interval < Duration::from_millis(6),
            "{interval:?}"
        );
    }
}
