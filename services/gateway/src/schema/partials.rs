//! Parts of configs that several plugins share.

use super::field::{Field, Form, Variants};
use super::plugins::REDIS;
use super::rules;
use super::table::Schema;

pub(super) static TABLE: Schema = Schema {
    kind: "partials",
    path: "partials",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().rule(rules::name),
        Field::string("type").required(),
        Field::polymorphic("config", &CONFIG).private(),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

static CONFIG: Variants = Variants {
    selector: "type",
    unknown: "partial type '{}' is not known (known: redis-ce, redis-ee)",
    forms: || FORMS,
};

static FORMS: &[Form] = &[("redis-ce", REDIS), ("redis-ee", REDIS)];
