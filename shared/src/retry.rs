//! Retry delays as pure functions of the attempt number. No clock and no I/O: callers add the delay to
//! their own clock.

use std::time::Duration;

/// 1 s, 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 3 h, 6 h, 12 h.
const DEFAULT_SCHEDULE: [Duration; 10] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
    Duration::from_secs(10_800),
    Duration::from_secs(21_600),
    Duration::from_secs(43_200),
];

/// For client errors (most 4xx), which a failed deployment may also return for a while: three attempts
/// within five minutes, including jitter.
const CLIENT_ERROR_SCHEDULE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(180)];

/// Largest deviation from the schedule, as a fraction.
pub const JITTER: f64 = 0.2;

/// Longer `Retry-After` headers are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// A schedule of delays. After the last delay there is one more attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    schedule: Vec<Duration>,
    jitter: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(DEFAULT_SCHEDULE.to_vec())
    }
}

impl Policy {
    #[must_use]
    pub fn new(schedule: Vec<Duration>) -> Self {
        Self {
            schedule,
            jitter: JITTER,
        }
    }

    #[must_use]
    pub fn client_error() -> Self {
        Self::new(CLIENT_ERROR_SCHEDULE.to_vec())
    }

    /// The delay after failed attempt `attempt` (from 1), or `None` after the last one. The same seed gives
    /// the same jitter.
    #[must_use]
    pub fn delay(&self, attempt: u32, seed: u64) -> Option<Duration> {
        let step = self.schedule.get(attempt.checked_sub(1)? as usize)?;
        let unit = (mix(seed ^ u64::from(attempt)) >> 11) as f64 / (1_u64 << 53) as f64;
        Some(step.mul_f64(1.0 - self.jitter + 2.0 * self.jitter * unit))
    }

    /// Like [`delay`](Self::delay), but at least `retry_after`, which is capped at an hour.
    #[must_use]
    pub fn delay_asked(
        &self,
        attempt: u32,
        seed: u64,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let delay = self.delay(attempt, seed)?;
        Some(delay.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)))
    }
}

/// The finalizer of splitmix64: similar seeds give unrelated delays.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delay_stays_within_a_fifth_of_its_step() {
        let policy = Policy::default();
        for (index, step) in DEFAULT_SCHEDULE.iter().enumerate() {
            for seed in 0..500 {
                let delay = policy
                    .delay(index as u32 + 1, seed)
                    .expect("a scheduled step");
                assert!(
                    delay >= step.mul_f64(0.799) && delay <= step.mul_f64(1.201),
                    "{delay:?}"
                );
            }
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        let policy = Policy::default();
        let delays: Vec<f64> = (0..1_000)
            .filter_map(|seed| policy.delay(1, seed))
            .map(|d| d.as_secs_f64())
            .collect();
        let (low, high) = (
            delays.iter().filter(|d| **d < 0.9).count(),
            delays.iter().filter(|d| **d > 1.1).count(),
        );
        assert!(
            (150..350).contains(&low) && (150..350).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn after_the_last_step_there_is_no_delay() {
        assert_eq!(Policy::default().delay(11, 0), None);
        assert_eq!(Policy::new(vec![]).delay(1, 0), None);
        assert_eq!(Policy::default().delay(0, 0), None);
    }

    #[test]
    fn client_errors_get_three_attempts_within_five_minutes() {
        let policy = Policy::client_error();
        for seed in 0..200 {
            let total: Duration = (1..=2).filter_map(|n| policy.delay(n, seed)).sum();
            assert!(total < Duration::from_secs(300));
        }
        assert_eq!(policy.delay(3, 0), None);
    }

    #[test]
    fn retry_after_lengthens_a_delay_within_bounds() {
        let policy = Policy::default();
        let asked = |seconds| policy.delay_asked(1, 0, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(20), Some(Duration::from_secs(20)));
        assert_eq!(asked(0), policy.delay(1, 0));
        assert_eq!(asked(999_999), Some(MAX_RETRY_AFTER));
        assert_eq!(
            policy.delay_asked(11, 0, Some(Duration::from_secs(1))),
            None
        );
    }
}
