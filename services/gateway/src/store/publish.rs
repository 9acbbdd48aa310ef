//! Publishes events that are no changes of an entity.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hookline_shared::batch::{self, Message};
use hookline_shared::subject::{encode_header, event_subject, header, outbox_key};
use hookline_shared::trace::Sent;
use parking_lot::Mutex;

use super::Store;
use super::error::Error;

/// An event that somebody raised through a gateway.
#[derive(Debug)]
pub(crate) struct Raised {
    /// Without line breaks.
    pub id: String,
    /// Whether the id is of the sender's making: the event may be stored already.
    pub is_key: bool,
    /// Who raised it.
    pub node: String,
    pub source: String,
    pub name: String,
    pub data: Bytes,
    /// W3C trace context, if it is another than the request's.
    pub traceparent: Option<String>,
}

/// The writer of the event stream.
#[derive(Debug)]
pub(super) struct Events {
    writer: batch::Writer,
    /// When it was seen that the stream takes no atomic batches.
    only_singly: Mutex<Option<Instant>>,
}

/// Between two looks whether the stream takes batches by now.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Events {
    pub(super) fn new(writer: batch::Writer) -> Self {
        Self {
            writer,
            only_singly: Mutex::default(),
        }
    }
}

impl Store {
    /// Publishes through the outbox, like any other event of a gateway. An event with the same id may be there already.
    pub(crate) async fn publish(
        &self,
        id: &str,
        names: (&str, &str, &str),
        data: Bytes,
    ) -> Result<(), Error> {
        if self.backlog.is_full() {
            return Err(Error::Full);
        }
        let (entry, sent) = self.origin.event(id, names, data);
        if entry.size() > self.max_event() {
            return Err(Error::TooLarge);
        }
        self.connected().await?;
        let subject = entry.subject().to_owned();
        match self.writer.commit(vec![entry]).await {
            Ok(_) => Ok(()),
            // Ids are unique within a workspace, which the server does not know.
            Err(batch::Error::DuplicateId) => match self.last_message(&subject).await? {
                Some(_) => Ok(()),
                None => Err(Error::Contended),
            },
            Err(error) => {
                sent.failed();
                Err(error.into())
            }
        }
    }

    /// Stores all of the events or none, and returns once they are on disk. Those that are there already are not stored
    /// again, or dispatchers drop them.
    ///
    /// They go straight to the event stream, where each commit of many needs as few syncs as one event. Through the outbox
    /// the server copies and syncs them one by one.
    pub(crate) async fn raise(&self, workspace: &str, events: &[&Raised]) -> Result<(), Error> {
        if self.backlog.is_full() {
            return Err(Error::Full);
        }
        let sent: Vec<_> = events.iter().map(|one| Sent::begin(&one.id)).collect();
        let messages = |subject: fn(&str, &Raised) -> String| -> Vec<Message> {
            let sent = events.iter().zip(&sent);
            sent.map(|(event, sent)| self.message(event, sent, subject(workspace, event)))
                .collect()
        };
        let direct = messages(|workspace, of| event_subject(workspace, &of.source, &of.name));
        let most = self.backlog.max_event();
        if direct.iter().any(|one| one.size() > self.max_event()) {
            return Err(Error::LargeEvent(most));
        }
        self.connected().await?;
        let result = match self.commit_to_stream(direct).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let entries =
                    messages(|workspace, of| outbox_key(&of.id, workspace, &of.source, &of.name));
                self.commit_to_outbox(entries).await
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            sent.into_iter().for_each(Sent::failed);
        }
        result
    }

    /// False if nothing was stored, and the outbox may still take it.
    async fn commit_to_stream(&self, messages: Vec<Message>) -> Result<bool, Error> {
        let seen = *self.events.only_singly.lock();
        if seen.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Ok(false);
        }
        let is_one = messages.len() == 1;
        let messages = messages.into_iter().map(Message::repeatable).collect();
        match self.events.writer.commit(messages).await {
            Ok(_) => Ok(true),
            // One of many: the outbox tells which.
            Err(batch::Error::DuplicateId) => Ok(is_one),
            // Whatever keeps batches out, such as 50 that others leave open, the outbox takes them.
            Err(error @ (batch::Error::Rejected { .. } | batch::Error::Unavailable)) => {
                self.fall_back(&error);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn fall_back(&self, error: &batch::Error) {
        let is_disabled =
            matches!(error, batch::Error::Rejected { code, .. } if *code == batch::NOT_ATOMIC);
        if is_disabled
            && self
                .events
                .only_singly
                .lock()
                .replace(Instant::now())
                .is_none()
        {
            tracing::warn!(
                "the event stream takes no atomic batches, so events come in slowly: `hookline-gateway migrate` with HOOKLINE_EVENT_BATCHES=true lets it"
            );
        }
        tracing::debug!(%error, "events go through the outbox");
    }

    /// All or none, unless some are there already.
    async fn commit_to_outbox(&self, entries: Vec<Message>) -> Result<(), Error> {
        match self.writer.commit(entries.clone()).await {
            Ok(_) => return Ok(()),
            Err(batch::Error::DuplicateId) => {}
            Err(error) => return Err(error.into()),
        }
        let each =
            entries
                .into_iter()
                .map(async |entry| match self.writer.commit(vec![entry]).await {
                    Ok(_) | Err(batch::Error::DuplicateId) => Ok(()),
                    Err(error) => Err(error.into()),
                });
        futures::future::try_join_all(each).await.map(drop)
    }

    fn message(&self, event: &Raised, sent: &Sent, subject: String) -> Message {
        let message = Message::new(subject, event.data.clone())
            .header(header::MESSAGE_ID, &event.id)
            .header(header::NODE, encode_header(&event.node))
            .header(header::PID, self.origin.pid.to_string());
        let given = event.traceparent.clone().filter(|given| is_context(given));
        match given.or_else(|| sent.traceparent()) {
            Some(trace) => message.header(header::TRACEPARENT, trace),
            None => message,
        }
    }
}

/// Whether it is a W3C trace context, of version 00.
fn is_context(text: &str) -> bool {
    let hex = |part: Option<&str>, digits: usize| {
        part.is_some_and(|part| {
            part.len() == digits
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let mut parts = text.split('-');
    parts.next() == Some("00")
        && hex(parts.next(), 32)
        && hex(parts.next(), 16)
        && hex(parts.next(), 2)
        && parts.next().is_none()
}
