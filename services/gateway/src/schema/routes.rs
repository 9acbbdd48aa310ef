//! Routes, which map requests to services.

use serde_json::Value;

use super::field::{Default, Field, TEXT};
use super::rules;
use super::table::{Entity, Schema};
use super::violations::Violations;

static PROTOCOL: Field = Field::string("").one_of(rules::PROTOCOLS);
static METHOD: Field = Field::string("").rule(rules::method);
static HOST: Field = Field::string("").rule(rules::route_host);
static PATH: Field = Field::string("").rule(rules::route_path);
static SNI: Field = Field::string("").rule(rules::wildcard_host);
static VALUES: Field = Field::array("", &TEXT);
static ADDRESS: Field = Field::record(
    "",
    &[
        Field::string("ip").rule(rules::ip_or_cidr),
        Field::integer("port").between(0, 65_535),
    ],
);

pub(super) static TABLE: Schema = Schema {
    kind: "routes",
    path: "routes",
    endpoint_key: Some("name"),
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
        Field::map("headers", &VALUES).rule(host_is_no_header),
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
    shorthand: Some(strip_path_of_grpc),
    checks: &[
        go_together,
        has_nothing_else,
        snis_need_tls,
        grpc_keeps_its_path,
        can_match,
    ],
    ..Schema::PLAIN
};

/// Protocols that a route may have together.
const TOGETHER: [&[&str]; 5] = [
    &["http", "https"],
    &["tcp", "tls", "udp"],
    &["grpc", "grpcs"],
    &["tls_passthrough"],
    &["ws", "wss"],
];

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

/// What routes of some protocols must not have.
const FORBIDDEN: &[(&[&str], &[&str])] = &[
    (&["http", "https"], &["sources", "destinations"]),
    (
        &["tcp", "tls", "udp"],
        &["methods", "hosts", "paths", "headers"],
    ),
    (&["grpc", "grpcs"], &["methods", "sources", "destinations"]),
    (
        &["tls_passthrough"],
        &[
            "methods",
            "hosts",
            "paths",
            "headers",
            "sources",
            "destinations",
        ],
    ),
];

fn protocols(entity: &Entity) -> Vec<&str> {
    let protocols = entity.get("protocols").and_then(Value::as_array);
    let protocols = protocols.into_iter().flatten();
    protocols.filter_map(Value::as_str).collect()
}

fn is_set(entity: &Entity, field: &str) -> bool {
    match entity.get(field) {
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Null) | None => false,
        Some(_) => true,
    }
}

fn go_together(entity: &Entity) -> Option<String> {
    let protocols = protocols(entity);
    let fit = |set: &&[&str]| protocols.iter().all(|protocol| set.contains(protocol));
    if !protocols.is_empty() && TOGETHER.iter().any(fit) {
        return None;
    }
    let sets = TOGETHER.map(|set| format!("('{}')", set.join("', '")));
    Some(format!(
        "protocols: must not mix or leave out; one of: {}",
        sets.join(", ")
    ))
}

fn has_nothing_else(entity: &Entity) -> Option<String> {
    let protocols = protocols(entity);
    let (of, fields) = FORBIDDEN
        .iter()
        .find(|(of, _)| protocols.iter().any(|protocol| of.contains(protocol)))?;
    let field = fields.iter().find(|field| is_set(entity, field))?;
    let of: Vec<_> = of.iter().map(|name| format!("'{name}'")).collect();
    Some(format!(
        "cannot set '{field}' when 'protocols' is {}",
        of.join(" or ")
    ))
}

/// Names of servers are sent before anything is encrypted, and only then.
fn snis_need_tls(entity: &Entity) -> Option<String> {
    let secure = ["https", "grpcs", "tls", "tls_passthrough"];
    let has_tls = protocols(entity).iter().any(|one| secure.contains(one));
    (is_set(entity, "snis") && !has_tls).then(|| {
        "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"
            .to_owned()
    })
}

/// A call of gRPC has its path, whole.
fn grpc_keeps_its_path(entity: &Entity) -> Option<String> {
    let is_grpc = protocols(entity).iter().any(|one| one.starts_with("grpc"));
    let strips = entity.get("strip_path") == Some(&Value::Bool(true));
    (is_grpc && strips)
        .then(|| "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'".to_owned())
}

/// Which default a route has depends on its protocols.
fn strip_path_of_grpc(values: &mut Entity, _: &mut Violations) {
    let is_grpc = protocols(values).iter().any(|one| one.starts_with("grpc"));
    let given = values
        .get("strip_path")
        .is_some_and(|value| !value.is_null());
    if is_grpc && !given {
        values.insert("strip_path".to_owned(), false.into());
    }
}

fn can_match(entity: &Entity) -> Option<String> {
    let protocols = protocols(entity);
    let (protocol, fields) = MATCHERS.iter().find(|(protocol, fields)| {
        protocols.contains(protocol) && !fields.iter().any(|field| is_set(entity, field))
    })?;
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

/// `Host` has a field of its own.
fn host_is_no_header(value: &Value) -> Result<(), String> {
    let headers = value.as_object().into_iter().flatten();
    for (name, _) in headers {
        if name.eq_ignore_ascii_case("host") {
            return Err(
                "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
                    .to_owned(),
            );
        }
    }
    Ok(())
}
