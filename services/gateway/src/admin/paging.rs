//! Pagination: `size`, `offset` and `tags` in, `next` and `offset` out.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::schema::{Schema, is_uuid};
use crate::store::{Cursor, Page, Query, Row, Tags};

/// Why an offset is refused.
pub(super) const NOT_ISSUED: &str = "it was not issued by this service";
const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 1_000;
/// Each is looked up for each row.
const MOST_TAGS: usize = 50;

#[derive(Debug)]
pub(super) struct Paging {
    pub(super) query: Query,
    /// Arguments that the next page's URL repeats.
    repeat: Vec<(&'static str, String)>,
}

impl Paging {
    pub(super) fn read(schema: &Schema, arguments: &str) -> Result<Self, ApiError> {
        let mut paging = Self {
            query: Query {
                size: DEFAULT_SIZE,
                ..Query::default()
            },
            repeat: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(arguments.as_bytes()) {
            match name.as_ref() {
                // Bytes that are no text are read so.
                "tags" if value.contains(char::REPLACEMENT_CHARACTER) => {
                    return Err(ApiError::Tags("must not contain invalid utf-8 sequences"));
                }
                "size" => {
                    paging.query.size = size(&value)?;
                    paging.repeat.push(("size", value.into_owned()));
                }
                "offset" => paging.query.after = Some(cursor(&value)?),
                name if schema.filter(name).is_some() => {
                    let field = schema.filter(name);
                    paging.query.unique = field.map(|field| (field, value.into_owned()));
                }
                "tags" if schema.field("tags").is_none() => {
                    return Err(ApiError::Tags("cannot be used on entities without tags"));
                }
                "tags" => {
                    paging.query.tags = Some(tags(&value)?);
                    paging.repeat.push(("tags", value.into_owned()));
                }
                _ => {}
            }
        }
        Ok(paging)
    }

    /// The response body with one page of the list at `path`.
    pub(super) fn envelope(&self, show: impl Fn(&Row) -> Value, path: &str, page: &Page) -> Value {
        let data: Vec<_> = page.rows.iter().map(|row| show(row)).collect();
        let mut envelope = Map::from_iter([("data".to_owned(), json!(data))]);
        let next = page.next.as_ref().map(|(created_at, id)| {
            let offset = BASE64_URL_SAFE_NO_PAD.encode(format!("{created_at}.{id}"));
            let arguments = form_urlencoded::Serializer::new(String::new())
                .append_pair("offset", &offset)
                .extend_pairs(&self.repeat)
                .finish();
            envelope.insert("offset".to_owned(), json!(offset));
            format!("{path}?{arguments}")
        });
        envelope.insert("next".to_owned(), json!(next));
        Value::Object(envelope)
    }
}

pub(super) fn size(text: &str) -> Result<usize, ApiError> {
    match text.parse() {
        Ok(size @ 1..=MAX_SIZE) => Ok(size),
        Ok(_) => Err(ApiError::Size("size must be an integer between 1 and 1000")),
        Err(_) => Err(ApiError::Size("size must be a number")),
    }
}

fn cursor(text: &str) -> Result<Cursor, ApiError> {
    let wrong = |why| ApiError::Offset(text.to_owned(), why);
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let decoded = decoded.map_err(|_| wrong("bad base64 encoding"))?;
    let cursor = || {
        let text = std::str::from_utf8(&decoded).ok()?;
        let (created_at, id) = text.split_once('.')?;
        let created_at = created_at.parse().ok()?;
        is_uuid(id).then(|| (created_at, id.to_owned()))
    };
    cursor().ok_or_else(|| wrong(NOT_ISSUED))
}

fn tags(text: &str) -> Result<Tags, ApiError> {
    let split = |separator| {
        text.split(separator)
            .map(|tag: &str| tag.trim().to_owned())
            .collect()
    };
    let tags = match (text.contains(','), text.contains('/')) {
        (true, true) => return Err(ApiError::Tags("invalid filter syntax")),
        (false, true) => Tags::Any(split('/')),
        (_, false) => Tags::All(split(',')),
    };
    let (Tags::All(list) | Tags::Any(list)) = &tags;
    if list.len() > MOST_TAGS {
        return Err(ApiError::Tags("at most 50 tags may be given"));
    }
    if list.iter().any(String::is_empty) {
        return Err(ApiError::Tags("cannot be null"));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Paging, String> {
        let schema = Schema::by_kind("consumers").expect("a kind");
        Paging::read(schema, arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_a_number_from_1_to_1000() {
        assert_eq!(read("").expect("valid").query.size, 100);
        assert_eq!(read("size=1000").expect("valid").query.size, 1000);
        assert_eq!(read("size=x").unwrap_err(), "size must be a number");
        for size in ["size=0", "size=1001"] {
            assert!(
                read(size)
                    .unwrap_err()
                    .starts_with("size must be an integer"),
                "{size}"
            );
        }
    }

    #[test]
    fn an_offset_that_was_not_given_out_is_refused() {
        for offset in [
            "x",
            "1.x",
            "eC4wZmQyMzE5Zi0xM2VhLTQ1ODItYTQ0OC04ZDExODkzMDI2YTg",
            "%00",
            "1",
        ] {
            let message = read(&format!("offset={offset}")).unwrap_err();
            assert!(message.contains("is not a valid offset: "), "{message}");
        }
        let issued = BASE64_URL_SAFE_NO_PAD.encode("1.0fd2319f-13ea-4582-a448-8d11893026a8");
        let paging = read(&format!("offset={issued}")).expect("valid");
        assert_eq!(
            paging.query.after,
            Some((1, "0fd2319f-13ea-4582-a448-8d11893026a8".to_owned()))
        );
    }

    #[test]
    fn the_next_url_repeats_size_and_tags() {
        let page = Page {
            rows: Vec::new(),
            next: Some((5, "i".into())),
        };
        let schema = Schema::by_kind("consumers").expect("a kind");
        let paging = read("size=1&tags=a,b").expect("valid");
        assert_eq!(
            paging.envelope(|row| schema.response(&row.entity), "/consumers", &page),
            json!({"data": [], "offset": "NS5p",
                   "next": "/consumers?offset=NS5p&size=1&tags=a%2Cb"})
        );
        let last = Page::default();
        assert_eq!(
            paging.envelope(|row| schema.response(&row.entity), "/consumers", &last),
            json!({"data": [], "next": null})
        );
    }

    #[test]
    fn tags_are_all_or_any_of_a_list() {
        let tags = |arguments: &str| read(arguments).map(|paging| paging.query.tags);
        assert_eq!(
            tags("tags=a,b"),
            Ok(Some(Tags::All(vec!["a".into(), "b".into()])))
        );
        assert_eq!(
            tags("tags=a/b"),
            Ok(Some(Tags::Any(vec!["a".into(), "b".into()])))
        );
        assert!(tags("tags=a/b,c").is_err() && tags("tags=").is_err());
    }
}
