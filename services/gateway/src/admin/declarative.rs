//! All entities of a workspace as one document: `GET /config` shows it, `POST /config` makes the workspace so. The same
//! document twice changes nothing; `dry_run=true` only shows the difference.

mod difference;
mod document;
mod matching;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use futures::{Stream, StreamExt as _, stream};
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

/// Comparisons, while others change what is compared.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
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
        if argument(self.uri, "dry_run").as_deref() == Some("true") {
            let difference = self.difference(&document, &entities).await?;
            return Ok(response::ok(&difference.show()));
        }
        let store = entities.of(Schema::consumers()).store;
        let _turn = store.turn(self.path_place()).await;
        for tried in 1.. {
            let difference = self.difference(&document, &entities).await?;
            let mut shown = difference.show();
            match Apply(&entities).all(difference).await {
                Err(error) if is_lost_race(&error) && tried < TRIES => {
                    tokio::time::sleep(PAUSE * tried).await;
                }
                applied => {
                    applied?;
                    shown["message"] = "applied".into();
                    return Ok(response::json(StatusCode::CREATED, &shown));
                }
            }
        }
        Err(store::Error::Contended.into())
    }

    /// What a document changes, if the caller may do all of it.
    async fn difference(
        &self,
        document: &Document,
        entities: &Entities<'_>,
    ) -> Result<Difference, ApiError> {
        let difference = Difference::of(document, entities).await?;
        for change in &difference.writes {
            let here = entities.of(change.schema);
            if let Some(old) = &change.old {
                self.check(&here, &old.entity, Action::Update)?;
            }
            let action = match &change.old {
                Some(_) => Action::Update,
                None => Action::Create,
            };
            self.check(&here, &change.entity, action)?;
        }
        for row in &difference.deletes {
            self.check(&entities.of(row.schema), &row.entity, Action::Delete)?;
        }
        Ok(difference)
    }

    /// Whoever may do it by a request of its own may do it here.
    fn check(
        &self,
        entities: &Collection<'_>,
        entity: &Entity,
        action: Action,
    ) -> Result<(), ApiError> {
        match entities.may(entity, action) {
            true => Ok(()),
            false => Err(ApiError::forbidden(&self.caller)),
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
            let is_open = here.check_list(Action::Read).is_ok();
            rows.retain(|row| is_open && here.may(&row.entity, Action::Read));
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

/// Whether somebody else changed meanwhile what was compared.
fn is_lost_race(error: &ApiError) -> bool {
    use store::Error as Store;
    matches!(
        error,
        ApiError::Store(
            Store::Contended
                | Store::Unique { .. }
                | Store::Together { .. }
                | Store::PrimaryKey { .. }
                | Store::MissingParent { .. }
        )
    )
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
            writes, deletes, ..
        } = difference;
        let mut writes = writes.into_iter().peekable();
        while let Some(first) = writes.peek() {
            let kind = first.schema.kind;
            let mut of_kind = Vec::new();
            while let Some(change) = writes.next_if(|change| change.schema.kind == kind) {
                of_kind.push(change);
            }
            let written = stream::iter(of_kind).map(|change| self.write(change));
            all(written).await?;
        }
        let mut deletes = deletes.into_iter().peekable();
        while let Some(first) = deletes.peek() {
            let kind = first.schema.kind;
            let mut of_kind = Vec::new();
            while let Some(row) = deletes.next_if(|row| row.schema.kind == kind) {
                of_kind.push(row);
            }
            let deleted = stream::iter(of_kind).map(|row| self.delete(row));
            all(deleted).await?;
        }
        Ok(())
    }

    async fn write(&self, change: Change) -> Result<(), ApiError> {
        let entities = self.0.of(change.schema);
        let written = entities.write_as_is(change.old, change.entity).await;
        let written = written.map(drop);
        written.map_err(|error| match error {
            ApiError::Store(store::Error::Stale | store::Error::BeingDeleted) => {
                store::Error::Contended.into()
            }
            error => error,
        })
    }

    async fn delete(&self, row: Arc<Row>) -> Result<(), ApiError> {
        self.0.of(row.schema).delete(&row.id).await.map(drop)
    }
}

/// Waits for all, since what was begun is done, and then says what failed.
async fn all(
    writes: impl Stream<Item = impl Future<Output = Result<(), ApiError>>>,
) -> Result<(), ApiError> {
    let mut writes = pin!(writes.buffer_unordered(AT_ONCE));
    let mut result = Ok(());
    while let Some(written) = writes.next().await {
        result = result.and(written);
    }
    result
}
