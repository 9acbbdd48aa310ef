//! Creates what the first start of a cluster needs: the workspace `default`, and the first super-admin.

use std::time::Duration;

use serde_json::json;

use hookline_shared::batch;
use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE, entity_key, unique_key};

use super::Store;
use super::error::Error;
use super::plan::{encode, reservation};
use super::read::Reservation;
use crate::access::{APPROVED, TOKEN, role_of, token};
use crate::schema::{Entity, Input, Schema};

/// Kong's name for it.
const FIRST_ADMIN: &str = "kong_admin";
/// A password with fewer characters is worth a warning.
const WEAK: usize = 16;
const HOW_TO_REPLACE: &str = "for example by PATCH /admins/self/token";
/// How long what was created may take to appear in the view.
const VIEW_WAIT: Duration = Duration::from_secs(2);

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
        let keys = [(unique, sequence)];
        self.commit_first(schema, ALL_WORKSPACES, &entity, &keys)
            .await?;
        Ok(())
    }

    /// Creates the first super-admin, without an event. Nodes may race here too.
    pub(crate) async fn make_first_admin(&self, password: &str) -> Result<(), Error> {
        let schema = Schema::admins();
        let unique = unique_key(DEFAULT_WORKSPACE, schema.kind, "username", FIRST_ADMIN);
        let Reservation::Free(sequence) = self.reservation(&unique).await? else {
            return Ok(());
        };
        if password.len() < WEAK {
            tracing::warn!("the password of {FIRST_ADMIN} is short: replace it, {HOW_TO_REPLACE}");
        }
        let digest = token::digest(password, &self.salt()?).await;
        let digest = digest.map_err(|_| Error::Unavailable(None))?;
        let role = self.view.get_by_unique(
            Schema::rbac_roles(),
            DEFAULT_WORKSPACE,
            "name",
            "super-admin",
        );
        let role = role.ok_or(Error::Unavailable(None))?;
        let values = json!({ "username": FIRST_ADMIN, "status": APPROVED });
        let values = values.as_object().cloned().unwrap_or_default();
        let mut entity = schema
            .create(Input {
                values,
                form: false,
            })
            .unwrap_or_default();
        entity.insert(TOKEN.to_owned(), json!(digest));
        entity.insert("roles".to_owned(), json!([role_of(&role)]));
        let of_token = unique_key(ALL_WORKSPACES, schema.kind, TOKEN, &digest);
        let Reservation::Free(last) = self.reservation(&of_token).await? else {
            return Ok(());
        };
        let keys = [(unique, sequence), (of_token, last)];
        let is_first = self
            .commit_first(schema, DEFAULT_WORKSPACE, &entity, &keys)
            .await?;
        if is_first {
            tracing::info!(username = FIRST_ADMIN, "made the first super-admin");
        }
        Ok(())
    }

    /// Whether no other node was faster. Keys were last written at these sequences.
    async fn commit_first(
        &self,
        schema: &Schema,
        workspace: &str,
        entity: &Entity,
        keys: &[(String, u64)],
    ) -> Result<bool, Error> {
        let id = entity.get("id").and_then(|id| id.as_str());
        let id = id.unwrap_or_default();
        let key = entity_key(workspace, schema.kind, id);
        let mut messages = vec![batch::Message::new(key, encode(schema, entity)).expect_last(0)];
        for (key, last) in keys {
            messages.push(reservation(key, id).expect_last(*last));
        }
        match self.writer.commit(messages).await {
            Ok(committed) => {
                self.view
                    .wait_for(committed.first_sequence, VIEW_WAIT)
                    .await;
                Ok(true)
            }
            Err(batch::Error::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
