//! Signs of life for messages that are being worked on: one loop per worker, not a timer a message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::{Client, Message, Subject};

/// In how many parts of their interval signs of life are sent.
const PARTS: u32 = 16;

/// The messages in flight; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AckKeepalive {
    client: Client,
    messages: Arc<Mutex<HashMap<u64, Tracked>>>,
    next: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Tracked {
    reply: Subject,
    since: Instant,
}

/// Keeps one message alive until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    number: u64,
    messages: Arc<Mutex<HashMap<u64, Tracked>>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

impl AckKeepalive {
    /// Nothing in flight.
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            messages: Arc::default(),
            next: Arc::default(),
        }
    }

    /// Keeps a message alive from now on.
    #[must_use]
    pub(crate) fn track(&self, message: &Message) -> Guard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(reply) = message.reply.clone() {
            let tracked = Tracked {
                reply,
                since: Instant::now(),
            };
            self.messages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(number, tracked);
        }
        Guard {
            number,
            messages: Arc::clone(&self.messages),
        }
    }

    /// Sends signs of life, for ever, so that no message reaches its `ack_wait` unheard; for each message
    /// in its own time, not for thousands at once.
    pub(crate) async fn keep_alive(&self, ack_wait: Duration) {
        let interval = ack_wait / 4;
        let mut tick = tokio::time::interval(interval / PARTS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for reply in self.due(interval) {
                self.send(reply, AckKind::Progress).await;
            }
        }
    }

    /// What gave no sign of life for so long. It is taken to give one now.
    fn due(&self, interval: Duration) -> Vec<Subject> {
        let now = Instant::now();
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .values_mut()
            .filter(|message| now - message.since >= interval)
            .map(|message| {
                message.since = now;
                message.reply.clone()
            })
            .collect()
    }

    /// Gives back everything that is still in flight.
    pub(crate) async fn give_back(&self) -> usize {
        let messages = self.all();
        let count = messages.len();
        for message in messages {
            self.send(message.reply, AckKind::Nak(None)).await;
        }
        count
    }

    fn all(&self) -> Vec<Tracked> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    async fn send(&self, reply: Subject, kind: AckKind) {
        if let Err(error) = self.client.publish(reply, kind.into()).await {
            tracing::debug!(%error, "a sign of life could not be sent");
        }
    }
}
