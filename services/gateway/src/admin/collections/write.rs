//! How an entity is written: with references by id, secrets as they are stored, and the rights that it takes.

use std::sync::Arc;

use serde_json::{Value, json};

use hookline_shared::subject::HOOK_KIND;

use super::{Collection, MAX_TRIES, Tokens};
use crate::access::{self, Action, token};
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Scope, credentials, ingest_tokens};
use crate::store::{self, Row, Write};

impl Collection<'_> {
    /// Changes an entity, again if somebody else changes it meanwhile.
    pub(in super::super) async fn change(
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

    /// `set` is what the service itself sets.
    pub(in super::super) async fn insert(
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
    pub(in super::super) async fn forget(&self, id: &str) {
        if self.schema.kind != HOOK_KIND {
            return;
        }
        let forgotten = self.store.forget_hook(id).await;
        if let Err(error) = forgotten {
            tracing::warn!(hook = id, %error, "cannot remove what was left of a deleted hook");
        }
    }

    pub(in super::super) async fn save(
        &self,
        old: &Arc<Row>,
        entity: Entity,
    ) -> Result<Entity, ApiError> {
        let entity = self.resolve(entity).await?;
        self.write(Some(Arc::clone(old)), entity, false).await
    }

    /// With digests in the place of tokens that it did not have before.
    pub(in super::super) async fn with_digests(
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
            ingest_tokens::check_given(self.schema, given)?;
            let digest = token::digest(given, &self.store.salt()?).await;
            let digest = digest.map_err(access::Refused::from)?;
            entity.insert(field.to_owned(), digest.into());
        }
        self.hide(entity, old).await
    }

    /// With passwords and client secrets as they are stored, if they are others than before.
    pub(in super::super) async fn hide(
        &self,
        mut entity: Entity,
        old: Option<&Entity>,
    ) -> Result<Entity, ApiError> {
        if self.schema.kind == credentials::BASIC_AUTH.kind {
            credentials::hide_password(&mut entity, old);
        }
        if let Some(secret) = credentials::secret_to_hash(self.schema, &entity, old) {
            let digest = token::digest(secret, &self.store.salt()?).await;
            let digest = digest.map_err(access::Refused::from)?;
            entity.insert(credentials::CLIENT_SECRET.to_owned(), digest.into());
        }
        Ok(entity)
    }

    pub(in super::super) async fn write(
        &self,
        old: Option<Arc<Row>>,
        entity: Entity,
        id_given: bool,
    ) -> Result<Entity, ApiError> {
        if let Some(old) = &old
            && is_same(&old.entity, &entity)
        {
            return Ok(old.entity.clone());
        }
        let _room = match &old {
            None => Some(self.store.room(self.schema, &self.place.workspace).await?),
            Some(_) => None,
        };
        for of in old.iter().map(|row| &row.entity).chain([&entity]) {
            self.check_reach(of)?;
        }
        match &old {
            None => self.check_forbidden(&entity, Action::Create)?,
            Some(old) => {
                self.check_forbidden(&old.entity, Action::Update)?;
                self.check_forbidden(&entity, Action::Update)?;
            }
        }
        let write = Write {
            schema: self.schema,
            place: self.place.clone(),
            old,
            new: Some(entity.clone()),
            event: None,
            id_given,
            by: Arc::clone(&self.caller),
        };
        self.store.write(write).await?;
        Ok(entity)
    }

    /// Creates or changes an entity to what is stored of it.
    pub(in super::super) async fn write_as_is(
        &self,
        old: Option<Arc<Row>>,
        entity: Entity,
    ) -> Result<Entity, ApiError> {
        let entity = self.resolve(entity).await?;
        let id = entity.get("id").and_then(Value::as_str).unwrap_or_default();
        let _lock = self.store.lock(self.schema, id).await;
        if old.is_none() {
            self.forget(id).await;
        }
        let is_new = old.is_none();
        self.write(old, entity, is_new).await
    }

    /// Replaces references by endpoint key with references by id.
    pub(in super::super) async fn resolve(&self, mut entity: Entity) -> Result<Entity, ApiError> {
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
                return Err(store::Error::Unresolved {
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

/// Whether a change changes nothing but the time of the change.
pub(in super::super) fn is_same(old: &Entity, new: &Entity) -> bool {
    let without_time = |entity: &Entity| {
        let mut entity = entity.clone();
        entity.shift_remove("updated_at");
        entity
    };
    without_time(old) == without_time(new)
}
