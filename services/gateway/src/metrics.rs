//! Prometheus metrics of a gateway node: names, and one method per observation.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// Clones share the same metrics.
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
                "Time from a change to its commit, including retries",
            )?,
            retries: counter(
                "hookline_write_retries_total",
                "Retries of changes that were refused or whose result was lost",
                &["kind"],
            )?,
            view_sequence: gauge(
                "hookline_view_sequence",
                "Sequence up to which this node has applied the bucket",
            )?,
            backlog_full: gauge(
                "hookline_events_full",
                "1 while changes are refused because the event stream is nearly full",
            )?,
            connected: gauge("hookline_nats_connected", "1 while NATS is connected")?,
        })
    }

    pub(crate) fn answered(&self, kind: &str, method: &Method, status: StatusCode, took: Duration) {
        // Unknown methods share a label, so that clients cannot create more.
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

    pub(crate) fn wrote(&self, kind: &str, outcome: &str, took: Duration) {
        self.writes.with_label_values(&[kind, outcome]).inc();
        self.write_seconds
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, kind: &str) {
        self.retries.with_label_values(&[kind]).inc();
    }

    pub(crate) fn view(&self, sequence: u64) {
        self.view_sequence
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
    }

    pub(crate) fn backlog(&self, full: bool) {
        self.backlog_full.set(full.into());
    }

    pub(crate) fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }
}
