//! `GET /schemas/...` and `POST /schemas/.../validate`.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::response;
use crate::error::ApiError;
use crate::schema::{Input, Schema};

/// Of a kind.
pub(super) fn of_kind(kind: &str) -> Response {
    match Schema::by_kind(kind) {
        Some(schema) => response::ok(&schema.describe()),
        // Which are no entities, but have a schema in Kong.
        None if kind == "tags" => response::ok(&json!({ "fields": [
            { "tag": { "type": "string", "required": true } },
            { "entity_name": { "type": "string", "required": true } },
            { "entity_id": { "type": "string", "required": true } },
        ] })),
        None => none("entity", kind),
    }
}

/// Of a plugin.
pub(super) fn of_plugin(name: &str) -> Response {
    match Schema::plugins().describe_form(name) {
        Some(described) => response::ok(&described),
        None => none("plugin", name),
    }
}

/// Whether an entity could be made of the input, as far as its schema says.
pub(super) fn validate(kind: &str, input: Input) -> Result<Response, ApiError> {
    let Some(schema) = Schema::by_kind(kind) else {
        return Ok(none("entity", kind));
    };
    schema.create(input)?;
    Ok(response::ok(
        &json!({ "message": "schema validation successful" }),
    ))
}

fn none(what: &str, name: &str) -> Response {
    let message = format!("No {what} named '{name}'");
    response::json(StatusCode::NOT_FOUND, &json!({ "message": message }))
}
