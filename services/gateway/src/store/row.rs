//! One entity as stored in the bucket, with what its message's headers say.

use async_nats::HeaderMap;
use bytes::Bytes;

use hookline_shared::event::get;
use hookline_shared::keyring::{self, MissingKey};
use hookline_shared::subject::{entity_key, header};

use crate::schema::{Entity, Schema};

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub schema: &'static Schema,
    pub workspace: String,
    pub id: String,
    /// Without nulls.
    pub entity: Entity,
    pub sequence: u64,
    /// Sequence and time of the entity's first message, as in the header.
    pub(super) created: String,
    /// Time of its deletion mark, in Unix milliseconds.
    pub(super) deleting: Option<u64>,
    /// Its children are being deleted with it.
    pub(super) cascading: bool,
    /// Id of the write that stored the message.
    pub(super) write: Option<String>,
    /// The key that its secrets are sealed with, if they are.
    pub(crate) sealed_with: Option<String>,
    /// Why they cannot be opened; they are redacted then.
    pub(crate) lost: Option<MissingKey>,
    /// As stored, if they cannot be opened: what this node does to it must not lose them.
    pub(super) as_stored: Option<Bytes>,
}

/// The state of an entity's key.
#[derive(Debug)]
pub(super) enum State {
    /// The bucket has no message for the key.
    Absent,
    Deleted {
        sequence: u64,
        write: Option<String>,
    },
    Live(Box<Row>),
}

/// The common parts of messages from the watch and from single reads.
pub(super) struct Message<'a> {
    pub(super) sequence: u64,
    pub(super) time: i128,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) body: &'a [u8],
}

impl Row {
    /// What comes with a workspace.
    pub(super) fn built_in(
        schema: &'static Schema,
        workspace: &str,
        id: String,
        entity: Entity,
    ) -> Self {
        Self {
            schema,
            workspace: workspace.to_owned(),
            id,
            entity,
            sequence: 0,
            created: "0 0".to_owned(),
            deleting: None,
            cascading: false,
            write: None,
            sealed_with: None,
            lost: None,
            as_stored: None,
        }
    }

    pub(super) fn subject(&self) -> String {
        entity_key(&self.workspace, self.schema.kind, &self.id)
    }

    /// `None` if the body is not an entity.
    pub(super) fn read(
        schema: &'static Schema,
        workspace: &str,
        id: &str,
        message: &Message<'_>,
    ) -> Option<Self> {
        let mut entity: Entity = serde_json::from_slice(message.body).ok()?;
        let (sealed_with, lost) = match keyring::open(schema.kind, &mut entity) {
            Ok(key) => (key, None),
            Err(missing) => (None, Some(missing)),
        };
        let created = get(message.headers, header::CREATED);
        let first = || format!("{} {}", message.sequence, message.time);
        Some(Self {
            schema,
            workspace: workspace.to_owned(),
            id: id.to_owned(),
            entity,
            sequence: message.sequence,
            created: created.map_or_else(first, str::to_owned),
            deleting: get(message.headers, header::DELETING).and_then(|ms| ms.parse().ok()),
            cascading: get(message.headers, header::CASCADES).is_some(),
            write: get(message.headers, header::WRITE).map(str::to_owned),
            sealed_with,
            as_stored: lost.is_some().then(|| Bytes::copy_from_slice(message.body)),
            lost,
        })
    }

    /// What can stand in the place of its id.
    pub(crate) fn name(&self) -> Option<&str> {
        self.entity.get(self.schema.endpoint_key?)?.as_str()
    }

    /// Whether the bucket does not have it: it comes with its workspace.
    pub(crate) fn is_built_in(&self) -> bool {
        self.sequence == 0
    }

    /// Sequence of the entity's first message: one made again under the id of a deleted one has another.
    pub(crate) fn incarnation(&self) -> &str {
        self.created.split(' ').next().unwrap_or_default()
    }

    /// In Unix seconds; orders lists.
    pub(super) fn created_at(&self) -> i64 {
        let created_at = self.entity.get("created_at");
        created_at
            .and_then(serde_json::Value::as_i64)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &HeaderMap) -> Row {
        let schema = Schema::by_kind("consumers").expect("a kind");
        let message = Message {
            sequence: 7,
            time: 99,
            headers: Some(headers),
            body: br#"{"created_at":5}"#,
        };
        Row::read(schema, "default", "i", &message).expect("a row")
    }

    #[test]
    fn the_first_message_is_remembered_over_updates() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers).created, "7 99");
        headers.insert(header::CREATED, "3 42");
        assert_eq!(read(&headers).created, "3 42");
    }

    #[test]
    fn a_body_that_is_not_an_entity_is_skipped() {
        let schema = Schema::by_kind("consumers").expect("a kind");
        let message = Message {
            sequence: 7,
            time: 99,
            headers: None,
            body: b"[]",
        };
        assert!(Row::read(schema, "default", "i", &message).is_none());
    }
}
