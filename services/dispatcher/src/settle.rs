//! What becomes of a delivery after an attempt, and of an event after its deliveries. The only
//! place that acks, parks or buries.
//!
//! The order is always the same: what must survive is written to a stream first, then marked in
//! Redis, and only then is the message acked. Before anything is written the claim is renewed: a
//! worker whose delivery was taken over writes nothing.

pub(crate) mod combiner;
pub(crate) mod dead_letters;
pub(crate) mod open_message;
pub(crate) mod parked;
pub(crate) mod pause_hook;
mod schedule;
pub(crate) mod storage_guard;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{Client, Message};
use hookline_shared::batch::{self, Writer};
use hookline_shared::event::{EventId, Stored};
use hookline_shared::pull;
use hookline_shared::subject::{self, encode_header, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::admission::circuit_breaker::Verdict;
use crate::claims::{self, Claims, Lease, Release};
use crate::delivery::{PendingDelivery, cut};
use crate::handler::{Class, DeliveryError, Receipt};
use crate::hooks::Prepared;
use crate::metrics::{DeliveryResult, Metrics};
use crate::settle::combiner::{Combiner, Leader};
use crate::settle::dead_letters::DeadLetters;
use crate::settle::open_message::{OpenDelivery, OpenMessage, Settled};
use crate::settle::parked::Parked;
use crate::settle::pause_hook::Pauser;
use crate::settle::storage_guard::StorageGuard;
use crate::upkeep::event_purge::EventPurge;
use crate::upkeep::watchdog::Progress;
use schedule::{deferral_delay, jittered};

pub(crate) use schedule::{delay, is_too_old};

/// How soon an event comes again whose delivery could not be settled.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest that such an event waits.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How long a dead delivery stays parked for which there is no room.
const NO_ROOM: Duration = Duration::from_secs(300);
/// How often a delivery is parked anew that somebody else parked at the same time.
const PARK_TRIES: usize = 5;
/// How much of a malformed event is kept.
const DEAD_EVENT_BYTES: usize = 64 << 10;

/// Why a delivery is parked without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// The hook is paused.
    Paused,
    /// The hook has no permit free soon.
    NoRoom,
    /// The hook's circuit is open.
    Open,
    /// The hook's rate limit is used up.
    Limited,
}

impl Deferral {
    /// The metric's label.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::NoRoom => "no_room",
            Self::Open => "circuit_open",
            Self::Limited => "rate_limit",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Paused => "the hook is paused",
            Self::NoRoom => "the hook has as many attempts as it may",
            Self::Open => "the hook's receiver fails",
            Self::Limited => "the hook's rate limit is used up",
        }
    }
}

/// A delivery that was made: its claim is to be ended, and then its message is to be told.
pub(crate) struct Delivered {
    hook: Arc<Prepared>,
    lease: Lease,
    open: Arc<OpenMessage>,
}

/// Settles deliveries and their messages.
pub(crate) struct Settle {
    /// Where messages are answered.
    pub client: Client,
    /// Writes parked deliveries.
    pub deliveries: Writer,
    /// Writes deliveries that any worker may make at once.
    pub fanout: Writer,
    /// Looks at parked deliveries.
    pub parked: Parked,
    /// Whether more may be parked.
    pub storage: StorageGuard,
    /// Keeps dead letters.
    pub dead: DeadLetters,
    /// Claims.
    pub accept: Claims,
    /// What was delivered and is to be settled, by [`Claims::group_of`].
    pub delivered: Vec<Combiner<Delivered>>,
    /// Pauses hooks.
    pub pauser: Pauser,
    /// Makes room where messages are acked.
    pub trim: EventPurge,
    /// Counts what is settled.
    pub progress: Progress,
    /// Metrics.
    pub metrics: Metrics,
}

impl Settle {
    /// Settles an attempt by its result.
    pub(crate) async fn attempt(
        &self,
        hook: &Arc<Prepared>,
        pending: OpenDelivery,
        lease: Lease,
        result: Result<Receipt, DeliveryError>,
    ) {
        let OpenDelivery { work, open } = pending;
        let settled = match result {
            Ok(receipt) if lease.is_plain() => {
                // It may take long to see to all the others.
                drop((work, receipt));
                let hook = Arc::clone(hook);
                let queue = &self.delivered[self.accept.group_of(&hook)];
                if let Some(turn) = queue.enter(Delivered { hook, lease, open }) {
                    Box::pin(self.delivered(turn)).await;
                }
                return;
            }
            Ok(_) => {
                let mine = Box::pin(self.accept.finish(&lease, Release::Done)).await;
                self.count(hook, of_delivered(mine))
            }
            Err(error) => Box::pin(self.failed(hook, &work, &lease, error)).await,
        };
        self.delivery(&open, settled).await;
    }

    /// Settles deliveries that were made, whoever's turn it is.
    async fn delivered(&self, mut turn: Leader<Delivered>) {
        // Whoever is about to come comes along.
        tokio::task::yield_now().await;
        while let Some(part) = turn.next(claims::MOST) {
            let leases = part.iter().map(|delivered| &delivered.lease);
            let others = Box::pin(self.accept.done(leases)).await;
            for (index, delivered) in part.iter().enumerate() {
                let settled = self.count(&delivered.hook, of_delivered(!others.contains(&index)));
                self.delivery(&delivered.open, settled).await;
            }
        }
    }

    /// Parks or buries a delivery whose attempt failed.
    async fn failed(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        lease: &Lease,
        error: DeliveryError,
    ) -> Settled {
        if !self.accept.renew(lease).await {
            return self.count(hook, DeliveryResult::Busy);
        }
        let class = error.class();
        let delay = delay(hook, work, class)
            .map(|delay| match hook.gate.circuit.verdict() {
                // Before that there is no attempt.
                Verdict::Open(wait) => delay.max(deferral_delay(work, Deferral::Open, wait)),
                Verdict::Closed | Verdict::HalfOpen => delay,
            })
            .filter(|delay| !is_too_old(hook, work, *delay));
        let full = delay.is_some() && self.is_backlog_full(hook).await;
        let reason = if full {
            format!("backlog full: {error}")
        } else {
            error.to_string()
        };
        let settled = match delay.filter(|_| !full) {
            Some(delay) => {
                tracing::debug!(
                    hook = hook.hook.id,
                    delivery = %work.delivery.id,
                    attempt = work.attempt,
                    retry_in_ms = delay.as_millis() as u64,
                    %error,
                    "an attempt failed"
                );
                let next = work.next(class);
                let written = self.park(hook, &next, delay, &reason).await;
                written.map(|()| (Release::Parked(delay), DeliveryResult::Retry))
            }
            None => {
                log_dead(hook, work, &error);
                if class == Class::Gone {
                    self.pauser
                        .pause(&hook.workspace, &hook.hook.id, &error.to_string())
                        .await;
                }
                let next = work.next(class);
                self.bury_or_park(hook, work, &next, &reason).await
            }
        };
        match settled {
            Ok((end, result)) => {
                self.accept.finish(lease, end).await;
                self.count(hook, result)
            }
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be parked or buried, its message stays");
                self.accept.finish(lease, Release::GivenBack).await;
                self.unsettled(hook, delay.unwrap_or(AGAIN_AT_MOST))
            }
        }
    }

    /// Parks a delivery without an attempt. If it was claimed, this is how the claim ends.
    pub(crate) async fn defer(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        deferral: Deferral,
        wait: Duration,
    ) -> (Settled, Release) {
        let again = PendingDelivery {
            deferrals: work.deferrals + 1,
            reserved: work.reserved || deferral == Deferral::Limited,
            ..work.clone()
        };
        let delay = deferral_delay(work, deferral, wait);
        let reason = match deferral {
            // Whoever pauses a hook decides for how long.
            Deferral::Paused => None,
            _ if is_too_old(hook, work, delay) => Some("too old"),
            _ if self.is_backlog_full(hook).await => Some("backlog full"),
            _ => None,
        };
        if let Some(reason) = reason {
            return self.give_up(hook, work, &again, deferral, reason).await;
        }
        match self.park(hook, &again, delay, deferral.reason()).await {
            Ok(()) => (
                self.count(hook, DeliveryResult::Deferred),
                Release::GivenBack,
            ),
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be parked, its message stays");
                (self.unsettled(hook, delay), Release::GivenBack)
            }
        }
    }

    /// Stores a first attempt for whichever worker takes it first. What is stored twice, since its
    /// event came again, is told apart by its claim.
    pub(crate) async fn spread(&self, hook: &Prepared, work: PendingDelivery) -> Settled {
        let subject = subject::now_subject(&hook.hook.id, work.delivery.id.as_str());
        let message = work.message(subject, "one of many");
        let stored = if self.storage.is_scarce() {
            Err(batch::Error::Full)
        } else {
            self.fanout.commit(vec![message]).await
        };
        match stored {
            Ok(_) => self.count(hook, DeliveryResult::Spread),
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be stored, its event stays");
                self.unsettled(hook, AGAIN)
            }
        }
    }

    /// Buries a delivery that may wait no longer.
    async fn give_up(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        again: &PendingDelivery,
        deferral: Deferral,
        reason: &str,
    ) -> (Settled, Release) {
        let reason = format!("{reason}: it waited since {}", deferral.reason());
        tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, reason, "a delivery is dead");
        match self.bury_or_park(hook, work, again, &reason).await {
            Ok((end, result)) => (self.count(hook, result), end),
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be buried, its message stays");
                (self.unsettled(hook, AGAIN), Release::GivenBack)
            }
        }
    }

    /// Whether no more of the hook's deliveries may wait. What cannot be told is no reason.
    async fn is_backlog_full(&self, hook: &Prepared) -> bool {
        if hook.backlog.one_more() {
            let asked = Instant::now();
            if let Ok(count) = self.parked.count(&hook.hook.id, hook.backlog.few()).await {
                let workers = self.accept.workers();
                hook.backlog.counted(count, asked.elapsed(), workers);
            }
        }
        hook.backlog.is_full()
    }

    /// Buries what is no event, and ends its message.
    pub(crate) async fn malformed(
        &self,
        message: &Message,
        event: Stored,
        id: &EventId,
        reason: &str,
    ) {
        let workspace = message.subject.split('.').nth(2).unwrap_or_default();
        let letter = subject::dead_event_subject(&id.digest(workspace));
        self.bury_message(message, Some(event), letter, id, reason)
            .await;
    }

    /// Buries a stored delivery that cannot be read, with its hook's others, and ends its message.
    pub(crate) async fn unreadable(&self, message: &Message, hook: &Prepared) {
        let id = EventId::given(message.subject.as_str());
        let letter = subject::dead_subject(&hook.hook.id, &id.digest(""));
        let reason = "the stored delivery cannot be read";
        self.bury_message(message, None, letter, &id, reason).await;
    }

    async fn bury_message(
        &self,
        message: &Message,
        event: Option<Stored>,
        letter: String,
        id: &EventId,
        reason: &str,
    ) {
        let body = message
            .payload
            .slice(..message.payload.len().min(DEAD_EVENT_BYTES));
        let letter = batch::Message::new(letter, body)
            .header(header::SUBJECT, encode_header(&message.subject))
            .header(header::EVENT_ID, encode_header(cut(id.as_str())))
            .header(header::ORIGINAL_SIZE, message.payload.len().to_string())
            .header(header::REASON, encode_header(cut(reason)));
        let kind = match self.dead.keep(letter).await {
            Ok(()) => {
                tracing::warn!(subject = %message.subject, event = cut(id.as_str()), reason, "a message is malformed and dead");
                AckKind::Term
            }
            Err(error) => {
                tracing::warn!(event = cut(id.as_str()), %error, "a malformed message could not be buried and stays");
                let full = matches!(error, batch::Error::Full);
                AckKind::Nak(Some(if full { AGAIN_AT_MOST } else { AGAIN }))
            }
        };
        self.send(message, event, kind).await;
    }

    /// A delivery of a message came to this. After the last one the message is ended: acked if each was
    /// dealt with.
    pub(crate) async fn delivery(&self, open: &OpenMessage, settled: Settled) {
        if let Some(all) = open.tally.add(settled) {
            self.message(&open.taken.message, open.event, all).await;
        }
    }

    /// Ends a message that came to this.
    pub(crate) async fn message(&self, message: &Message, event: Option<Stored>, settled: Settled) {
        let kind = match settled {
            Settled::Dealt => AckKind::Ack,
            Settled::NotYet(delay) => AckKind::Nak(Some(delay)),
            // Whoever took it over got the message as well; an ack from here could lose it.
            Settled::TakenOver => return,
        };
        self.send(message, event, kind).await;
    }

    /// A delivery whose message is to come again after that time, as it is.
    pub(crate) fn not_yet(&self, hook: &Prepared, wait: Duration) -> Settled {
        let kind = hook.handler.kind();
        self.metrics.delivery(kind, DeliveryResult::NotYet);
        Settled::NotYet(wait)
    }

    async fn send(&self, message: &Message, event: Option<Stored>, kind: AckKind) {
        self.progress.settled();
        if let Some(event) = event.filter(|_| matches!(kind, AckKind::Ack | AckKind::Term)) {
            self.trim.note(event);
        }
        // A message that is not answered comes again.
        if let Err(error) = pull::answer(&self.client, message, kind).await {
            tracing::debug!(%error, "an ack could not be sent");
        }
    }

    /// A delivery that could not be written where it belongs: its message comes again when it
    /// would have been due, so that a full disk does not make receivers suffer.
    fn unsettled(&self, hook: &Prepared, delay: Duration) -> Settled {
        self.count(hook, DeliveryResult::Unsettled);
        Settled::NotYet(delay.clamp(AGAIN, AGAIN_AT_MOST))
    }

    /// Counts a result, and says what it means for the message.
    pub(crate) fn count(&self, hook: &Prepared, result: DeliveryResult) -> Settled {
        self.metrics.delivery(hook.handler.kind(), result);
        match result {
            DeliveryResult::Busy => Settled::TakenOver,
            DeliveryResult::NotYet | DeliveryResult::Unsettled => Settled::NotYet(AGAIN),
            DeliveryResult::Delivered
            | DeliveryResult::Retry
            | DeliveryResult::Dead
            | DeliveryResult::Duplicate
            | DeliveryResult::Deferred
            | DeliveryResult::Spread
            | DeliveryResult::Snoozed
            | DeliveryResult::Unchanged
            | DeliveryResult::Orphaned => Settled::Dealt,
        }
    }

    /// Parks a delivery for an attempt. What waits for this attempt already, or for a later one,
    /// stays as it is: a late or repeated message must not take a delivery back.
    async fn park(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        delay: Duration,
        reason: &str,
    ) -> Result<(), batch::Error> {
        if self.storage.is_scarce() {
            return Err(batch::Error::Full);
        }
        let (hook, id) = (hook.hook.id.as_str(), work.delivery.id.as_str());
        let due = OffsetDateTime::now_utc() + delay;
        let due = due
            .format(&Rfc3339)
            .map_err(|_| batch::Error::Unavailable)?;
        let wait = subject::wait_subject(hook, id);
        let message = work
            .message(wait.clone(), reason)
            .header(header::SCHEDULE, format!("@at {due}"))
            .header(header::SCHEDULE_TARGET, subject::due_subject(hook, id));
        let mut sequence = 0;
        for _ in 0..PARK_TRIES {
            let message = message.clone().expect_last(sequence);
            match self.deliveries.commit(vec![message]).await {
                Ok(_) => return Ok(()),
                Err(batch::Error::Conflict) => {}
                Err(error) => return Err(error),
            }
            sequence = match self.parked.last(&wait).await? {
                Some(parked) if parked.attempt >= work.attempt => return Ok(()),
                Some(parked) => parked.sequence,
                None => 0,
            };
        }
        Err(batch::Error::Conflict)
    }

    /// Buries a delivery. While there is no room for dead letters it stays parked, to be tried again
    /// later.
    async fn bury_or_park(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        again: &PendingDelivery,
        reason: &str,
    ) -> Result<(Release, DeliveryResult), batch::Error> {
        let buried = self.bury(hook, work, reason).await;
        if matches!(buried, Err(batch::Error::Full)) {
            let reason = format!("no room for dead letters: {reason}");
            let wait = jittered(work, NO_ROOM);
            self.park(hook, again, wait, &reason).await?;
            return Ok((Release::Parked(wait), DeliveryResult::Retry));
        }
        buried.map(|()| (Release::Buried, DeliveryResult::Dead))
    }

    async fn bury(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        reason: &str,
    ) -> Result<(), batch::Error> {
        let subject = subject::dead_subject(&hook.hook.id, work.delivery.id.as_str());
        let message = work
            .message(subject, reason)
            .header(header::HANDLER, hook.handler.kind());
        self.dead.keep(message).await
    }
}

fn of_delivered(mine: bool) -> DeliveryResult {
    if mine {
        DeliveryResult::Delivered
    } else {
        DeliveryResult::Busy
    }
}

/// One line for a delivery that is given up on; an error that a script raised is the user's own
/// record, as in Kong's log.
fn log_dead(hook: &Prepared, work: &PendingDelivery, error: &DeliveryError) {
    let (hook, delivery, attempt) = (&hook.hook.id, &work.delivery.id, work.attempt);
    if matches!(error, DeliveryError::Script(_)) {
        tracing::error!(hook, %delivery, attempt, "{error}");
    } else {
        tracing::warn!(hook, %delivery, attempt, reason = %error, "a delivery is dead");
    }
}
