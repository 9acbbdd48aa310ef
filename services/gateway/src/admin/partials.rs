//! `/partials/{partial}/links`: the plugins that a partial is part of.

use axum::http::Uri;
use axum::response::Response;
use serde_json::json;

use super::collections::Collection;
use super::paging::Paging;
use super::response;
use crate::error::ApiError;
use crate::store::Row;

impl Collection<'_> {
    /// The plugins that a partial is part of.
    pub(super) async fn links(&self, uri: &Uri, partial: &Row) -> Result<Response, ApiError> {
        let mut paging = Paging::read(self.schema, uri.query().unwrap_or_default())?;
        paging.query.parent = Some(("partials", partial.id.clone()));
        let view = self.store.view();
        let mut page = view
            .list(self.schema, &self.place.workspace, &paging.query)
            .await;
        page.rows.retain(|row| self.shows(row));
        let show = |row: &Row| {
            let part = |name: &str| row.entity.get(name).cloned().unwrap_or_default();
            json!({ "id": row.id, "name": part("name"), "instance_name": part("instance_name") })
        };
        let path = format!("/partials/{}/links", partial.id);
        Ok(response::ok(&paging.envelope(show, &path, &page)))
    }
}
