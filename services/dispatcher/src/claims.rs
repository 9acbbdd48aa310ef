//! Claims on deliveries in Redis: which worker makes which attempt, if any.
//!
//! In one round trip a script decides about a delivery: this worker may make attempt n; or the delivery is done,
//! parked, another worker's, or suppressed by `snooze` or `on_change`; or it waits for the hook's circuit or rate
//! limit, or for a delivery that could suppress it. A claim has a token. A worker whose claim expired and was taken over finds another token or state, and
//! its result is void.
//!
//! Redis is not required. While it does not answer, attempts are made without a claim, so at least once, and
//! [`Admission`] decides from this worker's memory; a setting makes deliveries wait instead.

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

/// Above this size in bytes, hashing an event for its marks takes long enough to yield first.
const LONG_MARKS: usize = 16 << 10;
/// How often, within a third of a lease, due renewals are collected.
const RENEWAL_PARTS: u32 = 10;

#[derive(Debug)]
pub(crate) enum Decision {
    Attempt(Lease),
    /// Delivered before.
    Done,
    /// This attempt was parked or buried before.
    Parked,
    /// A live worker holds the delivery, for that long at most.
    Busy(Duration),
    Refused(Refusal),
    /// Redis did not answer, and the delivery must wait for it.
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

    /// The number of hook groups for which Redis can fail independently.
    #[must_use]
    pub(crate) fn groups(&self) -> usize {
        self.inner.calls.redis.groups()
    }

    /// From 0.
    #[must_use]
    pub(crate) fn group_of(&self, hook: &Prepared) -> usize {
        self.inner.calls.redis.group_of(&hook.id)
    }

    /// Claims the next attempts of at most [`MOST`] deliveries.
    pub(crate) async fn claim(
        &self,
        deliveries: &[(&Prepared, &PendingDelivery)],
    ) -> Vec<Decision> {
        self.inner.claim(deliveries).await
    }

    /// Renews the claim for a lease. False: another worker has taken the delivery over. Without Redis: true.
    pub(crate) async fn renew(&self, lease: &Lease) -> bool {
        self.inner.is_own(lease.claim()).await != Some(false)
    }

    /// Whether the claimed attempt may be made now. Asks Redis only if the claim may have expired, for example
    /// because this worker was suspended.
    pub(crate) async fn still_holds(&self, lease: &Lease) -> bool {
        let inner = &self.inner;
        if lease.age() < inner.calls.options.lease {
            return true;
        }
        let is_own = Box::pin(inner.is_own(lease.claim())).await;
        is_own.unwrap_or(!inner.calls.options.required)
    }

    /// Releases a claim. False: another worker has taken the delivery over.
    pub(crate) async fn finish(&self, hook: &Prepared, lease: &Lease, release: Release) -> bool {
        lease.stop_renewing();
        let claim = lease.claim();
        if let Some(marks) = &claim.marks {
            let (made, delivery) = (release == Release::Done, claim.delivery.as_str());
            let (admission, in_flight) = (&hook.admission, release.in_flight());
            admission.ended(delivery, marks, made, in_flight);
        }
        self.inner
            .calls
            .release(lease.claim(), release)
            .await
            .unwrap_or(true)
    }

    /// Releases at most [`MOST`] plain claims of delivered deliveries. Returns the indices of those that another
    /// worker has taken over.
    pub(crate) async fn done(&self, leases: impl Iterator<Item = &Lease>) -> Vec<usize> {
        self.inner
            .calls
            .done_together(leases.map(|lease| &**lease.claim()))
            .await
    }

    /// Gives back every claim still held, after the deadline of a shutdown.
    pub(crate) async fn release_all(&self) {
        for claim in self.inner.held.all() {
            self.inner.calls.release(&claim, Release::GivenBack).await;
        }
    }

    /// Renews the claims held and reports this worker as alive. Renewals are spread out: thousands at once would
    /// hold up new claims.
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
    async fn claim(&self, deliveries: &[(&Prepared, &PendingDelivery)]) -> Vec<Decision> {
        let claims = self.claims(deliveries).await;
        let mut answers = vec![None; claims.len()];
        let is_plain = |index: usize| {
            deliveries[index].0.admission.rate.is_none() && claims[index].marks.is_none()
        };
        let plain = claims
            .iter()
            .enumerate()
            .filter(|(index, _)| is_plain(*index));
        self.calls.claim_together(plain, &mut answers).await;
        let others = (0..claims.len()).filter(|index| !is_plain(*index));
        let others = others.map(async |index| {
            let (hook, pending) = deliveries[index];
            (
                index,
                self.calls
                    .claim(&hook.admission, &claims[index], pending.place)
                    .await,
            )
        });
        for (index, answer) in join_all(others).await {
            answers[index] = answer;
        }
        claims
            .into_iter()
            .zip(deliveries)
            .zip(answers)
            .map(|((claim, (hook, pending)), answer)| match answer {
                Some(answer) => self.decide(claim, &hook.admission, answer),
                None => self.without_redis(claim, &hook.admission, pending),
            })
            .collect()
    }

    async fn claims(&self, deliveries: &[(&Prepared, &PendingDelivery)]) -> Vec<Claim> {
        let count = deliveries.len() as u64;
        let first = self.counter.fetch_add(count, Ordering::Relaxed);
        let mut groups = Groups::default();
        let mut claims = Vec::with_capacity(deliveries.len());
        for ((hook, pending), number) in deliveries.iter().zip(first..) {
            let event = &pending.delivery.event;
            let marks = Marks::new(&hook.hook, hook.incarnation(), event);
            if marks.is_some() && event.raw.len() > LONG_MARKS {
                tokio::task::yield_now().await;
            }
            let (bitmap, offset) = Bitmap::of(&event.id, pending.delivery.id);
            let group = Group {
                hook: Arc::clone(&hook.id),
                revision: hook.admission.revision,
                bitmap,
                attempt: pending.attempt,
                token: Token::new(self.workers.own(), number),
            };
            claims.push(Claim {
                number,
                group: groups.join(group, offset),
                offset,
                delivery: pending.delivery.id,
                probe: false,
                marks,
                asked: Instant::now(),
                lost: Notify::new(),
            });
        }
        claims
    }

    /// Bounds waits, since Redis' clock may step back.
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
            word::WAITING => Decision::Refused(Refusal::Behind(wait)),
            word::BUSY.. => Decision::Busy(wait.min(self.calls.options.lease)),
        }
    }

    /// Decides from memory. Redis may have made the claim all the same, so the token is kept.
    fn without_redis(
        &self,
        claim: Claim,
        admission: &Admission,
        pending: &PendingDelivery,
    ) -> Decision {
        // If this worker was suspended rather than Redis away, its memory may be stale.
        let was_suspended = claim.asked.elapsed() >= STANDSTILL;
        if self.calls.options.required || claim.marks.is_some() && was_suspended {
            return Decision::Unavailable;
        }
        match admission.decide(claim.delivery.as_str(), claim.marks.as_ref(), pending.place) {
            Ok(probe) => {
                self.metrics.unguarded();
                Decision::Attempt(self.held.hold(Claim { probe, ..claim }))
            }
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    /// Returns which claims are still this worker's; None where Redis did not answer.
    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Option<bool>> {
        let asked = Instant::now();
        let own = self.calls.renew_together(claims).await;
        self.held.note(claims, asked, &own);
        own
    }

    /// Renews one claim. An answer that took longer than a lease is outdated.
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
