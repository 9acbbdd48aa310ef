//! Messages that are no events: they belong to no hook. `GET /dead-events` lists them, `GET /dead-events/{id}` shows
//! one, `POST /dead-events/{id}/publish` publishes it again, mended or as it is, and `DELETE` removes them.

use axum::http::Uri;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use hookline_shared::event::{Event, EventId};
use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, decode_token, header};

use super::deliveries::{self, Query, State, is_delivery_id, list, one_or_all, purge};
use super::response;
use super::selection::{none, unknown};
use crate::error::ApiError;
use crate::schema::Input;
use crate::store::{self, Store};

/// `GET /dead-events`, oldest first.
pub(super) async fn dead_events(store: &Store, uri: &Uri) -> Result<Response, ApiError> {
    let query = Query::read(uri.query().unwrap_or_default(), State::Dead)?;
    let (mut body, count) = list(store, &query, subject::DEAD_EVENT_SUBJECTS, uri).await?;
    body["counts"] = json!({ "dead": count });
    Ok(response::ok(&body))
}

/// `GET /dead-events/{id}`: with its subject, and as much of its body as is kept.
pub(super) async fn dead_event(store: &Store, id: &str, uri: &Uri) -> Result<Response, ApiError> {
    none(uri.query().unwrap_or_default())?;
    let letter = letter(store, id).await?;
    let mut shown = deliveries::show(&letter, State::Dead);
    shown["subject"] = json!(text(&letter, header::SUBJECT));
    shown["size"] = json!(size(&letter));
    shown["kept"] = json!(letter.payload.len());
    match std::str::from_utf8(&letter.payload) {
        Ok(body) => shown["body"] = json!(body),
        Err(_) => shown["body_base64"] = json!(BASE64_STANDARD.encode(&letter.payload)),
    }
    Ok(response::ok(&shown))
}

/// `POST /dead-events/{id}/publish`: publishes it again, with another `subject` or other `data` if the body says so,
/// and removes it.
pub(super) async fn publish(
    store: &Store,
    id: &str,
    mut input: Input,
    uri: &Uri,
) -> Result<Response, ApiError> {
    none(uri.query().unwrap_or_default())?;
    let subject = input.values.remove("subject");
    let data = input.values.remove("data");
    if let Some(name) = input.values.keys().next() {
        return Err(unknown(name, "subject, data"));
    }
    let letter = letter(store, id).await?;
    let subject = match subject {
        None => text(&letter, header::SUBJECT).unwrap_or_default(),
        Some(Value::String(subject)) => subject,
        Some(_) => return Err(ApiError::BadRequest("subject must be a text")),
    };
    let data = match data {
        None if letter.payload.len() < size(&letter) => {
            return Err(ApiError::BadRequest(
                "only the beginning of this message is kept, see GET: say what to publish, as `data`",
            ));
        }
        None => letter.payload.clone(),
        Some(data @ Value::Object(_)) => Bytes::from(data.to_string()),
        Some(_) => return Err(ApiError::BadRequest("data must be an object")),
    };
    // The same for each try, so that one that was interrupted may be repeated.
    let event_id = given_id(&letter).unwrap_or_else(|| format!("{id}-{}", letter.sequence));
    let event_id = EventId::given(event_id);
    let event = Event::parse_with_id(&subject, None, data.clone(), event_id)
        .map_err(|why| ApiError::NoEvent(why.to_string()))?;
    if subject::is_internal_source(&event.source) {
        return Err(ApiError::BadRequest(
            "events of this source come from gateways only",
        ));
    }
    let names = (
        event.workspace.as_str(),
        event.source.as_str(),
        event.name.as_str(),
    );
    store.publish(event.id.as_str(), names, data).await?;
    let stream = store.stream(subject::DEAD_STREAM).await?;
    // If it fails, the letter stays, or was removed concurrently.
    let _ = stream.delete_message(letter.sequence).await;
    Ok(response::ok(&json!({ "published": event.id.as_str() })))
}

/// `DELETE /dead-events?all=true` or `/dead-events/{id}`.
pub(super) async fn delete(
    store: &Store,
    id: Option<&str>,
    uri: &Uri,
) -> Result<Response, ApiError> {
    one_or_all(id, uri)?;
    let filter = match id {
        Some(id) if is_delivery_id(id) => subject::dead_event_subject(id),
        Some(_) => return Err(ApiError::NotFound),
        None => subject::DEAD_EVENT_SUBJECTS.to_owned(),
    };
    purge(store, &filter).await
}

async fn letter(store: &Store, id: &str) -> Result<Stored, ApiError> {
    if !is_delivery_id(id) {
        return Err(ApiError::NotFound);
    }
    store.connected().await?;
    let (stream, subject) = (subject::DEAD_STREAM, subject::dead_event_subject(id));
    let letter = stream_reader::last(store.lists().client(), stream, &subject).await;
    letter
        .map_err(store::Error::from)?
        .ok_or(ApiError::NotFound)
}

fn text(letter: &Stored, name: &str) -> Option<String> {
    let text = decode_token(letter.header(name)?).ok()?;
    Some(text.into_owned())
}

/// The message's, of which the letter may hold only the beginning.
fn size(letter: &Stored) -> usize {
    let size = letter
        .header(header::ORIGINAL_SIZE)
        .and_then(|size| size.parse().ok());
    size.unwrap_or(letter.payload.len())
}

/// The publisher's id of the event.
fn given_id(letter: &Stored) -> Option<String> {
    letter
        .header(header::EVENT_ID_GIVEN)
        .filter(|given| *given == "1")?;
    text(letter, header::EVENT_ID).filter(|id| !id.contains(char::is_control))
}
