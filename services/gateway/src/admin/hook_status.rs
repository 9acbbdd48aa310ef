//! `GET /event-hooks/{id}/status`: whether a hook works, and why its deliveries wait.

use std::collections::BTreeMap;

use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::rpc::{self, Status};
use hookline_shared::subject;

use super::collections::Collection;
use super::deliveries::{self, State, count, page};
use super::response;
use super::selection::none;
use crate::error::ApiError;
use crate::schema::Entity;

/// Waiting deliveries whose reasons are counted.
const LOOKED_AT: usize = 1_000;

impl Collection<'_> {
    pub(super) async fn status(&self, key: &str, uri: &Uri) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        none(uri.query().unwrap_or_default())?;
        let reply = self
            .request(rpc::STATUS, hook.id.clone(), Entity::new())
            .await?;
        let status = serde_json::from_value(reply.body);
        let status = status.unwrap_or_else(|_| Status {
            circuit: "unknown".to_owned(),
            ..Status::default()
        });
        let delivery = &hook.entity.get("delivery").cloned().unwrap_or_default();
        let (waits, dead) = (subject::waits_of(&hook.id), subject::dead_of(&hook.id));
        let stream = subject::DELIVERIES_STREAM;
        let waiting = page(self.store, stream, &waits, 1, LOOKED_AT).await?;
        let mut reasons = BTreeMap::<String, u64>::new();
        let mut due = Vec::new();
        for one in &waiting {
            let shown = deliveries::show(one, State::Waiting);
            let reason = shown["reason"].as_str().unwrap_or_default();
            *reasons.entry(reason.to_owned()).or_default() += 1;
            due.extend(shown["due_at"].as_f64());
        }
        let state = match &status {
            _ if delivery["paused"] == true => "paused",
            Status { unusable: true, .. } => "unusable",
            Status { circuit, .. } if circuit.ends_with("open") => "failing",
            _ if !waiting.is_empty() => "waiting",
            _ => "working",
        };
        Ok(response::ok(&json!({
            "state": state,
            "paused_reason": delivery["paused_reason"],
            "circuit": { "state": status.circuit, "probed_at": status.probed_at },
            "waiting": {
                "count": count(self.store, stream, &waits).await?,
                "reasons": reasons,
                "next_try_at": due.into_iter().reduce(f64::min),
            },
            "dead": count(self.store, subject::DEAD_STREAM, &dead).await?,
        }) as &Value))
    }
}
