//! Whether a hook has room for one more delivery on this worker, so that a slow hook costs the
//! others nothing.
//!
//! A delivery without a permit of its hook waits here only as long as that is short: what a healthy
//! hook has too much of drains soon, and parking it would cost a write to disk. What cannot be
//! expected to get a permit soon is sent away at once, and the caller parks it; of a hook that
//! fails, less is expected. In a lane that is over half full a hook keeps its fair share only,
//! unless it is healthy and fast. A hook that nothing is known of gets the time to show that it is:
//! a worker that starts has a full lane of them.

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
    pub fn message(self: &Arc<Self>) -> Occupied {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
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

/// A message in a lane.
#[derive(Debug)]
pub struct Occupied(Arc<LaneRoom>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The room of one hook on this worker.
#[derive(Debug)]
pub struct Room {
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

/// A delivery that was let into the room, and waits for a permit.
#[derive(Debug)]
pub struct Entered {
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

/// A place in the room, with a permit for one attempt.
#[derive(Debug)]
pub struct Place {
    inside: Inside,
    _permit: OwnedSemaphorePermit,
}

impl Entered {
    /// Waits for the permit; nothing if there is none in time.
    pub async fn place(self) -> Option<Place> {
        let room = &self.inside.room;
        let permit = match self.terms {
            Terms::OnceProven(_) => None,
            _ => Arc::clone(&room.permits).try_acquire_owned().ok(),
        };
        let permit = match permit {
            Some(permit) => permit,
            None => Box::pin(room.permit(self.terms)).await?,
        };
        room.now(&room.taken_nanos);
        if room.permits.available_permits() + 1 >= room.limit {
            room.now(&room.moved_nanos);
        }
        drop(self.waiting);
        Some(Place {
            inside: self.inside,
            _permit: permit,
        })
    }
}

impl Place {
    /// Notes how long the attempt took, and whether it succeeded.
    pub fn attempted(&self, took: Duration, succeeded: bool) {
        let room = &self.inside.room;
        room.now(&room.moved_nanos);
        average(&room.attempt_nanos, took);
        if succeeded {
            let first = !room.is_proven();
            average(&room.success_nanos, took);
            if first {
                room.proven.notify_waiters();
            }
        }
    }
}

impl Room {
    /// A room for `limit` attempts at the same time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
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
    pub fn enter(self: &Arc<Self>, lane: &Arc<LaneRoom>, calm: bool) -> Option<Entered> {
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
        Some(Entered {
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
    fn is_proven(&self) -> bool {
        self.success_nanos.load(Ordering::Relaxed) > 0
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

/// A delivery that waits for a permit.
#[derive(Debug)]
struct Waiting {
    room: Arc<Room>,
    /// How many there were before.
    others: usize,
}

impl Waiting {
    fn new(room: &Arc<Room>) -> Self {
        Self {
            others: room.waiting.fetch_add(1, Ordering::Relaxed),
            room: Arc::clone(room),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A delivery of a hook in a lane; the first one makes the hook one of those that share the lane.
#[derive(Debug)]
struct Inside {
    room: Arc<Room>,
    lane: Arc<LaneRoom>,
    others: usize,
}

impl Inside {
    fn new(room: &Arc<Room>, lane: &Arc<LaneRoom>) -> Self {
        let others = room.inside[lane.kind as usize].fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            lane.hooks.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            room: Arc::clone(room),
            lane: Arc::clone(lane),
            others,
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let count = &self.room.inside[self.lane.kind as usize];
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LITTLE: Duration = Duration::from_millis(100);

    fn lane(capacity: usize) -> Arc<LaneRoom> {
        Arc::new(LaneRoom::new(Kind::Events, capacity, LITTLE))
    }

    fn room(limit: usize) -> Arc<Room> {
        Arc::new(Room::new(limit))
    }

    fn sent_away(room: &Arc<Room>, lane: &Arc<LaneRoom>, calm: bool) -> bool {
        room.enter(lane, calm).is_none()
    }

    /// A place that is free.
    fn place(room: &Arc<Room>, lane: &Arc<LaneRoom>, calm: bool) -> Place {
        let entered = room.enter(lane, calm).expect("it is let in");
        let place = entered.place().now_or_never();
        place.flatten().expect("a free permit")
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_healthy_hook_has_too_much_of_waits_for_a_permit() {
        let (lane, room) = (lane(100), room(1));
        let first = place(&room, &lane, true);
        first.attempted(Duration::from_millis(100), true);
        let second = room.enter(&lane, true).expect("it is let in");
        let mut second = Box::pin(second.place());
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        assert!(!sent_away(&room, &lane, true), "the third as well");
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_takes_long_stalls_nothing() {
        let (lane, room) = (lane(100), room(1));
        let first = room.enter(&lane, true).expect("a free permit");
        tokio::time::advance(STALLED * 2).await;
        let second = room.enter(&lane, true).expect("no attempt hangs");
        let place = first.place().await;
        assert!(second.place().now_or_never().is_none(), "it waits");
        drop(place);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_or_failing_hook_has_too_much_of_is_sent_away_at_once() {
        for (took, calm) in [(5_000, true), (300, false)] {
            let (lane, room) = (lane(100), room(1));
            let first = place(&room, &lane, calm);
            first.attempted(Duration::from_millis(took), calm);
            assert!(sent_away(&room, &lane, calm), "{took} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_was_never_seen_is_waited_for_no_longer_than_patience() {
        let (lane, room) = (lane(100), room(1));
        let _first = place(&room, &lane, true);
        let waited = Instant::now();
        let second = room.enter(&lane, true).expect("it is let in");
        assert!(second.place().await.is_none());
        assert_eq!(waited.elapsed(), LITTLE);
        tokio::time::advance(STALLED).await;
        assert!(sent_away(&room, &lane, true), "it is stalled");
    }

    #[tokio::test]
    async fn in_a_crowded_lane_slow_hooks_share_half_of_it_and_a_fast_one_is_let_in() {
        let lane = lane(8);
        let _messages: Vec<_> = (0..5).map(|_| lane.message()).collect();
        let (slow, fast) = (room(32), room(32));
        let mut held = Vec::new();
        for (room, took) in [(&slow, 1_000), (&fast, 1)] {
            let place = place(room, &lane, true);
            place.attempted(Duration::from_millis(took), true);
            held.push(place);
        }
        // Two hooks share four places.
        held.push(place(&slow, &lane, true));
        assert!(sent_away(&slow, &lane, true));
        for _ in 0..4 {
            held.push(place(&fast, &lane, true));
        }
        assert!(sent_away(&fast, &lane, false), "it fails");
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_crowded_lane_more_than_its_share_waits_until_a_new_hook_succeeds() {
        for succeeds in [true, false] {
            let (lane, room) = (lane(2), room(32));
            let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
            let first = place(&room, &lane, true);
            let second = room.enter(&lane, true).expect("it is let in");
            let mut second = Box::pin(second.place());
            assert!(second.as_mut().now_or_never().is_none(), "it takes nothing");
            first.attempted(Duration::from_millis(1), succeeds);
            assert_eq!(second.await.is_some(), succeeds);
        }
        let (lane, room) = (lane(2), room(32));
        let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
        let _place = place(&room, &lane, true);
        tokio::time::advance(STALLED * 2).await;
        assert!(sent_away(&room, &lane, true), "the first one hangs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_hook_that_succeeds_is_waited_for_like_any_healthy_one() {
        let (lane, room) = (lane(100), room(1));
        let first = place(&room, &lane, true);
        let second = room.enter(&lane, true).expect("it is let in");
        let third = room.enter(&lane, true).expect("it is let in");
        let second = tokio::spawn(second.place());
        let mut third = Box::pin(third.place());
        tokio::time::advance(LITTLE / 2).await;
        first.attempted(LITTLE / 2, true);
        drop(first);
        let second = second.await.expect("no panic").expect("a place");
        assert!(third.as_mut().now_or_never().is_none(), "it waits");
        tokio::time::advance(LITTLE * 2).await;
        assert!(third.as_mut().now_or_never().is_none(), "it waits on");
        drop(second);
        assert!(third.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_hangs_from_when_something_last_moved() {
        let (lane, room) = (lane(100), room(4));
        assert_eq!(room.hangs(), Duration::ZERO);
        let first = place(&room, &lane, true);
        tokio::time::advance(LITTLE).await;
        let _second = place(&room, &lane, true);
        assert_eq!(room.hangs(), LITTLE, "the first is still there");
        first.attempted(LITTLE, true);
        drop(first);
        assert_eq!(room.hangs(), Duration::ZERO);
        tokio::time::advance(LITTLE).await;
        assert_eq!(room.hangs(), LITTLE);
    }

    #[test]
    fn the_interval_is_a_success_by_the_permits() {
        let (lane, room) = (lane(100), room(10));
        let place = place(&room, &lane, true);
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
