//! HTTP for the webhook handlers: one request and its answer.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use hickory_resolver::net::NetError;
use hookline_shared::clock;
use hookline_shared::hook::{Headers, framing};
use hookline_shared::signature::{
    KONG_SIGNATURE, Signer, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
};
use hookline_shared::subject::header::TRACEPARENT;
use hookline_shared::trace;
use percent_encoding::percent_decode_str;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, Request};
use tokio::time::Instant;
use url::Url;

use super::clients::{Clients, Connections};
use super::outcome::BoxError;
use super::proxy;
use super::tls::Tls;
use super::{Delivery, DeliveryError, Receipt, Response, Unreached};
use hookline_shared::egress::Refused;

/// The rest of an answer's body is dropped.
const MAX_BODY_BYTES: usize = 64 << 10;
/// For an answer's body, after which the rest is dropped.
const BODY: Duration = Duration::from_secs(1);
/// A connection that its receiver had closed fails a request within this time.
const STALE: Duration = Duration::from_secs(1);
/// The most headers that are added to a hook's own.
pub(super) const ADDED: usize = 7;
static ID: HeaderName = HeaderName::from_static(WEBHOOK_ID);
static TIMESTAMP: HeaderName = HeaderName::from_static(WEBHOOK_TIMESTAMP);
static SIGNATURE: HeaderName = HeaderName::from_static(WEBHOOK_SIGNATURE);
static KONG: HeaderName = HeaderName::from_static(KONG_SIGNATURE);
static TRACE: HeaderName = HeaderName::from_static(TRACEPARENT);

/// Where a hook's requests go.
pub(super) struct Target {
    connections: Arc<Connections>,
    url: Url,
    credentials: Option<HeaderValue>,
    timeout: Duration,
    refused: Option<IpAddr>,
}

impl Target {
    /// Parses the URL. A literal address is checked here, since it is never resolved.
    pub(super) fn new(
        url: &str,
        tls: Tls,
        timeout: Duration,
        clients: &Clients,
    ) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("config.url: {error}"))?;
        let credentials = take_credentials(&mut url);
        let connections = clients.get(tls, &url)?;
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::from(address)),
            Some(url::Host::Domain(_)) | None => None,
        };
        let refused = address.and_then(|address| clients.policy().check(address).err());
        Ok(Self {
            connections,
            url,
            credentials,
            timeout,
            refused: refused.map(|Refused(address)| address),
        })
    }

    /// Sends a request, as part of the delivery's trace.
    pub(super) async fn send(
        &self,
        delivery: &Delivery,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Receipt, DeliveryError> {
        let call = delivery.trace.as_ref().and_then(|traced| {
            trace::Call::begin(&traced.context, method.as_str(), &self.url, traced.attempt)
        });
        let own = call.as_ref().map(trace::Call::traceparent);
        let trace = own.as_ref().or(delivery.event.traceparent.as_ref());
        if let Some(Ok(trace)) = trace.map(|trace| HeaderValue::from_str(trace)) {
            headers.insert(&TRACE, trace);
        }
        let sent = self.request(method, headers, body).await;
        if let Some(call) = call {
            match &sent {
                Ok(Receipt::Response(response)) => call.end(Some(response.status), None),
                Ok(Receipt::Done) => call.end(None, None),
                Err(error) => call.end(error.status(), Some(error.result().into())),
            }
        }
        sent
    }

    async fn request(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Receipt, DeliveryError> {
        framing::strip(&mut headers);
        if let Some(credentials) = &self.credentials {
            headers
                .entry(AUTHORIZATION)
                .or_insert_with(|| credentials.clone());
        }
        if let Some(address) = self.refused {
            return Err(DeliveryError::EgressRefused(address));
        }
        if body.is_empty() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let answered = tokio::time::timeout(self.timeout, self.exchange(method, headers, body))
            .await
            .map_err(|_| DeliveryError::Timeout(self.timeout))?;
        let response = read(answered.map_err(|error| classify(&*error))?).await;
        if (200..300).contains(&response.status) {
            return Ok(Receipt::Response(response));
        }
        let retry_after = retry_after(&response.headers);
        Err(DeliveryError::Status {
            response,
            retry_after,
        })
    }
}

impl Target {
    /// Tries once more on a fresh connection if nothing of an answer came, as when the receiver had closed the one that
    /// was kept.
    async fn exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, BoxError> {
        let request = |headers, body: Bytes| {
            let mut request = Request::new(method.clone(), self.url.clone());
            *request.headers_mut() = headers;
            *request.body_mut() = Some(body.into());
            request
        };
        let began = Instant::now();
        let first = request(headers.clone(), body.clone());
        match self.connections.kept.execute(first).await {
            Err(error) if began.elapsed() < STALE && is_without_answer(&*error) => {
                self.connections.fresh.execute(request(headers, body)).await
            }
            answered => answered,
        }
    }
}

/// Whether a connection ended before anything of an answer came.
fn is_without_answer(error: Cause<'_>) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    if is_connect(error) {
        return false;
    }
    for error in causes(error) {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected];
            return kinds.contains(&error.kind());
        }
    }
    false
}

/// User and password become a header, once.
fn take_credentials(url: &mut Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_decode_str(text).collect::<Vec<_>>();
    let password = url.password().unwrap_or_default();
    let login = [decode(url.username()), decode(password)].join(&b':');
    // An HTTP URL can be without them.
    let _ = (url.set_username(""), url.set_password(None));
    let value = format!("Basic {}", BASE64_STANDARD.encode(login));
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Adds the Standard Webhooks headers, and the signatures if the hook has a secret.
pub(super) fn sign(
    headers: &mut HeaderMap,
    delivery: &Delivery,
    signer: Option<&Signer>,
    body: &[u8],
) {
    let now = (clock::unix_millis() / 1_000) as i64;
    headers.insert(&TIMESTAMP, now.into());
    // Ids and base64 are always valid header values.
    if let Ok(id) = HeaderValue::from_str(delivery.id.as_str()) {
        headers.insert(&ID, id);
    }
    if let Some(signer) = signer {
        let signature = signer.standard(delivery.id.as_str(), now, body);
        for (name, value) in [(&KONG, signer.kong(body)), (&SIGNATURE, Some(signature))] {
            if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                headers.insert(name, value);
            }
        }
    }
}

pub(super) fn parse_headers(headers: Option<&Headers>) -> Result<HeaderMap, String> {
    let mut parsed = HeaderMap::new();
    for (name, value) in headers.iter().flat_map(|headers| &headers.0) {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| "config.headers: invalid header name".to_owned())?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("config.headers: invalid value of {name}"))?;
        parsed.insert(name, value);
    }
    Ok(parsed)
}

fn classify(error: Cause<'_>) -> DeliveryError {
    let mut refused = causes(error).filter_map(<dyn std::error::Error>::downcast_ref);
    if let Some(Refused(address)) = refused.next() {
        return DeliveryError::EgressRefused(*address);
    }
    let is_invalid = |error: &reqwest::Error| error.is_builder();
    // What a receiver thinks of a certificate may come after the handshake.
    let alert = matches!(of_tls(error), Some(rustls::Error::AlertReceived(_)));
    if is_connect(error) || alert {
        DeliveryError::Connect(unreached(error), Box::new(Innermost::of(error)))
    } else if error.downcast_ref().is_some_and(is_invalid) {
        DeliveryError::Request("the URL or a header is not valid")
    } else {
        DeliveryError::Broken(Box::new(Innermost::of(error)))
    }
}

/// Whether there was no connection.
fn is_connect(error: Cause<'_>) -> bool {
    let mut clients = causes(error).filter_map(<dyn std::error::Error>::downcast_ref);
    clients.any(hyper_util::client::legacy::Error::is_connect)
}

fn unreached(error: Cause<'_>) -> Unreached {
    if of_tls(error).is_some() {
        return Unreached::Tls;
    }
    for cause in causes(error).map(innermost_io) {
        if cause.is::<NetError>() {
            return Unreached::Dns;
        }
        let proxy = cause.downcast_ref::<proxy::Error>();
        if proxy.is_some_and(proxy::Error::is_the_proxys) {
            return Unreached::Proxy;
        }
    }
    Unreached::Connect
}

fn of_tls(error: Cause<'_>) -> Option<&rustls::Error> {
    let mut causes = causes(error).map(innermost_io);
    causes.find_map(<dyn std::error::Error>::downcast_ref)
}

/// An I/O error does not name what it is made of as its cause.
fn innermost_io(mut cause: Cause<'_>) -> Cause<'_> {
    while let Some(inner) = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        cause = inner;
    }
    cause
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The error, what caused it, and so on.
fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The last cause of an error, which says what happened.
#[derive(Debug)]
struct Innermost(String);

impl Innermost {
    fn of(error: &dyn std::error::Error) -> Self {
        let mut error = error;
        while let Some(source) = error.source() {
            error = source;
        }
        Self(error.to_string())
    }
}

impl std::fmt::Display for Innermost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Innermost {}

/// Reads as much of the body as comes soon. It is only shown: the status has decided. What is longer, or late, is
/// dropped with its connection.
async fn read(mut response: reqwest::Response) -> Box<Response> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = BytesMut::new();
    let rest = async {
        while body.len() < MAX_BODY_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
        }
    };
    let _ = tokio::time::timeout(BODY, rest).await;
    Box::new(Response {
        status,
        headers,
        body: body.freeze(),
    })
}

/// `Retry-After` in seconds, however many, or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if value.starts_with(|first: char| first.is_ascii_digit())
        && let Ok(seconds) = value.parse::<f64>()
    {
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(clock::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookline_shared::egress::Policy;

    fn clients() -> Clients {
        Clients::new(&Policy::default(), Duration::from_secs(1), None).expect("clients")
    }

    fn target(url: &str, clients: &Clients) -> Result<Target, String> {
        Target::new(url, Tls::of_host(), Duration::from_secs(1), clients)
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let headers = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a value");
            HeaderMap::from_iter([(RETRY_AFTER, value)])
        };
        assert_eq!(retry_after(&headers("120")), Some(Duration::from_secs(120)));
        let date = httpdate::fmt_http_date(clock::now() + Duration::from_secs(60));
        let asked = retry_after(&headers(&date)).expect("a date");
        assert!((55..=60).contains(&asked.as_secs()), "{asked:?}");
        assert_eq!(
            retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT")),
            Some(Duration::ZERO)
        );
        for (value, want) in [
            ("20.5", Duration::from_millis(20_500)),
            (" 7 ", Duration::from_secs(7)),
            ("99999999999999999999999", Duration::MAX),
            ("1e400", Duration::MAX),
        ] {
            assert_eq!(retry_after(&headers(value)), Some(want), "{value}");
        }
        for value in ["soon", "-1", "NaN", "inf", "", "1s"] {
            assert_eq!(retry_after(&headers(value)), None, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn user_and_password_of_the_url_become_a_header() {
        let clients = clients();
        let url = "https://Ada:p%40ss@example.com/hook";
        let target = target(url, &clients).expect("a URL");
        assert_eq!(target.url.as_str(), "https://example.com/hook");
        let credentials = target.credentials.expect("a header");
        assert_eq!(credentials, "Basic QWRhOnBAc3M=");
        assert!(credentials.is_sensitive());
    }

    #[test]
    fn an_address_in_the_url_is_checked_without_a_name_server() {
        let clients = clients();
        for url in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::ffff:7f00:1]/",
        ] {
            let target = target(url, &clients);
            assert!(target.expect("a URL").refused.is_some(), "{url}");
        }
    }
}
