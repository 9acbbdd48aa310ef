//! One message on its way: match, accept, attempt, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::Message;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::join_all;
use hookline_shared::event::{self, Event, Stored};
use hookline_shared::subject;

use crate::accept::{Accept, Answer, Lease};
use crate::attempts::{Began, Log};
use crate::circuit::Verdict;
use crate::consumer;
use crate::gate::{PROBING, Refusal};
use crate::handler::{Delivery, DeliveryError, Receipt};
use crate::index::{Index, Prepared};
use crate::metrics::{DeliveryResult, EventResult, Metrics};
use crate::outbox::Outbox;
use crate::room::{Kind, LaneRoom};
use crate::settle::{Deferral, Settle, Settled};
use crate::work::{Work, delivery, now_millis};

/// How long deliveries of a hook wait that this version cannot read.
const UNREADABLE: Duration = Duration::from_secs(30);
/// How long deliveries of a paused hook wait before they are looked at again.
const PAUSED: Duration = Duration::from_secs(30);
/// How long deliveries wait at least that a hook has no room for.
const OVERFLOW: Duration = Duration::from_secs(1);
/// The longest that they wait for that reason.
const OVERFLOW_AT_MOST: Duration = Duration::from_secs(60);
/// An event with more deliveries than this is spread over all workers.
const MANY_HOOKS: usize = 64;
/// Unless so many deliveries wait for any worker.
const MANY_SPREAD: u64 = 50_000;
/// Or its copies would take more bytes than this.
const SPREAD_BYTES: usize = 64 << 20;

/// What both lanes do their work with.
pub struct Dispatch {
    /// The hooks.
    pub index: Arc<Index>,
    /// Claims.
    pub accept: Accept,
    /// Ends.
    pub settle: Settle,
    /// The delivery log.
    pub log: Log,
    /// What came through the outbox.
    pub outbox: Outbox,
    /// How many deliveries waited for any worker when one was last taken.
    pub spread: AtomicU64,
    /// Metrics.
    pub metrics: Metrics,
}

/// Events, whose deliveries are first attempts.
pub struct Events {
    /// Shared by the lanes.
    pub dispatch: Arc<Dispatch>,
    /// How the lane's room is used.
    pub room: Arc<LaneRoom>,
}

/// Deliveries that stand in a stream of their own: parked ones that fell due, and first attempts of
/// events that were spread over all workers.
pub struct Deliveries {
    /// Shared by the lanes.
    pub dispatch: Arc<Dispatch>,
    /// How the lane's room is used.
    pub room: Arc<LaneRoom>,
}

#[async_trait]
impl consumer::Work for Events {
    /// The read barrier: what was pulled is matched against hooks at least as new.
    async fn prepare(&self) -> bool {
        self.dispatch.catch_up().await
    }

    async fn handle(&self, message: &Message) {
        let _counted = self.room.message();
        let Ok(info) = message.info() else {
            // Not from JetStream: nobody waits for an answer.
            return;
        };
        let time = info.published.unix_timestamp_nanos();
        let stored = Stored {
            sequence: info.stream_sequence,
            time,
        };
        let headers = message.headers.as_ref();
        let dispatch = &self.dispatch;
        match Event::parse(&message.subject, headers, message.payload.clone(), stored) {
            Ok(event) => {
                dispatch.outbox.note(&event);
                let age = i128::from(now_millis()) * 1_000_000 - time;
                dispatch.metrics.delay(Duration::from_nanos(
                    age.clamp(0, i128::from(u64::MAX)) as u64
                ));
                dispatch.event(event, stored, message, &self.room).await;
            }
            Err(reason) => {
                dispatch.metrics.event(EventResult::Malformed);
                let id = event::identify(headers, stored);
                dispatch
                    .settle
                    .malformed(message, &id, &reason.to_string())
                    .await;
            }
        }
    }
}

#[async_trait]
impl consumer::Work for Deliveries {
    /// A parked delivery may have been attempted by a worker that knows the hooks better.
    async fn prepare(&self) -> bool {
        self.dispatch.catch_up().await
    }

    async fn handle(&self, message: &Message) {
        let _counted = self.room.message();
        let dispatch = &self.dispatch;
        let snapshot = dispatch.index.snapshot();
        if subject::is_for_any_worker(&message.subject)
            && let Ok(info) = message.info()
        {
            dispatch.spread.store(info.pending, Ordering::Relaxed);
        }
        let id = subject::parse_ready_subject(&message.subject);
        let Some(hook) = id.and_then(|id| snapshot.get(id)) else {
            let settled = if id.is_some_and(|id| snapshot.knows(id)) {
                Settled::NotYet(UNREADABLE)
            } else {
                dispatch.metrics.delivery("none", DeliveryResult::Orphaned);
                Settled::Dealt
            };
            dispatch.settle.message(message, &[settled]).await;
            return;
        };
        match Work::read(message, hook) {
            Some(work) => {
                let settled = dispatch.deliver(hook, work, &self.room).await;
                dispatch.settle.message(message, &[settled]).await;
            }
            None => dispatch.settle.unreadable(message, hook).await,
        }
    }
}

impl Dispatch {
    async fn catch_up(&self) -> bool {
        match self.index.catch_up().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "messages wait until the hooks are known");
                false
            }
        }
    }

    /// Delivers an event to every hook that it fires.
    async fn event(&self, event: Event, stored: Stored, message: &Message, lane: &LaneRoom) {
        let hooks = self.index.snapshot().matching(&event, stored);
        let matched = if hooks.is_empty() {
            EventResult::Unmatched
        } else {
            EventResult::Matched
        };
        self.metrics.event(matched);
        let (event, first_attempt) = (Arc::new(event), now_millis());
        let work = |hook: &Arc<Prepared>| Work::first(delivery(&event, hook), first_attempt);
        let settled = if self.is_wide(&event, hooks.len()) {
            let spread = hooks
                .iter()
                .map(|hook| self.settle.spread(hook, work(hook)));
            join_all(spread).await
        } else {
            let deliveries = hooks
                .iter()
                .map(|hook| self.deliver(hook, work(hook), lane));
            join_all(deliveries).await
        };
        self.settle.message(message, &settled).await;
    }

    /// Whether an event matches so many hooks that all workers should share its deliveries. They stay
    /// with the event where copies of it would take too much of the disk, or where so many are to be
    /// made already: then the event waits for its turn.
    fn is_wide(&self, event: &Event, hooks: usize) -> bool {
        hooks > MANY_HOOKS
            && event.raw.len().saturating_mul(hooks) <= SPREAD_BYTES
            && self.spread.load(Ordering::Relaxed) < MANY_SPREAD
            && !self.settle.storage.is_scarce()
    }

    /// Makes one attempt, if it is this worker's to make.
    async fn deliver(&self, hook: &Arc<Prepared>, work: Work, lane: &LaneRoom) -> Settled {
        if hook.is_paused() {
            return self.defer(hook, &work, Deferral::Paused, PAUSED).await;
        }
        if let Verdict::Open(wait) = hook.gate.circuit.verdict() {
            let wait = self.accept.slot(hook, wait).await;
            return self.defer(hook, &work, Deferral::Open, wait).await;
        }
        let calm = hook.gate.circuit.is_calm();
        let Some(place) = hook.room.enter(lane, calm).await else {
            if calm && lane.kind() == Kind::Retries {
                // It is on disk already, and soon there is room.
                return self.settle.not_yet(hook, jittered(&work, OVERFLOW));
            }
            let wait = hook.room.taken_for().clamp(OVERFLOW, OVERFLOW_AT_MOST);
            let wait = self.accept.slot(hook, wait).await;
            return self.defer(hook, &work, Deferral::NoRoom, wait).await;
        };
        let lease = match self.accept.accept(hook, &work).await {
            Answer::Attempt(lease) => lease,
            answer => {
                drop(place);
                return self.no_attempt(hook, &work, lane.kind(), answer).await;
            }
        };
        let began = Began::now();
        let result = tokio::select! {
            result = attempt(hook, &work.delivery) => result,
            () = lease.lost() => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, "another worker took a delivery over, its attempt here is dropped");
                return self.settle.count(hook, DeliveryResult::Busy);
            }
        };
        let took = began.elapsed();
        place.attempted(took, result.is_ok());
        self.metrics.attempt(hook.handler.kind(), took);
        // What follows has no need of the receiver.
        drop(place);
        self.log.note(hook, &work, began, &result);
        self.judge(hook, &lease, &result).await;
        self.settle.attempt(hook, &work, &lease, result).await
    }

    /// What follows where there is no attempt to make, or not now.
    async fn no_attempt(
        &self,
        hook: &Arc<Prepared>,
        work: &Work,
        lane: Kind,
        answer: Answer,
    ) -> Settled {
        let (deferral, wait) = match answer {
            Answer::Done | Answer::Parked => {
                return self.settle.count(hook, DeliveryResult::Duplicate);
            }
            Answer::Busy(wait) => {
                return self.settle.not_yet(hook, wait);
            }
            Answer::Attempt(_) | Answer::Unavailable => {
                return self.settle.count(hook, DeliveryResult::Unsettled);
            }
            Answer::Refused(Refusal::Snoozed) => {
                return self.settle.count(hook, DeliveryResult::Snoozed);
            }
            Answer::Refused(Refusal::Unchanged) => {
                return self.settle.count(hook, DeliveryResult::Unchanged);
            }
            Answer::Refused(Refusal::Limited(wait)) => (Deferral::Limited, wait),
            // Another one probes, and it is on disk already.
            Answer::Refused(Refusal::Open(wait)) if lane == Kind::Retries && wait <= PROBING => {
                return self.settle.not_yet(hook, jittered(work, wait));
            }
            Answer::Refused(Refusal::Open(wait)) => {
                (Deferral::Open, self.accept.slot(hook, wait).await)
            }
        };
        self.defer(hook, work, deferral, wait).await
    }

    async fn defer(
        &self,
        hook: &Arc<Prepared>,
        work: &Work,
        deferral: Deferral,
        wait: Duration,
    ) -> Settled {
        self.metrics.deferred(deferral.label());
        self.settle.defer(hook, work, deferral, wait).await
    }

    /// Tells the hook's circuit how an attempt went.
    async fn judge(&self, hook: &Prepared, lease: &Lease, result: &Result<Receipt, DeliveryError>) {
        let circuit = &hook.gate.circuit;
        match result {
            Err(error) if error.is_receivers_fault() => {
                if circuit.failed(lease.is_probe()) {
                    self.accept.open(hook).await;
                }
            }
            Ok(_) | Err(_) => circuit.succeeded(lease.is_probe()),
        }
    }
}

/// Up to twice as long, the same for one delivery.
fn jittered(work: &Work, wait: Duration) -> Duration {
    wait.mul_f64(1.0 + (work.delivery.id.seed() % 1_000) as f64 / 1_000.0)
}

/// Makes one attempt; a panic is one that failed.
///
/// # Errors
/// [`DeliveryError`] tells why the event was not delivered.
pub async fn attempt(hook: &Prepared, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
    let attempt = AssertUnwindSafe(hook.handler.attempt(delivery)).catch_unwind();
    attempt.await.unwrap_or(Err(DeliveryError::Panicked))
}
