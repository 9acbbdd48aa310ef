//! The dispatcher's metrics: names and labels in one place, one function per thing that happens.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};

/// What became of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventResult {
    /// At least one hook matches.
    Matched,
    /// No hook matches.
    Unmatched,
    /// It is no event.
    Malformed,
}

/// What became of a delivery when a worker had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryResult {
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
    /// Stored for any worker: its event has very many.
    Spread,
    /// Suppressed: an event about the same was delivered a short time ago.
    Snoozed,
    /// Suppressed: nothing that the hook watches has changed.
    Unchanged,
    /// Another worker took it over.
    Busy,
    /// It comes again soon: another worker holds it, or there is no room for it now.
    NotYet,
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
            Self::Spread => "spread",
            Self::Snoozed => "snoozed",
            Self::Unchanged => "unchanged",
            Self::Busy => "busy",
            Self::NotYet => "not_yet",
            Self::Unsettled => "unsettled",
            Self::Orphaned => "orphaned",
        }
    }
}

/// Handles on all metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    matched: IntCounter,
    unmatched: IntCounter,
    malformed: IntCounter,
    deliveries: IntCounterVec,
    parking: Parking,
    circuit_openings: IntCounter,
    attempt_records_dropped: IntCounter,
    attempt_seconds: HistogramVec,
    delay_seconds: Histogram,
    in_flight: IntGaugeVec,
    nats_connected: IntGauge,
    stalled: IntGauge,
    redis_up: IntGauge,
    redis_skipped: IntCounter,
    hooks: IntGauge,
    hooks_unusable: IntGauge,
    index_revision: IntGauge,
    barrier_seconds: Histogram,
}

/// What is parked, and whether it can be.
#[derive(Debug, Clone)]
struct Parking {
    deferrals: IntCounterVec,
    swept: IntCounter,
    storage_scarce: IntGauge,
    dead_letters_full: IntGauge,
}

impl Parking {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            deferrals: new.counters(
                "hookline_deferrals_total",
                "Deliveries parked without an attempt, by reason",
                &["reason"],
            )?,
            swept: new.counter(
                "hookline_swept_total",
                "Parked deliveries that did not fall due in time and were parked anew",
            )?,
            storage_scarce: new.gauge(
                "hookline_storage_scarce",
                "Whether NATS has so little storage left that nothing more is parked",
            )?,
            dead_letters_full: new.gauge(
                "hookline_dead_letters_full",
                "Whether the stream of dead letters is full, so that dead deliveries stay parked",
            )?,
        })
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If a name is registered twice.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        let events = new.counters(
            "hookline_events_total",
            "Events taken from JetStream, by what they were",
            &["result"],
        )?;
        Ok(Self {
            matched: events.with_label_values(&["matched"]),
            unmatched: events.with_label_values(&["unmatched"]),
            malformed: events.with_label_values(&["malformed"]),
            deliveries: new.counters(
                "hookline_deliveries_total",
                "Deliveries handled, by what became of them",
                &["handler", "outcome"],
            )?,
            parking: Parking::register(&new)?,
            circuit_openings: new.counter(
                "hookline_circuit_openings_total",
                "Circuits that this worker opened, or opened again after a probe that failed",
            )?,
            attempt_records_dropped: new.counter(
                "hookline_attempt_records_dropped_total",
                "Attempts that are missing in the delivery log, which must not slow deliveries",
            )?,
            attempt_seconds: new.histograms(
                "hookline_attempt_seconds",
                "Duration of attempts",
                &["handler"],
                exponential_buckets(0.000_25, 2.0, 18)?,
            )?,
            delay_seconds: new.histogram(
                "hookline_event_delay_seconds",
                "Time from an event's storage to the start of its handling",
                exponential_buckets(0.000_5, 2.0, 20)?,
            )?,
            in_flight: new.gauges(
                "hookline_in_flight",
                "Messages being handled, by lane",
                &["lane"],
            )?,
            nats_connected: new.gauge("hookline_nats_connected", "Whether NATS is connected")?,
            stalled: new.gauge(
                "hookline_stalled",
                "Whether messages wait and this worker has settled none for a while",
            )?,
            redis_up: new.gauge(
                "hookline_redis_up",
                "Whether Redis answers; 0: deliveries go on without protection against repeats",
            )?,
            redis_skipped: new.counter(
                "hookline_redis_skipped_total",
                "Deliveries that were made without Redis",
            )?,
            hooks: new.gauge("hookline_hooks", "Hooks in the index")?,
            hooks_unusable: new.gauge(
                "hookline_hooks_unusable",
                "Hooks in the index that cannot be prepared",
            )?,
            index_revision: new.gauge(
                "hookline_index_revision",
                "Revision of the hook index, a sequence of the bucket",
            )?,
            barrier_seconds: new.histogram(
                "hookline_barrier_seconds",
                "Duration of the check that the hook index is new enough",
                exponential_buckets(0.000_125, 2.0, 16)?,
            )?,
        })
    }

    /// An event was taken.
    pub(crate) fn event(&self, result: EventResult) {
        match result {
            EventResult::Matched => self.matched.inc(),
            EventResult::Unmatched => self.unmatched.inc(),
            EventResult::Malformed => self.malformed.inc(),
        }
    }

    /// An event waited that long before it was handled.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_seconds.observe(delay.as_secs_f64());
    }

    /// Whether NATS has storage for what is to be parked.
    pub(crate) fn storage_scarce(&self, scarce: bool) {
        self.parking.storage_scarce.set(scarce.into());
    }

    /// Whether there is no room for dead letters.
    pub(crate) fn dead_letters_full(&self, full: bool) {
        self.parking.dead_letters_full.set(full.into());
    }

    /// A delivery was handled.
    pub(crate) fn delivery(&self, handler: &str, result: DeliveryResult) {
        self.deliveries
            .with_label_values(&[handler, result.label()])
            .inc();
    }

    /// A delivery is parked without an attempt.
    pub(crate) fn deferred(&self, reason: &str) {
        self.parking.deferrals.with_label_values(&[reason]).inc();
    }

    /// A circuit was opened.
    pub(crate) fn circuit_opened(&self) {
        self.circuit_openings.inc();
    }

    /// A delivery that did not fall due in time is parked anew.
    pub(crate) fn swept(&self) {
        self.parking.swept.inc();
    }

    /// Attempts are missing in the delivery log.
    pub(crate) fn attempt_records_dropped(&self, count: u64) {
        self.attempt_records_dropped.inc_by(count);
    }

    /// An attempt took that long.
    pub(crate) fn attempt(&self, handler: &str, took: Duration) {
        self.attempt_seconds
            .with_label_values(&[handler])
            .observe(took.as_secs_f64());
    }

    /// The gauge of a lane's messages in flight.
    #[must_use]
    pub(crate) fn in_flight(&self, lane: &str) -> IntGauge {
        self.in_flight.with_label_values(&[lane])
    }

    /// NATS is connected, or is not.
    pub(crate) fn nats_connected(&self, connected: bool) {
        self.nats_connected.set(connected.into());
    }

    /// This worker makes no progress, or does.
    pub(crate) fn stalled(&self, stalled: bool) {
        self.stalled.set(stalled.into());
    }

    /// Redis answers, or does not.
    pub(crate) fn redis_up(&self, up: bool) {
        self.redis_up.set(up.into());
    }

    /// A delivery is made without Redis.
    pub(crate) fn redis_skipped(&self) {
        self.redis_skipped.inc();
    }

    /// A new hook index is in use.
    pub(crate) fn index(&self, hooks: usize, unusable: usize, revision: u64) {
        self.hooks.set(hooks as i64);
        self.hooks_unusable.set(unusable as i64);
        self.index_revision.set(revision as i64);
    }

    /// A read barrier took that long.
    pub(crate) fn barrier(&self, took: Duration) {
        self.barrier_seconds.observe(took.as_secs_f64());
    }
}

/// Makes metrics and registers them.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets);
        self.add(Histogram::with_opts(options)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets);
        self.add(HistogramVec::new(options, labels)?)
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
