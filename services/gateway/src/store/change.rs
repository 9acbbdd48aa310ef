//! A change of one entity: what to write, where, and on whose behalf.

use std::sync::Arc;

use super::row::Row;
use crate::schema::{Entity, Schema};

/// A change of one entity.
#[derive(Debug)]
pub(crate) struct Write {
    /// Its kind.
    pub schema: &'static Schema,
    /// Where it belongs.
    pub place: Place,
    /// What it is; `None`: it is to be new.
    pub old: Option<Arc<Row>>,
    /// What it is to be, without nulls; `None`: it is to be deleted.
    pub new: Option<Entity>,
    /// Whether its id was chosen by the client.
    pub id_given: bool,
}

/// Who raises events.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The node's name.
    pub node: String,
    /// The process id.
    pub pid: u32,
}

/// Where an entity belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The workspace it is kept under.
    pub workspace: String,
    /// The workspace its events are raised in.
    pub events: String,
    /// The id of the workspace's own entity, if it can be deleted.
    pub parent: Option<String>,
}
