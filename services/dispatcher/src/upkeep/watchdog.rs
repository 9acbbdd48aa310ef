//! Liveness is progress: a worker that is connected, has messages to fetch, and has settled none for a while is
//! unhealthy.
//!
//! The watchdog reports that on `/healthz` and in a metric, and has the lanes rebuild their pulls, since the consumer
//! may be deleted or the server may have lost a pull.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use hookline_shared::queues::Queues;
use hookline_shared::status::Readiness;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::nats::ack_keepalive::AckKeepalive;
use crate::settle::progress::Progress;

const PERIOD: Duration = Duration::from_secs(2);
/// How long nothing may be settled while there is something to fetch and nothing in flight.
const PATIENCE: Duration = Duration::from_secs(30);
/// Name on `/healthz`.
const PROGRESS: &str = "progress";

pub(crate) struct Watchdog {
    pub(crate) client: Client,
    /// How much waits in NATS.
    pub(crate) queues: Queues,
    pub progress: Progress,
    /// Added to [`PATIENCE`] while messages are in flight.
    pub(crate) longest_attempt: Duration,
    pub(crate) keepalive: AckKeepalive,
    pub health: Readiness,
    /// Notifies the lanes.
    pub rebuild: Arc<Notify>,
    pub metrics: Metrics,
}

impl Watchdog {
    pub(crate) async fn run(self) {
        let (mut count, mut since) = (self.progress.count(), Instant::now());
        let mut rebuilt = since;
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = self.progress.count();
            if now != count || !self.is_connected() || self.pending() == Some(0) {
                (count, since) = (now, Instant::now());
                self.report(None);
                continue;
            }
            // Attempts in flight are no reason to keep a pull that the server lost.
            if since.elapsed() >= PATIENCE && rebuilt.elapsed() >= PATIENCE {
                rebuilt = Instant::now();
                self.rebuild.notify_waiters();
            }
            let patience = patience(self.keepalive.is_empty(), self.longest_attempt);
            if since.elapsed() >= patience {
                self.report(Some(since.elapsed()));
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Messages that no worker has fetched; None if the server has not answered lately.
    fn pending(&self) -> Option<u64> {
        let recent = self.queues.recent()?;
        Some(recent.pending().map(|(_, count)| count).sum())
    }

    fn report(&self, stalled: Option<Duration>) {
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

/// How long nothing may be settled: an attempt in flight may be the only message, and take as long as it may.
fn patience(is_idle: bool, longest_attempt: Duration) -> Duration {
    if is_idle {
        PATIENCE
    } else {
        PATIENCE + longest_attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_in_flight_may_take_its_time() {
        let longest = Duration::from_secs(300);
        assert_eq!(patience(true, longest).as_secs(), 30);
        assert_eq!(patience(false, longest).as_secs(), 330);
    }
}
