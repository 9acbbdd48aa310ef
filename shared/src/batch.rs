//! Group commit: concurrent writes share one atomic batch, which the server syncs once.
//!
//! A caller hands over a write (one or more messages that belong together) and waits for its commit.
//! Writes that arrive while a batch is in flight form the next one. Without a pace there is no timer,
//! so a lone write leaves at once. The server refuses a batch that changes a subject twice, or changes a
//! guarded subject; such writes go into separate batches. A refused batch is split in half until the
//! faulty write stands alone, so no write fails because of another.
//!
//! The writer does not interpret messages. Retrying refused writes, or writes with an unknown result,
//! is up to the caller.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, RequestErrorKind};
use bytes::Bytes;
use prometheus::{Histogram, Registry};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::metrics::{Register, SHORT};
use crate::subject::header;

/// nats-server accepts at most 1,000 messages in a batch.
const MAX_MESSAGES: usize = 1_000;
/// Limits the memory of a batch, here and in the server.
const MAX_BYTES: usize = 8 << 20;
/// A batch of this many writes ignores the pace.
const LARGE_BATCH: usize = 256;
/// Writes that may queue before callers wait.
const QUEUE_LENGTH: usize = 8_192;
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a batch is sent if messages get lost on the way.
const INCOMPLETE_ATTEMPTS: usize = 3;

#[derive(Debug, Clone)]
pub struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    guarded: Option<String>,
    repeatable: bool,
}

impl Message {
    #[must_use]
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            headers: HeaderMap::new(),
            payload: payload.into(),
            guarded: None,
            repeatable: false,
        }
    }

    /// Lets several writes of one batch contain this subject. The last one wins, so it must not matter
    /// which that is, and no write may expect or guard the subject.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Sets a header. The value must not contain line breaks, see
    /// [`encode_header`](crate::subject::encode_header).
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.headers.insert(name, value.as_ref());
        self
    }

    /// Refuses the write unless the subject's last message has this sequence (0: no message).
    #[must_use]
    pub fn expect_last(self, sequence: u64) -> Self {
        self.header(header::EXPECTED_SEQUENCE, sequence.to_string())
    }

    /// Refuses the write unless the last message of another subject has this sequence. A message has
    /// either a guard or [`expect_last`](Self::expect_last).
    #[must_use]
    pub fn guard(mut self, subject: &str, sequence: u64) -> Self {
        self.guarded = Some(subject.to_owned());
        self.header(header::EXPECTED_SUBJECT, subject)
            .expect_last(sequence)
    }

    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Approximate bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, values)| {
                let name: &str = name.as_ref();
                values
                    .iter()
                    .map(|value| name.len() + value.as_str().len() + 4)
                    .sum::<usize>()
            })
            .sum();
        headers + self.payload.len() + 16
    }
}

/// Stream sequences of a write's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub first_sequence: u64,
    pub last_sequence: u64,
}

/// The server's code for a stream that takes no atomic batches.
pub const NOT_ATOMIC: u64 = 10_174;
/// For a stream of which others have left as many open as there may be.
const TOO_MANY_OPEN: u64 = 10_210;

/// Only [`Unknown`](Self::Unknown) leaves open whether the messages are stored; every other error means
/// that this call stored none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An expectation or a guard failed.
    #[error("conflict with another write")]
    Conflict,
    /// The stream has seen a message's `Nats-Msg-Id`: an earlier attempt may have been stored.
    #[error("a message with this id is already stored")]
    DuplicateId,
    /// The stream or the server's storage is full.
    #[error("the stream is full")]
    Full,
    /// A message exceeds the limit of the server or the stream.
    #[error("the message is too large")]
    TooLarge,
    /// The stream has no leader, or does not exist.
    #[error("the stream is not available")]
    Unavailable,
    #[error("the server did not answer in time")]
    Unknown,
    #[error("the server refused the write: {description} ({code})")]
    Rejected { code: u64, description: String },
    #[error("the writer has stopped")]
    Closed,
}

/// Of one writer.
#[derive(Debug, Clone)]
pub struct Metrics {
    messages: Histogram,
    seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics of all writers of a process, by name, in the order given.
    pub fn register<const N: usize>(
        registry: &Registry,
        writers: [&'static str; N],
    ) -> Result<[Self; N], prometheus::Error> {
        let new = Register(registry);
        let messages = new.histograms_of(
            (
                "hookline_batch_messages",
                "Messages per atomic batch of the group commit",
            ),
            "writer",
            &writers,
            &[1.0, 4.0, 16.0, 64.0, 256.0, 1_000.0],
        )?;
        let seconds = new.histograms_of(
            (
                "hookline_batch_commit_duration_seconds",
                "Time from the send of a batch to the server's answer",
            ),
            "writer",
            &writers,
            SHORT,
        )?;
        Ok(writers.map(|writer| Self {
            messages: messages.get(writer).clone(),
            seconds: seconds.get(writer).clone(),
        }))
    }
}

/// A handle to the writer of one stream; clones share it. The writer ends when the last handle is dropped
/// and all queued writes are answered.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Write>,
    max_payload: usize,
}

#[derive(Debug)]
struct Write {
    messages: Vec<Message>,
    done: oneshot::Sender<Result<Committed, Error>>,
}

impl Writer {
    /// Starts a writer without a pace on a task of its own, see [`new`](Self::new).
    #[must_use]
    pub fn spawn(client: Client, metrics: Option<Metrics>) -> Self {
        let (writer, run) = Self::new(client, metrics, Duration::ZERO);
        tokio::spawn(run);
        writer
    }

    /// A writer and its loop, which the caller runs. All messages must belong to one stream that allows
    /// atomic publishing. Unless it is large, a batch leaves no sooner than `pace` after the one before
    /// it, so that many small writes that are not urgent cost few syncs.
    pub fn new(
        client: Client,
        metrics: Option<Metrics>,
        pace: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH);
        let max_payload = client.server_info().max_payload;
        let run = run(client, receiver, metrics, pace);
        (Self { queue, max_payload }, run)
    }

    /// Stores all messages or none, and returns once they are on disk.
    ///
    /// # Panics
    /// If there are no messages, or more than 1,000.
    pub async fn commit(&self, messages: Vec<Message>) -> Result<Committed, Error> {
        assert!(
            (1..=MAX_MESSAGES).contains(&messages.len()),
            "a write has 1 to {MAX_MESSAGES} messages"
        );
        if messages.iter().any(|m| m.size() > self.max_payload) {
            return Err(Error::TooLarge);
        }
        let (done, result) = oneshot::channel();
        self.queue
            .send(Write { messages, done })
            .await
            .map_err(|_| Error::Closed)?;
        result.await.unwrap_or(Err(Error::Closed))
    }
}

async fn run(
    client: Client,
    mut receiver: mpsc::Receiver<Write>,
    metrics: Option<Metrics>,
    pace: Duration,
) {
    let mut waiting = VecDeque::new();
    let mut next = tokio::time::Instant::now();
    loop {
        if waiting.is_empty() {
            match receiver.recv().await {
                Some(write) => waiting.push_back(write),
                None => return,
            }
        }
        gather(&mut receiver, &mut waiting, next).await;
        next = tokio::time::Instant::now() + pace;
        while waiting.len() < MAX_MESSAGES {
            match receiver.try_recv() {
                Ok(write) => waiting.push_back(write),
                Err(_) => break,
            }
        }
        let group = take_group(&mut waiting);
        settle_group(&client, group, metrics.as_ref()).await;
    }
}

/// Collects writes until a time, or until they make a large batch.
async fn gather(
    receiver: &mut mpsc::Receiver<Write>,
    waiting: &mut VecDeque<Write>,
    until: tokio::time::Instant,
) {
    while waiting.len() < LARGE_BATCH {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => return,
            write = receiver.recv() => match write {
                Some(write) => waiting.push_back(write),
                None => return,
            },
        }
    }
}

/// Takes writes from the front that may share a batch. The others stay, in order.
fn take_group(waiting: &mut VecDeque<Write>) -> Vec<Write> {
    let mut group = Vec::new();
    let mut left = VecDeque::new();
    let (mut written, mut guarded, mut repeated) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut messages, mut bytes) = (0, 0);
    while let Some(write) = waiting.pop_front() {
        let size: usize = write.messages.iter().map(Message::size).sum();
        let fits = group.is_empty()
            || (messages + write.messages.len() <= MAX_MESSAGES && bytes + size <= MAX_BYTES);
        let clash = write.messages.iter().any(|m| {
            written.contains(&m.subject)
                || guarded.contains(&m.subject)
                || (!m.repeatable && repeated.contains(&m.subject))
                || m.guarded.as_ref().is_some_and(|g| written.contains(g))
        });
        // Skipped writes count as well, so that no later write overtakes them.
        for message in &write.messages {
            let seen = if message.repeatable {
                &mut repeated
            } else {
                &mut written
            };
            seen.insert(message.subject.clone());
            guarded.extend(message.guarded.clone());
        }
        if fits && !clash {
            messages += write.messages.len();
            bytes += size;
            group.push(write);
        } else {
            left.push_back(write);
        }
        if messages >= MAX_MESSAGES || bytes >= MAX_BYTES {
            break;
        }
    }
    left.append(waiting);
    *waiting = left;
    group
}

/// Commits a group and answers its callers; a refused group is split in two.
async fn settle_group(client: &Client, group: Vec<Write>, metrics: Option<&Metrics>) {
    let mut groups = vec![group];
    while let Some(mut group) = groups.pop() {
        let count: usize = group.iter().map(|w| w.messages.len()).sum();
        let started = Instant::now();
        let result = publish(client, &group).await;
        if let Some(metrics) = metrics {
            metrics.messages.observe(count as f64);
            metrics.seconds.observe(started.elapsed().as_secs_f64());
        }
        match result {
            Ok(last) => {
                let mut next = (last + 1).saturating_sub(count as u64);
                for write in group {
                    let first_sequence = next;
                    next += write.messages.len() as u64;
                    answer(
                        write,
                        Ok(Committed {
                            first_sequence,
                            last_sequence: next - 1,
                        }),
                    );
                }
            }
            Err(error) if group.len() > 1 && is_one_writes_fault(&error) => {
                let second = group.split_off(group.len() / 2);
                groups.push(second);
                groups.push(group);
            }
            Err(error) => {
                for write in group {
                    answer(write, Err(error.clone()));
                }
            }
        }
    }
}

fn answer(write: Write, result: Result<Committed, Error>) {
    // The caller may have given up.
    let _ = write.done.send(result);
}

/// Whether a single write may be the cause, so that the rest of its group is worth another attempt.
fn is_one_writes_fault(error: &Error) -> bool {
    match error {
        Error::Rejected { code, .. } => ![NOT_ATOMIC, TOO_MANY_OPEN].contains(code),
        Error::Conflict | Error::DuplicateId | Error::TooLarge => true,
        Error::Full | Error::Unavailable | Error::Unknown | Error::Closed => false,
    }
}

/// Sends a group as an atomic batch, or as a plain message if there is only one. Returns the sequence of
/// the last message.
async fn publish(client: &Client, group: &[Write]) -> Result<u64, Error> {
    for _ in 0..INCOMPLETE_ATTEMPTS {
        let sent = tokio::time::timeout(COMMIT_TIMEOUT, publish_once(client, group)).await;
        match sent {
            // A message was lost on the way, and none was stored.
            Ok(Err(Error::Rejected { code, .. }))
                if ErrorCode(code) == ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH => {}
            Ok(result) => return result,
            Err(_) => return Err(Error::Unknown),
        }
    }
    Err(Error::Unavailable)
}

async fn publish_once(client: &Client, group: &[Write]) -> Result<u64, Error> {
    let messages: Vec<&Message> = group.iter().flat_map(|w| &w.messages).collect();
    let id = Uuid::new_v4().simple().to_string();
    let last = messages.len() - 1;
    for (index, message) in messages.into_iter().enumerate() {
        let mut headers = message.headers.clone();
        if last > 0 {
            headers.insert(header::BATCH_ID, id.as_str());
            headers.insert(header::BATCH_SEQUENCE, (index + 1).to_string());
        }
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        if index < last {
            client
                .publish_with_headers(subject, headers, payload)
                .await
                .map_err(|_| Error::Unavailable)?;
        } else {
            if last > 0 {
                headers.insert(header::BATCH_COMMIT, "1");
            }
            let reply = client
                .request_with_headers(subject, headers, payload)
                .await
                .map_err(|error| match error.kind() {
                    RequestErrorKind::NoResponders => Error::Unavailable,
                    RequestErrorKind::MaxPayloadExceeded => Error::TooLarge,
                    _ => Error::Unknown,
                })?;
            return read_ack(&reply.payload);
        }
    }
    Err(Error::Closed)
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read_ack(payload: &[u8]) -> Result<u64, Error> {
    let ack: Ack = serde_json::from_slice(payload).map_err(|_| Error::Unknown)?;
    match ack.error {
        None if ack.duplicate => Err(Error::DuplicateId),
        None => Ok(ack.seq),
        Some(error) => Err(match ErrorCode(error.err_code) {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => Error::Conflict,
            ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => Error::DuplicateId,
            // A server whose disk is full disables JetStream.
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::JETSTREAM_NOT_ENABLED
            | ErrorCode::STREAM_STORE_FAILED => Error::Full,
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Error::TooLarge,
            ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NOT_LEADER => Error::Unavailable,
            ErrorCode(code) => Error::Rejected {
                code,
                description: error.description,
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(messages: Vec<Message>) -> Write {
        Write {
            messages,
            done: oneshot::channel().0,
        }
    }

    fn subjects(group: &[Write]) -> Vec<&str> {
        group
            .iter()
            .flat_map(|w| w.messages.iter().map(Message::subject))
            .collect()
    }

    #[test]
    fn writes_of_one_subject_go_into_different_batches_in_order() {
        let mut waiting: VecDeque<_> = ["a", "b", "a", "c"]
            .into_iter()
            .map(|s| write(vec![Message::new(s, "")]))
            .collect();
        assert_eq!(subjects(&take_group(&mut waiting)), ["a", "b", "c"]);
        assert_eq!(subjects(&take_group(&mut waiting)), ["a"]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn repeatable_messages_share_a_batch() {
        let write = |id: &str| {
            let revision = Message::new("revision", "").repeatable();
            write(vec![Message::new(id, ""), revision])
        };
        let mut waiting = VecDeque::from([write("a"), write("b"), write("a"), write("c")]);
        let first = ["a", "revision", "b", "revision", "c", "revision"];
        assert_eq!(subjects(&take_group(&mut waiting)), first);
        assert_eq!(subjects(&take_group(&mut waiting)), ["a", "revision"]);

        // A plain message of the same subject gets a batch of its own.
        let alone = self::write(vec![Message::new("revision", "")]);
        let mut waiting = VecDeque::from([write("a"), alone, write("b")]);
        let first = ["a", "revision"];
        assert_eq!(subjects(&take_group(&mut waiting)), first);
        assert_eq!(subjects(&take_group(&mut waiting)), ["revision"]);
        assert_eq!(subjects(&take_group(&mut waiting)), ["b", "revision"]);
    }

    #[test]
    fn a_guard_and_a_change_of_its_subject_go_into_different_batches() {
        let child = |id: &str| write(vec![Message::new(id, "").guard("parent", 7)]);
        let parent = || write(vec![Message::new("parent", "")]);
        let mut waiting = VecDeque::from([child("x"), child("y"), parent(), child("z")]);
        assert_eq!(subjects(&take_group(&mut waiting)), ["x", "y"]);
        assert_eq!(subjects(&take_group(&mut waiting)), ["parent"]);
        assert_eq!(subjects(&take_group(&mut waiting)), ["z"]);
    }

    #[test]
    fn a_batch_holds_at_most_1000_messages() {
        let mut waiting: VecDeque<_> = (0..600)
            .map(|n| {
                write(vec![
                    Message::new(format!("a{n}"), ""),
                    Message::new(format!("b{n}"), ""),
                ])
            })
            .collect();
        assert_eq!(subjects(&take_group(&mut waiting)).len(), 1_000);
        assert_eq!(subjects(&take_group(&mut waiting)).len(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_batch_leaves_in_time_or_when_it_is_large() {
        let (sender, mut receiver) = mpsc::channel(QUEUE_LENGTH);
        let started = tokio::time::Instant::now();
        let until = started + Duration::from_secs(1);
        let mut waiting = VecDeque::new();
        let send = |count| (0..count).all(|_| sender.try_send(write(Vec::new())).is_ok());
        assert!(send(LARGE_BATCH - 1));
        gather(&mut receiver, &mut waiting, until).await;
        assert_eq!(waiting.len(), LARGE_BATCH - 1);
        assert_eq!(started.elapsed(), Duration::from_secs(1));
        assert!(send(2));
        let later = until + Duration::from_secs(1);
        gather(&mut receiver, &mut waiting, later).await;
        assert_eq!(waiting.len(), LARGE_BATCH);
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[test]
    fn refusals_map_to_errors() {
        let refuse = |code: u64| {
            read_ack(format!(r#"{{"error":{{"err_code":{code},"description":"d"}}}}"#).as_bytes())
        };
        assert!(matches!(refuse(10_071), Err(Error::Conflict)));
        assert!(matches!(refuse(10_201), Err(Error::DuplicateId)));
        assert!(matches!(refuse(10_077), Err(Error::Full)));
        assert!(matches!(refuse(1), Err(Error::Rejected { code: 1, .. })));
        assert!(matches!(read_ack(b"not json"), Err(Error::Unknown)));
        assert!(matches!(read_ack(br#"{"stream":"S","seq":9}"#), Ok(9)));
    }
}
