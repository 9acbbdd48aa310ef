//! Reads from the view, and from the bucket where the view has no answer.

use std::sync::Arc;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;

use hookline_shared::event::get;
use hookline_shared::subject::{
    ALL_WORKSPACES, CLUSTER_KEY, DEFAULT_WORKSPACE, ENTITY_SUBJECTS, entity_in_any_workspace,
    entity_key, header, parse_entity_key, unique_key,
};

use super::Store;
use super::change::Place;
use super::error::Error;
use super::row::{self, Row, State};
use crate::schema::{Schema, Scope, is_uuid};

/// No longer key was ever stored.
const MAX_KEY: usize = crate::schema::MAX_UNIQUE;

/// The state of a unique key.
#[derive(Debug)]
pub(super) enum Reservation {
    /// The sequence of the key's last message, or 0.
    Free(u64),
    Held {
        id: String,
        sequence: u64,
    },
}

impl Store {
    pub(crate) async fn get(
        &self,
        schema: &'static Schema,
        workspace: &str,
        id: &str,
    ) -> Result<Option<Arc<Row>>, Error> {
        match self.view.get(schema, workspace, id) {
            Some(row) => Ok(Some(row)),
            None => self.get_stored(schema, workspace, id).await,
        }
    }

    /// Reads the bucket, not the view.
    pub(crate) async fn get_stored(
        &self,
        schema: &'static Schema,
        workspace: &str,
        id: &str,
    ) -> Result<Option<Arc<Row>>, Error> {
        match self.state(schema, workspace, id).await? {
            State::Live(row) => Ok(Some(Arc::from(row))),
            State::Absent | State::Deleted { .. } => Ok(None),
        }
    }

    pub(crate) async fn get_by_unique(
        &self,
        schema: &'static Schema,
        workspace: &str,
        field: &'static str,
        value: &str,
    ) -> Result<Option<Arc<Row>>, Error> {
        if let Some(row) = self.view.get_by_unique(schema, workspace, field, value) {
            return Ok(Some(row));
        }
        if value.len() > MAX_KEY {
            return Ok(None);
        }
        match self
            .reservation(&unique_key(
                workspace,
                schema.kind,
                field,
                &schema.in_key(field, value),
            ))
            .await?
        {
            Reservation::Free(_) => Ok(None),
            Reservation::Held { id, .. } => self.get_stored(schema, workspace, &id).await,
        }
    }

    /// By a value that no other entity of the kind has, in any workspace.
    pub(crate) async fn get_anywhere(
        &self,
        schema: &'static Schema,
        field: &'static str,
        value: &str,
    ) -> Result<Option<Arc<Row>>, Error> {
        if let Some(row) = self.view.get_anywhere(schema, field, value) {
            return Ok(Some(row));
        }
        let unique = unique_key(ALL_WORKSPACES, schema.kind, field, value);
        let Reservation::Held { id, .. } = self.reservation(&unique).await? else {
            return Ok(None);
        };
        let row = self.get_by_id(schema, &id).await?;
        let has_it = |row: &Arc<Row>| row.entity.get(field).is_some_and(|known| known == value);
        Ok(row.filter(has_it))
    }

    /// By its id alone, as the bucket has it.
    pub(crate) async fn get_by_id(
        &self,
        schema: &'static Schema,
        id: &str,
    ) -> Result<Option<Arc<Row>>, Error> {
        if !is_uuid(id) {
            return Ok(None);
        }
        let id = id.to_ascii_lowercase();
        let anywhere = entity_in_any_workspace(schema.kind, &id);
        let Some(message) = self.last_message(&anywhere).await? else {
            return Ok(None);
        };
        let Some((workspace, ..)) = parse_entity_key(&message.subject) else {
            return Ok(None);
        };
        self.get_stored(schema, &workspace, &id).await
    }

    /// Where entities of a kind belong, given the workspace in the path. `None` if there is no such
    /// workspace.
    pub(crate) async fn place(
        &self,
        schema: &Schema,
        prefix: Option<&str>,
    ) -> Result<Option<Place>, Error> {
        let parent = match prefix {
            None | Some(DEFAULT_WORKSPACE) => None,
            Some(name) => {
                let table = Schema::workspaces();
                match self
                    .get_by_unique(table, ALL_WORKSPACES, "name", name)
                    .await?
                {
                    Some(row) => Some(row.id.clone()),
                    None => return Ok(None),
                }
            }
        };
        let events = prefix.unwrap_or(DEFAULT_WORKSPACE).to_owned();
        Ok(Some(match (schema.scope, prefix) {
            (Scope::Global, _) | (Scope::WorkspaceOrAll, None) => Place {
                workspace: ALL_WORKSPACES.to_owned(),
                events,
                parent: None,
            },
            (Scope::Workspace | Scope::WorkspaceOrAll, _) => Place {
                workspace: events.clone(),
                events,
                parent,
            },
        }))
    }

    /// The sequence of the last change of any entity.
    pub(crate) async fn newest(&self) -> Result<u64, Error> {
        Ok(self
            .last_message(ENTITY_SUBJECTS)
            .await?
            .map_or(0, |message| message.sequence))
    }

    /// A setting that all dispatchers have in common, if it is known.
    pub(crate) async fn dispatchers_setting(&self, name: &str) -> Option<String> {
        let message = self.last_message(CLUSTER_KEY).await.ok()??;
        let stored: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
        Some(stored["settings"][name].as_str()?.to_owned())
    }

    /// The state of one entity's key in the bucket.
    pub(super) async fn state(
        &self,
        schema: &'static Schema,
        workspace: &str,
        id: &str,
    ) -> Result<State, Error> {
        if workspace.len() > MAX_KEY || id.len() > MAX_KEY {
            return Ok(State::Absent);
        }
        let subject = entity_key(workspace, schema.kind, id);
        let Some(message) = self.last_message(&subject).await? else {
            return Ok(State::Absent);
        };
        let headers = Some(&message.headers);
        let deleted = State::Deleted {
            sequence: message.sequence,
            write: get(headers, header::WRITE).map(str::to_owned),
        };
        if is_deleted(&message) {
            return Ok(deleted);
        }
        let parts = row::Message {
            sequence: message.sequence,
            time: message.time.unix_timestamp_nanos(),
            headers,
            body: &message.payload,
        };
        let row = Row::read(schema, workspace, id, &parts);
        Ok(row.map_or(deleted, |row| State::Live(Box::new(row))))
    }

    /// The state of a unique key in the bucket.
    pub(super) async fn reservation(&self, subject: &str) -> Result<Reservation, Error> {
        Ok(match self.last_message(subject).await? {
            None => Reservation::Free(0),
            Some(message) if is_deleted(&message) => Reservation::Free(message.sequence),
            Some(message) => Reservation::Held {
                id: String::from_utf8_lossy(&message.payload).into_owned(),
                sequence: message.sequence,
            },
        })
    }

    /// The last message that matches a subject, as the stream's leader has it.
    pub(super) async fn last_message(&self, subject: &str) -> Result<Option<StreamMessage>, Error> {
        self.connected().await?;
        match self.bucket.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::Unavailable(Some(error.into()))),
        }
    }
}

pub(super) fn is_deleted(message: &StreamMessage) -> bool {
    get(Some(&message.headers), header::KV_OPERATION).is_some()
}
