//! Plugins that say what may pass, and mark it.

use super::{config_of, flag};
use crate::schema::field::{Default, Field, TEXT};
use crate::schema::rules;
use crate::schema::table::Entity;

const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

static METHOD: Field = Field::string("").one_of(METHODS);
static ADDRESS: Field = Field::string("").rule(rules::ip_or_cidr);

pub(super) const CORS: &[Field] = &[
    Field::array("origins", &TEXT),
    Field::array("headers", &TEXT),
    Field::array("exposed_headers", &TEXT),
    Field::array("methods", &METHOD).default(Default::Texts(METHODS)),
    Field::number("max_age"),
    flag("credentials", false),
    flag("private_network", false),
    flag("preflight_continue", false),
    flag("allow_origin_absent", true),
];

pub(super) const IP_RESTRICTION: &[Field] = &[
    Field::array("allow", &ADDRESS),
    Field::array("deny", &ADDRESS),
    Field::number("status"),
    Field::string("message"),
];

pub(super) const REQUEST_SIZE_LIMITING: &[Field] = &[
    Field::integer("allowed_payload_size").default(Default::Integer(128)),
    Field::string("size_unit")
        .required()
        .default(Default::Text("megabytes"))
        .one_of(&["megabytes", "kilobytes", "bytes"]),
    flag("require_content_length", false),
];

pub(super) const CORRELATION_ID: &[Field] = &[
    Field::string("header_name").default(Default::Text("Kong-Request-ID")),
    Field::string("generator")
        .required()
        .default(Default::Text("uuid#counter"))
        .one_of(&["uuid", "uuid#counter", "tracker"]),
    flag("echo_downstream", false),
];

pub(super) fn check(entity: &Entity) -> Option<String> {
    let config = config_of(entity, "ip-restriction")?;
    let is_set = |name| config.contains_key(name);
    (!is_set("allow") && !is_set("deny")).then(|| {
        "at least one of these fields must be non-empty: 'config.allow', 'config.deny'".to_owned()
    })
}
