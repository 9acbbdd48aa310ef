//! Whether targets are healthy. Hookline sends no probes: gateways and operators say it, and each change is published as
//! the event `balancer`, `health`.

use std::sync::Arc;

use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use super::collections::Collection;
use super::paging::Paging;
use super::response;
use crate::access::Action;
use crate::error::ApiError;
use crate::schema::{Entity, HEALTH, split_target};
use crate::store::{self, CustomEvent, Row, Write};

const UPSTREAM: &str = "upstream";
const UNHEALTHY: &str = "unhealthy";
const MAX_TRIES: u32 = 10;

impl Collection<'_> {
    /// The targets of an upstream, each with its health, and where `node` answers.
    pub(super) async fn health(
        &self,
        upstream: &Row,
        node: &str,
        uri: &Uri,
    ) -> Result<Response, ApiError> {
        let query = uri.query().unwrap_or_default();
        let mut paging = Paging::read(self.schema, query)?;
        paging.query.parent = Some((UPSTREAM, upstream.id.clone()));
        let (view, here) = (self.store.view(), &self.place.workspace);
        if form_urlencoded::parse(query.as_bytes())
            .any(|one| one == ("balancer_health".into(), "1".into()))
        {
            let mut all = view.children(self.schema, here, UPSTREAM, &upstream.id);
            all.retain(|row| self.shows(row));
            return Ok(response::ok(&of_balancer(upstream, &all, node)));
        }
        let mut page = view.list(self.schema, here, &paging.query).await;
        page.rows.retain(|row| self.shows(row));
        let path = format!("/upstreams/{}/health", upstream.id);
        let show = |row: &Row| {
            let mut shown = self.schema.response(&row.entity);
            shown["health"] = health(upstream, row).into();
            shown["data"] = addresses(upstream, row);
            shown
        };
        let mut shown = paging.envelope(show, &path, &page);
        shown["node_id"] = node.into();
        Ok(response::ok(&shown))
    }

    /// Says of a target, or of its only address, that it is healthy or not.
    pub(super) async fn mark(
        &self,
        upstream: &Row,
        key: &str,
        address: Option<&str>,
        mark: &str,
    ) -> Result<Response, ApiError> {
        let mut found = Some(self.find_child(UPSTREAM, upstream, key).await?);
        for _ in 0..MAX_TRIES {
            let row = found.take().ok_or(ApiError::NotFound)?;
            if address.is_some_and(|address| target(&row) != address) {
                return Err(ApiError::NotFound);
            }
            self.check_forbidden(&row.entity, Action::Update)?;
            let mut entity = row.entity.clone();
            entity.insert(HEALTH.to_owned(), mark.into());
            if entity == row.entity {
                return Ok(response::no_content());
            }
            let write = Write {
                schema: self.schema,
                place: self.place.clone(),
                event: Some(CustomEvent {
                    source: "balancer",
                    name: "health",
                    data: event_data(upstream, &row, mark),
                }),
                old: Some(Arc::clone(&row)),
                new: Some(entity),
                id_given: false,
                by: Arc::clone(&self.caller),
            };
            match self.store.write(write).await {
                Err(store::Error::Stale) => found = self.reread(&row).await?,
                result => {
                    result?;
                    return Ok(response::no_content());
                }
            }
        }
        Err(store::Error::Contended.into())
    }
}

fn target(row: &Row) -> &str {
    let target = row.entity.get("target").and_then(Value::as_str);
    target.unwrap_or_default()
}

/// The event's data, as gateways send it.
fn event_data(upstream: &Row, row: &Row, mark: &str) -> Value {
    let (host, port) = split_target(target(row)).unwrap_or_default();
    json!({
        "upstream_id": upstream.id,
        "ip": host,
        "port": port,
        "hostname": host,
        "health": mark,
    })
}

/// What `GET /upstreams/{upstream}/health` says of one target.
fn health(upstream: &Row, row: &Row) -> &'static str {
    let mark = row.entity.get(HEALTH).and_then(Value::as_str);
    match mark {
        _ if !is_checked(&upstream.entity) => "HEALTHCHECKS_OFF",
        Some(UNHEALTHY) => "UNHEALTHY",
        _ => "HEALTHY",
    }
}

/// Whether an upstream's checks are on: some interval, or some count of failures.
fn is_checked(upstream: &Entity) -> bool {
    let checks = [
        "/active/healthy/interval",
        "/active/unhealthy/interval",
        "/passive/healthy/successes",
        "/passive/unhealthy/tcp_failures",
        "/passive/unhealthy/timeouts",
        "/passive/unhealthy/http_failures",
    ];
    let of = upstream.get("healthchecks");
    checks.iter().any(|path| {
        let number = of.and_then(|of| of.pointer(path)?.as_f64());
        number.is_some_and(|number| number > 0.0)
    })
}

fn weight(row: &Row) -> i64 {
    let weight = row.entity.get("weight").and_then(Value::as_i64);
    weight.unwrap_or_default()
}

fn addresses(upstream: &Row, row: &Row) -> Value {
    let (host, port) = split_target(target(row)).unwrap_or_default();
    let weight = weight(row);
    let available = match health(upstream, row) {
        "UNHEALTHY" => 0,
        _ => weight,
    };
    json!({
        "host": host,
        "port": port,
        "nodeWeight": weight,
        "weight": { "total": weight, "available": available, "unavailable": weight - available },
        "addresses": [{ "ip": host, "port": port, "weight": weight, "health": health(upstream, row) }],
    })
}

/// Of the upstream as a whole.
fn of_balancer(upstream: &Row, rows: &[Arc<Row>], node: &str) -> Value {
    let total: i64 = rows.iter().map(|row| weight(row)).sum();
    let healthy = rows
        .iter()
        .filter(|row| health(upstream, row) != "UNHEALTHY");
    let available: i64 = healthy.map(|row| weight(row)).sum();
    let all = match (is_checked(&upstream.entity), available) {
        (false, _) => "HEALTHCHECKS_OFF",
        (true, 0) => "UNHEALTHY",
        (true, _) => "HEALTHY",
    };
    json!({
        "node_id": node,
        "data": {
            "health": all,
            "id": upstream.id,
            "weight": { "total": total, "available": available, "unavailable": total - available },
        },
    })
}
