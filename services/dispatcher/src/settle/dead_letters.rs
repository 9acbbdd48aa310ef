//! The stream of dead letters.
//!
//! When it is full, the oldest messages that are no events make room: any publisher can create more of them, and
//! they must not keep out dead deliveries or hold up events.

use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::batch::{self, Message, Writer};
use hookline_shared::stream_reader;
use hookline_shared::subject;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::metrics::{Death, Metrics};

/// Between purges, and between a purge by another caller and the next try.
const PERIOD: Duration = Duration::from_millis(200);
/// Between purges after one that found nothing.
const FUTILE: Duration = Duration::from_secs(30);
/// Writes of one letter.
const TRIES: usize = 8;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct DeadLetters {
    context: jetstream::Context,
    writer: Writer,
    metrics: Metrics,
    last_purge: Mutex<Option<Purge>>,
}

struct Purge {
    at: Instant,
    made_room: bool,
}

impl DeadLetters {
    #[must_use]
    pub(crate) fn new(context: jetstream::Context, writer: Writer, metrics: Metrics) -> Self {
        Self {
            context,
            writer,
            metrics,
            last_purge: Mutex::default(),
        }
    }

    /// Writes a dead letter. [`batch::Error::Full`] if the stream is full and no message could be purged.
    pub(crate) async fn keep(&self, letter: Message, death: Death) -> Result<(), batch::Error> {
        for _ in 0..TRIES {
            match self.writer.commit(vec![letter.clone()]).await {
                Ok(_) => {
                    self.metrics.dead_letters_full(false);
                    self.metrics.dead_letter(death);
                    return Ok(());
                }
                Err(batch::Error::Full) if self.make_room().await => {}
                Err(batch::Error::Full) => break,
                Err(error) => return Err(error),
            }
        }
        self.metrics.dead_letters_full(true);
        Err(batch::Error::Full)
    }

    /// Whether this call, or another just now, purged some messages.
    async fn make_room(&self) -> bool {
        let mut last_purge = self.last_purge.lock().await;
        if let Some(last) = &*last_purge {
            let age = last.at.elapsed();
            if !last.made_room && age < FUTILE {
                return false;
            }
            if last.made_room && age < PERIOD {
                drop(last_purge);
                tokio::time::sleep(PERIOD - age).await;
                return true;
            }
        }
        let made_room = match self.purge_half().await {
            Ok(made_room) => made_room,
            Err(error) => {
                tracing::debug!(%error, "cannot purge the stream of dead letters");
                false
            }
        };
        *last_purge = Some(Purge {
            at: Instant::now(),
            made_room,
        });
        made_room
    }

    /// Whether there was anything to purge: another dispatcher may have been first.
    async fn purge_half(&self) -> Result<bool, BoxError> {
        let (stream, filter) = (subject::DEAD_STREAM, subject::DEAD_EVENT_SUBJECTS);
        let count = stream_reader::count(&self.context.client(), stream, filter).await?;
        if count == 0 {
            return Ok(false);
        }
        let stream = self.context.get_stream_no_info(stream).await?;
        let purge = stream.purge().filter(filter);
        // Zero would keep all.
        let purged = if count > 1 {
            purge.keep(count / 2).await?
        } else {
            purge.await?
        };
        tracing::warn!(
            purged = purged.purged,
            "the stream of dead letters is full: purged the oldest messages that are no events"
        );
        Ok(true)
    }
}
