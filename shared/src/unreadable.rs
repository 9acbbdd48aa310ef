//! Messages that the NATS client cannot read. The server stores any bytes, and the client closes its connection at
//! some of them, again and again, or its connection task panics and all further calls fail.
//!
//! After each disconnect, and when a client is dead, this process looks at what is stored through the server's JSON
//! API, which the client reads as a plain payload. What cannot be read becomes a dead letter and is removed. Several
//! processes may do so at once.

mod rules;

use std::collections::HashMap;
use std::future::pending;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use async_nats::client::FlushErrorKind;
use async_nats::jetstream;
use async_nats::{Client, HeaderMap};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prometheus::IntCounter;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::event::{EventId, MAX_EVENT_BYTES};
use crate::status::Readiness;
use crate::stream_api::{self, Raw, api, raw};
use crate::subject::{self, ALL_SUBJECTS, encode_header, header};
use rules::{Reason, Way};

/// How often clients are asked for a sign of life.
const LOOK: Duration = Duration::from_millis(200);
/// For such a sign: a client that is not connected takes longer, and lives.
const SIGN: Duration = Duration::from_secs(1);
/// After a cure that failed.
const RETRY: Duration = Duration::from_millis(250);
/// A connection that is lost again within this time breaks at something else that is stored: an outage alone is no
/// reason to read whole streams.
const AGAIN: Duration = Duration::from_secs(60);
/// Messages that are read at the same time.
const AT_ONCE: usize = 32;
/// Sequences that are tried before a gap is skipped.
const WINDOW: u64 = 256;

/// What a service reads, the most urgent first.
#[derive(Debug, Clone, Copy)]
pub struct Reads {
    /// The service's name.
    pub service: &'static str,
    pub consumers: &'static [(&'static str, &'static str)],
    pub streams: &'static [&'static str],
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] stream_api::Error),
    #[error("cannot write a dead letter")]
    Bury(#[from] jetstream::context::PublishError),
}

/// Cures after each disconnect. Ends when one of the clients is dead, after a last cure over a new connection: the
/// process cannot go on then.
pub async fn watch(
    options: connection::Options,
    clients: Vec<Client>,
    reads: Reads,
    health: Readiness,
) {
    let mut cure = Cure::new(reads);
    let disconnects = connection::disconnects();
    loop {
        tokio::select! {
            () = disconnects.notified() => {
                if let Some(client) = clients.first() {
                    cure.repeat(client, is_dead(&clients)).await;
                }
            }
            () = is_dead(&clients) => break,
        }
        if tokio::time::timeout(Duration::ZERO, is_dead(&clients))
            .await
            .is_ok()
        {
            break;
        }
    }
    // The last cure may take a while.
    health.missing("NATS client", "it is dead");
    tracing::error!("the NATS client is dead: a message that it cannot read made it panic");
    let never = CancellationToken::new();
    match connection::connect(&options, cure.reads.service, "cure", &never).await {
        Ok(client) => {
            cure.thoroughly();
            cure.repeat(&client, pending()).await;
        }
        Err(error) => tracing::error!(%error, "cannot connect to look for that message"),
    }
}

/// Resolves when a client's connection task is gone.
async fn is_dead(clients: &[Client]) {
    loop {
        for client in clients {
            let sign = tokio::time::timeout(SIGN, client.flush()).await;
            if let Ok(Err(error)) = sign
                && error.kind() == FlushErrorKind::SendError
            {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Cure {
    reads: Reads,
    /// Up to where each stream has been read.
    read: HashMap<&'static str, u64>,
    /// The last cure.
    last: Option<Instant>,
}

impl Cure {
    fn new(reads: Reads) -> Self {
        Self {
            reads,
            read: HashMap::new(),
            last: None,
        }
    }

    /// Reads whole streams from now on.
    fn thoroughly(&mut self) {
        self.last = Some(Instant::now());
    }

    /// Until it succeeds, or `ended`.
    async fn repeat(&mut self, client: &Client, ended: impl Future<Output = ()>) {
        let cured = async {
            while let Err(error) = self.all(client).await {
                tracing::debug!(%error, "cannot look for unreadable messages yet");
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = cured => {}
            () = ended => {}
        }
    }

    async fn all(&mut self, client: &Client) -> Result<(), Error> {
        let is_again = self.last.is_some_and(|last| last.elapsed() < AGAIN);
        // What was delivered and is not acked is what the connection broke at, if a message broke it at all.
        for (stream, consumer) in self.reads.consumers {
            if let Some(range) = delivered(client, stream, consumer).await? {
                scan(client, stream, range).await?;
            }
        }
        let streams = if is_again { self.reads.streams } else { &[] };
        for stream in streams {
            let info = api(client, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
            let state = |name: &str| info["state"][name].as_u64().unwrap_or_default();
            let read = self.read.get(stream).copied().unwrap_or_default();
            let (first, last) = (state("first_seq").max(read + 1), state("last_seq"));
            scan(client, stream, first..=last).await?;
            self.read.insert(stream, last);
        }
        self.last = Some(Instant::now());
        Ok(())
    }
}

/// The sequences that a consumer has delivered and that may not be acked. None: there is no consumer.
async fn delivered(
    client: &Client,
    stream: &str,
    consumer: &str,
) -> Result<Option<RangeInclusive<u64>>, Error> {
    let subject = format!("CONSUMER.INFO.{stream}.{consumer}");
    let info = match api(client, &subject, &json!({})).await {
        Err(stream_api::Error::Refused(_)) => return Ok(None),
        info => info?,
    };
    let sequence = |of: &str| info[of]["stream_seq"].as_u64();
    let range = sequence("ack_floor").zip(sequence("delivered"));
    Ok(range.map(|(floor, last)| floor + 1..=last))
}

/// Reads the messages in a range, and removes those that a client cannot read.
async fn scan(client: &Client, stream: &str, range: RangeInclusive<u64>) -> Result<(), Error> {
    let (mut next, last) = (*range.start(), *range.end());
    while next <= last {
        let window = next..=last.min(next + WINDOW - 1);
        next = window.end() + 1;
        let found: Vec<_> = stream::iter(window)
            .map(|sequence| raw(client, stream, json!({ "seq": sequence })))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut is_empty = true;
        for message in found.into_iter().flatten() {
            is_empty = false;
            treat(client, stream, &message).await?;
        }
        if is_empty {
            let following = json!({ "seq": next, "next_by_subj": ALL_SUBJECTS });
            match raw(client, stream, following).await? {
                Some(message) => next = message.seq,
                None => return Ok(()),
            }
        }
    }
    Ok(())
}

async fn treat(client: &Client, stream: &str, message: &Raw) -> Result<(), Error> {
    let headers = BASE64_STANDARD.decode(&message.hdrs).unwrap_or_default();
    // Events are only pulled: what a consumer can read is none of our business.
    let way = match stream {
        subject::EVENTS_STREAM => Way::Pulled,
        _ => Way::Copied,
    };
    if let Err(reason) = rules::check(&message.subject, &headers, way) {
        bury(client, stream, message, reason).await?;
        remove(client, stream, message).await?;
        let sequence = message.seq;
        tracing::warn!(
            stream,
            sequence,
            reason,
            "an unreadable message is dead-lettered and removed"
        );
    }
    Ok(())
}

/// Counts messages that were buried here.
pub fn buried() -> &'static IntCounter {
    static BURIED: LazyLock<IntCounter> = LazyLock::new(|| {
        let name = "hookline_unreadable_messages_total";
        let help = "Stored messages that no NATS client can read, dead-lettered and removed; not in hookline_dead_letters_total";
        IntCounter::new(name, help).expect("the name is sound")
    });
    &BURIED
}

async fn bury(client: &Client, stream: &str, message: &Raw, reason: Reason) -> Result<(), Error> {
    let id = format!("{stream} {} {}", message.seq, message.time);
    let digest = EventId::given(&id).digest("");
    let body = BASE64_STANDARD.decode(&message.data).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::SUBJECT, encode_header(&message.subject)),
        (header::EVENT_ID, encode_header(&id)),
        (header::ORIGINAL_SIZE, body.len().to_string().into()),
        (header::REASON, encode_header(reason)),
    ] {
        headers.insert(name, &*value);
    }
    // Whole: only its headers or its subject may be wrong.
    let kept = body[..body.len().min(MAX_EVENT_BYTES)].to_vec();
    let context = jetstream::new(client.clone());
    let letter = subject::dead_event_subject(&digest);
    let sent = context.publish_with_headers(letter, headers, kept.into());
    sent.await?.await?;
    buried().inc();
    Ok(())
}

async fn remove(client: &Client, stream: &str, message: &Raw) -> Result<(), Error> {
    let removed = if stream == subject::BUCKET_STREAM {
        // It allows no deletion of single messages.
        let filter = json!({ "filter": message.subject, "seq": message.seq + 1 });
        api(client, &format!("STREAM.PURGE.{stream}"), &filter).await
    } else {
        let which = json!({ "seq": message.seq, "no_erase": true });
        api(client, &format!("STREAM.MSG.DELETE.{stream}"), &which).await
    };
    match removed {
        // Another process was faster.
        Err(stream_api::Error::Refused(_)) => Ok(()),
        removed => Ok(removed.map(drop)?),
    }
}
