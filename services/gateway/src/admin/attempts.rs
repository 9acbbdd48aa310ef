//! `GET /event-hooks/{id}/attempts`: the attempts at a hook's deliveries, newest first.
//!
//! They are read from the delivery log, whose subjects contain the hour: a page is found in the
//! newest hours without reading the others.

use async_nats::Client;
use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use hookline_shared::clock::unix_millis;
use hookline_shared::stream_reader;
use hookline_shared::subject;

use super::collections::Collection;
use super::paging::{NOT_ISSUED, size};
use super::response;
use super::selection::unknown;
use crate::error::ApiError;
use crate::store::{self, Store};

/// Default page size.
const DEFAULT_SIZE: usize = 100;
/// Hours searched for one page.
const MAX_HOURS: u64 = 24 * 31;
/// Messages read at once; each holds one attempt or many.
const MAX_MESSAGES: usize = 50;

/// Where a page begins: with attempts older than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Before {
    hour: u64,
    sequence: u64,
    /// Line in the message with this sequence.
    line: usize,
}

impl Before {
    fn end_of(hour: u64) -> Self {
        Self {
            hour,
            sequence: u64::MAX,
            line: 0,
        }
    }
}

impl Collection<'_> {
    pub(super) async fn attempts(&self, key: &str, uri: &Uri) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        let (before, size) = read(uri.query().unwrap_or_default())?;
        self.store.connected().await?;
        let (data, next) = newest(self.store, &hook.id, before, size).await?;
        let mut body = json!({ "data": data, "next": null });
        if let Some(Before {
            hour,
            sequence,
            line,
        }) = next
        {
            let offset = format!("{hour}.{sequence}.{line}");
            let path = uri.path().trim_end_matches('/');
            body["next"] = json!(format!("{path}?offset={offset}&size={size}"));
            body["offset"] = json!(offset);
        }
        Ok(response::ok(&body))
    }
}

fn read(arguments: &str) -> Result<(Option<Before>, usize), ApiError> {
    let (mut before, mut count) = (None, DEFAULT_SIZE);
    for (name, value) in form_urlencoded::parse(arguments.as_bytes()) {
        match name.as_ref() {
            "size" => count = size(&value)?,
            "offset" => {
                let offset = offset(&value);
                before =
                    Some(offset.ok_or_else(|| ApiError::Offset(value.into_owned(), NOT_ISSUED))?);
            }
            _ => return Err(unknown(&name, "size, offset")),
        }
    }
    Ok((before, count))
}

fn offset(text: &str) -> Option<Before> {
    let mut numbers = text.splitn(3, '.');
    Some(Before {
        hour: numbers.next()?.parse().ok()?,
        sequence: numbers.next()?.parse().ok()?,
        line: numbers.next()?.parse().ok()?,
    })
}

/// The newest attempts before a point, and where the next page begins.
async fn newest(
    store: &Store,
    hook: &str,
    before: Option<Before>,
    size: usize,
) -> Result<(Vec<Value>, Option<Before>), store::Error> {
    let (client, stream) = (store.lists().client(), subject::ATTEMPTS_STREAM);
    let all = subject::attempts_of(hook);
    let (Some(first), Some(last)) = (
        stream_reader::next(client, stream, &all, 1).await?,
        stream_reader::last(client, stream, &all).await?,
    ) else {
        return Ok((Vec::new(), None));
    };
    // No attempt began in the future, whatever a subject says.
    let now = unix_millis() / 3_600_000;
    let hour = |message: &stream_reader::Stored| {
        subject::parse_attempt_hour(&message.subject).map(|hour| hour.min(now))
    };
    let (oldest, newest) = (hour(&first).unwrap_or(0), hour(&last).unwrap_or(0));
    // The last message may be of an earlier hour than the newest: look one hour further.
    let mut before = before.unwrap_or(Before::end_of(newest + 1));
    // Long attempts are logged after newer ones.
    before.hour = before.hour.min(newest + 1);
    let mut data = Vec::new();
    let last_hour = oldest
        .saturating_sub(1)
        .max(before.hour.saturating_sub(MAX_HOURS));
    while before.hour >= last_hour {
        let filter = subject::attempts_in(hook, before.hour);
        let end = before.sequence.saturating_add(u64::from(before.line > 0));
        let wanted = MAX_MESSAGES.min(size - data.len());
        let page = stream_reader::newest(client, stream, &filter, end, wanted).await?;
        for message in &page {
            let lines: Vec<_> = message.payload.split(|byte| *byte == b'\n').collect();
            let older = if message.sequence == before.sequence {
                before.line.min(lines.len())
            } else {
                lines.len()
            };
            for (line, attempt) in lines[..older].iter().enumerate().rev() {
                (before.sequence, before.line) = (message.sequence, line);
                // Skips lines that are not records.
                data.extend(serde_json::from_slice::<Value>(attempt));
                if data.len() == size {
                    return Ok((data, Some(before)));
                }
            }
            (before.sequence, before.line) = (message.sequence, 0);
        }
        // An empty page may also mean that attempts logged meanwhile moved it beyond its end.
        if page.is_empty() && !is_before(client, &filter, end).await? {
            if before.hour == 0 {
                break;
            }
            before = Before::end_of(before.hour - 1);
        }
    }
    Ok((data, None))
}

/// Whether there is a message under `filter` before a sequence.
async fn is_before(client: &Client, filter: &str, end: u64) -> Result<bool, store::Error> {
    let first = stream_reader::next(client, subject::ATTEMPTS_STREAM, filter, 1).await?;
    Ok(first.is_some_and(|first| first.sequence < end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        let (before, size) = read("size=7&offset=12.34.5").expect("valid");
        let begin = Before {
            hour: 12,
            sequence: 34,
            line: 5,
        };
        assert_eq!((before, size), (Some(begin), 7));
        assert_eq!(read("").expect("valid"), (None, DEFAULT_SIZE));
        for wrong in [
            "size=0",
            "size=x",
            "offset=1",
            "offset=x.1.1",
            "offset=-1.1.1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
