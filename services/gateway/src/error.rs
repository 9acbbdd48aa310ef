//! What the Admin API answers when it cannot do what was asked: status and body, in Kong's words.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::admin::response;
use crate::schema::Violations;
use crate::store;

/// Why a request is not answered as asked. The text of each is its `message`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// There is nothing there.
    #[error("Not found")]
    NotFound,
    /// The path is there, but not for this method; those it is there for are named.
    #[error("Method not allowed")]
    MethodNotAllowed(&'static str),
    /// The body is of no type that is understood.
    #[error("Unsupported Media Type")]
    UnsupportedMediaType,
    /// The body is larger than the limit in bytes.
    #[error("Payload too large: a request body may have at most {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    #[error("Request timeout")]
    BodyTimeout,
    /// The request cannot be read.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The entity is not as its kind wants it.
    #[error("{}", .0.message())]
    Schema(Violations),
    /// The `offset` of a list is none that was given out.
    #[error("'{0}' is not a valid offset: it was not made by this service")]
    Offset(String),
    /// The `size` of a list is no number from 1 to 1000.
    #[error("{0}")]
    Size(&'static str),
    /// The `tags` of a list cannot be understood.
    #[error("invalid option (tags: {0})")]
    Tags(&'static str),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The entities are not loaded yet.
    #[error("the node is starting: its entities are not loaded yet")]
    Starting,
    /// No dispatcher runs.
    #[error(
        "no dispatcher is running: a hook is pinged and tested by a dispatcher, start one and try again"
    )]
    NoDispatcher,
    /// A dispatcher was asked but did not answer.
    #[error("the dispatcher did not answer in time")]
    DispatcherTimeout,
    /// The service is shutting down or has a fault; the cause is in the log.
    #[error("An unexpected error occurred")]
    Internal,
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        Self::Schema(violations)
    }
}

/// Kong's names of its error codes.
fn name(code: u8) -> &'static str {
    match code {
        2 => "schema violation",
        3 => "primary key violation",
        4 => "foreign key violation",
        5 => "unique constraint violation",
        7 => "invalid offset",
        9 => "invalid size",
        11 => "invalid options",
        _ => "",
    }
}

impl ApiError {
    /// Status, Kong's code (0: none) and what stands in `fields`.
    fn told(&self) -> (StatusCode, u8, Value) {
        use store::Error as Store;
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        let plain = |status| (status, 0, Value::Null);
        match self {
            Self::NotFound => plain(StatusCode::NOT_FOUND),
            Self::MethodNotAllowed(_) => plain(StatusCode::METHOD_NOT_ALLOWED),
            Self::UnsupportedMediaType => plain(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::BodyTooLarge(_) | Self::Store(Store::TooLarge) => {
                plain(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::BodyTimeout => plain(StatusCode::REQUEST_TIMEOUT),
            Self::BadRequest(_) | Self::Store(Store::DefaultWorkspace) => plain(BAD),
            Self::Schema(violations) => (BAD, 2, violations.fields()),
            Self::Store(Store::PrimaryKey { id }) => (BAD, 3, json!({"id": id})),
            Self::Store(Store::MissingParent {
                field, key, value, ..
            }) => (BAD, 4, json!({*field: {*key: value}})),
            Self::Store(Store::Referenced { by, .. }) => (BAD, 4, json!({"@referenced_by": by})),
            Self::Store(Store::Unique { field, value }) => {
                (StatusCode::CONFLICT, 5, json!({*field: value}))
            }
            Self::Offset(_) => (BAD, 7, Value::Null),
            Self::Size(_) => (BAD, 9, Value::Null),
            Self::Tags(message) => (BAD, 11, json!({"tags": message})),
            Self::Store(
                Store::Full | Store::Contended | Store::Unavailable(_) | Store::Unknown,
            )
            | Self::NoDispatcher
            | Self::Starting => plain(StatusCode::SERVICE_UNAVAILABLE),
            Self::DispatcherTimeout => plain(StatusCode::GATEWAY_TIMEOUT),
            Self::Store(Store::Stale | Store::Refused(_)) | Self::Internal => {
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// Whether the state behind it is logged once, where it begins and ends, so that its many
    /// requests need not be.
    fn is_told_elsewhere(&self) -> bool {
        use store::Error as Store;
        matches!(
            self,
            Self::Starting | Self::NoDispatcher | Self::Store(Store::Full | Store::Unavailable(_))
        )
    }

    /// The answer. What is the service's own fault is logged here, and told in a fixed sentence.
    #[must_use]
    pub(crate) fn into_response(self) -> Response {
        let (status, code, fields) = self.told();
        if status.is_server_error() {
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            if self.is_told_elsewhere() {
                tracing::debug!(error = %self, cause, "request refused");
            } else {
                tracing::warn!(error = %self, cause, status = status.as_u16(), "request failed");
            }
        }
        let message = match status {
            StatusCode::INTERNAL_SERVER_ERROR => Self::Internal.to_string(),
            _ => self.to_string(),
        };
        let mut body = json!({});
        if code > 0 {
            body["code"] = json!(code);
            body["name"] = json!(name(code));
        }
        body["message"] = json!(message);
        if !fields.is_null() {
            // Kong's one exception is that of invalid options.
            body[if code == 11 { "options" } else { "fields" }] = fields;
        }
        let mut response = response::json(status, &body);
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::MethodNotAllowed(methods) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(error: ApiError) -> (u16, Value) {
        let response = error.into_response();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_taken_name_is_told_as_in_kong() {
        let error = store::Error::Unique {
            field: "username",
            value: "bob".into(),
        };
        assert_eq!(
            told(error.into()).await,
            (
                409,
                json!({
                    "code": 5, "name": "unique constraint violation",
                    "message": "UNIQUE violation detected on '{username=\"bob\"}'",
                    "fields": {"username": "bob"},
                })
            )
        );
    }

    #[tokio::test]
    async fn a_schema_violation_is_told_as_in_kong() {
        assert_eq!(
            told(Violations::of("foo", "unknown field").into()).await,
            (
                400,
                json!({
                    "code": 2, "name": "schema violation",
                    "message": "schema violation (foo: unknown field)",
                    "fields": {"foo": "unknown field"},
                })
            )
        );
    }

    #[tokio::test]
    async fn foreign_keys_are_told_as_in_kong() {
        let error = store::Error::MissingParent {
            field: "service",
            kind: "services",
            key: "id",
            value: "x".into(),
        };
        assert_eq!(
            told(error.into()).await,
            (
                400,
                json!({
                    "code": 4, "name": "foreign key violation",
                    "message": "the foreign key '{id=\"x\"}' does not reference an existing 'services' entity.",
                    "fields": {"service": {"id": "x"}},
                })
            )
        );
        let error = store::Error::Referenced {
            kind: "services",
            by: "routes",
        };
        assert_eq!(
            told(error.into()).await,
            (
                400,
                json!({
                    "code": 4, "name": "foreign key violation",
                    "message": "an existing 'routes' entity references this 'services' entity",
                    "fields": {"@referenced_by": "routes"},
                })
            )
        );
    }

    #[tokio::test]
    async fn what_passes_says_when_to_come_back() {
        let response = ApiError::from(store::Error::Full).into_response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
