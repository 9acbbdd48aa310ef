//! Roles of users and admins, endpoints of roles, and what comes of both.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::subject::ALL_WORKSPACES;

use super::collections::{Collection, Tokens, has_id};
use super::response;
use crate::access::{self, Permissions, TOKEN, role_of, token};
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Violations, derived_id};
use crate::store::{Place, Row, Store};

/// The field of a user that has the roles.
pub(super) const ROLES: &str = "roles";

impl Collection<'_> {
    /// `POST /rbac/users`. Without a token one is generated, and shown this once.
    pub(super) async fn create_user(&self, input: Input) -> Result<Response, ApiError> {
        let is_given = |value: &Value| !value.is_null() && value != "";
        if input.values.get(TOKEN).is_some_and(is_given) {
            return self.create(input).await;
        }
        let token = token::generate();
        let digest = token::digest_of_generated(&token, &self.store.salt()?);
        let set = Entity::from_iter([(TOKEN.to_owned(), json!(digest))]);
        let id_given = has_id(&input);
        let entity = self.insert(input, set, id_given).await?;
        let mut shown = self.schema.response(&entity);
        shown[TOKEN] = json!(token);
        Ok(response::json(StatusCode::CREATED, &shown))
    }

    /// `GET /rbac/users/{user}/roles` and `/admins/{admin}/roles`.
    pub(super) async fn roles_of(&self, key: &str) -> Result<Response, ApiError> {
        let user = self.find_user(key).await?;
        Ok(response::ok(&self.show_roles(&user.entity).await?))
    }

    /// `POST` of `roles=a,b`: roles of the workspace of the path, by name or id.
    pub(super) async fn add_roles(&self, key: &str, input: Input) -> Result<Response, ApiError> {
        let added = self.named_roles(&input).await?;
        let changed = self.change_roles(key, |roles| {
            for role in &added {
                if !roles.contains(role) {
                    roles.push(role.clone());
                }
            }
        });
        let shown = self.show_roles(&changed.await?).await?;
        Ok(response::json(StatusCode::CREATED, &shown))
    }

    /// `DELETE` of `roles=a,b`.
    pub(super) async fn remove_roles(&self, key: &str, input: Input) -> Result<Response, ApiError> {
        let removed = self.named_roles(&input).await?;
        self.change_roles(key, |roles| roles.retain(|role| !removed.contains(role)))
            .await?;
        Ok(response::no_content())
    }

    /// `GET /rbac/users/{user}/permissions`.
    pub(super) async fn permissions_of(&self, key: &str) -> Result<Response, ApiError> {
        let user = self.find_user(key).await?;
        let roles = access::roles(&user.entity);
        let permissions = Permissions::of(self.store.view(), &roles);
        Ok(response::ok(&permissions.show()))
    }

    /// `GET /rbac/roles/{role}/permissions`.
    pub(super) async fn permissions_of_role(&self, key: &str) -> Result<Response, ApiError> {
        let role = self.find(key).await?;
        let of = [(role.workspace.clone(), role.id.clone())];
        Ok(response::ok(
            &Permissions::of(self.store.view(), &of).show(),
        ))
    }

    /// `GET /admins/{admin}/workspaces`: those in which the admin may do something.
    pub(super) async fn workspaces_of(&self, key: &str) -> Result<Response, ApiError> {
        let user = self.find_user(key).await?;
        let roles = access::roles(&user.entity);
        let permissions = Permissions::of(self.store.view(), &roles);
        Ok(response::ok(&workspaces(self.store, &permissions).await))
    }

    /// A user of this workspace, or by id one of another whom the caller may change there as well.
    async fn find_user(&self, key: &str) -> Result<Arc<Row>, ApiError> {
        if let Ok(user) = self.find(key).await {
            return Ok(user);
        }
        let elsewhere = self.store.get_by_id(self.schema, key).await?;
        let elsewhere = elsewhere.filter(|user| self.caller.may_in(&user.workspace));
        elsewhere.ok_or(ApiError::NotFound)
    }

    async fn show_roles(&self, user: &Entity) -> Result<Value, ApiError> {
        let schema = Schema::rbac_roles();
        let mut shown = Vec::new();
        for (workspace, id) in access::roles(user) {
            if let Some(role) = self.store.get(schema, &workspace, &id).await? {
                let mut role = schema.response(&role.entity);
                role["workspace"] = json!(workspace);
                shown.push(role);
            }
        }
        Ok(json!({ "roles": shown, whose(self.schema): self.schema.response(user) }))
    }

    /// As users have them.
    async fn named_roles(&self, input: &Input) -> Result<Vec<String>, ApiError> {
        let names: Vec<&str> = match input.values.get(ROLES) {
            Some(Value::String(names)) => names.split(',').map(str::trim).collect(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if names.is_empty() {
            return Err(Violations::of(ROLES, "required field missing").into());
        }
        let roles = Collection::new(
            self.store,
            Schema::rbac_roles(),
            self.place.clone(),
            Arc::clone(&self.caller),
        );
        let mut found = Vec::new();
        for name in names {
            let role = roles.find(name).await;
            let role = role.map_err(|_| {
                Violations::of(
                    ROLES,
                    format!("there is no role '{name}' in this workspace"),
                )
            })?;
            found.push(role_of(&role));
        }
        Ok(found)
    }

    async fn change_roles(
        &self,
        key: &str,
        change: impl Fn(&mut Vec<String>),
    ) -> Result<Entity, ApiError> {
        let user = self.find_user(key).await?;
        let of = self.beside(&user).await?;
        let changed = of.change(user, Tokens::Digests, |user| {
            let mut entity = user.entity.clone();
            let roles = entity.get(ROLES).and_then(Value::as_array);
            let roles = roles.into_iter().flatten().filter_map(Value::as_str);
            let mut roles = roles.map(str::to_owned).collect();
            change(&mut roles);
            entity.insert(ROLES.to_owned(), json!(roles));
            Ok(entity)
        });
        changed.await
    }

    /// The users of a user's own workspace.
    async fn beside(&self, user: &Row) -> Result<Collection<'_>, ApiError> {
        let place = if user.workspace == self.place.workspace {
            self.place.clone()
        } else {
            let place = self.store.place(self.schema, Some(&user.workspace)).await?;
            place.ok_or(ApiError::NotFound)?
        };
        Ok(Collection::new(
            self.store,
            self.schema,
            place,
            Arc::clone(&self.caller),
        ))
    }

    /// `DELETE /rbac/roles/{role}`, with its endpoints. Those that forbid go last, so that an interrupted deletion
    /// leaves no one with more rights.
    pub(super) async fn delete_role(&self, key: &str) -> Result<Response, ApiError> {
        let Ok(role) = self.find(key).await else {
            return Ok(response::no_content());
        };
        let endpoints = self.endpoints();
        let children = |forbids: bool| {
            let all =
                self.store
                    .view()
                    .children(endpoints.schema, &role.workspace, "role", &role.id);
            all.into_iter()
                .filter(move |row| (row.entity.get("negative") == Some(&json!(true))) == forbids)
        };
        for endpoint in children(false).chain(children(true)) {
            endpoints.delete(&endpoint.id).await?;
        }
        self.delete(key).await
    }

    /// Endpoints of this workspace's roles.
    fn endpoints(&self) -> Collection<'_> {
        let schema = Schema::rbac_role_endpoints();
        Collection::new(
            self.store,
            schema,
            self.place.clone(),
            Arc::clone(&self.caller),
        )
    }

    /// `POST /rbac/roles/{role}/endpoints`.
    pub(super) async fn create_endpoint(
        &self,
        role: &Row,
        mut input: Input,
    ) -> Result<Response, ApiError> {
        let values = &mut input.values;
        let default = json!(self.place.workspace);
        let workspace = values.entry("workspace").or_insert(default).clone();
        if let Some(Value::String(endpoint)) = values.get_mut("endpoint")
            && endpoint.len() > 1
        {
            let trimmed = endpoint.trim_end_matches('/').len();
            endpoint.truncate(trimmed.max(1));
        }
        let endpoint = values.get("endpoint").and_then(Value::as_str);
        let id = endpoint_id(
            &role.id,
            workspace.as_str().unwrap_or_default(),
            endpoint.unwrap_or_default(),
        );
        values.insert("id".to_owned(), json!(id));
        self.create_child(input, "role", role).await
    }

    /// `GET`, `PATCH` and `DELETE /rbac/roles/{role}/endpoints/{workspace}/{endpoint}`.
    pub(super) async fn endpoint(
        &self,
        keys: (&str, &str, &str),
        method: &str,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (role, workspace, path) = keys;
        let role = self.find(role).await?;
        let endpoints = self.endpoints();
        let with_slash = format!("/{path}");
        let mut id = endpoint_id(&role.id, workspace, &with_slash);
        if path == ALL_WORKSPACES {
            id = endpoint_id(&role.id, workspace, path);
        }
        // Built-in ones have other ids.
        let of_role =
            self.store
                .view()
                .children(endpoints.schema, &role.workspace, "role", &role.id);
        let is_it = |row: &&Arc<Row>| {
            let text = |name: &str| row.entity.get(name).and_then(Value::as_str);
            text("workspace") == Some(workspace)
                && text("endpoint").is_some_and(|known| known == path || known == with_slash)
        };
        if let Some(known) = of_role.iter().find(is_it) {
            id.clone_from(&known.id);
        }
        match method {
            "PATCH" => endpoints.patch(&id, input().await?).await,
            "DELETE" => endpoints.delete(&id).await,
            _ => endpoints.show(&id).await,
        }
    }
}

/// A role has one endpoint for a path of a workspace.
fn endpoint_id(role: &str, workspace: &str, endpoint: &str) -> String {
    derived_id(&[role, workspace, endpoint])
}

/// The workspaces that permissions reach, as a list of entities.
pub(super) async fn workspaces(store: &Store, permissions: &Permissions) -> Value {
    let schema = Schema::workspaces();
    let all = store.view().all(schema, ALL_WORKSPACES).await;
    let is_reached = |row: &&Arc<Row>| permissions.reaches(row.name().unwrap_or_default());
    let reached = all.iter().filter(is_reached);
    let data: Vec<_> = reached.map(|row| schema.response(&row.entity)).collect();
    json!({ "data": data, "next": null })
}

/// The field of an answer that has the user.
pub(super) fn whose(schema: &Schema) -> &'static str {
    if schema.kind == Schema::admins().kind {
        "admin"
    } else {
        "user"
    }
}

/// Where users of a workspace are, for those who need no path.
pub(super) fn place_of(row: &Row) -> Place {
    Place {
        workspace: row.workspace.clone(),
        events: row.workspace.clone(),
        parent: None,
    }
}
