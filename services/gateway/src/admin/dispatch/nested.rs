//! What is reached by way of another entity.

use axum::response::Response;
use serde_json::json;

use super::super::members::Members;
use super::super::response;
use super::super::routes::Link;
use super::Asked;
use crate::access::Action;
use crate::error::ApiError;
use crate::schema::{Input, Schema};

impl Asked<'_> {
    pub(super) async fn children(
        &self,
        link: Link,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let parent = self.collection(link.parent).await?;
        let parent = parent.find(self.path.key()).await?;
        let (children, field) = (self.collection(link.child).await?, link.field);
        if self.method == "GET" {
            children.check_list(Action::Read)?;
            return children.list_children(self.uri, field, &parent).await;
        }
        children.check_list(Action::Create)?;
        let input = input().await?;
        if link.child.kind == Schema::rbac_role_endpoints().kind {
            return children.create_endpoint(&parent, input).await;
        }
        children.create_child(input, field, &parent).await
    }

    pub(super) async fn child(
        &self,
        link: Link,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let parent = self.collection(link.parent).await?;
        let parent = parent.find(self.path.key()).await?;
        let (children, field) = (self.collection(link.child).await?, link.field);
        let key = self.path.open(1).unwrap_or_default();
        if self.method == "PUT" {
            let mut input = input().await?;
            let of = json!({ "id": parent.id });
            input.values.insert(field.to_owned(), of);
            return match children.find_child(field, &parent, key).await {
                Ok(row) => children.put(&row.id, input).await,
                Err(ApiError::NotFound) => children.put(key, input).await,
                Err(error) => Err(error),
            };
        }
        let row = match children.find_child(field, &parent, key).await {
            // As in Kong's generic endpoint.
            Err(ApiError::NotFound) if self.method == "DELETE" => {
                return Ok(response::no_content());
            }
            row => row?,
        };
        match self.method {
            "GET" => {
                children.check_forbidden(&row.entity, Action::Read)?;
                children.show(&row.id).await
            }
            "PATCH" => children.patch(&row.id, input().await?).await,
            _ => children.delete(&row.id).await,
        }
    }

    pub(super) async fn members(
        &self,
        of: &'static Schema,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let members = Members::new(self.collection(of).await?, self.path.key()).await?;
        match self.method {
            "GET" => members.list(self.uri).await,
            "POST" => members.add(input().await?).await,
            _ => members.remove_all().await,
        }
    }

    pub(super) async fn member(&self, of: &'static Schema) -> Result<Response, ApiError> {
        let members = Members::new(self.collection(of).await?, self.path.key()).await?;
        let key = self.path.open(1).unwrap_or_default();
        match self.method {
            "GET" => members.show(key).await,
            _ => members.remove(key).await,
        }
    }

    pub(super) async fn group_rates(
        &self,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let groups = self.collection(Schema::consumer_groups()).await?;
        let group = groups.find(self.path.key()).await?;
        let plugins = self.collection(Schema::plugins()).await?;
        match self.method {
            "PUT" => plugins.set_rates(&group, input().await?).await,
            _ => plugins.delete_rates(&group).await,
        }
    }

    pub(super) async fn health(&self) -> Result<Response, ApiError> {
        let upstreams = self.collection(Schema::upstreams()).await?;
        let upstream = upstreams.find(self.path.key()).await?;
        let targets = self.collection(Schema::targets()).await?;
        targets
            .health(&upstream, self.admin.about.id(), self.uri)
            .await
    }

    /// The plugins that a partial is part of.
    pub(super) async fn links(&self) -> Result<Response, ApiError> {
        let partials = self.collection(Schema::partials()).await?;
        let partial = partials.find(self.path.key()).await?;
        let plugins = self.collection(Schema::plugins()).await?;
        plugins.links(self.uri, &partial).await
    }

    pub(super) async fn mark(
        &self,
        address: Option<&str>,
        mark: &str,
    ) -> Result<Response, ApiError> {
        let upstreams = self.collection(Schema::upstreams()).await?;
        let upstream = upstreams.find(self.path.key()).await?;
        let targets = self.collection(Schema::targets()).await?;
        let target = self.path.open(1).unwrap_or_default();
        targets.mark(&upstream, target, address, mark).await
    }

    /// What an entity refers to.
    pub(super) async fn parent(
        &self,
        link: Link,
        input: impl AsyncFnOnce() -> Result<Input, ApiError>,
    ) -> Result<Response, ApiError> {
        let children = self.collection(link.child).await?;
        let row = children.find(self.path.key()).await?;
        let of = row.entity.get(link.field);
        let id = of.and_then(|of| of.get("id")?.as_str());
        let id = id.ok_or(ApiError::NotFound)?;
        let parents = self.collection(link.parent).await?;
        match self.method {
            "GET" => {
                let row = parents.find(id).await?;
                parents.check_forbidden(&row.entity, Action::Read)?;
                parents.show(id).await
            }
            "PATCH" => parents.patch(id, input().await?).await,
            "DELETE" => parents.delete(id).await,
            _ => parents.put(id, input().await?).await,
        }
    }
}
