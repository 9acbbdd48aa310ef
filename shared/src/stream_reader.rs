//! Reads a stream by subject, in order, page by page. Uses direct gets: any replica answers, without a
//! consumer, and messages stay in the stream.

use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::event;
use crate::subject::{self, ALL_SUBJECTS, header};

const PAGE_BYTES: usize = 4 << 20;
/// How many messages from the start of a stream [`Start`] searches.
const HEAD: usize = 16;
/// Concurrent requests of [`few`].
const FEW: u64 = 16;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sequence: u64,
    pub subject: String,
    /// Include those that the server adds to a direct get.
    pub headers: Option<HeaderMap>,
    pub payload: Bytes,
}

impl Stored {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        event::get(self.headers.as_ref(), name)
    }

    /// How many messages matched the filter from this one on. Only [`page`] asks the server to count them.
    fn with_followers(&self) -> Result<u64, Error> {
        let followers = self.header(header::PENDING).and_then(|n| n.parse().ok());
        let followers: u64 = followers.ok_or(Error::Answer)?;
        Ok(followers + 1)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request to the stream failed: {0}")]
    Send(#[source] async_nats::Error),
    #[error("the stream did not answer in time")]
    Timeout,
    #[error("the server refused to read the stream: {0}")]
    Refused(String),
    #[error("a message from the stream has no sequence, subject or count")]
    Answer,
}

/// Up to `count` messages under `filter`, from the sequence `from` on.
pub async fn page(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
    count: usize,
) -> Result<Vec<Stored>, Error> {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| Error::Send(error.into()))?;
    let request = json!({
        "seq": from.max(1), "next_by_subj": filter, "batch": count, "max_bytes": PAGE_BYTES,
    });
    let sent = client
        .publish_with_reply(direct_get(stream), inbox, request.to_string().into())
        .await;
    sent.map_err(|error| Error::Send(error.into()))?;
    let mut page = Vec::new();
    loop {
        let answer = tokio::time::timeout(RESPONSE_TIMEOUT, answers.next()).await;
        let message = answer.ok().flatten().ok_or(Error::Timeout)?;
        match message.status {
            None | Some(StatusCode::OK) => {
                page.push(stored(message)?);
                // Do not wait for the end of the page: the server counts all messages again before it.
                if page.len() == count {
                    return Ok(page);
                }
            }
            // The end of the page, or no message matches.
            Some(status) if status.as_u16() == 204 || status == StatusCode::NOT_FOUND => {
                return Ok(page);
            }
            Some(status) => return Err(refused(status, &message)),
        }
    }
}

/// Counts the messages under `filter`.
pub async fn count(client: &Client, stream: &str, filter: &str) -> Result<u64, Error> {
    Ok(beginning(client, stream, filter, 1).await?.1)
}

/// The first messages under `filter`, up to `count`, and the total number of messages under it.
pub async fn beginning(
    client: &Client,
    stream: &str,
    filter: &str,
    count: usize,
) -> Result<(Vec<Stored>, u64), Error> {
    let start = Start::find(client, stream, filter).await?;
    let mut all = Vec::from_iter(start.first);
    // At least one, since its headers hold the total.
    let rest = count.saturating_sub(all.len()).max(1);
    let rest = page(client, stream, filter, start.next, rest).await?;
    let followers = rest.first().map_or(Ok(0), Stored::with_followers)?;
    let total = all.len() as u64 + followers;
    all.extend(rest);
    all.truncate(count);
    Ok((all, total))
}

/// Like [`page`], but with a request per message, which spares the server counting.
pub async fn uncounted(
    client: &Client,
    stream: &str,
    filter: &str,
    mut from: u64,
    count: usize,
) -> Result<Vec<Stored>, Error> {
    let mut all = Vec::new();
    if from <= 1 {
        let start = Start::find(client, stream, filter).await?;
        all.extend(start.first);
        from = start.next;
    }
    while all.len() < count {
        let some = few(client, stream, filter, from).await?;
        let Some(last) = some.last() else { break };
        from = last.sequence + 1;
        all.extend(some);
    }
    all.truncate(count);
    Ok(all)
}

/// Some messages under `filter` from the sequence `from` on, and none only if there are no more. The server
/// does not count messages.
pub async fn few(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Vec<Stored>, Error> {
    // Most sequences match. For any other, the server returns the next match, so there may be duplicates.
    let gets = (from..from + FEW).map(|sequence| next(client, stream, filter, sequence));
    let mut few: Vec<_> = try_join_all(gets).await?.into_iter().flatten().collect();
    few.dedup_by_key(|message| message.sequence);
    Ok(few)
}

/// Where the messages under a filter begin.
///
/// To read from the first sequence on, the server walks all subjects under the filter to find the first
/// message, and walks them again to count. With very many subjects that takes a second. Usually one of
/// the stream's first messages matches, which spares the search.
struct Start {
    /// The stream's first message, if it matches.
    first: Option<Stored>,
    /// No other message before this sequence matches.
    next: u64,
}

impl Start {
    async fn find(client: &Client, stream: &str, filter: &str) -> Result<Self, Error> {
        let head = page(client, stream, ALL_SUBJECTS, 1, HEAD).await?;
        let found = head
            .into_iter()
            .enumerate()
            .find(|(_, message)| subject::matches(filter, &message.subject));
        Ok(match found {
            Some((0, message)) => Self {
                next: message.sequence + 1,
                first: Some(message),
            },
            found => Self {
                first: None,
                next: found.map_or(1, |(_, message)| message.sequence),
            },
        })
    }
}

/// The newest messages under `filter` with a sequence below `before`, newest first.
///
/// Direct gets only read forwards, so this searches backwards for the sequence at which the page begins,
/// guided by the server's count of the messages that follow.
pub async fn newest(
    client: &Client,
    stream: &str,
    filter: &str,
    before: u64,
    count: usize,
) -> Result<Vec<Stored>, Error> {
    let Some(last) = last(client, stream, filter).await? else {
        return Ok(Vec::new());
    };
    let end = before.min(last.sequence + 1);
    let beyond = match from(client, stream, filter, end).await? {
        Some(message) => message.with_followers()?,
        None => 0,
    };
    let wanted = beyond + count as u64;
    // Invariant: from `low` on there are too many messages, from `start` on there are not.
    let (mut low, mut start, mut step) = (0, end, count as u64);
    while start > low + 1 {
        let middle = if low == 0 {
            end.saturating_sub(step).max(1)
        } else {
            low + (start - low) / 2
        };
        step *= 4;
        match from(client, stream, filter, middle).await? {
            Some(message) if message.with_followers()? > wanted => low = message.sequence,
            _ => start = middle,
        }
    }
    let mut page = page(client, stream, filter, start, count).await?;
    page.retain(|message| message.sequence < end);
    page.reverse();
    Ok(page)
}

pub async fn last(client: &Client, stream: &str, filter: &str) -> Result<Option<Stored>, Error> {
    single(client, stream, &json!({ "last_by_subj": filter })).await
}

/// The first message under `filter` from the sequence `from` on.
pub async fn next(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Option<Stored>, Error> {
    let request = json!({ "seq": from.max(1), "next_by_subj": filter });
    single(client, stream, &request).await
}

async fn single(client: &Client, stream: &str, request: &Value) -> Result<Option<Stored>, Error> {
    let answer = client.request(direct_get(stream), request.to_string().into());
    let message = answer.await.map_err(|error| Error::Send(error.into()))?;
    match message.status {
        None | Some(StatusCode::OK) => stored(message).map(Some),
        Some(StatusCode::NOT_FOUND) => Ok(None),
        Some(status) => Err(refused(status, &message)),
    }
}

/// Like [`next`], with the count of the messages that follow.
async fn from(
    client: &Client,
    stream: &str,
    filter: &str,
    sequence: u64,
) -> Result<Option<Stored>, Error> {
    let page = page(client, stream, filter, sequence, 1).await?;
    Ok(page.into_iter().next())
}

fn refused(status: StatusCode, message: &async_nats::Message) -> Error {
    let described = message.description.as_ref().map(ToString::to_string);
    Error::Refused(described.unwrap_or_else(|| status.to_string()))
}

fn stored(message: async_nats::Message) -> Result<Stored, Error> {
    let text = |name| event::get(message.headers.as_ref(), name);
    let sequence = text(header::SEQUENCE).and_then(|text| text.parse().ok());
    let subject = text(header::STORED_SUBJECT).map(str::to_owned);
    Ok(Stored {
        sequence: sequence.ok_or(Error::Answer)?,
        subject: subject.ok_or(Error::Answer)?,
        payload: message.payload,
        headers: message.headers,
    })
}

fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}
