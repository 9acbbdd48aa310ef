//! Seals all secrets with the keyring's first key.

use std::sync::Arc;

use serde_json::{Value, json};

use hookline_shared::subject::{ALL_WORKSPACES, HOOK_KIND};
use hookline_shared::{batch, secrets};

use super::Store;
use super::error::Error;
use super::plan::rewritten;
use super::row::Row;
use crate::schema::{Entity, Schema};

/// Where a hook calls whose URL is lost: nowhere, and it is paused.
const NOWHERE: &str = "https://lost.invalid/";
const LOST: &str =
    "the key of its secrets is lost: set its url, headers and secret again, then resume it";
const MAX_TRIES: u32 = 5;

/// What became of an entity.
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
    /// All entities of all workspaces that may have secrets.
    pub(crate) async fn with_secrets(&self) -> Vec<Arc<Row>> {
        let workspaces = self.view.all(Schema::workspaces(), ALL_WORKSPACES).await;
        let names = workspaces.iter().filter_map(|workspace| workspace.name());
        let mut found = Vec::new();
        for name in names.chain([ALL_WORKSPACES]) {
            for schema in secrets::kinds().filter_map(Schema::by_kind) {
                found.extend(self.view.all(schema, name).await);
            }
        }
        found
    }

    /// Seals an entity with the first key, whose name is `key`: without an event, since nothing that is said of it changes.
    /// `drop_lost`: also one whose secrets cannot be opened, without them.
    pub(crate) async fn reseal(
        &self,
        row: Arc<Row>,
        key: &str,
        drop_lost: bool,
    ) -> Result<Resealed, Error> {
        let mut row = (*row).clone();
        for _ in 0..MAX_TRIES {
            if row.sealed_with.as_deref() == Some(key) {
                return Ok(Resealed::Already);
            }
            let mut result = Resealed::Done;
            if row.lost.is_some() {
                if !drop_lost {
                    return Ok(Resealed::Left);
                }
                drop_secrets(&mut row);
                row.as_stored = None;
                result = Resealed::Dropped;
            }
            match self.writer.commit(vec![rewritten(&row)]).await {
                Ok(_) => return Ok(result),
                Err(batch::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            // Changed meanwhile, by a node that may seal with an older key.
            match self.get_stored(row.schema, &row.workspace, &row.id).await? {
                Some(now) => row = (*now).clone(),
                None => return Ok(Resealed::Done),
            }
        }
        Err(Error::Contended)
    }
}

/// A certificate is left without its key: it cannot be used until it gets one.
fn drop_secrets(row: &mut Row) {
    match row.schema.kind {
        HOOK_KIND => drop_secrets_of_hook(&mut row.entity),
        kind => secrets::each(kind, &mut row.entity, |_, secret| secret.clear()),
    }
}

fn drop_secrets_of_hook(hook: &mut Entity) {
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
