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
        Field::record("meta", META),
        Field::record("config", CONFIG),
    ],
    ..Schema::PLAIN
};

const META: &[Field] = &[Field::string("color"), Field::string("thumbnail")];
const CONFIG: &[Field] = &[Field::string("meta"), Field::boolean("portal")];

/// First segments of paths that do not name a kind, here or in Kong's Admin API: a workspace of that name would lose
/// its entities once there is such a path.
const RESERVED: &[&str] = &[
    ".",
    "..",
    "acls",
    "audit",
    "auth",
    "basic-auths",
    "ca_certificates",
    "cache",
    "certificates",
    "clustering",
    "config",
    "console",
    "consumer_groups",
    "dead-events",
    "debug",
    "developers",
    "docs",
    "endpoints",
    "entities",
    "events",
    "files",
    "groups",
    "healthz",
    "hmac-auths",
    "jwts",
    "key-auths",
    "key-sets",
    "keyring",
    "keys",
    "kong",
    "license",
    "licenses",
    "metrics",
    "oauth2",
    "oauth2_tokens",
    "plugins",
    "rbac",
    "readyz",
    "scaling",
    "schemas",
    "session",
    "snis",
    "status",
    "tags",
    "targets",
    "timers",
    "upstreams",
    "userinfo",
    "vaults",
];

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
