//! Whether NATS has storage left for more parked deliveries.
//!
//! Their stream has no bound of its own, since it could only refuse by forgetting old ones. So above
//! a part of what the account may store nothing more is parked, and events stay where they are: that
//! is a backlog, which publishers are told of. A server tells its clients how much an account may
//! store only where the account has a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, account::Account};

use crate::metrics::Metrics;

/// How often the account is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// The part of the storage, in percent, that parked deliveries may fill.
const PERCENT: u64 = 80;

/// Whether storage is scarce; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StorageGuard(Arc<AtomicBool>);

impl StorageGuard {
    /// Whether nothing more is to be parked.
    #[must_use]
    pub(crate) fn is_scarce(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) async fn run(self, context: jetstream::Context, metrics: Metrics) {
        loop {
            // Credentials that may not ask are as good as no limit.
            if let Ok(account) = context.query_account().await {
                self.tell(is_scarce(&account), account.storage, &metrics);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn tell(&self, scarce: bool, size_bytes: u64, metrics: &Metrics) {
        metrics.storage_scarce(scarce);
        match (self.0.swap(scarce, Ordering::Relaxed), scarce) {
            (false, true) => tracing::warn!(
                size_bytes,
                "NATS storage is over {PERCENT}% full: nothing more is parked, events wait in their stream"
            ),
            (true, false) => tracing::info!(size_bytes, "NATS has storage again"),
            _ => {}
        }
    }
}

fn is_scarce(account: &Account) -> bool {
    let limited = |used: u64, limit: Option<i64>| {
        let limit = limit.and_then(|limit| u64::try_from(limit).ok());
        limit.is_some_and(|limit| limit > 0 && used > limit / 100 * PERCENT)
    };
    limited(account.storage, account.limits.max_storage)
        || account
            .tiers
            .values()
            .any(|tier| limited(tier.storage, tier.limits.max_storage))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(storage: u64, max_storage: Option<i64>) -> Account {
        let mut account = Account {
            storage,
            ..Account::default()
        };
        account.limits.max_storage = max_storage;
        account
    }

    #[test]
    fn an_account_without_a_limit_is_never_full() {
        assert!(!is_scarce(&account(u64::MAX, None)));
        assert!(!is_scarce(&account(u64::MAX, Some(0))));
        assert!(!is_scarce(&account(800, Some(1_000))));
        assert!(is_scarce(&account(801, Some(1_000))));
    }

    #[test]
    fn one_full_tier_is_enough() {
        let mut tiered = account(0, None);
        tiered.tiers.entry("R3".to_owned()).or_default().storage = 900;
        assert!(!is_scarce(&tiered));
        let tier = tiered.tiers.entry("R3".to_owned()).or_default();
        tier.limits.max_storage = Some(1_000);
        assert!(is_scarce(&tiered));
    }
}
