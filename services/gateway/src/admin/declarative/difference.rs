//! What has to be done so that a workspace has what a document wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Entities;
use super::document::{self, Document};
use super::matching::Matching;
use crate::error::ApiError;
use crate::schema::{Entity, Schema};
use crate::store::Row;

/// In the order in which it can be done.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// What others refer to comes before these.
    pub(super) writes: Vec<Change>,
    /// What refers to others comes before these.
    pub(super) deletes: Vec<Arc<Row>>,
    pub(super) unchanged: usize,
}

/// One entity that is to be created or changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) schema: &'static Schema,
    pub(super) old: Option<Arc<Row>>,
    pub(super) entity: Entity,
}

impl Difference {
    pub(super) async fn of(document: &Document, entities: &Entities<'_>) -> Result<Self, ApiError> {
        let mut matching = Matching::new(entities, document);
        let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, one) in document.wanted.iter().enumerate() {
            by_kind.entry(one.schema.kind).or_default().push(at);
        }
        let mut stored = Vec::new();
        for schema in in_order() {
            let places = by_kind.remove(schema.kind).unwrap_or_default();
            let mut rows = Vec::new();
            if document.kinds.contains(schema.kind) {
                let here = entities.of(schema);
                rows = here.store.view().all(schema, &here.place.workspace).await;
            }
            matching
                .match_kind(schema, &places, &document.wanted, &rows)
                .await;
            stored.push(rows);
        }
        for rows in stored.into_iter().rev() {
            let gone = rows.into_iter().filter(|row| !matching.stays(row));
            let gone: Vec<_> = gone.collect();
            matching.difference.deletes.extend(gone);
        }
        match matching.problems.is_empty() {
            true => Ok(matching.difference),
            false => Err(ApiError::declarative(&matching.problems)),
        }
    }

    pub(super) fn show(&self) -> Value {
        let name = |row_name: Option<&str>| row_name.map(str::to_owned);
        let mut list = Vec::new();
        for change in &self.writes {
            let schema = change.schema;
            let of = |entity: &Entity| schema.response(entity);
            let shown = of(&change.entity);
            let key = schema.endpoint_key.and_then(|key| change.entity.get(key));
            let mut one = json!({
                "operation": if change.old.is_some() { "update" } else { "create" },
                "kind": schema.kind,
                "id": change.entity.get("id"),
                "name": key,
            });
            match &change.old {
                None => one["entity"] = without_nulls(shown),
                Some(old) => one["changes"] = changes(schema, &old.entity, &change.entity),
            }
            list.push(one);
        }
        for row in &self.deletes {
            list.push(json!({
                "operation": "delete", "kind": row.schema.kind, "id": row.id, "name": name(row.name()),
            }));
        }
        let updates = self
            .writes
            .iter()
            .filter(|change| change.old.is_some())
            .count();
        json!({
            "summary": {
                "create": self.writes.len() - updates,
                "update": updates,
                "delete": self.deletes.len(),
                "unchanged": self.unchanged,
            },
            "difference": list,
        })
    }
}

/// Each field that differs, as it is shown, from and to. Of what is never shown, only that it differs.
fn changes(schema: &Schema, old: &Entity, new: &Entity) -> Value {
    let (before, after) = (schema.response(old), schema.response(new));
    let mut shown = json!({});
    for field in schema
        .fields
        .iter()
        .filter(|field| field.name != "updated_at")
    {
        if old.get(field.name) == new.get(field.name) {
            continue;
        }
        let (from, to) = (&before[field.name], &after[field.name]);
        shown[field.name] = json!({ "from": from, "to": to });
    }
    shown
}

pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name, without_nulls(value)))
                .collect()
        }
        value => value,
    }
}

/// The kinds, each after those that it refers to.
fn in_order() -> Vec<&'static Schema> {
    let mut left: Vec<_> = document::kinds().collect();
    let mut order: Vec<&'static Schema> = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<_> = left.iter().map(|schema| schema.kind).collect();
        let is_free = |schema: &&Schema| {
            let refers = schema.references().map(|reference| reference.kind);
            let mut refers = refers.chain(schema.uses.iter().map(|one| one.kind));
            !refers.any(|kind| kind != schema.kind && names.contains(kind))
        };
        let (free, others): (Vec<_>, Vec<_>) = left.iter().copied().partition(is_free);
        if free.is_empty() {
            order.extend(others);
            break;
        }
        order.extend(free);
        left = others;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referred_to_comes_first() {
        let order: Vec<_> = in_order().iter().map(|schema| schema.kind).collect();
        let at = |kind| order.iter().position(|one| *one == kind).expect(kind);
        for schema in document::kinds() {
            for reference in schema.references() {
                assert!(at(reference.kind) < at(schema.kind), "{}", schema.kind);
            }
            for one in schema.uses {
                assert!(at(one.kind) < at(schema.kind), "{}", schema.kind);
            }
        }
        assert_eq!(order.len(), document::kinds().count());
    }
}
