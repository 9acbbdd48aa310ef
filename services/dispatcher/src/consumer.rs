//! Pulling messages: one lane takes what it has permits for, and hands what comes together to its work.
//! It knows nothing of handlers, nor of what the messages are.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::BatchBuilder;
use async_nats::jetstream::{self, AckKind, Message};
use async_trait::async_trait;
use futures::stream::ReadyChunks;
use futures::{FutureExt as _, StreamExt as _};
use hookline_shared::streams;
use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inflight::{Guard, InFlight};

/// The most messages that one pull asks for.
pub const PULL: usize = 256;
/// The same where messages are rare, since a pull holds its permits while it waits, and in a cluster,
/// where nothing else bounds what it brings.
pub const SMALL_PULL: usize = 64;
/// How long the server keeps a pull open; a connection that broke is noticed after that.
const OPEN: Duration = Duration::from_secs(2);
/// How much longer than [`OPEN`] this side waits.
const GRACE: Duration = Duration::from_millis(500);
/// The pause after a pull that could not be made.
const PAUSE: Duration = Duration::from_millis(250);
/// A pull for fewer messages than this waits a moment for more permits: small pulls cost as much
/// as large ones.
const SMALL: usize = 32;
const MOMENT: Duration = Duration::from_millis(1);
/// How soon messages come again that could not be prepared for.
const AGAIN: Duration = Duration::from_secs(1);

/// The most bytes that one pull asks for.
const PULL_BYTES: usize = 16 << 20;
/// What one lane's messages may weigh in memory, in KiB.
const LANE_WEIGHT: u32 = 64 << 10;
/// What a JSON value takes once it is parsed, roughly.
const VALUE_BYTES: usize = 72;

type Batch = ReadyChunks<async_nats::jetstream::consumer::pull::Batch>;

/// What is done with messages.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Gets ready for the messages that were just pulled; false: give them back.
    async fn prepare(&self) -> bool;

    /// Handles messages that came together to their end, acks included.
    async fn handle(&self, messages: Vec<Taken>);
}

/// A message that was pulled. It is kept alive, and has its place in the lane, until this is dropped.
#[derive(Debug)]
pub struct Taken {
    /// The message.
    pub message: Message,
    _alive: Guard,
    _permit: OwnedSemaphorePermit,
    _weight: Option<OwnedSemaphorePermit>,
    _counted: Counted,
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A consumer, and how it is made if it is not there.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// The connection.
    pub context: jetstream::Context,
    /// The stream that it reads.
    pub stream: &'static str,
    /// Its name, the same on all dispatchers.
    pub name: &'static str,
    /// The subjects that it reads.
    pub filter: &'static str,
    /// How long the server waits for a sign of life.
    pub ack_wait: Duration,
}

impl Consumer {
    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn make(&self) -> Result<PullConsumer, streams::Error> {
        streams::ensure_consumer(
            &self.context,
            self.stream,
            self.name,
            self.filter,
            self.ack_wait,
        )
        .await
    }

    /// A pull, bounded in bytes; in a cluster in messages only. There, what says that a pull bounded
    /// in bytes is complete comes before its messages, which wait for a quorum, and the client that
    /// hears it listens no longer (nats-server 2.15.1: with a backlog nothing was ever received).
    fn pull<'a>(&self, consumer: &'a PullConsumer, messages: usize) -> BatchBuilder<'a> {
        let pull = consumer.batch().max_messages(messages).expires(OPEN);
        if self.is_clustered() {
            pull
        } else {
            pull.max_bytes(PULL_BYTES)
        }
    }

    fn is_clustered(&self) -> bool {
        self.context.client().server_info().cluster.is_some()
    }
}

/// One consumer of a stream of work.
pub struct Lane {
    /// The lane's name.
    pub name: &'static str,
    /// The consumer that all dispatchers share.
    pub consumer: Consumer,
    /// The most messages that a pull asks for.
    pub most: usize,
    /// Tells when the pulls are to be made anew.
    pub rebuild: Arc<Notify>,
    /// One for each message being handled; consumers may share them.
    pub permits: Arc<Semaphore>,
    /// What they weigh.
    pub weight: Weight,
    /// Messages that are kept alive.
    pub in_flight: InFlight,
    /// The tasks that handle messages.
    pub tasks: TaskTracker,
    /// How many are being handled.
    pub gauge: IntGauge,
}

impl Lane {
    /// Pulls and hands out messages until `shutdown`.
    pub async fn run(self, work: Arc<impl Work>, shutdown: CancellationToken) {
        let mut consumer = None;
        let mut rebuild = Box::pin(self.rebuild.notified());
        loop {
            if rebuild.as_mut().now_or_never().is_some() {
                (consumer, rebuild) = (None, Box::pin(self.rebuild.notified()));
            }
            let permits = tokio::select! {
                () = shutdown.cancelled() => return,
                permits = self.permits() => permits,
            };
            let Some(permits) = permits else { return };
            let pulled = match &consumer {
                Some(consumer) => consumer,
                None => match self.consumer.make().await {
                    Ok(made) => consumer.insert(made),
                    Err(error) => {
                        tracing::warn!(lane = self.name, %error, "the consumer cannot be made");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let pull = self.consumer.pull(pulled, permits.num_permits());
            match tokio::time::timeout(OPEN + GRACE, pull.messages()).await {
                Ok(Ok(batch)) => {
                    let batch = batch.ready_chunks(PULL);
                    if self.take(batch, permits, &work, &shutdown).await {
                        continue;
                    }
                    // The consumer may be gone.
                    consumer = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(lane = self.name, %error, "a pull failed");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => tracing::debug!(lane = self.name, "a pull could not be sent"),
            }
        }
    }

    /// At least one permit, and as many more as are free.
    async fn permits(&self) -> Option<OwnedSemaphorePermit> {
        let mut permits = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        self.take_free(&mut permits);
        if permits.num_permits() < SMALL.min(self.most()) {
            tokio::time::sleep(MOMENT).await;
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

    /// Hands out what one pull brings; false if it brought nothing but an error.
    async fn take(
        &self,
        mut batch: Batch,
        mut permits: OwnedSemaphorePermit,
        work: &Arc<impl Work>,
        shutdown: &CancellationToken,
    ) -> bool {
        let (mut taken, mut failed) = (false, false);
        loop {
            let chunk = tokio::select! {
                () = shutdown.cancelled() => {
                    give_back_rest(batch).await;
                    return true;
                }
                chunk = tokio::time::timeout(OPEN + GRACE, batch.next()) => chunk,
            };
            let Ok(Some(chunk)) = chunk else {
                return taken || !failed;
            };
            // An error ends a pull early, it says nothing of the messages.
            let mut messages = Vec::with_capacity(chunk.len());
            for message in chunk {
                match message {
                    Ok(message) => messages.push((self.in_flight.track(&message), message)),
                    Err(error) => {
                        failed = true;
                        tracing::debug!(lane = self.name, %error, "a pull ended early");
                    }
                }
            }
            if messages.is_empty() {
                continue;
            }
            taken = true;
            let ready = work.prepare().await;
            let mut together = Vec::with_capacity(messages.len());
            for (alive, message) in messages {
                if !ready {
                    answer(&message, AckKind::Nak(Some(AGAIN))).await;
                    continue;
                }
                let Some(permit) = permits.split(1) else {
                    // More than was asked for.
                    answer(&message, AckKind::Nak(None)).await;
                    continue;
                };
                let mut weight = self.weight.try_take(&message);
                if weight.is_none() {
                    // The others may be what there is to wait for.
                    self.hand_out(work, std::mem::take(&mut together));
                    weight = self.weight.take(&message).await;
                }
                together.push(Taken {
                    message,
                    _alive: alive,
                    _permit: permit,
                    _weight: weight,
                    _counted: Counted::new(&self.gauge),
                });
            }
            self.hand_out(work, together);
        }
    }

    fn hand_out(&self, work: &Arc<impl Work>, messages: Vec<Taken>) {
        if !messages.is_empty() {
            let work = Arc::clone(work);
            self.tasks.spawn(async move { work.handle(messages).await });
        }
    }
}

/// What a lane's messages may weigh, so that large ones cannot fill the memory.
#[derive(Debug, Clone)]
pub struct Weight(Arc<Semaphore>);

impl Default for Weight {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LANE_WEIGHT as usize)))
    }
}

impl Weight {
    /// Room for a message, if there is some.
    fn try_take(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let weight = weigh(&message.payload);
        Arc::clone(&self.0).try_acquire_many_owned(weight).ok()
    }

    /// Waits until there is room for a message.
    async fn take(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let weight = weigh(&message.payload);
        Arc::clone(&self.0).acquire_many_owned(weight).await.ok()
    }
}

/// Roughly what a body takes once it is parsed, in KiB: many small values take far more than their
/// text.
fn weigh(body: &[u8]) -> u32 {
    let values = body.iter().filter(|byte| **byte == b',').count();
    let kib = (body.len() + values * VALUE_BYTES) >> 10;
    (kib as u32 + 1).min(LANE_WEIGHT)
}

/// Gives back what has arrived and was not started.
async fn give_back_rest(mut batch: Batch) {
    while let Some(Some(chunk)) = batch.next().now_or_never() {
        for message in chunk.into_iter().flatten() {
            answer(&message, AckKind::Nak(None)).await;
        }
    }
}

async fn answer(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        tracing::debug!(%error, "a message could not be given back");
    }
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
