//! Reading a stream by subject, in order, a page at a time, by direct gets: any replica answers, no
//! consumer is made, and what is read stays where it is.

use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::event;
use crate::subject::{self, ALL_SUBJECTS, header};

/// The most bytes of one page.
const PAGE_BYTES: usize = 4 << 20;
/// Messages at a stream's beginning among which one of a filter is looked for.
const HEAD: usize = 16;
/// Messages that are asked for at the same time.
const FEW: u64 = 16;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A message as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers, and those by which the server says where it stands.
    pub headers: Option<HeaderMap>,
    /// Its body.
    pub payload: Bytes,
}

impl Stored {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        event::get(self.headers.as_ref(), name)
    }

    /// How many messages matched when it was read with a filter, from this one on.
    ///
    /// # Errors
    /// If it was not read with a filter.
    fn with_followers(&self) -> Result<u64, Error> {
        let followers = self.header(header::PENDING).and_then(|n| n.parse().ok());
        let followers: u64 = followers.ok_or(Error::Answer)?;
        Ok(followers + 1)
    }
}

/// Why a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection is gone.
    #[error("the request could not be sent: {0}")]
    Send(#[source] async_nats::Error),
    /// No answer, or not all of it.
    #[error("the stream did not answer in time")]
    Timeout,
    /// The server says that it cannot.
    #[error("the server refused: {0}")]
    Refused(String),
    /// An answer that says not where it stands.
    #[error("an answer has no sequence or subject")]
    Answer,
}

/// Messages under `filter` from the sequence `from` on, at most `count`.
///
/// # Errors
/// If the stream does not answer as it should.
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
        let answer = tokio::time::timeout(TIMEOUT, answers.next()).await;
        let message = answer.ok().flatten().ok_or(Error::Timeout)?;
        match message.status {
            None | Some(StatusCode::OK) => {
                page.push(stored(message)?);
                // Before it says that this is the end, the server counts anew what follows.
                if page.len() == count {
                    return Ok(page);
                }
            }
            // The end of the page, or there is nothing.
            Some(status) if status.as_u16() == 204 || status == StatusCode::NOT_FOUND => {
                return Ok(page);
            }
            Some(status) => return Err(refused(status, &message)),
        }
    }
}

/// How many messages there are under `filter`.
///
/// # Errors
/// If the stream does not answer as it should.
pub async fn count(client: &Client, stream: &str, filter: &str) -> Result<u64, Error> {
    Ok(beginning(client, stream, filter, 1).await?.1)
}

/// The first messages under `filter`, at most `count`, and how many there are in all.
///
/// # Errors
/// If the stream does not answer as it should.
pub async fn beginning(
    client: &Client,
    stream: &str,
    filter: &str,
    count: usize,
) -> Result<(Vec<Stored>, u64), Error> {
    let start = Start::find(client, stream, filter).await?;
    let mut all = Vec::from_iter(start.first);
    // At least one, since it says how many there are.
    let rest = count.saturating_sub(all.len()).max(1);
    let rest = page(client, stream, filter, start.next, rest).await?;
    let followers = rest.first().map_or(Ok(0), Stored::with_followers)?;
    let total = all.len() as u64 + followers;
    all.extend(rest);
    all.truncate(count);
    Ok((all, total))
}

/// As [`page`], but the server counts nothing: each message is asked for on its own.
///
/// # Errors
/// If the stream does not answer as it should.
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

/// A few messages under `filter` from the sequence `from` on, none only if there are none. The server
/// counts nothing.
///
/// # Errors
/// If the stream does not answer as it should.
pub async fn few(
    client: &Client,
    stream: &str,
    filter: &str,
    from: u64,
) -> Result<Vec<Stored>, Error> {
    // Most sequences are taken. Where one is not, its answer is that of the next one.
    let gets = (from..from + FEW).map(|sequence| next(client, stream, filter, sequence));
    let mut few: Vec<_> = try_join_all(gets).await?.into_iter().flatten().collect();
    few.dedup_by_key(|message| message.sequence);
    Ok(few)
}

/// Where the messages under a filter begin.
///
/// Asked from the stream's first sequence on, the server goes through all subjects under the filter to
/// find where they begin, and through them again to count them. With very many that takes a second.
/// Most often one of them is among the stream's first messages, and the search can be spared.
struct Start {
    /// The stream's first message, if it is one of them.
    first: Option<Stored>,
    /// No others are before this sequence.
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
/// The stream is read forwards only, so the sequence at which the page begins is looked for, from
/// the end on: the server says of each message how many follow it.
///
/// # Errors
/// If the stream does not answer as it should.
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
    // Too many begin at `low`, not too many at `start`.
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

/// The last message under `filter`.
///
/// # Errors
/// If the stream does not answer as it should.
pub async fn last(client: &Client, stream: &str, filter: &str) -> Result<Option<Stored>, Error> {
    single(client, stream, &json!({ "last_by_subj": filter })).await
}

/// The first message under `filter` with at least this sequence.
///
/// # Errors
/// If the stream does not answer as it should.
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

/// The first message under `filter` with at least this sequence, which says how many follow it.
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
