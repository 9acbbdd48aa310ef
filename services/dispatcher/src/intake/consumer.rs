//! Pulling messages: one lane takes what it has permits for, and hands what comes together to its work.
//! It knows nothing of handlers, nor of what the messages are.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::{self, AckKind};
use async_trait::async_trait;
use futures::FutureExt as _;
use hookline_shared::pull::{self, Puller};
use hookline_shared::streams;
use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nats::ack_keepalive::AckKeepalive;
use crate::nats::pulled_message::{Counted, Held, PulledMessage};
use crate::nats::request::{self, NoAnswer};

/// The most messages that one pull asks for.
pub(crate) const PULL: usize = 256;
/// The same where messages are rare, since a pull holds its permits while it waits, and in a cluster,
/// where nothing else bounds what it brings.
pub(crate) const SMALL_PULL: usize = 64;
/// How long the server keeps a pull open. A connection that broke is noticed after that, and a worker
/// that stops waits for it.
const OPEN: Duration = Duration::from_millis(500);
/// How much longer than [`OPEN`] this side waits.
const GRACE: Duration = Duration::from_millis(500);
/// The pause after a pull that could not be made.
const PAUSE: Duration = Duration::from_millis(250);
/// A pull for less than half of the most waits a moment for more permits: small pulls cost as much as
/// large ones.
const MOMENT: Duration = Duration::from_millis(2);
/// How soon messages come again that could not be prepared for.
const AGAIN: Duration = Duration::from_secs(1);

/// The most bytes that one pull asks for.
const PULL_BYTES: usize = 16 << 20;
/// What one lane's messages may weigh in memory, in KiB.
const LANE_WEIGHT: u32 = 64 << 10;
/// What a JSON value takes once it is parsed, roughly.
const VALUE_BYTES: usize = 72;

/// What is done with messages.
#[async_trait]
pub(crate) trait MessageSink: Send + Sync + 'static {
    /// Gets ready for the messages that were just pulled; false: give them back.
    async fn prepare(&self) -> bool;

    /// Handles messages that came together to their end, acks included.
    async fn handle(&self, messages: Vec<PulledMessage>);
}

/// A consumer, and how it is made if it is not there.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    /// The connection.
    pub context: jetstream::Context,
    /// The stream that it reads.
    pub stream: &'static str,
    /// Its name, the same on all dispatchers.
    pub name: &'static str,
    /// The subjects that it reads; empty: all.
    pub filter: &'static str,
    /// How long the server waits for a sign of life.
    pub ack_wait: Duration,
}

impl Consumer {
    /// Creates the consumer if it is not there, and keeps messages alive for the ack wait that it has.
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

    /// A pull is bounded in bytes; in a cluster in messages only. There, what says that a pull bounded
    /// in bytes is complete comes before its messages, which wait for a quorum (nats-server 2.15.1).
    fn most_bytes(&self) -> usize {
        if self.is_clustered() { 0 } else { PULL_BYTES }
    }

    fn is_clustered(&self) -> bool {
        self.context.client().server_info().cluster.is_some()
    }
}

/// Why a consumer cannot be pulled from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be made.
    #[error(transparent)]
    Make(#[from] streams::Error),
    /// The server does not say that it has it.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// Nothing can be asked for.
    #[error(transparent)]
    Pull(#[from] pull::Error),
    /// The server refused a pull.
    #[error("the server refused a pull: {0}")]
    Refused(String),
}

/// One consumer of a stream of work.
pub(crate) struct Lane {
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
    pub keepalive: AckKeepalive,
    /// The tasks that handle messages.
    pub tasks: TaskTracker,
    /// How many are being handled.
    pub gauge: IntGauge,
}

impl Lane {
    /// Pulls and hands out messages until `shutdown`, and what the pull brings that is open then:
    /// a message that is sent already, and that nobody receives, comes again only after its `ack_wait`.
    pub(crate) async fn run(self, work: Arc<impl MessageSink>, shutdown: CancellationToken) {
        let mut puller = None;
        let mut rebuild = Box::pin(self.rebuild.notified());
        loop {
            if rebuild.as_mut().now_or_never().is_some() {
                (puller, rebuild) = (None, Box::pin(self.rebuild.notified()));
            }
            let permits = tokio::select! {
                () = shutdown.cancelled() => return,
                permits = self.permits() => permits,
            };
            let Some(permits) = permits else { return };
            if let Err(error) = self.pull(&mut puller, permits, &work).await {
                match &error {
                    Error::Make(_) | Error::NoAnswer(_) => {
                        tracing::warn!(lane = self.name, %error, "no consumer")
                    }
                    _ => tracing::debug!(lane = self.name, %error, "a pull failed"),
                }
                // The consumer may be gone.
                puller = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Makes one pull, and hands out what it brings.
    async fn pull(
        &self,
        puller: &mut Option<Puller>,
        permits: OwnedSemaphorePermit,
        work: &Arc<impl MessageSink>,
    ) -> Result<(), Error> {
        let puller = match puller {
            Some(puller) => puller,
            None => {
                puller.insert(request::with_retries(|| self.consumer.make(&self.keepalive)).await??)
            }
        };
        let bytes = self.consumer.most_bytes();
        let asked = puller.ask(permits.num_permits(), bytes, OPEN);
        match tokio::time::timeout(OPEN + GRACE, asked).await {
            Ok(asked) => asked?,
            Err(_) => return Ok(()),
        }
        self.take(puller, permits, work).await
    }

    /// At least one permit, and as many more as are free.
    async fn permits(&self) -> Option<OwnedSemaphorePermit> {
        let mut permits = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        self.take_free(&mut permits);
        if permits.num_permits() < self.most() / 2 {
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

    /// Hands out what one pull brings.
    async fn take(
        &self,
        puller: &mut Puller,
        mut permits: OwnedSemaphorePermit,
        work: &Arc<impl MessageSink>,
    ) -> Result<(), Error> {
        let mut is_empty = true;
        while permits.num_permits() > 0 {
            let Ok(chunk) = tokio::time::timeout(OPEN + GRACE, puller.next(PULL)).await else {
                return Ok(());
            };
            let chunk = chunk?;
            if !chunk.messages.is_empty() {
                is_empty = false;
                self.share_out(chunk.messages, &mut permits, work).await;
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

    async fn share_out(
        &self,
        messages: Vec<Message>,
        permits: &mut OwnedSemaphorePermit,
        work: &Arc<impl MessageSink>,
    ) {
        let alive = messages.into_iter();
        let messages: Vec<_> = alive
            .map(|message| (self.keepalive.track(&message), message))
            .collect();
        let ready = work.prepare().await;
        let mut together = Vec::with_capacity(messages.len());
        for (alive, message) in messages {
            if !ready {
                self.give_back(&message, Some(AGAIN)).await;
                continue;
            }
            // Of a pull that was taken for over there may come more than there are permits.
            let more = || Arc::clone(&self.permits).try_acquire_owned().ok();
            let Some(permit) = permits.split(1).or_else(more) else {
                self.give_back(&message, None).await;
                continue;
            };
            let mut weight = self.weight.try_take(&message);
            if weight.is_none() {
                // The others may be what there is to wait for.
                self.hand_out(work, std::mem::take(&mut together));
                weight = self.weight.take(&message).await;
            }
            let held = Held {
                _alive: alive,
                _permit: permit,
                _weight: weight,
                _counted: Counted::new(&self.gauge),
            };
            together.push(PulledMessage::new(message, held));
        }
        self.hand_out(work, together);
    }

    async fn give_back(&self, message: &Message, delay: Option<Duration>) {
        let client = self.consumer.context.client();
        if let Err(error) = pull::answer(&client, message, AckKind::Nak(delay)).await {
            tracing::debug!(%error, "a message could not be given back");
        }
    }

    fn hand_out(&self, work: &Arc<impl MessageSink>, messages: Vec<PulledMessage>) {
        if !messages.is_empty() {
            let work = Arc::clone(work);
            self.tasks.spawn(async move { work.handle(messages).await });
        }
    }
}

/// What a lane's messages may weigh, so that large ones cannot fill the memory.
#[derive(Debug, Clone)]
pub(crate) struct Weight(Arc<Semaphore>);

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
