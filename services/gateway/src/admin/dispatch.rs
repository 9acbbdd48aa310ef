//! From a path and a method to its handler.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use serde_json::json;

use super::collections::Collection;
use super::path::Path;
use super::routes::{Route, Target};
use super::{Admin, audit, dead_events, decode, invitations, response, sources};
use crate::access::{Caller, Logins};
use crate::error::ApiError;
use crate::schema::{Input, Schema};
use crate::store::Store;

/// A request whose caller may make it, without its body.
struct Asked<'a> {
    admin: &'a Admin,
    path: &'a Path,
    caller: Arc<Caller>,
    uri: &'a Uri,
    /// `GET` also for `HEAD`.
    method: &'a str,
}

impl Admin {
    pub(super) async fn dispatch(
        &self,
        path: Path,
        caller: Arc<Caller>,
        parts: Parts,
        body: Body,
    ) -> Result<Response, ApiError> {
        let input = async || decode::input(&parts.headers, body, &self.limits).await;
        let method = match &parts.method {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let (route, method) = (path.route, method.as_str());
        if method == "OPTIONS" {
            return Ok(response::options(route.methods));
        }
        if !route.allows(method) {
            return Err(ApiError::MethodNotAllowed(route.methods));
        }
        let asked = Asked {
            admin: self,
            path: &path,
            caller,
            uri: &parts.uri,
            method,
        };
        match route.target {
            Target::Node => Ok(self.describe()),
            Target::Status => Ok(self.state()),
            Target::Endpoints => Ok(endpoints()),
            Target::AuditRequests => asked.audit().await,
            Target::Collection(schema) => asked.entities(schema, input).await,
            Target::Item(schema) => asked.entity(schema, input).await,
            Target::Children {
                parent,
                child,
                field,
            } => asked.children((parent, child, field), input).await,
            Target::DeadEvents | Target::DeadEvent | Target::PublishDeadEvent => {
                asked.dead_events(input).await
            }
            Target::Register | Target::OwnToken | Target::UserInfo => asked.own(input).await,
            Target::UserRoles(schema)
            | Target::UserPermissions(schema)
            | Target::UserWorkspaces(schema) => asked.user(schema, input).await,
            Target::RolePermissions | Target::RoleEndpoint => asked.role(input).await,
            Target::Sources
            | Target::Ping
            | Target::Test
            | Target::HookStatus
            | Target::Deliveries
            | Target::RetryNow
            | Target::Attempts
            | Target::Replay
            | Target::Dead => asked.hook(input).await,
        }
    }

    fn store(&self) -> Result<&Store, ApiError> {
        let store = self.store.get();
        store.map(AsRef::as_ref).ok_or(ApiError::Starting)
    }

    fn describe(&self) -> Response {
        response::ok(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "tagline": "hookline",
            "node_id": self.node,
            "hostname": self.node,
            "pid": std::process::id(),
        }))
    }

    fn state(&self) -> Response {
        let store = self.store.get();
        let reachable = store.is_some_and(|store| store.is_connected());
        let sequence = store.map(|store| store.view().sequence());
        response::ok(&json!({"database": {"reachable": reachable}, "view": {"sequence": sequence}}))
    }
}

/// `GET /endpoints`: every path, with `{…}` where it takes any text.
fn endpoints() -> Response {
    let mut patterns: Vec<_> = Route::all().iter().map(|route| &route.pattern).collect();
    patterns.sort_unstable();
    response::ok(&json!({ "data": patterns }))
}

impl<'a> Asked<'a> {
    /// The entities of a kind, in the workspace of the path.
    async fn collection(&self, schema: &'static Schema) -> Result<Collection<'a>, ApiError> {
        let store = self.admin.store()?;
        let place = store.place(schema, self.path.workspace.as_deref()).await?;
        let place = place.ok_or(ApiError::NotFound)?;
        Ok(Collection::new(
            store,
            schema,
            place,
            Arc::clone(&self.caller),
        ))
    }

    async fn entities(
        &self,
        schema: &'static Schema,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let entities = self.collection(schema).await?;
        if self.method == "GET" {
            return entities.list(self.uri).await;
        }
        let input = input().await?;
        if schema.kind == Schema::admins().kind {
            entities.invite(input).await
        } else if schema.kind == Schema::rbac_users().kind {
            entities.create_user(input).await
        } else {
            entities.create(input).await
        }
    }

    async fn entity(
        &self,
        schema: &'static Schema,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (entities, key) = (self.collection(schema).await?, self.path.key());
        let is_admin = schema.kind == Schema::admins().kind;
        let is_role = schema.kind == Schema::rbac_roles().kind;
        match self.method {
            "GET" if is_admin && invitations::wants_invitation(self.uri) => {
                entities.invite_again(key).await
            }
            "GET" => entities.show(key).await,
            "PATCH" => entities.patch(key, input().await?).await,
            "PUT" => entities.put(key, input().await?).await,
            _ if is_role => entities.delete_role(key).await,
            _ => entities.delete(key).await,
        }
    }

    async fn children(
        &self,
        (parent, child, field): (&'static Schema, &'static Schema, &'static str),
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let parent = self.collection(parent).await?;
        let parent = parent.find(self.path.key()).await?;
        let children = self.collection(child).await?;
        if self.method == "GET" {
            return children.list_children(self.uri, field, &parent).await;
        }
        let input = input().await?;
        if child.kind == Schema::rbac_role_endpoints().kind {
            return children.create_endpoint(&parent, input).await;
        }
        children.create_child(input, field, &parent).await
    }

    async fn audit(&self) -> Result<Response, ApiError> {
        let store = self.admin.store()?;
        audit::requests(store, self.path.place(), self.uri).await
    }

    async fn dead_events(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (store, uri, key) = (self.admin.store()?, self.uri, self.path.open(0));
        match (self.method, key) {
            ("POST", key) => {
                dead_events::publish(store, key.unwrap_or_default(), input().await?, uri).await
            }
            ("GET", None) => dead_events::dead_events(store, uri).await,
            ("GET", Some(key)) => dead_events::dead_event(store, key, uri).await,
            (_, key) => dead_events::delete(store, key, uri).await,
        }
    }

    /// What callers do for themselves.
    async fn own(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (store, caller) = (self.admin.store()?, &self.caller);
        match self.path.route.target {
            Target::Register => {
                let none = Logins::default();
                let logins = self.admin.logins.as_ref().unwrap_or(&none);
                invitations::register(store, logins, caller, input().await?).await
            }
            Target::OwnToken => invitations::replace_own_token(store, caller, input().await?).await,
            _ => invitations::user_info(store, caller).await,
        }
    }

    async fn user(
        &self,
        schema: &'static Schema,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (users, key) = (self.collection(schema).await?, self.path.key());
        match (self.path.route.target, self.method) {
            (Target::UserPermissions(_), _) => users.permissions_of(key).await,
            (Target::UserWorkspaces(_), _) => users.workspaces_of(key).await,
            (_, "POST") => users.add_roles(key, input().await?).await,
            (_, "DELETE") => users.remove_roles(key, input().await?).await,
            _ => users.roles_of(key).await,
        }
    }

    async fn role(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let (roles, key) = (
            self.collection(Schema::rbac_roles()).await?,
            self.path.key(),
        );
        match (self.path.open(1), self.path.open(2)) {
            (Some(workspace), Some(endpoint)) => {
                let keys = (key, workspace, endpoint);
                roles.endpoint(keys, self.method, input).await
            }
            _ => roles.permissions_of_role(key).await,
        }
    }

    /// What hooks have beyond other entities.
    async fn hook(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let hooks = self.collection(Schema::event_hooks()).await?;
        let (key, uri) = (self.path.key(), self.uri);
        match self.path.route.target {
            Target::Sources => sources::sources(self.path.open(0), self.path.open(1)),
            Target::Ping => hooks.ping(key).await,
            Target::Test => hooks.test(key, input().await?).await,
            Target::HookStatus => hooks.status(key, uri).await,
            Target::Deliveries => hooks.deliveries(key, uri).await,
            Target::RetryNow => hooks.retry_now(key, input().await?, uri).await,
            Target::Attempts => hooks.attempts(key, uri).await,
            Target::Replay => hooks.replay(key, input().await?, uri).await,
            Target::Dead => hooks.delete_dead(key, self.path.open(1), uri).await,
            _ => Err(ApiError::NotFound),
        }
    }
}
