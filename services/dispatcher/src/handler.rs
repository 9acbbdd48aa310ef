//! Handlers: one call makes one attempt. No handler knows retries, acks or queues.

pub(crate) mod clients;
pub(crate) mod code_pool;
mod http;
mod lambda;
mod log;
mod lua_literal;
mod outcome;
pub(crate) mod preparation;
pub(crate) mod proxy;
pub(crate) mod registry;
mod resolver;
pub(crate) mod tls;
mod webhook;
mod webhook_custom;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use hookline_shared::event::{DeliveryId, Event};
use hookline_shared::trace;

pub(crate) use outcome::{Class, DeliveryError, Receipt, Response, Unreached};

/// One event for one hook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// The same on every attempt.
    pub id: DeliveryId,
    pub event: Arc<Event>,
    /// As the hook asked for it, for example `consumers:create`.
    pub event_name: Arc<str>,
    /// The attempt's trace, if traces are on.
    pub trace: Option<Traced>,
}

#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) context: trace::Context,
    /// From 1.
    pub(crate) attempt: u32,
}

impl Delivery {
    /// The originating process, or this one if the event does not say.
    #[must_use]
    pub(crate) fn pid(&self) -> u64 {
        // Cached, since asking is a system call.
        static OWN: LazyLock<u32> = LazyLock::new(std::process::id);
        self.event.pid.unwrap_or_else(|| (*OWN).into())
    }
}

/// Makes attempts for one hook.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError>;
}
