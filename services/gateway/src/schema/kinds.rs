//! The list of entity kinds, and lookups over it.

use super::table::Schema;
use super::{
    admins, ca_certificates, certificates, consumer_groups, consumers, credentials, event_hooks,
    ingest_tokens, keys, partials, plugins, rbac_role_endpoints, rbac_roles, rbac_users, routes,
    services, snis, targets, upstreams, vaults, workspaces,
};

static KINDS: &[&Schema] = &[
    &admins::TABLE,
    &ca_certificates::TABLE,
    &certificates::TABLE,
    &consumer_groups::MEMBERS,
    &consumer_groups::TABLE,
    &consumers::TABLE,
    &credentials::ACLS,
    &credentials::BASIC_AUTH,
    &credentials::HMAC_AUTH,
    &credentials::JWT,
    &credentials::KEY_AUTH,
    &credentials::OAUTH2,
    &event_hooks::TABLE,
    &ingest_tokens::TABLE,
    &keys::KEYS,
    &keys::SETS,
    &partials::TABLE,
    &plugins::TABLE,
    &rbac_role_endpoints::TABLE,
    &rbac_roles::TABLE,
    &rbac_users::TABLE,
    &routes::TABLE,
    &services::TABLE,
    &snis::TABLE,
    &targets::TABLE,
    &upstreams::TABLE,
    &vaults::TABLE,
    &workspaces::TABLE,
];

impl Schema {
    pub(crate) fn kinds() -> impl Iterator<Item = &'static Schema> {
        KINDS.iter().copied()
    }

    pub(crate) fn by_path(path: &str) -> Option<&'static Schema> {
        let mut kinds = KINDS.iter().copied();
        kinds.find(|schema| schema.is_top_level && schema.path == path)
    }

    pub(crate) fn by_kind(kind: &str) -> Option<&'static Schema> {
        KINDS.iter().copied().find(|schema| schema.kind == kind)
    }

    pub(crate) fn workspaces() -> &'static Schema {
        &workspaces::TABLE
    }

    pub(crate) fn consumers() -> &'static Schema {
        &consumers::TABLE
    }

    pub(crate) fn consumer_groups() -> &'static Schema {
        &consumer_groups::TABLE
    }

    /// Which consumers are in which groups.
    pub(crate) fn members() -> &'static Schema {
        &consumer_groups::MEMBERS
    }

    pub(crate) fn upstreams() -> &'static Schema {
        &upstreams::TABLE
    }

    pub(crate) fn targets() -> &'static Schema {
        &targets::TABLE
    }

    pub(crate) fn partials() -> &'static Schema {
        &partials::TABLE
    }

    pub(crate) fn snis() -> &'static Schema {
        &snis::TABLE
    }

    pub(crate) fn plugins() -> &'static Schema {
        &plugins::TABLE
    }

    pub(crate) fn event_hooks() -> &'static Schema {
        &event_hooks::TABLE
    }

    pub(crate) fn ingest_tokens() -> &'static Schema {
        &ingest_tokens::TABLE
    }

    pub(crate) fn admins() -> &'static Schema {
        &admins::TABLE
    }

    pub(crate) fn rbac_users() -> &'static Schema {
        &rbac_users::TABLE
    }

    pub(crate) fn rbac_roles() -> &'static Schema {
        &rbac_roles::TABLE
    }

    pub(crate) fn rbac_role_endpoints() -> &'static Schema {
        &rbac_role_endpoints::TABLE
    }

    /// The kinds whose entities name some of this one, with the field.
    pub(crate) fn named_by(&self) -> impl Iterator<Item = (&'static Schema, &'static str)> + use<> {
        let kind = self.kind;
        let uses = KINDS.iter().copied().flat_map(move |child| {
            let uses = child.uses.iter().filter(move |one| one.kind == kind);
            uses.map(move |one| (child, one.field))
        });
        self.referenced_by().chain(uses)
    }

    /// The kinds that refer to this one, with the referring field.
    pub(crate) fn referenced_by(
        &self,
    ) -> impl Iterator<Item = (&'static Schema, &'static str)> + use<> {
        let kind = self.kind;
        KINDS.iter().copied().flat_map(move |child| {
            child
                .references()
                .filter(move |reference| reference.kind == kind)
                .map(move |reference| (child, reference.field))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::field::Type;

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
    fn unique_fields_are_top_level_strings_and_endpoint_keys_unique() {
        for schema in KINDS {
            for (name, _) in schema.unique_fields() {
                let field = schema.field(name).expect("a field");
                assert!(matches!(field.kind, Type::String), "{}.{name}", schema.kind);
            }
            if let Some(key) = schema.endpoint_key {
                assert!(
                    schema.unique_fields().any(|(name, _)| name == key),
                    "{}",
                    schema.kind
                );
            }
        }
    }

    #[test]
    fn services_are_referenced_by_plugins_and_routes() {
        let services = Schema::by_kind("services").expect("services");
        let children: Vec<_> = services.referenced_by().map(|(s, f)| (s.kind, f)).collect();
        assert_eq!(children, [("plugins", "service"), ("routes", "service")]);
    }
}
