//! The stream of dead letters: what is given up on, kept with its reason.
//!
//! It refuses when it is full. Then messages that are no events make room, oldest first: anybody who
//! may publish can make more of them, and they must keep neither dead deliveries out nor events back.

use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::batch::{self, Message, Writer};
use hookline_shared::stream_reader;
use hookline_shared::subject;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How often room is made, at most, and how soon a letter is tried again for which some was made.
const PERIOD: Duration = Duration::from_millis(200);
/// How long it is believed that no room can be made.
const NONE: Duration = Duration::from_secs(30);
/// How often a letter is tried for which room is made.
const TRIES: usize = 8;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The stream, as this connection sees it.
pub(crate) struct DeadLetters {
    context: jetstream::Context,
    writer: Writer,
    metrics: Metrics,
    room: Mutex<Option<Room>>,
}

/// What came of the last try to make room.
struct Room {
    at: Instant,
    made: bool,
}

impl DeadLetters {
    /// Writes through the stream's writer.
    #[must_use]
    pub(crate) fn new(context: jetstream::Context, writer: Writer, metrics: Metrics) -> Self {
        Self {
            context,
            writer,
            metrics,
            room: Mutex::default(),
        }
    }

    /// Keeps a dead letter.
    ///
    /// # Errors
    /// [`batch::Error::Full`] if there is no room for it, also not in place of messages that are no
    /// events.
    pub(crate) async fn keep(&self, letter: Message) -> Result<(), batch::Error> {
        for _ in 0..TRIES {
            match self.writer.commit(vec![letter.clone()]).await {
                Ok(_) => {
                    self.metrics.dead_letters_full(false);
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

    /// Whether some of what is no event was forgotten, by this call or a moment ago.
    async fn make_room(&self) -> bool {
        let mut room = self.room.lock().await;
        if let Some(last) = &*room {
            let age = last.at.elapsed();
            if !last.made && age < NONE {
                return false;
            }
            if last.made && age < PERIOD {
                drop(room);
                tokio::time::sleep(PERIOD - age).await;
                return true;
            }
        }
        let made = match self.forget_half().await {
            Ok(there_was_any) => there_was_any,
            Err(error) => {
                tracing::debug!(%error, "no room can be made for dead letters");
                false
            }
        };
        *room = Some(Room {
            at: Instant::now(),
            made,
        });
        made
    }

    /// Whether there was anything to forget: another dispatcher may have been first.
    async fn forget_half(&self) -> Result<bool, BoxError> {
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
            forgotten = purged.purged,
            "there is no room for dead letters: the oldest messages that are no events are forgotten"
        );
        Ok(true)
    }
}
