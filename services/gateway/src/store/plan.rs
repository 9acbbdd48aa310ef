//! The messages of one change. They are computed once; only the sequences that they expect differ
//! between tries.

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use hookline_shared::batch::Message;
use hookline_shared::keyring;
use hookline_shared::subject::{
    ALL_WORKSPACES, GUARDS_KEY, HOOK_KIND, HOOKS_REVISION, PING_EVENT, PING_SOURCE, entity_key,
    header, home, is_followed_by_dispatchers, unique_key,
};

use hookline_shared::trace::Sent;

use super::audit;
use super::change::{Origin, Write};
use super::error::Error;
use super::row::Row;
use crate::access;
use crate::schema::{Entity, Schema, UniqueValue, Within, is_pinged, present};

/// A batch has at most 1,000 messages.
const MAX_PARENTS: usize = 500;
/// Header value of a delete marker.
const DELETE: &str = "DEL";

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) schema: &'static Schema,
    pub(super) workspace: String,
    pub(super) id: String,
    /// Id of this write, in a header of the entity's message.
    pub(super) write: String,
    pub(super) is_create: bool,
    /// Whether the client chose the id.
    pub(super) id_given: bool,
    pub(super) takes: Vec<Take>,
    /// Entities that must not be deleted meanwhile.
    pub(super) parents: Vec<Parent>,
    entity: Message,
    releases: Vec<String>,
    revision: bool,
    outbox: Vec<Message>,
    /// Until the plan is dropped, its events are being sent.
    pub(super) sent: Vec<Sent>,
}

/// A unique value that the entity takes.
#[derive(Debug)]
pub(super) struct Take {
    pub(super) unique: UniqueValue,
    pub(super) subject: String,
}

#[derive(Debug)]
pub(super) struct Parent {
    pub(super) field: &'static str,
    pub(super) schema: &'static Schema,
    pub(super) workspace: String,
    pub(super) id: String,
}

/// How a parent is held: by expecting its sequence, or by rewriting it without its abandoned mark.
#[derive(Debug)]
pub(super) enum Hold {
    Guard { subject: String, sequence: u64 },
    Rewrite(Box<Row>),
}

/// The sequences that one try expects.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) entity: u64,
    pub(super) takes: Vec<u64>,
    pub(super) claim: u64,
    pub(super) holds: Vec<Hold>,
}

impl Plan {
    pub(super) fn new(write: &Write, origin: &Origin, max_event: usize) -> Result<Self, Error> {
        let Write {
            schema,
            place,
            old,
            new,
            ..
        } = write;
        let (schema, workspace) = (*schema, place.workspace.clone());
        let shown = new.as_ref().or(old.as_ref().map(|row| &row.entity));
        let id = shown
            .and_then(|entity| entity.get("id")?.as_str())
            .unwrap_or_default()
            .to_owned();
        let write_id = Uuid::new_v4().to_string();
        let subject = entity_key(&workspace, schema.kind, &id);
        let mut entity = match new {
            Some(new) => Message::new(subject, encode(schema, new)),
            None => delete_marker(subject),
        }
        .header(header::WRITE, &write_id);
        if let Some(old) = old {
            entity = entity.header(header::CREATED, &old.created);
        }
        let (outbox, sent) = outbox(write, &id, origin);
        if outbox.iter().any(|message| message.size() > max_event) || entity.size() > max_event {
            return Err(Error::TooLarge);
        }
        let (takes, releases) = unique_changes(write, &id);
        let parents = new_parents(write);
        if parents.len() > MAX_PARENTS {
            return Err(Error::TooManyReferences(MAX_PARENTS));
        }
        Ok(Self {
            schema,
            id,
            write: write_id,
            is_create: old.is_none(),
            id_given: write.id_given,
            takes,
            parents,
            entity,
            releases,
            revision: is_followed_by_dispatchers(schema.kind),
            outbox,
            sent,
            workspace,
        })
    }

    /// The batch: the entity first, its events last.
    pub(super) fn messages(&self, expected: &Expected) -> Vec<Message> {
        let mut messages = vec![self.entity.clone().expect_last(expected.entity)];
        for (take, sequence) in self.takes.iter().zip(&expected.takes) {
            messages.push(reservation(&take.subject, &self.id).expect_last(*sequence));
        }
        messages.extend(self.releases.iter().cloned().map(delete_marker));
        if self.id_given {
            messages.push(reservation(&self.claim(), &self.id).expect_last(expected.claim));
        }
        if self.revision {
            messages.push(Message::new(HOOKS_REVISION, self.id.clone()).repeatable());
        }
        let mut guards = Vec::new();
        for hold in &expected.holds {
            match hold {
                Hold::Guard { subject, sequence } => guards.push((subject, *sequence)),
                Hold::Rewrite(row) => messages.push(unmarked(row)),
            }
        }
        // A message has one guard at most, and the events come last.
        let others = guards.split_off(guards.len().min(self.outbox.len()));
        for (subject, sequence) in others {
            let guard = Message::new(GUARDS_KEY, "").repeatable();
            messages.push(guard.guard(subject, sequence));
        }
        let mut guards = guards.into_iter();
        messages.extend(
            self.outbox
                .iter()
                .cloned()
                .map(|message| match guards.next() {
                    Some((subject, sequence)) => message.guard(subject, sequence),
                    None => message,
                }),
        );
        messages
    }

    /// The key that claims a client's id across workspaces. It is never released: the id is in use
    /// only while its entity exists.
    pub(super) fn claim(&self) -> String {
        unique_key(ALL_WORKSPACES, self.schema.kind, "id", &self.id)
    }
}

/// Rewrites an entity without its deletion mark.
pub(super) fn unmarked(row: &Row) -> Message {
    let body = row.as_stored.clone();
    let body = body.unwrap_or_else(|| encode(row.schema, &row.entity));
    Message::new(row.subject(), body)
        .header(header::CREATED, &row.created)
        .expect_last(row.sequence)
}

/// Rewrites an entity, with its deletion mark if it has one.
pub(super) fn rewritten(row: &Row) -> Message {
    let mut message = unmarked(row);
    if let Some(since) = row.deleting {
        message = message.header(header::DELETING, since.to_string());
    }
    if row.cascading {
        message = message.header(header::CASCADES, "1");
    }
    message
}

pub(super) fn reservation(subject: &str, id: &str) -> Message {
    Message::new(subject, id.to_owned())
}

/// As the bucket has it: with secrets sealed.
pub(super) fn encode(schema: &Schema, entity: &Entity) -> Bytes {
    let mut entity = entity.clone();
    keyring::seal(schema.kind, &mut entity);
    Value::Object(entity).to_string().into()
}

fn delete_marker(subject: String) -> Message {
    Message::new(subject, "").header(header::KV_OPERATION, DELETE)
}

fn unique_changes(write: &Write, id: &str) -> (Vec<Take>, Vec<String>) {
    let values = |entity: Option<&Entity>| {
        entity
            .map(|entity| write.schema.unique_values(entity))
            .unwrap_or_default()
    };
    let before = values(write.old.as_ref().map(|row| &row.entity));
    let after = values(write.new.as_ref());
    debug_assert!(!id.is_empty(), "an entity has an id");
    let key = |unique: &UniqueValue| {
        let workspace = match unique.within {
            Within::Workspace => &write.place.workspace,
            Within::All => ALL_WORKSPACES,
        };
        let value = write.schema.in_key(unique.field, &unique.value);
        unique_key(workspace, write.schema.kind, unique.field, &value)
    };
    let releases = before
        .iter()
        .filter(|value| !after.contains(value))
        .map(key)
        .collect();
    let takes = after
        .into_iter()
        .filter(|value| !before.contains(value))
        .map(|unique| Take {
            subject: key(&unique),
            unique,
        })
        .collect();
    (takes, releases)
}

/// Parents that the entity did not have before. Those that it had cannot be deleted because of it.
fn new_parents(write: &Write) -> Vec<Parent> {
    let Some(new) = &write.new else {
        return Vec::new();
    };
    let had = write
        .old
        .as_ref()
        .map(|row| write.schema.parents(&row.entity))
        .unwrap_or_default();
    let mut parents: Vec<_> = write
        .schema
        .parents(new)
        .into_iter()
        .filter(|(reference, id)| {
            !had.iter()
                .any(|(r, i)| r.field == reference.field && i == id)
        })
        .filter_map(|(reference, id)| {
            let schema = Schema::by_kind(reference.kind)?;
            let workspace = home(&write.place.workspace).to_owned();
            Some(Parent {
                field: reference.field,
                schema,
                workspace,
                id,
            })
        })
        .collect();
    if let (None, Some(id)) = (&write.old, &write.place.parent) {
        parents.push(Parent {
            field: "workspace",
            schema: Schema::workspaces(),
            workspace: ALL_WORKSPACES.to_owned(),
            id: id.clone(),
        });
    }
    parents
}

/// The events of a change: `crud` with the kind as name, and `dao:crud` with the operation. A new
/// webhook also gets a ping. After them comes the audit record.
fn outbox(write: &Write, id: &str, origin: &Origin) -> (Vec<Message>, Vec<Sent>) {
    let schema = write.schema;
    let old = write.old.as_ref().map(|row| &row.entity);
    let (operation, shown, before) = match (old, &write.new) {
        (None, Some(new)) => ("create", new, None),
        (Some(old), Some(new)) => ("update", new, Some(old)),
        (Some(old), None) => ("delete", old, None),
        (None, None) => return (Vec::new(), Vec::new()),
    };
    let mut sent = Vec::new();
    let mut event = |source: &str, name: &str, data: Bytes| {
        let id = Uuid::new_v4().to_string();
        let (message, trace) = origin.event(&id, (&write.place.events, source, name), data);
        sent.push(trace);
        message
    };
    let mut messages = match &write.event {
        Some(custom) => {
            let data = Bytes::from(custom.data.to_string());
            vec![event(custom.source, custom.name, data)]
        }
        None => {
            let data = change_data(schema, operation, shown, before);
            vec![
                event("crud", schema.kind, data.clone()),
                event("dao:crud", operation, data),
            ]
        }
    };
    if schema.kind == HOOK_KIND && is_pinged(shown) && old.is_none() {
        let data = Bytes::from(Value::Object(present::ping(shown)).to_string());
        messages.push(event(PING_SOURCE, PING_EVENT, data).header(header::HOOK, id));
    }
    let record = access::audit::change(&write.by, operation, schema.kind, id);
    messages.push(audit::message(&write.by.workspace, &record));
    (messages, sent)
}

fn change_data(
    schema: &Schema,
    operation: &str,
    entity: &Entity,
    before: Option<&Entity>,
) -> Bytes {
    let mut data = json!({
        "operation": operation,
        "entity": schema.event(entity),
        "schema": schema.kind,
    });
    if let Some(before) = before {
        data["old_entity"] = Value::Object(schema.event(before));
    }
    data.to_string().into()
}

#[cfg(test)]
mod tests;
