//! Which dead letters a request is about. All of them only if that is said.

use serde_json::Value;

use hookline_shared::stream_reader::Stored;
use hookline_shared::subject::{decode_token, header, parse_event_subject};

use super::deliveries::{is_delivery_id, stored_at};
use crate::error::ApiError;
use crate::schema::Entity;

const KNOWN: &str = "all, id, since, until, reason, source, event, dry_run";

#[derive(Debug, Default, PartialEq)]
pub(super) struct Selection {
    pub(super) id: Option<String>,
    /// In Unix seconds, the first included and the last not.
    since: Option<f64>,
    until: Option<f64>,
    /// A part of the reason.
    reason: Option<String>,
    source: Option<String>,
    event: Option<String>,
    /// Whether the letters are only counted.
    pub(super) dry_run: bool,
}

impl Selection {
    /// Reads the parameters of a body and of a query.
    pub(super) fn read(body: &Entity, query: &str) -> Result<Self, ApiError> {
        let mut selection = Self::default();
        let mut all = false;
        let query: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect();
        let body = body.iter().filter(|(_, value)| !value.is_null());
        for (name, value) in body.chain(query.iter().map(|(name, value)| (name, value))) {
            match name.as_str() {
                "all" => all = flag("all must be true or false", value)?,
                "dry_run" => selection.dry_run = flag("dry_run must be true or false", value)?,
                "id" => {
                    let id = value.as_str().filter(|id| is_delivery_id(id));
                    let id = id.ok_or(ApiError::BadRequest("id must be a delivery id"))?;
                    selection.id = Some(id.to_owned());
                }
                "since" => {
                    selection.since = Some(time("since must be a time in Unix seconds", value)?);
                }
                "until" => {
                    selection.until = Some(time("until must be a time in Unix seconds", value)?);
                }
                "reason" => selection.reason = Some(text("reason must be a text", value)?),
                "source" => selection.source = Some(text("source must be a text", value)?),
                "event" => selection.event = Some(text("event must be a text", value)?),
                _ => return Err(unknown(name, KNOWN)),
            }
        }
        let is_bounded = selection
            != Self {
                dry_run: selection.dry_run,
                ..Self::default()
            };
        match (all, is_bounded) {
            (false, false) => Err(ApiError::BadRequest(
                "say which: id, since, until, reason, source or event, or all=true",
            )),
            (true, true) => Err(ApiError::BadRequest("say either all=true or which")),
            _ => Ok(selection),
        }
    }

    pub(super) fn holds(&self, letter: &Stored) -> bool {
        let stored = stored_at(letter);
        let header = |name| letter.header(name).and_then(|text| decode_token(text).ok());
        let reason = header(header::REASON).unwrap_or_default();
        let event = header(header::SUBJECT).and_then(|event| parse_event_subject(&event).ok());
        let (_, source, event) = event.unwrap_or_default();
        self.since.is_none_or(|since| stored >= since)
            && self.until.is_none_or(|until| stored < until)
            && self
                .reason
                .as_ref()
                .is_none_or(|part| reason.contains(part))
            && self.source.as_ref().is_none_or(|wanted| *wanted == source)
            && self.event.as_ref().is_none_or(|wanted| *wanted == event)
    }
}

/// That all are meant, which a request about many must say.
pub(super) fn all(query: &str) -> Result<(), ApiError> {
    let mut is_all = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "all" => is_all = flag("all must be true or false", &value.into_owned().into())?,
            _ => return Err(unknown(&name, "all")),
        }
    }
    if is_all {
        return Ok(());
    }
    Err(ApiError::BadRequest(
        "this removes all of them: say all=true, or name one by its id in the path",
    ))
}

/// That a request has no parameters.
pub(super) fn none(query: &str) -> Result<(), ApiError> {
    match form_urlencoded::parse(query.as_bytes()).next() {
        Some((name, _)) => Err(unknown(&name, "none")),
        None => Ok(()),
    }
}

pub(super) fn unknown(name: &str, known: &'static str) -> ApiError {
    ApiError::Parameter(name.to_owned(), known)
}

fn flag(wrong: &'static str, value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(ApiError::BadRequest(wrong)),
    }
}

fn time(wrong: &'static str, value: &Value) -> Result<f64, ApiError> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    seconds.ok_or(ApiError::BadRequest(wrong))
}

fn text(wrong: &'static str, value: &Value) -> Result<String, ApiError> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or(ApiError::BadRequest(wrong))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value, query: &str) -> Result<Selection, ApiError> {
        Selection::read(body.as_object().expect("an object"), query)
    }

    #[test]
    fn all_must_be_said_and_what_is_unknown_is_refused() {
        let id = "0".repeat(32);
        for (body, query) in [
            (json!({"all": true}), ""),
            (json!({}), "all=true"),
            (json!({"all": "true", "dry_run": true}), ""),
            (json!({"id": id}), ""),
            (json!({"id": null, "since": 5}), ""),
            (json!({"since": "5.5", "until": 7}), "reason=500"),
            (json!({"all": false, "event": "consumers"}), "source=crud"),
        ] {
            assert!(read(body.clone(), query).is_ok(), "{body} {query}");
        }
        for (body, query) in [
            (json!({}), ""),
            (json!({"dry_run": true}), ""),
            (json!({"all": false}), ""),
            (json!({"all": "yes"}), ""),
            (json!({"all": true, "since": 5}), ""),
            (json!({"sicne": 5}), ""),
            (json!({"ids": ["a"]}), ""),
            (json!({"id": "a"}), ""),
            (json!({"id": 5}), ""),
            (json!({"id": null}), ""),
            (json!({"since": "yesterday"}), ""),
            (json!({"since": "NaN"}), ""),
            (json!({"reason": ""}), ""),
            (json!({"all": true}), "x=1"),
            (json!({}), "id=000"),
        ] {
            assert!(read(body.clone(), query).is_err(), "{body} {query}");
        }
        assert!(all("all=true").is_ok() && none("").is_ok());
        for query in ["", "all", "all=false", "id=zzz", "all=true&id=zzz"] {
            assert!(
                all(query).is_err() && (query.is_empty() || none(query).is_err()),
                "{query}"
            );
        }
    }
}
