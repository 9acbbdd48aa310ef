//! The result of an attempt, and what follows from a failure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookline_shared::{lua, template};
use reqwest::header::HeaderMap;

use super::code_pool::Failure;
use crate::metrics::{AttemptResult, Death};

#[derive(Debug, Clone)]
pub(crate) enum Receipt {
    /// The receiver's answer.
    Response(Box<Response>),
    /// Done in this process.
    Done,
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Up to a cap.
    pub body: Bytes,
}

/// Why an attempt failed. The text goes into dead letters and logs: it holds no body, header or
/// credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("cannot connect: {1}")]
    Connect(Unreached, #[source] BoxError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke before the answer was complete, or the answer was not HTTP.
    #[error("the answer broke off: {0}")]
    Broken(#[source] BoxError),
    #[error("the receiver answered {}", .response.status)]
    Status {
        response: Box<Response>,
        /// As the receiver asks.
        retry_after: Option<Duration>,
    },
    #[error("{0} is not a public address, and HOOKLINE_EGRESS_ALLOW does not list it")]
    EgressRefused(IpAddr),
    #[error("{part}: {source}")]
    Template {
        /// The part of the request, such as `config.body`.
        part: &'static str,
        source: template::Error,
    },
    #[error("the request cannot be made: {0}")]
    Request(&'static str),
    /// Raised by a lambda.
    #[error("{0}")]
    Script(lua::Error),
    #[error("the function returned false")]
    Declined,
    #[error("the hook cannot be used: {0}")]
    Unusable(Arc<str>),
    #[error("the handler failed unexpectedly")]
    Panicked,
    /// Neither its limits nor this process can stop the hook's script or template.
    #[error("the hook's code does not come back, it blocks a thread")]
    Stuck,
}

impl From<Failure> for DeliveryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked => Self::Panicked,
            Failure::Stuck => Self::Stuck,
        }
    }
}

/// What failed before a request could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreached {
    Connect,
    Tls,
    Dns,
    /// The proxy is away, or lets this dispatcher not in.
    Proxy,
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Try again by the schedule, but not before the time that the receiver asks for.
    Retry(Option<Duration>),
    /// Try a few times within minutes: a failed deploy looks like this for a while. As [`Self::Retry`], not before the
    /// time that the receiver asks for.
    RetryBriefly(Option<Duration>),
    /// Another attempt would fail in the same way.
    Dead,
    /// The receiver is gone, or the hook's code cannot be stopped: dead, and the hook is paused.
    Pause,
}

impl DeliveryError {
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Connect(..) | Self::Timeout(_) | Self::Broken(_) | Self::Panicked => {
                Class::Retry(None)
            }
            Self::Status {
                response,
                retry_after,
            } => class(response.status, *retry_after),
            // The policy is the operator's to mend, and a name may get another address.
            Self::EgressRefused(_) => Class::RetryBriefly(None),
            // Until template or script change the result is the same. Replay is for that.
            Self::Template { .. } | Self::Request(_) | Self::Unusable(_) => Class::Dead,
            // On a loaded machine another try may meet the time limit.
            Self::Script(lua::Error::Time(_)) | Self::Declined => Class::Retry(None),
            Self::Script(_) => Class::Dead,
            Self::Stuck => Class::Pause,
        }
    }
}

impl DeliveryError {
    #[must_use]
    pub(crate) fn result(&self) -> AttemptResult {
        match self {
            Self::Connect(Unreached::Connect, _) => AttemptResult::Connect,
            Self::Connect(Unreached::Tls, _) => AttemptResult::Tls,
            Self::Connect(Unreached::Dns, _) => AttemptResult::Dns,
            Self::Connect(Unreached::Proxy, _) => AttemptResult::Proxy,
            Self::Timeout(_) => AttemptResult::Timeout,
            Self::Broken(_) => AttemptResult::Broken,
            Self::Status { response, .. } => match response.status {
                300..400 => AttemptResult::Http3xx,
                400..500 => AttemptResult::Http4xx,
                _ => AttemptResult::Http5xx,
            },
            Self::EgressRefused(_) => AttemptResult::Egress,
            Self::Template { .. } | Self::Request(_) => AttemptResult::Template,
            Self::Script(_) | Self::Declined | Self::Stuck => AttemptResult::Script,
            Self::Unusable(_) | Self::Panicked => AttemptResult::Internal,
        }
    }

    /// Why the delivery is dead after the last of its attempts failed in this way.
    #[must_use]
    pub(crate) fn death(&self) -> Death {
        match self.class() {
            Class::Pause if self.status().is_some() => Death::Gone,
            Class::RetryBriefly(_) if self.status().is_some() => Death::Refused,
            _ => match self.result() {
                AttemptResult::Egress => Death::Egress,
                AttemptResult::Template => Death::Template,
                // It may succeed another time, and did not until the end.
                AttemptResult::Script if matches!(self.class(), Class::Retry(_)) => {
                    Death::Exhausted
                }
                AttemptResult::Script => Death::Script,
                AttemptResult::Internal => Death::Internal,
                _ => Death::Exhausted,
            },
        }
    }

    /// The receiver's status, if it answered.
    #[must_use]
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { response, .. } => Some(response.status),
            _ => None,
        }
    }

    /// Whether the failure counts against the hook's circuit.
    #[must_use]
    pub(crate) fn is_receivers_fault(&self) -> bool {
        match self {
            Self::Connect(Unreached::Proxy, _) => false,
            Self::Connect(..) | Self::Timeout(_) | Self::Broken(_) | Self::Status { .. } => true,
            // A script may decline as a filter.
            Self::EgressRefused(_)
            | Self::Template { .. }
            | Self::Request(_)
            | Self::Unusable(_)
            | Self::Panicked
            | Self::Declined
            | Self::Stuck
            | Self::Script(_) => false,
        }
    }
}

/// What follows from a status that is not 2xx.
fn class(status: u16, retry_after: Option<Duration>) -> Class {
    match status {
        410 => Class::Pause,
        408 | 425 | 429 | 500.. => Class::Retry(retry_after),
        _ => Class::RetryBriefly(retry_after),
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
            assert_eq!(class(status, None), Class::RetryBriefly(None), "{status}");
        }
        assert_eq!(class(410, None), Class::Pause);
    }
}
