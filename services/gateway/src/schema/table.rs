//! The table of an entity kind: names, scope and fields, and the uniqueness and references that follow
//! from them.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::field::{Field, Type, Variants, Visibility, Within};
use super::rules::derived_id;
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
    /// Name in URLs beneath another entity, if it is another, such as `key-auth`.
    pub nested_path: Option<&'static str>,
    /// The unique field that can replace the id in URLs.
    pub endpoint_key: Option<&'static str>,
    pub scope: Scope,
    /// Whether its entities have a path of their own, and not only one beneath their parent.
    pub is_top_level: bool,
    /// Whether it only links two others: it has the paths that those have for it.
    pub is_link: bool,
    /// Unique fields by which lists are asked for one entity.
    pub filters: &'static [&'static str],
    /// Fields of which no two entities have all the same.
    pub unique_together: &'static [&'static str],
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

/// Stands for the fields that are unique together.
pub(crate) const TOGETHER: &str = "cache_key";

/// A value that no other entity of its kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueValue {
    pub field: &'static str,
    pub value: String,
    pub within: Within,
    /// The fields that it stands for, if it stands for several.
    pub together: Option<Value>,
}

impl UniqueValue {
    /// Ids are unique without saying so.
    pub(crate) fn of_id(id: &str) -> Self {
        Self {
            field: "id",
            value: id.to_owned(),
            within: Within::All,
            together: None,
        }
    }
}

/// A field that names entities of another kind, by `{"id": ...}`, as a list of ids, or of records with one. They cannot be deleted meanwhile,
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
    /// Whether an entity is deleted with the one that it refers to.
    pub cascades: bool,
}

impl Schema {
    /// What most kinds are.
    pub(super) const PLAIN: Self = Self {
        kind: "",
        path: "",
        nested_path: None,
        endpoint_key: None,
        scope: Scope::Workspace,
        is_top_level: true,
        is_link: false,
        filters: &[],
        unique_together: &[],
        fields: &[],
        uses: &[],
        shorthand: None,
        checks: &[],
        carry_over: None,
        deep_check: None,
    };

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
        let single = self.unique_fields().filter_map(|(field, within)| {
            let value = entity.get(field)?.as_str()?.to_owned();
            Some(UniqueValue {
                field,
                value,
                within,
                together: None,
            })
        });
        single.chain(self.together(entity)).collect()
    }

    /// The fields that are unique together, as one value: `{name="x",service=null}`.
    fn together(&self, entity: &Entity) -> Option<UniqueValue> {
        if self.unique_together.is_empty() {
            return None;
        }
        let mut names = self.unique_together.to_vec();
        names.sort_unstable();
        let shown: Vec<_> = names
            .iter()
            .map(|name| match entity.get(*name) {
                None | Some(Value::Null) => format!("{name}=null"),
                Some(Value::Object(of)) => {
                    let id = of.get("id").and_then(Value::as_str).unwrap_or_default();
                    format!("{name}={{id=\"{id}\"}}")
                }
                Some(value) => format!("{name}={value}"),
            })
            .collect();
        let fields = names.iter().map(|name| {
            let value = entity.get(*name).cloned().unwrap_or_default();
            ((*name).to_owned(), value)
        });
        Some(UniqueValue {
            field: TOGETHER,
            value: format!("{{{}}}", shown.join(",")),
            within: Within::Workspace,
            together: Some(fields.collect::<Map<_, _>>().into()),
        })
    }

    /// A unique value as a key of the bucket has it: one that is not for everybody's eyes only as its digest.
    pub(crate) fn in_key<'a>(&self, field: &str, value: &'a str) -> Cow<'a, str> {
        let is_public = self
            .field(field)
            .is_none_or(|field| field.visibility == Visibility::Public || field.hashed);
        match is_public {
            true => value.into(),
            false => derived_id(&[self.kind, field, value]).into(),
        }
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
                cascades: field.cascades,
            }),
            _ => None,
        })
    }

    /// The field by which a list may be asked for one entity, if it is one.
    pub(crate) fn filter(&self, name: &str) -> Option<&'static str> {
        self.filters.iter().copied().find(|field| *field == name)
    }

    /// Beneath another entity.
    pub(crate) fn path_within(&self) -> &'static str {
        self.nested_path.unwrap_or(self.path)
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
                cascades: false,
            };
            let ids = one.ids(entity).into_iter();
            ids.map(move |id| (reference, id))
        });
        let mut seen = HashSet::new();
        let all = references.chain(used);
        all.filter(|(reference, id)| seen.insert((reference.field, id.clone())))
            .collect()
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
        let ids = ids
            .iter()
            .filter_map(|one| one.get("id").unwrap_or(one).as_str());
        ids.map(str::to_owned).collect()
    }
}
