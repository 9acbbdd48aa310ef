//! Sends events over HTTP, with a token.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::admin::{self, Admin, Answer};
use crate::service::Service;

#[derive(Debug, Clone)]
pub struct Sender {
    base: String,
    http: reqwest::Client,
    pub token: String,
}

impl Sender {
    /// With a new token for some sources.
    pub async fn new(gateway: &Service, sources: &[&str]) -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sender-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "name": name, "sources": sources });
        Self::with(gateway, gateway.admin(), "/ingest-tokens", &body).await
    }

    /// With a new token, made by a request to the Admin API.
    pub async fn with(gateway: &Service, admin: &Admin, path: &str, body: &Value) -> Result<Self> {
        let made = admin.post(path, body).await?.expect(201)?;
        let token = made["token"].as_str().context("a token")?;
        Ok(Self {
            base: gateway.ingest().to_owned(),
            http: admin::http_client()?,
            token: token.to_owned(),
        })
    }

    /// The same token, at another gateway.
    #[must_use]
    pub fn at(&self, gateway: &Service) -> Self {
        Self {
            base: gateway.ingest().to_owned(),
            ..self.clone()
        }
    }

    /// Posts a body with further headers; one named `authorization` stands in the place of the token's.
    pub async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer> {
        let mut request = self
            .http
            .post(format!("{}{path}", self.base))
            .body(body.into());
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        admin::send(request).await
    }

    /// Posts the data of an event.
    pub async fn raise(&self, path: &str, data: &Value) -> Result<Answer> {
        let headers = [("content-type", "application/json")];
        self.send(path, &headers, data.to_string()).await
    }

    /// As [`Self::raise`], with an idempotency key.
    pub async fn raise_once(&self, path: &str, key: &str, data: &Value) -> Result<Answer> {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        self.send(path, &headers, data.to_string()).await
    }
}
