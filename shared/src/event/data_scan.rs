//! Validates an event's data and extracts the fields that matching hooks needs, without building a tree of
//! values. Accepts and rejects exactly what a full parse would.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Why a body is not an event's data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A syntax error, too many levels, or a number out of range.
    #[error("the body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("the body is not a JSON object but {0}")]
    NotAnObject(&'static str),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outline {
    /// The field `operation`, if it is a string.
    pub(super) operation: Option<Box<str>>,
    /// Whether there is a field `source` or `event`.
    pub(super) names_itself: bool,
}

impl Outline {
    pub(super) fn read(body: &[u8]) -> Result<Self, Error> {
        let read = match std::str::from_utf8(body) {
            Ok(text) => finish(serde_json::Deserializer::from_str(text)),
            // Fails as well, with the position.
            Err(_) => finish(serde_json::Deserializer::from_slice(body)),
        };
        match read.map_err(Error::Json)? {
            Seen::Object(outline) => Ok(outline),
            Seen::Other(kind) => Err(Error::NotAnObject(kind)),
            Seen::Text(_) => Err(Error::NotAnObject("a string")),
        }
    }
}

fn finish<'de, R: serde_json::de::Read<'de>>(
    mut reader: serde_json::Deserializer<R>,
) -> serde_json::Result<Seen> {
    let seen = Part::Body.deserialize(&mut reader)?;
    reader.end()?;
    Ok(seen)
}

/// Which part of the data is being read.
#[derive(Clone, Copy)]
enum Part {
    Body,
    /// A field name of the body.
    Name,
    /// The value of `operation`.
    Text,
    /// A value that is skipped.
    Rest,
}

enum Seen {
    Object(Outline),
    Text(Box<str>),
    /// A description of the value, or which field a name is.
    Other(&'static str),
}

const OPERATION: &str = "operation";
const OWN: &str = "source or event";

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other("a number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(match self {
            Self::Text => Seen::Text(text.into()),
            Self::Name => Seen::Other(match text {
                "operation" => OPERATION,
                "source" | "event" => OWN,
                _ => "a name",
            }),
            Self::Body | Self::Rest => Seen::Other("a string"),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Seen, A::Error> {
        while items.next_element_seed(Self::Rest)?.is_some() {}
        Ok(Seen::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Seen, A::Error> {
        let mut outline = Outline::default();
        if !matches!(self, Self::Body) {
            while fields.next_key_seed(Self::Rest)?.is_some() {
                fields.next_value_seed(Self::Rest)?;
            }
            return Ok(Seen::Object(outline));
        }
        while let Some(name) = fields.next_key_seed(Self::Name)? {
            match name {
                Seen::Other(OPERATION) => {
                    // Of duplicate fields, the last counts.
                    outline.operation = match fields.next_value_seed(Self::Text)? {
                        Seen::Text(text) => Some(text),
                        Seen::Object(_) | Seen::Other(_) => None,
                    };
                }
                name => {
                    outline.names_itself |= matches!(name, Seen::Other(OWN));
                    fields.next_value_seed(Self::Rest)?;
                }
            }
        }
        Ok(Seen::Object(outline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn an_outline_has_the_operation_and_knows_names_of_its_own() {
        for (body, operation, names_itself) in [
            ("{}", None, false),
            (
                r#"{"operation":"create","a":[{"event":1}]}"#,
                Some("create"),
                false,
            ),
            (r#"{"\u006fperation":"cre\u0061te"}"#, Some("create"), false),
            (r#"{"operation":"a","operation":"b"}"#, Some("b"), false),
            (r#"{"operation":"a","operation":null}"#, None, false),
            (r#"{"operation":{"operation":"a"}}"#, None, false),
            (r#"{"\u0065vent":null}"#, None, true),
            (r#"{"source":{}}"#, None, true),
        ] {
            let outline = Outline::read(body.as_bytes()).expect("an object");
            let read = (outline.operation.as_deref(), outline.names_itself);
            assert_eq!(read, (operation, names_itself), "{body}");
        }
    }

    #[test]
    fn it_accepts_and_rejects_what_a_full_parse_does() {
        let deep = |depth: usize| {
            let (open, close) = ("{\"a\":[".repeat(depth), "]}".repeat(depth));
            format!("{{\"a\":{open}1{close}}}").into_bytes()
        };
        let mut bodies = vec![deep(10), deep(63), deep(64), deep(1_000)];
        for value in [
            "1e999",
            "-1e999",
            "-0",
            "01",
            "1.",
            "18446744073709551616",
            "1e-999",
            "nul",
            "true",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"\\x\"",
            "\"\n\"",
            "\"",
            "[1,]",
            "{\"a\"}",
            "{1:2}",
            "{\"b\":1,}",
            "[[[]]]",
            "{\"\\ud800\":1}",
        ] {
            bodies.push(format!("{{\"a\":{value}}}").into_bytes());
            bodies.push(value.as_bytes().to_vec());
        }
        for body in [
            &b"{\"a\":\"\xff\"}"[..],
            b"{\"\xff\":1}",
            b"{} {}",
            b"",
            b" {} ",
        ] {
            bodies.push(body.to_vec());
        }
        for body in bodies {
            let whole: Result<Value, _> = serde_json::from_slice(&body);
            let text = String::from_utf8_lossy(&body).into_owned();
            match (Outline::read(&body), whole) {
                (Ok(_), Ok(Value::Object(_))) => {}
                (Err(Error::NotAnObject(_)), Ok(other)) => {
                    assert!(!other.is_object(), "{text}")
                }
                (Err(Error::Json(one)), Err(other)) => {
                    assert_eq!(one.to_string(), other.to_string(), "{text}");
                }
                (outline, whole) => panic!("{text}: {outline:?}, {whole:?}"),
            }
        }
    }
}
