//! Purges acknowledged events.
//!
//! If the stream were a work queue, the server would sync each ack on its own while new events wait for the same disk.
//! So it keeps acked events until all older ones are acked too. Behind an event that stays open for long, acked events
//! are deleted one by one.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::response::Response;
use futures::{StreamExt as _, stream};
use hookline_shared::subject;
use serde_json::{Value, json};

use crate::redis::workers::Workers;
use crate::settle::progress::{Acked, AckedEvents};

/// Between purges of at least one step,
const PERIOD: Duration = Duration::from_secs(1);
/// and of fewer events.
const REST: Duration = Duration::from_secs(10);
/// Events per step, and steps per period. The server takes no new events during a purge: 5 ms for 1,000 events, but
/// 10 ms for 10,000.
const STEP: u64 = 10_000;
const STEPS: usize = 16;
const BETWEEN: Duration = Duration::from_millis(20);
/// How long an acked event may stay behind an open one: longer than most attempts take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same while events take over a quarter of the stream's size.
const LESS_PATIENCE: Duration = Duration::from_secs(5);
/// Events that are deleted one by one: per period, and at the same time.
const PART: usize = 4_000;
const TOGETHER: usize = 8;
/// The server's error codes for an event that is already gone: below the first, or deleted.
const GONE: [u64; 2] = [10_057, 10_043];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct EventPurge {
    pub(crate) context: jetstream::Context,
    pub(crate) acked: AckedEvents,
    pub(crate) workers: Workers,
}

impl EventPurge {
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = self.purge().await {
                tracing::debug!(%error, "cannot purge acknowledged events");
            }
        }
    }

    async fn purge(&self) -> Result<(), BoxError> {
        let stream = self.context.get_stream(subject::EVENTS_STREAM).await?;
        let consumer = stream.consumer_info(subject::DISPATCHERS_CONSUMER).await?;
        let (info, floor) = (stream.cached_info(), consumer.ack_floor.stream_sequence);
        let last = consumer.delivered.stream_sequence;
        let created = info.created.unix_timestamp_nanos();
        // A recreated stream has the same sequences. An event acked just now may have been delivered after this
        // answer.
        let is_stored = |acked: &Acked| {
            acked.event.sequence > floor
                && acked.event.time >= created
                && (acked.event.sequence <= last || acked.at.elapsed() < PERIOD)
        };
        self.acked.retain(is_stored);
        let mut first = info.state.first_sequence;
        let is_large =
            info.state.bytes > u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX) / 4;
        let (turn, rest) = if is_large || floor >= first + STEP {
            ("event-purge", PERIOD / 2)
        } else {
            ("event-purge-rest", REST)
        };
        // A purge makes the server forget pending redeliveries until their ack wait.
        let may_purge = is_large || consumer.num_redelivered == 0;
        if may_purge && first <= floor && self.workers.turn(turn, rest).await {
            for _ in 0..STEPS {
                if first > floor {
                    break;
                }
                first = (first + STEP).min(floor + 1);
                stream.purge().sequence(first).await?;
                tokio::time::sleep(BETWEEN).await;
            }
        }
        let patience = if is_large { LESS_PATIENCE } else { PATIENCE };
        self.delete(patience).await
    }

    /// Deletes, one by one, events that this worker acked at least `patience` ago.
    async fn delete(&self, patience: Duration) -> Result<(), BoxError> {
        let part = self.acked.take_old(patience, PART);
        let mut deletes = stream::iter(part)
            .map(|acked| delete(&self.context, acked.event.sequence))
            .buffer_unordered(TOGETHER);
        let mut result = Ok(());
        while let Some(deleted) = deletes.next().await {
            // An event that is not deleted is purged once all older ones are acked.
            result = result.and(deleted);
        }
        result
    }
}

/// An event that is already gone is no error.
async fn delete(context: &jetstream::Context, sequence: u64) -> Result<(), BoxError> {
    let api = format!("STREAM.MSG.DELETE.{}", subject::EVENTS_STREAM);
    let delete = json!({"seq": sequence, "no_erase": true});
    match context.request(api, &delete).await? {
        Response::Ok::<Value>(_) => Ok(()),
        Response::Err { error } if GONE.contains(&error.error_code().0) => Ok(()),
        Response::Err { error } => Err(error.into()),
    }
}
