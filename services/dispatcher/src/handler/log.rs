//! `log`: one record of the event in the dispatcher's log, in Kong's layout.

use std::borrow::Cow;

use async_trait::async_trait;
use hookline_shared::event::Event;
use hookline_shared::hook::LogConfig;
use hookline_shared::telemetry::OWN_RECORDS;

use super::lua_literal::inspect;
use super::preparation::Preparation;
use super::{Delivery, DeliveryError, Handler, Receipt};

struct Log;

pub(super) fn prepare(_: &LogConfig, _: &Preparation<'_>) -> Result<Box<dyn Handler>, String> {
    Ok(Box::new(Log))
}

#[async_trait]
impl Handler for Log {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let (event, source, pid) = (
            &*delivery.event_name,
            &*delivery.event.source,
            delivery.pid(),
        );
        let data = delivery.event.data();
        tracing::info!(
            target: OWN_RECORDS,
            event,
            source,
            data = %text(&delivery.event),
            pid,
            delivery = %delivery.id,
            "log callback: {}",
            inspect(event, source, data, pid)
        );
        Ok(Receipt::Done)
    }
}

/// The data as one line of JSON: as published if that is one line.
fn text(event: &Event) -> Cow<'_, str> {
    match std::str::from_utf8(event.raw.trim_ascii()) {
        Ok(text) if !text.contains(char::is_control) => text.into(),
        _ => serde_json::to_string(event.data())
            .unwrap_or_default()
            .into(),
    }
}
