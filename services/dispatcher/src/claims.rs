//! Which worker makes which attempt, and whether there is one at all: claims on deliveries in Redis.
//!
//! One script decides in one round trip what a worker that holds a message may do: make attempt n,
//! or nothing since it is done, parked, another worker's, or suppressed by the hook's `snooze` or
//! `on_change`; or wait, for the hook's circuit or rate limit. A claim carries a token: a worker
//! whose claim ran out and was taken over finds another token (or state) there, and its result
//! counts for nothing.
//!
//! Redis is not needed to deliver. When it does not answer, attempts are made without a claim, so
//! at least once, and [`Admission`] decides from this worker's memory; a setting makes them wait instead.

mod batch;
mod bitmap;
mod lease;
mod scripts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use redis::Script;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::admission::rate_limit::{Admission, Refusal};
use crate::admission::suppression::Marks;
use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;
use crate::metrics::Metrics;
use crate::redis::client::{RedisClient, STANDSTILL};
use crate::redis::script_call::ScriptCall;
use batch::Groups;
use bitmap::Bitmap;
use lease::{Claim, Group, Held, Token};
use scripts::{Scripts, word};

pub(crate) use batch::MOST;
pub(crate) use lease::Lease;

/// How much longer than the dedupe window the state of a claimed delivery is kept.
const KEEP: Duration = Duration::from_secs(3_600);
/// How long what `on_change` saw last is kept.
pub(crate) const KEEP_CHANGE: Duration = Duration::from_secs(7 * 86_400);
/// Marks of an event with more bytes than this take long enough to let others have the thread.
const LONG_MARKS: usize = 16 << 10;
/// How often within a third of a lease it is looked for what is to be renewed.
const RENEWAL_PARTS: u32 = 10;
/// How many leases a probe may take before another is made.
const PROBE_LEASES: u32 = 3;
/// How much longer than it is open a circuit is remembered.
const KEEP_CIRCUIT: Duration = Duration::from_secs(600);
/// The most that deliveries are spread out over: a million of a hook that never succeeded come again
/// at less than 300 a second.
const SPREAD: Duration = Duration::from_secs(3_600);

/// What a worker may do with a delivery.
#[derive(Debug)]
pub(crate) enum Decision {
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
    /// Come back later: Redis did not answer, and the delivery is to wait for it.
    Unavailable,
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Delivered.
    Done,
    /// Parked for that long.
    Parked(Duration),
    /// Given up on.
    Buried,
    /// Given back: the attempt was not made, or not settled.
    GivenBack,
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
pub(crate) struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    redis: RedisClient,
    scripts: Scripts,
    held: Arc<Held>,
    worker: u64,
    counter: AtomicU64,
    /// Dispatchers that live.
    workers: AtomicU32,
    options: Options,
    metrics: Metrics,
}

impl Claims {
    /// Makes claims in Redis.
    #[must_use]
    pub(crate) fn new(redis: RedisClient, options: Options, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                redis,
                scripts: Scripts::new(),
                held: Arc::default(),
                worker: Uuid::new_v4().as_u64_pair().0,
                counter: AtomicU64::new(0),
                workers: AtomicU32::new(1),
                options,
                metrics,
            }),
        }
    }

    /// How many groups of hooks there are that Redis may fail on their own.
    #[must_use]
    pub(crate) fn groups(&self) -> usize {
        self.inner.redis.groups()
    }

    /// In which of them a hook is, from 0.
    #[must_use]
    pub(crate) fn group_of(&self, hook: &Prepared) -> usize {
        self.inner.redis.group_of(&hook.id)
    }

    /// Claims the next attempt of each of at most [`MOST`] deliveries, if it is to be made.
    pub(crate) async fn accept(&self, works: &[(&Prepared, &PendingDelivery)]) -> Vec<Decision> {
        self.inner.accept(works).await
    }

    /// Makes sure that the claim is still this worker's, and stays so for a lease. Without Redis
    /// nobody can tell, and the answer is yes.
    pub(crate) async fn renew(&self, lease: &Lease) -> bool {
        self.inner.is_own(lease.claim()).await != Some(false)
    }

    /// Whether the attempt of a claim may be made now. It asks only where the claim may have run out, as
    /// it has when this worker stood still for a while.
    pub(crate) async fn still_holds(&self, lease: &Lease) -> bool {
        let inner = &self.inner;
        if lease.age() < inner.options.lease {
            return true;
        }
        let is_own = Box::pin(inner.is_own(lease.claim())).await;
        is_own.unwrap_or(!inner.options.required)
    }

    /// Ends a claim. False: another worker has taken the delivery over.
    pub(crate) async fn finish(&self, lease: &Lease, end: Release) -> bool {
        lease.renew_no_more();
        self.inner.end(lease.claim(), end).await.unwrap_or(true)
    }

    /// Ends plain claims, at most [`MOST`], whose deliveries are done. Answers which of them another worker
    /// has taken over.
    pub(crate) async fn done(&self, leases: impl Iterator<Item = &Lease>) -> Vec<usize> {
        self.inner
            .done_together(leases.map(|lease| &**lease.claim()))
            .await
    }

    /// Opens a hook's circuit, on all workers.
    pub(crate) async fn open(&self, hook: &Prepared) {
        let inner = &self.inner;
        let (id, circuit) = (&*hook.id, &hook.gate.circuit);
        let mut call = ScriptCall::new(&inner.scripts.open, 2);
        call.arg(key(id, "circuit"))
            .arg(key(id, "probe"))
            .arg(hook.gate.revision)
            .arg(millis(circuit.settings().open))
            .arg(millis(crate::admission::circuit_breaker::LONGEST))
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
    pub(crate) async fn slot(&self, hook: &Prepared, from: Duration) -> Duration {
        let inner = &self.inner;
        let interval = hook.bulkhead.interval() / self.workers();
        // Where deliveries soon are too old, they come in time for an attempt.
        let spread = SPREAD.min(hook.max_age / 2);
        let id = &*hook.id;
        let mut call = ScriptCall::new(&inner.scripts.slot, 1);
        call.arg(key(id, "slot"))
            .arg(interval.as_micros() as u64)
            .arg(millis(from))
            .arg(millis(spread));
        match inner.redis.call(id, &call).await {
            Some(wait) => Duration::from_millis(wait),
            None => hook.gate.slot(from, interval, spread),
        }
    }

    /// How many workers there are, this one included, as far as Redis knows.
    #[must_use]
    pub(crate) fn workers(&self) -> u32 {
        self.inner.workers.load(Ordering::Relaxed).max(1)
    }

    /// Whether it is this worker's turn at something that one of all should do; it has it for that
    /// long. Without Redis it is everybody's.
    pub(crate) async fn turn(&self, what: &str, time: Duration) -> bool {
        let inner = &self.inner;
        let mut call = ScriptCall::new(&inner.scripts.turn, 1);
        call.text(format_args!("hookline:turn:{what}"))
            .arg(inner.worker)
            .arg(millis(time));
        inner.redis.call(what, &call).await.unwrap_or(true)
    }

    /// Gives back every claim that is still held, at a shutdown whose deadline has passed.
    pub(crate) async fn release_all(&self) {
        for claim in self.inner.held.all() {
            self.inner.end(&claim, Release::GivenBack).await;
        }
    }

    /// Renews what is held, and says that this worker lives, for ever. Each claim is renewed in its own
    /// time: thousands at once would keep new ones waiting.
    pub(crate) async fn keep_leases(&self) {
        let inner = &self.inner;
        let age = inner.options.lease / 3;
        let mut tick = tokio::time::interval(age / RENEWAL_PARTS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for part in (0..RENEWAL_PARTS).cycle() {
            tick.tick().await;
            let due = inner.held.due(age);
            let renewals = due.chunks(MOST).map(async |claims| {
                for (claim, own) in claims.iter().zip(inner.renew(claims).await) {
                    if own == Some(false) {
                        claim.lost.notify_one();
                    }
                }
            });
            join_all(renewals).await;
            if part == 0 {
                inner.live().await;
            }
        }
    }
}

impl Inner {
    async fn accept(&self, works: &[(&Prepared, &PendingDelivery)]) -> Vec<Decision> {
        let claims = self.claims(works).await;
        let mut answers = vec![None; claims.len()];
        let is_plain =
            |index: usize| works[index].0.gate.rate.is_none() && claims[index].marks.is_none();
        let plain = claims
            .iter()
            .enumerate()
            .filter(|(index, _)| is_plain(*index));
        self.claim_together(plain, &mut answers).await;
        let others = (0..claims.len()).filter(|index| !is_plain(*index));
        let others = others.map(async |index| {
            let (hook, work) = works[index];
            (
                index,
                self.claim(&hook.gate, &claims[index], work.reserved).await,
            )
        });
        for (index, answer) in join_all(others).await {
            answers[index] = answer;
        }
        claims
            .into_iter()
            .zip(works)
            .zip(answers)
            .map(|((claim, (hook, work)), answer)| match answer {
                Some((word, number)) => self.answer(claim, &hook.gate, word, number),
                None => self.without_redis(claim, &hook.gate, work),
            })
            .collect()
    }

    /// What is to be claimed.
    async fn claims(&self, works: &[(&Prepared, &PendingDelivery)]) -> Vec<Claim> {
        let count = works.len() as u64;
        let first = self.counter.fetch_add(count, Ordering::Relaxed);
        let mut groups = Groups::default();
        let mut claims = Vec::with_capacity(works.len());
        for ((hook, work), number) in works.iter().zip(first..) {
            let event = &work.delivery.event;
            let marks = Marks::new(&hook.hook, event);
            if marks.is_some() && event.raw.len() > LONG_MARKS {
                tokio::task::yield_now().await;
            }
            let (bitmap, offset) = Bitmap::of(&event.id, work.delivery.id);
            let group = Group {
                hook: Arc::clone(&hook.id),
                revision: hook.gate.revision,
                bitmap,
                attempt: work.attempt,
                token: Token::new(self.worker, number),
            };
            claims.push(Claim {
                number,
                group: groups.join(group, offset),
                offset,
                delivery: work.delivery.id,
                probe: false,
                marks,
                asked: Instant::now(),
                lost: Notify::new(),
            });
        }
        claims
    }

    /// What a script's answer means.
    fn answer(&self, claim: Claim, gate: &Admission, word: u8, number: u64) -> Decision {
        let wait = Duration::from_millis(number);
        match word {
            word::ATTEMPT => {
                let probe = number == 1;
                if !probe {
                    gate.circuit.closed();
                }
                Decision::Attempt(self.held.hold(Claim { probe, ..claim }))
            }
            word::DONE => Decision::Done,
            word::PARKED => Decision::Parked,
            word::OPEN => {
                gate.circuit.opened(wait);
                Decision::Refused(Refusal::Open(wait))
            }
            word::LIMITED => Decision::Refused(Refusal::Limited(wait)),
            word::SNOOZED => Decision::Refused(Refusal::Snoozed),
            word::UNCHANGED => Decision::Refused(Refusal::Unchanged),
            word::PROBED => Decision::Refused(Refusal::Open(wait)),
            word::BUSY.. => Decision::Busy(wait),
        }
    }

    /// Claims one delivery.
    async fn claim(&self, gate: &Admission, claim: &Claim, reserved: bool) -> Option<(u8, u64)> {
        let hook = &*claim.group.hook;
        let rate = gate.rate.filter(|_| !reserved);
        let marks = claim.marks.as_ref();
        let snooze = marks.and_then(|marks| marks.snooze.as_ref());
        let change = marks.and_then(|marks| marks.change.as_ref());
        let mut call = on(&self.scripts.claim, claim, 5);
        call.arg(key(hook, "circuit"))
            .arg(key(hook, "probe"))
            .arg(key(hook, "rate"))
            .arg(mark_key(hook, "s", snooze.map(|(about, _)| about)))
            .arg(mark_key(hook, "c", change.map(|(watched, _)| watched)));
        claim.group.add_to(&mut call, claim.set());
        call.arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP))
            .arg(gate.revision)
            .arg(millis(self.options.lease * PROBE_LEASES))
            .arg(claim.delivery.as_str())
            .arg(rate.map_or(0, |rate| rate.interval.as_micros() as u64))
            .arg(rate.map_or(0, |rate| rate.tolerance().as_micros() as u64))
            .arg(snooze.map_or(0, |(_, time)| millis(*time)))
            .arg(change.map_or("", |(_, now)| now))
            .arg(millis(KEEP_CHANGE));
        self.redis.call(hook, &call).await
    }

    /// Decides from memory. A claim may have been made all the same, so it keeps its token.
    fn without_redis(&self, claim: Claim, gate: &Admission, work: &PendingDelivery) -> Decision {
        // What this worker remembers may be old where it was not Redis that was away.
        let stood_still = claim.asked.elapsed() >= STANDSTILL;
        if self.options.required || claim.marks.is_some() && stood_still {
            return Decision::Unavailable;
        }
        let first = work.attempt == 1;
        match gate.pass(
            claim.delivery.as_str(),
            claim.marks.as_ref(),
            first,
            work.reserved,
        ) {
            Ok(probe) => {
                self.metrics.redis_skipped();
                Decision::Attempt(self.held.hold(Claim { probe, ..claim }))
            }
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    /// Renews claims, and says which are still this worker's, as far as Redis answers.
    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Option<bool>> {
        let asked = Instant::now();
        let own = self.renew_together(claims).await;
        self.held.note(claims, asked, &own);
        own
    }

    /// Renews one claim. An answer that took as long as a lease says nothing any more.
    async fn is_own(&self, claim: &Arc<Claim>) -> Option<bool> {
        loop {
            let asked = Instant::now();
            let own = self.renew(std::slice::from_ref(claim)).await[0];
            if own == Some(false) || asked.elapsed() < self.options.lease {
                return own;
            }
        }
    }

    /// Ends one claim.
    async fn end(&self, claim: &Claim, end: Release) -> Option<bool> {
        let window = self.options.window;
        let (state, keep) = match end {
            Release::Done => ("done", window),
            Release::Parked(wait) => ("parked", wait + window),
            Release::Buried => ("parked", window),
            Release::GivenBack => ("released", window),
        };
        let (hook, marks) = (&*claim.group.hook, claim.marks.as_ref());
        let snooze = marks.and_then(|marks| marks.snooze.as_ref());
        let change = marks.and_then(|marks| marks.change.as_ref());
        let silence = snooze.filter(|_| end == Release::Done);
        let mut call = on(&self.scripts.finish, claim, 5);
        call.arg(key(hook, "circuit"))
            .arg(key(hook, "probe"))
            .arg(mark_key(hook, "s", snooze.map(|(about, _)| about)))
            .arg(mark_key(hook, "c", change.map(|(watched, _)| watched)))
            .arg(key(hook, "slot"));
        claim.group.add_to(&mut call, claim.set());
        call.arg(state)
            .arg(millis(keep))
            .arg(match end {
                Release::Done if claim.probe => "closes",
                Release::GivenBack if claim.probe => "ends",
                Release::Done | Release::Parked(_) | Release::Buried | Release::GivenBack => "",
            })
            .arg(claim.delivery.as_str())
            .arg(silence.map_or(0, |(_, time)| millis(*time)))
            .arg(u8::from(end == Release::Buried));
        self.redis.call(hook, &call).await
    }

    async fn live(&self) {
        let mut call = ScriptCall::new(&self.scripts.workers, 1);
        call.arg("hookline:workers")
            .arg(self.worker)
            .arg(millis(self.options.lease));
        let workers: Option<u32> = self.redis.call("workers", &call).await;
        if let Some(workers) = workers {
            self.workers.store(workers, Ordering::Relaxed);
        }
    }
}

/// A call of a script on a claim's delivery, with so many more keys.
fn on<'a>(script: &'a Script, claim: &Claim, keys: usize) -> ScriptCall<'a> {
    let mut call = ScriptCall::new(script, 1 + keys);
    claim.group.add_key_to(&mut call);
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
