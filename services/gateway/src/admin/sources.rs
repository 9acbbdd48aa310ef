//! `GET /event-hooks/sources`, `/{source}` and `/{source}/{event}`: what hooks can listen to.

use axum::response::Response;
use serde_json::{Map, Value, json};

use hookline_shared::registry::{self, Known};

use super::response;
use crate::error::ApiError;

/// Of all sources, of one, or of one event, with an example.
pub(super) fn sources(source: Option<&str>, event: Option<&str>) -> Result<Response, ApiError> {
    let data = match (source, event) {
        (None, _) => registry::sources()
            .filter_map(|source| Some((source.to_owned(), events(source)?)))
            .collect::<Map<_, _>>()
            .into(),
        (Some(source), None) => events(source).ok_or(ApiError::NotFound)?,
        (Some(source), Some(event)) => {
            let known = registry::known(source, event).ok_or(ApiError::NotFound)?;
            let mut shown = show(known);
            shown["example"] = json!(registry::examples(source, Some(event)).pop());
            shown
        }
    };
    Ok(response::ok(&json!({ "data": data })))
}

fn events(source: &str) -> Option<Value> {
    let events = registry::events(source)?.iter();
    let shown = events.filter_map(|event| {
        let known = registry::known(source, event)?;
        Some(((*event).to_owned(), show(known)))
    });
    Some(Value::Object(shown.collect()))
}

fn show(known: &Known) -> Value {
    let mut shown = json!({ "fields": known.fields, "description": known.description });
    if !known.unique.is_empty() {
        shown["unique"] = json!(known.unique);
    }
    shown
}
