//! The status API of a service: `/metrics`, `/healthz`, `/readyz` and what the service adds.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::map_request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::http_server::{self, Bounds};
use crate::same_site::SameSite;

/// At a time.
const BOUNDS: Bounds = Bounds {
    connections: 256,
    headers: 100,
};

/// For a process that is asked.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    #[error("no answer from {0}")]
    NoAnswer(SocketAddr, #[source] Option<std::io::Error>),
    #[error("unhealthy: {0}")]
    Says(String),
}

/// Asks a process of this machine at its status API whether it is healthy.
pub async fn check(listen: SocketAddr) -> Result<(), Unhealthy> {
    let at = match listen.ip() {
        ip if !ip.is_unspecified() => listen,
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, listen.port()).into(),
    };
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = match tokio::time::timeout(CHECK_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| Unhealthy::NoAnswer(at, Some(error)))?,
        Err(_) => return Err(Unhealthy::NoAnswer(at, None)),
    };
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.lines().next().unwrap_or_default();
    Err(Unhealthy::Says(format!("{status}: {}", body.trim())))
}

/// Missing or broken parts of the process, by name. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    #[must_use]
    pub fn waiting_for(things: &[&'static str]) -> Self {
        let readiness = Self::default();
        for thing in things {
            readiness.missing(thing, "not ready yet");
        }
        readiness
    }

    pub fn ready(&self, thing: &str) {
        self.0.lock().remove(thing);
    }

    pub fn missing(&self, thing: &'static str, reason: &str) {
        let mut missing = self.0.lock();
        missing.insert(thing, reason.to_owned());
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn answer(&self, all_there: &'static str) -> Response {
        let missing = self.0.lock();
        if missing.is_empty() {
            return all_there.into_response();
        }
        let lines: String = missing
            .iter()
            .map(|(thing, why)| format!("{thing}: {why}\n"))
            .collect();
        (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
    }
}

/// `/readyz` lists the parts missing in `readiness`, `/healthz` those in `health`. `more`: routes of the service's own.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    health: Readiness,
    more: Router,
    shutdown: CancellationToken,
) {
    let Ok(address) = listener.local_addr() else {
        return tracing::error!("the status API has no address");
    };
    let same_site = SameSite::new(address, &[]);
    let router = Router::new()
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/healthz", get(async move || health.answer("ok\n")))
        .route("/readyz", get(async move || readiness.answer("ready\n")))
        .merge(more)
        .layer(map_request(move |request: Request| {
            let checked = same_site.check(request.method(), request.headers());
            ready(match checked {
                Ok(()) => Ok(request),
                Err(refused) => Err((StatusCode::FORBIDDEN, format!("{refused}\n"))),
            })
        }));
    http_server::serve(listener, router, (BOUNDS, Arc::default()), None, shutdown).await;
}

fn metrics(registry: &Registry) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => (
            [(header::CONTENT_TYPE, encoder.format_type())],
            Body::from(text),
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
