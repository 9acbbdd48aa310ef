//! A client of the Admin API.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Identity, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::tls::Authority;

/// Of requests over TLS.
const REFUSED: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    /// The methods that the path has.
    pub allow: Option<String>,
    /// Null if the body was empty or not JSON.
    pub body: Value,
}

impl Answer {
    /// The body, if this is the status.
    pub fn expect(self, status: u16) -> Result<Value> {
        let Self {
            status: got, body, ..
        } = self;
        ensure!(got == status, "expected {status}, got {got}: {body}");
        Ok(body)
    }
}

#[derive(Debug, Clone)]
pub struct Admin {
    base: String,
    http: Client,
    token: Option<String>,
}

impl Admin {
    pub fn new(base: &str) -> Result<Self> {
        Ok(Self {
            base: base.to_owned(),
            http: http_client()?,
            token: None,
        })
    }

    /// The same API, for the user with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same API over TLS with a certificate of the authority, by a client that has its own if there is one.
    pub fn over_tls(
        &self,
        authority: &Authority,
        client: Option<&(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let root = Certificate::from_pem(&std::fs::read(authority.file())?)?;
        let builder = Client::builder().no_proxy().tls_certs_only([root]);
        // A client that is refused after its handshake may wait for an answer for ever.
        let mut builder = builder.timeout(REFUSED);
        if let Some((certificate, key)) = client {
            let mut pem = std::fs::read(certificate)?;
            pem.extend(std::fs::read(key)?);
            builder = builder.identity(Identity::from_pem(&pem)?);
        }
        let base = self.base.replace("http://127.0.0.1", "https://localhost");
        Ok(Self {
            base,
            // Each request has a connection of its own.
            http: builder.pool_max_idle_per_host(0).build()?,
            token: self.token.clone(),
        })
    }

    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The same API, from another address of this machine.
    pub fn from_address(&self, address: IpAddr) -> Result<Self> {
        let client = Client::builder().no_proxy().local_address(address);
        Ok(Self {
            http: client.timeout(Duration::from_secs(30)).build()?,
            ..self.clone()
        })
    }

    /// The gateway's URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn request(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let request = self.begin(method, path);
        send(if body.is_null() {
            request
        } else {
            request.json(body)
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        send(self.begin(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.begin(Method::POST, path).json(body)).await
    }

    /// As `curl -d` does.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        send(self.begin(Method::POST, path).form(fields)).await
    }

    /// As `curl -F` does.
    pub async fn post_multipart(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let form = fields
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text((*name).to_owned(), (*value).to_owned())
            });
        send(self.begin(Method::POST, path).multipart(form)).await
    }

    pub async fn post_raw(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.begin(Method::POST, path);
        send(request.header("content-type", content_type).body(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.begin(Method::PATCH, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.begin(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        send(self.begin(Method::DELETE, path)).await
    }

    pub async fn create_hook(&self, hook: &Value) -> Result<Value> {
        self.post("/event-hooks", hook).await?.expect(201)
    }

    /// Creates a hook on `crud`/`consumers`.
    pub async fn hook_consumers(&self, handler: &str, config: Value) -> Result<Value> {
        self.create_hook(&hook("crud", "consumers", handler, config))
            .await
    }

    /// Creates a `webhook` on `crud`/`consumers`.
    pub async fn webhook(&self, url: &str) -> Result<Value> {
        self.hook_consumers("webhook", json!({ "url": url })).await
    }

    pub async fn create_consumer(&self, username: &str) -> Result<Value> {
        let consumer = json!({ "username": username });
        self.post("/consumers", &consumer).await?.expect(201)
    }

    /// All entities of a collection, over all pages.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut next = Some(format!("{path}?size=1000"));
        while let Some(page) = next {
            let body = self.get(&page).await?.expect(200)?;
            let data = body["data"].as_array().context("a page has data")?;
            all.extend(data.iter().cloned());
            next = body["next"].as_str().map(str::to_owned);
        }
        Ok(all)
    }

    fn begin(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header("Kong-Admin-Token", token),
            None => request,
        }
    }
}

/// The body that creates a hook.
#[must_use]
pub fn hook(source: &str, event: &str, handler: &str, config: Value) -> Value {
    let mut hook = json!({ "source": source, "event": event, "handler": handler });
    hook["config"] = config;
    hook
}

pub fn id(entity: &Value) -> Result<&str> {
    entity["id"].as_str().context("an entity has an id")
}

/// For the services' own APIs.
pub fn http_client() -> Result<Client> {
    // The client needs a provider although it only speaks plain HTTP. Only the first call installs it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder()
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()?;
    Ok(client)
}

pub(crate) async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let (retry_after, allow) = (header("retry-after"), header("allow"));
    let body = response.bytes().await?;
    Ok(Answer {
        status,
        retry_after,
        allow,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}
