//! Follows keys of the bucket: first the last state of every key, then every change, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::connection::State;
use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};

use crate::event;
use crate::subject::{BUCKET_STREAM, header};

/// How long the bucket keeps the markers of deleted keys.
pub const MARKERS_KEPT: Duration = Duration::from_secs(86_400);
/// A watch that was down for longer may have missed deletions whose markers are gone. Well below
/// [`MARKERS_KEPT`].
const MAX_DOWN: Duration = Duration::from_secs(43_200);
/// Pause before the watch restarts, doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
const CONNECTION_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The caller's copy of the bucket may hold deleted keys and must be rebuilt.
#[derive(Debug, thiserror::Error)]
#[error("the watch on the bucket was down for {0:?} and may have missed deletions")]
pub struct AwayTooLong(Duration);

/// A state of a key.
#[derive(Debug, Clone)]
pub struct Change {
    pub subject: String,
    pub sequence: u64,
    /// In Unix nanoseconds.
    pub time: i128,
    pub headers: Option<HeaderMap>,
    /// `None` if the key was deleted.
    pub value: Option<Bytes>,
    /// Whether the next change has already arrived.
    pub more: bool,
}

/// Calls `apply` with the last state of every key under `filter`, then with every change. A broken watch
/// restarts from the last states, so `apply` must ignore sequences that it has seen. Returns only if the
/// watch was down for so long that it may have missed deletions.
pub async fn follow(
    context: &jetstream::Context,
    filter: &str,
    mut apply: impl FnMut(Change),
) -> AwayTooLong {
    let (mut pause, mut last_up) = (MIN_PAUSE, SystemTime::now());
    loop {
        let (mut seen, is_up) = (false, AtomicBool::new(false));
        tokio::select! {
            end = follow_once(context, filter, &mut apply, &mut seen, &is_up) => {
                if let Err(error) = end {
                    tracing::warn!(%error, "watch on the bucket broke, restarting it");
                }
            }
            end = reconnected(context, &is_up, &mut last_up) => match end {
                Ok(()) => tracing::debug!("reconnected, restarting the watch on the bucket"),
                Err(error) => return error,
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

/// Returns after a reconnect: a restarted server has lost the watch, which missing heartbeats would reveal
/// only after a minute. Fails if the watch was down for too long, because NATS was down or this process was
/// suspended.
async fn reconnected(
    context: &jetstream::Context,
    is_up: &AtomicBool,
    last_up: &mut SystemTime,
) -> Result<(), AwayTooLong> {
    let client = context.client();
    let statistics = client.statistics();
    let before = statistics.connects.load(Ordering::Relaxed);
    while statistics.connects.load(Ordering::Relaxed) == before {
        let down = last_up.elapsed().unwrap_or_default();
        if down > MAX_DOWN {
            return Err(AwayTooLong(down));
        }
        if is_up.load(Ordering::Relaxed) && client.connection_state() == State::Connected {
            *last_up = SystemTime::now();
        }
        tokio::time::sleep(CONNECTION_POLL_INTERVAL).await;
    }
    Ok(())
}

async fn follow_once(
    context: &jetstream::Context,
    filter: &str,
    apply: &mut impl FnMut(Change),
    seen: &mut bool,
    is_up: &AtomicBool,
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
    is_up.store(true, Ordering::Relaxed);
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
