//! Consumers of services.

use super::field::{Default, Field};
use super::table::{Entity, Schema};

pub(super) static TABLE: Schema = Schema {
    kind: "consumers",
    path: "consumers",
    endpoint_key: Some("username"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at().not_in_events(),
        Field::string("username").unique(),
        Field::string("custom_id").unique(),
        Field::tags(),
        Field::integer("type")
            .default(Default::Integer(0))
            .between(0, 3),
    ],
    filters: &["custom_id"],
    checks: &[has_a_name],
    ..Schema::PLAIN
};

fn has_a_name(entity: &Entity) -> Option<String> {
    let named = entity.contains_key("custom_id") || entity.contains_key("username");
    (!named).then(|| {
        "at least one of these fields must be non-empty: 'custom_id', 'username'".to_owned()
    })
}
