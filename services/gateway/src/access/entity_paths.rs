//! Every path that leads to an entity: that of its kind, and those beneath what it refers to. What a role says of one of
//! them counts however the entity is reached.

use serde_json::Value;

use crate::schema::{Entity, Reference, Schema};
use crate::store::View;

/// Each segment with all texts that name the same.
pub(crate) type EntityPath = Vec<Vec<String>>;

/// What an entity is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The lists that have it.
    Lists,
    /// Itself.
    Items,
}

pub(crate) fn paths(
    view: &View,
    workspace: &str,
    schema: &Schema,
    entity: &Entity,
    part: Part,
) -> Vec<EntityPath> {
    let mut paths = Vec::new();
    if schema.is_top_level {
        paths.push(of_kind(schema));
    }
    for reference in schema.references() {
        paths.extend(beneath(view, workspace, schema, entity, (reference, part)));
    }
    if part == Part::Items {
        let names = names(schema, entity);
        for path in &mut paths {
            // A membership is named by who is in it, already.
            if !schema.is_link {
                path.push(names.clone());
            }
        }
    }
    paths
}

/// The path of a kind's list.
pub(crate) fn of_kind(schema: &Schema) -> EntityPath {
    let segments = schema.path.split('/');
    segments.map(|segment| vec![segment.to_owned()]).collect()
}

/// The list of the entity that a reference names, and for links whom it names beside.
fn beneath(
    view: &View,
    workspace: &str,
    schema: &Schema,
    entity: &Entity,
    (reference, part): (Reference, Part),
) -> Option<EntityPath> {
    let (parent, names) = referred(view, workspace, entity, reference)?;
    let mut path = of_kind(parent);
    path.push(names);
    if !schema.is_link {
        path.push(vec![schema.path_within().to_owned()]);
        return Some(path);
    }
    let mut others = schema.references();
    let other = others.find(|other| other.field != reference.field)?;
    let (other, names) = referred(view, workspace, entity, other)?;
    path.extend(of_kind(other));
    if part == Part::Items {
        path.push(names);
    }
    Some(path)
}

/// The kind of what a reference names, and what names it.
fn referred(
    view: &View,
    workspace: &str,
    entity: &Entity,
    reference: Reference,
) -> Option<(&'static Schema, Vec<String>)> {
    let id = entity.get(reference.field)?.get("id")?.as_str()?;
    let parent = Schema::by_kind(reference.kind)?;
    let row = view.get(parent, workspace, id);
    let mut all = vec![id.to_owned()];
    all.extend(row.and_then(|row| row.name().map(str::to_owned)));
    Some((parent, all))
}

/// Its id, and what stands for it beneath one parent or everywhere.
fn names(schema: &Schema, entity: &Entity) -> Vec<String> {
    let own = ["id"].into_iter().chain(schema.endpoint_key);
    let second: &[&str] = match schema.endpoint_key {
        Some(_) => &[],
        None => schema.unique_together,
    };
    let names = own.chain(second.iter().copied());
    let texts = names.filter_map(|name| entity.get(name).and_then(Value::as_str));
    texts.map(str::to_owned).collect()
}
