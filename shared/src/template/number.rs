//! Numbers as they were published. Most are plain numbers of the engine, which writes them the same. Others (`1.50`,
//! `1e3`, more digits than it holds) keep their text, and become plain numbers where something is computed.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value, ValueKind};

/// The text of a JSON number, and what is computed with.
#[derive(Debug)]
struct Published(Box<str>, f64);

impl Object for Published {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.1 != 0.0
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a JSON number.
pub(super) fn value(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return number.into();
    }
    if let Ok(number) = text.parse::<i128>()
        && number.to_string() == text
    {
        return number.into();
    }
    let number = text.parse::<f64>().unwrap_or_default();
    if serde_json::to_string(&number).is_ok_and(|written| written == text) {
        return number.into();
    }
    // One that is too large for it is infinite.
    Value::from_object(Published(text.into(), number))
}

/// The text of a number that the engine would write otherwise.
pub(super) fn published(value: &Value) -> Option<&str> {
    // The kind is cheaper to look at.
    if value.kind() != ValueKind::Plain {
        return None;
    }
    value
        .downcast_object_ref::<Published>()
        .map(|number| &*number.0)
}

/// With plain numbers only, also within lists and maps.
pub(super) fn plain(value: &Value) -> Value {
    changed(value).unwrap_or_else(|| value.clone())
}

/// `None` if there are only plain numbers in it.
fn changed(value: &Value) -> Option<Value> {
    match value.kind() {
        ValueKind::Plain => {
            let number = value.downcast_object_ref::<Published>()?;
            Some(number.1.into())
        }
        ValueKind::Seq => {
            let items: Vec<_> = value.try_iter().ok()?.collect();
            let changes: Vec<_> = items.iter().map(changed).collect();
            changes.iter().any(Option::is_some).then(|| {
                let items = items.into_iter().zip(changes);
                items.map(|(item, change)| change.unwrap_or(item)).collect()
            })
        }
        ValueKind::Map => {
            let fields: Vec<_> = value
                .try_iter()
                .ok()?
                .filter_map(|key| Some((value.get_item(&key).ok()?, key)))
                .collect();
            let changes: Vec<_> = fields.iter().map(|(field, _)| changed(field)).collect();
            changes.iter().any(Option::is_some).then(|| {
                let fields = fields.into_iter().zip(changes);
                let fields = fields.map(|((field, key), change)| (key, change.unwrap_or(field)));
                Value::from_object(fields.collect::<std::collections::BTreeMap<_, _>>())
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_would_be_written_otherwise_keep_their_text() {
        for text in [
            "0",
            "-7",
            "1.5",
            "9223372036854775808",
            "-0.25",
            "1e-7",
            "10.0",
        ] {
            assert_eq!(published(&value(text)), None, "{text}");
        }
        for text in [
            "1.50",
            "-0",
            "1e3",
            "1E3",
            "1e400",
            "0.10000000000000000001",
            "1234567890123456789012345678901234567890123",
        ] {
            assert_eq!(published(&value(text)), Some(text));
            assert_eq!(value(text).to_string(), text);
        }
        let list = Value::from(vec![value("1.50"), Value::from("a")]);
        assert_eq!(
            plain(&list),
            Value::from(vec![Value::from(1.5), Value::from("a")])
        );
        assert!(!value("0.00").is_true() && value("0.10").is_true());
    }
}
