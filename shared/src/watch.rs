//! Follows keys of the bucket: first the last state of every key, then every change, in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_nats::HeaderMap;
use async_nats::connection::State;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode, consumer};
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
const IDENTITY_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// When the bucket is missing.
pub const WHAT_TO_DO: &str =
    "restore it from a backup, or restart a service, which creates an empty one";

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

/// What a watch tells.
#[derive(Debug, Clone)]
pub enum Update {
    Change(Change),
    /// The bucket is not there. The caller's copy of it may be the last.
    Missing,
    /// The bucket is another one, or a restored one: the caller's copy is void, the states of all keys follow.
    Replaced,
}

/// Calls `apply` with the last state of every key under `filter`, then with every change. A broken watch
/// restarts from the last states, so `apply` must ignore sequences that it has seen. Returns only if the
/// watch was down for so long that it may have missed deletions.
pub async fn follow(
    context: &jetstream::Context,
    filter: &str,
    mut apply: impl FnMut(Update),
) -> AwayTooLong {
    let (mut pause, mut last_up) = (MIN_PAUSE, SystemTime::now());
    let mut bucket = identity(context).await;
    // Another one could not be told from it.
    while bucket == Bucket::Unknown {
        tokio::time::sleep(IDENTITY_POLL_INTERVAL).await;
        bucket = identity(context).await;
    }
    let newest = AtomicU64::new(0);
    loop {
        let (mut seen, is_up) = (false, AtomicBool::new(false));
        tokio::select! {
            end = follow_once(context, filter, &mut apply, &mut seen, (&is_up, &newest)) => {
                if let Err(error) = end {
                    tracing::warn!(%error, "watch on the bucket broke, restarting it");
                }
            }
            end = disturbed(context, &is_up, &mut last_up, (&bucket, &newest)) => match end {
                Ok(()) => tracing::debug!("restarting the watch on the bucket"),
                Err(error) => return error,
            }
        }
        let now = identity(context).await;
        if now == Bucket::Missing {
            tracing::error!("the bucket {BUCKET_STREAM} is missing in NATS: {WHAT_TO_DO}");
            apply(Update::Missing);
            // A restored one has the time of the backup's creation.
            bucket = Bucket::Missing;
            while identity(context).await == Bucket::Missing {
                tokio::time::sleep(IDENTITY_POLL_INTERVAL).await;
            }
        }
        let mut now = identity(context).await;
        if now.is_another_than(&bucket, &newest) {
            // A leader that was just elected may not have applied all that it has.
            tokio::time::sleep(IDENTITY_POLL_INTERVAL).await;
            now = identity(context).await;
        }
        if now.is_another_than(&bucket, &newest) {
            newest.store(0, Ordering::Relaxed);
            tracing::error!("the bucket {BUCKET_STREAM} was replaced by another one, reading that");
            apply(Update::Replaced);
        }
        if now != Bucket::Unknown {
            bucket = now;
        }
        pause = if seen {
            MIN_PAUSE
        } else {
            (pause * 2).min(MAX_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// Which bucket there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    /// NATS does not answer.
    Unknown,
    Missing,
    /// When it was created, in Unix nanoseconds, and its last sequence.
    There(i128, u64),
}

impl Bucket {
    /// A restored one has the time of the backup's creation, but ends before the newest sequence that was seen.
    fn is_another_than(self, known: &Self, newest: &AtomicU64) -> bool {
        match (self, known) {
            (Self::There(now, last), Self::There(known, _)) => {
                now != *known || last < newest.load(Ordering::Relaxed)
            }
            (Self::There(..), Self::Missing) => true,
            _ => false,
        }
    }
}

async fn identity(context: &jetstream::Context) -> Bucket {
    match context.get_stream(BUCKET_STREAM).await {
        Ok(bucket) => {
            let info = bucket.cached_info();
            let created = info.created.unix_timestamp_nanos();
            Bucket::There(created, info.state.last_sequence)
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Bucket::Missing
            }
            _ => Bucket::Unknown,
        },
    }
}

/// Returns when the watch must be restarted. After a reconnect: a restarted server has lost the watch, which missing
/// heartbeats would reveal only after a minute. If the bucket is another one or missing: the watch would go on at the
/// sequence where it was. Fails if the watch was down for too long, because NATS was down or this process was suspended.
async fn disturbed(
    context: &jetstream::Context,
    is_up: &AtomicBool,
    last_up: &mut SystemTime,
    (bucket, newest): (&Bucket, &AtomicU64),
) -> Result<(), AwayTooLong> {
    let client = context.client();
    let statistics = client.statistics();
    let before = statistics.connects.load(Ordering::Relaxed);
    let mut looked = Instant::now();
    while statistics.connects.load(Ordering::Relaxed) == before {
        let down = last_up.elapsed().unwrap_or_default();
        if down > MAX_DOWN {
            return Err(AwayTooLong(down));
        }
        if is_up.load(Ordering::Relaxed) && client.connection_state() == State::Connected {
            *last_up = SystemTime::now();
        }
        tokio::time::sleep(CONNECTION_POLL_INTERVAL).await;
        if looked.elapsed() >= IDENTITY_POLL_INTERVAL {
            looked = Instant::now();
            let now = identity(context).await;
            if now == Bucket::Missing || now.is_another_than(bucket, newest) {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn follow_once(
    context: &jetstream::Context,
    filter: &str,
    apply: &mut impl FnMut(Update),
    seen: &mut bool,
    (is_up, newest): (&AtomicBool, &AtomicU64),
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
        newest.fetch_max(info.stream_sequence, Ordering::Relaxed);
        let deleted = event::get(message.headers.as_ref(), header::KV_OPERATION).is_some();
        apply(Update::Change(Change {
            sequence: info.stream_sequence,
            time: info.published.unix_timestamp_nanos(),
            subject: message.subject.to_string(),
            headers: message.headers.clone(),
            value: (!deleted).then(|| message.payload.clone()),
            more: matches!(next, Some(Ok(_))),
        }));
        if next.is_none() {
            next = messages.next().await;
        }
    }
    Ok(())
}
