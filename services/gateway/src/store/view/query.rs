//! What a list is asked for.

use serde_json::Value;

use super::super::row::Row;
use std::sync::Arc;

/// Position in a list: `created_at` and id.
pub(crate) type Cursor = (i64, String);

#[derive(Debug, Default)]
pub(crate) struct Page {
    pub rows: Vec<Arc<Row>>,
    /// The last row, if there are more.
    pub next: Option<Cursor>,
}

#[derive(Debug, Default)]
pub(crate) struct Query {
    pub after: Option<Cursor>,
    pub size: usize,
    pub tags: Option<Tags>,
    /// The one with this value in a unique field.
    pub unique: Option<(&'static str, String)>,
    /// Only children: the field that refers, and the parent's id.
    pub parent: Option<(&'static str, String)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    All(Vec<String>),
    Any(Vec<String>),
}

/// A tag, and the kind and place of an entity that has it.
pub(crate) type Tagged = (String, &'static str, Cursor);

pub(super) fn tags(row: &Row) -> impl Iterator<Item = &str> {
    let tags = row.entity.get("tags").and_then(Value::as_array);
    tags.into_iter().flatten().filter_map(Value::as_str)
}
