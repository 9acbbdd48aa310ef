//! What has to be done so that a workspace has what a document wants.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hookline_shared::hook::REDACTED;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::collections::is_same;
use super::Entities;
use super::document::{self, Document, Wanted};
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, UniqueValue, Violations, credentials};
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
    pub(super) async fn of(document: Document, entities: &Entities<'_>) -> Result<Self, ApiError> {
        let mut finding = Finding {
            entities,
            transforms: document.transforms,
            ids: HashMap::new(),
            names: HashMap::new(),
            taken: HashMap::new(),
            matched: HashSet::new(),
            problems: Violations::default(),
            difference: Self::default(),
        };
        let Document { wanted, kinds, .. } = document;
        let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, one) in wanted.iter().enumerate() {
            by_kind.entry(one.schema.kind).or_default().push(at);
        }
        let order = in_order();
        for schema in &order {
            let places = by_kind.remove(schema.kind).unwrap_or_default();
            let mut rows = Vec::new();
            if kinds.contains(schema.kind) {
                let here = entities.of(schema);
                rows = here.store.view().all(schema, &here.place.workspace).await;
            }
            finding.of_kind(schema, &places, &wanted, &rows);
        }
        for schema in order
            .iter()
            .rev()
            .filter(|schema| kinds.contains(schema.kind))
        {
            let here = entities.of(schema);
            let rows = here.store.view().all(schema, &here.place.workspace).await;
            let gone = rows
                .into_iter()
                .filter(|row| !finding.matched.contains(&row.id));
            finding.difference.deletes.extend(gone);
        }
        match finding.problems.is_empty() {
            true => Ok(finding.difference),
            false => Err(ApiError::declarative(&finding.problems)),
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

struct Finding<'a> {
    entities: &'a Entities<'a>,
    /// Whether passwords are given, and not what is stored of them.
    transforms: bool,
    /// Ids of what is wanted, by place.
    ids: HashMap<usize, String>,
    /// Ids of what is wanted, by kind and name.
    names: HashMap<(&'static str, String), String>,
    /// Where the document has a unique value.
    taken: HashMap<(&'static str, &'static str, String), String>,
    /// Ids of what is there and stays.
    matched: HashSet<String>,
    problems: Violations,
    difference: Difference,
}

impl Finding<'_> {
    fn of_kind(
        &mut self,
        schema: &'static Schema,
        places: &[usize],
        wanted: &[Wanted],
        rows: &[Arc<Row>],
    ) {
        let mut later = Vec::new();
        let mut inputs = Vec::new();
        for place in places {
            let one = &wanted[*place];
            let mut input = one.input();
            if let Some((field, within)) = one.within {
                let id = self.ids.get(&within).cloned().unwrap_or_default();
                input.values.insert(field.to_owned(), json!({ "id": id }));
            }
            self.resolve(schema, &mut input.values, &one.path);
            inputs.push((*place, one, input));
        }
        for (place, one, input) in inputs {
            match self.find(schema, &input) {
                Some(row) => self.change(place, one, input, Some(row)),
                None => later.push((place, one, input)),
            }
        }
        later = self.find_like(schema, later, rows);
        for (place, one, input) in later {
            self.change(place, one, input, None);
        }
    }

    /// What has no name is the one that is the same; a hook, or else one that is for the same.
    fn find_like<'w>(
        &mut self,
        schema: &'static Schema,
        wanted: Vec<(usize, &'w Wanted, Input)>,
        rows: &[Arc<Row>],
    ) -> Vec<(usize, &'w Wanted, Input)> {
        let key = |entity: &Entity| format!("{:?}", purpose(schema, entity));
        let mut free: HashMap<String, Vec<&Arc<Row>>> = HashMap::new();
        for row in rows.iter().filter(|row| !self.matched.contains(&row.id)) {
            free.entry(key(&row.entity)).or_default().push(row);
        }
        let is_hook = schema.kind == Schema::event_hooks().kind;
        let mut left = wanted;
        for must_be_same in [true, false].into_iter().take(if is_hook { 2 } else { 1 }) {
            let mut none = Vec::new();
            for (place, one, input) in left {
                let alike = free.entry(key(&input.values)).or_default();
                let is_it = |row: &&Arc<Row>| {
                    let mut parts = input.values.iter();
                    !must_be_same || parts.all(|(name, value)| has(row.entity.get(name), value))
                };
                let has_name = input.values.contains_key("id")
                    || !schema
                        .unique_values(&input.values)
                        .iter()
                        .all(|one| one.together.is_some());
                match alike.iter().position(|row| !has_name && is_it(row)) {
                    Some(at) => {
                        let row = Arc::clone(alike.remove(at));
                        self.change(place, one, input, Some(row));
                    }
                    None => none.push((place, one, input)),
                }
            }
            left = none;
        }
        left
    }

    /// References may be names, or records with one.
    fn resolve(&mut self, schema: &'static Schema, values: &mut Entity, path: &str) {
        for reference in schema.references() {
            let Some(value) = values.get_mut(reference.field) else {
                continue;
            };
            let Some(kind) = Schema::by_kind(reference.kind) else {
                continue;
            };
            let name = match &*value {
                Value::String(name) => name.clone(),
                Value::Object(of) if !of.contains_key("id") => {
                    let name = kind.endpoint_key.and_then(|key| of.get(key)?.as_str());
                    match name {
                        Some(name) => name.to_owned(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let here = self.entities.of(kind);
            let known = self.names.get(&(kind.kind, name.clone())).cloned();
            let stored = || {
                let view = here.store.view();
                let workspace = hookline_shared::subject::home(&here.place.workspace);
                let by_id = view.get(kind, workspace, &name.to_ascii_lowercase());
                let by_name = || view.get_by_unique(kind, workspace, kind.endpoint_key?, &name);
                Some(by_id.or_else(by_name)?.id.clone())
            };
            match known.or_else(stored) {
                Some(id) => *value = json!({ "id": id }),
                None => {
                    let says = format!("there is no '{}' named '{name}'", kind.kind);
                    self.problems
                        .add_at(&format!("{path}.{}", reference.field), says);
                    values.shift_remove(reference.field);
                }
            }
        }
    }

    /// What is there and has the id, or one of the unique values.
    fn find(&self, schema: &'static Schema, input: &Input) -> Option<Arc<Row>> {
        let here = self.entities.of(schema);
        let (view, workspace) = (here.store.view(), &here.place.workspace);
        if let Some(id) = input.values.get("id").and_then(Value::as_str) {
            return view.get(schema, workspace, &id.to_ascii_lowercase());
        }
        let of = |unique: &UniqueValue| {
            view.get_by_unique(schema, workspace, unique.field, &unique.value)
        };
        schema.unique_values(&input.values).iter().find_map(of)
    }

    fn change(&mut self, place: usize, one: &Wanted, mut input: Input, old: Option<Arc<Row>>) {
        let schema = one.schema;
        let id = match (&old, input.values.get("id").and_then(Value::as_str)) {
            (Some(row), _) => row.id.clone(),
            (None, Some(id)) => id.to_ascii_lowercase(),
            (None, None) => Uuid::new_v4().to_string(),
        };
        input.values.insert("id".to_owned(), id.clone().into());
        self.ids.insert(place, id.clone());
        let built = match &old {
            Some(row) => {
                schema.keep_generated(&row.entity, &mut input.values);
                schema.replace(&row.entity, input)
            }
            None => schema.create(input),
        };
        let mut entity = match built {
            Ok(entity) => entity,
            Err(violations) => return self.problems.add_all_at(&one.path, &violations),
        };
        if self.transforms && schema.kind == credentials::BASIC_AUTH.kind {
            credentials::hide_password(&mut entity, old.as_ref().map(|row| &row.entity));
        }
        let key = schema
            .endpoint_key
            .and_then(|key| entity.get(key)?.as_str());
        for name in key.into_iter().chain([id.as_str()]) {
            self.names
                .insert((schema.kind, name.to_owned()), id.clone());
        }
        let mut values = schema.unique_values(&entity);
        values.push(UniqueValue::of_id(&id));
        for unique in values {
            let (field, value) = (unique.field, unique.value);
            let before = self
                .taken
                .insert((schema.kind, field, value), one.path.clone());
            if let Some(before) = before {
                let place = format!("{}.{field}", one.path);
                self.problems
                    .add_at(&place, format!("{before} has the same"));
            }
        }
        let Some(row) = old else {
            return self.difference.writes.push(Change {
                schema,
                old: None,
                entity,
            });
        };
        self.matched.insert(id);
        if is_same(&row.entity, &entity) {
            self.difference.unchanged += 1;
        } else {
            self.difference.writes.push(Change {
                schema,
                old: Some(row),
                entity,
            });
        }
    }
}

/// What something without a name is for: of hooks what they hear, and of others what they belong to.
fn purpose(schema: &Schema, entity: &Entity) -> Vec<Option<Value>> {
    if schema.kind == Schema::event_hooks().kind {
        let names = ["source", "event", "handler"].iter();
        return names.map(|name| entity.get(*name).cloned()).collect();
    }
    let references = schema.references();
    references.map(|of| entity.get(of.field).cloned()).collect()
}

/// Whether something has all that a document says of it.
fn has(stored: Option<&Value>, wanted: &Value) -> bool {
    match (stored, wanted) {
        (_, Value::Null) => true,
        (Some(_), Value::String(text)) if text == REDACTED => true,
        (Some(Value::Object(stored)), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| has(stored.get(name), value)),
        (stored, wanted) => stored == Some(wanted),
    }
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
