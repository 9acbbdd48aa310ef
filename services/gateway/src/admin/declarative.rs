//! All entities of a workspace as one document: `GET /config` shows it, `POST /config` makes the workspace so. The same
//! document twice changes nothing; `dry_run=true` only shows the difference.

mod difference;
mod document;

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::collections::Collection;
use super::dispatch::Asked;
use super::response;
use crate::access::Action;
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema};
use crate::store::{self, Row};
use difference::{Change, Difference, without_nulls};
use document::Document;

pub(super) use document::parse;

/// Entities of one kind that are written at the same time.
const AT_ONCE: usize = 32;
const YAML: HeaderValue = HeaderValue::from_static("application/yaml; charset=utf-8");

/// Whether a content type is YAML's.
pub(super) fn is_yaml(media_type: &str) -> bool {
    [
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
        "text/vnd.yaml",
    ]
    .contains(&media_type)
}

/// The entities of the workspace, by kind.
#[derive(Debug)]
pub(super) struct Entities<'a>(Vec<Collection<'a>>);

impl<'a> Entities<'a> {
    fn of(&self, schema: &'static Schema) -> Collection<'a> {
        let mut found = self.0.iter().filter(|one| one.schema.kind == schema.kind);
        let one = found.next().expect("a kind of documents");
        Collection::new(
            one.store,
            schema,
            one.place.clone(),
            Arc::clone(&one.caller),
        )
    }
}

impl Asked<'_> {
    pub(super) async fn config(
        &self,
        headers: &HeaderMap,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let mut entities = Entities(Vec::new());
        for schema in document::kinds() {
            entities.0.push(self.collection(schema).await?);
        }
        if self.method == "GET" {
            return self.export(headers, &entities).await;
        }
        let document = Document::read(values(input().await?)?)?;
        let difference = Difference::of(document, &entities).await?;
        for change in &difference.writes {
            let action = if change.old.is_some() {
                Action::Update
            } else {
                Action::Create
            };
            self.check(&entities.of(change.schema), change.old.as_deref(), action)?;
        }
        for row in &difference.deletes {
            self.check(&entities.of(row.schema), Some(row), Action::Delete)?;
        }
        let mut shown = difference.show();
        if argument(self.uri, "dry_run").as_deref() == Some("true") {
            return Ok(response::ok(&shown));
        }
        Apply(&entities).all(difference).await?;
        shown["message"] = "applied".into();
        Ok(response::json(StatusCode::CREATED, &shown))
    }

    /// What one role forbids, no other permits.
    fn check(
        &self,
        entities: &Collection<'_>,
        row: Option<&Row>,
        action: Action,
    ) -> Result<(), ApiError> {
        let place = &entities.place.workspace;
        let is_forbidden = self
            .caller
            .is_forbidden(place, entities.schema, row, action)
            || self
                .caller
                .is_forbidden(place, entities.schema, None, action);
        match is_forbidden {
            true => Err(ApiError::forbidden(&self.caller)),
            false => Ok(()),
        }
    }

    /// As Kong shows it, or plainly: `format=json`, and YAML by `format=yaml` or the header `Accept`.
    async fn export(
        &self,
        headers: &HeaderMap,
        entities: &Entities<'_>,
    ) -> Result<Response, ApiError> {
        let mut lists = Vec::new();
        for schema in document::kinds() {
            let here = entities.of(schema);
            let (view, place) = (here.store.view(), &here.place.workspace);
            let mut rows = view.all(schema, place).await;
            let is_open = !self.caller.is_forbidden(place, schema, None, Action::Read);
            rows.retain(|row| is_open && here.shows(row));
            // Without hooks a document says nothing of them.
            if !rows.is_empty() || schema.kind == Schema::event_hooks().kind {
                let shown = rows
                    .iter()
                    .map(|row| without_nulls(schema.response(&row.entity)));
                lists.push((schema.kind, shown.collect()));
            }
        }
        let document = document::of_lists(lists);
        let accepts = headers
            .get(header::ACCEPT)
            .and_then(|types| types.to_str().ok());
        let wants_yaml =
            accepts.is_some_and(|types| types.split([',', ';']).any(|one| is_yaml(one.trim())));
        match argument(self.uri, "format").as_deref() {
            Some("json") => Ok(response::ok(&document)),
            Some("yaml") => yaml(&document),
            None if wants_yaml => yaml(&document),
            None => Ok(response::ok(
                &json!({ "config": document::write(&document)? }),
            )),
            Some(_) => Err(ApiError::BadRequest("format must be json or yaml")),
        }
    }
}

fn yaml(document: &Value) -> Result<Response, ApiError> {
    let mut response = Response::new(Body::from(document::write(document)?));
    response.headers_mut().insert(header::CONTENT_TYPE, YAML);
    Ok(response)
}

fn argument(uri: &Uri, name: &str) -> Option<String> {
    let arguments = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut found = arguments.filter(|(known, _)| known == name);
    found.next().map(|(_, value)| value.into_owned())
}

/// A body is the document, or has it as the text `config`.
fn values(mut input: Input) -> Result<Entity, ApiError> {
    match input.values.shift_remove("config") {
        Some(Value::String(text)) => parse(&text),
        Some(Value::Object(document)) => Ok(document),
        Some(_) => Err(ApiError::Declarative(
            "config: expected a text".to_owned(),
            Value::Null,
        )),
        None => Ok(input.values),
    }
}

struct Apply<'a>(&'a Entities<'a>);

impl Apply<'_> {
    async fn all(&self, difference: Difference) -> Result<(), ApiError> {
        let Difference {
            writes,
            mut deletes,
            ..
        } = difference;
        let mut writes = writes.into_iter().peekable();
        while let Some(first) = writes.peek() {
            let kind = first.schema.kind;
            let mut of_kind = Vec::new();
            while let Some(change) = writes.next_if(|change| change.schema.kind == kind) {
                of_kind.push(change);
            }
            self.free_names(&of_kind, &mut deletes).await?;
            let written = stream::iter(of_kind).map(|change| self.write(change));
            written
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        let mut deletes = deletes.into_iter().peekable();
        while let Some(first) = deletes.peek() {
            let kind = first.schema.kind;
            let mut of_kind = Vec::new();
            while let Some(row) = deletes.next_if(|row| row.schema.kind == kind) {
                of_kind.push(row);
            }
            let deleted = stream::iter(of_kind).map(|row| self.delete(row));
            deleted
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    /// Deletes first what has a name that something else gets.
    async fn free_names(
        &self,
        changes: &[Change],
        deletes: &mut Vec<Arc<Row>>,
    ) -> Result<(), ApiError> {
        let kind = changes.first().map(|change| change.schema.kind);
        let wanted: HashSet<_> = changes
            .iter()
            .flat_map(|change| change.schema.unique_values(&change.entity))
            .map(|unique| (unique.field, unique.value))
            .collect();
        let is_wanted = |row: &Arc<Row>| {
            let values = row.schema.unique_values(&row.entity).into_iter();
            let mut values = values.map(|unique| (unique.field, unique.value));
            kind == Some(row.schema.kind) && values.any(|value| wanted.contains(&value))
        };
        let (now, later) = deletes.drain(..).partition(is_wanted);
        *deletes = later;
        for row in Vec::<Arc<Row>>::from_iter(now) {
            self.delete(row).await?;
        }
        Ok(())
    }

    async fn write(&self, change: Change) -> Result<(), ApiError> {
        let entities = self.0.of(change.schema);
        let written = entities.write_as_is(change.old, change.entity).await;
        let written = written.map(drop);
        written.map_err(|error| match error {
            ApiError::Store(store::Error::Stale) => store::Error::Contended.into(),
            error => error,
        })
    }

    async fn delete(&self, row: Arc<Row>) -> Result<(), ApiError> {
        self.0.of(row.schema).delete(&row.id).await.map(drop)
    }
}
