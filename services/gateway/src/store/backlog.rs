//! Refuses changes while the event stream is nearly full, and those whose events it does not take. Events reach the stream
//! through the bucket, so a write never sees the stream refuse them; the stream's state is polled instead.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream;

use hookline_shared::subject::EVENTS_STREAM;

use crate::metrics::Metrics;

const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Share of the stream's maximum size above which changes are refused.
const FULL_PERCENT: u64 = 90;

/// What the event stream takes.
#[derive(Debug)]
pub(super) struct Backlog {
    is_full: AtomicBool,
    /// Size of an event in bytes.
    max_event: AtomicUsize,
}

impl Backlog {
    pub(super) fn new(max_event: usize) -> Self {
        Self {
            is_full: AtomicBool::default(),
            max_event: AtomicUsize::new(max_event),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// By the setting and the stream, which may be older than the setting.
    pub(super) fn max_event(&self) -> usize {
        self.max_event.load(Ordering::Relaxed)
    }

    /// Takes the stream's limit if it is lower than the setting.
    fn limit(&self, setting: usize, of_stream: i32) {
        let of_stream = usize::try_from(of_stream).ok().filter(|most| *most > 0);
        let most = of_stream.map_or(setting, |most| most.min(setting));
        self.max_event.store(most, Ordering::Relaxed);
    }

    /// Polls the event stream; never returns.
    pub(super) async fn watch(&self, context: &jetstream::Context, metrics: &Metrics) {
        let setting = self.max_event();
        loop {
            if let Ok(stream) = context.get_stream(EVENTS_STREAM).await {
                let info = stream.cached_info();
                let full = is_nearly_full(info.state.bytes, info.config.max_bytes);
                self.limit(setting, info.config.max_message_size);
                let was_full = self.is_full.swap(full, Ordering::Relaxed);
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
    fn the_lower_limit_of_setting_and_stream_counts() {
        let backlog = Backlog::new(100);
        for (of_stream, most) in [(50, 50), (200, 100), (-1, 100), (0, 100)] {
            backlog.limit(100, of_stream);
            assert_eq!(backlog.max_event(), most, "{of_stream}");
        }
    }

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        assert!(!is_nearly_full(u64::MAX, -1) && !is_nearly_full(1, 0));
        assert!(!is_nearly_full(899, 1_000) && is_nearly_full(900, 1_000));
    }
}
