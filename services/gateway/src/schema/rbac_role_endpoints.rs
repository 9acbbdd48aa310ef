//! What a role permits or forbids: paths of the Admin API, by workspace and action.

use serde_json::{Value, json};

use super::field::{Default, Field};
use super::table::{Entity, Schema};
use super::violations::Violations;

const ACTIONS: &[&str] = &["create", "delete", "read", "update"];

pub(super) static TABLE: Schema = Schema {
    kind: "rbac_role_endpoints",
    path: "endpoints",
    is_top_level: false,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::foreign("role", "rbac_roles").required().immutable(),
        Field::string("workspace").required().immutable(),
        Field::string("endpoint")
            .required()
            .immutable()
            .rule(endpoint),
        Field::set("actions", &ACTION).default(Default::Texts(ACTIONS)),
        Field::boolean("negative").default(Default::Boolean(false)),
        Field::string("comment"),
    ],
    shorthand: Some(list_actions),
    ..Schema::PLAIN
};

static ACTION: Field = Field::string("").one_of(ACTIONS);

/// `*`, or a path without a workspace, in which `*` stands for one segment.
fn endpoint(value: &Value) -> Result<(), String> {
    let endpoint = value.as_str().unwrap_or_default();
    if endpoint == "*" || endpoint.starts_with('/') && !endpoint.contains("//") {
        return Ok(());
    }
    Err("must be * or a path that begins with /, such as /consumers/*".to_owned())
}

/// As Kong's clients send them: `read,create`, or `*` for all.
fn list_actions(values: &mut Entity, _: &mut Violations) {
    let Some(actions) = values.get_mut("actions") else {
        return;
    };
    let words: Vec<&str> = match &*actions {
        Value::String(text) => vec![text.as_str()],
        // Elements of other types are left for the check.
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect()
        }
        _ => return,
    };
    let given = words.iter().flat_map(|words| words.split(','));
    let given: Vec<&str> = given.map(str::trim).collect();
    *actions = if given.contains(&"*") {
        json!(ACTIONS)
    } else {
        json!(given)
    };
}
