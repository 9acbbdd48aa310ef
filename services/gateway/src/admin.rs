//! The Admin API: the routes, and serving requests with metrics and graceful shutdown.

mod attempts;
mod collections;
mod dead_events;
mod decode;
mod deliveries;
mod event_hooks;
mod form;
mod hook_status;
mod hook_warnings;
mod paging;
mod path;
mod replay;
pub(crate) mod response;
mod retry_now;
mod selection;
mod sources;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::response::Response;
use hookline_shared::http_server;
use hookline_shared::same_site::SameSite;
use hookline_shared::subject::header::TRACEPARENT;
use hookline_shared::trace::{self, FutureExt as _};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::schema::{Input, Schema};
use crate::store::Store;

use collections::Collection;
use path::{Path, Target};

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
    requests: TaskTracker,
}

impl Admin {
    /// Answers 503 until `store` is set.
    pub(crate) fn new(store: Arc<OnceLock<Arc<Store>>>, metrics: Metrics, config: &Config) -> Self {
        Self {
            store,
            metrics,
            node: config.node(),
            max_body: config.admin_max_body.get(),
            same_site: SameSite::new(config.admin_listen, &config.admin_origins),
            requests: TaskTracker::new(),
        }
    }

    async fn route(&self, path: Path, request: Request) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let store = || self.store.get().map(Arc::as_ref).ok_or(ApiError::Starting);
        let input = async || decode::input(&parts.headers, body, self.max_body).await;
        let collection = async |schema: &'static Schema| {
            let place = store()?.place(schema, path.workspace.as_deref()).await?;
            Ok::<_, ApiError>(Collection::new(
                store()?,
                schema,
                place.ok_or(ApiError::NotFound)?,
            ))
        };
        let uri = &parts.uri;
        let method = match &parts.method {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let methods = path.target.methods();
        match (path.target, method.as_str()) {
            (_, "OPTIONS") => Ok(response::options(methods)),
            (Target::Node, "GET") => Ok(self.describe()),
            (Target::Status, "GET") => Ok(self.state()),
            (Target::Collection(schema), "GET") => collection(schema).await?.list(uri).await,
            (Target::Collection(schema), "POST") => {
                collection(schema).await?.create(input().await?).await
            }
            (Target::Item(schema, key), "GET") => collection(schema).await?.show(&key).await,
            (Target::Item(schema, key), "PATCH") => {
                collection(schema).await?.patch(&key, input().await?).await
            }
            (Target::Item(schema, key), "PUT") => {
                collection(schema).await?.put(&key, input().await?).await
            }
            (Target::Item(schema, key), "DELETE") => collection(schema).await?.delete(&key).await,
            (
                Target::Children {
                    parent,
                    key,
                    child,
                    field,
                },
                method @ ("GET" | "POST"),
            ) => {
                let parent = collection(parent).await?.find(&key).await?;
                let children = collection(child).await?;
                if method == "GET" {
                    return children.list_children(uri, field, &parent).await;
                }
                let input = input().await?;
                children.create_child(input, field, &parent).await
            }
            (Target::DeadEvents(None), "GET") => dead_events::dead_events(store()?, uri).await,
            (Target::DeadEvents(Some(id)), "GET") => {
                dead_events::dead_event(store()?, &id, uri).await
            }
            (Target::DeadEvents(id), "DELETE") => {
                dead_events::delete(store()?, id.as_deref(), uri).await
            }
            (Target::PublishDeadEvent(id), "POST") => {
                dead_events::publish(store()?, &id, input().await?, uri).await
            }
            (target, method) if target.allows(method) => {
                let hooks = collection(Schema::event_hooks()).await?;
                of_hooks(&hooks, target, uri, input).await
            }
            _ => Err(ApiError::MethodNotAllowed(methods)),
        }
    }

    fn describe(&self) -> Response {
        response::ok(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "tagline": "hookline",
            "node_id": self.node,
            "hostname": self.node,
            "pid": std::process::id(),
        }))
    }

    fn state(&self) -> Response {
        let store = self.store.get();
        let reachable = store.is_some_and(|store| store.is_connected());
        let sequence = store.map(|store| store.view().sequence());
        response::ok(&json!({"database": {"reachable": reachable}, "view": {"sequence": sequence}}))
    }
}

/// What hooks have beyond other entities.
async fn of_hooks(
    hooks: &Collection<'_>,
    target: Target,
    uri: &Uri,
    input: impl AsyncFnOnce() -> Result<Input, ApiError>,
) -> Result<Response, ApiError> {
    match target {
        Target::Sources(source, event) => sources::sources(source.as_deref(), event.as_deref()),
        Target::Ping(key) => hooks.ping(&key).await,
        Target::Test(key) => hooks.test(&key, input().await?).await,
        Target::HookStatus(key) => hooks.status(&key, uri).await,
        Target::Deliveries(key) => hooks.deliveries(&key, uri).await,
        Target::RetryNow(key) => hooks.retry_now(&key, input().await?, uri).await,
        Target::Attempts(key) => hooks.attempts(&key, uri).await,
        Target::Replay(key) => hooks.replay(&key, input().await?, uri).await,
        Target::Dead(key, delivery) => hooks.delete_dead(&key, delivery.as_deref(), uri).await,
        _ => Err(ApiError::NotFound),
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
    let let_in = admin.same_site.check(&method, request.headers());
    let path = let_in.map_err(ApiError::from).and_then(|()| {
        let path = Path::parse(request.uri().path());
        path.ok_or(ApiError::NotFound)
    });
    let path = match path {
        Ok(path) => path,
        Err(error) => {
            let response = error.into_response();
            let (status, took) = (response.status(), started.elapsed());
            admin.metrics.answered("none", &method, status, took);
            return response;
        }
    };
    let (kind, route) = (path.kind(), path.route());
    let given = request.headers().get(TRACEPARENT);
    let given = given.and_then(|value| value.to_str().ok());
    let trace = trace::Request::begin(method.as_str(), given);
    // In a task of its own, so that a change is completed even if the client disconnects.
    let task = admin.requests.spawn({
        let admin = Arc::clone(&admin);
        async move { admin.route(path, request).await }.with_context(trace.context())
    });
    let result = task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "request handler panicked");
        Err(ApiError::Internal)
    });
    let response = result.unwrap_or_else(ApiError::into_response);
    let (status, took) = (response.status(), started.elapsed());
    admin.metrics.answered(kind, &method, status, took);
    trace.end(method.as_str(), &route, status.as_u16());
    tracing::debug!(kind, %method, status = status.as_u16(), duration_ms = took.as_millis(), "answered");
    response
}
