//! Purging the outbox: what has reached the event stream is not needed in the bucket any more.
//!
//! Sourcing keeps order, so an event that came through the outbox tells that every entry before it
//! has come through as well. Each dispatcher purges by what it has seen itself; nothing is purged
//! that no dispatcher has seen. Anybody may publish an event that claims to have come through the
//! outbox, so the entry itself is looked up first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{self, stream::RawMessageErrorKind};
use hookline_shared::event::{self, Event};
use hookline_shared::subject::{self, header};

/// How often the outbox is purged, if there is something to purge.
const PERIOD: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How far the outbox has been seen; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    last: Arc<Mutex<Option<Seen>>>,
}

/// An event that says that it came through the outbox.
#[derive(Debug, Clone)]
struct Seen {
    sequence: u64,
    id: String,
}

impl Outbox {
    /// Notes an event, which came through the outbox or did not.
    pub fn note(&self, event: &Event) {
        if let Some(sequence) = event.outbox_sequence {
            *self.last() = Some(Seen {
                sequence,
                id: event.id.as_str().to_owned(),
            });
        }
    }

    /// Purges for ever.
    pub async fn purge(&self, context: &jetstream::Context) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some(seen) = self.last().take() else {
                continue;
            };
            if let Err(error) = purge_through(context, &seen).await {
                tracing::debug!(%error, "the outbox could not be purged");
            }
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn purge_through(context: &jetstream::Context, seen: &Seen) -> Result<(), BoxError> {
    let stream = context.get_stream_no_info(subject::BUCKET_STREAM).await?;
    let entry = match stream.get_raw_message(seen.sequence).await {
        Ok(entry) => entry,
        // Purged by another dispatcher, or never there.
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let id = event::get(Some(&entry.headers), header::MESSAGE_ID);
    if !subject::is_outbox(&entry.subject) || id != Some(&seen.id) {
        tracing::warn!(
            sequence = seen.sequence,
            "an event claims to have come through the outbox and did not"
        );
        return Ok(());
    }
    stream
        .purge()
        .filter(subject::OUTBOX_SUBJECTS)
        .sequence(seen.sequence + 1)
        .await?;
    Ok(())
}
