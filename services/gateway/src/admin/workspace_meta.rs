//! `/workspaces/{workspace}/meta`: how many entities of each kind there are.

use axum::response::Response;
use serde_json::json;

use super::collections::Collection;
use super::response;
use crate::error::ApiError;

impl Collection<'_> {
    /// How many entities of each kind a workspace has.
    pub(super) async fn meta(&self, key: &str) -> Result<Response, ApiError> {
        let workspace = self.find(key).await?;
        if !self.shows(&workspace) {
            return Err(ApiError::NotFound);
        }
        let counts = self
            .store
            .view()
            .counts_by_kind(workspace.name().unwrap_or_default());
        Ok(response::ok(&json!({ "counts": counts })))
    }
}
