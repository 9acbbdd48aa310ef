//! The stream of dead letters: what is given up on, kept with its reason.
//!
//! It refuses when it is full. Then messages that are no events make room, oldest first: anybody who
//! may publish can make more of them, and they must keep neither dead deliveries out nor events back.

use std::time::Duration;

use async_nats::jetstream;
use hookline_shared::batch::{self, Message, Writer};
use hookline_shared::scan;
use hookline_shared::subject;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How often room is made, at most.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a letter is tried for which room is made.
const TRIES: usize = 8;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The stream, as this connection sees it.
pub struct Dead {
    context: jetstream::Context,
    writer: Writer,
    made_room: Mutex<Option<Instant>>,
}

impl Dead {
    /// Writes through the stream's writer.
    #[must_use]
    pub fn new(context: jetstream::Context, writer: Writer) -> Self {
        Self {
            context,
            writer,
            made_room: Mutex::default(),
        }
    }

    /// Keeps a dead letter.
    ///
    /// # Errors
    /// [`batch::Error::Full`] if there is no room for it, also not in place of messages that are no
    /// events.
    pub async fn keep(&self, letter: Message) -> Result<(), batch::Error> {
        for _ in 0..TRIES {
            match self.writer.commit(vec![letter.clone()]).await {
                Err(batch::Error::Full) if self.make_room().await => {}
                result => return result.map(|_| ()),
            }
        }
        Err(batch::Error::Full)
    }

    /// Whether some of what is no event was forgotten, by this call or a moment ago.
    async fn make_room(&self) -> bool {
        let mut made_room = self.made_room.lock().await;
        if made_room.is_some_and(|at| at.elapsed() < PERIOD) {
            return true;
        }
        match self.forget_half().await {
            Ok(0) => false,
            Ok(forgotten) => {
                tracing::warn!(
                    forgotten,
                    "there is no room for dead letters: the oldest messages that are no events are forgotten"
                );
                *made_room = Some(Instant::now());
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no room can be made for dead letters");
                false
            }
        }
    }

    async fn forget_half(&self) -> Result<u64, BoxError> {
        let (stream, filter) = (subject::DEAD_STREAM, subject::DEAD_EVENT_SUBJECTS);
        let count = scan::count(&self.context.client(), stream, filter).await?;
        if count == 0 {
            return Ok(0);
        }
        let stream = self.context.get_stream_no_info(stream).await?;
        let purge = stream.purge().filter(filter);
        // Zero would keep all.
        let purged = if count > 1 {
            purge.keep(count / 2).await?
        } else {
            purge.await?
        };
        Ok(purged.purged)
    }
}
