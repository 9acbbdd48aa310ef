//! Takes a batch of deliveries through the steps: admitted or held back, claimed in one call, then attempted and
//! settled one by one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::delivery_log::{Began, DeliveryLog};
use super::inline_retry::InlineRetries;
use super::trace::{span, span_of, traced};
use crate::admission::Admission;
use crate::admission::bulkhead::{Admitted, Kind, LaneOccupancy};
use crate::admission::circuit_breaker::{Circuits, Verdict};
use crate::admission::refusal::{PROBING, Refusal};
use crate::admission::return_slot::ReturnSlots;
use crate::claims::{Claims, Decision, Lease, Release};
use crate::delivery::PendingDelivery;
use crate::handler::{Delivery, DeliveryError, Receipt, Traced};
use crate::hooks::{Index, Prepared};
use crate::metrics::{AttemptResult, Handback, Metrics, Outcome};
use crate::settle::deferral::Deferral;
use crate::settle::open_message::{OpenDelivery, Settled};
use crate::settle::schedule;
use crate::settle::{MIN_REDELIVERY, Settle};

/// First wait of the deliveries of a hook that is paused or cannot be used.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Bounds of the wait for a permit.
const MIN_PERMIT_WAIT: Duration = Duration::from_secs(1);
const MAX_PERMIT_WAIT: Duration = Duration::from_secs(60);
/// A delivery that waits longer for another one is parked.
const BEHIND: Duration = Duration::from_secs(2);

pub(crate) struct Deliverer {
    pub(crate) index: Arc<Index>,
    pub(crate) claims: Claims,
    pub(crate) circuits: Circuits,
    pub(crate) slots: ReturnSlots,
    pub(crate) settle: Arc<Settle>,
    pub(crate) inline_retries: InlineRetries,
    pub(crate) log: DeliveryLog,
    pub(crate) tasks: TaskTracker,
    /// Cancelled at the deadline of a shutdown: attempts in flight are abandoned.
    pub(crate) abandon: CancellationToken,
    pub(crate) metrics: Metrics,
}

/// Reasons to defer before claiming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldBack {
    /// Until somebody does something about the hook.
    Standstill(Deferral),
    Open(Duration),
    NoPermit {
        calm: bool,
    },
}

/// Why a claimed attempt is not made, or not finished.
#[derive(Debug, Clone, Copy)]
enum NotMade {
    HeldBack(HeldBack),
    /// Another worker may have taken the delivery over.
    TakenOver,
    /// This worker stops.
    Abandoned,
}

impl Deliverer {
    /// Takes at most [`MOST`](crate::claims::MOST) deliveries. Attempts are made in tasks.
    pub(crate) async fn deliver(
        self: Arc<Self>,
        lane: Arc<LaneOccupancy>,
        deliveries: Vec<(Arc<Prepared>, OpenDelivery)>,
    ) {
        let mut admitted = Vec::with_capacity(deliveries.len());
        for (hook, delivery) in deliveries {
            if let Some(asked_for) = delivery.pending.asked_for {
                let (admission, circuits) = (&hook.admission, &self.circuits);
                circuits
                    .half_open(&hook.id, admission.revision, &admission.circuit, asked_for)
                    .await;
            }
            match admit(standstill(&hook), &hook.admission, &lane) {
                Ok(permit) => admitted.push((hook, delivery, permit)),
                Err(reason) => {
                    let (this, kind) = (self.clone(), lane.kind());
                    self.tasks.spawn(async move {
                        let pending = &delivery.pending;
                        let held = this.hold(&hook, pending, kind, reason);
                        let (settled, _) = held.instrument(span(&hook, pending)).await;
                        this.settle.delivery(&delivery.open, settled).await;
                    });
                }
            }
        }
        let pending: Vec<_> = admitted
            .iter()
            .map(|(hook, delivery, _)| (&**hook, &delivery.pending))
            .collect();
        let decisions = self.claims.claim(&pending).await;
        for ((hook, delivery, admitted), decision) in admitted.into_iter().zip(decisions) {
            let (this, lane) = (self.clone(), Arc::clone(&lane));
            self.tasks.spawn(async move {
                match decision {
                    Decision::Attempt(lease) => {
                        this.make(&hook, &lane, delivery, admitted, lease).await;
                    }
                    decision => {
                        drop(admitted);
                        let pending = &delivery.pending;
                        let settled = this.no_attempt(&hook, pending, lane.kind(), decision);
                        let settled = Box::pin(settled.instrument(span(&hook, pending))).await;
                        this.settle.delivery(&delivery.open, settled).await;
                    }
                }
            });
        }
    }

    /// Makes a claimed attempt and, if it fails, an in-process retry.
    async fn make(
        &self,
        hook: &Arc<Prepared>,
        lane: &Arc<LaneOccupancy>,
        mut delivery: OpenDelivery,
        mut admitted: Admitted,
        lease: Lease,
    ) {
        let (began, result) = loop {
            let pending = &delivery.pending;
            let attempted = tokio::select! {
                biased;
                () = lease.lost() => Err(NotMade::TakenOver),
                () = self.abandon.cancelled() => Err(NotMade::Abandoned),
                attempted = self.attempted(hook, &delivery, (lane.kind(), admitted), &lease) => attempted,
            };
            let (began, result) = match attempted {
                Ok(attempted) => attempted,
                Err(reason) => {
                    let given_back = self.give_back(hook, pending, lane.kind(), reason, &lease);
                    let settled = Box::pin(given_back.instrument(span(hook, pending))).await;
                    return self.settle.delivery(&delivery.open, settled).await;
                }
            };
            self.log.note(hook, pending, &began, &result);
            let Err(error) = &result else {
                hook.admission.circuit.succeeded(lease.is_probe());
                hook.failures.succeeded(hook);
                break (began, result);
            };
            if let Some(again) = schedule::retry_delay(&hook.policy, pending, error.class()) {
                hook.failures.failed(hook, error, again);
            }
            let retry = async {
                self.count_failure(hook, &lease, error).await;
                self.wait_for_retry(hook, lane, pending, &lease, error)
                    .await
            };
            match Box::pin(retry.instrument(span_of(hook, pending, &began))).await {
                Some(retry) => (delivery.pending, admitted) = retry,
                None => break (began, result),
            }
        };
        let span = match &result {
            Ok(_) => Span::none(),
            Err(_) => span_of(hook, &delivery.pending, &began),
        };
        let settled = self.settle.attempt(hook, delivery, lease, result);
        settled.instrument(span).await;
    }

    /// Makes an attempt with a permit of its hook.
    async fn attempted(
        &self,
        hook: &Prepared,
        delivery: &OpenDelivery,
        (lane, admitted): (Kind, Admitted),
        lease: &Lease,
    ) -> Result<(Began, Result<Receipt, DeliveryError>), NotMade> {
        let pending = &delivery.pending;
        let permit = admitted.permit().await;
        // The circuit may have opened during the wait.
        if let Some(wait) = open_for(&hook.admission).filter(|_| !lease.is_probe()) {
            return Err(NotMade::HeldBack(HeldBack::Open(wait)));
        }
        let calm = hook.admission.circuit.is_calm();
        let permit = permit.ok_or(NotMade::HeldBack(HeldBack::NoPermit { calm }))?;
        if !self.claims.still_holds(lease).await {
            return Err(NotMade::TakenOver);
        }
        let trace = traced(hook, delivery, lane);
        let began = Began::now(pending, trace.as_ref());
        let result = match &trace {
            Some(trace) => {
                let traced = Traced {
                    context: trace.context(),
                    attempt: pending.attempt,
                };
                let delivery = Delivery {
                    trace: Some(traced),
                    ..pending.delivery.clone()
                };
                attempt(hook, &delivery).await
            }
            None => attempt(hook, &pending.delivery).await,
        };
        let took = began.elapsed();
        let metric = match &result {
            Ok(_) => AttemptResult::Success,
            Err(error) => error.result(),
        };
        if let Some(trace) = trace {
            trace.end(metric.into(), result.is_err());
        }
        self.metrics
            .attempt(&hook.id, hook.handler_name(), metric, took);
        permit.attempted(took, result.is_ok());
        // Settling does not involve the receiver.
        drop(permit);
        Ok((began, result))
    }

    /// Waits for an in-process retry. None: there is none, park or bury the delivery.
    async fn wait_for_retry(
        &self,
        hook: &Arc<Prepared>,
        lane: &Arc<LaneOccupancy>,
        pending: &PendingDelivery,
        lease: &Lease,
        error: &DeliveryError,
    ) -> Option<(PendingDelivery, Admitted)> {
        let class = error.class();
        let delay = schedule::retry_delay(&hook.policy, pending, class)?;
        let is_closed = || hook.admission.circuit.verdict() == Verdict::Closed;
        let is_too_old = schedule::is_too_old(hook.max_age, pending, delay);
        let may_wait = lane.kind() == Kind::Events && hook.is_plain();
        if !may_wait || !is_closed() || is_too_old {
            return None;
        }
        let waited = self.inline_retries.wait(pending, delay).await;
        if !waited || !is_closed() || !self.index.snapshot().holds(hook) {
            return None;
        }
        let admitted = admit(standstill(hook), &hook.admission, lane).ok()?;
        if !self.claims.renew(lease).await {
            return None;
        }
        self.metrics.retried_in_process();
        Some((pending.next(class), admitted))
    }

    /// Settles a claimed delivery whose attempt was not made or not finished.
    async fn give_back(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        lane: Kind,
        reason: NotMade,
        lease: &Lease,
    ) -> Settled {
        if lease.is_probe() {
            hook.admission.circuit.probe_given_up();
        }
        let reason = match reason {
            NotMade::HeldBack(reason) => reason,
            NotMade::TakenOver => {
                tracing::warn!("claim expired, attempt dropped");
                return self.settle.taken_over();
            }
            NotMade::Abandoned => {
                self.claims.finish(hook, lease, Release::GivenBack).await;
                return self.settle.abandoned();
            }
        };
        if !self.claims.renew(lease).await {
            return self.settle.taken_over();
        }
        let (settled, release) = self.hold(hook, pending, lane, reason).await;
        self.claims.finish(hook, lease, release).await;
        settled
    }

    /// Settles a delivery that is held back. Returns how its claim, if it has one, is released.
    async fn hold(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        lane: Kind,
        reason: HeldBack,
    ) -> (Settled, Release) {
        match reason {
            HeldBack::Standstill(why) => self.defer(hook, pending, why, STANDSTILL).await,
            HeldBack::Open(wait) => {
                let wait = self.slot(hook, wait).await;
                self.defer(hook, pending, Deferral::CircuitOpen, wait).await
            }
            // The delivery is already durable, and there is a permit soon.
            HeldBack::NoPermit { calm: true } if lane == Kind::Retries => {
                let wait = jittered(pending, MIN_PERMIT_WAIT);
                let settled = self.settle.not_yet(Handback::NoPermit, wait);
                (settled, Release::GivenBack)
            }
            HeldBack::NoPermit { .. } => {
                let expected = hook.admission.bulkhead.expected_wait();
                let wait = expected.clamp(MIN_PERMIT_WAIT, MAX_PERMIT_WAIT);
                let wait = self.slot(hook, wait).await;
                self.defer(hook, pending, Deferral::NoPermit, wait).await
            }
        }
    }

    /// Settles a delivery that may not be attempted, or not now.
    async fn no_attempt(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        lane: Kind,
        decision: Decision,
    ) -> Settled {
        let (deferral, wait) = match decision {
            Decision::Done | Decision::Parked => {
                return self.settle.ended(hook, Outcome::Duplicate);
            }
            Decision::Busy(wait) => return self.settle.not_yet(Handback::Busy, wait),
            Decision::Attempt(_) | Decision::Unavailable => {
                return self.settle.not_yet(Handback::RedisAway, MIN_REDELIVERY);
            }
            Decision::Refused(Refusal::Snoozed) => {
                self.log.note_suppressed(hook, pending, "snooze");
                return self.settle.ended(hook, Outcome::Snoozed);
            }
            Decision::Refused(Refusal::Unchanged) => {
                self.log.note_suppressed(hook, pending, "on_change");
                return self.settle.ended(hook, Outcome::Unchanged);
            }
            // An attempt in flight is over soon.
            Decision::Refused(Refusal::Behind(wait)) if wait <= BEHIND => {
                return self.settle.not_yet(Handback::Behind, wait);
            }
            Decision::Refused(Refusal::Behind(wait)) => (Deferral::Behind, wait),
            Decision::Refused(Refusal::Limited(wait, place)) => (Deferral::RateLimit(place), wait),
            // Another worker is probing; the delivery is already durable.
            Decision::Refused(Refusal::Open(wait)) if lane == Kind::Retries && wait <= PROBING => {
                return self
                    .settle
                    .not_yet(Handback::Probing, jittered(pending, wait));
            }
            Decision::Refused(Refusal::Open(wait)) => {
                (Deferral::CircuitOpen, self.slot(hook, wait).await)
            }
        };
        self.defer(hook, pending, deferral, wait).await.0
    }

    async fn defer(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        deferral: Deferral,
        wait: Duration,
    ) -> (Settled, Release) {
        self.settle.defer(hook, pending, deferral, wait).await
    }

    async fn slot(&self, hook: &Prepared, from: Duration) -> Duration {
        let admission = &hook.admission;
        let interval = admission.bulkhead.interval();
        let memory = &admission.slots;
        self.slots
            .take(&hook.id, memory, interval, from, hook.max_age)
            .await
    }

    /// Counts a failure against the hook's circuit if it is the receiver's fault.
    async fn count_failure(&self, hook: &Prepared, lease: &Lease, error: &DeliveryError) {
        let admission = &hook.admission;
        if !error.is_receivers_fault() {
            return admission.circuit.succeeded(lease.is_probe());
        }
        if admission.circuit.failed(lease.is_probe()) {
            let (revision, circuit) = (admission.revision, &admission.circuit);
            self.circuits.open(&hook.id, revision, circuit).await;
        }
    }
}

fn standstill(hook: &Prepared) -> Option<Deferral> {
    if hook.is_paused() {
        return Some(Deferral::Paused);
    }
    hook.unusable.then_some(Deferral::Unusable)
}

fn admit(
    standstill: Option<Deferral>,
    admission: &Admission,
    lane: &Arc<LaneOccupancy>,
) -> Result<Admitted, HeldBack> {
    if let Some(why) = standstill {
        return Err(HeldBack::Standstill(why));
    }
    if let Some(wait) = open_for(admission) {
        return Err(HeldBack::Open(wait));
    }
    let calm = admission.circuit.is_calm();
    let admitted = admission.bulkhead.enter(lane, calm);
    admitted.ok_or(HeldBack::NoPermit { calm })
}

/// How long the hook's circuit is open, as far as this worker knows.
fn open_for(admission: &Admission) -> Option<Duration> {
    match admission.circuit.verdict() {
        Verdict::Open(wait) => Some(wait),
        Verdict::Closed | Verdict::HalfOpen => None,
    }
}

/// Up to twice as long, by the same factor each time for one delivery.
fn jittered(pending: &PendingDelivery, wait: Duration) -> Duration {
    wait.mul_f64(1.0 + (pending.delivery.id.seed() % 1_000) as f64 / 1_000.0)
}

/// Makes one attempt. A panic is a failure.
pub(crate) async fn attempt(
    hook: &Prepared,
    delivery: &Delivery,
) -> Result<Receipt, DeliveryError> {
    #[cfg(debug_assertions)]
    abort_for_tests(delivery);
    let attempt = AssertUnwindSafe(hook.handler.attempt(delivery)).catch_unwind();
    attempt.await.unwrap_or(Err(DeliveryError::Panicked))
}

/// Ends the process at an event that holds this text, as a fault of this process would.
#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "not a setting")]
fn abort_for_tests(delivery: &Delivery) {
    let Ok(text) = std::env::var("HOOKLINE_TEST_ABORT") else {
        return;
    };
    let raw = &delivery.event.raw;
    if raw
        .windows(text.len().max(1))
        .any(|window| window == text.as_bytes())
    {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use hookline_shared::event::EventId;

    use super::*;
    use crate::admission::circuit_breaker::{CircuitBreaker, Settings};
    use crate::delivery::tests::pending_with;

    const SECOND: Duration = Duration::from_secs(1);

    /// Of a hook with one permit, whose circuit opens at the second failure in a row.
    fn admission() -> Admission {
        let circuit = CircuitBreaker::new(Settings {
            failures: 2,
            failure_rate: 1.0,
            open: SECOND,
        });
        Admission::new(1, circuit, None, 1, 1)
    }

    fn lane() -> Arc<LaneOccupancy> {
        Arc::new(LaneOccupancy::new(Kind::Events, 100, SECOND))
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_hook_is_held_back_whatever_else() {
        let admission = admission();
        admission.circuit.opened(SECOND);
        let paused = Deferral::Paused;
        let held = admit(Some(paused), &admission, &lane());
        assert_eq!(held.err(), Some(HeldBack::Standstill(paused)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_holds_back_until_it_may_be_probed() {
        let (admission, lane) = (admission(), lane());
        admission.circuit.opened(3 * SECOND);
        tokio::time::advance(SECOND).await;
        let held = admit(None, &admission, &lane);
        assert_eq!(held.err(), Some(HeldBack::Open(2 * SECOND)));
        tokio::time::advance(2 * SECOND).await;
        assert!(admit(None, &admission, &lane).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_without_a_permit_in_time_is_held_back() {
        for calm in [true, false] {
            let (admission, lane) = (admission(), lane());
            let admitted = admit(None, &admission, &lane).expect("a free permit");
            let permit = admitted.permit().now_or_never().flatten();
            let permit = permit.expect("a free permit");
            permit.attempted(5 * SECOND, true);
            if !calm {
                assert!(!admission.circuit.failed(false));
            }
            let held = admit(None, &admission, &lane);
            assert_eq!(held.err(), Some(HeldBack::NoPermit { calm }));
            drop(permit);
            assert!(admit(None, &admission, &lane).is_ok());
        }
    }

    #[test]
    fn jitter_at_most_doubles_a_wait_and_is_the_same_each_time() {
        let waits: Vec<_> = (0..200)
            .map(|id| pending_with(EventId::given(id.to_string()), "{}"))
            .map(|pending| {
                assert_eq!(jittered(&pending, SECOND), jittered(&pending, SECOND));
                jittered(&pending, SECOND)
            })
            .collect();
        assert!(waits.iter().all(|wait| (SECOND..2 * SECOND).contains(wait)));
        let late = waits.iter().filter(|wait| **wait > SECOND * 3 / 2).count();
        assert!((50..150).contains(&late), "{late} of 200 in the later half");
    }
}
