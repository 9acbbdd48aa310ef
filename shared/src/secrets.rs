//! Which parts of a stored entity are secrets.

use serde_json::{Map, Value};

use crate::hook::{HANDLERS, Kind};
use crate::subject::{CERTIFICATE_KIND, HOOK_KIND};

/// A sealed entity opens only if all of them were sealed, so that nobody puts a text in the place of a sealed one: a kind
/// that is stored already gets another only together with another version of the seal.
///
/// Kinds, and the paths of their secrets: texts, or lists and maps of them. Of hooks they depend on the handler.
const FIELDS: [(&str, &[&str]); 11] = [
    (HOOK_KIND, &[]),
    (CERTIFICATE_KIND, &["key", "key_alt"]),
    ("basicauth_credentials", &["password"]),
    ("hmacauth_credentials", &["secret"]),
    ("jwt_secrets", &["secret"]),
    ("keyauth_credentials", &["key"]),
    ("keys", &["jwk", "pem.private_key"]),
    ("oauth2_credentials", &["client_secret"]),
    ("partials", &["config.password"]),
    (
        "plugins",
        &[
            "config.add",
            "config.append",
            "config.headers",
            "config.http_endpoint",
            "config.provision_key",
            "config.redis.password",
            "config.replace",
        ],
    ),
    ("upstreams", &["healthchecks.active.headers"]),
];

/// The kinds that have some.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(kind, _)| *kind)
}

/// Calls with the name and value of each: of a hook its secrets and URL, and its headers by name.
pub fn each(
    kind: &str,
    entity: &mut Map<String, Value>,
    mut change: impl FnMut(&str, &mut String),
) {
    if kind == HOOK_KIND {
        return each_of_hook(entity, change);
    }
    let fields = FIELDS.iter().find(|(known, _)| *known == kind);
    for name in fields.into_iter().flat_map(|(_, names)| *names) {
        if let Some(value) = at(entity, name) {
            walk(name, value, &mut change);
        }
    }
}

/// Texts, in lists and maps too.
fn walk(name: &str, value: &mut Value, change: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(secret) => change(name, secret),
        Value::Array(list) => {
            for (at, value) in list.iter_mut().enumerate() {
                walk(&format!("{name}.{at}"), value, change);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                walk(&format!("{name}.{key}"), value, change);
            }
        }
        _ => {}
    }
}

fn at<'a>(entity: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Value> {
    let mut names = path.split('.');
    let first = entity.get_mut(names.next()?);
    names.fold(first, |value, name| value?.get_mut(name))
}

fn each_of_hook(hook: &mut Map<String, Value>, mut change: impl FnMut(&str, &mut String)) {
    let handler = hook.get("handler").and_then(Value::as_str);
    let form = HANDLERS.iter().find(|form| Some(form.name) == handler);
    let config = hook.get_mut("config").and_then(Value::as_object_mut);
    let (Some(form), Some(config)) = (form, config) else {
        return;
    };
    for field in form.fields {
        match (field.kind, config.get_mut(field.name)) {
            (Kind::Secret | Kind::Address, Some(Value::String(value))) => {
                change(field.name, value);
            }
            (Kind::Headers, Some(Value::Object(headers))) => {
                for (name, value) in headers {
                    if let Value::String(value) = value {
                        change(&format!("{}.{name}", field.name), value);
                    }
                }
            }
            _ => {}
        }
    }
}
