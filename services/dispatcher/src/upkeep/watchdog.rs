//! Liveness is progress: a worker that is connected, that has messages to fetch, and that has
//! settled nothing for a while, is not healthy, whatever it believes.
//!
//! It says so on `/healthz` and in a metric, and has its lanes rebuild their pulls: a consumer that
//! somebody deleted, or a pull that the server forgot, is made anew.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use hookline_shared::status::Readiness;
use hookline_shared::subject;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::nats::ack_keepalive::AckKeepalive;
use crate::settle::progress::Progress;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long nothing may be settled while there is something to fetch and nothing in flight.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it is called on `/healthz`.
const PROGRESS: &str = "progress";

/// Watches over one worker.
pub(crate) struct Watchdog {
    /// The connection to look at.
    pub context: jetstream::Context,
    pub progress: Progress,
    /// The longest that an attempt may take: so much longer nothing may be settled while one is in flight.
    pub(crate) longest_attempt: Duration,
    pub(crate) keepalive: AckKeepalive,
    /// Where it says what is wrong.
    pub health: Readiness,
    /// Tells the lanes to rebuild their pulls.
    pub rebuild: Arc<Notify>,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Watchdog {
    /// Watches for ever.
    pub(crate) async fn run(self) {
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
            // A pull that the server forgot may be rebuilt while attempts are in flight.
            if since.elapsed() >= PATIENCE && rebuilt.elapsed() >= PATIENCE {
                rebuilt = Instant::now();
                self.rebuild.notify_waiters();
            }
            if since.elapsed() >= self.patience() {
                self.tell(Some(since.elapsed()));
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.keepalive.is_empty() {
            PATIENCE
        } else {
            PATIENCE + self.longest_attempt
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
            tracing::error!(reason, "this dispatcher makes no progress");
        }
        self.health.missing(PROGRESS, &reason);
    }
}
