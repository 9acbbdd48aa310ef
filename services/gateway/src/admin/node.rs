//! What a node says of itself: `GET /` and `GET /status`, in Kong's shape.

use std::sync::atomic::Ordering;

use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{Admin, response};
use crate::access::Rbac;
use crate::config::Config;
use crate::schema::{Schema, derived_id, plugins};
use crate::store::Store;

/// What does not change while a node runs.
#[derive(Debug)]
pub(super) struct About {
    node: String,
    id: String,
    kong_version: String,
    configuration: Value,
}

impl About {
    pub(super) fn new(config: &Config, rbac: Rbac) -> Self {
        let node = config.node();
        Self {
            id: derived_id(&["node", &node]),
            node,
            kong_version: config.kong_version.clone(),
            configuration: configuration(config, rbac),
        }
    }

    pub(super) fn kong_version(&self) -> &str {
        &self.kong_version
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The header `Server`, where clients look for the version.
    pub(super) fn server(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("kong/{}", self.kong_version)).ok()
    }
}

/// The settings that clients of Kong ask for, by Kong's names. No secret is among them.
fn configuration(config: &Config, rbac: Rbac) -> Value {
    let has_tls = !config.admin_tls.files().is_empty();
    let listener = |address: std::net::SocketAddr, ssl: bool| {
        json!({
            "ip": address.ip().to_string(),
            "port": address.port(),
            "listener": address.to_string(),
            "ssl": ssl,
            "http2": false,
            "proxy_protocol": false,
            "reuseport": false,
            "deferred": false,
            "bind": false,
        })
    };
    let admin = listener(config.admin_listen, has_tls);
    let status = listener(config.status_listen, false);
    let loaded: Map<_, _> = plugins::names()
        .map(|name| (name.to_owned(), true.into()))
        .collect();
    json!({
        // Clients mean by it that entities may be changed one by one.
        "database": "postgres",
        "role": "traditional",
        "router_flavor": "traditional_compatible",
        "rbac": if rbac == Rbac::On { "on" } else { "off" },
        "portal": false,
        "admin_listen": [admin["listener"]],
        "admin_listeners": [admin],
        "status_listen": [status["listener"]],
        "status_listeners": [status],
        "proxy_listen": ["off"],
        "proxy_listeners": [],
        "stream_listen": ["off"],
        "stream_listeners": [],
        "plugins": ["bundled"],
        "loaded_plugins": loaded,
        "enabled_headers": {},
        "log_level": "info",
        "untrusted_lua": "sandbox",
        "anonymous_reports": false,
    })
}

impl Admin {
    pub(super) fn describe(&self, store: Option<&Store>) -> Response {
        let about = &self.about;
        let version = &about.kong_version;
        let available: Map<_, _> = plugins::names()
            .map(|name| {
                let plugin = json!({ "version": version, "priority": 1_000 });
                (name.to_owned(), plugin)
            })
            .collect();
        response::ok(&json!({
            "tagline": "Welcome to hookline",
            "version": version,
            "edition": if version.contains("enterprise") { "enterprise" } else { "community" },
            "hookline_version": env!("CARGO_PKG_VERSION"),
            "hostname": about.node,
            "node_id": about.id,
            "lua_version": "Luau",
            "pids": { "master": std::process::id(), "workers": [std::process::id()] },
            "timers": { "running": 0, "pending": 0 },
            "plugins": {
                "available_on_server": available,
                "enabled_in_cluster": store.map(enabled_plugins).unwrap_or_default(),
            },
            "configuration": about.configuration,
            "prng_seeds": {},
        }))
    }

    pub(super) fn state(&self) -> Response {
        let store = self.store.get();
        let reachable = store.is_some_and(|store| store.is_connected());
        let sequence = store.map(|store| store.view().sequence());
        let open = self.connections.open.load(Ordering::Relaxed);
        let accepted = self.connections.accepted.load(Ordering::Relaxed);
        let busy = self.requests.len() as u64;
        response::ok(&json!({
            "database": { "reachable": reachable },
            "memory": { "lua_shared_dicts": {}, "workers_lua_vms": [] },
            "server": {
                "connections_accepted": accepted,
                "connections_handled": accepted,
                "connections_active": open,
                "connections_reading": 0,
                "connections_writing": busy,
                "connections_waiting": open.saturating_sub(busy),
                "total_requests": self.answered.load(Ordering::Relaxed),
            },
            "view": { "sequence": sequence },
        }))
    }
}

/// The names of plugins that any workspace has.
fn enabled_plugins(store: &Store) -> Vec<String> {
    let names = store.view().forms(Schema::plugins());
    names.into_iter().collect()
}
