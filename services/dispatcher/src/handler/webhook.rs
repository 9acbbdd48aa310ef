//! `webhook`: a JSON POST of the event's data, with `source` and `event` on top.

use async_trait::async_trait;
use bytes::Bytes;
use hookline_shared::event::Event;
use hookline_shared::hook::WebhookConfig;
use hookline_shared::signature::Signer;
use hookline_shared::subject::PING_SOURCE;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use super::http::{ADDED, Target, parse_headers, sign};
use super::preparation::Preparation;
use super::{Delivery, DeliveryError, Handler, Receipt};
use hookline_shared::json_text;

struct Webhook {
    url: String,
    target: Target,
    headers: HeaderMap,
    signer: Option<Signer>,
}

pub(super) fn prepare(
    config: &WebhookConfig,
    with: &Preparation<'_>,
) -> Result<Box<dyn Handler>, String> {
    let mut headers = parse_headers(config.headers.as_ref())?;
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    Ok(Box::new(Webhook {
        url: config.url.to_string(),
        target: with.target(
            &config.url,
            *config.ssl_verify,
            config.ca_certificates.as_deref(),
            config.client_certificate.as_ref(),
        )?,
        headers,
        signer: with.signer(
            config.secret.as_ref(),
            (
                config.previous_secret.as_ref(),
                config.previous_secret_until,
            ),
        ),
    }))
}

#[async_trait]
impl Handler for Webhook {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let body = body(&delivery.event, &delivery.event_name, &self.url);
        let mut headers = HeaderMap::with_capacity(self.headers.len() + ADDED);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        sign(&mut headers, delivery, self.signer.as_ref(), &body);
        self.target
            .send(delivery, Method::POST, headers, body)
            .await
    }
}

/// Splices the published bytes in as they are, without a `source` or `event` of their own. Only a ping is serialized again,
/// with the hook's URL, of which only the host is stored.
fn body(event: &Event, event_name: &str, url: &str) -> Bytes {
    let written;
    let inside: &[u8] = if event.source == PING_SOURCE {
        let mut data = Value::Object(event.data().clone());
        if let Some(shown) = data.pointer_mut("/event_hooks/config/url") {
            *shown = url.into();
        }
        written = data.to_string().into_bytes();
        inside(&written)
    } else if event.names_itself() {
        let fields = json_text::fields(&event.raw).into_iter();
        let others = fields.filter(|field| !matches!(&*field.key, b"source" | b"event"));
        let others: Vec<_> = others.map(|field| field.text).collect();
        written = others.join(&b","[..]);
        &written
    } else {
        inside(&event.raw)
    };
    let mut body = Vec::with_capacity(inside.len() + event_name.len() + event.source.len() + 32);
    body.extend_from_slice(b"{\"source\":");
    quote(&mut body, &event.source);
    body.extend_from_slice(b",\"event\":");
    quote(&mut body, event_name);
    if !inside.is_empty() {
        body.extend_from_slice(b",");
        body.extend_from_slice(inside);
    }
    body.extend_from_slice(b"}");
    body.into()
}

/// What stands between the braces of an object.
fn inside(object: &[u8]) -> &[u8] {
    let object = object.trim_ascii();
    object[1..object.len() - 1].trim_ascii()
}

fn quote(body: &mut Vec<u8>, text: &str) {
    // Text always serializes.
    let _ = serde_json::to_writer(body, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookline_shared::event::EventId;
    use serde_json::json;

    fn event(source: &str, data: &str) -> Event {
        let subject = format!("hookline.events.default.{source}.consumers");
        let data = Bytes::copy_from_slice(data.as_bytes());
        Event::parse_with_id(&subject, None, data, EventId::given("1")).expect("an event")
    }

    fn body_of(data: &str) -> Bytes {
        body(&event("crud", data), "consumers:create", "http://x/y")
    }

    #[test]
    fn only_a_ping_tells_the_url() {
        let data = r#"{"event_hooks":{"config":{"url":"http://x/REDACTED"}}}"#;
        for (source, want) in [(PING_SOURCE, "http://x/y"), ("crud", "http://x/REDACTED")] {
            let body = body(&event(source, data), "ping", "http://x/y");
            let got: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(got["event_hooks"]["config"]["url"], want);
        }
    }

    #[test]
    fn source_and_event_stand_on_top_of_the_data() {
        for (data, want) in [
            ("{}", json!({})),
            (" \n{ }\n", json!({})),
            ("{\"a\":1}\n", json!({"a": 1})),
            (
                "{\"a\":{\"event\":2},\"b\":[]}",
                json!({"a": {"event": 2}, "b": []}),
            ),
            (
                "{\"a\":1,\"event\":\"x\",\"\\u0073ource\":3}",
                json!({"a": 1}),
            ),
        ] {
            let got: Value = serde_json::from_slice(&body_of(data)).expect("JSON");
            let mut want = want;
            want["source"] = "crud".into();
            want["event"] = "consumers:create".into();
            assert_eq!(got, want, "{data}");
        }
    }

    #[test]
    fn numbers_arrive_as_they_were_published() {
        let numbers = r#""n":12345678901234567890123,"f":1.10,"e":1E+2"#;
        for data in [
            format!("{{{numbers}}}"),
            format!(r#"{{"event" : 1, {numbers} , "\u0073ource":{{}}}}"#),
        ] {
            let body = body_of(&data);
            assert!(
                body.ends_with(format!("{numbers}}}").as_bytes()),
                "{body:?}"
            );
        }
    }
}
