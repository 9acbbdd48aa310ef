//! Purging the outbox: what has reached the event stream is not needed in the bucket any more.
//!
//! Sourcing keeps order, so an event that came through the outbox tells that every entry before it
//! has come through as well. Each dispatcher purges by what it has seen itself; nothing is purged
//! that no dispatcher has seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::event::Event;
use hookline_shared::subject;

/// How often the outbox is purged, if there is something to purge.
const PERIOD: Duration = Duration::from_secs(2);

/// How far the outbox has been seen; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    seen: Arc<AtomicU64>,
}

impl Outbox {
    /// Notes an event, which came through the outbox or did not.
    pub fn note(&self, event: &Event) {
        if let Some(sequence) = event.outbox_sequence {
            self.seen.fetch_max(sequence, Ordering::Relaxed);
        }
    }

    /// Purges for ever.
    pub async fn purge(&self, context: &jetstream::Context) {
        let mut purged = 0;
        loop {
            tokio::time::sleep(PERIOD).await;
            let seen = self.seen.load(Ordering::Relaxed);
            if seen <= purged {
                continue;
            }
            match purge_through(context, seen).await {
                Ok(()) => purged = seen,
                Err(error) => tracing::debug!(%error, "the outbox could not be purged"),
            }
        }
    }
}

async fn purge_through(
    context: &jetstream::Context,
    sequence: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = context.get_stream_no_info(subject::BUCKET_STREAM).await?;
    stream
        .purge()
        .filter(subject::OUTBOX_SUBJECTS)
        .sequence(sequence + 1)
        .await?;
    Ok(())
}
