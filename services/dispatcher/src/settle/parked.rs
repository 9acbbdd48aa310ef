//! Reads about parked deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use hookline_shared::batch;
use hookline_shared::event;
use hookline_shared::stream_reader;
use hookline_shared::subject::{self, header};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A waiting delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub sequence: u64,
    /// The attempt for which it waits.
    pub attempt: u32,
}

/// How long the stream's answer, or its silence, is cached.
const FRESH: Duration = Duration::from_secs(1);
/// More than can be parked in that time.
const MEANWHILE: u64 = 10_000;

#[derive(Debug, Clone)]
pub(crate) struct Parked {
    context: jetstream::Context,
    held: Arc<Mutex<Option<Held>>>,
}

/// The number of messages in the stream; None if it did not answer.
#[derive(Debug, Clone, Copy)]
struct Held {
    asked: Instant,
    messages: Option<u64>,
}

impl Parked {
    #[must_use]
    pub(crate) fn new(context: jetstream::Context) -> Self {
        Self {
            context,
            held: Arc::default(),
        }
    }

    /// An upper bound of how many deliveries of a hook wait. The server goes through all of them to count, and many
    /// hooks may begin to wait at once, so it does not count while the whole stream holds no more than `few`.
    pub(crate) async fn count(&self, hook: &str, few: u64) -> Result<u64, batch::Error> {
        let held = self.held().await.ok_or(batch::Error::Unavailable)?;
        if held + MEANWHILE <= few {
            return Ok(held + MEANWHILE);
        }
        let waits = subject::waits_of(hook);
        let client = self.context.client();
        let count = stream_reader::count(&client, subject::DELIVERIES_STREAM, &waits).await;
        count.map_err(|_| batch::Error::Unavailable)
    }

    /// The number of messages in the stream. Concurrent callers share an answer.
    async fn held(&self) -> Option<u64> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held
            && held.asked.elapsed() < FRESH
        {
            return held.messages;
        }
        let stream = self.context.get_stream(subject::DELIVERIES_STREAM).await;
        let messages = stream
            .ok()
            .map(|stream| stream.cached_info().state.messages);
        *held = Some(Held {
            asked: Instant::now(),
            messages,
        });
        messages
    }

    /// The delivery that waits under a subject.
    pub(crate) async fn last(&self, wait: &str) -> Result<Option<Waiting>, batch::Error> {
        let unavailable = batch::Error::Unavailable;
        let stream = self
            .context
            .get_stream_no_info(subject::DELIVERIES_STREAM)
            .await;
        let stream = stream.map_err(|_| unavailable.clone())?;
        match stream.get_last_raw_message_by_subject(wait).await {
            Ok(message) => {
                let attempt = event::get(Some(&message.headers), header::ATTEMPT);
                Ok(Some(Waiting {
                    sequence: message.sequence,
                    attempt: attempt.and_then(|text| text.parse().ok()).unwrap_or(0),
                }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(_) => Err(unavailable),
        }
    }
}
