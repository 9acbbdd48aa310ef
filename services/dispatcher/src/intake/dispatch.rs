//! Messages on their way to the hooks that they are for: read, match, and batches of deliveries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hookline_shared::clock::unix_millis;
use hookline_shared::event::{self, Event, Stored};
use hookline_shared::pull::Place;
use hookline_shared::subject;
use tokio_util::task::TaskTracker;

use crate::admission::bulkhead::LaneOccupancy;
use crate::claims::{self, Claims};
use crate::delivery::{PendingDelivery, delivery};
use crate::hooks::{Index, Prepared};
use crate::intake::consumer;
use crate::intake::spread_limit::SpreadLimit;
use crate::metrics::{DeliveryResult, EventResult, Metrics};
use crate::nats::pulled_message::PulledMessage;
use crate::settle::Settle;
use crate::settle::open_message::{OpenDelivery, OpenMessage, Settled};
use crate::upkeep::outbox_purge::OutboxPurge;

/// How long deliveries of a hook wait that this version cannot read.
const UNREADABLE: Duration = Duration::from_secs(30);
/// Bytes of events that are read without a pause,
const READ_AT_ONCE: usize = 256 << 10;
/// where a delivery counts for so many.
const DELIVERY_WEIGHT: usize = 512;
/// An event with more deliveries than this is spread over all workers.
const MANY_HOOKS: usize = 64;
/// Or its copies would take more bytes than this.
const SPREAD_BYTES: usize = 64 << 20;

/// Has deliveries made that came together, at most [`claims::MOST`].
pub(crate) type Handover =
    Box<dyn Fn(Arc<LaneOccupancy>, Vec<(Arc<Prepared>, OpenDelivery)>) + Send + Sync>;

/// What both lanes share.
pub(crate) struct Dispatch {
    pub(crate) index: Arc<Index>,
    pub(crate) claims: Claims,
    pub(crate) settle: Arc<Settle>,
    pub(crate) outbox: OutboxPurge,
    pub(crate) spread: SpreadLimit,
    pub(crate) hand_over: Handover,
    pub(crate) tasks: TaskTracker,
    pub(crate) metrics: Metrics,
}

/// Events, whose deliveries are first attempts.
pub(crate) struct Events {
    /// Shared by the lanes.
    pub dispatch: Arc<Dispatch>,
    pub occupancy: Arc<LaneOccupancy>,
}

/// Deliveries that stand in a stream of their own: parked ones that fell due, and first attempts of
/// events that were spread over all workers.
pub(crate) struct Deliveries {
    /// Shared by the lanes.
    pub dispatch: Arc<Dispatch>,
    pub occupancy: Arc<LaneOccupancy>,
}

#[async_trait]
impl consumer::MessageSink for Events {
    /// The read barrier: what was pulled is matched against hooks at least as new.
    async fn prepare(&self) -> bool {
        self.dispatch.catch_up().await
    }

    async fn handle(&self, messages: Vec<PulledMessage>) {
        let dispatch = &self.dispatch;
        let snapshot = dispatch.index.snapshot();
        let mut batches = Batches::new(dispatch, &self.occupancy);
        for taken in messages {
            batches.make_room(&taken).await;
            let message = &taken.message;
            let Some(Place { stored, .. }) = Place::of(message) else {
                // Not from JetStream: nobody waits for an answer.
                continue;
            };
            let headers = message.headers.as_ref();
            match Event::parse(&message.subject, headers, message.payload.clone(), stored) {
                Ok(event) => {
                    let hooks = snapshot.matching(&event, stored);
                    dispatch.note(&event, stored, &hooks);
                    let deliveries = hooks.len();
                    let open =
                        OpenMessage::new(taken, Some(stored), self.occupancy.message(), deliveries);
                    dispatch.event(event, open, hooks, &mut batches).await;
                }
                Err(reason) => {
                    dispatch.metrics.event(EventResult::Malformed);
                    let id = event::identify(headers, stored);
                    let dispatch = Arc::clone(dispatch);
                    self.dispatch.tasks.spawn(async move {
                        let reason = reason.to_string();
                        let message = &taken.message;
                        let settle = &dispatch.settle;
                        settle.malformed(message, stored, &id, &reason).await;
                    });
                }
            }
        }
        batches.start();
    }
}

#[async_trait]
impl consumer::MessageSink for Deliveries {
    /// A parked delivery may have been attempted by a worker that knows the hooks better.
    async fn prepare(&self) -> bool {
        self.dispatch.catch_up().await
    }

    async fn handle(&self, messages: Vec<PulledMessage>) {
        let dispatch = &self.dispatch;
        let snapshot = dispatch.index.snapshot();
        let mut batches = Batches::new(dispatch, &self.occupancy);
        for taken in messages {
            batches.make_room(&taken).await;
            let message = &taken.message;
            if subject::is_for_any_worker(&message.subject)
                && let Some(place) = Place::of(message)
            {
                dispatch.spread.note(place.pending);
            }
            let id = subject::parse_ready_subject(&message.subject);
            let Some(hook) = id.and_then(|id| snapshot.get(id)) else {
                let settled = if id.is_some_and(|id| snapshot.knows(id)) {
                    Settled::NotYet(UNREADABLE)
                } else {
                    dispatch.metrics.delivery("none", DeliveryResult::Orphaned);
                    Settled::Dealt
                };
                dispatch.settle.message(message, None, settled).await;
                continue;
            };
            match PendingDelivery::read(message, hook) {
                Some(work) => {
                    let open = Arc::new(OpenMessage::new(taken, None, self.occupancy.message(), 1));
                    batches.add(hook, OpenDelivery { work, open });
                }
                None => {
                    let (dispatch, hook) = (Arc::clone(dispatch), Arc::clone(hook));
                    self.dispatch.tasks.spawn(async move {
                        dispatch.settle.unreadable(&taken.message, &hook).await;
                    });
                }
            }
        }
        batches.start();
    }
}

/// Deliveries that came together.
struct Batches {
    dispatch: Arc<Dispatch>,
    lane: Arc<LaneOccupancy>,
    batches: HashMap<Batch, Vec<(Arc<Prepared>, OpenDelivery)>>,
    /// What it took to read and match them.
    weight: usize,
}

/// What is claimed together.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Batch {
    /// Deliveries of all hooks.
    All,
    /// Those of one hook that may take others' time, or whose part of Redis may be away.
    Hook(Arc<str>),
}

impl Batches {
    fn new(dispatch: &Arc<Dispatch>, lane: &Arc<LaneOccupancy>) -> Self {
        Self {
            dispatch: Arc::clone(dispatch),
            lane: Arc::clone(lane),
            batches: HashMap::new(),
            weight: 0,
        }
    }

    fn add(&mut self, hook: &Arc<Prepared>, pending: OpenDelivery) {
        self.weight += DELIVERY_WEIGHT;
        let batch = if hook.is_plain() && self.dispatch.claims.groups() == 1 {
            Batch::All
        } else {
            Batch::Hook(Arc::clone(&hook.id))
        };
        let deliveries = self.batches.entry(batch).or_default();
        deliveries.push((Arc::clone(hook), pending));
        if deliveries.len() == claims::MOST {
            let deliveries = std::mem::take(deliveries);
            self.deliver(deliveries);
        }
    }

    /// Where a lot was read, it is delivered and others have the thread before the next message is read.
    async fn make_room(&mut self, next: &PulledMessage) {
        if self.weight > READ_AT_ONCE {
            self.start();
            tokio::task::yield_now().await;
        }
        self.weight += next.message.payload.len();
    }

    /// Has them delivered.
    fn start(&mut self) {
        self.weight = 0;
        for (_, deliveries) in std::mem::take(&mut self.batches) {
            self.deliver(deliveries);
        }
    }

    fn deliver(&self, deliveries: Vec<(Arc<Prepared>, OpenDelivery)>) {
        (self.dispatch.hand_over)(Arc::clone(&self.lane), deliveries);
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

    fn note(&self, event: &Event, stored: Stored, hooks: &[Arc<Prepared>]) {
        self.outbox.note(event);
        let age = i128::from(unix_millis()) * 1_000_000 - stored.time;
        let age = age.clamp(0, i128::from(u64::MAX)) as u64;
        self.metrics.delay(Duration::from_nanos(age));
        self.metrics.event(if hooks.is_empty() {
            EventResult::Unmatched
        } else {
            EventResult::Matched
        });
    }

    /// Has an event delivered to every hook that it fires.
    async fn event(
        self: &Arc<Self>,
        event: Event,
        open: OpenMessage,
        hooks: Vec<Arc<Prepared>>,
        batches: &mut Batches,
    ) {
        if hooks.is_empty() {
            let message = &open.pulled.message;
            return self
                .settle
                .message(message, open.event, Settled::Dealt)
                .await;
        }
        let (event, open, first_attempt) = (Arc::new(event), Arc::new(open), unix_millis());
        let is_wide = self.is_wide(&event, hooks.len());
        for hook in hooks {
            let work = PendingDelivery::first(delivery(&event, &hook), first_attempt);
            let open = Arc::clone(&open);
            if is_wide {
                let dispatch = Arc::clone(self);
                self.tasks.spawn(async move {
                    let settled = dispatch.settle.spread(&hook, work).await;
                    dispatch.settle.delivery(&open, settled).await;
                });
            } else {
                batches.add(&hook, OpenDelivery { work, open });
            }
        }
    }

    /// Whether an event matches so many hooks that all workers should share its deliveries. They stay
    /// with the event where copies of it would take too much of the disk, or where so many are to be
    /// made already: then the event waits for its turn.
    fn is_wide(&self, event: &Event, hooks: usize) -> bool {
        hooks > MANY_HOOKS
            && event.raw.len().saturating_mul(hooks) <= SPREAD_BYTES
            && !self.spread.is_reached()
            && !self.settle.storage.is_scarce()
    }
}
