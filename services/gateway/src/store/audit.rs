//! Audit records. One of a change of an entity is in the same batch; the server copies it from the bucket to the stream
//! of records, as it does with events. Others are published there.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use hookline_shared::batch::Message;
use hookline_shared::event;
use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{
    ALL_WORKSPACES, AUDIT_KEYS, AUDIT_STREAM, AUDIT_SUBJECTS, AUDIT_WRITES, audit_key, audit_of,
    audit_subject, header, is_audit_key,
};

use super::Store;
use super::error::Error;

/// Between looks for records in the bucket that have been copied.
const PURGE_PERIOD: Duration = Duration::from_secs(5);

/// The message of a record, for the batch of the change that it is about.
pub(super) fn message(workspace: &str, record: &Value) -> Message {
    let id = Uuid::new_v4().to_string();
    let body = Bytes::from(record.to_string());
    Message::new(audit_key(&id, workspace), body).header(header::MESSAGE_ID, id)
}

impl Store {
    /// Records what is no change of an entity.
    pub(crate) async fn record(
        &self,
        workspace: &str,
        about: &str,
        record: &Value,
    ) -> Result<(), Error> {
        self.connected().await?;
        let context = jetstream::new(self.client.clone());
        let subject = audit_subject(workspace, about);
        let unavailable = |error| Error::Unavailable(Some(error));
        let stored = context
            .publish(subject, record.to_string().into())
            .await
            .map_err(|error| unavailable(error.into()))?;
        stored.await.map_err(|error| unavailable(error.into()))?;
        Ok(())
    }

    /// The newest records of a workspace, or of all, with a sequence below `before`.
    pub(crate) async fn records(
        &self,
        workspace: &str,
        before: u64,
        count: usize,
    ) -> Result<Vec<Stored>, Error> {
        self.connected().await?;
        let filter = match workspace {
            ALL_WORKSPACES => AUDIT_SUBJECTS.to_owned(),
            name => audit_of(name),
        };
        let client = self.lists().client();
        Ok(stream_reader::newest(client, AUDIT_STREAM, &filter, before, count).await?)
    }

    /// Removes records from the bucket that have been copied; never returns.
    pub(crate) async fn purge_records(&self) {
        let mut purged = 0;
        loop {
            tokio::time::sleep(PURGE_PERIOD).await;
            match self.purge_copied(purged).await {
                Ok(sequence) => purged = sequence,
                Err(error) => tracing::debug!(%error, "cannot purge audit records"),
            }
        }
    }

    /// They are copied in order: the newest copy says how far. It is looked up, since it may be one of another bucket.
    async fn purge_copied(&self, purged: u64) -> Result<u64, Error> {
        let client = self.lists().client();
        let newest = stream_reader::last(client, AUDIT_STREAM, AUDIT_WRITES).await?;
        let sequence = newest.as_ref().and_then(|record| {
            let sequence = event::bucket_sequence(record.header(header::STREAM_SOURCE)?);
            sequence.filter(|sequence| *sequence != purged)
        });
        let (Some(copy), Some(sequence)) = (newest, sequence) else {
            return Ok(purged);
        };
        let id = |headers| event::get(headers, header::MESSAGE_ID);
        match self.bucket.get_raw_message(sequence).await {
            Ok(entry)
                if is_audit_key(&entry.subject)
                    && id(Some(&entry.headers)) == id(copy.headers.as_ref()) => {}
            Ok(_) => return Ok(purged),
            // Purged by another node.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                return Ok(sequence);
            }
            Err(error) => return Err(Error::Unavailable(Some(error.into()))),
        }
        let purge = self
            .bucket
            .purge()
            .filter(AUDIT_KEYS)
            .sequence(sequence + 1);
        purge
            .await
            .map_err(|error| Error::Unavailable(Some(error.into())))?;
        Ok(sequence)
    }
}
