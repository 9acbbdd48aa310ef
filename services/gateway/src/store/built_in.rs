//! The roles that every workspace has. They are in no bucket: they come into a node's view with their workspace, whose
//! id theirs follow from.

use serde_json::{Value, json};

use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE};

use super::row::Row;
use crate::access::MAX_SEGMENTS;
use crate::schema::{BUILT_IN, Entity, Schema, derived_id};

/// What the role `admin` does not reach, with all that is beneath: who may do what, and who did.
const ADMIN_NOT: [&str; 3] = ["/admins", "/audit", "/rbac"];
const ALL: &[&str] = &["create", "delete", "read", "update"];

/// What a workspace brings with it; nothing for another kind of entity.
pub(super) fn rows(row: &Row) -> Vec<Row> {
    let name = row.entity.get("name").and_then(Value::as_str);
    let Some(name) = name.filter(|_| row.schema.kind == Schema::workspaces().kind) else {
        return Vec::new();
    };
    BUILT_IN
        .into_iter()
        .flat_map(|role| role_rows(role, name, row))
        .collect()
}

fn role_rows(role: &str, workspace: &str, of: &Row) -> Vec<Row> {
    // The roles of the default workspace reach all of them.
    let reach = match workspace {
        DEFAULT_WORKSPACE => ALL_WORKSPACES,
        name => name,
    };
    // The same on every node, but different in a workspace that was deleted and created again.
    let role_id = derived_id(&[&of.id, role]);
    let reached = match reach {
        ALL_WORKSPACES => "all workspaces",
        _ => "this workspace",
    };
    let comment = match role {
        "super-admin" => format!("may do everything in {reached}"),
        "admin" => format!("may do everything in {reached}, but not say who may"),
        _ => format!("may read everything in {reached}"),
    };
    let entity = json!({
        "id": role_id, "name": role, "comment": comment, "is_default": false,
        "created_at": of.created_at(), "updated_at": of.created_at(),
    });
    let mut rows = vec![new(Schema::rbac_roles(), workspace, &role_id, entity)];
    let mut endpoint = |endpoint: &str, actions: &[&str], negative: bool| {
        let id = derived_id(&[&role_id, endpoint]);
        let entity = json!({
            "id": id, "role": { "id": role_id }, "workspace": reach, "endpoint": endpoint,
            "actions": actions, "negative": negative,
            "created_at": of.created_at(), "updated_at": of.created_at(),
        });
        rows.push(new(Schema::rbac_role_endpoints(), workspace, &id, entity));
    };
    endpoint(
        "*",
        if role == "read-only" { &["read"] } else { ALL },
        false,
    );
    if role == "admin" {
        for top in ADMIN_NOT {
            // A star is one segment.
            for beneath in 0..MAX_SEGMENTS {
                endpoint(&format!("{top}{}", "/*".repeat(beneath)), ALL, true);
            }
        }
    }
    rows
}

fn new(schema: &'static Schema, workspace: &str, id: &str, entity: Value) -> Row {
    let entity: Entity = match entity {
        Value::Object(entity) => entity,
        _ => Entity::new(),
    };
    Row::built_in(schema, workspace, id.to_owned(), entity)
}
