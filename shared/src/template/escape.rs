//! How a value is written: once, for where it lands.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, State};
use serde::de::IgnoredAny;
use serde_json::ser::CompactFormatter;

use super::budget::{self, Use};
use super::filters;

/// The format around a template's values, which decides how they are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Plain text: values are not escaped.
    None,
    /// Between quotes as the inside of a string, elsewhere as a value.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    Xml,
}

/// Internal filters, with which each expression of a rewritten template ends.
pub(super) const PLAIN: &str = "_plain";
pub(super) const FORM: &str = "_form";
pub(super) const XML: &str = "_xml";
pub(super) const JSON_STRING: &str = "_json_string";
pub(super) const JSON_VALUE: &str = "_json_value";
/// A constant of the template's author.
pub(super) const RAW: &str = "_raw";

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_filter(RAW, |value: Value| value);
    environment.add_filter(PLAIN, |state: &State, value: Value| {
        written(state, value, str::to_owned)
    });
    environment.add_filter(FORM, |state: &State, value: Value| {
        written(state, value, |text| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        })
    });
    environment.add_filter(XML, |state: &State, value: Value| {
        written(state, value, xml)
    });
    environment.add_filter(JSON_STRING, |state: &State, value: Value| {
        written(state, value, |text| {
            let quoted = serde_json::Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        })
    });
    environment.add_filter(JSON_VALUE, json_value);
}

/// Charges for a value's text, and escapes it.
fn written(state: &State, value: Value, escape: fn(&str) -> String) -> Result<Value, Error> {
    if matches!(value.kind(), ValueKind::Undefined | ValueKind::None) {
        return Ok(Value::from(""));
    }
    let text = filters::text(state, value)?;
    let text = text.as_str().unwrap_or_default();
    // The worst is six characters for one.
    budget::charge_written(state, text.len())?;
    Ok(Value::from(escape(text)))
}

/// JSON, whatever the value. What `tojson` made is not quoted again.
fn json_value(state: &State, value: Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from("null"));
    }
    if value.is_safe() {
        budget::charge(state, &value, Use::Read)?;
        // A later filter may have changed it.
        let text = value.as_str().unwrap_or_default();
        if serde_json::from_str::<IgnoredAny>(text).is_ok() {
            return Ok(value);
        }
    }
    Ok(Value::from(budget::json(state, &value, CompactFormatter)?))
}

fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}
