//! What an attempt is found by: the fields of its log lines, and its span in a trace.

use hookline_shared::{subject, trace};
use tracing::{Span, field};

use super::delivery_log::Began;
use crate::admission::bulkhead::Kind;
use crate::delivery::PendingDelivery;
use crate::hooks::Prepared;
use crate::settle::open_message::OpenDelivery;

/// For log lines.
pub(super) fn span(hook: &Prepared, pending: &PendingDelivery) -> Span {
    let delivery = &pending.delivery.id;
    tracing::info_span!("attempt", hook = %hook.id, %delivery, attempt = pending.attempt, trace_id = field::Empty)
}

/// The same, with the trace of an attempt that was made.
pub(super) fn span_of(hook: &Prepared, pending: &PendingDelivery, began: &Began) -> Span {
    let span = span(hook, pending);
    if let Some(trace_id) = began.trace_id() {
        span.record("trace_id", field::display(trace_id));
    }
    span
}

/// None: traces are off.
pub(super) fn traced(
    hook: &Prepared,
    delivery: &OpenDelivery,
    lane: Kind,
) -> Option<trace::Attempt> {
    if !trace::is_on() {
        return None;
    }
    let pending = &delivery.pending;
    let event = &pending.delivery.event;
    let (_, age) = pending.lag();
    let consumer = match (lane, delivery.open.event) {
        (Kind::Retries, _) => (subject::RETRIES_CONSUMER, subject::DELIVERIES_STREAM),
        (Kind::Events, None) => (subject::FANOUT_CONSUMER, subject::DELIVERIES_STREAM),
        (Kind::Events, Some(_)) => (subject::DISPATCHERS_CONSUMER, subject::EVENTS_STREAM),
    };
    trace::Attempt::begin(trace::About {
        traceparent: event.traceparent.as_deref(),
        age,
        event_id: event.id.as_str(),
        workspace: &event.workspace,
        hook: &hook.id,
        handler: hook.handler_name(),
        delivery: pending.delivery.id.as_str(),
        attempt: pending.attempt,
        consumer,
    })
}
