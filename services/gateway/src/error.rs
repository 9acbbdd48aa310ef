//! Error responses of the Admin API: status and body, worded as in Kong.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hookline_shared::same_site;
use serde_json::{Value, json};

use crate::access::{self, Caller};
use crate::admin::response;
use crate::ingest;
use crate::limits::TooFast;
use crate::metrics::RefusedLabel;
use crate::schema::Violations;
use crate::store;

/// Why a request failed. The display text is the response's `message`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("Not found")]
    NotFound,
    #[error(transparent)]
    Refused(#[from] access::Refused),
    /// Carries the user's name, and what they wanted to do.
    #[error("{0}, you do not have permissions to {1} this resource")]
    Forbidden(String, &'static str),
    /// Carries the methods that are allowed.
    #[error("Method not allowed")]
    MethodNotAllowed(&'static str),
    #[error("Unsupported Media Type")]
    UnsupportedMediaType,
    /// Carries the limit in bytes.
    #[error(
        "Payload too large: a request body may have at most {0} bytes (HOOKLINE_ADMIN_MAX_BODY)"
    )]
    BodyTooLarge(usize),
    #[error("Too many headers: a request may have at most {0} (HOOKLINE_ADMIN_MAX_HEADERS)")]
    TooManyHeaders(usize),
    #[error(
        "Too many arguments: a query or form may have at most {0} (HOOKLINE_ADMIN_MAX_ARGUMENTS)"
    )]
    TooManyArguments(usize),
    #[error("it nests too deep: at most {0} levels may be (HOOKLINE_ADMIN_MAX_NESTING)")]
    TooDeep(u64),
    #[error("Arguments are nested too deep: at most {0} levels may be in a form")]
    FormTooDeep(usize),
    #[error(transparent)]
    TooFast(#[from] TooFast),
    #[error(transparent)]
    CrossSite(#[from] same_site::Refused),
    #[error("Request timeout")]
    BodyTimeout,
    #[error("{0}")]
    BadRequest(&'static str),
    /// Carries those that are known.
    #[error("unknown parameter '{0}' (known: {1})")]
    Parameter(String, &'static str),
    /// Carries the reason.
    #[error("it is no event: {0}; another `subject` or other `data` may be given")]
    NoEvent(String),
    #[error("{}", .0.message())]
    Schema(Violations),
    /// Carries what is wrong, and where.
    #[error("declarative config is invalid: {0}")]
    Declarative(String, Value),
    /// Carries it, and what is wrong with it.
    #[error("'{0}' is not a valid offset: {1}")]
    Offset(String, &'static str),
    #[error("{0}")]
    Size(&'static str),
    #[error("invalid option (tags: {0})")]
    Tags(&'static str),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the node is starting: its entities are not loaded yet")]
    Starting,
    #[error("too many requests are in hand, try again")]
    Busy,
    #[error(transparent)]
    Ingest(#[from] ingest::Refused),
    #[error(transparent)]
    NoEvents(#[from] ingest::Malformed),
    #[error("no dispatcher is running: dispatchers ping and test hooks, start one and try again")]
    NoDispatcher,
    #[error(
        "{0} deliveries of this hook wait already, as many as may: try again when some are made"
    )]
    BacklogFull(u64),
    #[error("NATS' storage is nearly full: nothing can be replayed until there is room")]
    StorageScarce,
    #[error("the dispatcher did not answer in time")]
    DispatcherTimeout,
    /// A fault of this service; the cause is in the log.
    #[error("An unexpected error occurred")]
    Internal,
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        Self::Schema(violations)
    }
}

/// Kong's name for one of its error codes.
fn name(code: u8) -> &'static str {
    match code {
        2 => "schema violation",
        3 => "primary key violation",
        4 => "foreign key violation",
        5 => "unique constraint violation",
        7 => "invalid offset",
        9 => "invalid size",
        11 => "invalid options",
        13 => "foreign keys unresolved",
        14 => "invalid declarative configuration",
        _ => "",
    }
}

impl ApiError {
    pub(crate) fn declarative(problems: &Violations) -> Self {
        Self::Declarative(problems.list(), problems.fields())
    }

    pub(crate) fn forbidden(caller: &Caller) -> Self {
        let name = caller.user.as_ref().map(|user| user.name.clone());
        let action = caller
            .asks
            .as_ref()
            .map_or("use", |(_, action)| (*action).into());
        Self::Forbidden(name.unwrap_or_default(), action)
    }

    /// Status, Kong's error code (0: none) and the value of `fields`.
    fn parts(&self) -> (StatusCode, u8, Value) {
        use store::Error as Store;
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        let plain = |status| (status, 0, Value::Null);
        match self {
            Self::NotFound | Self::Store(Store::BeingDeleted) => plain(StatusCode::NOT_FOUND),
            Self::MethodNotAllowed(_) => plain(StatusCode::METHOD_NOT_ALLOWED),
            Self::UnsupportedMediaType => plain(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::BodyTooLarge(_) | Self::Store(Store::TooLarge | Store::LargeEvent(_)) => {
                plain(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::CrossSite(_) | Self::Forbidden(..) | Self::Store(Store::NoRoom(_)) => {
                plain(StatusCode::FORBIDDEN)
            }
            Self::TooManyHeaders(_) => plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::TooFast(_) => plain(StatusCode::TOO_MANY_REQUESTS),
            Self::Refused(refused) => plain(refused.status()),
            Self::Ingest(refused) => plain(refused.status()),
            Self::NoEvents(malformed) => plain(malformed.status()),
            Self::BodyTimeout => plain(StatusCode::REQUEST_TIMEOUT),
            Self::BadRequest(_)
            | Self::TooManyArguments(_)
            | Self::TooDeep(_)
            | Self::FormTooDeep(_)
            | Self::Parameter(..)
            | Self::NoEvent(_)
            | Self::Store(
                Store::DefaultWorkspace | Store::BuiltIn(_) | Store::TooManyReferences(_),
            ) => plain(BAD),
            Self::Schema(violations) => (BAD, 2, violations.fields()),
            Self::Store(Store::PrimaryKey { id }) => (BAD, 3, json!({"id": id})),
            Self::Store(Store::MissingParent {
                field, key, value, ..
            }) => (BAD, 4, json!({*field: {*key: value}})),
            Self::Store(Store::Referenced { by, .. }) => (BAD, 4, json!({"@referenced_by": by})),
            Self::Store(Store::Unique { field, value }) => {
                (StatusCode::CONFLICT, 5, json!({*field: value}))
            }
            Self::Store(Store::Together { fields, .. }) => {
                (StatusCode::CONFLICT, 5, fields.clone())
            }
            Self::Store(Store::Unresolved {
                field,
                kind,
                key,
                value,
            }) => {
                let message = format!(
                    "the foreign key cannot be resolved with '{{{key}=\"{value}\"}}' for an existing '{kind}' entity"
                );
                (BAD, 13, json!({*field: {*key: message}}))
            }
            Self::Declarative(_, fields) => (BAD, 14, fields.clone()),
            Self::Offset(..) => (BAD, 7, Value::Null),
            Self::Size(_) => (BAD, 9, Value::Null),
            Self::Tags(message) => (BAD, 11, json!({"tags": message})),
            Self::Store(
                Store::Full
                | Store::Contended
                | Store::Unavailable(_)
                | Store::NoBucket
                | Store::NotAtomic
                | Store::Lost(_)
                | Store::Unknown,
            )
            | Self::BacklogFull(_)
            | Self::StorageScarce
            | Self::NoDispatcher
            | Self::Busy
            | Self::Starting => plain(StatusCode::SERVICE_UNAVAILABLE),
            Self::DispatcherTimeout => plain(StatusCode::GATEWAY_TIMEOUT),
            Self::Store(Store::Stale | Store::Refused(_)) | Self::Internal => {
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// Why the request was not let in, if it was not.
    pub(crate) fn refusal(&self) -> Option<RefusedLabel> {
        use access::Refused;
        Some(match self {
            Self::Refused(Refused::NoToken) => RefusedLabel::NoToken,
            Self::Refused(Refused::WrongToken) => RefusedLabel::WrongToken,
            Self::Refused(Refused::TooMany(_)) => RefusedLabel::TooMany,
            Self::Forbidden(..) => RefusedLabel::Forbidden,
            Self::CrossSite(_) => RefusedLabel::CrossSite,
            Self::TooFast(_) => RefusedLabel::TooFast,
            _ => return None,
        })
    }

    /// Whether the condition is logged when it begins and ends, so that single requests need no log.
    fn is_logged_elsewhere(&self) -> bool {
        use store::Error as Store;
        matches!(
            self,
            Self::Starting
                | Self::NoDispatcher
                | Self::Busy
                | Self::BacklogFull(_)
                | Self::StorageScarce
                | Self::Store(Store::Full | Store::Unavailable(_) | Store::NoBucket)
                | Self::Ingest(ingest::Refused::Store(_))
        )
    }

    /// Builds the response. Server errors are logged here; a 500 says only a fixed sentence.
    #[must_use]
    pub(crate) fn into_response(self) -> Response {
        let (status, code, fields) = self.parts();
        if status.is_server_error() {
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            if self.is_logged_elsewhere() {
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
            // As in Kong, only invalid options have a key of their own.
            body[if code == 11 { "options" } else { "fields" }] = fields;
        }
        let mut response = response::json(status, &body);
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::Refused(access::Refused::TooMany(wait))
        | Self::Ingest(ingest::Refused::TooMany(wait))
        | Self::TooFast(TooFast { wait, .. }) = &self
        {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = match &self {
                Self::Ingest(_) => "Bearer",
                _ => "Kong-Admin-Token",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
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

    async fn answer(error: ApiError) -> (u16, Value) {
        let response = error.into_response();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_taken_name_reads_as_in_kong() {
        let error = store::Error::Unique {
            field: "username",
            value: "bob".into(),
        };
        assert_eq!(
            answer(error.into()).await,
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
    async fn a_schema_violation_reads_as_in_kong() {
        assert_eq!(
            answer(Violations::of("foo", "unknown field").into()).await,
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
    async fn foreign_key_violations_read_as_in_kong() {
        let error = store::Error::MissingParent {
            field: "service",
            kind: "services",
            key: "id",
            value: "x".into(),
        };
        assert_eq!(
            answer(error.into()).await,
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
            answer(error.into()).await,
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
    async fn temporary_errors_say_when_to_retry() {
        let response = ApiError::from(store::Error::Full).into_response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
