//! Users of the Admin API that are programs. People are admins.

use super::field::{Default, Field, NAME};
use super::table::Schema;

pub(super) static TABLE: Schema = Schema {
    kind: "rbac_users",
    path: "rbac/users",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().required(),
        Field::string("comment"),
        Field::boolean("enabled").default(Default::Boolean(true)),
        Field::token("user_token").secret(),
        Field::expires_at(),
        ROLES,
    ],
    ..Schema::PLAIN
};

/// What a user may do: workspace and id of each role, with a slash between.
pub(super) const ROLES: Field = Field::set("roles", &NAME).internal();
