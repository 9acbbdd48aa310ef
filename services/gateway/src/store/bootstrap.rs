//! Creates the workspace `default`.

use serde_json::json;

use hookline_shared::batch;
use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE, entity_key, unique_key};

use super::Store;
use super::error::Error;
use super::plan::{encode, reservation};
use super::read::Reservation;
use crate::schema::{Input, Schema};

impl Store {
    /// Creates the workspace `default` if it is missing, without an event. Nodes may race: the unique
    /// name lets one win, and retrying is safe.
    pub(crate) async fn ensure_default_workspace(&self) -> Result<(), Error> {
        let schema = Schema::workspaces();
        let unique = unique_key(ALL_WORKSPACES, schema.kind, "name", DEFAULT_WORKSPACE);
        let Reservation::Free(sequence) = self.reservation(&unique).await? else {
            return Ok(());
        };
        let values = serde_json::Map::from_iter([("name".to_owned(), json!(DEFAULT_WORKSPACE))]);
        let entity = schema
            .create(Input {
                values,
                form: false,
            })
            .unwrap_or_default();
        let id = entity
            .get("id")
            .and_then(|id| id.as_str())
            .unwrap_or_default();
        let messages = vec![
            batch::Message::new(entity_key(ALL_WORKSPACES, schema.kind, id), encode(&entity))
                .expect_last(0),
            reservation(&unique, id).expect_last(sequence),
        ];
        match self.writer.commit(messages).await {
            Ok(_) | Err(batch::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
