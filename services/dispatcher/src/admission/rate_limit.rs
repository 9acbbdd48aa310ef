//! A rate limit per hook. A delivery over the limit gets a place, one interval after the last place given out,
//! and is parked until then.
//!
//! A place expires soon: if deliveries that an open circuit, a pause or an outage held back kept their places,
//! they would all be made at once.

use std::time::Duration;

use tokio::time::Instant;

use super::refusal::{Place, Refusal};

/// How late a delivery may be for its place: schedules fall due in bursts, and clocks differ.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Time between two deliveries.
    pub(crate) interval: Duration,
}

impl RateLimit {
    /// None if the rate is not positive, or too small for an interval.
    pub(crate) fn per_second(rate: f64) -> Option<Self> {
        let interval = Duration::try_from_secs_f64(1.0 / rate).ok()?;
        (rate > 0.0).then_some(Self { interval })
    }

    /// How far ahead of its time a delivery may be made: a burst is one second's worth.
    pub(crate) fn tolerance(self) -> Duration {
        Duration::from_secs(1).saturating_sub(self.interval)
    }
}

/// Places given out by this worker while Redis was away.
#[derive(Debug, Default)]
pub(super) struct Memory {
    next: Option<Instant>,
}

impl Memory {
    pub(super) fn take(
        &mut self,
        rate: RateLimit,
        place: Option<Place>,
        now_millis: u64,
    ) -> Result<(), Refusal> {
        if place.is_some_and(|place| is_good(place, now_millis)) {
            return Ok(());
        }
        let now = Instant::now();
        let free = self.next.map_or(now, |next| next.max(now));
        self.next = Some(free + rate.interval);
        let wait = free - now;
        if wait > rate.tolerance() {
            let place = Place(now_millis + wait.as_millis() as u64);
            return Err(Refusal::Limited(wait, place));
        }
        Ok(())
    }
}

fn is_good(place: Place, now_millis: u64) -> bool {
    now_millis <= place.0.saturating_add(GRACE.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_seconds_worth_passes_and_the_excess_gets_places() {
        let rate = RateLimit::per_second(4.0).expect("a rate");
        let mut memory = Memory::default();
        let mut take = |place| memory.take(rate, place, 1_000);
        assert!((0..4).all(|_| take(None).is_ok()));
        let limited = |wait| {
            Err(Refusal::Limited(
                Duration::from_millis(wait),
                Place(1_000 + wait),
            ))
        };
        assert_eq!(take(None), limited(1_000));
        assert_eq!(take(None), limited(1_250));
        assert!(take(Some(Place(1_000))).is_ok(), "it waited for its place");
        tokio::time::advance(2 * SECOND).await;
        assert!(take(None).is_ok());
        assert_eq!(RateLimit::per_second(0.0), None);
        assert_eq!(RateLimit::per_second(-1.0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_expires() {
        let rate = RateLimit::per_second(1.0).expect("a rate");
        let mut memory = Memory::default();
        let late = GRACE.as_millis() as u64 + 1;
        assert!(
            memory.take(rate, Some(Place(0)), late).is_ok(),
            "the first passes"
        );
        assert!(memory.take(rate, Some(Place(0)), late).is_err());
        assert!(memory.take(rate, Some(Place(1)), late).is_ok());
    }
}
