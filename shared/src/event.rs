//! The wire format of events.
//!
//! The message body is the event's data, a JSON object. Workspace, source and event name are in the
//! subject; headers are optional. Any other message is [`Malformed`]; detecting that takes bounded time
//! and memory, whatever its size or shape.

mod big_numbers;
mod data_scan;
mod half_pairs;

use std::sync::OnceLock;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::signature::hex_digits;
use crate::subject::{self, header};
use data_scan::Outline;

/// The limit of a body. A server with a smaller `max_payload` lowers it, see `streams`.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// The limit of a publisher's event id, which is stored with every parked delivery.
pub const MAX_ID_BYTES: usize = 512;
/// Longer trace contexts are dropped.
const MAX_TRACE_BYTES: usize = 512;

/// Identifies an event: the publisher's `Nats-Msg-Id`, unique within a workspace, or else the message's
/// sequence and time, which survive redelivery and do not recur when the stream is recreated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    text: String,
    /// `None` if the publisher gave the id.
    place: Option<Stored>,
}

impl EventId {
    /// An id from the publisher.
    #[must_use]
    pub fn given(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            place: None,
        }
    }

    /// An id from a message's place in the stream; `stored` in Unix nanoseconds.
    #[must_use]
    pub fn stored(sequence: u64, stored: i128) -> Self {
        Self {
            text: format!("{sequence}-{stored}"),
            place: Some(Stored {
                sequence,
                time: stored,
            }),
        }
    }

    /// Not unique on its own: a publisher may give an id that looks like a place in the stream.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the id is the publisher's.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.place.is_none()
    }

    /// The message's place in the stream, if the id is made from it.
    #[must_use]
    pub fn place(&self) -> Option<Stored> {
        self.place
    }

    /// A hash that fits into a subject.
    #[must_use]
    pub fn digest(&self, workspace: &str) -> String {
        DeliveryId::hash(self, workspace, "").to_string()
    }
}

/// A hash of the event's id and the hook's: the same on every dispatcher and for every attempt, and short
/// enough for a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId([u8; DELIVERY_ID_DIGITS]);

const DELIVERY_ID_DIGITS: usize = 32;

impl DeliveryId {
    #[must_use]
    pub fn new(event: &Event, hook: &str) -> Self {
        Self::hash(&event.id, &event.workspace, hook)
    }

    fn hash(event: &EventId, workspace: &str, hook: &str) -> Self {
        let mut hash = Sha256::new();
        // Publishers' ids are unique within a workspace, the stream's own ids are unique everywhere.
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
        // Digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Seeds the jitter of retries.
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

/// The place of an event's message in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Sequence in `HOOKLINE_EVENTS`.
    pub sequence: u64,
    /// In Unix nanoseconds.
    pub time: i128,
}

impl Stored {
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.time / 1_000_000).unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub struct Event {
    pub id: EventId,
    pub workspace: String,
    /// `crud`, `balancer`, ...
    pub source: String,
    /// `consumers`, `health`, ...
    pub name: String,
    /// The data as published.
    pub raw: Bytes,
    /// The same without half surrogate pairs, if there were some.
    mended: Option<Bytes>,
    outline: Outline,
    data: OnceLock<Map<String, Value>>,
    /// Process id of the node that raised the event.
    pub pid: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Sequence of the outbox entry in the bucket, if the event came from one.
    pub outbox_sequence: Option<u64>,
    /// The only hook that gets the event, if it is a ping.
    pub addressed_to: Option<String>,
}

/// Why a message is not an event. The text reveals nothing of the body but the position of the error.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error(transparent)]
    Subject(#[from] subject::Error),
    #[error(transparent)]
    Data(#[from] data_scan::Error),
    #[error("events of this source come from gateways only")]
    Internal,
    #[error("the event id has {0} bytes, more than {MAX_ID_BYTES}")]
    LongId(usize),
    #[error("the body has {0} bytes, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
}

impl Event {
    /// Parses a message. If it carries no id, the event gets one from its place in the stream.
    pub fn parse(
        subject: &str,
        headers: Option<&HeaderMap>,
        body: Bytes,
        stored: Stored,
    ) -> Result<Self, Malformed> {
        let id = identify(headers, stored);
        let event = Self::parse_with_id(subject, headers, body, id)?;
        if subject::is_internal_source(&event.source) && event.outbox_sequence.is_none() {
            return Err(Malformed::Internal);
        }
        Ok(event)
    }

    /// Like [`parse`](Self::parse), for an event whose id is known.
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
        // serde_json rejects more than 128 levels.
        let (outline, mended) = match Outline::read(&body) {
            Ok(outline) => (outline, None),
            Err(error) => mended(&body).ok_or(error)?,
        };
        let text = |name: &str| get(headers, name);
        Ok(Self {
            id,
            workspace,
            source,
            name,
            outline,
            data: OnceLock::new(),
            raw: body,
            mended,
            pid: text(header::PID).and_then(|pid| pid.parse().ok()),
            traceparent: text(header::TRACEPARENT)
                .filter(|trace| trace.len() <= MAX_TRACE_BYTES)
                .map(str::to_owned),
            outbox_sequence: text(header::STREAM_SOURCE).and_then(bucket_sequence),
            addressed_to: text(header::HOOK).map(str::to_owned),
        })
    }

    /// The data's `operation`: a hook on `name:operation` matches it.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.outline.operation.as_deref()
    }

    /// Whether the data has a `source` or an `event` of its own.
    #[must_use]
    pub fn names_itself(&self) -> bool {
        self.outline.names_itself
    }

    /// Decodes the data on first use: most deliveries only need [`raw`](Self::raw). Numbers are 64 bits long.
    pub fn data(&self) -> &Map<String, Value> {
        self.data.get_or_init(|| {
            let text = self.text();
            // Cannot fail then: the outline was read from the same bytes.
            let within_range = || serde_json::from_slice(&big_numbers::replaced(text)?).ok();
            let data = serde_json::from_slice(text).ok();
            data.or_else(within_range).unwrap_or_default()
        })
    }

    /// The data as Unicode text: with U+FFFD where half of a surrogate pair was published.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.mended.as_ref().unwrap_or(&self.raw)
    }
}

/// Reads JSON that parsers refuse. Returns the text as well, if it was changed.
fn mended(body: &Bytes) -> Option<(Outline, Option<Bytes>)> {
    let text = half_pairs::replaced(body);
    let json = text.as_ref().unwrap_or(body);
    let outline = Outline::read(json).ok();
    let outline = outline.or_else(|| Outline::read(&big_numbers::replaced(json)?).ok());
    Some((outline?, text))
}

/// The event id of a message, even of a malformed one.
#[must_use]
pub fn identify(headers: Option<&HeaderMap>, stored: Stored) -> EventId {
    match get(headers, header::MESSAGE_ID).filter(|id| !id.is_empty()) {
        Some(id) => EventId::given(id),
        None => EventId::stored(stored.sequence, stored.time),
    }
}

/// The first value of a header.
#[must_use]
pub fn get<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(|value| value.as_str())
}

/// Where in the bucket a message was copied from: the sequence in `KV_hookline <sequence> ...`.
#[must_use]
pub fn bucket_sequence(source: &str) -> Option<u64> {
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
    fn headers_carry_id_pid_and_outbox_sequence() {
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
    fn events_of_internal_sources_come_from_the_outbox_only() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOOK, "c57340ab-9fed-40fd-bb7e-1cef8d37c2df");
        let parse = |subject: &str, headers: &HeaderMap| {
            Event::parse(subject, Some(headers), Bytes::from_static(b"{}"), STORED)
        };
        for source in [
            "kong:event_hooks",
            "kong%3Aevent_hooks",
            "%6Bong:event_hooks",
            "hookline:audit",
        ] {
            let subject = format!("hookline.events.default.{source}.ping");
            assert!(parse(&subject, &headers).is_err(), "{source}");
        }
        headers.insert(header::STREAM_SOURCE, "KV_hookline 12 a b c d");
        let ping = parse("hookline.events.default.kong:event_hooks.ping", &headers);
        assert!(ping.expect("a ping").addressed_to.is_some());
        let alias = parse("hookline.events.default.kong%3Aevent_hooks.ping", &headers);
        assert!(alias.is_err(), "one event, one subject");
    }

    #[test]
    fn a_body_that_is_not_a_json_object_is_malformed() {
        for body in [
            "",
            "{",
            "[1]",
            "3",
            "null",
            "\"text\"",
            "{\"n\":1e}",
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
