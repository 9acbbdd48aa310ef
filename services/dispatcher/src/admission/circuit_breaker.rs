//! A circuit breaker per hook.
//!
//! Each worker counts the failures that it sees. Too many in a row, or too high a rate, open the circuit: no
//! attempts for a time, then a single one probes, and closes the circuit or opens it for twice as long. Open
//! circuits are shared through Redis (see `claims`); without Redis each worker has its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::Script;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::redis::client::RedisClient;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};

/// The longest that a circuit stays open before it is probed again.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// How long Redis remembers a circuit after it was open.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The period of the failure rate.
const WINDOW: Duration = Duration::from_secs(30);
/// Attempts before which the failure rate says nothing.
const ENOUGH: u32 = 20;

/// When a circuit opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// In a row, seen by one worker; 0: never.
    pub failures: u32,
    /// Failed part of half a minute's attempts, if there are at least twenty.
    pub failure_rate: f64,
    /// For how long at first.
    pub open: Duration,
}

/// Of one hook on this worker.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    settings: Settings,
    /// Spares a hook without failures the lock.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_a_row: u32,
    window: Option<Window>,
    openings: u32,
    /// When somebody last asked for a probe, in Unix milliseconds.
    asked_for: u64,
    open_until: Option<Instant>,
    probing: bool,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    attempts: u32,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Closed,
    /// For that long.
    Open(Duration),
    /// One attempt may probe.
    HalfOpen,
}

impl CircuitBreaker {
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            troubled: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    #[must_use]
    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether no attempt failed lately.
    #[must_use]
    pub(crate) fn is_calm(&self) -> bool {
        !self.troubled.load(Ordering::Relaxed)
    }

    /// As far as this worker knows.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
        if self.is_calm() {
            return Verdict::Closed;
        }
        let Some(until) = self.state().open_until else {
            return Verdict::Closed;
        };
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Verdict::HalfOpen,
            wait => Verdict::Open(wait),
        }
    }

    /// Takes the right to probe while workers cannot coordinate.
    #[must_use]
    pub(crate) fn probe(&self) -> bool {
        !std::mem::replace(&mut self.state().probing, true)
    }

    /// Whether the request made at this time has half-opened it already.
    fn is_served(&self, asked_for: u64) -> bool {
        asked_for <= self.state().asked_for
    }

    /// Lets it be probed now, once for each time that somebody asked for it.
    fn half_open(&self, asked_for: u64) {
        let mut state = self.state();
        if asked_for > state.asked_for {
            state.asked_for = asked_for;
            if state.is_open() {
                state.open_until = Some(Instant::now());
            }
        }
    }

    /// The probe was not made.
    pub(crate) fn probe_given_up(&self) {
        self.state().probing = false;
    }

    /// A successful probe closes the circuit.
    pub(crate) fn succeeded(&self, probe: bool) {
        if self.is_calm() {
            return;
        }
        let mut state = self.state();
        if probe {
            let asked_for = state.asked_for;
            *state = State {
                asked_for,
                ..State::default()
            };
        }
        state.in_a_row = 0;
        state.count(false);
        let calm = state.open_until.is_none() && state.window.is_none();
        self.troubled.store(!calm, Ordering::Relaxed);
    }

    /// Returns whether the caller must open the circuit.
    #[must_use]
    pub(crate) fn failed(&self, probe: bool) -> bool {
        self.troubled.store(true, Ordering::Relaxed);
        let mut state = self.state();
        state.in_a_row += 1;
        state.count(true);
        if !probe && state.is_open() {
            // The attempt began before the circuit opened.
            return false;
        }
        if self.settings.failures == 0 {
            return false;
        }
        let rate = state.window.as_ref().is_some_and(|window| {
            window.attempts >= ENOUGH
                && f64::from(window.failures)
                    >= self.settings.failure_rate * f64::from(window.attempts)
        });
        probe || rate || state.in_a_row >= self.settings.failures
    }

    /// For how long it opens while workers cannot coordinate.
    #[must_use]
    pub(crate) fn next_opening(&self) -> Duration {
        let openings = self.state().openings;
        let doubled = self.settings.open.saturating_mul(1 << openings.min(16));
        doubled.min(LONGEST)
    }

    /// This worker or another opened it for that long.
    pub(crate) fn opened(&self, wait: Duration) {
        self.troubled.store(true, Ordering::Relaxed);
        let mut state = self.state();
        if !state.is_open() {
            state.openings += 1;
        }
        state.in_a_row = 0;
        state.window = None;
        state.probing = false;
        state.open_until = Some(Instant::now() + wait);
    }

    /// Another worker closed it.
    pub(crate) fn closed(&self) {
        if !self.is_calm() {
            let mut state = self.state();
            state.open_until = None;
            state.openings = 0;
            state.probing = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Opens circuits on all workers.
pub(crate) struct Circuits {
    redis: RedisClient,
    open: Script,
    half_open: Script,
    state: Script,
    metrics: Metrics,
}

impl Circuits {
    pub(crate) fn new(redis: RedisClient, metrics: Metrics) -> Self {
        Self {
            redis,
            open: Script::new(include_str!("open_circuit.lua")),
            half_open: Script::new(include_str!("half_open.lua")),
            state: Script::new(include_str!("circuit.lua")),
            metrics,
        }
    }

    /// What all workers know of a circuit, or this one without Redis.
    pub(crate) async fn verdict(
        &self,
        hook: &str,
        revision: u64,
        circuit: &CircuitBreaker,
    ) -> Verdict {
        let mut call = ScriptCall::new(&self.state, 1);
        call.key(Key::Circuit(hook)).arg(revision);
        match self.redis.call::<i64>(hook, &call).await {
            None => circuit.verdict(),
            Some(..0) => Verdict::Closed,
            Some(0) => Verdict::HalfOpen,
            Some(left) => Verdict::Open(Duration::from_millis(left as u64).min(LONGEST)),
        }
    }

    /// Lets one attempt probe an open circuit, because somebody asked for it at a time in Unix milliseconds.
    pub(crate) async fn half_open(
        &self,
        hook: &str,
        revision: u64,
        circuit: &CircuitBreaker,
        asked_for: u64,
    ) {
        if circuit.is_served(asked_for) {
            return;
        }
        // Redis first: a claim that still found the circuit open there would open it here again.
        let mut call = ScriptCall::new(&self.half_open, 1);
        call.key(Key::Circuit(hook))
            .arg(revision)
            .arg(millis(REMEMBERED));
        let _: Option<u8> = self.redis.call(hook, &call).await;
        circuit.half_open(asked_for);
    }

    pub(crate) async fn open(&self, hook: &str, revision: u64, circuit: &CircuitBreaker) {
        let mut call = ScriptCall::new(&self.open, 2);
        call.key(Key::Circuit(hook))
            .key(Key::Probe(hook))
            .arg(revision)
            .arg(millis(circuit.settings().open))
            .arg(millis(LONGEST))
            .arg(millis(REMEMBERED));
        let wait = match self.redis.call(hook, &call).await {
            Some(wait) => Duration::from_millis(wait).min(LONGEST),
            None => circuit.next_opening(),
        };
        circuit.opened(wait);
        self.metrics.circuit_opened();
        tracing::warn!(
            hook,
            open_ms = wait.as_millis() as u64,
            "the receiver keeps failing: circuit opened, deliveries wait"
        );
    }
}

impl State {
    fn is_open(&self) -> bool {
        self.open_until.is_some_and(|until| until > Instant::now())
    }

    /// A window starts at a failure.
    fn count(&mut self, failed: bool) {
        let now = Instant::now();
        if self
            .window
            .as_ref()
            .is_some_and(|window| now - window.since > WINDOW)
        {
            self.window = None;
        }
        if failed || self.window.is_some() {
            let window = self.window.get_or_insert(Window {
                since: now,
                attempts: 0,
                failures: 0,
            });
            window.attempts += 1;
            window.failures += u32::from(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn circuit() -> CircuitBreaker {
        CircuitBreaker::new(Settings {
            failures: 3,
            failure_rate: 0.5,
            open: 5 * SECOND,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_a_circuit_and_a_probe_closes_it() {
        let circuit = circuit();
        assert!(!circuit.failed(false) && !circuit.failed(false));
        circuit.succeeded(false);
        assert!(!circuit.failed(false) && !circuit.failed(false));
        assert!(circuit.failed(false), "the third in a row");
        circuit.opened(circuit.next_opening());
        assert_eq!(circuit.verdict(), Verdict::Open(5 * SECOND));
        assert!(!circuit.failed(false), "it is open already");
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(circuit.verdict(), Verdict::HalfOpen);
        assert!(circuit.probe() && !circuit.probe(), "one at a time");
        circuit.succeeded(true);
        assert_eq!(circuit.verdict(), Verdict::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_half_opens_it_once() {
        let circuit = circuit();
        circuit.opened(5 * SECOND);
        assert!(!circuit.is_served(7));
        circuit.half_open(7);
        assert_eq!(circuit.verdict(), Verdict::HalfOpen);
        assert!(circuit.probe() && circuit.failed(true));
        circuit.opened(5 * SECOND);
        assert!(circuit.is_served(7));
        circuit.half_open(7);
        assert_eq!(circuit.verdict(), Verdict::Open(5 * SECOND));
        circuit.half_open(8);
        assert_eq!(circuit.verdict(), Verdict::HalfOpen);
        circuit.succeeded(true);
        assert!(circuit.is_served(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_doubles_the_open_time_up_to_a_bound() {
        let circuit = circuit();
        circuit.opened(circuit.next_opening());
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            tokio::time::advance(LONGEST).await;
            assert_eq!(circuit.verdict(), Verdict::HalfOpen);
            assert!(circuit.failed(true));
            circuit.opened(circuit.next_opening());
            assert_eq!(circuit.verdict(), Verdict::Open(seconds * SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_high_failure_rate_opens_a_circuit_without_failures_in_a_row() {
        let circuit = circuit();
        let mut opened = false;
        for _ in 0..10 {
            opened |= circuit.failed(false);
            circuit.succeeded(false);
        }
        assert!(!opened, "too few to tell");
        assert!(circuit.failed(false));
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_are_forgotten() {
        let circuit = circuit();
        for _ in 0..40 {
            assert!(!circuit.failed(false));
            tokio::time::advance(WINDOW + SECOND).await;
            circuit.succeeded(false);
        }
        assert_eq!(circuit.verdict(), Verdict::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_failures_switch_a_circuit_off() {
        let circuit = CircuitBreaker::new(Settings {
            failures: 0,
            ..circuit().settings()
        });
        assert!((0..100).all(|_| !circuit.failed(false)));
    }
}
