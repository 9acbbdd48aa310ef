//! Kinds as JSON Schema, for the OpenAPI document: what answers have, and what requests may have.

use serde_json::{Map, Value, json};

use super::field::{Auto, Field, Type, Visibility};
use super::rules::MAX_UNIQUE;
use super::table::Schema;

/// What a record is described for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Answer,
    Create,
    Update,
}

impl Schema {
    /// An entity; the forms of its polymorphic record are components of their own, see [`forms`](Self::form_schemas).
    pub(crate) fn json_schema(&self, of: For) -> Value {
        let mut schema = record(self.fields, of);
        if let Some(variants) = self.variants() {
            let forms = (variants.forms)().iter();
            let forms: Vec<_> = forms
                .map(|(name, _)| json!({ "$ref": format!("#/components/schemas/{}", self.component(name, of)) }))
                .collect();
            for field in self.fields {
                if matches!(field.kind, Type::Polymorphic(_)) {
                    let mut forms = forms.clone();
                    if of != For::Answer {
                        // One without required fields may be left out.
                        forms.push(json!({ "type": "null" }));
                    }
                    schema["properties"][field.name] = json!({ "anyOf": forms });
                }
                if field.name == variants.selector {
                    let names = (variants.forms)().iter().map(|(name, _)| *name);
                    schema["properties"][field.name]["enum"] = names.collect();
                }
            }
        }
        schema
    }

    /// The forms of the polymorphic record, by the names of their components.
    pub(crate) fn form_schemas(&self, of: For) -> Map<String, Value> {
        let forms = self.variants().map(|variants| (variants.forms)().iter());
        let forms = forms.into_iter().flatten();
        forms
            .map(|(name, fields)| (self.component(name, of), record(fields, of)))
            .collect()
    }

    fn component(&self, form: &str, of: For) -> String {
        let suffix = match of {
            For::Answer => "",
            For::Create => "-create",
            For::Update => "-update",
        };
        format!("{}.{form}{suffix}", self.kind)
    }
}

fn record(fields: &[Field], of: For) -> Value {
    let shown = || {
        fields
            .iter()
            .filter(|field| field.visibility != Visibility::Internal)
    };
    let required: Vec<_> = shown()
        .filter(|field| match of {
            For::Answer => true,
            For::Create => must_be_given(field),
            For::Update => false,
        })
        .map(|field| field.name)
        .collect();
    let properties: Map<_, _> = shown()
        .map(|field| (field.name.to_owned(), described(field, of)))
        .collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn must_be_given(field: &Field) -> bool {
    let is_made = field.default.is_some() || field.generated || field.auto.is_some();
    let is_filled = matches!(field.kind, Type::Record(_) | Type::Polymorphic(_));
    field.required && !is_made && !is_filled
}

/// A field's value, null where it may be unset.
fn described(field: &Field, of: For) -> Value {
    if of == For::Update && field.auto == Some(Auto::UpdatedAt) {
        return json!({ "description": "The time of the change, whatever it says." });
    }
    let mut schema = value(field, of);
    let may_be_unset = match of {
        For::Answer => !is_always_set(field),
        For::Create | For::Update => !must_be_given(field),
    };
    if may_be_unset {
        if let Some(kind) = schema.get_mut("type") {
            *kind = json!([kind.take(), "null"]);
        }
        if let Some(Value::Array(choices)) = schema.get_mut("enum") {
            choices.push(Value::Null);
        }
    }
    if let (Some(default), true) = (&field.default, of != For::Answer) {
        schema["default"] = default.value();
    }
    schema
}

/// An entity that is older than a field with a default has none.
fn is_always_set(field: &Field) -> bool {
    matches!(field.auto, Some(Auto::Id | Auto::CreatedAt)) || must_be_given(field)
}

fn value(field: &Field, of: For) -> Value {
    match field.kind {
        Type::String => text(field, of),
        Type::Integer | Type::Number => number(field),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Array(element) | Type::Set(element) => {
            json!({ "type": "array", "items": value(element, of) })
        }
        Type::Map(element) => {
            json!({ "type": "object", "additionalProperties": value(element, of) })
        }
        Type::Record(fields) => record(fields, of),
        Type::Polymorphic(_) => json!({ "type": "object" }),
        Type::Foreign(kind) => {
            let about = format!("One of {kind}, by its id.");
            let id = json!({ "type": "string" });
            match of {
                For::Answer => json!({
                    "type": "object", "description": about, "required": ["id"],
                    "properties": { "id": id }, "additionalProperties": false,
                }),
                _ => json!({ "type": "object", "description": about, "properties": { "id": id } }),
            }
        }
    }
}

fn text(field: &Field, of: For) -> Value {
    let mut schema = json!({ "type": "string" });
    if field.is_secret() && of == For::Answer {
        schema["description"] = "Redacted, unless the node shows private keys.".into();
        return schema;
    }
    if !field.one_of.is_empty() {
        schema["enum"] = json!(field.one_of);
    }
    if of == For::Answer {
        return schema;
    }
    schema["minLength"] = 1.into();
    if field.unique.is_some() {
        schema["maxLength"] = MAX_UNIQUE.into();
    }
    if field.auto == Some(Auto::Id) {
        schema["format"] = "uuid".into();
    }
    if field.is_secret() {
        schema["writeOnly"] = true.into();
    }
    schema
}

fn number(field: &Field) -> Value {
    let is_whole = matches!(field.kind, Type::Integer);
    let mut schema = json!({ "type": if is_whole { "integer" } else { "number" } });
    if let Some((low, high)) = field.between {
        schema["minimum"] = low.into();
        schema["maximum"] = high.into();
    }
    let choices: Vec<i64> = field
        .one_of
        .iter()
        .filter_map(|one| one.parse().ok())
        .collect();
    if !choices.is_empty() {
        schema["enum"] = json!(choices);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_every_field_and_requests_what_must_be_given() {
        let consumers = Schema::by_kind("consumers").expect("a kind");
        let answer = consumers.json_schema(For::Answer);
        assert_eq!(answer["properties"]["id"]["type"], "string");
        assert_eq!(
            answer["properties"]["username"]["type"],
            json!(["string", "null"])
        );
        assert_eq!(answer["required"].as_array().map(Vec::len), Some(7));
        let services = Schema::by_kind("services").expect("a kind");
        assert_eq!(
            services.json_schema(For::Create)["required"],
            json!(["host"])
        );
        assert!(services.json_schema(For::Update).get("required").is_none());
        let port = &services.json_schema(For::Create)["properties"]["port"];
        assert_eq!(port["maximum"], 65_535);
        assert_eq!(port["default"], 80);
    }

    #[test]
    fn each_form_is_a_component() {
        let hooks = Schema::event_hooks();
        let forms = hooks.form_schemas(For::Create);
        assert_eq!(
            forms["event_hooks.webhook-create"]["required"],
            json!(["url"])
        );
        let config = &hooks.json_schema(For::Create)["properties"]["config"]["anyOf"];
        assert_eq!(config.as_array().map(Vec::len), Some(forms.len() + 1));
    }
}
