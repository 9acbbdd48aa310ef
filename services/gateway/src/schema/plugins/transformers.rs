//! Plugins that change what passes.

use crate::schema::field::{Default, Field, TEXT};
use crate::schema::rules;

static JSON_TYPE: Field = Field::string("").one_of(&["boolean", "number", "string"]);

const fn list(name: &'static str) -> Field {
    Field::array(name, &TEXT).default(Default::Texts(&[]))
}

const OF_REQUEST: &[Field] = &[list("body"), list("headers"), list("querystring")];
const OF_REQUEST_WITH_URI: &[Field] = &[
    list("body"),
    list("headers"),
    list("querystring"),
    Field::string("uri"),
];

pub(super) const REQUEST: &[Field] = &[
    Field::string("http_method").rule(rules::method),
    Field::record("remove", OF_REQUEST).required(),
    Field::record("rename", OF_REQUEST).required(),
    Field::record("replace", OF_REQUEST_WITH_URI).required(),
    Field::record("add", OF_REQUEST).required(),
    Field::record("append", OF_REQUEST).required(),
];

const NAMES: &[Field] = &[list("json"), list("headers")];
const VALUES: &[Field] = &[
    list("json"),
    Field::array("json_types", &JSON_TYPE).default(Default::Texts(&[])),
    list("headers"),
];

pub(super) const RESPONSE: &[Field] = &[
    Field::record("remove", NAMES).required(),
    Field::record("rename", NAMES).required(),
    Field::record("replace", VALUES).required(),
    Field::record("add", VALUES).required(),
    Field::record("append", VALUES).required(),
];
