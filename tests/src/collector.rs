//! A receiver of traces, by OTLP over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Collector {
    port: u16,
    exports: Arc<Mutex<Vec<Bytes>>>,
    task: JoinHandle<()>,
}

/// A span, ids in hexadecimal digits. Numbers among attributes are texts.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// Traces and spans.
    pub links: Vec<(String, String)>,
    pub attributes: HashMap<String, String>,
    /// Of its process.
    pub resource: HashMap<String, String>,
    pub is_failed: bool,
}

impl Collector {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let exports = Arc::<Mutex<Vec<Bytes>>>::default();
        let kept = Arc::clone(&exports);
        let receive = async move |body: Bytes| {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(body);
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(receive));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            port,
            exports,
            task,
        })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn exports(&self) -> Vec<Bytes> {
        let exports = self.exports.lock();
        exports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a text is anywhere in what was received.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        let has = |export: &Bytes| {
            export
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        self.exports().iter().any(has)
    }

    /// All spans that were received.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for export in self.exports() {
            let export = ExportTraceServiceRequest::decode(export)?;
            for of_process in export.resource_spans {
                let resource = of_process.resource.unwrap_or_default();
                let resource = texts(resource.attributes);
                let scopes = of_process.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| {
                    Span {
                        kind: span.kind(),
                        is_failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                        trace: hex(&span.trace_id),
                        id: hex(&span.span_id),
                        parent: hex(&span.parent_span_id),
                        links: span
                            .links
                            .iter()
                            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                            .collect(),
                        attributes: texts(span.attributes),
                        resource: resource.clone(),
                        name: span.name,
                    }
                }));
            }
        }
        Ok(spans)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Span {
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn texts(attributes: Vec<KeyValue>) -> HashMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(bool) => bool.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .filter_map(|attribute| Some((attribute.key, text(attribute.value?.value?))))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
