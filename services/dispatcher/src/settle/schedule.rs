//! When a waiting delivery comes back, and when that is too late.

use std::time::Duration;

use hookline_shared::clock::unix_millis;
use hookline_shared::retry::{self, Policy};

use super::deferral::Deferral;
use crate::admission::circuit_breaker::Verdict;
use crate::delivery::PendingDelivery;
use crate::handler::Class;
use crate::hooks::Prepared;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Retry(Duration),
    Dead,
}

/// Decides what follows a failed attempt. A retry is due only after its hook's circuit may be probed.
pub(super) fn after_failure(hook: &Prepared, pending: &PendingDelivery, class: Class) -> Next {
    let Some(delay) = retry_delay(hook, pending, class) else {
        return Next::Dead;
    };
    let delay = match hook.admission.circuit.verdict() {
        Verdict::Open(wait) => delay.max(deferral_delay(pending, Deferral::CircuitOpen, wait)),
        Verdict::Closed | Verdict::HalfOpen => delay,
    };
    if is_too_old(hook, pending, delay) {
        Next::Dead
    } else {
        Next::Retry(delay)
    }
}

/// The delay by the hook's schedule; None after the last attempt.
pub(crate) fn retry_delay(
    hook: &Prepared,
    pending: &PendingDelivery,
    class: Class,
) -> Option<Duration> {
    let attempt = pending.attempt.saturating_sub(pending.before);
    let seed = pending.delivery.id.seed();
    match class {
        Class::Retry(asked) => hook.policy.delay_asked(attempt, seed, asked),
        Class::RetryBriefly => {
            // The schedule's end applies as well.
            hook.policy.delay(attempt, seed)?;
            Policy::client_error().delay(pending.refusals + 1, seed)
        }
        Class::Dead | Class::Gone => None,
    }
}

/// Whether a delivery would be older than its hook allows after `wait`.
pub(crate) fn is_too_old(hook: &Prepared, pending: &PendingDelivery, wait: Duration) -> bool {
    let age = Duration::from_millis(unix_millis().saturating_sub(pending.first_attempt));
    age + wait > hook.max_age
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
