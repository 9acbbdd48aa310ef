//! Random entities of a kind, for tests: of the right types, and often within all rules.

use fastrand::Rng;
use serde_json::{Value, json};

use super::field::{Field, Type, Visibility};
use super::table::{Entity, Schema};

/// Nothing in it is made up later, so that two creations have the same result.
pub(crate) fn entity(schema: &Schema, random: &mut Rng) -> Entity {
    let form = schema.variants().map(|variants| {
        let (name, fields) = random.choice((variants.forms)()).expect("a form");
        (variants.selector, *name, *fields)
    });
    let fields = form.map_or(&[][..], |(_, _, fields)| fields);
    let mut entity = record(schema.fields, fields, random);
    if let Some((selector, name, _)) = form {
        entity.insert(selector.to_owned(), name.into());
    }
    entity.insert("id".to_owned(), uuid(random).into());
    for name in ["created_at", "updated_at"] {
        if schema.field(name).is_some() {
            entity.insert(name.to_owned(), 1_700_000_000.into());
        }
    }
    entity
}

fn record(fields: &[Field], form: &'static [Field], random: &mut Rng) -> Entity {
    let shown = fields
        .iter()
        .filter(|field| field.visibility != Visibility::Internal);
    let given = shown.filter(|field| field.required || field.generated || random.u8(..4) == 0);
    let given: Vec<_> = given.collect();
    let given = given
        .into_iter()
        .map(|field| (field.name.to_owned(), value(field, form, random)));
    given.collect()
}

fn value(field: &Field, form: &'static [Field], random: &mut Rng) -> Value {
    if let Some(one) = random.choice(field.one_of) {
        return match field.kind {
            Type::Integer => json!(one.parse::<i64>().unwrap_or_default()),
            _ => json!(one),
        };
    }
    match field.kind {
        Type::String => text(field, random).into(),
        Type::Integer => {
            let (low, high) = field.between.unwrap_or((0, 9));
            random.i64(low..=high.min(low + 50)).into()
        }
        Type::Number => (f64::from(random.u32(1..400)) / 4.0).into(),
        Type::Boolean => random.bool().into(),
        // A form has no empty list.
        Type::Array(element) | Type::Set(element) => (0..random.usize(1..4))
            .map(|_| value(element, &[], random))
            .collect(),
        Type::Map(element) => {
            let entries =
                (0..random.usize(1..4)).map(|n| (format!("key-{n}"), value(element, &[], random)));
            Value::Object(entries.collect())
        }
        Type::Record(fields) => Value::Object(filled(record(fields, &[], random))),
        Type::Polymorphic(_) => Value::Object(filled(record(form, &[], random))),
        Type::Foreign(_) => json!({ "id": uuid(random) }),
    }
}

/// Nor has a form an empty record.
fn filled(mut record: Entity) -> Entity {
    if record.is_empty() {
        record.insert("unknown".to_owned(), "field".into());
    }
    record
}

/// One that some rule takes.
fn text(field: &Field, random: &mut Rng) -> String {
    let texts = [
        "a",
        "example.com",
        "/path",
        "http://example.com/x",
        "10.0.0.0/8",
        "GET",
        "été",
        "1",
        "true",
        "a b",
        "x-header",
        "*.example.com",
        "return function() end",
        "ada@example.com",
        "10.0.0.1:80",
    ];
    let mut fitting: Vec<String> = texts.map(str::to_owned).to_vec();
    fitting.push(uuid(random));
    if let Some(rule) = field.rule {
        fitting.retain(|text| rule(&json!(text)).is_ok());
    }
    random
        .choice(fitting)
        .unwrap_or_else(|| "none fits".to_owned())
}

fn uuid(random: &mut Rng) -> String {
    let random = random.u128(..).to_be_bytes();
    uuid::Builder::from_random_bytes(random)
        .into_uuid()
        .to_string()
}
