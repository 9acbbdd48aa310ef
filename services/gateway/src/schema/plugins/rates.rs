//! Plugins that limit rates.

use serde_json::Value;

use super::{config_of, flag, number};
use crate::schema::field::{Default, Field};
use crate::schema::rules;
use crate::schema::table::Entity;

static WINDOW: Field = Field::number("");

/// From the shortest to the longest.
const PERIODS: [&str; 6] = ["second", "minute", "hour", "day", "month", "year"];

pub(in crate::schema) const REDIS: &[Field] = &[
    Field::string("host").rule(rules::host),
    Field::integer("port")
        .default(Default::Integer(6_379))
        .between(0, 65_535),
    Field::string("username"),
    Field::string("password"),
    Field::integer("database").default(Default::Integer(0)),
    Field::integer("timeout")
        .default(Default::Integer(2_000))
        .between(0, i32::MAX as i64 - 1),
    flag("ssl", false),
    flag("ssl_verify", false),
    Field::string("server_name").rule(rules::host),
];

pub(super) const RATE_LIMITING: &[Field] = &[
    period("second"),
    period("minute"),
    period("hour"),
    period("day"),
    period("month"),
    period("year"),
    Field::string("limit_by")
        .default(Default::Text("consumer"))
        .one_of(&[
            "consumer",
            "credential",
            "ip",
            "service",
            "header",
            "path",
            "consumer-group",
        ]),
    Field::string("header_name").rule(rules::header_name),
    Field::string("path").rule(rules::path),
    Field::string("policy")
        .default(Default::Text("local"))
        .one_of(&["local", "cluster", "redis"]),
    flag("fault_tolerant", true),
    Field::record("redis", REDIS).required(),
    flag("hide_client_headers", false),
    number("error_code", 429),
    Field::string("error_message").default(Default::Text("API rate limit exceeded")),
    number("sync_rate", -1),
];

pub(super) const ADVANCED: &[Field] = &[
    Field::string("identifier")
        .required()
        .default(Default::Text("consumer"))
        .one_of(&[
            "consumer",
            "credential",
            "ip",
            "service",
            "header",
            "path",
            "consumer-group",
        ]),
    Field::array("window_size", &WINDOW).required(),
    Field::string("window_type")
        .default(Default::Text("sliding"))
        .one_of(&["fixed", "sliding"]),
    Field::array("limit", &WINDOW).required(),
    Field::number("sync_rate"),
    Field::string("namespace").required().generated(),
    Field::string("strategy")
        .required()
        .default(Default::Text("local"))
        .one_of(&["cluster", "redis", "local"]),
    Field::string("dictionary_name")
        .required()
        .default(Default::Text("kong_rate_limiting_counters")),
    flag("hide_client_headers", false),
    number("retry_after_jitter_max", 0),
    Field::string("header_name").rule(rules::header_name),
    Field::string("path").rule(rules::path),
    Field::record("redis", REDIS).required(),
    flag("disable_penalty", false),
    number("error_code", 429),
    Field::string("error_message").default(Default::Text("API rate limit exceeded")),
];

const fn period(name: &'static str) -> Field {
    Field::number(name).between(1, i64::MAX)
}

pub(super) fn check(entity: &Entity) -> Option<String> {
    let config = config_of(entity, "rate-limiting")?;
    let limits: Vec<_> = PERIODS
        .iter()
        .filter_map(|period| Some((*period, config.get(*period)?.as_f64()?)))
        .collect();
    if limits.is_empty() {
        let names: Vec<_> = PERIODS
            .iter()
            .map(|name| format!("'config.{name}'"))
            .collect();
        return Some(format!(
            "at least one of these fields must be non-empty: {}",
            names.join(", ")
        ));
    }
    let by = config.get("limit_by").and_then(Value::as_str);
    let needed = match by {
        Some("header") => Some("header_name"),
        Some("path") => Some("path"),
        _ => None,
    };
    if needed.is_some_and(|field| !config.contains_key(field)) {
        return Some(
            "failed conditional validation given value of field 'config.limit_by'".to_owned(),
        );
    }
    limits.windows(2).find_map(|pair| {
        let ((short, few), (long, many)) = (pair[0], pair[1]);
        (many < few).then(|| {
            format!(
                "The limit for {long}({many:?}) cannot be lower than the limit for {short}({few:?})"
            )
        })
    })
}
