//! Who waits, who is let in and who is sent away.

use futures::FutureExt as _;

use super::*;

const LITTLE: Duration = Duration::from_millis(100);

fn lane(capacity: usize) -> Arc<LaneOccupancy> {
    Arc::new(LaneOccupancy::new(Kind::Events, capacity, LITTLE))
}

fn room(limit: usize) -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(limit))
}

fn sent_away(bulkhead: &Arc<Bulkhead>, lane: &Arc<LaneOccupancy>, calm: bool) -> bool {
    bulkhead.enter(lane, calm).is_none()
}

/// A place that is free.
fn permit(bulkhead: &Arc<Bulkhead>, lane: &Arc<LaneOccupancy>, calm: bool) -> Permit {
    let entered = bulkhead.enter(lane, calm).expect("it is let in");
    let place = entered.permit().now_or_never();
    place.flatten().expect("a free permit")
}

#[tokio::test(start_paused = true)]
async fn what_a_healthy_hook_has_too_much_of_waits_for_a_permit() {
    let (lane, bulkhead) = (lane(100), room(1));
    let first = permit(&bulkhead, &lane, true);
    first.attempted(Duration::from_millis(100), true);
    let second = bulkhead.enter(&lane, true).expect("it is let in");
    let mut second = Box::pin(second.permit());
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    assert!(!sent_away(&bulkhead, &lane, true), "the third as well");
    drop(first);
    assert!(second.await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_takes_long_stalls_nothing() {
    let (lane, bulkhead) = (lane(100), room(1));
    let first = bulkhead.enter(&lane, true).expect("a free permit");
    tokio::time::advance(STALLED * 2).await;
    let second = bulkhead.enter(&lane, true).expect("no attempt hangs");
    let place = first.permit().await;
    assert!(second.permit().now_or_never().is_none(), "it waits");
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_or_failing_hook_has_too_much_of_is_sent_away_at_once() {
    for (took, calm) in [(5_000, true), (300, false)] {
        let (lane, bulkhead) = (lane(100), room(1));
        let first = permit(&bulkhead, &lane, calm);
        first.attempted(Duration::from_millis(took), calm);
        assert!(sent_away(&bulkhead, &lane, calm), "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_was_never_seen_is_waited_for_no_longer_than_patience() {
    let (lane, bulkhead) = (lane(100), room(1));
    let _first = permit(&bulkhead, &lane, true);
    let waited = Instant::now();
    let second = bulkhead.enter(&lane, true).expect("it is let in");
    assert!(second.permit().await.is_none());
    assert_eq!(waited.elapsed(), LITTLE);
    tokio::time::advance(STALLED).await;
    assert!(sent_away(&bulkhead, &lane, true), "it is stalled");
}

#[tokio::test]
async fn in_a_crowded_lane_slow_hooks_share_half_of_it_and_a_fast_one_is_let_in() {
    let lane = lane(8);
    let _messages: Vec<_> = (0..5).map(|_| lane.message()).collect();
    let (slow, fast) = (room(32), room(32));
    let mut held = Vec::new();
    for (bulkhead, took) in [(&slow, 1_000), (&fast, 1)] {
        let place = permit(bulkhead, &lane, true);
        place.attempted(Duration::from_millis(took), true);
        held.push(place);
    }
    // Two hooks share four places.
    held.push(permit(&slow, &lane, true));
    assert!(sent_away(&slow, &lane, true));
    for _ in 0..4 {
        held.push(permit(&fast, &lane, true));
    }
    assert!(sent_away(&fast, &lane, false), "it fails");
}

#[tokio::test(start_paused = true)]
async fn in_a_crowded_lane_more_than_its_share_waits_until_a_new_hook_succeeds() {
    for succeeds in [true, false] {
        let (lane, bulkhead) = (lane(2), room(32));
        let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
        let first = permit(&bulkhead, &lane, true);
        let second = bulkhead.enter(&lane, true).expect("it is let in");
        let mut second = Box::pin(second.permit());
        assert!(second.as_mut().now_or_never().is_none(), "it takes nothing");
        first.attempted(Duration::from_millis(1), succeeds);
        assert_eq!(second.await.is_some(), succeeds);
    }
    let (lane, bulkhead) = (lane(2), room(32));
    let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
    let _place = permit(&bulkhead, &lane, true);
    tokio::time::advance(STALLED * 2).await;
    assert!(sent_away(&bulkhead, &lane, true), "the first one hangs");
}

#[tokio::test(start_paused = true)]
async fn a_new_hook_that_succeeds_is_waited_for_like_any_healthy_one() {
    let (lane, bulkhead) = (lane(100), room(1));
    let first = permit(&bulkhead, &lane, true);
    let second = bulkhead.enter(&lane, true).expect("it is let in");
    let third = bulkhead.enter(&lane, true).expect("it is let in");
    let second = tokio::spawn(second.permit());
    let mut third = Box::pin(third.permit());
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
    let (lane, bulkhead) = (lane(100), room(4));
    assert_eq!(bulkhead.hangs(), Duration::ZERO);
    let first = permit(&bulkhead, &lane, true);
    tokio::time::advance(LITTLE).await;
    let _second = permit(&bulkhead, &lane, true);
    assert_eq!(bulkhead.hangs(), LITTLE, "the first is still there");
    first.attempted(LITTLE, true);
    drop(first);
    assert_eq!(bulkhead.hangs(), Duration::ZERO);
    tokio::time::advance(LITTLE).await;
    assert_eq!(bulkhead.hangs(), LITTLE);
}

#[test]
fn the_interval_is_a_success_by_the_permits() {
    let (lane, bulkhead) = (lane(100), room(10));
    let place = permit(&bulkhead, &lane, true);
    for _ in 0..100 {
        place.attempted(Duration::from_millis(50), true);
        place.attempted(Duration::from_secs(15), false);
    }
    let interval = bulkhead.interval();
    assert!(
        interval > Duration::from_millis(4) && interval < Duration::from_millis(6),
        "{interval:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn where_nothing_succeeded_the_interval_is_what_hangs_or_fails() {
    let (lane, bulkhead) = (lane(100), room(10));
    assert_eq!(bulkhead.interval(), UNKNOWN / 10);
    let first = permit(&bulkhead, &lane, true);
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(bulkhead.interval(), Duration::from_millis(400), "it hangs");
    first.attempted(Duration::from_secs(5), false);
    assert_eq!(bulkhead.interval(), Duration::from_millis(500), "it failed");
    first.attempted(Duration::from_millis(50), true);
    assert!(
        bulkhead.interval() < Duration::from_millis(10),
        "it is healthy"
    );
}
