//! An event's data as values of the engine.

use std::collections::BTreeMap;

use minijinja::value::Value;

use super::number;
use crate::json_text::Reader;

/// Fields by name, of an object in a JSON text that was parsed before: it is nested at most 128 deep.
pub(super) fn fields(json: &[u8]) -> BTreeMap<Value, Value> {
    let mut reader = Reader::new(json);
    match reader.peek() {
        Some(b'{') => object(&mut reader),
        _ => BTreeMap::new(),
    }
}

fn object(reader: &mut Reader<'_>) -> BTreeMap<Value, Value> {
    let mut fields = BTreeMap::new();
    reader.take(b'{');
    while !reader.is_over(b'}') {
        let name = string(reader);
        reader.between(b':');
        fields.insert(name, value(reader));
        reader.between(b',');
    }
    fields
}

fn value(reader: &mut Reader<'_>) -> Value {
    match reader.peek() {
        Some(b'{') => Value::from_object(object(reader)),
        Some(b'[') => {
            let mut items = Vec::new();
            reader.take(b'[');
            while !reader.is_over(b']') {
                items.push(value(reader));
                reader.between(b',');
            }
            items.into()
        }
        Some(b'"') => string(reader),
        _ => match reader.word() {
            b"true" => true.into(),
            b"false" => false.into(),
            b"null" => ().into(),
            word => number::value(std::str::from_utf8(word).unwrap_or_default()),
        },
    }
}

fn string(reader: &mut Reader<'_>) -> Value {
    String::from_utf8_lossy(&reader.string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_the_engine_would_but_for_numbers() {
        let json = r#" {"a" : [1, -2.5, {"b": null, "c\u0061": "\"\u00e9\ud83d\ude00"}, [], {}],
            "t": true, "f": false, "a": "last", "big": 18446744073709551615} "#;
        let parsed: BTreeMap<Value, Value> = serde_json::from_str(json).expect("JSON");
        assert_eq!(
            Value::from_object(fields(json.as_bytes())),
            Value::from_object(parsed)
        );
        let exact = fields(br#"{"n": [1.50, 1e3]}"#);
        assert_eq!(Value::from_object(exact).to_string(), "{'n': [1.50, 1e3]}");
    }
}
