//! Refuses changes while the event stream is nearly full. Events reach the stream through the bucket,
//! so a write never sees the stream refuse them; the stream's size is polled instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;

use hookline_shared::subject::EVENTS_STREAM;

use crate::metrics::Metrics;

const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Share of the stream's maximum size above which changes are refused.
const FULL_PERCENT: u64 = 90;

/// Whether the event stream is nearly full.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicBool);

impl Backlog {
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Polls the event stream; never returns.
    pub(super) async fn watch(&self, context: &jetstream::Context, metrics: &Metrics) {
        loop {
            if let Ok(stream) = context.get_stream(EVENTS_STREAM).await {
                let info = stream.cached_info();
                let full = is_nearly_full(info.state.bytes, info.config.max_bytes);
                let was_full = self.0.swap(full, Ordering::Relaxed);
                match (was_full, full) {
                    (false, true) => tracing::warn!(
                        size_bytes = info.state.bytes,
                        "event stream nearly full, refusing changes with 503"
                    ),
                    (true, false) => {
                        tracing::info!("event stream has room again, accepting changes")
                    }
                    _ => {}
                }
                metrics.publishing_refused(full);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn is_nearly_full(bytes: u64, max_bytes: i64) -> bool {
    // Zero or less means no limit.
    u64::try_from(max_bytes).is_ok_and(|max| max > 0 && bytes >= max / 100 * FULL_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        assert!(!is_nearly_full(u64::MAX, -1) && !is_nearly_full(1, 0));
        assert!(!is_nearly_full(899, 1_000) && is_nearly_full(900, 1_000));
    }
}
