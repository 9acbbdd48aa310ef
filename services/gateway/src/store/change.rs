//! A change of one entity: what to write, where, and the origin of its events.

use std::sync::Arc;

use bytes::Bytes;
use hookline_shared::batch::Message;
use hookline_shared::subject::{encode_header, header, outbox_key};
use hookline_shared::trace::Sent;
use serde_json::Value;

use super::row::Row;
use crate::access::Caller;
use crate::schema::{Entity, Schema};

#[derive(Debug)]
pub(crate) struct Write {
    pub schema: &'static Schema,
    pub place: Place,
    /// The current entity, or `None` to create it.
    pub old: Option<Arc<Row>>,
    /// The new entity, without nulls, or `None` to delete it.
    pub new: Option<Entity>,
    /// Published instead of the events of every change.
    pub event: Option<CustomEvent>,
    /// Whether the client chose the id.
    pub id_given: bool,
    /// Who makes the change.
    pub by: Arc<Caller>,
}

/// An event with a source and a name of its own.
#[derive(Debug)]
pub(crate) struct CustomEvent {
    pub source: &'static str,
    pub name: &'static str,
    pub data: Value,
}

/// The node that raises events.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub node: String,
    pub pid: u32,
}

impl Origin {
    /// The outbox entry of an event, whose id has no line breaks, and its trace, to be kept until it is written.
    pub(super) fn event(
        &self,
        id: &str,
        (workspace, source, name): (&str, &str, &str),
        data: Bytes,
    ) -> (Message, Sent) {
        let sent = Sent::begin(id);
        let message = Message::new(outbox_key(id, workspace, source, name), data)
            .header(header::MESSAGE_ID, id)
            .header(header::NODE, encode_header(&self.node))
            .header(header::PID, self.pid.to_string());
        let message = match sent.traceparent() {
            Some(trace) => message.header(header::TRACEPARENT, trace),
            None => message,
        };
        (message, sent)
    }
}

/// Where an entity belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Workspace in its key.
    pub workspace: String,
    /// Workspace of its events.
    pub events: String,
    /// Id of the workspace's own entity, unless it cannot be deleted.
    pub parent: Option<String>,
}
