//! A rate limit per hook. A delivery over the limit gets a place, one interval after the last place given out,
//! and is parked until then.
//!
//! A place expires soon: if deliveries that an open circuit, a pause or an outage held back kept their places,
//! they would all be made at once. A late delivery is made if the attempts made so far leave room for it, so that
//! some pass even if all are late, and takes another place otherwise.

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
    next_place: Option<Instant>,
    /// By the attempts made.
    next_attempt: Option<Instant>,
}

impl Memory {
    pub(super) fn take(
        &mut self,
        rate: RateLimit,
        place: Option<Place>,
        now_millis: u64,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let at = |next: Option<Instant>| next.map_or(now, |next| next.max(now));
        let (free, attempt) = (at(self.next_place), at(self.next_attempt));
        let is_admitted = place
            .is_some_and(|place| is_good(place, now_millis) || attempt - now <= rate.tolerance());
        if !is_admitted {
            self.next_place = Some(free + rate.interval);
            let wait = free - now;
            if wait > rate.tolerance() {
                let place = Place(now_millis + wait.as_millis() as u64);
                return Err(Refusal::Limited(wait, place));
            }
        }
        self.next_attempt = Some(attempt + rate.interval);
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
    async fn late_deliveries_pass_at_the_rate() {
        let rate = RateLimit::per_second(1.0).expect("a rate");
        let mut memory = Memory::default();
        let late = GRACE.as_millis() as u64 + 1;
        // Many have places ahead.
        assert!(memory.take(rate, None, late).is_ok());
        for _ in 0..100 {
            assert!(memory.take(rate, None, late).is_err());
        }
        let mut passed = 0;
        for _ in 0..5 {
            tokio::time::advance(SECOND).await;
            passed += (0..10)
                .filter(|_| memory.take(rate, Some(Place(0)), late).is_ok())
                .count();
        }
        assert_eq!(passed, 5, "one a second");
        assert!(memory.take(rate, Some(Place(1)), late).is_ok(), "in time");
    }
}
