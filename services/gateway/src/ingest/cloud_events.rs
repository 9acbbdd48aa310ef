//! CloudEvents 1.0 over HTTP: structured, in headers (binary), and in batches.
//!
//! `type` is `<source>.<event>`, divided at the last dot. CloudEvents' own `source` says who raised the event; with `id`
//! it is the idempotency key. The data is a JSON object.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{Incoming, Malformed, is_json};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
/// The data of an event that has none.
const NO_DATA: &[u8] = b"{}";
/// The server takes no larger atomic batch.
const MAX_BATCH: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is no CloudEvent in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the attribute {0} is missing or empty")]
    Missing(&'static str),
    #[error("the header ce-{0} must be one line of percent-encoded UTF-8")]
    Header(&'static str),
    #[error("specversion is {0:?}, expected 1.0")]
    Version(String),
    #[error("type is {0:?}, expected SOURCE.EVENT, such as balancer.health")]
    Kind(String),
    #[error("source {0:?} has white space, which no URI has")]
    Source(String),
    #[error("data must be a JSON object, and its datacontenttype is {0:?}")]
    DataType(String),
    #[error("data_base64 is no base64")]
    Base64,
    #[error("it has both data and data_base64")]
    TwoData,
    #[error("a batch has at most {MAX_BATCH} events, this one has {0}")]
    BatchSize(usize),
}

/// In the JSON format; other attributes are extensions.
#[derive(Deserialize)]
struct Structured<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    datacontenttype: Option<String>,
    traceparent: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// The attributes that say what an event is.
struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    traceparent: Option<String>,
}

pub(super) fn read(
    media_type: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Vec<Incoming>, Malformed> {
    match media_type {
        STRUCTURED => Ok(vec![structured(body)?]),
        BATCH => batch(body),
        _ if headers.contains_key("ce-specversion") => {
            let has_data = !body.is_empty();
            if has_data && !is_json(media_type) {
                return Err(Malformed::Type);
            }
            Ok(vec![binary(headers, body)?])
        }
        _ => Err(Malformed::Which),
    }
}

fn batch(body: &Bytes) -> Result<Vec<Incoming>, Malformed> {
    let events: Vec<&RawValue> = serde_json::from_slice(body).map_err(Error::from)?;
    if events.len() > MAX_BATCH {
        return Err(Error::BatchSize(events.len()).into());
    }
    let numbered = events.into_iter().enumerate();
    let read = numbered.map(|(place, event)| {
        let read = structured(event.get().as_bytes());
        read.map_err(|error| Malformed::InBatch(place + 1, Box::new(error.into())))
    });
    read.collect()
}

fn structured(body: &[u8]) -> Result<Incoming, Error> {
    let event: Structured<'_> = serde_json::from_slice(body)?;
    let data_type = event.datacontenttype.map(|kind| kind.to_ascii_lowercase());
    let essence = data_type.as_ref().and_then(|kind| kind.split(';').next());
    if let Some(kind) = essence.filter(|kind| !is_json(kind.trim())) {
        return Err(Error::DataType(kind.to_owned()));
    }
    let data = match (event.data, event.data_base64) {
        (Some(_), Some(_)) => return Err(Error::TwoData),
        (Some(data), None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|_| Error::Base64)?;
            bytes.into()
        }
        (None, None) => Bytes::from_static(NO_DATA),
    };
    let attributes = Attributes {
        specversion: event.specversion,
        id: event.id,
        source: event.source,
        kind: event.r#type,
        traceparent: event.traceparent,
    };
    attributes.with(data)
}

fn binary(headers: &HeaderMap, body: &Bytes) -> Result<Incoming, Error> {
    let attribute = |name: &'static str| -> Result<Option<String>, Error> {
        let mut values = headers.get_all(format!("ce-{name}")).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let text = value.to_str().map_err(|_| Error::Header(name))?;
                let text = unquoted(text);
                let text = percent_decode_str(&text).decode_utf8();
                Ok(Some(text.map_err(|_| Error::Header(name))?.into_owned()))
            }
            (Some(_), Some(_)) => Err(Error::Header(name)),
        }
    };
    let attributes = Attributes {
        specversion: attribute("specversion")?,
        id: attribute("id")?,
        source: attribute("source")?,
        kind: attribute("type")?,
        traceparent: attribute("traceparent")?,
    };
    attributes.with(match body.is_empty() {
        true => Bytes::from_static(NO_DATA),
        false => body.clone(),
    })
}

/// A header's value, which senders may quote.
fn unquoted(text: &str) -> String {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return text.to_owned();
    };
    let (mut plain, mut characters) = (String::new(), inner.chars());
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            character => character,
        });
    }
    plain
}

impl Attributes {
    fn with(self, data: Bytes) -> Result<Incoming, Error> {
        let given = |value: Option<String>, name| {
            let value = value.filter(|value| !value.is_empty());
            value.ok_or(Error::Missing(name))
        };
        let version = given(self.specversion, "specversion")?;
        if version != "1.0" {
            return Err(Error::Version(version));
        }
        let id = given(self.id, "id")?;
        let from = given(self.source, "source")?;
        if from.contains(char::is_whitespace) {
            return Err(Error::Source(from));
        }
        let kind = given(self.kind, "type")?;
        let Some((source, name)) = kind.rsplit_once('.') else {
            return Err(Error::Kind(kind));
        };
        if source.is_empty() || name.is_empty() {
            return Err(Error::Kind(kind));
        }
        Ok(Incoming {
            source: source.to_owned(),
            name: name.to_owned(),
            data,
            // No source has a space.
            key: Some(format!("{from} {id}")),
            node: Some(from),
            traceparent: self.traceparent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Incoming, Error> {
        structured(text.as_bytes())
    }

    #[test]
    fn the_type_names_source_and_event_and_data_stays_as_it_is() {
        let text = r#"{"specversion":"1.0","id":"7","source":"/node/1","type":"com.example.push",
            "x":[1],"data":{"big": 12345678901234567890123, "a":1.10}}"#;
        let event = one(text).expect("an event");
        assert_eq!(
            (event.source.as_str(), event.name.as_str()),
            ("com.example", "push")
        );
        assert_eq!(event.key.as_deref(), Some("/node/1 7"));
        assert_eq!(event.node.as_deref(), Some("/node/1"));
        assert_eq!(
            &event.data[..],
            br#"{"big": 12345678901234567890123, "a":1.10}"#
        );
    }

    #[test]
    fn data_may_be_missing_and_headers_quoted() {
        let text = r#"{"specversion":"1.0","id":"7","source":"s","type":"a.b"}"#;
        assert_eq!(&one(text).expect("an event").data[..], b"{}");
        assert_eq!(unquoted(r#""a \"b\" c""#), r#"a "b" c"#);
        assert_eq!(unquoted("a"), "a");
    }

    #[test]
    fn what_is_no_cloud_event_is_refused() {
        let with = |change: &str| {
            let text = r#"{"specversion":"1.0","id":"7","source":"s","type":"a.b","data":{}}"#;
            let (name, _) = change.split_once(':').expect("an attribute");
            let mut all: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).expect("JSON");
            all.remove(name.trim_matches('"'));
            let rest = serde_json::to_string(&all).expect("JSON");
            format!("{{{change},{}", &rest[1..])
        };
        for (text, says) in [
            ("[]".to_owned(), "no CloudEvent"),
            (with(r#""specversion":"0.3""#), "expected 1.0"),
            (with(r#""id":"""#), "attribute id"),
            (with(r#""id":7"#), "no CloudEvent"),
            (with(r#""source":null"#), "attribute source"),
            (with(r#""source":"a b""#), "white space"),
            (with(r#""type":"push""#), "SOURCE.EVENT"),
            (with(r#""type":".push""#), "SOURCE.EVENT"),
            (with(r#""data_base64":"e30=""#), "both data"),
            (with(r#""datacontenttype":"text/xml""#), "text/xml"),
        ] {
            let error = one(&text).expect_err(&text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
