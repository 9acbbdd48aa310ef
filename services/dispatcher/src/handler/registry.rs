//! All handlers: prepares a hook's from its config.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hookline_shared::hook::{HandlerConfig, Hook};
use hookline_shared::signature::Signer;

use super::http::{self, Clients};
use super::lua_pool::Pool;
use super::{Delivery, DeliveryError, Handler, Receipt, lambda, log, webhook, webhook_custom};

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
    /// Why it cannot be used.
    pub reason: Arc<str>,
}

#[async_trait]
impl Handler for Unusable {
    async fn attempt(&self, _: &Delivery) -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Unusable(Arc::clone(&self.reason)))
    }
}
