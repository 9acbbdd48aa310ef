//! Entities in responses, with all fields, and in events, without private values.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use hookline_shared::hook::REDACTED;
use url::Url;

use super::field::{Field, Type, Visibility};
use super::table::{Entity, Schema};

impl Schema {
    /// Every field, unset ones as null, secrets redacted.
    pub(crate) fn response(&self, entity: &Entity) -> Value {
        Value::Object(response(self.fields, self.form_of(entity), entity))
    }

    /// Without nulls, with secrets and private values redacted.
    pub(crate) fn event(&self, entity: &Entity) -> Entity {
        let mut entity = entity.clone();
        redact(self.fields, self.form_of(&entity), &mut entity);
        entity
    }

    /// The fields of a stored entity's polymorphic record.
    pub(super) fn form_of(&self, entity: &Entity) -> &'static [Field] {
        self.variants()
            .and_then(|variants| variants.form(entity.get(variants.selector)?.as_str()?))
            .unwrap_or(&[])
    }
}

/// The ping of a new webhook, as it is stored: without the secret, values of headers, and the URL behind its host. The
/// dispatcher puts in the URL; the receiver gets the headers as such.
pub(crate) fn ping(hook: &Entity) -> Entity {
    let mut hook = hook.clone();
    if let Some(Value::Object(config)) = hook.get_mut("config") {
        config.shift_remove("secret");
        if let Some(url) = config.get_mut("url") {
            *url = json!(origin(url));
        }
        let headers = config.entry("headers").or_insert_with(|| json!({}));
        if let Value::Object(headers) = headers {
            let is_type = |name: &String| name.eq_ignore_ascii_case("content-type");
            if !headers.keys().any(is_type) {
                headers.insert("content-type".into(), json!("application/json"));
            }
            for (name, value) in headers.iter_mut() {
                if !is_type(name) {
                    *value = json!(REDACTED);
                }
            }
        }
    }
    Entity::from_iter([
        ("event_hooks".to_owned(), Value::Object(hook)),
        ("operation".to_owned(), json!("create")),
    ])
}

/// Whether answers show private keys, as Kong's do: a node's setting.
static SHOWS_PRIVATE_KEYS: AtomicBool = AtomicBool::new(false);

pub(crate) fn show_private_keys() {
    SHOWS_PRIVATE_KEYS.store(true, Ordering::Relaxed);
}

fn is_hidden(field: &Field) -> bool {
    let is_shown = || SHOWS_PRIVATE_KEYS.load(Ordering::Relaxed);
    field.is_secret() && !(field.visibility == Visibility::PrivateKey && is_shown())
}

fn response(fields: &[Field], form: &'static [Field], entity: &Entity) -> Entity {
    let show = |field: &Field| {
        let Some(value) = entity.get(field.name) else {
            return Value::Null;
        };
        match (field.record_fields(form), value) {
            _ if is_hidden(field) => json!(REDACTED),
            (Some(inner), Value::Object(map)) => Value::Object(response(inner, &[], map)),
            _ => value.clone(),
        }
    };
    fields
        .iter()
        .filter(|field| field.visibility != Visibility::Internal)
        .map(|field| (field.name.to_owned(), show(field)))
        .collect()
}

fn redact(fields: &[Field], form: &'static [Field], entity: &mut Entity) {
    for field in fields {
        let Some(value) = entity.get_mut(field.name) else {
            continue;
        };
        match (field.visibility, field.kind, value) {
            (Visibility::Public, Type::Record(_) | Type::Polymorphic(_), Value::Object(map)) => {
                redact(field.record_fields(form).unwrap_or(&[]), &[], map);
            }
            (Visibility::Public, ..) => {}
            (Visibility::Internal | Visibility::NotInEvents, ..) => {
                entity.shift_remove(field.name);
            }
            (_, Type::Map(_), Value::Object(map)) => {
                map.values_mut().for_each(|value| *value = json!(REDACTED));
            }
            (_, Type::Array(_), Value::Array(list)) => {
                list.iter_mut().for_each(|value| *value = json!(REDACTED));
            }
            (Visibility::Address, _, value) => *value = json!(origin(value)),
            (_, _, value) => *value = json!(REDACTED),
        }
    }
}

/// Scheme and host of a URL: user, path and query may hold tokens.
fn origin(url: &Value) -> String {
    let url = url.as_str().and_then(|url| Url::parse(url).ok());
    let origin = url.map(|url| url.origin().ascii_serialization());
    origin.map_or_else(
        || REDACTED.to_owned(),
        |origin| format!("{origin}/{REDACTED}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Entity {
        let hook = json!({
            "id": "i", "created_at": 1, "updated_at": 1, "source": "crud", "handler": "webhook",
            "config": {"url": "http://x", "secret": "s3cret", "headers": {"authorization": "t0ken"},
                       "ssl_verify": true},
        });
        hook.as_object().expect("an object").clone()
    }

    fn schema() -> &'static Schema {
        Schema::by_kind("event_hooks").expect("a kind")
    }

    #[test]
    fn a_response_has_every_field_and_no_secret() {
        assert_eq!(
            schema().response(&hook()),
            json!({
                "id": "i", "created_at": 1, "updated_at": 1, "source": "crud", "event": null,
                "handler": "webhook", "snooze": null, "on_change": null,
                "config": {"url": "http://x", "headers": {"authorization": "t0ken"},
                           "secret": REDACTED, "previous_secret": null,
                           "previous_secret_until": null, "ssl_verify": true,
                           "ca_certificates": null, "client_certificate": null},
                "delivery": null,
            })
        );
    }

    #[test]
    fn an_event_has_neither_secret_nor_header_values() {
        let event = Value::Object(schema().event(&hook())).to_string();
        assert!(
            !event.contains("s3cret") && !event.contains("t0ken"),
            "{event}"
        );
        assert!(event.contains("authorization"), "{event}");
    }

    #[test]
    fn an_event_has_no_credential_of_a_hook() {
        let secrets = ["us3r", "pa55", "t0ken", "qu3ry", "b0dy", "payl0ad", "c0de"];
        for (handler, config) in [
            (
                "webhook",
                json!({"url": "https://us3r:pa55@hooks.example.com:8443/t0ken?k=qu3ry", "ssl_verify": true}),
            ),
            (
                "webhook-custom",
                json!({"url": "https://hooks.example.com:8443/t0ken", "method": "POST", "body": "b0dy",
                "payload": {"text": "payl0ad"}, "headers": {"x": "t0ken"}}),
            ),
            ("lambda", json!({"functions": ["c0de", "c0de"]})),
        ] {
            let mut hook = hook();
            hook.insert("handler".to_owned(), handler.into());
            hook.insert("config".to_owned(), config);
            let event = Value::Object(schema().event(&hook)).to_string();
            assert!(
                secrets.iter().all(|secret| !event.contains(secret)),
                "{event}"
            );
            let shows_host = event.contains("https://hooks.example.com:8443/");
            assert_eq!(shows_host, handler != "lambda", "{event}");
        }
    }

    #[test]
    fn a_stored_ping_has_the_names_of_headers_and_a_content_type_but_no_secret() {
        assert_eq!(
            ping(&hook())["event_hooks"]["config"],
            json!({"url": format!("http://x/{REDACTED}"), "ssl_verify": true,
                   "headers": {"authorization": REDACTED, "content-type": "application/json"}})
        );
    }
}
