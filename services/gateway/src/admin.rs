//! The Admin API: the routes, and serving requests with metrics and graceful shutdown.

mod attempts;
mod audit;
mod authorize;
mod collections;
mod dead_events;
mod declarative;
mod decode;
mod deliveries;
mod dispatch;
mod event_hooks;
mod form;
mod group_rates;
mod hook_status;
mod hook_warnings;
mod invitations;
mod members;
mod node;
mod openapi;
mod paging;
mod partials;
mod path;
mod rbac;
mod replay;
pub(crate) mod response;
mod retry_now;
mod routes;
mod schemas;
mod selection;
mod snis;
mod sources;
mod tags;
mod upstream_health;
mod workspace_meta;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use ipnet::IpNet;

use hookline_shared::http_server::{self, Bounds};
use hookline_shared::same_site::SameSite;
use hookline_shared::subject::ALL_WORKSPACES;
use hookline_shared::subject::header::TRACEPARENT;
use hookline_shared::tls::ServerTls;
use hookline_shared::trace::{self, FutureExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Caller, Logins, Rbac};
use crate::config::Config;
use crate::error::ApiError;
use crate::limits::{self, Rates, Who};
use crate::metrics::Metrics;
use crate::schema::Schema;
use crate::store::Store;

pub(crate) use audit::Refusals;
pub(crate) use authorize::address;
pub(crate) use decode::read_body;
use node::About;
use path::Path;
use routes::Access;

/// At a time.
const CONNECTIONS: usize = 1_024;
/// Requests in hand at a time: they are finished although their clients hang up.
pub(crate) const IN_HAND: usize = 512;

/// The Admin API of one node.
#[derive(Debug)]
pub(crate) struct Admin {
    store: Arc<OnceLock<Arc<Store>>>,
    metrics: Metrics,
    about: About,
    connections: Arc<http_server::Connections>,
    answered: AtomicU64,
    limits: limits::Options,
    rates: Rates,
    same_site: SameSite,
    /// `None` if requests need no token.
    logins: Option<Logins>,
    trusted_proxies: Vec<IpNet>,
    refusals: Refusals,
    requests: TaskTracker,
    in_hand: Arc<Semaphore>,
}

impl Admin {
    /// Answers 503 until `store` is set.
    pub(crate) fn new(
        store: Arc<OnceLock<Arc<Store>>>,
        metrics: Metrics,
        config: &Config,
        rbac: Rbac,
        refusals: Refusals,
    ) -> Self {
        Self {
            store,
            metrics,
            about: About::new(config, rbac),
            connections: Arc::default(),
            answered: AtomicU64::new(0),
            limits: config.limits.clone(),
            rates: Rates::new(&config.limits),
            same_site: SameSite::new(config.admin_listen, &config.admin_origins),
            logins: (rbac == Rbac::On).then(Logins::default),
            trusted_proxies: config.trusted_proxies.clone(),
            refusals,
            requests: TaskTracker::new(),
            in_hand: Arc::new(Semaphore::new(IN_HAND)),
        }
    }

    /// Whoever is let in gets an answer; what they did, and who was not, is recorded.
    async fn answer(&self, path: Option<Path>, request: Request) -> Result<Response, ApiError> {
        let mut caller = self.caller(path.as_ref(), &request);
        let (head, body) = request.into_parts();
        if let Err(error) = self.let_in(&mut caller, path.as_ref(), &head).await {
            self.note_refusal(&caller, &error);
            return Err(error);
        }
        let path = path.ok_or(ApiError::NotFound)?;
        let is_action = !head.method.is_safe() && !path.route.target.changes_entities();
        let caller = Arc::new(caller);
        let answered = self.dispatch(path, Arc::clone(&caller), head, body).await;
        if let Err(error) = &answered {
            self.note_refusal(&caller, error);
        }
        let status = answered.as_ref().map(Response::status);
        if let (Ok(status), Some(store), true) = (status, self.store.get(), is_action) {
            audit::done(store, &caller, status).await;
        }
        answered
    }

    fn note_refusal(&self, caller: &Caller, error: &ApiError) {
        if let Some(reason) = error.refusal() {
            self.metrics.refused(reason);
            self.refusals
                .note(caller, error.status(), &error.to_string());
        }
    }

    async fn let_in(
        &self,
        caller: &mut Caller,
        path: Option<&Path>,
        head: &Parts,
    ) -> Result<(), ApiError> {
        self.same_site.check(&head.method, &head.headers)?;
        let authorized = self.authorize(caller, path, head).await;
        let of_workspace = path.filter(|_| authorized.is_ok() && head.method != Method::OPTIONS);
        let workspace = of_workspace.and_then(|path| self.workspace_of(path));
        let who = workspace.map_or(Who::Address(caller.address), Who::Workspace);
        self.rates.take(who)?;
        authorized?;
        self.check_size(head)
    }

    /// The workspace whose requests those are that a role permits.
    fn workspace_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let (place, view) = (path.place(), self.store.get()?.view());
        let is_there = place == ALL_WORKSPACES || {
            let workspaces = Schema::workspaces();
            let found = view.get_by_unique(workspaces, ALL_WORKSPACES, "name", place);
            found.is_some()
        };
        (path.route.access == Access::Roles && is_there).then_some(place)
    }

    /// Before the body, and what hyper lets through.
    fn check_size(&self, head: &Parts) -> Result<(), ApiError> {
        check_headers(&self.limits, &head.headers)?;
        let query = head.uri.query().filter(|query| !query.is_empty());
        let separators = query.map(|query| query.bytes().filter(|byte| *byte == b'&').count());
        let arguments = self.limits.admin_max_arguments.get();
        if separators.is_some_and(|separators| separators >= arguments) {
            return Err(ApiError::TooManyArguments(arguments));
        }
        Ok(())
    }
}

pub(crate) fn check_headers(limits: &limits::Options, headers: &HeaderMap) -> Result<(), ApiError> {
    let most = limits.admin_max_headers.into();
    match headers.len() {
        sent if sent > most => Err(ApiError::TooManyHeaders(most)),
        _ => Ok(()),
    }
}

/// Serves until `shutdown`; then requests in flight have `timeout` to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    admin: Admin,
    tls: Option<Arc<ServerTls>>,
    shutdown: CancellationToken,
    timeout: Duration,
) {
    let requests = admin.requests.clone();
    let headers = usize::from(admin.limits.admin_max_headers);
    let connections = Arc::clone(&admin.connections);
    let router = Router::new().fallback(handle).with_state(Arc::new(admin));
    let bounds = Bounds {
        connections: CONNECTIONS,
        // Those beyond the limit are refused with an answer that says so.
        headers: 2 * headers,
    };
    let served = http_server::serve(
        listener,
        router,
        (bounds, connections),
        tls,
        shutdown.clone(),
    );
    until_drained(served, requests, shutdown, timeout).await;
}

/// Serves; after `shutdown` requests in flight have `timeout` to finish.
pub(crate) async fn until_drained(
    served: impl Future<Output = ()>,
    requests: TaskTracker,
    shutdown: CancellationToken,
    timeout: Duration,
) {
    let drained = async {
        served.await;
        requests.close();
        requests.wait().await;
    };
    let time_is_up = async {
        shutdown.cancelled().await;
        tokio::time::sleep(timeout).await;
    };
    tokio::select! {
        () = drained => {}
        () = time_is_up => {
            tracing::warn!(open = requests.len(), "shutdown timed out, dropping requests in flight");
        }
    }
}

async fn handle(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let started = Instant::now();
    admin.answered.fetch_add(1, Ordering::Relaxed);
    let method = request.method().clone();
    let origin = admin.same_site.listed_origin(request.headers()).cloned();
    let path = Path::parse(request.uri().path());
    let route = path.as_ref().map(|path| path.route);
    let (kind, pattern) = route.map_or(("none", "none"), |route| (route.kind, &route.pattern));
    let given = request.headers().get(TRACEPARENT);
    let given = given.and_then(|value| value.to_str().ok());
    let trace = trace::Request::begin(method.as_str(), given);
    // In a task of its own, so that a change is completed even if the client disconnects.
    let task = admin.requests.spawn({
        let admin = Arc::clone(&admin);
        async move {
            let room = Arc::clone(&admin.in_hand).try_acquire_owned();
            let _room = room.map_err(|_| ApiError::Busy)?;
            admin.answer(path, request).await
        }
        .with_context(trace.context())
    });
    let result = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "request handler panicked");
        Err(ApiError::Internal)
    });
    let mut response = result.unwrap_or_else(ApiError::into_response);
    response::for_clients(&mut response, &admin.about, origin);
    let (status, took) = (response.status(), started.elapsed());
    admin.metrics.answered(kind, &method, status, took);
    trace.end(method.as_str(), pattern, status.as_u16());
    tracing::debug!(kind, %method, status = status.as_u16(), duration_ms = took.as_millis(), "answered");
    response
}
