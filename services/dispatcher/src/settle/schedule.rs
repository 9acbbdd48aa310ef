//! When a delivery that waits comes back, and when that is too late.

use std::time::Duration;

use hookline_shared::clock::unix_millis;
use hookline_shared::retry::{self, Policy};

use super::deferral::Deferral;
use crate::admission::circuit_breaker::Verdict;
use crate::delivery::PendingDelivery;
use crate::handler::Class;
use crate::hooks::Prepared;

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Retry(Duration),
    Dead,
}

/// A retry is not due before its hook's circuit may be probed, and not when it would be too old.
pub(super) fn after_failure(hook: &Prepared, work: &PendingDelivery, class: Class) -> Next {
    let Some(delay) = retry_delay(hook, work, class) else {
        return Next::Dead;
    };
    let delay = match hook.admission.circuit.verdict() {
        Verdict::Open(wait) => delay.max(deferral_delay(work, Deferral::CircuitOpen, wait)),
        Verdict::Closed | Verdict::HalfOpen => delay,
    };
    if is_too_old(hook, work, delay) {
        Next::Dead
    } else {
        Next::Retry(delay)
    }
}

/// By the hook's schedule alone; None after the last attempt.
pub(crate) fn retry_delay(
    hook: &Prepared,
    work: &PendingDelivery,
    class: Class,
) -> Option<Duration> {
    let attempt = work.attempt.saturating_sub(work.before);
    let seed = work.delivery.id.seed();
    match class {
        Class::Retry(asked) => hook.policy.delay_asked(attempt, seed, asked),
        Class::RetryBriefly => {
            // The end of the schedule ends these as well.
            hook.policy.delay(attempt, seed)?;
            Policy::client_error().delay(work.refusals + 1, seed)
        }
        Class::Dead | Class::Gone => None,
    }
}

/// Whether a delivery would be older than its hook allows after `wait`.
pub(crate) fn is_too_old(hook: &Prepared, work: &PendingDelivery, wait: Duration) -> bool {
    let age = Duration::from_millis(unix_millis().saturating_sub(work.first_attempt));
    age + wait > hook.max_age
}

/// How long a delivery waits that is parked without an attempt. However many wait, each is rewritten at
/// most twice in ten minutes; what a receiver missed that failed for a minute comes within three.
pub(super) fn deferral_delay(
    work: &PendingDelivery,
    deferral: Deferral,
    wait: Duration,
) -> Duration {
    let least = match (work.deferrals, deferral) {
        // Its place is for that time.
        (_, Deferral::RateLimit(_)) => return wait,
        (0, Deferral::CircuitOpen) => Duration::from_secs(30),
        (0, _) => return wait,
        (1, _) => Duration::from_secs(120),
        (2, _) => Duration::from_secs(480),
        _ => Duration::from_secs(300),
    };
    wait.max(jittered(work, least))
}

/// Somewhat longer, always by the same part for one delivery.
pub(super) fn jittered(work: &PendingDelivery, wait: Duration) -> Duration {
    let jitter = (work.delivery.id.seed() % 1_000) as f64 / 1_000.0;
    wait.mul_f64(1.0 + retry::JITTER * jitter)
}
