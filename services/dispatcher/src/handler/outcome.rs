//! What an attempt came to, and what follows from a failure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookline_shared::{lua, template};
use reqwest::header::HeaderMap;

/// What came of an attempt that succeeded.
#[derive(Debug, Clone)]
pub(crate) enum Receipt {
    /// A receiver took it.
    Response(Box<Response>),
    /// It was done in this process.
    Done,
}

/// What a receiver answered.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, up to a cap.
    pub body: Bytes,
}

/// Why an attempt failed. The text goes into dead letters and logs: it holds no body, header or
/// credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] BoxError),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke before the answer was complete, or the answer was no HTTP.
    #[error("the answer broke off: {0}")]
    Broken(#[source] BoxError),
    /// The receiver did not take it.
    #[error("the receiver answered {}", .response.status)]
    Status {
        /// What it answered.
        response: Box<Response>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The destination is not one that hooks may reach.
    #[error("{0} is not a public address, and HOOKLINE_EGRESS_ALLOW does not list it")]
    EgressRefused(IpAddr),
    /// A template could not be rendered with this event.
    #[error("{part}: {source}")]
    Template {
        /// Which part of the request.
        part: &'static str,
        /// Why.
        source: template::Error,
    },
    /// The request that the hook describes is none.
    #[error("the request cannot be made: {0}")]
    Request(&'static str),
    /// A lambda raised an error.
    #[error("{0}")]
    Script(lua::Error),
    /// A lambda returned `false`.
    #[error("the function returned false")]
    Declined,
    /// The hook cannot be prepared.
    #[error("the hook cannot be used: {0}")]
    Unusable(Arc<str>),
    /// The handler panicked.
    #[error("the handler failed unexpectedly")]
    Panicked,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Try again by the schedule, not before the time that the receiver asks for.
    Retry(Option<Duration>),
    /// Try a few times within minutes: a deploy gone wrong looks like this for a while.
    RetryBriefly,
    /// The same would happen again.
    Dead,
    /// The receiver is gone for good: the hook is paused as well.
    Gone,
}

impl DeliveryError {
    /// What follows from the failure.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Connect(_) | Self::Timeout(_) | Self::Broken(_) | Self::Panicked => {
                Class::Retry(None)
            }
            Self::Status {
                response,
                retry_after,
            } => class(response.status, *retry_after),
            // Another answer needs another policy, template or script; replay is there for that.
            Self::EgressRefused(_)
            | Self::Template { .. }
            | Self::Request(_)
            | Self::Unusable(_) => Class::Dead,
            // A machine under load runs slowly: time is the one limit that another try may meet.
            Self::Script(lua::Error::Time(_)) | Self::Declined => Class::Retry(None),
            Self::Script(_) => Class::Dead,
        }
    }
}

impl DeliveryError {
    /// Whether the receiver is to blame, which opens the hook's circuit if it goes on.
    #[must_use]
    pub(crate) fn is_receivers_fault(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout(_) | Self::Broken(_) | Self::Status { .. } => true,
            // A script that declines may be a filter.
            Self::EgressRefused(_)
            | Self::Template { .. }
            | Self::Request(_)
            | Self::Unusable(_)
            | Self::Panicked
            | Self::Declined
            | Self::Script(_) => false,
        }
    }
}

/// What follows from an answer that is not 2xx.
fn class(status: u16, retry_after: Option<Duration>) -> Class {
    match status {
        410 => Class::Gone,
        408 | 425 | 429 | 500.. => Class::Retry(retry_after),
        _ => Class::RetryBriefly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classed_as_documented() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert_eq!(class(status, None), Class::Retry(None), "{status}");
        }
        for status in [301, 302, 400, 401, 404, 409, 422] {
            assert_eq!(class(status, None), Class::RetryBriefly, "{status}");
        }
        assert_eq!(class(410, None), Class::Gone);
    }
}
