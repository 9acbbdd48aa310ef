//! Operations on entities of any kind: list, create, show, patch, put, delete.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::signature;
use hookline_shared::subject::{ALL_WORKSPACES, HOOK_KIND};

use super::hook_warnings;
use super::paging::Paging;
use super::response::{self, no_content};
use crate::access::{self, Caller, token};
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Scope, is_uuid};
use crate::store::{self, Place, Row, Store, Write};

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
        self.list_part(uri, paging).await
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
        self.list_part(uri, paging).await
    }

    async fn list_part(&self, uri: &Uri, paging: Paging) -> Result<Response, ApiError> {
        let view = self.store.view();
        let mut page = view
            .list(self.schema, &self.place.workspace, &paging.query)
            .await;
        page.rows.retain(|row| self.shows(row));
        let path = uri.path().trim_end_matches('/');
        Ok(response::ok(&paging.envelope(self.schema, path, &page)))
    }

    /// Whether a list has an entity: not what its reader may not read.
    fn shows(&self, row: &Row) -> bool {
        if self.schema.kind == Schema::workspaces().kind {
            return self.caller.reaches(row.name().unwrap_or_default());
        }
        !self
            .caller
            .is_hidden(&self.place.workspace, self.schema, row)
    }

    pub(super) async fn create(&self, input: Input) -> Result<Response, ApiError> {
        let id_given = has_id(&input);
        let entity = self.insert(input, Entity::new(), id_given).await?;
        let written = self.written(&entity).await;
        Ok(response::json(StatusCode::CREATED, &written))
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

    pub(super) async fn show(&self, key: &str) -> Result<Response, ApiError> {
        let row = self.find(key).await?;
        if !self.shows(&row) {
            return Err(ApiError::NotFound);
        }
        let mut shown = self.schema.response(&row.entity);
        self.add_public_key(&row.entity, &mut shown);
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

    pub(super) async fn patch(&self, key: &str, input: Input) -> Result<Response, ApiError> {
        let row = self.find(key).await?;
        let update = |row: &Row| Ok(self.schema.update(&row.entity, input.clone())?);
        let entity = self.change(row, Tokens::AsGiven, update).await?;
        Ok(response::ok(&self.written(&entity).await))
    }

    /// Changes an entity, anew if somebody else changes it meanwhile.
    pub(super) async fn change(
        &self,
        row: Arc<Row>,
        tokens: Tokens,
        change: impl Fn(&Row) -> Result<Entity, ApiError>,
    ) -> Result<Entity, ApiError> {
        let mut found = Some(row);
        for _ in 0..MAX_TRIES {
            let row = found.take().ok_or(ApiError::NotFound)?;
            let _lock = self.store.lock(self.schema, &row.id).await;
            let row = self.newer(row).await?.ok_or(ApiError::NotFound)?;
            let mut entity = change(&row)?;
            if tokens == Tokens::AsGiven {
                entity = self.with_digests(entity, Some(&row.entity)).await?;
            }
            match self.save(&row, entity).await {
                Err(ApiError::Store(store::Error::Stale)) => found = self.reread(&row).await?,
                result => return result,
            }
        }
        Err(store::Error::Contended.into())
    }

    /// An entity that was written; of a hook also where it hears, and a `warning`.
    async fn written(&self, entity: &Entity) -> Value {
        let mut written = self.schema.response(entity);
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
        let mut result = Err(store::Error::Contended.into());
        let mut stored = false;
        for _ in 0..MAX_TRIES {
            let found = if stored {
                self.lookup_stored(key).await?
            } else {
                self.lookup(key).await?
            };
            result = match found {
                None => self.insert(input.clone(), Entity::new(), by_id).await,
                Some(row) => {
                    let _lock = self.store.lock(self.schema, &row.id).await;
                    match self.newer(row).await? {
                        Some(row) => {
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
        Ok(response::ok(&self.written(&result?).await))
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

    async fn reread(&self, row: &Row) -> Result<Option<Arc<Row>>, ApiError> {
        Ok(self
            .store
            .get_stored(self.schema, &self.place.workspace, &row.id)
            .await?)
    }

    /// `set` is what the service itself sets.
    pub(super) async fn insert(
        &self,
        input: Input,
        set: Entity,
        id_given: bool,
    ) -> Result<Entity, ApiError> {
        let entity = self.resolve(self.schema.create(input)?).await?;
        let mut entity = self.with_digests(entity, None).await?;
        entity.extend(set);
        if id_given && let Some(id) = entity.get("id").and_then(Value::as_str) {
            self.forget(id).await;
        }
        self.write(None, entity, id_given).await
    }

    /// Removes what a deleted hook left under its id. Dispatchers keep the rest from other hooks.
    async fn forget(&self, id: &str) {
        if self.schema.kind != HOOK_KIND {
            return;
        }
        let forgotten = self.store.forget_hook(id).await;
        if let Err(error) = forgotten {
            tracing::warn!(hook = id, %error, "cannot remove what was left of a deleted hook");
        }
    }

    async fn save(&self, old: &Arc<Row>, entity: Entity) -> Result<Entity, ApiError> {
        let entity = self.resolve(entity).await?;
        self.write(Some(Arc::clone(old)), entity, false).await
    }

    /// With digests in the place of tokens that it did not have before.
    async fn with_digests(
        &self,
        mut entity: Entity,
        old: Option<&Entity>,
    ) -> Result<Entity, ApiError> {
        for field in self.schema.hashed_fields() {
            let Some(Value::String(given)) = entity.get(field) else {
                continue;
            };
            if old.and_then(|old| old.get(field)).and_then(Value::as_str) == Some(given) {
                continue;
            }
            let digest = token::digest(given, &self.store.salt()?).await;
            let digest = digest.map_err(access::Refused::from)?;
            entity.insert(field.to_owned(), digest.into());
        }
        Ok(entity)
    }

    /// Nobody gives or takes rights in a workspace in which they might not do it.
    fn check_reach(&self, entity: &Entity) -> Result<(), ApiError> {
        if !self.schema.gives_rights() {
            return Ok(());
        }
        let (view, here) = (self.store.view(), &self.place.workspace);
        let reach = access::reach(view, self.schema, here, entity);
        for workspace in reach.iter().filter(|workspace| *workspace != here) {
            if !self.caller.may_in(workspace) {
                return Err(ApiError::forbidden(&self.caller));
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        old: Option<Arc<Row>>,
        entity: Entity,
        id_given: bool,
    ) -> Result<Entity, ApiError> {
        let _room = match &old {
            None => Some(self.store.room(self.schema, &self.place.workspace).await?),
            Some(_) => None,
        };
        for of in old.iter().map(|row| &row.entity).chain([&entity]) {
            self.check_reach(of)?;
        }
        let write = Write {
            schema: self.schema,
            place: self.place.clone(),
            old,
            new: Some(entity.clone()),
            id_given,
            by: Arc::clone(&self.caller),
        };
        self.store.write(write).await?;
        Ok(entity)
    }

    /// Replaces references by endpoint key with references by id.
    async fn resolve(&self, mut entity: Entity) -> Result<Entity, ApiError> {
        for reference in self.schema.references() {
            let Some(value) = entity.get(reference.field) else {
                continue;
            };
            if let Some(id) = value.get("id").and_then(Value::as_str) {
                let id = json!({"id": id.to_ascii_lowercase()});
                entity.insert(reference.field.to_owned(), id);
                continue;
            }
            let Some(schema) = Schema::by_kind(reference.kind) else {
                continue;
            };
            debug_assert_eq!(
                schema.scope,
                Scope::Workspace,
                "parents live beside their children"
            );
            let Some(key) = schema.endpoint_key else {
                continue;
            };
            let name = value.get(key).and_then(Value::as_str).unwrap_or_default();
            let workspace = &self.place.workspace;
            let parent = self
                .store
                .get_by_unique(schema, workspace, key, name)
                .await?;
            let Some(parent) = parent else {
                let (field, kind, value) = (reference.field, reference.kind, name.to_owned());
                return Err(store::Error::MissingParent {
                    field,
                    kind,
                    key,
                    value,
                }
                .into());
            };
            entity.insert(reference.field.to_owned(), json!({"id": parent.id}));
        }
        Ok(entity)
    }
}

pub(super) fn has_id(input: &Input) -> bool {
    let id = input.values.get("id");
    id.is_some_and(|id| !id.is_null() && id != "")
}
