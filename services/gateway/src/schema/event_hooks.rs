//! Event hooks. The config depends on the handler. The shared crate validates templates, Lua and URLs,
//! so that gateway and dispatcher agree.

use serde_json::Value;

use hookline_shared::hook::Hook;
use hookline_shared::subject::HOOK_KIND;

use super::field::{Default, Field, TEXT, Variants};
use super::table::{Entity, Schema, Scope};
use super::violations::Violations;

pub(super) static TABLE: Schema = Schema {
    kind: HOOK_KIND,
    path: "event-hooks",
    endpoint_key: None,
    scope: Scope::WorkspaceOrAll,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("source").required(),
        Field::string("event"),
        Field::string("handler").required(),
        Field::integer("snooze").between(0, u32::MAX as i64),
        Field::boolean("on_change"),
        Field::polymorphic("config", &CONFIG),
        Field::record("delivery", DELIVERY),
    ],
    shorthand: Some(clear_paused_reason),
    checks: &[],
    deep_check: Some(can_be_prepared),
};

static CONFIG: Variants = Variants {
    selector: "handler",
    forms: &[
        ("webhook", WEBHOOK),
        ("webhook-custom", WEBHOOK_CUSTOM),
        ("log", &[]),
        ("lambda", LAMBDA),
    ],
};

const WEBHOOK: &[Field] = &[
    Field::string("url").required(),
    HEADERS,
    Field::string("secret").secret(),
    SSL_VERIFY,
];

const WEBHOOK_CUSTOM: &[Field] = &[
    Field::string("url").required(),
    Field::string("method").required(),
    HEADERS,
    Field::boolean("headers_format").default(Default::Boolean(false)),
    Field::map("payload", &TEXT),
    Field::boolean("payload_format").default(Default::Boolean(true)),
    Field::string("body"),
    Field::boolean("body_format").default(Default::Boolean(true)),
    Field::string("secret").secret(),
    SSL_VERIFY,
];

const LAMBDA: &[Field] = &[Field::array("functions", &TEXT).required()];

const HEADERS: Field = Field::map("headers", &TEXT)
    .default(Default::EmptyMap)
    .private();
const SSL_VERIFY: Field = Field::boolean("ssl_verify").default(Default::Boolean(true));

static SECONDS: Field = Field::number("");

const DELIVERY: &[Field] = &[
    Field::boolean("paused"),
    Field::string("paused_reason"),
    Field::integer("concurrency").between(0, u32::MAX as i64),
    Field::number("timeout"),
    Field::string("signature").one_of(&["sha256", "sha1"]),
    Field::array("retry", &SECONDS),
    Field::number("rate_limit"),
    Field::number("max_age"),
    Field::record("circuit_breaker", CIRCUIT_BREAKER),
];

const CIRCUIT_BREAKER: &[Field] = &[
    Field::integer("failures").between(0, u32::MAX as i64),
    Field::number("failure_rate"),
    Field::number("open"),
];

/// Resuming a hook clears the reason for its pause.
fn clear_paused_reason(values: &mut Entity, _: &mut Violations) {
    let delivery = values.get_mut("delivery").and_then(Value::as_object_mut);
    if let Some(delivery) = delivery
        && delivery.get("paused") == Some(&Value::Bool(false))
    {
        delivery.insert("paused_reason".to_owned(), Value::Null);
    }
}

fn can_be_prepared(entity: &Entity, violations: &mut Violations) {
    match Hook::from_json(&Value::Object(entity.clone())) {
        Ok(hook) => {
            for violation in hook.validate() {
                let path: Vec<_> = violation.field.split('.').collect();
                violations.add(&path, violation.message);
            }
        }
        // The table above is stricter than the type, so this is our fault. The cause may quote values
        // and is not passed on.
        Err(_) => violations.add_entity("not an event hook"),
    }
}
