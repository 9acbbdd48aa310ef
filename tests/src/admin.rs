//! A client of the Admin API.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
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
}

impl Admin {
    pub fn new(base: &str) -> Result<Self> {
        Ok(Self {
            base: base.to_owned(),
            http: http_client()?,
        })
    }

    /// The gateway's URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        send(self.http.get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.post(self.url(path)).json(body)).await
    }

    /// As `curl -d` does.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        send(self.http.post(self.url(path)).form(fields)).await
    }

    /// As `curl -F` does.
    pub async fn post_multipart(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let form = fields
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text((*name).to_owned(), (*value).to_owned())
            });
        send(self.http.post(self.url(path)).multipart(form)).await
    }

    pub async fn post_raw(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.http.post(self.url(path));
        send(request.header("content-type", content_type).body(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.patch(self.url(path)).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.put(self.url(path)).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        send(self.http.delete(self.url(path))).await
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

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
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

async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|text| Some(text.to_str().ok()?.to_owned()));
    let body = response.bytes().await?;
    Ok(Answer {
        status,
        retry_after,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}
