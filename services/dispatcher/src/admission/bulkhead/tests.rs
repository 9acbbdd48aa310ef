//! Which deliveries are admitted, wait, or are rejected.

use futures::FutureExt as _;

use super::*;

const LITTLE: Duration = Duration::from_millis(100);

fn lane(capacity: usize) -> Arc<LaneOccupancy> {
    Arc::new(LaneOccupancy::new(Kind::Events, capacity, LITTLE))
}

fn bulkhead_of(limit: usize) -> Arc<Bulkhead> {
    Arc::new(Bulkhead::new(limit))
}

fn is_rejected(bulkhead: &Arc<Bulkhead>, lane: &Arc<LaneOccupancy>, calm: bool) -> bool {
    bulkhead.enter(lane, calm).is_none()
}

/// Takes a free permit.
fn permit(bulkhead: &Arc<Bulkhead>, lane: &Arc<LaneOccupancy>, calm: bool) -> Permit {
    let entered = bulkhead.enter(lane, calm).expect("admitted");
    let permit = entered.permit().now_or_never();
    permit.flatten().expect("a free permit")
}

#[tokio::test(start_paused = true)]
async fn the_excess_of_a_healthy_hook_waits_for_a_permit() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(1));
    let first = permit(&bulkhead, &lane, true);
    first.attempted(Duration::from_millis(100), true);
    let second = bulkhead.enter(&lane, true).expect("admitted");
    let mut second = Box::pin(second.permit());
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    assert!(!is_rejected(&bulkhead, &lane, true), "the third as well");
    drop(first);
    assert!(second.await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_claim_is_no_stall() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(1));
    let first = bulkhead.enter(&lane, true).expect("a free permit");
    tokio::time::advance(STALLED * 2).await;
    let second = bulkhead.enter(&lane, true).expect("no attempt hangs");
    let held = first.permit().await;
    assert!(second.permit().now_or_never().is_none(), "it waits");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn the_excess_of_a_slow_or_failing_hook_is_rejected_at_once() {
    for (took, calm) in [(5_000, true), (300, false)] {
        let (lane, bulkhead) = (lane(100), bulkhead_of(1));
        let first = permit(&bulkhead, &lane, calm);
        first.attempted(Duration::from_millis(took), calm);
        assert!(is_rejected(&bulkhead, &lane, calm), "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_an_unknown_hook_wait_no_longer_than_patience() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(1));
    let _first = permit(&bulkhead, &lane, true);
    let waited = Instant::now();
    let second = bulkhead.enter(&lane, true).expect("admitted");
    assert!(second.permit().await.is_none());
    assert_eq!(waited.elapsed(), LITTLE);
    tokio::time::advance(STALLED).await;
    assert!(is_rejected(&bulkhead, &lane, true), "it is stalled");
}

#[tokio::test]
async fn slow_hooks_share_half_of_a_crowded_lane_and_fast_ones_are_admitted() {
    let lane = lane(8);
    let _messages: Vec<_> = (0..5).map(|_| lane.message()).collect();
    let (slow, fast) = (bulkhead_of(32), bulkhead_of(32));
    let mut held = Vec::new();
    for (bulkhead, took) in [(&slow, 1_000), (&fast, 1)] {
        let taken = permit(bulkhead, &lane, true);
        taken.attempted(Duration::from_millis(took), true);
        held.push(taken);
    }
    // Two hooks share four permits.
    held.push(permit(&slow, &lane, true));
    assert!(is_rejected(&slow, &lane, true));
    for _ in 0..4 {
        held.push(permit(&fast, &lane, true));
    }
    assert!(is_rejected(&fast, &lane, false), "it fails");
}

#[tokio::test(start_paused = true)]
async fn the_excess_of_an_unknown_hook_in_a_crowded_lane_waits_for_its_first_success() {
    for succeeds in [true, false] {
        let (lane, bulkhead) = (lane(2), bulkhead_of(32));
        let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
        let first = permit(&bulkhead, &lane, true);
        let second = bulkhead.enter(&lane, true).expect("admitted");
        let mut second = Box::pin(second.permit());
        assert!(
            second.as_mut().now_or_never().is_none(),
            "it has no permit yet"
        );
        first.attempted(Duration::from_millis(1), succeeds);
        assert_eq!(second.await.is_some(), succeeds);
    }
    let (lane, bulkhead) = (lane(2), bulkhead_of(32));
    let _messages: Vec<_> = (0..2).map(|_| lane.message()).collect();
    let _held = permit(&bulkhead, &lane, true);
    tokio::time::advance(STALLED * 2).await;
    assert!(is_rejected(&bulkhead, &lane, true), "the first one hangs");
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_new_hook_that_succeeds_wait_as_for_a_healthy_one() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(1));
    let first = permit(&bulkhead, &lane, true);
    let second = bulkhead.enter(&lane, true).expect("admitted");
    let third = bulkhead.enter(&lane, true).expect("admitted");
    let second = tokio::spawn(second.permit());
    let mut third = Box::pin(third.permit());
    tokio::time::advance(LITTLE / 2).await;
    first.attempted(LITTLE / 2, true);
    drop(first);
    let second = second.await.expect("no panic").expect("a permit");
    assert!(third.as_mut().now_or_never().is_none(), "it waits");
    tokio::time::advance(LITTLE * 2).await;
    assert!(third.as_mut().now_or_never().is_none(), "it waits on");
    drop(second);
    assert!(third.await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_hangs_since_an_attempt_last_ended() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(4));
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
fn the_interval_is_the_duration_of_a_success_divided_by_the_permits() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(10));
    let held = permit(&bulkhead, &lane, true);
    for _ in 0..100 {
        held.attempted(Duration::from_millis(50), true);
        held.attempted(Duration::from_secs(15), false);
    }
    let interval = bulkhead.interval();
    assert!(
        interval > Duration::from_millis(4) && interval < Duration::from_millis(6),
        "{interval:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn before_the_first_success_failures_and_hanging_attempts_set_the_interval() {
    let (lane, bulkhead) = (lane(100), bulkhead_of(10));
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
