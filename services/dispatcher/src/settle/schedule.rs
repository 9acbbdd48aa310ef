//! When a waiting delivery comes back, and when that is too late.

use std::time::Duration;

use hookline_shared::clock::unix_millis;
use hookline_shared::retry::{self, Policy};

use super::deferral::Deferral;
use crate::admission::circuit_breaker::Verdict;
use crate::delivery::PendingDelivery;
use crate::handler::{Class, DeliveryError};
use crate::metrics::Death;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Retry(Duration),
    Dead(Death),
}

/// Decides what follows a failed attempt. A retry is due only after its hook's circuit may be probed.
pub(super) fn after_failure(
    policy: &Policy,
    max_age: Duration,
    circuit: Verdict,
    pending: &PendingDelivery,
    error: &DeliveryError,
) -> Next {
    let class = error.class();
    let Some(delay) = retry_delay(policy, pending, class) else {
        return Next::Dead(error.death());
    };
    let delay = match circuit {
        Verdict::Open(wait) => delay.max(deferral_delay(pending, Deferral::CircuitOpen, wait)),
        Verdict::Closed | Verdict::HalfOpen => delay,
    };
    if is_too_old(max_age, pending, delay) {
        Next::Dead(Death::TooOld)
    } else {
        Next::Retry(delay)
    }
}

/// The delay by the hook's schedule; None after the last attempt.
pub(crate) fn retry_delay(
    policy: &Policy,
    pending: &PendingDelivery,
    class: Class,
) -> Option<Duration> {
    let attempt = pending.attempt.saturating_sub(pending.before);
    let seed = pending.delivery.id.seed();
    match class {
        Class::Retry(asked) => policy.delay_asked(attempt, seed, asked),
        Class::RetryBriefly(asked) => {
            // The schedule's end applies as well.
            policy.delay(attempt, seed)?;
            Policy::client_error().delay_asked(pending.refusals + 1, seed, asked)
        }
        Class::Dead | Class::Pause => None,
    }
}

/// Whether a delivery would be older than `max_age` after `wait`.
pub(crate) fn is_too_old(max_age: Duration, pending: &PendingDelivery, wait: Duration) -> bool {
    let age = Duration::from_millis(unix_millis().saturating_sub(pending.first_attempt));
    age + wait > max_age
}

/// How long a delivery waits that is parked without an attempt. Each is rewritten at most twice in ten minutes. A
/// receiver that failed for a minute gets what it missed within three.
pub(super) fn deferral_delay(
    pending: &PendingDelivery,
    deferral: Deferral,
    wait: Duration,
) -> Duration {
    let least = match (pending.deferrals, deferral) {
        // It is due at its place in the rate limit.
        (_, Deferral::RateLimit(_)) => return wait,
        (0, Deferral::CircuitOpen) => Duration::from_secs(30),
        (0, _) => return wait,
        (1, _) => Duration::from_secs(120),
        (2, _) => Duration::from_secs(480),
        _ => Duration::from_secs(300),
    };
    wait.max(jittered(pending, least))
}

/// Up to [`retry::JITTER`] longer, by the same factor each time for one delivery.
pub(super) fn jittered(pending: &PendingDelivery, wait: Duration) -> Duration {
    let jitter = (pending.delivery.id.seed() % 1_000) as f64 / 1_000.0;
    wait.mul_f64(1.0 + retry::JITTER * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::refusal::Place;
    use crate::delivery::tests;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// The second attempt of a delivery whose first began this long ago.
    fn pending(age: Duration) -> PendingDelivery {
        PendingDelivery {
            attempt: 2,
            first_attempt: unix_millis() - age.as_millis() as u64,
            ..tests::pending()
        }
    }

    fn policy() -> Policy {
        Policy::new(vec![SECOND, 10 * SECOND, 100 * SECOND])
    }

    /// Whether a delay is the step of a schedule, with jitter either way.
    fn is_about(delay: Option<Duration>, step: Duration) -> bool {
        let near = step.mul_f64(1.0 - retry::JITTER)..=step.mul_f64(1.0 + retry::JITTER);
        delay.is_some_and(|delay| near.contains(&delay))
    }

    #[test]
    fn the_class_of_a_failure_decides_its_delay() {
        let pending = pending(Duration::ZERO);
        let delay = |class| retry_delay(&policy(), &pending, class);
        assert!(is_about(delay(Class::Retry(None)), 10 * SECOND));
        assert!(is_about(delay(Class::Retry(Some(SECOND))), 10 * SECOND));
        assert_eq!(delay(Class::Retry(Some(60 * SECOND))), Some(60 * SECOND));
        assert_eq!(delay(Class::Retry(Some(100 * HOUR))), Some(HOUR));
        let briefly = |asked| delay(Class::RetryBriefly(asked));
        assert_eq!(briefly(Some(60 * SECOND)), Some(60 * SECOND));
        assert_eq!(briefly(Some(Duration::MAX)), Some(HOUR));
        assert_eq!(delay(Class::Dead), None);
        assert_eq!(delay(Class::Pause), None);
    }

    #[test]
    fn refusals_have_a_short_schedule_within_the_hooks() {
        let refused = |attempt, refusals| {
            let pending = PendingDelivery {
                attempt,
                refusals,
                ..pending(Duration::ZERO)
            };
            retry_delay(&policy(), &pending, Class::RetryBriefly(None))
        };
        let (first, second) = (60 * SECOND, 180 * SECOND);
        assert!(is_about(refused(1, 0), first));
        assert!(is_about(refused(3, 0), first), "failures do not count");
        assert!(is_about(refused(2, 1), second));
        assert_eq!(refused(3, 2), None);
        assert_eq!(refused(4, 0), None, "the hook's schedule has ended");
    }

    #[test]
    fn a_replayed_delivery_has_its_whole_schedule_again() {
        let replayed = PendingDelivery {
            attempt: 5,
            before: 4,
            ..pending(Duration::ZERO)
        };
        let delay = retry_delay(&policy(), &replayed, Class::Retry(None));
        assert!(is_about(delay, SECOND));
        let last = PendingDelivery {
            attempt: 8,
            ..replayed
        };
        assert_eq!(retry_delay(&policy(), &last, Class::Retry(None)), None);
    }

    #[test]
    fn a_retry_waits_for_the_circuit_and_dies_if_that_is_too_late() {
        let young = pending(Duration::ZERO);
        let failure = DeliveryError::Timeout(SECOND);
        let next = |circuit, max_age| after_failure(&policy(), max_age, circuit, &young, &failure);
        let delay = |next| match next {
            Next::Retry(delay) => Some(delay),
            Next::Dead(_) => None,
        };
        for circuit in [Verdict::Closed, Verdict::HalfOpen] {
            assert!(is_about(delay(next(circuit, HOUR)), 10 * SECOND));
        }
        let open = Verdict::Open(200 * SECOND);
        assert_eq!(next(open, HOUR), Next::Retry(200 * SECOND));
        assert_eq!(next(open, 100 * SECOND), Next::Dead(Death::TooOld));
        let short = delay(next(Verdict::Open(SECOND), HOUR));
        assert!(short >= Some(30 * SECOND), "{short:?}");
        let last = PendingDelivery {
            attempt: 4,
            ..young.clone()
        };
        let circuit = Verdict::Closed;
        let next = after_failure(&policy(), HOUR, circuit, &last, &failure);
        assert_eq!(next, Next::Dead(Death::Exhausted));
    }

    #[test]
    fn the_age_counts_the_wait_to_come() {
        let pending = pending(60 * SECOND);
        assert!(!is_too_old(100 * SECOND, &pending, 30 * SECOND));
        assert!(is_too_old(100 * SECOND, &pending, 41 * SECOND));
        let ahead = PendingDelivery {
            first_attempt: u64::MAX,
            ..pending
        };
        assert!(!is_too_old(SECOND, &ahead, SECOND), "clocks may differ");
    }

    #[test]
    fn deferrals_wait_longer_each_time_but_rate_limits_keep_their_place() {
        let delay = |deferrals, deferral, wait| {
            let pending = PendingDelivery {
                deferrals,
                ..tests::pending()
            };
            deferral_delay(&pending, deferral, wait)
        };
        let at_least = |deferrals, deferral, seconds| {
            let least = Duration::from_secs(seconds);
            let waits = least..=least.mul_f64(1.0 + retry::JITTER);
            let delay = delay(deferrals, deferral, SECOND);
            assert!(
                waits.contains(&delay),
                "{deferrals} {deferral:?}: {delay:?}"
            );
        };
        let place = Deferral::RateLimit(Place(1));
        for deferrals in 0..5 {
            assert_eq!(delay(deferrals, place, SECOND), SECOND);
        }
        for deferral in [Deferral::Paused, Deferral::NoPermit, Deferral::CircuitOpen] {
            for (deferrals, seconds) in [(1, 120), (2, 480), (3, 300), (100, 300)] {
                at_least(deferrals, deferral, seconds);
            }
            assert_eq!(delay(3, deferral, HOUR), HOUR, "a longer wait stands");
        }
        assert_eq!(delay(0, Deferral::NoPermit, SECOND), SECOND);
        assert_eq!(delay(0, Deferral::Paused, SECOND), SECOND);
        at_least(0, Deferral::CircuitOpen, 30);
    }
}
