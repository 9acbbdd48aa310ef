//! One entity as it stands in the bucket: its fields, and what its message tells beside them.

use async_nats::HeaderMap;

use hookline_shared::event::get;
use hookline_shared::subject::{entity_key, header};

use crate::schema::{Entity, Schema};

/// An entity and its message.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its kind.
    pub schema: &'static Schema,
    /// The workspace it is kept under.
    pub workspace: String,
    /// Its id.
    pub id: String,
    /// Its fields, without nulls.
    pub entity: Entity,
    /// Sequence of the message.
    pub sequence: u64,
    /// Sequence and time of the entity's first message, as the header has them.
    pub(super) created: String,
    /// Since when (Unix milliseconds) it is being deleted.
    pub(super) deleting: Option<u64>,
    /// The write that made the message.
    pub(super) write: Option<String>,
}

/// What the last message of an entity's key says.
#[derive(Debug)]
pub(super) enum State {
    /// There never was one, as far as the bucket knows.
    Absent,
    /// It was deleted.
    Deleted {
        /// Sequence of the delete marker.
        sequence: u64,
        /// The write that made it.
        write: Option<String>,
    },
    /// It is there.
    Live(Box<Row>),
}

/// What is common to messages of the watch and of single reads.
pub(super) struct Message<'a> {
    pub(super) sequence: u64,
    pub(super) time: i128,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) body: &'a [u8],
}

impl Row {
    /// The key's subject.
    pub(super) fn subject(&self) -> String {
        entity_key(&self.workspace, self.schema.kind, &self.id)
    }

    /// Reads an entity's message. `None`: its body is no entity.
    pub(super) fn read(
        schema: &'static Schema,
        workspace: &str,
        id: &str,
        message: &Message<'_>,
    ) -> Option<Self> {
        let entity = serde_json::from_slice(message.body).ok()?;
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
            write: get(message.headers, header::WRITE).map(str::to_owned),
        })
    }

    /// When it was made, for ordering.
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
    fn a_body_that_is_no_entity_is_no_row() {
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
