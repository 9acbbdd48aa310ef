//! The Admin API as an OpenAPI 3.1 document, made of the tables of paths and kinds, and a page that shows it.

mod operations;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::routes::Route;
use crate::schema::{For, Schema};

const PAGE: &str = include_str!("openapi/page.html");

/// `with_tokens`: whether requests need one.
pub(super) fn document(version: &str, with_tokens: bool) -> Value {
    let mut paths = Map::new();
    for route in Route::all() {
        let item = paths
            .entry(path(&route.pattern))
            .or_insert_with(|| json!({}));
        operations::add(item, route, with_tokens);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hookline's Admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": format!("Kong's Admin API {version}, with event hooks."),
            "description": "Bodies may be JSON, or forms (application/x-www-form-urlencoded, \
                multipart/form-data) whose names have dots and brackets for records and lists: \
                config.url=..., tags[]=a. A path may have a workspace before it.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [
            { "url": "/", "description": "The workspace `default`; of hooks, all workspaces." },
            {
                "url": "/{workspace}",
                "variables": { "workspace": { "default": "default" } },
                "description": "One workspace.",
            },
        ],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "Kong-Admin-Token" },
            },
            "responses": {
                "Error": {
                    "description": "Why the request failed.",
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
                },
            },
        },
    })
}

/// A pattern as OpenAPI writes it.
fn path(pattern: &str) -> String {
    pattern.replace("{*", "{")
}

/// The kinds, each with what its file says of it.
fn tags() -> Value {
    let mut kinds: Vec<_> = Route::all().iter().map(|route| route.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
        .into_iter()
        .map(|kind| json!({ "name": kind }))
        .collect()
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for schema in Schema::kinds() {
        for of in [For::Answer, For::Create, For::Update] {
            let mut described = schema.json_schema(of);
            operations::add_extras(schema, of, &mut described);
            schemas.insert(component(schema, of), described);
            schemas.extend(schema.form_schemas(of));
        }
        let of = json!({ "$ref": format!("#/components/schemas/{}", schema.kind) });
        schemas.insert(format!("{}-page", schema.kind), page(&of));
    }
    schemas.insert(
        "Error".to_owned(),
        json!({
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": { "type": "string" },
                "name": { "type": "string" },
                "code": { "type": "integer" },
                "fields": {},
                "options": {},
            },
            "additionalProperties": false,
        }),
    );
    schemas
}

fn component(schema: &Schema, of: For) -> String {
    let suffix = match of {
        For::Answer => "",
        For::Create => "-create",
        For::Update => "-update",
    };
    format!("{}{suffix}", schema.kind)
}

/// One page of a list.
fn page(of: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["data", "next"],
        "properties": {
            "data": { "type": "array", "items": of },
            "next": { "type": ["string", "null"], "description": "The path of the next page." },
            "offset": { "type": "string", "description": "Of the next page." },
        },
    })
}

/// The page loads nothing but the document.
pub(super) fn show_page() -> Response {
    let policy = format!(
        "default-src 'none'; connect-src 'self'; style-src '{}'; script-src '{}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest("style"),
        digest("script"),
    );
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Of what an element of the page has, as its policy names it.
fn digest(element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = PAGE
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    let inside = inside.map(|(inside, _)| inside).unwrap_or_default();
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(inside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_described_once_and_every_name_is_there() {
        let document = document("3.9.1", true);
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), Route::all().len());
        // Two patterns that differ in names only would be one path.
        let mut forms: Vec<_> = paths.keys().map(|path| form(path)).collect();
        forms.sort_unstable();
        forms.dedup();
        assert_eq!(forms.len(), paths.len());
        let text = document.to_string();
        for part in text.split("\"#/components/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            let pointer = format!("/components/{name}");
            assert!(document.pointer(&pointer).is_some(), "{name}");
        }
    }

    fn form(path: &str) -> String {
        let parts = path
            .split('/')
            .map(|part| if part.starts_with('{') { "{}" } else { part });
        parts.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for from in ["http:", "https:", "//cdn", " src=", " href="] {
            assert!(!PAGE.contains(from), "{from}");
        }
    }
}
