//! Metrics of events over HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use hookline_shared::metrics::{ATTEMPT, Each, Register};
use prometheus::{Histogram, IntCounter, Registry};

use crate::metrics::StatusLabel;

/// Clones share the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Each<StatusLabel, IntCounter>,
    duration: Histogram,
    events: IntCounter,
    repeats: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        Ok(Self {
            requests: new.counters(
                "hookline_ingest_requests_total",
                "Requests with events over HTTP, by class of status",
                "status",
            )?,
            duration: new.histogram(
                "hookline_ingest_request_duration_seconds",
                "Time from a request with events to its answer, after the commit",
                ATTEMPT,
            )?,
            events: new.counter(
                "hookline_ingest_events_total",
                "Events that were stored for requests over HTTP",
            )?,
            repeats: new.counter(
                "hookline_ingest_repeats_total",
                "Events that came again with an idempotency key that this node knew",
            )?,
        })
    }

    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        self.requests.get(StatusLabel::of(status)).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn raised(&self, events: usize, repeats: usize) {
        self.events.inc_by(events as u64);
        self.repeats.inc_by(repeats as u64);
    }
}
