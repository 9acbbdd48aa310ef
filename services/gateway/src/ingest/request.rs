//! The events of a request: by its path and a JSON object, or as CloudEvents.

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use hookline_shared::event::{self, Event, EventId};
use hookline_shared::subject::{self, encode_header};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::cloud_events;
use super::login::Sender;
use crate::store::Raised;

/// Of a source's name and an event's: they are part of a subject.
const MAX_NAME: usize = 255;
/// Of an idempotency key.
const MAX_KEY: usize = 512;
/// A longer id is replaced by its digest.
const MAX_ID: usize = 128;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Why a request has no events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error(transparent)]
    Event(#[from] event::Malformed),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{0} has {1} bytes, more than {2}")]
    Long(&'static str, usize, usize),
    #[error("the header Idempotency-Key must be one line of ASCII, sent once")]
    Key,
    #[error(transparent)]
    CloudEvent(#[from] cloud_events::Error),
    /// Carries its place.
    #[error("event {0} of the batch: {1}")]
    InBatch(usize, Box<Malformed>),
    #[error(
        "which event is it? POST /events/SOURCE/EVENT takes its data as application/json; POST /events takes CloudEvents: application/cloudevents+json, application/cloudevents-batch+json, or JSON with the headers ce-specversion, ce-id, ce-source and ce-type"
    )]
    Which,
    #[error("Unsupported Media Type: the data of an event is application/json")]
    Type,
}

impl Malformed {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Event(event::Malformed::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Which | Self::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InBatch(_, inner) => inner.status(),
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// `/events` or `/events/{source}/{event}`, with a workspace before it or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) workspace: Option<String>,
    /// Source and event.
    names: Option<(String, String)>,
}

/// An event as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) source: String,
    pub(super) name: String,
    pub(super) data: Bytes,
    /// The same for all requests with this event.
    pub(super) key: Option<String>,
    /// Who raised it, if not the owner of the token.
    pub(super) node: Option<String>,
    pub(super) traceparent: Option<String>,
}

impl Path {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let segments = path.strip_prefix('/')?.split('/');
        let segments = segments.map(|segment| percent_decode_str(segment).decode_utf8());
        let segments: Vec<_> = segments.collect::<Result<_, _>>().ok()?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let (workspace, rest) = match segments.as_slice() {
            ["events", rest @ ..] if rest.len() != 1 && rest.len() != 3 => (None, rest),
            [workspace, "events", rest @ ..] if !workspace.is_empty() => {
                (Some((*workspace).to_owned()), rest)
            }
            _ => return None,
        };
        let names = match rest {
            [] => None,
            [source, name] if !source.is_empty() && !name.is_empty() => {
                Some(((*source).to_owned(), (*name).to_owned()))
            }
            _ => return None,
        };
        Some(Self { workspace, names })
    }

    pub(super) fn events(
        &self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Vec<Incoming>, Malformed> {
        let media_type = media_type(headers);
        let events = match &self.names {
            Some((source, name)) => {
                if !is_json(&media_type) {
                    return Err(Malformed::Type);
                }
                vec![Incoming {
                    source: source.clone(),
                    name: name.clone(),
                    data: body,
                    key: idempotency_key(headers)?,
                    node: None,
                    // The request's own trace goes on.
                    traceparent: None,
                }]
            }
            None => cloud_events::read(&media_type, headers, &body)?,
        };
        match events.as_slice() {
            [event] => event.check()?,
            events => {
                for (place, event) in events.iter().enumerate() {
                    let checked = event.check();
                    checked.map_err(|error| Malformed::InBatch(place + 1, error.into()))?;
                }
            }
        }
        Ok(events)
    }
}

impl Incoming {
    /// Whether dispatchers will take it.
    fn check(&self) -> Result<(), Malformed> {
        for (what, name) in [("the source", &self.source), ("the event", &self.name)] {
            match name.len() {
                0 => return Err(Malformed::Empty(what)),
                1..=MAX_NAME => {}
                bytes => return Err(Malformed::Long(what, bytes, MAX_NAME)),
            }
        }
        if let Some(key) = &self.key {
            match key.len() {
                0 => return Err(Malformed::Empty("the idempotency key")),
                1..=MAX_KEY => {}
                bytes => return Err(Malformed::Long("the idempotency key", bytes, MAX_KEY)),
            }
        }
        let subject = subject::event_subject(subject::DEFAULT_WORKSPACE, &self.source, &self.name);
        let id = EventId::given("");
        Event::parse_with_id(&subject, None, self.data.clone(), id)?;
        Ok(())
    }

    pub(super) fn raised(self, sender: &Sender) -> Raised {
        let id = match &self.key {
            Some(key) => id_of(sender.workspace(), &self.source, &self.name, key),
            None => Uuid::new_v4().to_string(),
        };
        Raised {
            id,
            is_key: self.key.is_some(),
            node: self.node.unwrap_or_else(|| sender.name().to_owned()),
            source: self.source,
            name: self.name,
            data: self.data,
            traceparent: self.traceparent,
        }
    }
}

/// JetStream and the repeats know no workspaces, and one event must not use up the keys of another.
fn id_of(workspace: &str, source: &str, name: &str, key: &str) -> String {
    let scope = subject::event_subject(workspace, source, name);
    let scope = scope.split('.').skip(2).collect::<Vec<_>>().join("/");
    // Readers of headers trim blanks.
    let id = format!("{scope}/{}", encode_header(key).replace(' ', "%20"));
    match id.len() {
        ..=MAX_ID => id,
        _ => {
            let digest = Sha256::digest(&id);
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{digits}")
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => {
            let key = key.to_str().map_err(|_| Malformed::Key)?;
            Ok(Some(key.to_owned()))
        }
        (Some(_), Some(_)) => Err(Malformed::Key),
    }
}

/// In lower case, without parameters; two of them are none.
fn media_type(headers: &HeaderMap) -> String {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next().filter(|_| values.next().is_none());
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.unwrap_or_default().split(';').next();
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(workspace: Option<&str>, names: Option<(&str, &str)>) -> Option<Path> {
        Some(Path {
            workspace: workspace.map(str::to_owned),
            names: names.map(|(source, name)| (source.to_owned(), name.to_owned())),
        })
    }

    #[test]
    fn a_path_may_begin_with_a_workspace() {
        for (text, workspace, names) in [
            ("/events", None, None),
            ("/events/a/b", None, Some(("a", "b"))),
            ("/team-a/events", Some("team-a"), None),
            ("/team-a/events/a/b", Some("team-a"), Some(("a", "b"))),
            ("/events/events/a/b", Some("events"), Some(("a", "b"))),
            ("/events/a%2Fb/%C3%A9", None, Some(("a/b", "\u{e9}"))),
        ] {
            assert_eq!(Path::parse(text), path(workspace, names), "{text}");
        }
        for wrong in [
            "/",
            "/event",
            "/events/",
            "/events/a",
            "/events//b",
            "/events/a/",
            "/events/a/b/c",
            "/events/a/%ff",
            "/a/b/events/c/d",
            "//events/a/b",
        ] {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_of_other_scopes_differ_and_are_short() {
        let ids = [
            id_of("a", "b", "e", "c"),
            id_of("a", "b", "f", "c"),
            id_of("a", "b/e", "c", ""),
            id_of("a/b", "e", "c", ""),
            id_of("a", "b", "e", "c/"),
            id_of("a", "b", "e", "c "),
            id_of("a", "b", "e", &"c".repeat(512)),
            id_of("a", "b", "e", &"c".repeat(511)),
            id_of("a", "b", "e", "\r\nx: y"),
        ];
        for (number, id) in ids.iter().enumerate() {
            assert!(id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(!ids[..number].contains(id), "{id}");
        }
        assert_eq!(ids[0], "a/b/e/c");
    }
}
