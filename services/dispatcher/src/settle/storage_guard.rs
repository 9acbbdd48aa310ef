//! Whether NATS has storage for more parked deliveries.
//!
//! Their stream has no limit of its own, since a scheduling stream can only make room by discarding old messages.
//! Above a part of the account's storage nothing more is parked and events stay in their stream, until it refuses
//! publishers. A server reveals an account's storage only if the account has a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::parking::{STORAGE_PERCENT, is_storage_scarce};

use crate::metrics::Metrics;

const PERIOD: Duration = Duration::from_secs(2);

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StorageGuard(Arc<AtomicBool>);

impl StorageGuard {
    #[must_use]
    pub(crate) fn is_scarce(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) async fn run(self, context: jetstream::Context, metrics: Metrics) {
        loop {
            // Without permission to ask there is no limit.
            if let Ok(account) = context.query_account().await {
                self.update(is_storage_scarce(&account), account.storage, &metrics);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn update(&self, scarce: bool, size_bytes: u64, metrics: &Metrics) {
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
