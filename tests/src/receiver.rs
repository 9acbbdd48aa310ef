//! A real HTTP server that hooks deliver to. It records every request, and answers each path as the
//! scenario says.

mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::serve::ListenerExt;
use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::state::Shared;
use crate::SOON;
use crate::wait::{eventually, let_pass};

/// Larger than any event.
const MAX_BODY: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body if it is JSON, otherwise null.
    pub json: Value,
    /// When it arrived.
    pub at: Instant,
    /// The status it was answered with. None while it is held, or if the client left.
    pub answered: Option<u16>,
}

impl Request {
    /// A header's value, empty if the header is missing or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The same for all attempts of a delivery.
    #[must_use]
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[must_use]
    pub fn is_ping(&self) -> bool {
        self.json["source"] == "kong:event_hooks" && self.json["event"] == "ping"
    }

    /// Published by [`Cluster::control`](crate::Cluster::control).
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.json["control"] == true
    }

    pub(in crate::receiver) fn is_event(&self) -> bool {
        !self.is_ping() && !self.is_control()
    }
}

/// The server. Every path answers 200 unless a scenario says otherwise. Pings and control events are
/// always answered 200, and do not count as events.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    port: u16,
    server: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let counter = Arc::clone(&shared);
        let listener = listener.tap_io(move |stream| {
            counter.connections.fetch_add(1, Ordering::Relaxed);
            // Otherwise the kernel may delay an answer.
            drop(stream.set_nodelay(true));
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Ends only when the receiver is dropped.
            drop(axum::serve(listener, router).await);
        });
        Ok(Self {
            shared,
            port,
            server,
        })
    }

    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers each event at `path` with the next of these codes. The last one stays.
    pub fn answer(&self, path: &str, codes: &[u16]) {
        self.shared.route(path, |route| {
            route.codes = codes.iter().copied().collect();
        });
    }

    /// Adds a body and a header to all answers of `path`.
    pub fn answer_body(&self, path: &str, body: &str, header: (&str, &str)) {
        self.shared.route(path, |route| {
            body.clone_into(&mut route.body);
            route.headers = vec![(header.0.to_owned(), header.1.to_owned())];
        });
    }

    /// Delays the answer to each event at `path`.
    pub fn delay(&self, path: &str, delay: Duration) {
        self.shared.route(path, |route| route.delay = delay);
    }

    /// Leaves the next `count` events at `path` unanswered until the hold is released.
    #[must_use]
    pub fn hold(&self, path: &str, count: usize) -> Hold {
        let (release, released) = watch::channel(None);
        self.shared.route(path, |route| {
            route.holds.extend(std::iter::repeat_n(released, count));
        });
        Hold(release)
    }

    /// Pings and control events too.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let state = self.shared.lock();
        let all = state.requests.iter();
        all.filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    #[must_use]
    pub fn pings(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests(path);
        requests.retain(Request::is_ping);
        requests
    }

    #[must_use]
    pub fn controls(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests(path);
        requests.retain(Request::is_control);
        requests
    }

    #[must_use]
    pub fn events(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests(path);
        requests.retain(Request::is_event);
        requests
    }

    /// Events at any path.
    #[must_use]
    pub fn all_events(&self) -> Vec<Request> {
        let state = self.shared.lock();
        let all = state.requests.iter();
        all.filter(|request| request.is_event()).cloned().collect()
    }

    /// The field `n` of all events that came to a path, in order.
    #[must_use]
    pub fn numbers(&self, path: &str) -> Vec<u64> {
        let events = self.events(path);
        let mut numbers: Vec<_> = events
            .iter()
            .filter_map(|one| one.json["n"].as_u64())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The number of events at any path.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.shared.events.load(Ordering::Relaxed)
    }

    /// Events that wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Connections opened so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until there are `count` events at `path`, and returns all of them.
    pub async fn wait_for(&self, path: &str, count: usize) -> Result<Vec<Request>> {
        eventually(SOON, &format!("events at {path}"), async || {
            let events = self.events(path);
            ensure!(events.len() >= count, "{} of {count}", events.len());
            Ok(events)
        })
        .await
    }

    pub async fn wait_for_one(&self, path: &str) -> Result<Request> {
        let mut events = self.wait_for(path, 1).await?;
        Ok(events.swap_remove(0))
    }

    pub async fn wait_for_ping(&self, path: &str) -> Result<Request> {
        eventually(SOON, &format!("a ping at {path}"), async || {
            self.pings(path).into_iter().next().context("none yet")
        })
        .await
    }

    /// Waits for `count` events at any path.
    pub async fn wait_for_total(&self, count: usize, deadline: Duration) -> Result<()> {
        eventually(deadline, "events", async || {
            let got = self.event_count();
            ensure!(got >= count, "{got} of {count}");
            Ok(())
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Unanswered requests. Dropping it answers them as usual.
#[derive(Debug)]
pub struct Hold(watch::Sender<Option<u16>>);

impl Hold {
    pub fn release(self, code: u16) {
        self.0.send_replace(Some(code));
    }
}

/// Counts a request for as long as it lives.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn enter(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return plain(StatusCode::BAD_REQUEST, "the body did not arrive whole");
    };
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
        body,
        at: Instant::now(),
        answered: None,
    };
    let is_event = request.is_event();
    let _in_flight = is_event.then(|| InFlight::enter(&shared.in_flight));
    if is_event {
        shared.events.fetch_add(1, Ordering::Relaxed);
    }
    let mut plan = shared.record(request);
    if let Some(hold) = &mut plan.hold {
        // A dropped hold answers as if there had been none.
        if let Ok(released) = hold.wait_for(Option::is_some).await {
            plan.code = released.unwrap_or(plan.code);
        }
    }
    if !plan.delay.is_zero() {
        let_pass(plan.delay).await;
    }
    shared.answered(plan.index, plan.code);
    let status = StatusCode::from_u16(plan.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status, &plan.body);
    for (name, value) in &plan.headers {
        insert_header(&mut response, name, value);
    }
    response
}

fn plain(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response
}

fn insert_header(response: &mut Response<Body>, name: &str, value: &str) {
    let name = axum::http::HeaderName::try_from(name).expect("scenarios name real headers");
    let value = axum::http::HeaderValue::try_from(value).expect("scenarios give real values");
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::Receiver;
    use crate::admin::http_client;

    #[tokio::test]
    async fn a_path_answers_as_configured_and_records_requests() -> crate::Result {
        let receiver = Receiver::start().await?;
        receiver.answer("/a", &[500, 201]);
        let hold = receiver.hold("/a", 1);
        let http = http_client()?;
        let post = async |body: &'static str| {
            let url = receiver.url("/a?q=1");
            let response = http.post(url).body(body).send().await?;
            crate::Result::Ok(response.status().as_u16())
        };
        let held = async {
            let first = receiver.wait_for_one("/a").await?;
            assert_eq!(first.answered, None);
            assert_eq!(receiver.in_flight(), 1);
            hold.release(410);
            crate::Result::Ok(())
        };
        let (code, held) = tokio::join!(post("{\"n\":1}"), held);
        held?;
        assert_eq!(code?, 410);
        assert_eq!(post("2").await?, 201);
        assert_eq!(post("3").await?, 201);
        let ping = r#"{"source":"kong:event_hooks","event":"ping"}"#;
        assert_eq!(post(ping).await?, 200);
        assert_eq!(post(r#"{"control":true}"#).await?, 200);

        let events = receiver.events("/a");
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].json["n"], 1);
        assert_eq!(events[0].query.as_deref(), Some("q=1"));
        assert_eq!(events[1].text(), "2");
        assert_eq!(receiver.pings("/a").len(), 1);
        assert_eq!(receiver.controls("/a").len(), 1);
        assert_eq!(receiver.event_count(), 3);
        assert_eq!(receiver.in_flight(), 0);
        Ok(())
    }
}
