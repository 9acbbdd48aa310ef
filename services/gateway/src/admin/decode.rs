//! Request bodies: JSON, URL-encoded and multipart forms, decoded as in Kong's Admin API.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
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
    let body = read_body(body, limits.admin_max_body.get()).await?;
    let input = decode(headers, body, limits, takes_yaml).await?;
    let most = limits.admin_max_nesting;
    let mut values = input.values.values();
    if values.any(|value| nests_deeper(value, most - 1)) {
        return Err(ApiError::TooDeep(most));
    }
    Ok(input)
}

/// Within a limit in bytes, and in time.
pub(crate) async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read(body, max_bytes)).await;
    read.map_err(|_| ApiError::BodyTimeout)?
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
    // What is announced need not be waited for.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(ApiError::BodyTooLarge(max_bytes));
    }
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
mod tests;
