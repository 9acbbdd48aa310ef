//! Pulling the messages of a consumer.
//!
//! All pulls of a [`Puller`] share one subscription. What the server sends for a pull that this side
//! takes for over, because the wire was cut meanwhile or because a cluster said so before its quorum
//! let the messages go, is received nonetheless. With a subscription for each pull such messages are
//! sent to nobody, and come again only after their `ack_wait`.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures::{FutureExt as _, StreamExt as _};

use crate::event::Stored;

/// The messages of one consumer.
#[derive(Debug)]
pub struct Puller {
    consumer: PullConsumer,
    subscriber: Subscriber,
    inbox: String,
    pulls: u64,
}

/// What came together.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The messages.
    pub messages: Vec<Message>,
    /// The server says that the last pull brings no more.
    pub is_over: bool,
    /// Why, where that is neither time nor number.
    pub error: Option<String>,
}

/// Why no message can be pulled or answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client takes no command.
    #[error("the connection takes no command")]
    Client(#[source] async_nats::Error),
    /// The client was closed.
    #[error("the connection is closed")]
    Closed,
    /// A message did not come from a consumer.
    #[error("nobody waits for an answer to this message")]
    Unasked,
}

impl Puller {
    /// Pulls from a consumer through a client.
    ///
    /// # Errors
    /// [`Error::Client`]
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

    /// Asks for so many messages, of so many bytes in all where they are not 0. The server keeps
    /// the pull for as long as `open`.
    ///
    /// # Errors
    /// [`Error::Client`]
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

    /// Waits for something, and takes what has come with it, at most so many messages.
    ///
    /// # Errors
    /// [`Error::Closed`]
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

    /// Where the answer to the last pull goes.
    fn reply(&self) -> String {
        format!("{}.{}", self.inbox, self.pulls)
    }
}

/// Says what becomes of a message that was pulled.
///
/// # Errors
/// [`Error::Client`], [`Error::Unasked`]
pub async fn answer(client: &Client, message: &Message, kind: AckKind) -> Result<(), Error> {
    let reply = message.reply.clone().ok_or(Error::Unasked)?;
    let sent = client.publish(reply, kind.into()).await;
    sent.map_err(|error| Error::Client(error.into()))
}

/// The fewest tokens of an answer's subject, after `$JS.ACK.`, that begins with domain and account.
const TOKENS: usize = 9;

/// Where a message that was pulled stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where it stands in its stream.
    pub stored: Stored,
    /// How many messages the consumer has after it.
    pub pending: u64,
}

impl Place {
    /// Reads the subject that the answer goes to; none if it is not a consumer's (ADR-15, both
    /// versions).
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
