//! Traces, by OpenTelemetry over HTTP. Off unless the standard variable `OTEL_EXPORTER_OTLP_ENDPOINT` says where they go;
//! the other `OTEL_*` variables apply as documented there.
//!
//! `spans` has what Hookline's spans are called and say. A W3C context that a client or publisher gave is passed on
//! whether traces are on or not.

mod export;
mod spans;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};

use url::Url;

pub use export::counts;
pub use spans::{About, Attempt, Call, Context, FutureExt, Request, Sent, TraceId, trace_id};

/// How long the last spans may take at the end of a process.
const FLUSH: Duration = Duration::from_secs(5);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot send traces as OTEL_EXPORTER_OTLP_ENDPOINT and the other OTEL_* variables say")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error(
        "OTEL_EXPORTER_OTLP_PROTOCOL is {0}; Hookline sends traces by http/protobuf, which is the default"
    )]
    Protocol(String),
    #[error("cannot start the thread that sends traces")]
    Thread,
}

/// Ends the export of traces when the process ends.
#[derive(Debug)]
pub struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    /// Sends what is left.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let finished = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        if !matches!(finished.await, Ok(Ok(()))) {
            tracing::warn!("cannot send the last spans of traces");
        }
    }
}

/// Turns traces on if the environment says so. `node`: this process's name.
pub fn init(service: &'static str, node: String) -> Result<Exporter, Error> {
    let Some(endpoint) = endpoint()? else {
        return Ok(Exporter(None));
    };
    // Its HTTP client may not be made on a thread of the runtime.
    let built = std::thread::spawn(move || provider(service, node)).join();
    let provider = built.map_err(|_| Error::Thread)??;
    let _ = TRACER.set(provider.tracer("hookline"));
    tracing::info!(endpoint, "sending traces");
    Ok(Exporter(Some(provider)))
}

fn provider(service: &'static str, node: String) -> Result<SdkTracerProvider, Error> {
    // The last one wins.
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", format!("hookline-{service}")),
            KeyValue::new("service.namespace", "hookline"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    let resource = match standard("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name),
        None => resource,
    };
    crate::tls::install_provider();
    let exporter = export::Counting::new(SpanExporter::builder().with_http().build()?);
    let processor = export::Bounded::new(BatchSpanProcessor::builder(exporter).build());
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_span_processor(processor)
        .build())
}

/// Where traces go, if anywhere: scheme, host and port.
fn endpoint() -> Result<Option<String>, Error> {
    let is_off = standard("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
        || standard("OTEL_TRACES_EXPORTER").is_some_and(|name| name == "none");
    let endpoint = standard("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| standard("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .filter(|_| !is_off);
    let protocol = standard("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| standard("OTEL_EXPORTER_OTLP_PROTOCOL"))
        .filter(|protocol| endpoint.is_some() && protocol != "http/protobuf");
    if let Some(protocol) = protocol {
        return Err(Error::Protocol(protocol));
    }
    // Its user or query may be a password.
    let origin =
        |endpoint: &str| Url::parse(endpoint).map(|url| url.origin().ascii_serialization());
    Ok(endpoint.map(|endpoint| origin(&endpoint).unwrap_or_default()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "variables that OpenTelemetry defines, most of which its library reads itself"
)]
fn standard(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// None: traces are off.
fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}
