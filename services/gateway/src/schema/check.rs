//! Checks types and rules, field by field.

use serde_json::Value;

use super::field::{Field, Type};
use super::rules::{MAX_UNIQUE, is_uuid};
use super::table::{Entity, Schema};
use super::violations::Violations;

const MISSING: &str = "required field missing";

/// Walks an entity and collects violations. Normalizes on the way: `1.0` becomes `1` in integer
/// fields, and sets lose duplicates.
pub(super) struct Checker<'a> {
    violations: &'a mut Violations,
    form: &'static [Field],
    path: Vec<String>,
}

impl<'a> Checker<'a> {
    /// `form` holds the fields of the polymorphic record.
    pub(super) fn new(violations: &'a mut Violations, form: &'static [Field]) -> Self {
        Self {
            violations,
            form,
            path: Vec::new(),
        }
    }

    pub(super) fn record(&mut self, fields: &[Field], values: &mut Entity) {
        for name in values.keys() {
            if !fields.iter().any(|field| field.name == name) {
                self.path.push(name.clone());
                self.fail("unknown field");
                self.path.pop();
            }
        }
        for field in fields {
            self.path.push(field.name.to_owned());
            match values.get_mut(field.name) {
                None | Some(Value::Null) if field.required => self.fail(MISSING),
                None | Some(Value::Null) => {}
                Some(value) => self.value(field, value),
            }
            self.path.pop();
        }
    }

    fn value(&mut self, field: &Field, value: &mut Value) {
        match field.kind {
            Type::String => self.string(field, value),
            Type::Integer => self.integer(field, value),
            Type::Number if value.is_number() => self.number(field, value),
            Type::Number => self.fail("expected a number"),
            Type::Boolean if value.is_boolean() => {}
            Type::Boolean => self.fail("expected a boolean"),
            Type::Array(element) => self.list(element, value, "expected an array"),
            Type::Set(element) => {
                self.list(element, value, "expected a set");
                if let Value::Array(list) = value {
                    dedup(list);
                }
            }
            Type::Map(element) => self.map(field, element, value),
            Type::Record(_) | Type::Polymorphic(_) => {
                let fields = field.record_fields(self.form).unwrap_or(&[]);
                match value {
                    Value::Object(map) => self.record(fields, map),
                    _ => self.fail("expected a record"),
                }
            }
            Type::Foreign(kind) => self.reference(kind, value),
        }
    }

    fn string(&mut self, field: &Field, value: &Value) {
        let Some(text) = value.as_str() else {
            return self.fail("expected a string");
        };
        if text.is_empty() {
            return self.fail("length must be at least 1");
        }
        if field.unique.is_some() && text.len() > MAX_UNIQUE {
            return self.fail(format!("length must be at most {MAX_UNIQUE}"));
        }
        self.choice(field, text);
        self.rule(field, value);
    }

    fn integer(&mut self, field: &Field, value: &mut Value) {
        let Some(number) = whole(value) else {
            return self.fail("expected an integer");
        };
        *value = Value::from(number);
        self.choice(field, &number.to_string());
        self.number(field, value);
    }

    fn number(&mut self, field: &Field, value: &Value) {
        if let (Some((low, high)), Some(number)) = (field.between, value.as_f64())
            && !(low as f64..=high as f64).contains(&number)
        {
            self.fail(format!("value should be between {low} and {high}"));
        }
        self.rule(field, value);
    }

    fn choice(&mut self, field: &Field, text: &str) {
        if !field.one_of.is_empty() && !field.one_of.contains(&text) {
            self.fail(format!("expected one of: {}", field.one_of.join(", ")));
        }
    }

    fn rule(&mut self, field: &Field, value: &Value) {
        if let Some(Err(message)) = field.rule.map(|rule| rule(value)) {
            self.fail(message);
        }
    }

    fn list(&mut self, element: &Field, value: &mut Value, expected: &str) {
        let Value::Array(list) = value else {
            return self.fail(expected);
        };
        for (index, value) in list.iter_mut().enumerate() {
            self.path.push((index + 1).to_string());
            self.value(element, value);
            self.path.pop();
        }
    }

    fn map(&mut self, field: &Field, element: &Field, value: &mut Value) {
        if !value.is_object() {
            return self.fail("expected a map");
        }
        self.rule(field, value);
        let Value::Object(map) = value else {
            return;
        };
        for (name, value) in map {
            let is_nested = value.is_object() || value.is_array();
            let is_payload = self.path.last().is_some_and(|field| field == "payload");
            self.path.push(name.clone());
            if is_nested && is_payload {
                self.fail("expected a string: a payload is flat, write what is nested in body");
            } else {
                self.value(element, value);
            }
            self.path.pop();
        }
    }

    /// A reference is `{"id": ...}`, or has the endpoint key instead of the id.
    fn reference(&mut self, kind: &str, value: &Value) {
        let Value::Object(map) = value else {
            return self.fail("expected a record");
        };
        let key = Schema::by_kind(kind).and_then(|schema| schema.endpoint_key);
        let mut named = false;
        for (name, value) in map {
            self.path.push(name.clone());
            match value.as_str() {
                _ if name != "id" && Some(name.as_str()) != key => self.fail("unknown field"),
                None if value.is_null() => {}
                None => self.fail("expected a string"),
                Some(id) if name == "id" && !is_uuid(id) => self.fail("expected a valid UUID"),
                Some(_) => named = true,
            }
            self.path.pop();
        }
        if !named && map.values().all(Value::is_null) {
            self.path.push("id".to_owned());
            self.fail(MISSING);
            self.path.pop();
        }
    }

    fn fail(&mut self, message: impl Into<String>) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.violations.add(&path, message);
    }
}

/// The largest integer that a double, and so a Lua number, holds exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() <= MAX_EXACT).then_some(number as i64)
    })
}

fn dedup(list: &mut Vec<Value>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|value| seen.insert(value.to_string()));
}
