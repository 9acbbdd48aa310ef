//! The Admin API: the routes, and serving requests with metrics and graceful shutdown.

mod attempts;
mod authorize;
mod collections;
mod dead_events;
mod decode;
mod deliveries;
mod dispatch;
mod event_hooks;
mod form;
mod hook_status;
mod hook_warnings;
mod invitations;
mod paging;
mod path;
mod rbac;
mod replay;
pub(crate) mod response;
mod retry_now;
mod routes;
mod selection;
mod sources;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use ipnet::IpNet;

use hookline_shared::http_server;
use hookline_shared::same_site::SameSite;
use hookline_shared::subject::header::TRACEPARENT;
use hookline_shared::trace::{self, FutureExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Caller, Logins, Rbac};
use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::Store;

use path::Path;

/// At a time.
const CONNECTIONS: usize = 1_024;

/// The Admin API of one node.
#[derive(Debug)]
pub(crate) struct Admin {
    store: Arc<OnceLock<Arc<Store>>>,
    metrics: Metrics,
    node: String,
    max_body: usize,
    same_site: SameSite,
    /// `None` if requests need no token.
    logins: Option<Logins>,
    trusted_proxies: Vec<IpNet>,
    requests: TaskTracker,
}

impl Admin {
    /// Answers 503 until `store` is set.
    pub(crate) fn new(
        store: Arc<OnceLock<Arc<Store>>>,
        metrics: Metrics,
        config: &Config,
        rbac: Rbac,
    ) -> Self {
        Self {
            store,
            metrics,
            node: config.node(),
            max_body: config.admin_max_body.get(),
            same_site: SameSite::new(config.admin_listen, &config.admin_origins),
            logins: (rbac == Rbac::On).then(Logins::default),
            trusted_proxies: config.trusted_proxies.clone(),
            requests: TaskTracker::new(),
        }
    }

    /// Whoever is let in gets an answer.
    async fn answer(
        &self,
        path: Option<Path>,
        mut caller: Caller,
        request: Request,
    ) -> Result<Response, ApiError> {
        let (head, body) = request.into_parts();
        self.same_site.check(&head.method, &head.headers)?;
        self.authorize(&mut caller, path.as_ref(), &head).await?;
        let path = path.ok_or(ApiError::NotFound)?;
        self.dispatch(path, caller, head, body).await
    }
}

/// Serves until `shutdown`; then requests in flight have `timeout` to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: CancellationToken,
    timeout: Duration,
) {
    let requests = admin.requests.clone();
    let router = Router::new().fallback(handle).with_state(Arc::new(admin));
    let drained = async {
        http_server::serve(listener, router, CONNECTIONS, shutdown.clone()).await;
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
    let method = request.method().clone();
    let caller = admin.caller(&request);
    let path = Path::parse(request.uri().path());
    let route = path.as_ref().map(|path| path.route);
    let (kind, pattern) = route.map_or(("none", "none"), |route| (route.kind, &route.pattern));
    let given = request.headers().get(TRACEPARENT);
    let given = given.and_then(|value| value.to_str().ok());
    let trace = trace::Request::begin(method.as_str(), given);
    // In a task of its own, so that a change is completed even if the client disconnects.
    let task = admin.requests.spawn({
        let admin = Arc::clone(&admin);
        async move { admin.answer(path, caller, request).await }.with_context(trace.context())
    });
    let result = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "request handler panicked");
        Err(ApiError::Internal)
    });
    if let Some(reason) = result.as_ref().err().and_then(ApiError::refusal) {
        admin.metrics.refused(reason);
    }
    let response = result.unwrap_or_else(ApiError::into_response);
    let (status, took) = (response.status(), started.elapsed());
    admin.metrics.answered(kind, &method, status, took);
    trace.end(method.as_str(), pattern, status.as_u16());
    tracing::debug!(kind, %method, status = status.as_u16(), duration_ms = took.as_millis(), "answered");
    response
}
