//! A hook: a subscription to events, with its handler and that handler's config.
//!
//! The JSON form is Kong's entity (`source`, `event`, `handler`, `config`, `snooze`, `on_change`) with one optional
//! object of our own, `delivery`. The gateway first checks the form against its schema table. [`Hook::validate`]
//! checks what needs compiling.

pub mod allowances;
mod config;
pub mod custom_request;
mod delivery_options;
pub mod framing;
mod handlers;
mod validate;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::subject::{AUTHORITY_KIND, CERTIFICATE_KIND};
use validate::Found;

pub use config::{Address, ConfigField, EntityId, Flag, Headers, Kind, REDACTED, Secret};
pub use delivery_options::{CircuitBreaker, DeliveryOptions};
pub use handlers::*;
pub use validate::{MAX_TIMEOUT, Violation};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hook {
    /// UUID.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    #[serde(default)]
    pub updated_at: Option<i64>,
    pub source: String,
    /// A name, or `name:operation`. `None` for all events of the source.
    #[serde(default)]
    pub event: Option<String>,
    /// Seconds after a delivery during which events with the same entity or unique fields are suppressed.
    #[serde(default)]
    pub snooze: Option<u32>,
    /// Fire only if a watched value has changed.
    #[serde(default)]
    pub on_change: Option<bool>,
    #[serde(flatten)]
    pub handler: HandlerConfig,
    #[serde(default)]
    pub delivery: Option<DeliveryOptions>,
}

impl Hook {
    pub fn from_json(json: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(json)
    }

    #[must_use]
    pub fn options(&self) -> DeliveryOptions {
        self.delivery.clone().unwrap_or_default()
    }

    /// The certificates and authorities that it names, as `(kind, id)`.
    #[must_use]
    pub fn certificates(&self) -> Vec<(&'static str, &str)> {
        let (own, authorities) = match &self.handler {
            HandlerConfig::Webhook(config) => (&config.client_certificate, &config.ca_certificates),
            HandlerConfig::WebhookCustom(config) => {
                (&config.client_certificate, &config.ca_certificates)
            }
            HandlerConfig::Log(_) | HandlerConfig::Lambda(_) => return Vec::new(),
        };
        let own = own.iter().map(|own| (CERTIFICATE_KIND, own.id.as_str()));
        let authorities = authorities.iter().flatten();
        let authorities = authorities.map(|id| (AUTHORITY_KIND, id.as_str()));
        own.chain(authorities).collect()
    }

    /// Lists everything that a dispatcher could not prepare. Compiles templates and Lua, but runs no user code.
    #[must_use]
    pub fn validate(&self) -> Vec<Violation> {
        self.check(Found::default())
    }

    /// As [`validate`](Self::validate), with what is refused in new hooks only: dispatchers overrule it in stored ones.
    #[must_use]
    pub fn validate_new(&self) -> Vec<Violation> {
        self.check(Found {
            is_new: true,
            ..Found::default()
        })
    }

    fn check(&self, mut found: Found) -> Vec<Violation> {
        self.handler.check(&mut found);
        if let Some(options) = &self.delivery {
            found.delivery(options);
        }
        found.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hook(handler: &str, config: Value) -> Hook {
        Hook::from_json(&json!({
            "id": "c57340ab-9fed-40fd-bb7e-1cef8d37c2df", "created_at": 1_627_581_575,
            "source": "crud", "event": "consumers", "handler": handler, "config": config,
            "snooze": null, "on_change": null,
        }))
        .expect("a hook")
    }

    #[test]
    fn the_four_hooks_of_the_document_are_valid() {
        let hooks = [
            hook(
                "webhook",
                json!({"url": "https://webhook.site/x", "headers": {}, "secret": null}),
            ),
            hook(
                "webhook-custom",
                json!({
                    "method": "POST", "url": "https://hooks.slack.com/services/foo/bar/baz",
                    "headers": {"content-type": "application/json"},
                    "payload": {"text": "Admin account `{{ entity.username }}` {{ operation}}d"},
                }),
            ),
            hook("log", json!({})),
            hook(
                "lambda",
                json!({"functions": ["return function (data, event, source, pid) \
                    local user = data.entity.username \
                    error(\"Event hook on consumer \" .. user .. \"\")end"]}),
            ),
        ];
        for hook in hooks {
            assert_eq!(hook.validate(), [], "{hook:?}");
        }
    }

    #[test]
    fn violations_name_the_field() {
        let cases = [
            (hook("webhook", json!({"url": "ftp://x"})), "config.url"),
            (hook("webhook", json!({"url": "http://"})), "config.url"),
            (
                hook(
                    "webhook",
                    json!({"url": "http://x", "headers": {"bad name": "v"}}),
                ),
                "config.headers",
            ),
            (
                hook(
                    "webhook",
                    json!({"url": "http://x", "headers": {"a": "line\nbreak"}}),
                ),
                "config.headers",
            ),
            (
                hook(
                    "webhook-custom",
                    json!({"url": "http://x", "method": "get"}),
                ),
                "config.method",
            ),
            (
                hook(
                    "webhook-custom",
                    json!({"url": "http://x", "method": "POST", "body": "{{ 1 + }}"}),
                ),
                "config.body",
            ),
            (
                hook(
                    "webhook-custom",
                    json!({"url": "http://x", "method": "POST", "payload": {"a": "{{ b"}}),
                ),
                "config.payload",
            ),
            (
                hook("lambda", json!({"functions": ["return function ("]})),
                "config.functions",
            ),
            (hook("lambda", json!({"functions": []})), "config.functions"),
        ];
        for (hook, field) in cases {
            let fields: Vec<_> = hook.validate().into_iter().map(|v| v.field).collect();
            assert_eq!(fields, [field], "{hook:?}");
        }
    }

    #[test]
    fn headers_and_payload_keys_are_limited_in_number() {
        let many: std::collections::BTreeMap<_, _> =
            (0..101).map(|n| (format!("x-{n}"), "")).collect();
        let webhook = hook("webhook", json!({"url": "http://x", "headers": many}));
        assert_eq!(webhook.validate()[0].field, "config.headers");
        let config = json!({"url": "http://x", "method": "POST", "payload": many});
        assert_eq!(
            hook("webhook-custom", config).validate()[0].field,
            "config.payload"
        );
    }

    #[test]
    fn templates_that_are_switched_off_are_not_compiled() {
        let config = json!({
            "url": "http://x", "method": "POST", "body": "{{ 1 + }}", "body_format": false,
            "headers": {"a": "{{ 1 + }}"},
        });
        assert_eq!(hook("webhook-custom", config).validate(), []);
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let hook = hook(
            "webhook",
            json!({"url": "http://x", "secret": "s3cret",
            "headers": {"authorization": "t0ken"}}),
        );
        let text = format!("{hook:?}");
        assert!(
            !text.contains("s3cret") && !text.contains("t0ken"),
            "{text}"
        );
    }

    #[test]
    fn headers_that_frame_a_request_are_refused_in_new_hooks() {
        let url = "http://localhost/";
        for (headers, is_sound) in [
            (json!({"X-A": "1", "content-type": "text/plain"}), true),
            (json!({"Content-Length": "5"}), false),
            (json!({"transfer-encoding": "chunked"}), false),
            (json!({"TE": "trailers"}), false),
            (json!({"Upgrade": "h2c"}), false),
            (json!({"connection": "close"}), false),
            (json!({"HOST": "internal"}), false),
            (json!({"X-A": "1", "x-a": "2"}), false),
        ] {
            let custom =
                json!({"url": url, "method": "POST", "headers": headers, "headers_format": true});
            for (handler, config) in [
                ("webhook", json!({"url": url, "headers": headers})),
                ("webhook-custom", custom),
            ] {
                let hook = hook(handler, config);
                let fields: Vec<_> = hook
                    .validate_new()
                    .into_iter()
                    .map(|found| found.field)
                    .collect();
                assert_eq!(fields.is_empty(), is_sound, "{handler} {headers}");
                assert!(
                    fields.iter().all(|field| field == "config.headers"),
                    "{fields:?}"
                );
                assert_eq!(hook.validate(), [], "stored before: {headers}");
            }
        }
        let tunnel = hook("webhook-custom", json!({"url": url, "method": "CONNECT"}));
        assert_eq!(tunnel.validate()[0].field, "config.method");
    }
}
