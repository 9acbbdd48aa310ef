//! Whether there is room for more events. Events reach their stream through the bucket, so a write
//! never sees that the stream refuses them; it is looked at from time to time instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;

use hookline_shared::subject::EVENTS_STREAM;

use crate::metrics::Metrics;

/// How often the stream is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// The share of its size, in percent, at which no more events are made.
const FULL_PERCENT: u64 = 90;

/// Whether the event stream is nearly full.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicBool);

impl Backlog {
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks at the event stream periodically; never returns.
    pub(super) async fn watch(&self, context: &jetstream::Context, metrics: &Metrics) {
        loop {
            if let Ok(stream) = context.get_stream(EVENTS_STREAM).await {
                let info = stream.cached_info();
                let full = is_nearly_full(info.state.bytes, info.config.max_bytes);
                let was_full = self.0.swap(full, Ordering::Relaxed);
                match (was_full, full) {
                    (false, true) => tracing::warn!(
                        size_bytes = info.state.bytes,
                        "the event stream is nearly full: changes are answered 503 until there is room"
                    ),
                    (true, false) => tracing::info!("the event stream has room again"),
                    _ => {}
                }
                metrics.backlog(full);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }
}

fn is_nearly_full(bytes: u64, max_bytes: i64) -> bool {
    // Zero and below: no limit.
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
