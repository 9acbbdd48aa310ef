//! What a gateway node tells of its work. Names are spelled here, one function an event.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of a gateway node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    writes: IntCounterVec,
    write_seconds: HistogramVec,
    retries: IntCounterVec,
    view_sequence: IntGauge,
    backlog_full: IntGauge,
    connected: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// If they are registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.000_5, 2.0, 15)?;
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let histogram = HistogramVec::new(options, &["kind"])?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            requests: counter(
                "hookline_admin_requests_total",
                "Admin API requests by kind of entity, method and status",
                &["kind", "method", "status"],
            )?,
            request_seconds: seconds(
                "hookline_admin_request_seconds",
                "Time from an Admin API request to its answer",
            )?,
            writes: counter(
                "hookline_writes_total",
                "Changes of entities by kind and outcome",
                &["kind", "outcome"],
            )?,
            write_seconds: seconds(
                "hookline_write_seconds",
                "Time from a change to its commit, tries included",
            )?,
            retries: counter(
                "hookline_write_retries_total",
                "Changes that were refused or lost and looked into",
                &["kind"],
            )?,
            view_sequence: gauge(
                "hookline_view_sequence",
                "Sequence of the bucket up to which this node knows its entities",
            )?,
            backlog_full: gauge(
                "hookline_events_full",
                "1 while changes are refused because the event stream is nearly full",
            )?,
            connected: gauge("hookline_nats_connected", "1 while NATS is connected")?,
        })
    }

    /// A request was answered.
    pub(crate) fn answered(&self, kind: &str, method: &Method, status: StatusCode, took: Duration) {
        // What clients invent as a method is one label, not many.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "other",
        };
        self.requests
            .with_label_values(&[kind, method, status.as_str()])
            .inc();
        self.request_seconds
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
    }

    /// A change was committed, or not.
    pub(crate) fn wrote(&self, kind: &str, outcome: &str, took: Duration) {
        self.writes.with_label_values(&[kind, outcome]).inc();
        self.write_seconds
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
    }

    /// A change has to be looked into.
    pub(crate) fn retried(&self, kind: &str) {
        self.retries.with_label_values(&[kind]).inc();
    }

    /// How far the view is.
    pub(crate) fn view(&self, sequence: u64) {
        self.view_sequence
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }

    /// Whether the event stream is nearly full.
    pub(crate) fn backlog(&self, full: bool) {
        self.backlog_full.set(full.into());
    }

    /// Whether NATS is connected.
    pub(crate) fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }
}
