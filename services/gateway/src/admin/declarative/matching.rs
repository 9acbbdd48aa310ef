//! Which of the stored entities each of a document's is, and what it becomes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::collections::is_same;
use super::Entities;
use super::difference::{Change, Difference};
use super::document::{Document, Wanted};
use crate::schema::{Entity, Input, Schema, UniqueValue, Violations};
use crate::store::Row;

/// Entities between two turns of other requests.
const TURN: usize = 64;

pub(super) struct Matching<'a> {
    entities: &'a Entities<'a>,
    /// Whether passwords are given, and not what is stored of them.
    transforms: bool,
    /// Of which nothing stays that the document does not have.
    kinds: BTreeSet<&'static str>,
    /// Ids of what is wanted, by its place in the document.
    ids: HashMap<usize, String>,
    /// Ids of what is wanted, by kind and name.
    names: HashMap<(&'static str, String), String>,
    /// Where the document has a unique value.
    taken: HashMap<(&'static str, &'static str, String), String>,
    /// Stored entities that stay, by kind and id.
    matched: HashSet<(&'static str, String)>,
    pub(super) problems: Violations,
    pub(super) difference: Difference,
}

/// One of the document's, with its place there.
struct Candidate<'w> {
    place: usize,
    wanted: &'w Wanted,
    input: Input,
    /// As it would be stored, if it is anything at all.
    entity: Option<Entity>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(entities: &'a Entities<'a>, document: &Document) -> Self {
        Self {
            entities,
            transforms: document.transforms,
            kinds: document.kinds.clone(),
            ids: HashMap::new(),
            names: HashMap::new(),
            taken: HashMap::new(),
            matched: HashSet::new(),
            problems: Violations::default(),
            difference: Difference::default(),
        }
    }

    pub(super) fn stays(&self, row: &Row) -> bool {
        self.matched.contains(&(row.schema.kind, row.id.clone()))
    }

    /// Of one kind, after those that it refers to.
    pub(super) async fn match_kind(
        &mut self,
        schema: &'static Schema,
        places: &[usize],
        wanted: &[Wanted],
        rows: &[Arc<Row>],
    ) {
        let mut unnamed = Vec::new();
        for (turn, place) in places.iter().enumerate() {
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
            let candidate = self.candidate(schema, *place, &wanted[*place]);
            match self.by_name(schema, &candidate) {
                Some(row) => self.change(candidate, Some(row)).await,
                None => unnamed.push(candidate),
            }
        }
        if unnamed.is_empty() {
            return;
        }
        let unnamed = self
            .match_by(unnamed, rows, |entity| canonical(schema, entity, true))
            .await;
        let unnamed = self
            .match_by(unnamed, rows, |entity| canonical(schema, entity, false))
            .await;
        let unnamed = match schema.kind == Schema::event_hooks().kind {
            true => self.match_by(unnamed, rows, purpose).await,
            false => unnamed,
        };
        for (turn, candidate) in unnamed.into_iter().enumerate() {
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
            self.change(candidate, None).await;
        }
    }

    fn candidate<'w>(
        &mut self,
        schema: &'static Schema,
        place: usize,
        wanted: &'w Wanted,
    ) -> Candidate<'w> {
        let mut input = wanted.input();
        if let Some((field, within)) = wanted.within {
            let id = self.ids.get(&within).cloned().unwrap_or_default();
            input.values.insert(field.to_owned(), json!({ "id": id }));
        }
        self.resolve(schema, &mut input.values, &wanted.path);
        Candidate {
            place,
            wanted,
            entity: schema.normalized(input.clone()),
            input,
        }
    }

    /// The stored entity with the id, or else with one of the unique values.
    fn by_name(&self, schema: &'static Schema, candidate: &Candidate<'_>) -> Option<Arc<Row>> {
        let here = self.entities.of(schema);
        let (view, workspace) = (here.store.view(), &here.place.workspace);
        if let Some(id) = given_id(&candidate.input) {
            return view.get(schema, workspace, &id);
        }
        let of = |unique: &UniqueValue| {
            view.get_by_unique(schema, workspace, unique.field, &unique.value)
        };
        let values = schema.unique_values(candidate.entity.as_ref()?);
        values.iter().find_map(of)
    }

    /// What has no name is what has the same key; those of one key are in the order of their creation.
    async fn match_by<'w>(
        &mut self,
        candidates: Vec<Candidate<'w>>,
        rows: &[Arc<Row>],
        key: impl Fn(&Entity) -> String,
    ) -> Vec<Candidate<'w>> {
        let mut free: HashMap<String, Vec<&Arc<Row>>> = HashMap::new();
        for (turn, row) in rows.iter().rev().enumerate() {
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
            if !self.stays(row) {
                free.entry(key(&row.entity)).or_default().push(row);
            }
        }
        let mut left = Vec::new();
        for candidate in candidates {
            let has_id = candidate
                .input
                .values
                .get("id")
                .is_some_and(|id| !id.is_null());
            let entity = candidate.entity.as_ref().filter(|_| !has_id);
            let row = entity.and_then(|entity| free.get_mut(&key(entity))?.pop());
            match row {
                Some(row) => self.change(candidate, Some(Arc::clone(row))).await,
                None => left.push(candidate),
            }
        }
        left
    }

    /// References may be names, or records with one.
    fn resolve(&mut self, schema: &'static Schema, values: &mut Entity, path: &str) {
        for reference in schema.references() {
            let (field, kind) = (reference.field, Schema::by_kind(reference.kind));
            if let (Some(value), Some(kind)) = (values.get_mut(field), kind) {
                self.resolve_one(kind, value, &format!("{path}.{field}"));
            }
        }
        // Of what is named within records, only lists of records have names.
        for used in schema.uses {
            let list = values.get_mut(used.field).and_then(Value::as_array_mut);
            let Some(kind) = Schema::by_kind(used.kind) else {
                continue;
            };
            for (at, value) in list.into_iter().flatten().enumerate() {
                if value.is_object() {
                    self.resolve_one(kind, value, &format!("{path}.{}[{at}]", used.field));
                }
            }
        }
    }

    fn resolve_one(&mut self, kind: &'static Schema, value: &mut Value, path: &str) {
        let name = match &*value {
            Value::String(name) => Some(name.clone()),
            Value::Object(of) if !of.contains_key("id") => {
                let name = kind.endpoint_key.and_then(|key| of.get(key)?.as_str());
                name.map(str::to_owned)
            }
            _ => None,
        };
        let Some(name) = name else {
            return;
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
        match (known.or_else(stored), &mut *value) {
            (Some(id), Value::Object(of)) => drop(of.insert("id".to_owned(), id.into())),
            (Some(id), value) => *value = json!({ "id": id }),
            (None, _) => {
                let says = format!("there is no '{}' named '{name}'", kind.kind);
                self.problems.add_at(path, says);
            }
        }
    }

    /// Notes what becomes of an entity.
    async fn change(&mut self, candidate: Candidate<'_>, old: Option<Arc<Row>>) {
        let Candidate {
            place,
            wanted,
            mut input,
            ..
        } = candidate;
        let (schema, path) = (wanted.schema, &wanted.path);
        let id = match &old {
            Some(row) => row.id.clone(),
            None => given_id(&input).unwrap_or_else(|| Uuid::new_v4().to_string()),
        };
        let is_given = input.values.get("id").is_some_and(|id| !id.is_null());
        if !is_given {
            input.values.insert("id".to_owned(), id.clone().into());
        }
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
            Err(violations) => return self.problems.add_all_at(path, &violations),
        };
        if self.transforms {
            let stored = old.as_ref().map(|row| &row.entity);
            match self.entities.of(schema).hide(entity, stored).await {
                Ok(hidden) => entity = hidden,
                Err(error) => return self.problems.add_at(path, error.to_string()),
            }
        }
        self.check_parents(schema, &entity, path);
        let key = schema
            .endpoint_key
            .and_then(|key| entity.get(key)?.as_str());
        for name in key.into_iter().chain([id.as_str()]) {
            self.names
                .insert((schema.kind, name.to_owned()), id.clone());
        }
        self.take_values(schema, &id, &entity, path);
        if old.is_some() {
            self.matched.insert((schema.kind, id));
        }
        match old {
            Some(row) if is_same(&row.entity, &entity) => self.difference.unchanged += 1,
            old => self.difference.writes.push(Change {
                schema,
                old,
                entity,
            }),
        }
    }

    /// What an entity refers to stays: the document has it too.
    fn check_parents(&mut self, schema: &'static Schema, entity: &Entity, path: &str) {
        for (reference, id) in schema.parents(entity) {
            let is_there = self.names.contains_key(&(reference.kind, id.clone()));
            if self.kinds.contains(reference.kind) && !is_there {
                let says = format!(
                    "the document has no '{}' with the id '{id}'",
                    reference.kind
                );
                self.problems
                    .add_at(&format!("{path}.{}", reference.field), says);
            }
        }
    }

    /// Each unique value is had once, and by nothing else that is stored.
    fn take_values(&mut self, schema: &'static Schema, id: &str, entity: &Entity, path: &str) {
        let here = self.entities.of(schema);
        let (view, workspace) = (here.store.view(), &here.place.workspace);
        let mut values = schema.unique_values(entity);
        values.push(UniqueValue::of_id(id));
        for unique in values {
            let holder = view.get_by_unique(schema, workspace, unique.field, &unique.value);
            let place = format!("{path}.{}", unique.field);
            if let Some(holder) = holder.filter(|holder| holder.id != id) {
                let says = format!("'{}' has it: give that id, or none", holder.id);
                self.problems.add_at(&place, says);
            }
            let key = (schema.kind, unique.field, unique.value);
            if let Some(before) = self.taken.insert(key, path.to_owned()) {
                self.problems
                    .add_at(&place, format!("{before} has the same"));
            }
        }
    }
}

fn given_id(input: &Input) -> Option<String> {
    let id = input.values.get("id")?.as_str()?;
    Some(id.to_ascii_lowercase())
}

/// An entity but for what is made up at its creation; secrets are all alike.
fn canonical(schema: &Schema, entity: &Entity, with_generated: bool) -> String {
    let mut shown = schema.response(entity);
    if let Value::Object(shown) = &mut shown {
        for name in ["id", "created_at", "updated_at"] {
            shown.shift_remove(name);
        }
        if !with_generated {
            schema.remove_generated(entity, shown);
        }
    }
    shown.sort_all_objects();
    shown.to_string()
}

/// Of hooks: what they are for.
fn purpose(hook: &Entity) -> String {
    let parts = ["source", "event", "handler"].map(|name| hook.get(name));
    format!("{parts:?}")
}
