//! Parks deliveries on a server-side schedule, or stores them for any worker.
//!
//! Nothing is parked while NATS' storage is scarce. The number of a hook's deliveries that may wait is bounded: the
//! excess is dead-lettered.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::batch::{self, Message};
use hookline_shared::clock;
use hookline_shared::stream_reader::Stored;
use hookline_shared::subject::{self, header};
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::deferral::Deferral;
use super::open_message::Settled;
use super::schedule::{deferral_delay, is_too_old};
use super::{MIN_REDELIVERY, Settle};
use crate::claims::Release;
use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;
use crate::metrics::Death;

/// Writes of one delivery, if others park it at the same time.
const TRIES: usize = 5;

impl Settle {
    /// Parks a delivery without an attempt. Returns how its claim, if it has one, is released.
    pub(crate) async fn defer(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        deferral: Deferral,
        wait: Duration,
    ) -> (Settled, Release) {
        let next = PendingDelivery {
            deferrals: pending.deferrals + 1,
            place: deferral.place(),
            ..pending.clone()
        };
        let delay = deferral_delay(pending, deferral, wait);
        let death = match deferral {
            // Until the operator does something about the hook.
            Deferral::Paused | Deferral::Unusable => None,
            _ if is_too_old(hook.max_age, pending, delay) => Some(Death::TooOld),
            _ if self.is_backlog_full(hook).await => Some(Death::Backlog),
            _ => None,
        };
        if let Some(death) = death {
            return self.give_up(hook, pending, &next, deferral, death).await;
        }
        match self.park(hook, &next, delay, deferral.reason()).await {
            Ok(()) => {
                self.metrics.parked(&hook.id, deferral.parked());
                (Settled::Final, Release::GivenBack)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot park the delivery, its message is redelivered");
                (self.unwritable(delay, &error), Release::GivenBack)
            }
        }
    }

    /// Stores a first attempt for any worker. If its event is redelivered and it is stored twice, only one copy can
    /// be claimed.
    pub(crate) async fn spread(&self, hook: &Prepared, pending: PendingDelivery) -> Settled {
        let id = pending.delivery.id;
        let subject = subject::now_subject(&hook.hook.id, id.as_str());
        let message = pending.message(subject, "one of many");
        let stored = if self.storage.is_scarce() {
            Err(batch::Error::Full)
        } else {
            self.fanout.commit(vec![message]).await
        };
        match stored {
            Ok(_) => {
                self.metrics.spread();
                Settled::Final
            }
            Err(error) => {
                tracing::warn!(hook = %hook.id, delivery = %id, %error, "cannot store a delivery for any worker, its event is redelivered");
                self.unwritable(MIN_REDELIVERY, &error)
            }
        }
    }

    /// Parks a delivery for an attempt. One that already waits for this attempt or a later one stays as it is: a late
    /// or repeated message must not set it back.
    pub(super) async fn park(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        delay: Duration,
        reason: &str,
    ) -> Result<(), batch::Error> {
        if self.storage.is_scarce() {
            return Err(batch::Error::Full);
        }
        let (hook, id) = (hook.hook.id.as_str(), pending.delivery.id.as_str());
        let wait = subject::wait_subject(hook, id);
        let message = pending.message(wait.clone(), reason);
        let message = scheduled(message, subject::due_subject(hook, id), delay)?;
        let mut sequence = 0;
        for _ in 0..TRIES {
            let message = message.clone().expect_last(sequence);
            match self.deliveries.commit(vec![message]).await {
                Ok(_) => return Ok(()),
                Err(batch::Error::Conflict) => {}
                Err(error) => return Err(error),
            }
            sequence = match self.parked.last(&wait).await? {
                Some(parked) if parked.attempt >= pending.attempt => return Ok(()),
                Some(parked) => parked.sequence,
                None => 0,
            };
        }
        Err(batch::Error::Conflict)
    }

    /// Parks an overdue delivery again. Returns false if it has moved meanwhile.
    pub(crate) async fn park_again(
        &self,
        waiting: &Stored,
        delay: Duration,
    ) -> Result<bool, batch::Error> {
        let Some((hook, delivery)) = subject::parse_wait_subject(&waiting.subject) else {
            return Ok(false);
        };
        let mut message = Message::new(waiting.subject.clone(), waiting.payload.clone());
        for name in header::PARKED {
            if let Some(value) = waiting.header(name) {
                message = message.header(name, value);
            }
        }
        let message = scheduled(message, subject::due_subject(hook, delivery), delay)?;
        let message = message.expect_last(waiting.sequence);
        match self.deliveries.commit(vec![message]).await {
            Ok(_) => Ok(true),
            Err(batch::Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// False if the stream does not answer.
    pub(super) async fn is_backlog_full(&self, hook: &Prepared) -> bool {
        let backlog = &hook.admission.backlog;
        if backlog.one_more() {
            let asked = Instant::now();
            if let Ok(count) = self.parked.count(&hook.hook.id, backlog.few()).await {
                backlog.counted(count, asked.elapsed(), self.workers.count());
            }
        }
        backlog.is_full()
    }
}

/// Has the server publish a message to `target` after a delay.
fn scheduled(message: Message, target: String, delay: Duration) -> Result<Message, batch::Error> {
    let due = clock::after(delay).format(&Rfc3339);
    let due = due.map_err(|_| batch::Error::Unavailable)?;
    Ok(message
        .header(header::SCHEDULE, format!("@at {due}"))
        .header(header::SCHEDULE_TARGET, target))
}
