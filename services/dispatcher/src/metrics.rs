//! The dispatcher's metrics: all names and help texts, one function per observation.

mod labels;
mod per_hook;

use std::time::Duration;

use hookline_shared::clock;
use hookline_shared::hook::HANDLERS;
use hookline_shared::metrics::{ATTEMPT, Each, LAG, Register, SHORT};
use hookline_shared::subject::{DISPATCHERS_CONSUMER, FANOUT_CONSUMER, RETRIES_CONSUMER};
use prometheus::{Histogram, IntCounter, IntGauge, Registry};

pub(crate) use labels::{
    Attempt, AttemptResult, Death, EventOutcome, Handback, LaneName, Outcome, Parked, RedisCall,
};
pub(crate) use per_hook::{About, PerHook};

/// The handler of deliveries whose hook is not known.
const NO_HANDLER: &str = "none";
const CONSUMERS: [&str; 3] = [DISPATCHERS_CONSUMER, RETRIES_CONSUMER, FANOUT_CONSUMER];

/// Clones share the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: Events,
    deliveries: Deliveries,
    attempts: Attempts,
    lanes: Lanes,
    redis: Redis,
    hooks: Hooks,
    per_hook: PerHook,
}

#[derive(Debug, Clone)]
struct Events {
    outcomes: Each<EventOutcome, IntCounter>,
    unknown_workspace: IntCounter,
    pickup_delay: Histogram,
    last: IntGauge,
}

impl Events {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            outcomes: new.counters(
                "hookline_events_total",
                "Events at their first delivery, by whether a hook listens; without those given back unhandled",
                "outcome",
            )?,
            unknown_workspace: new.counter(
                "hookline_events_unknown_workspace_total",
                "Events in workspaces that nobody made",
            )?,
            pickup_delay: new.histogram(
                "hookline_event_pickup_delay_seconds",
                "Time from an event's storage to the start of its handling",
                LAG,
            )?,
            last: new.gauge(
                "hookline_last_event_timestamp_seconds",
                "When this worker last took an event, as Unix time; 0: never",
            )?,
        })
    }
}

#[derive(Debug, Clone)]
struct Deliveries {
    outcomes: Each<&'static str, Each<Outcome, IntCounter>>,
    lag: Each<&'static str, Each<Attempt, Histogram>>,
    parked: Each<Parked, IntCounter>,
    handbacks: Each<Handback, IntCounter>,
    retried_in_process: IntCounter,
    spread: IntCounter,
    swept: IntCounter,
    dead_letters: Each<Death, IntCounter>,
    dead_letters_full: IntGauge,
    storage_scarce: IntGauge,
    last_settled: IntGauge,
    stalled: IntGauge,
}

impl Deliveries {
    fn register(new: &Register<'_>, handlers: &[&'static str]) -> Result<Self, prometheus::Error> {
        let with_none: Vec<_> = handlers.iter().copied().chain([NO_HANDLER]).collect();
        Ok(Self {
            outcomes: new.counters_by(
                "hookline_deliveries_total",
                "Deliveries that ended, by outcome",
                ["handler", "outcome"],
                &with_none,
            )?,
            lag: new.histograms_by(
                (
                    "hookline_delivery_lag_seconds",
                    "Time from an event's storage to its delivery; first: at once, at the first attempt",
                ),
                ["handler", "attempt"],
                handlers,
                LAG,
            )?,
            parked: new.counters(
                "hookline_deliveries_parked_total",
                "Deliveries stored to wait, by reason; one that waits again counts again",
                "reason",
            )?,
            handbacks: new.counters(
                "hookline_delivery_handbacks_total",
                "Deliveries whose message is delivered again by NATS, by reason",
                "reason",
            )?,
            retried_in_process: new.counter(
                "hookline_deliveries_retried_in_process_total",
                "Retries so soon that they were made without being stored",
            )?,
            spread: new.counter(
                "hookline_deliveries_spread_total",
                "Deliveries of events that many hooks hear, stored for any worker",
            )?,
            swept: new.counter(
                "hookline_deliveries_swept_total",
                "Overdue deliveries that were parked again",
            )?,
            dead_letters: new.counters(
                "hookline_dead_letters_total",
                "Dead letters written, by why the delivery died or what the message was",
                "reason",
            )?,
            dead_letters_full: new.gauge(
                "hookline_dead_letters_full",
                "1 while the stream of dead letters is full, so that dead deliveries stay parked",
            )?,
            storage_scarce: new.gauge(
                "hookline_storage_scarce",
                "1 while NATS has too little storage left to park deliveries",
            )?,
            last_settled: new.gauge(
                "hookline_last_settled_timestamp_seconds",
                "When this worker last acked or buried a message, as Unix time; 0: never",
            )?,
            stalled: new.gauge(
                "hookline_stalled",
                "1 while messages wait and this worker has settled none for a while",
            )?,
        })
    }
}

#[derive(Debug, Clone)]
struct Attempts {
    results: Each<&'static str, Each<AttemptResult, IntCounter>>,
    duration: Each<&'static str, Histogram>,
    circuit_openings: IntCounter,
    records_dropped: IntCounter,
    threads_stuck: IntCounter,
}

impl Attempts {
    fn register(new: &Register<'_>, handlers: &[&'static str]) -> Result<Self, prometheus::Error> {
        Ok(Self {
            results: new.counters_by(
                "hookline_attempts_total",
                "Attempts, by result",
                ["handler", "result"],
                handlers,
            )?,
            duration: new.histograms_of(
                (
                    "hookline_attempt_duration_seconds",
                    "Duration of attempts that reached out or ran a function: without those refused by egress or template",
                ),
                "handler",
                handlers,
                ATTEMPT,
            )?,
            circuit_openings: new.counter(
                "hookline_circuit_openings_total",
                "Circuits opened by this worker, including after a failed probe",
            )?,
            records_dropped: new.counter(
                "hookline_attempt_records_dropped_total",
                "Attempts missing in the delivery log, which never delays deliveries",
            )?,
            threads_stuck: new.counter(
                "hookline_stuck_threads_total",
                "Threads given up because a hook's script or template did not come back",
            )?,
        })
    }
}

#[derive(Debug, Clone)]
struct Lanes {
    in_flight: Each<&'static str, IntGauge>,
    permits: Each<LaneName, IntGauge>,
    redeliveries: Each<&'static str, IntCounter>,
    pull_rebuilds: Each<&'static str, IntCounter>,
}

impl Lanes {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            in_flight: new.gauges_of(
                "hookline_in_flight_messages",
                "Messages in hand; those of two consumers share the permits of the events lane",
                ["consumer", "lane"],
                &CONSUMERS.map(|consumer| (consumer, lane_of(consumer).into())),
            )?,
            permits: new.gauges(
                "hookline_permits",
                "Messages that may be in hand at the same time",
                "lane",
            )?,
            redeliveries: new.counters_of(
                "hookline_redeliveries_total",
                "Messages that NATS delivered more than once: given back, or of a worker that was lost",
                "consumer",
                &CONSUMERS,
            )?,
            pull_rebuilds: new.counters_of(
                "hookline_pull_rebuilds_total",
                "Pulls re-created after an error or a long silence",
                "consumer",
                &CONSUMERS,
            )?,
        })
    }
}

fn lane_of(consumer: &str) -> LaneName {
    match consumer {
        RETRIES_CONSUMER => LaneName::Retries,
        _ => LaneName::Events,
    }
}

#[derive(Debug, Clone)]
struct Redis {
    connected: IntGauge,
    unguarded: IntCounter,
    calls: Each<RedisCall, Histogram>,
}

impl Redis {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            connected: new.gauge(
                "hookline_redis_connected",
                "1 while Redis answers; while 0, deliveries may be repeated",
            )?,
            unguarded: new.counter(
                "hookline_deliveries_unguarded_total",
                "Attempts made without a claim in Redis, which may be repeats",
            )?,
            calls: new.histograms(
                "hookline_redis_request_duration_seconds",
                "Duration of answered calls of Redis, by what they are for",
                "call",
                SHORT,
            )?,
        })
    }
}

#[derive(Debug, Clone)]
struct Hooks {
    known: IntGauge,
    unusable: IntGauge,
    revision: IntGauge,
    barrier: Histogram,
}

impl Hooks {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            known: new.gauge("hookline_hooks", "Hooks; the same on each worker")?,
            unusable: new.gauge(
                "hookline_hooks_unusable",
                "Hooks that cannot be prepared, whose deliveries wait; the same on each worker",
            )?,
            revision: new.gauge(
                "hookline_index_revision",
                "Sequence of the change of hooks up to which this worker knows them",
            )?,
            barrier: new.histogram(
                "hookline_index_barrier_duration_seconds",
                "Time that pulled messages waited to know hooks as new as they are",
                SHORT,
            )?,
        })
    }
}

impl Metrics {
    /// `most_hooks`: how many hooks have series of their own.
    pub(crate) fn register(
        registry: &Registry,
        most_hooks: usize,
    ) -> Result<Self, prometheus::Error> {
        let new = Register(registry);
        let handlers: Vec<_> = HANDLERS.iter().map(|handler| handler.name).collect();
        Ok(Self {
            events: Events::register(&new)?,
            deliveries: Deliveries::register(&new, &handlers)?,
            attempts: Attempts::register(&new, &handlers)?,
            lanes: Lanes::register(&new)?,
            redis: Redis::register(&new)?,
            hooks: Hooks::register(&new)?,
            per_hook: PerHook::register(&new, most_hooks)?,
        })
    }

    pub(crate) fn per_hook(&self) -> &PerHook {
        &self.per_hook
    }

    pub(crate) fn event(&self, outcome: EventOutcome) {
        self.events.outcomes.get(outcome).inc();
    }

    pub(crate) fn unknown_workspace(&self, events: u64) {
        self.events.unknown_workspace.inc_by(events);
    }

    /// An event was taken at a time in Unix milliseconds, so long after it was stored.
    pub(crate) fn picked_up(&self, now: u64, delay: Duration) {
        self.events.last.set((now / 1_000) as i64);
        self.events.pickup_delay.observe(delay.as_secs_f64());
    }

    pub(crate) fn ended(&self, hook: &str, handler: &'static str, outcome: Outcome) {
        self.deliveries.outcomes.get(handler).get(outcome).inc();
        self.per_hook.ended(hook, outcome);
    }

    pub(crate) fn orphaned(&self) {
        let outcomes = self.deliveries.outcomes.get(NO_HANDLER);
        outcomes.get(Outcome::Orphaned).inc();
    }

    pub(crate) fn lag(&self, handler: &'static str, attempt: Attempt, lag: Duration) {
        let of_handler = self.deliveries.lag.get(handler);
        of_handler.get(attempt).observe(lag.as_secs_f64());
    }

    pub(crate) fn parked(&self, hook: &str, reason: Parked) {
        self.deliveries.parked.get(reason).inc();
        self.per_hook.parked(hook);
    }

    pub(crate) fn handed_back(&self, reason: Handback) {
        self.deliveries.handbacks.get(reason).inc();
    }

    pub(crate) fn retried_in_process(&self) {
        self.deliveries.retried_in_process.inc();
    }

    pub(crate) fn spread(&self) {
        self.deliveries.spread.inc();
    }

    pub(crate) fn swept(&self) {
        self.deliveries.swept.inc();
    }

    pub(crate) fn dead_letter(&self, reason: Death) {
        self.deliveries.dead_letters.get(reason).inc();
    }

    pub(crate) fn dead_letters_full(&self, full: bool) {
        self.deliveries.dead_letters_full.set(full.into());
    }

    pub(crate) fn storage_scarce(&self, scarce: bool) {
        self.deliveries.storage_scarce.set(scarce.into());
    }

    pub(crate) fn settled(&self) {
        let now = clock::unix_millis() / 1_000;
        self.deliveries.last_settled.set(now as i64);
    }

    pub(crate) fn stalled(&self, stalled: bool) {
        self.deliveries.stalled.set(stalled.into());
    }

    pub(crate) fn attempt(
        &self,
        hook: &str,
        handler: &'static str,
        result: AttemptResult,
        took: Duration,
    ) {
        self.attempts.results.get(handler).get(result).inc();
        if !matches!(result, AttemptResult::Egress | AttemptResult::Template) {
            let duration = self.attempts.duration.get(handler);
            duration.observe(took.as_secs_f64());
        }
        self.per_hook.attempt(hook, result, took);
    }

    pub(crate) fn circuit_opened(&self) {
        self.attempts.circuit_openings.inc();
    }

    pub(crate) fn attempt_records_dropped(&self, count: u64) {
        self.attempts.records_dropped.inc_by(count);
    }

    pub(crate) fn thread_stuck(&self) {
        self.attempts.threads_stuck.inc();
    }

    #[must_use]
    pub(crate) fn in_flight(&self, consumer: &'static str) -> IntGauge {
        self.lanes.in_flight.get(consumer).clone()
    }

    pub(crate) fn permits(&self, lane: LaneName, permits: u32) {
        self.lanes.permits.get(lane).set(permits.into());
    }

    pub(crate) fn redelivered(&self, consumer: &'static str, messages: usize) {
        let redeliveries = self.lanes.redeliveries.get(consumer);
        redeliveries.inc_by(messages as u64);
    }

    pub(crate) fn pull_rebuilt(&self, consumer: &'static str) {
        self.lanes.pull_rebuilds.get(consumer).inc();
    }

    pub(crate) fn redis_connected(&self, connected: bool) {
        self.redis.connected.set(connected.into());
    }

    pub(crate) fn unguarded(&self) {
        self.redis.unguarded.inc();
    }

    pub(crate) fn redis_answered(&self, call: RedisCall, took: Duration) {
        self.redis.calls.get(call).observe(took.as_secs_f64());
    }

    pub(crate) fn index(&self, hooks: usize, unusable: usize, revision: u64) {
        self.hooks.known.set(hooks as i64);
        self.hooks.unusable.set(unusable as i64);
        self.hooks.revision.set(revision as i64);
    }

    pub(crate) fn barrier(&self, took: Duration) {
        self.hooks.barrier.observe(took.as_secs_f64());
    }
}
