//! Prepares the handler of a hook. The table of handlers is in `hookline_shared::hook`.

use std::sync::Arc;

use async_trait::async_trait;
use hookline_shared::for_each_handler;
use hookline_shared::hook::{HandlerConfig, Hook};

use super::preparation::{Preparation, Shared};
use super::{Delivery, DeliveryError, Handler, Receipt};
use crate::hooks::Certificates;

/// Parses URLs, templates, Lua and keys, once per change of the hook. The error is a sentence for its owner.
pub(crate) fn prepare(
    hook: &Hook,
    shared: &Shared,
    certificates: Certificates<'_>,
) -> Result<Box<dyn Handler>, String> {
    if let Some(violation) = hook.validate().into_iter().next() {
        return Err(format!("{}: {}", violation.field, violation.message));
    }
    let options = hook.options();
    let prepared = Preparation {
        hook: &hook.id,
        shared,
        certificates,
        timeout: options.attempt_timeout().unwrap_or(shared.timeout),
        algorithm: options.signature.unwrap_or_default(),
    };
    macro_rules! prepare_by_handler {
        ($($file:ident $variant:ident,)*) => {
            match &hook.handler {
                $( HandlerConfig::$variant(config) => super::$file::prepare(config, &prepared), )*
            }
        };
    }
    for_each_handler!(prepare_by_handler)
}

/// Stands in for a handler that cannot be prepared: every attempt fails with the reason.
pub(crate) struct Unusable {
    pub reason: Arc<str>,
}

#[async_trait]
impl Handler for Unusable {
    async fn attempt(&self, _: &Delivery) -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Unusable(Arc::clone(&self.reason)))
    }
}
