//! Roles of users: each has endpoints that it permits or forbids.

use serde_json::Value;

use super::field::{Default, Field};
use super::table::Schema;

/// Roles that every workspace has.
pub(crate) const BUILT_IN: [&str; 3] = ["super-admin", "admin", "read-only"];

pub(super) static TABLE: Schema = Schema {
    kind: "rbac_roles",
    path: "rbac/roles",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().required().rule(name),
        Field::string("comment"),
        Field::boolean("is_default").default(Default::Boolean(false)),
    ],
    ..Schema::PLAIN
};

/// Commas separate the roles that a user is given.
fn name(value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    if BUILT_IN.contains(&name) {
        return Err(format!("every workspace has a role '{name}' already"));
    }
    if name.contains([',', '/']) {
        return Err("a role's name has neither , nor /".to_owned());
    }
    Ok(())
}
