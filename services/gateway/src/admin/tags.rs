//! `GET /tags` and `/tags/{tag}`: which entities have a tag.

use axum::http::Uri;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::paging::NOT_ISSUED;
use super::{paging, response};
use crate::access::{Action, Caller};
use crate::error::ApiError;
use crate::schema::Schema;
use crate::store::{Store, Tagged};

const DEFAULT_SIZE: usize = 100;

/// What has tags in a workspace, or one of them, as far as the caller may see it.
pub(super) fn tags(
    store: &Store,
    caller: &Caller,
    workspace: &str,
    tag: Option<&str>,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let (mut size, mut after) = (DEFAULT_SIZE, None);
    let query = uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "size" => size = paging::size(&value)?,
            "offset" => {
                let place = decode(&value);
                after =
                    Some(place.ok_or_else(|| ApiError::Offset(value.into_owned(), NOT_ISSUED))?);
            }
            _ => {}
        }
    }
    let view = store.view();
    let mut page = view.tagged(workspace, tag, after.as_ref(), size + 1);
    let more = page.len() > size;
    page.truncate(size);
    let offset = page.last().filter(|_| more).map(encode);
    page.retain(|(_, kind, (_, id))| {
        let schema = Schema::by_kind(kind);
        let row = schema.and_then(|schema| Some((schema, view.get(schema, workspace, id)?)));
        row.is_some_and(|(schema, row)| {
            !caller.is_hidden(view, workspace, &row)
                && !caller.forbids_list(workspace, schema, Action::Read)
        })
    });
    let shown = page
        .into_iter()
        .map(|(tag, kind, (_, id))| json!({ "tag": tag, "entity_name": kind, "entity_id": id }));
    let mut envelope = json!({ "data": shown.collect::<Vec<_>>(), "next": Value::Null });
    if let Some(offset) = offset {
        let path = tag.map_or_else(|| "/tags".to_owned(), |tag| format!("/tags/{tag}"));
        envelope["next"] = format!("{path}?offset={offset}&size={size}").into();
        envelope["offset"] = offset.into();
    }
    Ok(response::ok(&envelope))
}

fn encode((tag, kind, (created_at, id)): &Tagged) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}/{created_at}/{id}/{tag}"))
}

fn decode(offset: &str) -> Option<Tagged> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(offset).ok()?;
    let text = String::from_utf8(text).ok()?;
    let mut parts = text.splitn(4, '/');
    let mut part = || parts.next();
    let (kind, created_at, id, tag) = (part()?, part()?, part()?, part()?);
    let kind = Schema::by_kind(kind)?.kind;
    Some((
        tag.to_owned(),
        kind,
        (created_at.parse().ok()?, id.to_owned()),
    ))
}
