//! Limits on parked deliveries, for dispatchers and for gateways that replay dead letters.
//!
//! The stream of deliveries has no size limit, since it could only discard old deliveries. Instead, parking stops while
//! NATS' storage is nearly full, and the number of waiting deliveries per hook is limited.

use async_nats::jetstream::account::Account;

/// The share of the account's storage above which parking stops.
pub const STORAGE_PERCENT: u64 = 80;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Waiting deliveries")]
#[group(skip)]
pub struct Options {
    /// Deliveries of one hook that may wait; the excess is dead-lettered, and replay stops there. The same on gateways
    /// and dispatchers.
    #[arg(
        long,
        env = "HOOKLINE_HOOK_BACKLOG",
        value_name = "N",
        default_value_t = 2_000_000,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub hook_backlog: u64,
}

/// Whether parking must stop. An account without a limit is never short of storage.
#[must_use]
pub fn is_storage_scarce(account: &Account) -> bool {
    let limited = |used: u64, limit: Option<i64>| {
        let limit = limit.and_then(|limit| u64::try_from(limit).ok());
        limit.is_some_and(|limit| limit > 0 && used > limit / 100 * STORAGE_PERCENT)
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
        assert!(!is_storage_scarce(&account(u64::MAX, None)));
        assert!(!is_storage_scarce(&account(u64::MAX, Some(0))));
        assert!(!is_storage_scarce(&account(800, Some(1_000))));
        assert!(is_storage_scarce(&account(801, Some(1_000))));
    }

    #[test]
    fn one_full_tier_is_enough() {
        let mut tiered = account(0, None);
        tiered.tiers.entry("R3".to_owned()).or_default().storage = 900;
        assert!(!is_storage_scarce(&tiered));
        let tier = tiered.tiers.entry("R3".to_owned()).or_default();
        tier.limits.max_storage = Some(1_000);
        assert!(is_storage_scarce(&tiered));
    }
}
