//! What may hold a hook's deliveries back: its circuit, its rate limit, `snooze` and `on_change`.
//!
//! All workers share them through Redis, see [`accept`](crate::claims). While Redis is away each
//! worker goes by its own memory, which is here, and bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::circuit_breaker::{CircuitBreaker, Verdict};
use crate::admission::suppression::Marks;
use crate::claims::KEEP_CHANGE;

/// Marks of one hook that a worker remembers.
const REMEMBERED: usize = 1_000;
/// How long a delivery waits while another one probes the circuit.
pub(crate) const PROBING: Duration = Duration::from_secs(1);

/// Why there is no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The circuit is open for that long.
    Open(Duration),
    /// The rate limit is used up; there is a place for this delivery after that time.
    Limited(Duration),
    /// An event about the same was delivered a short time ago.
    Snoozed,
    /// Nothing that the hook watches has changed.
    Unchanged,
}

/// How often a hook may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Time between two deliveries.
    pub interval: Duration,
}

impl RateLimit {
    /// So many deliveries a second; nothing if that is no rate.
    #[must_use]
    pub(crate) fn per_second(rate: f64) -> Option<Self> {
        let interval = Duration::try_from_secs_f64(1.0 / rate).ok()?;
        (rate > 0.0).then_some(Self { interval })
    }

    /// How far deliveries may come ahead of their time: what makes up one second.
    #[must_use]
    pub(crate) fn tolerance(self) -> Duration {
        Duration::from_secs(1).saturating_sub(self.interval)
    }
}

/// What may hold one hook's deliveries back.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Which version of the hook this is: a change of the hook closes its circuit.
    pub revision: u64,
    /// Whether its receiver is worth an attempt.
    pub circuit: CircuitBreaker,
    /// How often it may be called.
    pub rate: Option<RateLimit>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    next_call: Option<Instant>,
    next_slot: Option<Instant>,
    marks: HashMap<String, Mark>,
}

#[derive(Debug)]
struct Mark {
    value: String,
    delivery: String,
    until: Instant,
}

impl Admission {
    /// An open gate.
    #[must_use]
    pub(crate) fn new(revision: u64, circuit: CircuitBreaker, rate: Option<RateLimit>) -> Self {
        Self {
            revision,
            circuit,
            rate,
            memory: Mutex::default(),
        }
    }

    /// Decides from memory whether there is an attempt; true: it probes the circuit.
    ///
    /// # Errors
    /// [`Refusal`] says why there is none.
    pub(crate) fn pass(
        &self,
        delivery: &str,
        marks: Option<&Marks>,
        first: bool,
        reserved: bool,
    ) -> Result<bool, Refusal> {
        let verdict = self.circuit.verdict();
        if let Verdict::Open(wait) = verdict {
            return Err(Refusal::Open(wait));
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = marks.filter(|_| first);
        memory.check(delivery, marks)?;
        if let Some(rate) = self.rate.filter(|_| !reserved) {
            memory.call(rate)?;
        }
        let probe = verdict == Verdict::HalfOpen;
        if probe && !self.circuit.probe() {
            return Err(Refusal::Open(PROBING));
        }
        memory.remember(delivery, marks);
        Ok(probe)
    }

    /// The hook's next free slot, from memory; after the last one it begins with the first again.
    #[must_use]
    pub(crate) fn slot(&self, from: Duration, interval: Duration, spread: Duration) -> Duration {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let first = now + from;
        let slot = memory.next_slot.map_or(first, |slot| slot.max(first));
        let slot = if slot - first >= spread { first } else { slot };
        memory.next_slot = Some(slot + interval);
        slot - now
    }
}

impl Memory {
    fn check(&self, delivery: &str, marks: Option<&Marks>) -> Result<(), Refusal> {
        let Some(marks) = marks else { return Ok(()) };
        let other = |key: &str| {
            let mark = self.marks.get(key)?;
            (mark.until > Instant::now() && mark.delivery != delivery).then_some(mark)
        };
        if let Some((about, _)) = &marks.snooze
            && other(&format!("s:{about}")).is_some()
        {
            return Err(Refusal::Snoozed);
        }
        if let Some((watched, now)) = &marks.change
            && other(&format!("c:{watched}")).is_some_and(|mark| mark.value == *now)
        {
            return Err(Refusal::Unchanged);
        }
        Ok(())
    }

    fn remember(&mut self, delivery: &str, marks: Option<&Marks>) {
        let Some(marks) = marks else { return };
        let now = Instant::now();
        if self.marks.len() >= REMEMBERED {
            self.marks.retain(|_, mark| mark.until > now);
        }
        if self.marks.len() >= REMEMBERED {
            // Better to tell a change twice than to grow without bound.
            self.marks.clear();
        }
        let mut keep = |key: String, value: &str, time| {
            let mark = Mark {
                value: value.to_owned(),
                delivery: delivery.to_owned(),
                until: now + time,
            };
            self.marks.insert(key, mark);
        };
        if let Some((about, time)) = &marks.snooze {
            keep(format!("s:{about}"), "", *time);
        }
        if let Some((watched, value)) = &marks.change {
            keep(format!("c:{watched}"), value, KEEP_CHANGE);
        }
    }

    fn call(&mut self, rate: RateLimit) -> Result<(), Refusal> {
        let now = Instant::now();
        let free = self.next_call.map_or(now, |next| next.max(now));
        self.next_call = Some(free + rate.interval);
        match free - now {
            wait if wait > rate.tolerance() => Err(Refusal::Limited(wait)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::circuit_breaker::Settings;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate(rate: Option<RateLimit>) -> Admission {
        let settings = Settings {
            failures: 5,
            failure_rate: 0.5,
            open: 5 * SECOND,
        };
        Admission::new(1, CircuitBreaker::new(settings), rate)
    }

    fn marks(snooze: bool, value: &str) -> Marks {
        Marks {
            snooze: snooze.then(|| ("a".to_owned(), 10 * SECOND)),
            change: (!snooze).then(|| ("a".to_owned(), value.to_owned())),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_lets_a_seconds_worth_through_and_gives_each_other_a_place() {
        let gate = gate(RateLimit::per_second(4.0));
        let pass = |reserved| gate.pass("d", None, true, reserved);
        assert!((0..4).all(|_| pass(false).is_ok()));
        assert_eq!(pass(false), Err(Refusal::Limited(SECOND)));
        assert_eq!(
            pass(false),
            Err(Refusal::Limited(Duration::from_millis(1_250)))
        );
        assert!(pass(true).is_ok(), "it has its place");
        tokio::time::advance(2 * SECOND).await;
        assert!(pass(false).is_ok());
        assert_eq!(RateLimit::per_second(0.0), None);
        assert_eq!(RateLimit::per_second(-1.0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn snooze_is_silent_about_the_same_but_not_about_its_own() {
        let (gate, marks) = (gate(None), marks(true, ""));
        let pass = |delivery| gate.pass(delivery, Some(&marks), true, false);
        assert!(pass("one").is_ok());
        assert!(pass("one").is_ok(), "its own mark");
        assert_eq!(pass("two"), Err(Refusal::Snoozed));
        assert!(
            gate.pass("two", Some(&marks), false, false).is_ok(),
            "a retry"
        );
        tokio::time::advance(10 * SECOND).await;
        assert!(pass("two").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn on_change_fires_when_the_value_is_another() {
        let gate = gate(None);
        let pass = |delivery, value| gate.pass(delivery, Some(&marks(false, value)), true, false);
        assert!(pass("one", "x").is_ok());
        assert_eq!(pass("two", "x"), Err(Refusal::Unchanged));
        assert!(pass("three", "y").is_ok());
        assert!(pass("four", "x").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let gate = gate(None);
        for n in 0..3 * REMEMBERED {
            let marks = Marks {
                snooze: Some((n.to_string(), 10 * SECOND)),
                change: None,
            };
            assert!(gate.pass(&n.to_string(), Some(&marks), true, false).is_ok());
        }
        let memory = gate.memory.lock().expect("no panic");
        assert!(memory.marks.len() <= REMEMBERED);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_follow_each_other_up_to_a_bound_and_then_fill_up() {
        let gate = gate(None);
        let slot = || gate.slot(SECOND, SECOND, 3 * SECOND);
        let slots: Vec<_> = (0..6).map(|_| slot().as_secs()).collect();
        assert_eq!(slots, [1, 2, 3, 1, 2, 3]);
    }
}
