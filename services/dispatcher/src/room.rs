//! Whether a hook has room for one more delivery on this worker, so that a slow hook costs the
//! others nothing.
//!
//! A delivery without a permit of its hook waits here only as long as that is short: what a healthy
//! hook has too much of drains soon, and parking it would cost a write to disk. What cannot be
//! expected to get a permit soon is sent away at once, and the caller parks it; of a hook that
//! fails, or that nothing is known of, less is expected. In a lane that is over half full a hook
//! keeps its fair share only, unless it is healthy and fast.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

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
    /// An empty lane for `capacity` messages, in which a delivery waits no longer than `patience`
    /// for a permit of a hook that is not known to be healthy.
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

    /// Which lane it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
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
    /// The same of those that succeeded.
    success_nanos: AtomicU64,
    started: Instant,
    /// When a permit was last taken, since `started`.
    taken_nanos: AtomicU64,
    /// When an attempt last ended, or one was about to begin where there was none.
    moved_nanos: AtomicU64,
}

/// A place in the room, with a permit for one attempt.
#[derive(Debug)]
pub struct Place<'a> {
    room: &'a Room,
    _permit: SemaphorePermit<'a>,
    _inside: Inside<'a>,
}

impl Place<'_> {
    /// Notes how long the attempt took, and whether it succeeded.
    pub fn attempted(&self, took: Duration, succeeded: bool) {
        self.room.now(&self.room.moved_nanos);
        average(&self.room.attempt_nanos, took);
        if succeeded {
            average(&self.room.success_nanos, took);
        }
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
            success_nanos: AtomicU64::new(0),
            started: Instant::now(),
            taken_nanos: AtomicU64::new(0),
            moved_nanos: AtomicU64::new(0),
        }
    }

    /// A place for one attempt; nothing if there is none soon. `calm`: no attempt failed lately.
    pub async fn enter<'a>(&'a self, lane: &'a LaneRoom, calm: bool) -> Option<Place<'a>> {
        let inside = Inside::new(lane, &self.inside[lane.kind as usize]);
        let stalled = self.stalled() > STALLED.max(self.attempt() * 2);
        let healthy = calm && !stalled && !self.attempt().is_zero();
        let burden = !healthy || self.attempt() > FAST;
        if burden && lane.is_crowded() && inside.others >= lane.share() {
            return None;
        }
        if self.permits.available_permits() >= self.limit {
            self.now(&self.moved_nanos);
        }
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) if stalled => return None,
            Err(_) if healthy => self.wait(PATIENCE).await?,
            Err(_) => self.wait(lane.patience).await?,
        };
        self.now(&self.taken_nanos);
        Some(Place {
            room: self,
            _permit: permit,
            _inside: inside,
        })
    }

    /// How long this worker takes for one delivery that succeeds, with all permits in use.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let attempt = match self.success_nanos.load(Ordering::Relaxed) {
            0 => UNKNOWN,
            known => Duration::from_nanos(known),
        };
        attempt / self.limit as u32
    }

    async fn wait(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        let waiting = Counted::new(&self.waiting);
        let turn = self.attempt() * (waiting.others as u32 + 1) / self.limit as u32;
        if turn > patience {
            return None;
        }
        tokio::time::timeout(patience, self.permits.acquire())
            .await
            .ok()?
            .ok()
    }

    /// For how long the places that are taken are expected to be: attempts take as long as before,
    /// and what hangs is expected to hang for some time yet.
    #[must_use]
    pub fn taken_for(&self) -> Duration {
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LITTLE: Duration = Duration::from_millis(100);

    fn lane(capacity: usize) -> LaneRoom {
        LaneRoom::new(Kind::Events, capacity, LITTLE)
    }

    fn sent_away(room: &Room, lane: &LaneRoom, calm: bool) -> bool {
        let entered = room.enter(lane, calm).now_or_never();
        entered.is_some_and(|place| place.is_none())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_healthy_hook_has_too_much_of_waits_for_a_permit() {
        let (lane, room) = (lane(100), Room::new(1));
        let place = room.enter(&lane, true).await.expect("a free permit");
        place.attempted(Duration::from_millis(100), true);
        let mut second = Box::pin(room.enter(&lane, true));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        assert!(!sent_away(&room, &lane, true), "the third as well");
        drop(place);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_or_failing_hook_has_too_much_of_is_sent_away_at_once() {
        for (took, calm) in [(5_000, true), (300, false)] {
            let (lane, room) = (lane(100), Room::new(1));
            let place = room.enter(&lane, calm).await.expect("a free permit");
            place.attempted(Duration::from_millis(took), calm);
            assert!(sent_away(&room, &lane, calm), "{took} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_was_never_seen_is_waited_for_no_longer_than_patience() {
        let (lane, room) = (lane(100), Room::new(1));
        let _place = room.enter(&lane, true).await.expect("a free permit");
        let waited = Instant::now();
        assert!(room.enter(&lane, true).await.is_none());
        assert_eq!(waited.elapsed(), LITTLE);
        tokio::time::advance(STALLED).await;
        assert!(sent_away(&room, &lane, true), "it is stalled");
    }

    #[tokio::test]
    async fn in_a_crowded_lane_slow_hooks_share_half_of_it_and_a_fast_one_is_let_in() {
        let lane = lane(8);
        let _messages: Vec<_> = (0..5).map(|_| lane.message()).collect();
        let (slow, fast) = (Room::new(32), Room::new(32));
        let mut held = Vec::new();
        for (room, took) in [(&slow, 1_000), (&fast, 1)] {
            let place = room.enter(&lane, true).await.expect("within its share");
            place.attempted(Duration::from_millis(took), true);
            held.push(place);
        }
        // Two hooks share four places.
        held.push(slow.enter(&lane, true).await.expect("within its share"));
        assert!(sent_away(&slow, &lane, true));
        for _ in 0..4 {
            held.push(fast.enter(&lane, true).await.expect("it is fast"));
        }
        assert!(sent_away(&fast, &lane, false), "it fails");
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_hangs_from_when_something_last_moved() {
        let (lane, room) = (lane(100), Room::new(4));
        assert_eq!(room.hangs(), Duration::ZERO);
        let first = room.enter(&lane, true).await.expect("a free permit");
        tokio::time::advance(LITTLE).await;
        let _second = room.enter(&lane, true).await.expect("a free permit");
        assert_eq!(room.hangs(), LITTLE, "the first is still there");
        first.attempted(LITTLE, true);
        drop(first);
        assert_eq!(room.hangs(), Duration::ZERO);
        tokio::time::advance(LITTLE).await;
        assert_eq!(room.hangs(), LITTLE);
    }

    #[test]
    fn the_interval_is_a_success_by_the_permits() {
        let (lane, room) = (lane(100), Room::new(10));
        let place = room.enter(&lane, true).now_or_never().flatten();
        let place = place.expect("a place");
        for _ in 0..100 {
            place.attempted(Duration::from_millis(50), true);
            place.attempted(Duration::from_secs(15), false);
        }
        let interval = room.interval();
        assert!(
            interval > Duration::from_millis(4) && interval < Duration::from_millis(6),
            "{interval:?}"
        );
    }
}
