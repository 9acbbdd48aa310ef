//! Making room in the event stream: events that were dealt with are purged together.
//!
//! Were the stream a work queue, the server would write and sync each ack on its own, while new
//! events wait for the same disk. So it keeps what is acked, until all that is older is acked too.
//! Where something old stays open for long, what was dealt with after it is deleted one by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Message};
use futures::{StreamExt as _, stream};
use hookline_shared::subject;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::accept::Accept;

/// How often room is made.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that are purged in one step: the server takes no new ones meanwhile.
const STEP: u64 = 1_000;
const BETWEEN: Duration = Duration::from_millis(20);
/// How long an open event may keep those after it: longer than most attempts take.
const PATIENCE: Duration = Duration::from_secs(60);
/// And where they take over a quarter of the stream's size.
const LESS_PATIENCE: Duration = Duration::from_secs(5);
/// Events that are deleted one by one in a period, and at the same time.
const PART: usize = 2_000;
const TOGETHER: usize = 4;
/// Acked events that are remembered at most; what is more goes when all that is older is acked.
const MOST: usize = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What this worker acked and is perhaps still stored; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trim(Arc<Mutex<Vec<u64>>>);

/// How far the stream is acked.
#[derive(Debug)]
struct Acked {
    /// When the stream was made: another one's events have the same sequences.
    stream: OffsetDateTime,
    /// Everything up to this event.
    floor: u64,
    /// When it last moved.
    moved: Instant,
}

impl Trim {
    /// An event is about to be acked. Messages of other streams are no concern of this.
    pub fn note(&self, message: &Message) {
        if let Ok(info) = message.info()
            && info.stream == subject::EVENTS_STREAM
        {
            let mut noted = self.noted();
            if noted.len() < MOST {
                noted.push(info.stream_sequence);
            }
        }
    }

    /// Trims for ever.
    pub async fn trim(&self, context: &jetstream::Context, accept: &Accept) {
        let mut acked = None;
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = self.some(context, accept, &mut acked).await {
                tracing::debug!(%error, "the event stream could not be trimmed");
            }
        }
    }

    async fn some(
        &self,
        context: &jetstream::Context,
        accept: &Accept,
        acked: &mut Option<Acked>,
    ) -> Result<(), BoxError> {
        let stream = context.get_stream(subject::EVENTS_STREAM).await?;
        let consumer = stream.consumer_info(subject::DISPATCHERS_CONSUMER).await?;
        let (info, floor) = (stream.cached_info(), consumer.ack_floor.stream_sequence);
        let new = || Acked {
            stream: info.created,
            floor,
            moved: Instant::now(),
        };
        let known = acked.get_or_insert_with(new);
        if known.stream != info.created {
            self.noted().clear();
        }
        if known.stream != info.created || known.floor != floor {
            *known = new();
        }
        self.noted().retain(|sequence| *sequence > floor);
        let is_large =
            info.state.bytes > u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX) / 4;
        let patience = if is_large { LESS_PATIENCE } else { PATIENCE };
        if known.moved.elapsed() >= patience {
            self.delete(context).await?;
        }
        let mut first = info.state.first_sequence;
        if first <= floor && accept.turn("trim", PERIOD / 2).await {
            while first <= floor {
                first = (first + STEP).min(floor + 1);
                stream.purge().sequence(first).await?;
                tokio::time::sleep(BETWEEN).await;
            }
        }
        Ok(())
    }

    /// Deletes what this worker acked, one by one.
    async fn delete(&self, context: &jetstream::Context) -> Result<(), BoxError> {
        let part = {
            let mut noted = self.noted();
            let rest = noted.len().saturating_sub(PART);
            noted.split_off(rest)
        };
        let mut deletes = stream::iter(part)
            .map(|sequence| async move { (sequence, delete(context, sequence).await) })
            .buffer_unordered(TOGETHER);
        let mut failed = None;
        while let Some((sequence, deleted)) = deletes.next().await {
            if let Err(error) = deleted {
                self.noted().push(sequence);
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn noted(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes an event. One that is gone already is no error.
async fn delete(context: &jetstream::Context, sequence: u64) -> Result<(), BoxError> {
    let api = format!("STREAM.MSG.DELETE.{}", subject::EVENTS_STREAM);
    let delete = json!({"seq": sequence, "no_erase": true});
    match context.request(api, &delete).await? {
        Response::Ok::<Value>(_) => Ok(()),
        Response::Err { error } if error.code() == 400 => Ok(()),
        Response::Err { error } => Err(error.into()),
    }
}
