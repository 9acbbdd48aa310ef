//! Which parts of a stored hook are secrets.

use serde_json::{Map, Value};

use super::{HANDLERS, Kind};

/// Calls with the field's name and value: secret and URL, and the headers by name.
pub fn each_secret(hook: &mut Map<String, Value>, mut change: impl FnMut(&str, &mut String)) {
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
