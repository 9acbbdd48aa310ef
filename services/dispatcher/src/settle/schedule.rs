//! When a delivery that waits comes again, and when that is too late.

use std::time::Duration;

use hookline_shared::retry::{self, Policy};

use super::Deferral;
use crate::delivery::{PendingDelivery, now_millis};
use crate::handler::Class;
use crate::hooks::Prepared;

/// Whether a delivery would be older than it may be after a wait.
pub(crate) fn is_too_old(hook: &Prepared, work: &PendingDelivery, wait: Duration) -> bool {
    let age = Duration::from_millis(now_millis().saturating_sub(work.first_attempt));
    age + wait > hook.max_age
}

/// How long a delivery waits that is parked without an attempt. However many wait, each is written
/// anew at most twice in ten minutes; what a receiver missed that failed for a minute comes within
/// three.
pub(super) fn deferral_delay(
    work: &PendingDelivery,
    deferral: Deferral,
    wait: Duration,
) -> Duration {
    let least = match (work.deferrals, deferral) {
        (0, Deferral::Open) => Duration::from_secs(30),
        (0, _) => return wait,
        (1, _) => Duration::from_secs(120),
        (2, _) => Duration::from_secs(480),
        _ => Duration::from_secs(300),
    };
    wait.max(jittered(work, least))
}

/// Some longer, the same for one delivery.
pub(super) fn jittered(work: &PendingDelivery, wait: Duration) -> Duration {
    let jitter = (work.delivery.id.seed() % 1_000) as f64 / 1_000.0;
    wait.mul_f64(1.0 + retry::JITTER * jitter)
}

/// How long to wait for the next attempt; nothing if there is none.
pub(crate) fn delay(hook: &Prepared, work: &PendingDelivery, class: Class) -> Option<Duration> {
    let attempt = work.attempt.saturating_sub(work.before);
    let seed = work.delivery.id.seed();
    match class {
        Class::Retry(asked) => hook.policy.delay_asked(attempt, seed, asked),
        Class::RetryBriefly => {
            // A schedule that is over ends these as well.
            hook.policy.delay(attempt, seed)?;
            Policy::client_error().delay(work.refusals + 1, seed)
        }
        Class::Dead | Class::Gone => None,
    }
}
