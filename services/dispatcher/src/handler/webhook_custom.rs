//! `webhook-custom`: any method, with templates in body, payload and headers.

use std::sync::Arc;

use async_trait::async_trait;
use hookline_shared::hook::WebhookCustomConfig;
use hookline_shared::hook::custom_request::{CustomRequest, Error};
use hookline_shared::signature::Signer;
use hookline_shared::template::context;
use reqwest::Method;

use super::code_pool::Place;
use super::http::{Target, sign};
use super::preparation::Preparation;
use super::{Delivery, DeliveryError, Handler, Receipt};

struct WebhookCustom {
    target: Target,
    method: Method,
    request: Arc<CustomRequest>,
    /// Where the request is rendered.
    place: Place<()>,
    signer: Option<Signer>,
}

pub(super) fn prepare(
    config: &WebhookCustomConfig,
    with: &Preparation<'_>,
) -> Result<Box<dyn Handler>, String> {
    let method = Method::from_bytes(config.method.as_bytes());
    Ok(Box::new(WebhookCustom {
        target: with.target(
            &config.url,
            *config.ssl_verify,
            config.ca_certificates.as_deref(),
            config.client_certificate.as_ref(),
        )?,
        method: method.map_err(|_| "config.method: invalid value".to_owned())?,
        request: Arc::new(CustomRequest::compile(config)?),
        place: with.shared.templates.place(),
        signer: with.signer(
            config.secret.as_ref(),
            (
                config.previous_secret.as_ref(),
                config.previous_secret_until,
            ),
        ),
    }))
}

#[async_trait]
impl Handler for WebhookCustom {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let (request, event) = (Arc::clone(&self.request), delivery.clone());
        let render = move |_: &mut ()| request.render(&context(&event.event, &event.event_name));
        let rendered = self.place.run(render).await.map_err(DeliveryError::from)?;
        let rendered = rendered.map_err(|error| match error {
            Error::Template { part, source } => DeliveryError::Template { part, source },
            Error::Header(_) => DeliveryError::Request("a rendered header value holds line breaks"),
        })?;
        let (mut headers, body) = (rendered.headers, rendered.body);
        sign(&mut headers, delivery, self.signer.as_ref(), &body);
        let method = self.method.clone();
        self.target.send(delivery, method, headers, body).await
    }
}
