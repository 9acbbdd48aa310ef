//! Types of form values: a form has only text, which the schema converts.

use serde_json::Value;

use super::field::{Field, Type};
use super::table::Entity;

/// Converts a form's values to the types of the schema; empty text becomes null. Text that does not
/// fit is left for the check to report.
pub(super) fn record(fields: &[Field], form: &'static [Field], values: &mut Entity) {
    for (name, value) in values {
        match fields.iter().find(|field| field.name == name) {
            Some(field) => infer(field, form, value),
            None => empty_to_null(value),
        }
    }
}

fn infer(field: &Field, form: &'static [Field], value: &mut Value) {
    empty_to_null(value);
    match (field.kind, &mut *value) {
        (Type::Integer | Type::Number, Value::String(text)) => {
            if let Some(number) = number(text) {
                *value = number;
            }
        }
        (Type::Boolean, Value::String(text)) => match text.as_str() {
            "true" => *value = Value::Bool(true),
            "false" => *value = Value::Bool(false),
            _ => {}
        },
        (Type::Array(element) | Type::Set(element), Value::Array(list)) => {
            for value in &mut *list {
                infer(element, form, value);
            }
            // A form writes the empty list as `tags[]=`.
            list.retain(|value| !value.is_null());
        }
        (Type::Array(element) | Type::Set(element), Value::String(_)) => {
            let mut single = value.take();
            infer(element, form, &mut single);
            *value = Value::Array(vec![single]);
        }
        (Type::Map(element), Value::Object(map)) => {
            for value in map.values_mut() {
                infer(element, form, value);
            }
            map.retain(|_, value| !value.is_null());
        }
        (Type::Record(_) | Type::Polymorphic(_), Value::Object(map)) => {
            record(field.record_fields(form).unwrap_or(&[]), &[], map);
        }
        (Type::Foreign(_), Value::Object(map)) => map.values_mut().for_each(empty_to_null),
        _ => {}
    }
}

fn empty_to_null(value: &mut Value) {
    if value.as_str().is_some_and(str::is_empty) {
        *value = Value::Null;
    }
}

fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Value::from(whole));
    }
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())?;
    Some(Value::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use serde_json::json;

    fn infer_as(kind: &str, values: Value) -> Value {
        let Value::Object(mut values) = values else {
            panic!("an object")
        };
        record(
            Schema::by_kind(kind).expect("a kind").fields,
            &[],
            &mut values,
        );
        Value::Object(values)
    }

    #[test]
    fn text_becomes_what_the_schema_says() {
        assert_eq!(
            infer_as(
                "services",
                json!({"port": "80", "enabled": "true", "name": "true"})
            ),
            json!({"port": 80, "enabled": true, "name": "true"})
        );
    }

    #[test]
    fn what_does_not_fit_stays_text() {
        assert_eq!(
            infer_as(
                "services",
                json!({"port": "x", "enabled": "yes", "retries": "1.5"})
            ),
            json!({"port": "x", "enabled": "yes", "retries": 1.5})
        );
    }

    #[test]
    fn a_lone_scalar_becomes_a_list_of_one() {
        assert_eq!(
            infer_as(
                "routes",
                json!({"hosts": "a.com", "methods": ["GET", "PUT"], "tags": [""]})
            ),
            json!({"hosts": ["a.com"], "methods": ["GET", "PUT"], "tags": []})
        );
        assert_eq!(
            infer_as("routes", json!({"hosts": ""})),
            json!({"hosts": null})
        );
    }
}
