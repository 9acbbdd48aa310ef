//! What a hook can be set to, handler by handler. Field names and defaults are Kong's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::REDACTED;
use crate::signature::Algorithm;

/// A handler and its config.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "handler", content = "config", rename_all = "kebab-case")]
pub enum HandlerConfig {
    /// A JSON POST of the event.
    Webhook(WebhookConfig),
    /// Any request, with templates.
    WebhookCustom(WebhookCustomConfig),
    /// A log record.
    Log(LogConfig),
    /// Lua functions.
    Lambda(LambdaConfig),
}

impl HandlerConfig {
    /// The handler's name, as in the entity.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::WebhookCustom(_) => "webhook-custom",
            Self::Log(_) => "log",
            Self::Lambda(_) => "lambda",
        }
    }
}

/// Config of `webhook`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WebhookConfig {
    /// Where to.
    pub url: String,
    /// Further request headers.
    #[serde(default)]
    pub headers: Option<Headers>,
    /// Signs the body.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// Whether the receiver's certificate is verified.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
}

/// Config of `webhook-custom`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WebhookCustomConfig {
    /// Where to.
    pub url: String,
    /// Request method, in upper case.
    pub method: String,
    /// Request headers.
    #[serde(default)]
    pub headers: Option<Headers>,
    /// Whether header values are templates.
    #[serde(default)]
    pub headers_format: bool,
    /// Keys and values of a JSON object or form.
    #[serde(default)]
    pub payload: Option<BTreeMap<String, String>>,
    /// Whether payload values are templates.
    #[serde(default = "yes")]
    pub payload_format: bool,
    /// The request body; wins over `payload`.
    #[serde(default)]
    pub body: Option<String>,
    /// Whether the body is a template.
    #[serde(default = "yes")]
    pub body_format: bool,
    /// Signs the body.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// Whether the receiver's certificate is verified.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
}

/// Config of `log`: there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogConfig {}

/// Config of `lambda`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LambdaConfig {
    /// Lua chunks, each of which returns a function `(data, event, source, pid)`. They run in
    /// order until one fails.
    pub functions: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A text that shows nowhere: not in debug output, and so in no log line and no error.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Request headers by name. Values often hold tokens, so debug output has the names only.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How a hook's deliveries are made: all optional, an extension to Kong's entity.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeliveryOptions {
    /// Deliveries wait while this is set.
    #[serde(default)]
    pub paused: bool,
    /// Why a dispatcher paused the hook.
    #[serde(default)]
    pub paused_reason: Option<String>,
    /// Attempts at the same time, per dispatcher.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Seconds that an attempt may take in all.
    #[serde(default)]
    pub timeout: Option<f64>,
    /// Seconds to wait after each failed attempt; after the last one the delivery is dead.
    #[serde(default)]
    pub retry: Option<Vec<f64>>,
    /// The hash in `X-Kong-Signature`.
    #[serde(default)]
    pub signature: Option<Algorithm>,
    /// Deliveries a second, over all dispatchers.
    #[serde(default)]
    pub rate_limit: Option<f64>,
    /// Seconds that a delivery may become old before it is dead.
    #[serde(default)]
    pub max_age: Option<f64>,
    /// When deliveries wait since the receiver fails.
    #[serde(default)]
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// When deliveries wait since the receiver fails; what is not said is the dispatcher's default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CircuitBreaker {
    /// Failures in a row, on one dispatcher; 0: never.
    #[serde(default)]
    pub failures: Option<u32>,
    /// Failed part of the attempts of half a minute, from 0 to 1.
    #[serde(default)]
    pub failure_rate: Option<f64>,
    /// Seconds that deliveries wait at first; twice as long each time that a probe fails.
    #[serde(default)]
    pub open: Option<f64>,
}

impl CircuitBreaker {
    /// How long deliveries wait at first, if the hook says so.
    #[must_use]
    pub fn open(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.open?).ok()
    }
}

impl DeliveryOptions {
    /// The retry schedule, if the hook has its own.
    #[must_use]
    pub fn retry_schedule(&self) -> Option<Vec<Duration>> {
        let steps = self.retry.as_ref()?;
        steps
            .iter()
            .map(|s| Duration::try_from_secs_f64(*s).ok())
            .collect()
    }

    /// How old a delivery may become, if the hook has its own.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.max_age?).ok()
    }

    /// The time an attempt may take, if the hook has its own.
    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.timeout?).ok()
    }
}
