//! `webhook-custom`: any method, with templates in body, payload and headers.

use async_trait::async_trait;
use bytes::Bytes;
use hookline_shared::hook::WebhookCustomConfig;
use hookline_shared::signature::Signer;
use hookline_shared::template::{Context, Escape, Template, context};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::http::{Target, parse_headers, sign};
use super::preparation::Preparation;
use super::{Delivery, DeliveryError, Handler, Receipt};

enum Text {
    Plain(String),
    Template(Box<Template>),
}

impl Text {
    /// `parts`: how many templates of the request share its fuel; None for plain text.
    fn new(text: &str, parts: Option<usize>, escape: Escape) -> Result<Self, String> {
        let Some(parts) = parts else {
            return Ok(Self::Plain(text.to_owned()));
        };
        let mut template = Template::compile(text, escape).map_err(|error| error.to_string())?;
        template.share(parts);
        Ok(Self::Template(Box::new(template)))
    }

    fn render(&self, part: &'static str, context: &Context) -> Result<String, DeliveryError> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Template(template) => template
                .render(context)
                .map_err(|source| DeliveryError::Template { part, source }),
        }
    }
}

/// Parts of the request's body.
enum Content {
    Body(Text),
    Json(Vec<(String, Text)>),
    Form(Vec<(String, Text)>),
    Empty,
}

struct WebhookCustom {
    target: Target,
    method: Method,
    fixed_headers: HeaderMap,
    templated_headers: Vec<(HeaderName, Text)>,
    content: Content,
    signer: Option<Signer>,
}

/// How a body is encoded, by its content type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Form,
    Plain,
}

pub(super) fn prepare(
    config: &WebhookCustomConfig,
    with: &Preparation<'_>,
) -> Result<Box<dyn Handler>, String> {
    let target = with.target(&config.url, *config.ssl_verify)?;
    let signer = with.signer(config.secret.as_ref());
    Ok(Box::new(WebhookCustom::new(target, config, signer)?))
}

impl WebhookCustom {
    fn new(
        target: Target,
        config: &WebhookCustomConfig,
        signer: Option<Signer>,
    ) -> Result<Self, String> {
        let method = Method::from_bytes(config.method.as_bytes())
            .map_err(|_| "config.method: invalid value".to_owned())?;
        let parts = parts(config);
        let (mut fixed_headers, mut templated_headers) = (HeaderMap::new(), Vec::new());
        if *config.headers_format {
            for (name, value) in config.headers.iter().flat_map(|headers| &headers.0) {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| "config.headers: invalid header name".to_owned())?;
                templated_headers.push((name, Text::new(value, Some(parts), Escape::None)?));
            }
        } else {
            fixed_headers = parse_headers(config.headers.as_ref())?;
        }
        let content_type = config.headers.iter().flat_map(|headers| &headers.0);
        let content_type = content_type
            .filter(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()))
            .map(|(_, value)| value.as_str())
            .next();
        let content = content(config, content_type, parts)?;
        if content_type.is_none() && matches!(content, Content::Json(_)) {
            fixed_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Self {
            target,
            method,
            fixed_headers,
            templated_headers,
            content,
            signer,
        })
    }

    fn headers(&self, context: &Context) -> Result<HeaderMap, DeliveryError> {
        let mut headers = self.fixed_headers.clone();
        for (name, value) in &self.templated_headers {
            let value = value.render("config.headers", context)?;
            let value = HeaderValue::from_str(value.trim())
                .map_err(|_| DeliveryError::Request("a rendered header value holds line breaks"))?;
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }

    fn body(&self, context: &Context) -> Result<Bytes, DeliveryError> {
        let text = match &self.content {
            Content::Empty => String::new(),
            Content::Body(text) => text.render("config.body", context)?,
            Content::Json(fields) => {
                let mut object = serde_json::Map::with_capacity(fields.len());
                for (key, value) in fields {
                    object.insert(key.clone(), value.render("config.payload", context)?.into());
                }
                serde_json::Value::Object(object).to_string()
            }
            Content::Form(fields) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (key, value) in fields {
                    form.append_pair(key, &value.render("config.payload", context)?);
                }
                form.finish()
            }
        };
        Ok(text.into())
    }
}

/// The most templates that one request may have.
fn parts(config: &WebhookCustomConfig) -> usize {
    let headers = config.headers.as_ref().map_or(0, |headers| headers.0.len());
    let payload = config.payload.as_ref().map_or(0, |payload| payload.len());
    1 + headers + payload
}

/// `body` wins over `payload`. A payload is sent as a form if the content type says so, otherwise as JSON.
fn content(
    config: &WebhookCustomConfig,
    content_type: Option<&str>,
    parts: usize,
) -> Result<Content, String> {
    let encoding = encoding(content_type);
    if let Some(body) = &config.body {
        let escape = match encoding {
            Encoding::Json => Escape::Json,
            Encoding::Form => Escape::Form,
            Encoding::Plain => Escape::None,
        };
        let parts = config.body_format.then_some(parts);
        return Text::new(body, parts, escape).map(Content::Body);
    }
    let Some(payload) = &config.payload else {
        return Ok(Content::Empty);
    };
    let fields = payload
        .iter()
        .map(|(key, value)| {
            let parts = config.payload_format.then_some(parts);
            Ok((key.clone(), Text::new(value, parts, Escape::None)?))
        })
        .collect::<Result<_, String>>()?;
    Ok(if encoding == Encoding::Form {
        Content::Form(fields)
    } else {
        Content::Json(fields)
    })
}

fn encoding(content_type: Option<&str>) -> Encoding {
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    match essence.trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Encoding::Form,
        essence if essence == "application/json" || essence.ends_with("+json") => Encoding::Json,
        _ => Encoding::Plain,
    }
}

#[async_trait]
impl Handler for WebhookCustom {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let context = context(&delivery.event, &delivery.event_name);
        let mut headers = self.headers(&context)?;
        let body = self.body(&context)?;
        sign(&mut headers, delivery, self.signer.as_ref(), &body);
        self.target.send(self.method.clone(), headers, body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::egress::Policy;
    use crate::handler::http::Clients;
    use hookline_shared::event::{Event, EventId};
    use serde_json::json;
    use std::time::Duration;

    fn handler(config: serde_json::Value) -> WebhookCustom {
        crate::tls::install_provider();
        let mut config = config;
        config["url"] = "http://localhost/".into();
        config["method"] = "PUT".into();
        let clients = Clients::new(&Policy::default(), Duration::from_secs(1)).expect("clients");
        let config: WebhookCustomConfig = serde_json::from_value(config).expect("a config");
        let second = Duration::from_secs(1);
        let target = Target::new(&config.url, clients.get(true), second, clients.policy());
        WebhookCustom::new(target.expect("a URL"), &config, None).expect("a handler")
    }

    fn names(data: &serde_json::Value) -> Context {
        let subject = "hookline.events.default.crud.consumers";
        let event =
            Event::parse_with_id(subject, None, data.to_string().into(), EventId::given("1"));
        context(&event.expect("an event"), "consumers")
    }

    fn render(config: serde_json::Value) -> (HeaderMap, String) {
        let handler = handler(config);
        let context = names(&json!({"t": "a \"b\" & c", "line": "x\ny"}));
        let body = handler.body(&context).expect("a body");
        let headers = handler.headers(&context).expect("headers");
        (headers, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn a_payload_goes_by_the_content_type() {
        let form = json!({"content-type": "application/x-www-form-urlencoded; charset=utf-8"});
        let (_, body) = render(json!({"headers": form, "payload": {"text": "<{{ t }}>"}}));
        assert_eq!(body, "text=%3Ca+%22b%22+%26+c%3E");
        let (headers, body) = render(json!({"payload": {"text": "<{{ t }}>"}}));
        assert_eq!(body, r#"{"text":"<a \"b\" & c>"}"#);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn body_wins_over_payload() {
        let (_, body) = render(json!({"body": "B {{ t }}", "payload": {"text": "P"}}));
        assert_eq!(body, "B a \"b\" & c");
    }

    #[test]
    fn a_json_bodys_values_are_escaped() {
        let json = json!({"Content-Type": "application/json"});
        let (_, body) =
            render(json!({"headers": json, "body": r#"{"t":"{{ t }}","l":"{{ line }}"}"#}));
        let parsed: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(parsed, json!({"t": "a \"b\" & c", "l": "x\ny"}));
    }

    #[test]
    fn templates_can_be_switched_off_part_by_part() {
        let (headers, body) =
            render(json!({"headers": {"x-a": "{{ t }}"}, "body": "{{ t }}", "body_format": false}));
        assert_eq!(headers["x-a"], "{{ t }}");
        assert_eq!(body, "{{ t }}");
        let (_, body) = render(json!({"payload": {"a": "{{ t }}"}, "payload_format": false}));
        assert_eq!(body, r#"{"a":"{{ t }}"}"#);
        let (headers, _) = render(json!({"headers": {"x-a": "<{{ t }}>"}, "headers_format": true}));
        assert_eq!(headers["x-a"], "<a \"b\" & c>");
    }

    #[test]
    fn a_line_break_cannot_smuggle_a_header() {
        let handler = handler(json!({"headers": {"x-a": "a{{ line }}"}, "headers_format": true}));
        let context = names(&json!({"line": "x\r\nevil: 1"}));
        assert!(matches!(
            handler.headers(&context),
            Err(DeliveryError::Request(_))
        ));
    }
}
