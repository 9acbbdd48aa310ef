//! Templates of `webhook-custom`: compiled once per change of a hook, rendered once per attempt.
//!
//! Values are escaped for the format around them ([`Escape`]), never for HTML. A missing name renders as
//! an empty string, even below a missing parent. Neither templates nor events are trusted: the engine's
//! fuel bounds the work and memory of rendering.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior};

use crate::event::Event;

pub const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Fuel for all templates of one request. A unit is about one instruction or 64 bytes, so this allows about
/// 12 MiB.
const FUEL: u64 = 200_000;
/// The name of the only template in an environment, which appears in error messages.
const NAME: &str = "template";

/// The names that a template can use, see [`context`].
pub type Context = Value;

/// The format around a template's values, which decides how they are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Plain text: values are not escaped.
    None,
    /// Values are escaped as the inside of a JSON string.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the template is longer than {MAX_SOURCE_BYTES} bytes")]
    TooLong,
    /// The engine's message has the position of the error, but no values.
    #[error("the template does not compile: {0}")]
    Compile(#[source] minijinja::Error),
    #[error("the template needs too much work or memory")]
    OutOfFuel,
    /// Without the engine's message, which may contain values of the event.
    #[error("the template cannot be rendered: {kind}")]
    Render { kind: ErrorKind },
}

pub struct Template {
    environment: Environment<'static>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Template")
    }
}

impl Template {
    pub fn compile(source: &str, escape: Escape) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::TooLong);
        }
        let syntax = SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .build()
            .map_err(Error::Compile)?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(false);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(move |out, _state: &mut State, value| write(out, value, escape));
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(Error::Compile)?;
        Ok(Self { environment })
    }

    /// Divides the fuel of a request among its templates, of which there are `parts`.
    pub fn share(&mut self, parts: usize) {
        self.environment.set_fuel(Some(FUEL / parts.max(1) as u64));
    }

    pub fn render(&self, context: &Context) -> Result<String, Error> {
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context.clone()))
            .map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => Error::OutOfFuel,
                kind => Error::Render { kind },
            })
    }
}

/// The event's data, with `source` and `event` as delivered.
#[must_use]
pub fn context(event: &Event, event_name: &str) -> Context {
    // Cannot fail: the body of an event is a JSON object.
    let mut names: BTreeMap<Value, Value> = serde_json::from_slice(&event.raw).unwrap_or_default();
    names.insert("source".into(), event.source.as_str().into());
    names.insert("event".into(), event_name.into());
    Value::from_object(names)
}

fn write(out: &mut Output, value: &Value, escape: Escape) -> Result<(), minijinja::Error> {
    let json;
    let text = match (value.as_str(), value.kind()) {
        (_, ValueKind::Undefined | ValueKind::None) => return Ok(()),
        (Some(text), _) => text,
        // Any receiver can read JSON.
        (None, _) => {
            json = serde_json::to_string(value)
                .map_err(|_| minijinja::Error::from(ErrorKind::BadSerialization))?;
            &json
        }
    };
    let escape = if value.is_safe() {
        Escape::None
    } else {
        escape
    };
    let written = match escape {
        Escape::None => out.write_str(text),
        Escape::Json => {
            let quoted = serde_json::to_string(text)
                .map_err(|_| minijinja::Error::from(ErrorKind::BadSerialization))?;
            out.write_str(&quoted[1..quoted.len() - 1])
        }
        Escape::Form => {
            percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC)
                .try_for_each(|part| out.write_str(part))
        }
    };
    written.map_err(minijinja::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventId};
    use bytes::Bytes;

    fn event(data: &serde_json::Value) -> Event {
        Event::parse_with_id(
            "hookline.events.default.crud.admins",
            None,
            Bytes::from(data.to_string()),
            EventId::given("1"),
        )
        .expect("an event")
    }

    fn render(source: &str, escape: Escape, data: &serde_json::Value) -> Result<String, Error> {
        Template::compile(source, escape)?.render(&context(&event(data), "admins"))
    }

    #[test]
    fn the_documents_slack_text_renders() {
        let data = serde_json::json!({"operation": "create",
            "entity": {"username": "ada", "email": "ada@example.com"}});
        let source = "Admin account `{{ entity.username }}` {{ operation}}d; \
                      email address set to `{{ entity.email }}`";
        assert_eq!(
            render(source, Escape::None, &data).expect("a text"),
            "Admin account `ada` created; email address set to `ada@example.com`"
        );
    }

    #[test]
    fn a_missing_name_renders_empty_even_below_a_missing_parent() {
        let data = serde_json::json!({"a": null});
        let source = "[{{ b }}{{ old_entity.username }}{{ a }}{{ a.b.c }}]";
        assert_eq!(render(source, Escape::None, &data).expect("a text"), "[]");
    }

    #[test]
    fn values_are_escaped_for_the_format_around_them() {
        let data =
            serde_json::json!({"t": "a\"b\\\n<&> é", "n": 1.5, "o": {"k": ["v"]}, "s": true});
        let json = render(
            r#"{"t":"{{ t }}","n":{{ n }},"o":{{ o|tojson }}}"#,
            Escape::Json,
            &data,
        )
        .expect("a text");
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(parsed["t"], data["t"]);
        assert_eq!(parsed["o"], data["o"]);
        assert_eq!(
            render("t={{ t }}&s={{ s }}", Escape::Form, &data).expect("a text"),
            "t=a%22b%5C%0A%3C%26%3E%20%C3%A9&s=true"
        );
        assert_eq!(
            render("{{ t }} {{ o }}", Escape::None, &data).expect("a text"),
            "a\"b\\\n<&> é {\"k\":[\"v\"]}"
        );
    }

    #[test]
    fn source_and_event_override_the_data() {
        let data = serde_json::json!({"source": "x", "event": "y"});
        assert_eq!(
            render("{{ source }} {{ event }}", Escape::None, &data).expect("a text"),
            "crud admins"
        );
    }

    #[test]
    fn hostile_templates_end_within_bounds() {
        let data =
            serde_json::json!({"s": "x".repeat(100_000), "l": (0..1_000).collect::<Vec<_>>()});
        let double = "{% set s = s ~ s %}".repeat(40) + "{{ s }}";
        let nested = "{% for a in l %}{% for b in l %}{% for c in l %}{{ s }}{% endfor %}{% endfor %}{% endfor %}";
        let silent =
            "{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}";
        let replace = "{{ s|replace('x', s)|length }}";
        let times = "{{ ('x' * 99999999)|length }}";
        let containers = "{% for a in l %}{{ l }}{{ l }}{{ l }}{% endfor %}";
        for source in [double.as_str(), nested, silent, replace, times, containers] {
            let started = std::time::Instant::now();
            let result = render(source, Escape::Json, &data);
            assert!(
                matches!(result, Err(Error::OutOfFuel | Error::Render { .. })),
                "{source}"
            );
            assert!(
                started.elapsed().as_secs() < 10,
                "{source} took {:?}",
                started.elapsed()
            );
        }
    }

    #[test]
    fn deep_and_long_templates_are_refused_when_compiled() {
        let deep = "{{ ".to_owned() + &"(".repeat(20_000) + "1" + &")".repeat(20_000) + " }}";
        assert!(matches!(
            Template::compile(&deep, Escape::None),
            Err(Error::Compile(_))
        ));
        let blocks = "{% if a %}".repeat(6_000);
        assert!(matches!(
            Template::compile(&blocks, Escape::None),
            Err(Error::Compile(_))
        ));
        let long = "x".repeat(MAX_SOURCE_BYTES + 1);
        assert!(matches!(
            Template::compile(&long, Escape::None),
            Err(Error::TooLong)
        ));
    }
}
