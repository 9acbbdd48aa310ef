//! Responses that handlers and errors share.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

use super::node::About;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

const YES: HeaderValue = HeaderValue::from_static("true");
/// Headers of requests of pages.
const ALLOWED: HeaderValue = HeaderValue::from_static("Content-Type, Kong-Admin-Token");
const HOUR: HeaderValue = HeaderValue::from_static("3600");

pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

pub(super) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

pub(super) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// What each answer has: the version that clients look for, and for pages of listed origins leave to read it.
pub(super) fn for_clients(response: &mut Response, about: &About, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    if let Some(server) = about.server() {
        headers.insert(header::SERVER, server);
    }
    let Some(origin) = origin else {
        return;
    };
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HOUR);
    }
}

pub(crate) fn options(methods: &'static str) -> Response {
    let methods = HeaderValue::from_static(methods);
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, methods.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    response
}
