//! Liveness is progress: a worker that is connected, that has messages to fetch, and that has
//! settled nothing for a while, is not healthy, whatever it believes.
//!
//! It says so on `/healthz` and in a metric, and has its lanes rebuild their pulls: a consumer that
//! somebody deleted, or a pull that the server forgot, is made anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use hookline_shared::status::Readiness;
use hookline_shared::subject;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long nothing may be settled while there is something to fetch: longer than an attempt.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it is called on `/healthz`.
const PROGRESS: &str = "progress";

/// Messages that were settled; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// A message was acked or given back.
    pub(crate) fn settled(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Watches over one worker.
pub(crate) struct Watchdog {
    /// The connection to look at.
    pub context: jetstream::Context,
    /// What was settled.
    pub progress: Progress,
    /// Where it says what is wrong.
    pub health: Readiness,
    /// Tells the lanes to rebuild their pulls.
    pub rebuild: Arc<Notify>,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Watchdog {
    /// Watches for ever.
    pub(crate) async fn watch(&self) {
        let (mut count, mut since) = (self.progress.count(), Instant::now());
        let mut rebuilt = since;
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = self.progress.count();
            if now != count || !self.is_connected() || self.pending().await == Some(0) {
                (count, since) = (now, Instant::now());
                self.tell(None);
                continue;
            }
            if since.elapsed() < PATIENCE {
                continue;
            }
            self.tell(Some(since.elapsed()));
            if rebuilt.elapsed() >= PATIENCE {
                rebuilt = Instant::now();
                self.rebuild.notify_waiters();
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.context.client().connection_state() == State::Connected
    }

    /// Messages that no worker has fetched; nothing if that cannot be told.
    async fn pending(&self) -> Option<u64> {
        let consumers = [
            (subject::EVENTS_STREAM, subject::DISPATCHERS_CONSUMER),
            (subject::DELIVERIES_STREAM, subject::RETRIES_CONSUMER),
            (subject::DELIVERIES_STREAM, subject::FANOUT_CONSUMER),
        ];
        let mut pending = 0;
        for (stream, consumer) in consumers {
            let stream = self.context.get_stream_no_info(stream).await.ok()?;
            pending += stream.consumer_info(consumer).await.ok()?.num_pending;
        }
        Some(pending)
    }

    fn tell(&self, stalled: Option<Duration>) {
        self.metrics.stalled(stalled.is_some());
        let Some(stalled) = stalled else {
            return self.health.ready(PROGRESS);
        };
        let reason = format!(
            "messages wait and none was settled for {} s",
            stalled.as_secs()
        );
        if self.health.is_ready() {
            tracing::error!(
                reason,
                "this dispatcher makes no progress, its pulls are rebuilt"
            );
        }
        self.health.missing(PROGRESS, &reason);
    }
}
