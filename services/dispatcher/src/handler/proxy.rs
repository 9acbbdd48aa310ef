//! The outbound proxy: opens tunnels (CONNECT) to receivers. Their names are looked up here and their addresses checked,
//! so the proxy learns addresses and no names, and the egress policy holds for receivers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, StatusCode, Uri};
use hookline_shared::egress::Policy;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::{self, Upgraded};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use reqwest::Body;
use reqwest::dns::Resolve as _;
use reqwest::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::outcome::BoxError;
use super::resolver::Resolver;
use super::tls::{Factory, Tls};

/// Between two lines in the log about a proxy that is away.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Where requests go through.
pub(crate) struct Proxy {
    address: Uri,
    login: Option<HeaderValue>,
    /// What goes past it.
    matcher: Matcher,
}

/// Quotes no password.
#[derive(Debug, thiserror::Error)]
#[error(
    "HOOKLINE_PROXY is not http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before it or not"
)]
pub(crate) struct NotAProxy;

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The cause is in the log: it is the operator's, not the hook's owner's.
    #[error("the proxy does not answer")]
    Unreachable,
    #[error("the proxy wants another user or password")]
    Login,
    #[error("the proxy does not connect to {0}, it answered {1}")]
    Refused(SocketAddr, StatusCode),
    #[error("the proxy does not say in time whether it connects to {0}")]
    NoAnswer(SocketAddr),
    #[error("no connection within {0:?}")]
    NotInTime(Duration),
}

impl Error {
    /// Otherwise it may be the receiver's.
    pub(super) fn is_the_proxys(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Login)
    }
}

impl Proxy {
    /// Without user and password.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// `past`: receivers that are reached without it, as in NO_PROXY.
    pub(crate) fn new(address: &str, past: &str) -> Result<Self, NotAProxy> {
        let url = Url::parse(address).map_err(|_| NotAProxy)?;
        let is_plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !is_plain {
            return Err(NotAProxy);
        }
        let any = Uri::from_static("http://receiver.invalid/");
        let found = Matcher::builder().all(address).build().intercept(&any);
        let found = found.ok_or(NotAProxy)?;
        Ok(Self {
            address: found.uri().clone(),
            login: found.basic_auth().cloned(),
            matcher: Matcher::builder().all(address).no(past).build(),
        })
    }

    /// Whether requests to this URL go through it. Those that cannot be made do not go past it.
    pub(super) fn carries(&self, url: &Url) -> bool {
        let uri = url.as_str().parse();
        uri.map_or(true, |uri| self.matcher.intercept(&uri).is_some())
    }

    /// Opens tunnels for one TLS setting of hooks. The error is a sentence for the hook's owner.
    pub(super) fn tunnels(
        &self,
        factory: &Factory,
        tls: &Tls,
        reach: Reach,
    ) -> Result<InTime<HttpsConnector<Tunnels>>, String> {
        let timeout = reach.timeout;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // The proxy's own certificate is of an authority that this host trusts.
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(factory.config(&Tls::of_host())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let tunnels = Tunnels {
            to_proxy,
            proxy: self.address.clone(),
            login: self.login.clone(),
            reach,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(factory.config(tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tunnels);
        Ok(InTime { connector, timeout })
    }
}

/// Which receivers may be reached, and how soon.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) resolver: Resolver,
    pub(super) policy: Policy,
    pub(super) timeout: Duration,
}

impl Reach {
    /// The permitted addresses of a host.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, BoxError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse() {
            self.policy.check(address)?;
            return Ok(vec![address]);
        }
        let found = self.resolver.resolve(host.parse()?).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Connects to receivers by tunnels of the proxy.
#[derive(Clone)]
pub(super) struct Tunnels {
    to_proxy: HttpsConnector<HttpConnector>,
    proxy: Uri,
    login: Option<HeaderValue>,
    reach: Reach,
}

impl Service<Uri> for Tunnels {
    type Response = Tunnel;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Tunnel, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, receiver: Uri) -> Self::Future {
        Box::pin(self.clone().open(receiver))
    }
}

impl Tunnels {
    /// Tries the receiver's addresses in turn, each for its part of the time that is left.
    async fn open(mut self, receiver: Uri) -> Result<Tunnel, BoxError> {
        let default = if receiver.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = receiver.port_u16().unwrap_or(default);
        let host = receiver.host().unwrap_or_default();
        let until = Instant::now() + self.reach.timeout;
        let addresses = self.reach.addresses(host).await?;
        let mut last = None;
        for (at, address) in addresses.iter().enumerate() {
            let address = SocketAddr::new(*address, port);
            let left = until.saturating_duration_since(Instant::now());
            let time = left / (addresses.len() - at) as u32;
            match self.connect(address, time).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(error) if error.is_the_proxys() => return Err(error.into()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| "the name has no address".into(), BoxError::from))
    }

    async fn connect(&mut self, receiver: SocketAddr, time: Duration) -> Result<Tunnel, Error> {
        // The rest is for what the proxy does to reach the receiver.
        let stream = tokio::time::timeout(time / 2, self.reach_proxy()).await;
        let stream = stream.map_err(|_| unreachable("no connection in time"))??;
        let tunnel = tokio::time::timeout(time / 2, self.ask_for_tunnel(stream, receiver)).await;
        tunnel.map_err(|_| Error::NoAnswer(receiver))?
    }

    async fn reach_proxy(&mut self) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, Error> {
        let ready = std::future::poll_fn(|context| self.to_proxy.poll_ready(context)).await;
        ready.map_err(|error| unreachable_by(&*error))?;
        let stream = self.to_proxy.call(self.proxy.clone()).await;
        stream.map_err(|error| unreachable_by(&*error))
    }

    async fn ask_for_tunnel(
        &self,
        stream: MaybeHttpsStream<TokioIo<TcpStream>>,
        receiver: SocketAddr,
    ) -> Result<Tunnel, Error> {
        let opened = http1::handshake(stream).await;
        let (mut requests, connection) = opened.map_err(|error| unreachable_by(&error))?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Body::default());
        *request.method_mut() = Method::CONNECT;
        let address = receiver.to_string();
        // An address is a valid header and the target of this method.
        request
            .headers_mut()
            .extend(address.parse().map(|value| (HOST, value)));
        *request.uri_mut() = address.parse().unwrap_or_default();
        if let Some(login) = &self.login {
            let login = login.clone();
            request.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
        let answer = requests.send_request(request).await;
        let answer = answer.map_err(|error| unreachable_by(&error))?;
        match answer.status() {
            status if status.is_success() => {
                let upgraded = upgrade::on(answer).await;
                upgraded.map(Tunnel).map_err(|error| unreachable_by(&error))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Error::Login),
            status => Err(Error::Refused(receiver, status)),
        }
    }
}

/// With the last cause, which says what happened.
fn unreachable_by(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    unreachable(&cause.to_string())
}

fn unreachable(cause: &str) -> Error {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock();
    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
        *said = Some(Instant::now());
        tracing::warn!(cause, "the outbound proxy (HOOKLINE_PROXY) does not answer");
    }
    Error::Unreachable
}

/// A connector with a limit on time, its TLS included.
#[derive(Clone)]
pub(super) struct InTime<C> {
    connector: C,
    timeout: Duration,
}

impl<C: Service<Uri, Error = BoxError>> Service<Uri> for InTime<C>
where
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, receiver: Uri) -> Self::Future {
        let (connecting, timeout) = (self.connector.call(receiver), self.timeout);
        Box::pin(async move {
            let connected = tokio::time::timeout(timeout, connecting).await;
            connected.map_err(|_| Error::NotInTime(timeout))?
        })
    }
}

/// A connection to a receiver through the proxy.
pub(super) struct Tunnel(Upgraded);

impl Connection for Tunnel {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_go_past_it_by_name_address_and_network() {
        let proxy = Proxy::new("http://u:p@127.0.0.1:3128", "internal.test, 10.0.0.0/8,::1");
        let proxy = proxy.expect("a proxy");
        assert_eq!(proxy.address.to_string(), "http://127.0.0.1:3128/");
        assert!(proxy.login.is_some());
        for (url, through) in [
            ("https://example.com/x?token=1", true),
            ("http://internal.test/", false),
            ("https://a.internal.test:8443/", false),
            ("http://notinternal.test/", true),
            ("http://10.1.2.3/", false),
            ("http://11.1.2.3/", true),
            ("http://[::1]/", false),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(proxy.carries(&url), through, "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for wrong in [
            "127.0.0.1:3128",
            "socks5://u:s3cret@127.0.0.1:1080",
            "http://u:s3cret@",
            "http://u:s3cret@h/path",
        ] {
            let error = Proxy::new(wrong, "").err().expect(wrong).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
