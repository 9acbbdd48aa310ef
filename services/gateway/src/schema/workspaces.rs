//! Workspaces, which contain other entities. A workspace's name is part of their keys, so it is
//! immutable.

use serde_json::Value;

use super::field::Field;
use super::rules;
use super::table::{Schema, Scope};

pub(super) static TABLE: Schema = Schema {
    kind: "workspaces",
    path: "workspaces",
    endpoint_key: Some("name"),
    scope: Scope::Global,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name")
            .unique()
            .required()
            .immutable()
            .rule(workspace_name),
        Field::string("comment"),
    ],
    shorthand: None,
    checks: &[],
    deep_check: None,
};

/// First segments of paths that do not name a kind.
const RESERVED: &[&str] = &[".", "..", "status", "metrics", "schemas", "dead-events"];

fn workspace_name(value: &Value) -> Result<(), String> {
    rules::plain_name(value)?;
    let name = value.as_str().unwrap_or_default();
    let reserved = RESERVED.contains(&name)
        || Schema::by_kind(name).is_some()
        || Schema::by_path(name).is_some();
    if reserved {
        Err(format!("'{name}' is a reserved name"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_workspace_has_the_name_of_a_path() {
        for name in ["status", "dead-events", "consumers", "event-hooks", ".."] {
            assert!(workspace_name(&name.into()).is_err(), "{name}");
        }
        assert_eq!(workspace_name(&"team".into()), Ok(()));
    }
}
