//! Upstreams: virtual hosts whose targets share the load.

use serde_json::Value;

use super::field::{Default, Field};
use super::rules;
use super::table::{Entity, Schema};

static STATUS: Field = Field::integer("").between(100, 999);
static VALUES: Field = Field::array("", &super::field::TEXT);

const HASHES: &[&str] = &[
    "none",
    "consumer",
    "ip",
    "header",
    "cookie",
    "path",
    "query_arg",
    "uri_capture",
];
const PROBES: &[&str] = &["tcp", "http", "https", "grpc", "grpcs"];

pub(super) static TABLE: Schema = Schema {
    kind: "upstreams",
    path: "upstreams",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().required().rule(rules::host),
        Field::string("algorithm")
            .default(Default::Text("round-robin"))
            .one_of(&[
                "consistent-hashing",
                "least-connections",
                "round-robin",
                "latency",
            ]),
        hash("hash_on"),
        hash("hash_fallback"),
        Field::string("hash_on_header").rule(rules::header_name),
        Field::string("hash_fallback_header").rule(rules::header_name),
        Field::string("hash_on_cookie").rule(rules::cookie_name),
        Field::string("hash_on_cookie_path")
            .default(Default::Text("/"))
            .rule(rules::path),
        Field::string("hash_on_query_arg"),
        Field::string("hash_fallback_query_arg"),
        Field::string("hash_on_uri_capture"),
        Field::string("hash_fallback_uri_capture"),
        Field::integer("slots")
            .default(Default::Integer(10_000))
            .between(10, 65_536),
        Field::record("healthchecks", HEALTHCHECKS).required(),
        Field::tags(),
        Field::string("host_header").rule(rules::host_with_port),
        Field::foreign("client_certificate", "certificates"),
        Field::boolean("use_srv_name").default(Default::Boolean(false)),
    ],
    checks: &[
        has_what_it_hashes_on,
        has_what_it_falls_back_to,
        falls_back_to_another,
    ],
    ..Schema::PLAIN
};

const fn hash(name: &'static str) -> Field {
    Field::string(name)
        .default(Default::Text("none"))
        .one_of(HASHES)
}

const fn count(name: &'static str) -> Field {
    Field::integer(name)
        .default(Default::Integer(0))
        .between(0, 255)
}

const fn seconds(name: &'static str, default: i64) -> Field {
    Field::number(name)
        .default(Default::Integer(default))
        .between(0, 65_535)
}

const fn statuses(default: &'static [i64]) -> Field {
    Field::array("http_statuses", &STATUS).default(Default::Integers(default))
}

const HEALTHCHECKS: &[Field] = &[
    Field::record("active", ACTIVE).required(),
    Field::record("passive", PASSIVE).required(),
    Field::number("threshold")
        .default(Default::Integer(0))
        .between(0, 100),
];

const ACTIVE: &[Field] = &[
    Field::string("type")
        .default(Default::Text("http"))
        .one_of(PROBES),
    seconds("timeout", 1),
    Field::integer("concurrency")
        .default(Default::Integer(10))
        .between(1, i32::MAX as i64),
    Field::string("http_path")
        .default(Default::Text("/"))
        .rule(rules::path),
    Field::string("https_sni").rule(rules::host),
    Field::boolean("https_verify_certificate")
        .required()
        .default(Default::Boolean(true)),
    Field::map("headers", &VALUES).private(),
    Field::record(
        "healthy",
        &[
            seconds("interval", 0),
            statuses(&[200, 302]),
            count("successes"),
        ],
    )
    .required(),
    Field::record(
        "unhealthy",
        &[
            seconds("interval", 0),
            statuses(&[429, 404, 500, 501, 502, 503, 504, 505]),
            count("tcp_failures"),
            count("timeouts"),
            count("http_failures"),
        ],
    )
    .required(),
];

const PASSIVE: &[Field] = &[
    Field::string("type")
        .default(Default::Text("http"))
        .one_of(PROBES),
    Field::record(
        "healthy",
        &[
            statuses(&[
                200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305,
                306, 307, 308,
            ]),
            count("successes"),
        ],
    )
    .required(),
    Field::record(
        "unhealthy",
        &[
            statuses(&[429, 500, 503]),
            count("tcp_failures"),
            count("timeouts"),
            count("http_failures"),
        ],
    )
    .required(),
];

fn text<'a>(entity: &'a Entity, field: &str) -> &'a str {
    entity
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What one of the two names needs a field of its own.
fn needs(entity: &Entity, by: &str) -> Option<String> {
    let prefix = if by == "hash_on" {
        "hash_on"
    } else {
        "hash_fallback"
    };
    let field = match text(entity, by) {
        "header" => format!("{prefix}_header"),
        "cookie" => "hash_on_cookie".to_owned(),
        "query_arg" => format!("{prefix}_query_arg"),
        "uri_capture" => format!("{prefix}_uri_capture"),
        _ => return None,
    };
    (!entity.contains_key(&field))
        .then(|| format!("failed conditional validation given value of field '{by}'"))
}

fn has_what_it_hashes_on(entity: &Entity) -> Option<String> {
    needs(entity, "hash_on")
}

fn has_what_it_falls_back_to(entity: &Entity) -> Option<String> {
    needs(entity, "hash_fallback")
}

fn falls_back_to_another(entity: &Entity) -> Option<String> {
    let (on, fallback) = (text(entity, "hash_on"), text(entity, "hash_fallback"));
    let has_none = matches!(on, "none" | "cookie") || fallback == "cookie";
    let same = on == fallback && matches!(on, "consumer" | "ip" | "path");
    let wrong = (has_none && !matches!(fallback, "none" | "")) || same;
    wrong.then(|| "failed conditional validation given value of field 'hash_on'".to_owned())
}
