//! `/consumer_groups/{group}/overrides/plugins/rate-limiting-advanced`: an older way to set the group's plugin.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::collections::{Collection, Tokens};
use super::response;
use crate::error::ApiError;
use crate::schema::{Entity, Input};
use crate::store::Row;

const PLUGIN: &str = "rate-limiting-advanced";
const GROUP: &str = "consumer_group";

impl Collection<'_> {
    pub(super) async fn set_rates(
        &self,
        group: &Row,
        mut input: Input,
    ) -> Result<Response, ApiError> {
        input.values.insert("name".to_owned(), PLUGIN.into());
        let of = json!({ "id": group.id });
        input.values.insert(GROUP.to_owned(), of);
        let plugin = match self.rates(group) {
            None => self.insert(input, Entity::new(), false).await?,
            Some(row) => {
                let update = |row: &Row| Ok(self.schema.update(&row.entity, input.clone())?);
                self.change(row, Tokens::AsGiven, update).await?
            }
        };
        let answer = json!({
            "plugin": PLUGIN,
            "config": self.schema.response(&plugin)["config"],
            GROUP: group.name(),
            "group": group.name(),
        });
        Ok(response::json(StatusCode::CREATED, &answer))
    }

    pub(super) async fn delete_rates(&self, group: &Row) -> Result<Response, ApiError> {
        match self.rates(group) {
            Some(plugin) => self.delete(&plugin.id).await,
            None => Ok(response::no_content()),
        }
    }

    fn rates(&self, group: &Row) -> Option<Arc<Row>> {
        let (view, here) = (self.store.view(), &self.place.workspace);
        let plugins = view
            .children(self.schema, here, GROUP, &group.id)
            .into_iter();
        let mut rates =
            plugins.filter(|row| row.entity.get("name").and_then(Value::as_str) == Some(PLUGIN));
        rates.next()
    }
}
