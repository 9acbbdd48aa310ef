//! Handlers: one call makes one attempt. No handler knows of retries, acks or queues.

pub(crate) mod egress;
mod http;
mod lambda;
mod log;
mod lua_literal;
mod lua_pool;
mod webhook;
mod webhook_custom;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hookline_shared::event::{DeliveryId, Event};
use hookline_shared::hook::{HandlerConfig, Hook};
use hookline_shared::signature::Signer;
use hookline_shared::{lua, template};
use reqwest::header::HeaderMap;

pub(crate) use http::Clients;
pub(crate) use lua_pool::Pool;

/// One event for one hook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// Its id, the same on every attempt.
    pub id: DeliveryId,
    /// The event.
    pub event: Arc<Event>,
    /// The event's name as the hook asked for it: `consumers:create`, say.
    pub event_name: Arc<str>,
}

impl Delivery {
    /// The originating process, or this one where the event does not say.
    #[must_use]
    pub(crate) fn pid(&self) -> u64 {
        // Asking is a system call.
        static OWN: LazyLock<u32> = LazyLock::new(std::process::id);
        self.event.pid.unwrap_or_else(|| (*OWN).into())
    }
}

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
            } => http::class(response.status, *retry_after),
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

/// Makes attempts for one hook.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    /// The handler's name, as in the hook.
    fn kind(&self) -> &'static str;

    /// Makes one attempt.
    ///
    /// # Errors
    /// [`DeliveryError`] tells why the event was not delivered.
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError>;
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// HTTP clients.
    pub clients: Arc<Clients>,
    /// Lua threads.
    pub lua: Pool,
    /// The time an attempt may take, unless the hook says otherwise.
    pub timeout: Duration,
}

/// Prepares a hook's handler: URLs, templates, Lua and keys are parsed here, once per change.
///
/// # Errors
/// A sentence that says what is wrong with the hook.
pub(crate) fn prepare(hook: &Hook, shared: &Shared) -> Result<Box<dyn Handler>, String> {
    if let Some(violation) = hook.validate().into_iter().next() {
        return Err(format!("{}: {}", violation.field, violation.message));
    }
    let options = hook.options();
    let timeout = options.attempt_timeout().unwrap_or(shared.timeout);
    let signer = |secret: &Option<hookline_shared::hook::Secret>| {
        let secret = secret.as_ref()?;
        Some(Signer::new(
            secret.expose(),
            options.signature.unwrap_or_default(),
        ))
    };
    let target = |url: &str, verify: bool| {
        http::Target::new(
            url,
            shared.clients.get(verify),
            timeout,
            shared.clients.policy(),
        )
    };
    Ok(match &hook.handler {
        HandlerConfig::Webhook(config) => Box::new(webhook::Webhook::new(
            target(&config.url, config.ssl_verify)?,
            config.headers.as_ref(),
            signer(&config.secret),
        )?),
        HandlerConfig::WebhookCustom(config) => Box::new(webhook_custom::WebhookCustom::new(
            target(&config.url, config.ssl_verify)?,
            config,
            signer(&config.secret),
        )?),
        HandlerConfig::Log(_) => Box::new(log::Log),
        HandlerConfig::Lambda(config) => {
            Box::new(lambda::Lambda::new(config, &shared.lua).map_err(|e| e.to_string())?)
        }
    })
}

/// Stands in for a handler that cannot be prepared: every attempt fails with the reason.
pub(crate) struct Unusable {
    /// The handler that was asked for.
    pub kind: &'static str,
    /// Why it cannot be used.
    pub reason: Arc<str>,
}

#[async_trait]
impl Handler for Unusable {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn attempt(&self, _: &Delivery) -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Unusable(Arc::clone(&self.reason)))
    }
}

/// Finds an egress refusal anywhere in an error's causes.
fn refused(error: &(dyn std::error::Error + 'static)) -> Option<IpAddr> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(egress::Refused(address)) = error.downcast_ref() {
            return Some(*address);
        }
        cause = error.source();
    }
    None
}
