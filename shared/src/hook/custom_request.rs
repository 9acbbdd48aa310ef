//! The request of `webhook-custom`. Both services compile it: the gateway to refuse what no dispatcher could send, a
//! dispatcher to render it for each attempt.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::handlers::WebhookCustomConfig;
use super::validate::Violation;
use crate::template::{self, Context, Escape, Template};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[derive(Debug)]
pub struct CustomRequest {
    headers: Vec<(HeaderName, Text)>,
    content: Content,
}

#[derive(Debug)]
pub struct Rendered {
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{part}: {source}")]
    Template {
        /// The part of the request, such as `config.body`.
        part: &'static str,
        source: template::Error,
    },
    #[error("the value of the header {0} holds a line break or control character")]
    Header(HeaderName),
}

#[derive(Debug)]
enum Text {
    Plain(String),
    Template(Box<Template>),
}

#[derive(Debug)]
enum Content {
    Empty,
    /// The text for each way of escaping that the content type may ask for: several if it is a template.
    Body(Vec<(Escape, Text)>),
    Payload(Vec<(String, Text)>),
}

impl CustomRequest {
    /// Checks and compiles all parts, and adds what is wrong to `found`.
    pub(super) fn check(config: &WebhookCustomConfig, found: &mut Vec<Violation>) -> Option<Self> {
        let before = found.len();
        let mut compile = |field: &str, name: &str, text: &str, is_template: bool, escape| {
            let compiled = Text::new(text, is_template.then(|| parts(config)), escape);
            compiled.unwrap_or_else(|error| {
                let name = if name.is_empty() {
                    String::new()
                } else {
                    format!("{name}: ")
                };
                found.push(Violation {
                    field: field.to_owned(),
                    message: format!("{name}invalid template: {}", describe(&error)),
                });
                Text::Plain(String::new())
            })
        };
        let mut headers = Vec::new();
        for (name, value) in config.headers.iter().flat_map(|headers| &headers.0) {
            let text = compile(
                "config.headers",
                name,
                value,
                *config.headers_format,
                Escape::None,
            );
            // A bad name is found elsewhere.
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                headers.push((name, text));
            }
        }
        let content = match (&config.body, &config.payload) {
            (Some(body), _) => {
                let escapes = escapes(&headers, body);
                let texts = escapes.iter().map(|escape| {
                    (
                        *escape,
                        compile("config.body", "", body, *config.body_format, *escape),
                    )
                });
                Content::Body(texts.collect())
            }
            (None, Some(payload)) => {
                let texts = payload.iter().map(|(key, value)| {
                    let is_template = *config.payload_format;
                    (
                        key.clone(),
                        compile("config.payload", key, value, is_template, Escape::None),
                    )
                });
                Content::Payload(texts.collect())
            }
            (None, None) => Content::Empty,
        };
        (found.len() == before).then_some(Self { headers, content })
    }

    /// # Errors
    /// The first part that is wrong.
    pub fn compile(config: &WebhookCustomConfig) -> Result<Self, String> {
        let mut found = Vec::new();
        let request = Self::check(config, &mut found);
        request.ok_or_else(|| {
            let first = found.first();
            first.map_or_else(String::new, |first| {
                format!("{}: {}", first.field, first.message)
            })
        })
    }

    pub fn render(&self, context: &Context) -> Result<Rendered, Error> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 8);
        for (name, text) in &self.headers {
            let value = text.render("config.headers", context)?;
            let value =
                HeaderValue::from_str(value.trim()).map_err(|_| Error::Header(name.clone()))?;
            headers.insert(name.clone(), value);
        }
        if headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.is_empty())
        {
            headers.remove(CONTENT_TYPE);
        }
        let body = self.body(&mut headers, context)?;
        Ok(Rendered {
            headers,
            body: body.into(),
        })
    }

    fn body(&self, headers: &mut HeaderMap, context: &Context) -> Result<String, Error> {
        match &self.content {
            Content::Empty => Ok(String::new()),
            Content::Body(texts) => {
                let given = headers
                    .get(CONTENT_TYPE)
                    .map(|value| escape_for(&text(value)));
                // The default for a text without content type comes first.
                let (escape, text) = match given {
                    Some(escape) => texts.iter().find(|(for_escape, _)| *for_escape == escape),
                    None => texts.first(),
                }
                .unwrap_or(&texts[0]);
                if given.is_none() {
                    let default = if *escape == Escape::Json { JSON } else { PLAIN };
                    headers.insert(CONTENT_TYPE, default);
                }
                text.render("config.body", context)
            }
            Content::Payload(fields) => {
                let content_type = headers.entry(CONTENT_TYPE).or_insert(JSON);
                let is_form = escape_for(&text(content_type)) == Escape::Form;
                let rendered = fields
                    .iter()
                    .map(|(key, value)| Ok((key, value.render("config.payload", context)?)));
                let rendered = rendered.collect::<Result<Vec<_>, Error>>()?;
                if is_form {
                    let mut form = url::form_urlencoded::Serializer::new(String::new());
                    return Ok(form.extend_pairs(rendered).finish());
                }
                let object = rendered
                    .into_iter()
                    .map(|(key, value)| (key.clone(), value.into()));
                Ok(serde_json::Value::Object(object.collect()).to_string())
            }
        }
    }
}

impl Text {
    /// `parts`: how many templates of the request share its fuel; None for plain text.
    fn new(text: &str, parts: Option<usize>, escape: Escape) -> Result<Self, template::Error> {
        let Some(parts) = parts else {
            return Ok(Self::Plain(text.to_owned()));
        };
        let mut template = Template::compile(text, escape)?;
        template.share(parts);
        Ok(Self::Template(Box::new(template)))
    }

    fn render(&self, part: &'static str, context: &Context) -> Result<String, Error> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Template(template) => template
                .render(context)
                .map_err(|source| Error::Template { part, source }),
        }
    }
}

/// The most templates that one request may render.
fn parts(config: &WebhookCustomConfig) -> usize {
    let headers = config.headers.as_ref().map_or(0, |headers| headers.0.len());
    let payload = config.payload.as_ref().map_or(0, |payload| payload.len());
    1 + headers + payload
}

/// How a body's values may have to be escaped, the default for a missing content type first.
fn escapes(headers: &[(HeaderName, Text)], body: &str) -> Vec<Escape> {
    let default = if looks_like_json(body) {
        Escape::Json
    } else {
        Escape::None
    };
    let content_type = headers.iter().rfind(|(name, _)| *name == CONTENT_TYPE);
    match content_type.map(|(_, text)| text) {
        None => vec![default],
        Some(Text::Plain(text)) if text.trim().is_empty() => vec![default],
        Some(Text::Plain(text)) => vec![escape_for(text)],
        // It is known only once it is rendered.
        Some(Text::Template(_)) => {
            let mut all = vec![
                default,
                Escape::None,
                Escape::Json,
                Escape::Form,
                Escape::Xml,
            ];
            let mut seen = Vec::new();
            all.retain(|escape| {
                let is_new = !seen.contains(escape);
                seen.push(*escape);
                is_new
            });
            all
        }
    }
}

/// Without a content type, a receiver would guess that such a text is JSON.
fn looks_like_json(body: &str) -> bool {
    let mut text = body;
    // The first character that is no tag's.
    loop {
        text = text.trim_start();
        let tag = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")]
            .into_iter()
            .find(|(open, _)| text.starts_with(open));
        let Some((open, close)) = tag else { break };
        match text[open.len()..].split_once(close) {
            Some((_, rest)) => text = rest,
            None => break,
        }
    }
    text.starts_with(['{', '[', '"'])
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// How values are escaped in a body of this content type.
fn escape_for(content_type: &str) -> Escape {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    if essence == "application/x-www-form-urlencoded" {
        Escape::Form
    } else if essence.contains("json") {
        Escape::Json
    } else if essence.contains("xml") || essence.contains("html") {
        Escape::Xml
    } else {
        Escape::None
    }
}

/// What is wrong with a template, on one line.
fn describe(error: &template::Error) -> String {
    match error {
        template::Error::Compile(reason) => reason.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::{Event, EventId};

    fn request(config: Value) -> Result<CustomRequest, String> {
        let mut config = config;
        config["url"] = "http://localhost/".into();
        config["method"] = "PUT".into();
        CustomRequest::compile(&serde_json::from_value(config).expect("a config"))
    }

    fn context(data: &Value) -> Context {
        let subject = "hookline.events.default.crud.consumers";
        let body = data.to_string().into();
        let event = Event::parse_with_id(subject, None, body, EventId::given("1"));
        template::context(&event.expect("an event"), "consumers")
    }

    fn render(config: Value, data: &Value) -> (HeaderMap, String) {
        let rendered = request(config)
            .expect("a sound request")
            .render(&context(data));
        let rendered = rendered.expect("a request");
        let body = String::from_utf8(rendered.body.to_vec()).expect("UTF-8");
        (rendered.headers, body)
    }

    #[test]
    fn a_payload_goes_by_the_content_type() {
        let data = json!({"t": "a \"b\" & c"});
        let form = json!({"content-type": "application/x-www-form-urlencoded; charset=utf-8"});
        let (_, body) = render(
            json!({"headers": form, "payload": {"text": "<{{ t }}>"}}),
            &data,
        );
        assert_eq!(body, "text=%3Ca+%22b%22+%26+c%3E");
        let (headers, body) = render(json!({"payload": {"text": "<{{ t }}>"}}), &data);
        assert_eq!(body, r#"{"text":"<a \"b\" & c>"}"#);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn body_wins_over_payload() {
        let config = json!({"body": "B {{ t }}", "payload": {"text": "P"}});
        let (headers, body) = render(config, &json!({"t": "x"}));
        assert_eq!(body, "B x");
        assert_eq!(headers[CONTENT_TYPE], PLAIN);
    }

    #[test]
    fn escaping_follows_the_content_type_that_is_sent() {
        let hostile = json!({"t": "\",\"admin\":true,\"x\":\"", "type": "application/json"});
        let body = r#"{"t":"{{ t }}"}"#;
        for content_type in [
            Value::Null,
            json!(""),
            json!("application/json"),
            json!("Application/JSON; charset=utf-8"),
            json!("text/json"),
            json!("application/problem+json"),
            json!("application/x-json"),
            json!("application/vnd.api+json;profile=x"),
            json!("{{ type }}"),
            json!("text/{{ 'json' }}"),
            json!("{{ missing }}"),
        ] {
            let mut config = json!({"body": body, "headers_format": true});
            if !content_type.is_null() {
                config["headers"] = json!({"Content-Type": content_type});
            }
            let (headers, sent) = render(config, &hostile);
            let parsed: Value =
                serde_json::from_str(&sent).unwrap_or_else(|_| panic!("{content_type}: {sent}"));
            assert_eq!(parsed, json!({"t": hostile["t"]}), "{content_type}");
            assert!(
                headers[CONTENT_TYPE]
                    .to_str()
                    .expect("text")
                    .to_lowercase()
                    .contains("json")
            );
        }
    }

    #[test]
    fn templates_can_be_switched_off_part_by_part() {
        let data = json!({"t": "a \"b\" & c"});
        let config =
            json!({"headers": {"x-a": "{{ t }}"}, "body": "{{ t }}", "body_format": false});
        let (headers, body) = render(config, &data);
        assert_eq!(headers["x-a"], "{{ t }}");
        assert_eq!(body, "{{ t }}");
        let (_, body) = render(
            json!({"payload": {"a": "{{ t }}"}, "payload_format": false}),
            &data,
        );
        assert_eq!(body, r#"{"a":"{{ t }}"}"#);
        let (headers, _) = render(
            json!({"headers": {"x-a": "<{{ t }}>"}, "headers_format": true}),
            &data,
        );
        assert_eq!(headers["x-a"], "<a \"b\" & c>");
    }

    #[test]
    fn a_line_break_cannot_smuggle_a_header() {
        let config = json!({"headers": {"x-a": "a{{ line }}"}, "headers_format": true});
        let rendered = request(config)
            .expect("a request")
            .render(&context(&json!({"line": "x\r\nevil: 1"})));
        assert!(matches!(rendered, Err(Error::Header(name)) if name == "x-a"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let error = request(json!({"body": "{{ a|zip }}"})).expect_err("an unknown filter");
        assert!(
            error.starts_with("config.body: invalid template: line 1: there is no filter `zip`"),
            "{error}"
        );
        let error = request(json!({"payload": {"a": "{{ b"}})).expect_err("an open tag");
        assert!(
            error.starts_with("config.payload: a: invalid template: "),
            "{error}"
        );
    }
}
