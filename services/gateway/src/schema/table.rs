//! The table of an entity kind: names, scope and fields, and the uniqueness and references that follow
//! from them.

use serde_json::{Map, Value};

use super::field::{Field, Type, Variants, Within};
use super::violations::Violations;

/// The fields of one entity. Without nulls once stored or in an event.
pub(crate) type Entity = Map<String, Value>;

/// One entity kind.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Name in keys, events and errors, such as `event_hooks`.
    pub kind: &'static str,
    /// Name in URLs, such as `event-hooks`.
    pub path: &'static str,
    /// The unique field that can replace the id in URLs.
    pub endpoint_key: Option<&'static str>,
    pub scope: Scope,
    /// Whether its entities have a path of their own, and not only one beneath their parent.
    pub is_top_level: bool,
    /// In the order of responses.
    pub fields: &'static [Field],
    /// Fields within records that name other entities.
    pub uses: &'static [Use],
    /// Expands shorthand input before it is checked, such as a service's `url`.
    pub shorthand: Option<fn(&mut Entity, &mut Violations)>,
    /// Rules over several fields; each returns a violation. They run once the fields are valid.
    pub checks: &'static [fn(&Entity) -> Option<String>],
    /// What a change takes over from the current entity.
    pub carry_over: Option<fn(&Entity, &mut Entity)>,
    /// Validation that needs to parse or compile values; runs last, on an entity without nulls.
    pub deep_check: Option<fn(&Entity, &mut Violations)>,
}

/// Where the entities of a kind belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the workspace of the path, or `default`.
    Workspace,
    /// In the workspace of the path, or in all workspaces.
    WorkspaceOrAll,
    /// In no workspace.
    Global,
}

/// A value that no other entity of its kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueValue {
    pub field: &'static str,
    pub value: String,
    pub within: Within,
}

/// A field that names entities of another kind, by `{"id": ...}` or as a list of ids. They cannot be deleted meanwhile,
/// but have no path that lists what names them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// A path, such as `config.ca_certificates`.
    pub field: &'static str,
    pub kind: &'static str,
}

/// A field that refers to an entity of another kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    pub field: &'static str,
    /// The kind that the field refers to.
    pub kind: &'static str,
}

impl Schema {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The variants of the polymorphic record, if the table has one.
    #[must_use]
    pub(crate) fn variants(&self) -> Option<&'static Variants> {
        self.fields.iter().find_map(|field| match field.kind {
            Type::Polymorphic(variants) => Some(variants),
            _ => None,
        })
    }

    /// The fields whose values are unique, and where.
    pub(crate) fn unique_fields(&self) -> impl Iterator<Item = (&'static str, Within)> + use<> {
        let fields = self.fields.iter();
        fields.filter_map(|field| Some((field.name, field.unique?)))
    }

    /// An entity's values that are unique, and where.
    pub(crate) fn unique_values(&self, entity: &Entity) -> Vec<UniqueValue> {
        self.unique_fields()
            .filter_map(|(field, within)| {
                let value = entity.get(field)?.as_str()?.to_owned();
                Some(UniqueValue {
                    field,
                    value,
                    within,
                })
            })
            .collect()
    }

    /// Whether it says what users may do.
    pub(crate) fn gives_rights(&self) -> bool {
        let kinds = [
            Self::admins(),
            Self::rbac_users(),
            Self::rbac_roles(),
            Self::rbac_role_endpoints(),
        ];
        kinds.iter().any(|kind| kind.kind == self.kind)
    }

    /// The fields of which the digest is stored.
    pub(crate) fn hashed_fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        let fields = self.fields.iter().filter(|field| field.hashed);
        fields.map(|field| field.name)
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = Reference> + use<> {
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
    pub(crate) fn parents(&self, entity: &Entity) -> Vec<(Reference, String)> {
        let references = self.references().filter_map(|reference| {
            let id = entity.get(reference.field)?.get("id")?.as_str()?;
            Some((reference, id.to_owned()))
        });
        let used = self.uses.iter().flat_map(|one| {
            let reference = Reference {
                field: one.field,
                kind: one.kind,
            };
            let ids = one.ids(entity).into_iter();
            ids.map(move |id| (reference, id))
        });
        references.chain(used).collect()
    }
}

impl Use {
    fn ids(&self, entity: &Entity) -> Vec<String> {
        let mut path = self.field.split('.');
        let first = path.next().and_then(|name| entity.get(name));
        let value = path.fold(first, |value, name| value?.get(name));
        let ids: &[Value] = match value {
            Some(Value::Array(ids)) => ids,
            Some(Value::Object(one)) => one.get("id").map_or(&[], std::slice::from_ref),
            _ => &[],
        };
        let ids = ids.iter().filter_map(Value::as_str);
        ids.map(str::to_owned).collect()
    }
}
