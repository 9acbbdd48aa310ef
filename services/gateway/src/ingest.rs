//! Events over HTTP, for gateways that can POST and cannot speak JetStream. On a listener of its own.
//!
//! * `request`: the events of a request, which `cloud_events` reads where they are such;
//! * `login`: the token of a request, and what it may raise;
//! * `repeats`: the idempotency keys of late.
//!
//! An event is answered once it is on disk. Concurrent requests share a commit.

mod cloud_events;
mod login;
mod metrics;
mod repeats;
mod request;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hookline_shared::http_server::{self, Bounds};
use hookline_shared::same_site::SameSite;
use hookline_shared::subject::header::TRACEPARENT;
use hookline_shared::tls::ServerTls;
use hookline_shared::trace::{self, FutureExt as _};
use ipnet::IpNet;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, response};
use crate::config::Config;
use crate::error::ApiError;
use crate::limits::{self, EventRates};
use crate::store::{Raised, Store};
use login::Logins;
use repeats::Repeats;
use request::Incoming;

pub(crate) use login::Refused;
pub(crate) use metrics::Metrics;
pub(crate) use request::Malformed;

/// At a time.
const CONNECTIONS: usize = 1_024;
const METHODS: &str = "OPTIONS, POST";

/// The listener of one node.
#[derive(Debug)]
pub(crate) struct Ingest {
    store: Arc<OnceLock<Arc<Store>>>,
    metrics: Metrics,
    limits: limits::Options,
    rates: EventRates,
    same_site: SameSite,
    logins: Logins,
    trusted_proxies: Vec<IpNet>,
    repeats: Repeats,
    requests: TaskTracker,
    in_hand: Arc<Semaphore>,
}

impl Ingest {
    /// Answers 503 until `store` is set.
    pub(crate) fn new(
        store: Arc<OnceLock<Arc<Store>>>,
        metrics: Metrics,
        config: &Config,
        listener: &TcpListener,
    ) -> std::io::Result<Self> {
        Ok(Self {
            store,
            metrics,
            limits: config.limits.clone(),
            rates: EventRates::new(&config.limits),
            same_site: SameSite::new(listener.local_addr()?, &[]),
            logins: Logins::default(),
            trusted_proxies: config.trusted_proxies.clone(),
            repeats: Repeats::default(),
            requests: TaskTracker::new(),
            in_hand: Arc::new(Semaphore::new(admin::IN_HAND)),
        })
    }

    async fn answer(&self, request: Request) -> Result<Response, ApiError> {
        self.same_site.check(request.method(), request.headers())?;
        admin::check_headers(&self.limits, request.headers())?;
        let path = request::Path::parse(request.uri().path()).ok_or(ApiError::NotFound)?;
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return Ok(response::options(METHODS)),
            _ => return Err(ApiError::MethodNotAllowed(METHODS)),
        }
        let store = self.store.get().ok_or(ApiError::Starting)?;
        let address = admin::address(&request, &self.trusted_proxies);
        let (head, body) = request.into_parts();
        let sender = self.logins.sender(store, &head.headers, address).await?;
        let body = admin::read_body(body, self.limits.admin_max_body.get()).await?;
        let incoming = path.events(&head.headers, body)?;
        sender.check(&path, &incoming)?;
        self.rates.take(sender.workspace(), incoming.len())?;
        self.raise(store, &sender, incoming).await
    }

    /// Stores all events or none. Those of an idempotency key that is known are there already.
    async fn raise(
        &self,
        store: &Store,
        sender: &login::Sender,
        incoming: Vec<Incoming>,
    ) -> Result<Response, ApiError> {
        let workspace = sender.workspace();
        let events: Vec<_> = incoming
            .into_iter()
            .map(|event| event.raised(sender))
            .collect();
        let keyed = events.iter().filter(|event| event.is_key);
        let _turn = self.repeats.turn(keyed).await?;
        let (new, known) = self.repeats.divide(&events)?;
        if !new.is_empty() {
            let stored = store.raise(workspace, &new).await;
            stored.map_err(Refused::of)?;
        }
        self.metrics.raised(new.len(), known.len());
        for event in new.iter().filter(|event| event.is_key) {
            self.repeats.remember(event);
        }
        let ids = |of: &[&Raised]| of.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        let mut answer = json!({ "ids": ids(&events.iter().collect::<Vec<_>>()) });
        if !known.is_empty() {
            answer["duplicates"] = json!(ids(&known));
        }
        let status = match new.is_empty() {
            true => StatusCode::OK,
            false => StatusCode::ACCEPTED,
        };
        Ok(response::json(status, &answer))
    }
}

/// Serves until `shutdown`; then requests in flight have `timeout` to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    ingest: Ingest,
    tls: Option<Arc<ServerTls>>,
    shutdown: CancellationToken,
    timeout: Duration,
) {
    let requests = ingest.requests.clone();
    let bounds = Bounds {
        connections: CONNECTIONS,
        headers: 2 * usize::from(ingest.limits.admin_max_headers),
    };
    let router = Router::new().fallback(handle).with_state(Arc::new(ingest));
    let served = http_server::serve(
        listener,
        router,
        (bounds, Arc::default()),
        tls,
        shutdown.clone(),
    );
    admin::until_drained(served, requests, shutdown, timeout).await;
}

async fn handle(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let given = request.headers().get(TRACEPARENT);
    let given = given.and_then(|value| value.to_str().ok());
    let trace = trace::Request::begin(method.as_str(), given);
    // In a task of its own, so that what is committed is remembered even if the client disconnects.
    let task = ingest.requests.spawn({
        let ingest = Arc::clone(&ingest);
        async move {
            let room = Arc::clone(&ingest.in_hand).try_acquire_owned();
            let _room = room.map_err(|_| ApiError::Busy)?;
            ingest.answer(request).await
        }
        .with_context(trace.context())
    });
    let result = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "request handler panicked");
        Err(ApiError::Internal)
    });
    let response = result.unwrap_or_else(ApiError::into_response);
    let (status, took) = (response.status(), started.elapsed());
    ingest.metrics.answered(status, took);
    trace.end(method.as_str(), "/events", status.as_u16());
    response
}
