//! Deliveries on their way: held back, or claimed together and attempted each on its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use crate::admission::bulkhead::{Admitted, Kind, LaneOccupancy};
use crate::admission::circuit_breaker::Verdict;
use crate::admission::rate_limit::{PROBING, Refusal};
use crate::attempt::delivery_log::Began;
use crate::claims::{Decision, Lease, Release};
use crate::delivery::PendingDelivery;
use crate::handler::{Delivery, DeliveryError, Receipt};
use crate::hooks::Prepared;
use crate::intake::dispatch::Dispatch;
use crate::metrics::DeliveryResult;
use crate::settle::open_message::{OpenDelivery, Settled};
use crate::settle::{self, Deferral};

/// How long deliveries of a paused hook wait before they are looked at again.
const PAUSED: Duration = Duration::from_secs(30);
/// How long deliveries wait at least that a hook has no room for.
const OVERFLOW: Duration = Duration::from_secs(1);
/// The longest that they wait for that reason.
const OVERFLOW_AT_MOST: Duration = Duration::from_secs(60);

/// What keeps a delivery from an attempt before it is claimed.
#[derive(Debug, Clone, Copy)]
enum HeldBack {
    Paused,
    Open(Duration),
    NoRoom { calm: bool },
}

/// Why an attempt that was claimed is not made, or not to its end.
#[derive(Debug, Clone, Copy)]
enum NotMade {
    HeldBack(HeldBack),
    /// Another worker may have taken the delivery over.
    TakenOver,
}

impl Dispatch {
    /// Makes one attempt of each of at most [`MOST`](crate::claims::MOST) deliveries, if it is this
    /// worker's to make.
    pub(crate) async fn deliver(
        self: Arc<Self>,
        lane: Arc<LaneOccupancy>,
        deliveries: Vec<(Arc<Prepared>, OpenDelivery)>,
    ) {
        let mut entered = Vec::with_capacity(deliveries.len());
        for (hook, pending) in deliveries {
            match enter(&hook, &lane) {
                Ok(place) => entered.push((hook, pending, place)),
                Err(reason) => {
                    let (dispatch, kind) = (self.clone(), lane.kind());
                    self.tasks.spawn(async move {
                        let (settled, _) = dispatch.hold(&hook, &pending.work, kind, reason).await;
                        dispatch.settle.delivery(&pending.open, settled).await;
                    });
                }
            }
        }
        let works: Vec<_> = entered
            .iter()
            .map(|(hook, pending, _)| (&**hook, &pending.work))
            .collect();
        let answers = self.accept.accept(&works).await;
        for ((hook, pending, entered), answer) in entered.into_iter().zip(answers) {
            let (dispatch, lane) = (self.clone(), Arc::clone(&lane));
            self.tasks.spawn(async move {
                match answer {
                    Decision::Attempt(lease) => {
                        dispatch.make(&hook, &lane, pending, entered, lease).await;
                    }
                    answer => {
                        drop(entered);
                        let work = &pending.work;
                        let settled = dispatch.no_attempt(&hook, work, lane.kind(), answer);
                        let settled = Box::pin(settled).await;
                        dispatch.settle.delivery(&pending.open, settled).await;
                    }
                }
            });
        }
    }

    /// Makes an attempt that was claimed, and where it fails, the one that follows soon.
    async fn make(
        &self,
        hook: &Arc<Prepared>,
        lane: &Arc<LaneOccupancy>,
        mut pending: OpenDelivery,
        mut entered: Admitted,
        lease: Lease,
    ) {
        let result = loop {
            let work = &pending.work;
            let attempted = tokio::select! {
                biased;
                () = lease.lost() => Err(NotMade::TakenOver),
                attempted = self.attempted(hook, work, entered, &lease) => attempted,
            };
            let (began, result) = match attempted {
                Ok(attempted) => attempted,
                Err(reason) => {
                    let given_back = self.give_back(hook, work, lane.kind(), reason, &lease);
                    let settled = Box::pin(given_back).await;
                    return self.settle.delivery(&pending.open, settled).await;
                }
            };
            self.log.note(hook, work, began, &result);
            self.judge(hook, &lease, &result).await;
            let Err(error) = &result else { break result };
            match Box::pin(self.again(hook, lane, work, &lease, error)).await {
                Some(again) => (pending.work, entered) = again,
                None => break result,
            }
        };
        self.settle.attempt(hook, pending, lease, result).await;
    }

    /// Makes an attempt with a permit of its hook.
    async fn attempted(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        entered: Admitted,
        lease: &Lease,
    ) -> Result<(Began, Result<Receipt, DeliveryError>), NotMade> {
        let place = entered.permit().await;
        // It may have opened meanwhile.
        if let Some(wait) = open_for(hook).filter(|_| !lease.is_probe()) {
            return Err(NotMade::HeldBack(HeldBack::Open(wait)));
        }
        let calm = hook.gate.circuit.is_calm();
        let no_room = NotMade::HeldBack(HeldBack::NoRoom { calm });
        let place = place.ok_or(no_room)?;
        if !self.accept.still_holds(lease).await {
            return Err(NotMade::TakenOver);
        }
        let began = Began::now();
        let result = attempt(hook, &work.delivery).await;
        let took = began.elapsed();
        self.metrics.attempt(hook.handler.kind(), took);
        place.attempted(took, result.is_ok());
        // What follows has no need of the receiver.
        drop(place);
        Ok((began, result))
    }

    /// Waits for the attempt after one that failed, if it follows soon; nothing where it is to be
    /// parked.
    async fn again(
        &self,
        hook: &Arc<Prepared>,
        lane: &Arc<LaneOccupancy>,
        work: &PendingDelivery,
        lease: &Lease,
        error: &DeliveryError,
    ) -> Option<(PendingDelivery, Admitted)> {
        let class = error.class();
        let delay = settle::delay(hook, work, class)?;
        let is_closed = || hook.gate.circuit.verdict() == Verdict::Closed;
        let is_too_old = settle::is_too_old(hook, work, delay);
        if lane.kind() != Kind::Events || !is_closed() || is_too_old {
            return None;
        }
        if !self.soon.wait(hook, work, delay).await || !is_closed() || !self.is_current(hook) {
            return None;
        }
        let entered = enter(hook, lane).ok()?;
        if !self.accept.renew(lease).await {
            return None;
        }
        self.settle.count(hook, DeliveryResult::Retry);
        Some((work.next(class), entered))
    }

    /// Whether a hook is still as it was.
    fn is_current(&self, hook: &Arc<Prepared>) -> bool {
        let snapshot = self.index.snapshot();
        let current = snapshot.get(&hook.id);
        current.is_some_and(|current| Arc::ptr_eq(current, hook))
    }

    /// What follows where there is no attempt after all.
    async fn give_back(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        lane: Kind,
        reason: NotMade,
        lease: &Lease,
    ) -> Settled {
        if lease.is_probe() {
            hook.gate.circuit.probe_given_up();
        }
        let NotMade::HeldBack(reason) = reason else {
            tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, "a delivery's claim ran out, its attempt here is dropped");
            return self.settle.count(hook, DeliveryResult::Busy);
        };
        if !self.accept.renew(lease).await {
            return self.settle.count(hook, DeliveryResult::Busy);
        }
        let work = PendingDelivery {
            // With the claim it got its place in the rate limit.
            reserved: work.reserved || hook.gate.rate.is_some(),
            ..work.clone()
        };
        let (settled, end) = self.hold(hook, &work, lane, reason).await;
        self.accept.finish(lease, end).await;
        settled
    }

    /// What follows where a delivery is held back, and what is to be said of it in Redis.
    async fn hold(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        lane: Kind,
        reason: HeldBack,
    ) -> (Settled, Release) {
        match reason {
            HeldBack::Paused => self.defer(hook, work, Deferral::Paused, PAUSED).await,
            HeldBack::Open(wait) => {
                let wait = self.accept.slot(hook, wait).await;
                self.defer(hook, work, Deferral::Open, wait).await
            }
            // It is on disk already, and soon there is room.
            HeldBack::NoRoom { calm: true } if lane == Kind::Retries => {
                let settled = self.settle.not_yet(hook, jittered(work, OVERFLOW));
                (settled, Release::GivenBack)
            }
            HeldBack::NoRoom { .. } => {
                let wait = hook.bulkhead.taken_for().clamp(OVERFLOW, OVERFLOW_AT_MOST);
                let wait = self.accept.slot(hook, wait).await;
                self.defer(hook, work, Deferral::NoRoom, wait).await
            }
        }
    }

    /// What follows where there is no attempt to make, or not now.
    async fn no_attempt(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        lane: Kind,
        answer: Decision,
    ) -> Settled {
        let (deferral, wait) = match answer {
            Decision::Done | Decision::Parked => {
                return self.settle.count(hook, DeliveryResult::Duplicate);
            }
            Decision::Busy(wait) => {
                return self.settle.not_yet(hook, wait);
            }
            Decision::Attempt(_) | Decision::Unavailable => {
                return self.settle.count(hook, DeliveryResult::Unsettled);
            }
            Decision::Refused(Refusal::Snoozed) => {
                return self.settle.count(hook, DeliveryResult::Snoozed);
            }
            Decision::Refused(Refusal::Unchanged) => {
                return self.settle.count(hook, DeliveryResult::Unchanged);
            }
            Decision::Refused(Refusal::Limited(wait)) => (Deferral::Limited, wait),
            // Another one probes, and it is on disk already.
            Decision::Refused(Refusal::Open(wait)) if lane == Kind::Retries && wait <= PROBING => {
                return self.settle.not_yet(hook, jittered(work, wait));
            }
            Decision::Refused(Refusal::Open(wait)) => {
                (Deferral::Open, self.accept.slot(hook, wait).await)
            }
        };
        self.defer(hook, work, deferral, wait).await.0
    }

    async fn defer(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        deferral: Deferral,
        wait: Duration,
    ) -> (Settled, Release) {
        self.metrics.deferred(deferral.label());
        self.settle.defer(hook, work, deferral, wait).await
    }

    /// Tells the hook's circuit how an attempt went.
    async fn judge(&self, hook: &Prepared, lease: &Lease, result: &Result<Receipt, DeliveryError>) {
        let circuit = &hook.gate.circuit;
        match result {
            Err(error) if error.is_receivers_fault() => {
                let workers = if hook.bulkhead.is_proven() {
                    1
                } else {
                    self.accept.workers()
                };
                if circuit.failed(lease.is_probe(), workers) {
                    Box::pin(self.accept.open(hook)).await;
                }
            }
            Ok(_) | Err(_) => circuit.succeeded(lease.is_probe()),
        }
    }
}

/// Lets a delivery in, if nothing keeps it from an attempt.
fn enter(hook: &Prepared, lane: &Arc<LaneOccupancy>) -> Result<Admitted, HeldBack> {
    if hook.is_paused() {
        return Err(HeldBack::Paused);
    }
    if let Some(wait) = open_for(hook) {
        return Err(HeldBack::Open(wait));
    }
    let calm = hook.gate.circuit.is_calm();
    let entered = hook.bulkhead.enter(lane, calm);
    entered.ok_or(HeldBack::NoRoom { calm })
}

/// For how long a hook's circuit is open, as far as this worker knows.
fn open_for(hook: &Prepared) -> Option<Duration> {
    match hook.gate.circuit.verdict() {
        Verdict::Open(wait) => Some(wait),
        Verdict::Closed | Verdict::HalfOpen => None,
    }
}

/// Up to twice as long, the same for one delivery.
fn jittered(work: &PendingDelivery, wait: Duration) -> Duration {
    wait.mul_f64(1.0 + (work.delivery.id.seed() % 1_000) as f64 / 1_000.0)
}

/// Makes one attempt; a panic is one that failed.
///
/// # Errors
/// [`DeliveryError`] tells why the event was not delivered.
pub(crate) async fn attempt(
    hook: &Prepared,
    delivery: &Delivery,
) -> Result<Receipt, DeliveryError> {
    let attempt = AssertUnwindSafe(hook.handler.attempt(delivery)).catch_unwind();
    attempt.await.unwrap_or(Err(DeliveryError::Panicked))
}
