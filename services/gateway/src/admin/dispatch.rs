//! From a path and a method to its handler.

mod nested;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use serde_json::json;

use super::collections::Collection;
use super::path::Path;
use super::routes::{Route, Target};
use super::{
    Admin, audit, dead_events, decode, invitations, openapi, response, schemas, sources, tags,
};
use crate::access::{Caller, Logins};
use crate::error::ApiError;
use crate::schema::{Input, Schema, plugins};
use crate::store::Store;

/// A request whose caller may make it, without its body.
pub(super) struct Asked<'a> {
    admin: &'a Admin,
    path: &'a Path,
    pub(super) caller: Arc<Caller>,
    pub(super) uri: &'a Uri,
    /// `GET` also for `HEAD`.
    pub(super) method: &'a str,
}

impl Admin {
    pub(super) async fn dispatch(
        &self,
        path: Path,
        caller: Arc<Caller>,
        parts: Parts,
        body: Body,
    ) -> Result<Response, ApiError> {
        let is_config = matches!(path.route.target, Target::Config);
        let input = async || decode::input(&parts.headers, body, &self.limits, is_config).await;
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
            Target::Node
            | Target::Status
            | Target::Endpoints
            | Target::OpenApi
            | Target::OpenApiPage
            | Target::Schema
            | Target::SchemaOfPlugin
            | Target::EnabledPlugins
            | Target::ValidateSchema
            | Target::Tags => asked.about(input).await,
            Target::Config => asked.config(&parts.headers, input).await,
            Target::AuditRequests => asked.audit().await,
            Target::Collection(schema) => asked.entities(schema, input).await,
            Target::Item(schema) => asked.entity(schema, input).await,
            Target::Children(link) => asked.children(link, input).await,
            Target::Child(link) => asked.child(link, input).await,
            Target::Parent(link) => asked.parent(link, input).await,
            Target::Members(of) => asked.members(of, input).await,
            Target::Member(of) => asked.member(of).await,
            Target::GroupRates => asked.group_rates(input).await,
            Target::Health => asked.health().await,
            Target::MarkHealth(mark) => asked.mark(None, mark).await,
            Target::MarkAddress(mark) => asked.mark(path.open(2), mark).await,
            Target::PartialLinks => asked.links().await,
            Target::WorkspaceMeta => {
                asked
                    .collection(Schema::workspaces())
                    .await?
                    .meta(path.key())
                    .await
            }
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
}

/// `GET /endpoints`: every path, with `{…}` where it takes any text.
fn endpoints() -> Response {
    let mut patterns: Vec<_> = Route::all().iter().map(|route| &route.pattern).collect();
    patterns.sort_unstable();
    response::ok(&json!({ "data": patterns }))
}

impl<'a> Asked<'a> {
    pub(super) fn path_place(&self) -> &str {
        self.path.place()
    }

    /// The entities of a kind, in the workspace of the path.
    pub(super) async fn collection(
        &self,
        schema: &'static Schema,
    ) -> Result<Collection<'a>, ApiError> {
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

    /// What a node says of itself, and of its API.
    async fn about(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let admin = self.admin;
        match self.path.route.target {
            Target::Schema => Ok(schemas::of_kind(self.path.key())),
            Target::SchemaOfPlugin => Ok(schemas::of_plugin(self.path.key())),
            Target::EnabledPlugins => {
                let names: Vec<_> = plugins::names().collect();
                Ok(response::ok(&json!({ "enabled_plugins": names })))
            }
            Target::ValidateSchema => {
                let kind = self.path.open(0).unwrap_or("plugins").to_owned();
                schemas::validate(&kind, input().await?)
            }
            Target::Tags => {
                let (place, tag) = (self.path.place(), self.path.open(0));
                tags::tags(admin.store()?, &self.caller, place, tag, self.uri)
            }
            Target::Status => Ok(admin.state()),
            Target::Endpoints => Ok(endpoints()),
            Target::OpenApi => {
                let version = admin.about.kong_version();
                let document = openapi::document(version, admin.logins.is_some());
                Ok(response::ok(&document))
            }
            Target::OpenApiPage => Ok(openapi::show_page()),
            _ => Ok(admin.describe(admin.store.get().map(AsRef::as_ref))),
        }
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
            "GET" if schema.kind == Schema::consumer_groups().kind => {
                entities.show_group(key, self.uri).await
            }
            "GET" => entities.show(key).await,
            "PATCH" => entities.patch(key, input().await?).await,
            "PUT" => entities.put(key, input().await?).await,
            _ if is_role => entities.delete_role(key).await,
            _ => entities.delete(key).await,
        }
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
