//! Whether a hook may be called now: bulkhead, circuit breaker, rate limit, suppression by `snooze` and
//! `on_change`, and how many deliveries may wait.
//!
//! Workers share circuits, rates and marks through Redis (see `claims`). While Redis is away each worker decides
//! from its own bounded memory, which is here.

pub(crate) mod backlog_limit;
pub(crate) mod bulkhead;
pub(crate) mod circuit_breaker;
mod digest;
pub(crate) mod rate_limit;
pub(crate) mod refusal;
pub(crate) mod return_slot;
pub(crate) mod suppression;

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::clock;
use parking_lot::Mutex;

use backlog_limit::BacklogLimit;
use bulkhead::Bulkhead;
use circuit_breaker::{CircuitBreaker, Verdict};
use rate_limit::RateLimit;
use refusal::{PROBING, Place, Refusal};
use suppression::Marks;

/// Of one hook on this worker.
#[derive(Debug)]
pub(crate) struct Admission {
    /// A change of the hook closes its circuit.
    pub(crate) revision: u64,
    pub(crate) circuit: CircuitBreaker,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) bulkhead: Arc<Bulkhead>,
    pub(crate) backlog: BacklogLimit,
    pub(crate) slots: return_slot::Memory,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    rate: rate_limit::Memory,
    marks: suppression::Memory,
}

impl Admission {
    pub(crate) fn new(
        revision: u64,
        circuit: CircuitBreaker,
        rate: Option<RateLimit>,
        concurrency: usize,
        backlog: u64,
    ) -> Self {
        Self {
            revision,
            circuit,
            rate,
            bulkhead: Arc::new(Bulkhead::new(concurrency)),
            backlog: BacklogLimit::new(backlog),
            slots: return_slot::Memory::default(),
            memory: Mutex::default(),
        }
    }

    /// Decides without Redis. Returns whether the attempt probes the circuit.
    pub(crate) fn decide(
        &self,
        delivery: &str,
        marks: Option<&Marks>,
        place: Option<Place>,
    ) -> Result<bool, Refusal> {
        let verdict = self.circuit.verdict();
        if let Verdict::Open(wait) = verdict {
            return Err(Refusal::Open(wait));
        }
        let mut memory = self.memory.lock();
        memory.marks.check(delivery, marks)?;
        if let Some(rate) = self.rate {
            memory.rate.take(rate, place, clock::unix_millis())?;
        }
        let probe = verdict == Verdict::HalfOpen;
        if probe && !self.circuit.probe() {
            return Err(Refusal::Open(PROBING));
        }
        if let Some(marks) = marks {
            memory.marks.began(delivery, marks);
        }
        Ok(probe)
    }

    /// Remembers an attempt's end for the time that Redis is away: whether the delivery was made, and for how long it
    /// is in flight if not.
    pub(crate) fn ended(
        &self,
        delivery: &str,
        marks: &Marks,
        made: bool,
        in_flight: Option<Duration>,
    ) {
        let memory = &mut self.memory.lock().marks;
        memory.ended(delivery, marks, in_flight);
        if made {
            memory.made(delivery, marks);
        }
    }
}
