//! A client of the Admin API.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

/// What the Admin API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What the header `Retry-After` says, if it is there.
    pub retry_after: Option<String>,
    /// The body; null when it was empty or no JSON.
    pub body: Value,
}

impl Answer {
    /// The body, if the status is the expected one.
    ///
    /// # Errors
    /// When it is another one.
    pub fn expect(self, status: u16) -> Result<Value> {
        let Self {
            status: got, body, ..
        } = self;
        ensure!(got == status, "expected {status}, got {got}: {body}");
        Ok(body)
    }
}

/// The client of one gateway.
#[derive(Debug, Clone)]
pub struct Admin {
    base: String,
    http: Client,
}

impl Admin {
    /// A client of the gateway at `base`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(base: &str) -> Result<Self> {
        Ok(Self {
            base: base.to_owned(),
            http: http_client()?,
        })
    }

    /// The gateway's address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        send(self.http.get(self.url(path))).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.post(self.url(path)).json(body)).await
    }

    /// POST of a form, as `curl -d` sends it.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        send(self.http.post(self.url(path)).form(fields)).await
    }

    /// POST of a multipart form, as `curl -F` sends it.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post_multipart(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let form = fields
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text((*name).to_owned(), (*value).to_owned())
            });
        send(self.http.post(self.url(path)).multipart(form)).await
    }

    /// POST of a body as it is.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.http.post(self.url(path));
        send(request.header("content-type", content_type).body(body)).await
    }

    /// PATCH of JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.patch(self.url(path)).json(body)).await
    }

    /// PUT of JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        send(self.http.put(self.url(path)).json(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        send(self.http.delete(self.url(path))).await
    }

    /// Creates a hook.
    ///
    /// # Errors
    /// When the answer is not 201.
    pub async fn create_hook(&self, hook: &Value) -> Result<Value> {
        self.post("/event-hooks", hook).await?.expect(201)
    }

    /// Creates a hook on `crud`/`consumers` with this handler and config.
    ///
    /// # Errors
    /// When the answer is not 201.
    pub async fn hook_consumers(&self, handler: &str, config: Value) -> Result<Value> {
        self.create_hook(&hook("crud", "consumers", handler, config))
            .await
    }

    /// Creates a `webhook` on `crud`/`consumers`.
    ///
    /// # Errors
    /// When the answer is not 201.
    pub async fn webhook(&self, url: &str) -> Result<Value> {
        self.hook_consumers("webhook", json!({ "url": url })).await
    }

    /// Creates a consumer.
    ///
    /// # Errors
    /// When the answer is not 201.
    pub async fn create_consumer(&self, username: &str) -> Result<Value> {
        let consumer = json!({ "username": username });
        self.post("/consumers", &consumer).await?.expect(201)
    }

    /// All entities of a collection, page by page.
    ///
    /// # Errors
    /// When an answer is not 200.
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

/// A hook as the Admin API takes it.
#[must_use]
pub fn hook(source: &str, event: &str, handler: &str, config: Value) -> Value {
    let mut hook = json!({ "source": source, "event": event, "handler": handler });
    hook["config"] = config;
    hook
}

/// The id of an entity.
///
/// # Errors
/// When it has none.
pub fn id(entity: &Value) -> Result<&str> {
    entity["id"].as_str().context("an entity has an id")
}

/// An HTTP client for the services' own APIs.
///
/// # Errors
/// When it cannot be built.
pub fn http_client() -> Result<Client> {
    // The client wants a provider although it only ever speaks plain HTTP. It
    // is there already for every client but the first.
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
