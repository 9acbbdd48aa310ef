//! The dispatcher's metrics: all names and labels, one function per metric.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};

#[derive(Debug, Clone, Copy)]
pub(crate) enum EventResult {
    Matched,
    Unmatched,
    /// The message is no event.
    Malformed,
}

/// The result of a worker's handling of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryResult {
    Delivered,
    /// The attempt failed, and there is another.
    Retry,
    /// Dead-lettered.
    Dead,
    /// Delivered, parked or buried before.
    Duplicate,
    /// Parked without an attempt.
    Deferred,
    /// Stored for any worker: its event has very many deliveries.
    Spread,
    /// Suppressed by `snooze`.
    Snoozed,
    /// Suppressed by `on_change`.
    Unchanged,
    /// Another worker took it over.
    Busy,
    /// Redelivered: another worker holds it, or its hook has no permit.
    NotYet,
    /// Redelivered: it could not be settled.
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

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    matched: IntCounter,
    unmatched: IntCounter,
    malformed: IntCounter,
    unknown_workspace: IntCounter,
    deliveries: IntCounterVec,
    parking: Parking,
    circuit_openings: IntCounter,
    threads_stuck: IntCounter,
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
                "Overdue deliveries that were parked again",
            )?,
            storage_scarce: new.gauge(
                "hookline_storage_scarce",
                "Whether NATS has too little storage left to park deliveries",
            )?,
            dead_letters_full: new.gauge(
                "hookline_dead_letters_full",
                "Whether the stream of dead letters is full, so that dead deliveries stay parked",
            )?,
        })
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        let events = new.counters(
            "hookline_events_total",
            "Events handled, by result",
            &["result"],
        )?;
        Ok(Self {
            matched: events.with_label_values(&["matched"]),
            unmatched: events.with_label_values(&["unmatched"]),
            malformed: events.with_label_values(&["malformed"]),
            unknown_workspace: new.counter(
                "hookline_events_unknown_workspace_total",
                "Events in workspaces that nobody made",
            )?,
            deliveries: new.counters(
                "hookline_deliveries_total",
                "Deliveries handled, by outcome",
                &["handler", "outcome"],
            )?,
            parking: Parking::register(&new)?,
            circuit_openings: new.counter(
                "hookline_circuit_openings_total",
                "Circuits opened by this worker, including after a failed probe",
            )?,
            threads_stuck: new.counter(
                "hookline_stuck_threads_total",
                "Threads given up because a hook's script or template did not come back",
            )?,
            attempt_records_dropped: new.counter(
                "hookline_attempt_records_dropped_total",
                "Attempts missing in the delivery log, which never delays deliveries",
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
                "Whether Redis answers; while 0, deliveries may be repeated",
            )?,
            redis_skipped: new.counter(
                "hookline_redis_skipped_total",
                "Attempts made without a claim in Redis",
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
                "Duration of the read barrier of the hook index",
                exponential_buckets(0.000_125, 2.0, 16)?,
            )?,
        })
    }

    pub(crate) fn event(&self, result: EventResult) {
        match result {
            EventResult::Matched => self.matched.inc(),
            EventResult::Unmatched => self.unmatched.inc(),
            EventResult::Malformed => self.malformed.inc(),
        }
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_seconds.observe(delay.as_secs_f64());
    }

    pub(crate) fn storage_scarce(&self, scarce: bool) {
        self.parking.storage_scarce.set(scarce.into());
    }

    pub(crate) fn dead_letters_full(&self, full: bool) {
        self.parking.dead_letters_full.set(full.into());
    }

    pub(crate) fn delivery(&self, handler: &str, result: DeliveryResult) {
        self.deliveries
            .with_label_values(&[handler, result.label()])
            .inc();
    }

    pub(crate) fn deferred(&self, reason: &str) {
        self.parking.deferrals.with_label_values(&[reason]).inc();
    }

    pub(crate) fn circuit_opened(&self) {
        self.circuit_openings.inc();
    }

    pub(crate) fn thread_stuck(&self) {
        self.threads_stuck.inc();
    }

    pub(crate) fn unknown_workspace(&self, events: u64) {
        self.unknown_workspace.inc_by(events);
    }

    pub(crate) fn swept(&self) {
        self.parking.swept.inc();
    }

    pub(crate) fn attempt_records_dropped(&self, count: u64) {
        self.attempt_records_dropped.inc_by(count);
    }

    pub(crate) fn attempt(&self, handler: &str, took: Duration) {
        self.attempt_seconds
            .with_label_values(&[handler])
            .observe(took.as_secs_f64());
    }

    #[must_use]
    pub(crate) fn in_flight(&self, lane: &str) -> IntGauge {
        self.in_flight.with_label_values(&[lane])
    }

    pub(crate) fn nats_connected(&self, connected: bool) {
        self.nats_connected.set(connected.into());
    }

    pub(crate) fn stalled(&self, stalled: bool) {
        self.stalled.set(stalled.into());
    }

    pub(crate) fn redis_up(&self, up: bool) {
        self.redis_up.set(up.into());
    }

    pub(crate) fn redis_skipped(&self) {
        self.redis_skipped.inc();
    }

    pub(crate) fn index(&self, hooks: usize, unusable: usize, revision: u64) {
        self.hooks.set(hooks as i64);
        self.hooks_unusable.set(unusable as i64);
        self.index_revision.set(revision as i64);
    }

    pub(crate) fn barrier(&self, took: Duration) {
        self.barrier_seconds.observe(took.as_secs_f64());
    }
}

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
