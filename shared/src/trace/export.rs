//! Bounds and counts what is exported: spans may be lost, deliveries may not wait for them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use prometheus::{IntCounterVec, Opts};

use super::standard;

/// Spans that wait for their export, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const QUEUE: usize = 2_048;

/// Spans by what became of them.
pub fn counts() -> &'static IntCounterVec {
    static COUNTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
        let name = "hookline_trace_spans_total";
        let help = "Spans of traces, by whether they were exported, dropped since too many waited, or refused or not reached by the collector";
        let counts = IntCounterVec::new(Opts::new(name, help), &["outcome"]);
        let counts = counts.expect("the name is sound");
        for outcome in [EXPORTED, DROPPED, FAILED] {
            counts.with_label_values(&[outcome]);
        }
        counts
    });
    &COUNTS
}

const EXPORTED: &str = "exported";
const DROPPED: &str = "dropped";
const FAILED: &str = "failed";

fn count(outcome: &str, spans: usize) {
    let counts = counts().with_label_values(&[outcome]);
    counts.inc_by(spans as u64);
}

/// Spans that wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Passes on as many spans as the queue behind it takes.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    inner: P,
    most: usize,
}

impl<P> Bounded<P> {
    pub(super) fn new(inner: P) -> Self {
        let most = standard("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|text| text.parse().ok());
        Self {
            inner,
            most: most.unwrap_or(QUEUE),
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if WAITING.fetch_add(1, Ordering::Relaxed) >= self.most {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            return count(DROPPED, 1);
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what is exported.
#[derive(Debug)]
pub(super) struct Counting<E>(E);

impl<E> Counting<E> {
    pub(super) fn new(inner: E) -> Self {
        Self(inner)
    }
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.0.export(batch).await;
        WAITING.fetch_sub(spans, Ordering::Relaxed);
        match &exported {
            Ok(()) => count(EXPORTED, spans),
            Err(error) => {
                count(FAILED, spans);
                tracing::debug!(%error, spans, "cannot export spans of traces");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
