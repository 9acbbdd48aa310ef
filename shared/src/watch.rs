//! Following keys of the bucket: every key's last state first, then every change, in order.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};

use crate::event;
use crate::subject::{BUCKET_STREAM, header};

/// The first pause before the watch is set up again; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One state of one key.
#[derive(Debug, Clone)]
pub struct Change {
    /// The full subject.
    pub subject: String,
    /// Sequence of the message.
    pub sequence: u64,
    /// When it was stored, in Unix nanoseconds.
    pub time: i128,
    /// Its headers.
    pub headers: Option<HeaderMap>,
    /// Its body; nothing if the key was deleted.
    pub value: Option<Bytes>,
    /// Whether the next change is here already.
    pub more: bool,
}

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Calls `apply` with the last state of every key under `filter`, then with every change. When
/// the watch breaks it is set up anew, and `apply` sees the last states again, so it must ignore
/// sequences that it has seen. Never returns; drop the future to stop.
pub async fn follow(
    context: &jetstream::Context,
    filter: &str,
    mut apply: impl FnMut(Change),
) -> Infallible {
    let mut pause = MIN_PAUSE;
    loop {
        let mut seen = false;
        tokio::select! {
            end = follow_once(context, filter, &mut apply, &mut seen) => {
                if let Err(error) = end {
                    tracing::warn!(%error, "the watch on the bucket broke, setting it up again");
                }
            }
            () = reconnected(context) => {
                tracing::debug!("reconnected, setting the watch on the bucket up again");
            }
        }
        pause = if seen {
            MIN_PAUSE
        } else {
            (pause * 2).min(MAX_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// Resolves after a reconnect: a server that restarted has forgotten the watch, and missing
/// heartbeats tell so only after a minute.
async fn reconnected(context: &jetstream::Context) {
    let statistics = context.client().statistics();
    let before = statistics.connects.load(Ordering::Relaxed);
    while statistics.connects.load(Ordering::Relaxed) == before {
        tokio::time::sleep(LOOK).await;
    }
}

async fn follow_once(
    context: &jetstream::Context,
    filter: &str,
    apply: &mut impl FnMut(Change),
    seen: &mut bool,
) -> Result<(), async_nats::Error> {
    let config = consumer::pull::OrderedConfig {
        deliver_policy: consumer::DeliverPolicy::LastPerSubject,
        filter_subject: filter.to_owned(),
        ..Default::default()
    };
    let consumer = context
        .create_consumer_on_stream(config, BUCKET_STREAM)
        .await?;
    let mut messages = consumer.messages().await?;
    let mut next = messages.next().await;
    while let Some(message) = next {
        let message = message?;
        next = messages.next().now_or_never().flatten();
        let info = message.info()?;
        *seen = true;
        let deleted = event::get(message.headers.as_ref(), header::KV_OPERATION).is_some();
        apply(Change {
            sequence: info.stream_sequence,
            time: info.published.unix_timestamp_nanos(),
            subject: message.subject.to_string(),
            headers: message.headers.clone(),
            value: (!deleted).then(|| message.payload.clone()),
            more: matches!(next, Some(Ok(_))),
        });
        if next.is_none() {
            next = messages.next().await;
        }
    }
    Ok(())
}
