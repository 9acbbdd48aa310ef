//! Which parts of a stored entity are secrets.

use serde_json::{Map, Value};

use crate::hook::{HANDLERS, Kind};
use crate::subject::{CERTIFICATE_KIND, HOOK_KIND};

/// The kinds that have some.
pub const KINDS: [&str; 2] = [HOOK_KIND, CERTIFICATE_KIND];
/// Private keys of certificates.
const KEYS: [&str; 2] = ["key", "key_alt"];

/// Calls with the name and value of each: a certificate's keys; a hook's secrets and URL, and its headers by name.
pub fn each(
    kind: &str,
    entity: &mut Map<String, Value>,
    mut change: impl FnMut(&str, &mut String),
) {
    match kind {
        HOOK_KIND => each_of_hook(entity, change),
        CERTIFICATE_KIND => {
            for name in KEYS {
                if let Some(Value::String(key)) = entity.get_mut(name) {
                    change(name, key);
                }
            }
        }
        _ => {}
    }
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
