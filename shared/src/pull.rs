//! Pulls the messages of a consumer.
//!
//! All pulls of a [`Puller`] share one subscription, so it also receives late messages of an earlier pull: the
//! connection may have broken, or a cluster may have ended the pull before its quorum released the messages. With
//! a subscription per pull they would be missed, and redelivered only after `ack_wait`.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures::{FutureExt as _, StreamExt as _};

use crate::event::Stored;

#[derive(Debug)]
pub struct Puller {
    consumer: PullConsumer,
    subscriber: Subscriber,
    inbox: String,
    pulls: u64,
}

#[derive(Debug, Default)]
pub struct Chunk {
    pub messages: Vec<Message>,
    /// Whether the last pull has ended.
    pub is_over: bool,
    /// Why the pull ended, unless it expired or was fulfilled.
    pub error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot send to NATS")]
    Client(#[source] async_nats::Error),
    #[error("the connection to NATS is closed")]
    Closed,
    #[error("the message has no ack subject")]
    Unasked,
}

impl Puller {
    pub async fn new(client: &Client, consumer: PullConsumer) -> Result<Self, Error> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await;
        Ok(Self {
            consumer,
            subscriber: subscriber.map_err(|error| Error::Client(error.into()))?,
            inbox,
            pulls: 0,
        })
    }

    /// Requests messages, up to `bytes` in total (0 for no limit). The pull expires after `open`.
    pub async fn ask(
        &mut self,
        messages: usize,
        bytes: usize,
        open: Duration,
    ) -> Result<(), Error> {
        self.pulls += 1;
        let pull = BatchConfig {
            batch: messages,
            max_bytes: bytes,
            expires: Some(open),
            ..Default::default()
        };
        let reply = self.reply();
        let asked = self.consumer.request_batch(pull, reply.into()).await;
        asked.map_err(|error| Error::Client(error.into()))
    }

    /// Waits for a message, and returns it with all that have already arrived, up to `most`.
    pub async fn next(&mut self, most: usize) -> Result<Chunk, Error> {
        let mut chunk = Chunk::default();
        let mut next = Some(self.subscriber.next().await.ok_or(Error::Closed)?);
        while let Some(message) = next {
            self.add(&mut chunk, message);
            if chunk.messages.len() >= most {
                break;
            }
            next = self.subscriber.next().now_or_never().flatten();
        }
        Ok(chunk)
    }

    fn add(&self, chunk: &mut Chunk, message: Message) {
        let Some(status) = message.status else {
            chunk.messages.push(message);
            return;
        };
        if status == StatusCode::IDLE_HEARTBEAT || *message.subject != *self.reply() {
            return;
        }
        chunk.is_over = true;
        if status != StatusCode::TIMEOUT && status != StatusCode::NOT_FOUND {
            let why = message.description.unwrap_or_default();
            chunk.error = Some(format!("{status} {why}"));
        }
    }

    /// The reply subject of the last pull.
    fn reply(&self) -> String {
        format!("{}.{}", self.inbox, self.pulls)
    }
}

pub async fn answer(client: &Client, message: &Message, kind: AckKind) -> Result<(), Error> {
    let reply = message.reply.clone().ok_or(Error::Unasked)?;
    let sent = client.publish(reply, kind.into()).await;
    sent.map_err(|error| Error::Client(error.into()))
}

/// The fewest tokens after `$JS.ACK.` in an ack subject that begins with domain and account.
const TOKENS: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub stored: Stored,
    /// How often the message was delivered, this time included.
    pub deliveries: u64,
    /// How many messages the consumer has after this one.
    pub pending: u64,
}

impl Place {
    /// Parses the ack subject (both versions of ADR-15). `None` if the message is not from a consumer.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let text = message.reply.as_ref()?.strip_prefix("$JS.ACK.")?;
        let tokens: Vec<_> = text.split('.').collect();
        // Before the numbers: stream and consumer, or domain, account, stream and consumer. Then
        // deliveries, sequence in the stream, sequence in the consumer, time, messages pending.
        let named = if tokens.len() < TOKENS { 2 } else { 4 };
        Some(Self {
            stored: Stored {
                sequence: tokens.get(named + 1)?.parse().ok()?,
                time: tokens.get(named + 3)?.parse().ok()?,
            },
            deliveries: tokens.get(named)?.parse().ok()?,
            pending: tokens.get(named + 4)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(reply: &str) -> Option<Place> {
        Place::of(&Message {
            subject: "any".into(),
            reply: Some(reply.into()),
            payload: bytes::Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn the_answers_subject_says_where_a_message_stands() {
        let stands = Some(Place {
            stored: Stored {
                sequence: 120,
                time: 1_700_000_000_000_000_001,
            },
            deliveries: 3,
            pending: 7,
        });
        let one = "$JS.ACK.EVENTS.workers.3.120.99.1700000000000000001.7";
        let two = "$JS.ACK._.hash.EVENTS.workers.3.120.99.1700000000000000001.7";
        assert_eq!(place(one), stands);
        assert_eq!(place(two), stands);
        assert_eq!(place(&format!("{two}.random")), stands);
    }

    #[test]
    fn another_subject_is_no_consumers() {
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.",
            "$JS.ACK.a.b.1.2.3.4",
            "$JS.ACK.a.b.1.x.3.4.5",
        ] {
            assert_eq!(place(reply), None, "{reply}");
        }
    }
}
