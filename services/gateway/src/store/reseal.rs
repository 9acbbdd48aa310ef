//! Seals the secrets of all hooks with the keyring's first key.

use std::sync::Arc;

use serde_json::{Value, json};

use hookline_shared::batch;
use hookline_shared::subject::ALL_WORKSPACES;

use super::Store;
use super::error::Error;
use super::plan::unmarked;
use super::row::Row;
use super::view::Query;
use crate::schema::{Entity, Schema};

/// Where a hook calls whose URL is lost: nowhere, and it is paused.
const NOWHERE: &str = "https://lost.invalid/";
const LOST: &str =
    "the key of its secrets is lost: set its url, headers and secret again, then resume it";
const MAX_TRIES: u32 = 5;

/// What became of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resealed {
    Done,
    /// Its secrets could not be opened, and were dropped.
    Dropped,
    /// They could not be opened, and stay as they are.
    Left,
}

impl Store {
    /// All hooks of all workspaces.
    pub(crate) async fn hooks(&self) -> Vec<Arc<Row>> {
        let all = || Query {
            size: usize::MAX - 1,
            ..Query::default()
        };
        let workspaces = self
            .view
            .list(Schema::workspaces(), ALL_WORKSPACES, &all())
            .await;
        let names = workspaces.rows.iter().filter_map(|row| {
            let name = row.entity.get("name").and_then(Value::as_str);
            name.map(str::to_owned)
        });
        let mut hooks = Vec::new();
        for workspace in names.chain([ALL_WORKSPACES.to_owned()]) {
            let (schema, query) = (Schema::event_hooks(), all());
            let page = self.view.list(schema, &workspace, &query).await;
            hooks.extend(page.rows);
        }
        hooks
    }

    /// Stores a hook anew, without an event, since nothing that is said of it changes. `drop_lost`: also one whose
    /// secrets cannot be opened, without them.
    pub(crate) async fn reseal(&self, hook: Arc<Row>, drop_lost: bool) -> Result<Resealed, Error> {
        let mut hook = (*hook).clone();
        for _ in 0..MAX_TRIES {
            let mut result = Resealed::Done;
            if hook.lost.is_some() {
                if !drop_lost {
                    return Ok(Resealed::Left);
                }
                drop_secrets(&mut hook.entity);
                result = Resealed::Dropped;
            }
            match self.writer.commit(vec![unmarked(&hook)]).await {
                Ok(_) => return Ok(result),
                Err(batch::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            // Changed meanwhile, and so sealed by whoever did it; with an older key if its node does not know better.
            match self
                .get_stored(hook.schema, &hook.workspace, &hook.id)
                .await?
            {
                Some(now) => hook = (*now).clone(),
                None => return Ok(Resealed::Done),
            }
        }
        Err(Error::Contended)
    }
}

fn drop_secrets(hook: &mut Entity) {
    if let Some(Value::Object(config)) = hook.get_mut("config") {
        config.shift_remove("secret");
        if config.contains_key("headers") {
            config.insert("headers".to_owned(), json!({}));
        }
        if config.contains_key("url") {
            config.insert("url".to_owned(), json!(NOWHERE));
        }
    }
    let delivery = hook.entry("delivery").or_insert_with(|| json!({}));
    if delivery.is_null() {
        *delivery = json!({});
    }
    delivery["paused"] = json!(true);
    delivery["paused_reason"] = json!(LOST);
}
