//! Administrators of the gateway.

use super::field::{Default, Field};
use super::rbac_users::ROLES;
use super::rules;
use super::table::Schema;

/// Kong's number for an admin who has not registered yet.
pub(crate) const INVITED: i64 = 4;

pub(super) static TABLE: Schema = Schema {
    kind: "admins",
    path: "admins",
    endpoint_key: Some("username"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("username").unique().required(),
        Field::string("email").unique().rule(rules::email),
        Field::string("custom_id").unique(),
        Field::integer("status")
            .default(Default::Integer(INVITED))
            .between(0, 5),
        Field::boolean("rbac_token_enabled").default(Default::Boolean(true)),
        Field::expires_at(),
        Field::token("user_token").internal(),
        // Of an invitation, until it is accepted.
        Field::token("register_token").internal(),
        Field::integer("register_until").internal(),
        ROLES,
    ],
    ..Schema::PLAIN
};
