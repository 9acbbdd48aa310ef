//! Groups of consumers, and which consumers are in which.

use super::field::Field;
use super::rules;
use super::table::Schema;

pub(super) static TABLE: Schema = Schema {
    kind: "consumer_groups",
    path: "consumer_groups",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().required().rule(rules::name),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

pub(super) static MEMBERS: Schema = Schema {
    kind: "consumer_group_consumers",
    path: "consumer_group_consumers",
    is_top_level: false,
    is_link: true,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::foreign("consumer", "consumers").required().cascade(),
        Field::foreign("consumer_group", "consumer_groups")
            .required()
            .cascade(),
    ],
    unique_together: &["consumer", "consumer_group"],
    ..Schema::PLAIN
};
