//! Looking at parked deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use hookline_shared::batch;
use hookline_shared::event;
use hookline_shared::stream_reader;
use hookline_shared::subject::{self, header};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What is known of a delivery that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Where it stands in the stream.
    pub sequence: u64,
    /// The attempt that it waits for.
    pub attempt: u32,
}

/// For how long it is believed how many messages the stream holds, or that it does not say.
const FRESH: Duration = Duration::from_secs(1);
/// More than are parked in that time.
const MEANWHILE: u64 = 10_000;

/// The stream of parked deliveries.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    context: jetstream::Context,
    held: Arc<Mutex<Option<Held>>>,
}

/// How many messages the stream holds, if it says so.
#[derive(Debug, Clone, Copy)]
struct Held {
    asked: Instant,
    messages: Option<u64>,
}

impl Parked {
    /// The stream as this connection sees it.
    #[must_use]
    pub(crate) fn new(context: jetstream::Context) -> Self {
        Self {
            context,
            held: Arc::default(),
        }
    }

    /// How many deliveries of a hook wait, at most. The server goes through all of a hook to count them,
    /// and many hooks may begin to wait at once, so they are not counted while the whole stream holds no
    /// more than `few`.
    ///
    /// # Errors
    /// [`batch::Error::Unavailable`] if the stream does not answer.
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

    /// How many messages the stream holds; those who ask at the same time share an answer.
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

    /// What waits under a subject.
    ///
    /// # Errors
    /// [`batch::Error::Unavailable`] if the stream does not answer.
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
