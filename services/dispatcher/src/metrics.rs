//! The dispatcher's metrics: names and labels in one place, one function per thing that happens.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// What became of an event.
#[derive(Debug, Clone, Copy)]
pub enum EventResult {
    /// At least one hook matches.
    Matched,
    /// No hook matches.
    Unmatched,
    /// It is no event.
    Malformed,
}

/// What became of a delivery when a worker had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryResult {
    /// Delivered.
    Delivered,
    /// The attempt failed; parked for the next.
    Retry,
    /// Given up on.
    Dead,
    /// Delivered, parked or buried before: nothing was done.
    Duplicate,
    /// Parked without an attempt.
    Deferred,
    /// Another worker holds it, or took it over.
    Busy,
    /// It could not be settled now: it comes again.
    Unsettled,
    /// Its hook is deleted.
    Orphaned,
}

impl DeliveryResult {
    fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Duplicate => "duplicate",
            Self::Deferred => "deferred",
            Self::Busy => "busy",
            Self::Unsettled => "unsettled",
            Self::Orphaned => "orphaned",
        }
    }
}

/// Handles on all metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    matched: IntCounter,
    unmatched: IntCounter,
    malformed: IntCounter,
    deliveries: IntCounterVec,
    attempt_seconds: HistogramVec,
    delay_seconds: Histogram,
    in_flight: IntGaugeVec,
    redis_up: IntGauge,
    redis_skipped: IntCounter,
    hooks: IntGauge,
    hooks_unusable: IntGauge,
    index_revision: Gauge,
    barrier_seconds: Histogram,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If a name is registered twice.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let events = IntCounterVec::new(
            Opts::new(
                "hookline_events_total",
                "Events taken from JetStream, by what they were",
            ),
            &["result"],
        )?;
        let metrics = Self {
            matched: events.with_label_values(&["matched"]),
            unmatched: events.with_label_values(&["unmatched"]),
            malformed: events.with_label_values(&["malformed"]),
            deliveries: IntCounterVec::new(
                Opts::new(
                    "hookline_deliveries_total",
                    "Deliveries handled, by what became of them",
                ),
                &["handler", "outcome"],
            )?,
            attempt_seconds: HistogramVec::new(
                HistogramOpts::new("hookline_attempt_seconds", "Duration of attempts")
                    .buckets(exponential_buckets(0.000_25, 2.0, 18)?),
                &["handler"],
            )?,
            delay_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "hookline_event_delay_seconds",
                    "Time from an event's storage to the start of its handling",
                )
                .buckets(exponential_buckets(0.000_5, 2.0, 20)?),
            )?,
            in_flight: IntGaugeVec::new(
                Opts::new("hookline_in_flight", "Messages being handled, by lane"),
                &["lane"],
            )?,
            redis_up: IntGauge::new(
                "hookline_redis_up",
                "Whether Redis answers; 0: deliveries go on without protection against repeats",
            )?,
            redis_skipped: IntCounter::new(
                "hookline_redis_skipped_total",
                "Deliveries that were made without Redis",
            )?,
            hooks: IntGauge::new("hookline_hooks", "Hooks in the index")?,
            hooks_unusable: IntGauge::new(
                "hookline_hooks_unusable",
                "Hooks in the index that cannot be prepared",
            )?,
            index_revision: Gauge::new(
                "hookline_index_revision",
                "Revision of the hook index, a sequence of the bucket",
            )?,
            barrier_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "hookline_barrier_seconds",
                    "Duration of the check that the hook index is new enough",
                )
                .buckets(exponential_buckets(0.000_125, 2.0, 16)?),
            )?,
        };
        registry.register(Box::new(events))?;
        registry.register(Box::new(metrics.deliveries.clone()))?;
        registry.register(Box::new(metrics.attempt_seconds.clone()))?;
        registry.register(Box::new(metrics.delay_seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.redis_up.clone()))?;
        registry.register(Box::new(metrics.redis_skipped.clone()))?;
        registry.register(Box::new(metrics.hooks.clone()))?;
        registry.register(Box::new(metrics.hooks_unusable.clone()))?;
        registry.register(Box::new(metrics.index_revision.clone()))?;
        registry.register(Box::new(metrics.barrier_seconds.clone()))?;
        Ok(metrics)
    }

    /// An event was taken.
    pub fn event(&self, result: EventResult) {
        match result {
            EventResult::Matched => self.matched.inc(),
            EventResult::Unmatched => self.unmatched.inc(),
            EventResult::Malformed => self.malformed.inc(),
        }
    }

    /// An event waited that long before it was handled.
    pub fn delay(&self, delay: Duration) {
        self.delay_seconds.observe(delay.as_secs_f64());
    }

    /// A delivery was handled.
    pub fn delivery(&self, handler: &str, result: DeliveryResult) {
        self.deliveries
            .with_label_values(&[handler, result.label()])
            .inc();
    }

    /// An attempt took that long.
    pub fn attempt(&self, handler: &str, took: Duration) {
        self.attempt_seconds
            .with_label_values(&[handler])
            .observe(took.as_secs_f64());
    }

    /// The gauge of a lane's messages in flight.
    #[must_use]
    pub fn in_flight(&self, lane: &str) -> IntGauge {
        self.in_flight.with_label_values(&[lane])
    }

    /// Redis answers, or does not.
    pub fn redis_up(&self, up: bool) {
        self.redis_up.set(up.into());
    }

    /// A delivery is made without Redis.
    pub fn redis_skipped(&self) {
        self.redis_skipped.inc();
    }

    /// A new hook index is in use.
    pub fn index(&self, hooks: usize, unusable: usize, revision: u64) {
        self.hooks.set(hooks as i64);
        self.hooks_unusable.set(unusable as i64);
        self.index_revision.set(revision as f64);
    }

    /// A read barrier took that long.
    pub fn barrier(&self, took: Duration) {
        self.barrier_seconds.observe(took.as_secs_f64());
    }
}
