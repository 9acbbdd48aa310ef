//! Names of servers, each with the certificate that is shown for it.

use super::field::Field;
use super::rules;
use super::table::Schema;

pub(super) static TABLE: Schema = Schema {
    kind: "snis",
    path: "snis",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name")
            .unique()
            .required()
            .rule(rules::wildcard_host),
        Field::tags(),
        Field::foreign("certificate", "certificates")
            .required()
            .cascade(),
    ],
    ..Schema::PLAIN
};
