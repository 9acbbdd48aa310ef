//! Pulls messages: a lane asks for as many as it has permits, and hands them to its sink in batches. It knows neither
//! handlers nor the contents of messages.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::{self, AckKind};
use async_trait::async_trait;
use futures::FutureExt as _;
use hookline_shared::pull::{self, Place, Puller};
use hookline_shared::{connection, streams};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::nats::ack_keepalive::AckKeepalive;
use crate::nats::pulled_message::{Counted, Held, PulledMessage};
use crate::nats::request::{self, NoAnswer};

/// The most messages that one pull asks for.
pub(crate) const PULL: usize = 256;
/// The same for rare messages, since a pull holds its permits while it waits, and in a NATS cluster, where pulls are
/// not bounded in bytes.
pub(crate) const SMALL_PULL: usize = 64;
/// How long the server keeps a pull open. A worker that stops waits for it.
const OPEN: Duration = Duration::from_millis(500);
/// How much longer than [`OPEN`] this side waits.
const GRACE: Duration = Duration::from_millis(500);
/// After a pull that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// A small pull first waits this long for more permits, since it costs as much as a large one.
const GATHER: Duration = Duration::from_millis(2);
/// Redelivery of messages for which the sink was not ready.
const NOT_READY: Duration = Duration::from_secs(1);

/// The most bytes that one pull asks for.
const PULL_BYTES: usize = 16 << 20;
/// The memory for one lane's messages, in KiB.
const LANE_WEIGHT: u32 = 64 << 10;
/// The approximate size of a parsed JSON value.
const VALUE_BYTES: usize = 72;

#[async_trait]
pub(crate) trait MessageSink: Send + Sync + 'static {
    /// Gets ready for messages that were just pulled. False: give them back.
    async fn prepare(&self) -> bool;

    /// Handles messages up to their acks.
    async fn handle(&self, messages: Vec<PulledMessage>);
}

/// A consumer, and how to create it.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub context: jetstream::Context,
    pub stream: &'static str,
    /// The same on all dispatchers.
    pub name: &'static str,
    /// Subjects; empty: all.
    pub filter: &'static str,
    pub ack_wait: Duration,
}

impl Consumer {
    /// Creates the consumer if it is missing, and adapts the keepalive to its actual ack wait.
    pub(crate) async fn make(&self, keepalive: &AckKeepalive) -> Result<Puller, Error> {
        let made = streams::ensure_consumer(
            &self.context,
            self.stream,
            self.name,
            self.filter,
            self.ack_wait,
        );
        let consumer = made.await?;
        keepalive.redelivers_after(consumer.cached_info().config.ack_wait);
        Ok(Puller::new(&self.context.client(), consumer).await?)
    }

    /// In a NATS cluster a pull is bounded in messages only: with a bound in bytes, the server reports it complete
    /// before its messages, which wait for a quorum (nats-server 2.15.1).
    fn most_bytes(&self) -> usize {
        if self.is_clustered() { 0 } else { PULL_BYTES }
    }

    fn is_clustered(&self) -> bool {
        self.context.client().server_info().cluster.is_some()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Create(#[from] streams::Error),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error(transparent)]
    Pull(#[from] pull::Error),
    #[error("the server refused a pull: {0}")]
    Refused(String),
}

pub(crate) struct Lane {
    pub consumer: Consumer,
    /// Messages per pull.
    pub most: usize,
    /// Notified when the consumer must be looked up again.
    pub rebuild: Arc<Notify>,
    /// One per message in flight; several lanes may share them.
    pub permits: Arc<Semaphore>,
    pub weight: Weight,
    pub keepalive: AckKeepalive,
    pub tasks: TaskTracker,
    pub metrics: Metrics,
}

impl Lane {
    /// Pulls and hands out messages until `shutdown`. The last pull is received in full: a message that was sent and
    /// not received is redelivered only after its ack wait.
    pub(crate) async fn run(self, sink: Arc<impl MessageSink>, shutdown: CancellationToken) {
        let mut puller = None;
        let mut rebuild = Box::pin(self.rebuild.notified());
        loop {
            if rebuild.as_mut().now_or_never().is_some() {
                (puller, rebuild) = (None, Box::pin(self.rebuild.notified()));
                self.metrics.pull_rebuilt(self.consumer.name);
            }
            let permits = tokio::select! {
                () = shutdown.cancelled() => return,
                permits = self.permits() => permits,
            };
            let Some(permits) = permits else { return };
            if let Err(error) = self.pull(&mut puller, permits, &sink).await {
                let consumer = self.consumer.name;
                match &error {
                    Error::Create(_) | Error::NoAnswer(_) => {
                        tracing::warn!(consumer, %error, "cannot use the consumer")
                    }
                    _ => tracing::debug!(consumer, %error, "pull failed"),
                }
                self.metrics.pull_rebuilt(consumer);
                // The consumer may be deleted.
                puller = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Makes one pull, and hands out its messages.
    async fn pull(
        &self,
        puller: &mut Option<Puller>,
        permits: OwnedSemaphorePermit,
        sink: &Arc<impl MessageSink>,
    ) -> Result<(), Error> {
        let puller = match puller {
            Some(puller) => puller,
            None => {
                puller.insert(request::with_retries(|| self.consumer.make(&self.keepalive)).await??)
            }
        };
        let bytes = self.consumer.most_bytes();
        let connects = connection::connects();
        let asked = puller.ask(permits.num_permits(), bytes, OPEN);
        match tokio::time::timeout(OPEN + GRACE, asked).await {
            Ok(asked) => asked?,
            Err(_) => return Ok(()),
        }
        self.receive(puller, permits, sink, connects).await
    }

    /// At least one permit, and as many more as are free.
    async fn permits(&self) -> Option<OwnedSemaphorePermit> {
        let mut permits = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        self.take_free(&mut permits);
        if permits.num_permits() < self.most() / 2 {
            tokio::time::sleep(GATHER).await;
            self.take_free(&mut permits);
        }
        Some(permits)
    }

    fn most(&self) -> usize {
        if self.consumer.is_clustered() {
            self.most.min(SMALL_PULL)
        } else {
            self.most
        }
    }

    fn take_free(&self, permits: &mut OwnedSemaphorePermit) {
        let more = self
            .permits
            .available_permits()
            .min(self.most() - permits.num_permits());
        if let Ok(more) = Arc::clone(&self.permits).try_acquire_many_owned(more as u32) {
            permits.merge(more);
        }
    }

    /// Hands out the messages of one pull, until it is over or lost.
    async fn receive(
        &self,
        puller: &mut Puller,
        mut permits: OwnedSemaphorePermit,
        sink: &Arc<impl MessageSink>,
        mut connects: watch::Receiver<u64>,
    ) -> Result<(), Error> {
        let mut is_empty = true;
        while permits.num_permits() > 0 {
            let chunk = tokio::select! {
                biased;
                chunk = tokio::time::timeout(OPEN + GRACE, puller.next(PULL)) => chunk,
                _ = connects.changed() => return Ok(()),
            };
            let Ok(chunk) = chunk else { return Ok(()) };
            let chunk = chunk?;
            if !chunk.messages.is_empty() {
                is_empty = false;
                self.start(chunk.messages, &mut permits, sink).await;
            }
            if let Some(error) = chunk.error.filter(|_| is_empty) {
                return Err(Error::Refused(error));
            }
            if chunk.is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn start(
        &self,
        messages: Vec<Message>,
        permits: &mut OwnedSemaphorePermit,
        sink: &Arc<impl MessageSink>,
    ) {
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| (self.keepalive.track(&message), message))
            .collect();
        let ready = sink.prepare().await;
        let gauge = self.metrics.in_flight(self.consumer.name);
        let mut batch = Vec::with_capacity(messages.len());
        for (guard, message) in messages {
            if !ready {
                self.give_back(&message, Some(NOT_READY)).await;
                continue;
            }
            // A pull that timed out here may still bring messages beyond the permits.
            let more = || Arc::clone(&self.permits).try_acquire_owned().ok();
            let Some(permit) = permits.split(1).or_else(more) else {
                self.give_back(&message, None).await;
                continue;
            };
            let mut weight = self.weight.try_take(&message);
            if weight.is_none() {
                // The wait may be for the messages of this batch.
                self.hand_out(sink, std::mem::take(&mut batch));
                weight = self.weight.take(&message).await;
            }
            let held = Held {
                _alive: guard,
                _permit: permit,
                _weight: weight,
                _counted: Counted::new(&gauge),
            };
            batch.push(PulledMessage::new(message, held));
        }
        self.hand_out(sink, batch);
    }

    fn count_redelivered(&self, messages: &[PulledMessage]) {
        let is_again = |place: &Place| place.deliveries > 1;
        let places = messages.iter().filter_map(|message| message.place.as_ref());
        let again = places.filter(|place| is_again(place)).count();
        self.metrics.redelivered(self.consumer.name, again);
    }

    async fn give_back(&self, message: &Message, delay: Option<Duration>) {
        let client = self.consumer.context.client();
        if let Err(error) = pull::answer(&client, message, AckKind::Nak(delay)).await {
            tracing::debug!(%error, "cannot give a message back");
        }
    }

    fn hand_out(&self, sink: &Arc<impl MessageSink>, messages: Vec<PulledMessage>) {
        if !messages.is_empty() {
            self.count_redelivered(&messages);
            let sink = Arc::clone(sink);
            self.tasks.spawn(async move { sink.handle(messages).await });
        }
    }
}

/// Bounds the memory for a lane's messages.
#[derive(Debug, Clone)]
pub(crate) struct Weight(Arc<Semaphore>);

impl Default for Weight {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LANE_WEIGHT as usize)))
    }
}

impl Weight {
    fn try_take(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let weight = weigh(&message.payload);
        Arc::clone(&self.0).try_acquire_many_owned(weight).ok()
    }

    async fn take(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let weight = weigh(&message.payload);
        Arc::clone(&self.0).acquire_many_owned(weight).await.ok()
    }
}

/// The approximate size of a parsed body in KiB: many small values take far more than their text.
fn weigh(body: &[u8]) -> u32 {
    let values = body.iter().filter(|byte| **byte == b',').count();
    let kib = (body.len() + values * VALUE_BYTES) >> 10;
    (kib as u32 + 1).min(LANE_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_values_weigh_more_than_their_text() {
        assert_eq!(weigh(b"{}"), 1);
        let text = vec![b'a'; 1 << 20];
        assert_eq!(weigh(&text), 1_025);
        let values = b"0,".repeat(1 << 19);
        assert!(weigh(&values) > 30_000);
        assert!(weigh(&b",".repeat(4 << 20)) <= LANE_WEIGHT);
    }
}
