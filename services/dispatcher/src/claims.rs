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
mod calls;
mod lease;
mod scripts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::admission::circuit_breaker;
use crate::admission::refusal::{PROBING, Place, Refusal};
use crate::admission::suppression::Marks;
use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;
use crate::metrics::Metrics;
use crate::redis::client::{RedisClient, STANDSTILL};
use crate::redis::workers::Workers;
use batch::Groups;
use bitmap::Bitmap;
use calls::Calls;
use lease::{Claim, Group, Held, Token};
use scripts::{Answer, Scripts, word};

pub(crate) use batch::MOST;
pub(crate) use calls::{Options, Release};
pub(crate) use lease::Lease;

/// Marks of an event with more bytes than this take long enough to let others have the thread.
const LONG_MARKS: usize = 16 << 10;
/// How often within a third of a lease it is looked for what is to be renewed.
const RENEWAL_PARTS: u32 = 10;

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

/// Makes claims; clones share it.
#[derive(Clone)]
pub(crate) struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    calls: Calls,
    held: Arc<Held>,
    workers: Workers,
    counter: AtomicU64,
    metrics: Metrics,
}

impl Claims {
    /// Makes claims in Redis.
    #[must_use]
    pub(crate) fn new(
        redis: RedisClient,
        workers: Workers,
        options: Options,
        metrics: Metrics,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                calls: Calls {
                    redis,
                    scripts: Scripts::new(),
                    options,
                },
                held: Arc::default(),
                workers,
                counter: AtomicU64::new(0),
                metrics,
            }),
        }
    }

    /// How many groups of hooks there are that Redis may fail on their own.
    #[must_use]
    pub(crate) fn groups(&self) -> usize {
        self.inner.calls.redis.groups()
    }

    /// In which of them a hook is, from 0.
    #[must_use]
    pub(crate) fn group_of(&self, hook: &Prepared) -> usize {
        self.inner.calls.redis.group_of(&hook.id)
    }

    /// Claims the next attempt of each of at most [`MOST`] deliveries, if it is to be made.
    pub(crate) async fn claim(&self, works: &[(&Prepared, &PendingDelivery)]) -> Vec<Decision> {
        self.inner.claim(works).await
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
        if lease.age() < inner.calls.options.lease {
            return true;
        }
        let is_own = Box::pin(inner.is_own(lease.claim())).await;
        is_own.unwrap_or(!inner.calls.options.required)
    }

    /// Ends a claim. False: another worker has taken the delivery over.
    pub(crate) async fn finish(&self, lease: &Lease, end: Release) -> bool {
        lease.renew_no_more();
        self.inner
            .calls
            .end(lease.claim(), end)
            .await
            .unwrap_or(true)
    }

    /// Ends plain claims, at most [`MOST`], whose deliveries are done. Answers which of them another worker
    /// has taken over.
    pub(crate) async fn done(&self, leases: impl Iterator<Item = &Lease>) -> Vec<usize> {
        self.inner
            .calls
            .done_together(leases.map(|lease| &**lease.claim()))
            .await
    }

    /// Gives back every claim that is still held, at a shutdown whose deadline has passed.
    pub(crate) async fn release_all(&self) {
        for claim in self.inner.held.all() {
            self.inner.calls.end(&claim, Release::GivenBack).await;
        }
    }

    /// Renews the claims held and reports this worker as alive. Each claim is renewed in its own time, since
    /// thousands at once would hold new ones up.
    pub(crate) async fn keep_leases(self) {
        let inner = &self.inner;
        let age = inner.calls.options.lease / 3;
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
                inner.workers.is_alive(inner.calls.options.lease).await;
            }
        }
    }
}

impl Inner {
    async fn claim(&self, works: &[(&Prepared, &PendingDelivery)]) -> Vec<Decision> {
        let claims = self.claims(works).await;
        let mut answers = vec![None; claims.len()];
        let is_plain =
            |index: usize| works[index].0.admission.rate.is_none() && claims[index].marks.is_none();
        let plain = claims
            .iter()
            .enumerate()
            .filter(|(index, _)| is_plain(*index));
        self.calls.claim_together(plain, &mut answers).await;
        let others = (0..claims.len()).filter(|index| !is_plain(*index));
        let others = others.map(async |index| {
            let (hook, work) = works[index];
            (
                index,
                self.calls
                    .claim(&hook.admission, &claims[index], work.place)
                    .await,
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
                Some(answer) => self.decide(claim, &hook.admission, answer),
                None => self.without_redis(claim, &hook.admission, work),
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
                revision: hook.admission.revision,
                bitmap,
                attempt: work.attempt,
                token: Token::new(self.workers.own(), number),
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

    /// Waits are bounded, since Redis' clock may step back.
    fn decide(&self, claim: Claim, admission: &Admission, answer: Answer) -> Decision {
        let Answer(word, number, place) = answer;
        let wait = Duration::from_millis(number);
        match word {
            word::ATTEMPT => {
                let probe = number == 1;
                if !probe {
                    admission.circuit.closed();
                }
                Decision::Attempt(self.held.hold(Claim { probe, ..claim }))
            }
            word::DONE => Decision::Done,
            word::PARKED => Decision::Parked,
            word::OPEN => {
                let wait = wait.min(circuit_breaker::LONGEST);
                admission.circuit.opened(wait);
                Decision::Refused(Refusal::Open(wait))
            }
            word::LIMITED => Decision::Refused(Refusal::Limited(wait, Place(place))),
            word::SNOOZED => Decision::Refused(Refusal::Snoozed),
            word::UNCHANGED => Decision::Refused(Refusal::Unchanged),
            word::PROBED => Decision::Refused(Refusal::Open(wait.min(PROBING))),
            word::BUSY.. => Decision::Busy(wait.min(self.calls.options.lease)),
        }
    }

    /// Decides from memory. A claim may have been made all the same, so it keeps its token.
    fn without_redis(
        &self,
        claim: Claim,
        admission: &Admission,
        work: &PendingDelivery,
    ) -> Decision {
        // What this worker remembers may be old where it was not Redis that was away.
        let stood_still = claim.asked.elapsed() >= STANDSTILL;
        if self.calls.options.required || claim.marks.is_some() && stood_still {
            return Decision::Unavailable;
        }
        let first = work.attempt == 1;
        match admission.decide(
            claim.delivery.as_str(),
            claim.marks.as_ref(),
            first,
            work.place,
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
        let own = self.calls.renew_together(claims).await;
        self.held.note(claims, asked, &own);
        own
    }

    /// Renews one claim. An answer that took as long as a lease says nothing any more.
    async fn is_own(&self, claim: &Arc<Claim>) -> Option<bool> {
        loop {
            let asked = Instant::now();
            let own = self.renew(std::slice::from_ref(claim)).await[0];
            if own == Some(false) || asked.elapsed() < self.calls.options.lease {
                return own;
            }
        }
    }
}
