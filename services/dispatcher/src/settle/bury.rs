//! Dead-letters deliveries that are given up, and messages that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::AckKind;
use hookline_shared::batch;
use hookline_shared::event::{EventId, MAX_EVENT_BYTES, MAX_ID_BYTES, Stored};
use hookline_shared::subject::{self, encode_header, header};

use super::deferral::Deferral;
use super::open_message::Settled;
use super::schedule::jittered;
use super::{MAX_REDELIVERY, MIN_REDELIVERY, Settle};
use crate::claims::Release;
use crate::delivery::{PendingDelivery, cut};
use crate::hooks::Prepared;
use crate::metrics::{Death, Handback, Outcome, Parked};

/// How long a dead delivery stays parked while the stream of dead letters is full.
const FULL: Duration = Duration::from_secs(300);
/// The part of a malformed message that is kept.
const KEPT_BYTES: usize = 64 << 10;

/// How a message that is no delivery is buried.
struct Letter<'a> {
    subject: String,
    id: &'a EventId,
    death: Death,
    reason: &'a str,
}

/// Why a message is buried that no worker has survived.
pub(crate) const STOPS_WORKERS: &str = "it has stopped its workers";

impl Settle {
    /// Buries a stored delivery that has stopped its workers, and terminates its message.
    pub(crate) async fn convicted(
        &self,
        message: &Message,
        hook: &Prepared,
        pending: &PendingDelivery,
    ) {
        let buried = self.bury(hook, pending, Death::StopsWorkers, STOPS_WORKERS);
        let kind = match buried.await {
            Ok(()) => {
                tracing::error!(hook = %hook.id, delivery = %pending.delivery.id, reason = STOPS_WORKERS, "delivery dead-lettered");
                self.ended(hook, Outcome::Dead);
                AckKind::Term
            }
            Err(error) => {
                tracing::warn!(hook = %hook.id, %error, "cannot bury the delivery, its message is redelivered");
                self.metrics.handed_back(Handback::Unwritable);
                self.refused(&error);
                AckKind::Nak(Some(MAX_REDELIVERY))
            }
        };
        self.send(message, None, kind).await;
    }

    /// Buries a delivery that may not wait any longer.
    pub(super) async fn give_up(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        next: &PendingDelivery,
        deferral: Deferral,
        death: Death,
    ) -> (Settled, Release) {
        let reason = match death {
            Death::Backlog => "backlog full",
            _ => "too old",
        };
        let reason = format!("{reason}: it waited because {}", deferral.reason());
        tracing::warn!(reason, "delivery dead-lettered");
        let buried = self.bury_or_park(hook, pending, next, death, &reason);
        match buried.await {
            Ok(release) => (Settled::Final, release),
            Err(error) => {
                tracing::warn!(%error, "cannot bury the delivery, its message is redelivered");
                (self.unwritable(MIN_REDELIVERY, &error), Release::GivenBack)
            }
        }
    }

    /// Buries a delivery, or parks it while the stream of dead letters is full.
    pub(super) async fn bury_or_park(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        next: &PendingDelivery,
        death: Death,
        reason: &str,
    ) -> Result<Release, batch::Error> {
        let buried = self.bury(hook, pending, death, reason).await;
        if matches!(buried, Err(batch::Error::Full)) {
            let reason = format!("no room for dead letters: {reason}");
            let wait = jittered(pending, FULL);
            self.park(hook, next, wait, &reason).await?;
            self.metrics.parked(&hook.id, Parked::DeadLettersFull);
            return Ok(Release::Parked(wait));
        }
        buried?;
        self.ended(hook, Outcome::Dead);
        Ok(Release::Buried)
    }

    async fn bury(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        death: Death,
        reason: &str,
    ) -> Result<(), batch::Error> {
        let subject = subject::dead_subject(&hook.hook.id, pending.delivery.id.as_str());
        let message = pending
            .message(subject, reason)
            .header(header::HANDLER, hook.handler_name());
        self.dead_letters.keep(message, death).await
    }

    /// Buries a message that is no event, and terminates it.
    pub(crate) async fn malformed(
        &self,
        message: &Message,
        event: Stored,
        id: &EventId,
        reason: &str,
    ) {
        let workspace = message.subject.split('.').nth(2).unwrap_or_default();
        let letter = subject::dead_event_subject(&id.digest(workspace));
        let death = match reason {
            STOPS_WORKERS => Death::StopsWorkers,
            _ => Death::NotAnEvent,
        };
        let letter = Letter {
            subject: letter,
            id,
            death,
            reason,
        };
        self.bury_message(message, Some(event), letter).await;
    }

    /// Buries a stored delivery that cannot be read among its hook's dead letters, and terminates its message.
    pub(crate) async fn unreadable(&self, message: &Message, hook: &Prepared) {
        let id = EventId::given(message.subject.as_str());
        let letter = subject::dead_subject(&hook.hook.id, &id.digest(""));
        let letter = Letter {
            subject: letter,
            id: &id,
            death: Death::Unreadable,
            reason: "the stored delivery cannot be read",
        };
        self.bury_message(message, None, letter).await;
    }

    async fn bury_message(&self, message: &Message, event: Option<Stored>, letter: Letter<'_>) {
        let Letter {
            subject,
            id,
            death,
            reason,
        } = letter;
        // What stopped its workers may be an event, and is kept whole.
        let kept = match death {
            Death::StopsWorkers => MAX_EVENT_BYTES,
            _ => KEPT_BYTES,
        };
        let body = message.payload.slice(..message.payload.len().min(kept));
        let given = id.is_given() && id.as_str().len() <= MAX_ID_BYTES;
        let id = cut(id.as_str());
        let letter = batch::Message::new(subject, body)
            .header(header::SUBJECT, encode_header(&message.subject))
            .header(header::EVENT_ID, encode_header(id))
            .header(header::EVENT_ID_GIVEN, if given { "1" } else { "0" })
            .header(header::ORIGINAL_SIZE, message.payload.len().to_string())
            .header(header::REASON, encode_header(cut(reason)));
        let kind = match self.dead_letters.keep(letter, death).await {
            Ok(()) => {
                tracing::warn!(subject = %message.subject, event = id, reason, "malformed message dead-lettered");
                AckKind::Term
            }
            Err(error) => {
                tracing::warn!(event = id, %error, "cannot bury a malformed message, it is redelivered");
                self.metrics.handed_back(Handback::Unwritable);
                self.refused(&error);
                AckKind::Nak(Some(match error {
                    batch::Error::Full => MAX_REDELIVERY,
                    _ => MIN_REDELIVERY,
                }))
            }
        };
        self.send(message, event, kind).await;
    }
}
