//! Event hooks. The config depends on the handler. The shared crate validates templates, Lua and URLs,
//! so that gateway and dispatcher agree.

use std::sync::LazyLock;

use serde_json::Value;

use hookline_shared::hook::{ConfigField, HANDLERS, HandlerForm, Hook, Kind};
use hookline_shared::subject::{AUTHORITY_KIND, CERTIFICATE_KIND, HOOK_KIND};

use super::field::{Default, Field, Form, TEXT, Variants};
use super::rules;
use super::table::{Entity, Schema, Scope, Use};
use super::violations::Violations;

pub(super) static TABLE: Schema = Schema {
    kind: HOOK_KIND,
    path: "event-hooks",
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
    uses: &[
        Use {
            field: "config.client_certificate",
            kind: CERTIFICATE_KIND,
        },
        Use {
            field: "config.ca_certificates",
            kind: AUTHORITY_KIND,
        },
    ],
    shorthand: Some(normalize),
    carry_over: Some(keep_previous_secret),
    deep_check: Some(can_be_prepared),
    ..Schema::PLAIN
};

static CONFIG: Variants = Variants {
    selector: "handler",
    unknown: "unknown type: {}",
    forms: || &FORMS,
};

/// The forms follow from the table of handlers.
static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let form = |handler: &HandlerForm| {
        let fields: Vec<_> = handler.fields.iter().map(config_field).collect();
        (handler.name, &*fields.leak())
    };
    HANDLERS.iter().map(form).collect()
});

fn config_field(field: &ConfigField) -> Field {
    let name = field.name;
    let form = match field.kind {
        Kind::Text => Field::string(name),
        Kind::Address => Field::string(name).address(),
        Kind::Code => Field::string(name).private(),
        Kind::Secret => Field::string(name).secret(),
        Kind::Headers => Field::map(name, &TEXT).default(Default::EmptyMap).private(),
        Kind::Map => Field::map(name, &TEXT).private(),
        Kind::Flag(default) => Field::boolean(name).default(Default::Boolean(default)),
        Kind::Codes => Field::array(name, &TEXT).private(),
        Kind::Time => Field::timestamp(name),
        Kind::Certificate => Field::foreign(name, CERTIFICATE_KIND),
        Kind::Authorities => Field::set(name, &ID),
    };
    if field.required {
        form.required()
    } else {
        form
    }
}

static ID: Field = Field::string("").rule(rules::uuid);
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

/// Whether the hook's receiver gets a ping.
pub(crate) fn is_pinged(hook: &Entity) -> bool {
    let handler = hook.get("handler").and_then(Value::as_str);
    let mut forms = HANDLERS.iter();
    forms.any(|form| form.is_pinged && Some(form.name) == handler)
}

/// What answers say beside the hook may come back. Ids are stored in lower case. Resuming a hook clears the reason for
/// its pause.
fn normalize(values: &mut Entity, _: &mut Violations) {
    for said in ["hears", "public_key", "warning"] {
        values.shift_remove(said);
    }
    for named in ["client_certificate", "ca_certificates"] {
        let config = values.get_mut("config");
        let ids = match config.and_then(|config| config.get_mut(named)) {
            Some(Value::Array(ids)) => ids.iter_mut().collect(),
            Some(Value::Object(one)) => one.values_mut().collect(),
            _ => Vec::new(),
        };
        for id in ids {
            if let Value::String(id) = id {
                id.make_ascii_lowercase();
            }
        }
    }
    let delivery = values.get_mut("delivery").and_then(Value::as_object_mut);
    if let Some(delivery) = delivery
        && delivery.get("paused") == Some(&Value::Bool(false))
    {
        delivery.insert("paused_reason".to_owned(), Value::Null);
    }
}

/// A secret that is replaced signs beside the new one until the end that the change gives it.
fn keep_previous_secret(current: &Entity, values: &mut Entity) {
    let config = |entity: &Entity, name: &str| entity.get("config")?.get(name).cloned();
    let given = |name: &str| config(values, name).filter(|value| !value.is_null());
    let old = config(current, "secret");
    let is_replaced = given("secret").is_some() && given("secret") != old;
    let ends = given("previous_secret_until");
    let has_new_end = ends.is_some() && ends != config(current, "previous_secret_until");
    let previous = given("previous_secret");
    let is_named = previous.is_some() && previous != config(current, "previous_secret");
    if let (true, true, false, Some(old)) = (is_replaced, has_new_end, is_named, old) {
        values["config"]["previous_secret"] = old;
    }
}

fn can_be_prepared(entity: &Entity, violations: &mut Violations) {
    match Hook::from_json(&Value::Object(entity.clone())) {
        Ok(hook) => {
            for violation in hook.validate_new() {
                let path: Vec<_> = violation.field.split('.').collect();
                violations.add(&path, violation.message);
            }
        }
        // The table above is stricter than the type, so this is our fault. The cause may quote values
        // and is not passed on.
        Err(_) => violations.add_entity("not an event hook"),
    }
}
