//! Ping and test of event hooks. A dispatcher answers both over NATS; a gateway never calls a hook's
//! endpoint.

use async_nats::{RequestErrorKind, client::Request};
use axum::http::StatusCode;
use axum::response::Response;

use hookline_shared::rpc;

use super::collections::Collection;
use super::response;
use crate::error::ApiError;
use crate::schema::{Entity, Input, is_pinged};
use crate::store;

impl Collection<'_> {
    /// `GET /event-hooks/{id}/ping`: sends a webhook's ping now.
    pub(super) async fn ping(&self, key: &str) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        if !is_pinged(&hook.entity) {
            return Err(ApiError::BadRequest(
                "only hooks with the handler 'webhook' can be pinged; \
                 any hook can be tested with POST /event-hooks/{id}/test",
            ));
        }
        self.ask(rpc::PING, hook.id.clone(), Entity::new()).await
    }

    /// `POST /event-hooks/{id}/test`: one attempt with the body as data.
    pub(super) async fn test(&self, key: &str, input: Input) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        self.ask(rpc::TEST, hook.id.clone(), input.values).await
    }

    async fn ask(&self, verb: &str, hook: String, data: Entity) -> Result<Response, ApiError> {
        let reply = self.request(verb, hook, data).await?;
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok(response::json(status, &reply.body))
    }

    /// Asks a dispatcher.
    pub(super) async fn request(
        &self,
        verb: &str,
        hook: String,
        data: Entity,
    ) -> Result<rpc::Reply, ApiError> {
        self.store.connected().await?;
        let body = rpc::Request { hook, data };
        let body = serde_json::to_vec(&body).map_err(|_| ApiError::Internal)?;
        let request = Request::new()
            .payload(body.into())
            .timeout(Some(rpc::TIMEOUT));
        let reply = self
            .store
            .client()
            .send_request(rpc::subject(verb), request)
            .await
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => ApiError::NoDispatcher,
                RequestErrorKind::TimedOut => ApiError::DispatcherTimeout,
                RequestErrorKind::MaxPayloadExceeded => store::Error::TooLarge.into(),
                _ => store::Error::Unavailable(Some(error.into())).into(),
            })?;
        serde_json::from_slice(&reply.payload).map_err(|error| {
            tracing::error!(%error, verb, "cannot read a dispatcher's answer");
            ApiError::Internal
        })
    }
}
