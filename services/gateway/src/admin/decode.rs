//! Request bodies: JSON, URL-encoded and multipart forms, decoded as in Kong's Admin API.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::declarative;
use super::form::{Form, MAX_DEPTH, TooDeep};
use crate::error::ApiError;
use crate::limits::Options;
use crate::schema::Input;

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads and decodes a body.
pub(super) async fn input(
    headers: &HeaderMap,
    body: Body,
    limits: &Options,
    takes_yaml: bool,
) -> Result<Input, ApiError> {
    let body = tokio::time::timeout(BODY_TIMEOUT, read(body, limits.admin_max_body.get()))
        .await
        .map_err(|_| ApiError::BodyTimeout)?;
    let input = decode(headers, body?, limits, takes_yaml).await?;
    let most = limits.admin_max_nesting;
    let mut values = input.values.values();
    if values.any(|value| nests_deeper(value, most - 1)) {
        return Err(ApiError::TooDeep(most));
    }
    Ok(input)
}

/// The parser reads 127 levels at most.
fn nests_deeper(value: &Value, most: u64) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => return false,
    };
    most == 0 || inner.any(|value| nests_deeper(value, most - 1))
}

async fn read(body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::BadRequest("Cannot read body"))?;
        if body.len() + chunk.len() > max_bytes {
            return Err(ApiError::BodyTooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Decodes by content type. An empty body is an empty input.
async fn decode(
    headers: &HeaderMap,
    body: Bytes,
    limits: &Options,
    takes_yaml: bool,
) -> Result<Input, ApiError> {
    let arguments = limits.admin_max_arguments.get();
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (content_type, another) = (types.next(), types.next());
    if another.is_some() {
        return Err(ApiError::BadRequest(
            "Multiple Content-Type headers not allowed",
        ));
    }
    let Some(content_type) = content_type else {
        let empty = body.is_empty();
        return if empty {
            Ok(Input::default())
        } else {
            Err(ApiError::UnsupportedMediaType)
        };
    };
    let content_type = content_type
        .to_str()
        .map_err(|_| ApiError::UnsupportedMediaType)?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/json" => json(&body, limits.admin_max_nesting),
        "application/x-www-form-urlencoded" => urlencoded(&body, arguments),
        of if takes_yaml && declarative::is_yaml(of) => yaml(&body),
        "multipart/form-data" => multipart(content_type, body, arguments).await,
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

fn json(body: &[u8], nesting: u64) -> Result<Input, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(values)) => Ok(Input {
            values,
            form: false,
        }),
        Ok(_) => Err(ApiError::BadRequest(
            "the JSON body is no object: expected an object",
        )),
        Err(error) if error.to_string().starts_with("recursion limit") => {
            Err(ApiError::TooDeep(nesting))
        }
        Err(_) => Err(ApiError::BadRequest("Cannot parse JSON body")),
    }
}

fn yaml(body: &[u8]) -> Result<Input, ApiError> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|_| ApiError::BadRequest("The body is not UTF-8"))?;
    Ok(Input {
        values: declarative::parse(text)?,
        form: false,
    })
}

fn urlencoded(body: &[u8], arguments: usize) -> Result<Input, ApiError> {
    // No character has a separator among its bytes, so the body as a whole shows whether each part is sound.
    percent_encoding::percent_decode(body)
        .decode_utf8()
        .map_err(|_| ApiError::BadRequest("The form is not UTF-8"))?;
    let mut fields = Fields::at_most(arguments);
    for (name, value) in form_urlencoded::parse(body) {
        fields.insert(&name, Value::String(value.into_owned()))?;
    }
    Ok(fields.into_input())
}

async fn multipart(content_type: &str, body: Bytes, arguments: usize) -> Result<Input, ApiError> {
    const MALFORMED: ApiError = ApiError::BadRequest("Cannot parse multipart body");
    let boundary = multer::parse_boundary(content_type).map_err(|_| MALFORMED)?;
    let body = stream::iter([Ok::<_, std::io::Error>(body)]);
    let mut parts = multer::Multipart::new(body, boundary);
    let mut fields = Fields::at_most(arguments);
    while let Some(part) = parts.next_field().await.map_err(|_| MALFORMED)? {
        let Some(name) = part.name().map(str::to_owned) else {
            continue;
        };
        let is_json = part
            .content_type()
            .is_some_and(|kind| kind.essence_str() == "application/json");
        let content = part.bytes().await.map_err(|_| MALFORMED)?;
        let value = if is_json {
            serde_json::from_slice(&content)
                .map_err(|_| ApiError::BadRequest("Cannot parse JSON body"))?
        } else {
            Value::from(std::str::from_utf8(&content).map_err(|_| MALFORMED)?)
        };
        fields.insert(&name, value)?;
    }
    Ok(fields.into_input())
}

struct Fields {
    form: Form,
    count: usize,
    most: usize,
}

impl Fields {
    fn at_most(most: usize) -> Self {
        Self {
            form: Form::default(),
            count: 0,
            most,
        }
    }

    fn insert(&mut self, name: &str, value: Value) -> Result<(), ApiError> {
        self.count += 1;
        if self.count > self.most {
            return Err(ApiError::TooManyArguments(self.most));
        }
        self.form
            .insert(name, value)
            .map_err(|TooDeep| ApiError::FormTooDeep(MAX_DEPTH))
    }

    fn into_input(self) -> Input {
        Input {
            values: self.form.into_values(),
            form: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use clap::Parser as _;
    use serde_json::json;

    fn limits() -> Options {
        let config = crate::Config::try_parse_from(["hookline-gateway"]);
        config.expect("the defaults").limits
    }

    async fn read(content_types: &[&str], body: &str) -> Result<Value, String> {
        let mut headers = HeaderMap::new();
        for content_type in content_types {
            let value = HeaderValue::from_str(content_type).expect("a header value");
            headers.append(header::CONTENT_TYPE, value);
        }
        decode(&headers, Bytes::from(body.to_owned()), &limits(), false)
            .await
            .map(|input| Value::Object(input.values))
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn json_is_taken_as_it_is() {
        let json = read(
            &["application/json; charset=utf-8"],
            r#"{"a.b": [1], "c": ""}"#,
        )
        .await;
        assert_eq!(json, Ok(json!({"a.b": [1], "c": ""})));
    }

    #[tokio::test]
    async fn malformed_bodies_are_named() {
        let answer = read(&["application/json"], "{").await;
        assert_eq!(answer, Err("Cannot parse JSON body".into()));
        let answer = read(&["application/json"], &"[".repeat(100_000)).await;
        let deep = answer.expect_err("it is too deep");
        assert!(deep.contains("HOOKLINE_ADMIN_MAX_NESTING"), "{deep}");
        for body in ["[]", "1", "null", "\"text\""] {
            let answer = read(&["application/json"], body).await;
            let answer = answer.expect_err(body);
            assert!(answer.contains("expected an object"), "{body}: {answer}");
        }
        let answer = read(&["multipart/form-data; boundary=x"], "junk").await;
        assert_eq!(answer, Err("Cannot parse multipart body".into()));
        let answer = read(&["multipart/form-data"], "junk").await;
        assert_eq!(answer, Err("Cannot parse multipart body".into()));
    }

    #[tokio::test]
    async fn other_types_and_none_are_unsupported() {
        for types in [&["text/plain"][..], &[]] {
            assert_eq!(read(types, "x").await, Err("Unsupported Media Type".into()));
        }
        assert_eq!(read(&[], "").await, Ok(json!({})));
        let both = ["application/json", "text/plain"];
        assert_eq!(
            read(&both, "{}").await,
            Err("Multiple Content-Type headers not allowed".into())
        );
    }

    #[tokio::test]
    async fn urlencoded_fields_nest() {
        let form = "source=crud&config.url=http%3A%2F%2Fx%2F%3Fa%3D1&a%5B%5D=1+2";
        assert_eq!(
            read(&["application/x-www-form-urlencoded"], form).await,
            Ok(json!({"source": "crud", "config": {"url": "http://x/?a=1"}, "a": ["1 2"]}))
        );
    }

    #[tokio::test]
    async fn a_form_that_is_not_utf8_is_refused() {
        let types = &["application/x-www-form-urlencoded"];
        for form in ["a=%ff", "%ff=a", "a=%C3&b=%A9", "a=%ED%A0%80", "a=x%80"] {
            assert_eq!(
                read(types, form).await,
                Err("The form is not UTF-8".into()),
                "{form}"
            );
        }
        assert_eq!(
            read(types, "a=%C3%A9&%C3%A9=%25").await,
            Ok(json!({"a": "é", "é": "%"}))
        );
        let mut body =
            b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\xff\r\n--b--\r\n".to_vec();
        let mut headers = HeaderMap::new();
        let multipart = HeaderValue::from_static("multipart/form-data; boundary=b");
        headers.insert(header::CONTENT_TYPE, multipart);
        assert!(
            decode(&headers, Bytes::from(body.clone()), &limits(), false)
                .await
                .is_err()
        );
        body.retain(|byte| *byte != 0xff);
        assert!(
            decode(&headers, Bytes::from(body), &limits(), false)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn at_most_1000_arguments_are_taken() {
        let form = |count: usize| "a=1&".repeat(count);
        let types = &["application/x-www-form-urlencoded"];
        assert!(read(types, &form(1_000)).await.is_ok());
        let refused = read(types, &form(1_001)).await.expect_err("too many");
        assert!(refused.starts_with("Too many arguments"), "{refused}");
    }

    #[tokio::test]
    async fn multipart_parts_are_text_files_or_json() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"handler\"\r\n\r\nlambda\r\n\
            --b\r\nContent-Disposition: form-data; name=\"config.functions\"; filename=\"l.lua\"\r\n\
            Content-Type: application/octet-stream\r\n\r\nreturn function() end\r\n\
            --b\r\nContent-Disposition: form-data; name=\"snooze\"\r\n\
            Content-Type: application/json\r\n\r\n5\r\n--b--\r\n";
        assert_eq!(
            read(&["multipart/form-data; boundary=b"], body).await,
            Ok(json!({"handler": "lambda", "snooze": 5,
                      "config": {"functions": "return function() end"}}))
        );
    }

    #[tokio::test]
    async fn random_bodies_get_an_answer() {
        let pieces: [&[u8]; 24] = [
            b"a",
            b"=",
            b"&",
            b"[",
            b"]",
            b".",
            b"%5B",
            b"%ff",
            b"%",
            b"+",
            b"[]",
            b"[1]",
            b"--b",
            b"\r\n",
            b"--",
            b"\xff",
            b"\0",
            b"Content-Disposition: form-data; name=\"a.b[c]\"",
            b"; filename=\"x\"",
            b"\r\n\r\n",
            b"{",
            b"\"",
            b"config.",
            b"Content-Type: application/json",
        ];
        let types = [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "application/json",
        ];
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut body = if random.bool() {
                b"--b\r\n".to_vec()
            } else {
                Vec::new()
            };
            for _ in 0..random.usize(..60) {
                let piece = random.choice(pieces).unwrap_or_default();
                body.extend_from_slice(&piece.repeat([1, 1, 1, 50][random.usize(..4)]));
            }
            for content_type in types {
                let mut headers = HeaderMap::new();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                // An error is an answer too.
                let _ = decode(&headers, Bytes::from(body.clone()), &limits(), false).await;
            }
        }
    }
}
