//! Seals the secrets of all hooks with the keyring's first key.

use std::sync::Arc;

use serde_json::{Value, json};

use hookline_shared::batch;
use hookline_shared::subject::ALL_WORKSPACES;

use super::Store;
use super::error::Error;
use super::plan::unmarked;
use super::row::Row;
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
    /// It is sealed with that key.
    Already,
    /// Its secrets could not be opened, and were dropped.
    Dropped,
    /// They could not be opened, and stay as they are.
    Left,
}

impl Store {
    /// All hooks of all workspaces.
    pub(crate) async fn hooks(&self) -> Vec<Arc<Row>> {
        let (schema, workspaces) = (Schema::event_hooks(), Schema::workspaces());
        let mut hooks = self.view.all(schema, ALL_WORKSPACES).await;
        for workspace in self.view.all(workspaces, ALL_WORKSPACES).await {
            let name = workspace.name().unwrap_or_default();
            hooks.extend(self.view.all(schema, name).await);
        }
        hooks
    }

    /// Seals a hook with the first key, whose name is `key`: without an event, since nothing that is said of it changes. `drop_lost`: also one whose
    /// secrets cannot be opened, without them.
    pub(crate) async fn reseal(
        &self,
        hook: Arc<Row>,
        key: &str,
        drop_lost: bool,
    ) -> Result<Resealed, Error> {
        let mut hook = (*hook).clone();
        for _ in 0..MAX_TRIES {
            if hook.sealed_with.as_deref() == Some(key) {
                return Ok(Resealed::Already);
            }
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
            // Changed meanwhile, by a node that may seal with an older key.
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
