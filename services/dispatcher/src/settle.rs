//! What becomes of a delivery after an attempt, and of an event after its deliveries. The only
//! place that acks, parks or buries.
//!
//! The order is always the same: what must survive is written to a stream first, then marked in
//! Redis, and only then is the message acked. Before anything is written the claim is renewed: a
//! worker whose delivery was taken over writes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{AckKind, Message};
use hookline_shared::batch::{self, Writer};
use hookline_shared::event::{Event, EventId};
use hookline_shared::retry::{self, Policy};
use hookline_shared::subject::{self, encode_header, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::accept::{Accept, End, Lease};
use crate::handler::{Class, Delivery, DeliveryError, Receipt};
use crate::index::Prepared;
use crate::metrics::{DeliveryResult, Metrics};
use crate::parked::Parked;
use crate::pause::Pauser;
use crate::watchdog::Progress;

/// How soon an event comes again whose delivery could not be settled.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest that such an event waits.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How often a delivery is parked anew that somebody else parked at the same time.
const PARK_TRIES: usize = 5;
/// How much of a malformed event is kept.
const DEAD_EVENT_BYTES: usize = 64 << 10;
/// How long a reason may be, in bytes.
const REASON_BYTES: usize = 1_024;

/// One delivery on one worker.
#[derive(Debug, Clone)]
pub struct Work {
    /// The delivery.
    pub delivery: Delivery,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When the first attempt began, in Unix milliseconds.
    pub first_attempt: u64,
    /// How often it was parked without an attempt since the last one.
    pub deferrals: u32,
    /// Whether it has its place in the hook's rate limit.
    pub reserved: bool,
    /// How many attempts were answered that the request is wrong.
    pub refusals: u32,
    /// How many attempts there were before it was replayed: they count for no schedule.
    pub before: u32,
}

impl Work {
    /// The first attempt of a delivery.
    #[must_use]
    pub fn first(delivery: Delivery, now: u64) -> Self {
        Self {
            delivery,
            attempt: 1,
            first_attempt: now,
            deferrals: 0,
            reserved: false,
            refusals: 0,
            before: 0,
        }
    }

    /// The attempt after one that failed in this way.
    fn next(&self, class: Class) -> Self {
        Self {
            attempt: self.attempt + 1,
            deferrals: 0,
            reserved: false,
            refusals: self.refusals + u32::from(class == Class::RetryBriefly),
            ..self.clone()
        }
    }
}

/// Why a delivery is parked without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferral {
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
    pub fn label(self) -> &'static str {
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

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done, parked or dead: its message may be acked.
    Dealt,
    /// Not yet: its message comes again after that time.
    NotYet(Duration),
    /// Another worker has it, message and all.
    TakenOver,
}

/// Settles deliveries and their messages.
pub struct Settle {
    /// Writes parked deliveries.
    pub deliveries: Writer,
    /// Looks at parked deliveries.
    pub parked: Parked,
    /// Writes dead letters.
    pub dead: Writer,
    /// Claims.
    pub accept: Accept,
    /// Pauses hooks.
    pub pauser: Pauser,
    /// Counts what is settled.
    pub progress: Progress,
    /// Metrics.
    pub metrics: Metrics,
}

impl Settle {
    /// Settles an attempt by its result.
    pub async fn attempt(
        &self,
        hook: &Arc<Prepared>,
        work: &Work,
        lease: &Lease,
        result: Result<Receipt, DeliveryError>,
    ) -> Settled {
        let error = match result {
            Ok(_) => {
                let mine = self.accept.finish(lease, End::Done).await;
                return self.count(
                    hook,
                    if mine {
                        DeliveryResult::Delivered
                    } else {
                        DeliveryResult::Busy
                    },
                );
            }
            Err(error) => error,
        };
        if !self.accept.renew(lease).await {
            return self.count(hook, DeliveryResult::Busy);
        }
        let class = error.class();
        let delay = delay(hook, work, class).filter(|delay| !is_too_old(hook, work, *delay));
        let full = delay.is_some() && self.is_backlog_full(hook).await;
        let reason = if full {
            format!("backlog full: {error}")
        } else {
            error.to_string()
        };
        let (written, end, result) = match delay.filter(|_| !full) {
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
                (written, End::Parked(delay), DeliveryResult::Retry)
            }
            None => {
                log_dead(hook, work, &error);
                if class == Class::Gone {
                    self.pauser
                        .pause(&hook.workspace, &hook.hook.id, &error.to_string())
                        .await;
                }
                let written = self.bury(hook, work, &reason).await;
                (written, End::Buried, DeliveryResult::Dead)
            }
        };
        if let Err(error) = written {
            tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be parked or buried, its message stays");
            self.accept.finish(lease, End::Released).await;
            let delay = match end {
                End::Parked(delay) => delay,
                End::Done | End::Buried | End::Released => AGAIN,
            };
            return self.unsettled(hook, delay);
        }
        self.accept.finish(lease, end).await;
        self.count(hook, result)
    }

    /// Parks a delivery without an attempt.
    pub async fn defer(
        &self,
        hook: &Arc<Prepared>,
        work: &Work,
        deferral: Deferral,
        wait: Duration,
    ) -> Settled {
        let again = Work {
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
            return self.give_up(hook, work, deferral, reason).await;
        }
        match self.park(hook, &again, delay, deferral.reason()).await {
            Ok(()) => self.count(hook, DeliveryResult::Deferred),
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be parked, its message stays");
                self.unsettled(hook, delay)
            }
        }
    }

    /// Buries a delivery that may wait no longer.
    async fn give_up(
        &self,
        hook: &Arc<Prepared>,
        work: &Work,
        deferral: Deferral,
        reason: &str,
    ) -> Settled {
        let reason = format!("{reason}: it waited since {}", deferral.reason());
        tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, reason, "a delivery is dead");
        match self.bury(hook, work, &reason).await {
            Ok(()) => self.count(hook, DeliveryResult::Dead),
            Err(error) => {
                tracing::warn!(hook = hook.hook.id, delivery = %work.delivery.id, %error, "a delivery could not be buried, its message stays");
                self.unsettled(hook, AGAIN)
            }
        }
    }

    /// Whether no more of the hook's deliveries may wait. What cannot be told is no reason.
    async fn is_backlog_full(&self, hook: &Prepared) -> bool {
        if hook.backlog.one_more()
            && let Ok(count) = self.parked.count(&hook.hook.id).await
        {
            hook.backlog.counted(count);
        }
        hook.backlog.is_full()
    }

    /// Buries what is no event, and ends its message.
    pub async fn malformed(&self, message: &Message, id: &EventId, reason: &str) {
        let workspace = message.subject.split('.').nth(2).unwrap_or_default();
        let body = message
            .payload
            .slice(..message.payload.len().min(DEAD_EVENT_BYTES));
        let letter = batch::Message::new(subject::dead_event_subject(&id.digest(workspace)), body)
            .header(header::SUBJECT, encode_header(&message.subject))
            .header(header::EVENT_ID, encode_header(cut(id.as_str())))
            .header(header::ORIGINAL_SIZE, message.payload.len().to_string())
            .header(header::REASON, encode_header(cut(reason)));
        let kind = match self.dead.commit(vec![letter]).await {
            Ok(_) => {
                tracing::warn!(subject = %message.subject, event = cut(id.as_str()), reason, "a message is no event and is dead");
                AckKind::Term
            }
            Err(error) => {
                tracing::warn!(event = cut(id.as_str()), %error, "a message that is no event could not be buried and stays");
                AckKind::Nak(Some(AGAIN))
            }
        };
        self.send(message, kind).await;
    }

    /// Ends a message whose deliveries have come to this: acks it if each was dealt with.
    pub async fn message(&self, message: &Message, deliveries: &[Settled]) {
        let mut wait = None;
        for settled in deliveries {
            match settled {
                Settled::Dealt => {}
                Settled::NotYet(delay) => wait = wait.max(Some(*delay)),
                // Whoever took it over got the message as well; an ack from here could lose it.
                Settled::TakenOver => return,
            }
        }
        let kind = wait.map_or(AckKind::Ack, |delay| AckKind::Nak(Some(delay)));
        self.send(message, kind).await;
    }

    /// A delivery whose message is to come again after that time, as it is.
    pub fn not_yet(&self, hook: &Prepared, wait: Duration) -> Settled {
        let kind = hook.handler.kind();
        self.metrics.delivery(kind, DeliveryResult::NotYet);
        Settled::NotYet(wait)
    }

    async fn send(&self, message: &Message, kind: AckKind) {
        self.progress.settled();
        // A message that is not answered comes again.
        if let Err(error) = message.ack_with(kind).await {
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
    pub fn count(&self, hook: &Prepared, result: DeliveryResult) -> Settled {
        self.metrics.delivery(hook.handler.kind(), result);
        match result {
            DeliveryResult::Busy => Settled::TakenOver,
            DeliveryResult::NotYet | DeliveryResult::Unsettled => Settled::NotYet(AGAIN),
            DeliveryResult::Delivered
            | DeliveryResult::Retry
            | DeliveryResult::Dead
            | DeliveryResult::Duplicate
            | DeliveryResult::Deferred
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
        work: &Work,
        delay: Duration,
        reason: &str,
    ) -> Result<(), batch::Error> {
        let (hook, id) = (hook.hook.id.as_str(), work.delivery.id.as_str());
        let due = OffsetDateTime::now_utc() + delay;
        let due = due
            .format(&Rfc3339)
            .map_err(|_| batch::Error::Unavailable)?;
        let wait = subject::wait_subject(hook, id);
        let message = describe(wait.clone(), work, reason)
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

    async fn bury(&self, hook: &Prepared, work: &Work, reason: &str) -> Result<(), batch::Error> {
        let subject = subject::dead_subject(&hook.hook.id, work.delivery.id.as_str());
        let message = describe(subject, work, reason).header(header::HANDLER, hook.handler.kind());
        self.dead.commit(vec![message]).await.map(|_| ())
    }
}

/// Whether a delivery would be older than it may be after a wait.
fn is_too_old(hook: &Prepared, work: &Work, wait: Duration) -> bool {
    let age = Duration::from_millis(now_millis().saturating_sub(work.first_attempt));
    age + wait > hook.max_age
}

/// How long a delivery waits that is parked without an attempt. However many wait, each is written
/// anew at most twice in ten minutes; what a receiver missed that failed for a minute comes within
/// three.
fn deferral_delay(work: &Work, deferral: Deferral, wait: Duration) -> Duration {
    let least = match (work.deferrals, deferral) {
        (0, Deferral::Open) => Duration::from_secs(30),
        (0, _) => return wait,
        (1, _) => Duration::from_secs(120),
        (2, _) => Duration::from_secs(480),
        _ => Duration::from_secs(300),
    };
    let jitter = (work.delivery.id.seed() % 1_000) as f64 / 1_000.0;
    wait.max(least.mul_f64(1.0 + retry::JITTER * jitter))
}

/// How long to wait for the next attempt; nothing if there is none.
fn delay(hook: &Prepared, work: &Work, class: Class) -> Option<Duration> {
    let attempt = work.attempt.saturating_sub(work.before);
    let seed = work.delivery.id.seed();
    match class {
        Class::Retry(asked) => hook.policy.delay_asked(attempt, seed, asked),
        Class::RetryBriefly => {
            // A schedule that is over ends these as well.
            hook.policy.delay(attempt, seed)?;
            Policy::client_error().delay(work.refusals + 1, seed)
        }
        Class::Dead | Class::Gone => None,
    }
}

/// One line for a delivery that is given up on; an error that a script raised is the user's own
/// record, as in Kong's log.
fn log_dead(hook: &Prepared, work: &Work, error: &DeliveryError) {
    let (hook, delivery, attempt) = (&hook.hook.id, &work.delivery.id, work.attempt);
    if matches!(error, DeliveryError::Script(_)) {
        tracing::error!(hook, %delivery, attempt, "{error}");
    } else {
        tracing::warn!(hook, %delivery, attempt, reason = %error, "a delivery is dead");
    }
}

/// The message that keeps a delivery: the event as it was published, and where the delivery is.
fn describe(subject: String, work: &Work, reason: &str) -> batch::Message {
    let event: &Event = &work.delivery.event;
    let published = subject::event_subject(&event.workspace, &event.source, &event.name);
    let mut message = batch::Message::new(subject, event.raw.clone())
        .header(header::SUBJECT, published)
        .header(header::EVENT_ID, encode_header(event.id.as_str()))
        .header(
            header::EVENT_ID_GIVEN,
            if event.id.is_given() { "1" } else { "0" },
        )
        .header(header::ATTEMPT, work.attempt.to_string())
        .header(header::FIRST_ATTEMPT, work.first_attempt.to_string())
        .header(header::PID, work.delivery.pid().to_string())
        .header(header::REASON, encode_header(cut(reason)));
    if work.deferrals > 0 {
        message = message.header(header::DEFERRALS, work.deferrals.to_string());
    }
    if work.before > 0 {
        message = message.header(header::ATTEMPTS_BEFORE, work.before.to_string());
    }
    if work.refusals > 0 {
        message = message.header(header::REFUSALS, work.refusals.to_string());
    }
    if work.reserved {
        message = message.header(header::RESERVED, "1");
    }
    if let Some(trace) = &event.traceparent {
        message = message.header(header::TRACEPARENT, encode_header(trace));
    }
    message
}

/// As much of a reason as is kept.
#[must_use]
pub fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}

/// Now, in Unix milliseconds.
#[must_use]
pub fn now_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}
