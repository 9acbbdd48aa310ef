//! An event: something that happened on a gateway node, as it stands on the wire.
//!
//! The message body is the event's data, a JSON object; source, event name and workspace come from
//! the subject; headers are optional. What does not follow this is [`Malformed`], whatever its
//! size or shape, and costs bounded time and memory to find out.

mod data_scan;

use std::sync::OnceLock;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::signature::hex_digits;
use crate::subject::{self, header};
use data_scan::Outline;

/// The largest event in bytes. A server whose `max_payload` is smaller lowers it, see
/// [`streams`](crate::streams).
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// The longest id that a publisher may give, in bytes: it is written with every parked delivery.
const MAX_ID_BYTES: usize = 512;
/// What an id of a place in the stream takes: twenty digits, a dash, and as many.
const STORED_ID_BYTES: usize = 41;
/// The longest trace context that is passed on, in bytes.
const MAX_TRACE_BYTES: usize = 512;

/// What identifies an event: the publisher's `Nats-Msg-Id` within the workspace, else sequence and
/// stored time of the message, which stay the same over redelivery and are not repeated when a
/// stream is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    text: String,
    /// Nothing if the publisher gave it.
    place: Option<Stored>,
}

impl EventId {
    /// An id that the publisher gave.
    #[must_use]
    pub fn given(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            place: None,
        }
    }

    /// An id made of a message's place in the stream; `stored` in Unix nanoseconds.
    #[must_use]
    pub fn stored(sequence: u64, stored: i128) -> Self {
        let mut digits = itoa::Buffer::new();
        let mut text = String::with_capacity(STORED_ID_BYTES);
        text.push_str(digits.format(sequence));
        text.push('-');
        text.push_str(digits.format(stored));
        Self {
            text,
            place: Some(Stored {
                sequence,
                time: stored,
            }),
        }
    }

    /// The id as text. Ids of both kinds may have the same text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the publisher gave it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.place.is_none()
    }

    /// Where the event's message stands, if its id is made of that.
    #[must_use]
    pub fn place(&self) -> Option<Stored> {
        self.place
    }

    /// A hash that fits into a subject, for an event that has no deliveries.
    #[must_use]
    pub fn digest(&self, workspace: &str) -> String {
        DeliveryId::hash(self, workspace, "").to_string()
    }
}

/// The id of a delivery: a hash of the event's id and the hook's, so that it is the same on every
/// dispatcher and every attempt, and fits into a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId([u8; DELIVERY_ID_DIGITS]);

/// Hexadecimal digits of a delivery's id.
const DELIVERY_ID_DIGITS: usize = 32;

impl DeliveryId {
    /// The id of the delivery of `event` to the hook with the id `hook`.
    #[must_use]
    pub fn new(event: &Event, hook: &str) -> Self {
        Self::hash(&event.id, &event.workspace, hook)
    }

    fn hash(event: &EventId, workspace: &str, hook: &str) -> Self {
        let mut hash = Sha256::new();
        // Only ids that publishers give are told apart by workspace: the others are the stream's.
        let (kind, workspace) = if event.is_given() {
            ("given", workspace)
        } else {
            ("stored", "")
        };
        for part in [kind, workspace, &event.text, hook] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut digits = [b'0'; DELIVERY_ID_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash.finalize()) {
            pair.copy_from_slice(&hex_digits(byte));
        }
        Self(digits)
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // They are digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A number that is as random as the id, for jitter.
    #[must_use]
    pub fn seed(&self) -> u64 {
        u64::from_str_radix(&self.as_str()[..16], 16).unwrap_or_default()
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an event's message stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Sequence in `HOOKLINE_EVENTS`.
    pub sequence: u64,
    /// When it was stored there, in Unix nanoseconds.
    pub time: i128,
}

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// What identifies it.
    pub id: EventId,
    /// The workspace it happened in.
    pub workspace: String,
    /// Where it comes from: `crud`, `balancer`, ...
    pub source: String,
    /// What happened: `consumers`, `health`, ...
    pub name: String,
    /// The data as published.
    pub raw: Bytes,
    outline: Outline,
    data: OnceLock<Map<String, Value>>,
    /// Process id of the node it happened on.
    pub pid: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Sequence of its outbox entry in the bucket, if it came through one.
    pub outbox_sequence: Option<u64>,
    /// The only hook it is for, if it is a ping.
    pub addressed_to: Option<String>,
}

/// Why a message is no event. The text tells nothing of the body but where it is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The subject does not follow the scheme.
    #[error(transparent)]
    Subject(#[from] subject::Error),
    /// The body is no JSON, is nested too deep or holds a number out of range.
    #[error("the body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// The body is JSON, but no object.
    #[error("the body is not a JSON object but {0}")]
    NotAnObject(&'static str),
    #[error("the id has {0} bytes, more than {MAX_ID_BYTES}")]
    LongId(usize),
    /// The body is larger than [`MAX_EVENT_BYTES`].
    #[error("the body has {0} bytes, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
}

impl Event {
    /// Reads an event from the parts of its message; `stored` gives it an id if it brings none.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn parse(
        subject: &str,
        headers: Option<&HeaderMap>,
        body: Bytes,
        stored: Stored,
    ) -> Result<Self, Malformed> {
        let id = identify(headers, stored);
        Self::parse_with_id(subject, headers, body, id)
    }

    /// As [`parse`](Self::parse), for an event whose id is known.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn parse_with_id(
        subject: &str,
        headers: Option<&HeaderMap>,
        body: Bytes,
        id: EventId,
    ) -> Result<Self, Malformed> {
        let (workspace, source, name) = subject::parse_event_subject(subject)?;
        if body.len() > MAX_EVENT_BYTES {
            return Err(Malformed::TooLarge(body.len()));
        }
        if id.text.len() > MAX_ID_BYTES {
            return Err(Malformed::LongId(id.text.len()));
        }
        // serde_json refuses what is nested deeper than 128.
        let outline = Outline::read(&body)?;
        let text = |name: &str| get(headers, name);
        Ok(Self {
            id,
            workspace,
            source,
            name,
            outline,
            data: OnceLock::new(),
            raw: body,
            pid: text(header::PID).and_then(|pid| pid.parse().ok()),
            traceparent: text(header::TRACEPARENT)
                .filter(|trace| trace.len() <= MAX_TRACE_BYTES)
                .map(str::to_owned),
            outbox_sequence: text(header::STREAM_SOURCE).and_then(outbox_sequence),
            addressed_to: text(header::HOOK).map(str::to_owned),
        })
    }

    /// The data's `operation`, which a hook's `name:operation` matches.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.outline.operation.as_deref()
    }

    /// Whether the data has a `source` or an `event` of its own.
    #[must_use]
    pub fn names_itself(&self) -> bool {
        self.outline.names_itself
    }

    /// The data. Most deliveries have no need of it.
    pub fn data(&self) -> &Map<String, Value> {
        // It was read before.
        self.data
            .get_or_init(|| serde_json::from_slice(&self.raw).unwrap_or_default())
    }
}

/// The id of a message, which it has even if it is malformed.
#[must_use]
pub fn identify(headers: Option<&HeaderMap>, stored: Stored) -> EventId {
    match get(headers, header::MESSAGE_ID).filter(|id| !id.is_empty()) {
        Some(id) => EventId::given(id),
        None => EventId::stored(stored.sequence, stored.time),
    }
}

/// A header's first value.
#[must_use]
pub fn get<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(|value| value.as_str())
}

/// The sequence in `KV_hookline <sequence> ...`.
fn outbox_sequence(source: &str) -> Option<u64> {
    let mut words = source.split(' ');
    (words.next()? == subject::BUCKET_STREAM)
        .then(|| words.next()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: Stored = Stored {
        sequence: 7,
        time: 9,
    };
    const SUBJECT: &str = "hookline.events.default.crud.consumers";

    fn parse(body: &str) -> Result<Event, Malformed> {
        Event::parse(
            SUBJECT,
            None,
            Bytes::copy_from_slice(body.as_bytes()),
            STORED,
        )
    }

    #[test]
    fn a_plain_publish_is_an_event() {
        let event = parse("{\"operation\":\"create\",\"n\":null}\n").expect("an event");
        assert_eq!(
            (event.source.as_str(), event.name.as_str()),
            ("crud", "consumers")
        );
        assert_eq!(event.operation(), Some("create"));
        assert_eq!(event.id.as_str(), "7-9");
        assert_eq!(event.pid, None);
    }

    #[test]
    fn headers_bring_id_pid_and_outbox_sequence() {
        let mut headers = HeaderMap::new();
        headers.insert(header::MESSAGE_ID, "e-1");
        headers.insert(header::PID, "42");
        headers.insert(header::STREAM_SOURCE, "KV_hookline 12 a b c d");
        let event = Event::parse(SUBJECT, Some(&headers), Bytes::from_static(b"{}"), STORED)
            .expect("an event");
        assert!(event.id.is_given());
        assert_eq!(
            (event.id.as_str(), event.pid, event.outbox_sequence),
            ("e-1", Some(42), Some(12))
        );
    }

    #[test]
    fn what_is_no_json_object_is_malformed() {
        for body in [
            "",
            "{",
            "[1]",
            "3",
            "null",
            "\"text\"",
            "{\"n\":1e999}",
            "{\"a\":1} x",
        ] {
            assert!(parse(body).is_err(), "{body}");
        }
    }

    #[test]
    fn an_object_nested_10_000_deep_is_malformed() {
        let body = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        assert!(
            parse(&body)
                .expect_err("too deep")
                .to_string()
                .contains("recursion limit")
        );
    }

    #[test]
    fn a_delivery_id_depends_on_event_workspace_and_hook() {
        let event = |workspace: &str, id: EventId| {
            let subject = subject::event_subject(workspace, "crud", "consumers");
            Event::parse_with_id(&subject, None, Bytes::from_static(b"{}"), id).expect("an event")
        };
        let ids = [
            DeliveryId::new(&event("a", EventId::given("7-9")), "h"),
            DeliveryId::new(&event("b", EventId::given("7-9")), "h"),
            DeliveryId::new(&event("a", EventId::stored(7, 9)), "h"),
            DeliveryId::new(&event("a", EventId::given("7-9")), "g"),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(id.as_str().len(), 32);
            assert!(!ids[..index].contains(id));
        }
        assert_eq!(
            ids[0],
            DeliveryId::new(&event("a", EventId::given("7-9")), "h")
        );
    }
}
