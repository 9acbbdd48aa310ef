//! Administrators of the gateway.

use super::field::{Default, Field};
use super::rules;
use super::table::{Schema, Scope};

pub(super) static TABLE: Schema = Schema {
    kind: "admins",
    path: "admins",
    endpoint_key: Some("username"),
    scope: Scope::Workspace,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("username").unique().required(),
        Field::string("email").unique().rule(rules::email),
        Field::string("custom_id").unique(),
        Field::integer("status")
            .default(Default::Integer(0))
            .between(0, 5),
        Field::boolean("rbac_token_enabled").default(Default::Boolean(true)),
    ],
    shorthand: None,
    checks: &[],
    deep_check: None,
};
