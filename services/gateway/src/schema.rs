//! Declarative entity tables: an entity kind is one table, and validation, routes, uniqueness,
//! references and events all follow from it.
//!
//! The vocabulary is here, the tables are one file each below; how input becomes an entity is in
//! `build`, how an entity is shown in `present`.

mod admins;
mod build;
mod check;
mod consumers;
mod event_hooks;
mod field;
mod infer;
pub mod present;
mod routes;
mod rules;
mod services;
mod violations;
mod workspaces;

use serde_json::{Map, Value};

pub use build::Input;
pub use field::{Auto, Default, Field, Rule, Type, Variants, Visibility};
pub use rules::{MAX_UNIQUE, is_uuid};
pub use violations::Violations;

/// The fields of one entity, without nulls when it is stored or in an event.
pub type Entity = Map<String, Value>;

/// All entity kinds.
pub static KINDS: &[&Schema] = &[
    &admins::TABLE,
    &consumers::TABLE,
    &event_hooks::TABLE,
    &routes::TABLE,
    &services::TABLE,
    &workspaces::TABLE,
];

/// One entity kind.
#[derive(Debug)]
pub struct Schema {
    /// Name in keys, events and errors, such as `event_hooks`.
    pub kind: &'static str,
    /// Name in URLs, such as `event-hooks`.
    pub path: &'static str,
    /// The unique field that stands for the id in URLs.
    pub endpoint_key: Option<&'static str>,
    /// Where its entities belong.
    pub scope: Scope,
    /// The fields, in the order of answers.
    pub fields: &'static [Field],
    /// Rewrites input before it is checked, such as a service's `url`.
    pub shorthand: Option<fn(&mut Entity, &mut Violations)>,
    /// Rules over several fields; each returns what is wrong. They run once the fields are sound.
    pub checks: &'static [fn(&Entity) -> Option<String>],
    /// What only compiling can tell; runs last, on an entity without nulls.
    pub deep_check: Option<fn(&Entity, &mut Violations)>,
}

/// Where the entities of a kind belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To the workspace of the path, `default` without one.
    Workspace,
    /// To the workspace of the path; to all of them without one.
    WorkspaceOrAll,
    /// To no workspace.
    Global,
}

/// A field that refers to an entity of another kind.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The field that refers.
    pub field: &'static str,
    /// The kind it refers to.
    pub kind: &'static str,
}

impl Schema {
    /// The kind whose name in URLs is `path`.
    #[must_use]
    pub fn by_path(path: &str) -> Option<&'static Schema> {
        KINDS.iter().copied().find(|schema| schema.path == path)
    }

    /// The kind with this name.
    #[must_use]
    pub fn by_kind(kind: &str) -> Option<&'static Schema> {
        KINDS.iter().copied().find(|schema| schema.kind == kind)
    }

    /// The table of workspaces, which the others belong to.
    #[must_use]
    pub fn workspaces() -> &'static Schema {
        &workspaces::TABLE
    }

    /// The field with this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The variants of the polymorphic record, if there is one.
    #[must_use]
    pub fn variants(&self) -> Option<&'static Variants> {
        self.fields.iter().find_map(|field| match field.kind {
            Type::Polymorphic(variants) => Some(variants),
            _ => None,
        })
    }

    /// The fields whose values are unique within a workspace.
    pub fn unique_fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        let fields = self.fields.iter().filter(|field| field.unique);
        fields.map(|field| field.name)
    }

    /// The values of an entity that nobody else in its workspace may have.
    #[must_use]
    pub fn unique_values(&self, entity: &Entity) -> Vec<(&'static str, String)> {
        self.unique_fields()
            .filter_map(|field| Some((field, entity.get(field)?.as_str()?.to_owned())))
            .collect()
    }

    /// The fields that refer to other kinds.
    pub fn references(&self) -> impl Iterator<Item = Reference> + use<> {
        self.fields.iter().filter_map(|field| match field.kind {
            Type::Foreign(kind) => Some(Reference {
                field: field.name,
                kind,
            }),
            _ => None,
        })
    }

    /// The entities that an entity refers to, as `(reference, id)`.
    #[must_use]
    pub fn parents(&self, entity: &Entity) -> Vec<(Reference, String)> {
        self.references()
            .filter_map(|reference| {
                let id = entity.get(reference.field)?.get("id")?.as_str()?;
                Some((reference, id.to_owned()))
            })
            .collect()
    }

    /// The kinds that refer to this one, with the field that does.
    pub fn referenced_by(&self) -> impl Iterator<Item = (&'static Schema, &'static str)> + use<> {
        let kind = self.kind;
        KINDS.iter().copied().flat_map(move |child| {
            child
                .references()
                .filter(move |reference| reference.kind == kind)
                .map(move |reference| (child, reference.field))
        })
    }
}

/// Copies an entity without its nulls, at any depth.
#[must_use]
pub fn strip_nulls(entity: &Entity) -> Entity {
    let mut entity = entity.clone();
    strip(&mut entity);
    entity
}

fn strip(map: &mut Entity) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        if let Value::Object(inner) = value {
            strip(inner);
        }
    }
}

/// Unix seconds.
#[must_use]
pub fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_names_a_kind_in_the_same_scope() {
        for schema in KINDS {
            for reference in schema.references() {
                let parent = Schema::by_kind(reference.kind).expect("a kind");
                assert_eq!(
                    parent.scope, schema.scope,
                    "{}.{}",
                    schema.kind, reference.field
                );
            }
        }
    }

    #[test]
    fn a_write_has_a_message_for_every_guard() {
        // A parent is guarded from one of the two outbox messages, and the workspace is one.
        for schema in KINDS {
            assert!(schema.references().count() <= 1, "{}", schema.kind);
        }
    }

    #[test]
    fn unique_fields_are_top_level_strings_and_endpoint_keys_unique() {
        for schema in KINDS {
            for name in schema.unique_fields() {
                let field = schema.field(name).expect("a field");
                assert!(matches!(field.kind, Type::String), "{}.{name}", schema.kind);
            }
            if let Some(key) = schema.endpoint_key {
                assert!(
                    schema.unique_fields().any(|name| name == key),
                    "{}",
                    schema.kind
                );
            }
        }
    }

    #[test]
    fn services_are_referenced_by_routes() {
        let services = Schema::by_kind("services").expect("services");
        let children: Vec<_> = services.referenced_by().map(|(s, f)| (s.kind, f)).collect();
        assert_eq!(children, [("routes", "service")]);
    }
}
