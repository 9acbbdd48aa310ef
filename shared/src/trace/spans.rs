//! Hookline's spans, after OpenTelemetry's conventions for HTTP and messaging:
//!
//! | span | kind | where |
//! | --- | --- | --- |
//! | `POST /consumers` | server | a request to the Admin API |
//! | `send hookline.events` | producer | an event that it raises, whose message carries the context |
//! | `process hookline.events` | consumer | an attempt of a delivery, which links to that context |
//! | `POST` | client | its request, which carries the context on |
//!
//! The first attempt also continues the event's trace, if it comes within a minute. Retries come hours later, and begin
//! traces of their own.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Span;
use url::Url;

use super::tracer;
use crate::subject::EVENTS_STREAM;

pub use opentelemetry::Context;
pub use opentelemetry::trace::{FutureExt, TraceId};

const TRACEPARENT: &str = "traceparent";
/// Events by subject, without what differs between them.
const EVENTS: &str = "hookline.events";
/// An attempt this soon after its event continues the event's trace.
const SOON: Duration = Duration::from_secs(60);

/// Reads a W3C context. An invalid one is none.
fn remote(traceparent: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// Writes a W3C context.
fn traceparent(context: &SpanContext) -> String {
    let flags = context.trace_flags().to_u8() & 1;
    format!(
        "00-{}-{}-{flags:02x}",
        context.trace_id(),
        context.span_id()
    )
}

fn start(
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    parent: &Context,
    links: Vec<Link>,
) -> Option<Span> {
    let builder = SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_links(links);
    tracer().map(|tracer| tracer.build_with_context(builder, parent))
}

fn attribute(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

fn fail(span: &mut Span, error: &'static str) {
    span.set_attribute(attribute("error.type", error));
    span.set_status(Status::error(error));
}

/// A request to the Admin API.
#[derive(Debug)]
pub struct Request {
    span: Option<Span>,
    context: Context,
}

impl Request {
    /// `given`: the `traceparent` that the client sent.
    #[must_use]
    pub fn begin(method: &str, given: Option<&str>) -> Self {
        let parent = given.and_then(remote).map_or_else(Context::new, |given| {
            Context::new().with_remote_span_context(given)
        });
        let span = start(method.to_owned(), SpanKind::Server, &parent, Vec::new());
        let context = match &span {
            Some(span) => Context::new().with_remote_span_context(span.span_context().clone()),
            None => parent,
        };
        Self { span, context }
    }

    /// To handle the request in.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    pub fn end(self, method: &str, route: &str, status: u16) {
        let Some(mut span) = self.span else { return };
        span.update_name(format!("{method} {route}"));
        span.set_attribute(attribute("http.request.method", method.to_owned()));
        span.set_attribute(attribute("http.route", route.to_owned()));
        span.set_attribute(attribute("http.response.status_code", i64::from(status)));
        if status >= 500 {
            fail(&mut span, "server_error");
        }
    }
}

/// An event that is being sent, until this is dropped.
#[derive(Debug)]
pub struct Sent {
    span: Option<Span>,
    given: Option<SpanContext>,
}

impl Sent {
    /// Sends an event as part of the current context, if there is one.
    #[must_use]
    pub fn begin(event_id: &str) -> Self {
        let current = Context::current();
        let given = current.span().span_context().clone();
        let mut span = start(
            format!("send {EVENTS}"),
            SpanKind::Producer,
            &current,
            Vec::new(),
        );
        if let Some(span) = &mut span {
            span.set_attributes([
                attribute("messaging.system", "nats"),
                attribute("messaging.operation.type", "send"),
                attribute("messaging.operation.name", "send"),
                attribute("messaging.destination.name", EVENTS_STREAM),
                attribute("messaging.destination.template", EVENTS),
                attribute("messaging.message.id", event_id.to_owned()),
            ]);
        }
        Self {
            span,
            given: Some(given).filter(SpanContext::is_valid),
        }
    }

    /// It was not sent after all.
    pub fn failed(mut self) {
        if let Some(span) = &mut self.span {
            fail(span, "refused");
        }
    }

    /// For the event's message.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let own = self.span.as_ref().map(Span::span_context);
        own.or(self.given.as_ref()).map(traceparent)
    }
}

/// One attempt of a delivery.
#[derive(Debug)]
pub struct Attempt(Span);

/// What is known of it before.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Of the event's message.
    pub traceparent: Option<&'a str>,
    /// Since the event was stored.
    pub age: Duration,
    pub event_id: &'a str,
    pub workspace: &'a str,
    pub hook: &'a str,
    pub handler: &'static str,
    pub delivery: &'a str,
    /// From 1.
    pub attempt: u32,
    /// That its message came from, and its stream.
    pub consumer: (&'static str, &'static str),
}

impl Attempt {
    /// None: traces are off.
    #[must_use]
    pub fn begin(about: About<'_>) -> Option<Self> {
        tracer()?;
        let event = about.traceparent.and_then(remote);
        let is_next = about.attempt == 1 && about.age < SOON;
        let parent = match &event {
            // What is not sampled stays so.
            Some(event) if is_next || !event.is_sampled() => {
                Context::new().with_remote_span_context(event.clone())
            }
            _ => Context::new(),
        };
        let links = event.map(Link::with_context).into_iter().collect();
        let name = format!("process {EVENTS}");
        let mut span = start(name, SpanKind::Consumer, &parent, links)?;
        let (group, stream) = about.consumer;
        span.set_attributes([
            attribute("messaging.system", "nats"),
            attribute("messaging.operation.type", "process"),
            attribute("messaging.operation.name", "process"),
            attribute("messaging.destination.name", stream),
            attribute("messaging.destination.template", EVENTS),
            attribute("messaging.consumer.group.name", group),
            attribute("messaging.message.id", about.event_id.to_owned()),
            attribute("hookline.workspace", about.workspace.to_owned()),
            attribute("hookline.hook.id", about.hook.to_owned()),
            attribute("hookline.handler", about.handler),
            attribute("hookline.delivery.id", about.delivery.to_owned()),
            attribute("hookline.attempt", i64::from(about.attempt)),
        ]);
        Some(Self(span))
    }

    /// For what is done as part of it.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.span_context().clone())
    }

    /// None: it is not recorded.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        let context = self.0.span_context();
        context.is_sampled().then(|| context.trace_id())
    }

    /// `outcome`: what it came to, in a word.
    pub fn end(mut self, outcome: &'static str, is_failure: bool) {
        let outcome_attribute = attribute("hookline.outcome", outcome);
        self.0.set_attribute(outcome_attribute);
        if is_failure {
            fail(&mut self.0, outcome);
        }
    }
}

/// A request to a receiver.
#[derive(Debug)]
pub struct Call(Span);

impl Call {
    /// `parent`: that of its attempt. `attempt`: from 1.
    #[must_use]
    pub fn begin(parent: &Context, method: &str, url: &Url, attempt: u32) -> Option<Self> {
        let mut span = start(method.to_owned(), SpanKind::Client, parent, Vec::new())?;
        span.set_attributes([
            attribute("http.request.method", method.to_owned()),
            attribute(
                "server.address",
                url.host_str().unwrap_or_default().to_owned(),
            ),
            attribute(
                "server.port",
                i64::from(url.port_or_known_default().unwrap_or_default()),
            ),
            attribute("url.full", without_secrets(url)),
        ]);
        if attempt > 1 {
            let resent = attribute("http.request.resend_count", i64::from(attempt - 1));
            span.set_attribute(resent);
        }
        Some(Self(span))
    }

    /// For the request's header.
    #[must_use]
    pub fn traceparent(&self) -> String {
        traceparent(self.0.span_context())
    }

    /// `error`: in a word, if it failed.
    pub fn end(mut self, status: Option<u16>, error: Option<&'static str>) {
        if let Some(status) = status {
            let status = attribute("http.response.status_code", i64::from(status));
            self.0.set_attribute(status);
        }
        if let Some(error) = error {
            fail(&mut self.0, error);
        }
    }
}

/// A path may be a password, as in the URLs of chats; what is in a user or query may be too.
fn without_secrets(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    match url.path() {
        "/" => format!("{origin}/"),
        _ => format!("{origin}/REDACTED"),
    }
}

/// The trace that an event belongs to, by the W3C context of its message.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<TraceId> {
    remote(traceparent).map(|context| context.trace_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_and_written_as_it_was() {
        let context = remote(GIVEN).expect("valid");
        assert_eq!(traceparent(&context), GIVEN);
        for junk in ["", "00", "00-0-0-0", "a\r\nb", &GIVEN.replace('4', "x")] {
            assert!(remote(junk).is_none(), "{junk:?}");
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert!(remote(&zero).is_none(), "the trace id is zero");
    }

    #[tokio::test]
    async fn without_traces_a_clients_context_is_passed_on() {
        let request = Request::begin("POST", Some(GIVEN));
        let sent = async { Sent::begin("1").traceparent() };
        let sent = sent.with_context(request.context()).await;
        assert_eq!(sent.as_deref(), Some(GIVEN));
        let request = Request::begin("POST", None);
        let sent = async { Sent::begin("1").traceparent() };
        assert_eq!(sent.with_context(request.context()).await, None);
    }

    #[test]
    fn urls_are_told_without_what_may_be_secret() {
        for (url, shown) in [
            (
                "https://hooks.example.com/T0/B0/secret?token=1#x",
                "https://hooks.example.com/REDACTED",
            ),
            (
                "http://user:password@example.com:8080/",
                "http://example.com:8080/",
            ),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(without_secrets(&url), shown);
        }
    }
}
