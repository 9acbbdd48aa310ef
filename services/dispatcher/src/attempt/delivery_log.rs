//! The delivery log: the result of each attempt, written in the background.
//!
//! It never delays a delivery: records beyond its queue are dropped and counted. Records are written in batches, those
//! of a hook in one message, and the server acknowledges only the last message of a batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, RequestError};
use hookline_shared::attempt::Attempt;
use hookline_shared::clock;
use hookline_shared::event::{DeliveryId, EventId};
use hookline_shared::subject;
use hookline_shared::trace::{self, TraceId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::delivery::{self, PendingDelivery};
use crate::handler::{DeliveryError, Receipt};
use crate::hooks::Prepared;
use crate::metrics::Metrics;

/// Records that may wait.
const QUEUE: usize = 10_000;
/// Records per batch.
const BATCH: usize = 500;
/// Size at which a message is full.
const MESSAGE_BYTES: usize = 64 << 10;
/// How long a batch waits for more records, which are sent without a wakeup meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// For the acknowledgement.
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

#[derive(Debug)]
pub(crate) struct DeliveryLog {
    mode: Mode,
    queue: mpsc::Sender<Record>,
    metrics: Metrics,
}

/// The start of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    wall: SystemTime,
    clock: Instant,
    trace: Option<TraceId>,
}

#[derive(Debug)]
struct Record {
    hook: Arc<str>,
    delivery: DeliveryId,
    event: EventId,
    attempt: u32,
    began: SystemTime,
    took: Duration,
    status: Option<u16>,
    error: Option<String>,
    suppressed: Option<&'static str>,
    trace: Option<TraceId>,
}

impl DeliveryLog {
    /// Returns the log and its loop, which ends after the log is dropped and all records are written.
    pub(crate) fn new(
        mode: Mode,
        node: &str,
        client: Client,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let run = write(records, client, node.to_owned(), metrics.clone());
        let log = Self {
            mode,
            queue,
            metrics,
        };
        (log, run)
    }

    /// Logs an attempt if the mode includes it.
    pub(crate) fn note(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        began: &Began,
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
        self.send(|| {
            let error = result.as_ref().err();
            Record {
                took: began.clock.elapsed(),
                status: status(result),
                error: error.map(|error| delivery::cut(&error.to_string()).to_owned()),
                trace: began.trace,
                ..Record::new(hook, pending, began.wall)
            }
        });
    }

    /// Logs that `snooze` or `on_change` suppressed an attempt, in the mode that includes every attempt.
    pub(crate) fn note_suppressed(
        &self,
        hook: &Prepared,
        pending: &PendingDelivery,
        by: &'static str,
    ) {
        if self.mode == Mode::All {
            self.send(|| Record {
                suppressed: Some(by),
                ..Record::new(hook, pending, clock::now())
            });
        }
    }

    fn send(&self, record: impl FnOnce() -> Record) {
        match self.queue.try_reserve() {
            Ok(slot) => slot.send(record()),
            Err(_) => self.metrics.attempt_records_dropped(1),
        }
    }
}

impl Record {
    fn new(hook: &Prepared, pending: &PendingDelivery, began: SystemTime) -> Self {
        Self {
            hook: Arc::clone(&hook.id),
            delivery: pending.delivery.id,
            event: pending.delivery.event.id.clone(),
            attempt: pending.attempt,
            began,
            took: Duration::ZERO,
            status: None,
            error: None,
            suppressed: None,
            trace: None,
        }
    }
}

impl Began {
    #[must_use]
    pub(crate) fn now(pending: &PendingDelivery, trace: Option<&trace::Attempt>) -> Self {
        let of_event = || pending.delivery.event.traceparent.as_deref();
        Self {
            wall: clock::now(),
            clock: Instant::now(),
            trace: trace
                .and_then(trace::Attempt::trace_id)
                .or_else(|| of_event().and_then(trace::trace_id)),
        }
    }

    /// The trace of the attempt if it is recorded, or else that of its event.
    #[must_use]
    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        self.trace
    }

    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
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

async fn write(
    mut records: mpsc::Receiver<Record>,
    client: Client,
    node: String,
    metrics: Metrics,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while records.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            tokio::time::sleep(PAUSE).await;
        }
        while batch.len() < BATCH
            && let Ok(record) = records.try_recv()
        {
            batch.push(record);
        }
        let count = batch.len() as u64;
        let sent = tokio::time::timeout(TIMEOUT, send(&client, &node, &batch)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(count, "cannot write a batch of the delivery log");
            metrics.attempt_records_dropped(count);
        }
        batch.clear();
    }
}

async fn send(client: &Client, node: &str, batch: &[Record]) -> Result<(), RequestError> {
    let mut messages = messages(node, batch);
    let last = messages.pop();
    for (subject, body) in messages {
        client.publish(subject, body.into()).await?;
    }
    if let Some((subject, body)) = last {
        client.request(subject, body.into()).await?;
    }
    Ok(())
}

/// Groups records into messages: subject and body.
fn messages(node: &str, batch: &[Record]) -> Vec<(String, Vec<u8>)> {
    let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
    let mut open = HashMap::new();
    for record in batch {
        let since = record.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let hour = since.as_secs() / 3_600;
        let index = *open.entry((&record.hook, hour)).or_insert(messages.len());
        if index == messages.len() {
            messages.push((subject::attempts_in(&record.hook, hour), Vec::new()));
        }
        let body = &mut messages[index].1;
        if !body.is_empty() {
            body.push(b'\n');
        }
        let trace = record.trace.map(|trace| trace.to_string());
        let attempt = Attempt {
            trace_id: trace.as_deref(),
            id: record.delivery.as_str(),
            event_id: record.event.as_str(),
            attempt: record.attempt,
            attempted_at: since.as_millis() as f64 / 1_000.0,
            duration_ms: record.took.as_micros() as f64 / 1_000.0,
            status: record.status,
            error: record.error.as_deref(),
            suppressed: record.suppressed,
            node,
        };
        // Numbers and strings always serialize.
        let _ = serde_json::to_writer(&mut *body, &attempt);
        if body.len() >= MESSAGE_BYTES {
            open.remove(&(&record.hook, hour));
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use hookline_shared::event::{Event, Stored};

    use super::*;

    fn record(hook: &str, hour: u64, error: Option<String>) -> Record {
        let stored = Stored {
            sequence: 1,
            time: 1,
        };
        let event = Event::parse("hookline.events.a.b.c", None, "{}".into(), stored);
        let event = event.expect("an event");
        Record {
            hook: hook.into(),
            delivery: DeliveryId::new(&event, hook),
            event: event.id,
            attempt: 1,
            began: UNIX_EPOCH + Duration::from_secs(hour * 3_600 + 3_599),
            took: Duration::from_nanos(5_250_111),
            status: None,
            error,
            suppressed: None,
            trace: None,
        }
    }

    #[test]
    fn a_message_has_the_attempts_of_one_hook_and_hour_up_to_a_size() {
        let batch = [("a", 1), ("b", 1), ("a", 1), ("a", 2)];
        let batch = batch.map(|(hook, hour)| record(hook, hour, None));
        let sent = messages("node", &batch);
        let subjects: Vec<_> = sent.iter().map(|(subject, _)| subject.as_str()).collect();
        let want = ["a.1", "b.1", "a.2"].map(|end| format!("hookline.attempts.{end}"));
        assert_eq!(subjects, want);
        let lines: Vec<serde_json::Value> = sent[0]
            .1
            .split(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["duration_ms"].to_string(), "5.25");

        let long = || record("a", 1, Some("x".repeat(MESSAGE_BYTES / 2)));
        let sent = messages("node", &[long(), long(), long()]);
        assert_eq!(sent.len(), 2, "the third does not fit");
    }
}
