//! Schemas in Kong's shape, for `GET /schemas/...`: clients take defaults from them.

use serde_json::{Map, Value, json};

use super::field::{Auto, Field, Type, Visibility};
use super::table::Schema;

impl Schema {
    /// Of the kind; of a polymorphic record, only that it is one.
    pub(crate) fn describe(&self) -> Value {
        let mut described = json!({ "fields": fields(self.fields, None) });
        if let Some(variants) = self.variants() {
            let forms = (variants.forms)().iter();
            let forms = forms.map(|(name, of)| ((*name).to_owned(), fields(of, None)));
            described["subschemas"] = Value::Object(forms.collect());
        }
        described
    }

    /// With the fields of one form of the polymorphic record.
    pub(crate) fn describe_form(&self, form: &str) -> Option<Value> {
        let form = self.variants()?.form(form)?;
        Some(json!({ "fields": fields(self.fields, Some(form)) }))
    }
}

/// A list of objects with one key each.
fn fields(of: &[Field], form: Option<&'static [Field]>) -> Value {
    let shown = of
        .iter()
        .filter(|field| field.visibility != Visibility::Internal)
        .map(|field| json!({ field.name: describe(field, form) }));
    shown.collect()
}

fn describe(field: &Field, form: Option<&'static [Field]>) -> Value {
    let mut about = Map::new();
    let mut say = |name: &str, value: Value| drop(about.insert(name.to_owned(), value));
    describe_type(field, form, &mut say);
    if field.required {
        say("required", true.into());
    }
    if let Some(default) = &field.default {
        say("default", default.value());
    }
    if field.unique.is_some() {
        say("unique", true.into());
    }
    if field.immutable {
        say("immutable", true.into());
    }
    if field.cascades {
        say("on_delete", "cascade".into());
    }
    match field.auto {
        Some(Auto::Id) => {
            say("auto", true.into());
            say("uuid", true.into());
        }
        Some(Auto::CreatedAt | Auto::UpdatedAt) => {
            say("auto", true.into());
            say("timestamp", true.into());
        }
        None if field.generated => say("auto", true.into()),
        None => {}
    }
    if !field.one_of.is_empty() {
        let texts = || field.one_of.iter().map(|text| json!(text));
        let numbers = field
            .one_of
            .iter()
            .filter_map(|text| text.parse::<i64>().ok());
        let one_of: Vec<Value> = match field.kind {
            Type::Integer => numbers.map(Value::from).collect(),
            _ => texts().collect(),
        };
        say("one_of", one_of.into());
    }
    if let Some((low, high)) = field.between {
        say("between", json!([low, high]));
    }
    if field.is_secret() {
        say("encrypted", true.into());
    }
    Value::Object(about)
}

fn describe_type(field: &Field, form: Option<&'static [Field]>, say: &mut dyn FnMut(&str, Value)) {
    match field.kind {
        Type::String => say("type", "string".into()),
        Type::Integer => say("type", "integer".into()),
        Type::Number => say("type", "number".into()),
        Type::Boolean => say("type", "boolean".into()),
        Type::Array(element) => {
            say("type", "array".into());
            say("elements", describe(element, None));
        }
        Type::Set(element) => {
            say("type", "set".into());
            say("elements", describe(element, None));
        }
        Type::Map(element) => {
            say("type", "map".into());
            say("keys", json!({ "type": "string" }));
            say("values", describe(element, None));
        }
        Type::Record(inner) => {
            say("type", "record".into());
            say("fields", fields(inner, None));
        }
        Type::Polymorphic(_) => {
            say("type", "record".into());
            say("fields", fields(form.unwrap_or(&[]), None));
            if form.is_none() {
                say("abstract", true.into());
            }
        }
        Type::Foreign(kind) => {
            say("type", "foreign".into());
            say("reference", kind.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_types_defaults_and_references() {
        let routes = Schema::by_kind("routes").expect("routes").describe();
        let field = |name: &str| {
            let fields = routes["fields"].as_array().expect("a list").iter();
            let mut found = fields.filter_map(|field| field.get(name));
            found.next().cloned().expect(name)
        };
        assert_eq!(
            field("id"),
            json!({"type": "string", "auto": true, "uuid": true, "immutable": true})
        );
        assert_eq!(field("strip_path")["default"], true);
        assert_eq!(
            field("service"),
            json!({"type": "foreign", "reference": "services"})
        );
        assert_eq!(field("https_redirect_status_code")["one_of"][0], 426);
    }

    #[test]
    fn each_plugin_has_a_schema_of_its_config() {
        let plugins = Schema::by_kind("plugins").expect("plugins");
        for name in super::super::plugins::names() {
            let described = plugins.describe_form(name).expect(name).to_string();
            assert!(
                described.contains(r#""config":{"type":"record","fields":[{"#),
                "{name}"
            );
        }
        assert_eq!(plugins.describe_form("nothing"), None);
    }
}
