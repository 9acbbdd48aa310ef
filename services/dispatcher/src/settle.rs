//! Settles deliveries after an attempt, and messages after their deliveries. Only this folder acks, parks and
//! buries.
//!
//! The order is always the same: a write to a stream, the mark in Redis, the ack. The claim is renewed before the
//! write: a worker whose delivery was taken over writes nothing.

pub(crate) mod bury;
pub(crate) mod combiner;
pub(crate) mod dead_letters;
pub(crate) mod deferral;
pub(crate) mod open_message;
mod park;
pub(crate) mod parked;
pub(crate) mod pause_hook;
pub(crate) mod progress;
pub(crate) mod schedule;
pub(crate) mod storage_guard;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{Client, Message};
use hookline_shared::batch::{self, Writer};
use hookline_shared::event::Stored;
use hookline_shared::pull;

use crate::claims::{self, Claims, Lease, Release};
use crate::delivery::PendingDelivery;
use crate::handler::{Class, DeliveryError, Receipt};
use crate::hooks::Prepared;
use crate::metrics::{Attempt, Death, Handback, Metrics, Outcome, Parked as WhyParked};
use crate::redis::workers::Workers;
use combiner::{Combiner, Leader};
use dead_letters::DeadLetters;
use open_message::{OpenDelivery, OpenMessage, Settled};
use parked::Parked;
use pause_hook::Pauser;
use progress::{AckedEvents, Progress};
use schedule::Next;
use storage_guard::StorageGuard;

/// A message whose delivery could not be settled is redelivered within these bounds.
pub(crate) const MIN_REDELIVERY: Duration = Duration::from_secs(2);
const MAX_REDELIVERY: Duration = Duration::from_secs(60);

/// A successful delivery whose claim and message are still open.
pub(crate) struct Delivered {
    hook: Arc<Prepared>,
    lease: Lease,
    open: Arc<OpenMessage>,
    lag: (Attempt, Duration),
}

pub(crate) struct Settle {
    pub(crate) client: Client,
    /// For parked deliveries.
    pub(crate) deliveries: Writer,
    /// For first attempts that any worker may make.
    pub(crate) fanout: Writer,
    pub(crate) parked: Parked,
    pub(crate) storage: StorageGuard,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) claims: Claims,
    pub(crate) workers: Workers,
    /// By [`Claims::group_of`].
    pub(crate) delivered: Vec<Combiner<Delivered>>,
    pub(crate) pauser: Pauser,
    pub(crate) acked_events: AckedEvents,
    pub(crate) progress: Progress,
    pub(crate) metrics: Metrics,
}

impl Settle {
    /// Settles a delivery by the result of its attempt.
    pub(crate) async fn attempt(
        &self,
        hook: &Arc<Prepared>,
        delivery: OpenDelivery,
        lease: Lease,
        result: Result<Receipt, DeliveryError>,
    ) {
        let OpenDelivery { pending, open } = delivery;
        let settled = match result {
            Ok(receipt) if lease.is_plain() => {
                let delivered = Delivered {
                    hook: Arc::clone(hook),
                    lease,
                    open,
                    lag: pending.lag(),
                };
                // Leading the batch may take long.
                drop((pending, receipt));
                let combiner = &self.delivered[self.claims.group_of(hook)];
                if let Some(leader) = combiner.enter(delivered) {
                    Box::pin(self.delivered(leader)).await;
                }
                return;
            }
            Ok(_) => {
                let lag = pending.lag();
                let is_own = Box::pin(self.claims.finish(hook, &lease, Release::Done)).await;
                self.made(hook, lag, is_own)
            }
            Err(error) => Box::pin(self.failed(hook, &pending, &lease, error)).await,
        };
        self.delivery(&open, settled).await;
    }

    /// Settles successful deliveries in batches.
    async fn delivered(&self, mut leader: Leader<Delivered>) {
        // Yields once so that concurrent completions join this batch.
        tokio::task::yield_now().await;
        while let Some(batch) = leader.next(claims::MOST) {
            let leases = batch.iter().map(|delivered| &delivered.lease);
            let lost = Box::pin(self.claims.done(leases)).await;
            for (index, delivered) in batch.iter().enumerate() {
                let is_own = !lost.contains(&index);
                let settled = self.made(&delivered.hook, delivered.lag, is_own);
                self.delivery(&delivered.open, settled).await;
            }
        }
    }

    /// Parks or buries a delivery whose attempt failed.
    async fn failed(
        &self,
        hook: &Arc<Prepared>,
        pending: &PendingDelivery,
        lease: &Lease,
        error: DeliveryError,
    ) -> Settled {
        if !self.claims.renew(lease).await {
            return self.taken_over();
        }
        let class = error.class();
        let circuit = hook.admission.circuit.verdict();
        let next = schedule::after_failure(&hook.policy, hook.max_age, circuit, pending, &error);
        let (next, reason) = match next {
            Next::Retry(_) if self.is_backlog_full(hook).await => {
                let reason = format!("backlog full: {error}");
                (Next::Dead(Death::Backlog), reason)
            }
            next => (next, error.to_string()),
        };
        let later = pending.next(class);
        let settled = match next {
            Next::Retry(delay) => {
                let retry_in_ms = delay.as_millis() as u64;
                tracing::debug!(retry_in_ms, %error, "attempt failed");
                let parked = self.park(hook, &later, delay, &reason).await;
                parked.map(|()| {
                    self.metrics.parked(&hook.id, WhyParked::Retry);
                    Release::Parked(delay)
                })
            }
            Next::Dead(death) => {
                log_dead(&error);
                if class == Class::Pause {
                    let (workspace, id) = (&hook.workspace, &hook.hook.id);
                    self.pauser.pause(workspace, id, &error.to_string()).await;
                }
                self.bury_or_park(hook, pending, &later, death, &reason)
                    .await
            }
        };
        match settled {
            Ok(release) => {
                self.claims.finish(hook, lease, release).await;
                Settled::Final
            }
            Err(error) => {
                tracing::warn!(%error, "cannot park or bury the delivery, its message is redelivered");
                self.claims.finish(hook, lease, Release::GivenBack).await;
                let delay = match next {
                    Next::Retry(delay) => delay,
                    Next::Dead(_) => MAX_REDELIVERY,
                };
                self.unwritable(delay, &error)
            }
        }
    }

    /// Records the result of one of a message's deliveries. The last one settles the message.
    pub(crate) async fn delivery(&self, open: &OpenMessage, settled: Settled) {
        if let Some(all) = open.tally.add(settled) {
            self.message(&open.pulled.message, open.event, all).await;
        }
    }

    /// Acks a message, or has it redelivered.
    pub(crate) async fn message(&self, message: &Message, event: Option<Stored>, settled: Settled) {
        let kind = match settled {
            Settled::Final => AckKind::Ack,
            Settled::NotYet(delay) => AckKind::Nak(Some(delay)),
            // The worker that took the delivery over has the message too: an ack from here could lose it.
            Settled::TakenOver => return,
        };
        self.send(message, event, kind).await;
    }

    async fn send(&self, message: &Message, event: Option<Stored>, kind: AckKind) {
        if matches!(kind, AckKind::Ack | AckKind::Term) {
            self.progress.made();
            self.metrics.settled();
            if let Some(event) = event {
                self.acked_events.add(event);
            }
        }
        // Without an answer the message is redelivered.
        if let Err(error) = pull::answer(&self.client, message, kind).await {
            tracing::debug!(%error, "cannot answer a message");
        }
    }

    /// Has the message redelivered after `wait`, for a reason outside this worker.
    pub(crate) fn not_yet(&self, reason: Handback, wait: Duration) -> Settled {
        self.progress.made();
        self.metrics.handed_back(reason);
        Settled::NotYet(wait)
    }

    /// Has the message redelivered at once: this worker stops.
    pub(crate) fn abandoned(&self) -> Settled {
        self.metrics.handed_back(Handback::Shutdown);
        Settled::NotYet(Duration::ZERO)
    }

    /// Leaves the message to the worker that took the delivery over.
    pub(crate) fn taken_over(&self) -> Settled {
        self.metrics.handed_back(Handback::TakenOver);
        Settled::TakenOver
    }

    /// Has the message of a delivery that could not be written redelivered when the delivery would have been due, so
    /// that a full disk means no more attempts for receivers.
    fn unwritable(&self, delay: Duration, error: &batch::Error) -> Settled {
        self.refused(error);
        self.metrics.handed_back(Handback::Unwritable);
        Settled::NotYet(redelivery_delay(delay))
    }

    /// A full server counts as progress, since a restart of this worker would not help. Other errors do not: a worker
    /// that gives back all messages is not healthy.
    fn refused(&self, error: &batch::Error) {
        if matches!(error, batch::Error::Full) {
            self.progress.made();
        }
    }

    /// A delivery was made, and its claim was this worker's to the end or not.
    fn made(&self, hook: &Prepared, (attempt, lag): (Attempt, Duration), is_own: bool) -> Settled {
        if !is_own {
            return self.taken_over();
        }
        self.metrics.lag(hook.handler_name(), attempt, lag);
        self.ended(hook, Outcome::Delivered)
    }

    /// Counts the end of a delivery. Returns what it means for the message.
    pub(crate) fn ended(&self, hook: &Prepared, outcome: Outcome) -> Settled {
        self.metrics.ended(&hook.id, hook.handler_name(), outcome);
        Settled::Final
    }
}

fn redelivery_delay(due_in: Duration) -> Duration {
    due_in.clamp(MIN_REDELIVERY, MAX_REDELIVERY)
}

/// Logs one line. An error raised by a script is the user's own record, as in Kong's log.
fn log_dead(error: &DeliveryError) {
    if matches!(error, DeliveryError::Script(_)) {
        tracing::error!("{error}");
    } else {
        tracing::warn!(reason = %error, "delivery dead-lettered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsettled_message_is_redelivered_when_due_within_bounds() {
        for (due_in, redelivery) in [(0, 2), (1, 2), (30, 30), (3_600, 60)] {
            let delay = redelivery_delay(Duration::from_secs(due_in));
            assert_eq!(delay.as_secs(), redelivery, "{due_in}");
        }
    }
}
