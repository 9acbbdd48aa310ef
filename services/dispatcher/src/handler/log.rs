//! `log`: one record of the event in the dispatcher's log, in Kong's layout.

use async_trait::async_trait;

use super::inspect::inspect;
use super::{Delivery, DeliveryError, Handler, Receipt};

/// The `log` handler.
pub(super) struct Log;

#[async_trait]
impl Handler for Log {
    fn kind(&self) -> &'static str {
        "log"
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let (event, source, pid) = (
            &*delivery.event_name,
            &*delivery.event.source,
            delivery.pid(),
        );
        let data = &delivery.event.data;
        tracing::info!(
            target: "hookline::log",
            event,
            source,
            data = %serde_json::to_string(data).unwrap_or_default(),
            pid,
            delivery = %delivery.id,
            "log callback: {}",
            inspect(event, source, data, pid)
        );
        Ok(Receipt::Done)
    }
}
