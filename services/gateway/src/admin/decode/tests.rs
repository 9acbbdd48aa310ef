use super::*;
use axum::http::HeaderValue;
use clap::Parser as _;
use serde_json::json;

use crate::schema::{Schema, random};

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

/// A value as the fields of a form, by their names.
fn fields(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                fields(&format!("{name}.{key}"), value, found);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                fields(&format!("{name}[{}]", at + 1), value, found);
            }
        }
        Value::Null => found.push((name.to_owned(), String::new())),
        Value::String(text) => found.push((name.to_owned(), text.clone())),
        value => found.push((name.to_owned(), value.to_string())),
    }
}

/// What becomes of a body, without what is made up at each creation.
async fn created(schema: &Schema, content_type: &str, body: String) -> Result<Value, String> {
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_str(content_type).expect("a header value");
    headers.insert(header::CONTENT_TYPE, content_type);
    let input = decode(&headers, Bytes::from(body), &limits(), false).await;
    let entity = schema.create(input.map_err(|error| error.to_string())?);
    entity.map(Value::Object).map_err(|error| error.message())
}

#[tokio::test]
async fn forms_and_json_of_one_entity_become_the_same() {
    let mut made = 0;
    for schema in Schema::kinds() {
        for seed in 0..150 {
            let mut random = fastrand::Rng::with_seed(seed);
            let entity = random::entity(schema, &mut random);
            let mut all = Vec::new();
            for (name, value) in &entity {
                fields(name, value, &mut all);
            }
            let form: String = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&all)
                .finish();
            let part = |(name, value): &(String, String)| {
                format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            };
            let parts: String = all.iter().map(part).collect::<String>() + "--b--\r\n";
            let json = Value::Object(entity).to_string();
            let of_json = created(schema, "application/json", json.clone()).await;
            made += usize::from(of_json.is_ok());
            let urlencoded = "application/x-www-form-urlencoded";
            let of_form = created(schema, urlencoded, form).await;
            assert_eq!(of_form, of_json, "{} {json}", schema.kind);
            let of_parts = created(schema, "multipart/form-data; boundary=b", parts).await;
            assert_eq!(of_parts, of_json, "{} {json}", schema.kind);
        }
    }
    // Else it would compare refusals only.
    assert!(made > 700, "{made}");
}
