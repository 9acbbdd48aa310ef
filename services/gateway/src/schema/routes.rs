//! Routes, which map requests to services.

use serde_json::Value;

use super::field::{Default, Field, TEXT};
use super::rules;
use super::table::{Entity, Schema, Scope};

static PROTOCOL: Field = Field::string("").one_of(&[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
]);
static METHOD: Field = Field::string("").rule(rules::method);
static HOST: Field = Field::string("").rule(rules::route_host);
static PATH: Field = Field::string("").rule(rules::route_path);
static SNI: Field = Field::string("").rule(rules::host);
static VALUES: Field = Field::array("", &TEXT);
static ADDRESS: Field = Field::record(
    "",
    &[
        Field::string("ip"),
        Field::integer("port").between(0, 65_535),
    ],
);

pub(super) static TABLE: Schema = Schema {
    kind: "routes",
    path: "routes",
    endpoint_key: Some("name"),
    scope: Scope::Workspace,
    is_top_level: true,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().rule(rules::name),
        Field::set("protocols", &PROTOCOL)
            .required()
            .default(Default::Texts(&["http", "https"])),
        Field::set("methods", &METHOD),
        Field::array("hosts", &HOST),
        Field::array("paths", &PATH),
        Field::map("headers", &VALUES),
        Field::set("snis", &SNI),
        Field::set("sources", &ADDRESS),
        Field::set("destinations", &ADDRESS),
        Field::integer("https_redirect_status_code")
            .required()
            .default(Default::Integer(426))
            .one_of(&["426", "301", "302", "307", "308"]),
        Field::integer("regex_priority").default(Default::Integer(0)),
        Field::boolean("strip_path")
            .required()
            .default(Default::Boolean(true)),
        Field::string("path_handling")
            .default(Default::Text("v0"))
            .one_of(&["v0", "v1"]),
        Field::boolean("preserve_host")
            .required()
            .default(Default::Boolean(false)),
        Field::boolean("request_buffering")
            .required()
            .default(Default::Boolean(true)),
        Field::boolean("response_buffering")
            .required()
            .default(Default::Boolean(true)),
        Field::tags(),
        Field::foreign("service", "services"),
    ],
    uses: &[],
    shorthand: None,
    checks: &[can_match],
    carry_over: None,
    deep_check: None,
};

/// The fields that a route can match by, for each protocol, most demanding protocol first.
const MATCHERS: &[(&str, &[&str])] = &[
    ("https", &["methods", "hosts", "headers", "paths", "snis"]),
    ("http", &["methods", "hosts", "headers", "paths"]),
    ("grpcs", &["hosts", "headers", "paths", "snis"]),
    ("grpc", &["hosts", "headers", "paths"]),
    ("tls", &["sources", "destinations", "snis"]),
    ("tls_passthrough", &["snis"]),
    ("tcp", &["sources", "destinations"]),
    ("udp", &["sources", "destinations"]),
];

fn can_match(entity: &Entity) -> Option<String> {
    let protocols = entity.get("protocols")?.as_array()?;
    let speaks = |name: &str| protocols.iter().any(|protocol| protocol == name);
    let is_set = |field: &&str| match entity.get(*field) {
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        _ => false,
    };
    let (protocol, fields) = MATCHERS
        .iter()
        .find(|(protocol, fields)| speaks(protocol) && !fields.iter().any(is_set))?;
    let fields: Vec<_> = fields.iter().map(|field| format!("'{field}'")).collect();
    let which = if fields.len() == 1 {
        "must set"
    } else {
        "must set one of"
    };
    Some(format!(
        "{which} {} when 'protocols' is '{protocol}'",
        fields.join(", ")
    ))
}
