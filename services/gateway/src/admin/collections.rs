//! Operations on entities of any kind: list, create, show, patch, put, delete.

mod rights;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::signature;
use hookline_shared::subject::{ALL_WORKSPACES, CERTIFICATE_KIND, HOOK_KIND};

use super::paging::Paging;
use super::response::{self, no_content};
use super::{hook_warnings, snis};
use crate::access::{Action, Caller};
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, credentials, ingest_tokens, is_uuid};
use crate::store::{self, Place, Row, Store};

pub(super) use write::is_same;

/// Tries of one change while others change the same entity.
const MAX_TRIES: u32 = 10;

/// How a changed entity has its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    AsGiven,
    Digests,
}

/// The entities of one kind in one workspace.
#[derive(Debug)]
pub(super) struct Collection<'a> {
    pub(super) store: &'a Store,
    pub(super) schema: &'static Schema,
    pub(super) place: Place,
    pub(super) caller: Arc<Caller>,
}

impl<'a> Collection<'a> {
    pub(super) fn new(
        store: &'a Store,
        schema: &'static Schema,
        place: Place,
        caller: Arc<Caller>,
    ) -> Self {
        Self {
            store,
            schema,
            place,
            caller,
        }
    }

    pub(super) async fn list(&self, uri: &Uri) -> Result<Response, ApiError> {
        let paging = Paging::read(self.schema, uri.query().unwrap_or_default())?;
        self.list_part(&format!("/{}", self.schema.path), paging)
            .await
    }

    /// Entities that refer to `parent` by `field`.
    pub(super) async fn list_children(
        &self,
        uri: &Uri,
        field: &'static str,
        parent: &Row,
    ) -> Result<Response, ApiError> {
        let mut paging = Paging::read(self.schema, uri.query().unwrap_or_default())?;
        paging.query.parent = Some((field, parent.id.clone()));
        let path = format!(
            "/{}/{}/{}",
            parent.schema.path,
            parent.id,
            self.schema.path_within()
        );
        self.list_part(&path, paging).await
    }

    /// `path`: of the list, without a workspace, which clients put before it themselves.
    async fn list_part(&self, path: &str, paging: Paging) -> Result<Response, ApiError> {
        let view = self.store.view();
        let mut page = view
            .list(self.schema, &self.place.workspace, &paging.query)
            .await;
        page.rows.retain(|row| self.shows(row));
        let show = |row: &Row| {
            let mut shown = self.schema.response(&row.entity);
            self.add_snis(&row.entity, &mut shown);
            shown
        };
        Ok(response::ok(&paging.envelope(show, path, &page)))
    }

    /// Whether a list has an entity: not what its reader may not read.
    pub(super) fn shows(&self, row: &Row) -> bool {
        if self.schema.kind == Schema::workspaces().kind {
            return self.caller.reaches(row.name().unwrap_or_default());
        }
        let view = self.store.view();
        !self.caller.is_hidden(view, &self.place.workspace, row)
    }

    pub(super) async fn create(&self, mut input: Input) -> Result<Response, ApiError> {
        let names = self.take_snis(&mut input, None).await?;
        credentials::make_secret(self.schema, &Entity::new(), &mut input);
        ingest_tokens::make_token(self.schema, &mut input);
        let (id_given, sent) = (has_id(&input), input.values.clone());
        let entity = self.insert(input, Entity::new(), id_given).await?;
        self.name_certificate(&entity, names).await?;
        let written = self.written(&entity, &sent).await;
        Ok(response::json(StatusCode::CREATED, &written))
    }

    /// The names of a certificate that a request has, if they can be its.
    async fn take_snis(
        &self,
        input: &mut Input,
        certificate: Option<&str>,
    ) -> Result<Option<BTreeSet<String>>, ApiError> {
        if self.schema.kind != CERTIFICATE_KIND {
            return Ok(None);
        }
        let names = snis::take(input)?;
        if let Some(names) = &names {
            self.check_snis(certificate, names).await?;
        }
        Ok(names)
    }

    async fn name_certificate(
        &self,
        certificate: &Entity,
        names: Option<BTreeSet<String>>,
    ) -> Result<(), ApiError> {
        let id = certificate.get("id").and_then(Value::as_str);
        match (names, id) {
            (Some(names), Some(id)) => self.set_snis(id, &names).await,
            _ => Ok(()),
        }
    }

    /// Creates an entity that refers to `parent` by `field`.
    pub(super) async fn create_child(
        &self,
        mut input: Input,
        field: &'static str,
        parent: &Row,
    ) -> Result<Response, ApiError> {
        input
            .values
            .insert(field.to_owned(), json!({"id": parent.id}));
        self.create(input).await
    }

    /// The entity with this id or name that refers to `parent` by `field`.
    pub(super) async fn find_child(
        &self,
        field: &'static str,
        parent: &Row,
        key: &str,
    ) -> Result<Arc<Row>, ApiError> {
        let found = match self.lookup(key).await? {
            None => self.by_second_name(field, parent, key),
            found => found,
        };
        let is_its = |row: &Arc<Row>| {
            let of = row.entity.get(field).and_then(|of| of.get("id"));
            of.and_then(Value::as_str) == Some(&parent.id)
        };
        found.filter(is_its).ok_or(ApiError::NotFound)
    }

    /// A name that is unique beneath one parent only, such as a target's address or a consumer's group.
    fn by_second_name(&self, field: &'static str, parent: &Row, key: &str) -> Option<Arc<Row>> {
        let mut names = self.schema.unique_together.iter();
        let name = *names.find(|name| **name != field)?;
        if self.schema.endpoint_key.is_some() {
            return None;
        }
        let view = self.store.view();
        let children = view.children(self.schema, &self.place.workspace, field, &parent.id);
        let is_it = |row: &Arc<Row>| row.entity.get(name).and_then(Value::as_str) == Some(key);
        children.into_iter().find(is_it)
    }

    pub(super) async fn show(&self, key: &str) -> Result<Response, ApiError> {
        let row = self.find(key).await?;
        if !self.shows(&row) {
            return Err(ApiError::NotFound);
        }
        let mut shown = self.schema.response(&row.entity);
        self.add_public_key(&row.entity, &mut shown);
        self.add_snis(&row.entity, &mut shown);
        Ok(response::ok(&shown))
    }

    /// What verifies a hook's signatures, if everybody may know it.
    fn add_public_key(&self, entity: &Entity, shown: &mut Value) {
        let config = entity
            .get("config")
            .filter(|_| self.schema.kind == HOOK_KIND);
        let secret = config.and_then(|config| config.get("secret")?.as_str());
        if let Some(key) = secret.and_then(signature::public_key) {
            shown["public_key"] = key.into();
        }
    }

    pub(super) async fn patch(&self, key: &str, mut input: Input) -> Result<Response, ApiError> {
        let row = self.find(key).await?;
        let names = self.take_snis(&mut input, Some(&row.id)).await?;
        if input.values.contains_key(credentials::CLIENT_SECRET) {
            credentials::make_secret(self.schema, &row.entity, &mut input);
        }
        if input.values.contains_key(ingest_tokens::TOKEN) {
            // An empty one asks for another.
            ingest_tokens::make_token(self.schema, &mut input);
        }
        let update = |row: &Row| Ok(self.schema.update(&row.entity, input.clone())?);
        let entity = self.change(row, Tokens::AsGiven, update).await?;
        self.name_certificate(&entity, names).await?;
        Ok(response::ok(&self.written(&entity, &input.values).await))
    }

    /// An entity that was written; of a hook also where it hears, and a `warning`.
    async fn written(&self, entity: &Entity, sent: &Entity) -> Value {
        let mut written = self.schema.response(entity);
        self.add_snis(entity, &mut written);
        if self.schema.kind == CERTIFICATE_KIND {
            // Whoever sent a key knows it, and clients compare it with the answer.
            for name in ["key", "key_alt"] {
                if let Some(sent) = sent.get(name) {
                    written[name] = sent.clone();
                }
            }
        }
        if credentials::is_hashed(self.schema, entity)
            && let Some(sent) = sent
                .get(credentials::CLIENT_SECRET)
                .filter(|sent| sent.is_string())
        {
            // It is shown this once.
            written[credentials::CLIENT_SECRET] = sent.clone();
        }
        if self.schema.kind == Schema::ingest_tokens().kind
            && let Some(sent) = sent
                .get(ingest_tokens::TOKEN)
                .filter(|sent| sent.is_string())
        {
            // It is shown this once.
            written[ingest_tokens::TOKEN] = sent.clone();
        }
        if self.schema.kind == HOOK_KIND {
            written["hears"] = match self.place.workspace.as_str() {
                ALL_WORKSPACES => "all workspaces".into(),
                workspace => format!("workspace {workspace}").into(),
            };
            self.add_public_key(entity, &mut written);
            if let Some(warning) = hook_warnings::of(self.store, entity).await {
                written["warning"] = warning.into();
            }
        }
        written
    }

    /// Replaces an entity, or creates it.
    pub(super) async fn put(&self, key: &str, mut input: Input) -> Result<Response, ApiError> {
        let by_id = is_uuid(key);
        match self.schema.endpoint_key {
            _ if by_id => input
                .values
                .insert("id".to_owned(), json!(key.to_ascii_lowercase())),
            Some(field) => input.values.insert(field.to_owned(), json!(key)),
            None => return Err(ApiError::NotFound),
        };
        credentials::make_secret(self.schema, &Entity::new(), &mut input);
        let of = key.to_ascii_lowercase();
        let names = self.take_snis(&mut input, Some(&of)).await?;
        let mut result = Err(store::Error::Contended.into());
        let (mut stored, mut sent) = (false, Entity::new());
        for _ in 0..MAX_TRIES {
            let found = if stored {
                self.lookup_stored(key).await?
            } else {
                self.lookup(key).await?
            };
            result = match found {
                None => {
                    let mut new = input.clone();
                    ingest_tokens::make_token(self.schema, &mut new);
                    sent.clone_from(&new.values);
                    self.insert(new, Entity::new(), by_id).await
                }
                Some(row) => {
                    let _lock = self.store.lock(self.schema, &row.id).await;
                    match self.newer(row).await? {
                        Some(row) => {
                            sent.clone_from(&input.values);
                            let entity = self.schema.replace(&row.entity, input.clone())?;
                            let entity = self.with_digests(entity, Some(&row.entity)).await?;
                            self.save(&row, entity).await
                        }
                        None => Err(store::Error::Stale.into()),
                    }
                }
            };
            stored = true;
            // Created, changed or deleted concurrently, between the lookup and the write.
            let lost_race = match &result {
                Err(ApiError::Store(store::Error::Stale | store::Error::PrimaryKey { .. })) => true,
                Err(ApiError::Store(store::Error::Unique { field, .. })) => {
                    !by_id && Some(*field) == self.schema.endpoint_key
                }
                _ => false,
            };
            if !lost_race {
                break;
            }
        }
        let entity = result?;
        self.name_certificate(&entity, names).await?;
        Ok(response::ok(&self.written(&entity, &sent).await))
    }

    /// Deletes an entity. 204 also if there is none, as in Kong's generic endpoint.
    pub(super) async fn delete(&self, key: &str) -> Result<Response, ApiError> {
        let mut found = self.lookup(key).await?;
        for _ in 0..MAX_TRIES {
            let Some(row) = found else {
                return Ok(no_content());
            };
            let _lock = self.store.lock(self.schema, &row.id).await;
            let Some(row) = self.newer(row).await? else {
                return Ok(no_content());
            };
            self.check_reach(&row.entity)?;
            self.check_forbidden(&row.entity, Action::Delete)?;
            match self
                .store
                .delete(
                    self.place.clone(),
                    Arc::clone(&row),
                    Arc::clone(&self.caller),
                )
                .await
            {
                Err(store::Error::Stale) => found = self.reread(&row).await?,
                result => {
                    result?;
                    self.forget(&row.id).await;
                    return Ok(no_content());
                }
            }
        }
        Err(store::Error::Contended.into())
    }

    /// The entity with this id or endpoint key.
    pub(super) async fn find(&self, key: &str) -> Result<Arc<Row>, ApiError> {
        self.lookup(key).await?.ok_or(ApiError::NotFound)
    }

    async fn lookup(&self, key: &str) -> Result<Option<Arc<Row>>, ApiError> {
        let (schema, workspace) = (self.schema, self.place.workspace.as_str());
        Ok(match schema.endpoint_key {
            _ if is_uuid(key) => {
                self.store
                    .get(schema, workspace, &key.to_ascii_lowercase())
                    .await?
            }
            Some(field) => {
                self.store
                    .get_by_unique(schema, workspace, field, key)
                    .await?
            }
            None => None,
        })
    }

    /// As [`lookup`](Self::lookup), but reads the bucket.
    async fn lookup_stored(&self, key: &str) -> Result<Option<Arc<Row>>, ApiError> {
        let (schema, workspace) = (self.schema, self.place.workspace.as_str());
        Ok(match self.lookup(key).await? {
            Some(row) => self.store.get_stored(schema, workspace, &row.id).await?,
            None => None,
        })
    }

    /// The current state of a row after waiting for its lock.
    async fn newer(&self, row: Arc<Row>) -> Result<Option<Arc<Row>>, ApiError> {
        match self
            .store
            .view()
            .get(self.schema, &self.place.workspace, &row.id)
        {
            Some(known) if known.sequence > row.sequence => Ok(Some(known)),
            Some(_) => Ok(Some(row)),
            // Deleted meanwhile, or just created on another node.
            None => self.reread(&row).await,
        }
    }

    pub(super) async fn reread(&self, row: &Row) -> Result<Option<Arc<Row>>, ApiError> {
        Ok(self
            .store
            .get_stored(self.schema, &self.place.workspace, &row.id)
            .await?)
    }
}

pub(super) fn has_id(input: &Input) -> bool {
    let id = input.values.get("id");
    id.is_some_and(|id| !id.is_null() && id != "")
}
