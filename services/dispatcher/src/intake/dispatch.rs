//! Reads messages, matches events with hooks, and hands deliveries over in batches.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_trait::async_trait;
use futures::future::join_all;
use hookline_shared::clock::unix_millis;
use hookline_shared::event::{self, Event, Stored};
use hookline_shared::pull::Place;
use hookline_shared::subject;
use tokio_util::task::TaskTracker;

use crate::admission::bulkhead::LaneOccupancy;
use crate::claims::Claims;
use crate::delivery::{PendingDelivery, delivery};
use crate::hooks::{Index, Prepared, Snapshot};
use crate::intake::batches::Batches;
use crate::intake::consumer;
use crate::intake::spread_limit::SpreadLimit;
use crate::intake::suspects::{self, Suspects};
use crate::intake::workspaces::Workspaces;
use crate::metrics::{EventOutcome, Metrics};
use crate::nats::pulled_message::PulledMessage;
use crate::settle::Settle;
use crate::settle::bury::STOPS_WORKERS;
use crate::settle::open_message::{OpenDelivery, OpenMessage, Settled};
use crate::upkeep::outbox_purge::OutboxPurge;

/// Redelivery if this version cannot read the hook.
const UNREADABLE: Duration = Duration::from_secs(30);
/// An event with more deliveries is spread over all workers,
const MANY_HOOKS: usize = 64;
/// unless its copies would take more bytes than this.
const SPREAD_BYTES: usize = 64 << 20;

type Handed = (Arc<Prepared>, OpenDelivery);
/// Takes at most [`claims::MOST`](crate::claims::MOST) deliveries.
pub(crate) type Handover = Box<dyn Fn(Arc<LaneOccupancy>, Vec<Handed>) + Send + Sync>;

/// Shared by the lanes.
pub(crate) struct Dispatch {
    pub(crate) index: Arc<Index>,
    pub(crate) claims: Claims,
    pub(crate) settle: Arc<Settle>,
    pub(crate) outbox: OutboxPurge,
    pub(crate) spread: SpreadLimit,
    pub(crate) suspects: Suspects,
    pub(crate) workspaces: Workspaces,
    pub(crate) hand_over: Handover,
    pub(crate) tasks: TaskTracker,
    pub(crate) metrics: Metrics,
}

/// Where a lane's messages go.
pub(crate) struct Sink {
    pub dispatch: Arc<Dispatch>,
    pub occupancy: Arc<LaneOccupancy>,
    pub content: Content,
}

/// What messages hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    /// Events, whose deliveries are first attempts.
    Events,
    /// Parked deliveries that fell due, or first attempts of events that were spread over all workers.
    Deliveries,
}

impl Content {
    fn stream(self) -> &'static str {
        match self {
            Self::Events => subject::EVENTS_STREAM,
            Self::Deliveries => subject::DELIVERIES_STREAM,
        }
    }
}

#[async_trait]
impl consumer::MessageSink for Sink {
    /// The read barrier: events are matched with hooks that are at least as new. A parked delivery may have been
    /// attempted by a worker with newer hooks.
    async fn prepare(&self) -> bool {
        match self.dispatch.index.catch_up().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "cannot catch up with the hooks, messages are given back");
                false
            }
        }
    }

    async fn handle(&self, messages: Vec<PulledMessage>) {
        let (new, before) = suspects::part(messages);
        if !new.is_empty() {
            self.read(new).await;
        }
        if !before.is_empty() {
            self.suspect(before).await;
        }
    }
}

impl Sink {
    /// Handles messages that were delivered before, up to their ends.
    async fn suspect(&self, messages: Vec<PulledMessage>) {
        let (suspects, stream) = (&self.dispatch.suspects, self.content.stream());
        let plan = match suspects.plan(stream, messages).await {
            Ok(plan) => plan,
            Err(messages) => return self.read(messages).await,
        };
        for convicted in plan.convicted {
            self.convict(&convicted).await;
        }
        let mut open = Vec::new();
        for group in plan.groups {
            let (messages, started) = suspects.start(stream, group).await;
            self.read(messages).await;
            let end = suspects.end(stream, started);
            if plan.in_turn {
                end.await;
            } else {
                open.push(end);
            }
        }
        join_all(open).await;
    }

    /// Buries a message that has stopped its workers.
    async fn convict(&self, pulled: &PulledMessage) {
        let (dispatch, message) = (&self.dispatch, &pulled.message);
        let snapshot = dispatch.index.snapshot();
        let id = subject::parse_ready_subject(&message.subject);
        if let Some(hook) = id.and_then(|id| snapshot.get(id))
            && let Some(pending) =
                PendingDelivery::read(message, &hook.id, hook.event_name.as_ref())
        {
            return dispatch.settle.convicted(message, hook, &pending).await;
        }
        if let Some(Place { stored, .. }) = pulled.place {
            let id = event::identify(message.headers.as_ref(), stored);
            dispatch
                .settle
                .malformed(message, stored, &id, STOPS_WORKERS)
                .await;
        }
    }

    async fn read(&self, messages: Vec<PulledMessage>) {
        let snapshot = self.dispatch.index.snapshot();
        let hand_over = |deliveries| {
            (self.dispatch.hand_over)(Arc::clone(&self.occupancy), deliveries);
        };
        let mut batches = Batches::new(self.dispatch.claims.groups(), hand_over);
        for pulled in messages {
            batches.pause_before(pulled.message.payload.len()).await;
            match self.content {
                Content::Events => self.event(pulled, &snapshot, &mut batches).await,
                Content::Deliveries => self.delivery(pulled, &snapshot, &mut batches).await,
            }
        }
        batches.hand_over_all();
    }

    async fn event(
        &self,
        pulled: PulledMessage,
        snapshot: &Snapshot,
        batches: &mut Batches<Handed, impl Fn(Vec<Handed>)>,
    ) {
        let (dispatch, message) = (&self.dispatch, &pulled.message);
        let Some(Place {
            stored, deliveries, ..
        }) = pulled.place
        else {
            // Not from JetStream, so it needs no answer.
            return;
        };
        let is_new = deliveries <= 1;
        let headers = message.headers.as_ref();
        match Event::parse(&message.subject, headers, message.payload.clone(), stored) {
            Ok(event) => {
                let hooks = snapshot.matching(&event, stored);
                dispatch.note(&event);
                if is_new {
                    dispatch.count(stored, &hooks);
                }
                let occupied = self.occupancy.message();
                let open = OpenMessage::new(pulled, Some(stored), occupied, hooks.len());
                dispatch.event(event, open, hooks, batches).await;
            }
            Err(reason) => {
                if is_new {
                    dispatch.metrics.event(EventOutcome::Malformed);
                }
                let id = event::identify(headers, stored);
                let settle = Arc::clone(&dispatch.settle);
                dispatch.tasks.spawn(async move {
                    let reason = reason.to_string();
                    let message = &pulled.message;
                    settle.malformed(message, stored, &id, &reason).await;
                });
            }
        }
    }

    async fn delivery(
        &self,
        pulled: PulledMessage,
        snapshot: &Snapshot,
        batches: &mut Batches<Handed, impl Fn(Vec<Handed>)>,
    ) {
        let (dispatch, message) = (&self.dispatch, &pulled.message);
        if subject::is_for_any_worker(&message.subject)
            && let Some(place) = pulled.place
        {
            dispatch.spread.note(place.pending);
        }
        let id = subject::parse_ready_subject(&message.subject);
        let Some(hook) = id.and_then(|id| snapshot.get(id)) else {
            if id.is_some_and(|id| snapshot.knows(id)) {
                let later = Settled::NotYet(UNREADABLE);
                return dispatch.settle.message(message, None, later).await;
            }
            return dispatch.orphaned(message).await;
        };
        let hook = Arc::clone(hook);
        match PendingDelivery::read(message, &hook.id, hook.event_name.as_ref()) {
            Some(pending) if !hook.owns(pending.incarnation) => dispatch.orphaned(message).await,
            Some(pending) if hook.is_of(&pending.delivery.event.workspace) => {
                let open = OpenMessage::new(pulled, None, self.occupancy.message(), 1);
                let open = Arc::new(open);
                let (id, is_plain) = (Arc::clone(&hook.id), hook.is_plain());
                batches.add(&id, is_plain, (hook, OpenDelivery { pending, open }));
            }
            // A hook gets no event of another workspace, whatever is stored.
            _ => {
                let settle = Arc::clone(&dispatch.settle);
                dispatch.tasks.spawn(async move {
                    settle.unreadable(&pulled.message, &hook).await;
                });
            }
        }
    }
}

impl Dispatch {
    /// Settles a delivery whose hook was deleted.
    async fn orphaned(&self, message: &Message) {
        self.metrics.orphaned();
        self.settle.message(message, None, Settled::Final).await;
    }

    fn note(&self, event: &Event) {
        self.outbox.note(event);
        self.workspaces.note(&event.workspace);
    }

    /// Counts an event once, however often it is delivered.
    fn count(&self, stored: Stored, hooks: &[Arc<Prepared>]) {
        let now = unix_millis();
        let age = i128::from(now) * 1_000_000 - stored.time;
        let age = age.clamp(0, i128::from(u64::MAX)) as u64;
        self.metrics.picked_up(now, Duration::from_nanos(age));
        self.metrics.event(if hooks.is_empty() {
            EventOutcome::Unmatched
        } else {
            EventOutcome::Matched
        });
    }

    /// Hands over an event's deliveries, or stores them for any worker.
    async fn event(
        self: &Arc<Self>,
        event: Event,
        open: OpenMessage,
        hooks: Vec<Arc<Prepared>>,
        batches: &mut Batches<Handed, impl Fn(Vec<Handed>)>,
    ) {
        if hooks.is_empty() {
            let message = &open.pulled.message;
            return self
                .settle
                .message(message, open.event, Settled::Final)
                .await;
        }
        let now = unix_millis();
        let event_time = open.event.map_or(now, Stored::unix_millis);
        let (event, open) = (Arc::new(event), Arc::new(open));
        let is_spread = self.is_spread(&event, hooks.len());
        for hook in hooks {
            let delivery = delivery(&event, &hook.id, hook.event_name.as_ref());
            let pending = PendingDelivery::first(delivery, hook.incarnation(), event_time, now);
            let open = Arc::clone(&open);
            if is_spread {
                let dispatch = Arc::clone(self);
                self.tasks.spawn(async move {
                    let settled = dispatch.settle.spread(&hook, pending).await;
                    dispatch.settle.delivery(&open, settled).await;
                });
            } else {
                let (id, is_plain) = (Arc::clone(&hook.id), hook.is_plain());
                batches.add(&id, is_plain, (hook, OpenDelivery { pending, open }));
            }
        }
    }

    /// Whether all workers share an event's deliveries: not if too many deliveries wait for any worker already.
    fn is_spread(&self, event: &Event, hooks: usize) -> bool {
        is_wide(event.raw.len(), hooks)
            && !self.spread.is_reached()
            && !self.settle.storage.is_scarce()
    }
}

fn is_wide(bytes: usize, hooks: usize) -> bool {
    hooks > MANY_HOOKS && bytes.saturating_mul(hooks) <= SPREAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_for_many_hooks_is_wide_unless_its_copies_take_too_many_bytes() {
        assert!(!is_wide(10, MANY_HOOKS));
        assert!(is_wide(10, MANY_HOOKS + 1));
        assert!(is_wide(SPREAD_BYTES / 128, 128));
        assert!(!is_wide(SPREAD_BYTES / 128 + 1, 128));
        assert!(!is_wide(usize::MAX, usize::MAX));
    }
}
