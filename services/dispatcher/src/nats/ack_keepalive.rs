//! Progress acks for messages in flight: one loop per worker, not a timer per message.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::{Client, Message, Subject};
use parking_lot::Mutex;

/// Progress acks within an ack wait.
const TIMES: u32 = 4;
/// Looks for due messages between two acks of a message.
const PARTS: u32 = 16;
/// The longest between two looks: the ack wait may shrink meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// The messages in flight. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AckKeepalive {
    client: Client,
    messages: Messages,
    next: Arc<AtomicU64>,
    /// The shortest ack wait of all consumers, in milliseconds.
    ack_wait: Arc<AtomicU64>,
}

type Messages = Arc<Mutex<HashMap<u64, Tracked>>>;

#[derive(Debug)]
struct Tracked {
    reply: Subject,
    since: Instant,
}

/// Keeps one message alive until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    number: u64,
    messages: Messages,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.messages.lock().remove(&self.number);
    }
}

impl AckKeepalive {
    pub(crate) fn new(client: Client, ack_wait: Duration) -> Self {
        Self {
            client,
            messages: Arc::default(),
            next: Arc::default(),
            ack_wait: Arc::new(AtomicU64::new(ack_wait.as_millis() as u64)),
        }
    }

    /// Notes a consumer's actual ack wait, which another dispatcher or an operator may have set.
    pub(crate) fn redelivers_after(&self, ack_wait: Duration) {
        let ack_wait = ack_wait.as_millis() as u64;
        self.ack_wait.fetch_min(ack_wait, Ordering::Relaxed);
    }

    #[must_use]
    pub(crate) fn track(&self, message: &Message) -> Guard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(reply) = message.reply.clone() {
            let since = Instant::now();
            self.messages
                .lock()
                .insert(number, Tracked { reply, since });
        }
        Guard {
            number,
            messages: Arc::clone(&self.messages),
        }
    }

    /// Spreads acks out: thousands at once would hold up other messages.
    pub(crate) async fn run(self) {
        loop {
            let interval = self.interval();
            tokio::time::sleep((interval / PARTS).min(LOOK)).await;
            for reply in self.due(interval) {
                self.send(reply, AckKind::Progress).await;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.lock().is_empty()
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.ack_wait.load(Ordering::Relaxed)) / TIMES
    }

    /// Takes the messages whose last ack is at least `interval` ago.
    fn due(&self, interval: Duration) -> Vec<Subject> {
        let now = Instant::now();
        let mut messages = self.messages.lock();
        messages
            .values_mut()
            .filter(|message| now - message.since >= interval)
            .map(|message| {
                message.since = now;
                message.reply.clone()
            })
            .collect()
    }

    /// Gives back all messages in flight. Returns their number.
    pub(crate) async fn give_back(&self) -> usize {
        let messages = std::mem::take(&mut *self.messages.lock());
        let count = messages.len();
        for message in messages.into_values() {
            self.send(message.reply, AckKind::Nak(None)).await;
        }
        count
    }

    async fn send(&self, reply: Subject, kind: AckKind) {
        if let Err(error) = self.client.publish(reply, kind.into()).await {
            tracing::debug!(%error, "cannot send an ack");
        }
    }
}
