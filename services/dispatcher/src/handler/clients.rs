//! HTTP clients, one for each TLS setting, with the proxy or past it, shared by all hooks that have it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hookline_shared::egress::Policy;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, HeaderValue, USER_AGENT};
use reqwest::{Body, Request, Response, redirect, retry};
use url::Url;

use super::outcome::BoxError;
use super::proxy::{InTime, Proxy, Reach, Tunnels};
use super::resolver::Resolver;
use super::tls::{Factory, Tls};

/// How long an idle connection is kept: less than common servers do.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept per receiver.
const MAX_IDLE: usize = 512;
const AGENT: &str = concat!("hookline/", env!("CARGO_PKG_VERSION"));
/// Settings after which those that no hook has any more are looked for.
const SWEEP: usize = 64;

pub(crate) struct Clients {
    factory: Factory,
    resolver: Resolver,
    policy: Policy,
    connect_timeout: Duration,
    proxy: Option<Proxy>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_setting: HashMap<Setting, Weak<Connections>>,
    /// How many there may be before the next sweep.
    sweep_at: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Setting {
    tls: Tls,
    through_proxy: bool,
}

/// Of hooks with equal settings.
pub(crate) struct Connections {
    /// Takes a connection that is kept, if there is one.
    pub(super) kept: Client,
    /// Makes a new one for each request.
    pub(super) fresh: Client,
}

pub(super) enum Client {
    Direct(reqwest::Client),
    Proxied(Box<legacy::Client<InTime<HttpsConnector<Tunnels>>, Body>>),
}

impl Client {
    /// The error holds no URL.
    pub(super) async fn execute(&self, request: Request) -> Result<Response, BoxError> {
        match self {
            Self::Direct(client) => {
                let sent = client.execute(request).await;
                Ok(sent.map_err(reqwest::Error::without_url)?)
            }
            Self::Proxied(client) => {
                let request = axum::http::Request::try_from(request);
                let mut request = request.map_err(reqwest::Error::without_url)?;
                let headers = request.headers_mut();
                let any = HeaderValue::from_static("*/*");
                headers.entry(ACCEPT).or_insert(any);
                let agent = HeaderValue::from_static(AGENT);
                headers.entry(USER_AGENT).or_insert(agent);
                Ok(client.request(request).await?.map(Body::wrap).into())
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read this host's authorities: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot make a resolver")]
    Resolver(#[from] NetError),
}

impl Clients {
    pub(crate) fn new(
        policy: &Policy,
        connect_timeout: Duration,
        proxy: Option<Proxy>,
    ) -> Result<Self, Error> {
        Ok(Self {
            factory: Factory::new()?,
            resolver: Resolver::of_system(policy)?,
            policy: policy.clone(),
            connect_timeout,
            proxy,
            known: Mutex::default(),
        })
    }

    /// Those for requests to a URL. The error is a sentence for the hook's owner.
    pub(crate) fn get(&self, tls: Tls, url: &Url) -> Result<Arc<Connections>, String> {
        let proxy = self.proxy.as_ref().filter(|proxy| proxy.carries(url));
        let through_proxy = proxy.is_some();
        let setting = Setting { tls, through_proxy };
        let mut known = self.known.lock();
        if let Some(connections) = known.by_setting.get(&setting).and_then(Weak::upgrade) {
            return Ok(connections);
        }
        let connections = match proxy {
            None => self.direct(&setting.tls)?,
            Some(proxy) => self.proxied(&setting.tls, proxy)?,
        };
        let connections = Arc::new(connections);
        known.add(setting, &connections);
        Ok(connections)
    }

    #[must_use]
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    fn direct(&self, tls: &Tls) -> Result<Connections, String> {
        let mut config = self.factory.config(tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let build = |idle: usize| {
            let client = reqwest::Client::builder()
                .user_agent(AGENT)
                .connect_timeout(self.connect_timeout)
                .redirect(redirect::Policy::none())
                // Retries would keep a copy of each request.
                .retry(retry::never().max_retries_per_request(0))
                .no_proxy()
                .dns_resolver(Arc::new(self.resolver.clone()))
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                .tls_backend_preconfigured(config.clone());
            let client = client.build().map(Client::Direct);
            client.map_err(|error| format!("cannot make an HTTP client: {error}"))
        };
        Ok(Connections {
            kept: build(MAX_IDLE)?,
            fresh: build(0)?,
        })
    }

    fn proxied(&self, tls: &Tls, proxy: &Proxy) -> Result<Connections, String> {
        let reach = Reach {
            resolver: self.resolver.clone(),
            policy: self.policy.clone(),
            timeout: self.connect_timeout,
        };
        let tunnels = proxy.tunnels(&self.factory, tls, reach)?;
        let build = |idle: usize| {
            let client = legacy::Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle)
                .pool_timer(TokioTimer::new())
                .build(tunnels.clone());
            Client::Proxied(Box::new(client))
        };
        Ok(Connections {
            kept: build(MAX_IDLE),
            fresh: build(0),
        })
    }
}

impl Known {
    fn add(&mut self, setting: Setting, connections: &Arc<Connections>) {
        if self.by_setting.len() >= self.sweep_at {
            self.by_setting.retain(|_, one| one.strong_count() > 0);
            self.sweep_at = (2 * self.by_setting.len()).max(SWEEP);
        }
        self.by_setting.insert(setting, Arc::downgrade(connections));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_with_equal_settings_share_connections_which_go_with_the_last() {
        let clients =
            Clients::new(&Policy::default(), Duration::from_secs(1), None).expect("clients");
        let url = Url::parse("https://example.com").expect("a URL");
        let get = |tls| clients.get(tls, &url).expect("connections");
        let unverified = Tls {
            verify: false,
            ..Tls::of_host()
        };
        let (one, two, other) = (get(Tls::of_host()), get(Tls::of_host()), get(unverified));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &other));
        let weak = Arc::downgrade(&one);
        drop((one, two));
        assert!(weak.upgrade().is_none());
    }
}
