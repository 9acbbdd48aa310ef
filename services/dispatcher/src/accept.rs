//! Which worker makes which attempt, and whether there is one at all: claims on deliveries in Redis.
//!
//! One script decides in one round trip what a worker that holds a message may do: make attempt n,
//! or nothing since it is done, parked, another worker's, or suppressed by the hook's `snooze` or
//! `on_change`; or wait, for the hook's circuit or rate limit. A claim carries a token: a worker
//! whose claim ran out and was taken over finds another token (or state) there, and its result
//! counts for nothing.
//!
//! Redis is not needed to deliver. When it does not answer, attempts are made without a claim, so
//! at least once, and [`Gate`] decides from this worker's memory; a setting makes them wait instead.

mod combine;
mod lease;
mod scripts;
mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Script, ScriptInvocation};
use uuid::Uuid;

use crate::coordinator::Coordinator;
use crate::gate::{Gate, Refusal};
use crate::index::Prepared;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::work::Work;
use lease::{Bit, Claim, Held};
use scripts::Scripts;
pub use together::Together;

pub use lease::Lease;

/// How much longer than the dedupe window the state of a claimed delivery is kept.
const KEEP: Duration = Duration::from_secs(3_600);
/// How long what `on_change` saw last is kept.
pub(crate) const KEEP_CHANGE: Duration = Duration::from_secs(7 * 86_400);
/// How often within a third of a lease it is looked for what is to be renewed.
const RENEWAL_PARTS: u32 = 10;
/// How many leases a probe may take before another is made.
const PROBE_LEASES: u32 = 3;
/// How much longer than it is open a circuit is remembered.
const KEEP_CIRCUIT: Duration = Duration::from_secs(600);
/// The most that deliveries are spread out over: a million of a hook that never succeeded come again
/// at less than 300 a second.
const SPREAD: Duration = Duration::from_secs(3_600);

/// The marks of a delivery that has none.
static NO_MARKS: Marks = Marks {
    snooze: None,
    change: None,
};

/// What a worker may do with a delivery.
#[derive(Debug)]
pub enum Answer {
    /// Make the attempt.
    Attempt(Lease),
    /// Nothing: it was delivered before.
    Done,
    /// Nothing: this attempt was parked or buried before.
    Parked,
    /// Come back later: a live worker holds it.
    Busy(Duration),
    /// Nothing, or park it: the hook does not want it, or not now.
    Refused(Refusal),
    /// Come back later: Redis is away, and deliveries are to wait for it.
    Unavailable,
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Delivered.
    Done,
    /// Parked for that long.
    Parked(Duration),
    /// Given up on.
    Buried,
    /// Given back: the attempt was not made, or not settled.
    Released,
}

/// How claims are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// How long a delivery that was made is remembered.
    pub window: Duration,
    /// Whether deliveries wait while Redis is away.
    pub required: bool,
}

/// Makes claims; clones share it.
#[derive(Clone)]
pub struct Accept {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Coordinator,
    scripts: Scripts,
    held: Arc<Held>,
    worker: String,
    counter: AtomicU64,
    /// Dispatchers that live.
    workers: AtomicU32,
    options: Options,
    metrics: Metrics,
}

impl Accept {
    /// Makes claims in Redis.
    #[must_use]
    pub fn new(redis: Coordinator, options: Options, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                redis,
                scripts: Scripts::new(),
                held: Arc::default(),
                worker: Uuid::new_v4().simple().to_string(),
                counter: AtomicU64::new(0),
                workers: AtomicU32::new(1),
                options,
                metrics,
            }),
        }
    }

    /// Claims the next attempt of a delivery, if it is to be made.
    pub async fn accept(&self, hook: &Prepared, work: &Work) -> Answer {
        let inner = &self.inner;
        let number = inner.counter.fetch_add(1, Ordering::Relaxed);
        let marks = Marks::new(&hook.hook, &work.delivery.event);
        let claim = Claim {
            hook: hook.hook.id.clone(),
            delivery: work.delivery.id.to_string(),
            bit: Bit::of(&work.delivery.event.id),
            attempt: work.attempt,
            token: format!("{}-{number}", inner.worker),
            probe: false,
            marks,
        };
        let gate = &hook.gate;
        let answer: Option<(String, u64)> = inner.claim(hook, &claim, work.reserved).await;
        let Some((word, number)) = answer else {
            return inner.without_redis(claim, gate, work);
        };
        let wait = Duration::from_millis(number);
        match word.as_str() {
            "attempt" => {
                if number == 0 {
                    gate.circuit.closed();
                }
                Answer::Attempt(inner.held.hold(Claim {
                    probe: number == 1,
                    ..claim
                }))
            }
            "done" => Answer::Done,
            "parked" => Answer::Parked,
            "open" => {
                gate.circuit.opened(wait);
                Answer::Refused(Refusal::Open(wait))
            }
            "limited" => Answer::Refused(Refusal::Limited(wait)),
            "snoozed" => Answer::Refused(Refusal::Snoozed),
            "unchanged" => Answer::Refused(Refusal::Unchanged),
            _ => Answer::Busy(wait),
        }
    }

    /// Makes sure that the claim is still this worker's, and stays so for a lease. Without Redis
    /// nobody can tell, and the answer is yes.
    pub async fn renew(&self, lease: &Lease) -> bool {
        self.inner.renew(lease.claim()).await.unwrap_or(true)
    }

    /// Ends a claim. False: another worker has taken the delivery over.
    pub async fn finish(&self, hook: &Prepared, lease: &Lease, end: End) -> bool {
        let claim = lease.claim();
        let ended = if claim.marks.is_some() || claim.probe {
            self.inner.end(claim, end).await
        } else {
            let together = &hook.together;
            self.inner.end_with_others(together, claim, end).await
        };
        ended.unwrap_or(true)
    }

    /// Opens a hook's circuit, on all workers.
    pub async fn open(&self, hook: &Prepared) {
        let inner = &self.inner;
        let (id, circuit) = (&hook.hook.id, &hook.gate.circuit);
        let mut call = inner.scripts.open.key(key(id, "circuit"));
        call.key(key(id, "probe"))
            .arg(hook.gate.revision)
            .arg(millis(circuit.settings().open))
            .arg(millis(crate::circuit::LONGEST))
            .arg(millis(KEEP_CIRCUIT));
        let wait = match inner.redis.call(id, &call).await {
            Some(wait) => Duration::from_millis(wait),
            None => circuit.next_opening(),
        };
        circuit.opened(wait);
        inner.metrics.circuit_opened();
        tracing::warn!(
            hook = id,
            open_ms = wait.as_millis() as u64,
            "a hook's receiver fails, its deliveries wait"
        );
    }

    /// When a delivery that has to wait for at least `from` comes again: the hook's next free slot,
    /// over all workers, at the rate at which the hook takes deliveries.
    pub async fn slot(&self, hook: &Prepared, from: Duration) -> Duration {
        let inner = &self.inner;
        let interval = hook.room.interval() / self.workers();
        // Where deliveries soon are too old, they come in time for an attempt.
        let spread = SPREAD.min(hook.max_age / 2);
        let id = &hook.hook.id;
        let mut call = inner.scripts.slot.key(key(id, "slot"));
        call.arg(interval.as_micros() as u64)
            .arg(millis(from))
            .arg(millis(spread));
        match inner.redis.call(id, &call).await {
            Some(wait) => Duration::from_millis(wait),
            None => hook.gate.slot(from, interval, spread),
        }
    }

    /// How many workers there are, this one included, as far as Redis knows.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.inner.workers.load(Ordering::Relaxed).max(1)
    }

    /// Whether it is this worker's turn at something that one of all should do; it has it for that
    /// long. Without Redis it is everybody's.
    pub async fn turn(&self, what: &str, time: Duration) -> bool {
        let inner = &self.inner;
        let mut call = inner.scripts.turn.key(format!("hookline:turn:{what}"));
        call.arg(&inner.worker).arg(millis(time));
        inner.redis.call(what, &call).await.unwrap_or(true)
    }

    /// Gives back every claim that is still held, at a shutdown whose deadline has passed.
    pub async fn release_all(&self) {
        for claim in self.inner.held.all() {
            self.inner.end(&claim, End::Released).await;
        }
    }

    /// Renews what is held, and says that this worker lives, for ever. Each claim is renewed in its own
    /// time: thousands at once would keep new ones waiting.
    pub async fn keep_leases(&self) {
        let inner = &self.inner;
        let age = inner.options.lease / 3;
        let mut tick = tokio::time::interval(age / RENEWAL_PARTS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for part in (0..RENEWAL_PARTS).cycle() {
            tick.tick().await;
            let due = inner.held.due(age).into_iter();
            let renewals = due.map(|(claim, lost)| async move {
                if inner.renew(&claim).await == Some(false) {
                    lost.cancel();
                }
            });
            futures::future::join_all(renewals).await;
            if part == 0 {
                inner.live().await;
            }
        }
    }
}

impl Inner {
    async fn claim(
        &self,
        prepared: &Prepared,
        claim: &Claim,
        reserved: bool,
    ) -> Option<(String, u64)> {
        let (hook, gate) = (claim.hook.as_str(), &prepared.gate);
        let rate = gate.rate.filter(|_| !reserved);
        let Some(marks) = claim.marks.as_ref().or(rate.map(|_| &NO_MARKS)) else {
            let together = &prepared.together;
            return self.claim_with_others(together, claim, gate).await;
        };
        let (snooze, change) = (marks.snooze.as_ref(), marks.change.as_ref());
        let mut call = on(&self.scripts.claim, claim);
        call.key(key(hook, "circuit"))
            .key(key(hook, "probe"))
            .key(key(hook, "rate"))
            .key(mark_key(hook, "s", snooze.map(|(about, _)| about)))
            .key(mark_key(hook, "c", change.map(|(watched, _)| watched)));
        call.arg(claim.attempt)
            .arg(&claim.token)
            .arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP))
            .arg(gate.revision)
            .arg(millis(self.options.lease * PROBE_LEASES))
            .arg(&claim.delivery)
            .arg(rate.map_or(0, |rate| rate.interval.as_micros() as u64))
            .arg(rate.map_or(0, |rate| rate.tolerance().as_micros() as u64))
            .arg(snooze.map_or(0, |(_, time)| millis(*time)))
            .arg(change.map_or("", |(_, now)| now))
            .arg(millis(KEEP_CHANGE));
        self.redis.call(hook, &call).await
    }

    /// Decides from memory. A claim may have been made all the same, so it keeps its token.
    fn without_redis(&self, claim: Claim, gate: &Gate, work: &Work) -> Answer {
        if self.options.required {
            return Answer::Unavailable;
        }
        let first = work.attempt == 1;
        match gate.pass(&claim.delivery, claim.marks.as_ref(), first, work.reserved) {
            Ok(probe) => {
                self.metrics.redis_skipped();
                Answer::Attempt(self.held.hold(Claim { probe, ..claim }))
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    async fn renew(&self, claim: &Claim) -> Option<bool> {
        let mut call = on(&self.scripts.renew, claim);
        call.arg(claim.attempt)
            .arg(&claim.token)
            .arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP));
        self.redis.call(&claim.hook, &call).await
    }

    /// Ends one claim.
    async fn end(&self, claim: &Claim, end: End) -> Option<bool> {
        let (state, keep) = self.state(claim, end);
        let mut call = on(&self.scripts.finish, claim);
        keys_of_marks(&mut call, claim);
        let snooze = claim.marks.as_ref().and_then(|marks| marks.snooze.as_ref());
        let silence = snooze.filter(|_| end == End::Done);
        call.arg(claim.attempt)
            .arg(&claim.token)
            .arg(state)
            .arg(millis(keep))
            .arg(u8::from(claim.probe && end == End::Done))
            .arg(&claim.delivery)
            .arg(silence.map_or(0, |(_, time)| millis(*time)))
            .arg(u8::from(end == End::Buried));
        self.redis.call(&claim.hook, &call).await
    }

    /// A delivery's last state, and how long it is kept.
    fn state(&self, claim: &Claim, end: End) -> (String, Duration) {
        let window = self.options.window;
        match end {
            End::Done => ("D".to_owned(), window),
            End::Parked(wait) => (format!("P{}", claim.attempt), wait + window),
            End::Buried => (format!("P{}", claim.attempt), window),
            End::Released => (format!("P{}", claim.attempt.saturating_sub(1)), window),
        }
    }

    async fn live(&self) {
        let mut call = self.scripts.workers.key("hookline:workers");
        call.arg(&self.worker).arg(millis(self.options.lease));
        let workers: Option<u32> = self.redis.call("workers", &call).await;
        if let Some(workers) = workers {
            self.workers.store(workers, Ordering::Relaxed);
        }
    }
}

fn keys_of_marks(call: &mut ScriptInvocation<'_>, claim: &Claim) {
    let (hook, marks) = (claim.hook.as_str(), claim.marks.as_ref());
    let snooze = marks.and_then(|marks| marks.snooze.as_ref());
    let change = marks.and_then(|marks| marks.change.as_ref());
    call.key(key(hook, "circuit"))
        .key(key(hook, "probe"))
        .key(mark_key(hook, "s", snooze.map(|(about, _)| about)))
        .key(mark_key(hook, "c", change.map(|(watched, _)| watched)))
        .key(key(hook, "slot"));
}

/// A call of a script on a claim's delivery.
fn on<'a>(script: &'a Script, claim: &Claim) -> ScriptInvocation<'a> {
    let mut call = script.key(claim.key());
    call.key(claim.page()).arg(claim.offset());
    call
}

fn mark_key(hook: &str, kind: &str, about: Option<&String>) -> String {
    format!("hookline:{{{hook}}}:{kind}:{}", about.map_or("", |a| a))
}

fn key(hook: &str, name: &str) -> String {
    format!("hookline:{{{hook}}}:{name}")
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
