//! The delivery log: what came of each attempt, written in the background.
//!
//! It never slows or blocks a delivery: what does not fit into its queue is dropped and counted.
//! Records leave many at a time, and the server acknowledges the last of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, RequestError};
use hookline_shared::attempt::Attempt;
use hookline_shared::subject;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::handler::{DeliveryError, Receipt};
use crate::index::Prepared;
use crate::metrics::Metrics;
use crate::work::{self, Work};

/// Records that may wait to be written.
const QUEUE: usize = 10_000;
/// Records that are written at once.
const BATCH: usize = 500;
/// How long the first of them waits for others.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the server may take to acknowledge them.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which attempts are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Every attempt.
    All,
    /// Attempts that failed.
    Failures,
    /// None.
    Off,
}

/// A handle on the log.
#[derive(Debug)]
pub struct Log {
    mode: Mode,
    node: String,
    queue: mpsc::Sender<Record>,
    metrics: Metrics,
}

/// An attempt that is being made.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    wall: SystemTime,
    clock: Instant,
}

#[derive(Debug)]
struct Record {
    hook: String,
    attempt: Attempt,
}

impl Log {
    /// Starts a log of the dispatcher with this name. Its task ends once the log is dropped and
    /// what was noted is written.
    #[must_use]
    pub fn start(
        mode: Mode,
        node: &str,
        client: Client,
        tasks: &TaskTracker,
        metrics: Metrics,
    ) -> Self {
        let (queue, records) = mpsc::channel(QUEUE);
        tasks.spawn(write(records, client, metrics.clone()));
        Self {
            mode,
            node: node.to_owned(),
            queue,
            metrics,
        }
    }

    /// Logs an attempt, if it is to be and there is room.
    pub fn note(
        &self,
        hook: &Prepared,
        work: &Work,
        began: Began,
        result: &Result<Receipt, DeliveryError>,
    ) {
        let wanted = match self.mode {
            Mode::All => true,
            Mode::Failures => result.is_err(),
            Mode::Off => false,
        };
        if !wanted {
            return;
        }
        let Ok(place) = self.queue.try_reserve() else {
            self.metrics.attempt_records_dropped(1);
            return;
        };
        let error = result.as_ref().err();
        place.send(Record {
            hook: hook.hook.id.clone(),
            attempt: Attempt {
                id: work.delivery.id.as_str().to_owned(),
                event_id: work.delivery.event.id.as_str().to_owned(),
                attempt: work.attempt,
                attempted_at: began.unix_seconds(),
                duration_ms: began.clock.elapsed().as_secs_f64() * 1_000.0,
                status: status(result),
                error: error.map(|error| work::cut(&error.to_string()).to_owned()),
                node: self.node.clone(),
            },
        });
    }
}

impl Began {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            clock: Instant::now(),
        }
    }

    /// How long ago that is.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn unix_seconds(&self) -> f64 {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as f64 / 1_000.0
    }
}

fn status(result: &Result<Receipt, DeliveryError>) -> Option<u16> {
    match result {
        Ok(Receipt::Response(response)) | Err(DeliveryError::Status { response, .. }) => {
            Some(response.status)
        }
        Ok(Receipt::Done) | Err(_) => None,
    }
}

async fn write(mut records: mpsc::Receiver<Record>, client: Client, metrics: Metrics) {
    let mut batch = Vec::with_capacity(BATCH);
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let until = Instant::now() + PAUSE;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let more = tokio::time::timeout_at(until, records.recv_many(&mut batch, room));
            if !matches!(more.await, Ok(1..)) {
                break;
            }
        }
        let count = batch.len() as u64;
        let sent = tokio::time::timeout(TIMEOUT, send(&client, &mut batch)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(count, "a part of the delivery log could not be written");
            metrics.attempt_records_dropped(count);
        }
        batch.clear();
    }
}

/// Sends records; the stream answers the last one.
async fn send(client: &Client, batch: &mut Vec<Record>) -> Result<(), RequestError> {
    let last = batch.pop();
    for record in batch.drain(..) {
        let (subject, body) = message(&record);
        client.publish(subject, body.into()).await?;
    }
    if let Some(record) = last {
        let (subject, body) = message(&record);
        client.request(subject, body.into()).await?;
    }
    Ok(())
}

fn message(record: &Record) -> (String, Vec<u8>) {
    let attempt = &record.attempt;
    let subject = subject::attempt_subject(&record.hook, attempt.hour(), &attempt.id);
    // Numbers and texts always serialize.
    (subject, serde_json::to_vec(attempt).unwrap_or_default())
}
