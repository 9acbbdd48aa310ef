//! Purges outbox entries that have reached the event stream.
//!
//! Sourcing keeps order: if an entry has arrived as an event, so have all before it. Each dispatcher purges up to the
//! events that it has seen. Any publisher may claim that an event came through the outbox, so the entry is looked up
//! first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, stream::Stream};
use hookline_shared::event::{self, Event};
use hookline_shared::subject::{self, header};
use parking_lot::{Mutex, MutexGuard};

const PERIOD: Duration = Duration::from_secs(2);
/// Events remembered between two purges.
const MOST: usize = 4_096;
/// Entries looked up for one purge.
const LOOKS: usize = 64;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Events that claim to have come through the outbox: sequences of their entries, and ids.
type Seen = BTreeMap<u64, String>;

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutboxPurge {
    seen: Arc<Mutex<Seen>>,
}

impl OutboxPurge {
    /// Notes an event, whether it came through the outbox or not, in any order.
    pub(crate) fn note(&self, event: &Event) {
        if let Some(sequence) = event.outbox_sequence {
            self.keep([(sequence, event.id.as_str().to_owned())]);
        }
    }

    pub(crate) async fn run(self, context: jetstream::Context) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let seen = std::mem::take(&mut *self.seen());
            if seen.is_empty() {
                continue;
            }
            if let Err(error) = purge_seen(&context, &seen).await {
                tracing::debug!(%error, "cannot purge the outbox");
                self.keep(seen);
            }
        }
    }

    fn keep(&self, more: impl IntoIterator<Item = (u64, String)>) {
        let mut seen = self.seen();
        seen.extend(more);
        while seen.len() > MOST {
            seen.pop_first();
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}

/// Purges up to the newest entry that exists.
async fn purge_seen(context: &jetstream::Context, seen: &Seen) -> Result<(), BoxError> {
    let bucket = context.get_stream(subject::BUCKET_STREAM).await?;
    let last = bucket.cached_info().state.last_sequence;
    for (sequence, id) in seen.range(..=last).rev().take(LOOKS) {
        if is_entry(&bucket, *sequence, id).await? {
            bucket
                .purge()
                .filter(subject::OUTBOX_SUBJECTS)
                .sequence(sequence + 1)
                .await?;
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the event's outbox entry has that sequence.
async fn is_entry(bucket: &Stream, sequence: u64, id: &str) -> Result<bool, BoxError> {
    let entry = match bucket.get_raw_message(sequence).await {
        Ok(entry) => entry,
        // Purged by another dispatcher, or never there.
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let named = event::get(Some(&entry.headers), header::MESSAGE_ID);
    let is_entry = subject::is_outbox(&entry.subject) && named.is_some_and(|named| named == id);
    if !is_entry {
        tracing::warn!(
            sequence,
            "an event claims to have come through the outbox and did not"
        );
    }
    Ok(is_entry)
}
