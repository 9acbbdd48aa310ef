//! Burying: dead letters of deliveries that are given up on, and of messages that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::AckKind;
use hookline_shared::batch;
use hookline_shared::event::{EventId, Stored};
use hookline_shared::subject::{self, encode_header, header};

use super::deferral::Deferral;
use super::open_message::Settled;
use super::schedule::jittered;
use super::{AGAIN, AGAIN_AT_MOST, Settle};
use crate::claims::Release;
use crate::delivery::{PendingDelivery, cut};
use crate::hooks::Prepared;
use crate::metrics::DeliveryResult;

/// How long a dead delivery stays parked while the stream of dead letters is full.
const FULL: Duration = Duration::from_secs(300);
/// How much of a malformed message is kept.
const KEPT_BYTES: usize = 64 << 10;

impl Settle {
    /// Buries a delivery that may wait no longer.
    pub(super) async fn give_up(
        &self,
        hook: &Arc<Prepared>,
        work: &PendingDelivery,
        again: &PendingDelivery,
        deferral: Deferral,
        reason: &str,
    ) -> (Settled, Release) {
        let reason = format!("{reason}: it waited because {}", deferral.reason());
        tracing::warn!(reason, "a delivery is dead");
        match self.bury_or_park(hook, work, again, &reason).await {
            Ok((release, result)) => (self.count(hook, result), release),
            Err(error) => {
                tracing::warn!(%error, "cannot bury a delivery, its message stays");
                (self.unsettled(hook, AGAIN, &error), Release::GivenBack)
            }
        }
    }

    /// Buries a delivery. While there is no room for dead letters it stays parked and is tried again later.
    pub(super) async fn bury_or_park(
        &self,
        hook: &Prepared,
        work: &PendingDelivery,
        again: &PendingDelivery,
        reason: &str,
    ) -> Result<(Release, DeliveryResult), batch::Error> {
        let buried = self.bury(hook, work, reason).await;
        if matches!(buried, Err(batch::Error::Full)) {
            let reason = format!("no room for dead letters: {reason}");
            let wait = jittered(work, FULL);
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
            .header(header::HANDLER, hook.handler_name());
        self.dead_letters.keep(message).await
    }

    /// Buries a message that is no event, and ends it.
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

    /// Buries a stored delivery that cannot be read, among its hook's dead letters, and ends its message.
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
            .slice(..message.payload.len().min(KEPT_BYTES));
        let letter = batch::Message::new(letter, body)
            .header(header::SUBJECT, encode_header(&message.subject))
            .header(header::EVENT_ID, encode_header(cut(id.as_str())))
            .header(header::ORIGINAL_SIZE, message.payload.len().to_string())
            .header(header::REASON, encode_header(cut(reason)));
        let kind = match self.dead_letters.keep(letter).await {
            Ok(()) => {
                tracing::warn!(subject = %message.subject, event = cut(id.as_str()), reason, "a message is malformed and dead");
                AckKind::Term
            }
            Err(error) => {
                tracing::warn!(event = cut(id.as_str()), %error, "cannot bury a malformed message, it stays");
                let full = self.is_external(&error);
                AckKind::Nak(Some(if full { AGAIN_AT_MOST } else { AGAIN }))
            }
        };
        self.send(message, event, kind).await;
    }
}
