//! A hook's waiting deliveries and dead letters, read from their streams.
//!
//! `GET /event-hooks/{id}/deliveries` lists them, `POST /event-hooks/{id}/dead/replay` delivers dead
//! letters again, `DELETE` removes them.

use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, decode_token, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::collections::Collection;
use super::paging::{NOT_ISSUED, size};
use super::response;
use super::selection::{self, unknown};
use crate::error::ApiError;
use crate::store::{self, Store};

/// Default page size.
const DEFAULT_SIZE: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Dead,
}

impl State {
    fn stream(self) -> &'static str {
        match self {
            Self::Waiting => subject::DELIVERIES_STREAM,
            Self::Dead => subject::DEAD_STREAM,
        }
    }

    fn filter(self, hook: &str) -> String {
        match self {
            Self::Waiting => subject::deliveries_of(hook),
            Self::Dead => subject::dead_of(hook),
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Waiting => Self::Dead,
            Self::Dead => Self::Waiting,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dead => "dead",
        }
    }
}

pub(super) struct Query {
    state: State,
    size: usize,
    from: u64,
}

impl Query {
    pub(super) fn read(arguments: &str, state: State) -> Result<Self, ApiError> {
        let mut query = Self {
            state,
            size: DEFAULT_SIZE,
            from: 1,
        };
        for (name, value) in form_urlencoded::parse(arguments.as_bytes()) {
            match (name.as_ref(), value.as_ref()) {
                ("size", text) => query.size = size(text)?,
                ("offset", text) => {
                    let from = text.parse();
                    query.from = from.map_err(|_| ApiError::Offset(text.to_owned(), NOT_ISSUED))?;
                }
                ("state", "waiting") => query.state = State::Waiting,
                ("state", "dead") => query.state = State::Dead,
                ("state", _) => {
                    return Err(ApiError::BadRequest("state must be 'waiting' or 'dead'"));
                }
                _ => return Err(unknown(&name, "size, offset, state")),
            }
        }
        Ok(query)
    }
}

impl Collection<'_> {
    /// `GET /event-hooks/{id}/deliveries?state=waiting|dead`: oldest first, with both counts.
    pub(super) async fn deliveries(&self, key: &str, uri: &Uri) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        let query = Query::read(uri.query().unwrap_or_default(), State::Waiting)?;
        let (filter, other) = (query.state.filter(&hook.id), query.state.other());
        let (mut body, listed) = list(self.store, &query, &filter, uri).await?;
        let others = count(self.store, other.stream(), &other.filter(&hook.id)).await?;
        body["counts"] = match query.state {
            State::Waiting => json!({ "waiting": listed, "dead": others }),
            State::Dead => json!({ "waiting": others, "dead": listed }),
        };
        Ok(response::ok(&body))
    }

    /// `DELETE /event-hooks/{id}/dead?all=true` or `/event-hooks/{id}/dead/{delivery}`.
    pub(super) async fn delete_dead(
        &self,
        key: &str,
        delivery: Option<&str>,
        uri: &Uri,
    ) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        one_or_all(delivery, uri)?;
        let filter = match delivery {
            Some(id) if is_delivery_id(id) => subject::dead_subject(&hook.id, id),
            Some(_) => return Err(ApiError::NotFound),
            None => subject::dead_of(&hook.id),
        };
        purge(self.store, &filter).await
    }
}

pub(super) fn one_or_all(id: Option<&str>, uri: &Uri) -> Result<(), ApiError> {
    let query = uri.query().unwrap_or_default();
    match id {
        Some(_) => selection::none(query),
        None => selection::all(query),
    }
}

/// One page, and the total count.
pub(super) async fn list(
    store: &Store,
    query: &Query,
    filter: &str,
    uri: &Uri,
) -> Result<(Value, u64), ApiError> {
    store.connected().await?;
    let page = store
        .lists()
        .list(query.state.stream(), filter, query.from, query.size);
    let (page, count) = page.await?;
    let data: Vec<_> = page.iter().map(|one| show(one, query.state)).collect();
    let mut body = json!({ "data": data, "next": null });
    if let Some(last) = page.last().filter(|_| page.len() == query.size) {
        let offset = (last.sequence + 1).to_string();
        let arguments = form_urlencoded::Serializer::new(String::new())
            .append_pair("offset", &offset)
            .append_pair("size", &query.size.to_string())
            .append_pair("state", query.state.name())
            .finish();
        let path = uri.path().trim_end_matches('/');
        body["next"] = json!(format!("{path}?{arguments}"));
        body["offset"] = json!(offset);
    }
    Ok((body, count))
}

/// A delivery as listed: its state and reason, without its data.
pub(super) fn show(stored: &Stored, state: State) -> Value {
    let text = |name| stored.header(name).and_then(|text| decode_token(text).ok());
    let number = |name| {
        stored
            .header(name)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let event = text(header::SUBJECT).and_then(|event| subject::parse_event_subject(&event).ok());
    let (workspace, source, name) = event
        .map_or((None, None, None), |(workspace, source, name)| {
            (Some(workspace), Some(source), Some(name))
        });
    let due = stored.header(header::SCHEDULE);
    let due = due.and_then(|text| seconds(text.strip_prefix("@at ")?));
    json!({
        "id": stored.subject.rsplit('.').next(),
        "state": state.name(),
        "event_id": text(header::EVENT_ID),
        "workspace": workspace, "source": source, "event": name,
        "attempt": number(header::ATTEMPT),
        "reason": text(header::REASON),
        "due_at": due,
        "first_attempt_at": number(header::FIRST_ATTEMPT).map(|millis| millis as f64 / 1_000.0),
        "stored_at": stored_at(stored),
    })
}

pub(super) async fn page(
    store: &Store,
    stream: &str,
    filter: &str,
    from: u64,
    size: usize,
) -> Result<Vec<Stored>, store::Error> {
    store.connected().await?;
    Ok(stream_reader::page(store.lists().client(), stream, filter, from, size).await?)
}

pub(super) async fn count(store: &Store, stream: &str, filter: &str) -> Result<u64, store::Error> {
    store.connected().await?;
    store.lists().count(stream, filter).await
}

pub(super) async fn purge(store: &Store, filter: &str) -> Result<Response, ApiError> {
    let stream = store.stream(subject::DEAD_STREAM).await?;
    let purged = stream.purge().filter(filter).await;
    purged.map_err(|error| store::Error::Unavailable(Some(error.into())))?;
    Ok(response::no_content())
}

/// Whether a text is a delivery id, which is safe in a subject.
pub(super) fn is_delivery_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// In Unix seconds.
pub(super) fn stored_at(stored: &Stored) -> f64 {
    let time = stored.header(header::TIME_STAMP).and_then(seconds);
    time.unwrap_or_default()
}

fn seconds(text: &str) -> Option<f64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some((time.unix_timestamp_nanos() / 1_000_000) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        let read = |arguments| Query::read(arguments, State::Waiting);
        let query = read("state=dead&size=7&offset=12").expect("valid");
        assert_eq!((query.state, query.size, query.from), (State::Dead, 7, 12));
        for wrong in ["state=gone", "size=0", "size=x", "offset=x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_hashes_become_part_of_a_subject() {
        assert!(is_delivery_id(&"0a".repeat(16)));
        for wrong in ["", ">", "*", &"g".repeat(32), &"0".repeat(31)] {
            assert!(!is_delivery_id(wrong), "{wrong}");
        }
    }
}
