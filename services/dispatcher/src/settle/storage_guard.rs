//! Whether NATS has storage left for more parked deliveries.
//!
//! Their stream has no bound of its own, since it could only refuse by forgetting old ones. So above
//! a part of what the account may store nothing more is parked, and events stay where they are: that
//! is a backlog, which publishers are told of. A server tells its clients how much an account may
//! store only where the account has a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::parking::{STORAGE_PERCENT, is_storage_scarce};

use crate::metrics::Metrics;

/// How often the account is looked at.
const PERIOD: Duration = Duration::from_secs(2);

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
                self.tell(is_storage_scarce(&account), account.storage, &metrics);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn tell(&self, scarce: bool, size_bytes: u64, metrics: &Metrics) {
        metrics.storage_scarce(scarce);
        match (self.0.swap(scarce, Ordering::Relaxed), scarce) {
            (false, true) => tracing::warn!(
                size_bytes,
                "NATS storage is over {STORAGE_PERCENT}% full: nothing more is parked, events wait in their stream"
            ),
            (true, false) => tracing::info!(size_bytes, "NATS has storage again"),
            _ => {}
        }
    }
}
