//! Plugins that tell what passed.

use super::{flag, number};
use crate::schema::field::{Default, Field, TEXT};
use crate::schema::rules;

static LUA: Field = Field::string("");

const QUEUE: &[Field] = &[
    Field::integer("max_batch_size")
        .default(Default::Integer(1))
        .between(1, 1_000_000),
    number("max_coalescing_delay", 1).between(0, 3_600),
    Field::integer("max_entries")
        .default(Default::Integer(10_000))
        .between(1, 1_000_000),
    Field::integer("max_bytes"),
    number("max_retry_time", 60),
    Field::number("initial_retry_delay")
        .default(Default::Number(0.01))
        .between(0, 1_000_000),
    number("max_retry_delay", 60).between(0, 1_000_000),
    Field::integer("concurrency_limit")
        .default(Default::Integer(1))
        .one_of(&["-1", "1"]),
];

pub(super) const HTTP_LOG: &[Field] = &[
    Field::string("http_endpoint").required().rule(rules::url),
    Field::string("method")
        .default(Default::Text("POST"))
        .one_of(&["POST", "PUT", "PATCH"]),
    Field::string("content_type")
        .default(Default::Text("application/json"))
        .one_of(&["application/json", "application/json; charset=utf-8"]),
    number("timeout", 10_000),
    number("keepalive", 60_000),
    Field::integer("retry_count"),
    Field::integer("queue_size"),
    Field::number("flush_timeout"),
    Field::map("headers", &TEXT),
    Field::record("queue", QUEUE).required(),
    Field::map("custom_fields_by_lua", &LUA),
];

pub(super) const PROMETHEUS: &[Field] = &[
    flag("per_consumer", false),
    flag("status_code_metrics", false),
    flag("ai_metrics", false),
    flag("latency_metrics", false),
    flag("bandwidth_metrics", false),
    flag("upstream_health_metrics", false),
    flag("wasm_metrics", false),
];
