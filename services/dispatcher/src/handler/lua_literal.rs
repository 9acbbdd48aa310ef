//! Kong's log record: a Lua list of event, source, data and pid. Keys are sorted, nulls left out, and every
//! text is quoted, so that no event can forge a log line.

use serde_json::{Map, Value};

/// Formats `{ event, source, data, pid }`.
pub(super) fn inspect(event: &str, source: &str, data: &Map<String, Value>, pid: u64) -> String {
    let mut text = String::from("{ ");
    quote(&mut text, event);
    text.push_str(", ");
    quote(&mut text, source);
    text.push_str(", ");
    object(&mut text, data, 2);
    text.push_str(&format!(", {pid} }}"));
    text
}

/// Writes a value `level` tables deep.
fn value(text: &mut String, value: &Value, level: usize) {
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(string) => quote(text, string),
        Value::Array(items) => array(text, items, level),
        Value::Object(fields) => object(text, fields, level),
    }
}

fn array(text: &mut String, items: &[Value], level: usize) {
    if items.is_empty() {
        text.push_str("{}");
        return;
    }
    text.push_str("{ ");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        value(text, item, level + 1);
    }
    text.push_str(" }");
}

fn object(text: &mut String, fields: &Map<String, Value>, level: usize) {
    let mut fields: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    if fields.is_empty() {
        text.push_str("{}");
        return;
    }
    text.push('{');
    for (index, (name, field)) in fields.into_iter().enumerate() {
        text.push_str(if index > 0 { ",\n" } else { "\n" });
        indent(text, level);
        if is_identifier(name) {
            text.push_str(name);
        } else {
            text.push('[');
            quote(text, name);
            text.push(']');
        }
        text.push_str(" = ");
        value(text, field, level + 1);
    }
    text.push('\n');
    indent(text, level - 1);
    text.push('}');
}

fn indent(text: &mut String, level: usize) {
    text.extend(std::iter::repeat_n("  ", level));
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Quotes as Lua does, with single quotes if that saves escapes.
fn quote(text: &mut String, string: &str) {
    let quote = if string.contains('"') && !string.contains('\'') {
        '\''
    } else {
        '"'
    };
    text.push(quote);
    for c in string.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c == quote => {
                text.push('\\');
                text.push(c);
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                text.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(data: &Value) -> String {
        inspect(
            "consumers",
            "crud",
            data.as_object().expect("an object"),
            68_854,
        )
    }

    #[test]
    fn the_documents_record_has_its_items_order_and_nesting() {
        let data = json!({"schema": "consumers", "operation": "create", "entity": {
            "username": "Elizabeth Bennet", "type": 0, "created_at": 1_627_574_246,
            "id": "4757bd6b-8d54-4b08-bf24-01e346a9323e"}});
        let want = "{ \"consumers\", \"crud\", {\n    entity = {\n      created_at = 1627574246,\n\
            \x20     id = \"4757bd6b-8d54-4b08-bf24-01e346a9323e\",\n      type = 0,\n\
            \x20     username = \"Elizabeth Bennet\"\n    },\n    operation = \"create\",\n\
            \x20   schema = \"consumers\"\n  }, 68854 }";
        assert_eq!(record(&data), want);
    }

    #[test]
    fn no_text_forges_a_line() {
        let text = record(&json!({"a\nb": "x\r\ny\u{1b}[31m\u{85}\u{2028}", "q": "say \"hi\""}));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains(r#"["a\nb"] = "x\r\ny\u{1b}[31m\u{85}\u{2028}""#),
            "{text}"
        );
        assert!(text.contains(r#"q = 'say "hi"'"#), "{text}");
    }

    #[test]
    fn empty_and_nested_values_are_written() {
        assert_eq!(record(&json!({})), "{ \"consumers\", \"crud\", {}, 68854 }");
        let text = record(&json!({"l": [1, "a", [], {}], "n": null, "t": true}));
        assert!(
            text.contains("l = { 1, \"a\", {}, {} },\n    t = true"),
            "{text}"
        );
    }
}
